//! Pure rules of the key management service: key states, authority, byte formats, the audit log's
//! tree, quorum and ceremonies.
//!
//! Nothing here does input or output, reads a clock or makes randomness: time, random bytes and
//! stored bytes are parameters. That is what lets the model tests run histories of any length and
//! lets an offline verifier use exactly the rules of the server.
#![no_std]

extern crate alloc;

pub mod asymmetric;
pub mod attributes;
pub mod audit;
pub mod bundle;
pub mod ceremony;
pub mod codec;
pub mod context;
pub mod csr;
pub mod data_key;
pub mod destruction;
pub mod envelope;
pub mod id;
pub mod import;
pub mod key;
pub mod mac;
pub mod merkle;
pub mod node_key;
pub mod pair;
pub mod passphrase;
pub mod policy;
pub mod printed_share;
pub mod quorum;
pub mod raw;
pub mod reason;
pub mod recipient;
pub mod reshare;
pub mod secret;
pub mod share;
pub mod spec;
pub mod suite;
pub mod transcript;
pub mod word_lines;
pub mod words;
pub mod worker;
