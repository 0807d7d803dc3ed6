//! A service that answers like the real one as far as a client can tell: mutual TLS, reasons, streams.

mod data_keys;

pub use data_keys::DATA_KEY_ID;

use super::{ADMIN, Log};
use kms_core::audit::BatchHead;
use kms_core::codec;
use kms_core::mac::MacAlgorithm;
use kms_core::merkle::inclusion_proof;
use kms_core::reason::Reason;
use kms_core::secret::Secret;
use kms_core::suite::Suite;
use kms_proto::v1;
use kms_proto::v1::audit_server::{Audit, AuditServer};
use kms_proto::v1::crypto_server::{Crypto, CryptoServer};
use kms_proto::v1::data_keys_server::DataKeysServer;
use kms_proto::v1::keys_server::{Keys, KeysServer};
use kms_proto::v1::system_server::{System, SystemServer};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::collections::{HashMap, VecDeque};
use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_stream::Stream;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// One of the key pairs that OpenSSL made.
const IMPORT_PUBLIC_KEY: &[u8] = include_bytes!("../../../../kms-core/src/pair/vectors/sm2.spki.der");

pub const KEY_ID: &str = "07070707-0707-0707-0707-070707070707";

/// A refusal as the service sends it.
pub fn refusal(code: Code, reason: Reason, message: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason.name(), "kms", HashMap::new());
    Status::with_error_details(code, message, details)
}

/// The private key of the one data key pair. A client does not look into it.
pub const PAIR_PRIVATE_KEY: &[u8] = b"the private key";

/// RFC 8410, section 10.1.
pub fn pair_public_key() -> Vec<u8> {
    let text = "302a300506032b657003210019bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1";
    base16ct::lower::decode_vec(text).expect("hexadecimal")
}

/// Something that depends on all that is signed.
fn fake_signature(input: &[u8], is_digest: bool, user_id: &[u8]) -> Vec<u8> {
    [input, &[u8::from(is_digest)], user_id].concat()
}

/// What the service does and what it saw.
#[derive(Default)]
pub struct Script {
    /// Answers that come before the real one, oldest first.
    pub refusals: VecDeque<Status>,
    /// Names of the calls that came.
    pub calls: Vec<&'static str>,
    /// The last request for a new key.
    pub created: Option<v1::CreateKeyRequest>,
    /// Idempotency tokens that came.
    pub tokens: Vec<String>,
    /// The node counts as sealed for so many more status calls.
    pub sealed_status_count: u32,
    /// Proofs lead elsewhere.
    pub forges_proofs: bool,
    /// The last request for import parameters.
    pub import_asked: Option<v1::GetImportParametersRequest>,
    /// The last import.
    pub imported: Option<v1::ImportKeyMaterialRequest>,
    /// The last list of keys that was asked for.
    pub listed: Option<v1::ListKeysRequest>,
    /// The last update of a key.
    pub updated: Option<v1::UpdateKeyRequest>,
    /// The last alias that was given to another key.
    pub retargeted: Option<v1::RetargetAliasRequest>,
    /// The last request for a new registered data key.
    pub created_data_key: Option<v1::CreateDataKeyRequest>,
    /// The version that the last change of a registered data key was about; 0 for all of it.
    pub data_key_version: Option<u32>,
    /// Calls that are never answered.
    pub hangs: bool,
    /// How long each answer takes at least.
    pub delay: Duration,
    /// Streams of records break after so many.
    pub breaks_records_after: Option<usize>,
    /// First indexes that streams of records were asked for.
    pub record_starts: Vec<u64>,
    /// It is a service from before recipients.
    pub knows_no_recipients: bool,
    /// The algorithm of the data keys.
    pub data_key_spec: v1::KeySpec,
    data_keys: HashMap<Vec<u8>, (Vec<u8>, Vec<v1::ContextPair>, v1::KeySpec)>,
}

impl Script {
    /// Something that depends on the secret and the recipient; the secret is gone then.
    fn for_recipient(&self, recipient: Option<&v1::Recipient>, secret: &mut Vec<u8>) -> Vec<u8> {
        let Some(recipient) = recipient.filter(|_| !self.knows_no_recipients) else { return vec![] };
        let algorithm = recipient.algorithm as u8;
        let secret = std::mem::take(secret);
        [&[algorithm], recipient.public_key.as_slice(), &secret].concat()
    }
}

#[derive(Clone)]
struct Fake {
    script: Arc<Mutex<Script>>,
    log: Arc<Log>,
}

/// A running service and the folder's files that lead to it.
pub struct Service {
    pub script: Arc<Mutex<Script>>,
    pub log: Arc<Log>,
    pub address: SocketAddr,
    tls: ServerTlsConfig,
    _runtime: Runtime,
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut parameters = CertificateParams::new([]).expect("no names");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(parameters, KeyPair::generate().expect("a key")).expect("a certificate")
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::write(&path, text).expect("writes");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("changes the mode");
}

impl Service {
    /// Starts a service and writes `profile.toml` and its files; also `stranger.toml`, whose certificate is of
    /// another authority.
    pub fn start(folder: &Path, suite: Suite) -> Self {
        let (authority, strange) = (authority(), authority());
        let issue = |issuer: &CertifiedIssuer<'_, KeyPair>| {
            let key = KeyPair::generate().expect("a key");
            let parameters = CertificateParams::new(["localhost".to_owned()]).expect("a name");
            (parameters.signed_by(&key, issuer).expect("a certificate").pem(), key.serialize_pem())
        };
        let runtime = Runtime::new().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address");
        write(folder, "ca.pem", &authority.pem());
        for (name, issuer) in [("profile", &authority), ("stranger", &strange)] {
            let (certificate, key) = issue(issuer);
            write(folder, &format!("{name}.pem"), &certificate);
            write(folder, &format!("{name}.key"), &key);
            let profile = format!(
                "endpoint = \"https://127.0.0.1:{}\"\nserver_name = \"localhost\"\nserver_ca = \"ca.pem\"\n\
                 certificate = \"{name}.pem\"\nkey = \"{name}.key\"\n",
                address.port()
            );
            write(folder, &format!("{name}.toml"), &profile);
        }
        let log = Arc::new(Log::sample(suite));
        write(folder, "bundle.pem", &log.deployment.armour());
        let (certificate, key) = issue(&authority);
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(certificate, key))
            .client_ca_root(Certificate::from_pem(authority.pem()));
        Self::serve(log, tls, runtime, listener)
    }

    /// Another node of the same deployment, with a script of its own.
    pub fn another(&self) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        Self::serve(Arc::clone(&self.log), self.tls.clone(), runtime, listener)
    }

    fn serve(log: Arc<Log>, tls: ServerTlsConfig, runtime: Runtime, listener: TcpListener) -> Self {
        let address = listener.local_addr().expect("an address");
        let script = Arc::new(Mutex::new(Script { data_key_spec: v1::KeySpec::Aes256, ..Script::default() }));
        let fake = Fake { script: Arc::clone(&script), log: Arc::clone(&log) };
        let server = Server::builder()
            .tls_config(tls.clone())
            .expect("the certificates are valid")
            .add_service(KeysServer::new(fake.clone()))
            .add_service(CryptoServer::new(fake.clone()))
            .add_service(DataKeysServer::new(fake.clone()))
            .add_service(AuditServer::new(fake.clone()))
            .add_service(SystemServer::new(fake));
        runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self { script, log, address, tls, _runtime: runtime }
    }

    pub fn script(&self) -> std::sync::MutexGuard<'_, Script> {
        self.script.lock().expect("no test panics with the script")
    }

    /// Answers the next calls with refusals.
    pub fn refuse(&self, refusals: impl IntoIterator<Item = Status>) {
        self.script().refusals.extend(refusals);
    }
}

impl Fake {
    async fn admit(&self, call: &'static str) -> Result<(), Status> {
        let (refusal, hangs, delay) = {
            let mut script = self.script.lock().expect("no test panics with the script");
            script.calls.push(call);
            (script.refusals.pop_front(), script.hangs, script.delay)
        };
        tokio::time::sleep(delay).await;
        if hangs {
            std::future::pending::<()>().await;
        }
        refusal.map_or(Ok(()), Err)
    }

    fn key(&self) -> v1::Key {
        let time = Some(prost_types::Timestamp { seconds: 1_795_399_200, nanos: 0 });
        v1::Key {
            key_id: KEY_ID.into(),
            name: "payroll".into(),
            spec: v1::KeySpec::Sm4.into(),
            protection: v1::Protection::HsmWrapped.into(),
            state: v1::KeyState::Active.into(),
            current_version: 1,
            versions: vec![v1::KeyVersion {
                version: 1,
                origin: v1::KeyOrigin::Generated.into(),
                state: v1::KeyState::Active.into(),
                created: time,
                check_value: vec![0xc1, 0xc2, 0xc3],
                encryptions_taken: 65_536,
                is_rotation_advised: true,
                destruction: None,
            }],
            destruction: None,
            created: time,
            creator: ADMIN.into(),
            revision: 3,
            protection_note: "the material is sealed by a master key".into(),
            activates: None,
            expires: Some(prost_types::Timestamp { seconds: 1_895_399_200, nanos: 0 }),
            usage: v1::KeyUsage::EncryptDecrypt.into(),
            attributes: Some(v1::KeyAttributes {
                owner: "payments".into(),
                description: String::new(),
                sensitivity: 2,
                labels: vec![v1::Label { name: "env".into(), value: "prod".into() }],
                retain_until: Some(prost_types::Timestamp { seconds: 1_895_399_200, nanos: 0 }),
                deletion_protection: true,
            }),
            aliases: vec!["wages".into()],
        }
    }

    fn alias(&self) -> v1::Alias {
        v1::Alias { alias: "wages".into(), key_id: KEY_ID.into(), changed: self.key().created }
    }
}

fn time() -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: 1_795_399_200, nanos: 0 }
}

type Answer<T> = Result<Response<T>, Status>;
type Frames<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Keys for Fake {
    async fn create_key(&self, request: Request<v1::CreateKeyRequest>) -> Answer<v1::Key> {
        let request = request.into_inner();
        {
            let mut script = self.script.lock().expect("no test panics with the script");
            script.tokens.push(request.idempotency_token.clone());
            script.created = Some(request);
        }
        self.admit("create_key").await?;
        Ok(Response::new(self.key()))
    }

    async fn get_import_parameters(
        &self,
        request: Request<v1::GetImportParametersRequest>,
    ) -> Answer<v1::ImportParameters> {
        self.script.lock().expect("no test panics with the script").import_asked = Some(request.into_inner());
        self.admit("get_import_parameters").await?;
        Ok(Response::new(v1::ImportParameters {
            import_id: KEY_ID.into(),
            public_key: IMPORT_PUBLIC_KEY.to_vec(),
            wrapping: v1::ImportWrapping::Sm2Envelope.into(),
            expires: Some(prost_types::Timestamp { seconds: 1_795_399_200, nanos: 0 }),
            wrapping_key_spec: v1::KeySpec::Sm2.into(),
        }))
    }

    async fn import_key_material(&self, request: Request<v1::ImportKeyMaterialRequest>) -> Answer<v1::Key> {
        self.script.lock().expect("no test panics with the script").imported = Some(request.into_inner());
        self.admit("import_key_material").await?;
        Ok(Response::new(self.key()))
    }

    async fn describe_key(&self, _: Request<v1::DescribeKeyRequest>) -> Answer<v1::Key> {
        self.admit("describe_key").await?;
        Ok(Response::new(self.key()))
    }

    async fn list_keys(&self, request: Request<v1::ListKeysRequest>) -> Answer<v1::ListKeysResponse> {
        self.admit("list_keys").await?;
        let request = request.into_inner();
        let is_first = request.page_token.is_empty();
        self.script.lock().expect("no test panics with the script").listed = Some(request);
        let second = v1::Key { name: "salaries".into(), versions: vec![], ..self.key() };
        let first = v1::Key { versions: vec![], ..self.key() };
        Ok(Response::new(match is_first {
            true => v1::ListKeysResponse { keys: vec![first], next_page_token: "2".into() },
            false => v1::ListKeysResponse { keys: vec![second], next_page_token: String::new() },
        }))
    }

    async fn update_key(&self, request: Request<v1::UpdateKeyRequest>) -> Answer<v1::Key> {
        self.script.lock().expect("no test panics with the script").updated = Some(request.into_inner());
        self.admit("update_key").await?;
        Ok(Response::new(self.key()))
    }

    async fn create_alias(&self, _: Request<v1::CreateAliasRequest>) -> Answer<v1::Alias> {
        self.admit("create_alias").await?;
        Ok(Response::new(self.alias()))
    }

    async fn retarget_alias(&self, request: Request<v1::RetargetAliasRequest>) -> Answer<v1::Alias> {
        self.script.lock().expect("no test panics with the script").retargeted = Some(request.into_inner());
        self.admit("retarget_alias").await?;
        Ok(Response::new(self.alias()))
    }

    async fn delete_alias(&self, _: Request<v1::DeleteAliasRequest>) -> Answer<v1::DeleteAliasResponse> {
        self.admit("delete_alias").await?;
        Ok(Response::new(v1::DeleteAliasResponse {}))
    }

    async fn list_aliases(&self, _: Request<v1::ListAliasesRequest>) -> Answer<v1::ListAliasesResponse> {
        self.admit("list_aliases").await?;
        let aliases = vec![self.alias()];
        Ok(Response::new(v1::ListAliasesResponse { aliases, next_page_token: String::new() }))
    }

    async fn rotate_key(&self, _: Request<v1::RotateKeyRequest>) -> Answer<v1::Key> {
        self.admit("rotate_key").await?;
        Ok(Response::new(self.key()))
    }

    async fn activate_key(&self, _: Request<v1::ActivateKeyRequest>) -> Answer<v1::Key> {
        self.admit("activate_key").await?;
        Ok(Response::new(v1::Key { state: v1::KeyState::Active.into(), ..self.key() }))
    }

    async fn deactivate_key(&self, _: Request<v1::DeactivateKeyRequest>) -> Answer<v1::Key> {
        self.admit("deactivate_key").await?;
        Ok(Response::new(v1::Key { state: v1::KeyState::Deactivated.into(), ..self.key() }))
    }

    async fn archive_key(&self, _: Request<v1::ArchiveKeyRequest>) -> Answer<v1::Key> {
        self.admit("archive_key").await?;
        Ok(Response::new(v1::Key { state: v1::KeyState::Archived.into(), ..self.key() }))
    }

    async fn recover_key(&self, _: Request<v1::RecoverKeyRequest>) -> Answer<v1::Key> {
        self.admit("recover_key").await?;
        Ok(Response::new(v1::Key { state: v1::KeyState::Deactivated.into(), ..self.key() }))
    }

    async fn compromise_key(&self, _: Request<v1::CompromiseKeyRequest>) -> Answer<v1::Key> {
        self.admit("compromise_key").await?;
        Ok(Response::new(v1::Key { state: v1::KeyState::Compromised.into(), ..self.key() }))
    }

    async fn suspend_key(&self, _: Request<v1::SuspendKeyRequest>) -> Answer<v1::Key> {
        self.admit("suspend_key").await?;
        Ok(Response::new(v1::Key { state: v1::KeyState::Suspended.into(), ..self.key() }))
    }

    async fn schedule_destruction(
        &self,
        request: Request<v1::ScheduleDestructionRequest>,
    ) -> Answer<v1::Key> {
        self.admit("schedule_destruction").await?;
        let days = request.into_inner().window_days;
        let destruction = Some(v1::Destruction {
            state_before: v1::KeyState::Active.into(),
            time: Some(prost_types::Timestamp {
                seconds: 1_795_000_000 + 86_400 * i64::from(days),
                nanos: 0,
            }),
            asked: Some(prost_types::Timestamp { seconds: 1_795_000_000, nanos: 0 }),
            asked_by: "kms://default/administrator/admin".into(),
        });
        let state = v1::KeyState::DestroyPending.into();
        Ok(Response::new(v1::Key { state, destruction, ..self.key() }))
    }

    async fn cancel_destruction(&self, _: Request<v1::CancelDestructionRequest>) -> Answer<v1::Key> {
        self.admit("cancel_destruction").await?;
        Ok(Response::new(v1::Key { state: v1::KeyState::Suspended.into(), ..self.key() }))
    }

    async fn get_usage_report(&self, _: Request<v1::GetUsageReportRequest>) -> Answer<v1::UsageReport> {
        self.admit("get_usage_report").await?;
        let used = v1::VersionUse {
            version: 2,
            data_keys: 7,
            registered_data_keys: 4,
            encryptions: 5,
            decryptions: 3,
            macs: 2,
            mac_verifications: 1,
            signatures: 0,
            signature_verifications: 0,
            last_used: Some(prost_types::Timestamp { seconds: 1_795_000_000, nanos: 0 }),
            last_used_by: "kms://default/operator/app".into(),
        };
        Ok(Response::new(v1::UsageReport { versions: vec![used], ..Default::default() }))
    }

    async fn get_destruction_certificates(
        &self,
        _: Request<v1::GetDestructionCertificatesRequest>,
    ) -> Answer<v1::GetDestructionCertificatesResponse> {
        self.admit("get_destruction_certificates").await?;
        // Nothing that is one.
        Ok(Response::new(v1::GetDestructionCertificatesResponse {
            certificates: vec![vec![1, 2, 3]],
            ..Default::default()
        }))
    }

    async fn resume_key(&self, _: Request<v1::ResumeKeyRequest>) -> Answer<v1::Key> {
        self.admit("resume_key").await?;
        Ok(Response::new(self.key()))
    }
}

/// The MAC of a message under the one key that there is.
pub fn mac(message: &[u8]) -> Secret {
    MacAlgorithm::HmacSha512.mac(&[7; 64], message)
}

#[tonic::async_trait]
impl Crypto for Fake {
    async fn generate_data_key(
        &self,
        request: Request<v1::GenerateDataKeyRequest>,
    ) -> Answer<v1::GenerateDataKeyResponse> {
        self.admit("generate_data_key").await?;
        let request = request.into_inner();
        let mut script = self.script.lock().expect("no test panics with the script");
        let spec = match request.data_key_spec() {
            v1::KeySpec::Unspecified => script.data_key_spec,
            spec => spec,
        };
        let len = match spec {
            v1::KeySpec::Sm4 | v1::KeySpec::Aes128 => 16,
            v1::KeySpec::Aes192 => 24,
            _ => 32,
        };
        let mut plaintext = vec![0; len];
        getrandom::fill(&mut plaintext).expect("random bytes");
        let ciphertext = format!("wrapped {}", script.data_keys.len()).into_bytes();
        script.data_keys.insert(ciphertext.clone(), (plaintext.clone(), request.context, spec));
        let recipient_ciphertext = script.for_recipient(request.recipient.as_ref(), &mut plaintext);
        if request.without_plaintext {
            plaintext.clear();
        }
        Ok(Response::new(v1::GenerateDataKeyResponse {
            key_id: KEY_ID.into(),
            key_version: 1,
            data_key_spec: spec.into(),
            plaintext,
            ciphertext,
            recipient_ciphertext,
        }))
    }

    async fn decrypt_data_key(
        &self,
        request: Request<v1::DecryptDataKeyRequest>,
    ) -> Answer<v1::DecryptDataKeyResponse> {
        self.admit("decrypt_data_key").await?;
        let request = request.into_inner();
        let script = self.script.lock().expect("no test panics with the script");
        if !["", KEY_ID, "payroll"].contains(&request.expected_key.as_str()) {
            return Err(refusal(Code::FailedPrecondition, Reason::KeyMismatch, "another key"));
        }
        let invalid = || refusal(Code::InvalidArgument, Reason::CiphertextInvalid, "it does not open");
        let (plaintext, context, spec) = script.data_keys.get(&request.ciphertext).ok_or_else(invalid)?;
        if *context != request.context {
            return Err(invalid());
        }
        let mut plaintext = plaintext.clone();
        let recipient_ciphertext = script.for_recipient(request.recipient.as_ref(), &mut plaintext);
        Ok(Response::new(v1::DecryptDataKeyResponse {
            key_id: KEY_ID.into(),
            key_version: 1,
            data_key_spec: (*spec).into(),
            recipient_ciphertext,
            plaintext,
        }))
    }

    async fn generate_data_key_pair(
        &self,
        request: Request<v1::GenerateDataKeyPairRequest>,
    ) -> Answer<v1::GenerateDataKeyPairResponse> {
        self.admit("generate_data_key_pair").await?;
        let request = request.into_inner();
        let script = self.script.lock().expect("no test panics with the script");
        let mut private_key = if request.without_plaintext { vec![] } else { PAIR_PRIVATE_KEY.to_vec() };
        let recipient_ciphertext = script.for_recipient(request.recipient.as_ref(), &mut private_key);
        Ok(Response::new(v1::GenerateDataKeyPairResponse {
            key_id: KEY_ID.into(),
            key_version: 1,
            pair_spec: v1::KeySpec::Ed25519.into(),
            public_key: pair_public_key(),
            private_key,
            ciphertext: b"wrapped pair".to_vec(),
            recipient_ciphertext,
        }))
    }

    async fn decrypt_data_key_pair(
        &self,
        request: Request<v1::DecryptDataKeyPairRequest>,
    ) -> Answer<v1::DecryptDataKeyPairResponse> {
        self.admit("decrypt_data_key_pair").await?;
        let request = request.into_inner();
        if request.ciphertext != b"wrapped pair" {
            return Err(refusal(Code::InvalidArgument, Reason::CiphertextInvalid, "it does not open"));
        }
        let script = self.script.lock().expect("no test panics with the script");
        let mut private_key = PAIR_PRIVATE_KEY.to_vec();
        let recipient_ciphertext = script.for_recipient(request.recipient.as_ref(), &mut private_key);
        Ok(Response::new(v1::DecryptDataKeyPairResponse {
            key_id: KEY_ID.into(),
            key_version: 1,
            pair_spec: v1::KeySpec::Ed25519.into(),
            public_key: pair_public_key(),
            private_key,
            recipient_ciphertext,
        }))
    }

    async fn get_certificate_signing_request(
        &self,
        request: Request<v1::GetCertificateSigningRequestRequest>,
    ) -> Answer<v1::GetCertificateSigningRequestResponse> {
        self.admit("get_certificate_signing_request").await?;
        let request = request.into_inner();
        let names = [request.dns_names, request.ip_addresses, request.uris, request.email_addresses];
        let text = [vec![request.subject], names.concat()].concat().join("|");
        Ok(Response::new(v1::GetCertificateSigningRequestResponse {
            key_id: KEY_ID.into(),
            key_version: 2,
            algorithm: v1::SignatureAlgorithm::Ed25519.into(),
            request: text.into_bytes(),
        }))
    }

    async fn encrypt(&self, request: Request<v1::EncryptRequest>) -> Answer<v1::EncryptResponse> {
        self.admit("encrypt").await?;
        let ciphertext = request.into_inner().plaintext.into_iter().rev().collect();
        Ok(Response::new(v1::EncryptResponse { key_id: KEY_ID.into(), key_version: 1, ciphertext }))
    }

    async fn decrypt(&self, request: Request<v1::DecryptRequest>) -> Answer<v1::DecryptResponse> {
        self.admit("decrypt").await?;
        let plaintext = request.into_inner().ciphertext.into_iter().rev().collect();
        Ok(Response::new(v1::DecryptResponse { key_id: KEY_ID.into(), key_version: 1, plaintext }))
    }

    async fn asymmetric_encrypt(
        &self,
        request: Request<v1::AsymmetricEncryptRequest>,
    ) -> Answer<v1::AsymmetricEncryptResponse> {
        self.admit("asymmetric_encrypt").await?;
        let ciphertext = request.into_inner().plaintext.into_iter().rev().collect();
        Ok(Response::new(v1::AsymmetricEncryptResponse { key_id: KEY_ID.into(), key_version: 2, ciphertext }))
    }

    async fn asymmetric_decrypt(
        &self,
        request: Request<v1::AsymmetricDecryptRequest>,
    ) -> Answer<v1::AsymmetricDecryptResponse> {
        self.admit("asymmetric_decrypt").await?;
        let plaintext = request.into_inner().ciphertext.into_iter().rev().collect();
        Ok(Response::new(v1::AsymmetricDecryptResponse { key_id: KEY_ID.into(), key_version: 2, plaintext }))
    }

    async fn re_encrypt(&self, request: Request<v1::ReEncryptRequest>) -> Answer<v1::ReEncryptResponse> {
        self.admit("re_encrypt").await?;
        let request = request.into_inner();
        let text = |pairs: &[v1::ContextPair]| {
            pairs.iter().map(|pair| format!("{}={}", pair.key, pair.value)).collect::<Vec<_>>().join(",")
        };
        // What was asked, readable.
        let ciphertext = format!(
            "{}|{}|{}|{}|{}",
            String::from_utf8_lossy(&request.ciphertext),
            text(&request.context),
            request.expected_key,
            request.new_key,
            text(&request.new_context)
        );
        Ok(Response::new(v1::ReEncryptResponse {
            key_id: KEY_ID.into(),
            key_version: 2,
            ciphertext: ciphertext.into_bytes(),
            old_key_id: KEY_ID.into(),
            old_key_version: 1,
        }))
    }

    async fn batch(&self, request: Request<v1::BatchRequest>) -> Answer<v1::BatchResponse> {
        self.admit("batch").await?;
        let mut results = Vec::new();
        for item in request.into_inner().items {
            results.push(self.result(item).await);
        }
        Ok(Response::new(v1::BatchResponse { results }))
    }

    type StreamStream = Frames<v1::StreamResult>;

    /// Pairs of results change places: the client must not count on an order.
    async fn stream(&self, request: Request<tonic::Streaming<v1::StreamItem>>) -> Answer<Self::StreamStream> {
        self.admit("stream").await?;
        let (fake, mut items) = (self.clone(), request.into_inner());
        let (results, received) = tokio::sync::mpsc::channel(1);
        let break_after = self.script.lock().expect("no test panics with the script").breaks_records_after;
        tokio::spawn(async move {
            let mut held = None;
            let mut count = 0;
            while let Ok(Some(item)) = items.message().await {
                if Some(count) == break_after {
                    let refused = refusal(Code::Unavailable, Reason::Sealed, "this node ends");
                    let _ = results.send(Err(refused)).await;
                    return;
                }
                count += 1;
                let result = fake.result(item.item.unwrap_or_default()).await;
                let result = Ok(v1::StreamResult { id: item.id, result: Some(result) });
                match held.take() {
                    None => held = Some(result),
                    Some(first) => {
                        let _ = results.send(result).await;
                        let _ = results.send(first).await;
                    }
                }
            }
            if let Some(last) = held {
                let _ = results.send(last).await;
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(received))))
    }

    async fn generate_mac(
        &self,
        request: Request<v1::GenerateMacRequest>,
    ) -> Answer<v1::GenerateMacResponse> {
        self.admit("generate_mac").await?;
        let mac = mac(&request.into_inner().message).expose().to_vec();
        Ok(Response::new(v1::GenerateMacResponse { key_id: KEY_ID.into(), key_version: 1, mac }))
    }

    async fn verify_mac(&self, request: Request<v1::VerifyMacRequest>) -> Answer<v1::VerifyMacResponse> {
        self.admit("verify_mac").await?;
        let request = request.into_inner();
        if !mac(&request.message).is_equal(&request.mac) {
            return Err(refusal(
                Code::InvalidArgument,
                Reason::MacInvalid,
                "the MAC is not that of this message",
            ));
        }
        Ok(Response::new(v1::VerifyMacResponse { key_id: KEY_ID.into(), key_version: 1 }))
    }

    /// What was asked comes back: the data as the tag, the plaintext turned around as the ciphertext.
    async fn raw_encrypt(&self, request: Request<v1::RawEncryptRequest>) -> Answer<v1::RawEncryptResponse> {
        self.admit("raw_encrypt").await?;
        let request = request.into_inner();
        Ok(Response::new(v1::RawEncryptResponse {
            key_id: KEY_ID.into(),
            key_version: 2,
            ciphertext: request.plaintext.into_iter().rev().collect(),
            initialization_vector: vec![7; 16],
            tag: request.additional_authenticated_data,
        }))
    }

    async fn raw_decrypt(&self, request: Request<v1::RawDecryptRequest>) -> Answer<v1::RawDecryptResponse> {
        self.admit("raw_decrypt").await?;
        let request = request.into_inner();
        let is_whole =
            request.initialization_vector.len() == 16 && request.padding() == v1::RawPadding::Pkcs7;
        let is_old = request.initialization_vector.len() == 8 && request.padding() == v1::RawPadding::None;
        if request.tag != request.additional_authenticated_data || !(is_whole || is_old) {
            let message = "the ciphertext does not open";
            return Err(refusal(Code::InvalidArgument, Reason::CiphertextInvalid, message));
        }
        let plaintext = request.ciphertext.into_iter().rev().collect();
        Ok(Response::new(v1::RawDecryptResponse { key_id: KEY_ID.into(), key_version: 2, plaintext }))
    }

    async fn sign(&self, request: Request<v1::SignRequest>) -> Answer<v1::SignResponse> {
        self.admit("sign").await?;
        let request = request.into_inner();
        Ok(Response::new(v1::SignResponse {
            key_id: KEY_ID.into(),
            key_version: 2,
            algorithm: v1::SignatureAlgorithm::Ed25519.into(),
            signature: fake_signature(&request.input, request.is_digest, &request.user_id),
        }))
    }

    async fn verify(&self, request: Request<v1::VerifyRequest>) -> Answer<v1::VerifyResponse> {
        self.admit("verify").await?;
        let request = request.into_inner();
        if request.signature != fake_signature(&request.input, request.is_digest, &request.user_id) {
            return Err(refusal(
                Code::InvalidArgument,
                Reason::KeySignatureInvalid,
                "the signature is not one",
            ));
        }
        Ok(Response::new(v1::VerifyResponse {
            key_id: KEY_ID.into(),
            key_version: 2,
            algorithm: v1::SignatureAlgorithm::Ed25519.into(),
        }))
    }

    async fn get_public_key(&self, _: Request<v1::GetPublicKeyRequest>) -> Answer<v1::GetPublicKeyResponse> {
        self.admit("get_public_key").await?;
        Ok(Response::new(v1::GetPublicKeyResponse {
            key_id: KEY_ID.into(),
            key_version: 2,
            spec: v1::KeySpec::Ed25519.into(),
            public_key: pair_public_key(),
            algorithms: vec![v1::SignatureAlgorithm::Ed25519.into()],
            usage: v1::KeyUsage::SignVerify.into(),
        }))
    }

    async fn generate_random(
        &self,
        request: Request<v1::GenerateRandomRequest>,
    ) -> Answer<v1::GenerateRandomResponse> {
        self.admit("generate_random").await?;
        let mut random = vec![0; request.into_inner().byte_count as usize];
        getrandom::fill(&mut random).expect("random bytes");
        Ok(Response::new(v1::GenerateRandomResponse { random }))
    }
}

impl Fake {
    /// Some of the calls that a batch can hold; the others are refused.
    async fn result(&self, item: v1::BatchItem) -> v1::BatchResult {
        use v1::{batch_item::Item, batch_result::Result as Done};
        let made = match item.item {
            Some(Item::GenerateDataKey(message)) => self
                .generate_data_key(Request::new(message))
                .await
                .map(|made| Done::GenerateDataKey(made.into_inner())),
            Some(Item::Encrypt(message)) => {
                self.encrypt(Request::new(message)).await.map(|made| Done::Encrypt(made.into_inner()))
            }
            Some(Item::VerifyMac(message)) => {
                self.verify_mac(Request::new(message)).await.map(|made| Done::VerifyMac(made.into_inner()))
            }
            _ => Err(refusal(Code::FailedPrecondition, Reason::KeyStateForbids, "not here")),
        };
        let result = made.unwrap_or_else(|status| {
            Done::Error(v1::BatchError {
                code: status.code().into(),
                reason: status.get_details_error_info().map(|info| info.reason).unwrap_or_default(),
                message: status.message().into(),
                field: "key".into(),
                retry_delay: Some(prost_types::Duration { seconds: 2, nanos: 0 }),
                request_id: "id/1".into(),
            })
        });
        v1::BatchResult { result: Some(result) }
    }
}

#[tonic::async_trait]
impl Audit for Fake {
    type ListRecordsStream = Frames<v1::AuditRecord>;
    type ExportStream = Frames<v1::ExportFrame>;

    async fn list_records(
        &self,
        request: Request<v1::ListRecordsRequest>,
    ) -> Answer<Self::ListRecordsStream> {
        self.admit("list_records").await?;
        let from_index = request.into_inner().from_index;
        let break_after = {
            let mut script = self.script.lock().expect("no test panics with the script");
            script.record_starts.push(from_index);
            script.breaks_records_after
        };
        let mut records: Vec<_> = self
            .log
            .leaves
            .iter()
            .filter(|leaf| leaf.index >= from_index)
            .map(|leaf| {
                let time = prost_types::Timestamp { seconds: (leaf.time.0 / 1000) as i64, nanos: 0 };
                Ok(v1::AuditRecord { index: leaf.index, time: Some(time), body: leaf.body.clone() })
            })
            .collect();
        if let Some(count) = break_after {
            records.truncate(count);
            records.push(Err(Status::unavailable("the node goes away")));
        }
        Ok(Response::new(Box::pin(tokio_stream::iter(records))))
    }

    async fn show_record(&self, request: Request<v1::ShowRecordRequest>) -> Answer<v1::ShowRecordResponse> {
        self.admit("show_record").await?;
        let index = request.into_inner().index as usize;
        let suite = self.log.deployment.bundle.suite;
        let hashes: Vec<_> = self.log.leaves.iter().map(|leaf| leaf.hash(suite)).collect();
        let mut proof = inclusion_proof(suite, &hashes, index)
            .ok_or_else(|| refusal(Code::NotFound, Reason::RecordNotFound, "no such record"))?;
        if self.script.lock().expect("no test panics with the script").forges_proofs {
            proof[0].0[0] ^= 1;
        }
        let segment = self.log.segments.last().expect("the log has segments");
        let head: BatchHead = codec::open(&segment.head).expect("a head");
        let mut leaf = Vec::new();
        self.log.leaves[index].write(&mut leaf);
        Ok(Response::new(v1::ShowRecordResponse {
            leaf,
            inclusion_proof: proof.iter().map(|hash| hash.0.to_vec()).collect(),
            tree_size: head.size,
            root: head.root.0.to_vec(),
            head: segment.head.clone(),
            head_signature: segment.signature.0.to_vec(),
        }))
    }

    /// Segments and checkpoints alternate: the client must put them in order.
    async fn export(&self, _: Request<v1::ExportRequest>) -> Answer<Self::ExportStream> {
        self.admit("export").await?;
        let mut frames = Vec::new();
        let mut checkpoints = self.log.checkpoints.iter();
        for segment in &self.log.segments {
            frames.push(v1::export_frame::Frame::Segment(codec::to_bytes(segment)));
            let checkpoint = checkpoints.next().map(codec::to_bytes);
            frames.extend(checkpoint.map(v1::export_frame::Frame::Checkpoint));
        }
        let frames: Vec<_> =
            frames.into_iter().map(|frame| Ok(v1::ExportFrame { frame: Some(frame) })).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(frames))))
    }
}

#[tonic::async_trait]
impl System for Fake {
    async fn get_status(&self, _: Request<v1::GetStatusRequest>) -> Answer<v1::Status> {
        self.admit("get_status").await?;
        let mut script = self.script.lock().expect("no test panics with the script");
        let is_sealed = script.sealed_status_count > 0;
        script.sealed_status_count = script.sealed_status_count.saturating_sub(1);
        let (seal_state, sealed_reason) = match is_sealed {
            true => (v1::SealState::Sealed, "the node has just started".to_owned()),
            false => (v1::SealState::Unsealed, String::new()),
        };
        Ok(Response::new(v1::Status {
            seal_state: seal_state.into(),
            sealed_reason,
            threshold: 2,
            custodian_count: 3,
            present: if is_sealed { vec!["alice".into()] } else { vec![] },
            suite: self.log.deployment.bundle.suite.name().into(),
            cluster_name: "test".into(),
            node: "node-1".into(),
            version: "0.1.0".into(),
            module: "softhsm (generic)".into(),
            bundle_fingerprint: "ab".repeat(32),
            log_size: 9,
            checkpoint_size: 3,
            checkpoint_time: Some(prost_types::Timestamp { seconds: 1_795_399_200, nanos: 0 }),
        }))
    }

    async fn who_am_i(&self, _: Request<v1::WhoAmIRequest>) -> Answer<v1::WhoAmIResponse> {
        self.admit("who_am_i").await?;
        Ok(Response::new(v1::WhoAmIResponse {
            principal: ADMIN.into(),
            allowed: vec!["key.create".into(), "key.list".into()],
        }))
    }

    async fn seal(&self, _: Request<v1::SealRequest>) -> Answer<v1::SealResponse> {
        self.admit("seal").await?;
        Ok(Response::new(v1::SealResponse {}))
    }
}
