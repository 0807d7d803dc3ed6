//! Which function of ours stands for which of the standard. Clients get them through `gate`.

use cryptoki_sys as ck;

use crate::ffi::general::CRYPTOKI_VERSION;
use crate::ffi::{digest, encrypt, general, key, object, random, session, sign, slot_token, unsupported};

pub static FUNCTION_LIST: ck::CK_FUNCTION_LIST = ck::CK_FUNCTION_LIST {
    version: CRYPTOKI_VERSION,

    C_Initialize: Some(general::initialize),
    C_Finalize: Some(general::finalize),
    C_GetInfo: Some(general::get_info),
    C_GetFunctionList: Some(general::get_function_list),

    C_GetSlotList: Some(slot_token::get_slot_list),
    C_GetSlotInfo: Some(slot_token::get_slot_info),
    C_GetTokenInfo: Some(slot_token::get_token_info),
    C_GetMechanismList: Some(slot_token::get_mechanism_list),
    C_GetMechanismInfo: Some(slot_token::get_mechanism_info),
    C_InitToken: Some(slot_token::init_token),
    C_InitPIN: Some(slot_token::init_pin),
    C_SetPIN: Some(slot_token::set_pin),

    C_OpenSession: Some(session::open_session),
    C_CloseSession: Some(session::close_session),
    C_CloseAllSessions: Some(session::close_all_sessions),
    C_GetSessionInfo: Some(session::get_session_info),
    C_GetOperationState: Some(unsupported::to_output),
    C_SetOperationState: Some(unsupported::set_operation_state),
    C_Login: Some(session::login),
    C_Logout: Some(session::logout),

    C_CreateObject: Some(object::create_object),
    C_CopyObject: Some(object::copy_object),
    C_DestroyObject: Some(object::destroy_object),
    C_GetObjectSize: Some(unsupported::get_object_size),
    C_GetAttributeValue: Some(object::get_attribute_value),
    C_SetAttributeValue: Some(object::set_attribute_value),
    C_FindObjectsInit: Some(object::find_objects_init),
    C_FindObjects: Some(object::find_objects),
    C_FindObjectsFinal: Some(object::find_objects_final),

    C_EncryptInit: Some(encrypt::encrypt_init),
    C_Encrypt: Some(encrypt::encrypt),
    C_EncryptUpdate: Some(encrypt::encrypt_update),
    C_EncryptFinal: Some(encrypt::encrypt_final),
    C_DecryptInit: Some(encrypt::decrypt_init),
    C_Decrypt: Some(encrypt::decrypt),
    C_DecryptUpdate: Some(encrypt::decrypt_update),
    C_DecryptFinal: Some(encrypt::decrypt_final),

    C_DigestInit: Some(digest::digest_init),
    C_Digest: Some(digest::digest),
    C_DigestUpdate: Some(digest::digest_update),
    C_DigestKey: Some(digest::digest_key),
    C_DigestFinal: Some(digest::digest_final),

    C_SignInit: Some(sign::sign_init),
    C_Sign: Some(sign::sign),
    C_SignUpdate: Some(sign::sign_update),
    C_SignFinal: Some(sign::sign_final),
    C_SignRecoverInit: Some(unsupported::recover_init),
    C_SignRecover: Some(unsupported::input_to_output),
    C_VerifyInit: Some(sign::verify_init),
    C_Verify: Some(sign::verify),
    C_VerifyUpdate: Some(sign::verify_update),
    C_VerifyFinal: Some(sign::verify_final),
    C_VerifyRecoverInit: Some(unsupported::recover_init),
    C_VerifyRecover: Some(unsupported::input_to_output),

    C_DigestEncryptUpdate: Some(unsupported::input_to_output),
    C_DecryptDigestUpdate: Some(unsupported::input_to_output),
    C_SignEncryptUpdate: Some(unsupported::input_to_output),
    C_DecryptVerifyUpdate: Some(unsupported::input_to_output),

    C_GenerateKey: Some(key::generate_key),
    C_GenerateKeyPair: Some(key::generate_key_pair),
    C_WrapKey: Some(key::wrap_key),
    C_UnwrapKey: Some(key::unwrap_key),
    C_DeriveKey: Some(key::derive_key),

    C_SeedRandom: Some(random::seed_random),
    C_GenerateRandom: Some(random::generate_random),

    C_GetFunctionStatus: Some(unsupported::not_parallel),
    C_CancelFunction: Some(unsupported::not_parallel),
    C_WaitForSlotEvent: Some(unsupported::wait_for_slot_event),
};
