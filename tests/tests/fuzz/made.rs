//! A deployment's structures with all their private keys, made by the crate's own writers. The same bytes every time.

use crate::random::Random;
use kms_core::asymmetric::PrivateKey;
use kms_core::audit::{
    BATCH_HEAD_DOMAIN, BatchHead, CHECKPOINT_DOMAIN, Checkpoint, Leaf, Outcome, Record, Segment,
    SignedCheckpoint,
};
use kms_core::bundle::{
    BUNDLE_DOMAIN, Bundle, Custodian, HsmSigningKey, MasterKey, Node, Partition, SignedBundle,
};
use kms_core::ceremony::{CeremonyKind, Contribution, Offer, SignedOffer, service_start_digest};
use kms_core::codec::{self, VersionOne};
use kms_core::id::{
    ClusterName, CustodianName, HsmObjectId, KeyId, KeyVersion, NodeName, Principal, UnixMillis,
};
use kms_core::merkle::Frontier;
use kms_core::quorum::{SecretKind, ShareSet, Threshold, split};
use kms_core::reason::Reason;
use kms_core::secret::SecretBytes;
use kms_core::share::{ENROLMENT_DOMAIN, Identity, SharePair, SignedEnrolment};
use kms_core::suite::{AeadAlgorithm, Suite};

pub struct Made {
    pub bundle: Bundle,
    pub core_key: PrivateKey,
    pub checkpoint_key: PrivateKey,
    pub node: NodeName,
    pub node_key: PrivateKey,
    pub custodians: Vec<(Identity, SharePair)>,
    pub random: Random,
}

/// The ceremony that [`Made::offer`] offers.
pub const CEREMONY_ID: [u8; 16] = [9; 16];
/// When it ends.
pub const EXPIRES: UnixMillis = UnixMillis(300_000);

pub fn principal() -> Principal {
    Principal::parse("kms://default/operator/app").expect("a URI")
}

impl Made {
    /// Two of three custodians and one node.
    pub fn new(suite: Suite) -> Self {
        let mut random = Random::new(2026, suite.name());
        let set = ShareSet { suite, cluster_id: [0xc1; 16], share_epoch: 1 };
        let threshold = Threshold::new(2, 3).expect("two of three");
        let [core_key, checkpoint_key, node_key] = [(); 3].map(|()| PrivateKey::generate(suite, &mut random));
        let (start, core) = (SecretBytes::random(&mut random), SecretBytes::random(&mut random));
        let starts = split(&start, threshold, &mut random);
        let cores = split(&core, threshold, &mut random);
        let custodians: Vec<(Identity, SharePair)> = starts
            .into_iter()
            .zip(cores)
            .map(|(start, core)| {
                let name = CustodianName::parse(&format!("custodian-{}", start.index())).expect("a name");
                (Identity::generate(suite, name, &mut random), SharePair { start, core })
            })
            .collect();
        let entries = custodians
            .iter()
            .map(|(identity, shares)| Custodian {
                name: identity.enrolment.name.clone(),
                sign_key: identity.enrolment.sign_key,
                seal_key: identity.enrolment.seal_key,
                share_index: shares.start.index(),
                start_commitment: set.share_commitment(SecretKind::Start, &shares.start),
                core_commitment: set.share_commitment(SecretKind::Core, &shares.core),
            })
            .collect();
        let node = NodeName::parse("node-1").expect("a name");
        let partition = |label: &str| Partition { label: label.into(), serial: "01".into(), pin_epoch: 1 };
        let signing = |object, key: &PrivateKey| HsmSigningKey {
            object: HsmObjectId([object; 16]),
            public_key: key.public_key(),
        };
        let bundle = Bundle {
            version: VersionOne,
            cluster_id: set.cluster_id,
            cluster_name: ClusterName::parse("test").expect("a name"),
            suite,
            created: UnixMillis(1),
            share_epoch: 1,
            threshold_needed: 2,
            custodians: entries,
            start_commitment: set.secret_commitment(SecretKind::Start, &start),
            core_commitment: set.secret_commitment(SecretKind::Core, &core),
            operations: partition("operations"),
            core: partition("core"),
            core_key: signing(1, &core_key),
            checkpoint_key: signing(2, &checkpoint_key),
            row_mac_key: HsmObjectId([3; 16]),
            master_keys: vec![MasterKey {
                version: KeyVersion::FIRST,
                object: HsmObjectId([4; 16]),
                algorithm: AeadAlgorithm::Aes256Gcm,
            }],
            nodes: vec![Node { name: node.clone(), key: node_key.public_key() }],
            principals: vec![principal()],
            previous: None,
        };
        Self { bundle, core_key, checkpoint_key, node, node_key, custodians, random }
    }

    pub fn signed_bundle(&mut self) -> SignedBundle {
        let body = codec::to_bytes(&self.bundle);
        let signature = self.core_key.sign(BUNDLE_DOMAIN, &body, &mut self.random);
        SignedBundle { version: VersionOne, body, signature }
    }

    pub fn one_time_key(suite: Suite) -> PrivateKey {
        PrivateKey::generate(suite, &mut Random::new(7, "one-time key"))
    }

    pub fn signed_enrolment(&mut self, custodian: usize) -> SignedEnrolment {
        let identity = &self.custodians[custodian].0;
        let body = codec::to_bytes(&identity.enrolment);
        let signature = identity.sign_key.sign(ENROLMENT_DOMAIN, &body, &mut self.random);
        SignedEnrolment { version: VersionOne, body, signature }
    }

    /// To the first custodian, for the start of the service.
    pub fn offer(&self) -> Offer {
        Offer {
            version: VersionOne,
            cluster_id: self.bundle.cluster_id,
            ceremony_id: CEREMONY_ID,
            kind: CeremonyKind::ServiceStart,
            share_epoch: 1,
            nonce: [5; 32],
            expires: EXPIRES,
            one_time_key: Self::one_time_key(self.bundle.suite).public_key(),
            operation: service_start_digest(&self.bundle, &self.node),
            node: self.node.clone(),
            custodian: self.custodians[0].0.enrolment.name.clone(),
        }
    }

    pub fn signed_offer(&mut self) -> SignedOffer {
        SignedOffer::sign(&self.offer(), &self.node_key, &mut self.random)
    }

    pub fn contribution(&mut self, offer: &SignedOffer) -> Contribution {
        let key = Self::one_time_key(self.bundle.suite).public_key();
        let (identity, shares) = &self.custodians[0];
        let kind = CeremonyKind::ServiceStart;
        Contribution::answer(offer, &key, &self.bundle, identity, shares, kind, &mut self.random)
            .expect("seals")
    }

    pub fn records(&self) -> Vec<Record> {
        let record = |outcome| Record::new("key.create", outcome, "node", &self.node, "request-1");
        vec![
            record(Outcome::Done).key(KeyId([7; 16]), Some(KeyVersion::FIRST)).detail("spec", "sm4"),
            record(Outcome::Refused(Reason::KeyNotFound)),
            Record { evidence: Some(vec![1, 2, 3]), ..record(Outcome::Failed(Reason::HsmUnavailable)) },
        ]
    }

    /// The leaves of the log's only segment.
    pub fn leaves(&self) -> Vec<Leaf> {
        let leaf = |(index, record)| Leaf {
            index: index as u64,
            time: UnixMillis(1000 + index as u64),
            body: codec::to_bytes(&record),
        };
        self.records().into_iter().enumerate().map(leaf).collect()
    }

    pub fn head(&self) -> BatchHead {
        let mut tree = Frontier::empty(self.bundle.suite);
        self.leaves().iter().for_each(|leaf| tree.append(leaf.hash(self.bundle.suite)));
        BatchHead {
            version: VersionOne,
            cluster_id: self.bundle.cluster_id,
            log_epoch: 1,
            first_index: 0,
            size: tree.size(),
            root: tree.root(),
            time: UnixMillis(2000),
            node: self.node.clone(),
            batch_id: [6; 16],
        }
    }

    pub fn segment(&mut self) -> Segment {
        let mut leaves = Vec::new();
        self.leaves().iter().for_each(|leaf| leaf.write(&mut leaves));
        let head = codec::to_bytes(&self.head());
        let signature = self.node_key.sign(BATCH_HEAD_DOMAIN, &head, &mut self.random);
        Segment { version: VersionOne, leaves, head, signature }
    }

    pub fn checkpoint(&self) -> Checkpoint {
        let head = self.head();
        Checkpoint {
            version: VersionOne,
            cluster_id: self.bundle.cluster_id,
            log_epoch: 1,
            size: head.size,
            root: head.root,
            time: UnixMillis(3000),
        }
    }

    pub fn signed_checkpoint(&mut self) -> SignedCheckpoint {
        let body = codec::to_bytes(&self.checkpoint());
        let signature = self.checkpoint_key.sign(CHECKPOINT_DOMAIN, &body, &mut self.random);
        SignedCheckpoint { version: VersionOne, body, signature }
    }
}
