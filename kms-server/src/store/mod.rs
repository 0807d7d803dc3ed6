//! Persistence: one database, one writer (docs/formats/database.md).
//!
//! [`Committer`] is the only path by which anything changes; everything else in here reads.

mod committer;
mod data_keys;
mod database;
mod reading;
mod rows;
mod writing;

pub use committer::{
    BatchMeter, Change, Commit, CommitError, Committer, Entry, HeadSigner, Idempotency, ImportChange, Refusal,
};
pub use data_keys::{DataKeyChange, DataKeyRow, DataKeyVersionRow};
pub use database::{Database, DatabaseError, Head, KeyWithVersions, StoredCheckpoint, StoredSegment};
pub use rows::{
    AliasRow, CountRow, DestructionRequest, ImportRow, KeyRow, Material, RowMac, RowMacError, VersionRow,
    request_digest,
};
