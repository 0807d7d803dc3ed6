//! The interfaces of version 3 beside the function list of version 2.40.
#![expect(unsafe_code, reason = "these tests call C functions")]

use std::ffi::CStr;
use std::ptr::null_mut;

use cryptoki::error::RvError;
use cryptoki::session::{SessionState, UserType};
use cryptoki_sys as ck;

use crate::harness::{
    USER_PIN, log_in, master_key, module, module_path, pin, refusal, token, user_session, with_aes_gcm,
};

fn library() -> ck::Pkcs11 {
    module();
    // SAFETY: the module's initialisers do nothing.
    unsafe { ck::Pkcs11::new(module_path()) }.expect("the module loads")
}

/// What `C_GetInterface` answers, and the version of what it found.
fn ask(name: Option<&CStr>, version: Option<(u8, u8)>, flags: ck::CK_FLAGS) -> Result<(u8, u8), ck::CK_RV> {
    let name = name.map_or(null_mut(), |name| name.as_ptr().cast_mut().cast());
    let mut wanted = version.map(|(major, minor)| ck::CK_VERSION { major, minor });
    let version = wanted.as_mut().map_or(null_mut(), |version| &raw mut *version);
    let mut found: *mut ck::CK_INTERFACE = null_mut();
    // SAFETY: a text with its end or NULL, a version or NULL, and a place for the pointer.
    let answer = unsafe { library().C_GetInterface(name, version, &raw mut found, flags) };
    if answer != ck::CKR_OK {
        return Err(answer);
    }
    // SAFETY: the interface is a static of the library, which `module()` keeps loaded for ever, and its
    // function list begins with the version.
    let own = unsafe { (*found).pFunctionList.cast::<ck::CK_VERSION>().read() };
    Ok((own.major, own.minor))
}

fn functions() -> ck::CK_FUNCTION_LIST_3_0 {
    let mut found: *mut ck::CK_INTERFACE = null_mut();
    // SAFETY: NULL is allowed for the name and the version.
    let answer = unsafe { library().C_GetInterface(null_mut(), null_mut(), &raw mut found, 0) };
    assert_eq!(answer, ck::CKR_OK);
    // SAFETY: as above, and the interface that comes without asking for a version is that of 3.0.
    unsafe { *(*found).pFunctionList.cast::<ck::CK_FUNCTION_LIST_3_0>() }
}

/// Calls one function of the list of version 3.0.
macro_rules! call {
    ($function:ident($($argument:expr),* $(,)?)) => {{
        let function = functions().$function.expect("every function is in the list");
        // SAFETY: every pointer is NULL, or to a local of the right type that outlives the call.
        unsafe { function($($argument),*) }
    }};
}

#[test]
fn an_interface_that_is_not_there_is_refused() {
    assert_eq!(ask(Some(c"Vendor ABC"), None, 0), Err(ck::CKR_FUNCTION_FAILED));
    assert_eq!(ask(Some(c"PKCS 1"), None, 0), Err(ck::CKR_FUNCTION_FAILED));
    assert_eq!(ask(Some(c"PKCS 11"), Some((3, 2)), 0), Err(ck::CKR_FUNCTION_FAILED));
    assert_eq!(ask(Some(c"PKCS 11"), Some((2, 41)), 0), Err(ck::CKR_FUNCTION_FAILED));
    let fork_safe = ck::CKF_INTERFACE_FORK_SAFE;
    assert_eq!(ask(None, None, fork_safe), Err(ck::CKR_FUNCTION_FAILED));
    // SAFETY: NULL for the answer is what is tested.
    let answer = unsafe { library().C_GetInterface(null_mut(), null_mut(), null_mut(), 0) };
    assert_eq!(answer, ck::CKR_ARGUMENTS_BAD);
    // SAFETY: the same for the count.
    let answer = unsafe { library().C_GetInterfaceList(null_mut(), null_mut()) };
    assert_eq!(answer, ck::CKR_ARGUMENTS_BAD);
}

#[test]
fn interfaces_are_found_by_name_and_version() {
    assert_eq!(ask(None, None, 0), Ok((3, 0)));
    assert_eq!(ask(Some(c"PKCS 11"), None, 0), Ok((3, 0)));
    assert_eq!(ask(Some(c"PKCS 11"), Some((3, 0)), 0), Ok((3, 0)));
    assert_eq!(ask(Some(c"PKCS 11"), Some((2, 40)), 0), Ok((2, 40)));
    assert_eq!(ask(None, Some((2, 40)), 0), Ok((2, 40)));
}

#[test]
fn the_list_of_interfaces_follows_the_convention_for_lists() {
    let library = library();
    let mut count = 0;
    // SAFETY: NULL asks for the count.
    assert_eq!(unsafe { library.C_GetInterfaceList(null_mut(), &raw mut count) }, ck::CKR_OK);
    assert_eq!(count, 2);
    let nothing =
        ck::CK_INTERFACE { pInterfaceName: null_mut(), pFunctionList: null_mut(), flags: ck::CK_FLAGS::MAX };
    let mut interfaces = [nothing; 2];
    count = 1;
    // SAFETY: there is room for more than the one that the count says.
    let answer = unsafe { library.C_GetInterfaceList(interfaces.as_mut_ptr(), &raw mut count) };
    assert_eq!((answer, count), (ck::CKR_BUFFER_TOO_SMALL, 2));
    assert!(interfaces[0].pInterfaceName.is_null(), "nothing is written");
    // SAFETY: there is room for two.
    let answer = unsafe { library.C_GetInterfaceList(interfaces.as_mut_ptr(), &raw mut count) };
    assert_eq!(answer, ck::CKR_OK);
    for interface in interfaces {
        // SAFETY: a static text of the library, which `module()` keeps loaded for ever.
        let name = unsafe { CStr::from_ptr(interface.pInterfaceName.cast()) };
        assert_eq!((name, interface.flags), (c"PKCS 11", 0));
    }
}

#[test]
fn each_list_says_its_own_version() {
    let mut info = ck::CK_INFO::default();
    assert_eq!(call!(C_GetInfo(&raw mut info)), ck::CKR_OK);
    assert_eq!((info.cryptokiVersion.major, info.cryptokiVersion.minor), (3, 0));
    assert_eq!((functions().version.major, functions().version.minor), (3, 0));
    let mut list = null_mut();
    assert_eq!(call!(C_GetFunctionList(&raw mut list)), ck::CKR_OK);
    // SAFETY: a static of the library, which `module()` keeps loaded for ever.
    let old = unsafe { *list };
    assert_eq!((old.version.major, old.version.minor), (2, 40));
    // SAFETY: a place for the structure.
    assert_eq!(unsafe { old.C_GetInfo.expect("listed")(&raw mut info) }, ck::CKR_OK);
    assert_eq!((info.cryptokiVersion.major, info.cryptokiVersion.minor), (2, 40));
}

#[test]
fn every_function_of_version_3_is_in_its_list() {
    let list = functions();
    let first = (&raw const list.C_Initialize).cast::<*const ()>();
    let count = (size_of_val(&list) - size_of::<*const ()>()) / size_of::<*const ()>();
    assert_eq!(count, 92);
    for index in 0..count {
        // SAFETY: after the version the list is function pointers only, and `count` of them fit.
        let function = unsafe { *first.add(index) };
        assert!(!function.is_null(), "function {index}");
    }
}

#[test]
fn a_user_without_a_name_logs_in_and_one_with_a_name_is_unknown() {
    let slot = token("login user");
    let session = module().open_rw_session(slot).expect("a session");
    let (mut name, mut text) = (*b"alice", USER_PIN.as_bytes().to_vec());
    let len = text.len() as ck::CK_ULONG;
    let mut attempt = |handle, pin: *mut u8, name_len| {
        call!(C_LoginUser(handle, ck::CKU_USER, pin, len, name.as_mut_ptr(), name_len))
    };
    let pin_at = text.as_mut_ptr();
    assert_eq!(attempt(session.handle(), pin_at, 5), ck::CKR_FUNCTION_NOT_SUPPORTED);
    assert_eq!(attempt(0, pin_at, 5), ck::CKR_SESSION_HANDLE_INVALID);
    assert_eq!(attempt(session.handle(), null_mut(), 0), ck::CKR_ARGUMENTS_BAD);
    assert_eq!(session.get_session_info().expect("info").session_state(), SessionState::RwPublic);
    assert_eq!(attempt(session.handle(), pin_at, 0), ck::CKR_OK);
    let again = session.login(UserType::User, Some(&pin(USER_PIN)));
    assert_eq!(refusal(again), RvError::UserAlreadyLoggedIn);
}

#[test]
fn a_session_cancels_the_operations_that_are_named_and_no_others() {
    let session = user_session("cancel");
    let handle = session.handle();
    let mut mechanism =
        ck::CK_MECHANISM { mechanism: ck::CKM_SHA256, pParameter: null_mut(), ulParameterLen: 0 };
    assert_eq!(call!(C_SessionCancel(0, ck::CKF_DIGEST)), ck::CKR_SESSION_HANDLE_INVALID);
    assert_eq!(call!(C_DigestInit(handle, &raw mut mechanism)), ck::CKR_OK);
    assert_eq!(call!(C_FindObjectsInit(handle, null_mut(), 0)), ck::CKR_OK);
    assert_eq!(call!(C_SessionCancel(handle, ck::CKF_ENCRYPT | ck::CKF_SIGN)), ck::CKR_OK);
    assert_eq!(call!(C_DigestInit(handle, &raw mut mechanism)), ck::CKR_OPERATION_ACTIVE);
    assert_eq!(call!(C_SessionCancel(handle, ck::CKF_DIGEST)), ck::CKR_OK);
    assert_eq!(call!(C_DigestInit(handle, &raw mut mechanism)), ck::CKR_OK);
    assert_eq!(call!(C_FindObjectsFinal(handle)), ck::CKR_OK, "the search was not named");
    assert_eq!(call!(C_SessionCancel(handle, ck::CK_FLAGS::MAX)), ck::CKR_OK);
    let key = master_key(&session, b"1");
    with_aes_gcm([1; 12], b"", |gcm| session.encrypt(gcm, key, b"x").expect("the session works"));
}

#[test]
fn messages_are_not_supported() {
    let session = log_in(token("messages"));
    let handle = session.handle();
    let not_supported = ck::CKR_FUNCTION_NOT_SUPPORTED;
    assert_eq!(call!(C_MessageEncryptInit(handle, null_mut(), 0)), not_supported);
    assert_eq!(call!(C_MessageDecryptFinal(handle)), not_supported);
    assert_eq!(call!(C_SignMessageBegin(handle, null_mut(), 0)), not_supported);
    assert_eq!(call!(C_VerifyMessage(handle, null_mut(), 0, null_mut(), 0, null_mut(), 0)), not_supported);
}

#[test]
fn every_function_is_exported_under_its_name() {
    let library = library();
    macro_rules! exported {
        ($($name:ident)*) => { [$((stringify!($name), library.$name.is_ok())),*] };
    }
    for (name, is_there) in exported!(
        C_Initialize C_Finalize C_GetInfo C_GetFunctionList C_GetSlotList C_GetTokenInfo C_InitToken C_OpenSession
        C_Login C_CreateObject C_FindObjects C_Encrypt C_DigestKey C_SignFinal C_VerifyRecover C_WrapKey C_DeriveKey
        C_GenerateRandom C_WaitForSlotEvent C_GetInterfaceList C_LoginUser C_SessionCancel C_MessageVerifyFinal
    ) {
        assert!(is_there, "{name} is not exported");
    }
}
