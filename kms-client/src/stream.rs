//! A stream of calls: items go, results come, in any order.

use crate::batch::{Asked, BatchAnswer, BatchItem};
use crate::connect::{Client, Repeat};
use crate::error::ClientError;
use kms_proto::v1;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::Streaming;

/// Items that are ready before the transport takes them.
const ITEMS_AHEAD: usize = 16;

/// What was sent and has no result yet.
type Outstanding = Arc<Mutex<HashMap<u64, (Asked, Instant)>>>;

/// The results of a stream of calls; from [`Client::stream`]. Dropping it ends the stream; items that were begun are done
/// and recorded all the same.
#[derive(Debug)]
pub struct BatchResults {
    client: Client,
    node: usize,
    results: Streaming<v1::StreamResult>,
    outstanding: Outstanding,
}

/// Names the call for traces and tries.
#[derive(Clone, Copy, Debug)]
struct StreamRequest;

impl Client {
    /// Makes any number of calls over one stream, as many at a time as the service takes: a slow service, or a caller who
    /// does not take results, holds the items back. Each call is authorised, decided and recorded as if it were made alone.
    ///
    /// Another node is asked while the stream is begun. One that breaks later is an error of [`BatchResults::next`], and
    /// nothing is repeated: what had no result then may have been done, and is safe to be asked again.
    ///
    /// # Errors
    /// The stream could not be begun: `SEALED`, `NOT_PERMITTED`, `OVERLOADED`.
    pub async fn stream(
        &self,
        items: impl Stream<Item = BatchItem> + Send + 'static,
    ) -> Result<BatchResults, ClientError> {
        let opened: Mutex<Option<mpsc::Sender<v1::StreamItem>>> = Mutex::new(None);
        let (results, node) = self
            .call_any(Repeat::Stream, &StreamRequest, |mut stubs, request| {
                // Each try has a channel of its own, and only the last one is ever fed.
                let (sender, receiver) = mpsc::channel(ITEMS_AHEAD);
                *opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
                let request = request.map(|_| ReceiverStream::new(receiver));
                async move { stubs.crypto.stream(request).await }
            })
            .await?;
        let sender = opened.into_inner().unwrap_or_else(PoisonError::into_inner);
        let sender = sender.ok_or_else(|| ClientError::malformed("a stream was begun by nobody"))?;
        let outstanding = Outstanding::default();
        tokio::spawn(feed(items, sender, outstanding.clone()));
        Ok(BatchResults { client: self.clone(), node, results, outstanding })
    }
}

async fn feed(
    items: impl Stream<Item = BatchItem>,
    sender: mpsc::Sender<v1::StreamItem>,
    outstanding: Outstanding,
) {
    let mut items = std::pin::pin!(items);
    let mut id = 0;
    loop {
        // Items are not asked for before there is room for one, nor when nobody takes them any more.
        let Ok(place) = sender.reserve().await else { return };
        let item = tokio::select! {
            item = items.next() => item,
            () = sender.closed() => return,
        };
        let Some(item) = item else { return };
        let (item, asked) = item.into_proto();
        if let Some(asked) = asked {
            let mut outstanding = outstanding.lock().unwrap_or_else(PoisonError::into_inner);
            outstanding.insert(id, (asked, Instant::now()));
        }
        place.send(v1::StreamItem { id, item: Some(item) });
        id += 1;
    }
}

impl BatchResults {
    /// The next result with the place of its item, from 0. `None`: every item has had its result.
    ///
    /// # Errors
    /// The stream broke, or no result came within the deadline although items wait for one. It is over then. The inner
    /// result is the item's.
    pub async fn next(&mut self) -> Option<Result<(u64, Result<BatchAnswer, ClientError>), ClientError>> {
        match self.message().await {
            Ok(Some(result)) => {
                let asked = self.outstanding().remove(&result.id);
                Some(match asked {
                    Some((asked, _)) => Ok((result.id, asked.answer(result.result))),
                    None => Err(ClientError::malformed("a result of an item that waits for none")),
                })
            }
            Ok(None) if self.outstanding().is_empty() => None,
            Ok(None) => {
                self.outstanding().clear();
                Some(Err(ClientError::malformed("the stream ended before every item had its result")))
            }
            Err(error) => {
                self.outstanding().clear();
                Some(Err(error))
            }
        }
    }

    async fn message(&mut self) -> Result<Option<v1::StreamResult>, ClientError> {
        let deadline = self.client.deadline();
        let mut wait = deadline;
        loop {
            match tokio::time::timeout(wait, self.results.message()).await {
                Ok(result) => return result.map_err(|status| self.client.error(self.node, status)),
                // As long as no item waits, the caller has none to send.
                Err(_) => match self.oldest_wait() {
                    Some(waited) if waited >= deadline => {
                        return Err(ClientError::DeadlinePassed { deadline });
                    }
                    Some(waited) => wait = deadline - waited,
                    None => wait = deadline,
                },
            }
        }
    }

    fn outstanding(&self) -> std::sync::MutexGuard<'_, HashMap<u64, (Asked, Instant)>> {
        self.outstanding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn oldest_wait(&self) -> Option<Duration> {
        self.outstanding().values().map(|(_, sent)| sent.elapsed()).max()
    }
}
