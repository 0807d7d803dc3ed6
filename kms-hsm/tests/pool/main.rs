//! The worker pool when the HSM, a job or a caller misbehaves: on a double that does as it is told.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod circuit;
mod double;
mod hangs;
mod jobs;
