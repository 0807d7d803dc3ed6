//! The nodes that a client knows: which one is asked first, and what a failure at one says about the others.

use crate::error::ClientError;
use kms_core::reason::Reason;
use kms_proto::v1::audit_client::AuditClient;
use kms_proto::v1::crypto_client::CryptoClient;
use kms_proto::v1::data_keys_client::DataKeysClient;
use kms_proto::v1::keys_client::KeysClient;
use kms_proto::v1::system_client::SystemClient;
use std::sync::atomic::{AtomicUsize, Ordering};
use tonic::Code;
use tonic::transport::Channel;

/// Longest answer of a call, in bytes: a page of keys with many versions is the largest.
const ANSWER_LEN_MAX: usize = 4 * 1024 * 1024;
/// Longest message of an audit stream, in bytes: one segment.
const AUDIT_MESSAGE_LEN_MAX: usize = 16 * 1024 * 1024;
/// Longest request, in bytes: what a service can be configured to take, of a batch. By default it takes 256 KiB.
const REQUEST_LEN_MAX: usize = 4 * 1024 * 1024;

/// The generated clients over one channel.
#[derive(Clone, Debug)]
pub(crate) struct Stubs {
    pub keys: KeysClient<Channel>,
    pub crypto: CryptoClient<Channel>,
    pub data_keys: DataKeysClient<Channel>,
    pub audit: AuditClient<Channel>,
    pub system: SystemClient<Channel>,
}

impl Stubs {
    pub fn new(channel: Channel) -> Self {
        Self {
            keys: KeysClient::new(channel.clone()).max_decoding_message_size(ANSWER_LEN_MAX),
            crypto: CryptoClient::new(channel.clone())
                .max_decoding_message_size(ANSWER_LEN_MAX)
                .max_encoding_message_size(REQUEST_LEN_MAX),
            data_keys: DataKeysClient::new(channel.clone()).max_decoding_message_size(ANSWER_LEN_MAX),
            audit: AuditClient::new(channel.clone()).max_decoding_message_size(AUDIT_MESSAGE_LEN_MAX),
            system: SystemClient::new(channel).max_decoding_message_size(ANSWER_LEN_MAX),
        }
    }
}

/// One node and the connection to it, which is opened when it is needed and again when it broke.
#[derive(Debug)]
pub(crate) struct Node {
    pub endpoint: String,
    pub stubs: Stubs,
}

/// All nodes. Clones of a client share them, so what one clone learns the others know.
#[derive(Debug)]
pub(crate) struct Nodes {
    all: Vec<Node>,
    first: AtomicUsize,
}

impl Nodes {
    /// `first` is the position of the node to begin with.
    pub fn new(all: Vec<Node>, first: usize) -> Self {
        Self { all, first: AtomicUsize::new(first) }
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn at(&self, position: usize) -> &Node {
        &self.all[position]
    }

    /// The positions of all nodes, once each, beginning with the one that worked last.
    pub fn round(&self) -> impl Iterator<Item = usize> + Send + use<> {
        let (first, count) = (self.first.load(Ordering::Relaxed), self.all.len());
        (0..count).map(move |step| (first + step) % count)
    }

    /// The next calls begin behind this node, unless they begin elsewhere already. So they stay with a node for
    /// as long as it works.
    pub fn failed(&self, position: usize) {
        let next = (position + 1) % self.all.len();
        let _ = self.first.compare_exchange(position, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// What a failure depends on, and so what may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blame {
    /// The request or the caller: every node would say the same, now and later.
    Request,
    /// What others do at this moment: the same node may succeed a little later, another one not sooner.
    Moment,
    /// The node: another may serve.
    Node {
        /// It is certain that nothing was done: no connection, or a refusal that comes before any work.
        is_untouched: bool,
        /// The node itself may serve a little later.
        may_pass: bool,
    },
}

impl Blame {
    pub fn of(error: &ClientError) -> Self {
        match error {
            ClientError::Unreachable { .. } => Blame::Node { is_untouched: true, may_pass: true },
            ClientError::ConnectionBroke { .. }
            | ClientError::Foreign { code: Code::Unavailable | Code::ResourceExhausted, .. } => {
                Blame::Node { is_untouched: false, may_pass: true }
            }
            ClientError::Foreign { code: Code::Aborted, .. } => Blame::Moment,
            // All the time that this node was given is over, and it may be silent because it is alone.
            ClientError::DeadlinePassed { .. } => Blame::Node { is_untouched: false, may_pass: false },
            ClientError::Refused { reason, .. } => match reason {
                // docs/errors.md: the refusal comes before anything is changed. It waits for people: to try
                // again in a second helps nobody.
                Reason::Sealed => Blame::Node { is_untouched: true, may_pass: false },
                Reason::Overloaded | Reason::HsmUnavailable | Reason::LogUnavailable => {
                    Blame::Node { is_untouched: false, may_pass: true }
                }
                Reason::DeadlineExceeded => Blame::Node { is_untouched: false, may_pass: false },
                Reason::Contention => Blame::Moment,
                _ => Blame::Request,
            },
            ClientError::NoNodeServed { .. }
            | ClientError::NodeAmbiguous { .. }
            | ClientError::Foreign { .. }
            | ClientError::AnswerMalformed { .. }
            | ClientError::NoRandomness(_) => Blame::Request,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn refused(reason: Reason) -> ClientError {
        ClientError::Refused { reason, field: None, message: "the sentence".into(), retry_after: None }
    }

    #[test]
    fn a_sealed_node_is_not_waited_for_but_a_busy_one_is() {
        let sealed = Blame::of(&refused(Reason::Sealed));
        assert_eq!(sealed, Blame::Node { is_untouched: true, may_pass: false });
        for reason in [Reason::HsmUnavailable, Reason::LogUnavailable, Reason::Overloaded] {
            let busy = Blame::Node { is_untouched: false, may_pass: true };
            assert_eq!(Blame::of(&refused(reason)), busy, "{reason:?}");
        }
        assert_eq!(Blame::of(&refused(Reason::Contention)), Blame::Moment);
    }

    #[test]
    fn what_is_wrong_with_the_request_is_asked_nobody_else() {
        for reason in [
            Reason::CiphertextInvalid,
            Reason::KeyMismatch,
            Reason::NotPermitted,
            Reason::KeyStateForbids,
            Reason::IdempotencyConflict,
            Reason::Internal,
        ] {
            assert_eq!(Blame::of(&refused(reason)), Blame::Request, "{reason:?}");
        }
    }

    #[test]
    fn only_a_connection_that_was_never_there_and_a_sealed_node_leave_no_doubt() {
        let unreachable = ClientError::unreachable("https://kms:1", std::io::Error::other("refused"));
        assert_eq!(Blame::of(&unreachable), Blame::Node { is_untouched: true, may_pass: true });
        let passed = ClientError::DeadlinePassed { deadline: Duration::from_secs(1) };
        assert_eq!(Blame::of(&passed), Blame::Node { is_untouched: false, may_pass: false });
    }
}
