//! The `kms` command and the client library, as users and applications meet them.

mod files;
mod macs;
mod offline;
mod online;
mod support;
