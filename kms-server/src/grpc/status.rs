//! The only place where a service error becomes a gRPC status.

use crate::service::ServiceError;
use kms_core::reason::Reason;
use std::collections::HashMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The domain of every `ErrorInfo`.
const DOMAIN: &str = "kms";

/// The gRPC code of a reason (docs/errors.md). No wildcard: a new reason needs a decision here.
pub const fn code(reason: Reason) -> Code {
    match reason {
        Reason::FieldInvalid
        | Reason::SpecUnsupported
        | Reason::SpecNotAllowed
        | Reason::CiphertextInvalid
        | Reason::MacInvalid
        | Reason::KeySignatureInvalid
        | Reason::CeremonyForeign
        | Reason::ShareInvalid
        | Reason::ImportInvalid
        | Reason::OfferForged => Code::InvalidArgument,
        Reason::KeyMismatch
        | Reason::KeyStateForbids
        | Reason::KeyUsageForbids
        | Reason::KeyRetained
        | Reason::KeyExhausted
        | Reason::DataKeyStateForbids
        | Reason::AlreadyUnsealed
        | Reason::CustodianPresent
        | Reason::CustodianLocked => Code::FailedPrecondition,
        Reason::PrincipalUnknown
        | Reason::NotPermitted
        | Reason::CustodianUnknown
        | Reason::SignatureInvalid => Code::PermissionDenied,
        Reason::KeyNotFound
        | Reason::KeyVersionNotFound
        | Reason::AliasNotFound
        | Reason::ImportNotFound
        | Reason::DataKeyNotFound
        | Reason::RecordNotFound => Code::NotFound,
        Reason::KeyExists | Reason::IdempotencyConflict => Code::AlreadyExists,
        Reason::Contention | Reason::RevisionMismatch => Code::Aborted,
        Reason::Sealed | Reason::HsmUnavailable | Reason::LogUnavailable => Code::Unavailable,
        Reason::Overloaded => Code::ResourceExhausted,
        Reason::DeadlineExceeded | Reason::CeremonyExpired => Code::DeadlineExceeded,
        Reason::CeremonyFailed | Reason::Internal => Code::Internal,
    }
}

/// The status that a caller sees.
pub fn status(error: &ServiceError, request_id: &str) -> Status {
    let mut details = ErrorDetails::with_error_info(error.reason.name(), DOMAIN, HashMap::new());
    if let Some(field) = error.field {
        details.add_bad_request_violation(field, error.message.as_str());
    }
    if let Some(after) = error.retry_after {
        details.set_retry_info(Some(after));
    }
    details.set_request_info(request_id, "");
    Status::with_error_details(code(error.reason), error.message.as_str(), details)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// docs/errors.md is what callers are told; column two is the gRPC code.
    #[test]
    fn every_reason_has_the_code_of_the_document() {
        let document = include_str!("../../../docs/errors.md");
        for reason in Reason::ALL {
            let screaming: String = format!("{:?}", code(*reason))
                .chars()
                .enumerate()
                .flat_map(|(place, letter)| {
                    let underscore = (place > 0 && letter.is_uppercase()).then_some('_');
                    underscore.into_iter().chain(letter.to_uppercase())
                })
                .collect();
            let row = format!("| `{}` | {screaming} |", reason.name());
            assert!(document.contains(&row), "docs/errors.md must hold {row}");
        }
    }
}
