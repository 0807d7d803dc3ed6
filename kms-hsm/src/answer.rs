//! Every answer that a PKCS#11 library can give, and what it means here. One table, and nothing is decided
//! about an answer anywhere else; `docs/hsm.md` shows the same table.

#[cfg(test)]
use crate::error::ErrorClass;
use crate::error::{HsmError, TokenAnswer};
use cryptoki::error::{Error as Pkcs11Error, RvError};

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The request cannot succeed on any token like this one.
    Refused,
    /// Session, operation or object handle is gone.
    Session,
    /// Nobody, or somebody else, is logged in.
    Login,
    /// The token is not there.
    Token,
    /// No room for another session or object at the moment.
    Room,
    /// The token does not have this.
    Missing,
    /// This PIN will not do, and does not get better by trying again.
    Pin,
    /// The token or its library does not work as it should.
    Sick,
}

#[cfg(test)]
impl Meaning {
    const fn class(self) -> ErrorClass {
        match self {
            Meaning::Refused => ErrorClass::CallersFault,
            Meaning::Session => ErrorClass::RetryOnNewSession,
            Meaning::Login => ErrorClass::LoginLost,
            Meaning::Token => ErrorClass::TokenGone,
            Meaning::Room => ErrorClass::Busy,
            Meaning::Missing => ErrorClass::Unsupported,
            Meaning::Pin => ErrorClass::PinIncorrect,
            Meaning::Sick => ErrorClass::DeviceSick,
        }
    }
}

/// What an answer means that stands in no table: one of a vendor, or of a later standard. Nothing is guessed
/// from its number, so it counts as a sick device: refused as retryable, and never as the caller's fault.
const UNFORESEEN: Meaning = Meaning::Sick;

macro_rules! answers {
    (
        named: $($code:literal $name:ident $variant:ident $meaning:ident,)*
        unnamed: $($later_code:literal $later_name:ident $later_meaning:ident,)*
    ) => {
        /// Number, name and meaning of every answer, in the order of the numbers where the client names them.
        #[cfg(test)]
        pub(crate) const ANSWERS: &[(u64, &str, Meaning)] = &[
            $(($code, stringify!($name), Meaning::$meaning),)*
            $(($later_code, stringify!($later_name), Meaning::$later_meaning),)*
        ];

        /// What `answer` means. The client's list is matched without a wildcard: a new name does not compile
        /// until somebody has decided about it.
        pub(crate) const fn meaning(answer: RvError) -> Meaning {
            match answer {
                $(RvError::$variant => Meaning::$meaning,)*
                RvError::UnknownErrorCode(code) => match code {
                    $($later_code => Meaning::$later_meaning,)*
                    _ => UNFORESEEN,
                },
                RvError::VendorDefined(_) => UNFORESEEN,
            }
        }

        /// The standard's name of `answer`, or its number.
        pub(crate) fn name(answer: RvError) -> String {
            match answer {
                $(RvError::$variant => stringify!($name).to_owned(),)*
                RvError::UnknownErrorCode(code) | RvError::VendorDefined(code) => match code {
                    $($later_code => stringify!($later_name).to_owned(),)*
                    _ => format!("{code:#010x}"),
                },
            }
        }
    };
}

answers! {
    named:
    0x0001 CKR_CANCEL Cancel Session,
    0x0002 CKR_HOST_MEMORY HostMemory Room,
    // The slot went with the token.
    0x0003 CKR_SLOT_ID_INVALID SlotIdInvalid Token,
    // On some modules these three also mean a wrong GCM tag: `bad_tag_answers` of the profile.
    0x0005 CKR_GENERAL_ERROR GeneralError Sick,
    0x0006 CKR_FUNCTION_FAILED FunctionFailed Sick,
    0x0007 CKR_ARGUMENTS_BAD ArgumentsBad Refused,
    0x0008 CKR_NO_EVENT NoEvent Sick,
    0x0009 CKR_NEED_TO_CREATE_THREADS NeedToCreateThreads Sick,
    0x000a CKR_CANT_LOCK CantLock Sick,
    0x0010 CKR_ATTRIBUTE_READ_ONLY AttributeReadOnly Refused,
    0x0011 CKR_ATTRIBUTE_SENSITIVE AttributeSensitive Refused,
    0x0012 CKR_ATTRIBUTE_TYPE_INVALID AttributeTypeInvalid Refused,
    0x0013 CKR_ATTRIBUTE_VALUE_INVALID AttributeValueInvalid Refused,
    0x001b CKR_ACTION_PROHIBITED ActionProhibited Refused,
    0x0020 CKR_DATA_INVALID DataInvalid Refused,
    0x0021 CKR_DATA_LEN_RANGE DataLenRange Refused,
    0x0030 CKR_DEVICE_ERROR DeviceError Sick,
    // A token that is full is not sick: whoever makes keys until it is full must not stop the others.
    0x0031 CKR_DEVICE_MEMORY DeviceMemory Room,
    0x0032 CKR_DEVICE_REMOVED DeviceRemoved Token,
    0x0040 CKR_ENCRYPTED_DATA_INVALID EncryptedDataInvalid Refused,
    0x0041 CKR_ENCRYPTED_DATA_LEN_RANGE EncryptedDataLenRange Refused,
    0x0050 CKR_FUNCTION_CANCELED FunctionCanceled Session,
    0x0051 CKR_FUNCTION_NOT_PARALLEL FunctionNotParallel Sick,
    0x0054 CKR_FUNCTION_NOT_SUPPORTED FunctionNotSupported Missing,
    // A handle that a logout or another session's destroy took along: the object is looked for again.
    0x0060 CKR_KEY_HANDLE_INVALID KeyHandleInvalid Session,
    0x0062 CKR_KEY_SIZE_RANGE KeySizeRange Refused,
    0x0063 CKR_KEY_TYPE_INCONSISTENT KeyTypeInconsistent Refused,
    0x0064 CKR_KEY_NOT_NEEDED KeyNotNeeded Refused,
    0x0065 CKR_KEY_CHANGED KeyChanged Refused,
    0x0066 CKR_KEY_NEEDED KeyNeeded Refused,
    0x0067 CKR_KEY_INDIGESTIBLE KeyIndigestible Refused,
    0x0068 CKR_KEY_FUNCTION_NOT_PERMITTED KeyFunctionNotPermitted Refused,
    0x0069 CKR_KEY_NOT_WRAPPABLE KeyNotWrappable Refused,
    0x006a CKR_KEY_UNEXTRACTABLE KeyUnextractable Refused,
    0x0070 CKR_MECHANISM_INVALID MechanismInvalid Missing,
    0x0071 CKR_MECHANISM_PARAM_INVALID MechanismParamInvalid Refused,
    0x0082 CKR_OBJECT_HANDLE_INVALID ObjectHandleInvalid Session,
    // A call was left half done in the session.
    0x0090 CKR_OPERATION_ACTIVE OperationActive Session,
    0x0091 CKR_OPERATION_NOT_INITIALIZED OperationNotInitialized Session,
    0x00a0 CKR_PIN_INCORRECT PinIncorrect Pin,
    0x00a1 CKR_PIN_INVALID PinInvalid Pin,
    0x00a2 CKR_PIN_LEN_RANGE PinLenRange Pin,
    0x00a3 CKR_PIN_EXPIRED PinExpired Pin,
    0x00a4 CKR_PIN_LOCKED PinLocked Pin,
    0x00b0 CKR_SESSION_CLOSED SessionClosed Session,
    0x00b1 CKR_SESSION_COUNT SessionCount Room,
    0x00b3 CKR_SESSION_HANDLE_INVALID SessionHandleInvalid Session,
    0x00b4 CKR_SESSION_PARALLEL_NOT_SUPPORTED SessionParallelNotSupported Missing,
    0x00b5 CKR_SESSION_READ_ONLY SessionReadOnly Refused,
    0x00b6 CKR_SESSION_EXISTS SessionExists Refused,
    0x00b7 CKR_SESSION_READ_ONLY_EXISTS SessionReadOnlyExists Refused,
    // The security officer of the same process is logged in: our login is not there.
    0x00b8 CKR_SESSION_READ_WRITE_SO_EXISTS SessionReadWriteSoExists Login,
    0x00c0 CKR_SIGNATURE_INVALID SignatureInvalid Refused,
    0x00c1 CKR_SIGNATURE_LEN_RANGE SignatureLenRange Refused,
    0x00d0 CKR_TEMPLATE_INCOMPLETE TemplateIncomplete Refused,
    0x00d1 CKR_TEMPLATE_INCONSISTENT TemplateInconsistent Refused,
    0x00e0 CKR_TOKEN_NOT_PRESENT TokenNotPresent Token,
    0x00e1 CKR_TOKEN_NOT_RECOGNIZED TokenNotRecognized Token,
    0x00e2 CKR_TOKEN_WRITE_PROTECTED TokenWriteProtected Refused,
    0x00f0 CKR_UNWRAPPING_KEY_HANDLE_INVALID UnwrappingKeyHandleInvalid Session,
    0x00f1 CKR_UNWRAPPING_KEY_SIZE_RANGE UnwrappingKeySizeRange Refused,
    0x00f2 CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT UnwrappingKeyTypeInconsistent Refused,
    // The next four cost no attempt: the token did not look at the PIN.
    0x0100 CKR_USER_ALREADY_LOGGED_IN UserAlreadyLoggedIn Login,
    0x0101 CKR_USER_NOT_LOGGED_IN UserNotLoggedIn Login,
    0x0102 CKR_USER_PIN_NOT_INITIALIZED UserPinNotInitialized Pin,
    0x0103 CKR_USER_TYPE_INVALID UserTypeInvalid Missing,
    0x0104 CKR_USER_ANOTHER_ALREADY_LOGGED_IN UserAnotherAlreadyLoggedIn Login,
    0x0105 CKR_USER_TOO_MANY_TYPES UserTooManyTypes Login,
    0x0110 CKR_WRAPPED_KEY_INVALID WrappedKeyInvalid Refused,
    0x0112 CKR_WRAPPED_KEY_LEN_RANGE WrappedKeyLenRange Refused,
    0x0113 CKR_WRAPPING_KEY_HANDLE_INVALID WrappingKeyHandleInvalid Session,
    0x0114 CKR_WRAPPING_KEY_SIZE_RANGE WrappingKeySizeRange Refused,
    0x0115 CKR_WRAPPING_KEY_TYPE_INCONSISTENT WrappingKeyTypeInconsistent Refused,
    0x0120 CKR_RANDOM_SEED_NOT_SUPPORTED RandomSeedNotSupported Missing,
    0x0121 CKR_RANDOM_NO_RNG RandomNoRng Missing,
    0x0130 CKR_DOMAIN_PARAMS_INVALID DomainParamsInvalid Refused,
    0x0140 CKR_CURVE_NOT_SUPPORTED CurveNotSupported Missing,
    // The client asks for the length first, so a token that then wants more contradicts itself.
    0x0150 CKR_BUFFER_TOO_SMALL BufferTooSmall Sick,
    0x0160 CKR_SAVED_STATE_INVALID SavedStateInvalid Refused,
    0x0170 CKR_INFORMATION_SENSITIVE InformationSensitive Refused,
    0x0180 CKR_STATE_UNSAVEABLE StateUnsaveable Missing,
    // The library was finalised under us: only a restart of the process helps.
    0x0190 CKR_CRYPTOKI_NOT_INITIALIZED CryptokiNotInitialized Sick,
    0x0191 CKR_CRYPTOKI_ALREADY_INITIALIZED CryptokiAlreadyInitialized Sick,
    0x01a0 CKR_MUTEX_BAD MutexBad Sick,
    0x01a1 CKR_MUTEX_NOT_LOCKED MutexNotLocked Sick,
    // Both ask for something that we do not have; another attempt would be spent on doubt.
    0x01b0 CKR_NEW_PIN_MODE NewPinMode Pin,
    0x01b1 CKR_NEXT_OTP NextOtp Pin,
    0x01b5 CKR_EXCEEDED_MAX_ITERATIONS ExceededMaxIterations Session,
    0x01b6 CKR_FIPS_SELF_TEST_FAILED FipsSelfTestFailed Sick,
    0x01b7 CKR_LIBRARY_LOAD_FAILED LibraryLoadFailed Sick,
    0x01b8 CKR_PIN_TOO_WEAK PinTooWeak Pin,
    0x01b9 CKR_PUBLIC_KEY_INVALID PublicKeyInvalid Refused,
    0x0200 CKR_FUNCTION_REJECTED FunctionRejected Refused,
    unnamed:
    0x0042 CKR_AEAD_DECRYPT_FAILED Refused,
    0x0201 CKR_TOKEN_RESOURCE_EXCEEDED Room,
    0x0202 CKR_OPERATION_CANCEL_FAILED Session,
    0x0203 CKR_KEY_EXHAUSTED Refused,
    0x0204 CKR_PENDING Sick,
    0x0205 CKR_SESSION_ASYNC_NOT_SUPPORTED Missing,
    0x0206 CKR_SEED_RANDOM_REQUIRED Sick,
    0x0207 CKR_OPERATION_NOT_VALIDATED Missing,
    0x0208 CKR_TOKEN_NOT_INITIALIZED Token,
    0x0209 CKR_PARAMETER_SET_NOT_SUPPORTED Missing,
}

/// `CKR_AEAD_DECRYPT_FAILED` of PKCS#11 3.0, as the client gives it.
pub(crate) const AEAD_DECRYPT_FAILED: RvError = RvError::UnknownErrorCode(0x42);

/// Gives an answer of the device's library its place.
impl From<Pkcs11Error> for HsmError {
    fn from(error: Pkcs11Error) -> Self {
        let meaning = match &error {
            Pkcs11Error::Pkcs11(answer, _) => meaning(*answer),
            // The library does not have the function at all.
            Pkcs11Error::NullFunctionPointer | Pkcs11Error::NotSupported => Meaning::Missing,
            // The client could not make sense of what the library gave it.
            Pkcs11Error::LibraryLoading(_)
            | Pkcs11Error::TryFromInt(_)
            | Pkcs11Error::TryFromSlice(_)
            | Pkcs11Error::ParseInt(_)
            | Pkcs11Error::Utf8(_)
            | Pkcs11Error::NulError(_)
            | Pkcs11Error::MissingSymbol(_)
            | Pkcs11Error::InvalidValue
            | Pkcs11Error::PinNotSet => Meaning::Sick,
        };
        let source = TokenAnswer::from(error);
        match meaning {
            Meaning::Refused => HsmError::Refused { source },
            Meaning::Session => HsmError::SessionLost { source },
            Meaning::Login => HsmError::LoginLost { source: Some(source) },
            Meaning::Token => HsmError::TokenGone { source: Some(source) },
            Meaning::Room => HsmError::NoRoom { source },
            Meaning::Missing => HsmError::Unsupported { what: source.to_string() },
            Meaning::Pin => HsmError::PinRefused { source: Some(source) },
            Meaning::Sick => HsmError::DeviceSick { source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptoki::context::Function;
    use cryptoki::error::Rv;

    const DOCUMENT: &str = include_str!("../../docs/hsm.md");

    fn answer(code: u64) -> RvError {
        match Rv::from(code) {
            Rv::Error(answer) => answer,
            Rv::Ok => panic!("{code:#x} is no error"),
        }
    }

    #[test]
    fn the_number_of_every_answer_leads_to_its_own_row() {
        for (code, row_name, row_meaning) in ANSWERS {
            assert_eq!(name(answer(*code)), *row_name, "{code:#x}");
            assert_eq!(meaning(answer(*code)), *row_meaning, "{row_name}");
        }
    }

    #[test]
    fn every_answer_that_the_standard_numbers_stands_in_the_table() {
        let named = |code: &u64| {
            !matches!(answer(*code), RvError::UnknownErrorCode(_)) || *code == 0x42 || *code > 0x200
        };
        let standard = (1..0x20a).filter(named).collect::<Vec<_>>();
        let mut table: Vec<u64> = ANSWERS.iter().map(|(code, _, _)| *code).collect();
        table.sort_unstable();
        assert_eq!(table, standard);
    }

    #[test]
    fn the_class_that_an_error_reports_is_that_of_its_row() {
        for (code, name, meaning) in ANSWERS {
            let error = HsmError::from(Pkcs11Error::Pkcs11(answer(*code), Function::Encrypt));
            assert_eq!(error.class(), meaning.class(), "{name}");
        }
    }

    #[test]
    fn an_answer_that_nobody_foresaw_is_a_sick_device_and_never_the_callers_fault() {
        for code in [0x4, 0x43, 0x20a, 0x7fff_ffff, 0x8000_0000, 0x8000_0001, 0xffff_ffff, u64::MAX] {
            let error = HsmError::from(Pkcs11Error::Pkcs11(answer(code), Function::Decrypt));
            assert_eq!(error.class(), ErrorClass::DeviceSick, "{code:#x}");
        }
    }

    #[test]
    fn only_answers_about_a_pin_count_as_a_refused_pin() {
        for (code, name, meaning) in ANSWERS {
            let is_about_pin = name.contains("_PIN_") || *code == 0x1b1;
            assert_eq!(*meaning == Meaning::Pin, is_about_pin, "{name}");
        }
    }

    #[test]
    fn the_document_shows_the_same_table() {
        let (_, section) = DOCUMENT.split_once("## Answers of a token").expect("the section is there");
        let section = section.split("\n## ").next().expect("text before the next section");
        let documented: Vec<Vec<String>> = section
            .lines()
            .filter(|line| line.starts_with("| `0x"))
            .map(|line| line.split('|').map(|cell| cell.trim().replace('`', "")).collect())
            .collect();
        let mut table: Vec<_> = ANSWERS.iter().collect();
        table.sort_by_key(|(code, _, _)| *code);
        let expected: Vec<Vec<String>> = table
            .into_iter()
            .map(|(code, name, meaning)| {
                let class = meaning.class().name().to_owned();
                vec![String::new(), format!("{code:#06x}"), (*name).to_owned(), class, String::new()]
            })
            .collect();
        assert_eq!(documented, expected);
    }
}
