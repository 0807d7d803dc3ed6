//! Why a call gave no result.

use kms_core::reason::Reason;
use kms_proto::v1;
use std::error::Error;
use std::time::Duration;
use tonic::{Code, ConnectError, Status};
use tonic_types::StatusExt;

/// Why a call gave no result. The variants are what a caller treats differently.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The service refused, for a reason of docs/errors.md.
    #[error("{message}")]
    Refused {
        /// The stable reason.
        reason: Reason,
        /// The field of the request that is wrong, where one is.
        field: Option<String>,
        /// The service's sentence.
        message: String,
        /// How long the service asks to wait before the next try.
        retry_after: Option<Duration>,
    },
    /// No connection: nothing was asked.
    #[error("{endpoint} cannot be reached: {cause}")]
    Unreachable {
        /// The address in the profile.
        endpoint: String,
        /// The innermost cause, for people.
        cause: String,
        /// The whole chain.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The connection was open and broke. Whether a call that was under way was done is not known.
    ///
    /// A service that does not trust the caller's certificate breaks it too: in TLS 1.3 it learns who calls
    /// when the caller counts the connection as open already.
    #[error(
        "{endpoint} broke the connection ({cause}); if it always does, it does not trust the caller's certificate"
    )]
    ConnectionBroke {
        /// The address in the profile.
        endpoint: String,
        /// The innermost cause, for people.
        cause: String,
        /// The whole chain.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The deadline passed without an answer. Whether the call was done is not known.
    #[error("no answer within {} s", deadline.as_secs_f32())]
    DeadlinePassed {
        /// The time that was allowed for all tries.
        deadline: Duration,
    },
    /// A gRPC status without one of our reasons: something between client and service answered.
    #[error("the answer is a gRPC error without a reason: {code:?}: {message}")]
    Foreign {
        /// The gRPC code.
        code: Code,
        /// Its message.
        message: String,
    },
    /// The answer does not have the form that the interface promises.
    #[error("the service's answer is not understood: {what}")]
    AnswerMalformed {
        /// What is wrong with it.
        what: String,
    },
    /// None of several nodes could serve the call. For each, why.
    #[error("no node could serve the call: {}", list(failures))]
    NoNodeServed {
        /// The nodes that were asked, in that order, with the last failure of each.
        failures: Vec<FailedNode>,
    },
    /// The call is about one node, and the client knows several.
    #[error(
        "the call is about one node and the profile names several; choose one of: {}",
        endpoints.join(", ")
    )]
    NodeAmbiguous {
        /// The nodes.
        endpoints: Vec<String>,
    },
    /// The operating system gave no random bytes.
    #[error("the operating system gives no random bytes")]
    NoRandomness(#[source] getrandom::Error),
}

/// Why one of several nodes did not serve a call.
#[derive(Debug)]
pub struct FailedNode {
    /// Its address.
    pub endpoint: String,
    /// Its last failure.
    pub error: Box<ClientError>,
}

impl FailedNode {
    pub(crate) fn new(endpoint: &str, error: ClientError) -> Self {
        Self { endpoint: endpoint.to_owned(), error: Box::new(error) }
    }
}

fn list(failures: &[FailedNode]) -> String {
    let sentences: Vec<String> = failures
        .iter()
        .map(|failure| match &*failure.error {
            // Their sentences begin with the address.
            error @ (ClientError::Unreachable { .. } | ClientError::ConnectionBroke { .. }) => {
                error.to_string()
            }
            error => format!("{}: {error}", failure.endpoint),
        })
        .collect();
    sentences.join("; ")
}

impl ClientError {
    /// The stable reason, when the service gave one. Of several nodes' reasons, one that may pass by itself
    /// comes before `SEALED`, which waits for people.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            ClientError::Refused { reason, .. } => Some(*reason),
            ClientError::NoNodeServed { failures } => {
                let reasons = || failures.iter().filter_map(|failure| failure.error.reason());
                reasons().find(|reason| *reason != Reason::Sealed).or_else(|| reasons().next())
            }
            _ => None,
        }
    }

    /// How long the service asks to wait before the next try, when it does.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            ClientError::Refused { retry_after, .. } => *retry_after,
            ClientError::NoNodeServed { failures } => {
                failures.iter().filter_map(|failure| failure.error.retry_after()).min()
            }
            _ => None,
        }
    }

    /// What happened in one word, for traces and metrics: the reason's name, or the variant's.
    pub fn kind(&self) -> &'static str {
        match self {
            ClientError::Refused { reason, .. } => reason.name(),
            ClientError::Unreachable { .. } => "unreachable",
            ClientError::ConnectionBroke { .. } => "connection_broke",
            ClientError::DeadlinePassed { .. } => "deadline_passed",
            ClientError::Foreign { .. } => "foreign",
            ClientError::AnswerMalformed { .. } => "answer_malformed",
            ClientError::NoNodeServed { .. } => "no_node_served",
            ClientError::NodeAmbiguous { .. } => "node_ambiguous",
            ClientError::NoRandomness(_) => "no_randomness",
        }
    }

    /// The field of the request that is wrong, when the service named one.
    pub fn field(&self) -> Option<&str> {
        match self {
            ClientError::Refused { field, .. } => field.as_deref(),
            _ => None,
        }
    }

    /// The next command to run, with `KEY` standing for the key's name.
    pub fn next_step(&self) -> &'static str {
        match self {
            ClientError::Refused { reason, .. } => next_step(*reason),
            ClientError::NoNodeServed { .. } => self.reason().map_or("kms status --wait 60", next_step),
            ClientError::NodeAmbiguous { .. } => "kms --endpoint URL",
            ClientError::Unreachable { .. } | ClientError::DeadlinePassed { .. } => "kms status --wait 60",
            ClientError::ConnectionBroke { .. }
            | ClientError::Foreign { .. }
            | ClientError::NoRandomness(_) => "kms status",
            ClientError::AnswerMalformed { .. } => "kms --version",
        }
    }

    pub(crate) fn malformed(what: impl Into<String>) -> Self {
        ClientError::AnswerMalformed { what: what.into() }
    }

    /// One failure is told as it is, several together.
    pub(crate) fn of_nodes(mut failures: Vec<FailedNode>) -> Self {
        match failures.pop() {
            Some(only) if failures.is_empty() => *only.error,
            Some(last) => {
                failures.push(last);
                ClientError::NoNodeServed { failures }
            }
            None => ClientError::malformed("no node was asked"),
        }
    }

    pub(crate) fn from_status(endpoint: &str, status: Status) -> Self {
        let named = status.get_details_error_info().filter(|info| info.domain == "kms");
        if let Some(reason) = named.and_then(|info| Reason::from_name(&info.reason)) {
            let violations = status.get_details_bad_request().map(|details| details.field_violations);
            return ClientError::Refused {
                reason,
                field: violations.and_then(|all| all.into_iter().next()).map(|violation| violation.field),
                message: status.message().to_owned(),
                retry_after: status.get_details_retry_info().and_then(|info| info.retry_delay),
            };
        }
        // A status that this process made itself has the transport's error as its source; one that
        // came over the wire has none.
        if status.source().is_none() {
            return ClientError::Foreign { code: status.code(), message: status.message().to_owned() };
        }
        if chain(&status).any(|error| error.is::<ConnectError>()) {
            return Self::unreachable(endpoint, status);
        }
        let cause = innermost(&status);
        ClientError::ConnectionBroke { endpoint: endpoint.to_owned(), cause, source: Box::new(status) }
    }

    /// The refusal of one item of a batch.
    pub(crate) fn from_batch(error: v1::BatchError) -> Self {
        match Reason::from_name(&error.reason) {
            Some(reason) => ClientError::Refused {
                reason,
                field: Some(error.field).filter(|field| !field.is_empty()),
                message: error.message,
                retry_after: error.retry_delay.and_then(|delay| delay.try_into().ok()),
            },
            // Of a later service.
            None => ClientError::Foreign { code: Code::from_i32(error.code), message: error.message },
        }
    }

    pub(crate) fn unreachable(endpoint: &str, error: impl Error + Send + Sync + 'static) -> Self {
        let cause = innermost(&error);
        ClientError::Unreachable { endpoint: endpoint.to_owned(), cause, source: Box::new(error) }
    }
}

/// The error and its causes, outermost first.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| {
        let error: &'a (dyn Error + 'static) = *error;
        error.source()
    })
}

fn innermost(error: &(dyn Error + 'static)) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}

/// The command that helps after a refusal (docs/errors.md, "what to do").
pub fn next_step(reason: Reason) -> &'static str {
    match reason {
        Reason::FieldInvalid => "kms help",
        Reason::SpecUnsupported | Reason::SpecNotAllowed => "kms key create --help",
        Reason::CiphertextInvalid => "kms decrypt --help",
        Reason::MacInvalid => "kms mac verify --help",
        Reason::KeySignatureInvalid => "kms verify --help",
        Reason::KeyMismatch => "kms key show KEY",
        Reason::PrincipalUnknown | Reason::NotPermitted => "kms whoami",
        Reason::KeyNotFound | Reason::KeyExists => "kms key list",
        Reason::KeyVersionNotFound
        | Reason::KeyStateForbids
        | Reason::KeyUsageForbids
        | Reason::KeyRetained
        | Reason::RevisionMismatch => "kms key show KEY",
        Reason::KeyExhausted => "kms key rotate KEY",
        Reason::AliasNotFound => "kms alias list",
        Reason::ImportNotFound => "kms key import-parameters",
        Reason::ImportInvalid => "kms key import --help",
        Reason::DataKeyNotFound => "kms data-key list",
        Reason::DataKeyStateForbids => "kms data-key describe NAME",
        Reason::IdempotencyConflict => "kms key list",
        Reason::RecordNotFound => "kms audit list",
        Reason::Sealed => "kms status",
        Reason::AlreadyUnsealed => "kms status",
        Reason::Contention | Reason::Overloaded | Reason::DeadlineExceeded => "kms status",
        Reason::HsmUnavailable | Reason::LogUnavailable => "kms status",
        Reason::ShareInvalid => "kms-ceremony share accept",
        Reason::CeremonyForeign
        | Reason::CeremonyExpired
        | Reason::CustodianUnknown
        | Reason::CustodianPresent
        | Reason::CustodianLocked
        | Reason::SignatureInvalid
        | Reason::OfferForged
        | Reason::CeremonyFailed => "kms-ceremony --help",
        Reason::Internal => "kms status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    fn refusal(code: Code, reason: Reason, details: ErrorDetails) -> Status {
        let mut details = details;
        details.set_error_info(reason.name(), "kms", std::collections::HashMap::new());
        Status::with_error_details(code, "the sentence", details)
    }

    #[test]
    fn a_refusal_keeps_its_reason_field_and_delay() {
        let mut details = ErrorDetails::with_bad_request_violation("name", "is too long");
        details.set_retry_info(Some(Duration::from_millis(250)));
        let status = refusal(Code::InvalidArgument, Reason::FieldInvalid, details);
        let error = ClientError::from_status("https://kms:1", status);
        assert_eq!(error.reason(), Some(Reason::FieldInvalid));
        assert_eq!(error.field(), Some("name"));
        assert_eq!(error.to_string(), "the sentence");
        let ClientError::Refused { retry_after, .. } = error else { panic!("refused") };
        assert_eq!(retry_after, Some(Duration::from_millis(250)));
    }

    #[test]
    fn a_reason_of_another_domain_is_not_ours() {
        let details =
            ErrorDetails::with_error_info("SEALED", "example.org", std::collections::HashMap::new());
        let status = Status::with_error_details(Code::Unavailable, "proxy", details);
        let error = ClientError::from_status("https://kms:1", status);
        assert!(matches!(error, ClientError::Foreign { code: Code::Unavailable, .. }));
        assert_eq!(error.reason(), None);
    }

    #[test]
    fn several_nodes_failures_are_all_told_and_the_reason_that_may_pass_counts() {
        let refused = |reason: Reason| {
            ClientError::from_status("", refusal(Code::Unavailable, reason, ErrorDetails::new()))
        };
        let unreachable = ClientError::unreachable("https://a:1", std::io::Error::other("no route"));
        let mut failures = vec![
            FailedNode::new("https://a:1", unreachable),
            FailedNode::new("https://b:1", refused(Reason::Sealed)),
        ];
        let error = ClientError::NoNodeServed { failures: std::mem::take(&mut failures) };
        assert_eq!(
            error.to_string(),
            "no node could serve the call: https://a:1 cannot be reached: no route; https://b:1: the sentence"
        );
        assert_eq!((error.reason(), error.next_step()), (Some(Reason::Sealed), "kms status"));
        failures.push(FailedNode::new("https://b:1", refused(Reason::Sealed)));
        failures.push(FailedNode::new("https://c:1", refused(Reason::Overloaded)));
        let error = ClientError::of_nodes(failures);
        assert_eq!(error.reason(), Some(Reason::Overloaded));
    }

    #[test]
    fn the_failure_of_a_single_node_stays_what_it_is() {
        let passed = ClientError::DeadlinePassed { deadline: Duration::from_secs(1) };
        let error = ClientError::of_nodes(vec![FailedNode::new("https://a:1", passed)]);
        assert!(matches!(error, ClientError::DeadlinePassed { .. }));
    }
}
