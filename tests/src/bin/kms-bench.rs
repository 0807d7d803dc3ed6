//! Where the time of `GenerateDataKey` goes: ratios taken side by side in one run, never absolute times.
//!
//! Four servers answer the same call with messages of the same sizes over mutual TLS, each in a process of
//! its own: a bare echo, echo and commit, echo, commit and crypto, and the real service. One client process
//! keeps 64 calls in flight. Rounds are interleaved, the median round counts.

use kms_core::asymmetric::PrivateKey;
use kms_core::audit::{Outcome, Record};
use kms_core::bundle::SignedBundle;
use kms_core::codec;
use kms_core::context::EncryptionContext;
use kms_core::envelope::{Binding, Purpose, data_key_plaintext, seal_wrapped};
use kms_core::id::{KeyId, KeyVersion, TenantName};
use kms_core::node_key::NodeKeyFile;
use kms_core::suite::AeadAlgorithm;
use kms_proto::v1::crypto_client::CryptoClient;
use kms_proto::v1::crypto_server::{Crypto, CryptoServer};
use kms_proto::v1::{self, ContextPair, GenerateDataKeyRequest, GenerateDataKeyResponse};
use kms_server::random::{now, system_rng};
use kms_server::store::{Committer, Database, Entry, HeadSigner};
use kms_server::telemetry::Metrics;
use kms_tests::{Deployment, Options};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

const IN_FLIGHT: usize = 64;
const CHANNELS: usize = 4;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(3);
const WARM_UP: Duration = Duration::from_millis(500);
const KEY: &str = "bench";
const CIPHERTEXT_LEN: usize = 45 + 32 + 34 + 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Echo,
    Commit,
    Crypto,
}

impl Stage {
    const ALL: [Stage; 3] = [Stage::Echo, Stage::Commit, Stage::Crypto];

    fn name(self) -> &'static str {
        match self {
            Stage::Echo => "echo",
            Stage::Commit => "echo+commit",
            Stage::Crypto => "echo+commit+crypto",
        }
    }
}

fn certificates(state: &Path, name: &str, kind: &str) -> Vec<u8> {
    std::fs::read(state.join("certificates").join(format!("{name}.{kind}")))
        .expect("dev made this certificate")
}

struct EchoServer {
    stage: Stage,
    committer: Committer,
    record: Record,
    tenant: TenantName,
    material: [u8; 32],
}

#[tonic::async_trait]
impl Crypto for EchoServer {
    async fn generate_data_key(
        &self,
        request: Request<GenerateDataKeyRequest>,
    ) -> Result<Response<GenerateDataKeyResponse>, Status> {
        let request = request.into_inner();
        let mut ciphertext = vec![0x5a; CIPHERTEXT_LEN];
        let mut plaintext = vec![0x5a; 32];
        if self.stage == Stage::Crypto {
            rand_core::Rng::fill_bytes(&mut system_rng(), &mut plaintext);
            let context =
                EncryptionContext::new(request.context.into_iter().map(|pair| (pair.key, pair.value)))
                    .map_err(|error| Status::invalid_argument(error.to_string()))?;
            ciphertext = seal_wrapped(
                &self.material,
                Purpose::DataKey,
                AeadAlgorithm::Aes256Gcm,
                (KeyId([7; 16]), KeyVersion::FIRST),
                Binding { tenant: &self.tenant, context: &context },
                data_key_plaintext(AeadAlgorithm::Aes256Gcm, &plaintext).expose(),
                &mut system_rng(),
            );
        }
        if self.stage != Stage::Echo {
            let committed = self.committer.commit(Entry::record(self.record.clone())).await;
            committed.map_err(|error| Status::unavailable(error.to_string()))?;
        }
        Ok(Response::new(GenerateDataKeyResponse {
            key_id: "01a20654-2a86-742a-a62e-9fc405dea811".into(),
            key_version: 1,
            data_key_spec: v1::KeySpec::Aes256.into(),
            plaintext,
            ciphertext,
            recipient_ciphertext: Vec::new(),
        }))
    }

    async fn decrypt_data_key(
        &self,
        _: Request<v1::DecryptDataKeyRequest>,
    ) -> Result<Response<v1::DecryptDataKeyResponse>, Status> {
        Err(Status::unimplemented("the benchmark asks for data keys only"))
    }

    async fn generate_data_key_pair(
        &self,
        _: Request<v1::GenerateDataKeyPairRequest>,
    ) -> Result<Response<v1::GenerateDataKeyPairResponse>, Status> {
        Err(Status::unimplemented("the benchmark asks for data keys only"))
    }

    async fn decrypt_data_key_pair(
        &self,
        _: Request<v1::DecryptDataKeyPairRequest>,
    ) -> Result<Response<v1::DecryptDataKeyPairResponse>, Status> {
        Err(Status::unimplemented("the benchmark asks for data keys only"))
    }

    async fn get_certificate_signing_request(
        &self,
        _: Request<v1::GetCertificateSigningRequestRequest>,
    ) -> Result<Response<v1::GetCertificateSigningRequestResponse>, Status> {
        Err(Status::unimplemented("the benchmark asks for data keys only"))
    }

    async fn encrypt(&self, _: Request<v1::EncryptRequest>) -> Result<Response<v1::EncryptResponse>, Status> {
        Err(Status::unimplemented("the benchmark asks for data keys only"))
    }

    async fn decrypt(&self, _: Request<v1::DecryptRequest>) -> Result<Response<v1::DecryptResponse>, Status> {
        Err(Status::unimplemented("the benchmark asks for data keys only"))
    }

    async fn asymmetric_encrypt(
        &self,
        _: Request<v1::AsymmetricEncryptRequest>,
    ) -> Result<Response<v1::AsymmetricEncryptResponse>, Status> {
        Err(Status::unimplemented("the benchmark asks for data keys only"))
    }

    async fn asymmetric_decrypt(
        &self,
        _: Request<v1::AsymmetricDecryptRequest>,
    ) -> Result<Response<v1::AsymmetricDecryptResponse>, Status> {
        Err(Status::unimplemented("the benchmark asks for data keys only"))
    }

    async fn re_encrypt(
        &self,
        _: Request<v1::ReEncryptRequest>,
    ) -> Result<Response<v1::ReEncryptResponse>, Status> {
        Err(Status::unimplemented("the benchmark asks for data keys only"))
    }

    async fn batch(&self, _: Request<v1::BatchRequest>) -> Result<Response<v1::BatchResponse>, Status> {
        Err(Status::unimplemented("the comparison servers answer single calls only"))
    }

    type StreamStream = tokio_stream::Empty<Result<v1::StreamResult, Status>>;

    async fn stream(
        &self,
        _: Request<tonic::Streaming<v1::StreamItem>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        Err(Status::unimplemented("the comparison servers answer single calls only"))
    }

    async fn generate_mac(
        &self,
        _: Request<v1::GenerateMacRequest>,
    ) -> Result<Response<v1::GenerateMacResponse>, Status> {
        Err(Status::unimplemented("the benchmark asks for data keys only"))
    }

    async fn verify_mac(
        &self,
        _: Request<v1::VerifyMacRequest>,
    ) -> Result<Response<v1::VerifyMacResponse>, Status> {
        Err(Status::unimplemented("the benchmark asks for data keys only"))
    }

    async fn raw_encrypt(
        &self,
        _: Request<v1::RawEncryptRequest>,
    ) -> Result<Response<v1::RawEncryptResponse>, Status> {
        Err(Status::unimplemented("the benchmark asks for data keys only"))
    }

    async fn raw_decrypt(
        &self,
        _: Request<v1::RawDecryptRequest>,
    ) -> Result<Response<v1::RawDecryptResponse>, Status> {
        Err(Status::unimplemented("the benchmark asks for data keys only"))
    }

    async fn generate_random(
        &self,
        _: Request<v1::GenerateRandomRequest>,
    ) -> Result<Response<v1::GenerateRandomResponse>, Status> {
        Err(Status::unimplemented("the benchmark asks for data keys only"))
    }

    async fn sign(&self, _: Request<v1::SignRequest>) -> Result<Response<v1::SignResponse>, Status> {
        Err(Status::unimplemented("the benchmark asks for data keys only"))
    }

    async fn verify(&self, _: Request<v1::VerifyRequest>) -> Result<Response<v1::VerifyResponse>, Status> {
        Err(Status::unimplemented("the benchmark asks for data keys only"))
    }

    async fn get_public_key(
        &self,
        _: Request<v1::GetPublicKeyRequest>,
    ) -> Result<Response<v1::GetPublicKeyResponse>, Status> {
        Err(Status::unimplemented("the benchmark asks for data keys only"))
    }
}

/// One of the comparison servers; prints its port and runs until it is killed.
async fn serve(stage: Stage, state: PathBuf, folder: PathBuf) -> anyhow::Result<()> {
    let signed: SignedBundle = codec::open_armour(&std::fs::read(state.join("ceremony/bundle.kms"))?)?;
    let bundle = signed.verify()?;
    let key: NodeKeyFile = codec::open_armour(&std::fs::read(state.join("node/node.key"))?)?;
    let key: PrivateKey = key.key().ok_or_else(|| anyhow::anyhow!("the node key is not on its curve"))?;
    let url = format!("sqlite:{}", folder.join(format!("{}.db", stage.name())).display());
    let database = Database::create(&url, &signed, &bundle).await?;
    let node = bundle.nodes[0].name.clone();
    let signer = HeadSigner { cluster_id: bundle.cluster_id, node: node.clone(), key: Arc::new(key) };
    let (committer, _) = Committer::start(database, signer, now, system_rng(), Arc::new(Metrics::new()));
    let actor = "kms://default/operator/app";
    let id = "01a20654-2a86-742a-a62e-9fc405dea811";
    let record = Record::new("data_key.generate", Outcome::Done, actor, &node, id)
        .key(KeyId([7; 16]), Some(KeyVersion::FIRST));
    let tenant = TenantName::parse("default")?;
    let server = EchoServer { stage, committer, record, tenant, material: [9; 32] };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(
            certificates(&state, "server", "pem"),
            certificates(&state, "server", "key"),
        ))
        .client_ca_root(Certificate::from_pem(certificates(&state, "ca", "pem")));
    Server::builder()
        .tls_config(tls)?
        .max_concurrent_streams(256)
        .add_service(CryptoServer::new(server))
        // As the service's connections are.
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
        .await?;
    Ok(())
}

struct Started {
    address: String,
    child: Child,
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(stage: Stage, state: &Path, folder: &Path) -> anyhow::Result<Started> {
    use std::io::BufRead;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["serve", stage.name()])
        .arg(state)
        .arg(folder)
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().expect("stdout is piped");
    let mut address = String::new();
    std::io::BufReader::new(stdout).read_line(&mut address)?;
    Ok(Started { address: address.trim().to_owned(), child })
}

async fn channels(address: &str, state: &Path) -> anyhow::Result<Vec<Channel>> {
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(certificates(state, "ca", "pem")))
        .identity(Identity::from_pem(certificates(state, "app", "pem"), certificates(state, "app", "key")));
    let endpoint = Endpoint::from_shared(format!("https://{address}"))?.tls_config(tls)?.tcp_nodelay(true);
    let mut channels = Vec::new();
    for _ in 0..CHANNELS {
        channels.push(endpoint.connect().await?);
    }
    Ok(channels)
}

/// How the real service is asked for data keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// One call each.
    Single,
    /// A hundred in one batch.
    Batch,
    /// Over streams.
    Stream,
}

fn data_key_request() -> GenerateDataKeyRequest {
    GenerateDataKeyRequest {
        key: KEY.into(),
        context: vec![ContextPair { key: "file".into(), value: "bench".into() }],
        ..GenerateDataKeyRequest::default()
    }
}

fn item() -> v1::BatchItem {
    v1::BatchItem { item: Some(v1::batch_item::Item::GenerateDataKey(data_key_request())) }
}

fn check(result: Option<v1::BatchResult>) -> anyhow::Result<()> {
    match result.and_then(|result| result.result) {
        Some(v1::batch_result::Result::GenerateDataKey(made)) if made.plaintext.len() == 32 => Ok(()),
        other => anyhow::bail!("an item without a key: {other:?}"),
    }
}

/// Data keys that were made within the measured part of one round, a second: by so many callers, in one way.
async fn round_of(way: Way, channels: &[Channel], callers: usize) -> anyhow::Result<u64> {
    let (count, is_over, is_warm) =
        (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let mut tasks = tokio::task::JoinSet::new();
    for place in 0..callers {
        let mut client = CryptoClient::new(channels[place % channels.len()].clone());
        let (count, is_over, is_warm) = (count.clone(), is_over.clone(), is_warm.clone());
        let counted = move |number: usize| {
            if is_warm.load(Ordering::Relaxed) {
                count.fetch_add(number as u64, Ordering::Relaxed);
            }
        };
        tasks.spawn(async move {
            let stops = is_over.clone();
            match way {
                Way::Single => {
                    while !is_over.load(Ordering::Relaxed) {
                        let answer = client.generate_data_key(data_key_request()).await?.into_inner();
                        anyhow::ensure!(answer.plaintext.len() == 32, "an answer without a key");
                        counted(1);
                    }
                }
                Way::Batch => {
                    while !is_over.load(Ordering::Relaxed) {
                        let items = (0..100).map(|_| item()).collect();
                        let results = client.batch(v1::BatchRequest { items }).await?.into_inner().results;
                        counted(results.len());
                        results.into_iter().try_for_each(|result| check(Some(result)))?;
                    }
                }
                Way::Stream => {
                    let items = std::iter::from_fn(move || {
                        (!stops.load(Ordering::Relaxed)).then(|| v1::StreamItem { id: 0, item: Some(item()) })
                    });
                    let mut results = client.stream(tokio_stream::iter(items)).await?.into_inner();
                    while let Some(result) = results.message().await? {
                        check(result.result)?;
                        counted(1);
                    }
                }
            }
            Ok(())
        });
    }
    tokio::time::sleep(WARM_UP).await;
    is_warm.store(true, Ordering::Relaxed);
    let start = Instant::now();
    tokio::time::sleep(ROUND).await;
    let made = count.load(Ordering::Relaxed);
    let elapsed = start.elapsed();
    is_over.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok((made as f64 / elapsed.as_secs_f64()) as u64)
}

/// Batches and streams against single calls, by one caller and by many.
async fn measure_many(channels: &[Channel]) -> anyhow::Result<()> {
    let rows = [
        ("single calls of one caller", Way::Single, 1),
        ("batches of one caller", Way::Batch, 1),
        ("stream of one caller", Way::Stream, 1),
        ("single calls of many callers", Way::Single, IN_FLIGHT),
        ("batches of many callers", Way::Batch, CHANNELS),
        ("streams of many callers", Way::Stream, CHANNELS),
    ];
    let mut rates = vec![Vec::new(); rows.len()];
    for _ in 0..ROUNDS {
        for ((_, way, callers), rates) in rows.iter().zip(&mut rates) {
            rates.push(round_of(*way, channels, *callers).await?);
        }
    }
    for (place, (name, _, _)) in rows.iter().enumerate() {
        let single = median(&rates[place / 3 * 3]).max(1);
        let ratio = median(&rates[place]) as f64 / single as f64;
        println!("{name:30} {ratio:.2} of the single calls");
        println!("DEEP-RESULT {{\"measured\": \"{name}\", \"of_single\": {ratio:.3}, \"rounds\": {ROUNDS}}}");
    }
    Ok(())
}

fn median(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

async fn measure() -> anyhow::Result<()> {
    let deployment = Deployment::start(Options { suite: kms_core::suite::Suite::Intl, ..Options::default() });
    let state = deployment.state("");
    deployment.kms("admin", &["key", "create", KEY, "--spec", "aes-256", "--protection", "wrapped"]).done();
    let folder = tempfile::tempdir()?;
    let mut servers: Vec<(&str, Vec<Channel>, Vec<u64>)> = Vec::new();
    let mut children = Vec::new();
    for stage in Stage::ALL {
        let started = start(stage, &state, folder.path())?;
        servers.push((stage.name(), channels(&started.address, &state).await?, Vec::new()));
        children.push(started);
    }
    servers.push(("GenerateDataKey", channels(&deployment.address(), &state).await?, Vec::new()));
    for _ in 0..ROUNDS {
        for (_, channels, rates) in &mut servers {
            rates.push(round_of(Way::Single, channels, IN_FLIGHT).await?);
        }
    }
    let echo = median(&servers[0].2).max(1);
    for (name, _, rates) in &servers {
        let ratio = median(rates) as f64 / echo as f64;
        println!("{name:20} {ratio:.2} of the echo");
        println!(
            "DEEP-RESULT {{\"measured\": \"{name}\", \"of_echo\": {ratio:.3}, \"in_flight\": {IN_FLIGHT}, \"rounds\": {ROUNDS}}}"
        );
    }
    println!("the echo answered {echo} calls a second here; the ratios are what counts");
    measure_many(&servers[3].1).await?;
    let waited = unseal_to_first_answer(&deployment, &servers[3].1[0]).await?;
    println!("from the second valid share to the first answer: {waited} ms");
    println!("DEEP-RESULT {{\"measured\": \"second share to first answer\", \"milliseconds\": {waited}}}");
    Ok(())
}

/// Milliseconds between two records of the server's own log: the second share accepted, and the first data
/// key generated. A client asks every few milliseconds all the while.
async fn unseal_to_first_answer(deployment: &Deployment, channel: &Channel) -> anyhow::Result<u64> {
    deployment.kms("admin", &["seal"]).done();
    let mut rpc = kms_tests::Rpc::connect(deployment, "auditor").await;
    let size = rpc.system.get_status(v1::GetStatusRequest {}).await?.into_inner().log_size;
    let mut client = CryptoClient::new(channel.clone());
    let asking = tokio::spawn(async move {
        let request = GenerateDataKeyRequest { key: KEY.into(), ..GenerateDataKeyRequest::default() };
        while client.generate_data_key(request.clone()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    tokio::task::block_in_place(|| deployment.unseal());
    asking.await?;
    let request = v1::ListRecordsRequest { from_index: size, count_max: 10_000, ..Default::default() };
    let mut records = rpc.audit.list_records(request).await?.into_inner();
    let (mut second_share, mut first_answer) = (None, None);
    while let Some(listed) = records.message().await? {
        let record: Record = codec::open(&listed.body)?;
        let time = listed.time.map(|time| time.seconds * 1000 + i64::from(time.nanos) / 1_000_000);
        let is_share = record.details.iter().any(|one| one.name == "step" && one.value == "contribute");
        match (record.event.as_str(), record.outcome.as_str()) {
            ("ceremony.join", "done") if is_share => second_share = time,
            ("data_key.generate", "done") if first_answer.is_none() => first_answer = time,
            _ => {}
        }
    }
    let (Some(share), Some(answer)) = (second_share, first_answer) else {
        anyhow::bail!("the log does not show the unseal");
    };
    Ok(u64::try_from(answer - share)?)
}

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [_, "serve", stage, state, folder] => {
            let stage = Stage::ALL.into_iter().find(|one| one.name() == *stage);
            let stage = stage.ok_or_else(|| anyhow::anyhow!("no such stage"))?;
            runtime.block_on(serve(stage, state.into(), folder.into()))
        }
        _ => runtime.block_on(measure()),
    }
}
