//! The one error of all use cases: a stable reason, a sentence, and what helps the caller.

use crate::store::{CommitError, DatabaseError};
use kms_core::reason::Reason;
use kms_hsm::{ErrorClass, HsmError};
use std::time::Duration;

/// Why a call is refused. What it says may be shown to the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ServiceError {
    /// The stable reason; decides the gRPC code.
    pub reason: Reason,
    /// What is wrong and what to do, in a sentence. Never secret, no internal detail.
    pub message: String,
    /// The request's field, where one is to blame.
    pub field: Option<&'static str>,
    /// When to try again, where that helps.
    pub retry_after: Option<Duration>,
}

impl ServiceError {
    /// A reason and a sentence.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), field: None, retry_after: None }
    }

    /// A field of the request is wrong.
    pub fn field(field: &'static str, message: impl std::fmt::Display) -> Self {
        let message = format!("{field} {message}");
        Self { field: Some(field), ..Self::new(Reason::FieldInvalid, message) }
    }

    /// Trying again after a while helps.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }
}

/// What to do when it is not known how much of a call was done.
const REPEAT: &str = "try again, and a change with the same idempotency token";

/// The HSM did not open a ciphertext: its sender's fault, or the HSM's.
pub(super) fn opening(error: HsmError) -> ServiceError {
    // Other refusals of the HSM (a key that is exhausted, or not allowed to decrypt) are not the ciphertext's.
    if !matches!(error, HsmError::CiphertextInvalid | HsmError::TooLong { .. }) {
        return error.into();
    }
    tracing::debug!(error = %crate::chain(&error), "the HSM does not open a ciphertext");
    ServiceError::new(Reason::CiphertextInvalid, kms_core::envelope::CiphertextInvalid.to_string())
}

impl From<CommitError> for ServiceError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Full => {
                Self::new(Reason::Overloaded, "too many calls wait for the audit log; try again")
                    .retry_after(Duration::from_millis(100))
            }
            CommitError::Unavailable => {
                Self::new(Reason::LogUnavailable, format!("the audit log cannot be written; {REPEAT}"))
                    .retry_after(Duration::from_secs(1))
            }
        }
    }
}

impl From<DatabaseError> for ServiceError {
    fn from(error: DatabaseError) -> Self {
        tracing::error!(error = %crate::chain(&error), "a database read failed");
        match error {
            DatabaseError::RowMac(_) | DatabaseError::Corrupt { .. } => Self::new(
                Reason::Internal,
                "a stored row is not what this service wrote; see the server's log",
            ),
            _ => Self::new(Reason::LogUnavailable, format!("the database does not answer; {REPEAT}"))
                .retry_after(Duration::from_secs(1)),
        }
    }
}

impl From<HsmError> for ServiceError {
    fn from(error: HsmError) -> Self {
        if let HsmError::CircuitOpen { probe_in } = &error {
            let message = format!("the HSM failed again and again and is tested before it is used; {REPEAT}");
            return Self::new(Reason::HsmUnavailable, message).retry_after(*probe_in);
        }
        match error.class() {
            ErrorClass::Busy => Self::new(Reason::Overloaded, "too many calls wait for the HSM; try again")
                .retry_after(Duration::from_millis(100)),
            ErrorClass::Deadline => Self::new(
                Reason::DeadlineExceeded,
                "the deadline passed before the HSM was free; give the call more time",
            ),
            ErrorClass::Unsupported => Self::new(
                Reason::SpecUnsupported,
                "this token cannot do that; choose another specification or protection wrapped",
            ),
            ErrorClass::NoAnswer => {
                tracing::error!(error = %crate::chain(&error), "the HSM failed");
                Self::new(
                    Reason::HsmUnavailable,
                    format!("the HSM did not answer before the deadline; {REPEAT}"),
                )
                .retry_after(Duration::from_secs(1))
            }
            // What the caller can get wrong was checked before; where a ciphertext is opened, `opening` says so.
            ErrorClass::CallersFault
            | ErrorClass::RetryOnNewSession
            | ErrorClass::CircuitOpen
            | ErrorClass::LoginLost
            | ErrorClass::TokenGone
            | ErrorClass::DeviceSick
            | ErrorClass::PinIncorrect
            | ErrorClass::NotFound
            | ErrorClass::Stopped => {
                tracing::error!(error = %crate::chain(&error), "the HSM failed");
                Self::new(Reason::HsmUnavailable, format!("the HSM does not do what it is asked; {REPEAT}"))
                    .retry_after(Duration::from_secs(1))
            }
        }
    }
}
