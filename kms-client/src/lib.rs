//! Client library of the key management service.
//!
//! [`Profile::load`] reads where the service is and who the caller is, [`Client::connect`] opens a mutual
//! TLS connection, and the methods of [`Client`] are the service's calls with checked types. [`file`]
//! encrypts files and streams of any size with one data key each; it needs no server once it has the key.
//!
//! Data keys and plaintexts are [`kms_core::secret::Secret`]: wiped when dropped, never printed.

pub mod audit;
mod bundle;
mod connect;
mod convert;
mod crypto;
mod error;
pub mod file;
mod keys;
mod mac;
mod profile;
mod system;

pub use bundle::{BundleFileError, load_bundle};
pub use connect::{Client, ConnectOptions};
pub use crypto::{Ciphertext, DataKey, OpenedDataKey, Plaintext, WrappedDataKey};
pub use error::ClientError;
pub use keys::{CreateKey, IdempotencyToken, Key, Version};
pub use mac::{Mac, VerifiedMac};
pub use profile::{Profile, ProfileError};
pub use system::{SealState, Status, WhoAmI};
