//! The audit log's bytes (docs/formats/audit.md): records, leaves, segments, signed heads, checkpoints,
//! and the verifier that needs only public keys.

use crate::asymmetric::Signature;
use crate::bundle::Bundle;
use crate::codec::{self, CodecError, Format, VersionOne};
use crate::id::{KeyId, KeyVersion, NodeName, UnixMillis};
use crate::merkle::{Frontier, TreeHead, leaf_hash};
use crate::reason::Reason;
use crate::suite::{Digest32, Suite};
use alloc::string::String;
use alloc::vec::Vec;
use minicbor::{Decode, Encode};

/// Signature domain of batch heads.
pub const BATCH_HEAD_DOMAIN: &str = "kms/v1/batch-head";
/// Signature domain of checkpoints.
pub const CHECKPOINT_DOMAIN: &str = "kms/v1/checkpoint";

/// How a recorded call or event ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was refused, for a reason.
    Refused(Reason),
    /// It was begun and failed, for a reason.
    Failed(Reason),
}

impl Outcome {
    /// `done`, `refused` or `failed`.
    pub const fn name(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Refused(_) => "refused",
            Outcome::Failed(_) => "failed",
        }
    }

    /// Why it was not done.
    pub const fn reason(self) -> Option<Reason> {
        match self {
            Outcome::Done => None,
            Outcome::Refused(reason) | Outcome::Failed(reason) => Some(reason),
        }
    }
}

/// A named detail of a record. Never secret.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
pub struct Detail {
    /// What it is.
    #[n(0)]
    pub name: String,
    /// Its value.
    #[n(1)]
    pub value: String,
}

/// The body of a record: who asked for what, on which key, and how it ended.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
#[cbor(map)]
pub struct Record {
    /// Always 1.
    #[n(0)]
    pub version: VersionOne,
    /// What happened: `key.create`, `data_key.generate`, `ceremony.join` and so on.
    #[n(1)]
    pub event: String,
    /// `done`, `refused` or `failed`.
    #[n(2)]
    pub outcome: String,
    /// The reason's stable name; present exactly when the outcome is not `done`.
    #[n(3)]
    pub reason: Option<String>,
    /// The caller's URI, or `node` when the service acted by itself.
    #[n(4)]
    pub actor: String,
    /// The node that served the call.
    #[n(5)]
    pub node: NodeName,
    /// The request id, as it stands in the logs.
    #[n(6)]
    pub request_id: String,
    /// The key, where there is one.
    #[n(7)]
    pub key_id: Option<KeyId>,
    /// The key's version, where there is one.
    #[n(8)]
    pub key_version: Option<KeyVersion>,
    /// Further details in a fixed order for each event.
    #[n(9)]
    pub details: Vec<Detail>,
    /// Signed statements that prove the event, where there are any.
    #[cbor(n(10), with = "minicbor::bytes")]
    pub evidence: Option<Vec<u8>>,
}

impl Format for Record {
    const WHAT: &'static str = "record of the audit log";
}

impl Record {
    /// A record without key, details and evidence.
    pub fn new(event: &str, outcome: Outcome, actor: &str, node: &NodeName, request_id: &str) -> Self {
        Self {
            version: VersionOne,
            event: event.into(),
            outcome: outcome.name().into(),
            reason: outcome.reason().map(|reason| reason.name().into()),
            actor: actor.into(),
            node: node.clone(),
            request_id: request_id.into(),
            key_id: None,
            key_version: None,
            details: Vec::new(),
            evidence: None,
        }
    }

    /// `done` without a reason, or `refused` or `failed` with one.
    pub fn has_known_outcome(&self) -> bool {
        match self.outcome.as_str() {
            "done" => self.reason.is_none(),
            "refused" | "failed" => self.reason.is_some(),
            _ => false,
        }
    }

    /// Adds a detail.
    #[must_use]
    pub fn detail(mut self, name: &str, value: impl Into<String>) -> Self {
        self.details.push(Detail { name: name.into(), value: value.into() });
        self
    }

    /// Names the key.
    #[must_use]
    pub fn key(mut self, key_id: KeyId, version: Option<KeyVersion>) -> Self {
        self.key_id = Some(key_id);
        self.key_version = version;
        self
    }
}

/// One line of the log: a record with the place and time that the commit gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Position in the log, from 0, without gaps.
    pub index: u64,
    /// Time of the commit; never goes back.
    pub time: UnixMillis,
    /// Canonical bytes of a [`Record`].
    pub body: Vec<u8>,
}

impl Leaf {
    /// Appends the leaf's bytes: index, time, length, body.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.index.to_be_bytes());
        out.extend_from_slice(&self.time.0.to_be_bytes());
        out.extend_from_slice(&(self.body.len() as u32).to_be_bytes());
        out.extend_from_slice(&self.body);
    }

    /// The leaf's hash in the tree.
    pub fn hash(&self, suite: Suite) -> Digest32 {
        let mut bytes = Vec::with_capacity(20 + self.body.len());
        self.write(&mut bytes);
        leaf_hash(suite, &bytes)
    }
}

/// Splits the bytes of a segment into leaves.
///
/// # Errors
/// [`CodecError`] when the bytes end inside a leaf.
pub fn open_leaves(bytes: &[u8]) -> Result<Vec<Leaf>, CodecError> {
    let truncated = || CodecError::Malformed { what: "segment", reason: "ends inside a leaf".into() };
    let mut leaves = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (fixed, after) = rest.split_at_checked(20).ok_or_else(truncated)?;
        let number = |range: core::ops::Range<usize>| {
            fixed[range].iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte))
        };
        let (body, after) = after.split_at_checked(number(16..20) as usize).ok_or_else(truncated)?;
        leaves.push(Leaf { index: number(0..8), time: UnixMillis(number(8..16)), body: body.to_vec() });
        rest = after;
    }
    Ok(leaves)
}

/// What a node signs after each batch: the log as it is then.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
#[cbor(map)]
pub struct BatchHead {
    /// Always 1.
    #[n(0)]
    pub version: VersionOne,
    /// The deployment.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub cluster_id: [u8; 16],
    /// Grows when a database is restored by ceremony.
    #[n(2)]
    pub log_epoch: u32,
    /// Number of leaves before this batch.
    #[n(3)]
    pub first_index: u64,
    /// Number of leaves including this batch.
    #[n(4)]
    pub size: u64,
    /// The tree's root including this batch.
    #[n(5)]
    pub root: Digest32,
    /// Time of the commit.
    #[n(6)]
    pub time: UnixMillis,
    /// The node that committed.
    #[n(7)]
    pub node: NodeName,
    /// Names the batch, so that an unknown commit outcome can be looked up.
    #[cbor(n(8), with = "minicbor::bytes")]
    pub batch_id: [u8; 16],
}

impl Format for BatchHead {
    const WHAT: &'static str = "batch head";
}

/// One committed batch, as stored and exported.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
#[cbor(map)]
pub struct Segment {
    /// Always 1.
    #[n(0)]
    pub version: VersionOne,
    /// The leaves, one after the other.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub leaves: Vec<u8>,
    /// Canonical bytes of the [`BatchHead`].
    #[cbor(n(2), with = "minicbor::bytes")]
    pub head: Vec<u8>,
    /// The node's signature over the head.
    #[n(3)]
    pub signature: Signature,
}

impl Format for Segment {
    const WHAT: &'static str = "segment of the audit log";
}

/// What the checkpoint key in the HSM signs.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
#[cbor(map)]
pub struct Checkpoint {
    /// Always 1.
    #[n(0)]
    pub version: VersionOne,
    /// The deployment.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub cluster_id: [u8; 16],
    /// Grows when a database is restored by ceremony.
    #[n(2)]
    pub log_epoch: u32,
    /// Number of leaves.
    #[n(3)]
    pub size: u64,
    /// The tree's root.
    #[n(4)]
    pub root: Digest32,
    /// When it was made.
    #[n(5)]
    pub time: UnixMillis,
}

impl Format for Checkpoint {
    const WHAT: &'static str = "checkpoint";
}

/// A checkpoint with its signature, as stored, exported and written to the second place.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
#[cbor(map)]
pub struct SignedCheckpoint {
    /// Always 1.
    #[n(0)]
    pub version: VersionOne,
    /// Canonical bytes of the [`Checkpoint`].
    #[cbor(n(1), with = "minicbor::bytes")]
    pub body: Vec<u8>,
    /// Signature by the checkpoint key.
    #[n(2)]
    pub signature: Signature,
}

impl Format for SignedCheckpoint {
    const WHAT: &'static str = "signed checkpoint";
}

impl SignedCheckpoint {
    /// What the checkpoint says, without a look at its signature; `None` when it is of no such form.
    pub fn unverified(&self) -> Option<Checkpoint> {
        codec::open(&self.body).ok()
    }

    /// Checks the signature with the bundle's checkpoint key and gives the checkpoint.
    ///
    /// # Errors
    /// [`AuditFault`] says what is wrong.
    pub fn verify(&self, bundle: &Bundle) -> Result<Checkpoint, AuditFault> {
        let checkpoint: Checkpoint = codec::open(&self.body)?;
        bundle
            .checkpoint_key
            .public_key
            .verify(bundle.suite, CHECKPOINT_DOMAIN, &self.body, &self.signature)
            .map_err(|_| AuditFault::CheckpointSignature { size: checkpoint.size })?;
        if checkpoint.cluster_id != bundle.cluster_id {
            return Err(AuditFault::ForeignCluster);
        }
        Ok(checkpoint)
    }
}

/// The first thing that is wrong with a log. Names the place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuditFault {
    /// Bytes that are not of the format.
    #[error("the log {0}")]
    Codec(#[from] CodecError),
    /// A segment does not begin where the one before ends.
    #[error("record {expected} is missing: the next segment begins with {found}")]
    Gap {
        /// Index that should come next.
        expected: u64,
        /// Index that comes.
        found: u64,
    },
    /// A record is not at its place within its segment.
    #[error("record {expected} is missing or out of order: its place holds {found}")]
    WrongIndex {
        /// Index that should come next.
        expected: u64,
        /// Index that comes.
        found: u64,
    },
    /// Time runs backwards.
    #[error("record {index} is earlier than the one before it")]
    TimeBackwards {
        /// The later of the two records.
        index: u64,
    },
    /// A record's body is not a canonical record.
    #[error("record {index} {source}")]
    Body {
        /// The record.
        index: u64,
        /// What is wrong with it.
        source: CodecError,
    },
    /// A record's outcome is none, or does not fit its reason.
    #[error("record {index} has an outcome that does not exist or does not fit its reason")]
    Outcome {
        /// The record.
        index: u64,
    },
    /// The signed root does not belong to the records.
    #[error("records {first} to {last} are not the ones that were signed")]
    Root {
        /// First record of the segment.
        first: u64,
        /// Last record of the segment.
        last: u64,
    },
    /// The head's signature is not by the node that it names.
    #[error("the signature over records {first} to {last} is not by node {node}")]
    HeadSignature {
        /// First record of the segment.
        first: u64,
        /// Last record of the segment.
        last: u64,
        /// The node that the head names.
        node: NodeName,
    },
    /// The head is of another deployment.
    #[error("the log belongs to another deployment than the bundle")]
    ForeignCluster,
    /// A checkpoint's signature is wrong.
    #[error("the checkpoint at size {size} is not signed by the checkpoint key")]
    CheckpointSignature {
        /// Size that the checkpoint names.
        size: u64,
    },
    /// A checkpoint's root is not the log's root at that size.
    #[error("the log is not the one that the checkpoint at size {size} was made of")]
    CheckpointRoot {
        /// Size that the checkpoint names.
        size: u64,
    },
    /// A checkpoint says that the log was longer.
    #[error(
        "the log has {size} records, but a checkpoint of {checkpoint_size} exists: records are missing at the end"
    )]
    Truncated {
        /// Records in the log.
        size: u64,
        /// Records that the checkpoint names.
        checkpoint_size: u64,
    },
}

/// Verifies a log from its first record on, segment by segment, in constant memory.
#[derive(Debug)]
pub struct Verifier<'a> {
    bundle: &'a Bundle,
    frontier: Frontier,
    last_time: UnixMillis,
    /// Checkpoints still to be compared, the smallest last.
    checkpoints: Vec<Checkpoint>,
}

/// What a verified log contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The log's size and root.
    pub head: TreeHead,
    /// Time of the last record.
    pub last_time: UnixMillis,
}

impl<'a> Verifier<'a> {
    /// Number of records verified so far.
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// Starts with an empty log and the signed checkpoints that it must agree with.
    ///
    /// # Errors
    /// [`AuditFault`] when a checkpoint's own signature is wrong.
    pub fn new(bundle: &'a Bundle, checkpoints: &[SignedCheckpoint]) -> Result<Self, AuditFault> {
        let mut checkpoints =
            checkpoints.iter().map(|signed| signed.verify(bundle)).collect::<Result<Vec<_>, _>>()?;
        checkpoints.sort_by_key(|checkpoint| core::cmp::Reverse(checkpoint.size));
        Ok(Self { bundle, frontier: Frontier::empty(bundle.suite), last_time: UnixMillis(0), checkpoints })
    }

    /// Goes on from a checkpoint whose signature holds, with the tree that was stored beside it: proves that
    /// a log still contains what the checkpoint saw without reading everything before it.
    ///
    /// # Errors
    /// [`AuditFault::CheckpointRoot`] when the stored tree is not the one that was signed.
    pub fn resume(
        bundle: &'a Bundle,
        checkpoint: &SignedCheckpoint,
        frontier: Frontier,
    ) -> Result<Self, AuditFault> {
        let checkpoint = checkpoint.verify(bundle)?;
        if frontier.size() != checkpoint.size || frontier.root() != checkpoint.root {
            return Err(AuditFault::CheckpointRoot { size: checkpoint.size });
        }
        Ok(Self { bundle, frontier, last_time: UnixMillis(0), checkpoints: Vec::new() })
    }

    /// Checks the next segment and gives its leaves.
    ///
    /// # Errors
    /// [`AuditFault`] names the first bad record.
    pub fn accept(&mut self, segment: &Segment) -> Result<Vec<Leaf>, AuditFault> {
        let suite = self.bundle.suite;
        let head: BatchHead = codec::open(&segment.head)?;
        let first = self.frontier.size();
        if head.first_index != first {
            return Err(AuditFault::Gap { expected: first, found: head.first_index });
        }
        let last = head.size.saturating_sub(1);
        if head.cluster_id != self.bundle.cluster_id {
            return Err(AuditFault::ForeignCluster);
        }
        let signature_fault = || AuditFault::HeadSignature { first, last, node: head.node.clone() };
        let node = self.bundle.node(&head.node).ok_or_else(signature_fault)?;
        node.key
            .verify(suite, BATCH_HEAD_DOMAIN, &segment.head, &segment.signature)
            .map_err(|_| signature_fault())?;
        let leaves = open_leaves(&segment.leaves)?;
        for leaf in &leaves {
            let expected = self.frontier.size();
            if leaf.index != expected {
                return Err(AuditFault::WrongIndex { expected, found: leaf.index });
            }
            if leaf.time < self.last_time {
                return Err(AuditFault::TimeBackwards { index: leaf.index });
            }
            let record: Record =
                codec::open(&leaf.body).map_err(|source| AuditFault::Body { index: leaf.index, source })?;
            if !record.has_known_outcome() {
                return Err(AuditFault::Outcome { index: leaf.index });
            }
            self.last_time = leaf.time;
            self.frontier.append(leaf.hash(suite));
            self.compare_checkpoints()?;
        }
        if leaves.is_empty() || head.size != self.frontier.size() || head.root != self.frontier.root() {
            return Err(AuditFault::Root { first, last });
        }
        Ok(leaves)
    }

    fn compare_checkpoints(&mut self) -> Result<(), AuditFault> {
        let size = self.frontier.size();
        while let Some(checkpoint) = self.checkpoints.pop_if(|checkpoint| checkpoint.size <= size) {
            if checkpoint.size == size && checkpoint.root != self.frontier.root() {
                return Err(AuditFault::CheckpointRoot { size });
            }
        }
        Ok(())
    }

    /// Ends the log: no checkpoint may speak of more records.
    ///
    /// # Errors
    /// [`AuditFault::Truncated`].
    pub fn finish(self) -> Result<Verified, AuditFault> {
        let size = self.frontier.size();
        if let Some(checkpoint) = self.checkpoints.last() {
            return Err(AuditFault::Truncated { size, checkpoint_size: checkpoint.size });
        }
        Ok(Verified { head: TreeHead { size, root: self.frontier.root() }, last_time: self.last_time })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asymmetric::PrivateKey;
    use crate::bundle::testing::{TestBundle, test_bundle};
    use crate::merkle::root_of;
    use crate::quorum::testing::TestRng;

    struct Log {
        made: TestBundle,
        segments: Vec<Segment>,
        hashes: Vec<Digest32>,
    }

    impl Log {
        fn new(suite: Suite) -> Self {
            Self { made: test_bundle(suite), segments: Vec::new(), hashes: Vec::new() }
        }

        fn append(&mut self, count: u64) {
            let bundle = &self.made.bundle;
            let first = self.hashes.len() as u64;
            let mut bytes = Vec::new();
            for index in first..first + count {
                let record = Record::new("key.create", Outcome::Done, "node", &self.made.node, "r");
                let leaf = Leaf { index, time: UnixMillis(1000 + index), body: codec::to_bytes(&record) };
                leaf.write(&mut bytes);
                self.hashes.push(leaf.hash(bundle.suite));
            }
            let head = BatchHead {
                version: VersionOne,
                cluster_id: bundle.cluster_id,
                log_epoch: 1,
                first_index: first,
                size: first + count,
                root: root_of(bundle.suite, &self.hashes),
                time: UnixMillis(1000 + first + count - 1),
                node: self.made.node.clone(),
                batch_id: [first as u8; 16],
            };
            let segment = self.sign(bytes, &head);
            self.segments.push(segment);
        }

        fn sign(&self, leaves: Vec<u8>, head: &BatchHead) -> Segment {
            let head = codec::to_bytes(head);
            let signature = self.made.node_key.sign(BATCH_HEAD_DOMAIN, &head, &mut TestRng::new(5));
            Segment { version: VersionOne, leaves, head, signature }
        }

        fn checkpoint(&self, size: u64, key: &PrivateKey) -> SignedCheckpoint {
            let body = codec::to_bytes(&Checkpoint {
                version: VersionOne,
                cluster_id: self.made.bundle.cluster_id,
                log_epoch: 1,
                size,
                root: root_of(self.made.bundle.suite, &self.hashes[..size as usize]),
                time: UnixMillis(5000),
            });
            let signature = key.sign(CHECKPOINT_DOMAIN, &body, &mut TestRng::new(6));
            SignedCheckpoint { version: VersionOne, body, signature }
        }

        fn verify(&self, checkpoints: &[SignedCheckpoint]) -> Result<Verified, AuditFault> {
            let mut verifier = Verifier::new(&self.made.bundle, checkpoints)?;
            for segment in &self.segments {
                verifier.accept(segment)?;
            }
            verifier.finish()
        }
    }

    fn log() -> Log {
        let mut log = Log::new(Suite::Intl);
        [3, 1, 4].into_iter().for_each(|count| log.append(count));
        log
    }

    #[test]
    fn an_untouched_log_verifies_with_its_checkpoints() {
        for suite in [Suite::Sm, Suite::Intl] {
            let mut log = Log::new(suite);
            [3, 1, 4].into_iter().for_each(|count| log.append(count));
            let checkpoint_at = |size| log.checkpoint(size, &log.made.checkpoint_key);
            let verified = log.verify(&[checkpoint_at(8), checkpoint_at(2)]).expect("verifies");
            assert_eq!(verified.head.size, 8);
        }
    }

    #[test]
    fn every_changed_byte_of_a_segment_is_found() {
        let log = log();
        for position in 0..log.segments[1].leaves.len() {
            let mut changed = Log { made: test_bundle(Suite::Intl), ..self::log() };
            changed.segments[1].leaves[position] ^= 1;
            assert!(changed.verify(&[]).is_err(), "byte {position}");
        }
    }

    #[test]
    fn a_missing_moved_or_foreign_segment_is_named() {
        let mut missing = log();
        missing.segments.remove(1);
        assert_eq!(missing.verify(&[]), Err(AuditFault::Gap { expected: 3, found: 4 }));
        let mut moved = log();
        moved.segments.swap(1, 2);
        assert_eq!(moved.verify(&[]), Err(AuditFault::Gap { expected: 3, found: 4 }));
        let mut resigned = log();
        let stranger = PrivateKey::generate(Suite::Intl, &mut TestRng::new(99));
        resigned.segments[0].signature =
            stranger.sign(BATCH_HEAD_DOMAIN, &resigned.segments[0].head, &mut TestRng::new(1));
        let node = resigned.made.node.clone();
        assert_eq!(resigned.verify(&[]), Err(AuditFault::HeadSignature { first: 0, last: 2, node }));
    }

    #[test]
    fn a_log_that_a_node_rewrote_and_signed_again_disagrees_with_the_checkpoint() {
        let original = log();
        let checkpoint = original.checkpoint(4, &original.made.checkpoint_key);
        let mut rewritten = Log::new(Suite::Intl);
        [2, 2, 4].into_iter().for_each(|count| rewritten.append(count));
        assert!(
            rewritten.verify(core::slice::from_ref(&checkpoint)).is_ok(),
            "the same records in other batches"
        );
        let mut changed = Log::new(Suite::Intl);
        changed.append(4);
        let record = Record::new("key.rotate", Outcome::Done, "node", &changed.made.node, "r");
        let leaf = Leaf { index: 3, time: UnixMillis(1003), body: codec::to_bytes(&record) };
        changed.hashes[3] = leaf.hash(Suite::Intl);
        let mut leaves = open_leaves(&changed.segments[0].leaves).expect("opens");
        leaves[3] = leaf;
        let mut bytes = Vec::new();
        leaves.iter().for_each(|leaf| leaf.write(&mut bytes));
        let mut head: BatchHead = codec::open(&changed.segments[0].head).expect("opens");
        head.root = root_of(Suite::Intl, &changed.hashes);
        changed.segments[0] = changed.sign(bytes, &head);
        assert!(changed.verify(&[]).is_ok(), "the node's own signature cannot tell");
        assert_eq!(changed.verify(&[checkpoint]), Err(AuditFault::CheckpointRoot { size: 4 }));
    }

    #[test]
    fn an_outcome_without_its_reason_is_no_record_of_ours() {
        let node = NodeName::parse("node-1").expect("valid");
        let mut record = Record::new("key.create", Outcome::Refused(Reason::Sealed), "a", &node, "r");
        assert!(record.has_known_outcome());
        record.reason = None;
        assert!(!record.has_known_outcome());
        record.outcome = "perhaps".into();
        assert!(!record.has_known_outcome());
    }

    #[test]
    fn a_truncated_log_is_found_by_its_checkpoint() {
        let full = log();
        let checkpoint = full.checkpoint(8, &full.made.checkpoint_key);
        let mut short = log();
        short.segments.pop();
        assert!(short.verify(&[]).is_ok(), "nothing else can tell");
        assert_eq!(short.verify(&[checkpoint]), Err(AuditFault::Truncated { size: 4, checkpoint_size: 8 }));
    }

    #[test]
    fn a_log_is_verified_from_a_checkpoint_on_and_only_with_the_tree_that_was_signed() {
        let log = log();
        let bundle = &log.made.bundle;
        let checkpoint = log.checkpoint(4, &log.made.checkpoint_key);
        let frontier = |hashes: &[Digest32]| {
            let mut frontier = Frontier::empty(Suite::Intl);
            hashes.iter().for_each(|hash| frontier.append(*hash));
            frontier
        };
        let mut verifier =
            Verifier::resume(bundle, &checkpoint, frontier(&log.hashes[..4])).expect("resumes");
        verifier.accept(&log.segments[2]).expect("the rest follows");
        assert_eq!(verifier.finish().expect("ends").head.size, 8);
        let refused = Verifier::resume(bundle, &checkpoint, frontier(&log.hashes[1..5])).err();
        assert_eq!(refused, Some(AuditFault::CheckpointRoot { size: 4 }));
    }

    #[test]
    fn a_checkpoint_by_another_key_is_refused() {
        let log = log();
        let forged = log.checkpoint(4, &log.made.node_key);
        assert_eq!(log.verify(&[forged]), Err(AuditFault::CheckpointSignature { size: 4 }));
    }
}
