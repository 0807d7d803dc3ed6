//! A node's private key at rest: a PEM file that only its owner may read (docs/formats/bundle.md).

use crate::asymmetric::{PRIVATE_KEY_LEN, PrivateKey};
use crate::codec::{ArmouredFormat, Format, VersionOne};
use crate::secret::SecretBytes;
use crate::suite::Suite;
use minicbor::{Decode, Encode};

/// The content of a node key file. Zeroed when dropped.
#[derive(Encode, Decode, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
#[cbor(map)]
pub struct NodeKeyFile {
    /// Always 1.
    #[n(0)]
    #[zeroize(skip)]
    version: VersionOne,
    /// The key's suite.
    #[n(1)]
    #[zeroize(skip)]
    suite: Suite,
    /// The private scalar.
    #[cbor(n(2), with = "minicbor::bytes")]
    scalar: [u8; PRIVATE_KEY_LEN],
}

impl core::fmt::Debug for NodeKeyFile {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("NodeKeyFile").field("suite", &self.suite).finish_non_exhaustive()
    }
}

impl Format for NodeKeyFile {
    const WHAT: &'static str = "node key";
}

impl ArmouredFormat for NodeKeyFile {
    const LABEL: &'static str = "KMS NODE KEY";
}

impl NodeKeyFile {
    /// The file of a key.
    pub fn of(key: &PrivateKey) -> Self {
        Self { version: VersionOne, suite: key.suite(), scalar: *key.scalar().expose() }
    }

    /// The key of a file; `None` when the scalar is not one of the suite's curve.
    pub fn key(&self) -> Option<PrivateKey> {
        PrivateKey::from_scalar(self.suite, SecretBytes::from_slice(&self.scalar)?)
    }
}
