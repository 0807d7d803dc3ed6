//! Random number functions.
#![expect(unsafe_code, reason = "C passes pointers")]

use cryptoki_sys as ck;
use zeroize::Zeroizing;

use crate::ffi::{entry, pointer, session};
use crate::random;
use crate::refusal::Refusal;

/// The generator is the operating system's; it takes no seed from a client.
pub unsafe extern "C" fn seed_random(
    handle: ck::CK_SESSION_HANDLE,
    seed: *mut ck::CK_BYTE,
    _seed_len: ck::CK_ULONG,
) -> ck::CK_RV {
    entry(|| {
        session(handle)?;
        if seed.is_null() { Err(Refusal::ArgumentsBad) } else { Err(Refusal::RandomSeedNotSupported) }
    })
}

pub unsafe extern "C" fn generate_random(
    handle: ck::CK_SESSION_HANDLE,
    place: *mut ck::CK_BYTE,
    len: ck::CK_ULONG,
) -> ck::CK_RV {
    entry(|| {
        session(handle)?;
        pointer::require_place(place)?;
        let len = usize::try_from(len).map_err(|_| Refusal::ArgumentsBad)?;
        // In pieces, so that a client cannot make us allocate whatever it likes.
        let mut piece = Zeroizing::new([0; 4096]);
        let mut done = 0;
        while done < len {
            let piece_len = piece.len().min(len - done);
            random::fill(&mut piece[..piece_len])?;
            // SAFETY: the standard demands `len` bytes of room, and this piece ends within them.
            unsafe { std::ptr::copy_nonoverlapping(piece.as_ptr(), place.add(done), piece_len) };
            done += piece_len;
        }
        Ok(())
    })
}
