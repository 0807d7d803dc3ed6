//! From the generated messages to types that cannot be wrong, and back.

use crate::error::ClientError;
use kms_core::context::EncryptionContext;
use kms_core::id::{KeyId, KeyName, KeyVersion, UnixMillis};
use kms_core::key::KeyState;
use kms_core::spec::{KeyAlgorithm, KeyOrigin, KeySpec, KeyUsage, Protection};
use kms_core::suite::AeadAlgorithm;
use kms_proto::v1;
use prost_types::Timestamp;

pub(crate) fn key_id(text: &str) -> Result<KeyId, ClientError> {
    KeyId::parse(text).map_err(|error| ClientError::malformed(format!("key id {text:?} {error}")))
}

pub(crate) fn key_name(text: &str) -> Result<KeyName, ClientError> {
    KeyName::parse(text).map_err(|error| ClientError::malformed(format!("key name {text:?} {error}")))
}

pub(crate) fn key_version(number: u32) -> Result<KeyVersion, ClientError> {
    KeyVersion::new(number).ok_or_else(|| ClientError::malformed("a key has the version 0"))
}

/// The numbers are those of docs/formats/registry.md.
pub(crate) fn key_spec(number: i32) -> Result<KeySpec, ClientError> {
    let known = u16::try_from(number).ok().and_then(KeySpec::from_number);
    known.ok_or_else(|| ClientError::malformed(format!("key specification {number} is unknown")))
}

pub(crate) fn data_key_algorithm(number: i32) -> Result<AeadAlgorithm, ClientError> {
    match key_spec(number)?.algorithm() {
        KeyAlgorithm::Aead(algorithm) => Ok(algorithm),
        KeyAlgorithm::Mac(_) | KeyAlgorithm::Pair(_) | KeyAlgorithm::Raw(_) => {
            Err(ClientError::malformed("a data key has a specification that does not encrypt"))
        }
    }
}

pub(crate) fn key_spec_to_proto(spec: Option<KeySpec>) -> i32 {
    spec.map_or(0, |spec| spec.number().into())
}

pub(crate) fn usage(number: i32) -> Result<KeyUsage, ClientError> {
    match v1::KeyUsage::try_from(number) {
        Ok(v1::KeyUsage::EncryptDecrypt) => Ok(KeyUsage::EncryptDecrypt),
        Ok(v1::KeyUsage::GenerateVerifyMac) => Ok(KeyUsage::GenerateVerifyMac),
        Ok(v1::KeyUsage::SignVerify) => Ok(KeyUsage::SignVerify),
        Ok(v1::KeyUsage::RawEncryptDecrypt) => Ok(KeyUsage::RawEncryptDecrypt),
        Ok(v1::KeyUsage::Unspecified) | Err(_) => {
            Err(ClientError::malformed(format!("key usage {number} is unknown")))
        }
    }
}

pub(crate) fn usage_to_proto(usage: Option<KeyUsage>) -> v1::KeyUsage {
    match usage {
        None => v1::KeyUsage::Unspecified,
        Some(KeyUsage::EncryptDecrypt) => v1::KeyUsage::EncryptDecrypt,
        Some(KeyUsage::GenerateVerifyMac) => v1::KeyUsage::GenerateVerifyMac,
        Some(KeyUsage::SignVerify) => v1::KeyUsage::SignVerify,
        Some(KeyUsage::RawEncryptDecrypt) => v1::KeyUsage::RawEncryptDecrypt,
    }
}

pub(crate) fn protection(number: i32) -> Result<Protection, ClientError> {
    match v1::Protection::try_from(number) {
        Ok(v1::Protection::HsmResident) => Ok(Protection::HsmResident),
        Ok(v1::Protection::HsmWrapped) => Ok(Protection::HsmWrapped),
        Ok(v1::Protection::Unspecified) | Err(_) => {
            Err(ClientError::malformed(format!("protection {number} is unknown")))
        }
    }
}

pub(crate) fn key_origin(number: i32) -> Result<KeyOrigin, ClientError> {
    match v1::KeyOrigin::try_from(number) {
        Ok(v1::KeyOrigin::Generated) => Ok(KeyOrigin::Generated),
        Ok(v1::KeyOrigin::Imported) => Ok(KeyOrigin::Imported),
        Ok(v1::KeyOrigin::Unspecified) | Err(_) => {
            Err(ClientError::malformed(format!("key origin {number} is unknown")))
        }
    }
}

pub(crate) fn protection_to_proto(protection: Option<Protection>) -> v1::Protection {
    match protection {
        None => v1::Protection::Unspecified,
        Some(Protection::HsmResident) => v1::Protection::HsmResident,
        Some(Protection::HsmWrapped) => v1::Protection::HsmWrapped,
    }
}

pub(crate) fn key_state(number: i32) -> Result<KeyState, ClientError> {
    match v1::KeyState::try_from(number) {
        Ok(v1::KeyState::Creating) => Ok(KeyState::Creating),
        Ok(v1::KeyState::Active) => Ok(KeyState::Active),
        Ok(v1::KeyState::Suspended) => Ok(KeyState::Suspended),
        Ok(v1::KeyState::Deactivated) => Ok(KeyState::Deactivated),
        Ok(v1::KeyState::PreActive) => Ok(KeyState::PreActive),
        Ok(v1::KeyState::Archived) => Ok(KeyState::Archived),
        Ok(v1::KeyState::Compromised) => Ok(KeyState::Compromised),
        Ok(v1::KeyState::DestroyPending) => Ok(KeyState::DestroyPending),
        Ok(v1::KeyState::Destroying) => Ok(KeyState::Destroying),
        Ok(v1::KeyState::Destroyed) => Ok(KeyState::Destroyed),
        Ok(v1::KeyState::DestroyedCompromised) => Ok(KeyState::DestroyedCompromised),
        Ok(v1::KeyState::Unspecified) | Err(_) => {
            Err(ClientError::malformed(format!("key state {number} is unknown")))
        }
    }
}

pub(crate) fn key_state_to_proto(state: Option<KeyState>) -> v1::KeyState {
    match state {
        None => v1::KeyState::Unspecified,
        Some(KeyState::Creating) => v1::KeyState::Creating,
        Some(KeyState::PreActive) => v1::KeyState::PreActive,
        Some(KeyState::Active) => v1::KeyState::Active,
        Some(KeyState::Suspended) => v1::KeyState::Suspended,
        Some(KeyState::Deactivated) => v1::KeyState::Deactivated,
        Some(KeyState::Archived) => v1::KeyState::Archived,
        Some(KeyState::Compromised) => v1::KeyState::Compromised,
        Some(KeyState::DestroyPending) => v1::KeyState::DestroyPending,
        Some(KeyState::Destroying) => v1::KeyState::Destroying,
        Some(KeyState::Destroyed) => v1::KeyState::Destroyed,
        Some(KeyState::DestroyedCompromised) => v1::KeyState::DestroyedCompromised,
    }
}

pub(crate) fn time(timestamp: Option<Timestamp>, what: &str) -> Result<UnixMillis, ClientError> {
    let timestamp = timestamp.ok_or_else(|| ClientError::malformed(format!("{what} has no time")))?;
    let millis = i128::from(timestamp.seconds) * 1000 + i128::from(timestamp.nanos / 1_000_000);
    u64::try_from(millis)
        .map(UnixMillis)
        .map_err(|_| ClientError::malformed(format!("the time of {what} is before 1970")))
}

pub(crate) fn optional_time(
    timestamp: Option<Timestamp>,
    what: &str,
) -> Result<Option<UnixMillis>, ClientError> {
    timestamp.map(|timestamp| time(Some(timestamp), what)).transpose()
}

pub(crate) fn time_to_proto(time: UnixMillis) -> Timestamp {
    Timestamp { seconds: (time.0 / 1000) as i64, nanos: (time.0 % 1000) as i32 * 1_000_000 }
}

pub(crate) fn context_to_proto(context: &EncryptionContext) -> Vec<v1::ContextPair> {
    context.pairs().map(|(key, value)| v1::ContextPair { key: key.into(), value: value.into() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unspecified_or_unknown_number_is_not_taken_for_a_value() {
        for number in [0, 99, -1] {
            assert!(key_spec(number).is_err() && protection(number).is_err() && key_state(number).is_err());
            assert!(key_origin(number).is_err());
        }
    }

    #[test]
    fn times_keep_their_milliseconds_both_ways() {
        let moment = UnixMillis(1_793_000_000_123);
        assert_eq!(time(Some(time_to_proto(moment)), "a key").ok(), Some(moment));
        assert!(time(None, "a key").is_err());
        assert!(time(Some(Timestamp { seconds: -5, nanos: 0 }), "a key").is_err());
    }
}
