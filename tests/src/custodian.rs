//! A custodian without the tool: honest by default, and able to do everything that the tool would not.

use crate::deployment::Deployment;
use crate::rpc::{Refused, Rpc};
use kms_core::asymmetric::PublicKey;
use kms_core::bundle::Bundle;
use kms_core::ceremony::{CeremonyKind, Contribution, Offer, SignedOffer};
use kms_core::codec;
use kms_core::passphrase::Passphrase;
use kms_core::secret::Secret;
use kms_core::share::{Identity, IdentityFile, SharePair, StoredShare};
use kms_proto::v1;
use kms_proto::v1::join_event::Event;
use kms_proto::v1::join_request::Message;
use kms_server::random::system_rng;
use std::fs;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// How long one event of a ceremony may take.
const EVENT_MAX: Duration = Duration::from_secs(60);

/// A custodian with opened identity and shares.
#[derive(Debug)]
pub struct Custodian {
    /// The name in the bundle.
    pub name: String,
    /// The enrolled keys.
    pub identity: Identity,
    /// Both shares.
    pub shares: SharePair,
    /// The deployment's bundle.
    pub bundle: Bundle,
}

impl Custodian {
    /// Opens the files that `dev` made.
    ///
    /// # Panics
    /// When they do not open.
    pub fn open(deployment: &Deployment, name: &str) -> Self {
        let read = |kind| fs::read(deployment.custodian_file(name, kind)).expect("a custodian's file");
        let passphrase = Passphrase::enter(Secret::new(read("passphrase")));
        let bundle = deployment.bundle();
        let identity: IdentityFile = codec::open_armour(&read("identity")).expect("an identity");
        let identity = identity.open(&passphrase).expect("the passphrase opens the identity");
        let share: StoredShare = codec::open_armour(&read("share")).expect("a share");
        let shares =
            share.open(&passphrase, &identity.enrolment, &bundle).expect("the passphrase opens the share");
        Self { name: name.to_owned(), identity, shares, bundle }
    }

    /// The honest answer to an offer.
    ///
    /// # Panics
    /// When the offer's key is no key.
    pub fn answer(&self, offer: &SignedOffer) -> Contribution {
        self.answer_with(offer, &self.shares)
    }

    /// An answer with any shares.
    ///
    /// # Panics
    /// When the offer's key is no key.
    pub fn answer_with(&self, offer: &SignedOffer, shares: &SharePair) -> Contribution {
        let offered = opened(offer);
        let key: &PublicKey = &offered.one_time_key;
        let kind = offered.kind;
        Contribution::answer(offer, key, &self.bundle, &self.identity, shares, kind, &mut system_rng())
            .expect("the one-time key is on the curve")
    }
}

/// The contents of an offer.
///
/// # Panics
/// When it is none.
pub fn opened(offer: &SignedOffer) -> Offer {
    codec::open(&offer.body).expect("an offer is canonical")
}

/// One custodian's stream of a ceremony. Dropping it withdraws the share.
#[derive(Debug)]
pub struct JoinStream {
    requests: mpsc::Sender<v1::JoinRequest>,
    events: Streaming<v1::JoinEvent>,
    /// The offer that the node made.
    pub offer: SignedOffer,
}

/// What to begin with: a service start under a name.
pub fn service_start(custodian: &str) -> v1::JoinBegin {
    v1::JoinBegin {
        kind: v1::CeremonyKind::ServiceStart.into(),
        custodian: custodian.to_owned(),
        operation: Vec::new(),
    }
}

/// What to begin with: a core signature of a digest.
pub fn core_sign(custodian: &str, digest: &[u8]) -> v1::JoinBegin {
    v1::JoinBegin {
        kind: v1::CeremonyKind::CoreSign.into(),
        custodian: custodian.to_owned(),
        operation: digest.to_vec(),
    }
}

impl JoinStream {
    /// Opens a stream over a connection, begins, and takes the offer.
    ///
    /// # Errors
    /// The node's refusal.
    pub async fn begin(rpc: &Rpc, begin: v1::JoinBegin) -> Result<Self, Refused> {
        let (requests, outgoing) = mpsc::channel(8);
        let first = v1::JoinRequest { message: Some(Message::Begin(begin)) };
        requests.send(first).await.expect("the channel is open");
        let opened = rpc.ceremony.clone().join(ReceiverStream::new(outgoing)).await?;
        let mut events = opened.into_inner();
        let first = timeout(EVENT_MAX, events.message()).await.expect("an offer in time")?;
        let Some(v1::JoinEvent { event: Some(Event::Offer(offer)) }) = first else {
            panic!("the first event is an offer, not {first:?}");
        };
        let offer = codec::open(&offer).expect("a signed offer is canonical");
        Ok(Self { requests, events, offer })
    }

    /// Connects as a custodian and begins a service start.
    ///
    /// # Errors
    /// The node's refusal.
    pub async fn start_service(deployment: &Deployment, name: &str) -> Result<Self, Refused> {
        Self::begin(&Rpc::connect(deployment, name).await, service_start(name)).await
    }

    /// The kind of the offer.
    pub fn kind(&self) -> CeremonyKind {
        opened(&self.offer).kind
    }

    /// Sends a contribution.
    pub async fn contribute(&self, contribution: &Contribution) {
        self.send(Message::Contribution(codec::to_bytes(contribution))).await;
    }

    /// Sends any message. A node that has closed the stream does not hear it.
    pub async fn send(&self, message: Message) {
        let _ = self.requests.send(v1::JoinRequest { message: Some(message) }).await;
    }

    /// The next event; `None` when the node has closed the stream.
    ///
    /// # Errors
    /// The node's refusal.
    pub async fn next(&mut self) -> Result<Option<Event>, Refused> {
        let next = timeout(EVENT_MAX, self.events.message()).await.expect("an event in time")?;
        Ok(next.and_then(|event| event.event))
    }

    /// Reads until `count` custodians are present.
    ///
    /// # Errors
    /// The node's refusal.
    pub async fn wait_for_present(&mut self, count: usize) -> Result<Vec<String>, Refused> {
        loop {
            match self.next().await? {
                Some(Event::Progress(progress)) if progress.present.len() == count => {
                    return Ok(progress.present);
                }
                Some(Event::Progress(_)) => {}
                other => panic!("{other:?} came while waiting for {count} custodians"),
            }
        }
    }

    /// Reads to the end of the ceremony.
    ///
    /// # Errors
    /// The node's refusal.
    pub async fn result(&mut self) -> Result<v1::CeremonyResult, Refused> {
        loop {
            match self.next().await? {
                Some(Event::Result(result)) => return Ok(result),
                Some(Event::Progress(_)) => {}
                other => panic!("{other:?} came instead of a result"),
            }
        }
    }

    /// Sends a contribution that must be refused, and gives the refusal.
    ///
    /// # Panics
    /// When it is not refused.
    pub async fn refusal_of(mut self, contribution: &Contribution) -> Refused {
        self.contribute(contribution).await;
        loop {
            match self.next().await {
                Err(refused) => return refused,
                Ok(Some(Event::Progress(progress))) => {
                    // Somebody else may come or go meanwhile.
                    let _ = progress;
                }
                Ok(other) => panic!("the contribution was not refused, but answered with {other:?}"),
            }
        }
    }
}
