//! What a key is for: a key of one usage is refused for every other, before the HSM is asked anything.

use super::{Node, ServiceError};
use crate::store::KeyRow;
use kms_core::mac::MacAlgorithm;
use kms_core::pair::{EncryptionAlgorithm, PairAlgorithm};
use kms_core::raw::RawAlgorithm;
use kms_core::reason::Reason;
use kms_core::spec::{KeyAlgorithm, KeySpec, KeyUsage};
use kms_core::suite::AeadAlgorithm;

/// Calls that take the same keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Calls {
    Encryption,
    Macs,
    Signatures,
    PublicKeyEncryption,
    RawEncryption,
}

impl Calls {
    /// Those that a key is for.
    const fn of(spec: KeySpec, usage: KeyUsage) -> Self {
        match (spec.algorithm(), usage) {
            (KeyAlgorithm::Aead(_), _) => Calls::Encryption,
            (KeyAlgorithm::Mac(_), _) => Calls::Macs,
            (KeyAlgorithm::Pair(_), KeyUsage::EncryptDecrypt) => Calls::PublicKeyEncryption,
            (KeyAlgorithm::Pair(_), _) => Calls::Signatures,
            (KeyAlgorithm::Raw(_), _) => Calls::RawEncryption,
        }
    }

    /// Their names.
    const fn names(self) -> &'static str {
        match self {
            Calls::Encryption => "Encrypt, Decrypt and data keys",
            Calls::Macs => "GenerateMac and VerifyMac",
            Calls::Signatures => "Sign, Verify and GetCertificateSigningRequest",
            Calls::PublicKeyEncryption => "AsymmetricEncrypt and AsymmetricDecrypt",
            Calls::RawEncryption => "RawEncrypt and RawDecrypt",
        }
    }

    /// The usage of the keys that they take.
    const fn usage(self) -> KeyUsage {
        match self {
            Calls::Encryption | Calls::PublicKeyEncryption => KeyUsage::EncryptDecrypt,
            Calls::Macs => KeyUsage::GenerateVerifyMac,
            Calls::Signatures => KeyUsage::SignVerify,
            Calls::RawEncryption => KeyUsage::RawEncryptDecrypt,
        }
    }
}

/// What a key encrypts with.
///
/// # Errors
/// `KEY_USAGE_FORBIDS` for a key that does not encrypt.
pub(super) fn aead(row: &KeyRow) -> Result<AeadAlgorithm, ServiceError> {
    match row.spec.algorithm() {
        KeyAlgorithm::Aead(algorithm) => Ok(algorithm),
        _ => Err(forbids(row, Calls::Encryption)),
    }
}

/// What a key makes MACs with.
///
/// # Errors
/// `KEY_USAGE_FORBIDS` for a key that makes none.
pub(super) fn mac(row: &KeyRow) -> Result<MacAlgorithm, ServiceError> {
    match row.spec.algorithm() {
        KeyAlgorithm::Mac(algorithm) => Ok(algorithm),
        _ => Err(forbids(row, Calls::Macs)),
    }
}

/// How a key encrypts for other systems.
///
/// # Errors
/// `KEY_USAGE_FORBIDS` for every other key.
pub(super) fn raw(row: &KeyRow) -> Result<RawAlgorithm, ServiceError> {
    match row.spec.algorithm() {
        KeyAlgorithm::Raw(algorithm) => Ok(algorithm),
        _ => Err(forbids(row, Calls::RawEncryption)),
    }
}

/// [`raw`] of a key that encrypts anything new.
///
/// # Errors
/// `KEY_USAGE_FORBIDS`, for legacy ones too.
pub(super) fn raw_that_encrypts(row: &KeyRow) -> Result<RawAlgorithm, ServiceError> {
    let algorithm = raw(row)?;
    if algorithm.encrypts() {
        return Ok(algorithm);
    }
    let message = format!(
        "key {} is of spec {algorithm}, which opens old data and encrypts nothing: RawDecrypt it, and encrypt it with another key",
        row.name
    );
    Err(ServiceError { field: Some("key"), ..ServiceError::new(Reason::KeyUsageForbids, message) })
}

/// What kind of pair a key signs with.
///
/// # Errors
/// `KEY_USAGE_FORBIDS` for a key that does not sign.
pub(super) fn signing_pair(row: &KeyRow) -> Result<PairAlgorithm, ServiceError> {
    match (Calls::of(row.spec, row.usage), row.spec.algorithm()) {
        (Calls::Signatures, KeyAlgorithm::Pair(pair)) => Ok(pair),
        _ => Err(forbids(row, Calls::Signatures)),
    }
}

/// How a key pair decrypts.
///
/// # Errors
/// `KEY_USAGE_FORBIDS` for a key that is no pair, or signs.
pub(super) fn decrypting_pair(row: &KeyRow) -> Result<EncryptionAlgorithm, ServiceError> {
    let algorithm = match (Calls::of(row.spec, row.usage), row.spec.algorithm()) {
        (Calls::PublicKeyEncryption, KeyAlgorithm::Pair(pair)) => EncryptionAlgorithm::of(pair),
        _ => None,
    };
    algorithm.ok_or_else(|| forbids(row, Calls::PublicKeyEncryption))
}

/// That a key is a pair, whatever it is for.
///
/// # Errors
/// `KEY_USAGE_FORBIDS` for a key without a public half.
pub(super) fn any_pair(row: &KeyRow) -> Result<(), ServiceError> {
    match row.spec.algorithm() {
        KeyAlgorithm::Pair(_) => Ok(()),
        KeyAlgorithm::Aead(_) | KeyAlgorithm::Mac(_) | KeyAlgorithm::Raw(_) => {
            let message = format!("key {} is of spec {} and has no public half", row.name, row.spec.name());
            Err(ServiceError { field: Some("key"), ..ServiceError::new(Reason::KeyUsageForbids, message) })
        }
    }
}

/// What a new key is for.
///
/// # Errors
/// `KEY_USAGE_FORBIDS` for a usage that keys of its specification cannot have.
pub(super) fn of_new_key(spec: KeySpec, wanted: Option<KeyUsage>) -> Result<KeyUsage, ServiceError> {
    let usages = spec.usages();
    match wanted {
        None => Ok(usages[0]),
        Some(usage) if usages.contains(&usage) => Ok(usage),
        Some(usage) => {
            let names: Vec<&str> = usages.iter().map(|usage| usage.name()).collect();
            let message = format!(
                "a key of spec {} is never for {}; it can be for {}",
                spec.name(),
                usage.name(),
                names.join(" or ")
            );
            let error = ServiceError::new(Reason::KeyUsageForbids, message);
            Err(ServiceError { field: Some("usage"), ..error })
        }
    }
}

/// That keys of a specification are made here, and not only brought.
///
/// # Errors
/// `SPEC_UNSUPPORTED`.
pub(super) fn check_made_here(field: &'static str, spec: KeySpec) -> Result<(), ServiceError> {
    if !spec.is_legacy() {
        return Ok(());
    }
    let message = format!(
        "a key of spec {} is only brought, for old data, and never made here: choose another spec for a new key, and encrypt old data again under it",
        spec.name()
    );
    Err(ServiceError { field: Some(field), ..ServiceError::new(Reason::SpecUnsupported, message) })
}

fn forbids(row: &KeyRow, wanted: Calls) -> ServiceError {
    let (name, spec) = (&row.name, row.spec.name());
    let has = Calls::of(row.spec, row.usage);
    let usage = wanted.usage();
    let can = |spec: &KeySpec| spec.usages().contains(&usage) && Calls::of(*spec, usage) == wanted;
    let message = format!(
        "key {name} is of spec {spec} and for {} ({}); {} takes a key for {} of spec {}",
        row.usage.name(),
        has.names(),
        wanted.names(),
        usage.name(),
        spec_names(KeySpec::ALL.into_iter().filter(can))
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
        if spec.is_legacy() {
            return self.check_legacy(field, spec);
        }
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

    /// That the configuration allows a specification, if it is a legacy one: to bring such keys and to use them.
    ///
    /// # Errors
    /// `SPEC_NOT_ALLOWED` with the line that allows it.
    pub(super) fn check_legacy(&self, field: &'static str, spec: KeySpec) -> Result<(), ServiceError> {
        if !spec.is_legacy() || self.config.keys.legacy.contains(spec) {
            return Ok(());
        }
        let name = spec.name();
        let message = format!(
            "{name} is legacy, and off in this deployment; who has to open old data allows it by keys.legacy = [\"{name}\"] in the configuration of each node"
        );
        Err(ServiceError { field: Some(field), ..ServiceError::new(Reason::SpecNotAllowed, message) })
    }
}
