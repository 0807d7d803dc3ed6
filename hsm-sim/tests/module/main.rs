//! Drives the real shared object, as any PKCS#11 client would.
//!
//! One process can load and initialise the module once, so all tests share it and each makes tokens
//! of its own. What needs a second process starts this test binary again; see `children`.

mod attributes;
mod children;
mod damage;
mod disk;
mod harness;
mod interfaces;
mod key_pairs;
mod objects;
mod pin_rules;
mod pins;
mod raw;
mod secret_keys;
