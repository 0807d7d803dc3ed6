//! Object management functions.
#![expect(unsafe_code, reason = "C passes pointers")]

use cryptoki_sys as ck;

use crate::ffi::{entry, object, pointer, session};
use crate::object::{Object, Reading};
use crate::refusal::Refusal;

pub unsafe extern "C" fn create_object(
    handle: ck::CK_SESSION_HANDLE,
    template: *mut ck::CK_ATTRIBUTE,
    count: ck::CK_ULONG,
    created: *mut ck::CK_OBJECT_HANDLE,
) -> ck::CK_RV {
    entry(|| {
        let session = session(handle)?;
        pointer::require_place(created)?;
        // SAFETY: the standard demands `count` attributes with their values; NULL is refused.
        let template = unsafe { pointer::template(template.cast_const(), count) }?;
        let object = session.create_object(template)?;
        // SAFETY: the standard demands a place for the handle; NULL was refused.
        unsafe { pointer::write(created, object.0) }
    })
}

pub unsafe extern "C" fn copy_object(
    handle: ck::CK_SESSION_HANDLE,
    original: ck::CK_OBJECT_HANDLE,
    template: *mut ck::CK_ATTRIBUTE,
    count: ck::CK_ULONG,
    copy: *mut ck::CK_OBJECT_HANDLE,
) -> ck::CK_RV {
    entry(|| {
        let session = session(handle)?;
        pointer::require_place(copy)?;
        // SAFETY: the standard demands `count` attributes with their values; NULL is refused.
        let template = unsafe { pointer::template(template.cast_const(), count) }?;
        let copied = session.copy_object(object(original), template)?;
        // SAFETY: the standard demands a place for the handle; NULL was refused.
        unsafe { pointer::write(copy, copied.0) }
    })
}

pub unsafe extern "C" fn destroy_object(
    handle: ck::CK_SESSION_HANDLE,
    destroyed: ck::CK_OBJECT_HANDLE,
) -> ck::CK_RV {
    entry(|| {
        let session = session(handle)?;
        session.token.destroy(session.access, object(destroyed))
    })
}

/// Every attribute gets its own answer; the return code tells of one that was not given.
pub unsafe extern "C" fn get_attribute_value(
    handle: ck::CK_SESSION_HANDLE,
    asked: ck::CK_OBJECT_HANDLE,
    template: *mut ck::CK_ATTRIBUTE,
    count: ck::CK_ULONG,
) -> ck::CK_RV {
    entry(|| {
        let session = session(handle)?;
        let object = session.token.object(object(asked))?;
        // SAFETY: the standard demands `count` attributes; NULL is refused. The slice only checks the
        // pointer and is not kept: below, the attributes are written through it one by one.
        let count = unsafe { pointer::items(template.cast_const(), count) }?.len();
        let mut answer = Ok(());
        for index in 0..count {
            // SAFETY: within the attributes that were just checked.
            let attribute = unsafe { template.add(index) };
            // SAFETY: the same, with a value as long as the attribute says, or NULL.
            answer = answer.and(unsafe { answer_attribute(&object, attribute) });
        }
        answer
    })
}

// SAFETY (of calling): `attribute` points to an attribute; unless it is NULL, its value points to as
// many bytes as it says.
unsafe fn answer_attribute(object: &Object, attribute: *mut ck::CK_ATTRIBUTE) -> Result<(), Refusal> {
    // SAFETY: the caller's promise.
    let ck::CK_ATTRIBUTE { type_, pValue: place, ulValueLen: room } = unsafe { attribute.read() };
    let (len, answer) = match object.read(type_) {
        Reading::Absent => (ck::CK_UNAVAILABLE_INFORMATION, Err(Refusal::AttributeTypeInvalid)),
        Reading::Sensitive => (ck::CK_UNAVAILABLE_INFORMATION, Err(Refusal::AttributeSensitive)),
        Reading::Value(value) if place.is_null() => (value.len() as ck::CK_ULONG, Ok(())),
        Reading::Value(value) if room < value.len() as ck::CK_ULONG => {
            (ck::CK_UNAVAILABLE_INFORMATION, Err(Refusal::BufferTooSmall))
        }
        Reading::Value(value) => {
            // SAFETY: not NULL and long enough were checked; that the room is there is the caller's promise.
            unsafe { std::ptr::copy_nonoverlapping(value.as_ptr(), place.cast(), value.len()) };
            (value.len() as ck::CK_ULONG, Ok(()))
        }
    };
    // SAFETY: the caller's promise.
    unsafe { (*attribute).ulValueLen = len };
    answer
}

pub unsafe extern "C" fn set_attribute_value(
    handle: ck::CK_SESSION_HANDLE,
    changed: ck::CK_OBJECT_HANDLE,
    template: *mut ck::CK_ATTRIBUTE,
    count: ck::CK_ULONG,
) -> ck::CK_RV {
    entry(|| {
        let session = session(handle)?;
        // SAFETY: the standard demands `count` attributes with their values; NULL is refused.
        let changes = unsafe { pointer::template(template.cast_const(), count) }?;
        session.token.change(session.access, object(changed), changes)
    })
}

pub unsafe extern "C" fn find_objects_init(
    handle: ck::CK_SESSION_HANDLE,
    template: *mut ck::CK_ATTRIBUTE,
    count: ck::CK_ULONG,
) -> ck::CK_RV {
    entry(|| {
        let session = session(handle)?;
        // SAFETY: the standard demands `count` attributes with their values; NULL is refused.
        let wanted = unsafe { pointer::attributes(template.cast_const(), count) }?;
        let wanted: Vec<_> =
            wanted.into_iter().map(|(attribute, bytes)| (attribute, bytes.to_vec())).collect();
        session.find_begin(&wanted)
    })
}

pub unsafe extern "C" fn find_objects(
    handle: ck::CK_SESSION_HANDLE,
    objects: *mut ck::CK_OBJECT_HANDLE,
    count_max: ck::CK_ULONG,
    count: *mut ck::CK_ULONG,
) -> ck::CK_RV {
    entry(|| {
        let session = session(handle)?;
        pointer::require_place(count)?;
        if count_max > 0 {
            pointer::require_place(objects)?;
        }
        let found = session.find_next(usize::try_from(count_max).unwrap_or(usize::MAX))?;
        for (index, found) in found.iter().enumerate() {
            // SAFETY: the standard demands `count_max` places, and no more than that were found.
            unsafe { objects.add(index).write(found.0) };
        }
        // SAFETY: the standard demands a place for the count; NULL was refused.
        unsafe { pointer::write(count, found.len() as ck::CK_ULONG) }
    })
}

pub unsafe extern "C" fn find_objects_final(handle: ck::CK_SESSION_HANDLE) -> ck::CK_RV {
    entry(|| session(handle)?.find_end())
}
