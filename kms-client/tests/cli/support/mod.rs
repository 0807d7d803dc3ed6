//! A deployment and its audit log, made with the rules of `kms-core` and without a server.

pub mod service;

use getrandom::SysRng;
use kms_core::asymmetric::PrivateKey;
use kms_core::audit::{
    BATCH_HEAD_DOMAIN, BatchHead, CHECKPOINT_DOMAIN, Checkpoint, Leaf, Outcome, Record, Segment,
    SignedCheckpoint,
};
use kms_core::bundle::{
    BUNDLE_DOMAIN, Bundle, Custodian, HsmSigningKey, MasterKey, Node, Partition, SignedBundle,
};
use kms_core::codec::{self, VersionOne};
use kms_core::id::{
    ClusterName, CustodianName, HsmObjectId, KeyId, KeyVersion, NodeName, Principal, UnixMillis,
};
use kms_core::merkle::root_of;
use kms_core::reason::Reason;
use kms_core::suite::AeadAlgorithm;
use kms_core::suite::{Digest32, Suite};
use rand_core::UnwrapErr;

/// 2026-11-23T02:00:00Z
pub const BEGIN: UnixMillis = UnixMillis(1_795_399_200_000);

/// The administrator in every record.
pub const ADMIN: &str = "kms://default/administrator/admin";

fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

/// A bundle with the private keys that the log needs.
pub struct Deployment {
    pub bundle: Bundle,
    pub signed: SignedBundle,
    pub node: NodeName,
    pub node_key: PrivateKey,
    pub checkpoint_key: PrivateKey,
}

impl Deployment {
    pub fn new(suite: Suite) -> Self {
        let key = || PrivateKey::generate(suite, &mut rng());
        let (core_key, checkpoint_key, node_key) = (key(), key(), key());
        let node = NodeName::parse("node-1").expect("a valid name");
        let custodian = |index: u8| Custodian {
            name: CustodianName::parse(&format!("custodian-{index}")).expect("a valid name"),
            sign_key: key().public_key(),
            seal_key: key().public_key(),
            share_index: index,
            start_commitment: Digest32([index; 32]),
            core_commitment: Digest32([index; 32]),
        };
        let partition = |label: &str| Partition { label: label.into(), serial: "01".into(), pin_epoch: 1 };
        let signing_key = |id: u8, key: &PrivateKey| HsmSigningKey {
            object: HsmObjectId([id; 16]),
            public_key: key.public_key(),
        };
        let bundle = Bundle {
            version: VersionOne,
            cluster_id: [0xc1; 16],
            cluster_name: ClusterName::parse("test").expect("a valid name"),
            suite,
            created: BEGIN,
            share_epoch: 1,
            threshold_needed: 2,
            custodians: (1..=3).map(custodian).collect(),
            start_commitment: Digest32([1; 32]),
            core_commitment: Digest32([2; 32]),
            operations: partition("operations"),
            core: partition("core"),
            core_key: signing_key(1, &core_key),
            checkpoint_key: signing_key(2, &checkpoint_key),
            row_mac_key: HsmObjectId([3; 16]),
            master_keys: vec![MasterKey {
                version: KeyVersion::FIRST,
                object: HsmObjectId([4; 16]),
                algorithm: AeadAlgorithm::Sm4Gcm,
            }],
            nodes: vec![Node { name: node.clone(), key: node_key.public_key() }],
            principals: vec![Principal::parse(ADMIN).expect("a valid URI")],
            previous: None,
        };
        let body = codec::to_bytes(&bundle);
        let signature = core_key.sign(BUNDLE_DOMAIN, &body, &mut rng());
        let signed = SignedBundle { version: VersionOne, body, signature };
        Self { bundle, signed, node, node_key, checkpoint_key }
    }

    pub fn armour(&self) -> String {
        codec::to_armour(&self.signed)
    }
}

/// The log of a deployment.
pub struct Log {
    pub deployment: Deployment,
    pub leaves: Vec<Leaf>,
    pub segments: Vec<Segment>,
    pub checkpoints: Vec<SignedCheckpoint>,
}

impl Log {
    pub fn new(suite: Suite) -> Self {
        Self {
            deployment: Deployment::new(suite),
            leaves: Vec::new(),
            segments: Vec::new(),
            checkpoints: Vec::new(),
        }
    }

    /// Three batches: a created key, a refused one, seven uses; and a checkpoint after each batch but the last.
    pub fn sample(suite: Suite) -> Self {
        let mut log = Self::new(suite);
        let key = KeyId([7; 16]);
        let record = |event, outcome| Record::new(event, outcome, ADMIN, &log.deployment.node, "request-1");
        let created =
            record("key.create", Outcome::Done).detail("name", "payroll").key(key, Some(KeyVersion::FIRST));
        let refused = record("key.create", Outcome::Refused(Reason::KeyExists)).detail("name", "payroll");
        let used = record("data_key.generate", Outcome::Done).key(key, Some(KeyVersion::FIRST));
        log.append(vec![created]);
        log.checkpoint();
        log.append(vec![refused, used.clone()]);
        log.checkpoint();
        log.append(vec![used; 6]);
        log
    }

    fn hashes(&self) -> Vec<Digest32> {
        self.leaves.iter().map(|leaf| leaf.hash(self.deployment.bundle.suite)).collect()
    }

    pub fn root(&self) -> Digest32 {
        root_of(self.deployment.bundle.suite, &self.hashes())
    }

    pub fn append(&mut self, records: Vec<Record>) {
        let first = self.leaves.len() as u64;
        let mut bytes = Vec::new();
        for (index, record) in (first..).zip(&records) {
            let time = UnixMillis(BEGIN.0 + index * 1000);
            let leaf = Leaf { index, time, body: codec::to_bytes(record) };
            leaf.write(&mut bytes);
            self.leaves.push(leaf);
        }
        let head = BatchHead {
            version: VersionOne,
            cluster_id: self.deployment.bundle.cluster_id,
            log_epoch: 1,
            first_index: first,
            size: self.leaves.len() as u64,
            root: self.root(),
            time: self.leaves.last().expect("a batch has a record").time,
            node: self.deployment.node.clone(),
            batch_id: [first as u8; 16],
        };
        let head = codec::to_bytes(&head);
        let signature = self.deployment.node_key.sign(BATCH_HEAD_DOMAIN, &head, &mut rng());
        self.segments.push(Segment { version: VersionOne, leaves: bytes, head, signature });
    }

    pub fn checkpoint(&mut self) {
        let body = codec::to_bytes(&Checkpoint {
            version: VersionOne,
            cluster_id: self.deployment.bundle.cluster_id,
            log_epoch: 1,
            size: self.leaves.len() as u64,
            root: self.root(),
            time: BEGIN,
        });
        let signature = self.deployment.checkpoint_key.sign(CHECKPOINT_DOMAIN, &body, &mut rng());
        self.checkpoints.push(SignedCheckpoint { version: VersionOne, body, signature });
    }

    /// The export file, put together here and not by the writer under test.
    pub fn export(&self) -> Vec<u8> {
        let mut out = b"KMSAUDIT".to_vec();
        let mut frame = |kind: u8, payload: Vec<u8>| {
            out.push(kind);
            out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
            out.extend_from_slice(&payload);
        };
        self.checkpoints.iter().for_each(|checkpoint| frame(2, codec::to_bytes(checkpoint)));
        self.segments.iter().for_each(|segment| frame(1, codec::to_bytes(segment)));
        out
    }
}
