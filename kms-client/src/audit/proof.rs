//! One record with the proof that it is in the log.

use crate::error::ClientError;
use kms_core::asymmetric::Signature;
use kms_core::audit::{BATCH_HEAD_DOMAIN, BatchHead, Leaf, Record, open_leaves};
use kms_core::bundle::Bundle;
use kms_core::codec;
use kms_core::merkle::is_included;
use kms_core::suite::{Digest32, Suite};
use kms_proto::v1;

/// A record, its raw bytes, and what the service says to prove its place. Not yet checked.
#[derive(Clone, Debug)]
pub struct ShownRecord {
    /// Index, time and body.
    pub leaf: Leaf,
    /// What the body says.
    pub record: Record,
    /// The leaf's bytes, as hashed.
    pub leaf_bytes: Vec<u8>,
    /// The signed head of the tree that the proof leads to.
    pub head: BatchHead,
    /// The hashes that lead from the leaf to the head's root, lowest first (docs/formats/audit.md).
    pub path: Vec<Digest32>,
    head_bytes: Vec<u8>,
    head_signature: Signature,
}

/// Why a record is not proven to be in the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofFault {
    /// The proof does not lead from the leaf to the root.
    #[error("record {index} is not in the log that the node signed")]
    NotIncluded {
        /// The record.
        index: u64,
    },
    /// The head is of another deployment than the bundle.
    #[error("the head of the log belongs to another deployment than the bundle")]
    ForeignCluster,
    /// The head is not signed by a node of the bundle.
    #[error("the head of the log is not signed by node {node} of the bundle")]
    HeadSignature {
        /// The node that the head names.
        node: String,
    },
}

impl ShownRecord {
    pub(crate) fn from_answer(index: u64, answer: v1::ShowRecordResponse) -> Result<Self, ClientError> {
        let malformed = |what: &str| ClientError::malformed(format!("record {index}: {what}"));
        let digest =
            |bytes: &[u8]| bytes.try_into().map(Digest32).map_err(|_| malformed("a hash has not 32 bytes"));
        let leaves = open_leaves(&answer.leaf).map_err(|error| malformed(&format!("the leaf {error}")))?;
        let leaf = match <[Leaf; 1]>::try_from(leaves) {
            Ok([leaf]) if leaf.index == index => leaf,
            _ => return Err(malformed("the answer holds another record")),
        };
        let record = codec::open(&leaf.body).map_err(|error| malformed(&error.to_string()))?;
        let head: BatchHead =
            codec::open(&answer.head).map_err(|error| malformed(&format!("the head {error}")))?;
        if head.size != answer.tree_size || digest(&answer.root)? != head.root {
            return Err(malformed("the proof leads to another tree than the head"));
        }
        let signature: [u8; 64] = answer
            .head_signature
            .as_slice()
            .try_into()
            .map_err(|_| malformed("the head's signature has not 64 bytes"))?;
        Ok(Self {
            leaf,
            record,
            leaf_bytes: answer.leaf,
            head,
            path: answer.inclusion_proof.iter().map(|hash| digest(hash)).collect::<Result<_, _>>()?,
            head_bytes: answer.head,
            head_signature: Signature(signature),
        })
    }

    /// The leaf's hash, with which the proof begins.
    pub fn leaf_hash(&self, suite: Suite) -> Digest32 {
        self.leaf.hash(suite)
    }

    /// Whether the proof leads from the leaf to the head's root. Who signed the head, [`ShownRecord::check`] says.
    ///
    /// # Errors
    /// [`ProofFault::NotIncluded`].
    pub fn check_inclusion(&self, suite: Suite) -> Result<(), ProofFault> {
        let (index, hash) = (self.leaf.index, self.leaf_hash(suite));
        if is_included(suite, &hash, index, self.head.size, &self.path, &self.head.root) {
            return Ok(());
        }
        Err(ProofFault::NotIncluded { index })
    }

    /// Whether the proof leads to a head that a node of the bundle signed.
    ///
    /// # Errors
    /// [`ProofFault`].
    pub fn check(&self, bundle: &Bundle) -> Result<(), ProofFault> {
        self.check_inclusion(bundle.suite)?;
        if self.head.cluster_id != bundle.cluster_id {
            return Err(ProofFault::ForeignCluster);
        }
        let fault = || ProofFault::HeadSignature { node: self.head.node.to_string() };
        let node = bundle.node(&self.head.node).ok_or_else(fault)?;
        node.key
            .verify(bundle.suite, BATCH_HEAD_DOMAIN, &self.head_bytes, &self.head_signature)
            .map_err(|_| fault())
    }
}
