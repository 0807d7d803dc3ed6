//! The `kms` command and the client library, as users and applications meet them.

mod cache;
mod files;
mod nodes;
mod offline;
mod online;
mod support;
