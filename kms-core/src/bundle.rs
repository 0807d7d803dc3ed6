//! The bundle: the public description of a deployment, signed by the core private key
//! (docs/formats/bundle.md). Custodians pin it; servers authenticate from it while sealed.

use crate::asymmetric::{PublicKey, Signature, SignatureError};
use crate::codec::{self, ArmouredFormat, CodecError, Format, VersionOne};
use crate::id::{ClusterName, CustodianName, HsmObjectId, KeyVersion, NodeName, Principal, UnixMillis};
use crate::quorum::{SecretKind, SecretShare, ShareSet, Threshold, ThresholdError};
use crate::share::Enrolment;
use crate::suite::{AeadAlgorithm, Digest32, Suite};
use alloc::string::String;
use alloc::vec::Vec;
use minicbor::{Decode, Encode};

/// Signature domain of bundles.
pub const BUNDLE_DOMAIN: &str = "kms/v1/bundle";

/// A custodian: a person who holds one share of each secret.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
#[cbor(map)]
pub struct Custodian {
    /// Unique name.
    #[n(0)]
    pub name: CustodianName,
    /// Checks the custodian's signatures.
    #[n(1)]
    pub sign_key: PublicKey,
    /// Encrypts shares to the custodian.
    #[n(2)]
    pub seal_key: PublicKey,
    /// Index of both shares, from 1.
    #[n(3)]
    pub share_index: u8,
    /// Commitment of the share of the start secret.
    #[n(4)]
    pub start_commitment: Digest32,
    /// Commitment of the share of the core secret.
    #[n(5)]
    pub core_commitment: Digest32,
}

impl Custodian {
    /// The custodians of a share set: each enrolment with the shares in the same place.
    pub fn of_set(
        set: &ShareSet,
        enrolments: &[Enrolment],
        start: &[SecretShare],
        core: &[SecretShare],
    ) -> Vec<Self> {
        let custodian = |(enrolment, (start, core)): (&Enrolment, (&SecretShare, &SecretShare))| Self {
            name: enrolment.name.clone(),
            sign_key: enrolment.sign_key,
            seal_key: enrolment.seal_key,
            share_index: start.index(),
            start_commitment: set.share_commitment(SecretKind::Start, start),
            core_commitment: set.share_commitment(SecretKind::Core, core),
        };
        enrolments.iter().zip(start.iter().zip(core)).map(custodian).collect()
    }

    /// The commitment of this custodian's share of one secret.
    pub fn commitment(&self, kind: SecretKind) -> &Digest32 {
        match kind {
            SecretKind::Start => &self.start_commitment,
            SecretKind::Core => &self.core_commitment,
        }
    }
}

/// A PKCS#11 token and the epoch of its PINs.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
#[cbor(map)]
pub struct Partition {
    /// Token label: how it is found.
    #[n(0)]
    pub label: String,
    /// Token serial number: how it is recognised, and the salt of its PINs.
    #[n(1)]
    pub serial: String,
    /// Grows with every PIN change.
    #[n(2)]
    pub pin_epoch: u32,
}

/// A signing key inside the HSM.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
#[cbor(map)]
pub struct HsmSigningKey {
    /// `CKA_ID`.
    #[n(0)]
    pub object: HsmObjectId,
    /// The public half.
    #[n(1)]
    pub public_key: PublicKey,
}

/// A master key inside the HSM.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
#[cbor(map)]
pub struct MasterKey {
    /// Version, from 1.
    #[n(0)]
    pub version: KeyVersion,
    /// `CKA_ID`.
    #[n(1)]
    pub object: HsmObjectId,
    /// Algorithm.
    #[n(2)]
    pub algorithm: AeadAlgorithm,
}

/// A server node and the key that it signs offers and batch heads with.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
#[cbor(map)]
pub struct Node {
    /// Unique name.
    #[n(0)]
    pub name: NodeName,
    /// Checks the node's signatures.
    #[n(1)]
    pub key: PublicKey,
}

/// The public description of a deployment.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
#[cbor(map)]
pub struct Bundle {
    /// Always 1.
    #[n(0)]
    pub version: VersionOne,
    /// Random identity of the deployment.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub cluster_id: [u8; 16],
    /// Its name, for people.
    #[n(2)]
    pub cluster_name: ClusterName,
    /// Its suite.
    #[n(3)]
    pub suite: Suite,
    /// When the init ceremony ran.
    #[n(4)]
    pub created: UnixMillis,
    /// Grows with every reshare.
    #[n(5)]
    pub share_epoch: u32,
    /// How many custodians must act.
    #[n(6)]
    pub threshold_needed: u8,
    /// All custodians.
    #[n(7)]
    pub custodians: Vec<Custodian>,
    /// Commitment of the start secret.
    #[n(8)]
    pub start_commitment: Digest32,
    /// Commitment of the core secret.
    #[n(9)]
    pub core_commitment: Digest32,
    /// The operations partition.
    #[n(10)]
    pub operations: Partition,
    /// The core partition.
    #[n(11)]
    pub core: Partition,
    /// The core private key, in the core partition.
    #[n(12)]
    pub core_key: HsmSigningKey,
    /// The checkpoint key, in the operations partition.
    #[n(13)]
    pub checkpoint_key: HsmSigningKey,
    /// The row-MAC key, in the operations partition.
    #[n(14)]
    pub row_mac_key: HsmObjectId,
    /// The master keys, in the operations partition.
    #[n(15)]
    pub master_keys: Vec<MasterKey>,
    /// The server nodes.
    #[n(16)]
    pub nodes: Vec<Node>,
    /// Who may call.
    #[n(17)]
    pub principals: Vec<Principal>,
    /// Fingerprint of the bundle that this one follows; `None` for the first.
    #[n(18)]
    pub previous: Option<Digest32>,
}

impl Format for Bundle {
    const WHAT: &'static str = "bundle";
}

/// A bundle with the core private key's signature: the file that everybody has.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
#[cbor(map)]
pub struct SignedBundle {
    /// Always 1.
    #[n(0)]
    pub version: VersionOne,
    /// Canonical bytes of the [`Bundle`].
    #[cbor(n(1), with = "minicbor::bytes")]
    pub body: Vec<u8>,
    /// Signature by the core private key.
    #[n(2)]
    pub signature: Signature,
}

impl Format for SignedBundle {
    const WHAT: &'static str = "signed bundle";
}

impl ArmouredFormat for SignedBundle {
    const LABEL: &'static str = "KMS BUNDLE";
}

/// Why a bundle is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Bytes that are not of the format.
    #[error("the bundle {0}")]
    Codec(#[from] CodecError),
    /// Not signed by the core key that it names.
    #[error("the bundle's signature is not by its core key; it was changed or is incomplete")]
    Signature(#[from] SignatureError),
    /// One person could be enough, or nobody can open it.
    #[error("the bundle's {0}")]
    Threshold(#[from] ThresholdError),
    /// Two entries with one name, key or index.
    #[error("the bundle has two {what} with the same {field}")]
    Repeated {
        /// Custodians, nodes or principals.
        what: &'static str,
        /// Name, key or index.
        field: &'static str,
    },
    /// A key that is not on the suite's curve.
    #[error("the bundle's {what} is not on the curve of its suite")]
    Curve {
        /// Whose key.
        what: &'static str,
    },
    /// No master key.
    #[error("the bundle has no master key")]
    NoMasterKey,
}

impl SignedBundle {
    /// Checks the signature and every rule of the contents.
    ///
    /// A bundle vouches for itself only: that it is the right one, people check by its fingerprint.
    ///
    /// # Errors
    /// [`BundleError`] names the first rule that is broken.
    pub fn verify(&self) -> Result<Bundle, BundleError> {
        let bundle: Bundle = codec::open(&self.body)?;
        bundle.core_key.public_key.verify(bundle.suite, BUNDLE_DOMAIN, &self.body, &self.signature)?;
        bundle.check()?;
        Ok(bundle)
    }

    /// What people compare and what shares are bound to: the hash of the signed bytes.
    pub fn fingerprint(&self, suite: Suite) -> Digest32 {
        suite.hash(&[BUNDLE_DOMAIN.as_bytes(), &[0], &self.body])
    }
}

fn has_repeats<T: Ord>(values: impl Iterator<Item = T>) -> bool {
    let mut values: Vec<T> = values.collect();
    values.sort();
    values.windows(2).any(|pair| pair[0] == pair[1])
}

impl Bundle {
    fn check(&self) -> Result<(), BundleError> {
        let total = u8::try_from(self.custodians.len()).unwrap_or(u8::MAX);
        Threshold::new(self.threshold_needed, total)?;
        let repeated = |what, field| Err(BundleError::Repeated { what, field });
        if has_repeats(self.custodians.iter().map(|one| &one.name)) {
            return repeated("custodians", "name");
        }
        if has_repeats(self.custodians.iter().flat_map(|one| [&one.sign_key, &one.seal_key])) {
            return repeated("custodians", "key");
        }
        if has_repeats(self.custodians.iter().map(|one| one.share_index)) {
            return repeated("custodians", "share index");
        }
        if has_repeats(self.nodes.iter().map(|node| &node.name)) {
            return repeated("nodes", "name");
        }
        if has_repeats(self.principals.iter()) {
            return repeated("principals", "URI");
        }
        let keys = self
            .custodians
            .iter()
            .flat_map(|one| [("custodian key", &one.sign_key), ("custodian key", &one.seal_key)]);
        let keys = keys.chain(self.nodes.iter().map(|node| ("node key", &node.key))).chain([
            ("core key", &self.core_key.public_key),
            ("checkpoint key", &self.checkpoint_key.public_key),
        ]);
        for (what, key) in keys {
            if !key.is_on_curve(self.suite) {
                return Err(BundleError::Curve { what });
            }
        }
        if self.master_keys.is_empty() {
            return Err(BundleError::NoMasterKey);
        }
        Ok(())
    }

    /// The threshold; its rules were checked when the bundle was verified.
    pub fn threshold(&self) -> Threshold {
        Threshold::new(self.threshold_needed, self.custodians.len() as u8)
            .expect("a verified bundle has a valid threshold")
    }

    /// The share set that this bundle describes.
    pub fn share_set(&self) -> ShareSet {
        ShareSet { suite: self.suite, cluster_id: self.cluster_id, share_epoch: self.share_epoch }
    }

    /// The commitment of one of the secrets.
    pub fn commitment(&self, kind: SecretKind) -> &Digest32 {
        match kind {
            SecretKind::Start => &self.start_commitment,
            SecretKind::Core => &self.core_commitment,
        }
    }

    /// Finds a custodian by name.
    pub fn custodian(&self, name: &CustodianName) -> Option<&Custodian> {
        self.custodians.iter().find(|custodian| custodian.name == *name)
    }

    /// Finds a node by name.
    pub fn node(&self, name: &NodeName) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == *name)
    }

    /// The master key that seals new wrapped keys: the highest version.
    pub fn current_master_key(&self) -> &MasterKey {
        self.master_keys.iter().max_by_key(|key| key.version).expect("a verified bundle has a master key")
    }

    /// The master key of one version.
    pub fn master_key(&self, version: KeyVersion) -> Option<&MasterKey> {
        self.master_keys.iter().find(|key| key.version == version)
    }
}

/// A complete bundle with its private keys, for this crate's tests.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::asymmetric::PrivateKey;
    use crate::quorum::testing::TestRng;
    use crate::quorum::{SecretShare, split};
    use crate::secret::SecretBytes;
    use alloc::format;

    pub struct TestCustodian {
        pub name: CustodianName,
        pub sign_key: PrivateKey,
        pub start: SecretShare,
        pub core: SecretShare,
    }

    pub struct TestBundle {
        pub bundle: Bundle,
        pub signed: SignedBundle,
        pub core_key: PrivateKey,
        pub checkpoint_key: PrivateKey,
        pub node: NodeName,
        pub node_key: PrivateKey,
        pub custodians: Vec<TestCustodian>,
        pub start_secret: SecretBytes<32>,
    }

    /// Two of three custodians, one node. The same bytes every time.
    pub fn test_bundle(suite: Suite) -> TestBundle {
        let mut rng = TestRng::new(2026);
        let set = ShareSet { suite, cluster_id: [0xc1; 16], share_epoch: 1 };
        let threshold = Threshold::new(2, 3).expect("valid");
        let (core_key, checkpoint_key, node_key) = (
            PrivateKey::generate(suite, &mut rng),
            PrivateKey::generate(suite, &mut rng),
            PrivateKey::generate(suite, &mut rng),
        );
        let (start_secret, core_secret) = (SecretBytes::random(&mut rng), SecretBytes::random(&mut rng));
        let starts = split(&start_secret, threshold, &mut rng);
        let cores = split(&core_secret, threshold, &mut rng);
        let mut custodians = Vec::new();
        let mut entries = Vec::new();
        for (start, core) in starts.into_iter().zip(cores) {
            let name = CustodianName::parse(&format!("custodian-{}", start.index())).expect("valid");
            let sign_key = PrivateKey::generate(suite, &mut rng);
            entries.push(Custodian {
                name: name.clone(),
                sign_key: sign_key.public_key(),
                seal_key: PrivateKey::generate(suite, &mut rng).public_key(),
                share_index: start.index(),
                start_commitment: set.share_commitment(SecretKind::Start, &start),
                core_commitment: set.share_commitment(SecretKind::Core, &core),
            });
            custodians.push(TestCustodian { name, sign_key, start, core });
        }
        let node = NodeName::parse("node-1").expect("valid");
        let partition = |label: &str| Partition { label: label.into(), serial: "01".into(), pin_epoch: 1 };
        let bundle = Bundle {
            version: VersionOne,
            cluster_id: set.cluster_id,
            cluster_name: ClusterName::parse("test").expect("valid"),
            suite,
            created: UnixMillis(1),
            share_epoch: 1,
            threshold_needed: 2,
            custodians: entries,
            start_commitment: set.secret_commitment(SecretKind::Start, &start_secret),
            core_commitment: set.secret_commitment(SecretKind::Core, &core_secret),
            operations: partition("operations"),
            core: partition("core"),
            core_key: HsmSigningKey { object: HsmObjectId([1; 16]), public_key: core_key.public_key() },
            checkpoint_key: HsmSigningKey {
                object: HsmObjectId([2; 16]),
                public_key: checkpoint_key.public_key(),
            },
            row_mac_key: HsmObjectId([3; 16]),
            master_keys: alloc::vec![MasterKey {
                version: KeyVersion::FIRST,
                object: HsmObjectId([4; 16]),
                algorithm: AeadAlgorithm::Aes256Gcm,
            }],
            nodes: alloc::vec![Node { name: node.clone(), key: node_key.public_key() }],
            principals: alloc::vec![Principal::parse("kms://default/operator/app").expect("valid")],
            previous: None,
        };
        let signed = sign(&bundle, &core_key);
        TestBundle { bundle, signed, core_key, checkpoint_key, node, node_key, custodians, start_secret }
    }

    pub fn sign(bundle: &Bundle, core_key: &PrivateKey) -> SignedBundle {
        let body = codec::to_bytes(bundle);
        let signature = core_key.sign(BUNDLE_DOMAIN, &body, &mut TestRng::new(1));
        SignedBundle { version: VersionOne, body, signature }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{sign, test_bundle};
    use super::*;

    #[test]
    fn an_edited_bundle_is_refused() {
        let made = test_bundle(Suite::Sm);
        assert_eq!(made.signed.verify().as_ref(), Ok(&made.bundle));
        for position in 0..made.signed.body.len() {
            let mut changed = made.signed.clone();
            changed.body[position] ^= 1;
            assert!(changed.verify().is_err(), "byte {position}");
        }
    }

    #[test]
    fn a_signed_bundle_with_a_threshold_of_one_is_refused() {
        let made = test_bundle(Suite::Intl);
        let mut bundle = made.bundle.clone();
        bundle.threshold_needed = 1;
        let refused = sign(&bundle, &made.core_key).verify();
        assert_eq!(refused, Err(BundleError::Threshold(ThresholdError::BelowTwo { needed: 1 })));
    }

    #[test]
    fn one_person_cannot_be_two_custodians() {
        let made = test_bundle(Suite::Intl);
        let mut bundle = made.bundle.clone();
        bundle.custodians[1].sign_key = bundle.custodians[0].sign_key;
        let refused = sign(&bundle, &made.core_key).verify();
        assert_eq!(refused, Err(BundleError::Repeated { what: "custodians", field: "key" }));
        let mut bundle = made.bundle.clone();
        bundle.custodians[1].share_index = 1;
        let refused = sign(&bundle, &made.core_key).verify();
        assert_eq!(refused, Err(BundleError::Repeated { what: "custodians", field: "share index" }));
    }
}
