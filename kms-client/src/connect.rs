//! The connections: mutual TLS, a deadline on every call, other nodes and a second try where that is safe.

use crate::error::{ClientError, FailedNode};
use crate::nodes::{Blame, Node, Nodes, Stubs};
use crate::profile::Profile;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Response, Status};
use tracing::{Instrument, debug, debug_span, field};

/// First wait before another try; doubles with each.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);

/// Longest time for a connection to one node, where the caller sets no other.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// A client of the service: one connection or several. Clones share them.
#[derive(Clone, Debug)]
pub struct Client {
    nodes: Arc<Nodes>,
    deadline: Duration,
    try_count_max: u32,
}

/// Whether a call may be sent again after an answer that says that nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It reads, stores nothing, or carries an idempotency token.
    Safe,
    /// It changes state and has no token: a lost answer and a second try could contradict each other.
    Never,
    /// It reads, and the answer is a stream: the deadline is for its beginning.
    Stream,
}

impl Profile {
    /// The first node's address, certificates and keep-alive as the transport takes them, for services that
    /// [`Client`] does not speak.
    ///
    /// # Errors
    /// The certificate or its key cannot be used.
    pub fn tls_endpoint(&self, connect_timeout: Duration) -> Result<Endpoint, tonic::transport::Error> {
        self.tls_endpoint_at(self.endpoint(), connect_timeout)
    }

    fn tls_endpoint_at(
        &self,
        address: &str,
        connect_timeout: Duration,
    ) -> Result<Endpoint, tonic::transport::Error> {
        let identity = Identity::from_pem(&self.certificate, self.key.as_slice());
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.server_ca))
            .identity(identity)
            .timeout(connect_timeout);
        if let Some(name) = &self.server_name {
            tls = tls.domain_name(name);
        }
        Endpoint::from_shared(address.to_owned())?
            .user_agent(concat!("kms/", env!("CARGO_PKG_VERSION")))?
            .connect_timeout(connect_timeout)
            // A stream that follows the log may be silent for hours; the pings find a dead peer.
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(10))
            .tls_config(tls)
    }
}

/// How a [`Client`] shall behave; made by [`Client::builder`].
#[derive(Debug)]
#[must_use = "a builder does nothing until connect"]
pub struct ClientBuilder<'a> {
    profile: &'a Profile,
    deadline: Duration,
    connect_timeout: Duration,
    try_count_max: u32,
}

impl ClientBuilder<'_> {
    /// Time for one call with all its tries at all nodes; for a stream, time to its first message and between
    /// two. 10 s unless set.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Time for one connection, at most the deadline. 4 s unless set.
    pub fn connect_timeout(mut self, connect_timeout: Duration) -> Self {
        self.connect_timeout = connect_timeout;
        self
    }

    /// How often a call that is safe to repeat goes round the nodes at most; 0 counts as 1. 3 unless set.
    pub fn try_count_max(mut self, try_count_max: u32) -> Self {
        self.try_count_max = try_count_max.max(1);
        self
    }

    /// Opens a connection to the first node that can be reached, in the order of the profile, and proves both
    /// sides' certificates. Connections to the others are opened when a call needs them, and every connection
    /// that breaks later is opened again by the next call.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`]: no service there, or one side does not trust the other's certificate.
    /// [`ClientError::NoNodeServed`]: the same of each of several nodes.
    pub async fn connect(self) -> Result<Client, ClientError> {
        let connect_timeout = self.connect_timeout.min(self.deadline);
        let end = Instant::now() + self.deadline;
        let mut nodes = Vec::new();
        let mut first = None;
        let mut failures = Vec::new();
        for (position, endpoint) in self.profile.endpoints.iter().enumerate() {
            let unreachable = |error: tonic::transport::Error| ClientError::unreachable(endpoint, error);
            let transport = self.profile.tls_endpoint_at(endpoint, connect_timeout).map_err(unreachable)?;
            let opened = match first {
                Some(_) => None,
                None => Some(tokio::time::timeout_at(end, transport.connect()).await),
            };
            let channel = match opened {
                Some(Ok(Ok(channel))) => {
                    first = Some(position);
                    channel
                }
                Some(Ok(Err(error))) => {
                    failures.push(FailedNode::new(endpoint, unreachable(error)));
                    transport.connect_lazy()
                }
                Some(Err(_)) => {
                    let passed = ClientError::DeadlinePassed { deadline: self.deadline };
                    failures.push(FailedNode::new(endpoint, passed));
                    transport.connect_lazy()
                }
                None => transport.connect_lazy(),
            };
            nodes.push(Node { endpoint: endpoint.clone(), stubs: Stubs::new(channel) });
        }
        for failure in &failures {
            debug!(endpoint = failure.endpoint, error = %failure.error, "no connection");
        }
        let Some(first) = first else { return Err(ClientError::of_nodes(failures)) };
        Ok(Client {
            nodes: Arc::new(Nodes::new(nodes, first)),
            deadline: self.deadline,
            try_count_max: self.try_count_max,
        })
    }
}

impl Client {
    /// Begins a client for the profile's nodes; end with [`ClientBuilder::connect`].
    pub fn builder(profile: &Profile) -> ClientBuilder<'_> {
        ClientBuilder {
            profile,
            deadline: Duration::from_secs(10),
            connect_timeout: CONNECT_TIMEOUT,
            try_count_max: 3,
        }
    }

    /// Sends one unary call, to other nodes and again where that is safe and may help, until the deadline.
    pub(crate) async fn call<Req, Res, F>(
        &self,
        repeat: Repeat,
        request: &Req,
        send: impl Fn(Stubs, Request<Req>) -> F,
    ) -> Result<Res, ClientError>
    where
        Req: Clone,
        F: Future<Output = Result<Response<Res>, Status>>,
    {
        Ok(self.call_any(repeat, request, send).await?.0)
    }

    /// As [`Client::call`], and says which node answered.
    pub(crate) async fn call_any<Req, Res, F>(
        &self,
        repeat: Repeat,
        request: &Req,
        send: impl Fn(Stubs, Request<Req>) -> F,
    ) -> Result<(Res, usize), ClientError>
    where
        Req: Clone,
        F: Future<Output = Result<Response<Res>, Status>>,
    {
        let span = debug_span!(
            "kms",
            call = name_of::<Req>(),
            endpoint = field::Empty,
            try_count = field::Empty,
            outcome = field::Empty,
        );
        let mut tries = Tries::default();
        let result = self.go_round(repeat, request, send, &mut tries).instrument(span.clone()).await;
        span.record("try_count", tries.count);
        match &result {
            Ok((_, position)) => {
                span.record("endpoint", self.nodes.at(*position).endpoint.as_str()).record("outcome", "done");
            }
            Err(error) => {
                span.record("outcome", error.kind());
            }
        }
        result
    }

    async fn go_round<Req, Res, F>(
        &self,
        repeat: Repeat,
        request: &Req,
        send: impl Fn(Stubs, Request<Req>) -> F,
        tries: &mut Tries,
    ) -> Result<(Res, usize), ClientError>
    where
        Req: Clone,
        F: Future<Output = Result<Response<Res>, Status>>,
    {
        let end = Instant::now() + self.deadline;
        let mut backoff = BACKOFF_FIRST;
        for round in 1.. {
            let mut wait = jittered(backoff)?;
            let mut may_pass = false;
            for (step, position) in self.nodes.round().enumerate() {
                let left = end.saturating_duration_since(Instant::now());
                // A silent node leaves the others their share of the time. A call that will be tried once
                // gets all of it.
                let share = match repeat {
                    Repeat::Never => left,
                    Repeat::Safe | Repeat::Stream => left / (self.nodes.len() - step) as u32,
                };
                tries.count += 1;
                let error = match self.try_once(repeat, position, request, share, end, &send).await {
                    Ok(answer) => return Ok((answer, position)),
                    Err(error) => error,
                };
                let blame = Blame::of(&error);
                debug!(endpoint = self.nodes.at(position).endpoint, %error, ?blame, "try failed");
                wait = wait.max(error.retry_after().unwrap_or_default());
                let is_final = match blame {
                    Blame::Request => return Err(error),
                    Blame::Moment => {
                        may_pass = true;
                        tries.failed(&self.nodes, position, error);
                        break;
                    }
                    Blame::Node { is_untouched, may_pass: may_node_pass } => {
                        self.nodes.failed(position);
                        may_pass |= may_node_pass;
                        repeat == Repeat::Never && !is_untouched
                    }
                };
                tries.failed(&self.nodes, position, error);
                if is_final || Instant::now() >= end {
                    return Err(tries.take_error());
                }
            }
            let may_repeat = repeat != Repeat::Never && may_pass && round < self.try_count_max;
            if !may_repeat || Instant::now() + wait >= end {
                break;
            }
            tokio::time::sleep(wait).await;
            backoff *= 2;
        }
        Err(tries.take_error())
    }

    async fn try_once<Req, Res, F>(
        &self,
        repeat: Repeat,
        position: usize,
        request: &Req,
        share: Duration,
        end: Instant,
        send: &impl Fn(Stubs, Request<Req>) -> F,
    ) -> Result<Res, ClientError>
    where
        Req: Clone,
        F: Future<Output = Result<Response<Res>, Status>>,
    {
        let node = self.nodes.at(position);
        let share_end = Instant::now() + share;
        let mut message = Request::new(request.clone());
        if repeat != Repeat::Stream {
            message.set_timeout(share);
        }
        // People know the deadline that they set; a share of it is told when time was left.
        let passed = || {
            let is_over = Instant::now() >= end;
            ClientError::DeadlinePassed { deadline: if is_over { self.deadline } else { share } }
        };
        match tokio::time::timeout_at(share_end, send(node.stubs.clone(), message)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            // The transport ends a call at its deadline with CANCELLED of its own.
            Ok(Err(status)) if status.code() == Code::Cancelled && Instant::now() >= share_end => {
                Err(passed())
            }
            Ok(Err(status)) => Err(ClientError::from_status(&node.endpoint, status)),
            Err(_) => Err(passed()),
        }
    }

    /// Waits for one step of a stream that the node at `position` sends, no longer than the deadline.
    pub(crate) async fn step<T>(
        &self,
        position: usize,
        future: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, ClientError> {
        let deadline = self.deadline;
        match tokio::time::timeout(deadline, future).await {
            Ok(result) => result.map_err(|status| self.error(position, status)),
            Err(_) => Err(ClientError::DeadlinePassed { deadline }),
        }
    }

    pub(crate) fn error(&self, position: usize, status: Status) -> ClientError {
        ClientError::from_status(&self.nodes.at(position).endpoint, status)
    }

    /// Whether another node, or the same one on a new connection, may go on with a stream that ended so.
    pub(crate) fn may_resume(&self, position: usize, error: &ClientError) -> bool {
        let is_of_node = matches!(Blame::of(error), Blame::Node { .. });
        if is_of_node {
            self.nodes.failed(position);
        }
        is_of_node
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }

    pub(crate) fn try_count_max(&self) -> u32 {
        self.try_count_max
    }

    /// Addresses of all nodes, in the order of the profile.
    pub fn endpoints(&self) -> impl Iterator<Item = &str> {
        (0..self.nodes.len()).map(|position| self.nodes.at(position).endpoint.as_str())
    }
}

/// What a call has met so far.
#[derive(Debug, Default)]
struct Tries {
    count: u32,
    /// The last failure of each node that failed, in the order of their first.
    failures: Vec<FailedNode>,
}

impl Tries {
    fn failed(&mut self, nodes: &Nodes, position: usize, error: ClientError) {
        let endpoint = &nodes.at(position).endpoint;
        match self.failures.iter_mut().find(|failure| failure.endpoint == *endpoint) {
            Some(failure) => *failure.error = error,
            None => self.failures.push(FailedNode::new(endpoint, error)),
        }
    }

    fn take_error(&mut self) -> ClientError {
        ClientError::of_nodes(std::mem::take(&mut self.failures))
    }
}

/// The call's name, from that of its request: `GenerateDataKey`. For people who read traces.
fn name_of<Req>() -> &'static str {
    let name = std::any::type_name::<Req>();
    let name = name.rsplit("::").next().unwrap_or(name);
    name.strip_suffix("Request").unwrap_or(name)
}

/// Between half and all of `backoff`, so that many clients do not come back at the same moment.
fn jittered(backoff: Duration) -> Result<Duration, ClientError> {
    let random = getrandom::u32().map_err(ClientError::NoRandomness)?;
    Ok(backoff.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_named_after_its_request() {
        assert_eq!(name_of::<kms_proto::v1::GenerateDataKeyRequest>(), "GenerateDataKey");
    }

    #[test]
    fn the_wait_is_between_half_and_all_of_the_backoff() {
        for _ in 0..1000 {
            let wait = jittered(BACKOFF_FIRST).expect("random bytes");
            assert!(wait >= BACKOFF_FIRST / 2 && wait <= BACKOFF_FIRST, "{wait:?}");
        }
    }
}
