//! Key management functions.
#![expect(unsafe_code, reason = "C passes pointers")]

use cryptoki_sys as ck;

use crate::ffi::{entry, object, parameter, pointer, session};

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
        let call = unsafe { parameter::mechanism(mechanism.cast_const()) }?;
        // SAFETY: the standard demands `count` attributes with their values; NULL is refused.
        let template = unsafe { pointer::template(template.cast_const(), count) }?;
        let generated = session.generate_key(&call, template)?;
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
        let call = unsafe { parameter::mechanism(mechanism.cast_const()) }?;
        // SAFETY: the standard demands `public_count` attributes with their values; NULL is refused.
        let public = unsafe { pointer::template(public_template.cast_const(), public_count) }?;
        // SAFETY: the same for the private key.
        let private = unsafe { pointer::template(private_template.cast_const(), private_count) }?;
        let (public, private) = session.generate_key_pair(&call, public, private)?;
        // SAFETY: the standard demands a place for each handle; NULL was refused.
        unsafe { pointer::write(public_key, public.0) }?;
        // SAFETY: as above.
        unsafe { pointer::write(private_key, private.0) }
    })
}

pub unsafe extern "C" fn wrap_key(
    handle: ck::CK_SESSION_HANDLE,
    mechanism: *mut ck::CK_MECHANISM,
    wrapping_key: ck::CK_OBJECT_HANDLE,
    key: ck::CK_OBJECT_HANDLE,
    wrapped: *mut ck::CK_BYTE,
    wrapped_len: *mut ck::CK_ULONG,
) -> ck::CK_RV {
    entry(|| {
        let session = session(handle)?;
        // SAFETY: the standard demands a mechanism with its parameter; NULL is refused.
        let call = unsafe { parameter::mechanism(mechanism.cast_const()) }?;
        let mut made_nonce = None;
        let wrap = |room| {
            let wrapped = session.wrap_key(call, object(wrapping_key), object(key), room)?;
            made_nonce = wrapped.made_nonce;
            Ok(wrapped.output)
        };
        // SAFETY: the standard demands room of this length unless `wrapped` is NULL.
        unsafe { pointer::output(wrapped, wrapped_len, wrap) }?;
        match made_nonce {
            // SAFETY: the mechanism was read above, and only one with a nonce in it has this answer.
            Some(nonce) => unsafe { parameter::write_made_nonce(mechanism.cast_const(), nonce) },
            None => Ok(()),
        }
    })
}

pub unsafe extern "C" fn unwrap_key(
    handle: ck::CK_SESSION_HANDLE,
    mechanism: *mut ck::CK_MECHANISM,
    unwrapping_key: ck::CK_OBJECT_HANDLE,
    wrapped: *mut ck::CK_BYTE,
    wrapped_len: ck::CK_ULONG,
    template: *mut ck::CK_ATTRIBUTE,
    count: ck::CK_ULONG,
    key: *mut ck::CK_OBJECT_HANDLE,
) -> ck::CK_RV {
    entry(|| {
        let session = session(handle)?;
        pointer::require_place(key)?;
        // SAFETY: the standard demands a mechanism with its parameter; NULL is refused.
        let call = unsafe { parameter::mechanism(mechanism.cast_const()) }?;
        // SAFETY: the standard demands a wrapped key of this length.
        let wrapped = unsafe { pointer::items(wrapped.cast_const(), wrapped_len) }?;
        // SAFETY: the standard demands `count` attributes with their values; NULL is refused.
        let template = unsafe { pointer::template(template.cast_const(), count) }?;
        let unwrapped = session.unwrap_key(call, object(unwrapping_key), wrapped, template)?;
        // SAFETY: the standard demands a place for the handle; NULL was refused.
        unsafe { pointer::write(key, unwrapped.0) }
    })
}

pub unsafe extern "C" fn derive_key(
    handle: ck::CK_SESSION_HANDLE,
    mechanism: *mut ck::CK_MECHANISM,
    base_key: ck::CK_OBJECT_HANDLE,
    template: *mut ck::CK_ATTRIBUTE,
    count: ck::CK_ULONG,
    key: *mut ck::CK_OBJECT_HANDLE,
) -> ck::CK_RV {
    entry(|| {
        let session = session(handle)?;
        pointer::require_place(key)?;
        // SAFETY: the standard demands a mechanism with its parameter; NULL is refused.
        let call = unsafe { parameter::mechanism(mechanism.cast_const()) }?;
        // SAFETY: the standard demands `count` attributes with their values; NULL is refused.
        let template = unsafe { pointer::template(template.cast_const(), count) }?;
        let derived = session.derive_key(call, object(base_key), template)?;
        // SAFETY: the standard demands a place for the handle; NULL was refused.
        unsafe { pointer::write(key, derived.0) }
    })
}
