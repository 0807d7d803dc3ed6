//! From a client certificate to a principal.

use kms_core::id::Principal;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// The principal's URI in a certificate: exactly one URI of the scheme `kms` in the subject alternative name.
///
/// The chain was verified by TLS; this only reads. `Err` is what to call the stranger in the log.
pub fn principal_of(certificate: &[u8]) -> Result<Principal, String> {
    let unnamed = || "a certificate without a kms:// URI".to_owned();
    let certificate = Certificate::from_der(certificate).map_err(|_| unnamed())?;
    let names = certificate
        .tbs_certificate()
        .get_extension::<SubjectAltName>()
        .ok()
        .flatten()
        .map(|(_, names)| names.0)
        .ok_or_else(unnamed)?;
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str()),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => Principal::parse(uri).map_err(|_| uri.to_owned()),
        (Some(_), Some(_)) => Err("a certificate with several URIs".into()),
        (None, _) => Err(unnamed()),
    }
}
