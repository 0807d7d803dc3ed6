//! Signatures by named key pairs, and their public halves. Every answer leaves after its record is durable.

use super::crypto::{check_state, refuse_state};
use super::open::{DECISION_COUNT_MAX, Found, KeyEntry, Open, Place, contention};
use super::{Caller, Node, ServiceError, blocking, usage};
use crate::pairs::{PairError, PrivatePair, verify_signature};
use crate::random::system_rng;
use kms_core::id::{KeyId, KeyRef, KeyVersion};
use kms_core::key::KeyState;
use kms_core::mac::MESSAGE_LEN_MAX;
use kms_core::pair::{
    PairPublicKey, PairUsage, SignatureAlgorithm, SignedInput, SignedInputError, Sm2UserId, ToSign,
};
use kms_core::policy::Action;
use kms_core::reason::Reason;
use kms_core::secret::Secret;
use std::sync::Arc;

/// What is to be signed, or is said to have been.
#[derive(Debug)]
pub struct SignRequest {
    /// The key.
    pub key: KeyRef,
    /// `None`: the one way of a pair that has one alone, PSS with SHA-256 for RSA.
    pub algorithm: Option<SignatureAlgorithm>,
    /// The message, or its digest.
    pub input: Secret,
    /// Whether the input is a digest.
    pub is_digest: bool,
    /// Enters SM2 signatures over messages.
    pub user_id: Sm2UserId,
}

/// What `Sign` gives.
#[derive(Debug)]
pub struct Signed {
    /// The key that signed.
    pub key_id: KeyId,
    /// Its version.
    pub version: KeyVersion,
    /// How.
    pub algorithm: SignatureAlgorithm,
    /// The signature (docs/formats/pairs.md).
    pub signature: Vec<u8>,
}

/// What a public key is asked for, and which states answer.
struct Wanted {
    action: Action,
    verb: &'static str,
    may: fn(KeyState) -> bool,
}

/// The way in which a pair signs when the caller names none.
pub(super) fn default_algorithm(key: &PairPublicKey) -> Option<SignatureAlgorithm> {
    // The registry's order: PSS with SHA-256 is RSA's first.
    SignatureAlgorithm::of(key.algorithm()).next()
}

fn to_sign(request: &SignRequest, key: &PairPublicKey) -> Result<ToSign, ServiceError> {
    let bytes = request.input.expose();
    let input = if request.is_digest { SignedInput::Digest(bytes) } else { SignedInput::Message(bytes) };
    let algorithm = request
        .algorithm
        .or_else(|| default_algorithm(key))
        .ok_or_else(|| ServiceError::new(Reason::Internal, "a key pair that signs in no way"))?;
    ToSign::new(algorithm, key, &request.user_id, input).map_err(|error| {
        let field = match error {
            SignedInputError::OtherPair { .. } => "algorithm",
            SignedInputError::DigestLen { .. } => "input",
            SignedInputError::NeedsMessage { .. } => "is_digest",
        };
        ServiceError::field(field, error)
    })
}

/// The public half of a version. It is there from when the version is complete.
pub(super) fn public_key(entry: &KeyEntry, version: KeyVersion) -> Result<&PairPublicKey, ServiceError> {
    let row = entry.version(version)?;
    row.public_key
        .as_ref()
        .ok_or_else(|| refuse_state(entry, version, "have a public key", row.standing.state))
}

impl Node {
    /// Signs a message of up to 64 KiB, or a digest.
    ///
    /// # Errors
    /// [`ServiceError`] with the documented reason; [`Node::perform`] records it.
    pub async fn sign(&self, caller: &Caller, request: &SignRequest) -> Result<Signed, ServiceError> {
        let open = self.require_open()?;
        check_len(request)?;
        let wanted = Wanted { action: Action::Sign, verb: "sign", may: KeyState::can_encrypt };
        for _ in 0..DECISION_COUNT_MAX {
            let (found, number, input) = self.pair_for(&open, caller, request, &wanted).await?;
            let key = public_key(&found.key, number)?;
            let raw = self.signature(&open, caller, (&found, number), &input).await?;
            let algorithm = input.algorithm();
            let signature = algorithm
                .signature_to_api(key.algorithm(), &raw)
                .map_err(|error| ServiceError::new(Reason::Internal, error.to_string()))?;
            if self.commit_use(&open, caller, &found, number, wanted.action).await? {
                return Ok(Signed { key_id: found.key.row.key_id, version: number, algorithm, signature });
            }
        }
        Err(contention())
    }

    /// Verifies a signature. Returns only when it is right.
    ///
    /// # Errors
    /// `KEY_SIGNATURE_INVALID` when it is not; [`ServiceError`] with the documented reason; [`Node::perform`] records it.
    pub async fn verify(
        &self,
        caller: &Caller,
        request: &SignRequest,
        signature: &[u8],
    ) -> Result<(KeyId, KeyVersion, SignatureAlgorithm), ServiceError> {
        let open = self.require_open()?;
        check_len(request)?;
        let wanted = Wanted { action: Action::Verify, verb: "verify", may: KeyState::can_decrypt };
        for _ in 0..DECISION_COUNT_MAX {
            let (found, number, input) = self.pair_for(&open, caller, request, &wanted).await?;
            let key = public_key(&found.key, number)?;
            let algorithm = input.algorithm();
            let is_right = algorithm
                .signature_from_api(key.algorithm(), signature)
                .is_ok_and(|raw| verify_signature(key, &input, &raw).is_ok());
            if !is_right {
                let name = &found.key.row.name;
                let message = format!(
                    "the signature is not one over this input by key {name}@{number} with {algorithm}"
                );
                return Err(ServiceError::new(Reason::KeySignatureInvalid, message));
            }
            if self.commit_use(&open, caller, &found, number, wanted.action).await? {
                return Ok((found.key.row.key_id, number, algorithm));
            }
        }
        Err(contention())
    }

    /// The public half of a key pair, in every state: what was signed stays signed.
    ///
    /// # Errors
    /// [`ServiceError`] with the documented reason; [`Node::perform`] records it.
    pub async fn public_key(
        &self,
        caller: &Caller,
        key: &KeyRef,
    ) -> Result<(KeyVersion, PairPublicKey, Arc<KeyEntry>), ServiceError> {
        let open = self.require_open()?;
        for _ in 0..DECISION_COUNT_MAX {
            let (found, (number, public)) = open
                .judge(&self.database, &caller.principal.tenant, &key.key, |entry| {
                    usage::any_pair(&entry.row)?;
                    let number = key.version.unwrap_or(entry.row.current_version);
                    Ok((number, public_key(entry, number)?.clone()))
                })
                .await?;
            if self.commit_use(&open, caller, &found, number, Action::GetPublicKey).await? {
                return Ok((number, public, found.key));
            }
        }
        Err(contention())
    }

    /// The key and version for a caller, in a state that allows it, and what goes into its operation.
    async fn pair_for(
        &self,
        open: &Open,
        caller: &Caller,
        request: &SignRequest,
        wanted: &Wanted,
    ) -> Result<(Found, KeyVersion, ToSign), ServiceError> {
        let judged = open.judge(&self.database, &caller.principal.tenant, &request.key.key, |entry| {
            usage::signing_pair(&entry.row)?;
            let number = request.key.version.unwrap_or(entry.row.current_version);
            check_state(entry, number, wanted.verb, wanted.may)?;
            Ok((number, to_sign(request, public_key(entry, number)?)?))
        });
        judged.await.map(|(found, (number, input))| (found, number, input))
    }

    /// The raw signature, verified with the stored public key before it is here.
    pub(super) async fn signature(
        &self,
        open: &Arc<Open>,
        caller: &Caller,
        (found, number): (&Found, KeyVersion),
        input: &ToSign,
    ) -> Result<Vec<u8>, ServiceError> {
        let version = found.key.version(number)?;
        let (key, input) = (public_key(&found.key, number)?.clone(), input.clone());
        match open.place(&self.bundle, &found.key.row, version, caller.deadline).await? {
            Place::Resident(object) => {
                let work =
                    move |session: &mut dyn kms_hsm::HsmSession| session.sign_with(object, &key, &input);
                Ok(open.hsm("sign_with", caller.deadline, work).await?)
            }
            Place::Wrapped(material) => {
                // RSA takes milliseconds.
                let signed: Result<Vec<u8>, PairError> = blocking(move || {
                    PrivatePair::open(PairUsage::Sign, &key, material.expose())?
                        .sign(&input, &mut system_rng())
                })
                .await;
                signed.map_err(|error| {
                    let (key, version) = (found.key.row.key_id, number);
                    tracing::error!(%key, %version, %error, "a wrapped key pair does not sign");
                    ServiceError::new(
                        Reason::Internal,
                        "a stored key pair does not sign; see the server's log",
                    )
                })
            }
        }
    }
}

fn check_len(request: &SignRequest) -> Result<(), ServiceError> {
    let len = request.input.expose().len();
    if len <= MESSAGE_LEN_MAX {
        return Ok(());
    }
    let message =
        format!("has {len} bytes; at most {MESSAGE_LEN_MAX} are allowed: sign the digest of a longer one");
    Err(ServiceError::field("input", message))
}
