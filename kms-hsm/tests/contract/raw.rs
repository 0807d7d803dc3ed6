//! The same token seen past our code, as another program in the process would see it.

use super::{Fixture, LABEL};
use cryptoki::context::Pkcs11;
use cryptoki::session::Session;
use cryptoki::slot::Slot;

pub fn client(fixture: &Fixture) -> (Pkcs11, Slot) {
    // Loaded again, but the system gives the library that is there, initialised.
    let client = Pkcs11::new(&fixture.path).unwrap();
    let slots = client.get_slots_with_token().unwrap();
    let slot = slots.into_iter().find(|slot| client.get_token_info(*slot).unwrap().label() == LABEL).unwrap();
    (client, slot)
}

/// A session that shares the login of the process, whoever made it.
pub fn session(fixture: &Fixture) -> Session {
    let (client, slot) = client(fixture);
    client.open_rw_session(slot).unwrap()
}

/// Ends every session of the process with the token, and with them the login.
#[expect(unsafe_code, reason = "the safe client has no C_CloseAllSessions")]
pub fn close_all_sessions(fixture: &Fixture) {
    let (_, slot) = client(fixture);
    let mut list = std::ptr::null_mut();
    // SAFETY: the library is loaded and initialised and stays so; it fills in the address of its own table,
    // which is read once, and the call takes a slot number and no pointers.
    let code = unsafe {
        let library = cryptoki_sys::Pkcs11::new(&fixture.path).unwrap();
        assert_eq!(library.C_GetFunctionList(&mut list), cryptoki_sys::CKR_OK);
        let close = (*list).C_CloseAllSessions.unwrap();
        close(slot.into())
    };
    assert_eq!(code, cryptoki_sys::CKR_OK);
}
