//! One token: its PINs, who is logged in, and which sessions are open.
//!
//! Two locks meet here. `live` guards what this process knows; the lock file guards the directory
//! against other processes. Whoever needs both takes `live` first, and never asks for `live` while
//! holding the lock file.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use cryptoki_sys as ck;

use crate::fault;
use crate::object_table::ObjectTable;
use crate::personality::Personality;
use crate::pin::{NewPin, PinRecord, Role, SealingKey};
use crate::random;
use crate::refusal::Refusal;
use crate::session::{Access, SessionHandle};
use crate::store::{ExclusiveLock, HsmDirectory, SlotId, TokenDirectory, base16};
use crate::stored::{Generation, LABEL_LEN, TokenIdentity, TokenState};

#[derive(Debug)]
pub struct Token {
    pub slot: SlotId,
    pub(crate) personality: &'static Personality,
    pub(crate) directory: TokenDirectory,
    pub(crate) live: RwLock<Live>,
}

/// What this process knows of the token beyond the disk.
#[derive(Debug)]
pub(crate) struct Live {
    pub login: Option<Login>,
    pub sessions: BTreeMap<SessionHandle, Access>,
    pub objects: ObjectTable,
}

/// Who is logged in, with the key that the PIN opened.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    pub role: Role,
    pub token_key: Arc<SealingKey>,
    /// The life of the token that the key belongs to.
    pub generation: Generation,
}

impl Live {
    pub fn role(&self) -> Option<Role> {
        self.login.as_ref().map(|login| login.role)
    }

    /// The login that opens private objects; the security officer's does not.
    pub fn user_login(&self) -> Option<&Login> {
        self.login.as_ref().filter(|login| login.role == Role::User)
    }

    fn log_out(&mut self) {
        self.login = None;
        self.objects.forget_private();
    }
}

/// What `C_GetTokenInfo` tells.
#[derive(Debug)]
pub struct TokenSummary {
    pub state: TokenState,
    pub session_count: usize,
    pub read_write_session_count: usize,
}

impl Token {
    pub fn new(slot: SlotId, directory: TokenDirectory, personality: &'static Personality) -> Self {
        let live = Live { login: None, sessions: BTreeMap::new(), objects: ObjectTable::default() };
        Self { slot, personality, directory, live: RwLock::new(live) }
    }

    /// `C_InitToken` on a fresh slot. `Ok(false)` if somebody else has taken the slot meanwhile.
    pub fn create(
        hsm: &HsmDirectory,
        slot: SlotId,
        personality: &Personality,
        label: [u8; LABEL_LEN],
        pin: &NewPin<'_>,
    ) -> Result<bool, Refusal> {
        let serial = base16(&random::bytes::<8>()?);
        let serial = serial.as_bytes().try_into().map_err(|_| Refusal::GeneralError)?;
        hsm.create_token(slot, &new_state(label, serial, personality, pin)?)
    }

    /// `C_InitToken` on a token that exists: same serial number, everything else new.
    pub fn initialize_again(&self, label: [u8; LABEL_LEN], pin: &[u8]) -> Result<(), Refusal> {
        let mut live = self.live.write()?;
        if !live.sessions.is_empty() {
            return Err(Refusal::SessionExists);
        }
        let lock = self.directory.lock_exclusive()?;
        let mut state = self.state()?;
        self.attempt(&lock, &mut state, Role::SecurityOfficer, pin)?;
        let state = new_state(label, state.identity.serial, self.personality, &NewPin::new(pin)?)?;
        self.directory.begin_generation(&lock, &state)?;
        live.objects = ObjectTable::default();
        Ok(())
    }

    pub fn summary(&self) -> Result<TokenSummary, Refusal> {
        let live = self.live.read()?;
        Ok(TokenSummary {
            state: self.state()?,
            session_count: live.sessions.len(),
            read_write_session_count: live
                .sessions
                .values()
                .filter(|access| **access == Access::ReadWrite)
                .count(),
        })
    }

    /// `count_max` is the most sessions that the token has in one process, if there is a limit.
    pub fn open_session(
        &self,
        session: SessionHandle,
        access: Access,
        count_max: Option<usize>,
    ) -> Result<(), Refusal> {
        self.state()?;
        let mut live = self.live.write()?;
        if count_max.is_some_and(|count_max| live.sessions.len() >= count_max) {
            return Err(Refusal::SessionCount);
        }
        if access == Access::ReadOnly && live.role() == Some(Role::SecurityOfficer) {
            return Err(Refusal::SessionReadWriteSoExists);
        }
        live.sessions.insert(session, access);
        Ok(())
    }

    /// Takes the objects of the session with it, and the login if it was the last session.
    pub fn close_session(&self, session: SessionHandle) -> Result<(), Refusal> {
        let mut live = self.live.write()?;
        live.sessions.remove(&session);
        live.objects.forget_objects_of(session);
        if live.sessions.is_empty() {
            live.log_out();
        }
        Ok(())
    }

    pub fn sessions(&self) -> Result<Vec<SessionHandle>, Refusal> {
        Ok(self.live.read()?.sessions.keys().copied().collect())
    }

    /// The state of a session is what the token's login makes of its access.
    pub fn session_state(&self, access: Access) -> Result<ck::CK_STATE, Refusal> {
        Ok(match (self.live.read()?.role(), access) {
            (None, Access::ReadOnly) => ck::CKS_RO_PUBLIC_SESSION,
            (None, Access::ReadWrite) => ck::CKS_RW_PUBLIC_SESSION,
            (Some(Role::User), Access::ReadOnly) => ck::CKS_RO_USER_FUNCTIONS,
            (Some(Role::User), Access::ReadWrite) => ck::CKS_RW_USER_FUNCTIONS,
            // A read-only session beside the security officer cannot come about.
            (Some(Role::SecurityOfficer), Access::ReadOnly) => return Err(Refusal::GeneralError),
            (Some(Role::SecurityOfficer), Access::ReadWrite) => ck::CKS_RW_SO_FUNCTIONS,
        })
    }

    pub fn is_security_officer(&self) -> Result<bool, Refusal> {
        Ok(self.live.read()?.role() == Some(Role::SecurityOfficer))
    }

    /// Whether the PIN is right is not even looked at while somebody is logged in.
    pub fn log_in(&self, role: Role, pin: &[u8]) -> Result<(), Refusal> {
        let mut live = self.live.write()?;
        match live.role() {
            Some(present) if present == role => return Err(Refusal::UserAlreadyLoggedIn),
            Some(_) => return Err(Refusal::UserAnotherAlreadyLoggedIn),
            None => {}
        }
        let has_read_only_session = live.sessions.values().any(|access| *access == Access::ReadOnly);
        if role == Role::SecurityOfficer && has_read_only_session {
            return Err(Refusal::SessionReadOnlyExists);
        }
        let lock = self.directory.lock_exclusive()?;
        let mut state = self.state()?;
        let token_key = Arc::new(self.attempt(&lock, &mut state, role, pin)?);
        live.login = Some(Login { role, token_key, generation: state.identity.generation });
        // What was read so far was read without the key.
        live.objects.forget_read();
        Ok(())
    }

    pub fn log_out(&self) -> Result<(), Refusal> {
        let mut live = self.live.write()?;
        if live.login.is_none() {
            return Err(Refusal::UserNotLoggedIn);
        }
        live.log_out();
        Ok(())
    }

    /// `C_InitPIN`: the security officer gives the user a PIN, the first or one in place of a lost one.
    pub fn init_user_pin(&self, pin: &NewPin<'_>) -> Result<(), Refusal> {
        let live = self.live.write()?;
        let login = live.login.as_ref().filter(|login| login.role == Role::SecurityOfficer);
        let login = login.ok_or(Refusal::UserNotLoggedIn)?;
        let lock = self.directory.lock_exclusive()?;
        let mut state = self.state_of(login)?;
        let context = state.identity.pin_context(Role::User)?;
        state.set_pin(Role::User, PinRecord::new(&context, pin, &login.token_key)?);
        self.directory.write_state(&lock, &state)
    }

    /// `C_SetPIN`: of whoever is logged in, else of the user. The old PIN is always asked for.
    pub fn set_pin(&self, access: Access, old: &[u8], new: &NewPin<'_>) -> Result<(), Refusal> {
        if access == Access::ReadOnly {
            return Err(Refusal::SessionReadOnly);
        }
        let live = self.live.write()?;
        let role = live.role().unwrap_or(Role::User);
        let lock = self.directory.lock_exclusive()?;
        let mut state = match &live.login {
            Some(login) => self.state_of(login)?,
            None => self.state()?,
        };
        let token_key = self.attempt(&lock, &mut state, role, old)?;
        let context = state.identity.pin_context(role)?;
        state.set_pin(role, PinRecord::new(&context, new, &token_key)?);
        self.directory.write_state(&lock, &state)
    }

    /// One attempt at a PIN. A wrong one is on disk before the answer is given, so that killing the
    /// process does not give it back.
    fn attempt(
        &self,
        lock: &ExclusiveLock,
        state: &mut TokenState,
        role: Role,
        pin: &[u8],
    ) -> Result<SealingKey, Refusal> {
        let record = state.pin(role)?;
        if record.is_locked() || fault::token_script(self.slot).locks_pin_of(role) {
            return Err(Refusal::PinLocked);
        }
        let failures = record.failures;
        let opened = record.open(&state.identity.pin_context(role)?, pin)?;
        let failures_now = if opened.is_some() { 0 } else { failures + 1 };
        if failures_now != failures {
            state.set_failures(role, failures_now);
            self.directory.write_state(lock, state)?;
        }
        opened.ok_or(Refusal::PinIncorrect)
    }

    /// Always read from disk: another process may have changed a PIN a moment ago.
    pub(crate) fn state(&self) -> Result<TokenState, Refusal> {
        let state = self.directory.read_state()?;
        if state.identity.personality != self.personality.name {
            return Err(Refusal::TokenNotRecognized);
        }
        Ok(state)
    }

    /// The same, for somebody who logged in to this life of the token and not to an earlier one.
    pub(crate) fn state_of(&self, login: &Login) -> Result<TokenState, Refusal> {
        let state = self.state()?;
        if state.identity.generation == login.generation { Ok(state) } else { Err(Refusal::DeviceRemoved) }
    }
}

fn new_state(
    label: [u8; LABEL_LEN],
    serial: [u8; 16],
    personality: &Personality,
    pin: &NewPin<'_>,
) -> Result<TokenState, Refusal> {
    let token_key = SealingKey::generate()?;
    let identity = TokenIdentity {
        label,
        serial,
        personality: personality.name.to_owned(),
        generation: Generation(random::bytes()?),
    };
    let context = identity.pin_context(Role::SecurityOfficer)?;
    let security_officer = PinRecord::new(&context, pin, &token_key)?;
    Ok(TokenState { identity, security_officer, user: None })
}
