//! What a key is for: a key of one usage is refused for every other, before the HSM is asked anything.

use super::{Node, ServiceError};
use crate::store::KeyRow;
use kms_core::mac::MacAlgorithm;
use kms_core::pair::PairAlgorithm;
use kms_core::reason::Reason;
use kms_core::spec::{KeyAlgorithm, KeySpec, KeyUsage};
use kms_core::suite::AeadAlgorithm;

/// What a key encrypts with.
///
/// # Errors
/// `KEY_USAGE_FORBIDS` for a key that does not encrypt.
pub(super) fn aead(row: &KeyRow) -> Result<AeadAlgorithm, ServiceError> {
    match row.spec.algorithm() {
        KeyAlgorithm::Aead(algorithm) => Ok(algorithm),
        KeyAlgorithm::Mac(_) | KeyAlgorithm::Pair(_) => Err(forbids(row, KeyUsage::EncryptDecrypt)),
    }
}

/// What a key makes MACs with.
///
/// # Errors
/// `KEY_USAGE_FORBIDS` for a key that makes none.
pub(super) fn mac(row: &KeyRow) -> Result<MacAlgorithm, ServiceError> {
    match row.spec.algorithm() {
        KeyAlgorithm::Mac(algorithm) => Ok(algorithm),
        KeyAlgorithm::Aead(_) | KeyAlgorithm::Pair(_) => Err(forbids(row, KeyUsage::GenerateVerifyMac)),
    }
}

/// What kind of pair a key signs with.
///
/// # Errors
/// `KEY_USAGE_FORBIDS` for a key that does not sign.
pub(super) fn pair(row: &KeyRow) -> Result<PairAlgorithm, ServiceError> {
    match row.spec.algorithm() {
        KeyAlgorithm::Pair(algorithm) => Ok(algorithm),
        KeyAlgorithm::Aead(_) | KeyAlgorithm::Mac(_) => Err(forbids(row, KeyUsage::SignVerify)),
    }
}

/// What is called with a key of this usage.
const fn calls(usage: KeyUsage) -> &'static str {
    match usage {
        KeyUsage::EncryptDecrypt => "Encrypt, Decrypt and data keys",
        KeyUsage::GenerateVerifyMac => "GenerateMac and VerifyMac",
        KeyUsage::SignVerify => "Sign, Verify, GetPublicKey and GetCertificateSigningRequest",
    }
}

fn forbids(row: &KeyRow, wanted: KeyUsage) -> ServiceError {
    let (name, spec, usage) = (&row.name, row.spec.name(), row.spec.usage());
    let fitting = KeySpec::ALL.into_iter().filter(|spec| spec.usage() == wanted);
    let message = format!(
        "key {name} is of spec {spec} and for {} ({}); {} takes a key of spec {}",
        usage.name(),
        calls(usage),
        wanted.name(),
        spec_names(fitting)
    );
    ServiceError { field: Some("key"), ..ServiceError::new(Reason::KeyUsageForbids, message) }
}

/// `a, b or c`.
pub fn spec_names(specs: impl Iterator<Item = KeySpec>) -> String {
    let mut names: Vec<&str> = specs.map(KeySpec::name).collect();
    match names.pop() {
        Some(last) if !names.is_empty() => format!("{} or {last}", names.join(", ")),
        last => last.unwrap_or_default().to_owned(),
    }
}

impl Node {
    /// Whether this deployment makes keys of this kind. Keys that it has already go on working.
    ///
    /// # Errors
    /// `SPEC_NOT_ALLOWED` with the list.
    pub(super) fn check_allowed(&self, field: &'static str, spec: KeySpec) -> Result<(), ServiceError> {
        let allowed = &self.config.keys.specs;
        if allowed.contains(spec) {
            return Ok(());
        }
        let message = format!(
            "{field} {} is not allowed in this deployment, which makes {} (keys.specs of its configuration)",
            spec.name(),
            spec_names(allowed.iter())
        );
        Err(ServiceError { field: Some(field), ..ServiceError::new(Reason::SpecNotAllowed, message) })
    }
}
