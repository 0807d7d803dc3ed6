//! The HSM layer: the only crate that talks to a PKCS#11 module.
//!
//! Everything above it sees two traits in words of its own, [`HsmPartition`] and [`HsmSession`]: no
//! slots, object handles or mechanism numbers. Another kind of device (an SDF library of GM/T 0018,
//! say) is another implementation of those two. [`Pool`] runs their operations on threads of its own,
//! because a driver call blocks and a session may be used by one thread only.
//!
//! What a module can do and how it wants it said is data: [`Profile`].
//!
//! Three facts shape the code (each was measured):
//!
//! - A PKCS#11 login belongs to the *process and token*. A second login answers "already logged in"
//!   even when its PIN is wrong, so a login is only ever made where none exists: one open partition
//!   per token and process, and a login that is not ours is ended first.
//! - After a lost login a token shows no private objects. "Not found" is therefore only believed on a
//!   session that is logged in; nothing is created or reported missing because the token looked empty.
//! - A software token that has loaded its PIN check goes on accepting a PIN that another process
//!   changed. Nothing here can see that; the process must be restarted after a PIN change.

mod administration;
mod answer;
mod attributes;
mod breaker;
mod creation;
mod desk;
mod encoding;
mod error;
mod health;
mod live;
mod locked;
mod module;
mod observe;
mod pair;
mod partition;
mod pin;
mod pool;
mod profile;
mod profile_file;
mod random;
mod sealing;
mod self_test;
mod session;
mod survey;
mod threads;

pub use breaker::BreakerOptions;
pub use error::{ErrorClass, HsmError, ModuleError, TokenAnswer};
pub use health::{FailureReason, Health};
pub use locked::LockedBytes;
pub use module::{HsmModule, ProfileChoice, TokenDescription};
pub use observe::{NoObserver, Observed, Observer};
pub use pair::public::{EncryptError, SignatureRefused, encrypt_to, verify_signature};
pub use partition::Pkcs11Partition;
pub use pin::{Pin, PinPurpose};
pub use pool::{Pool, PoolOptions, Stopped};
pub use profile::{Evidence, PinRules, Profile, ProfileError, SoPin};
pub use survey::{LibraryDescription, MechanismRole, NeededMechanism, Presence};

use kms_core::id::HsmObjectId;
use kms_core::mac::MacAlgorithm;
use kms_core::pair::{EncryptionAlgorithm, PairAlgorithm, PairPublicKey, PairUsage, ToSign};
use kms_core::secret::Secret;
use kms_core::suite::{AeadAlgorithm, CheckValue, NONCE_LEN, Suite, TAG_LEN};

/// Longest plaintext that [`HsmSession::seal`] takes and longest message of [`HsmSession::mac`], in bytes.
pub const INPUT_LEN_MAX: usize = 1 << 20;
/// Longest associated data of [`HsmSession::seal`] and [`HsmSession::open`], in bytes.
pub const AAD_LEN_MAX: usize = 16 << 10;
/// Length of a public key: an uncompressed SEC1 point on P-256 or the SM2 curve.
pub const PUBLIC_KEY_LEN: usize = 65;

/// What an object in the HSM is for. It can do that and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    /// A master key or resident key: seals and opens. May leave the HSM only under a trusted wrapping key.
    SealingKey(AeadAlgorithm),
    /// A key pair that signs digests (ECDSA P-256 or SM2). Never leaves the HSM: it is succeeded, not backed up.
    SigningKey(Suite),
    /// A secret as long as the hash of its HMAC. May leave the HSM only under a trusted wrapping key.
    MacKey(MacAlgorithm),
    /// A named key pair of an application, for one use. May leave the HSM only under a trusted wrapping key.
    KeyPair(PairAlgorithm, PairUsage),
}

impl ObjectKind {
    /// Every kind that there is.
    pub fn all() -> impl Iterator<Item = ObjectKind> {
        let suites = [Suite::Sm, Suite::Intl];
        let sealing = AeadAlgorithm::ALL.into_iter().map(ObjectKind::SealingKey);
        let signing = suites.map(ObjectKind::SigningKey).into_iter();
        sealing.chain(signing).chain(MacAlgorithm::ALL.map(ObjectKind::MacKey)).chain(Self::pairs())
    }
}

impl ObjectKind {
    /// Every kind of key pair of applications.
    pub fn pairs() -> impl Iterator<Item = ObjectKind> {
        let with_use = |usage| PairAlgorithm::ALL.into_iter().map(move |algorithm| (algorithm, usage));
        let allowed = PairUsage::ALL.into_iter().flat_map(with_use);
        allowed
            .filter(|(algorithm, usage)| algorithm.allows(*usage))
            .map(|(algorithm, usage)| ObjectKind::KeyPair(algorithm, usage))
    }
}

/// What [`HsmSession::seal`] made: nonce, ciphertext and a full tag. Shorter parts do not fit in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    nonce: [u8; NONCE_LEN],
    ciphertext_and_tag: Vec<u8>,
}

impl Sealed {
    /// Accepts exactly 12 bytes of nonce, and a body of at least a check (8 bytes) and a tag (16 bytes).
    ///
    /// This is where lengths are refused, before any HSM is asked: SoftHSM accepts an empty nonce and a
    /// tag of no bits.
    ///
    /// # Errors
    /// [`HsmError::CiphertextInvalid`] for any other length, [`HsmError::TooLong`] for a body longer
    /// than anything that was sealed here.
    pub fn parse(nonce: &[u8], ciphertext_and_tag: Vec<u8>) -> Result<Self, HsmError> {
        let nonce = nonce.try_into().map_err(|_| HsmError::CiphertextInvalid)?;
        let least = sealing::CHECK_LEN + TAG_LEN;
        if ciphertext_and_tag.len() < least {
            return Err(HsmError::CiphertextInvalid);
        }
        check_len("the ciphertext", ciphertext_and_tag.len(), INPUT_LEN_MAX + least)?;
        Ok(Self { nonce, ciphertext_and_tag })
    }

    /// The nonce.
    pub fn nonce(&self) -> &[u8; NONCE_LEN] {
        &self.nonce
    }

    /// Ciphertext followed by the 16-byte tag.
    pub fn ciphertext_and_tag(&self) -> &[u8] {
        &self.ciphertext_and_tag
    }

    /// Moves ciphertext and tag out.
    pub fn into_ciphertext_and_tag(self) -> Vec<u8> {
        self.ciphertext_and_tag
    }
}

/// An object that exists and has every attribute that its kind asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfirmedObject {
    /// The object.
    pub id: HsmObjectId,
    /// For a [`ObjectKind::SigningKey`]: its public key, an uncompressed SEC1 point that is on the curve.
    pub public_key: Option<[u8; PUBLIC_KEY_LEN]>,
    /// For a [`ObjectKind::SealingKey`]: its check value, where the token gives one.
    pub check_value: Option<CheckValue>,
    /// For a [`ObjectKind::KeyPair`]: its public key. It was tried that the private half belongs to it.
    pub pair_public_key: Option<PairPublicKey>,
}

/// What a listed object is, as far as the token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObjectClass {
    /// A symmetric or MAC key.
    SecretKey,
    /// The private half of a key pair.
    PrivateKey,
    /// The public half of a key pair.
    PublicKey,
    /// Anything else: certificates, data.
    Other,
}

/// One object that the token holds, whether or not we made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedObject {
    /// Its id; `None` when it has none of 16 bytes, so it is not ours.
    pub id: Option<HsmObjectId>,
    /// Its label, with bytes that are not UTF-8 replaced.
    pub label: String,
    /// What it is.
    pub class: ObjectClass,
}

/// What a partition says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenStatus {
    /// The token's label.
    pub label: String,
    /// The token's serial number.
    pub serial: String,
    /// Who made it.
    pub manufacturer: String,
    /// Which model.
    pub model: String,
    /// Firmware version, `major.minor`.
    pub firmware: String,
    /// A wrong user PIN was tried since the last right one.
    pub user_pin_count_low: bool,
}

/// One session of a partition. Used by one thread at a time.
///
/// An implementation replaces a session that was lost and logs in again where it may, and repeats an
/// operation once when that cannot have an effect twice. What it returns after that is final for this call.
pub trait HsmSession: Send {
    /// Fills `out` with random bytes of the HSM.
    ///
    /// # Errors
    /// [`HsmError::UnexpectedAnswer`] when the bytes are visibly not random; otherwise the state of the token.
    fn random(&mut self, out: &mut [u8]) -> Result<(), HsmError>;

    /// Encrypts under `key` with a fresh nonce. Plaintext up to [`INPUT_LEN_MAX`], `aad` up to [`AAD_LEN_MAX`]. What
    /// comes back has been opened by the token once: two operations of the token for one of ours.
    ///
    /// # Errors
    /// [`HsmError::TooLong`], [`HsmError::NotFound`], [`HsmError::Unsupported`], [`HsmError::UnexpectedAnswer`] when it
    /// does not open; otherwise the state of the token.
    fn seal(
        &mut self,
        key: HsmObjectId,
        algorithm: AeadAlgorithm,
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<Sealed, HsmError>;

    /// Decrypts what [`HsmSession::seal`] made with the same key and associated data.
    ///
    /// # Errors
    /// [`HsmError::CiphertextInvalid`] for anything else, on every device; [`HsmError::UnexpectedAnswer`] when the token
    /// gives another plaintext than was sealed; otherwise as for `seal`.
    fn open(
        &mut self,
        key: HsmObjectId,
        algorithm: AeadAlgorithm,
        aad: &[u8],
        sealed: &Sealed,
    ) -> Result<Secret, HsmError>;

    /// Makes a new object. `label` is for people; only the id finds it again.
    ///
    /// When the answer is lost the object may exist: call [`HsmSession::confirm`] before anything else.
    ///
    /// # Errors
    /// [`HsmError::AlreadyExists`] when anything has this id, [`HsmError::AttributeNotKept`] when the token made
    /// it with other attributes (it is destroyed again); otherwise the state of the token.
    fn create(&mut self, id: HsmObjectId, kind: ObjectKind, label: &str)
    -> Result<ConfirmedObject, HsmError>;

    /// Takes a key from outside as a new object: a secret key as it is, or the PKCS#8 of a private key. It is tried that the token
    /// holds this key and no other; otherwise as [`HsmSession::create`].
    ///
    /// # Errors
    /// [`HsmError::Unsupported`] when the profile does not say that the token takes keys,
    /// [`HsmError::UnexpectedAnswer`] when it holds another one (it is destroyed again); otherwise as for `create`.
    fn import(
        &mut self,
        id: HsmObjectId,
        kind: ObjectKind,
        label: &str,
        material: &[u8],
    ) -> Result<ConfirmedObject, HsmError>;

    /// Checks that exactly one object of this kind has this id, and that it has all attributes of its kind.
    ///
    /// # Errors
    /// [`HsmError::NotFound`], [`HsmError::Ambiguous`], [`HsmError::AttributeNotKept`]; otherwise the state of the token.
    fn confirm(&mut self, id: HsmObjectId, kind: ObjectKind) -> Result<ConfirmedObject, HsmError>;

    /// Whether anything in the token has this id. Only a session that is logged in says no.
    ///
    /// # Errors
    /// The state of the token.
    fn exists(&mut self, id: HsmObjectId) -> Result<bool, HsmError>;

    /// Destroys the object, both halves when it is a key pair. Cannot be undone.
    ///
    /// # Errors
    /// [`HsmError::NotFound`], [`HsmError::Ambiguous`]; otherwise the state of the token.
    fn destroy(&mut self, id: HsmObjectId) -> Result<(), HsmError>;

    /// Signs a digest; gives r and s, 32 bytes each. For SM2 the digest is `e`: it includes the signer's identity.
    ///
    /// # Errors
    /// [`HsmError::NotFound`], [`HsmError::Ambiguous`], [`HsmError::Unsupported`]; otherwise the state of the token.
    fn sign(&mut self, key: HsmObjectId, suite: Suite, digest: &[u8; 32]) -> Result<[u8; 64], HsmError>;

    /// Signs with a [`ObjectKind::KeyPair`]. Gives the raw form (`r || s` for ECDSA and SM2), verified with `public_key`, which
    /// is the one that was kept when the pair was made. The message of Ed25519 has at most [`INPUT_LEN_MAX`] bytes.
    ///
    /// # Errors
    /// [`HsmError::TooLong`], [`HsmError::NotFound`], [`HsmError::Ambiguous`], [`HsmError::Unsupported`] also when input and key do
    /// not fit, [`HsmError::UnexpectedAnswer`] when the signature does not verify; otherwise the state of the token.
    fn sign_with(
        &mut self,
        key: HsmObjectId,
        public_key: &PairPublicKey,
        input: &ToSign,
    ) -> Result<Vec<u8>, HsmError>;

    /// Decrypts with a [`ObjectKind::KeyPair`] what was encrypted to `public_key`, in the form of docs/formats/pairs.md. Asked
    /// twice and compared. What is no ciphertext under this key is refused without a call where that can be seen.
    ///
    /// # Errors
    /// [`HsmError::CiphertextInvalid`] for anything else than such a ciphertext, on every device; otherwise as for `sign_with`.
    fn decrypt_with(
        &mut self,
        key: HsmObjectId,
        public_key: &PairPublicKey,
        algorithm: EncryptionAlgorithm,
        ciphertext: &[u8],
    ) -> Result<Secret, HsmError>;

    /// The whole MAC of at most [`INPUT_LEN_MAX`] bytes, asked twice and compared. It may serve as a derived key, so it never
    /// passes through the stack, where copies of it would stay.
    ///
    /// # Errors
    /// [`HsmError::TooLong`], [`HsmError::NotFound`], [`HsmError::Unsupported`]; otherwise the state of the token.
    fn mac(&mut self, key: HsmObjectId, algorithm: MacAlgorithm, data: &[u8]) -> Result<Secret, HsmError>;

    /// Asks the token about itself, and makes sure that it is ours and the login holds.
    ///
    /// # Errors
    /// The state of the token.
    fn status(&mut self) -> Result<TokenStatus, HsmError>;

    /// Runs known answers through the token, for every kind of object that it offers: with keys of the session
    /// alone, checked by our own implementation. Leaves nothing behind.
    ///
    /// # Errors
    /// [`HsmError::SelfTest`] names mechanism and profile; otherwise the state of the token.
    fn self_test(&mut self) -> Result<(), HsmError>;

    /// Everything that the token holds, to report what nobody knows. Nothing is ever deleted from this list.
    ///
    /// # Errors
    /// The state of the token.
    fn objects(&mut self) -> Result<Vec<ListedObject>, HsmError>;
}

/// One partition (PKCS#11: token) that is logged in.
pub trait HsmPartition: Send + Sync {
    /// Opens a session, logging in again when the login was lost.
    ///
    /// # Errors
    /// [`HsmError::PinRefused`] once and for ever after a refused PIN; otherwise the state of the token.
    fn open_session(&self) -> Result<Box<dyn HsmSession>, HsmError>;

    /// Whether the token offers every mechanism that objects of this kind need.
    fn can(&self, kind: ObjectKind) -> bool;

    /// Whether the token takes keys from outside.
    fn takes_keys(&self) -> bool;

    /// Wipes the PIN: from here on a lost login stays lost. The present login goes on.
    fn forget_pin(&self);

    /// Logs out, so that PIN and keys leave the device's library, and wipes the PIN. Call it when every
    /// session is closed. Afterwards the partition opens no session.
    fn close(&self);
}

pub(crate) fn check_len(what: &'static str, len: usize, len_max: usize) -> Result<(), HsmError> {
    if len > len_max { Err(HsmError::TooLong { what, len, len_max }) } else { Ok(()) }
}
