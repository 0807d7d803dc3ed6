//! Persistence: one database, one writer (docs/formats/database.md).
//!
//! [`Committer`] is the only path by which anything changes; everything else in here reads.

mod committer;
mod rows;
mod sql;

pub use committer::{
    BatchMeter, Change, Commit, CommitError, Committer, Entry, HeadSigner, Idempotency, Refusal,
};
pub use rows::{KeyRow, Material, RowMac, RowMacError, VersionRow};
pub use sql::{Database, DatabaseError, Head, KeyWithVersions, StoredCheckpoint, StoredSegment};
