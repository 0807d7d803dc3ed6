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

impl From<CommitError> for ServiceError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Full => {
                Self::new(Reason::Overloaded, "too many calls wait for the audit log; try again")
                    .retry_after(Duration::from_millis(100))
            }
            CommitError::Unavailable => {
                Self::new(Reason::LogUnavailable, "the audit log cannot be written, so nothing was done")
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
            _ => Self::new(Reason::LogUnavailable, "the database does not answer; nothing was done")
                .retry_after(Duration::from_secs(1)),
        }
    }
}

impl From<HsmError> for ServiceError {
    fn from(error: HsmError) -> Self {
        if let HsmError::CircuitOpen { probe_in } = &error {
            let message = "the HSM failed again and again and is tested before it is used; nothing was done";
            return Self::new(Reason::HsmUnavailable, message).retry_after(*probe_in);
        }
        match error.class() {
            ErrorClass::CallersFault => {
                tracing::debug!(error = %crate::chain(&error), "the HSM refused a request");
                Self::new(Reason::CiphertextInvalid, kms_core::envelope::CiphertextInvalid.to_string())
            }
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
                Self::new(Reason::HsmUnavailable, "the HSM did not answer before the deadline; try again")
                    .retry_after(Duration::from_secs(1))
            }
            ErrorClass::RetryOnNewSession
            | ErrorClass::CircuitOpen
            | ErrorClass::LoginLost
            | ErrorClass::TokenGone
            | ErrorClass::DeviceSick
            | ErrorClass::PinIncorrect
            | ErrorClass::NotFound
            | ErrorClass::Stopped => {
                tracing::error!(error = %crate::chain(&error), "the HSM failed");
                Self::new(Reason::HsmUnavailable, "the HSM does not answer; nothing was done")
                    .retry_after(Duration::from_secs(1))
            }
        }
    }
}
