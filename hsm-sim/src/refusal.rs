//! Why a call was refused: the return codes of the standard that this module uses.

use std::sync::PoisonError;

use cryptoki_sys as ck;

/// A refusal in the words of the standard. Everything behind `ffi/` answers with these, so that the
/// code a client sees is decided where the reason is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    ActionProhibited,
    ArgumentsBad,
    AttributeReadOnly,
    AttributeSensitive,
    AttributeTypeInvalid,
    AttributeValueInvalid,
    BufferTooSmall,
    CannotLock,
    CryptokiAlreadyInitialized,
    CryptokiNotInitialized,
    CurveNotSupported,
    DataLenRange,
    DeviceError,
    DeviceMemory,
    DeviceRemoved,
    EncryptedDataInvalid,
    EncryptedDataLenRange,
    FunctionFailed,
    FunctionNotParallel,
    FunctionNotSupported,
    GeneralError,
    KeyFunctionNotPermitted,
    KeyHandleInvalid,
    KeySizeRange,
    KeyTypeInconsistent,
    MechanismInvalid,
    MechanismParamInvalid,
    ObjectHandleInvalid,
    OperationActive,
    OperationNotInitialized,
    PinIncorrect,
    PinLenRange,
    PinLocked,
    RandomNoRng,
    RandomSeedNotSupported,
    SessionCount,
    SessionExists,
    SessionHandleInvalid,
    SessionParallelNotSupported,
    SessionReadOnly,
    SessionReadOnlyExists,
    SessionReadWriteSoExists,
    SignatureInvalid,
    SignatureLenRange,
    SlotIdInvalid,
    TemplateIncomplete,
    TemplateInconsistent,
    TokenNotRecognized,
    UserAlreadyLoggedIn,
    UserAnotherAlreadyLoggedIn,
    UserNotLoggedIn,
    UserPinNotInitialized,
    UserTypeInvalid,
}

impl Refusal {
    /// The number that crosses the C interface.
    pub fn code(self) -> ck::CK_RV {
        match self {
            Self::ActionProhibited => ck::CKR_ACTION_PROHIBITED,
            Self::ArgumentsBad => ck::CKR_ARGUMENTS_BAD,
            Self::AttributeReadOnly => ck::CKR_ATTRIBUTE_READ_ONLY,
            Self::AttributeSensitive => ck::CKR_ATTRIBUTE_SENSITIVE,
            Self::AttributeTypeInvalid => ck::CKR_ATTRIBUTE_TYPE_INVALID,
            Self::AttributeValueInvalid => ck::CKR_ATTRIBUTE_VALUE_INVALID,
            Self::BufferTooSmall => ck::CKR_BUFFER_TOO_SMALL,
            Self::CannotLock => ck::CKR_CANT_LOCK,
            Self::CryptokiAlreadyInitialized => ck::CKR_CRYPTOKI_ALREADY_INITIALIZED,
            Self::CryptokiNotInitialized => ck::CKR_CRYPTOKI_NOT_INITIALIZED,
            Self::CurveNotSupported => ck::CKR_CURVE_NOT_SUPPORTED,
            Self::DataLenRange => ck::CKR_DATA_LEN_RANGE,
            Self::DeviceError => ck::CKR_DEVICE_ERROR,
            Self::DeviceMemory => ck::CKR_DEVICE_MEMORY,
            Self::DeviceRemoved => ck::CKR_DEVICE_REMOVED,
            Self::EncryptedDataInvalid => ck::CKR_ENCRYPTED_DATA_INVALID,
            Self::EncryptedDataLenRange => ck::CKR_ENCRYPTED_DATA_LEN_RANGE,
            Self::FunctionFailed => ck::CKR_FUNCTION_FAILED,
            Self::FunctionNotParallel => ck::CKR_FUNCTION_NOT_PARALLEL,
            Self::FunctionNotSupported => ck::CKR_FUNCTION_NOT_SUPPORTED,
            Self::GeneralError => ck::CKR_GENERAL_ERROR,
            Self::KeyFunctionNotPermitted => ck::CKR_KEY_FUNCTION_NOT_PERMITTED,
            Self::KeyHandleInvalid => ck::CKR_KEY_HANDLE_INVALID,
            Self::KeySizeRange => ck::CKR_KEY_SIZE_RANGE,
            Self::KeyTypeInconsistent => ck::CKR_KEY_TYPE_INCONSISTENT,
            Self::MechanismInvalid => ck::CKR_MECHANISM_INVALID,
            Self::MechanismParamInvalid => ck::CKR_MECHANISM_PARAM_INVALID,
            Self::ObjectHandleInvalid => ck::CKR_OBJECT_HANDLE_INVALID,
            Self::OperationActive => ck::CKR_OPERATION_ACTIVE,
            Self::OperationNotInitialized => ck::CKR_OPERATION_NOT_INITIALIZED,
            Self::PinIncorrect => ck::CKR_PIN_INCORRECT,
            Self::PinLenRange => ck::CKR_PIN_LEN_RANGE,
            Self::PinLocked => ck::CKR_PIN_LOCKED,
            Self::RandomNoRng => ck::CKR_RANDOM_NO_RNG,
            Self::RandomSeedNotSupported => ck::CKR_RANDOM_SEED_NOT_SUPPORTED,
            Self::SessionCount => ck::CKR_SESSION_COUNT,
            Self::SessionExists => ck::CKR_SESSION_EXISTS,
            Self::SessionHandleInvalid => ck::CKR_SESSION_HANDLE_INVALID,
            Self::SessionParallelNotSupported => ck::CKR_SESSION_PARALLEL_NOT_SUPPORTED,
            Self::SessionReadOnly => ck::CKR_SESSION_READ_ONLY,
            Self::SessionReadOnlyExists => ck::CKR_SESSION_READ_ONLY_EXISTS,
            Self::SessionReadWriteSoExists => ck::CKR_SESSION_READ_WRITE_SO_EXISTS,
            Self::SignatureInvalid => ck::CKR_SIGNATURE_INVALID,
            Self::SignatureLenRange => ck::CKR_SIGNATURE_LEN_RANGE,
            Self::SlotIdInvalid => ck::CKR_SLOT_ID_INVALID,
            Self::TemplateIncomplete => ck::CKR_TEMPLATE_INCOMPLETE,
            Self::TemplateInconsistent => ck::CKR_TEMPLATE_INCONSISTENT,
            Self::TokenNotRecognized => ck::CKR_TOKEN_NOT_RECOGNIZED,
            Self::UserAlreadyLoggedIn => ck::CKR_USER_ALREADY_LOGGED_IN,
            Self::UserAnotherAlreadyLoggedIn => ck::CKR_USER_ANOTHER_ALREADY_LOGGED_IN,
            Self::UserNotLoggedIn => ck::CKR_USER_NOT_LOGGED_IN,
            Self::UserPinNotInitialized => ck::CKR_USER_PIN_NOT_INITIALIZED,
            Self::UserTypeInvalid => ck::CKR_USER_TYPE_INVALID,
        }
    }
}

// A thread panicked while it held the lock, so what the lock guards may be half changed. Refusing
// from then on is the honest answer; a client recovers with C_Finalize.
impl<T> From<PoisonError<T>> for Refusal {
    fn from(_: PoisonError<T>) -> Self {
        Self::GeneralError
    }
}
