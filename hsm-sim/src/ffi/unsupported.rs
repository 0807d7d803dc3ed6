//! Functions that the function list must have and this module does not do. Several functions of the
//! standard have the same parameters, so they share one here.

use cryptoki_sys as ck;

use crate::refusal::Refusal;

type Bytes = *mut ck::CK_BYTE;
type Length = *mut ck::CK_ULONG;

fn refuse() -> ck::CK_RV {
    Refusal::FunctionNotSupported.code()
}

/// `C_GetOperationState`.
pub extern "C" fn to_output(_: ck::CK_SESSION_HANDLE, _: Bytes, _: Length) -> ck::CK_RV {
    refuse()
}

/// `C_SetOperationState`.
pub extern "C" fn set_operation_state(
    _: ck::CK_SESSION_HANDLE,
    _: Bytes,
    _: ck::CK_ULONG,
    _: ck::CK_OBJECT_HANDLE,
    _: ck::CK_OBJECT_HANDLE,
) -> ck::CK_RV {
    refuse()
}

/// `C_GetObjectSize`.
pub extern "C" fn get_object_size(_: ck::CK_SESSION_HANDLE, _: ck::CK_OBJECT_HANDLE, _: Length) -> ck::CK_RV {
    refuse()
}

/// `C_SignRecoverInit` and `C_VerifyRecoverInit`.
pub extern "C" fn recover_init(
    _: ck::CK_SESSION_HANDLE,
    _: *mut ck::CK_MECHANISM,
    _: ck::CK_OBJECT_HANDLE,
) -> ck::CK_RV {
    refuse()
}

/// `C_SignRecover`, `C_VerifyRecover` and the four calls that do two operations at once.
pub extern "C" fn input_to_output(
    _: ck::CK_SESSION_HANDLE,
    _: Bytes,
    _: ck::CK_ULONG,
    _: Bytes,
    _: Length,
) -> ck::CK_RV {
    refuse()
}

/// `C_WaitForSlotEvent`.
pub extern "C" fn wait_for_slot_event(
    _: ck::CK_FLAGS,
    _: *mut ck::CK_SLOT_ID,
    _: *mut std::ffi::c_void,
) -> ck::CK_RV {
    refuse()
}

/// `C_GetFunctionStatus` and `C_CancelFunction`, for which the standard prescribes this answer.
pub extern "C" fn not_parallel(_: ck::CK_SESSION_HANDLE) -> ck::CK_RV {
    Refusal::FunctionNotParallel.code()
}
