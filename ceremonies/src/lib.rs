//! Ceremonies: what people do with the HSM and with their shares, offline and online.
//!
//! - [`init`]: the init ceremony on the HSM host, from a reviewed [`plan`].
//! - [`reshare`]: new quorum secrets for new or the same custodians, on the HSM host.
//! - [`enroll`] and [`accept`]: the custodian's own files; [`inspect`], [`change_passphrase`], [`print`] and [`restore`]
//!   for the years after.
//! - [`plan_check`] and [`report`]: what people review before a ceremony and file after it.
//! - [`participant`]: a custodian's part in a ceremony of a running node; `online` carries it over gRPC.
//! - [`worker`]: the short-lived process that combines shares, so that the server never holds one.
//! - [`cli`]: the `kms-ceremony` command. Every question to a person is in [`prompt`].
//!
//! Absent on purpose: a database, the server, and in the offline build every kind of network.

pub mod accept;
pub mod bundle_file;
pub mod change_passphrase;
pub mod cli;
pub mod clock;
pub mod enroll;
pub mod exit;
pub mod files;
pub mod html;
pub mod init;
pub mod inspect;
#[cfg(feature = "online")]
pub mod online;
pub mod participant;
pub mod pin;
pub mod plan;
pub mod plan_check;
pub mod print;
pub mod process;
pub mod prompt;
pub mod random;
pub mod report;
pub mod reshare;
pub mod restore;
pub mod step_text;
pub mod worker;

mod crash;
mod error_chain;
mod split;
mod steps;
mod token_setup;
