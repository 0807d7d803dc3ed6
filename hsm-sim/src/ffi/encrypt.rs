//! Encryption and decryption functions. The two differ in direction only.
#![expect(unsafe_code, reason = "C passes pointers")]

use cryptoki_sys as ck;

use crate::ffi::{entry, object, parameter, pointer, session, step};
use crate::mechanism::cipher::Direction;
use crate::refusal::Refusal;
use crate::session::OperationKind;

pub unsafe extern "C" fn encrypt_init(
    handle: ck::CK_SESSION_HANDLE,
    mechanism: *mut ck::CK_MECHANISM,
    key: ck::CK_OBJECT_HANDLE,
) -> ck::CK_RV {
    // SAFETY: the promise of C_EncryptInit is the one that is asked for.
    unsafe { begin(Direction::Encrypt, handle, mechanism, key) }
}

pub unsafe extern "C" fn encrypt(
    handle: ck::CK_SESSION_HANDLE,
    data: *mut ck::CK_BYTE,
    data_len: ck::CK_ULONG,
    encrypted: *mut ck::CK_BYTE,
    encrypted_len: *mut ck::CK_ULONG,
) -> ck::CK_RV {
    // SAFETY: the promise of C_Encrypt is the one that is asked for.
    unsafe { single(Direction::Encrypt, handle, data, data_len, encrypted, encrypted_len) }
}

pub unsafe extern "C" fn encrypt_update(
    handle: ck::CK_SESSION_HANDLE,
    part: *mut ck::CK_BYTE,
    part_len: ck::CK_ULONG,
    encrypted: *mut ck::CK_BYTE,
    encrypted_len: *mut ck::CK_ULONG,
) -> ck::CK_RV {
    // SAFETY: the promise of C_EncryptUpdate is the one that is asked for.
    unsafe { update(Direction::Encrypt, handle, part, part_len, encrypted, encrypted_len) }
}

pub unsafe extern "C" fn encrypt_final(
    handle: ck::CK_SESSION_HANDLE,
    last: *mut ck::CK_BYTE,
    last_len: *mut ck::CK_ULONG,
) -> ck::CK_RV {
    // SAFETY: the promise of C_EncryptFinal is the one that is asked for.
    unsafe { finish(Direction::Encrypt, handle, last, last_len) }
}

pub unsafe extern "C" fn decrypt_init(
    handle: ck::CK_SESSION_HANDLE,
    mechanism: *mut ck::CK_MECHANISM,
    key: ck::CK_OBJECT_HANDLE,
) -> ck::CK_RV {
    // SAFETY: the promise of C_DecryptInit is the one that is asked for.
    unsafe { begin(Direction::Decrypt, handle, mechanism, key) }
}

pub unsafe extern "C" fn decrypt(
    handle: ck::CK_SESSION_HANDLE,
    encrypted: *mut ck::CK_BYTE,
    encrypted_len: ck::CK_ULONG,
    data: *mut ck::CK_BYTE,
    data_len: *mut ck::CK_ULONG,
) -> ck::CK_RV {
    // SAFETY: the promise of C_Decrypt is the one that is asked for.
    unsafe { single(Direction::Decrypt, handle, encrypted, encrypted_len, data, data_len) }
}

pub unsafe extern "C" fn decrypt_update(
    handle: ck::CK_SESSION_HANDLE,
    encrypted: *mut ck::CK_BYTE,
    encrypted_len: ck::CK_ULONG,
    part: *mut ck::CK_BYTE,
    part_len: *mut ck::CK_ULONG,
) -> ck::CK_RV {
    // SAFETY: the promise of C_DecryptUpdate is the one that is asked for.
    unsafe { update(Direction::Decrypt, handle, encrypted, encrypted_len, part, part_len) }
}

pub unsafe extern "C" fn decrypt_final(
    handle: ck::CK_SESSION_HANDLE,
    last: *mut ck::CK_BYTE,
    last_len: *mut ck::CK_ULONG,
) -> ck::CK_RV {
    // SAFETY: the promise of C_DecryptFinal is the one that is asked for.
    unsafe { finish(Direction::Decrypt, handle, last, last_len) }
}

fn kind(direction: Direction) -> OperationKind {
    match direction {
        Direction::Encrypt => OperationKind::Encrypting,
        Direction::Decrypt => OperationKind::Decrypting,
    }
}

fn too_long(direction: Direction) -> Refusal {
    match direction {
        Direction::Encrypt => Refusal::DataLenRange,
        Direction::Decrypt => Refusal::EncryptedDataLenRange,
    }
}

// SAFETY (of calling): unless it is NULL, `mechanism` points to a mechanism with its parameter.
unsafe fn begin(
    direction: Direction,
    handle: ck::CK_SESSION_HANDLE,
    mechanism: *mut ck::CK_MECHANISM,
    key: ck::CK_OBJECT_HANDLE,
) -> ck::CK_RV {
    entry(|| {
        let session = session(handle)?;
        // SAFETY: the caller's promise; NULL is refused.
        let call = unsafe { parameter::mechanism(mechanism.cast_const()) }?;
        let made_nonce = session.cipher_begin(direction, call, object(key))?;
        match made_nonce {
            // SAFETY: the mechanism was read above, and only one with a nonce in it has this answer.
            Some(nonce) => unsafe { parameter::write_made_nonce(mechanism.cast_const(), nonce) },
            None => Ok(()),
        }
    })
}

// SAFETY (of calling): the input has its length; the output has the room that its length says, or is
// NULL.
unsafe fn single(
    direction: Direction,
    handle: ck::CK_SESSION_HANDLE,
    input: *mut ck::CK_BYTE,
    input_len: ck::CK_ULONG,
    output: *mut ck::CK_BYTE,
    output_len: *mut ck::CK_ULONG,
) -> ck::CK_RV {
    step(handle, kind(direction), |session| {
        // SAFETY: the caller's promise for the input.
        let input = unsafe { pointer::part(input.cast_const(), input_len, too_long(direction)) }?;
        // SAFETY: the caller's promise for the output.
        unsafe { pointer::output(output, output_len, |room| session.cipher(direction, input, room)) }
    })
}

// SAFETY (of calling): as for `single`.
unsafe fn update(
    direction: Direction,
    handle: ck::CK_SESSION_HANDLE,
    part: *mut ck::CK_BYTE,
    part_len: ck::CK_ULONG,
    output: *mut ck::CK_BYTE,
    output_len: *mut ck::CK_ULONG,
) -> ck::CK_RV {
    step(handle, kind(direction), |session| {
        // SAFETY: the caller's promise for the input.
        let part = unsafe { pointer::part(part.cast_const(), part_len, too_long(direction)) }?;
        // SAFETY: the caller's promise for the output.
        unsafe { pointer::output(output, output_len, |room| session.cipher_update(direction, part, room)) }
    })
}

// SAFETY (of calling): the output has the room that its length says, or is NULL.
unsafe fn finish(
    direction: Direction,
    handle: ck::CK_SESSION_HANDLE,
    output: *mut ck::CK_BYTE,
    output_len: *mut ck::CK_ULONG,
) -> ck::CK_RV {
    step(handle, kind(direction), |session| {
        // SAFETY: the caller's promise for the output.
        unsafe { pointer::output(output, output_len, |room| session.cipher_final(direction, room)) }
    })
}
