//! Signing, MACing and verifying functions.
#![expect(unsafe_code, reason = "C passes pointers")]

use cryptoki_sys as ck;

use crate::ffi::{entry, object, parameter, pointer, session, step};
use crate::session::OperationKind;

pub unsafe extern "C" fn sign_init(
    handle: ck::CK_SESSION_HANDLE,
    mechanism: *mut ck::CK_MECHANISM,
    key: ck::CK_OBJECT_HANDLE,
) -> ck::CK_RV {
    entry(|| {
        let session = session(handle)?;
        // SAFETY: the standard demands a mechanism with its parameter; NULL is refused.
        let call = unsafe { parameter::mechanism(mechanism.cast_const()) }?;
        session.sign_begin(&call, object(key))
    })
}

pub unsafe extern "C" fn sign(
    handle: ck::CK_SESSION_HANDLE,
    data: *mut ck::CK_BYTE,
    data_len: ck::CK_ULONG,
    signature: *mut ck::CK_BYTE,
    signature_len: *mut ck::CK_ULONG,
) -> ck::CK_RV {
    step(handle, OperationKind::Signing, |session| {
        // SAFETY: the standard demands data of this length.
        let data = unsafe { pointer::items(data.cast_const(), data_len) }?;
        // SAFETY: the standard demands room of this length unless `signature` is NULL.
        unsafe { pointer::output(signature, signature_len, |room| session.sign(data, room)) }
    })
}

pub unsafe extern "C" fn sign_update(
    handle: ck::CK_SESSION_HANDLE,
    part: *mut ck::CK_BYTE,
    part_len: ck::CK_ULONG,
) -> ck::CK_RV {
    step(handle, OperationKind::Signing, |session| {
        // SAFETY: the standard demands data of this length.
        session.sign_update(unsafe { pointer::items(part.cast_const(), part_len) }?)
    })
}

pub unsafe extern "C" fn sign_final(
    handle: ck::CK_SESSION_HANDLE,
    signature: *mut ck::CK_BYTE,
    signature_len: *mut ck::CK_ULONG,
) -> ck::CK_RV {
    step(handle, OperationKind::Signing, |session| {
        // SAFETY: the standard demands room of this length unless `signature` is NULL.
        unsafe { pointer::output(signature, signature_len, |room| session.sign_final(room)) }
    })
}

pub unsafe extern "C" fn verify_init(
    handle: ck::CK_SESSION_HANDLE,
    mechanism: *mut ck::CK_MECHANISM,
    key: ck::CK_OBJECT_HANDLE,
) -> ck::CK_RV {
    entry(|| {
        let session = session(handle)?;
        // SAFETY: the standard demands a mechanism with its parameter; NULL is refused.
        let call = unsafe { parameter::mechanism(mechanism.cast_const()) }?;
        session.verify_begin(&call, object(key))
    })
}

pub unsafe extern "C" fn verify(
    handle: ck::CK_SESSION_HANDLE,
    data: *mut ck::CK_BYTE,
    data_len: ck::CK_ULONG,
    signature: *mut ck::CK_BYTE,
    signature_len: ck::CK_ULONG,
) -> ck::CK_RV {
    step(handle, OperationKind::Verifying, |session| {
        // SAFETY: the standard demands data of this length.
        let data = unsafe { pointer::items(data.cast_const(), data_len) }?;
        // SAFETY: the standard demands a signature of this length.
        let signature = unsafe { pointer::items(signature.cast_const(), signature_len) }?;
        session.verify(data, signature)
    })
}

pub unsafe extern "C" fn verify_update(
    handle: ck::CK_SESSION_HANDLE,
    part: *mut ck::CK_BYTE,
    part_len: ck::CK_ULONG,
) -> ck::CK_RV {
    step(handle, OperationKind::Verifying, |session| {
        // SAFETY: the standard demands data of this length.
        session.verify_update(unsafe { pointer::items(part.cast_const(), part_len) }?)
    })
}

pub unsafe extern "C" fn verify_final(
    handle: ck::CK_SESSION_HANDLE,
    signature: *mut ck::CK_BYTE,
    signature_len: ck::CK_ULONG,
) -> ck::CK_RV {
    step(handle, OperationKind::Verifying, |session| {
        // SAFETY: the standard demands a signature of this length.
        session.verify_final(unsafe { pointer::items(signature.cast_const(), signature_len) }?)
    })
}
