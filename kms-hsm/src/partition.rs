//! A token that is logged in: the login, and finding it again when it was lost.

use crate::error::{ErrorClass, HsmError, ModuleError, TokenAnswer};
use crate::module::{HsmModule, TokenClaim, check_pin_len, end_other_login};
use crate::pin::Pin;
use crate::session::Pkcs11Session;
use crate::survey::is_offered;
use crate::{HsmPartition, HsmSession, ObjectKind};
use cryptoki::error::{Error as Pkcs11Error, RvError};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::Slot;
use kms_core::id::HsmObjectId;
use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

/// How often each part of the self-test is tried when a partition is opened. People have come together for it: one error
/// that the token answers must not send them away. While a partition is open the test has one try.
const OPENING_TRIES: u32 = 3;

/// A PKCS#11 token on which this process is logged in as the user.
///
/// Dropping it and all its sessions logs out. Until then the PIN stays in locked memory, to log in again
/// when the token comes back after a loss; [`HsmPartition::forget_pin`] gives that up.
pub struct Pkcs11Partition(Arc<Partition>);

/// What the sessions of a partition share.
pub(crate) struct Partition {
    module: HsmModule,
    label: String,
    serial: String,
    kinds: HashSet<ObjectKind>,
    login: Mutex<Login>,
    /// Apart from the login, so that it can be wiped while a login hangs in the device's library.
    pin: Mutex<Option<Pin>>,
    /// The token has refused the PIN.
    is_refused: AtomicBool,
    /// Grows with every login.
    logins: AtomicU64,
    /// Grows with every login and every destroyed object: object handles of an older generation may be
    /// dead or, worse, belong to another object by now.
    handle_generation: AtomicU64,
    is_closed: AtomicBool,
    /// Held while objects are made, destroyed or looked for. In SoftHSM 2.6.1 a key generation fails in one of
    /// several ways when another session of the same process looks at the list of objects at that moment.
    objects: Mutex<()>,
    /// Some objects that were there when they were last looked for.
    known: Mutex<KnownObjects>,
    /// Given back last, when the login has ended.
    claim: Mutex<Option<TokenClaim>>,
}

struct Login {
    /// Keeps the login when every other session is closed.
    anchor: Option<OpenSession>,
    attempts: Attempts,
}

/// Objects that are known to be in the token: when all of them are gone, the token is.
#[derive(Default)]
pub(crate) struct KnownObjects(Vec<HsmObjectId>);

impl KnownObjects {
    /// More would tell no more.
    const COUNT_MAX: usize = 8;

    pub(crate) fn insert(&mut self, id: HsmObjectId) {
        if self.0.len() < Self::COUNT_MAX && !self.0.contains(&id) {
            self.0.push(id);
        }
    }

    /// We destroy it, so that it may be missing from now on.
    pub(crate) fn forget(&mut self, id: HsmObjectId) {
        self.0.retain(|known| *known != id);
    }

    pub(crate) fn ids(&self) -> Vec<HsmObjectId> {
        self.0.clone()
    }
}

/// So many logins in a row may fail without a clear answer. Most devices look at the PIN last, but nobody knows
/// what such a login has cost, and some destroy their keys after ten wrong ones.
const UNCLEAR_LOGINS_MAX: u32 = 3;

/// What one failed login has cost of the attempts that the token allows.
#[derive(Clone, Copy, Debug)]
enum LoginCost {
    /// One: the PIN is wrong.
    Attempt,
    /// None: the token cannot have looked at the PIN.
    Nothing,
    /// One, or none.
    Unclear,
}

/// What failed logins may have cost.
#[derive(Default)]
struct Attempts {
    unclear_count: u32,
}

impl Attempts {
    fn succeeded(&mut self) {
        self.unclear_count = 0;
    }

    /// Counts a failed login, and says whether the PIN must never be sent again.
    fn is_last(&mut self, cost: LoginCost) -> bool {
        match cost {
            LoginCost::Attempt => true,
            LoginCost::Nothing => false,
            LoginCost::Unclear => {
                self.unclear_count += 1;
                self.unclear_count >= UNCLEAR_LOGINS_MAX
            }
        }
    }
}

/// Somebody else in this process logged in since we looked, or session or token were gone before the login began. The
/// next call sees the state and goes on from there. Any other answer may have come after a look at the PIN.
fn has_not_looked_at_the_pin(error: &Pkcs11Error) -> bool {
    matches!(
        error,
        Pkcs11Error::Pkcs11(
            RvError::SessionHandleInvalid
                | RvError::SessionClosed
                | RvError::TokenNotPresent
                | RvError::SlotIdInvalid
                | RvError::SessionReadOnlyExists
                | RvError::UserAlreadyLoggedIn
                | RvError::UserAnotherAlreadyLoggedIn
                | RvError::UserTooManyTypes,
            _
        )
    )
}

/// A session that is closed when dropped, unless the token has declared it dead: its number may belong to
/// another session by now.
pub(crate) struct OpenSession {
    session: Option<Session>,
    slot: Slot,
}

impl OpenSession {
    fn open(module: &HsmModule, slot: Slot) -> Result<Self, Pkcs11Error> {
        let session = module.client().open_rw_session_no_drop(slot)?;
        Ok(Self { session: Some(session), slot })
    }

    pub(crate) fn get(&self) -> &Session {
        self.session.as_ref().expect("the session is taken out only when this value is consumed or dropped")
    }

    pub(crate) fn slot(&self) -> Slot {
        self.slot
    }

    /// Drops it without closing.
    pub(crate) fn abandon(mut self) {
        self.session = None;
    }

    pub(crate) fn is_user(&self) -> Result<bool, Pkcs11Error> {
        Ok(self.get().get_session_info()?.session_state() == SessionState::RwUser)
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.session.take().map(Session::close) {
            tracing::debug!(%error, "closing a session");
        }
    }
}

impl Pkcs11Partition {
    pub(crate) fn open(
        module: &HsmModule,
        label: &str,
        serial: &str,
        user_pin: Pin,
    ) -> Result<Self, ModuleError> {
        let token = module.find_token_with_serial(label, serial)?;
        check_pin_len(&token, &user_pin)?;
        let claim = module.claim(&token)?;
        if token.is_user_pin_locked {
            return Err(HsmError::PinRefused {
                source: Some(TokenAnswer {
                    call: "C_GetTokenInfo".to_owned(),
                    answer: "CKF_USER_PIN_LOCKED".to_owned(),
                }),
            }
            .into());
        }
        let partition = Partition {
            module: module.clone(),
            label: token.label,
            serial: token.serial,
            kinds: ObjectKind::all().filter(|kind| is_offered(module, token.slot, *kind)).collect(),
            login: Mutex::new(Login { anchor: None, attempts: Attempts::default() }),
            pin: Mutex::new(Some(user_pin)),
            is_refused: AtomicBool::new(false),
            logins: AtomicU64::new(0),
            handle_generation: AtomicU64::new(0),
            is_closed: AtomicBool::new(false),
            objects: Mutex::new(()),
            known: Mutex::default(),
            claim: Mutex::new(Some(claim)),
        };
        // Nothing of ours is logged in yet, so whatever login there is must go before ours is checked.
        {
            let session = OpenSession::open(module, token.slot)?;
            end_other_login(session.get())?;
        }
        partition.restore_login(0)?;
        let partition = Arc::new(partition);
        // Before anybody relies on it. Dropped when it fails, which logs out.
        Pkcs11Session::new(partition.clone()).self_test_with_tries(OPENING_TRIES)?;
        Ok(Self(partition))
    }

    /// The token's label.
    pub fn label(&self) -> &str {
        &self.0.label
    }

    /// The token's serial number.
    pub fn serial(&self) -> &str {
        &self.0.serial
    }
}

impl fmt::Debug for Pkcs11Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pkcs11Partition({}, serial {})", self.0.label, self.0.serial)
    }
}

impl HsmPartition for Pkcs11Partition {
    fn open_session(&self) -> Result<Box<dyn HsmSession>, HsmError> {
        let mut session = Pkcs11Session::new(self.0.clone());
        session.connect()?;
        Ok(Box::new(session))
    }

    fn can(&self, kind: ObjectKind) -> bool {
        self.0.kinds.contains(&kind)
    }

    fn takes_keys(&self) -> bool {
        self.0.takes_keys()
    }

    fn forget_pin(&self) {
        self.0.forget_pin();
    }

    fn close(&self) {
        self.0.close();
    }
}

impl Partition {
    pub(crate) fn module(&self) -> &HsmModule {
        &self.module
    }

    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    pub(crate) fn serial(&self) -> &str {
        &self.serial
    }

    pub(crate) fn can(&self, kind: ObjectKind) -> bool {
        self.kinds.contains(&kind)
    }

    pub(crate) fn takes_keys(&self) -> bool {
        self.module.profile().takes_keys()
    }

    pub(crate) fn kinds(&self) -> impl Iterator<Item = ObjectKind> {
        ObjectKind::all().filter(|kind| self.can(*kind))
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    pub(crate) fn handle_generation(&self) -> u64 {
        self.handle_generation.load(Ordering::Acquire)
    }

    /// One session at a time makes, destroys or looks for objects. Using a key that was found needs no turn.
    pub(crate) fn turn_at_objects(&self) -> MutexGuard<'_, ()> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// [`Partition::turn_at_objects`] when nobody has it.
    pub(crate) fn try_turn_at_objects(&self) -> Option<MutexGuard<'_, ()>> {
        match self.objects.try_lock() {
            Ok(turn) => Some(turn),
            Err(TryLockError::Poisoned(turn)) => Some(turn.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    pub(crate) fn known(&self) -> MutexGuard<'_, KnownObjects> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes every session find its objects again.
    pub(crate) fn forget_handles(&self) {
        self.handle_generation.fetch_add(1, Ordering::AcqRel);
    }

    /// How many times the partition has logged in.
    pub(crate) fn login_count(&self) -> u64 {
        self.logins.load(Ordering::Acquire)
    }

    /// Whether nobody has logged in again since. Waits for a login that is under way: it counts only at its end.
    pub(crate) fn has_held_login_since(&self, count: u64) -> bool {
        let _login = self.lock_login();
        self.login_count() == count
    }

    /// Opens a session and makes sure that it is logged in.
    pub(crate) fn open_logged_in(&self) -> Result<OpenSession, HsmError> {
        let logins_seen = self.login_count();
        if self.is_closed() {
            return Err(HsmError::Stopped);
        }
        let session = OpenSession::open(&self.module, self.slot()?)?;
        if session.is_user()? {
            return Ok(session);
        }
        self.restore_login(logins_seen)?;
        if session.is_user()? { Ok(session) } else { Err(HsmError::LoginLost { source: None }) }
    }

    /// Logs in, unless that has happened since the caller last looked.
    ///
    /// One refused PIN is the last one: it is wiped, and every later call is refused without asking.
    fn restore_login(&self, logins_seen: u64) -> Result<(), HsmError> {
        let mut login = self.lock_login();
        if self.is_closed() {
            return Err(HsmError::Stopped);
        }
        if self.is_refused.load(Ordering::Acquire) {
            return Err(HsmError::PinRefused { source: None });
        }
        if self.login_count() != logins_seen {
            return Ok(());
        }
        let session = OpenSession::open(&self.module, self.slot()?)?;
        if !session.is_user()? {
            end_other_login(session.get())?;
            let pin = self.lock_pin().as_ref().map(Pin::for_driver);
            let Some(pin) = pin else {
                return Err(HsmError::LoginLost { source: None });
            };
            if let Err(error) = session.get().login(UserType::User, Some(&pin)) {
                return Err(self.login_failed(&mut login, error));
            }
        }
        login.attempts.succeeded();
        // The old anchor is dead, and its number may be another session's by now.
        if let Some(anchor) = login.anchor.replace(session) {
            anchor.abandon();
        }
        self.forget_handles();
        let count = self.logins.fetch_add(1, Ordering::AcqRel) + 1;
        tracing::info!(label = self.label, serial = self.serial, count, "logged in to the token");
        Ok(())
    }

    /// What a failed login means, and whether the PIN is ever sent again.
    fn login_failed(&self, login: &mut Login, error: Pkcs11Error) -> HsmError {
        let is_unseen = has_not_looked_at_the_pin(&error);
        let error = HsmError::from(error);
        let cost = match error.class() {
            ErrorClass::PinIncorrect => LoginCost::Attempt,
            _ if is_unseen => LoginCost::Nothing,
            _ => LoginCost::Unclear,
        };
        if !login.attempts.is_last(cost) {
            return error;
        }
        self.is_refused.store(true, Ordering::Release);
        self.forget_pin();
        tracing::error!(label = self.label, %error, "the token refused the PIN; it is not tried again");
        match error {
            HsmError::DeviceSick { source } | HsmError::Refused { source } | HsmError::NoRoom { source } => {
                HsmError::PinRefused { source: Some(source) }
            }
            HsmError::PinRefused { source } => HsmError::PinRefused { source },
            _ => HsmError::PinRefused { source: None },
        }
    }

    fn forget_pin(&self) {
        self.lock_pin().take();
    }

    /// Where the token is now. A token with our label and another serial number is not ours.
    fn slot(&self) -> Result<Slot, HsmError> {
        match self.module.find_token_with_serial(&self.label, &self.serial) {
            Ok(token) => Ok(token.slot),
            Err(ModuleError::Hsm(error)) => Err(error),
            Err(_) => Err(HsmError::TokenGone { source: None }),
        }
    }

    fn close(&self) {
        // Before the lock, which a login that hangs may hold.
        self.forget_pin();
        let mut login = self.lock_login();
        if self.is_closed.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(anchor) = login.anchor.take() {
            // Closing the last session would log out too, but a session may be left in a stuck worker.
            if let Err(error) = anchor.get().logout() {
                tracing::warn!(label = self.label, %error, "logging out of the token");
            }
        }
        self.forget_handles();
        drop(login);
        self.claim.lock().unwrap_or_else(PoisonError::into_inner).take();
        tracing::info!(label = self.label, serial = self.serial, "logged out of the token");
    }

    fn lock_pin(&self) -> MutexGuard<'_, Option<Pin>> {
        self.pin.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_login(&self) -> MutexGuard<'_, Login> {
        self.login.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptoki::context::Function;

    #[test]
    fn one_refused_pin_is_the_last_attempt() {
        assert!(Attempts::default().is_last(LoginCost::Attempt));
    }

    #[test]
    fn logins_without_a_clear_answer_are_made_three_times_in_a_row_and_no_more() {
        let mut attempts = Attempts::default();
        assert!(!attempts.is_last(LoginCost::Unclear));
        assert!(!attempts.is_last(LoginCost::Unclear));
        // Nothing was spent; nor is it forgotten what was.
        assert!((0..20).all(|_| !attempts.is_last(LoginCost::Nothing)));
        assert!(attempts.is_last(LoginCost::Unclear));
    }

    #[test]
    fn only_what_comes_before_a_look_at_the_pin_costs_nothing() {
        let answered = |answer| has_not_looked_at_the_pin(&Pkcs11Error::Pkcs11(answer, Function::Login));
        for before in [RvError::SessionHandleInvalid, RvError::TokenNotPresent, RvError::UserAlreadyLoggedIn]
        {
            assert!(answered(before), "{before:?}");
        }
        for unclear in [
            RvError::DeviceRemoved,
            RvError::DeviceError,
            RvError::FunctionCanceled,
            RvError::Cancel,
            RvError::ArgumentsBad,
            RvError::UnknownErrorCode(0x8000_0001),
        ] {
            assert!(!answered(unclear), "{unclear:?}");
        }
    }

    #[test]
    fn a_login_that_succeeds_starts_the_count_again() {
        let mut attempts = Attempts::default();
        assert!(!attempts.is_last(LoginCost::Unclear));
        attempts.succeeded();
        assert!(!attempts.is_last(LoginCost::Unclear));
        assert!(!attempts.is_last(LoginCost::Unclear));
    }
}
