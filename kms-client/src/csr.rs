//! Certificate signing requests of named key pairs.

use crate::connect::{Client, Repeat};
use crate::convert;
use crate::error::ClientError;
use crate::sign::algorithm;
use kms_core::id::{KeyId, KeyRef, KeyVersion};
use kms_core::pair::SignatureAlgorithm;
use kms_proto::v1;

/// What a certificate is to name. At most 100 names beside the subject, each of at most 253 characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateNames {
    /// RFC 4514, like `CN=app.example,O=Example,C=CH`; may be empty when there is another name.
    pub subject: String,
    /// Host names; `*` may be the first label.
    pub dns_names: Vec<String>,
    /// IPv4 and IPv6 addresses.
    pub ip_addresses: Vec<String>,
    /// Absolute URIs.
    pub uris: Vec<String>,
    /// Mailboxes.
    pub email_addresses: Vec<String>,
}

/// A certificate signing request, signed by the key that the certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateSigningRequest {
    /// The key that signed.
    pub key_id: KeyId,
    /// That key's version.
    pub key_version: KeyVersion,
    /// How it signed.
    pub algorithm: SignatureAlgorithm,
    /// PKCS#10 in DER.
    pub der: Vec<u8>,
}

impl Client {
    /// Asks for a certificate signing request. `algorithm` is by default as in [`Client::sign`]: for RSA that is PSS, which not every
    /// authority takes.
    ///
    /// # Errors
    /// `FIELD_INVALID` (a name, the algorithm), `KEY_NOT_FOUND`, `KEY_USAGE_FORBIDS`, `KEY_STATE_FORBIDS`, `SEALED`, `NOT_PERMITTED`.
    pub async fn certificate_signing_request(
        &self,
        key: &KeyRef,
        names: &CertificateNames,
        algorithm: Option<SignatureAlgorithm>,
    ) -> Result<CertificateSigningRequest, ClientError> {
        let names = names.clone();
        let request = v1::GetCertificateSigningRequestRequest {
            key: key.to_string(),
            subject: names.subject,
            dns_names: names.dns_names,
            ip_addresses: names.ip_addresses,
            uris: names.uris,
            email_addresses: names.email_addresses,
            algorithm: algorithm.map_or(0, |algorithm| algorithm.number().into()),
        };
        let answer = self
            .call(Repeat::Safe, &request, |mut stubs, request| async move {
                stubs.crypto.get_certificate_signing_request(request).await
            })
            .await?;
        Ok(CertificateSigningRequest {
            key_id: convert::key_id(&answer.key_id)?,
            key_version: convert::key_version(answer.key_version)?,
            algorithm: self::algorithm(answer.algorithm)?,
            der: answer.request,
        })
    }
}
