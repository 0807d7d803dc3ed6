//! Raw gRPC clients: what the client library would refuse to send can be sent with these.

use crate::deployment::Deployment;
use kms_proto::v1::audit_client::AuditClient;
use kms_proto::v1::ceremony_client::CeremonyClient;
use kms_proto::v1::crypto_client::CryptoClient;
use kms_proto::v1::data_keys_client::DataKeysClient;
use kms_proto::v1::keys_client::KeysClient;
use kms_proto::v1::system_client::SystemClient;
use std::fs;
use std::time::Duration;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// One connection and the clients of every service over it.
#[derive(Clone, Debug)]
pub struct Rpc {
    /// `kms.v1.Keys`
    pub keys: KeysClient<Channel>,
    /// `kms.v1.Crypto`
    pub crypto: CryptoClient<Channel>,
    /// `kms.v1.DataKeys`
    pub data_keys: DataKeysClient<Channel>,
    /// `kms.v1.Audit`
    pub audit: AuditClient<Channel>,
    /// `kms.v1.System`
    pub system: SystemClient<Channel>,
    /// `kms.v1.Ceremony`
    pub ceremony: CeremonyClient<Channel>,
}

/// A certificate and its key, PEM.
#[derive(Debug)]
pub struct ClientCertificate {
    /// The certificate.
    pub certificate: Vec<u8>,
    /// Its private key.
    pub key: Vec<u8>,
}

impl ClientCertificate {
    /// The one that `dev` made for a principal.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn of(deployment: &Deployment, name: &str) -> Self {
        let read = |kind: &str| {
            let path = deployment.state("certificates").join(format!("{name}.{kind}"));
            fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        Self { certificate: read("pem"), key: read("key") }
    }
}

impl Rpc {
    /// Connects as one of the principals that `dev` made.
    ///
    /// # Panics
    /// When there is no connection.
    pub async fn connect(deployment: &Deployment, name: &str) -> Self {
        Self::connect_with(deployment, &ClientCertificate::of(deployment, name))
            .await
            .unwrap_or_else(|error| panic!("{name} cannot connect: {error:?}"))
    }

    /// Connects with any certificate.
    ///
    /// # Errors
    /// What TLS or TCP says.
    pub async fn connect_with(
        deployment: &Deployment,
        client: &ClientCertificate,
    ) -> Result<Self, tonic::transport::Error> {
        Self::connect_to(&deployment.address(), deployment, client).await
    }

    /// Connects to another server with the same authority.
    ///
    /// # Errors
    /// What TLS or TCP says.
    pub async fn connect_to(
        address: &str,
        deployment: &Deployment,
        client: &ClientCertificate,
    ) -> Result<Self, tonic::transport::Error> {
        let channel = channel(address, deployment, Some(client)).await?;
        Ok(Self {
            keys: KeysClient::new(channel.clone()),
            crypto: CryptoClient::new(channel.clone()),
            data_keys: DataKeysClient::new(channel.clone()),
            audit: AuditClient::new(channel.clone()).max_decoding_message_size(16 << 20),
            system: SystemClient::new(channel.clone()),
            ceremony: CeremonyClient::new(channel),
        })
    }
}

/// One connection to a server with a deployment's authority, for services that are not of `kms.v1`.
///
/// # Errors
/// What TLS or TCP says.
pub async fn channel(
    address: &str,
    deployment: &Deployment,
    client: Option<&ClientCertificate>,
) -> Result<Channel, tonic::transport::Error> {
    let authority = fs::read(deployment.state("certificates/ca.pem")).expect("the authority");
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority));
    if let Some(client) = client {
        tls = tls.identity(Identity::from_pem(&client.certificate, &client.key));
    }
    Endpoint::from_shared(format!("https://{address}"))?
        .tls_config(tls)?
        .connect_timeout(Duration::from_secs(10))
        .timeout(Duration::from_secs(60))
        .connect()
        .await
}

/// A refusal with its documented parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The gRPC code.
    pub code: Code,
    /// The reason of `ErrorInfo`; empty when there is none.
    pub reason: String,
    /// The field of `BadRequest`.
    pub field: Option<String>,
    /// The sentence.
    pub message: String,
    /// The request id, also in the audit record.
    pub request_id: String,
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info();
        assert!(info.is_none_or(|info| info.domain == "kms"), "the domain of {status:?}");
        Self {
            code: status.code(),
            reason: info.map(|info| info.reason.clone()).unwrap_or_default(),
            field: details
                .bad_request()
                .and_then(|bad| bad.field_violations.first())
                .map(|violation| violation.field.clone()),
            message: status.message().to_owned(),
            request_id: details.request_info().map(|info| info.request_id.clone()).unwrap_or_default(),
        }
    }
}

/// The refusal of a call that must not succeed.
///
/// # Panics
/// When it did.
#[track_caller]
pub fn refused<T>(result: Result<tonic::Response<T>, Status>) -> Refused {
    match result {
        Ok(_) => panic!("the call was not refused"),
        Err(status) => status.into(),
    }
}
