//! Client library of the key management service.
//!
//! [`Profile::load`] reads where the service is and who the caller is, [`Client::builder`] opens mutual
//! TLS connections, and the methods of [`Client`] are the service's calls with checked types. [`file`]
//! encrypts files and streams of any size with one data key each; it needs no server once it has the key.
//!
//! Data keys and plaintexts are [`kms_core::secret::Secret`]: wiped when dropped, never printed.

pub mod audit;
mod bundle;
mod cache;
mod connect;
mod convert;
mod crypto;
mod error;
pub mod file;
mod keys;
mod nodes;
mod profile;
mod system;

pub use bundle::{BundleFileError, load_bundle};
pub use cache::{CacheCounts, CacheLimits, CachingClient, EnvelopeError};
pub use connect::{Client, ClientBuilder};
pub use crypto::{Ciphertext, DataKey, OpenedDataKey, Plaintext, WrappedDataKey};
pub use error::{ClientError, FailedNode};
pub use keys::{CreateKey, IdempotencyToken, Key, Version};
pub use profile::{Profile, ProfileError};
pub use system::{SealState, Status, WhoAmI};

// What the methods take and give, so that an application needs this crate alone.
pub use kms_core::context::{ContextError, EncryptionContext};
pub use kms_core::id::{KeyRef, NameError};
pub use kms_core::reason::Reason;
pub use kms_core::secret::Secret;

/// An encryption context of these pairs, in any order.
///
/// # Errors
/// [`ContextError`]: more than 16 pairs or 8 KiB, an empty key, or a key twice.
pub fn context<'a>(
    pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<EncryptionContext, ContextError> {
    EncryptionContext::new(pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())))
}
