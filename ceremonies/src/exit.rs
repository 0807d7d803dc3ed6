//! Exit codes: the last column of docs/errors.md.

use kms_core::reason::Reason;

/// Anything that has no reason of its own: a wrong file, a wrong passphrase, no connection.
pub const OTHER: u8 = 1;
/// The custodian waited as long as asked and no quorum came.
pub const NO_QUORUM: u8 = 9;

/// The exit code for a reason.
pub fn exit_code(reason: Reason) -> u8 {
    use Reason as R;
    match reason {
        R::Internal => OTHER,
        R::Sealed => 2,
        R::FieldInvalid | R::SpecUnsupported => 3,
        R::CiphertextInvalid | R::KeyMismatch => 4,
        R::PrincipalUnknown | R::NotPermitted => 5,
        R::KeyNotFound | R::KeyVersionNotFound | R::RecordNotFound => 6,
        R::KeyExists | R::KeyStateForbids | R::IdempotencyConflict | R::AlreadyUnsealed => 7,
        R::Contention | R::Overloaded | R::DeadlineExceeded | R::HsmUnavailable | R::LogUnavailable => 8,
        R::CeremonyForeign
        | R::CeremonyExpired
        | R::CustodianUnknown
        | R::CustodianPresent
        | R::CustodianLocked
        | R::SignatureInvalid
        | R::ShareInvalid
        | R::OfferForged
        | R::CeremonyFailed => 9,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_code_is_the_one_in_the_document() {
        let document = include_str!("../../docs/errors.md");
        for reason in Reason::ALL {
            let row = document
                .lines()
                .find(|line| line.starts_with(&format!("| `{}` |", reason.name())))
                .expect("every reason has a row");
            let last = row.trim_end_matches(['|', ' ']).rsplit('|').next().expect("a row has columns");
            assert_eq!(last.trim(), exit_code(*reason).to_string(), "{}", reason.name());
        }
    }
}
