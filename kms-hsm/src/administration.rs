//! Initialising tokens and setting PINs. Used by ceremonies only, in a process of their own: an SO login
//! is refused while a user's sessions are open, and it would replace the login of a running service.

use crate::error::ModuleError;
use crate::module::{HsmModule, TokenDescription, check_pin_len, end_other_login};
use crate::pin::Pin;
use cryptoki::error::{Error as Pkcs11Error, RvError};
use cryptoki::session::{Session, UserType};

/// Length of `CK_TOKEN_INFO.label`, in bytes.
const LABEL_LEN_MAX: usize = 32;

impl HsmModule {
    /// Initialises a token that never was, and gives it `label` and an SO PIN.
    ///
    /// A token that has the label stays as it is, whatever is in it: `C_InitToken` would destroy its keys.
    /// The slot that the token ends up in may be another one; it is found again by its label.
    ///
    /// # Errors
    /// [`ModuleError::LabelInvalid`], [`ModuleError::LabelTaken`], [`ModuleError::NoFreeSlot`],
    /// [`ModuleError::PinLength`], [`ModuleError::Hsm`].
    pub fn initialise_token(&self, label: &str, so_pin: &Pin) -> Result<TokenDescription, ModuleError> {
        let is_label = (1..=LABEL_LEN_MAX).contains(&label.len())
            && label.trim() == label
            && !label.chars().any(char::is_control);
        if !is_label {
            return Err(ModuleError::LabelInvalid { label: label.to_owned() });
        }
        let _one_at_a_time = self.lock_initialising();
        let tokens = self.tokens()?;
        if tokens.iter().any(|token| token.label == label) {
            return Err(ModuleError::LabelTaken { label: label.to_owned() });
        }
        let free = tokens.into_iter().find(|token| !token.is_initialised).ok_or(ModuleError::NoFreeSlot)?;
        check_pin_len(&free, so_pin)?;
        self.client().init_token(free.slot, &so_pin.for_driver(), label)?;
        let token = self.find_token(label)?;
        tracing::info!(label, serial = token.serial, "token initialised");
        Ok(token)
    }

    /// Changes the SO PIN.
    ///
    /// # Errors
    /// [`ModuleError::is_pin_refused`]: the old PIN is wrong, and some devices destroy their keys after ten
    /// of those; the others as for every login.
    pub fn set_so_pin(&self, token: &TokenDescription, old: &Pin, new: &Pin) -> Result<(), ModuleError> {
        check_pin_len(token, new)?;
        self.logged_in(token, UserType::So, old, |session| {
            session.set_pin(&old.for_driver(), &new.for_driver())
        })?;
        tracing::info!(label = token.label, serial = token.serial, "SO PIN changed");
        Ok(())
    }

    /// Logs in as the security officer and out again: whether the token has this PIN. One attempt.
    ///
    /// # Errors
    /// As for [`HsmModule::set_so_pin`].
    pub fn check_so_pin(&self, token: &TokenDescription, pin: &Pin) -> Result<(), ModuleError> {
        self.logged_in(token, UserType::So, pin, |_| Ok(()))
    }

    /// Sets the user PIN as the security officer: the first one, or a new one where the old is not known.
    ///
    /// # Errors
    /// As for [`HsmModule::set_so_pin`].
    pub fn initialise_user_pin(
        &self,
        token: &TokenDescription,
        so_pin: &Pin,
        user_pin: &Pin,
    ) -> Result<(), ModuleError> {
        check_pin_len(token, user_pin)?;
        self.logged_in(token, UserType::So, so_pin, |session| session.init_pin(&user_pin.for_driver()))?;
        tracing::info!(label = token.label, serial = token.serial, "user PIN initialised");
        Ok(())
    }

    /// Changes the user PIN as the user.
    ///
    /// # Errors
    /// As for [`HsmModule::set_so_pin`].
    pub fn set_user_pin(&self, token: &TokenDescription, old: &Pin, new: &Pin) -> Result<(), ModuleError> {
        check_pin_len(token, new)?;
        self.logged_in(token, UserType::User, old, |session| {
            session.set_pin(&old.for_driver(), &new.for_driver())
        })?;
        tracing::info!(label = token.label, serial = token.serial, "user PIN changed");
        Ok(())
    }

    /// Runs one step under a login of its own, and logs out again.
    fn logged_in(
        &self,
        token: &TokenDescription,
        user: UserType,
        pin: &Pin,
        step: impl FnOnce(&Session) -> Result<(), Pkcs11Error>,
    ) -> Result<(), ModuleError> {
        check_pin_len(token, pin)?;
        let _claim = self.claim(token)?;
        // Found again: the description may be older than the slot numbers.
        let token = self.find_token_with_serial(&token.label, &token.serial)?;
        if matches!(user, UserType::So) && token.is_so_pin_locked {
            return Err(ModuleError::SoPinLocked { label: token.label });
        }
        let session = self.client().open_rw_session(token.slot)?;
        end_other_login(&session)?;
        session.login(user, Some(&pin.for_driver())).map_err(|error| match error {
            // Of everything that a token says about PINs, this alone says that it has another one.
            Pkcs11Error::Pkcs11(RvError::PinIncorrect, _) => {
                ModuleError::WrongPin { label: token.label.clone() }
            }
            other => other.into(),
        })?;
        let result = step(&session);
        // The step has happened or not; a failed logout changes neither. Closing the session, the only
        // one of this process, ends the login too.
        if let Err(error) = session.logout() {
            tracing::warn!(label = token.label, %error, "logging out after an administration step");
        }
        Ok(result?)
    }
}
