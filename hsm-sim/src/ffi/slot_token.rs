//! Slot and token management functions.
#![expect(unsafe_code, reason = "C passes pointers")]

use cryptoki_sys as ck;

use crate::fault::{self, TokenScript};
use crate::ffi::general::{OWN_VERSION, padded};
use crate::ffi::{entry, pointer, session};
use crate::module::{Module, Slot};
use crate::pin::{NewPin, PIN_FAILURES_MAX, PIN_LEN_MAX, PIN_LEN_MIN, PinRecord};
use crate::refusal::Refusal;
use crate::session::Access;
use crate::store::SlotId;
use crate::stored::LABEL_LEN;
use crate::token::TokenSummary;

/// The hardware version of a token that is under fault scripting: whoever looks can see it, and
/// nothing by which clients find a token is different.
const SCRIPTED_VERSION: ck::CK_VERSION = ck::CK_VERSION { major: 99, minor: 0 };

pub unsafe extern "C" fn get_slot_list(
    only_with_token: ck::CK_BBOOL,
    slots: *mut ck::CK_SLOT_ID,
    count: *mut ck::CK_ULONG,
) -> ck::CK_RV {
    entry(|| {
        // There is a token in every slot, unless one is scripted to be away.
        let is_listed = |slot: &SlotId| only_with_token == ck::CK_FALSE || fault::token_script(*slot).present;
        let known = Module::current()?.slots()?.into_iter().filter(is_listed);
        let known: Vec<_> = known.map(|slot| slot.0).collect();
        // SAFETY: the standard demands a count, and as many places unless `slots` is NULL.
        unsafe { pointer::list(&known, slots, count) }
    })
}

pub unsafe extern "C" fn get_slot_info(slot: ck::CK_SLOT_ID, info: *mut ck::CK_SLOT_INFO) -> ck::CK_RV {
    entry(|| {
        let module = Module::current()?;
        module.slot(SlotId(slot))?;
        let value = ck::CK_SLOT_INFO {
            slotDescription: padded(&format!("hsm-sim slot {slot}")),
            manufacturerID: padded(module.personality.manufacturer),
            flags: if fault::token_script(SlotId(slot)).present { ck::CKF_TOKEN_PRESENT } else { 0 },
            hardwareVersion: OWN_VERSION,
            firmwareVersion: OWN_VERSION,
        };
        // SAFETY: the standard demands a place for the structure; NULL is refused.
        unsafe { pointer::write(info, value) }
    })
}

pub unsafe extern "C" fn get_token_info(slot: ck::CK_SLOT_ID, info: *mut ck::CK_TOKEN_INFO) -> ck::CK_RV {
    entry(|| {
        let module = Module::current()?;
        pointer::require_place(info)?;
        let summary = match module.slot(SlotId(slot))? {
            Slot::Initialized(token) => Some(token.summary()?),
            Slot::Fresh => None,
        };
        let (session_count, read_write_session_count) = match &summary {
            Some(summary) => (summary.session_count, summary.read_write_session_count),
            None => (0, 0),
        };
        let script = fault::token_script(SlotId(slot));
        let session_count_max =
            script.session_count_max.map_or(ck::CK_EFFECTIVELY_INFINITE, |max| max as u64);
        let is_scripted = fault::is_scripted(SlotId(slot));
        let value = ck::CK_TOKEN_INFO {
            label: summary.as_ref().map_or_else(|| padded(""), |summary| summary.state.identity.label),
            manufacturerID: padded(module.personality.manufacturer),
            model: padded(module.personality.model),
            serialNumber: summary
                .as_ref()
                .map_or_else(|| padded(""), |summary| summary.state.identity.serial),
            flags: token_flags(summary.as_ref(), &script),
            ulMaxSessionCount: session_count_max,
            ulSessionCount: session_count as ck::CK_ULONG,
            ulMaxRwSessionCount: session_count_max,
            ulRwSessionCount: read_write_session_count as ck::CK_ULONG,
            ulMaxPinLen: PIN_LEN_MAX as ck::CK_ULONG,
            ulMinPinLen: PIN_LEN_MIN as ck::CK_ULONG,
            ulTotalPublicMemory: ck::CK_UNAVAILABLE_INFORMATION,
            ulFreePublicMemory: ck::CK_UNAVAILABLE_INFORMATION,
            ulTotalPrivateMemory: ck::CK_UNAVAILABLE_INFORMATION,
            ulFreePrivateMemory: ck::CK_UNAVAILABLE_INFORMATION,
            hardwareVersion: if is_scripted { SCRIPTED_VERSION } else { OWN_VERSION },
            firmwareVersion: OWN_VERSION,
            utcTime: padded(""),
        };
        // SAFETY: the standard demands a place for the structure; NULL was refused.
        unsafe { pointer::write(info, value) }
    })
}

fn token_flags(summary: Option<&TokenSummary>, script: &TokenScript) -> ck::CK_FLAGS {
    let mut flags = ck::CKF_RNG | ck::CKF_LOGIN_REQUIRED;
    flags |= if script.user_pin_locked { ck::CKF_USER_PIN_LOCKED } else { 0 };
    flags |= if script.so_pin_locked { ck::CKF_SO_PIN_LOCKED } else { 0 };
    if let Some(summary) = summary {
        flags |= ck::CKF_TOKEN_INITIALIZED;
        flags |= attempt_flags(
            &summary.state.security_officer,
            [ck::CKF_SO_PIN_COUNT_LOW, ck::CKF_SO_PIN_FINAL_TRY, ck::CKF_SO_PIN_LOCKED],
        );
        if let Some(user) = &summary.state.user {
            flags |= ck::CKF_USER_PIN_INITIALIZED;
            flags |= attempt_flags(
                user,
                [ck::CKF_USER_PIN_COUNT_LOW, ck::CKF_USER_PIN_FINAL_TRY, ck::CKF_USER_PIN_LOCKED],
            );
        }
    }
    flags
}

fn attempt_flags(pin: &PinRecord, [count_low, final_try, locked]: [ck::CK_FLAGS; 3]) -> ck::CK_FLAGS {
    match pin.failures {
        0 => 0,
        failures if failures >= PIN_FAILURES_MAX => count_low | locked,
        failures if failures + 1 == PIN_FAILURES_MAX => count_low | final_try,
        _ => count_low,
    }
}

pub unsafe extern "C" fn get_mechanism_list(
    slot: ck::CK_SLOT_ID,
    mechanisms: *mut ck::CK_MECHANISM_TYPE,
    count: *mut ck::CK_ULONG,
) -> ck::CK_RV {
    entry(|| {
        let module = Module::current()?;
        module.slot(SlotId(slot))?;
        let codes: Vec<_> = module.personality.mechanisms().map(|(code, _)| code).collect();
        // SAFETY: the standard demands a count, and as many places unless `mechanisms` is NULL.
        unsafe { pointer::list(&codes, mechanisms, count) }
    })
}

pub unsafe extern "C" fn get_mechanism_info(
    slot: ck::CK_SLOT_ID,
    code: ck::CK_MECHANISM_TYPE,
    info: *mut ck::CK_MECHANISM_INFO,
) -> ck::CK_RV {
    entry(|| {
        let module = Module::current()?;
        module.slot(SlotId(slot))?;
        let mechanism = module.personality.mechanism(code).ok_or(Refusal::MechanismInvalid)?;
        // SAFETY: the standard demands a place for the structure; NULL is refused.
        unsafe { pointer::write(info, mechanism.info()) }
    })
}

pub unsafe extern "C" fn init_token(
    slot: ck::CK_SLOT_ID,
    pin: *mut ck::CK_UTF8CHAR,
    pin_len: ck::CK_ULONG,
    label: *mut ck::CK_UTF8CHAR,
) -> ck::CK_RV {
    entry(|| {
        let module = Module::current()?;
        // SAFETY: the standard demands a PIN of this length; NULL is refused.
        let pin = unsafe { pointer::pin(pin.cast_const(), pin_len) }?;
        // SAFETY: the standard demands a label of exactly 32 bytes; NULL is refused.
        let label = unsafe { pointer::items(label.cast_const(), LABEL_LEN as ck::CK_ULONG) }?;
        let label = label.try_into().map_err(|_| Refusal::ArgumentsBad)?;
        module.init_token(SlotId(slot), label, pin)
    })
}

pub unsafe extern "C" fn init_pin(
    handle: ck::CK_SESSION_HANDLE,
    pin: *mut ck::CK_UTF8CHAR,
    pin_len: ck::CK_ULONG,
) -> ck::CK_RV {
    entry(|| {
        let session = session(handle)?;
        if session.access == Access::ReadOnly {
            return Err(Refusal::SessionReadOnly);
        }
        // SAFETY: the standard demands a PIN of this length; NULL is refused.
        let pin = unsafe { pointer::pin(pin.cast_const(), pin_len) }?;
        session.token.init_user_pin(&NewPin::new(pin)?)
    })
}

pub unsafe extern "C" fn set_pin(
    handle: ck::CK_SESSION_HANDLE,
    old_pin: *mut ck::CK_UTF8CHAR,
    old_pin_len: ck::CK_ULONG,
    new_pin: *mut ck::CK_UTF8CHAR,
    new_pin_len: ck::CK_ULONG,
) -> ck::CK_RV {
    entry(|| {
        let session = session(handle)?;
        // SAFETY: the standard demands a PIN of this length; NULL is refused.
        let old_pin = unsafe { pointer::pin(old_pin.cast_const(), old_pin_len) }?;
        // SAFETY: as above.
        let new_pin = unsafe { pointer::pin(new_pin.cast_const(), new_pin_len) }?;
        session.token.set_pin(session.access, old_pin, &NewPin::new(new_pin)?)
    })
}
