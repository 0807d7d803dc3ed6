//! Message digesting functions.
#![expect(unsafe_code, reason = "C passes pointers")]

use cryptoki_sys as ck;

use crate::ffi::{entry, object, parameter, pointer, session, step};
use crate::session::OperationKind;

pub unsafe extern "C" fn digest_init(
    handle: ck::CK_SESSION_HANDLE,
    mechanism: *mut ck::CK_MECHANISM,
) -> ck::CK_RV {
    entry(|| {
        let session = session(handle)?;
        // SAFETY: the standard demands a mechanism with its parameter; NULL is refused.
        session.digest_begin(&unsafe { parameter::mechanism(mechanism.cast_const()) }?)
    })
}

pub unsafe extern "C" fn digest(
    handle: ck::CK_SESSION_HANDLE,
    data: *mut ck::CK_BYTE,
    data_len: ck::CK_ULONG,
    digest: *mut ck::CK_BYTE,
    digest_len: *mut ck::CK_ULONG,
) -> ck::CK_RV {
    step(handle, OperationKind::Digesting, |session| {
        // SAFETY: the standard demands data of this length.
        let data = unsafe { pointer::items(data.cast_const(), data_len) }?;
        // SAFETY: the standard demands room of this length unless `digest` is NULL.
        unsafe { pointer::output(digest, digest_len, |room| session.digest(data, room)) }
    })
}

pub unsafe extern "C" fn digest_update(
    handle: ck::CK_SESSION_HANDLE,
    part: *mut ck::CK_BYTE,
    part_len: ck::CK_ULONG,
) -> ck::CK_RV {
    step(handle, OperationKind::Digesting, |session| {
        // SAFETY: the standard demands data of this length.
        session.digest_update(unsafe { pointer::items(part.cast_const(), part_len) }?)
    })
}

pub extern "C" fn digest_key(handle: ck::CK_SESSION_HANDLE, key: ck::CK_OBJECT_HANDLE) -> ck::CK_RV {
    step(handle, OperationKind::Digesting, |session| session.digest_key(object(key)))
}

pub unsafe extern "C" fn digest_final(
    handle: ck::CK_SESSION_HANDLE,
    digest: *mut ck::CK_BYTE,
    digest_len: *mut ck::CK_ULONG,
) -> ck::CK_RV {
    step(handle, OperationKind::Digesting, |session| {
        // SAFETY: the standard demands room of this length unless `digest` is NULL.
        unsafe { pointer::output(digest, digest_len, |room| session.digest_final(room)) }
    })
}
