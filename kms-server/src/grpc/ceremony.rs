use super::{Gate, convert, status};
use crate::service::ServiceError;
use crate::service::ceremonies::{Event, Joining};
use kms_core::ceremony::CeremonyKind;
use kms_core::id::CustodianName;
use kms_core::policy::Action;
use kms_core::suite::Digest32;
use kms_proto::v1::{self, ceremony_server::Ceremony, join_request::Message};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Events that wait for a slow custodian.
const EVENTS_AHEAD: usize = 64;
/// Most messages after the first that are passed on.
const ANSWERS_MAX: usize = 2;
/// How long a new stream may take to say what it wants.
const BEGIN_MAX: Duration = Duration::from_secs(10);

type Answers = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::JoinEvent, Status>> + Send>>;

#[tonic::async_trait]
impl Ceremony for Gate {
    type JoinStream = Answers;

    async fn join(&self, request: Request<Streaming<v1::JoinRequest>>) -> Result<Response<Answers>, Status> {
        const METHOD: &str = "Ceremony.Join";
        let start = Instant::now();
        let caller = match self.caller(&request) {
            Ok(caller) => caller,
            Err((error, request_id)) => return self.answer(METHOD, start, Err(error), &request_id),
        };
        let request_id = caller.request_id.clone();
        let mut messages = request.into_inner();
        let (events, received) = mpsc::channel(EVENTS_AHEAD);
        let work = async {
            let first = tokio::time::timeout(BEGIN_MAX, messages.message()).await;
            let Ok(Ok(Some(v1::JoinRequest { message: Some(Message::Begin(begin)) }))) = first else {
                return Err(ServiceError::field("begin", "must be the first message of the stream"));
            };
            self.node.join_ceremony(&caller, joining(begin)?, events).await
        };
        let presence = match self.node.perform(&caller, Action::JoinCeremony, work).await {
            Ok(presence) => presence,
            Err(error) => return self.answer(METHOD, start, Err(error), &request_id),
        };
        tokio::spawn(async move {
            // The presence lives as long as the custodian's half of the stream: dropping it wipes the share.
            // One answer to the offer is all that a custodian has to say, and a second one is refused; who goes
            // on talking is not listened to, so that nobody fills the server's memory.
            for _ in 0..ANSWERS_MAX {
                let Ok(Some(message)) = messages.message().await else { return };
                match message.message {
                    Some(Message::Contribution(bytes)) => presence.contribute(bytes),
                    Some(Message::Decline(reason)) => presence.decline(reason),
                    Some(Message::Begin(_)) | None => return,
                }
            }
            let _ = messages.message().await;
        });
        let answers = ReceiverStream::new(received).map(move |event| match event {
            Ok(event) => Ok(translate(event)),
            Err(error) => Err(status::status(&error, &request_id)),
        });
        self.node.metrics.request(METHOD, "done", start.elapsed());
        Ok(Response::new(Box::pin(answers)))
    }
}

fn joining(begin: v1::JoinBegin) -> Result<Joining, ServiceError> {
    let kind = match v1::CeremonyKind::try_from(begin.kind) {
        Ok(v1::CeremonyKind::ServiceStart) => CeremonyKind::ServiceStart,
        Ok(v1::CeremonyKind::CoreSign) => CeremonyKind::CoreSign,
        Ok(v1::CeremonyKind::Unspecified) | Err(_) => {
            return Err(ServiceError::field("kind", "must be service start or core sign"));
        }
    };
    let custodian =
        CustodianName::parse(&begin.custodian).map_err(|error| ServiceError::field("custodian", error))?;
    let operation = match begin.operation.len() {
        0 => None,
        _ => {
            let bytes = begin.operation.try_into();
            Some(Digest32(bytes.map_err(|_| ServiceError::field("operation", "must be 32 bytes or empty"))?))
        }
    };
    Ok(Joining { kind, custodian, operation })
}

fn translate(event: Event) -> v1::JoinEvent {
    use v1::join_event::Event as Proto;
    let names = |present: Vec<CustodianName>| present.iter().map(CustodianName::to_string).collect();
    let event = match event {
        Event::Offer(bytes) => Proto::Offer(bytes),
        Event::Progress { threshold, present, expires } => Proto::Progress(v1::CeremonyProgress {
            threshold: threshold.into(),
            present: names(present),
            expires: Some(convert::timestamp(expires)),
        }),
        Event::Result { signature, present } => Proto::Result(v1::CeremonyResult {
            signature: signature.map(|signature| signature.0.to_vec()).unwrap_or_default(),
            present: names(present),
        }),
    };
    v1::JoinEvent { event: Some(event) }
}
