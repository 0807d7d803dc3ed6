//! Unseal and seal: how the unsealed state comes and goes.

use super::open::Open;
use super::{Caller, Node, ServiceError, blocking};
use crate::crash::{self, CeremonyStep};
use crate::store::{Database, DatabaseError, Entry, RowMac};
use crate::telemetry::HsmMeter;
use kms_core::audit::{AuditFault, Outcome, SignedCheckpoint, Verifier};
use kms_core::codec;
use kms_core::policy::Action;
use kms_core::reason::Reason;
use kms_hsm::{
    BreakerOptions, ErrorClass, FailureReason, Health, HsmError, ListedObject, LockedBytes, ModuleError,
    ObjectKind, PUBLIC_KEY_LEN, Pin, Pool, PoolOptions,
};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncBufReadExt;

/// How long the checks of an unseal may take in the HSM.
const UNSEAL_DEADLINE: Duration = Duration::from_secs(30);
/// How often the HSM's keys are checked when it answers with errors that may pass.
const KEY_CHECK_TRIES: u32 = 5;
/// Between two tries.
const KEY_CHECK_PAUSE: Duration = Duration::from_millis(200);
/// Checkpoints of the database that are held at a time.
const CHECKPOINTS_PER_READ: u32 = 1_000;
/// How long a seal waits for calls that still use the unsealed state.
const SEAL_WAIT: Duration = Duration::from_secs(15);

/// Why the node did not open, although the quorum was present.
#[derive(Debug, thiserror::Error)]
pub enum UnsealError {
    /// The process is ending.
    #[error("the server is ending")]
    Ending,
    /// The node is open already.
    #[error("the node is unsealed already")]
    AlreadyOpen,
    /// The token is not there, not ours, or refused the PIN.
    #[error("the operations partition does not open")]
    Partition(#[source] Box<ModuleError>),
    /// The token's library does not come back.
    #[error("the HSM's library did not answer within {} s; if it never does, restart the server", UNSEAL_DEADLINE.as_secs())]
    NoAnswer,
    /// No threads for the pool.
    #[error("the HSM pool does not start")]
    Pool(#[source] std::io::Error),
    /// The HSM failed while its keys were checked.
    #[error("{what} in the HSM is not as the bundle says")]
    Key {
        /// Which key.
        what: &'static str,
        /// What the HSM says.
        #[source]
        source: HsmError,
    },
    /// A public key differs from the bundle's.
    #[error("the checkpoint key in the HSM is not the one in the bundle")]
    CheckpointKey,
    /// The database failed.
    #[error("the database cannot be used")]
    Database(#[from] DatabaseError),
    /// The second place cannot be read.
    #[error("the log's second place {path} cannot be read")]
    SecondPlace {
        /// Which file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The second place holds something else than checkpoints.
    #[error("the log's second place holds lines, and none of them is a checkpoint")]
    SecondPlaceLine,
    /// The log is shorter or other than it was.
    #[error(
        "the log does not contain what its second place saw at size {size}: it was rolled back or replaced"
    )]
    RolledBack {
        /// Size of the checkpoint in the second place.
        size: u64,
    },
    /// The log is not what was signed.
    #[error("the audit log does not verify")]
    Log(#[from] AuditFault),
    /// The log's head row is not the log's end.
    #[error("the log's head row is not what its segments give")]
    Head,
    /// The unseal cannot be recorded, or an interrupted creation cannot be finished.
    #[error("the unseal cannot be completed")]
    Service(#[from] ServiceError),
}

/// Why a node is sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealCause {
    /// Somebody with the right asked for it.
    Asked {
        /// Who.
        by: String,
    },
    /// The process ends.
    Shutdown,
    /// The operations token stayed away for longer than the grace.
    TokenAway,
    /// The token refused the PIN.
    PinRefused,
}

impl SealCause {
    fn sentence(&self) -> String {
        match self {
            SealCause::Asked { by } => format!("{by} asked for it"),
            SealCause::Shutdown => "the process is ending".into(),
            SealCause::TokenAway => "the operations token stayed away for too long".into(),
            SealCause::PinRefused => "the operations token refused its PIN".into(),
        }
    }
}

impl Node {
    /// Opens the operations partition with the PIN that a ceremony gave, checks keys and log, and serves.
    ///
    /// One wrong PIN is never followed by another try: the ceremony is over, and a new one is needed.
    ///
    /// # Errors
    /// [`UnsealError`]; the node stays sealed, and the PIN and everything opened are wiped.
    pub async fn unseal(
        self: &Arc<Self>,
        pin: Pin,
        record_details: Vec<(String, String)>,
    ) -> Result<(), UnsealError> {
        let is_ending = self.turn.lock().await;
        if *is_ending {
            return Err(UnsealError::Ending);
        }
        if self.opened().is_some() {
            return Err(UnsealError::AlreadyOpen);
        }
        let node = self.clone();
        let opening = blocking(move || node.open_pool(pin));
        // A driver that hangs cannot be stopped; a pool that comes later than this is dropped, which logs it out.
        let pool =
            tokio::time::timeout(UNSEAL_DEADLINE, opening).await.map_err(|_| UnsealError::NoAnswer)??;
        let opened = self.check_and_open(pool).await;
        let (open, records) = match opened {
            Ok(opened) => opened,
            Err((error, pool)) => {
                let _ = blocking(move || pool.stop()).await;
                return Err(error);
            }
        };
        let result = self.record_unseal(&open, records, record_details).await;
        if let Err(error) = result {
            let _ = blocking(move || open.pool.stop()).await;
            return Err(error);
        }
        self.open.store(Some(open.clone()));
        self.metrics.set_unsealed(true);
        tracing::info!("unsealed");
        tokio::spawn(self.clone().watch_health(Arc::downgrade(&open)));
        tokio::spawn(self.clone().make_checkpoints(Arc::downgrade(&open)));
        tokio::spawn(self.clone().follow_dates(Arc::downgrade(&open)));
        Ok(())
    }

    fn open_pool(&self, pin: Pin) -> Result<Pool, UnsealError> {
        let operations = &self.bundle.operations;
        let partition = self
            .module
            .open_partition(&operations.label, &operations.serial, pin)
            .map_err(|error| UnsealError::Partition(Box::new(error)))?;
        crash::at_ceremony(CeremonyStep::LoggedIn);
        let hsm = &self.config.hsm;
        let options = PoolOptions {
            workers: hsm.workers,
            observer: Arc::new(HsmMeter(self.metrics.clone())),
            relogin_grace: Duration::from_secs(hsm.grace_seconds),
            hang_after: Duration::from_secs(hsm.hang_seconds),
            stuck_threads_max: hsm.stuck_threads_max,
            breaker: BreakerOptions {
                failures: hsm.breaker_failures,
                probe_interval: Duration::from_secs(hsm.breaker_probe_seconds),
                ..BreakerOptions::default()
            },
            ..PoolOptions::default()
        };
        Pool::start(Arc::new(partition), options).map_err(UnsealError::Pool)
    }

    async fn check_and_open(&self, pool: Pool) -> Result<(Arc<Open>, u64), (UnsealError, Pool)> {
        let suite = self.bundle.suite;
        let deadline = Instant::now() + UNSEAL_DEADLINE;
        let mut tries_left = KEY_CHECK_TRIES;
        let checked = loop {
            tries_left -= 1;
            match self.check_keys(&pool, deadline).await {
                Ok(checked) => break checked,
                // Nothing was changed, and people have come together for it.
                Err(KeyCheckError { what, source }) if tries_left > 0 && may_pass(&source) => {
                    tracing::warn!(what, error = %crate::chain(&source), "the keys are checked again");
                    tokio::time::sleep(KEY_CHECK_PAUSE).await;
                }
                Err(KeyCheckError { what, source }) => return Err((UnsealError::Key { what, source }, pool)),
            }
        };
        if checked.checkpoint_key.is_none_or(|key| key != self.bundle.checkpoint_key.public_key.as_bytes()) {
            return Err((UnsealError::CheckpointKey, pool));
        }
        match self.verify_log().await {
            Ok(size) => {
                self.report_unknown_objects(&checked.objects).await;
                Ok((Arc::new(Open::new(pool, RowMac::new(suite, checked.row_mac))), size))
            }
            Err(error) => Err((error, pool)),
        }
    }

    /// Every key that the bundle names is in the HSM, as what it should be.
    async fn check_keys(&self, pool: &Pool, deadline: Instant) -> Result<CheckedKeys, KeyCheckError> {
        let suite = self.bundle.suite;
        let (checkpoint, row_mac) = (self.bundle.checkpoint_key.object, self.bundle.row_mac_key);
        let masters = self.bundle.master_keys.clone();
        let context = RowMac::derivation_input(&self.bundle.cluster_id);
        let (answer, answered) = tokio::sync::oneshot::channel();
        pool.submit(
            "unseal",
            deadline,
            move |session| {
                let key = |what| move |source| KeyCheckError { what, source };
                let checked = (|| {
                    let confirmed = session
                        .confirm(checkpoint, ObjectKind::SigningKey(suite))
                        .map_err(key("the checkpoint key"))?;
                    for master in masters {
                        session
                            .confirm(master.object, ObjectKind::SealingKey(master.algorithm))
                            .map_err(key("a master key"))?;
                    }
                    session
                        .confirm(row_mac, ObjectKind::MacKey(suite.mac()))
                        .map_err(key("the row-MAC key"))?;
                    let mut derived = LockedBytes::zeroed(suite.mac().mac_len());
                    let mac = session.mac(row_mac, suite.mac(), &context).map_err(key("the row-MAC key"))?;
                    derived.expose_mut().copy_from_slice(mac.expose());
                    let objects = session.objects().map_err(key("the list of objects"))?;
                    Ok(CheckedKeys { checkpoint_key: confirmed.public_key, row_mac: derived, objects })
                })();
                Ok(checked)
            },
            move |result| drop(answer.send(result)),
        );
        match answered.await.unwrap_or(Err(HsmError::Stopped)) {
            Ok(checked) => checked,
            Err(source) => Err(KeyCheckError { what: "a key", source }),
        }
    }

    /// The log still contains what the second place saw, and everything since its last checkpoint is signed.
    async fn verify_log(&self) -> Result<u64, UnsealError> {
        self.compare_second_place().await?;
        let newest = self.database.last_checkpoint().await?;
        let mut verifier = match &newest {
            None => Verifier::new(&self.bundle, &[])?,
            Some(checkpoint) => {
                let size = checkpoint.verify(&self.bundle)?.size;
                let tree =
                    self.database.checkpoint_tree(size).await?.ok_or(UnsealError::RolledBack { size })?;
                Verifier::resume(&self.bundle, checkpoint, tree)?
            }
        };
        // Refused calls are recorded all the while: what is compared is the head as it is now, and its segments.
        let head = self.database.head().await?;
        while verifier.size() < head.frontier.size() {
            let segments = self.database.segments_from(verifier.size(), 64).await?;
            if segments.is_empty() {
                return Err(UnsealError::Head);
            }
            for stored in segments.iter().take_while(|stored| stored.first_index < head.frontier.size()) {
                verifier.accept(&stored.segment)?;
            }
        }
        let verified = verifier.finish()?;
        if head.frontier.size() != verified.head.size || head.frontier.root() != verified.head.root {
            return Err(UnsealError::Head);
        }
        Ok(verified.head.size)
    }

    /// The database has every checkpoint of the second place: also the old ones, because a log that was rolled back
    /// while the node ran has grown since then.
    async fn compare_second_place(&self) -> Result<(), UnsealError> {
        let path = self.second_place();
        let unreadable = |source| UnsealError::SecondPlace { path: path.clone(), source };
        let file = match tokio::fs::File::open(&path).await {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(unreadable(source)),
        };
        let mut lines = tokio::io::BufReader::new(file).split(b'\n');
        let mut stored = CheckpointsInOrder { database: &self.database, page: VecDeque::new() };
        let (mut line_count, mut checkpoint_count) = (0_u64, 0_u64);
        while let Some(line) = lines.next_segment().await.map_err(unreadable)? {
            line_count += 1;
            // What a power cut left of a line is no checkpoint, and nobody relied on it.
            let seen = checkpoint_of_line(&line).and_then(|seen| Some((seen.unverified()?, seen)));
            let Some((claimed, seen)) = seen else {
                tracing::warn!(line = line_count, "a line of the second place is no checkpoint");
                continue;
            };
            checkpoint_count += 1;
            let known = stored.of_size(claimed.size).await?.and_then(|known| known.unverified());
            if known.is_some_and(|known| known.root == claimed.root) {
                continue;
            }
            // Only what the checkpoint key signed says anything about the log.
            match seen.verify(&self.bundle) {
                Ok(_) => return Err(UnsealError::RolledBack { size: claimed.size }),
                Err(_) => tracing::warn!(line = line_count, "a line of the second place is not signed"),
            }
        }
        if line_count > 0 && checkpoint_count == 0 {
            return Err(UnsealError::SecondPlaceLine);
        }
        Ok(())
    }

    /// Objects that no bundle entry and no row names are reported, never deleted.
    async fn report_unknown_objects(&self, objects: &[ListedObject]) {
        let known_rows = self.database.hsm_objects().await.unwrap_or_default();
        let bundle = &self.bundle;
        let is_known = |id| {
            bundle.checkpoint_key.object == id
                || bundle.row_mac_key == id
                || bundle.master_keys.iter().any(|master| master.object == id)
                || known_rows.contains(&id)
        };
        for object in objects.iter().filter(|object| object.id.is_none_or(|id| !is_known(id))) {
            tracing::warn!(id = ?object.id, label = %object.label, "an object in the HSM is not known; it is left alone");
        }
    }

    async fn record_unseal(
        &self,
        open: &Arc<Open>,
        log_size: u64,
        details: Vec<(String, String)>,
    ) -> Result<(), UnsealError> {
        let mut record =
            self.own_record("service.unseal", Outcome::Done).detail("log-size", log_size.to_string());
        for (name, value) in details {
            record = record.detail(&name, value);
        }
        self.finish_unfinished(open, Instant::now() + UNSEAL_DEADLINE).await?;
        self.committer.commit(Entry::record(record)).await.map_err(ServiceError::from)?;
        crash::at_ceremony(CeremonyStep::UnsealRecorded);
        Ok(())
    }

    /// Seals because somebody asked.
    ///
    /// # Errors
    /// `LOG_UNAVAILABLE` when the request could not be recorded; the node is sealed all the same.
    pub async fn seal_for(self: &Arc<Self>, caller: &Caller) -> Result<(), ServiceError> {
        let record = self.record(Action::Seal.event(), Outcome::Done, caller);
        let recorded = self.committer.commit(Entry::record(record)).await;
        // Sealing is the safe direction: it happens even when it cannot be recorded.
        self.seal(SealCause::Asked { by: caller.principal.to_uri() }).await;
        recorded.map(|_| ()).map_err(ServiceError::from)
    }

    /// Closes the operations partition and wipes every key. Does nothing when sealed.
    pub async fn seal(self: &Arc<Self>, cause: SealCause) {
        let mut is_ending = self.turn.lock().await;
        *is_ending |= cause == SealCause::Shutdown;
        let Some(open) = self.open.swap(None) else { return };
        *self.sealed_because.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = cause.sentence();
        self.metrics.set_unsealed(false);
        tracing::warn!(cause = %cause.sentence(), "sealing");
        // Calls that were admitted before finish; what they hold is wiped when they drop it.
        let end = Instant::now() + SEAL_WAIT;
        while Arc::strong_count(&open) > 1 && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Whatever still runs then finds no key.
        open.forget_materials();
        let stopped = blocking(move || open.pool.stop()).await;
        tracing::info!(?stopped, "sealed");
        let record = self.own_record("service.seal", Outcome::Done).detail("because", cause.sentence());
        if let Err(error) = self.committer.commit(Entry::record(record)).await {
            tracing::error!(%error, "the seal could not be recorded");
        }
    }

    /// Seals when the pool gives its token up.
    async fn watch_health(self: Arc<Self>, open: std::sync::Weak<Open>) {
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let Some(health) = open.upgrade().map(|open| open.pool.health()) else { return };
            let cause = match health {
                // A device that is there and sick is tested until it is well; the login and the keys stay.
                Health::Healthy | Health::CircuitOpen { .. } | Health::Away { .. } => continue,
                Health::Failed { reason: FailureReason::PinIncorrect } => SealCause::PinRefused,
                Health::Failed { reason: FailureReason::StayedAway } => SealCause::TokenAway,
            };
            return self.seal(cause).await;
        }
    }
}

/// What the HSM said about its keys.
struct CheckedKeys {
    checkpoint_key: Option<[u8; PUBLIC_KEY_LEN]>,
    row_mac: LockedBytes,
    objects: Vec<ListedObject>,
}

/// A key is not as the bundle says, or the HSM failed before that was known.
struct KeyCheckError {
    what: &'static str,
    source: HsmError,
}

/// Whether the same question may have another answer soon.
fn may_pass(error: &HsmError) -> bool {
    match error.class() {
        ErrorClass::RetryOnNewSession
        | ErrorClass::LoginLost
        | ErrorClass::TokenGone
        | ErrorClass::DeviceSick
        | ErrorClass::Busy
        | ErrorClass::CircuitOpen => true,
        ErrorClass::CallersFault
        | ErrorClass::Deadline
        | ErrorClass::NoAnswer
        | ErrorClass::PinIncorrect
        | ErrorClass::NotFound
        | ErrorClass::Unsupported
        | ErrorClass::Stopped => false,
    }
}

/// The database's checkpoints, read forward.
struct CheckpointsInOrder<'a> {
    database: &'a Database,
    page: VecDeque<(u64, SignedCheckpoint)>,
}

impl CheckpointsInOrder<'_> {
    /// The checkpoint of one size. Sizes are asked for in ascending order, as a second place has them.
    async fn of_size(&mut self, size: u64) -> Result<Option<SignedCheckpoint>, DatabaseError> {
        while self.page.front().is_some_and(|(stored, _)| *stored < size) {
            self.page.pop_front();
        }
        if self.page.is_empty() {
            self.page = self.database.checkpoints_from(size, CHECKPOINTS_PER_READ).await?.into();
        }
        let first = self.page.front().filter(|(stored, _)| *stored == size);
        Ok(first.map(|(_, checkpoint)| checkpoint.clone()))
    }
}

/// A line of the second place: the hexadecimal of a signed checkpoint.
pub(super) fn checkpoint_of_line(line: &[u8]) -> Option<SignedCheckpoint> {
    let line =
        std::str::from_utf8(line).ok().filter(|line| line.is_ascii() && line.len().is_multiple_of(2))?;
    let bytes = (0..line.len() / 2)
        .map(|place| u8::from_str_radix(&line[2 * place..2 * place + 2], 16).ok())
        .collect::<Option<Vec<u8>>>()?;
    codec::open(&bytes).ok()
}

/// The reason that a custodian is told when the quorum was present and the node still did not open.
pub(super) fn unseal_reason(error: &UnsealError) -> Reason {
    match error {
        UnsealError::AlreadyOpen => Reason::AlreadyUnsealed,
        _ => Reason::CeremonyFailed,
    }
}
