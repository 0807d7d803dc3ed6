//! Certificate signing requests: signatures by named key pairs over PKCS#10 that this service puts together itself.

use super::crypto::check_state;
use super::open::{DECISION_COUNT_MAX, KeyEntry, contention};
use super::sign::{default_algorithm, public_key};
use super::{Caller, MESSAGE_CHARS_MAX, Node, ServiceError, usage};
use kms_core::audit::Outcome;
use kms_core::csr::{CertificateRequest, RequestedNames};
use kms_core::id::{KeyId, KeyRef, KeyVersion};
use kms_core::key::KeyState;
use kms_core::pair::{PairAlgorithm, SignatureAlgorithm, SignedInput, Sm2UserId, ToSign};
use kms_core::policy::Action;
use kms_core::reason::Reason;
use kms_core::suite::Suite;

/// What is asked for.
#[derive(Debug)]
pub struct SigningRequest {
    /// The key that the certificate is for, and that signs the request.
    pub key: KeyRef,
    /// What the certificate names.
    pub names: RequestedNames,
    /// `None`: as `Sign` does it.
    pub algorithm: Option<SignatureAlgorithm>,
}

/// What `GetCertificateSigningRequest` gives.
#[derive(Debug)]
pub struct CertificateSigningRequest {
    /// The key that signed.
    pub key_id: KeyId,
    /// Its version.
    pub version: KeyVersion,
    /// How.
    pub algorithm: SignatureAlgorithm,
    /// PKCS#10 in DER.
    pub der: Vec<u8>,
}

/// What is to be signed, for one version of a key.
struct Unsigned {
    version: KeyVersion,
    pair: PairAlgorithm,
    request: CertificateRequest,
    input: ToSign,
}

fn unsigned(entry: &KeyEntry, asked: &SigningRequest) -> Result<Unsigned, ServiceError> {
    let pair = usage::signing_pair(&entry.row)?;
    let version = asked.key.version.unwrap_or(entry.row.current_version);
    check_state(entry, version, "sign", KeyState::can_encrypt)?;
    let key = public_key(entry, version)?;
    let algorithm = asked
        .algorithm
        .or_else(|| default_algorithm(key))
        .ok_or_else(|| ServiceError::new(Reason::Internal, "a key pair that signs in no way"))?;
    let field = |error: &dyn std::fmt::Display| ServiceError::field("algorithm", error);
    let request = CertificateRequest::new(key, algorithm, &asked.names).map_err(|error| field(&error))?;
    let message = request.to_be_signed();
    // An authority verifies with the default ID and knows no other.
    let input = ToSign::new(algorithm, key, &Sm2UserId::default(), SignedInput::Message(&message))
        .map_err(|error| field(&error))?;
    Ok(Unsigned { version, pair, request, input })
}

impl Node {
    /// A request for a certificate of a key pair, signed by it.
    ///
    /// # Errors
    /// [`ServiceError`] with the documented reason; [`Node::perform`] records it.
    pub async fn certificate_signing_request(
        &self,
        caller: &Caller,
        asked: &SigningRequest,
    ) -> Result<CertificateSigningRequest, ServiceError> {
        let open = self.require_open()?;
        for _ in 0..DECISION_COUNT_MAX {
            let (found, Unsigned { version, pair, request, input }) = open
                .judge(&self.database, &caller.principal.tenant, &asked.key.key, |entry| {
                    unsigned(entry, asked)
                })
                .await?;
            let algorithm = input.algorithm();
            let raw = self.signature(&open, caller, (&found, version), &input).await?;
            let signature = algorithm
                .signature_to_api(pair, &raw)
                .map_err(|error| ServiceError::new(Reason::Internal, error.to_string()))?;
            let der = request.signed(&signature);
            let shown = |text: String| text.chars().take(MESSAGE_CHARS_MAX).collect::<String>();
            let suite = if pair == PairAlgorithm::Sm2 { Suite::Sm } else { Suite::Intl };
            let record = self
                .record(Action::RequestCertificate.event(), Outcome::Done, caller)
                .detail("subject", shown(asked.names.subject()))
                .detail("names", shown(asked.names.alternative()))
                .detail("request_fingerprint", suite.fingerprint(&der));
            if self.commit_use_with(&open, &found, version, record).await? {
                return Ok(CertificateSigningRequest {
                    key_id: found.key.row.key_id,
                    version,
                    algorithm,
                    der,
                });
            }
        }
        Err(contention())
    }
}
