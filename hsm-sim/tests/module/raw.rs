//! The C interface itself: what a client can do wrong that the safe wrapper never does.
#![expect(unsafe_code, reason = "these tests call C functions")]

use std::ptr::{null, null_mut};

use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;
use cryptoki_sys as ck;

use crate::harness::{init_token, log_in, master_key, module, module_path, token, user_session};

/// The function list of the module that the harness has initialised: loading it again gives the same.
pub fn functions() -> ck::CK_FUNCTION_LIST {
    module();
    // SAFETY: the module's initialisers do nothing.
    let library = unsafe { ck::Pkcs11::new(module_path()) }.expect("the module loads");
    let mut list = null_mut();
    // SAFETY: `list` is a place for the pointer.
    assert_eq!(unsafe { library.C_GetFunctionList(&raw mut list) }, ck::CKR_OK);
    // SAFETY: the list is a static of the library, which `module()` keeps loaded for ever.
    unsafe { *list }
}

/// Calls one function of the list.
macro_rules! call {
    ($function:ident($($argument:expr),* $(,)?)) => {{
        let function = functions().$function.expect("every function is in the list");
        // SAFETY: every pointer is NULL, or to a local of the right type that outlives the call.
        unsafe { function($($argument),*) }
    }};
}
pub(crate) use call;

fn gcm_parameters(iv: &mut [u8; 12]) -> ck::CK_GCM_PARAMS {
    ck::CK_GCM_PARAMS {
        pIv: iv.as_mut_ptr(),
        ulIvLen: 12,
        ulIvBits: 0,
        pAAD: null_mut(),
        ulAADLen: 0,
        ulTagBits: 128,
    }
}

fn begin_encryption(session: &Session, key: ObjectHandle) {
    let mut iv = [1; 12];
    let mut parameters = gcm_parameters(&mut iv);
    let mut mechanism = ck::CK_MECHANISM {
        mechanism: ck::CKM_AES_GCM,
        pParameter: (&raw mut parameters).cast(),
        ulParameterLen: size_of::<ck::CK_GCM_PARAMS>() as ck::CK_ULONG,
    };
    assert_eq!(call!(C_EncryptInit(session.handle(), &raw mut mechanism, key.handle())), ck::CKR_OK);
}

#[test]
fn null_pointers_are_refused() {
    let session = user_session("null pointers");
    let handle = session.handle();
    let slot = session.get_session_info().expect("info").slot_id().id();
    assert_eq!(call!(C_GetInfo(null_mut())), ck::CKR_ARGUMENTS_BAD);
    assert_eq!(call!(C_GetFunctionList(null_mut())), ck::CKR_ARGUMENTS_BAD);
    assert_eq!(call!(C_GetSlotList(0, null_mut(), null_mut())), ck::CKR_ARGUMENTS_BAD);
    assert_eq!(call!(C_GetSlotInfo(slot, null_mut())), ck::CKR_ARGUMENTS_BAD);
    assert_eq!(call!(C_GetTokenInfo(slot, null_mut())), ck::CKR_ARGUMENTS_BAD);
    assert_eq!(call!(C_GetMechanismInfo(slot, ck::CKM_AES_GCM, null_mut())), ck::CKR_ARGUMENTS_BAD);
    assert_eq!(call!(C_InitToken(slot, null_mut(), 4, null_mut())), ck::CKR_ARGUMENTS_BAD);
    assert_eq!(call!(C_InitPIN(handle, null_mut(), 4)), ck::CKR_ARGUMENTS_BAD);
    assert_eq!(call!(C_SetPIN(handle, null_mut(), 4, null_mut(), 4)), ck::CKR_ARGUMENTS_BAD);
    assert_eq!(call!(C_Login(handle, ck::CKU_USER, null_mut(), 4)), ck::CKR_ARGUMENTS_BAD);
    assert_eq!(call!(C_OpenSession(slot, 4, null_mut(), None, null_mut())), ck::CKR_ARGUMENTS_BAD);
    assert_eq!(call!(C_GetSessionInfo(handle, null_mut())), ck::CKR_ARGUMENTS_BAD);
    assert_eq!(call!(C_CreateObject(handle, null_mut(), 3, null_mut())), ck::CKR_ARGUMENTS_BAD);
    assert_eq!(call!(C_FindObjectsInit(handle, null_mut(), 3)), ck::CKR_ARGUMENTS_BAD);
    assert_eq!(call!(C_EncryptInit(handle, null_mut(), 0)), ck::CKR_ARGUMENTS_BAD);
    assert_eq!(call!(C_SignInit(handle, null_mut(), 0)), ck::CKR_ARGUMENTS_BAD);
    assert_eq!(call!(C_VerifyInit(handle, null_mut(), 0)), ck::CKR_ARGUMENTS_BAD);
    assert_eq!(call!(C_DigestInit(handle, null_mut())), ck::CKR_ARGUMENTS_BAD);
    assert_eq!(call!(C_GenerateKey(handle, null_mut(), null_mut(), 0, null_mut())), ck::CKR_ARGUMENTS_BAD);
    assert_eq!(call!(C_GenerateRandom(handle, null_mut(), 4)), ck::CKR_ARGUMENTS_BAD);
    let bad = ck::CKR_ARGUMENTS_BAD;
    assert_eq!(call!(C_WrapKey(handle, null_mut(), 0, 0, null_mut(), null_mut())), bad);
    assert_eq!(call!(C_UnwrapKey(handle, null_mut(), 0, null_mut(), 0, null_mut(), 0, null_mut())), bad);
    assert_eq!(call!(C_DeriveKey(handle, null_mut(), 0, null_mut(), 0, null_mut())), bad);
    let mut attribute = ck::CK_ATTRIBUTE { type_: ck::CKA_LABEL, pValue: null_mut(), ulValueLen: 5 };
    assert_eq!(call!(C_FindObjectsInit(handle, &raw mut attribute, 1)), ck::CKR_ARGUMENTS_BAD);
    let endless = ck::CK_ULONG::MAX;
    assert_eq!(call!(C_FindObjectsInit(handle, &raw mut attribute, endless)), ck::CKR_ARGUMENTS_BAD);
}

#[test]
fn handles_that_do_not_exist_are_refused() {
    let session = user_session("no such handle");
    let nobody = 0xdead_beef;
    assert_eq!(call!(C_CloseSession(nobody)), ck::CKR_SESSION_HANDLE_INVALID);
    assert_eq!(call!(C_Logout(0)), ck::CKR_SESSION_HANDLE_INVALID);
    assert_eq!(call!(C_DestroyObject(session.handle(), nobody)), ck::CKR_OBJECT_HANDLE_INVALID);
    let mut info = ck::CK_SLOT_INFO::default();
    assert_eq!(call!(C_GetSlotInfo(nobody, &raw mut info)), ck::CKR_SLOT_ID_INVALID);
    let mut mechanism =
        ck::CK_MECHANISM { mechanism: ck::CKM_SHA256_HMAC, pParameter: null_mut(), ulParameterLen: 0 };
    let answer = call!(C_SignInit(session.handle(), &raw mut mechanism, nobody));
    assert_eq!(answer, ck::CKR_KEY_HANDLE_INVALID);
}

#[test]
fn a_session_must_be_serial_and_its_token_initialised() {
    let slot = init_token("serial").id();
    let mut handle = 0;
    let answer = call!(C_OpenSession(slot, ck::CKF_RW_SESSION, null_mut(), None, &raw mut handle));
    assert_eq!(answer, ck::CKR_SESSION_PARALLEL_NOT_SUPPORTED);
}

#[test]
fn a_module_is_initialised_once() {
    module();
    assert_eq!(call!(C_Initialize(null_mut())), ck::CKR_CRYPTOKI_ALREADY_INITIALIZED);
    let reserved = (&raw mut *Box::leak(Box::new(0_u8))).cast();
    assert_eq!(call!(C_Finalize(reserved)), ck::CKR_ARGUMENTS_BAD);
}

#[test]
fn a_buffer_that_is_too_small_leaves_the_operation_running() {
    let session = user_session("buffers");
    let key = master_key(&session, b"1");
    begin_encryption(&session, key);
    let handle = session.handle();
    let mut data = *b"ten bytes!";
    let mut len = 0;
    let mut encrypt = |out: *mut u8, len: &mut ck::CK_ULONG| {
        call!(C_Encrypt(handle, data.as_mut_ptr(), 10, out, &raw mut *len))
    };
    assert_eq!(encrypt(null_mut(), &mut len), ck::CKR_OK);
    assert_eq!(len, 26);
    let mut out = [0; 30];
    len = 25;
    assert_eq!(encrypt(out.as_mut_ptr(), &mut len), ck::CKR_BUFFER_TOO_SMALL);
    assert_eq!((len, out), (26, [0; 30]), "the length is told and nothing is written");
    len = 30;
    assert_eq!(encrypt(out.as_mut_ptr(), &mut len), ck::CKR_OK);
    assert_eq!((len, &out[26..]), (26, &[0; 4][..]));
    assert_eq!(encrypt(out.as_mut_ptr(), &mut len), ck::CKR_OPERATION_NOT_INITIALIZED);
}

#[test]
fn plaintext_and_ciphertext_may_lie_in_the_same_place() {
    let session = user_session("in place");
    let key = master_key(&session, b"1");
    let mut apart = [0; 20];
    let mut len = 20;
    begin_encryption(&session, key);
    let plaintext = b"four".as_ptr().cast_mut();
    let answer = call!(C_Encrypt(session.handle(), plaintext, 4, apart.as_mut_ptr(), &raw mut len));
    assert_eq!(answer, ck::CKR_OK);

    let mut place = [0; 20];
    place[..4].copy_from_slice(b"four");
    begin_encryption(&session, key);
    let start = place.as_mut_ptr();
    assert_eq!(call!(C_Encrypt(session.handle(), start, 4, start, &raw mut len)), ck::CKR_OK);
    assert_eq!(place, apart);
}

#[test]
fn every_attribute_gets_its_own_answer() {
    let session = user_session("answers");
    let key = master_key(&session, b"four");
    let mut small = [0_u8; 2];
    let mut id = [0_u8; 8];
    let attribute =
        |type_, place: *mut u8, len| ck::CK_ATTRIBUTE { type_, pValue: place.cast(), ulValueLen: len };
    let mut asked = [
        attribute(ck::CKA_VALUE, id.as_mut_ptr(), 8),
        attribute(ck::CKA_MODULUS, null_mut(), 0),
        attribute(ck::CKA_ID, small.as_mut_ptr(), 2),
        attribute(ck::CKA_ID, null_mut(), 0),
        attribute(ck::CKA_ID, id.as_mut_ptr(), 8),
    ];
    let answer = call!(C_GetAttributeValue(session.handle(), key.handle(), asked.as_mut_ptr(), 5));
    assert_eq!(answer, ck::CKR_ATTRIBUTE_SENSITIVE, "the first refusal");
    let lens = asked.map(|attribute| attribute.ulValueLen);
    let unavailable = ck::CK_UNAVAILABLE_INFORMATION;
    assert_eq!(lens, [unavailable, unavailable, unavailable, 4, 4]);
    assert_eq!((&id[..4], small), (&b"four"[..], [0, 0]));
}

#[test]
fn a_logout_ends_operations_with_private_keys() {
    let slot = token("logout ends");
    let session = log_in(slot);
    let key = master_key(&session, b"1");
    begin_encryption(&session, key);
    session.logout().expect("logout");
    let mut len = 0;
    let answer = call!(C_Encrypt(session.handle(), null_mut(), 0, null_mut(), &raw mut len));
    assert_eq!(answer, ck::CKR_OPERATION_NOT_INITIALIZED);
}

#[test]
fn locks_that_only_the_client_has_are_refused() {
    unsafe extern "C" fn create(_: *mut *mut std::ffi::c_void) -> ck::CK_RV {
        ck::CKR_OK
    }
    unsafe extern "C" fn other(_: *mut std::ffi::c_void) -> ck::CK_RV {
        ck::CKR_OK
    }
    module();
    let mut arguments = ck::CK_C_INITIALIZE_ARGS {
        CreateMutex: Some(create),
        DestroyMutex: Some(other),
        LockMutex: Some(other),
        UnlockMutex: Some(other),
        flags: 0,
        pReserved: null_mut(),
    };
    assert_eq!(call!(C_Initialize((&raw mut arguments).cast())), ck::CKR_CANT_LOCK);
    arguments.LockMutex = None;
    assert_eq!(call!(C_Initialize((&raw mut arguments).cast())), ck::CKR_ARGUMENTS_BAD);
}

#[test]
fn what_is_not_supported_says_so() {
    let session = user_session("unsupported");
    let handle = session.handle();
    let not_supported = ck::CKR_FUNCTION_NOT_SUPPORTED;
    assert_eq!(call!(C_GetOperationState(handle, null_mut(), null_mut())), not_supported);
    assert_eq!(call!(C_WaitForSlotEvent(0, null_mut(), null_mut())), not_supported);
    assert_eq!(call!(C_CancelFunction(handle)), ck::CKR_FUNCTION_NOT_PARALLEL);
}

#[test]
fn every_function_is_in_the_list() {
    let list = functions();
    assert_eq!((list.version.major, list.version.minor), (2, 40));
    let first = (&raw const list.C_Initialize).cast::<*const ()>();
    let count = (size_of_val(&list) - size_of::<*const ()>()) / size_of::<*const ()>();
    for index in 0..count {
        // SAFETY: after the version the list is function pointers only, and `count` of them fit.
        let function = unsafe { *first.add(index) };
        assert_ne!(function, null(), "function {index}");
    }
}
