//! A transcript while it grows, and its end.

use crate::init::StepError;
use crate::token_setup::OpenPartition;
use kms_core::bundle::HsmSigningKey;
use kms_core::codec::{self, VersionOne};
use kms_core::id::UnixMillis;
use kms_core::suite::Suite;
use kms_core::transcript::{SignedTranscript, TRANSCRIPT_DOMAIN, Transcript};

/// Steps with the times of a clock.
pub(crate) struct Steps<'a> {
    pub(crate) transcript: Transcript,
    clock: &'a dyn Fn() -> UnixMillis,
}

impl<'a> Steps<'a> {
    pub(crate) fn begin(suite: Suite, kind: &str, plan: &[u8], clock: &'a dyn Fn() -> UnixMillis) -> Self {
        Self { transcript: Transcript::begin(suite, kind, plan), clock }
    }

    /// What the clock says now.
    pub(crate) fn now(&self) -> UnixMillis {
        (self.clock)()
    }

    pub(crate) fn add(&mut self, what: impl Into<String>) {
        self.transcript.record(self.now(), what);
    }

    /// Has the core key sign everything, in its open partition.
    pub(crate) fn sign(
        &self,
        partition: &mut OpenPartition,
        suite: Suite,
        key: &HsmSigningKey,
    ) -> Result<SignedTranscript, StepError> {
        let body = codec::to_bytes(&self.transcript);
        let signature = partition.sign(suite, key, TRANSCRIPT_DOMAIN, &body)?;
        let signed = SignedTranscript { version: VersionOne, body, signature };
        signed.verify(&key.public_key)?;
        Ok(signed)
    }
}
