use super::{Gate, convert, overloaded, status};
use crate::service::audit::{Exported, Filter, READ_AHEAD};
use crate::service::{Caller, Node, ServiceError};
use kms_core::audit::Leaf;
use kms_core::policy::Action;
use kms_core::suite::Digest32;
use kms_proto::v1::{self, audit_server::Audit};
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

const COUNT_DEFAULT: u32 = 1000;
const COUNT_MAX: u32 = 10_000;

type Answers<T> = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

impl Gate {
    /// A call that answers with a stream: the use case runs in a task and feeds it.
    fn stream<M, I, T, F, R>(
        &self,
        method: &'static str,
        request: Request<M>,
        run: F,
        translate: fn(I) -> T,
    ) -> Result<Response<Answers<T>>, Status>
    where
        I: Send + 'static,
        T: Send + 'static,
        F: FnOnce(Arc<Node>, Caller, M, mpsc::Sender<Result<I, ServiceError>>) -> R,
        R: Future<Output = Result<(), ServiceError>> + Send + 'static,
    {
        let start = Instant::now();
        let caller = match self.caller(&request) {
            Ok(caller) => caller,
            Err((error, request_id)) => return self.answer(method, start, Err(error), &request_id),
        };
        let request_id = caller.request_id.clone();
        let Ok(permit) = self.calls.clone().try_acquire_owned() else {
            return self.answer(method, start, Err(overloaded()), &request_id);
        };
        let (sender, receiver) = mpsc::channel(READ_AHEAD);
        let work = run(self.node.clone(), caller.clone(), request.into_inner(), sender.clone());
        let node = self.node.clone();
        tokio::spawn(async move {
            let result = node.perform(&caller, Action::ReadAudit, work).await;
            let outcome = result.as_ref().map_or_else(|error| error.reason.name(), |()| "done");
            node.metrics.request(method, outcome, start.elapsed());
            if let Err(error) = result {
                let _ = sender.send(Err(error)).await;
            }
            drop(permit);
        });
        let id = request_id.clone();
        let answers = ReceiverStream::new(receiver)
            .map(move |item| item.map(translate).map_err(|error| status::status(&error, &id)));
        let mut response = Response::new(Box::pin(answers) as Answers<T>);
        if let Ok(id) = request_id.parse() {
            response.metadata_mut().insert("x-request-id", id);
        }
        Ok(response)
    }
}

#[tonic::async_trait]
impl Audit for Gate {
    type ListRecordsStream = Answers<v1::AuditRecord>;
    type ExportStream = Answers<v1::ExportFrame>;

    async fn list_records(
        &self,
        request: Request<v1::ListRecordsRequest>,
    ) -> Result<Response<Self::ListRecordsStream>, Status> {
        self.stream(
            "Audit.ListRecords",
            request,
            |node, caller, message, out| async move {
                let key = match message.key.as_str() {
                    "" => None,
                    text => Some(convert::key_selector("key", text)?),
                };
                let count_max = match message.count_max {
                    0 => COUNT_DEFAULT,
                    count if count <= COUNT_MAX => count,
                    count => {
                        let error = format!("is {count}; at most {COUNT_MAX} are allowed");
                        return Err(ServiceError::field("count_max", error));
                    }
                };
                // Nothing has so great an index; the database could not even compare it.
                if i64::try_from(message.from_index).is_err() {
                    return Err(ServiceError::field("from_index", "is beyond any log"));
                }
                let filter = Filter {
                    key,
                    actor: (!message.actor.is_empty()).then_some(message.actor),
                    since: message.since.as_ref().map(convert::millis),
                    from_index: message.from_index,
                    count_max,
                    follow: message.follow,
                };
                node.list_records(&caller, &filter, &out).await
            },
            |leaf: Leaf| v1::AuditRecord {
                index: leaf.index,
                time: Some(convert::timestamp(leaf.time)),
                body: leaf.body,
            },
        )
    }

    async fn show_record(
        &self,
        request: Request<v1::ShowRecordRequest>,
    ) -> Result<Response<v1::ShowRecordResponse>, Status> {
        self.call("Audit.ShowRecord", Action::ReadAudit, request, |node, caller, message| async move {
            let shown = node.show_record(&caller, message.index).await?;
            let mut leaf = Vec::new();
            shown.leaf.write(&mut leaf);
            let bytes = |digest: &Digest32| digest.0.to_vec();
            Ok(v1::ShowRecordResponse {
                leaf,
                inclusion_proof: shown.proof.iter().map(bytes).collect(),
                tree_size: shown.size,
                root: bytes(&shown.root),
                head: shown.last.head,
                head_signature: shown.last.signature.0.to_vec(),
            })
        })
        .await
    }

    async fn export(
        &self,
        request: Request<v1::ExportRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        self.stream(
            "Audit.Export",
            request,
            |node, caller, _, out| async move { node.export(&caller, &out).await },
            |frame: Exported| {
                use v1::export_frame::Frame;
                let frame = match frame {
                    Exported::Checkpoint(bytes) => Frame::Checkpoint(bytes),
                    Exported::Segment(bytes) => Frame::Segment(bytes),
                };
                v1::ExportFrame { frame: Some(frame) }
            },
        )
    }
}
