//! Client certificates that `dev` would not make.

use crate::deployment::Deployment;
use crate::rpc::ClientCertificate;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use std::fs;

/// An authority that signs client certificates.
#[derive(Debug)]
pub struct Authority(Issuer<'static, KeyPair>);

/// What a certificate says.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// URIs of the subject alternative name.
    pub uris: &'a [&'a str],
    /// First and last year of its validity.
    pub years: (i32, i32),
    /// What it may be used for.
    pub usage: ExtendedKeyUsagePurpose,
}

impl<'a> Wanted<'a> {
    /// A client certificate that is valid now.
    pub fn client(uris: &'a [&'a str]) -> Self {
        Self { uris, years: (2026, 2046), usage: ExtendedKeyUsagePurpose::ClientAuth }
    }
}

fn named(name: &str) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters
}

fn authority(key: KeyPair) -> Authority {
    let mut parameters = named("kms development authority");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Authority(Issuer::new(parameters, key))
}

impl Authority {
    /// The authority that a deployment trusts.
    ///
    /// # Panics
    /// When its key cannot be read.
    pub fn of(deployment: &Deployment) -> Self {
        let pem = fs::read_to_string(deployment.state("certificates/ca.key")).expect("the authority's key");
        authority(KeyPair::from_pem(&pem).expect("a private key"))
    }

    /// An authority of the same name that nobody trusts.
    ///
    /// # Panics
    /// When no key can be made.
    pub fn of_nobody() -> Self {
        authority(KeyPair::generate().expect("a key pair"))
    }

    /// Signs a certificate.
    ///
    /// # Panics
    /// When a URI is none.
    pub fn issue(&self, wanted: &Wanted<'_>) -> ClientCertificate {
        let mut parameters = named("somebody");
        parameters.not_before = rcgen::date_time_ymd(wanted.years.0, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(wanted.years.1, 1, 1);
        let uri = |uri: &&str| SanType::URI(Ia5String::try_from(*uri).expect("a URI is ASCII"));
        parameters.subject_alt_names = wanted.uris.iter().map(uri).collect();
        parameters.extended_key_usages = vec![wanted.usage.clone()];
        let key = KeyPair::generate().expect("a key pair");
        let certificate = parameters.signed_by(&key, &self.0).expect("the authority signs");
        ClientCertificate {
            certificate: certificate.pem().into_bytes(),
            key: key.serialize_pem().into_bytes(),
        }
    }
}
