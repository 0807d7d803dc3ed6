//! Reading the audit log. Who read what is itself recorded.

use super::reencrypt::decrypted_by;
use super::{Caller, Node, ServiceError};
use crate::store::Entry;
use kms_core::audit::{Leaf, Outcome, Record, Segment, open_leaves};
use kms_core::codec;
use kms_core::id::{KeyId, KeySelector, UnixMillis};
use kms_core::merkle::inclusion_proof;
use kms_core::policy::Action;
use kms_core::reason::Reason;
use kms_core::suite::Digest32;
use tokio::sync::mpsc;

/// Segments that one read fetches.
const SEGMENTS_PER_READ: u32 = 16;
const CHECKPOINTS_PER_READ: u32 = 1_000;
/// Records that wait for a slow reader.
pub const READ_AHEAD: usize = 256;

/// Which records are wanted.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only about this key.
    pub key: Option<KeySelector>,
    /// Only by this actor.
    pub actor: Option<String>,
    /// Only from this time on.
    pub since: Option<UnixMillis>,
    /// First index to look at.
    pub from_index: u64,
    /// At most this many.
    pub count_max: u32,
    /// Go on with new records.
    pub follow: bool,
}

/// One record with the proof that it is in the log.
#[derive(Debug)]
pub struct Shown {
    /// The leaf.
    pub leaf: Leaf,
    /// Hashes from the leaf to the root.
    pub proof: Vec<Digest32>,
    /// Size of the tree.
    pub size: u64,
    /// Its root.
    pub root: Digest32,
    /// The last segment: its head and signature are over that tree.
    pub last: Segment,
}

/// A re-encryption is about both of its keys.
fn is_about(record: &Record, key_id: KeyId) -> bool {
    record.key_id == Some(key_id) || decrypted_by(record).is_some_and(|(from, _)| from == key_id)
}

fn is_wanted(leaf: &Leaf, record: &Record, filter: &Filter, key_id: Option<KeyId>) -> bool {
    filter.since.is_none_or(|since| leaf.time >= since)
        && leaf.index >= filter.from_index
        && key_id.is_none_or(|key_id| is_about(record, key_id))
        && filter.actor.as_ref().is_none_or(|actor| record.actor == *actor)
}

impl Node {
    /// Records who reads what, once nothing is left to refuse and before the first byte is read.
    async fn record_reader(&self, caller: &Caller, what: &str) -> Result<(), ServiceError> {
        let record = self.record(Action::ReadAudit.event(), Outcome::Done, caller).detail("what", what);
        self.committer.commit(Entry::record(record)).await?;
        Ok(())
    }

    /// The id of the key that a reader asks for. The unsealed state is held no longer than this takes: a reader
    /// may follow the log for hours, and a node that seals meanwhile must forget its keys.
    async fn key_wanted(&self, caller: &Caller, filter: &Filter) -> Result<Option<KeyId>, ServiceError> {
        let open = self.require_open()?;
        match &filter.key {
            None => Ok(None),
            Some(KeySelector::Id(key_id)) => Ok(Some(*key_id)),
            Some(selector @ KeySelector::Name(_)) => {
                let entry = open.find(&self.database, &caller.principal.tenant, selector).await?;
                Ok(Some(entry.key.row.key_id))
            }
        }
    }

    /// Sends matching records to `out`, oldest first.
    ///
    /// # Errors
    /// [`ServiceError`] with the documented reason; [`Node::perform`] records it.
    pub async fn list_records(
        &self,
        caller: &Caller,
        filter: &Filter,
        out: &mpsc::Sender<Result<Leaf, ServiceError>>,
    ) -> Result<(), ServiceError> {
        let key_id = self.key_wanted(caller, filter).await?;
        self.record_reader(caller, "list").await?;
        let mut size = self.log_size();
        let mut next = filter.from_index;
        let mut sent = 0;
        loop {
            // A reader may follow for hours: what holds for a new one holds for this one.
            self.require_open()?;
            if out.is_closed() {
                return Ok(());
            }
            let segments = self.database.segments_from(next, SEGMENTS_PER_READ).await?;
            if segments.is_empty() {
                if !filter.follow {
                    return Ok(());
                }
                size.borrow_and_update();
                tokio::select! {
                    _ = size.changed() => {}
                    () = tokio::time::sleep(std::time::Duration::from_secs(1)) => {}
                    () = out.closed() => return Ok(()),
                }
                continue;
            }
            for stored in segments {
                next = stored.first_index + stored.count;
                for leaf in open_leaves(&stored.segment.leaves).map_err(|_| corrupt())? {
                    let record: Record = codec::open(&leaf.body).map_err(|_| corrupt())?;
                    if !is_wanted(&leaf, &record, filter, key_id) {
                        continue;
                    }
                    if out.send(Ok(leaf)).await.is_err() {
                        return Ok(());
                    }
                    sent += 1;
                    if !filter.follow && sent >= filter.count_max {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// One record with its inclusion proof. Reads the whole log: cheap for thousands of records, not for
    /// millions.
    ///
    /// # Errors
    /// [`ServiceError`] with the documented reason; [`Node::perform`] records it.
    pub async fn show_record(&self, caller: &Caller, index: u64) -> Result<Shown, ServiceError> {
        self.require_open()?;
        let size = self.database.head().await?.frontier.size();
        if index >= size {
            let message = format!("there is no record {index}; the log has {size} records");
            return Err(ServiceError::new(Reason::RecordNotFound, message));
        }
        self.record_reader(caller, "show").await?;
        self.find_record(index).await
    }

    async fn find_record(&self, index: u64) -> Result<Shown, ServiceError> {
        let suite = self.bundle.suite;
        let (mut hashes, mut wanted, mut last) = (Vec::new(), None, None);
        loop {
            let segments = self.database.segments_from(hashes.len() as u64, SEGMENTS_PER_READ).await?;
            if segments.is_empty() {
                break;
            }
            for stored in segments {
                for leaf in open_leaves(&stored.segment.leaves).map_err(|_| corrupt())? {
                    hashes.push(leaf.hash(suite));
                    if leaf.index == index {
                        wanted = Some(leaf);
                    }
                }
                last = Some(stored.segment);
            }
        }
        let (leaf, last) = wanted.zip(last).ok_or_else(corrupt)?;
        let place = usize::try_from(index).map_err(|_| corrupt())?;
        let proof = inclusion_proof(suite, &hashes, place).ok_or_else(corrupt)?;
        let root = kms_core::merkle::root_of(suite, &hashes);
        Ok(Shown { leaf, proof, size: hashes.len() as u64, root, last })
    }

    /// Sends every checkpoint, then every segment, as they are stored.
    ///
    /// # Errors
    /// [`ServiceError`] with the documented reason; [`Node::perform`] records it.
    pub async fn export(
        &self,
        caller: &Caller,
        out: &mpsc::Sender<Result<Exported, ServiceError>>,
    ) -> Result<(), ServiceError> {
        self.require_open()?;
        self.record_reader(caller, "export").await?;
        let mut size = 0;
        loop {
            let checkpoints = self.database.checkpoints_from(size, CHECKPOINTS_PER_READ).await?;
            let Some((last, _)) = checkpoints.last() else { break };
            size = last + 1;
            for (_, checkpoint) in checkpoints {
                if out.send(Ok(Exported::Checkpoint(codec::to_bytes(&checkpoint)))).await.is_err() {
                    return Ok(());
                }
            }
        }
        let end = self.database.head().await?.frontier.size();
        let mut next = 0;
        while next < end {
            let segments = self.database.segments_from(next, SEGMENTS_PER_READ).await?;
            if segments.is_empty() {
                return Ok(());
            }
            for stored in segments {
                next = stored.first_index + stored.count;
                let bytes = codec::to_bytes(&stored.segment);
                if out.send(Ok(Exported::Segment(bytes))).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// One frame of an export.
#[derive(Debug)]
pub enum Exported {
    /// A signed checkpoint.
    Checkpoint(Vec<u8>),
    /// A segment.
    Segment(Vec<u8>),
}

pub(super) fn corrupt() -> ServiceError {
    ServiceError::new(Reason::Internal, "the stored log is not what this service wrote; see the server's log")
}
