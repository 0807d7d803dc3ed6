//! `Crypto.Stream`: items come, results go, and neither waits for the order of the other.

use super::items::caller_of_item;
use super::{Gate, overloaded, status};
use crate::service::{Caller, ServiceError};
use kms_core::policy::Action;
use kms_core::reason::Reason;
use kms_proto::v1;
use std::collections::VecDeque;
use std::pin::Pin;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};

/// Items of one stream that are under way, or whose results were not taken yet. One more is not read before: the
/// transport then holds the sender back.
const ITEMS_AHEAD: usize = 64;

pub type Results = Pin<Box<dyn Stream<Item = Result<v1::StreamResult, Status>> + Send>>;

impl Gate {
    /// Begins a stream: who calls is decided as for any call, and its place is taken for as long as the stream lives.
    pub(super) async fn open_stream(
        &self,
        request: Request<Streaming<v1::StreamItem>>,
    ) -> Result<Response<Results>, Status> {
        const METHOD: &str = "Crypto.Stream";
        let start = Instant::now();
        let caller = match self.caller(&request) {
            Ok(caller) => caller,
            Err((error, request_id)) => return self.answer(METHOD, start, Err(error), &request_id),
        };
        let request_id = caller.request_id.clone();
        let begun = match self.calls.clone().try_acquire_owned() {
            Err(_) => Err(overloaded()),
            // The unsealed state is not held: each item looks for it.
            Ok(place) => {
                let work = async { self.node.require_open().map(|_| place) };
                self.node.perform(&caller, Action::Batch, work).await
            }
        };
        let place = match begun {
            Ok(place) => place,
            Err(error) => return self.answer(METHOD, start, Err(error), &request_id),
        };
        self.count(METHOD, start, &Ok(()), &request_id);
        // One result at a time, and a place that is kept for the error with which a stream may end: an end without
        // one says that every item has its result.
        let (results, received) = mpsc::channel(2);
        let ending = results.clone().try_reserve_owned().expect("the channel is new and empty");
        let running = Running {
            gate: self.clone(),
            caller,
            items: JoinSet::new(),
            waiting: VecDeque::new(),
            item_count: 0,
            input: Input::Open,
            _place: place,
        };
        let messages = request.into_inner();
        tokio::spawn(async move {
            if let Err(status) = running.serve(messages, results).await {
                ending.send(Err(status));
            }
        });
        let mut response: Response<Results> = Response::new(Box::pin(ReceiverStream::new(received)));
        if let Ok(id) = MetadataValue::try_from(&request_id) {
            response.metadata_mut().insert("x-request-id", id);
        }
        Ok(response)
    }
}

/// A stream that is open.
struct Running {
    gate: Gate,
    caller: Caller,
    items: JoinSet<v1::StreamResult>,
    /// Results that the caller has not taken.
    waiting: VecDeque<v1::StreamResult>,
    item_count: u64,
    input: Input,
    _place: OwnedSemaphorePermit,
}

/// The caller's half of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Open,
    /// The caller has no more items.
    HalfClosed,
    /// The server ends and reads no more.
    Stopped,
}

/// What happens next on a stream.
enum Step {
    Item(v1::StreamItem),
    Input(Input),
    Ready(v1::StreamResult),
    Taken,
    /// The caller has gone.
    Left,
    Fails(Status),
}

impl Running {
    /// Serves the stream to its end. What was begun goes on and is recorded, also when nobody waits for it any more.
    async fn serve(
        mut self,
        mut messages: Streaming<v1::StreamItem>,
        results: mpsc::Sender<Result<v1::StreamResult, Status>>,
    ) -> Result<(), Status> {
        while self.input == Input::Open || !self.items.is_empty() || !self.waiting.is_empty() {
            match self.step(&mut messages, &results).await {
                Step::Item(item) => self.begin(item),
                Step::Input(input) => self.input = input,
                Step::Ready(result) => self.waiting.push_back(result),
                Step::Taken => {}
                Step::Left => return Ok(()),
                Step::Fails(status) => return Err(status),
            }
        }
        match self.input {
            Input::Stopped => {
                let message =
                    "this node ends; items without a result were not begun: send them to another node";
                Err(self.status(&ServiceError::new(Reason::Sealed, message)))
            }
            Input::Open | Input::HalfClosed => Ok(()),
        }
    }

    async fn step(
        &mut self,
        messages: &mut Streaming<v1::StreamItem>,
        results: &mpsc::Sender<Result<v1::StreamResult, Status>>,
    ) -> Step {
        let is_open = self.input == Input::Open;
        let has_room = self.items.len() + self.waiting.len() < ITEMS_AHEAD;
        let idle = Duration::from_secs(self.gate.node.config.limits.stream_idle_seconds);
        // Every branch can be given up and begun again without losing anything.
        tokio::select! {
            () = stops(&mut self.gate.stopped), if is_open => Step::Input(Input::Stopped),
            message = messages.message(), if is_open && has_room => match message {
                Ok(Some(item)) => Step::Item(item),
                Ok(None) => Step::Input(Input::HalfClosed),
                Err(status) => Step::Fails(status),
            },
            Some(ended) = self.items.join_next(), if !self.items.is_empty() => {
                Step::Ready(ended.expect("an item's result is only waited for"))
            }
            place = results.reserve(), if !self.waiting.is_empty() => match (place, self.waiting.pop_front()) {
                (Ok(place), Some(result)) => {
                    place.send(Ok(result));
                    Step::Taken
                }
                _ => Step::Left,
            },
            // Also while nothing is read.
            () = results.closed() => Step::Left,
            () = tokio::time::sleep(idle) => {
                let message = format!(
                    "nothing came and nothing was taken for {} s (limits.stream_idle_seconds of the configuration); begin a new stream",
                    idle.as_secs()
                );
                Step::Fails(self.status(&ServiceError::new(Reason::DeadlineExceeded, message)))
            }
        }
    }

    fn begin(&mut self, item: v1::StreamItem) {
        self.item_count += 1;
        // How long the whole may last is the caller's business: its transport ends the stream then.
        let deadline = Instant::now() + self.gate.call_time();
        let caller = caller_of_item(&self.caller, self.item_count, deadline);
        let gate = self.gate.clone();
        self.items.spawn(async move {
            let result = gate.run_item(caller, item.item.unwrap_or_default()).await;
            v1::StreamResult { id: item.id, result: Some(result) }
        });
    }

    fn status(&self, error: &ServiceError) -> Status {
        status::status(error, &self.caller.request_id)
    }
}

/// Waits until the server ends. That the sender is gone says the same.
async fn stops(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|is_stopped| *is_stopped).await;
}

impl Drop for Running {
    fn drop(&mut self) {
        self.items.detach_all();
    }
}
