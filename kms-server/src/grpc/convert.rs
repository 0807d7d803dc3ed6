//! From proto to types that cannot be wrong, and back.

use crate::random::now;
use crate::service::{Open, ServiceError, UsageReport, spec_names};
use crate::store::{AliasRow, DestructionRequest};
use kms_core::attributes::{AttributeChanges, KeyAttributes, LABEL_COUNT_MAX, Line, Sensitivity, ShortText};
use kms_core::codec::VersionOne;
use kms_core::context::EncryptionContext;
use kms_core::id::{KeyRef, KeySelector, KeyVersion, LabelName, UnixMillis};
use kms_core::import::ImportWrapping;
use kms_core::key::{Cryptoperiod, KeyState, Standing};
use kms_core::pair::{PairAlgorithm, SignatureAlgorithm};
use kms_core::raw::Padding;
use kms_core::reason::Reason;
use kms_core::spec::{KeyAlgorithm, KeyOrigin, KeySpec, KeyUsage, Protection};
use kms_core::suite::AeadAlgorithm;
use kms_proto::v1;
use std::collections::BTreeMap;

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
        Some(_) => Err(unsupported(FIELD, AeadAlgorithm::ALL.into_iter().map(KeySpec::from))),
    }
}

/// A key pair's algorithm.
///
/// # Errors
/// `SPEC_UNSUPPORTED`.
pub fn pair_algorithm(number: i32) -> Result<PairAlgorithm, ServiceError> {
    const FIELD: &str = "pair_spec";
    match optional_spec(FIELD, number).ok().flatten().map(KeySpec::algorithm) {
        Some(KeyAlgorithm::Pair(algorithm)) => Ok(algorithm),
        _ => Err(unsupported(FIELD, PairAlgorithm::ALL.into_iter().map(KeySpec::from))),
    }
}

/// The numbers are those of docs/formats/registry.md.
fn optional_spec(field: &'static str, number: i32) -> Result<Option<KeySpec>, ServiceError> {
    match (number, u16::try_from(number).ok().and_then(KeySpec::from_number)) {
        (0, _) => Ok(None),
        (_, Some(spec)) => Ok(Some(spec)),
        (_, None) => Err(unsupported(field, KeySpec::ALL.into_iter())),
    }
}

fn unsupported(field: &'static str, fitting: impl Iterator<Item = KeySpec>) -> ServiceError {
    let names = spec_names(fitting);
    let error = ServiceError::new(Reason::SpecUnsupported, format!("{field} must be {names}"));
    ServiceError { field: Some(field), ..error }
}

/// A key specification in proto form.
pub fn proto_spec(spec: KeySpec) -> i32 {
    spec.number().into()
}

/// A usage that may be left out.
///
/// # Errors
/// `FIELD_INVALID`.
pub fn usage(number: i32) -> Result<Option<KeyUsage>, ServiceError> {
    match v1::KeyUsage::try_from(number) {
        Ok(v1::KeyUsage::Unspecified) => Ok(None),
        Ok(v1::KeyUsage::EncryptDecrypt) => Ok(Some(KeyUsage::EncryptDecrypt)),
        Ok(v1::KeyUsage::GenerateVerifyMac) => Ok(Some(KeyUsage::GenerateVerifyMac)),
        Ok(v1::KeyUsage::SignVerify) => Ok(Some(KeyUsage::SignVerify)),
        Ok(v1::KeyUsage::RawEncryptDecrypt) => Ok(Some(KeyUsage::RawEncryptDecrypt)),
        Err(_) => {
            let names = KeyUsage::ALL.map(KeyUsage::name).join(", ");
            Err(ServiceError::field("usage", format!("is none of {names}")))
        }
    }
}

/// A usage in proto form.
pub fn proto_key_usage(usage: KeyUsage) -> i32 {
    match usage {
        KeyUsage::EncryptDecrypt => v1::KeyUsage::EncryptDecrypt,
        KeyUsage::GenerateVerifyMac => v1::KeyUsage::GenerateVerifyMac,
        KeyUsage::SignVerify => v1::KeyUsage::SignVerify,
        KeyUsage::RawEncryptDecrypt => v1::KeyUsage::RawEncryptDecrypt,
    }
    .into()
}

/// The algorithm of a key pair, which may be left out.
///
/// # Errors
/// `SPEC_UNSUPPORTED`.
pub fn optional_pair(field: &'static str, number: i32) -> Result<Option<PairAlgorithm>, ServiceError> {
    match optional_spec(field, number)?.map(KeySpec::algorithm) {
        None => Ok(None),
        Some(KeyAlgorithm::Pair(pair)) => Ok(Some(pair)),
        Some(_) => Err(unsupported(field, PairAlgorithm::ALL.into_iter().map(KeySpec::from))),
    }
}

/// How material is wrapped.
pub fn proto_wrapping(wrapping: ImportWrapping) -> i32 {
    match wrapping {
        ImportWrapping::RsaOaepAesKwp => v1::ImportWrapping::RsaOaepSha256AesKwp,
        ImportWrapping::Sm2Envelope => v1::ImportWrapping::Sm2Envelope,
    }
    .into()
}

/// How a raw plaintext was padded.
///
/// # Errors
/// `FIELD_INVALID`.
pub fn padding(number: i32) -> Result<Padding, ServiceError> {
    match v1::RawPadding::try_from(number) {
        Ok(v1::RawPadding::Unspecified | v1::RawPadding::Pkcs7) => Ok(Padding::Pkcs7),
        Ok(v1::RawPadding::None) => Ok(Padding::None),
        Err(_) => Err(ServiceError::field("padding", "must be PKCS7 or NONE")),
    }
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

/// A time that may be left out, within the calendar.
fn date(
    field: &'static str,
    time: Option<prost_types::Timestamp>,
) -> Result<Option<UnixMillis>, ServiceError> {
    match time {
        None => Ok(None),
        Some(time) if !(0..1_000_000_000).contains(&time.nanos) || time.seconds > SECONDS_MAX => {
            Err(ServiceError::field(field, "is no time before the year 10000"))
        }
        Some(time) => Ok(Some(millis(&time))),
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
    let period =
        Cryptoperiod { activates: date("activates", activates)?, expires: date("expires", expires)? };
    match (period.activates, period.expires) {
        (Some(activates), Some(expires)) if expires <= activates => {
            Err(ServiceError::field("expires", "must be after the activation date"))
        }
        _ => Ok(period),
    }
}

fn text<const LEN_MAX: usize>(field: &'static str, text: &str) -> Result<Line<LEN_MAX>, ServiceError> {
    Line::parse(text).map_err(|error| ServiceError::field(field, error))
}

fn sensitivity(field: &'static str, level: u32) -> Result<Sensitivity, ServiceError> {
    let known = u8::try_from(level).ok().and_then(Sensitivity::new);
    known.ok_or_else(|| {
        ServiceError::field(field, format!("is {level}; 1, the most sensitive, to 3 are possible"))
    })
}

fn label_name(field: &'static str, name: &str) -> Result<LabelName, ServiceError> {
    LabelName::parse(name)
        .map_err(|error| ServiceError::field(field, format!("has a label whose name {error}")))
}

/// Labels with their values.
///
/// # Errors
/// `FIELD_INVALID`.
pub fn labels(
    field: &'static str,
    labels: Vec<v1::Label>,
) -> Result<BTreeMap<LabelName, ShortText>, ServiceError> {
    if labels.len() > LABEL_COUNT_MAX {
        let count = labels.len();
        return Err(ServiceError::field(field, format!("are {count}; a key has at most {LABEL_COUNT_MAX}")));
    }
    let mut parsed = BTreeMap::new();
    for v1::Label { name, value } in labels {
        let name = label_name(field, &name)?;
        let value = ShortText::parse(&value)
            .map_err(|error| ServiceError::field(field, format!("has a value of {name} that {error}")))?;
        if parsed.contains_key(&name) {
            return Err(ServiceError::field(field, format!("names {name} twice")));
        }
        parsed.insert(name, value);
    }
    Ok(parsed)
}

/// The attributes of a new key.
///
/// # Errors
/// `FIELD_INVALID`.
pub fn attributes(message: v1::KeyAttributes) -> Result<KeyAttributes, ServiceError> {
    Ok(KeyAttributes {
        version: VersionOne,
        sensitivity: match message.sensitivity {
            0 => Sensitivity::HIGHEST,
            level => sensitivity("attributes.sensitivity", level)?,
        },
        owner: text("attributes.owner", &message.owner)?,
        description: text("attributes.description", &message.description)?,
        labels: labels("attributes.labels", message.labels)?,
        retain_until: date("attributes.retain_until", message.retain_until)?,
        is_protected: message.deletion_protection,
    })
}

/// What an update changes.
///
/// # Errors
/// `FIELD_INVALID`.
pub fn attribute_changes(message: v1::UpdateKeyRequest) -> Result<AttributeChanges, ServiceError> {
    let mut changed: BTreeMap<LabelName, Option<ShortText>> = labels("set_labels", message.set_labels)?
        .into_iter()
        .map(|(name, value)| (name, Some(value)))
        .collect();
    for name in &message.remove_labels {
        if changed.insert(label_name("remove_labels", name)?, None).is_some() {
            return Err(ServiceError::field(
                "remove_labels",
                format!("names {name} twice, or beside set_labels"),
            ));
        }
    }
    Ok(AttributeChanges {
        sensitivity: message.sensitivity.map(|level| sensitivity("sensitivity", level)).transpose()?,
        owner: message.owner.map(|owner| text("owner", &owner)).transpose()?,
        description: message.description.map(|words| text("description", &words)).transpose()?,
        labels: changed,
        retain_until: date("retain_until", message.retain_until)?,
        is_protected: message.deletion_protection,
    })
}

fn proto_attributes(attributes: &KeyAttributes) -> v1::KeyAttributes {
    let label = |(name, value): (&LabelName, &ShortText)| v1::Label {
        name: name.to_string(),
        value: value.as_str().to_owned(),
    };
    v1::KeyAttributes {
        owner: attributes.owner.as_str().to_owned(),
        description: attributes.description.as_str().to_owned(),
        sensitivity: attributes.sensitivity.level().into(),
        labels: attributes.labels.iter().map(label).collect(),
        retain_until: attributes.retain_until.map(timestamp),
        deletion_protection: attributes.is_protected,
    }
}

/// An alias.
pub fn proto_alias(alias: &AliasRow) -> v1::Alias {
    v1::Alias {
        alias: alias.name.to_string(),
        key_id: alias.key_id.to_string(),
        changed: Some(timestamp(alias.changed)),
    }
}

/// A state that may be left out.
///
/// # Errors
/// `FIELD_INVALID`.
pub fn state(number: i32) -> Result<Option<KeyState>, ServiceError> {
    match number {
        0 => Ok(None),
        _ => match KeyState::ALL.into_iter().find(|state| proto_state(*state) == number) {
            Some(state) => Ok(Some(state)),
            None => Err(ServiceError::field("state", format!("{number} is no state of a key"))),
        },
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
                // `DescribeKey` alone tells them.
                encryptions_taken: 0,
                is_rotation_advised: false,
                origin: match version.origin {
                    KeyOrigin::Generated => v1::KeyOrigin::Generated,
                    KeyOrigin::Imported => v1::KeyOrigin::Imported,
                }
                .into(),
            })
            .collect(),
        created: Some(timestamp(row.created)),
        creator: row.creator.to_uri(),
        revision: row.revision,
        protection_note: note.into(),
        activates: row.period.activates.map(timestamp),
        expires: row.period.expires.map(timestamp),
        destruction: proto_destruction(&row.standing, row.destruction_request.as_ref()),
        usage: proto_key_usage(row.usage),
        attributes: Some(proto_attributes(&row.attributes)),
        aliases: entry.aliases.iter().map(ToString::to_string).collect(),
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
            registered_data_keys: usage.registered_data_keys,
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
