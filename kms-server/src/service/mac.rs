//! MACs under named keys, and random bytes for callers. Every answer leaves after its record is durable.

use super::crypto::check_state;
use super::open::{DECISION_COUNT_MAX, Found, Open, Place, contention};
use super::{Caller, Node, ServiceError, usage};
use crate::store::Entry;
use kms_core::audit::Outcome;
use kms_core::id::{KeyId, KeyRef, KeyVersion};
use kms_core::key::KeyState;
use kms_core::mac::{MESSAGE_LEN_MAX, MacAlgorithm};
use kms_core::policy::Action;
use kms_core::reason::Reason;
use kms_core::secret::Secret;
use std::sync::Arc;

/// Most bytes of one `GenerateRandom`.
const RANDOM_LEN_MAX: u32 = 1024;

/// What `GenerateMac` gives.
#[derive(Debug)]
pub struct GeneratedMac {
    /// The key that was used.
    pub key_id: KeyId,
    /// Its version.
    pub version: KeyVersion,
    /// The whole MAC. Callers may derive keys with it, so it is handled as one.
    pub mac: Secret,
}

/// What is asked of a MAC key.
struct Wanted<'a> {
    action: Action,
    verb: &'static str,
    may: fn(KeyState) -> bool,
    /// The MAC that is to be compared.
    given: Option<&'a [u8]>,
}

impl Node {
    /// Makes the MAC of a message of up to 64 KiB.
    ///
    /// # Errors
    /// [`ServiceError`] with the documented reason; [`Node::perform`] records it.
    pub async fn generate_mac(
        &self,
        caller: &Caller,
        key: &KeyRef,
        message: &Secret,
    ) -> Result<GeneratedMac, ServiceError> {
        let wanted = Wanted {
            action: Action::GenerateMac,
            verb: "generate MACs",
            may: KeyState::can_encrypt,
            given: None,
        };
        self.mac_and_commit(caller, key, message, &wanted).await
    }

    /// Compares a MAC with that of the message. Returns only when it is the right one.
    ///
    /// # Errors
    /// `MAC_INVALID` when it is not; [`ServiceError`] with the documented reason; [`Node::perform`] records it.
    pub async fn verify_mac(
        &self,
        caller: &Caller,
        key: &KeyRef,
        message: &Secret,
        mac: &[u8],
    ) -> Result<(KeyId, KeyVersion), ServiceError> {
        let wanted = Wanted {
            action: Action::VerifyMac,
            verb: "verify MACs",
            may: KeyState::can_decrypt,
            given: Some(mac),
        };
        let right = self.mac_and_commit(caller, key, message, &wanted).await?;
        Ok((right.key_id, right.version))
    }

    /// Random bytes of the HSM, 1 to 1,024.
    ///
    /// # Errors
    /// [`ServiceError`] with the documented reason; [`Node::perform`] records it.
    pub async fn generate_random(&self, caller: &Caller, byte_count: u32) -> Result<Secret, ServiceError> {
        let open = self.require_open()?;
        if !(1..=RANDOM_LEN_MAX).contains(&byte_count) {
            let message = format!("is {byte_count}; 1 to {RANDOM_LEN_MAX} are allowed");
            return Err(ServiceError::field("byte_count", message));
        }
        let mut random = Secret::new(vec![0; byte_count as usize]);
        // Not from the stock: that is what data keys are made of without an HSM call.
        open.fresh_random(random.expose_mut(), caller.deadline).await?;
        let record = self
            .record(Action::GenerateRandom.event(), Outcome::Done, caller)
            .detail("byte_count", byte_count.to_string());
        self.committer.commit(Entry::record(record)).await?;
        Ok(random)
    }

    /// Makes the MAC under the current decision, compares it with the one that was given, if any, and commits the
    /// record; decides again when the catalogue changed.
    async fn mac_and_commit(
        &self,
        caller: &Caller,
        key: &KeyRef,
        message: &Secret,
        wanted: &Wanted<'_>,
    ) -> Result<GeneratedMac, ServiceError> {
        let open = self.require_open()?;
        let len = message.expose().len();
        if len > MESSAGE_LEN_MAX {
            let message = format!(
                "has {len} bytes; at most {MESSAGE_LEN_MAX} are allowed: give the hash of a longer one"
            );
            return Err(ServiceError::field("message", message));
        }
        for _ in 0..DECISION_COUNT_MAX {
            let (found, number, algorithm) = self.key_for_mac(&open, caller, key, wanted).await?;
            let mac = self.mac(&open, caller, (&found, number), algorithm, message).await?;
            if wanted.given.is_some_and(|given| !mac.is_equal(given)) {
                let name = &found.key.row.name;
                let message = format!("the MAC is not that of this message under key {name}@{number}");
                return Err(ServiceError::new(Reason::MacInvalid, message));
            }
            if self.commit_use(&open, caller, &found, number, wanted.action).await? {
                return Ok(GeneratedMac { key_id: found.key.row.key_id, version: number, mac });
            }
        }
        Err(contention())
    }

    /// The key and version for a caller, in a state that allows it; a MAC that was given has its length.
    async fn key_for_mac(
        &self,
        open: &Open,
        caller: &Caller,
        key: &KeyRef,
        wanted: &Wanted<'_>,
    ) -> Result<(Found, KeyVersion, MacAlgorithm), ServiceError> {
        let judged = open.judge(&self.database, &caller.principal.tenant, &key.key, |entry| {
            let algorithm = usage::mac(&entry.row)?;
            let number = key.version.unwrap_or(entry.row.current_version);
            check_state(entry, number, wanted.verb, wanted.may)?;
            match wanted.given.map(<[u8]>::len) {
                Some(len) if len != algorithm.mac_len() => {
                    let (name, whole) = (algorithm.name(), algorithm.mac_len());
                    let message =
                        format!("has {len} bytes; a MAC of {name} has {whole}, and is never truncated");
                    Err(ServiceError::field("mac", message))
                }
                _ => Ok((number, algorithm)),
            }
        });
        judged.await.map(|(found, (number, algorithm))| (found, number, algorithm))
    }

    async fn mac(
        &self,
        open: &Arc<Open>,
        caller: &Caller,
        (found, number): (&Found, KeyVersion),
        algorithm: MacAlgorithm,
        message: &Secret,
    ) -> Result<Secret, ServiceError> {
        let version = found.key.version(number)?;
        match open.place(&self.bundle, &found.key.row, version, caller.deadline).await? {
            Place::Wrapped(material) => Ok(algorithm.mac(material.expose(), message.expose())),
            Place::Resident(object) => {
                let copy = Secret::new(message.expose().to_vec());
                let work = move |session: &mut dyn kms_hsm::HsmSession| {
                    session.mac(object, algorithm, copy.expose())
                };
                Ok(open.hsm("mac", caller.deadline, work).await?)
            }
        }
    }
}
