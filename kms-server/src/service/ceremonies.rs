//! Ceremonies with present custodians: this process relays and records; a worker process of its own
//! holds the shares (DESIGN section 7, docs/formats/ceremony.md).
//!
//! One task for each ceremony owns the worker and everything about it. Custodians' streams talk to that task.

use super::seal::unseal_reason;
use super::{Caller, Node, ServiceError};
use crate::crash::{self, CeremonyStep};
use crate::random::{now, random_id, system_rng};
use crate::store::Entry;
use kms_core::asymmetric::{PublicKey, Signature};
use kms_core::audit::{Outcome, Record};
use kms_core::ceremony::{
    CeremonyKind, Contribution, Evidence, FailureLocks, Offer, SignedOffer, service_start_digest,
};
use kms_core::codec::{self, VersionOne};
use kms_core::id::{CustodianName, UnixMillis};
use kms_core::reason::Reason;
use kms_core::secret::Secret;
use kms_core::suite::Digest32;
use kms_core::worker::{FRAME_HEADER_LEN, FromWorker, ToWorker, body_len, to_frame};
use kms_hsm::Pin;
use rand_core::Rng;
use std::collections::{BTreeMap, HashMap};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

/// How often a custodian is taken to a ceremony that ends before they are in.
const JOIN_TRIES: u32 = 5;
/// Core signs that one custodian may have begun and not ended. Counted for each custodian, so that nobody can keep
/// the others from theirs; a bundle has few custodians, so the workers stay few too.
const CORE_SIGNS_BY_ONE_MAX: usize = 8;
/// Most bytes of a contribution: a statement, a signature and two encrypted shares are far smaller.
const CONTRIBUTION_LEN_MAX: usize = 64 * 1024;
/// How long a worker may take to make its one-time key.
const WORKER_START_MAX: Duration = Duration::from_secs(10);
/// How long the operation itself may take once the quorum is present.
const OPERATION_MAX: Duration = Duration::from_secs(60);

/// What a custodian asks to take part in.
#[derive(Clone, Debug)]
pub struct Joining {
    /// Which ceremony.
    pub kind: CeremonyKind,
    /// Who says to be joining.
    pub custodian: CustodianName,
    /// Core sign: the digest. A service start needs none.
    pub operation: Option<Digest32>,
}

/// What a custodian's stream is told.
#[derive(Clone, Debug)]
pub enum Event {
    /// The offer to answer.
    Offer(Vec<u8>),
    /// Who is present.
    Progress {
        /// How many are needed.
        threshold: u8,
        /// Everybody present.
        present: Vec<CustodianName>,
        /// When the window closes.
        expires: UnixMillis,
    },
    /// The operation has run.
    Result {
        /// Core sign: the signature.
        signature: Option<Signature>,
        /// Who was present.
        present: Vec<CustodianName>,
    },
}

/// A custodian's stream.
pub type EventSender = mpsc::Sender<Result<Event, ServiceError>>;

/// What a stream says to its ceremony's task.
enum ToCeremony {
    Join {
        stream: u64,
        caller: Caller,
        custodian: CustodianName,
        events: EventSender,
        joined: oneshot::Sender<()>,
    },
    Contribute {
        stream: u64,
        contribution: Vec<u8>,
    },
    Decline {
        stream: u64,
        reason: String,
    },
    Leave {
        stream: u64,
    },
}

/// One custodian's place in a ceremony. Dropping it withdraws the share.
#[derive(Debug)]
pub struct Presence {
    stream: u64,
    ceremony: mpsc::UnboundedSender<ToCeremony>,
}

impl Presence {
    /// Passes the custodian's contribution on.
    pub fn contribute(&self, contribution: Vec<u8>) {
        // A ceremony that is over has told the stream so.
        let _ = self.ceremony.send(ToCeremony::Contribute { stream: self.stream, contribution });
    }

    /// The custodian's tool refused the offer.
    pub fn decline(&self, reason: String) {
        let _ = self.ceremony.send(ToCeremony::Decline { stream: self.stream, reason });
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let _ = self.ceremony.send(ToCeremony::Leave { stream: self.stream });
    }
}

type CeremonyKey = (&'static str, Digest32);

/// A ceremony that collects.
#[derive(Debug)]
struct Running {
    ceremony: mpsc::UnboundedSender<ToCeremony>,
    begun_by: CustodianName,
}

/// The ceremonies of a node.
#[derive(Debug)]
pub struct Ceremonies {
    signed_bundle: Vec<u8>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: HashMap<CeremonyKey, Running>,
    next_stream: u64,
    /// Kept in memory: a restart voids ceremonies and locks alike, and costs the attacker the same restart.
    locks: FailureLocks,
    /// Who is present in the service-start ceremony, for status and messages.
    present: Vec<CustodianName>,
}

impl Ceremonies {
    pub(super) fn new(signed_bundle: Vec<u8>) -> Self {
        Self { signed_bundle, state: Mutex::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn present_count(&self) -> usize {
        self.state().present.len()
    }

    /// Custodians who are present in a service start right now.
    pub fn present(&self) -> Vec<CustodianName> {
        self.state().present.clone()
    }
}

impl Node {
    /// Who is present in a service start right now.
    pub fn custodians_present(&self) -> Vec<CustodianName> {
        self.ceremonies.present()
    }

    /// Takes a custodian into a ceremony, starting it if need be.
    ///
    /// # Errors
    /// [`ServiceError`] with the documented reason; [`Node::perform`] records it.
    pub async fn join_ceremony(
        self: &Arc<Self>,
        caller: &Caller,
        joining: Joining,
        events: EventSender,
    ) -> Result<Presence, ServiceError> {
        let name = &joining.custodian;
        if caller.principal.name.as_str() != name.as_str() || self.bundle.custodian(name).is_none() {
            let message = format!(
                "{} is not custodian {name} of this deployment; use that custodian's certificate and name",
                caller.principal
            );
            return Err(ServiceError::new(Reason::CustodianUnknown, message));
        }
        let operation = match (joining.kind, joining.operation) {
            (CeremonyKind::ServiceStart, None) => service_start_digest(&self.bundle, &self.name),
            (CeremonyKind::CoreSign, Some(operation)) => operation,
            (CeremonyKind::ServiceStart, Some(_)) => {
                return Err(ServiceError::field("operation", "must be empty for a service start"));
            }
            (CeremonyKind::CoreSign, None) => {
                return Err(ServiceError::field("operation", "must be the 32-byte digest to sign"));
            }
        };
        for _ in 0..JOIN_TRIES {
            self.check_may_join(joining.kind, name)?;
            let entered = self.enter(joining.kind, operation, name)?;
            let (joined, has_joined) = oneshot::channel();
            // Made before the answer is there: a caller who goes away meanwhile leaves the ceremony with it.
            let presence = Presence { stream: entered.stream, ceremony: entered.ceremony };
            let message = ToCeremony::Join {
                stream: presence.stream,
                caller: caller.clone(),
                custodian: name.clone(),
                events: events.clone(),
                joined,
            };
            if presence.ceremony.send(message).is_ok() && has_joined.await.is_ok() {
                return Ok(presence);
            }
            // One that was ending takes nobody in, and the next look begins another. One that began with this custodian
            // ended for a reason of its own.
            if entered.is_new {
                break;
            }
        }
        Err(ServiceError::new(Reason::CeremonyForeign, "that ceremony has just ended; start again"))
    }

    /// What keeps a custodian out that may change from one moment to the next.
    fn check_may_join(&self, kind: CeremonyKind, name: &CustodianName) -> Result<(), ServiceError> {
        if let Some(until) = self.ceremonies.state().locks.locked_until(name, now()) {
            let minutes = (until.0.saturating_sub(now().0)).div_ceil(60_000);
            let message =
                format!("custodian {name} is locked for {minutes} more minutes after three failures");
            return Err(ServiceError::new(Reason::CustodianLocked, message));
        }
        if kind == CeremonyKind::ServiceStart && self.opened().is_some() {
            return Err(ServiceError::new(
                Reason::AlreadyUnsealed,
                "the node is unsealed; there is nothing to do",
            ));
        }
        Ok(())
    }

    /// Finds or starts the ceremony of one kind and operation.
    fn enter(
        self: &Arc<Self>,
        kind: CeremonyKind,
        operation: Digest32,
        custodian: &CustodianName,
    ) -> Result<Entered, ServiceError> {
        let key = (kind.name(), operation);
        let mut state = self.ceremonies.state();
        state.next_stream += 1;
        let stream = state.next_stream;
        if let Some(running) = state.running.get(&key).filter(|running| !running.ceremony.is_closed()) {
            return Ok(Entered { stream, ceremony: running.ceremony.clone(), is_new: false });
        }
        // A node has one service start, and it always has a place.
        let is_own_core_sign = |(key, running): &(&CeremonyKey, &Running)| {
            key.0 == CeremonyKind::CoreSign.name() && running.begun_by == *custodian
        };
        let own_count = state.running.iter().filter(is_own_core_sign).count();
        if kind == CeremonyKind::CoreSign && own_count >= CORE_SIGNS_BY_ONE_MAX {
            let message = format!(
                "custodian {custodian} has begun {own_count} core signs that have not ended; let one end first"
            );
            return Err(ServiceError::new(Reason::Overloaded, message));
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        state.running.insert(key, Running { ceremony: sender.clone(), begun_by: custodian.clone() });
        let task = CeremonyTask {
            node: self.clone(),
            kind,
            id: random_id(),
            operation,
            expires: UnixMillis(now().0 + self.config.ceremony.window_seconds * 1000),
            streams: BTreeMap::new(),
            present: Vec::new(),
        };
        tokio::spawn(task.run(receiver));
        Ok(Entered { stream, ceremony: sender, is_new: true })
    }
}

/// A place in a ceremony that a custodian has not yet taken.
struct Entered {
    stream: u64,
    ceremony: mpsc::UnboundedSender<ToCeremony>,
    /// It begins with this custodian.
    is_new: bool,
}

struct Stream {
    caller: Caller,
    custodian: CustodianName,
    events: EventSender,
    offer: Option<SignedOffer>,
    contribution: Option<Contribution>,
}

impl Stream {
    /// Nobody waits for a custodian who does not read: the ceremony and its window go on.
    fn tell(&self, event: Result<Event, ServiceError>) {
        let _ = self.events.try_send(event);
    }
}

struct CeremonyTask {
    node: Arc<Node>,
    kind: CeremonyKind,
    id: [u8; 16],
    operation: Digest32,
    expires: UnixMillis,
    streams: BTreeMap<u64, Stream>,
    present: Vec<CustodianName>,
}

/// Why a ceremony ended without a result.
struct Ended {
    reason: Reason,
    /// For the custodians and the record.
    message: String,
    /// For the server's log: paths and causes of this host.
    detail: String,
}

impl Ended {
    fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), detail: String::new() }
    }

    /// This host is at fault; custodians hear only where to look.
    fn in_worker(reason: Reason, detail: impl Into<String>) -> Self {
        let message = "the ceremony failed on the server; its log says why";
        Self { reason, message: message.into(), detail: detail.into() }
    }
}

impl CeremonyTask {
    async fn run(mut self, mut messages: mpsc::UnboundedReceiver<ToCeremony>) {
        let ended = self.collect(&mut messages).await;
        messages.close();
        self.node.ceremonies.state().running.retain(|_, running| !running.ceremony.is_closed());
        self.set_present(Vec::new());
        if let Err(ended) = ended {
            tracing::warn!(
                kind = self.kind.name(),
                reason = ended.reason.name(),
                detail = ended.detail,
                "ceremony ended: {}",
                ended.message
            );
            let record =
                self.own_record(Outcome::Failed(ended.reason)).detail("because", ended.message.as_str());
            self.commit(record).await;
            for stream in self.streams.values() {
                stream.tell(Err(ServiceError::new(ended.reason, ended.message.clone())));
            }
        }
    }

    /// Collects until the operation has run, the window closes or nobody is left.
    async fn collect(&mut self, messages: &mut mpsc::UnboundedReceiver<ToCeremony>) -> Result<(), Ended> {
        let window = Duration::from_millis(self.expires.0.saturating_sub(now().0));
        let mut closes = tokio::time::Instant::now() + window;
        let mut worker = Worker::start(&self.node, self.kind, self.id, self.operation).await?;
        loop {
            tokio::select! {
                message = messages.recv() => match message {
                    // This task holds the receiver of a sender that the map also holds.
                    None => return Ok(()),
                    Some(message) => {
                        self.take(message, &mut worker).await?;
                        if self.streams.is_empty() {
                            return Ok(());
                        }
                    }
                },
                frame = worker.frames.recv() => {
                    let frame = frame.ok_or_else(|| {
                        Ended::in_worker(Reason::CeremonyFailed, "the ceremony worker ended without a result")
                    })?;
                    let is_quorum = matches!(&frame, FromWorker::Accepted { present, .. }
                        if present.len() >= usize::from(self.node.bundle.threshold().needed()));
                    if is_quorum {
                        crash::at_ceremony(self.step(CeremonyStep::StartQuorum, CeremonyStep::SignQuorum));
                        closes = tokio::time::Instant::now() + OPERATION_MAX;
                    }
                    if self.heed(frame, &mut worker).await? {
                        return Ok(());
                    }
                }
                () = tokio::time::sleep_until(closes) => {
                    let message = format!(
                        "the window closed with {} of {} custodians present",
                        self.present.len(),
                        self.node.bundle.threshold().needed()
                    );
                    return Err(Ended::new(Reason::CeremonyExpired, message));
                }
            }
        }
    }

    /// A custodian's stream says something.
    async fn take(&mut self, message: ToCeremony, worker: &mut Worker) -> Result<(), Ended> {
        match message {
            ToCeremony::Join { stream, caller, custodian, events, joined } => {
                let offer = self.offer(&custodian, worker.one_time_key);
                let bytes = codec::to_bytes(&offer);
                let record = self.record(&caller, Outcome::Done, &custodian).detail("step", "join");
                self.commit(record).await;
                let entry = Stream { caller, custodian, events, offer: Some(offer), contribution: None };
                entry.tell(Ok(Event::Offer(bytes)));
                self.streams.insert(stream, entry);
                let _ = joined.send(());
                self.tell_progress();
            }
            ToCeremony::Contribute { stream, contribution } => {
                let Some(entry) = self.streams.get_mut(&stream) else { return Ok(()) };
                let offer = entry.offer.as_ref().map(codec::to_bytes);
                let is_fitting = contribution.len() <= CONTRIBUTION_LEN_MAX && entry.contribution.is_none();
                let opened: Result<Contribution, _> = codec::open(&contribution);
                match (offer, opened) {
                    (Some(offer), Ok(opened)) if is_fitting => {
                        entry.contribution = Some(opened);
                        worker
                            .send(&ToWorker::Contribute { stream, offer, contribution, now: now() })
                            .await?;
                    }
                    _ => self.refuse(stream, Reason::CeremonyForeign, worker).await?,
                }
            }
            ToCeremony::Decline { stream, reason } => {
                // Only reasons that exist: what a client says does not become text of the log.
                let reason = Reason::from_name(&reason).unwrap_or(Reason::CeremonyForeign);
                if let Some(entry) = self.remove(stream, worker).await? {
                    let record = self
                        .record(&entry.caller, Outcome::Refused(reason), &entry.custodian)
                        .detail("step", "decline");
                    self.commit(record).await;
                }
            }
            ToCeremony::Leave { stream } => {
                self.remove(stream, worker).await?;
            }
        }
        Ok(())
    }

    /// Takes a stream out of the ceremony, whatever the reason: its share goes with it, before anything else.
    async fn remove(&mut self, stream: u64, worker: &mut Worker) -> Result<Option<Stream>, Ended> {
        let Some(entry) = self.streams.remove(&stream) else { return Ok(None) };
        worker.send(&ToWorker::Withdraw { stream }).await?;
        self.set_present(self.present.clone());
        self.tell_progress();
        Ok(Some(entry))
    }

    /// The worker says something. `true` when the ceremony is over.
    async fn heed(&mut self, frame: FromWorker, worker: &mut Worker) -> Result<bool, Ended> {
        match frame {
            FromWorker::Ready { .. } => Ok(false),
            FromWorker::Accepted { stream, custodian, present } => {
                self.node.ceremonies.state().locks.succeed(&custodian);
                self.set_present(present);
                if let Some(record) = self.evidence_record(stream, Outcome::Done) {
                    self.commit(record).await;
                }
                self.tell_progress();
                Ok(false)
            }
            FromWorker::Refused { stream, custodian, reason, counts_as_failure } => {
                if let Some(custodian) = custodian.filter(|_| counts_as_failure) {
                    self.node.ceremonies.state().locks.fail(&custodian, now());
                }
                self.refuse(stream, reason, worker).await?;
                Ok(false)
            }
            FromWorker::Opened { pin } => {
                crash::at_ceremony(CeremonyStep::PinGiven);
                let text = String::from_utf8(pin.expose().to_vec()).map(Zeroizing::new);
                let pin = text.ok().and_then(|text| Pin::entered(&text));
                let pin =
                    pin.ok_or_else(|| Ended::in_worker(Reason::CeremonyFailed, "the worker gave no PIN"))?;
                let details =
                    vec![("ceremony".to_owned(), hex(&self.id)), ("present".to_owned(), self.present_text())];
                self.node.unseal(pin, details).await.map_err(|error| {
                    tracing::error!(error = %crate::chain(&error), "the quorum was present, but the node stays sealed");
                    Ended::new(unseal_reason(&error), format!("the node stays sealed: {error}"))
                })?;
                self.finish(None).await;
                Ok(true)
            }
            FromWorker::Signed { signature } => {
                crash::at_ceremony(CeremonyStep::Signed);
                let core_key = &self.node.bundle.core_key.public_key;
                core_key.verify_digest(self.node.bundle.suite, &self.operation, &signature).map_err(
                    |_| Ended::new(Reason::CeremonyFailed, "the core key's signature does not verify"),
                )?;
                self.finish(Some(signature)).await;
                Ok(true)
            }
            FromWorker::Failed { reason, detail } => Err(Ended::in_worker(reason, detail)),
        }
    }

    async fn finish(&mut self, signature: Option<Signature>) {
        let record = self.own_record(Outcome::Done).detail("present", self.present_text());
        let is_recorded = self.commit(record).await;
        crash::at_ceremony(self.step(CeremonyStep::StartRecorded, CeremonyStep::SignRecorded));
        for entry in self.streams.values() {
            let event = match (is_recorded, signature) {
                // The signature leaves only when its record is durable.
                (false, Some(_)) => Err(ServiceError::new(
                    Reason::LogUnavailable,
                    "the ceremony cannot be recorded, so its signature is withheld",
                )),
                _ => Ok(Event::Result { signature, present: self.present.clone() }),
            };
            entry.tell(event);
        }
    }

    fn step(&self, of_start: CeremonyStep, of_sign: CeremonyStep) -> CeremonyStep {
        match self.kind {
            CeremonyKind::ServiceStart => of_start,
            CeremonyKind::CoreSign => of_sign,
        }
    }

    fn offer(&self, custodian: &CustodianName, one_time_key: PublicKey) -> SignedOffer {
        let mut rng = system_rng();
        let mut nonce = [0; 32];
        rng.fill_bytes(&mut nonce);
        let offer = Offer {
            version: VersionOne,
            cluster_id: self.node.bundle.cluster_id,
            ceremony_id: self.id,
            kind: self.kind,
            share_epoch: self.node.bundle.share_epoch,
            nonce,
            expires: self.expires,
            one_time_key,
            operation: self.operation,
            node: self.node.name.clone(),
            custodian: custodian.clone(),
        };
        SignedOffer::sign(&offer, &self.node.node_key, &mut rng)
    }

    /// Refuses one custodian's contribution; everybody else goes on.
    async fn refuse(&mut self, stream: u64, reason: Reason, worker: &mut Worker) -> Result<(), Ended> {
        if let Some(record) = self.evidence_record(stream, Outcome::Refused(reason)) {
            self.commit(record).await;
        }
        if let Some(entry) = self.remove(stream, worker).await? {
            let message =
                format!("custodian {}: the contribution was refused, {}", entry.custodian, sentence(reason));
            entry.tell(Err(ServiceError::new(reason, message)));
        }
        Ok(())
    }

    /// Who is present, of those whom the worker counts: it may not have heard yet that one has left.
    fn set_present(&mut self, mut present: Vec<CustodianName>) {
        present.retain(|name| {
            self.streams.values().any(|stream| stream.custodian == *name && stream.contribution.is_some())
        });
        if self.kind == CeremonyKind::ServiceStart {
            self.node.ceremonies.state().present = present.clone();
        }
        self.present = present;
    }

    fn tell_progress(&self) {
        for entry in self.streams.values() {
            let event = Event::Progress {
                threshold: self.node.bundle.threshold().needed(),
                present: self.present.clone(),
                expires: self.expires,
            };
            entry.tell(Ok(event));
        }
    }

    fn present_text(&self) -> String {
        self.present.iter().map(CustodianName::as_str).collect::<Vec<_>>().join(" ")
    }

    fn record(&self, caller: &Caller, outcome: Outcome, custodian: &CustodianName) -> Record {
        self.node
            .record("ceremony.join", outcome, caller)
            .detail("kind", self.kind.name())
            .detail("ceremony", hex(&self.id))
            .detail("custodian", custodian.as_str())
    }

    fn own_record(&self, outcome: Outcome) -> Record {
        let event = match self.kind {
            CeremonyKind::ServiceStart => "ceremony.service-start",
            CeremonyKind::CoreSign => "ceremony.core-sign",
        };
        self.node
            .own_record(event, outcome)
            .detail("ceremony", hex(&self.id))
            .detail("operation", self.operation.to_hex())
    }

    /// The record of one contribution with the custodian's signed statement, but not the share.
    fn evidence_record(&self, stream: u64, outcome: Outcome) -> Option<Record> {
        let entry = self.streams.get(&stream)?;
        let mut record = self.record(&entry.caller, outcome, &entry.custodian).detail("step", "contribute");
        if let (Some(offer), Some(contribution)) = (&entry.offer, &entry.contribution) {
            let evidence = Evidence {
                version: VersionOne,
                offer: offer.clone(),
                statement: contribution.statement.clone(),
                signature: contribution.signature,
            };
            record.evidence = Some(codec::to_bytes(&evidence));
        }
        Some(record)
    }

    async fn commit(&self, record: Record) -> bool {
        match self.node.committer.commit(Entry::record(record)).await {
            Ok(_) => true,
            Err(error) => {
                tracing::error!(%error, "a ceremony's record could not be written");
                false
            }
        }
    }
}

fn sentence(reason: Reason) -> &'static str {
    match reason {
        Reason::CeremonyExpired => "because the window has closed",
        Reason::CustodianUnknown => "because the bundle has no such custodian",
        Reason::SignatureInvalid => "because the statement is not signed by the enrolled key",
        Reason::CustodianPresent => "because this custodian is present already and counts once",
        Reason::ShareInvalid => "because the share is not this custodian's share of this set",
        _ => "because it does not answer this ceremony's offer",
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The worker process of one ceremony. It is killed when this is dropped.
struct Worker {
    _child: Child,
    stdin: ChildStdin,
    frames: mpsc::Receiver<FromWorker>,
    one_time_key: PublicKey,
}

impl Worker {
    async fn start(
        node: &Node,
        kind: CeremonyKind,
        ceremony_id: [u8; 16],
        operation: Digest32,
    ) -> Result<Self, Ended> {
        let failed = |detail: String| Ended::in_worker(Reason::CeremonyFailed, detail);
        let command = &node.config.ceremony.worker;
        let (program, arguments) =
            command.split_first().ok_or_else(|| failed("no ceremony worker".into()))?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(format!("the ceremony worker {program} does not start: {error}")))?;
        let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed("the ceremony worker has no pipes".into()));
        };
        let (sender, mut frames) = mpsc::channel(16);
        tokio::spawn(read_frames(stdout, sender));
        let start = ToWorker::Start {
            bundle: node.ceremonies.signed_bundle.clone(),
            kind,
            ceremony_id,
            operation,
            module_path: node.config.hsm.module.display().to_string(),
            profile: node.config.hsm.profile.clone(),
        };
        write_frame(&mut stdin, &start).await?;
        match tokio::time::timeout(WORKER_START_MAX, frames.recv()).await {
            Ok(Some(FromWorker::Ready { one_time_key })) => {
                Ok(Self { _child: child, stdin, frames, one_time_key })
            }
            Ok(Some(FromWorker::Failed { reason, detail })) => Err(Ended::in_worker(reason, detail)),
            _ => Err(failed("the ceremony worker does not answer".into())),
        }
    }

    async fn send(&mut self, message: &ToWorker) -> Result<(), Ended> {
        write_frame(&mut self.stdin, message).await
    }
}

async fn write_frame(stdin: &mut ChildStdin, message: &ToWorker) -> Result<(), Ended> {
    let frame = to_frame(message);
    stdin
        .write_all(frame.expose())
        .await
        .map_err(|_| Ended::in_worker(Reason::CeremonyFailed, "the ceremony worker has ended"))
}

async fn read_frames(mut stdout: ChildStdout, sender: mpsc::Sender<FromWorker>) {
    loop {
        let mut header = [0; FRAME_HEADER_LEN];
        if stdout.read_exact(&mut header).await.is_err() {
            return;
        }
        let Ok(len) = body_len(header) else { return };
        let mut body = vec![0; len];
        if stdout.read_exact(&mut body).await.is_err() {
            return;
        }
        // The body of the last frame of a service start holds a PIN.
        let body = Secret::new(body);
        let Ok(frame) = codec::open(body.expose()) else {
            tracing::error!("the ceremony worker sent a frame that is not one");
            return;
        };
        if sender.send(frame).await.is_err() {
            return;
        }
    }
}
