//! `GET /metrics` of a node, over mutual TLS as everything else.

use kms_tests::Deployment;
use kms_tests::rpc::ClientCertificate;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Every sample of one moment, by its name with labels.
pub struct Metrics(BTreeMap<String, u64>);

impl Metrics {
    /// Reads them as a principal of the deployment.
    pub async fn read(deployment: &Deployment, principal: &str) -> Self {
        let text = text(deployment, principal).await;
        let (head, body) = text.split_once("\r\n\r\n").expect("an HTTP answer has a head");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let samples = body.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            // Sums of seconds are fractions; nobody here asks for those.
            Some((name.to_owned(), value.parse().ok()?))
        });
        Self(samples.collect())
    }

    /// A sample without labels.
    pub fn value(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// How often the HSM was asked for an operation, whatever it answered.
    pub fn hsm_operations(&self, operation: &str) -> u64 {
        let label = format!("operation=\"{operation}\"");
        self.sum("kms_hsm_operations_total{", &label)
    }

    /// Everything that the HSM was asked for.
    pub fn hsm_operation_names(&self) -> BTreeSet<String> {
        let labels = self.0.keys().filter_map(|name| name.strip_prefix("kms_hsm_operations_total{"));
        let operations = labels.filter_map(|labels| labels.split("operation=\"").nth(1)?.split('"').next());
        operations.map(str::to_owned).collect()
    }

    /// How many batches the committer has tried.
    pub fn batches(&self) -> u64 {
        self.sum("kms_audit_batches_total{", "")
    }

    fn sum(&self, start: &str, label: &str) -> u64 {
        let samples = self.0.iter().filter(|(name, _)| name.starts_with(start) && name.contains(label));
        samples.map(|(_, value)| value).sum()
    }
}

/// The answer as it stands on the wire.
pub async fn text(deployment: &Deployment, principal: &str) -> String {
    const PEM: &str = "the deployment's files are PEM";
    let authority = std::fs::read(deployment.state("certificates/ca.pem")).expect("the authority");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&authority).expect(PEM)).expect("a certificate");
    let client = ClientCertificate::of(deployment, principal);
    let chain = vec![CertificateDer::from_pem_slice(&client.certificate).expect(PEM)];
    let key = PrivateKeyDer::from_pem_slice(&client.key).expect(PEM);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider knows TLS 1.3")
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .expect("the key belongs to the certificate");
    let stream = TcpStream::connect(deployment.metrics_address()).await.expect("the metrics' port answers");
    let name = ServerName::try_from("localhost").expect("a name");
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("TLS");
    let request = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.expect("the request is sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("the answer ends");
    String::from_utf8(answer).expect("metrics are text")
}
