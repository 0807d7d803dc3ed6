//! The key management server: `grpc` translates, `service` holds the use cases, `store` persists.
//!
//! `service` is the only place where the rules of `kms-core`, the HSM and the store meet.

pub mod check_hsm;
pub mod config;
pub mod crash;
pub mod grpc;
pub mod pairs;
pub mod random;
pub mod run;
pub mod service;
pub mod store;
pub mod telemetry;

#[cfg(feature = "dev")]
pub mod dev;

/// An error with its causes, for one line of a log.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
