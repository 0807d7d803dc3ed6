//! `kms key csr`.

use crate::args::CsrArguments;
use crate::data_key::new_file;
use crate::output::Failure;
use crate::pending::Readers;
use crate::{Session, key_reference};
use kms_client::CertificateNames;
use kms_core::csr::{NameKind, RequestError, RequestedNames};
use serde_json::json;

const NEXT: &str = "kms key csr --help";

/// What the service would refuse is found here.
fn check(names: &CertificateNames) -> Result<(), Failure> {
    let lists = [
        (NameKind::Dns, names.dns_names.as_slice()),
        (NameKind::Ip, &names.ip_addresses),
        (NameKind::Uri, &names.uris),
        (NameKind::Email, &names.email_addresses),
    ];
    let refused = |error: RequestError| {
        let field = match error {
            RequestError::TooManyNames { kind } | RequestError::Name { kind, .. } => match kind {
                NameKind::Dns => "dns_names",
                NameKind::Ip => "ip_addresses",
                NameKind::Uri => "uris",
                NameKind::Email => "email_addresses",
            },
            _ => "subject",
        };
        Failure::field(field, error, NEXT)
    };
    RequestedNames::new(&names.subject, &lists).map(drop).map_err(refused)
}

pub async fn run(session: &Session, arguments: CsrArguments) -> Result<(), Failure> {
    let CsrArguments { key, subject, dns, ip, uri, email, algorithm, out } = arguments;
    let reference = key_reference(&key)?;
    let names = CertificateNames {
        subject: subject.unwrap_or_default(),
        dns_names: dns,
        ip_addresses: ip,
        uris: uri,
        email_addresses: email,
    };
    check(&names)?;
    let file = new_file(out.as_deref(), Readers::Umask)?;
    let client = session.connect().await?;
    let made = client.certificate_signing_request(&reference, &names, algorithm).await;
    let made = made.map_err(|error| Failure::from(error).about_key(&key))?;
    let pem = pem_rfc7468::encode_string("CERTIFICATE REQUEST", pem_rfc7468::LineEnding::LF, &made.der)
        .map_err(|error| Failure::new(format!("the request cannot be written: {error}"), NEXT))?;
    if let Some((pending, file)) = file {
        pending.write(file, pem.as_bytes())?;
        return Ok(());
    }
    session.output.show(
        || pem.clone(),
        || {
            json!({
                "key_id": made.key_id.to_string(),
                "key_version": made.key_version.number(),
                "algorithm": made.algorithm.name(),
                "request": pem,
            })
        },
    )
}
