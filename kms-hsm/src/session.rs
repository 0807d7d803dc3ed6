//! One PKCS#11 session: the operations, and what happens when one finds the session or the login gone.

use crate::creation::{self, Origin};
use crate::encoding::{plain, raw_signature};
use crate::error::{ErrorClass, HsmError};
use crate::live::{CallError, Effect, Live, unsupported};
use crate::partition::Partition;
use crate::{
    AAD_LEN_MAX, ConfirmedObject, HsmSession, INPUT_LEN_MAX, ListedObject, ObjectClass as ListedClass,
    ObjectKind, Sealed, TokenStatus, check_len,
};
use crate::{pair, sealing, self_test};
use cryptoki::error::{Error as Pkcs11Error, RvError};
use cryptoki::object::{Attribute, AttributeType, ObjectClass};
use kms_core::id::HsmObjectId;
use kms_core::mac::MacAlgorithm;
use kms_core::pair::{EncryptionAlgorithm, PairPublicKey, PairUsage, ToSign};
use kms_core::secret::Secret;
use kms_core::suite::{AeadAlgorithm, Suite};
use std::sync::Arc;

/// One session of a PKCS#11 token. Never leaves the thread that uses it.
pub(crate) struct Pkcs11Session {
    partition: Arc<Partition>,
    live: Option<Live>,
}

impl Pkcs11Session {
    pub(crate) fn new(partition: Arc<Partition>) -> Self {
        Self { partition, live: None }
    }

    /// Opens the session now instead of at its first use.
    pub(crate) fn connect(&mut self) -> Result<(), HsmError> {
        self.live().map(|_| ())
    }

    /// The self-test, with so many tries for each part of it to which the token answers an error. A wrong answer is final.
    pub(crate) fn self_test_with_tries(&mut self, try_count: u32) -> Result<(), HsmError> {
        for part in self_test::parts(&self.partition) {
            for tries_left in (0..try_count).rev() {
                match self.run(|live, partition, _| self_test::run(live, partition, part)) {
                    Ok(()) => break,
                    Err(error) if tries_left > 0 && self_test::may_pass(&error) => {
                        tracing::warn!(?part, %error, "a part of the self-test is repeated");
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn live(&mut self) -> Result<&mut Live, HsmError> {
        if self.partition.is_closed() {
            // Another login of this process must not bring an old session back to life.
            self.live = None;
            return Err(HsmError::Stopped);
        }
        let live = match self.live.take() {
            Some(mut live) => {
                live.refresh(&self.partition);
                live
            }
            None => Live::open(&self.partition)?,
        };
        Ok(self.live.insert(live))
    }

    /// Runs `operation`, and once more when the first time found a session, login or handle gone and
    /// nothing can have happened yet.
    fn run<T>(
        &mut self,
        operation: impl Fn(&mut Live, &Partition, &mut Effect) -> Result<T, CallError>,
    ) -> Result<T, HsmError> {
        let mut effect = Effect::NotYet;
        match self.attempt(&operation, &mut effect) {
            Err((_, true)) if effect == Effect::NotYet => {}
            result => return result.map_err(|(error, _)| error),
        }
        self.attempt(&operation, &mut effect).map_err(|(error, _)| error)
    }

    /// One attempt. The flag with an error says whether another one may do better.
    fn attempt<T>(
        &mut self,
        operation: impl Fn(&mut Live, &Partition, &mut Effect) -> Result<T, CallError>,
        effect: &mut Effect,
    ) -> Result<T, (HsmError, bool)> {
        let partition = self.partition.clone();
        let live = self.live().map_err(|error| {
            let may_come_back =
                matches!(error.class(), ErrorClass::RetryOnNewSession | ErrorClass::LoginLost);
            (error, may_come_back)
        })?;
        let logins = partition.login_count();
        let error = match operation(live, &partition, effect) {
            // It was closed by somebody, and must not be closed again.
            Err(error) if is_session_dead(&error) => error,
            // Handles went with the old login, and a token may give their numbers to other objects: whatever the
            // answer is, it may be another object's.
            _ if !partition.has_held_login_since(logins) => HsmError::LoginLost { source: None }.into(),
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if let CallError::Token(Pkcs11Error::Pkcs11(
            RvError::KeyHandleInvalid | RvError::ObjectHandleInvalid,
            _,
        )) = &error
        {
            // Destroyed by somebody, or the login ended and took the handles along. The second is asked,
            // so that the next attempt does not mistake it for an empty token.
            live.forget_handles();
            if !matches!(live.session.is_user(), Ok(true)) {
                self.live = None;
            }
            return Err((error.into(), true));
        }
        let is_session_dead = is_session_dead(&error);
        let error = HsmError::from(error);
        let may_repeat = match error.class() {
            ErrorClass::RetryOnNewSession | ErrorClass::TokenGone => {
                match self.live.take() {
                    Some(live) if is_session_dead => live.session.abandon(),
                    // Closed, so that it does not count against the token's sessions. It may be there still.
                    _ => {}
                }
                true
            }
            ErrorClass::LoginLost => {
                self.live = None;
                true
            }
            // A call may be left half done in the session, so it is not used again. Not repeated: if the
            // device is sick, everybody repeating makes it worse.
            ErrorClass::DeviceSick => {
                self.live = None;
                false
            }
            _ => false,
        };
        Err((error, may_repeat))
    }
}

impl Pkcs11Session {
    fn make(
        &mut self,
        id: HsmObjectId,
        kind: ObjectKind,
        label: &str,
        origin: Origin<'_>,
    ) -> Result<ConfirmedObject, HsmError> {
        if !self.partition.can(kind) {
            return Err(unsupported(kind));
        }
        self.run(|live, partition, effect| {
            let _turn = partition.turn_at_objects();
            creation::make(live, partition, effect, (id, kind, label), origin)
        })
    }
}

fn is_session_dead(error: &CallError) -> bool {
    matches!(
        error,
        CallError::Token(Pkcs11Error::Pkcs11(RvError::SessionHandleInvalid | RvError::SessionClosed, _))
    )
}

impl HsmSession for Pkcs11Session {
    fn random(&mut self, out: &mut [u8]) -> Result<(), HsmError> {
        let len = out.len();
        let fresh = self.run(|live, _, _| {
            let mut fresh = Secret::new(vec![0; len]).into_zeroizing();
            live.random(&mut fresh)?;
            Ok(fresh)
        })?;
        out.copy_from_slice(&fresh);
        Ok(())
    }

    fn seal(
        &mut self,
        key: HsmObjectId,
        algorithm: AeadAlgorithm,
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<Sealed, HsmError> {
        check_len("the plaintext", plaintext.len(), INPUT_LEN_MAX)?;
        check_len("the associated data", aad.len(), AAD_LEN_MAX)?;
        let kind = ObjectKind::SealingKey(algorithm);
        self.run(|live, partition, effect| {
            let table = partition.module().profile().sealing(algorithm).ok_or_else(|| unsupported(kind))?;
            let handle = live.handle(partition, key, kind)?;
            sealing::seal(
                live,
                partition.module().profile(),
                (algorithm, table),
                handle,
                (aad, plaintext),
                effect,
            )
        })
    }

    fn open(
        &mut self,
        key: HsmObjectId,
        algorithm: AeadAlgorithm,
        aad: &[u8],
        sealed: &Sealed,
    ) -> Result<Secret, HsmError> {
        check_len("the associated data", aad.len(), AAD_LEN_MAX)?;
        let kind = ObjectKind::SealingKey(algorithm);
        self.run(|live, partition, _| {
            let profile = partition.module().profile();
            let table = profile.sealing(algorithm).ok_or_else(|| unsupported(kind))?;
            let handle = live.handle(partition, key, kind)?;
            sealing::open(live, profile, (algorithm, table), handle, aad, sealed)
        })
    }

    fn create(
        &mut self,
        id: HsmObjectId,
        kind: ObjectKind,
        label: &str,
    ) -> Result<ConfirmedObject, HsmError> {
        self.make(id, kind, label, Origin::Token)
    }

    fn import(
        &mut self,
        id: HsmObjectId,
        kind: ObjectKind,
        label: &str,
        material: &[u8],
    ) -> Result<ConfirmedObject, HsmError> {
        if !self.partition.takes_keys() {
            return Err(HsmError::Unsupported { what: "a key from outside".to_owned() });
        }
        self.make(id, kind, label, Origin::Outside(material))
    }

    fn confirm(&mut self, id: HsmObjectId, kind: ObjectKind) -> Result<ConfirmedObject, HsmError> {
        self.run(|live, partition, _| {
            let _turn = partition.turn_at_objects();
            live.confirm(partition, id, kind)
        })
    }

    fn exists(&mut self, id: HsmObjectId) -> Result<bool, HsmError> {
        self.run(|live, partition, _| {
            let _turn = partition.turn_at_objects();
            Ok(!live.find(partition, id, None)?.is_empty())
        })
    }

    fn destroy(&mut self, id: HsmObjectId) -> Result<(), HsmError> {
        let result = self.run(|live, partition, effect| {
            let _turn = partition.turn_at_objects();
            let keys = [ObjectClass::SECRET_KEY, ObjectClass::PRIVATE_KEY];
            let mut found = Vec::new();
            for class in keys {
                found.extend(live.find(partition, id, Some(class))?);
            }
            if found.len() > 1 {
                return Err(HsmError::Ambiguous { id, count: found.len() }.into());
            }
            // The public half goes last: if we stop between the two, what is left is no secret and can
            // be destroyed by asking again.
            found.extend(live.find(partition, id, Some(ObjectClass::PUBLIC_KEY))?);
            if found.is_empty() {
                return Err(HsmError::NotFound { id }.into());
            }
            *effect = Effect::Possible;
            partition.known().forget(id);
            for handle in found {
                live.session.get().destroy_object(handle)?;
            }
            Ok(())
        });
        // A token may give the number of a destroyed object to the next one.
        self.partition.forget_handles();
        result
    }

    fn sign(&mut self, key: HsmObjectId, suite: Suite, digest: &[u8; 32]) -> Result<[u8; 64], HsmError> {
        let kind = ObjectKind::SigningKey(suite);
        self.run(|live, partition, _| {
            let table = partition.module().profile().signing(suite).ok_or_else(|| unsupported(kind))?;
            let handle = live.handle(partition, key, kind)?;
            let signature = live.session.get().sign(&plain(table.sign), handle, digest)?;
            raw_signature(suite, table.signature, &signature)
                .ok_or_else(|| HsmError::UnexpectedAnswer { what: "a signature of another form" }.into())
        })
    }

    fn sign_with(
        &mut self,
        key: HsmObjectId,
        public_key: &PairPublicKey,
        input: &ToSign,
    ) -> Result<Vec<u8>, HsmError> {
        check_len("the message", input.as_bytes().len(), INPUT_LEN_MAX)?;
        let algorithm = public_key.algorithm();
        let kind = ObjectKind::KeyPair(algorithm, PairUsage::Sign);
        if !input.algorithm().fits(algorithm) {
            return Err(unsupported(kind));
        }
        self.run(|live, partition, _| {
            let profile = partition.module().profile();
            let table = profile.pair(algorithm, PairUsage::Sign).ok_or_else(|| unsupported(kind))?;
            let handle = live.handle(partition, key, kind)?;
            let signature = pair::sign(live, table, handle, algorithm, input)?;
            match pair::public::verify_signature(public_key, input, &signature) {
                Ok(()) => Ok(signature),
                Err(_) => Err(pair::WRONG_SIGNATURE.into()),
            }
        })
    }

    fn decrypt_with(
        &mut self,
        key: HsmObjectId,
        public_key: &PairPublicKey,
        algorithm: EncryptionAlgorithm,
        ciphertext: &[u8],
    ) -> Result<Secret, HsmError> {
        let pair_algorithm = public_key.algorithm();
        let kind = ObjectKind::KeyPair(pair_algorithm, PairUsage::Decrypt);
        if EncryptionAlgorithm::of(pair_algorithm) != Some(algorithm) {
            return Err(unsupported(kind));
        }
        algorithm.check_ciphertext(public_key, ciphertext).map_err(|_| HsmError::CiphertextInvalid)?;
        self.run(|live, partition, _| {
            let profile = partition.module().profile();
            let table = profile.pair(pair_algorithm, PairUsage::Decrypt).ok_or_else(|| unsupported(kind))?;
            let handle = live.handle(partition, key, kind)?;
            pair::decrypt(live, profile, table, handle, pair_algorithm, ciphertext)
        })
    }

    fn mac(&mut self, key: HsmObjectId, algorithm: MacAlgorithm, data: &[u8]) -> Result<Secret, HsmError> {
        check_len("the message", data.len(), INPUT_LEN_MAX)?;
        let kind = ObjectKind::MacKey(algorithm);
        self.run(|live, partition, _| {
            let table = partition.module().profile().mac(algorithm).ok_or_else(|| unsupported(kind))?;
            let handle = live.handle(partition, key, kind)?;
            let session = live.session.get();
            let mac = Secret::new(session.sign(&plain(table.mac), handle, data)?);
            let again = Secret::new(session.sign(&plain(table.mac), handle, data)?);
            if !mac.is_equal(again.expose()) {
                // A key that was derived from a wrong one would make everything look forged.
                return Err(HsmError::UnexpectedAnswer { what: "two MACs of one message" }.into());
            }
            if mac.expose().len() != algorithm.mac_len() {
                return Err(HsmError::UnexpectedAnswer { what: "a MAC of another length" }.into());
            }
            Ok(mac)
        })
    }

    fn status(&mut self) -> Result<TokenStatus, HsmError> {
        self.run(|live, partition, _| {
            let token = partition.module().client().get_token_info(live.session.slot())?;
            if token.serial_number() != partition.serial() || token.label() != partition.label() {
                return Err(HsmError::TokenGone { source: None }.into());
            }
            live.check_login()?;
            // Whoever looks for objects at this moment may be inside a call that hangs. That is no reason for the
            // keeper, who asks this, to stand still as well.
            if let Some(_turn) = partition.try_turn_at_objects() {
                live.check_presence(partition)?;
            }
            Ok(TokenStatus {
                label: token.label().to_owned(),
                serial: token.serial_number().to_owned(),
                manufacturer: token.manufacturer_id().to_owned(),
                model: token.model().to_owned(),
                firmware: token.firmware_version().to_string(),
                user_pin_count_low: token.user_pin_count_low(),
            })
        })
    }

    fn self_test(&mut self) -> Result<(), HsmError> {
        self.self_test_with_tries(1)
    }

    fn objects(&mut self) -> Result<Vec<ListedObject>, HsmError> {
        self.run(|live, partition, _| {
            let _turn = partition.turn_at_objects();
            live.check_presence(partition)?;
            let session = live.session.get();
            let wanted = [AttributeType::Class, AttributeType::Id, AttributeType::Label];
            let mut listed = Vec::new();
            for handle in session.find_objects(&[Attribute::Token(true)])? {
                let mut object = ListedObject { id: None, label: String::new(), class: ListedClass::Other };
                for attribute in session.get_attributes(handle, &wanted)? {
                    match attribute {
                        Attribute::Id(id) => object.id = id.try_into().ok().map(HsmObjectId),
                        Attribute::Label(label) => {
                            object.label = String::from_utf8_lossy(&label).into_owned()
                        }
                        Attribute::Class(ObjectClass::SECRET_KEY) => object.class = ListedClass::SecretKey,
                        Attribute::Class(ObjectClass::PRIVATE_KEY) => object.class = ListedClass::PrivateKey,
                        Attribute::Class(ObjectClass::PUBLIC_KEY) => object.class = ListedClass::PublicKey,
                        _ => {}
                    }
                }
                listed.push(object);
            }
            // A list that was made without the login, or half of it, lacks what is private.
            live.check_login()?;
            Ok(listed)
        })
    }
}
