//! From proto to types that cannot be wrong, and back.

use crate::random::now;
use crate::service::{Open, ServiceError, UsageReport, spec_names};
use crate::store::DestructionRequest;
use kms_core::context::EncryptionContext;
use kms_core::id::{KeyRef, KeySelector, KeyVersion, UnixMillis};
use kms_core::key::{Cryptoperiod, KeyState, Standing};
use kms_core::pair::SignatureAlgorithm;
use kms_core::reason::Reason;
use kms_core::spec::{KeyAlgorithm, KeySpec, Protection};
use kms_core::suite::AeadAlgorithm;
use kms_proto::v1;

pub use crate::service::KeyEntry;

/// Longest idempotency token, in bytes.
const TOKEN_LEN_MAX: usize = 64;
/// The last second of the year 9999: the last that RFC 3339 can write.
const SECONDS_MAX: i64 = 253_402_300_799;

/// A time in proto form.
pub fn timestamp(time: UnixMillis) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: i64::try_from(time.0 / 1000).unwrap_or(i64::MAX),
        nanos: i32::try_from(time.0 % 1000 * 1_000_000).unwrap_or(0),
    }
}

/// A time from proto form; before 1970 is 1970.
pub fn millis(time: &prost_types::Timestamp) -> UnixMillis {
    let seconds = u64::try_from(time.seconds).unwrap_or(0);
    let nanos = u64::try_from(time.nanos).unwrap_or(0);
    UnixMillis(seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000))
}

/// A required key specification.
///
/// # Errors
/// `SPEC_UNSUPPORTED`.
pub fn spec(number: i32) -> Result<KeySpec, ServiceError> {
    optional_spec("spec", number)?.ok_or_else(|| unsupported("spec", KeySpec::ALL.into_iter()))
}

/// A data key's algorithm, which may be left out.
///
/// # Errors
/// `SPEC_UNSUPPORTED`.
pub fn data_key_algorithm(number: i32) -> Result<Option<AeadAlgorithm>, ServiceError> {
    const FIELD: &str = "data_key_spec";
    match optional_spec(FIELD, number)?.map(KeySpec::algorithm) {
        None => Ok(None),
        Some(KeyAlgorithm::Aead(algorithm)) => Ok(Some(algorithm)),
        Some(KeyAlgorithm::Mac(_) | KeyAlgorithm::Pair(_)) => {
            Err(unsupported(FIELD, AeadAlgorithm::ALL.into_iter().map(KeySpec::from)))
        }
    }
}

fn optional_spec(field: &'static str, number: i32) -> Result<Option<KeySpec>, ServiceError> {
    match v1::KeySpec::try_from(number) {
        Ok(v1::KeySpec::Unspecified) => Ok(None),
        Ok(v1::KeySpec::Aes256) => Ok(Some(KeySpec::Aes256)),
        Ok(v1::KeySpec::Sm4) => Ok(Some(KeySpec::Sm4)),
        Ok(v1::KeySpec::Aes128) => Ok(Some(KeySpec::Aes128)),
        Ok(v1::KeySpec::Aes192) => Ok(Some(KeySpec::Aes192)),
        Ok(v1::KeySpec::HmacSha256) => Ok(Some(KeySpec::HmacSha256)),
        Ok(v1::KeySpec::HmacSha384) => Ok(Some(KeySpec::HmacSha384)),
        Ok(v1::KeySpec::HmacSha512) => Ok(Some(KeySpec::HmacSha512)),
        Ok(v1::KeySpec::HmacSm3) => Ok(Some(KeySpec::HmacSm3)),
        Ok(v1::KeySpec::Rsa2048) => Ok(Some(KeySpec::Rsa2048)),
        Ok(v1::KeySpec::Rsa3072) => Ok(Some(KeySpec::Rsa3072)),
        Ok(v1::KeySpec::Rsa4096) => Ok(Some(KeySpec::Rsa4096)),
        Ok(v1::KeySpec::EcP256) => Ok(Some(KeySpec::EcP256)),
        Ok(v1::KeySpec::EcP384) => Ok(Some(KeySpec::EcP384)),
        Ok(v1::KeySpec::EcP521) => Ok(Some(KeySpec::EcP521)),
        Ok(v1::KeySpec::Ed25519) => Ok(Some(KeySpec::Ed25519)),
        Ok(v1::KeySpec::Sm2) => Ok(Some(KeySpec::Sm2)),
        Err(_) => Err(unsupported(field, KeySpec::ALL.into_iter())),
    }
}

fn unsupported(field: &'static str, fitting: impl Iterator<Item = KeySpec>) -> ServiceError {
    let names = spec_names(fitting);
    let error = ServiceError::new(Reason::SpecUnsupported, format!("{field} must be {names}"));
    ServiceError { field: Some(field), ..error }
}

/// A key specification in proto form.
pub fn proto_spec(spec: KeySpec) -> i32 {
    match spec {
        KeySpec::Aes256 => v1::KeySpec::Aes256,
        KeySpec::Sm4 => v1::KeySpec::Sm4,
        KeySpec::Aes128 => v1::KeySpec::Aes128,
        KeySpec::Aes192 => v1::KeySpec::Aes192,
        KeySpec::HmacSha256 => v1::KeySpec::HmacSha256,
        KeySpec::HmacSha384 => v1::KeySpec::HmacSha384,
        KeySpec::HmacSha512 => v1::KeySpec::HmacSha512,
        KeySpec::HmacSm3 => v1::KeySpec::HmacSm3,
        KeySpec::Rsa2048 => v1::KeySpec::Rsa2048,
        KeySpec::Rsa3072 => v1::KeySpec::Rsa3072,
        KeySpec::Rsa4096 => v1::KeySpec::Rsa4096,
        KeySpec::EcP256 => v1::KeySpec::EcP256,
        KeySpec::EcP384 => v1::KeySpec::EcP384,
        KeySpec::EcP521 => v1::KeySpec::EcP521,
        KeySpec::Ed25519 => v1::KeySpec::Ed25519,
        KeySpec::Sm2 => v1::KeySpec::Sm2,
    }
    .into()
}

/// A protection that may be left out.
///
/// # Errors
/// `FIELD_INVALID`.
pub fn protection(number: i32) -> Result<Option<Protection>, ServiceError> {
    match v1::Protection::try_from(number) {
        Ok(v1::Protection::Unspecified) => Ok(None),
        Ok(v1::Protection::HsmResident) => Ok(Some(Protection::HsmResident)),
        Ok(v1::Protection::HsmWrapped) => Ok(Some(Protection::HsmWrapped)),
        Err(_) => Err(ServiceError::field("protection", "must be resident or wrapped")),
    }
}

/// A key reference: name, id, or either with `@version`.
///
/// # Errors
/// `FIELD_INVALID`.
pub fn key_ref(field: &'static str, text: &str) -> Result<KeyRef, ServiceError> {
    KeyRef::parse(text).map_err(|error| ServiceError::field(field, error))
}

/// A key reference without a version.
///
/// # Errors
/// `FIELD_INVALID`.
pub fn key_selector(field: &'static str, text: &str) -> Result<KeySelector, ServiceError> {
    let reference = key_ref(field, text)?;
    match reference.version {
        None => Ok(reference.key),
        Some(_) => Err(ServiceError::field(field, "must be a key's name or id without @version")),
    }
}

/// A key reference that may be left out.
///
/// # Errors
/// `FIELD_INVALID`.
pub fn optional_key_ref(field: &'static str, text: &str) -> Result<Option<KeyRef>, ServiceError> {
    if text.is_empty() { Ok(None) } else { key_ref(field, text).map(Some) }
}

/// An encryption context.
///
/// # Errors
/// `FIELD_INVALID`.
pub fn context(pairs: Vec<v1::ContextPair>) -> Result<EncryptionContext, ServiceError> {
    context_field("context", pairs)
}

/// An encryption context in a field of another name.
///
/// # Errors
/// `FIELD_INVALID`.
pub fn context_field(
    field: &'static str,
    pairs: Vec<v1::ContextPair>,
) -> Result<EncryptionContext, ServiceError> {
    EncryptionContext::new(pairs.into_iter().map(|pair| (pair.key, pair.value)))
        .map_err(|error| ServiceError::field(field, error))
}

/// An idempotency token that may be left out.
///
/// # Errors
/// `FIELD_INVALID`.
pub fn token(text: String) -> Result<Option<String>, ServiceError> {
    match text.len() {
        0 => Ok(None),
        1..=TOKEN_LEN_MAX => Ok(Some(text)),
        len => {
            let message = format!("is {len} bytes long; at most {TOKEN_LEN_MAX} are allowed");
            Err(ServiceError::field("idempotency_token", message))
        }
    }
}

/// The dates of a new key, in their order and within the calendar.
///
/// # Errors
/// `FIELD_INVALID`.
pub fn period(
    activates: Option<prost_types::Timestamp>,
    expires: Option<prost_types::Timestamp>,
) -> Result<Cryptoperiod, ServiceError> {
    let date = |field, time: Option<prost_types::Timestamp>| match time {
        None => Ok(None),
        Some(time) if !(0..1_000_000_000).contains(&time.nanos) || time.seconds > SECONDS_MAX => {
            Err(ServiceError::field(field, "is no time before the year 10000"))
        }
        Some(time) => Ok(Some(millis(&time))),
    };
    let period =
        Cryptoperiod { activates: date("activates", activates)?, expires: date("expires", expires)? };
    match (period.activates, period.expires) {
        (Some(activates), Some(expires)) if expires <= activates => {
            Err(ServiceError::field("expires", "must be after the activation date"))
        }
        _ => Ok(period),
    }
}

fn proto_state(state: KeyState) -> i32 {
    match state {
        KeyState::Creating => v1::KeyState::Creating,
        KeyState::Active => v1::KeyState::Active,
        KeyState::Suspended => v1::KeyState::Suspended,
        KeyState::Deactivated => v1::KeyState::Deactivated,
        KeyState::PreActive => v1::KeyState::PreActive,
        KeyState::Archived => v1::KeyState::Archived,
        KeyState::Compromised => v1::KeyState::Compromised,
        KeyState::DestroyPending => v1::KeyState::DestroyPending,
        KeyState::Destroying => v1::KeyState::Destroying,
        KeyState::Destroyed => v1::KeyState::Destroyed,
        KeyState::DestroyedCompromised => v1::KeyState::DestroyedCompromised,
    }
    .into()
}

/// A key's description.
pub fn proto_key(entry: &KeyEntry) -> v1::Key {
    let row = &entry.row;
    let (protection, note) = match row.protection {
        Protection::HsmResident => (
            v1::Protection::HsmResident,
            "every operation runs inside the HSM; the key leaves it only wrapped, under a quorum, for recovery",
        ),
        Protection::HsmWrapped => (
            v1::Protection::HsmWrapped,
            "sealed by a master key of the HSM; in locked memory of the server while it is unsealed",
        ),
    };
    v1::Key {
        key_id: row.key_id.to_string(),
        name: row.name.to_string(),
        spec: proto_spec(row.spec),
        protection: protection.into(),
        state: proto_state(row.standing_at(now()).state),
        current_version: row.current_version.number(),
        versions: entry
            .versions
            .iter()
            .map(|version| v1::KeyVersion {
                version: version.version.number(),
                state: proto_state(version.standing_at(now()).state),
                created: Some(timestamp(version.created)),
                destruction: proto_destruction(&version.standing, version.destruction_request.as_ref()),
                check_value: version.check_value.map(|value| value.0.to_vec()).unwrap_or_default(),
            })
            .collect(),
        created: Some(timestamp(row.created)),
        creator: row.creator.to_uri(),
        revision: row.revision,
        protection_note: note.into(),
        activates: row.period.activates.map(timestamp),
        expires: row.period.expires.map(timestamp),
        destruction: proto_destruction(&row.standing, row.destruction_request.as_ref()),
    }
}

fn proto_destruction(standing: &Standing, request: Option<&DestructionRequest>) -> Option<v1::Destruction> {
    let destruction = standing.destruction?;
    Some(v1::Destruction {
        state_before: proto_state(destruction.before),
        time: Some(timestamp(destruction.time)),
        asked: request.map(|request| timestamp(request.time)),
        asked_by: request.map(|request| request.by.to_uri()).unwrap_or_default(),
    })
}

/// How a key was used.
pub fn proto_usage(usage: &UsageReport) -> v1::UsageReport {
    let versions = usage.versions.iter().map(|(version, usage)| {
        let (last_used, last_used_by) = usage.last.clone().unzip();
        v1::VersionUse {
            version: version.number(),
            data_keys: usage.data_keys,
            encryptions: usage.encryptions,
            decryptions: usage.decryptions,
            macs: usage.macs,
            mac_verifications: usage.mac_verifications,
            signatures: usage.signatures,
            signature_verifications: usage.signature_verifications,
            last_used: last_used.map(timestamp),
            last_used_by: last_used_by.unwrap_or_default(),
        }
    });
    v1::UsageReport {
        key_id: usage.key.row.key_id.to_string(),
        name: usage.key.row.name.to_string(),
        versions: versions.collect(),
    }
}

/// A signature algorithm that may be left out. Its numbers are those of docs/formats/pairs.md.
///
/// # Errors
/// `FIELD_INVALID`.
pub fn signature_algorithm(number: i32) -> Result<Option<SignatureAlgorithm>, ServiceError> {
    let known = u16::try_from(number).ok().and_then(SignatureAlgorithm::from_number);
    match (number, known) {
        (0, _) => Ok(None),
        (_, Some(algorithm)) => Ok(Some(algorithm)),
        (_, None) => Err(ServiceError::field("algorithm", format!("{number} is no signature algorithm"))),
    }
}

/// A signature algorithm in proto form.
pub fn proto_signature_algorithm(algorithm: SignatureAlgorithm) -> i32 {
    algorithm.number().into()
}

/// A version's number in proto form.
pub fn proto_version(version: KeyVersion) -> u32 {
    version.number()
}

/// Whether there is an unsealed state, in proto form.
pub fn proto_seal_state(open: Option<&Open>) -> i32 {
    match open {
        Some(_) => v1::SealState::Unsealed,
        None => v1::SealState::Sealed,
    }
    .into()
}
