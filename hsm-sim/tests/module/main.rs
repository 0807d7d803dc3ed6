//! Drives the real shared object, as any PKCS#11 client would.
//!
//! One process can load and initialise the module once, so all tests share it and each makes tokens
//! of its own. What needs a second process starts this test binary again; see `children`.

mod attributes;
mod children;
mod ciphers;
mod curves;
mod damage;
mod derivation;
mod disk;
mod document;
mod harness;
mod interfaces;
mod key_pairs;
mod macs;
mod objects;
mod openssl;
mod operations;
mod pin_rules;
mod pins;
mod raw;
mod raw_mechanisms;
mod rsa;
mod secret_keys;
mod sm2;
mod storage;
mod vendors;
mod wrapping;
mod wycheproof;
