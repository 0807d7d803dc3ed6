//! The connection: mutual TLS, a deadline on every call, and a second try where that is safe.

use crate::error::{ClientError, is_worth_a_retry};
use crate::profile::Profile;
use kms_proto::v1::audit_client::AuditClient;
use kms_proto::v1::crypto_client::CryptoClient;
use kms_proto::v1::keys_client::KeysClient;
use kms_proto::v1::system_client::SystemClient;
use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt;

/// Longest answer of a call, in bytes: a page of keys with many versions is the largest.
const ANSWER_LEN_MAX: usize = 4 * 1024 * 1024;
/// Longest message of an audit stream, in bytes: one segment.
const AUDIT_MESSAGE_LEN_MAX: usize = 16 * 1024 * 1024;
/// Longest request, in bytes: 64 KiB of data with its context.
const REQUEST_LEN_MAX: usize = 256 * 1024;
/// First wait before another try; doubles with each.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);

/// How calls behave.
#[derive(Clone, Copy, Debug)]
pub struct ConnectOptions {
    /// Time for one call with all its tries; for a stream, time to its first and between two messages.
    pub deadline: Duration,
    /// How often a call that is safe to repeat is tried at most.
    pub try_count_max: u32,
}

impl Default for ConnectOptions {
    /// Ten seconds, three tries.
    fn default() -> Self {
        Self { deadline: Duration::from_secs(10), try_count_max: 3 }
    }
}

/// A connection to the service. Clones share it.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) stubs: Stubs,
    pub(crate) endpoint: String,
    pub(crate) options: ConnectOptions,
}

/// The generated clients over one channel.
#[derive(Clone, Debug)]
pub(crate) struct Stubs {
    pub keys: KeysClient<Channel>,
    pub crypto: CryptoClient<Channel>,
    pub audit: AuditClient<Channel>,
    pub system: SystemClient<Channel>,
}

/// Whether a call may be sent again after an answer that says that nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It reads, stores nothing, or carries an idempotency token.
    Safe,
    /// It changes state and has no token: a lost answer and a second try could contradict each other.
    Never,
}

impl Profile {
    /// Address, certificates and keep-alive as the transport takes them, for services that [`Client`] does
    /// not speak.
    ///
    /// # Errors
    /// The certificate or its key cannot be used.
    pub fn tls_endpoint(&self, connect_timeout: Duration) -> Result<Endpoint, tonic::transport::Error> {
        let identity = Identity::from_pem(&self.certificate, self.key.as_slice());
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.server_ca))
            .identity(identity)
            .timeout(connect_timeout);
        if let Some(name) = &self.server_name {
            tls = tls.domain_name(name);
        }
        Endpoint::from_shared(self.endpoint.clone())?
            .user_agent(concat!("kms/", env!("CARGO_PKG_VERSION")))?
            .connect_timeout(connect_timeout)
            // A stream that follows the log may be silent for hours; the pings find a dead peer.
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(10))
            .tls_config(tls)
    }
}

impl Client {
    /// Opens the connection and proves both sides' certificates.
    ///
    /// A connection that breaks later is opened again by the next call.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`]: no service there, or one side does not trust the other's certificate.
    pub async fn connect(profile: &Profile, options: ConnectOptions) -> Result<Self, ClientError> {
        let unreachable = |error: tonic::transport::Error| ClientError::unreachable(&profile.endpoint, error);
        let endpoint = profile.tls_endpoint(options.deadline).map_err(unreachable)?;
        let channel = endpoint.connect().await.map_err(unreachable)?;
        let stubs = Stubs {
            keys: KeysClient::new(channel.clone()).max_decoding_message_size(ANSWER_LEN_MAX),
            crypto: CryptoClient::new(channel.clone())
                .max_decoding_message_size(ANSWER_LEN_MAX)
                .max_encoding_message_size(REQUEST_LEN_MAX),
            audit: AuditClient::new(channel.clone()).max_decoding_message_size(AUDIT_MESSAGE_LEN_MAX),
            system: SystemClient::new(channel).max_decoding_message_size(ANSWER_LEN_MAX),
        };
        Ok(Self { stubs, endpoint: profile.endpoint.clone(), options })
    }

    /// Sends one unary call, again where that is safe and may help, until the deadline.
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
        let deadline = self.options.deadline;
        let end = Instant::now() + deadline;
        let mut backoff = BACKOFF_FIRST;
        let mut try_count = 0;
        loop {
            try_count += 1;
            let remaining = end.saturating_duration_since(Instant::now());
            let mut message = Request::new(request.clone());
            message.set_timeout(remaining);
            let sent = tokio::time::timeout_at(end, send(self.stubs.clone(), message)).await;
            let status = match sent {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => return Err(ClientError::DeadlinePassed { deadline }),
            };
            // The transport ends a call at its deadline with CANCELLED of its own.
            if status.code() == Code::Cancelled && Instant::now() >= end {
                return Err(ClientError::DeadlinePassed { deadline });
            }
            let wait = jittered(backoff)?.max(asked_delay(&status));
            let may_repeat = repeat == Repeat::Safe && try_count < self.options.try_count_max;
            if !may_repeat || !is_worth_a_retry(&status) || Instant::now() + wait >= end {
                return Err(self.error(status));
            }
            tokio::time::sleep(wait).await;
            backoff *= 2;
        }
    }

    /// Waits for one step of a stream no longer than the deadline.
    pub(crate) async fn step<T>(
        &self,
        future: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, ClientError> {
        let deadline = self.options.deadline;
        match tokio::time::timeout(deadline, future).await {
            Ok(result) => result.map_err(|status| self.error(status)),
            Err(_) => Err(ClientError::DeadlinePassed { deadline }),
        }
    }

    pub(crate) fn error(&self, status: Status) -> ClientError {
        ClientError::from_status(&self.endpoint, status)
    }
}

fn asked_delay(status: &Status) -> Duration {
    status.get_details_retry_info().and_then(|info| info.retry_delay).unwrap_or_default()
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
    fn the_wait_is_between_half_and_all_of_the_backoff() {
        for _ in 0..1000 {
            let wait = jittered(BACKOFF_FIRST).expect("random bytes");
            assert!(wait >= BACKOFF_FIRST / 2 && wait <= BACKOFF_FIRST, "{wait:?}");
        }
    }
}
