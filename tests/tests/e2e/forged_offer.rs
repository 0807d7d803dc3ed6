//! Somebody between a custodian and the node, with the server's own certificate, who wants the share.

use kms_core::asymmetric::PrivateKey;
use kms_core::ceremony::{Offer, SignedOffer};
use kms_core::codec;
use kms_proto::v1;
use kms_proto::v1::ceremony_server::{Ceremony, CeremonyServer};
use kms_proto::v1::join_event::Event;
use kms_server::random::system_rng;
use kms_tests::rpc::ClientCertificate;
use kms_tests::{Deployment, Options, PinWatch, Rpc, audit};
use std::fs;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

/// How the offer is changed.
#[derive(Clone, Copy, Debug)]
enum Forgery {
    /// Another one-time key under the node's old signature.
    KeptSignature,
    /// Another one-time key, signed by the proxy.
    OwnSignature,
}

/// Relays everything, and puts its own one-time key into every offer.
#[derive(Debug)]
struct Proxy {
    behind: Rpc,
    forgery: Forgery,
    key: PrivateKey,
    /// What custodians sent through it.
    heard: Arc<Mutex<Vec<v1::JoinRequest>>>,
}

impl Proxy {
    fn forge(&self, bytes: &[u8]) -> Vec<u8> {
        let mut signed: SignedOffer = codec::open(bytes).expect("the node's offer");
        let mut offer: Offer = codec::open(&signed.body).expect("the node's offer");
        offer.one_time_key = self.key.public_key();
        match self.forgery {
            Forgery::KeptSignature => signed.body = codec::to_bytes(&offer),
            Forgery::OwnSignature => signed = SignedOffer::sign(&offer, &self.key, &mut system_rng()),
        }
        codec::to_bytes(&signed)
    }
}

type Answers = Pin<Box<dyn Stream<Item = Result<v1::JoinEvent, Status>> + Send>>;

#[tonic::async_trait]
impl Ceremony for Proxy {
    type JoinStream = Answers;

    async fn join(&self, request: Request<Streaming<v1::JoinRequest>>) -> Result<Response<Answers>, Status> {
        let (sender, outgoing) = tokio::sync::mpsc::channel(8);
        let (mut incoming, heard) = (request.into_inner(), self.heard.clone());
        tokio::spawn(async move {
            while let Ok(Some(message)) = incoming.message().await {
                heard.lock().unwrap_or_else(PoisonError::into_inner).push(message.clone());
                if sender.send(message).await.is_err() {
                    return;
                }
            }
        });
        let outgoing = tokio_stream::wrappers::ReceiverStream::new(outgoing);
        let mut events = self.behind.ceremony.clone().join(outgoing).await?.into_inner();
        let first = events.message().await?;
        let Some(v1::JoinEvent { event: Some(Event::Offer(offer)) }) = first else {
            return Err(Status::internal("the node made no offer"));
        };
        let forged = v1::JoinEvent { event: Some(Event::Offer(self.forge(&offer))) };
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(forged)).chain(events))))
    }
}

async fn start(deployment: &Deployment, forgery: Forgery) -> (u16, Arc<Mutex<Vec<v1::JoinRequest>>>) {
    let heard = Arc::<Mutex<Vec<v1::JoinRequest>>>::default();
    let proxy = Proxy {
        behind: Rpc::connect(deployment, "custodian-1").await,
        forgery,
        key: PrivateKey::generate(deployment.options().suite, &mut system_rng()),
        heard: heard.clone(),
    };
    let server = ClientCertificate::of(deployment, "server");
    let authority = fs::read(deployment.state("certificates/ca.pem")).expect("the authority");
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(server.certificate, server.key))
        .client_ca_root(Certificate::from_pem(authority));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let serving = Server::builder()
        .tls_config(tls)
        .expect("the server's certificate")
        .add_service(CeremonyServer::new(proxy))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(serving);
    (port, heard)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_custodian_does_not_answer_an_offer_that_a_proxy_has_changed_and_the_node_hears_of_it() {
    let deployment = Deployment::start(Options { sealed: true, ..Options::default() });
    let pins = PinWatch::of(&deployment);
    for forgery in [Forgery::KeptSignature, Forgery::OwnSignature] {
        let (port, heard) = start(&deployment, forgery).await;
        let profile = fs::read_to_string(deployment.profile("custodian-1")).expect("a profile");
        let profile = profile.replace(&deployment.address(), &format!("127.0.0.1:{port}"));
        fs::write(deployment.state("profiles/proxied.toml"), profile).expect("writes");
        let mut arguments = deployment.as_custodian(&["unseal", "--wait", "20"], "custodian-1");
        let place = arguments.iter().position(|argument| argument == "--profile").expect("is there");
        arguments[place + 1] = deployment.profile("proxied").into();
        let tool = deployment.start_ceremony(&arguments);
        let finished = tokio::task::spawn_blocking(move || tool.finish()).await.expect("the tool ends");
        finished.ended_with(9).says("nothing was sent").says("is not signed by node node-1 of your bundle");

        let heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        use v1::join_request::Message;
        let is_contribution =
            |request: &v1::JoinRequest| matches!(request.message, Some(Message::Contribution(_)));
        assert!(!heard.iter().any(is_contribution), "no share passed the proxy");
        let is_decline = |request: &v1::JoinRequest| matches!(&request.message, Some(Message::Decline(reason)) if reason == "OFFER_FORGED");
        assert!(heard.iter().any(is_decline), "the tool said why");
        pins.no_attempt_was_spent();
    }
    deployment.unseal();
    pins.no_attempt_was_spent();
    let entries = audit::records_from(&deployment, 0).await;
    let declined = entries
        .iter()
        .filter(|entry| entry.is_refusal("OFFER_FORGED") && entry.detail("step") == Some("decline"));
    assert_eq!(declined.count(), 2, "the node recorded both");
    audit::verify(&deployment);
}
