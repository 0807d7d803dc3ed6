//! Destruction certificates (docs/formats/destruction.md): signed evidence that key material is gone.

use crate::asymmetric::Signature;
use crate::bundle::Bundle;
use crate::codec::{self, ArmouredFormat, CodecError, Format, VersionOne};
use crate::id::{HsmObjectId, KeyId, KeyName, KeyVersion, NodeName, Principal, TenantName, UnixMillis};
use alloc::string::String;
use alloc::vec::Vec;
use minicbor::{Decode, Encode};

/// Signature domain of destruction certificates.
pub const DESTRUCTION_DOMAIN: &str = "kms/v1/destruction";

/// What was destroyed, when, by which means and for whom (REQUIREMENTS S0-14).
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
#[cbor(map)]
pub struct DestructionCertificate {
    /// Always 1.
    #[n(0)]
    pub version: VersionOne,
    /// The deployment.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub cluster_id: [u8; 16],
    /// The tenant that owned the key.
    #[n(2)]
    pub tenant: TenantName,
    /// The key.
    #[n(3)]
    pub key_id: KeyId,
    /// Its name.
    #[n(4)]
    pub name: KeyName,
    /// Name of its specification.
    #[n(5)]
    pub spec: String,
    /// Name of its protection.
    #[n(6)]
    pub protection: String,
    /// When the key was made.
    #[n(7)]
    pub created: UnixMillis,
    /// Whether the whole key is destroyed; otherwise only the versions below.
    #[n(8)]
    pub is_whole_key: bool,
    /// Who scheduled the destruction.
    #[n(9)]
    pub scheduled_by: Principal,
    /// When.
    #[n(10)]
    pub scheduled: UnixMillis,
    /// When the material was found to be gone.
    #[n(11)]
    pub destroyed: UnixMillis,
    /// The node that did it.
    #[n(12)]
    pub node: NodeName,
    /// Program and version that did it.
    #[n(13)]
    pub tool: String,
    /// What was destroyed, in ascending order of the numbers.
    #[n(14)]
    pub versions: Vec<DestroyedVersion>,
}

/// One destroyed version.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
#[cbor(map)]
pub struct DestroyedVersion {
    /// Its number.
    #[n(0)]
    pub number: KeyVersion,
    /// When it was made.
    #[n(1)]
    pub created: UnixMillis,
    /// Name of the state before its destruction was scheduled, or `COMPROMISED`.
    #[n(2)]
    pub state_before: String,
    /// Name of its state now.
    #[n(3)]
    pub state: String,
    /// How it was destroyed.
    #[n(4)]
    pub method: DestructionMethod,
    /// The check value of the material, where one is known.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub check_value: Option<Vec<u8>>,
}

/// How material was destroyed, and what of it may remain.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
pub enum DestructionMethod {
    /// The token knows no object with this id any more. Copies: what the HSM's vendor or a ceremony has backed up.
    #[n(0)]
    HsmObject {
        /// The object's id.
        #[n(0)]
        object: HsmObjectId,
        /// `C_DestroyObject` destroyed it. Otherwise there was none: an earlier try was interrupted behind that call, or
        /// the object was never made or lost before.
        #[n(1)]
        was_there: bool,
    },
    /// The sealed material left the database in the transaction of this certificate's record. Copies: backups of
    /// the database hold it sealed, for as long as the named master key exists.
    #[n(1)]
    SealedMaterial {
        /// Version of the master key that had sealed it.
        #[n(0)]
        master_version: KeyVersion,
    },
}

impl Format for DestructionCertificate {
    const WHAT: &'static str = "destruction certificate";
}

/// A certificate with the signature of the HSM's checkpoint key.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
#[cbor(map)]
pub struct SignedDestruction {
    /// Always 1.
    #[n(0)]
    pub version: VersionOne,
    /// Canonical bytes of the [`DestructionCertificate`].
    #[cbor(n(1), with = "minicbor::bytes")]
    pub body: Vec<u8>,
    /// Signature by the checkpoint key.
    #[n(2)]
    pub signature: Signature,
}

impl Format for SignedDestruction {
    const WHAT: &'static str = "signed destruction certificate";
}

impl ArmouredFormat for SignedDestruction {
    const LABEL: &'static str = "KMS DESTRUCTION CERTIFICATE";
}

/// Why a certificate is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DestructionFault {
    /// Its body is not a certificate.
    #[error("the certificate {0}")]
    Codec(#[from] CodecError),
    /// It was not signed by the deployment's checkpoint key, or was changed since.
    #[error("the certificate's signature is not that of the checkpoint key in this bundle")]
    Signature,
    /// It is about a key of another deployment.
    #[error("the certificate is of another deployment than this bundle")]
    ForeignCluster,
}

impl SignedDestruction {
    /// Checks the signature with the bundle's checkpoint key and gives the certificate.
    ///
    /// # Errors
    /// [`DestructionFault`] says what is wrong.
    pub fn verify(&self, bundle: &Bundle) -> Result<DestructionCertificate, DestructionFault> {
        bundle
            .checkpoint_key
            .public_key
            .verify(bundle.suite, DESTRUCTION_DOMAIN, &self.body, &self.signature)
            .map_err(|_| DestructionFault::Signature)?;
        let certificate: DestructionCertificate = codec::open(&self.body)?;
        if certificate.cluster_id != bundle.cluster_id {
            return Err(DestructionFault::ForeignCluster);
        }
        Ok(certificate)
    }
}
