//! The `kms` command and the client library, as users and applications meet them.

mod batches;
mod cache;
mod documents;
mod files;
mod macs;
mod nodes;
mod offline;
mod online;
mod pairs;
mod raw;
mod recipients;
mod registered;
mod support;
mod traces;
