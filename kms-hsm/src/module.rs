//! Loading a PKCS#11 library and finding its tokens.

use crate::error::ModuleError;
use crate::partition::Pkcs11Partition;
use crate::pin::Pin;
use crate::profile::Profile;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as Pkcs11Error, RvError};
use cryptoki::session::{Session, SessionState};
use cryptoki::slot::Slot;
use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Every library that this process has loaded. They stay loaded and initialised until it ends: finalising
/// one with calls under way crashes in several modules, and a second `C_Initialize` is refused.
static OPENED: Mutex<Vec<HsmModule>> = Mutex::new(Vec::new());

/// Which profile a library is opened with.
#[derive(Clone, Debug)]
pub enum ProfileChoice {
    /// The built-in profile for what the library says about itself.
    Auto,
    /// This one.
    Given(Box<Profile>),
}

impl ProfileChoice {
    /// Reads the configuration value: `auto`, the name of a built-in profile, or the path of a profile's file.
    ///
    /// # Errors
    /// [`ModuleError::Profile`] for a name that is not built in, and for a file that is missing or not valid.
    pub fn from_name(name: &str) -> Result<Self, ModuleError> {
        let profile = match name {
            "auto" => return Ok(ProfileChoice::Auto),
            path if Self::is_path(path) => Profile::read(Path::new(path))?,
            name => Profile::by_name(name)?,
        };
        Ok(ProfileChoice::Given(Box::new(profile)))
    }

    /// Whether a configuration value is the path of a file: it has a `/` in it or ends with `.toml`.
    pub fn is_path(name: &str) -> bool {
        name.contains('/') || name.ends_with(".toml")
    }
}

/// A loaded and initialised PKCS#11 library. Cheap to clone.
#[derive(Clone)]
pub struct HsmModule(Arc<Module>);

struct Module {
    path: PathBuf,
    client: Pkcs11,
    profile: Profile,
    /// Tokens that a partition or an administration step of this process is using.
    tokens_in_use: Mutex<HashSet<String>>,
    /// Held while a token is initialised, so that a label is not given twice.
    pub(crate) initialising: Mutex<()>,
}

/// A token as the library describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenDescription {
    /// Its label; empty when it is not initialised.
    pub label: String,
    /// Its serial number.
    pub serial: String,
    /// Who made it.
    pub manufacturer: String,
    /// Which model.
    pub model: String,
    /// It has been initialised.
    pub is_initialised: bool,
    /// A user PIN has been set.
    pub is_user_pin_set: bool,
    /// The user PIN is locked after wrong ones.
    pub is_user_pin_locked: bool,
    /// The SO PIN is locked after wrong ones.
    pub is_so_pin_locked: bool,
    /// Shortest PIN that it takes.
    pub pin_len_min: usize,
    /// Longest PIN that it takes.
    pub pin_len_max: usize,
    pub(crate) slot: Slot,
}

impl HsmModule {
    /// Loads the library at `path` and initialises it, or gives the one that is loaded already.
    ///
    /// # Errors
    /// [`ModuleError::Load`], [`ModuleError::Profile`] when none fits, [`ModuleError::OtherProfile`],
    /// [`ModuleError::Hsm`] when the library does not start.
    pub fn open(path: &Path, profile: ProfileChoice) -> Result<Self, ModuleError> {
        // A bare file name is left to the search path of the dynamic loader.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = opened.iter().find(|module| module.0.path == path) {
            return match profile {
                ProfileChoice::Given(asked) if *asked != *module.profile() => {
                    Err(ModuleError::OtherProfile {
                        path,
                        open: module.profile().name().to_owned(),
                        asked: asked.name().to_owned(),
                    })
                }
                _ => Ok(module.clone()),
            };
        }
        let client = Pkcs11::new(&path)
            .map_err(|error| ModuleError::Load { path: path.clone(), source: error.into() })?;
        match client.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) | Err(Pkcs11Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(error) => return Err(error.into()),
        }
        let library = client.get_library_info()?;
        let profile = match profile {
            ProfileChoice::Given(profile) => *profile,
            ProfileChoice::Auto => Profile::detect(library.manufacturer_id(), library.library_description())?,
        };
        tracing::info!(
            path = %path.display(),
            manufacturer = library.manufacturer_id(),
            version = %library.library_version(),
            profile = profile.name(),
            "PKCS#11 library loaded"
        );
        let module = Self(Arc::new(Module {
            path,
            client,
            profile,
            tokens_in_use: Mutex::new(HashSet::new()),
            initialising: Mutex::new(()),
        }));
        opened.push(module.clone());
        Ok(module)
    }

    /// The profile that this library was opened with.
    pub fn profile(&self) -> &Profile {
        &self.0.profile
    }

    /// Every token, initialised or not.
    ///
    /// A library may not see tokens that another process initialised after it was loaded (SoftHSM does not).
    ///
    /// # Errors
    /// [`ModuleError::Hsm`] when the library cannot list them.
    pub fn tokens(&self) -> Result<Vec<TokenDescription>, ModuleError> {
        self.look_at_tokens().map(|(tokens, _)| tokens)
    }

    /// Every token that says what it is, and the last error of those that do not: a foreign card in another slot is
    /// nobody's fault.
    fn look_at_tokens(&self) -> Result<(Vec<TokenDescription>, Option<ModuleError>), ModuleError> {
        let (mut tokens, mut silent) = (Vec::new(), None);
        for slot in self.client().get_slots_with_token()? {
            let token = match self.client().get_token_info(slot) {
                Ok(token) => token,
                // Taken out between the two calls.
                Err(Pkcs11Error::Pkcs11(RvError::TokenNotPresent | RvError::SlotIdInvalid, _)) => continue,
                Err(error) => {
                    silent = Some(error.into());
                    continue;
                }
            };
            tokens.push(TokenDescription {
                label: token.label().to_owned(),
                serial: token.serial_number().to_owned(),
                manufacturer: token.manufacturer_id().to_owned(),
                model: token.model().to_owned(),
                is_initialised: token.token_initialized(),
                is_user_pin_set: token.user_pin_initialized(),
                is_user_pin_locked: token.user_pin_locked(),
                is_so_pin_locked: token.so_pin_locked() || token.so_pin_final_try(),
                pin_len_min: token.min_pin_length(),
                pin_len_max: token.max_pin_length(),
                slot,
            });
        }
        Ok((tokens, silent))
    }

    /// The one initialised token with this label. Slot numbers change, labels are given by us.
    ///
    /// # Errors
    /// [`ModuleError::NoToken`] lists the labels that there are; [`ModuleError::SeveralTokens`].
    pub fn find_token(&self, label: &str) -> Result<TokenDescription, ModuleError> {
        let (tokens, silent) = self.look_at_tokens()?;
        let (mut found, others): (Vec<_>, Vec<_>) =
            tokens.into_iter().filter(|token| token.is_initialised).partition(|token| token.label == label);
        match (found.len(), found.pop()) {
            (1, Some(token)) => Ok(token),
            // It may be the one that does not say what it is.
            (0, _) => Err(silent.unwrap_or_else(|| ModuleError::NoToken {
                label: label.to_owned(),
                present: others.into_iter().map(|token| token.label).collect(),
            })),
            (count, _) => Err(ModuleError::SeveralTokens { label: label.to_owned(), count }),
        }
    }

    /// [`HsmModule::find_token`], and it must have this serial number.
    ///
    /// # Errors
    /// [`ModuleError::OtherToken`], and those of `find_token`.
    pub fn find_token_with_serial(&self, label: &str, serial: &str) -> Result<TokenDescription, ModuleError> {
        let token = self.find_token(label)?;
        if token.serial != serial {
            return Err(ModuleError::OtherToken {
                label: token.label,
                expected: serial.to_owned(),
                found: token.serial,
            });
        }
        Ok(token)
    }

    /// Logs in as the user of a token and keeps the login until the partition is closed.
    ///
    /// `serial` is the serial number that the PIN was derived for; another token is refused before the PIN
    /// is sent. On [`ModuleError::is_pin_refused`] never try that PIN again.
    ///
    /// # Errors
    /// [`ModuleError::InUse`] when this process has it open already; those of
    /// [`HsmModule::find_token_with_serial`]; [`ModuleError::PinLength`] without an attempt; [`ModuleError::Hsm`].
    pub fn open_partition(
        &self,
        label: &str,
        serial: &str,
        user_pin: Pin,
    ) -> Result<Pkcs11Partition, ModuleError> {
        Pkcs11Partition::open(self, label, serial, user_pin)
    }

    pub(crate) fn client(&self) -> &Pkcs11 {
        &self.0.client
    }

    pub(crate) fn lock_initialising(&self) -> MutexGuard<'_, ()> {
        self.0.initialising.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a token for one user of this process, because a login is shared by all of it.
    pub(crate) fn claim(&self, token: &TokenDescription) -> Result<TokenClaim, ModuleError> {
        let name = format!("{}\n{}", token.label, token.serial);
        let is_new = self.0.tokens_in_use.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
        if !is_new {
            return Err(ModuleError::InUse { label: token.label.clone() });
        }
        Ok(TokenClaim { module: self.clone(), name })
    }
}

impl fmt::Debug for HsmModule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HsmModule({}, {})", self.0.path.display(), self.0.profile.name())
    }
}

/// The right to log in to one token; given back when dropped.
pub(crate) struct TokenClaim {
    module: HsmModule,
    name: String,
}

impl Drop for TokenClaim {
    fn drop(&mut self) {
        self.module.0.tokens_in_use.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

/// Refuses a PIN that the token cannot have, before it costs an attempt.
pub(crate) fn check_pin_len(token: &TokenDescription, pin: &Pin) -> Result<(), ModuleError> {
    let (len, len_min, len_max) = (pin.len(), token.pin_len_min, token.pin_len_max);
    if len < len_min || len > len_max {
        return Err(ModuleError::PinLength { len, len_min, len_max });
    }
    Ok(())
}

/// Ends a login that is not ours. Only with no login does the token check the PIN that comes next:
/// otherwise SoftHSM says "already logged in" to a wrong one too.
pub(crate) fn end_other_login(session: &Session) -> Result<(), Pkcs11Error> {
    match session.get_session_info()?.session_state() {
        SessionState::RoPublic | SessionState::RwPublic => Ok(()),
        SessionState::RoUser | SessionState::RwUser | SessionState::RwSecurityOfficer => {
            tracing::warn!("a login to the token that this service did not make is ended");
            session.logout()
        }
    }
}
