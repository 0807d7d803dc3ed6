//! The `kms` command and the client library, as users and applications meet them.

mod files;
mod offline;
mod online;
mod support;
