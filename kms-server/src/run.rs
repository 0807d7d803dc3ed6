//! Starting and ending a server: everything is checked before anything listens.

use crate::config::{Config, ConfigError, read_private, read_public};
use crate::grpc::{Gate, Offer, principal_of, routes};
use crate::service::{Node, NodeParts, SealCause};
use crate::store::{Database, DatabaseError};
use kms_core::asymmetric::PrivateKey;
use kms_core::bundle::{Bundle, BundleError, SignedBundle};
use kms_core::codec::{self, CodecError};
use kms_core::node_key::NodeKeyFile;
use kms_hsm::{HsmModule, ModuleError, ProfileChoice};
use std::fs::File;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_rustls::rustls;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::{Connected, TcpConnectInfo};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

/// Why a server does not start. Nothing was created and nothing listens.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration or a file that it names.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Another server uses the same folder.
    #[error("{path} is locked by another kms-server; stop it first, or give this one its own state_dir")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The state folder cannot be used.
    #[error("state_dir {path} cannot be used")]
    StateDir {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file in armour is not what it should be.
    #[error("{what} {path}")]
    File {
        /// Which file.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: CodecError,
    },
    /// The bundle is refused.
    #[error("bundle {path} is refused")]
    Bundle {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: BundleError,
    },
    /// The node key is not the one in the bundle.
    #[error(
        "node_key is not the key of node {node} in the bundle; use the key that the plan named, or correct `node`"
    )]
    NodeKey {
        /// The configured name.
        node: String,
    },
    /// The TLS files are unusable.
    #[error("the certificates under [tls] cannot be used: {message}")]
    Tls {
        /// What the TLS library says.
        message: String,
    },
    /// The HSM cannot be used.
    #[error("the HSM cannot be used")]
    Hsm(#[from] ModuleError),
    /// The database cannot be used.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}; another program may use the port, choose another under [listen]")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A running listener failed.
    #[error("a listener failed")]
    Serve(#[source] tonic::transport::Error),
}

/// The bundle of a configuration, verified.
#[derive(Debug)]
pub struct LoadedBundle {
    /// The signed form.
    pub signed: SignedBundle,
    /// The contents.
    pub bundle: Bundle,
}

/// Reads and verifies a bundle file.
///
/// # Errors
/// [`StartError`] names file and fault.
pub fn load_bundle(path: &std::path::Path) -> Result<LoadedBundle, StartError> {
    let text = read_public("the bundle", path)?;
    let signed: SignedBundle = codec::open_armour(&text).map_err(|source| StartError::File {
        what: "the bundle",
        path: path.to_owned(),
        source,
    })?;
    let bundle = signed.verify().map_err(|source| StartError::Bundle { path: path.to_owned(), source })?;
    Ok(LoadedBundle { signed, bundle })
}

fn load_node_key(config: &Config, bundle: &Bundle) -> Result<PrivateKey, StartError> {
    let text = zeroize::Zeroizing::new(read_private("the node key", &config.node_key)?);
    let file: NodeKeyFile = codec::open_armour(&text).map_err(|source| StartError::File {
        what: "the node key",
        path: config.node_key.clone(),
        source,
    })?;
    let foreign = || StartError::NodeKey { node: config.node.clone() };
    let key = file.key().ok_or_else(foreign)?;
    let name = config.node_name().map_err(|_| foreign())?;
    let listed = bundle.node(&name).ok_or_else(foreign)?;
    if listed.key != key.public_key() {
        return Err(foreign());
    }
    Ok(key)
}

struct TlsFiles {
    certificate: Vec<u8>,
    key: zeroize::Zeroizing<Vec<u8>>,
    client_ca: Vec<u8>,
}

impl TlsFiles {
    fn load(config: &Config) -> Result<Self, StartError> {
        let files = Self {
            certificate: read_public("tls.certificate", &config.tls.certificate)?,
            key: zeroize::Zeroizing::new(read_private("tls.key", &config.tls.key)?),
            client_ca: read_public("tls.client_ca", &config.tls.client_ca)?,
        };
        // Built once here so that a wrong file is found before anything listens.
        files.rustls()?;
        Ok(files)
    }

    fn tonic(&self) -> ServerTlsConfig {
        ServerTlsConfig::new()
            .identity(Identity::from_pem(&self.certificate, &*self.key))
            .client_ca_root(Certificate::from_pem(&self.client_ca))
            .client_auth_optional(false)
    }

    fn rustls(&self) -> Result<rustls::ServerConfig, StartError> {
        use rustls::pki_types::pem::PemObject;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        use rustls::server::WebPkiClientVerifier;
        fn refuse(error: impl std::fmt::Display) -> StartError {
            StartError::Tls { message: error.to_string() }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&self.client_ca) {
            roots.add(certificate.map_err(refuse)?).map_err(refuse)?;
        }
        if roots.is_empty() {
            return Err(refuse("client_ca holds no certificate"));
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .map_err(refuse)?;
        let chain = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<Vec<_>, _>>()
            .map_err(refuse)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(refuse)?;
        rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(refuse)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(refuse)
    }
}

fn lock_state(config: &Config) -> Result<File, StartError> {
    let state_dir = |source| StartError::StateDir { path: config.state_dir.clone(), source };
    let path = config.state_dir.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(state_dir)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(StartError::Locked { path }),
        Err(std::fs::TryLockError::Error(source)) => Err(state_dir(source)),
    }
}

/// Checks what `check-config` can check without an HSM, a database or a port.
///
/// # Errors
/// [`StartError`] names the first fault.
pub fn check(config: &Config) -> Result<LoadedBundle, StartError> {
    let loaded = load_bundle(&config.bundle)?;
    load_node_key(config, &loaded.bundle)?;
    TlsFiles::load(config)?;
    ProfileChoice::from_name(&config.hsm.profile)?;
    Ok(loaded)
}

/// Creates the database of a deployment, exclusively.
///
/// # Errors
/// [`StartError`]; whatever exists already is left as it is.
pub async fn init(config: &Config, bundle: &std::path::Path) -> Result<LoadedBundle, StartError> {
    let loaded = load_bundle(bundle)?;
    let database = Database::create(&config.database.url, &loaded.signed, &loaded.bundle).await?;
    database.close().await;
    Ok(loaded)
}

/// Runs a server until `shutdown` completes, then drains, seals and ends.
///
/// `listening` is called once every address is bound.
///
/// # Errors
/// [`StartError`].
pub async fn serve(
    config: Config,
    listening: impl FnOnce(&Arc<Node>),
    shutdown: impl Future<Output = ()>,
) -> Result<(), StartError> {
    let _lock = lock_state(&config)?;
    let loaded = load_bundle(&config.bundle)?;
    let node_key = load_node_key(&config, &loaded.bundle)?;
    let tls = TlsFiles::load(&config)?;
    let module = HsmModule::open(&config.hsm.module, ProfileChoice::from_name(&config.hsm.profile)?)?;
    let operations = &loaded.bundle.operations;
    module.find_token_with_serial(&operations.label, &operations.serial)?;
    let database = Database::open(&config.database.url, &loaded.bundle).await?;
    let parts = NodeParts {
        fingerprint: loaded.signed.fingerprint(loaded.bundle.suite),
        signed_bundle: codec::to_bytes(&loaded.signed),
        name: node_key_name(&config),
        bundle: loaded.bundle,
        node_key,
        database: database.clone(),
        module,
        config,
    };
    let served = serve_node(parts, &tls, listening, shutdown).await;
    // Also after a refusal: SQLite's files beside the database go with its last connection.
    database.close().await;
    served?;
    tracing::info!("ended");
    Ok(())
}

/// Listens, serves until `shutdown` completes, drains and seals.
async fn serve_node(
    parts: NodeParts,
    tls: &TlsFiles,
    listening: impl FnOnce(&Arc<Node>),
    shutdown: impl Future<Output = ()>,
) -> Result<(), StartError> {
    let listen = &parts.config.listen;
    let (applications, administration) = (listen.applications, listen.administration);
    let mut listeners = if applications == administration {
        vec![(bind(applications).await?, Offer::All)]
    } else {
        vec![
            (bind(applications).await?, Offer::Applications),
            (bind(administration).await?, Offer::Administration),
        ]
    };
    let metrics = match listen.metrics {
        Some(address) => Some((bind(address).await?, tls.rustls()?)),
        None => None,
    };

    let drain = Duration::from_secs(parts.config.limits.drain_seconds);
    let node = Node::start(parts);
    let (stop, stopped) = watch::channel(false);
    let mut running = tokio::task::JoinSet::new();
    for (listener, offer) in listeners.drain(..) {
        running.spawn(serve_grpc(node.clone(), listener, offer, tls.tonic(), stopped.clone()));
    }
    if let Some((listener, tls)) = metrics {
        tokio::spawn(serve_metrics(node.clone(), listener, tls));
    }
    tokio::spawn(node.clone().watch_strangers());
    tracing::info!(%applications, %administration, "listening; sealed until a quorum of custodians opens it");
    listening(&node);

    shutdown.await;
    tracing::info!("ending: no new calls, waiting for running ones");
    stop.send_replace(true);
    let drained = tokio::time::timeout(drain, async {
        while let Some(ended) = running.join_next().await {
            if let Ok(Err(error)) = ended {
                tracing::error!(error = %crate::chain(&error), "a listener failed");
            }
        }
    })
    .await;
    if drained.is_err() {
        tracing::warn!("calls were still running after drain_seconds; they are cut off");
        running.abort_all();
    }
    node.seal(SealCause::Shutdown).await;
    node.record_strangers().await;
    Ok(())
}

fn node_key_name(config: &Config) -> kms_core::id::NodeName {
    config.node_name().expect("the name was checked when the configuration was loaded")
}

async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })
}

async fn serve_grpc(
    node: Arc<Node>,
    listener: TcpListener,
    offer: Offer,
    tls: ServerTlsConfig,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), StartError> {
    let gate = Gate::new(node.clone(), offer, stopped.clone());
    let (reporter, health) = tonic_health::server::health_reporter();
    let follows = tokio::spawn(follow_seal_state(node.clone(), reporter));
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(kms_proto::v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the descriptors were made by this build");
    let connections = accept(listener, node.config.limits.connections);
    let served = Server::builder()
        .tls_config(tls)
        .map_err(StartError::Serve)?
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .max_concurrent_streams(256)
        .http2_max_header_list_size(16 * 1024)
        .add_routes(routes(&gate, offer))
        .add_service(health)
        .add_service(reflection)
        .serve_with_incoming_shutdown(connections, async move {
            // An error means that the sender is gone: the same as being stopped.
            let _ = stopped.wait_for(|is_stopped| *is_stopped).await;
        })
        .await
        .map_err(StartError::Serve);
    follows.abort();
    served
}

/// The gRPC health service says for `kms.v1.Crypto` whether keys can be used, and for the server whether it runs.
async fn follow_seal_state(node: Arc<Node>, reporter: tonic_health::server::HealthReporter) {
    use tonic_health::ServingStatus;
    reporter.set_service_status("", ServingStatus::Serving).await;
    loop {
        let status = match node.opened() {
            Some(_) => ServingStatus::Serving,
            None => ServingStatus::NotServing,
        };
        reporter.set_service_status("kms.v1.Crypto", status).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A connection that gives its place back when it closes.
struct Counted {
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
}

/// Accepts at most `count_max` connections at a time; more wait in the system's queue.
fn accept(listener: TcpListener, count_max: usize) -> ReceiverStream<std::io::Result<Counted>> {
    let (sender, receiver) = mpsc::channel(16);
    let places = Arc::new(Semaphore::new(count_max));
    tokio::spawn(async move {
        loop {
            let place = tokio::select! {
                place = places.clone().acquire_owned() => place,
                // With every place taken too: the port closes when serving ends, and nobody waits in its queue.
                () = sender.closed() => return,
            };
            let Ok(place) = place else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = sender.closed() => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    // tonic sets this only on connections that it accepts itself. Without it the end of an answer of
                    // several segments waits for the client's delayed acknowledgement: 40 ms. It may be closed already.
                    let _ = stream.set_nodelay(true);
                    if sender.send(Ok(Counted { stream, _place: place })).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    // Out of file descriptors, most likely: wait instead of spinning.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    });
    ReceiverStream::new(receiver)
}

impl Connected for Counted {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// `GET /metrics` over mutual TLS, for any principal of the bundle.
async fn serve_metrics(node: Arc<Node>, listener: TcpListener, tls: rustls::ServerConfig) {
    use http_body_util::Full;
    use hyper::body::{Bytes, Incoming};
    use hyper::service::service_fn;
    use hyper::{Request, Response, StatusCode};
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let places = Arc::new(Semaphore::new(16));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (node, acceptor) = (node.clone(), acceptor.clone());
        tokio::spawn(async move {
            let _place = place;
            let accepted = tokio::time::timeout(Duration::from_secs(10), acceptor.accept(stream)).await;
            let Ok(Ok(stream)) = accepted else { return };
            let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            let principal = leaf.map(|leaf| principal_of(leaf));
            let is_known =
                matches!(principal, Some(Ok(principal)) if node.bundle.principals.contains(&principal));
            let service = service_fn(move |request: Request<Incoming>| {
                let (status, body) = match (is_known, request.uri().path()) {
                    (false, _) => (StatusCode::FORBIDDEN, Vec::new()),
                    (true, "/metrics") => (StatusCode::OK, node.metrics.to_text()),
                    (true, _) => (StatusCode::NOT_FOUND, Vec::new()),
                };
                let mut response = Response::new(Full::new(Bytes::from(body)));
                *response.status_mut() = status;
                std::future::ready(Ok::<_, std::convert::Infallible>(response))
            });
            let io = hyper_util::rt::TokioIo::new(stream);
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
        });
    }
}
