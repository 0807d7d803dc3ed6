//! Certificate signing requests from proto form.

use super::convert;
use crate::service::{ServiceError, SigningRequest};
use kms_core::csr::{NameKind, RequestError, RequestedNames};
use kms_proto::v1;

/// What is asked for, each name of its form.
///
/// # Errors
/// `FIELD_INVALID` with the field that holds the name.
pub fn asked(message: &v1::GetCertificateSigningRequestRequest) -> Result<SigningRequest, ServiceError> {
    let lists = [
        (NameKind::Dns, message.dns_names.as_slice()),
        (NameKind::Ip, &message.ip_addresses),
        (NameKind::Uri, &message.uris),
        (NameKind::Email, &message.email_addresses),
    ];
    let names = RequestedNames::new(&message.subject, &lists).map_err(|error| {
        let field = match error {
            RequestError::NoName | RequestError::SubjectLen { .. } | RequestError::Subject { .. } => {
                "subject"
            }
            RequestError::TooManyNames { kind } | RequestError::Name { kind, .. } => match kind {
                NameKind::Dns => "dns_names",
                NameKind::Ip => "ip_addresses",
                NameKind::Uri => "uris",
                NameKind::Email => "email_addresses",
            },
        };
        ServiceError::field(field, error)
    })?;
    Ok(SigningRequest {
        key: convert::key_ref("key", &message.key)?,
        names,
        algorithm: convert::signature_algorithm(message.algorithm)?,
    })
}
