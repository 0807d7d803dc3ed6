//! From the generated messages to types that cannot be wrong, and back.

use crate::error::ClientError;
use kms_core::context::EncryptionContext;
use kms_core::id::{KeyId, KeyVersion, UnixMillis};
use kms_core::key::KeyState;
use kms_core::spec::{KeyAlgorithm, KeySpec, Protection};
use kms_core::suite::AeadAlgorithm;
use kms_proto::v1;
use prost_types::Timestamp;

pub(crate) fn key_id(text: &str) -> Result<KeyId, ClientError> {
    KeyId::parse(text).map_err(|error| ClientError::malformed(format!("key id {text:?} {error}")))
}

pub(crate) fn key_version(number: u32) -> Result<KeyVersion, ClientError> {
    KeyVersion::new(number).ok_or_else(|| ClientError::malformed("a key has the version 0"))
}

pub(crate) fn key_spec(number: i32) -> Result<KeySpec, ClientError> {
    match v1::KeySpec::try_from(number) {
        Ok(v1::KeySpec::Aes256) => Ok(KeySpec::Aes256),
        Ok(v1::KeySpec::Sm4) => Ok(KeySpec::Sm4),
        Ok(v1::KeySpec::Aes128) => Ok(KeySpec::Aes128),
        Ok(v1::KeySpec::Aes192) => Ok(KeySpec::Aes192),
        Ok(v1::KeySpec::HmacSha256) => Ok(KeySpec::HmacSha256),
        Ok(v1::KeySpec::HmacSha384) => Ok(KeySpec::HmacSha384),
        Ok(v1::KeySpec::HmacSha512) => Ok(KeySpec::HmacSha512),
        Ok(v1::KeySpec::HmacSm3) => Ok(KeySpec::HmacSm3),
        Ok(v1::KeySpec::Rsa2048) => Ok(KeySpec::Rsa2048),
        Ok(v1::KeySpec::Rsa3072) => Ok(KeySpec::Rsa3072),
        Ok(v1::KeySpec::Rsa4096) => Ok(KeySpec::Rsa4096),
        Ok(v1::KeySpec::EcP256) => Ok(KeySpec::EcP256),
        Ok(v1::KeySpec::EcP384) => Ok(KeySpec::EcP384),
        Ok(v1::KeySpec::EcP521) => Ok(KeySpec::EcP521),
        Ok(v1::KeySpec::Ed25519) => Ok(KeySpec::Ed25519),
        Ok(v1::KeySpec::Sm2) => Ok(KeySpec::Sm2),
        Ok(v1::KeySpec::Unspecified) | Err(_) => {
            Err(ClientError::malformed(format!("key specification {number} is unknown")))
        }
    }
}

pub(crate) fn data_key_algorithm(number: i32) -> Result<AeadAlgorithm, ClientError> {
    match key_spec(number)?.algorithm() {
        KeyAlgorithm::Aead(algorithm) => Ok(algorithm),
        KeyAlgorithm::Mac(_) | KeyAlgorithm::Pair(_) => {
            Err(ClientError::malformed("a data key has a specification that does not encrypt"))
        }
    }
}

pub(crate) fn key_spec_to_proto(spec: Option<KeySpec>) -> v1::KeySpec {
    match spec {
        None => v1::KeySpec::Unspecified,
        Some(KeySpec::Aes256) => v1::KeySpec::Aes256,
        Some(KeySpec::Sm4) => v1::KeySpec::Sm4,
        Some(KeySpec::Aes128) => v1::KeySpec::Aes128,
        Some(KeySpec::Aes192) => v1::KeySpec::Aes192,
        Some(KeySpec::HmacSha256) => v1::KeySpec::HmacSha256,
        Some(KeySpec::HmacSha384) => v1::KeySpec::HmacSha384,
        Some(KeySpec::HmacSha512) => v1::KeySpec::HmacSha512,
        Some(KeySpec::HmacSm3) => v1::KeySpec::HmacSm3,
        Some(KeySpec::Rsa2048) => v1::KeySpec::Rsa2048,
        Some(KeySpec::Rsa3072) => v1::KeySpec::Rsa3072,
        Some(KeySpec::Rsa4096) => v1::KeySpec::Rsa4096,
        Some(KeySpec::EcP256) => v1::KeySpec::EcP256,
        Some(KeySpec::EcP384) => v1::KeySpec::EcP384,
        Some(KeySpec::EcP521) => v1::KeySpec::EcP521,
        Some(KeySpec::Ed25519) => v1::KeySpec::Ed25519,
        Some(KeySpec::Sm2) => v1::KeySpec::Sm2,
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
