//! Key management functions.
#![expect(unsafe_code, reason = "C passes pointers")]

use cryptoki_sys as ck;

use crate::ffi::{entry, pointer, session};

pub unsafe extern "C" fn generate_key(
    handle: ck::CK_SESSION_HANDLE,
    mechanism: *mut ck::CK_MECHANISM,
    template: *mut ck::CK_ATTRIBUTE,
    count: ck::CK_ULONG,
    key: *mut ck::CK_OBJECT_HANDLE,
) -> ck::CK_RV {
    entry(|| {
        let session = session(handle)?;
        pointer::require_place(key)?;
        // SAFETY: the standard demands a mechanism with its parameter; NULL is refused.
        let call = unsafe { pointer::mechanism(mechanism.cast_const()) }?;
        // SAFETY: the standard demands `count` attributes with their values; NULL is refused.
        let template = unsafe { pointer::template(template.cast_const(), count) }?;
        let generated = session.generate_key(call.mechanism, template)?;
        // SAFETY: the standard demands a place for the handle; NULL was refused.
        unsafe { pointer::write(key, generated.0) }
    })
}

pub unsafe extern "C" fn generate_key_pair(
    handle: ck::CK_SESSION_HANDLE,
    mechanism: *mut ck::CK_MECHANISM,
    public_template: *mut ck::CK_ATTRIBUTE,
    public_count: ck::CK_ULONG,
    private_template: *mut ck::CK_ATTRIBUTE,
    private_count: ck::CK_ULONG,
    public_key: *mut ck::CK_OBJECT_HANDLE,
    private_key: *mut ck::CK_OBJECT_HANDLE,
) -> ck::CK_RV {
    entry(|| {
        let session = session(handle)?;
        pointer::require_place(public_key)?;
        pointer::require_place(private_key)?;
        // SAFETY: the standard demands a mechanism with its parameter; NULL is refused.
        let call = unsafe { pointer::mechanism(mechanism.cast_const()) }?;
        // SAFETY: the standard demands `public_count` attributes with their values; NULL is refused.
        let public = unsafe { pointer::template(public_template.cast_const(), public_count) }?;
        // SAFETY: the same for the private key.
        let private = unsafe { pointer::template(private_template.cast_const(), private_count) }?;
        let (public, private) = session.generate_key_pair(call.mechanism, public, private)?;
        // SAFETY: the standard demands a place for each handle; NULL was refused.
        unsafe { pointer::write(public_key, public.0) }?;
        // SAFETY: as above.
        unsafe { pointer::write(private_key, private.0) }
    })
}
