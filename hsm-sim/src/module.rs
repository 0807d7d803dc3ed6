//! The module in one process: from `C_Initialize` to `C_Finalize`, its slots and its sessions.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};

use crate::fault;
use crate::personality::{Personality, SANSEC};
use crate::pin::NewPin;
use crate::refusal::Refusal;
use crate::session::{Access, Session, SessionHandle};
use crate::store::{HsmDirectory, SlotId};
use crate::stored::LABEL_LEN;
use crate::token::Token;
use crate::{DIRECTORY_VARIABLE, PERSONALITY_VARIABLE};

static MODULE: RwLock<Option<Arc<Module>>> = RwLock::new(None);

pub struct Module {
    pub personality: &'static Personality,
    hsm: HsmDirectory,
    /// A forked child must initialise the module for itself; until then it has none.
    process: u32,
    tokens: RwLock<HashMap<SlotId, Arc<Token>>>,
    sessions: RwLock<HashMap<SessionHandle, Arc<Session>>>,
}

/// The directory that the environment names, if it is one.
pub fn directory() -> Option<PathBuf> {
    std::env::var_os(DIRECTORY_VARIABLE).map(PathBuf::from).filter(|path| path.is_dir())
}

/// What is in a slot.
pub enum Slot {
    Initialized(Arc<Token>),
    /// The one slot whose token waits for `C_InitToken`.
    Fresh,
}

impl Module {
    /// `C_Initialize`.
    pub fn start() -> Result<(), Refusal> {
        let mut module = MODULE.write()?;
        let process = std::process::id();
        if module.as_ref().is_some_and(|module| module.process == process) {
            return Err(Refusal::CryptokiAlreadyInitialized);
        }
        let Some(hsm) = directory().map(HsmDirectory::new) else {
            eprintln!("hsm-sim: {DIRECTORY_VARIABLE} must name an existing directory for the tokens");
            return Err(Refusal::GeneralError);
        };
        *module = Some(Arc::new(Self {
            personality: chosen_personality()?,
            hsm,
            process,
            tokens: RwLock::default(),
            sessions: RwLock::default(),
        }));
        Ok(())
    }

    /// `C_Finalize`. Calls that are still running keep what they use until they return.
    pub fn stop() -> Result<(), Refusal> {
        let mut module = match MODULE.write() {
            Ok(module) => module,
            // A panic elsewhere must not make it impossible to start over.
            Err(poisoned) => poisoned.into_inner(),
        };
        MODULE.clear_poison();
        module.take().map(|_| ()).ok_or(Refusal::CryptokiNotInitialized)
    }

    pub fn current() -> Result<Arc<Self>, Refusal> {
        let module = MODULE.read()?.clone().ok_or(Refusal::CryptokiNotInitialized)?;
        if module.process == std::process::id() { Ok(module) } else { Err(Refusal::CryptokiNotInitialized) }
    }

    /// Every slot, the fresh one last. Tokens that other processes made meanwhile are seen.
    pub fn slots(&self) -> Result<Vec<SlotId>, Refusal> {
        let mut slots = self.hsm.slots()?;
        slots.push(HsmDirectory::fresh_slot(&slots));
        Ok(slots)
    }

    pub fn slot(&self, slot: SlotId) -> Result<Slot, Refusal> {
        if let Some(token) = self.tokens.read()?.get(&slot) {
            return Ok(Slot::Initialized(token.clone()));
        }
        let known = self.hsm.slots()?;
        if known.contains(&slot) {
            let mut tokens = self.tokens.write()?;
            let token = tokens
                .entry(slot)
                .or_insert_with(|| Arc::new(Token::new(slot, self.hsm.token(slot), self.personality)));
            Ok(Slot::Initialized(token.clone()))
        } else if slot == HsmDirectory::fresh_slot(&known) {
            Ok(Slot::Fresh)
        } else {
            Err(Refusal::SlotIdInvalid)
        }
    }

    /// `C_InitToken`.
    pub fn init_token(&self, slot: SlotId, label: [u8; LABEL_LEN], pin: &[u8]) -> Result<(), Refusal> {
        match self.slot(slot)? {
            Slot::Initialized(token) => token.initialize_again(label, pin),
            Slot::Fresh => {
                let pin = NewPin::new(pin)?;
                if Token::create(&self.hsm, slot, self.personality, label, &pin)? {
                    Ok(())
                } else {
                    // Somebody was faster and has a token there now. It is not ours to initialise.
                    Err(Refusal::SlotIdInvalid)
                }
            }
        }
    }

    pub fn open_session(&self, slot: SlotId, access: Access) -> Result<SessionHandle, Refusal> {
        let Slot::Initialized(token) = self.slot(slot)? else { return Err(Refusal::TokenNotRecognized) };
        let handle = SessionHandle::next();
        token.open_session(handle, access, fault::token_script(slot).session_count_max)?;
        let session = Arc::new(Session::new(handle, access, token));
        self.sessions.write()?.insert(handle, session);
        Ok(handle)
    }

    pub fn session(&self, handle: SessionHandle) -> Result<Arc<Session>, Refusal> {
        self.sessions.read()?.get(&handle).cloned().ok_or(Refusal::SessionHandleInvalid)
    }

    pub fn close_session(&self, handle: SessionHandle) -> Result<(), Refusal> {
        let session = self.sessions.write()?.remove(&handle).ok_or(Refusal::SessionHandleInvalid)?;
        session.token.close_session(handle)
    }

    pub fn close_all_sessions(&self, slot: SlotId) -> Result<(), Refusal> {
        let Slot::Initialized(token) = self.slot(slot)? else { return Ok(()) };
        for handle in token.sessions()? {
            match self.close_session(handle) {
                // Another thread was faster.
                Err(Refusal::SessionHandleInvalid) => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// `C_Logout`.
    pub fn log_out(&self, handle: SessionHandle) -> Result<(), Refusal> {
        self.log_out_of(&self.session(handle)?.token)
    }

    pub fn log_out_of_slot(&self, slot: SlotId) -> Result<(), Refusal> {
        match self.slot(slot)? {
            Slot::Initialized(token) => self.log_out_of(&token),
            Slot::Fresh => Err(Refusal::UserNotLoggedIn),
        }
    }

    /// Reaches into every session of the token.
    fn log_out_of(&self, token: &Token) -> Result<(), Refusal> {
        token.log_out()?;
        for handle in token.sessions()? {
            if let Ok(session) = self.session(handle) {
                session.forget_private()?;
            }
        }
        Ok(())
    }
}

/// The vendor is chosen once for the whole module, as a real module serves the devices of one vendor.
/// Tokens that another personality made are not recognised.
fn chosen_personality() -> Result<&'static Personality, Refusal> {
    let Some(name) = std::env::var_os(PERSONALITY_VARIABLE) else { return Ok(&SANSEC) };
    name.to_str().and_then(Personality::named).ok_or_else(|| {
        eprintln!("hsm-sim: {PERSONALITY_VARIABLE} names no vendor that is known here");
        Refusal::GeneralError
    })
}
