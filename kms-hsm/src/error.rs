//! Error cases and their classes.

use crate::answer;
use crate::profile::ProfileError;
use cryptoki::error::Error as Pkcs11Error;
use kms_core::id::HsmObjectId;
use std::path::PathBuf;
use std::time::Duration;

/// What a caller can do about an error. Metrics and health are counted by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The request cannot succeed; says nothing about the HSM.
    CallersFault,
    /// The session is gone; the same request may succeed on the next one.
    RetryOnNewSession,
    /// The login is gone and did not come back.
    LoginLost,
    /// The token is not there.
    TokenGone,
    /// The token is there and does not work.
    DeviceSick,
    /// No room at the moment; try again later.
    Busy,
    /// The caller's time was over before the HSM was asked.
    Deadline,
    /// The HSM was asked and did not answer in time; the request may have happened.
    NoAnswer,
    /// The HSM failed several times in a row and is not asked until its self-test has passed.
    CircuitOpen,
    /// The PIN was refused. Never tried again.
    PinIncorrect,
    /// The object does not exist, or not exactly once.
    NotFound,
    /// The token or its profile does not offer this.
    Unsupported,
    /// The pool or partition was stopped.
    Stopped,
}

impl ErrorClass {
    /// The name used in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            ErrorClass::CallersFault => "callers_fault",
            ErrorClass::RetryOnNewSession => "retry_on_new_session",
            ErrorClass::LoginLost => "login_lost",
            ErrorClass::TokenGone => "token_gone",
            ErrorClass::DeviceSick => "device_sick",
            ErrorClass::Busy => "busy",
            ErrorClass::Deadline => "deadline",
            ErrorClass::NoAnswer => "no_answer",
            ErrorClass::CircuitOpen => "circuit_open",
            ErrorClass::PinIncorrect => "pin_incorrect",
            ErrorClass::NotFound => "not_found",
            ErrorClass::Unsupported => "unsupported",
            ErrorClass::Stopped => "stopped",
        }
    }
}

/// What the device's library answered, in words: for logs, not for decisions.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{call} answered {answer}")]
pub struct TokenAnswer {
    /// Which call.
    pub call: String,
    /// What it answered.
    pub answer: String,
}

impl From<Pkcs11Error> for TokenAnswer {
    fn from(error: Pkcs11Error) -> Self {
        match error {
            Pkcs11Error::Pkcs11(code, function) => {
                Self { call: format!("C_{function:?}"), answer: answer::name(code) }
            }
            other => Self { call: "the PKCS#11 library".to_owned(), answer: other.to_string() },
        }
    }
}

/// Why an operation in the HSM did not happen.
#[derive(Debug, thiserror::Error)]
pub enum HsmError {
    /// Ciphertext, tag, nonce, key and associated data do not belong together.
    #[error("the ciphertext does not open under this key and associated data")]
    CiphertextInvalid,
    /// An input is longer than allowed.
    #[error("{what} is {len} bytes long; at most {len_max} are allowed")]
    TooLong {
        /// Which input.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The longest allowed length in bytes.
        len_max: usize,
    },
    /// An object with this id is there already; ids are never used twice.
    #[error("an object {id} is in the token already")]
    AlreadyExists {
        /// The id.
        id: HsmObjectId,
    },
    /// No object of the right kind has this id.
    #[error("no such object {id} is in the token")]
    NotFound {
        /// The id.
        id: HsmObjectId,
    },
    /// Several objects of the right kind have this id.
    #[error("{count} objects {id} are in the token; exactly one is expected")]
    Ambiguous {
        /// The id.
        id: HsmObjectId,
        /// How many there are.
        count: usize,
    },
    /// The profile or the token has no such mechanism.
    #[error("the token does not offer {what}")]
    Unsupported {
        /// What is missing.
        what: String,
    },
    /// The token made or holds an object whose attributes are not those of its kind.
    #[error("the token does not keep {attribute} of object {id} as it must be")]
    AttributeNotKept {
        /// The object.
        id: HsmObjectId,
        /// The attribute's name.
        attribute: String,
    },
    /// The token understood the request and refused it.
    #[error("the token refused the request")]
    Refused {
        /// What it answered.
        #[source]
        source: TokenAnswer,
    },
    /// The session was lost, and for an operation with an effect nobody knows whether it happened.
    #[error("the session with the token was lost")]
    SessionLost {
        /// What the token answered.
        #[source]
        source: TokenAnswer,
    },
    /// The token no longer knows the login.
    #[error("the login to the token was lost")]
    LoginLost {
        /// What the token answered; `None` when the session's state showed it.
        #[source]
        source: Option<TokenAnswer>,
    },
    /// The token is not there.
    #[error("the token is not present")]
    TokenGone {
        /// What the library answered; `None` when no slot holds the token.
        #[source]
        source: Option<TokenAnswer>,
    },
    /// The token answered with an error of its own.
    #[error("the token does not work as it should")]
    DeviceSick {
        /// What it answered.
        #[source]
        source: TokenAnswer,
    },
    /// The token answered something that cannot be right.
    #[error("the token gave {what}")]
    UnexpectedAnswer {
        /// What was wrong with it.
        what: &'static str,
    },
    /// The token refused the PIN. It is wiped and never sent again.
    #[error("the token refused the PIN")]
    PinRefused {
        /// What the token answered; `None` after the first time.
        #[source]
        source: Option<TokenAnswer>,
    },
    /// The queue is full.
    #[error("too many jobs wait for the token")]
    Busy,
    /// The token has no room for another session or object.
    #[error("the token has no room at the moment")]
    NoRoom {
        /// What it answered.
        #[source]
        source: TokenAnswer,
    },
    /// The caller's deadline passed before the token was asked.
    #[error("the deadline passed before the token was free")]
    Deadline,
    /// The token was asked and has not answered; whether the request happened is not known.
    #[error("the token did not answer in time")]
    NoAnswer,
    /// The token failed several times in a row.
    #[error("the token failed again and again; it is tested next in {} ms", probe_in.as_millis())]
    CircuitOpen {
        /// How long until the next self-test.
        probe_in: Duration,
    },
    /// The token does not give the answers that are known.
    #[error("the self-test of {mechanism} with profile {profile:?} did not pass: {what}")]
    SelfTest {
        /// The profile's name.
        profile: String,
        /// The mechanism, as the profile numbers it.
        mechanism: String,
        /// What was wrong.
        what: &'static str,
        /// What the token answered, when it answered an error.
        #[source]
        source: Option<Box<HsmError>>,
    },
    /// The pool or partition was stopped.
    #[error("the connection to the token is closed")]
    Stopped,
    /// Our own code panicked during the operation.
    #[error("the worker panicked during {operation}")]
    Panicked {
        /// The operation.
        operation: &'static str,
    },
}

impl HsmError {
    /// What a caller can do about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            HsmError::CiphertextInvalid
            | HsmError::TooLong { .. }
            | HsmError::AlreadyExists { .. }
            | HsmError::Refused { .. } => ErrorClass::CallersFault,
            HsmError::NotFound { .. } | HsmError::Ambiguous { .. } => ErrorClass::NotFound,
            HsmError::Unsupported { .. } | HsmError::AttributeNotKept { .. } => ErrorClass::Unsupported,
            HsmError::SessionLost { .. } => ErrorClass::RetryOnNewSession,
            HsmError::LoginLost { .. } => ErrorClass::LoginLost,
            HsmError::TokenGone { .. } => ErrorClass::TokenGone,
            HsmError::DeviceSick { .. }
            | HsmError::UnexpectedAnswer { .. }
            | HsmError::SelfTest { .. }
            | HsmError::Panicked { .. } => ErrorClass::DeviceSick,
            HsmError::PinRefused { .. } => ErrorClass::PinIncorrect,
            HsmError::Busy | HsmError::NoRoom { .. } => ErrorClass::Busy,
            HsmError::Deadline => ErrorClass::Deadline,
            HsmError::NoAnswer => ErrorClass::NoAnswer,
            HsmError::CircuitOpen { .. } => ErrorClass::CircuitOpen,
            HsmError::Stopped => ErrorClass::Stopped,
        }
    }
}

/// Why a module, a token or a partition could not be opened or administered.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// The library cannot be loaded.
    #[error("the PKCS#11 library {path} cannot be loaded")]
    Load {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: TokenAnswer,
    },
    /// The same library is open with another profile.
    #[error("the PKCS#11 library {path} is open with profile {open} already; {asked} was asked")]
    OtherProfile {
        /// Its path.
        path: PathBuf,
        /// The profile that it was opened with.
        open: String,
        /// The profile that was asked.
        asked: String,
    },
    /// The vendor profile cannot be used.
    #[error("the vendor profile cannot be used")]
    Profile(#[from] ProfileError),
    /// No token has this label.
    #[error("no token has the label {label:?}; there are {present:?}")]
    NoToken {
        /// The label.
        label: String,
        /// The labels that are there.
        present: Vec<String>,
    },
    /// Several tokens have this label.
    #[error("{count} tokens have the label {label:?}; exactly one is expected")]
    SeveralTokens {
        /// The label.
        label: String,
        /// How many have it.
        count: usize,
    },
    /// The token with this label is another one.
    #[error("the token {label:?} has serial number {found:?}; {expected:?} is expected")]
    OtherToken {
        /// The label.
        label: String,
        /// The serial number that was asked.
        expected: String,
        /// The serial number that it has.
        found: String,
    },
    /// A token has this label, so none is initialised with it.
    #[error("a token has the label {label:?} already; it is left alone")]
    LabelTaken {
        /// The label.
        label: String,
    },
    /// A label is 1 to 32 bytes without blanks at its ends.
    #[error("{label:?} is no token label: it must be 1 to 32 bytes without blanks at its ends")]
    LabelInvalid {
        /// The label.
        label: String,
    },
    /// No slot holds a token that was never initialised.
    #[error("no slot holds a token that is not initialised yet")]
    NoFreeSlot,
    /// The token is open in this process: a login would collide with it.
    #[error("the token {label:?} is open in this process")]
    InUse {
        /// Its label.
        label: String,
    },
    /// The PIN does not fit this token; it was not sent.
    #[error("the PIN has {len} characters; the token takes {len_min} to {len_max}")]
    PinLength {
        /// Length of the PIN.
        len: usize,
        /// Shortest length that the token takes.
        len_min: usize,
        /// Longest length that the token takes.
        len_max: usize,
    },
    /// The token has another PIN: the login was refused, and one attempt is spent.
    #[error("the token {label:?} has another PIN")]
    WrongPin {
        /// Its label.
        label: String,
    },
    /// So many wrong PINs came before that the token takes none any more, or one more would be the last. Nothing was sent.
    #[error("the SO PIN of token {label:?} is locked, or one wrong attempt away from it; nothing was sent")]
    SoPinLocked {
        /// Its label.
        label: String,
    },
    /// The token did not do it.
    #[error(transparent)]
    Hsm(#[from] HsmError),
}

impl ModuleError {
    /// Whether the token refused a PIN: never try that PIN again.
    pub fn is_pin_refused(&self) -> bool {
        matches!(self, ModuleError::WrongPin { .. } | ModuleError::Hsm(HsmError::PinRefused { .. }))
    }
}

impl From<Pkcs11Error> for ModuleError {
    fn from(error: Pkcs11Error) -> Self {
        ModuleError::Hsm(error.into())
    }
}
