//! Authenticated encryption in the token, and what its answers mean.

use crate::Sealed;
use crate::answer::AEAD_DECRYPT_FAILED;
use crate::encoding::GcmParameters;
use crate::error::HsmError;
use crate::live::{CallError, Effect, Live};
use crate::profile::{GcmIv, Profile, SealingMechanisms};
use cryptoki::context::Function;
use cryptoki::error::{Error as Pkcs11Error, RvError};
use cryptoki::object::ObjectHandle;
use kms_core::secret::Secret;
use kms_core::suite::{NONCE_LEN, TAG_LEN};

const OTHER_FORM: HsmError = HsmError::UnexpectedAnswer { what: "a ciphertext of another form" };

/// Encrypts `input`: associated data and plaintext.
pub(crate) fn seal(
    live: &mut Live,
    profile: &Profile,
    table: &SealingMechanisms,
    key: ObjectHandle,
    (aad, plaintext): (&[u8], &[u8]),
    effect: &mut Effect,
) -> Result<Sealed, CallError> {
    let who = profile.gcm_iv();
    let sent = match who {
        GcmIv::Caller => live.nonce()?,
        GcmIv::Returned | GcmIv::Appended => [0; NONCE_LEN],
    };
    let mut iv = sent;
    let encrypted = {
        let parameters = match who {
            GcmIv::Caller | GcmIv::Returned => GcmParameters::with_iv(profile.gcm_layout(), &mut iv, aad),
            GcmIv::Appended => GcmParameters::without_iv(profile.gcm_layout(), aad),
        };
        live.session.get().encrypt(&parameters.mechanism(table.seal), key, plaintext)
    };
    if !matches!(encrypted, Ok(_) | Err(Pkcs11Error::Pkcs11(_, Function::EncryptInit))) {
        // The key may have been used once more, and uses are counted: the caller decides.
        *effect = Effect::Possible;
    }
    let output = encrypted?;
    Ok(assemble(who, (sent, iv), output, plaintext.len())?)
}

/// Reads what the device gave: `iv` as it was sent and as it was left, and the output.
fn assemble(
    who: GcmIv,
    (sent, left): ([u8; NONCE_LEN], [u8; NONCE_LEN]),
    mut output: Vec<u8>,
    plaintext_len: usize,
) -> Result<Sealed, HsmError> {
    let nonce = match who {
        // A device that puts in a nonce of its own all the same.
        GcmIv::Caller if left != sent => return Err(OTHER_FORM),
        GcmIv::Caller => sent,
        // One that does not fill in what it made: every ciphertext would have the same nonce for us.
        GcmIv::Returned if left == sent => return Err(OTHER_FORM),
        GcmIv::Returned => left,
        GcmIv::Appended => {
            let nonce = *output.last_chunk::<NONCE_LEN>().ok_or(OTHER_FORM)?;
            output.truncate(output.len() - NONCE_LEN);
            nonce
        }
    };
    if output.len() != plaintext_len + TAG_LEN {
        return Err(OTHER_FORM);
    }
    Ok(Sealed { nonce, ciphertext_and_tag: output })
}

/// Decrypts what [`seal`] made. The nonce is always given: only its maker differs between devices.
pub(crate) fn open(
    live: &mut Live,
    profile: &Profile,
    table: &SealingMechanisms,
    key: ObjectHandle,
    aad: &[u8],
    sealed: &Sealed,
) -> Result<Secret, CallError> {
    let mut iv = sealed.nonce;
    let parameters = GcmParameters::with_iv(profile.gcm_layout(), &mut iv, aad);
    let mechanism = parameters.mechanism(table.seal);
    let opened = live.session.get().decrypt(&mechanism, key, &sealed.ciphertext_and_tag).map(Secret::new);
    match opened {
        Ok(plaintext) if plaintext.expose().len() + TAG_LEN == sealed.ciphertext_and_tag.len() => {
            Ok(plaintext)
        }
        Ok(_) => Err(HsmError::UnexpectedAnswer { what: "a plaintext of another length" }.into()),
        Err(Pkcs11Error::Pkcs11(code, Function::Decrypt)) if means_bad_tag(code) => {
            Err(HsmError::CiphertextInvalid.into())
        }
        // Nobody can tell a forged ciphertext from a broken device by this answer. A device that
        // works a moment later was given a forged one; garbage alone trips nothing.
        Err(Pkcs11Error::Pkcs11(code, Function::Decrypt)) if profile.may_mean_bad_tag(code) => {
            live.check_device()?;
            Err(HsmError::CiphertextInvalid.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Answers to a decryption that mean one thing only.
fn means_bad_tag(code: RvError) -> bool {
    matches!(
        code,
        RvError::EncryptedDataInvalid
            | RvError::EncryptedDataLenRange
            | RvError::DataInvalid
            | RvError::SignatureInvalid
            | AEAD_DECRYPT_FAILED
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: [u8; NONCE_LEN] = [1; NONCE_LEN];
    const MADE: [u8; NONCE_LEN] = [2; NONCE_LEN];
    const NONE: [u8; NONCE_LEN] = [0; NONCE_LEN];

    fn body() -> Vec<u8> {
        vec![9; 4 + TAG_LEN]
    }

    fn nonce_of(who: GcmIv, iv: ([u8; NONCE_LEN], [u8; NONCE_LEN]), output: Vec<u8>) -> Option<Vec<u8>> {
        let sealed = assemble(who, iv, output, 4).ok()?;
        assert_eq!(sealed.ciphertext_and_tag, body());
        Some(sealed.nonce.to_vec())
    }

    #[test]
    fn the_nonce_is_taken_from_where_the_profile_says() {
        let appended = [body(), MADE.to_vec()].concat();
        assert_eq!(nonce_of(GcmIv::Caller, (SENT, SENT), body()), Some(SENT.to_vec()));
        assert_eq!(nonce_of(GcmIv::Returned, (NONE, MADE), body()), Some(MADE.to_vec()));
        assert_eq!(nonce_of(GcmIv::Appended, (NONE, NONE), appended), Some(MADE.to_vec()));
    }

    #[test]
    fn a_device_of_another_habit_than_its_profile_says_is_refused() {
        let appended = [body(), MADE.to_vec()].concat();
        for (who, iv, output) in [
            (GcmIv::Caller, (SENT, MADE), body()),
            (GcmIv::Caller, (SENT, SENT), appended.clone()),
            (GcmIv::Returned, (NONE, NONE), body()),
            (GcmIv::Returned, (NONE, MADE), appended.clone()),
            (GcmIv::Appended, (NONE, NONE), body()),
            (GcmIv::Appended, (NONE, NONE), vec![0; NONCE_LEN - 1]),
            (GcmIv::Appended, (NONE, NONE), [appended, vec![0; 4]].concat()),
        ] {
            assert_eq!(nonce_of(who, iv, output), None, "{who:?} {iv:?}");
        }
    }
}
