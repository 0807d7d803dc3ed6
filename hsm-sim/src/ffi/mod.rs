//! The C interface: one file per chapter of the standard.
//!
//! A client gets the functions of `gate`, which apply scripted faults and call those of the chapters.
//!
//! A function of a chapter checks pointers and lengths, turns them into what the safe modules take, and turns
//! their answer into a return code. It decides nothing else. Every entry point goes through
//! [`entry`], because a panic that reached C would abort the client.

mod digest;
mod encrypt;
mod function_list;
mod gate;
mod general;
mod interface;
mod key;
mod object;
mod parameter;
mod pointer;
mod random;
mod session;
mod sign;
mod slot_token;
mod unsupported;
mod version3;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use cryptoki_sys as ck;

use crate::module::Module;
use crate::object_table::ObjectHandle;
use crate::refusal::Refusal;
use crate::session::{OperationKind, Session, SessionHandle};

/// Runs the body of an entry point.
fn entry(body: impl FnOnce() -> Result<(), Refusal>) -> ck::CK_RV {
    // Whatever a panic left half done is behind a lock that is now poisoned, and poisoned locks are
    // refused; so nothing broken is seen after the unwind.
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => ck::CKR_OK,
        Ok(Err(refusal)) => refusal.code(),
        Err(_) => ck::CKR_GENERAL_ERROR,
    }
}

fn session(handle: ck::CK_SESSION_HANDLE) -> Result<Arc<Session>, Refusal> {
    Module::current()?.session(SessionHandle(handle))
}

/// Runs a step of an operation. The standard ends the operation with every error, also with one that
/// is found before the operation sees anything, except when only the buffer was too small.
fn step(
    handle: ck::CK_SESSION_HANDLE,
    kind: OperationKind,
    body: impl FnOnce(&Session) -> Result<(), Refusal>,
) -> ck::CK_RV {
    entry(|| {
        let session = session(handle)?;
        let answer = body(&session);
        match answer {
            Ok(()) | Err(Refusal::BufferTooSmall) => {}
            Err(_) => session.end(kind)?,
        }
        answer
    })
}

fn object(handle: ck::CK_OBJECT_HANDLE) -> ObjectHandle {
    ObjectHandle(handle)
}

#[cfg(test)]
mod tests {
    use super::{ck, entry};

    #[test]
    fn a_panic_does_not_reach_the_client() {
        assert_eq!(entry(|| panic!("on purpose")), ck::CKR_GENERAL_ERROR);
    }
}
