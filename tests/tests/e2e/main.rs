//! End to end: the real binaries, real processes, real certificates, a PKCS#11 module, people played by files.

mod ceremony_refusals;
mod configured;
mod counted;
mod data_keys;
mod forged_offer;
mod imports;
mod key_specs;
mod limits;
mod listeners;
mod program;
mod published;
mod raw;
mod reencryption;
mod refusals;
mod reshare;
mod rollback;
mod rotations;
mod seal_story;
mod serving;
mod start_refusals;
mod state_copy;
mod story;
mod strangers;
mod streams;
mod two_nodes;
mod window;

use kms_tests::{Deployment, Options};
use std::sync::OnceLock;

/// A deployment that has nothing to do with the one under test, running and unsealed.
fn other_deployment() -> &'static Deployment {
    static OTHER: OnceLock<Deployment> = OnceLock::new();
    OTHER.get_or_init(|| Deployment::start(Options::default()))
}
