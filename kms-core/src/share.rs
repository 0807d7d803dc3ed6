//! What a custodian has: an enrolment, an identity, and one share file that holds both shares
//! (docs/formats/custodian.md).

use crate::asymmetric::{PrivateKey, PublicKey, SealError, Signature, SignatureError};
use crate::bundle::{Bundle, Custodian};
use crate::codec::{self, ArmouredFormat, CodecError, Format, VersionOne};
use crate::id::{CustodianName, UnixMillis};
use crate::passphrase::{Passphrase, PassphraseBox, PassphraseError};
use crate::quorum::{SECRET_LEN, SecretKind, SecretShare};
use crate::secret::{Secret, SecretBytes};
use crate::suite::{Digest32, Suite};
use alloc::vec::Vec;
use minicbor::{Decode, Encode};
use rand_core::CryptoRng;

mod resting;

pub use resting::UnderPassphrase;

/// Signature domain of enrolments.
pub const ENROLMENT_DOMAIN: &str = "kms/v1/enrolment";
/// Signature domain of acknowledgements.
pub const ACKNOWLEDGEMENT_DOMAIN: &str = "kms/v1/share-acknowledgement";

/// Why a custodian's file is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    /// Bytes that are not of the format.
    #[error("the file {0}")]
    Codec(#[from] CodecError),
    /// A signature that is not by the key that the file names.
    #[error("the file's signature is not by its own key; it was changed")]
    Signature(#[from] SignatureError),
    /// Wrong passphrase or changed file.
    #[error("{0}")]
    Passphrase(#[from] PassphraseError),
    /// The delivery is encrypted to somebody else, or was changed.
    #[error("the share is not encrypted to this identity, or was changed")]
    Sealed(#[from] SealError),
    /// The file is of another deployment or share epoch than the bundle.
    #[error("the share belongs to another deployment or share epoch than the bundle")]
    ForeignSet,
    /// The bundle has no such custodian, or another key for that name.
    #[error("the bundle has no custodian {name} with this key")]
    NotInBundle {
        /// The name in the file.
        name: CustodianName,
    },
    /// The share is not the one that the bundle commits to.
    #[error("the {kind} share is not the one that the bundle commits to", kind = .kind.name())]
    Commitment {
        /// Which share.
        kind: SecretKind,
    },
}

/// What a custodian publishes to be put into a plan.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
#[cbor(map)]
pub struct Enrolment {
    /// Always 1.
    #[n(0)]
    pub version: VersionOne,
    /// The suite of both keys.
    #[n(1)]
    pub suite: Suite,
    /// The custodian's name.
    #[n(2)]
    pub name: CustodianName,
    /// Checks the custodian's signatures.
    #[n(3)]
    pub sign_key: PublicKey,
    /// Encrypts shares to the custodian.
    #[n(4)]
    pub seal_key: PublicKey,
}

impl Format for Enrolment {
    const WHAT: &'static str = "enrolment";
}

/// An enrolment with the custodian's own signature.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
#[cbor(map)]
pub struct SignedEnrolment {
    /// Always 1.
    #[n(0)]
    pub version: VersionOne,
    /// Canonical bytes of the [`Enrolment`].
    #[cbor(n(1), with = "minicbor::bytes")]
    pub body: Vec<u8>,
    /// Signature by the enrolment's sign key.
    #[n(2)]
    pub signature: Signature,
}

impl Format for SignedEnrolment {
    const WHAT: &'static str = "enrolment";
}

impl ArmouredFormat for SignedEnrolment {
    const LABEL: &'static str = "KMS ENROLMENT";
}

impl SignedEnrolment {
    /// Checks the signature.
    ///
    /// # Errors
    /// [`ShareError::Codec`], [`ShareError::Signature`].
    pub fn verify(&self) -> Result<Enrolment, ShareError> {
        let enrolment: Enrolment = codec::open(&self.body)?;
        enrolment.sign_key.verify(enrolment.suite, ENROLMENT_DOMAIN, &self.body, &self.signature)?;
        Ok(enrolment)
    }
}

/// A custodian's private keys under a passphrase.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
#[cbor(map)]
pub struct IdentityFile {
    /// Always 1.
    #[n(0)]
    pub version: VersionOne,
    /// What was enrolled.
    #[n(1)]
    pub enrolment: SignedEnrolment,
    /// Both scalars (32 bytes each: sign, seal), bound to the enrolment.
    #[n(2)]
    pub keys: PassphraseBox,
}

impl Format for IdentityFile {
    const WHAT: &'static str = "custodian identity";
}

impl ArmouredFormat for IdentityFile {
    const LABEL: &'static str = "KMS CUSTODIAN IDENTITY";
}

/// A custodian's opened private keys.
#[derive(Debug)]
pub struct Identity {
    /// What was enrolled.
    pub enrolment: Enrolment,
    /// Signs statements.
    pub sign_key: PrivateKey,
    /// Opens share deliveries.
    pub seal_key: PrivateKey,
}

impl Identity {
    /// A fresh identity.
    pub fn generate(suite: Suite, name: CustodianName, rng: &mut impl CryptoRng) -> Self {
        let (sign_key, seal_key) = (PrivateKey::generate(suite, rng), PrivateKey::generate(suite, rng));
        let enrolment = Enrolment {
            version: VersionOne,
            suite,
            name,
            sign_key: sign_key.public_key(),
            seal_key: seal_key.public_key(),
        };
        Self { enrolment, sign_key, seal_key }
    }

    /// Seals the private keys under a passphrase.
    pub fn to_file(&self, passphrase: &Passphrase, rng: &mut impl CryptoRng) -> IdentityFile {
        let body = codec::to_bytes(&self.enrolment);
        let signature = self.sign_key.sign(ENROLMENT_DOMAIN, &body, rng);
        let mut scalars = SecretBytes::<{ 2 * SECRET_LEN }>::zeroed();
        scalars.expose_mut()[..SECRET_LEN].copy_from_slice(self.sign_key.scalar().expose());
        scalars.expose_mut()[SECRET_LEN..].copy_from_slice(self.seal_key.scalar().expose());
        let keys = PassphraseBox::seal(self.enrolment.suite, passphrase, &body, scalars.expose(), rng);
        let enrolment = SignedEnrolment { version: VersionOne, body, signature };
        IdentityFile { version: VersionOne, enrolment, keys }
    }
}

impl IdentityFile {
    /// Opens the private keys.
    ///
    /// # Errors
    /// [`ShareError`]: damaged, or the passphrase is wrong.
    pub fn open(&self, passphrase: &Passphrase) -> Result<Identity, ShareError> {
        let enrolment = self.enrolment.verify()?;
        let scalars = self.keys.open(passphrase, &self.enrolment.body)?;
        let halves = scalars.expose().split_at_checked(SECRET_LEN).ok_or(PassphraseError)?;
        let key = |bytes: &[u8]| {
            SecretBytes::from_slice(bytes)
                .and_then(|scalar| PrivateKey::from_scalar(enrolment.suite, scalar))
                .ok_or(PassphraseError)
        };
        let (sign_key, seal_key) = (key(halves.0)?, key(halves.1)?);
        Ok(Identity { enrolment, sign_key, seal_key })
    }
}

/// Which shares a file holds: what both the delivery and the stored share are bound to.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
#[cbor(map)]
pub struct ShareLabel {
    /// The deployment.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub cluster_id: [u8; 16],
    /// The share epoch.
    #[n(1)]
    pub share_epoch: u32,
    /// Whose share.
    #[n(2)]
    pub custodian: CustodianName,
    /// Index of both shares.
    #[n(3)]
    pub share_index: u8,
}

impl Format for ShareLabel {
    const WHAT: &'static str = "share label";
}

impl ShareLabel {
    /// The label of a custodian's shares in a bundle.
    pub fn of(bundle: &Bundle, custodian: &Custodian) -> Self {
        Self {
            cluster_id: bundle.cluster_id,
            share_epoch: bundle.share_epoch,
            custodian: custodian.name.clone(),
            share_index: custodian.share_index,
        }
    }

    fn context(&self, domain: &str) -> Vec<u8> {
        let mut context = domain.as_bytes().to_vec();
        context.push(0);
        context.extend_from_slice(&codec::to_bytes(self));
        context
    }
}

/// Both shares of one custodian, in the clear.
#[derive(Debug)]
pub struct SharePair {
    /// Share of the start secret.
    pub start: SecretShare,
    /// Share of the core secret.
    pub core: SecretShare,
}

impl SharePair {
    fn to_secret(&self) -> SecretBytes<{ 2 * SECRET_LEN }> {
        let mut both = SecretBytes::zeroed();
        both.expose_mut()[..SECRET_LEN].copy_from_slice(self.start.value().expose());
        both.expose_mut()[SECRET_LEN..].copy_from_slice(self.core.value().expose());
        both
    }

    fn from_secret(index: u8, both: &Secret) -> Option<Self> {
        let (start, core) = both.expose().split_at_checked(SECRET_LEN)?;
        let share = |bytes| SecretShare::new(index, SecretBytes::from_slice(bytes)?);
        Some(Self { start: share(start)?, core: share(core)? })
    }

    /// The share of one secret.
    pub fn share(&self, kind: SecretKind) -> &SecretShare {
        match kind {
            SecretKind::Start => &self.start,
            SecretKind::Core => &self.core,
        }
    }

    /// Both shares are the ones that the bundle commits to.
    fn check(&self, bundle: &Bundle, custodian: &Custodian) -> Result<(), ShareError> {
        for kind in [SecretKind::Start, SecretKind::Core] {
            if bundle.share_set().share_commitment(kind, self.share(kind)) != *custodian.commitment(kind) {
                return Err(ShareError::Commitment { kind });
            }
        }
        Ok(())
    }
}

/// Shares on the way to a custodian, encrypted to the enrolled seal key.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
#[cbor(map)]
pub struct ShareDelivery {
    /// Always 1.
    #[n(0)]
    pub version: VersionOne,
    /// Which shares.
    #[n(1)]
    pub label: ShareLabel,
    /// Both shares, sealed to the custodian.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub sealed: Vec<u8>,
}

impl Format for ShareDelivery {
    const WHAT: &'static str = "share delivery";
}

impl ArmouredFormat for ShareDelivery {
    const LABEL: &'static str = "KMS SHARE DELIVERY";
}

const DELIVERY_DOMAIN: &str = "kms/v1/share-delivery";
const STORED_DOMAIN: &str = "kms/v1/stored-share";

fn custodian_of<'a>(
    label: &ShareLabel,
    bundle: &'a Bundle,
    identity: &Enrolment,
) -> Result<&'a Custodian, ShareError> {
    let custodian = label.find_in(bundle)?;
    if custodian.sign_key != identity.sign_key || identity.name != label.custodian {
        return Err(ShareError::NotInBundle { name: label.custodian.clone() });
    }
    Ok(custodian)
}

impl ShareDelivery {
    /// Encrypts both shares to a custodian.
    ///
    /// # Errors
    /// [`SealError`] when the custodian's seal key is not on the curve.
    pub fn seal(
        suite: Suite,
        label: ShareLabel,
        recipient: &PublicKey,
        shares: &SharePair,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, SealError> {
        let context = label.context(DELIVERY_DOMAIN);
        let sealed = recipient.seal(suite, &context, shares.to_secret().expose(), rng)?;
        Ok(Self { version: VersionOne, label, sealed })
    }

    /// Opens the delivery and checks both shares against the bundle.
    ///
    /// # Errors
    /// [`ShareError`] names what does not fit.
    pub fn open(&self, identity: &Identity, bundle: &Bundle) -> Result<SharePair, ShareError> {
        let custodian = custodian_of(&self.label, bundle, &identity.enrolment)?;
        let both = identity.seal_key.open(&self.label.context(DELIVERY_DOMAIN), &self.sealed)?;
        let shares = SharePair::from_secret(self.label.share_index, &both).ok_or(SealError)?;
        shares.check(bundle, custodian)?;
        Ok(shares)
    }
}

/// Shares at rest, under the custodian's passphrase.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
#[cbor(map)]
pub struct StoredShare {
    /// Always 1.
    #[n(0)]
    pub version: VersionOne,
    /// Which shares.
    #[n(1)]
    pub label: ShareLabel,
    /// Both shares under the passphrase.
    #[n(2)]
    pub shares: PassphraseBox,
}

impl Format for StoredShare {
    const WHAT: &'static str = "stored share";
}

impl ArmouredFormat for StoredShare {
    const LABEL: &'static str = "KMS SHARE";
}

impl StoredShare {
    /// Seals both shares under a passphrase.
    pub fn seal(
        suite: Suite,
        label: ShareLabel,
        passphrase: &Passphrase,
        shares: &SharePair,
        rng: &mut impl CryptoRng,
    ) -> Self {
        let context = label.context(STORED_DOMAIN);
        let shares = PassphraseBox::seal(suite, passphrase, &context, shares.to_secret().expose(), rng);
        Self { version: VersionOne, label, shares }
    }

    /// Opens the file and checks both shares against the bundle.
    ///
    /// # Errors
    /// [`ShareError`] names what does not fit.
    pub fn open(
        &self,
        passphrase: &Passphrase,
        identity: &Enrolment,
        bundle: &Bundle,
    ) -> Result<SharePair, ShareError> {
        let custodian = custodian_of(&self.label, bundle, identity)?;
        let both = self.shares.open(passphrase, &self.label.context(STORED_DOMAIN))?;
        let shares = SharePair::from_secret(self.label.share_index, &both).ok_or(PassphraseError)?;
        shares.check(bundle, custodian)?;
        Ok(shares)
    }
}

/// A custodian's signed word that both shares arrived and are the committed ones.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
#[cbor(map)]
pub struct Acknowledgement {
    /// Always 1.
    #[n(0)]
    pub version: VersionOne,
    /// Which shares.
    #[n(1)]
    pub label: ShareLabel,
    /// Fingerprint of the bundle that they were checked against.
    #[n(2)]
    pub bundle: Digest32,
    /// When.
    #[n(3)]
    pub time: UnixMillis,
}

impl Format for Acknowledgement {
    const WHAT: &'static str = "acknowledgement";
}

/// An acknowledgement with the custodian's signature.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
#[cbor(map)]
pub struct SignedAcknowledgement {
    /// Always 1.
    #[n(0)]
    pub version: VersionOne,
    /// Canonical bytes of the [`Acknowledgement`].
    #[cbor(n(1), with = "minicbor::bytes")]
    pub body: Vec<u8>,
    /// Signature by the custodian's sign key.
    #[n(2)]
    pub signature: Signature,
}

impl Format for SignedAcknowledgement {
    const WHAT: &'static str = "signed acknowledgement";
}

impl ArmouredFormat for SignedAcknowledgement {
    const LABEL: &'static str = "KMS SHARE ACKNOWLEDGEMENT";
}

impl SignedAcknowledgement {
    /// Signs that the shares of `label` are safe.
    pub fn sign(
        label: ShareLabel,
        bundle: Digest32,
        time: UnixMillis,
        identity: &Identity,
        rng: &mut impl CryptoRng,
    ) -> Self {
        let body = codec::to_bytes(&Acknowledgement { version: VersionOne, label, bundle, time });
        let signature = identity.sign_key.sign(ACKNOWLEDGEMENT_DOMAIN, &body, rng);
        Self { version: VersionOne, body, signature }
    }

    /// Checks signature and custodian against the bundle.
    ///
    /// # Errors
    /// [`ShareError`] names what does not fit.
    pub fn verify(&self, bundle: &Bundle) -> Result<Acknowledgement, ShareError> {
        let acknowledgement: Acknowledgement = codec::open(&self.body)?;
        let name = &acknowledgement.label.custodian;
        let custodian =
            bundle.custodian(name).ok_or_else(|| ShareError::NotInBundle { name: name.clone() })?;
        custodian.sign_key.verify(bundle.suite, ACKNOWLEDGEMENT_DOMAIN, &self.body, &self.signature)?;
        Ok(acknowledgement)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::testing::test_bundle;
    use crate::quorum::testing::TestRng;

    struct Delivered {
        bundle: Bundle,
        identity: Identity,
        delivery: ShareDelivery,
    }

    /// The first custodian of the test bundle with an identity whose keys we have.
    fn delivered(suite: Suite) -> Delivered {
        let mut rng = TestRng::new(50);
        let mut made = test_bundle(suite);
        let first = made.custodians.remove(0);
        let identity = Identity::generate(suite, first.name, &mut rng);
        let custodian = &mut made.bundle.custodians[0];
        custodian.sign_key = identity.enrolment.sign_key;
        custodian.seal_key = identity.enrolment.seal_key;
        let label = ShareLabel::of(&made.bundle, &made.bundle.custodians[0]);
        let shares = SharePair { start: first.start, core: first.core };
        let seal_key = identity.enrolment.seal_key;
        let delivery = ShareDelivery::seal(suite, label, &seal_key, &shares, &mut rng).expect("seals");
        Delivered { bundle: made.bundle, identity, delivery }
    }

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::enter(Secret::new(text.as_bytes().to_vec()))
    }

    #[test]
    fn a_share_travels_and_rests_and_an_acknowledgement_says_so() {
        for suite in [Suite::Sm, Suite::Intl] {
            let Delivered { bundle, identity, delivery } = delivered(suite);
            let mut rng = TestRng::new(51);
            let shares = delivery.open(&identity, &bundle).expect("opens");
            let stored = StoredShare::seal(
                suite,
                delivery.label.clone(),
                &passphrase("secret words"),
                &shares,
                &mut rng,
            );
            let text = codec::to_armour(&stored);
            let stored: StoredShare = codec::open_armour(text.as_bytes()).expect("reads back");
            assert!(stored.open(&passphrase("secret words"), &identity.enrolment, &bundle).is_ok());
            let wrong = stored.open(&passphrase("secret word"), &identity.enrolment, &bundle);
            assert!(matches!(wrong, Err(ShareError::Passphrase(_))));
            let signed = SignedAcknowledgement::sign(
                delivery.label,
                Digest32([1; 32]),
                UnixMillis(9),
                &identity,
                &mut rng,
            );
            assert!(signed.verify(&bundle).is_ok());
        }
    }

    #[test]
    fn a_delivery_for_another_person_set_or_epoch_is_refused_by_name() {
        let Delivered { bundle, identity, delivery } = delivered(Suite::Intl);
        let stranger = Identity::generate(
            Suite::Intl,
            CustodianName::parse("custodian-1").expect("valid"),
            &mut TestRng::new(60),
        );
        assert!(matches!(delivery.open(&stranger, &bundle), Err(ShareError::NotInBundle { .. })));
        let mut later = delivery.clone();
        later.label.share_epoch = 2;
        assert!(matches!(later.open(&identity, &bundle), Err(ShareError::ForeignSet)));
        let mut renamed = delivery.clone();
        renamed.label.custodian = CustodianName::parse("custodian-2").expect("valid");
        assert!(matches!(renamed.open(&identity, &bundle), Err(ShareError::NotInBundle { .. })));
        let mut changed = delivery.clone();
        *changed.sealed.last_mut().expect("not empty") ^= 1;
        assert!(matches!(changed.open(&identity, &bundle), Err(ShareError::Sealed(_))));
    }

    #[test]
    fn a_share_that_the_bundle_does_not_commit_to_is_refused() {
        let Delivered { mut bundle, identity, delivery } = delivered(Suite::Intl);
        bundle.custodians[0].core_commitment.0[0] ^= 1;
        let refused = delivery.open(&identity, &bundle).err();
        assert_eq!(refused, Some(ShareError::Commitment { kind: SecretKind::Core }));
    }

    #[test]
    fn an_identity_opens_only_with_its_passphrase() {
        let mut rng = TestRng::new(70);
        let name = CustodianName::parse("alice").expect("valid");
        let identity = Identity::generate(Suite::Sm, name, &mut rng);
        let file = identity.to_file(&passphrase("secret words"), &mut rng);
        let opened = file.open(&passphrase("secret words")).expect("opens");
        assert_eq!(opened.sign_key.public_key(), identity.enrolment.sign_key);
        assert!(matches!(file.open(&passphrase("other words")), Err(ShareError::Passphrase(_))));
        let mut forged = file.clone();
        forged.enrolment.signature.0[0] ^= 1;
        assert!(matches!(forged.open(&passphrase("secret words")), Err(ShareError::Signature(_))));
    }
}
