//! Translation between gRPC and the use cases, and nothing else.

mod audit;
mod ceremony;
mod convert;
mod crypto;
mod csr;
mod data_keys;
mod identity;
mod items;
mod keys;
mod recipient;
mod status;
mod stream;
mod system;

pub use identity::principal_of;
pub use status::code;

use crate::service::{Caller, Node, ServiceError};
use kms_core::policy::Action;
use kms_core::reason::Reason;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};
use tracing::Instrument;

/// Where a listener's calls enter: who calls, how many at a time, how long.
#[derive(Clone, Debug)]
pub struct Gate {
    node: Arc<Node>,
    calls: Arc<Semaphore>,
    /// Items of batches and streams that run at the same time. Apart from the calls: an item that waited for a place
    /// which its own batch holds would wait for ever.
    items: Arc<Semaphore>,
    is_administration: bool,
    /// Whether the server ends: then no stream reads on.
    stopped: watch::Receiver<bool>,
}

/// Which part of the interface a listener offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Crypto, DescribeKey, GetDataKey, DescribeDataKey, status.
    Applications,
    /// Keys, DataKeys, Audit, System, Ceremony.
    Administration,
    /// Both on one address.
    All,
}

fn overloaded() -> ServiceError {
    ServiceError::new(Reason::Overloaded, "too many calls run on this listener")
        .retry_after(Duration::from_millis(100))
}

impl Gate {
    /// The gate of one listener.
    pub fn new(node: Arc<Node>, offer: Offer, stopped: watch::Receiver<bool>) -> Self {
        let places = || Arc::new(Semaphore::new(node.config.limits.calls));
        let (calls, items) = (places(), places());
        Self { node, calls, items, is_administration: offer != Offer::Applications, stopped }
    }

    /// The longest time of one call, or of one item of a stream.
    fn call_time(&self) -> Duration {
        Duration::from_secs(self.node.config.limits.call_seconds)
    }

    /// Who calls. A stranger is noted and refused.
    fn caller<T>(&self, request: &Request<T>) -> Result<Caller, (ServiceError, String)> {
        let request_id = uuid::Uuid::now_v7().to_string();
        let certificates = request.peer_certs();
        let leaf = certificates.as_ref().and_then(|chain| chain.first());
        let principal = match leaf {
            Some(leaf) => principal_of(leaf),
            None => Err("a call without a certificate".to_owned()),
        };
        let principal = match principal {
            Ok(principal) if self.node.bundle.principals.contains(&principal) => Ok(principal),
            Ok(principal) => Err(principal.to_uri()),
            Err(name) => Err(name),
        };
        match principal {
            Ok(principal) => {
                let longest = self.call_time();
                let asked = grpc_timeout(request).unwrap_or(longest);
                Ok(Caller { principal, request_id, deadline: Instant::now() + asked.min(longest) })
            }
            Err(name) => {
                self.node.note_stranger(&name);
                let message = format!("{name} is not a principal of this deployment's bundle");
                Err((ServiceError::new(Reason::PrincipalUnknown, message), request_id))
            }
        }
    }

    /// One unary call: identity, limits, the use case, metrics, and the request id on the way back.
    async fn call<M, T, F, R>(
        &self,
        method: &'static str,
        action: Action,
        request: Request<M>,
        run: F,
    ) -> Result<Response<T>, Status>
    where
        M: Send + 'static,
        T: Send + 'static,
        F: FnOnce(Arc<Node>, Caller, M) -> R,
        R: Future<Output = Result<T, ServiceError>> + Send + 'static,
    {
        let start = Instant::now();
        let (result, request_id) = match self.caller(&request) {
            Err((error, request_id)) => (Err(error), request_id),
            Ok(caller) => {
                let request_id = caller.request_id.clone();
                let result = match self.calls.clone().try_acquire_owned() {
                    Err(_) => Err(overloaded()),
                    Ok(place) => {
                        let work = run(self.node.clone(), caller.clone(), request.into_inner());
                        self.perform((method, action), caller, place, work).await
                    }
                };
                (result, request_id)
            }
        };
        self.answer(method, start, result, &request_id)
    }

    /// One use case in a task of its own, which gives its place back: a caller that goes away, or whose deadline
    /// passes, does not stop it half-way.
    async fn perform<T: Send + 'static>(
        &self,
        (method, action): (&'static str, Action),
        caller: Caller,
        place: OwnedSemaphorePermit,
        work: impl Future<Output = Result<T, ServiceError>> + Send + 'static,
    ) -> Result<T, ServiceError> {
        let span = tracing::info_span!(
            "call",
            method,
            request_id = caller.request_id,
            caller = %caller.principal
        );
        let deadline = tokio::time::Instant::from_std(caller.deadline);
        let node = self.node.clone();
        let work = async move { node.perform(&caller, action, work).await }.instrument(span);
        let task = tokio::spawn(async move {
            let result = work.await;
            drop(place);
            result
        });
        match tokio::time::timeout_at(deadline, task).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(ServiceError::new(Reason::Internal, "the call failed inside the server")),
            Err(_) => Err(ServiceError::new(
                Reason::DeadlineExceeded,
                "the call took longer than its deadline; whether it was done is in the audit log",
            )),
        }
    }

    fn count<T>(
        &self,
        method: &'static str,
        start: Instant,
        result: &Result<T, ServiceError>,
        request_id: &str,
    ) {
        let outcome = result.as_ref().map_or_else(|error| error.reason.name(), |_| "done");
        self.node.metrics.request(method, outcome, start.elapsed());
        tracing::debug!(method, outcome, request_id, "call ended");
    }

    fn answer<T>(
        &self,
        method: &'static str,
        start: Instant,
        result: Result<T, ServiceError>,
        request_id: &str,
    ) -> Result<Response<T>, Status> {
        self.count(method, start, &result, request_id);
        let id = MetadataValue::try_from(request_id).ok();
        match result {
            Ok(message) => {
                let mut response = Response::new(message);
                if let Some(id) = id {
                    response.metadata_mut().insert("x-request-id", id);
                }
                Ok(response)
            }
            Err(error) => Err(status::status(&error, request_id)),
        }
    }
}

/// The `grpc-timeout` header: up to eight digits and a unit.
fn grpc_timeout<T>(request: &Request<T>) -> Option<Duration> {
    let text = request.metadata().get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// The services of one listener.
pub fn routes(gate: &Gate, offer: Offer) -> tonic::service::Routes {
    use kms_proto::v1;
    let limit = gate.node.config.limits.message_bytes;
    macro_rules! limited {
        ($server:expr) => {
            $server.max_decoding_message_size(limit).max_encoding_message_size(limit)
        };
    }
    let mut routes = tonic::service::Routes::builder();
    routes
        .add_service(limited!(v1::keys_server::KeysServer::new(gate.clone())))
        .add_service(limited!(v1::data_keys_server::DataKeysServer::new(gate.clone())))
        .add_service(limited!(v1::system_server::SystemServer::new(gate.clone())));
    if offer != Offer::Administration {
        let crypto = v1::crypto_server::CryptoServer::new(gate.clone())
            .max_decoding_message_size(limit)
            .max_encoding_message_size(limit + items::ANSWERS_GROWTH_MAX);
        routes.add_service(crypto);
    }
    if offer != Offer::Applications {
        // Segments are as large as a batch.
        let audit = v1::audit_server::AuditServer::new(gate.clone())
            .max_decoding_message_size(limit)
            .max_encoding_message_size(4 << 20);
        routes
            .add_service(audit)
            .add_service(limited!(v1::ceremony_server::CeremonyServer::new(gate.clone())));
    }
    routes.routes()
}
