//! The stable reasons for which the service refuses (docs/errors.md): in errors, records and metrics.

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why something was refused or failed. Names are stable; new ones may be added.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])* $variant,)*
        }

        impl Reason {
            /// Every reason, in the order of docs/errors.md.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)*];

            /// The stable name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Reason::$variant => $name,)*
                }
            }

            /// Reads the name that [`Reason::name`] gives.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Reason::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

reasons! {
    /// A field of the request is missing, too long or of the wrong form.
    FieldInvalid = "FIELD_INVALID",
    /// The key specification is unknown or not available here.
    SpecUnsupported = "SPEC_UNSUPPORTED",
    /// The configuration of this deployment does not allow keys of this specification.
    SpecNotAllowed = "SPEC_NOT_ALLOWED",
    /// The ciphertext does not open: one reason for every cause.
    CiphertextInvalid = "CIPHERTEXT_INVALID",
    /// The MAC is not that of the message under this key.
    MacInvalid = "MAC_INVALID",
    /// The signature is not one over the input by this key.
    KeySignatureInvalid = "KEY_SIGNATURE_INVALID",
    /// The ciphertext names another key than the caller expects.
    KeyMismatch = "KEY_MISMATCH",
    /// The certificate is of a known authority, but the bundle does not list its principal.
    PrincipalUnknown = "PRINCIPAL_UNKNOWN",
    /// The role may not do this.
    NotPermitted = "NOT_PERMITTED",
    /// No such key, or not in this tenant.
    KeyNotFound = "KEY_NOT_FOUND",
    /// The key has no such version.
    KeyVersionNotFound = "KEY_VERSION_NOT_FOUND",
    /// The tenant has a key of this name already.
    KeyExists = "KEY_EXISTS",
    /// The key's state does not allow this.
    KeyStateForbids = "KEY_STATE_FORBIDS",
    /// The key is for something else.
    KeyUsageForbids = "KEY_USAGE_FORBIDS",
    /// Its protection from destruction or its retention keeps the key.
    KeyRetained = "KEY_RETAINED",
    /// The version has encrypted as often as one key may.
    KeyExhausted = "KEY_EXHAUSTED",
    /// No such alias, or not in this tenant.
    AliasNotFound = "ALIAS_NOT_FOUND",
    /// No such registered data key, or not in this tenant.
    DataKeyNotFound = "DATA_KEY_NOT_FOUND",
    /// The state of the registered data key or its version does not allow this.
    DataKeyStateForbids = "DATA_KEY_STATE_FORBIDS",
    /// The key has another revision than the caller has seen.
    RevisionMismatch = "REVISION_MISMATCH",
    /// The idempotency token was used with another request.
    IdempotencyConflict = "IDEMPOTENCY_CONFLICT",
    /// Others changed the same thing at the same time, again and again.
    Contention = "CONTENTION",
    /// No such import, or not in this tenant; it was used, or has expired.
    ImportNotFound = "IMPORT_NOT_FOUND",
    /// The key material of an import is not taken.
    ImportInvalid = "IMPORT_INVALID",
    /// No audit record with this index.
    RecordNotFound = "RECORD_NOT_FOUND",
    /// The service is sealed.
    Sealed = "SEALED",
    /// The service is open already; there is nothing to unseal.
    AlreadyUnsealed = "ALREADY_UNSEALED",
    /// Too many calls at once.
    Overloaded = "OVERLOADED",
    /// The caller's deadline passed; whether a change was done is in the log.
    DeadlineExceeded = "DEADLINE_EXCEEDED",
    /// The HSM does not answer or refuses.
    HsmUnavailable = "HSM_UNAVAILABLE",
    /// The audit log cannot be written, so nothing takes effect that is not in it.
    LogUnavailable = "LOG_UNAVAILABLE",
    /// The message is not part of this ceremony or of no ceremony that is going on.
    CeremonyForeign = "CEREMONY_FOREIGN",
    /// The ceremony's window has closed.
    CeremonyExpired = "CEREMONY_EXPIRED",
    /// The custodian is not in the bundle.
    CustodianUnknown = "CUSTODIAN_UNKNOWN",
    /// The custodian is present already; one person never counts twice.
    CustodianPresent = "CUSTODIAN_PRESENT",
    /// Three failures in a row: the custodian is locked for 30 minutes.
    CustodianLocked = "CUSTODIAN_LOCKED",
    /// The signature is not by the enrolled key.
    SignatureInvalid = "SIGNATURE_INVALID",
    /// The share is of another set, another person or was changed.
    ShareInvalid = "SHARE_INVALID",
    /// The custodian's own check failed: an offer that the node did not sign.
    OfferForged = "OFFER_FORGED",
    /// The ceremony's operation itself failed.
    CeremonyFailed = "CEREMONY_FAILED",
    /// A fault in the service; the request id leads to its log.
    Internal = "INTERNAL",
}

impl Reason {
    /// The exit code of the command line tools: the last column of docs/errors.md.
    pub const fn exit_code(self) -> u8 {
        use Reason as R;
        match self {
            R::Internal => 1,
            R::Sealed => 2,
            R::FieldInvalid | R::SpecUnsupported | R::SpecNotAllowed => 3,
            R::CiphertextInvalid
            | R::MacInvalid
            | R::KeySignatureInvalid
            | R::KeyMismatch
            | R::ImportInvalid => 4,
            R::PrincipalUnknown | R::NotPermitted => 5,
            R::KeyNotFound
            | R::KeyVersionNotFound
            | R::AliasNotFound
            | R::ImportNotFound
            | R::DataKeyNotFound
            | R::RecordNotFound => 6,
            R::KeyExists
            | R::KeyStateForbids
            | R::KeyUsageForbids
            | R::KeyRetained
            | R::KeyExhausted
            | R::DataKeyStateForbids
            | R::RevisionMismatch
            | R::IdempotencyConflict
            | R::AlreadyUnsealed => 7,
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_code_is_the_one_in_the_document() {
        let document = include_str!("../../docs/errors.md");
        for reason in Reason::ALL {
            let start = alloc::format!("| `{}` |", reason.name());
            let row = document.lines().find(|line| line.starts_with(&start)).expect("every reason has a row");
            let end = alloc::format!("| {} |", reason.exit_code());
            assert!(row.ends_with(&end), "{}", reason.name());
        }
    }

    #[test]
    fn the_document_has_one_row_for_every_reason_and_no_other() {
        let document = include_str!("../../docs/errors.md");
        let rows: alloc::vec::Vec<&str> =
            document.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
        let names: alloc::vec::Vec<&str> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(rows, names);
    }
}
