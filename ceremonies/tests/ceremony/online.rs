//! The custodian's side of `kms.v1.Ceremony.Join`, against a node that a script plays.

use crate::scene::Scene;
use crate::worker::{participant, passphrases};
use ceremonies::clock;
use ceremonies::online::{JoinError, join};
use ceremonies::random::os_rng;
use kms_core::asymmetric::{PrivateKey, Signature};
use kms_core::ceremony::{
    CeremonyKind, Collector, Contribution, Offer, Purpose, SignedOffer, StreamId, service_start_digest,
};
use kms_core::codec::{self, VersionOne};
use kms_core::id::UnixMillis;
use kms_core::suite::Suite;
use kms_proto::v1::ceremony_server::{Ceremony, CeremonyServer};
use kms_proto::v1::join_event::Event;
use kms_proto::v1::join_request::Message;
use kms_proto::v1::{CeremonyProgress, CeremonyResult, JoinEvent, JoinRequest};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Channel, Server};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt};

/// How the played node behaves.
#[derive(Clone, Copy, PartialEq)]
enum Play {
    /// As it should.
    Honest,
    /// The offer is signed by somebody else.
    Forged,
    /// Nobody else ever comes.
    Alone,
    /// It offers twice.
    Twice,
    /// It gives a result without an offer.
    Hasty,
    /// It refuses the custodian.
    Locked,
}

struct Node {
    scene: Arc<Scene>,
    play: Play,
    /// What the custodian sent after `begin`.
    heard: Arc<Mutex<Vec<String>>>,
}

#[tonic::async_trait]
impl Ceremony for Node {
    type JoinStream = ReceiverStream<Result<JoinEvent, Status>>;

    async fn join(
        &self,
        request: Request<Streaming<JoinRequest>>,
    ) -> Result<Response<Self::JoinStream>, Status> {
        if self.play == Play::Locked {
            let details = ErrorDetails::with_error_info("CUSTODIAN_LOCKED", "kms", HashMap::new());
            return Err(Status::with_error_details(
                Code::FailedPrecondition,
                "locked for 30 minutes",
                details,
            ));
        }
        let (sender, events) = mpsc::channel(8);
        let (scene, play, heard) = (self.scene.clone(), self.play, self.heard.clone());
        tokio::spawn(async move {
            // The script ends when the custodian goes.
            let _ = script(&scene, play, &heard, request.into_inner(), sender).await;
        });
        Ok(Response::new(ReceiverStream::new(events)))
    }
}

async fn script(
    scene: &Scene,
    play: Play,
    heard: &Mutex<Vec<String>>,
    mut requests: Streaming<JoinRequest>,
    events: mpsc::Sender<Result<JoinEvent, Status>>,
) -> Option<()> {
    let Some(Message::Begin(begin)) = requests.message().await.ok()??.message else { return None };
    let bundle = scene.bundle().bundle;
    let operation = service_start_digest(&bundle, &scene.node());
    let one_time_key = PrivateKey::generate(scene.suite, &mut os_rng());
    let offer = Offer {
        version: VersionOne,
        cluster_id: bundle.cluster_id,
        ceremony_id: [1; 16],
        kind: CeremonyKind::ServiceStart,
        share_epoch: 1,
        nonce: [2; 32],
        expires: UnixMillis(clock::now().0 + 60_000),
        one_time_key: one_time_key.public_key(),
        operation,
        node: scene.node(),
        custodian: kms_core::id::CustodianName::parse(&begin.custodian).ok()?,
    };
    let mut signed = SignedOffer::sign(&offer, &scene.node_key, &mut os_rng());
    if play == Play::Forged {
        signed.signature = Signature([3; 64]);
    }
    let send = async |event| events.send(Ok(JoinEvent { event: Some(event) })).await.ok();
    let result = CeremonyResult { signature: Vec::new(), present: vec!["alice".into(), "bob".into()] };
    if play == Play::Hasty {
        send(Event::Result(result.clone())).await?;
    }
    send(Event::Offer(codec::to_bytes(&signed))).await?;
    let contribution = match requests.message().await.ok()??.message? {
        Message::Contribution(bytes) => bytes,
        Message::Decline(reason) => {
            heard.lock().expect("not poisoned").push(format!("decline {reason}"));
            return None;
        }
        Message::Begin(_) => return None,
    };
    let contribution: Contribution = codec::open(&contribution).ok()?;
    let mut collector = Collector::new(bundle, CeremonyKind::ServiceStart, [1; 16], operation, one_time_key);
    let accepted = collector.contribute(StreamId(1), &signed, &contribution, clock::now());
    heard.lock().expect("not poisoned").push(format!("contribution {accepted:?}"));
    if play == Play::Twice {
        send(Event::Offer(codec::to_bytes(&signed))).await?;
        if let Ok(Some(request)) = requests.message().await {
            heard.lock().expect("not poisoned").push(format!("and {:?}", request.message.is_some()));
        }
        return None;
    }
    let progress = CeremonyProgress { threshold: 2, present: vec!["alice".into()], expires: None };
    send(Event::Progress(progress)).await?;
    if play == Play::Alone {
        events.closed().await;
        return None;
    }
    send(Event::Result(result)).await
}

/// Alice joins a node that plays `play`. Gives her result and what the node heard.
async fn alice_meets(
    scene: &Arc<Scene>,
    play: Play,
    wait_seconds: Option<u64>,
) -> (Result<CeremonyResult, JoinError>, Vec<String>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let node = Node { scene: scene.clone(), play, heard: heard.clone() };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("is bound");
    let server = tokio::spawn(
        Server::builder()
            .add_service(CeremonyServer::new(node))
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    let channel =
        Channel::from_shared(format!("http://{address}")).expect("a URI").connect().await.expect("connects");
    let purpose = Purpose { kind: CeremonyKind::ServiceStart, operation: None };
    let alice = participant(scene, "alice");
    let result = join(channel, &alice, &passphrases("alice"), purpose, wait_seconds).await;
    server.abort();
    let heard = heard.lock().expect("not poisoned").clone();
    (result, heard)
}

#[test]
fn a_custodian_answers_one_offer_that_her_node_signed_and_nothing_else() {
    let scene = Arc::new(Scene::accepted(Suite::Sm));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("starts");
    let meet = |play, wait| runtime.block_on(alice_meets(&scene, play, wait));
    let accepted = "contribution Ok(CustodianName(\"alice\"))";

    let (result, heard) = meet(Play::Forged, None);
    let error = result.expect_err("nobody of the bundle signed the offer");
    assert_eq!(error.exit_code(), 9);
    assert!(matches!(error, JoinError::Answer(_)), "{error:?}");
    assert_eq!(heard, ["decline OFFER_FORGED"]);

    let (result, heard) = meet(Play::Hasty, None);
    assert!(matches!(result, Err(JoinError::Broken { .. })), "{result:?}");
    assert!(heard.is_empty(), "{heard:?}");

    let (result, heard) = meet(Play::Twice, None);
    assert!(matches!(result, Err(JoinError::Broken { .. })), "{result:?}");
    assert_eq!(heard, [accepted]);

    let (result, _) = meet(Play::Locked, None);
    let error = result.expect_err("the node refuses");
    assert_eq!(
        (error.exit_code(), error.to_string().as_str()),
        (9, "locked for 30 minutes (CUSTODIAN_LOCKED)")
    );

    let (result, heard) = meet(Play::Alone, Some(1));
    let error = result.expect_err("nobody else comes");
    assert_eq!(error.exit_code(), 9);
    assert!(error.to_string().starts_with("1 of 2 present after 1 seconds"), "{error}");
    assert_eq!(heard, [accepted]);

    let (result, heard) = meet(Play::Honest, Some(60));
    assert_eq!(result.expect("the quorum came").present, ["alice", "bob"]);
    assert_eq!(heard, [accepted]);
}
