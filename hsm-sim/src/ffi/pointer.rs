//! Pointers and lengths from C, checked and turned into slices and values.
#![expect(unsafe_code, reason = "C passes pointers")]

use cryptoki_sys as ck;
use std::ptr;

use crate::object::Template;
use crate::refusal::Refusal;
use crate::session::{Output, Room};

/// The items that a client passes in. NULL is accepted for none.
///
/// # Safety
/// Unless it is NULL, `first` points to `count` items that stay unchanged for `'a`.
pub unsafe fn items<'a, T>(first: *const T, count: ck::CK_ULONG) -> Result<&'a [T], Refusal> {
    let count = usize::try_from(count).map_err(|_| Refusal::ArgumentsBad)?;
    if count == 0 {
        return Ok(&[]);
    }
    let bytes = count.checked_mul(size_of::<T>()).ok_or(Refusal::ArgumentsBad)?;
    if first.is_null() || !first.is_aligned() || isize::try_from(bytes).is_err() {
        return Err(Refusal::ArgumentsBad);
    }
    // SAFETY: not NULL, aligned and no longer than isize::MAX were checked; the rest is the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(first, count) })
}

/// The longest value of an attribute. Lengths that no value can have are refused before they are used.
const VALUE_LEN_MAX: ck::CK_ULONG = 1 << 24;

/// The longest part of a message that is encrypted or decrypted at once.
const PART_LEN_MAX: ck::CK_ULONG = 1 << 28;

/// A part of a message; `too_long` says that no part may be so long.
///
/// # Safety
/// As for [`items`].
pub unsafe fn part<'a>(first: *const u8, len: ck::CK_ULONG, too_long: Refusal) -> Result<&'a [u8], Refusal> {
    if len > PART_LEN_MAX {
        return Err(too_long);
    }
    // SAFETY: the caller's promise, passed on.
    unsafe { items(first, len) }
}

/// A PIN must be there: this token has no PIN pad that NULL could stand for.
///
/// # Safety
/// As for [`items`].
pub unsafe fn pin<'a>(first: *const u8, len: ck::CK_ULONG) -> Result<&'a [u8], Refusal> {
    if first.is_null() {
        return Err(Refusal::ArgumentsBad);
    }
    // SAFETY: the caller's promise, passed on.
    unsafe { items(first, len) }
}

/// Writes one result.
///
/// # Safety
/// Unless it is NULL, `target` points to a place for a `T`.
pub unsafe fn write<T>(target: *mut T, value: T) -> Result<(), Refusal> {
    require_place(target)?;
    // SAFETY: not NULL and aligned were checked; that the place is there is the caller's promise.
    unsafe { target.write(value) };
    Ok(())
}

/// Refuses NULL for a result, before any work is done for it.
pub fn require_place<T>(target: *mut T) -> Result<(), Refusal> {
    if target.is_null() || !target.is_aligned() { Err(Refusal::ArgumentsBad) } else { Ok(()) }
}

/// Runs a call whose output follows the convention of the standard: NULL asks for the length, and too
/// small a buffer is refused with the length that is needed.
///
/// # Safety
/// Unless it is NULL, `len` points to a length; unless it is NULL, `data` points to that many bytes.
pub unsafe fn output(
    data: *mut u8,
    len: *mut ck::CK_ULONG,
    call: impl FnOnce(Room) -> Result<Output, Refusal>,
) -> Result<(), Refusal> {
    require_place(len)?;
    let room = if data.is_null() {
        Room::Asking
    } else {
        // SAFETY: checked above; the caller promises that a length is there.
        let room = unsafe { len.read() };
        Room::Bytes(usize::try_from(room).unwrap_or(usize::MAX))
    };
    match call(room)? {
        Output::Needed(needed) => {
            // SAFETY: checked above.
            unsafe { len.write(needed as ck::CK_ULONG) };
            Ok(())
        }
        Output::TooSmall(needed) => {
            // SAFETY: checked above.
            unsafe { len.write(needed as ck::CK_ULONG) };
            Err(Refusal::BufferTooSmall)
        }
        Output::Ready(bytes) => {
            // SAFETY: `call` returns `Ready` only if the room that the caller promised is enough. The
            // input may lie in the same place, which is allowed; it is not borrowed any more.
            unsafe {
                ptr::copy_nonoverlapping(bytes.as_ptr(), data, bytes.len());
                len.write(bytes.len() as ck::CK_ULONG);
            }
            Ok(())
        }
    }
}

/// Writes a list by the same convention; lengths count items.
///
/// # Safety
/// Unless it is NULL, `count` points to a count; unless it is NULL, `first` points to that many places.
pub unsafe fn list<T: Copy>(values: &[T], first: *mut T, count: *mut ck::CK_ULONG) -> Result<(), Refusal> {
    require_place(count)?;
    // SAFETY: checked above; the caller promises that a count is there.
    let room = unsafe { count.read() };
    // SAFETY: checked above.
    unsafe { count.write(values.len() as ck::CK_ULONG) };
    if first.is_null() {
        return Ok(());
    }
    if room < values.len() as ck::CK_ULONG {
        return Err(Refusal::BufferTooSmall);
    }
    require_place(first)?;
    // SAFETY: not NULL, aligned, and large enough by the caller's count, which was checked.
    unsafe { ptr::copy_nonoverlapping(values.as_ptr(), first, values.len()) };
    Ok(())
}

/// The attributes of a template as they came, which is what a search compares.
///
/// # Safety
/// Unless it is NULL, `first` points to `count` attributes, each with a value of its length, all
/// unchanged for `'a`.
pub unsafe fn attributes<'a>(
    first: *const ck::CK_ATTRIBUTE,
    count: ck::CK_ULONG,
) -> Result<Vec<(ck::CK_ATTRIBUTE_TYPE, &'a [u8])>, Refusal> {
    // SAFETY: the caller's promise, passed on.
    unsafe { items(first, count) }?
        .iter()
        .map(|attribute| {
            // Before anything is read: the client's length is all there is to go by.
            if attribute.ulValueLen > VALUE_LEN_MAX {
                return Err(Refusal::AttributeValueInvalid);
            }
            // SAFETY: the caller's promise for each value.
            let value = unsafe { items(attribute.pValue.cast_const().cast(), attribute.ulValueLen) }?;
            Ok((attribute.type_, value))
        })
        .collect()
}

/// The template of an object to be made or changed.
///
/// # Safety
/// As for [`attributes`].
pub unsafe fn template(first: *const ck::CK_ATTRIBUTE, count: ck::CK_ULONG) -> Result<Template, Refusal> {
    // SAFETY: the caller's promise, passed on.
    Template::parse(unsafe { attributes(first, count) }?)
}
