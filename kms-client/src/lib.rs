//! Client library of the key management service: for programs that encrypt data, and for the `kms` command.
//!
//! [`Profile::load`] reads where the service is and who the caller is, [`Client::builder`] opens mutual
//! TLS connections, and the methods of [`Client`] are the service's calls with checked types. [`CachingClient`]
//! encrypts byte strings, streams and files with data keys that it keeps within [`CacheLimits`]; [`file`] is the
//! same without a cache, and needs no server once it has the key.
//!
//! ```no_run
//! use kms_client::{CacheLimits, CachingClient, Client, KeyRef, Profile, context};
//! use std::time::Duration;
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let profile = Profile::load("app.toml".as_ref())?;
//! let client = Client::builder(&profile).deadline(Duration::from_secs(3)).connect().await?;
//! let limits = CacheLimits { age_max: Duration::from_secs(60), ..CacheLimits::default() };
//! let cache = CachingClient::new(client, limits);
//! let (key, context) = (KeyRef::parse("payroll")?, context([("table", "salaries")])?);
//! let encrypted = cache.encrypt(&key, b"alice: 7000", &context).await?;
//! let decrypted = cache.decrypt(&encrypted, &context, Some(&key)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! A context is checked before any call, and its pairs have no order:
//!
//! ```
//! use kms_client::{ContextError, context};
//!
//! assert_eq!(context([("b", "2"), ("a", "1")])?, context([("a", "1"), ("b", "2")])?);
//! assert!(matches!(context([("", "1")]), Err(ContextError::EmptyKey)));
//! # Ok::<(), ContextError>(())
//! ```
//!
//! **Errors** are typed by what a caller can do: [`ClientError::reason`] is the stable reason of docs/errors.md,
//! [`ClientError::next_step`] the command that helps, and [`ClientError::NoNodeServed`] names every node that was asked.
//! What is repeated by itself, and what never is, stands in docs/client.md.
//!
//! **Secrets.** Data keys and plaintexts are [`Secret`]: wiped when dropped, never printed. The transport's buffers
//! know nothing of secrets; a program that wants them wiped too sets an allocator that wipes all memory, as `kms` does.
//!
//! **Traces.** Every call is a `tracing` span `kms` at level debug with `call`, `endpoint`, `try_count` and `outcome`.

mod asymmetric;
mod attributes;
pub mod audit;
mod batch;
mod bundle;
mod cache;
mod connect;
mod convert;
mod crypto;
mod csr;
mod data_key_pairs;
mod data_keys;
mod error;
pub mod file;
mod imports;
mod keys;
mod mac;
mod nodes;
mod profile;
mod raw;
mod recipient;
mod sign;
mod stream;
mod system;

pub use attributes::Alias;
pub use batch::{BATCH_ITEMS_MAX, BatchAnswer, BatchItem};
pub use bundle::{BundleFileError, load_bundle};
pub use cache::{CacheCounts, CacheLimits, CachingClient, EnvelopeError};
pub use connect::{Client, ClientBuilder};
pub use crypto::{Ciphertext, DataKey, OpenedDataKey, Plaintext, ReEncrypt, ReEncrypted, WrappedDataKey};
pub use csr::{CertificateNames, CertificateSigningRequest};
pub use data_key_pairs::{DataKeyPair, GeneratedDataKeyPair, PrivateKeyFor};
pub use data_keys::{CreateDataKey, GivenVersion, RegisteredDataKey, RegisteredVersion};
pub use error::{ClientError, FailedNode};
pub use imports::{ImportKey, ImportParameters};
pub use keys::{CreateKey, IdempotencyToken, Key, KeyDestruction, KeyFilter, Version, VersionUse};
pub use mac::{Mac, VerifiedMac};
pub use profile::{Profile, ProfileError};
pub use raw::{RawDecrypt, RawEncrypted};
pub use recipient::{DataKeyForRecipient, OpenedForRecipient};
pub use sign::{KeyPublicKey, KeySignature, SignOptions, VerifiedSignature};
pub use stream::BatchResults;
pub use system::{SealState, Status, WhoAmI};

// What the methods take and give, so that an application needs this crate alone.
pub use kms_core::attributes::{
    AttributeChanges, Description, KeyAttributes, Sensitivity, ShortText, TextError,
};
pub use kms_core::context::{ContextError, EncryptionContext};
pub use kms_core::data_key::{DataKeyState, RotationPeriod};
pub use kms_core::id::{KeyName, KeyRef, KeyVersion, LabelName, NameError};
pub use kms_core::pair::{PairAlgorithm, PairPublicKey, SignatureAlgorithm, SignedInput};
pub use kms_core::raw::Padding;
pub use kms_core::reason::Reason;
pub use kms_core::recipient::{Recipient, RecipientAlgorithm, RecipientBinding, RecipientError};
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
