//! What an operation does inside a session that is there: finding objects, checking them, random bytes.

use crate::attributes::{class, mac_key, sealing_key, signing_private_key, signing_public_key};
use crate::encoding::public_point;
use crate::error::HsmError;
use crate::partition::{OpenSession, Partition};
use crate::{ConfirmedObject, ObjectKind, pair};
use cryptoki::error::Error as Pkcs11Error;
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use kms_core::id::HsmObjectId;
use kms_core::secret::leaving_no_stack;
use kms_core::suite::{CheckValue, Digest32, NONCE_LEN, Suite};
use std::collections::HashMap;

/// Most bytes that one call asks the token's random generator for.
const RANDOM_CALL_LEN_MAX: usize = 1024;
/// How many nonces are fetched at a time: a random call for each would halve the rate of sealing.
const NONCES_AT_A_TIME: usize = 32;

/// A session that was there when it was last used.
pub(crate) struct Live {
    pub(crate) session: OpenSession,
    /// By id and class number; empty again whenever `handle_generation` is not the partition's.
    handles: HashMap<(HsmObjectId, u64), ObjectHandle>,
    handle_generation: u64,
    nonces: Vec<[u8; NONCE_LEN]>,
    /// Of the first bytes of the last random piece, which may be somebody's key.
    last_random: Option<Digest32>,
}

/// Whether the operation has reached the call that changes something. Behind it nothing is repeated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    NotYet,
    Possible,
}

/// Why a call inside an operation did not succeed.
pub(crate) enum CallError {
    Token(Pkcs11Error),
    Ours(HsmError),
}

impl From<Pkcs11Error> for CallError {
    fn from(error: Pkcs11Error) -> Self {
        CallError::Token(error)
    }
}

impl From<HsmError> for CallError {
    fn from(error: HsmError) -> Self {
        CallError::Ours(error)
    }
}

impl From<CallError> for HsmError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Token(error) => error.into(),
            CallError::Ours(error) => error,
        }
    }
}

impl Live {
    /// Opens a session that is logged in.
    pub(crate) fn open(partition: &Partition) -> Result<Self, HsmError> {
        let session = partition.open_logged_in()?;
        Ok(Self {
            session,
            handles: HashMap::new(),
            // Read after the login that opening may have made, which starts a generation.
            handle_generation: partition.handle_generation(),
            nonces: Vec::new(),
            last_random: None,
        })
    }

    /// Forgets handles that are older than the partition's last login or destruction.
    pub(crate) fn refresh(&mut self, partition: &Partition) {
        let handle_generation = partition.handle_generation();
        if self.handle_generation != handle_generation {
            self.forget_handles();
            self.handle_generation = handle_generation;
        }
    }

    pub(crate) fn forget_handles(&mut self) {
        self.handles.clear();
    }

    /// Random bytes that are at least not visibly broken: a generator that is stuck would repeat a GCM
    /// nonce, or make everybody the same key.
    pub(crate) fn random(&mut self, out: &mut [u8]) -> Result<(), CallError> {
        for piece in out.chunks_mut(RANDOM_CALL_LEN_MAX) {
            self.session.get().generate_random_slice(piece)?;
            if let Some(first) = piece.first_chunk::<16>() {
                let digest = Some(leaving_no_stack(|| Suite::Intl.hash(&[first])));
                if digest == self.last_random || first.iter().all(|byte| *byte == first[0]) {
                    return Err(
                        HsmError::UnexpectedAnswer { what: "random bytes that are not random" }.into()
                    );
                }
                self.last_random = digest;
            }
        }
        Ok(())
    }

    pub(crate) fn nonce(&mut self) -> Result<[u8; NONCE_LEN], CallError> {
        if let Some(nonce) = self.nonces.pop() {
            return Ok(nonce);
        }
        let mut bytes = [0; NONCE_LEN * NONCES_AT_A_TIME];
        self.random(&mut bytes)?;
        let (nonces, _) = bytes.as_chunks::<NONCE_LEN>();
        let mut different = nonces.to_vec();
        different.sort_unstable();
        different.dedup();
        if different.len() != NONCES_AT_A_TIME {
            return Err(HsmError::UnexpectedAnswer { what: "random bytes that are not random" }.into());
        }
        self.nonces = nonces.to_vec();
        self.nonce()
    }

    /// Fails unless the login holds. A token without a login shows no private object, so "there is none"
    /// counts only after this.
    pub(crate) fn check_login(&self) -> Result<(), CallError> {
        if self.session.is_user()? { Ok(()) } else { Err(HsmError::LoginLost { source: None }.into()) }
    }

    /// Fails unless the login has held since `logins` were counted. A login that was lost and restored by another
    /// session in between hid the objects from a search just as well.
    fn check_login_since(&self, partition: &Partition, logins: u64) -> Result<(), CallError> {
        let has_held = partition.has_held_login_since(logins);
        self.check_login()?;
        if has_held { Ok(()) } else { Err(HsmError::LoginLost { source: None }.into()) }
    }

    pub(crate) fn find(
        &self,
        partition: &Partition,
        id: HsmObjectId,
        class: Option<ObjectClass>,
    ) -> Result<Vec<ObjectHandle>, CallError> {
        let logins = partition.login_count();
        let found = self.search(id, class)?;
        if found.is_empty() {
            self.check_login_since(partition, logins)?;
            self.check_presence(partition)?;
        } else {
            partition.known().insert(id);
        }
        Ok(found)
    }

    fn search(&self, id: HsmObjectId, class: Option<ObjectClass>) -> Result<Vec<ObjectHandle>, CallError> {
        let mut template = vec![Attribute::Token(true), Attribute::Id(id.0.to_vec())];
        template.extend(class.map(Attribute::Class));
        Ok(self.session.get().find_objects(&template)?)
    }

    /// Fails when every object that is known to be there is gone. Nobody destroys all at once: it is the token that
    /// is gone, although its login goes on (a software token whose folder is away answers like that).
    pub(crate) fn check_presence(&self, partition: &Partition) -> Result<(), CallError> {
        let known = partition.known().ids();
        for id in &known {
            if !self.search(*id, None)?.is_empty() {
                return Ok(());
            }
        }
        if known.is_empty() { Ok(()) } else { Err(HsmError::TokenGone { source: None }.into()) }
    }

    fn find_one(
        &self,
        partition: &Partition,
        id: HsmObjectId,
        class: ObjectClass,
    ) -> Result<ObjectHandle, CallError> {
        match self.find(partition, id, Some(class))?.as_slice() {
            [handle] => Ok(*handle),
            [] => Err(HsmError::NotFound { id }.into()),
            several => Err(HsmError::Ambiguous { id, count: several.len() }.into()),
        }
    }

    pub(crate) fn handle(
        &mut self,
        partition: &Partition,
        id: HsmObjectId,
        kind: ObjectKind,
    ) -> Result<ObjectHandle, CallError> {
        let class = class(kind);
        if let Some(handle) = self.handles.get(&(id, *class)) {
            return Ok(*handle);
        }
        let _turn = partition.turn_at_objects();
        let handle = self.find_one(partition, id, class)?;
        self.handles.insert((id, *class), handle);
        Ok(handle)
    }

    /// Compares the attributes of an object with those that its kind has.
    fn check_attributes(
        &self,
        id: HsmObjectId,
        handle: ObjectHandle,
        expected: &[Attribute],
    ) -> Result<(), CallError> {
        let types: Vec<AttributeType> = expected.iter().map(Attribute::attribute_type).collect();
        let found = self.session.get().get_attributes(handle, &types)?;
        match expected.iter().find(|attribute| !found.contains(attribute)) {
            None => Ok(()),
            Some(missing) => {
                let attribute = missing.attribute_type().to_string();
                Err(HsmError::AttributeNotKept { id, attribute }.into())
            }
        }
    }

    pub(crate) fn confirm(
        &self,
        partition: &Partition,
        id: HsmObjectId,
        kind: ObjectKind,
    ) -> Result<ConfirmedObject, CallError> {
        let profile = partition.module().profile();
        let handle = self.find_one(partition, id, class(kind))?;
        let mut check_value = None;
        let mut pair_public_key = None;
        let public_key = match kind {
            ObjectKind::KeyPair(algorithm, usage) => {
                let table = profile.pair(algorithm, usage).ok_or_else(|| unsupported(kind))?;
                self.check_attributes(id, handle, &pair::private_key(profile, usage, table))?;
                let public = self.find_one(partition, id, ObjectClass::PUBLIC_KEY)?;
                self.check_attributes(id, public, &pair::public_key(usage, table))?;
                let key = pair::read_public_key(self, algorithm, public)?;
                pair::try_pair(self, table, usage, handle, &key)?;
                pair_public_key = Some(key);
                None
            }
            ObjectKind::SealingKey(algorithm) => {
                let table = profile.sealing(algorithm).ok_or_else(|| unsupported(kind))?;
                self.check_attributes(id, handle, &sealing_key(profile, algorithm, table))?;
                check_value = self.check_value(handle)?;
                None
            }
            ObjectKind::MacKey(algorithm) => {
                let table = profile.mac(algorithm).ok_or_else(|| unsupported(kind))?;
                self.check_attributes(id, handle, &mac_key(profile, algorithm, table))?;
                None
            }
            ObjectKind::SigningKey(suite) => {
                let table = profile.signing(suite).ok_or_else(|| unsupported(kind))?;
                self.check_attributes(id, handle, &signing_private_key(profile, table))?;
                let public = self.find_one(partition, id, ObjectClass::PUBLIC_KEY)?;
                self.check_attributes(id, public, &signing_public_key(table))?;
                let found = self.session.get().get_attributes(public, &[AttributeType::EcPoint])?;
                let Some(Attribute::EcPoint(point)) = found.first() else {
                    return Err(HsmError::UnexpectedAnswer { what: "a public key without a point" }.into());
                };
                Some(public_point(suite, point)?)
            }
        };
        Ok(ConfirmedObject { id, public_key, check_value, pair_public_key })
    }

    /// The check value of a secret key. A token need not have this attribute.
    fn check_value(&self, handle: ObjectHandle) -> Result<Option<CheckValue>, CallError> {
        let found = self.session.get().get_attributes(handle, &[AttributeType::CheckValue])?;
        Ok(match found.first() {
            Some(Attribute::CheckValue(bytes)) => bytes.as_slice().try_into().ok().map(CheckValue),
            _ => None,
        })
    }

    /// Whether an answer that means a broken device elsewhere only meant a bad tag: the device works.
    pub(crate) fn check_device(&mut self) -> Result<(), CallError> {
        self.check_login()?;
        self.random(&mut [0; 16])
    }
}

pub(crate) fn unsupported(kind: ObjectKind) -> HsmError {
    HsmError::Unsupported { what: format!("{kind:?}") }
}
