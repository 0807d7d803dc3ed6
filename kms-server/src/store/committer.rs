//! The commit path: the only writer of state and log (DESIGN section 8).
//!
//! One task per node drains a bounded queue. While one batch commits, the next one forms: there is no
//! timer. In one transaction it locks the head row, sends back what was decided under an older catalogue,
//! applies changes as conditional SQL, writes one segment row for the whole batch and the new head.

use super::data_keys::DataKeyChange;
use super::database::{Database, DatabaseError, Head, StoredCheckpoint};
use super::rows::{AliasRow, CountRow, ImportRow, KeyRow, VersionRow};
use crate::crash::{self, CommitStep};
use kms_core::asymmetric::PrivateKey;
use kms_core::audit::{BATCH_HEAD_DOMAIN, BatchHead, Leaf, Record, Segment};
use kms_core::codec::{self, VersionOne};
use kms_core::id::{CatalogueRevision, KeyId, KeyName, NodeName, Principal, TenantName, UnixMillis};
use kms_core::merkle::Frontier;
use kms_core::suite::{Digest32, Suite};
use rand_core::CryptoRng;
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// Most entries in one batch.
pub const BATCH_ENTRIES_MAX: usize = 512;
/// Most bytes of record bodies in one batch.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// Most entries that wait.
const QUEUE_LEN: usize = 4096;
/// How long one batch may take before its entries are refused.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);
/// A database that refuses to begin after less than this is not busy.
const BUSY_MIN: Duration = Duration::from_secs(1);
/// Pause between two questions for the outcome of a batch.
const LOOK_UP_PAUSE: Duration = Duration::from_millis(250);
/// How long an idempotency token is remembered, in milliseconds: 24 hours.
pub const TOKEN_MILLIS: u64 = 24 * 60 * 60 * 1000;

/// A change of state. Closed: everything that can change is here.
#[derive(Clone, Debug)]
pub enum Change {
    /// A key and the versions that change with it.
    Key {
        /// The revision that the row must have; `None` inserts it.
        expected_revision: Option<u64>,
        /// The row as it shall be, and its MAC. Boxed: most entries carry no change.
        key: Box<(KeyRow, Digest32)>,
        /// Versions that are new or change, with their MACs.
        versions: Vec<(VersionRow, Digest32)>,
        /// The certificate of a destruction that this change ends, with its time.
        certificate: Option<(UnixMillis, Vec<u8>)>,
        /// The import that this change uses up.
        import: Option<Box<ImportChange>>,
    },
    /// A one-time key for an import.
    Import(Box<ImportChange>),
    /// An alias names a key, whether it is new or named another one before. The entry says under which catalogue it was
    /// decided that the name is free.
    Alias(Box<(AliasRow, Digest32)>),
    /// An alias is removed. The entry says under which catalogue it was found.
    AliasRemoved {
        /// The tenant that owns it.
        tenant: TenantName,
        /// Its name.
        name: KeyName,
    },
    /// A node takes encryptions of a resident version for itself.
    Encryptions {
        /// How many were taken before.
        before: u64,
        /// How many are taken then, and the row's MAC.
        row: Box<(CountRow, Digest32)>,
    },
    /// A registered data key and the versions that change with it.
    DataKey(Box<DataKeyChange>),
    /// A signed checkpoint.
    Checkpoint(Box<StoredCheckpoint>),
}

/// A change of an import. MACs name the row that it changes, as revisions do with keys.
#[derive(Clone, Debug)]
pub enum ImportChange {
    /// It is begun.
    New {
        /// The row.
        row: ImportRow,
        /// Its MAC.
        mac: Digest32,
    },
    /// Its key pair was made, or it was used.
    Changed {
        /// The MAC of the row as it was.
        before: Digest32,
        /// The row as it shall be.
        row: ImportRow,
        /// Its MAC.
        mac: Digest32,
    },
    /// It is over, and its key pair is gone.
    Removed {
        /// The MAC of the row as it was.
        before: Digest32,
        /// The row.
        row: ImportRow,
    },
}

impl ImportChange {
    /// The row as it shall be, or was.
    pub fn row(&self) -> &ImportRow {
        match self {
            ImportChange::New { row, .. }
            | ImportChange::Changed { row, .. }
            | ImportChange::Removed { row, .. } => row,
        }
    }
}

/// Makes a retried request return the first result instead of doing the work twice.
#[derive(Clone, Debug)]
pub struct Idempotency {
    /// Who asked.
    pub principal: Principal,
    /// Which method.
    pub method: &'static str,
    /// The caller's token.
    pub token: String,
    /// Digest of everything that was asked.
    pub request_digest: Digest32,
}

/// What goes into the log, with the change that it records.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The record's body.
    pub record: Record,
    /// The change, if any.
    pub change: Option<Change>,
    /// The catalogue under which it was decided; `None` when it does not depend on the catalogue.
    pub decided_under: Option<CatalogueRevision>,
    /// The caller's token, if any; only with a change of a key, alias or data key.
    pub idempotency: Option<Idempotency>,
}

impl Entry {
    /// A record without a change that does not depend on the catalogue.
    pub fn record(record: Record) -> Self {
        Self { record, change: None, decided_under: None, idempotency: None }
    }
}

/// Why a change was not applied. Nothing was recorded either: the caller records the refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Id or name is taken.
    Exists,
    /// The row has another revision than expected.
    Conflict,
    /// The import that the key comes from was used, or has expired.
    ImportUsed,
    /// The idempotency token was used with another request.
    TokenConflict,
    /// The idempotency token was used with this request: its result, the id of a key or of a registered data key.
    Replayed(KeyId),
}

/// How an entry ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// Durable, at this index.
    Done {
        /// The record's index.
        index: u64,
        /// The catalogue's revision after it.
        catalogue: CatalogueRevision,
    },
    /// Decided under an older catalogue: decide again under this one.
    Stale(CatalogueRevision),
    /// The change was refused.
    Refused(Refusal),
}

/// The log cannot be written, or it is not known whether it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The queue is full; nothing was done.
    #[error("the audit log's queue is full")]
    Full,
    /// The database does not answer; nothing of this entry may take effect.
    #[error("the audit log cannot be written")]
    Unavailable,
}

/// Told about every batch, for metrics.
pub trait BatchMeter: Send + Sync {
    /// A batch of `entries` took `elapsed`; `is_committed` says whether it is durable.
    fn batch(&self, entries: usize, elapsed: Duration, is_committed: bool);
}

/// What a node signs its batch heads with.
#[derive(Debug)]
pub struct HeadSigner {
    /// The deployment.
    pub cluster_id: [u8; 16],
    /// The node's name.
    pub node: NodeName,
    /// The node's key.
    pub key: Arc<PrivateKey>,
}

struct Pending {
    entry: Entry,
    body: Vec<u8>,
    answer: oneshot::Sender<Result<Commit, CommitError>>,
}

/// The handle through which everything is committed.
#[derive(Clone)]
pub struct Committer {
    queue: mpsc::Sender<Pending>,
    size: watch::Receiver<u64>,
}

impl std::fmt::Debug for Committer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Committer")
    }
}

impl Committer {
    /// Starts the committer task. It ends when every handle is dropped and the queue is empty.
    pub fn start<R: CryptoRng + Send + 'static>(
        database: Database,
        signer: HeadSigner,
        clock: fn() -> UnixMillis,
        rng: R,
        meter: Arc<dyn BatchMeter>,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (queue, waiting) = mpsc::channel(QUEUE_LEN);
        let (size_sender, size) = watch::channel(0);
        let suite = signer.key.suite();
        let worker = Worker {
            database,
            signer,
            suite,
            clock,
            rng,
            meter,
            size: size_sender,
            in_flight: None,
            last: None,
            connection: None,
        };
        (Self { queue, size }, tokio::spawn(worker.run(waiting)))
    }

    /// Commits one entry and waits until it is durable.
    ///
    /// # Errors
    /// [`CommitError`]: nothing of the entry may take effect.
    pub async fn commit(&self, entry: Entry) -> Result<Commit, CommitError> {
        let body = codec::to_bytes(&entry.record);
        let (answer, answered) = oneshot::channel();
        let pending = Pending { entry, body, answer };
        self.queue.try_send(pending).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => CommitError::Full,
            mpsc::error::TrySendError::Closed(_) => CommitError::Unavailable,
        })?;
        answered.await.unwrap_or(Err(CommitError::Unavailable))
    }

    /// Follows the size of the log as this node knows it.
    pub fn size(&self) -> watch::Receiver<u64> {
        self.size.clone()
    }
}

struct Worker<R> {
    database: Database,
    signer: HeadSigner,
    suite: Suite,
    clock: fn() -> UnixMillis,
    rng: R,
    meter: Arc<dyn BatchMeter>,
    size: watch::Sender<u64>,
    /// What will have been written once the commit that is under way succeeds.
    in_flight: Option<Written>,
    /// The log after the last batch of this node: from here it only grows.
    last: Option<Frontier>,
    /// The connection of the last batch. Kept, because the pool asks a connection whether it lives each time it
    /// is given out and taken back: two more round trips in every batch.
    connection: Option<PoolConnection<Any>>,
}

impl<R: CryptoRng + Send> Worker<R> {
    async fn run(mut self, mut waiting: mpsc::Receiver<Pending>) {
        let mut held_back = None;
        loop {
            let first = match held_back.take() {
                Some(pending) => pending,
                None => tokio::select! {
                    pending = waiting.recv() => match pending {
                        Some(pending) => pending,
                        None => return,
                    },
                    // Closing waits for every connection.
                    () = self.database.closing(), if self.connection.is_some() => {
                        self.connection = None;
                        continue;
                    }
                },
            };
            let mut bytes = first.body.len();
            let mut batch = vec![first];
            while batch.len() < BATCH_ENTRIES_MAX {
                let Ok(next) = waiting.try_recv() else { break };
                if bytes + next.body.len() > BATCH_BYTES_MAX {
                    held_back = Some(next);
                    break;
                }
                bytes += next.body.len();
                batch.push(next);
            }
            crash::at_commit(CommitStep::BatchFormed);
            self.commit_batch(batch).await;
            crash::at_commit(CommitStep::Answered);
        }
    }

    async fn commit_batch(&mut self, batch: Vec<Pending>) {
        let start = Instant::now();
        let mut batch_id = [0; 16];
        self.rng.fill_bytes(&mut batch_id);
        self.in_flight = None;
        let outcome = match tokio::time::timeout(COMMIT_TIMEOUT, self.transaction(&batch, &batch_id)).await {
            Ok(Ok(written)) => Some(written),
            Ok(Err(error)) => self.look_up(&batch_id, &error).await,
            Err(_) => self.look_up(&batch_id, &DatabaseError::Driver(sqlx::Error::PoolTimedOut)).await,
        };
        self.meter.batch(batch.len(), start.elapsed(), outcome.is_some());
        match outcome {
            Some(written) => {
                self.size.send_replace(written.log.size());
                self.last = Some(written.log);
                for (pending, commit) in batch.into_iter().zip(written.commits) {
                    // The caller may have gone; the record stands all the same.
                    let _ = pending.answer.send(Ok(commit));
                }
            }
            None => {
                for pending in batch {
                    let _ = pending.answer.send(Err(CommitError::Unavailable));
                }
            }
        }
    }

    /// After an error the in-memory view is worth nothing: the batch's id in the database decides.
    async fn look_up(&mut self, batch_id: &[u8; 16], error: &DatabaseError) -> Option<Written> {
        tracing::error!(error = %crate::chain(error), "a batch of audit records failed; looking up its outcome");
        // An error before the commit was sent: the transaction is rolled back and nothing exists.
        let written = self.in_flight.take()?;
        let asking = async {
            loop {
                match self.database.has_batch(batch_id).await {
                    Ok(is_committed) => return is_committed,
                    // Nothing else can be committed meanwhile: a database that starts again is worth waiting for.
                    Err(error) => {
                        tracing::warn!(error = %crate::chain(&error), "the outcome of a batch is not known yet");
                        tokio::time::sleep(LOOK_UP_PAUSE).await;
                    }
                }
            }
        };
        match tokio::time::timeout(COMMIT_TIMEOUT, asking).await {
            Ok(is_committed) => is_committed.then_some(written),
            Err(_) => {
                tracing::error!("the outcome of a batch is unknown: the database does not answer");
                None
            }
        }
    }

    async fn transaction(
        &mut self,
        batch: &[Pending],
        batch_id: &[u8; 16],
    ) -> Result<Written, DatabaseError> {
        let (mut connection, was_held) = match self.connection.take() {
            Some(connection) => (connection, true),
            None => (self.database.connection().await?, false),
        };
        let start = Instant::now();
        let mut transaction = match self.database.begin_on(&mut connection).await {
            // It died while it was idle: that is said at once, and a busy database is not. Nothing has begun, so a
            // connection that the pool has asked may try.
            Err(error) if was_held && start.elapsed() < BUSY_MIN => {
                tracing::info!(error = %crate::chain(&error), "the committer takes another connection");
                return Box::pin(self.transaction(batch, batch_id)).await;
            }
            begun => begun?,
        };
        let mut head = self.database.lock_head(&mut transaction).await?;
        crash::at_commit(CommitStep::HeadLocked);
        if let Some(last) = &self.last {
            let (size, last_size) = (head.frontier.size(), last.size());
            if size < last_size || (size == last_size && head.frontier.root() != last.root()) {
                return Err(DatabaseError::RolledBack { size, last_size });
            }
        }

        let time = head.last_time.max((self.clock)());
        let first_index = head.frontier.size();
        let mut commits = Vec::with_capacity(batch.len());
        let mut leaves = Vec::new();
        for pending in batch {
            let commit = self.apply(&mut transaction, &pending.entry, &mut head.catalogue, time).await?;
            let commit = match commit {
                Ok(()) => {
                    let index = head.frontier.size();
                    let leaf = Leaf { index, time, body: pending.body.clone() };
                    head.frontier.append(leaf.hash(self.suite));
                    leaf.write(&mut leaves);
                    Commit::Done { index, catalogue: head.catalogue }
                }
                Err(refused) => refused,
            };
            commits.push(commit);
        }
        crash::at_commit(CommitStep::ChangesApplied);

        let written = Written { commits, log: head.frontier.clone() };
        if written.log.size() == first_index {
            transaction.rollback().await?;
            self.connection = Some(connection);
            return Ok(written);
        }
        head.last_time = time;
        let segment = self.sign(&head, first_index, batch_id, leaves);
        let count = written.log.size() - first_index;
        self.database
            .append_segment(&mut transaction, (first_index, count), batch_id, &segment, &head)
            .await?;
        crash::at_commit(CommitStep::SegmentWritten);

        self.in_flight = Some(written);
        transaction.commit().await?;
        self.connection = Some(connection);
        crash::at_commit(CommitStep::Committed);
        Ok(self.in_flight.take().expect("it was set before the commit"))
    }

    /// Applies one entry's change. `Ok(Err(…))` when it is sent back or refused: zero rows, not an error, so
    /// the transaction of everybody else goes on.
    async fn apply(
        &mut self,
        connection: &mut AnyConnection,
        entry: &Entry,
        catalogue: &mut CatalogueRevision,
        time: UnixMillis,
    ) -> Result<Result<(), Commit>, DatabaseError> {
        if entry.decided_under.is_some_and(|revision| revision != *catalogue) {
            return Ok(Err(Commit::Stale(*catalogue)));
        }
        let refused = |refusal| Ok(Err(Commit::Refused(refusal)));
        match &entry.change {
            None => Ok(Ok(())),
            Some(Change::Checkpoint(checkpoint)) => {
                match self.database.insert_checkpoint(connection, checkpoint).await? {
                    true => Ok(Ok(())),
                    false => refused(Refusal::Exists),
                }
            }
            Some(Change::Encryptions { before, row }) => {
                let (row, mac) = row.as_ref();
                match self.database.take_encryptions(connection, *before, row, mac).await? {
                    true => Ok(Ok(())),
                    false => refused(Refusal::Conflict),
                }
            }
            Some(Change::Alias(alias)) => {
                let (row, mac) = alias.as_ref();
                if let Some(claim) = &entry.idempotency
                    && let Some(refusal) =
                        self.database.claim_token(connection, claim, row.key_id, time).await?
                {
                    return refused(refusal);
                }
                self.database.put_alias(connection, row, mac).await?;
                catalogue.0 += 1;
                Ok(Ok(()))
            }
            Some(Change::AliasRemoved { tenant, name }) => {
                self.database.remove_alias(connection, tenant, name).await?;
                catalogue.0 += 1;
                Ok(Ok(()))
            }
            Some(Change::DataKey(change)) => {
                let claim = entry.idempotency.as_ref();
                match self.database.change_data_key(connection, change, claim, time).await? {
                    Some(refusal) => refused(refusal),
                    None => {
                        catalogue.0 += 1;
                        Ok(Ok(()))
                    }
                }
            }
            Some(Change::Import(change)) => match self.database.change_import(connection, change).await? {
                true => Ok(Ok(())),
                false => refused(Refusal::Conflict),
            },
            Some(Change::Key { expected_revision, key, versions, certificate, import }) => {
                let (row, mac) = key.as_ref();
                if let Some(claim) = &entry.idempotency
                    && let Some(refusal) =
                        self.database.claim_token(connection, claim, row.key_id, time).await?
                {
                    return refused(refusal);
                }
                // Looked at first and changed last: a refused entry changes nothing.
                let is_import_there = match import {
                    Some(import) => self.database.has_import(connection, import).await?,
                    None => true,
                };
                let refusal = match expected_revision {
                    _ if !is_import_there => Some(Refusal::ImportUsed),
                    None if self.database.has_alias(connection, &row.tenant, &row.name).await? => {
                        Some(Refusal::Exists)
                    }
                    None if self.database.insert_key(connection, row, mac).await? => None,
                    None => Some(Refusal::Exists),
                    Some(revision) if self.database.update_key(connection, row, *revision, mac).await? => {
                        None
                    }
                    Some(_) => Some(Refusal::Conflict),
                };
                if let Some(refusal) = refusal {
                    // A refused request leaves no token: the caller may correct it and use the token again.
                    if let Some(claim) = &entry.idempotency {
                        self.database.release_token(connection, claim).await?;
                    }
                    return refused(refusal);
                }
                for (version, mac) in versions {
                    self.database.put_version(connection, version, mac).await?;
                }
                if let Some(import) = import {
                    self.database.change_import(connection, import).await?;
                }
                if let Some(certificate) = certificate {
                    self.database.insert_destruction(connection, row, certificate).await?;
                }
                catalogue.0 += 1;
                Ok(Ok(()))
            }
        }
    }

    fn sign(&mut self, head: &Head, first_index: u64, batch_id: &[u8; 16], leaves: Vec<u8>) -> Segment {
        let head = codec::to_bytes(&BatchHead {
            version: VersionOne,
            cluster_id: self.signer.cluster_id,
            log_epoch: head.log_epoch,
            first_index,
            size: head.frontier.size(),
            root: head.frontier.root(),
            time: head.last_time,
            node: self.signer.node.clone(),
            batch_id: *batch_id,
        });
        let signature = self.signer.key.sign(BATCH_HEAD_DOMAIN, &head, &mut self.rng);
        Segment { version: VersionOne, leaves, head, signature }
    }
}

struct Written {
    commits: Vec<Commit>,
    log: Frontier,
}
