//! Authenticated encryption in the token, and what its answers mean.
//!
//! A token's answer may be wrong: a bit turned over on the way, a fault in firmware. A ciphertext that does not open,
//! or a key that opens to another one, would cost data long after. So what is sealed carries a check of eight bytes,
//! and it is opened again before it is handed out.

use crate::Sealed;
use crate::answer::AEAD_DECRYPT_FAILED;
use crate::encoding::GcmParameters;
use crate::error::HsmError;
use crate::live::{CallError, Effect, Live};
use crate::profile::{GcmIv, Profile, SealingMechanisms};
use cryptoki::context::Function;
use cryptoki::error::{Error as Pkcs11Error, RvError};
use cryptoki::object::ObjectHandle;
use kms_core::secret::{Secret, leaving_no_stack};
use kms_core::suite::{AeadAlgorithm, NONCE_LEN, TAG_LEN};

const OTHER_FORM: HsmError = HsmError::UnexpectedAnswer { what: "a ciphertext of another form" };

/// Length of the check that is sealed behind a plaintext (docs/formats/ciphertext.md).
pub(crate) const CHECK_LEN: usize = 8;

/// First bytes of the hash that goes with the cipher. It finds accidents; against forgers there is the tag.
fn check(algorithm: AeadAlgorithm, plaintext: &[u8]) -> [u8; CHECK_LEN] {
    let digest = leaving_no_stack(|| algorithm.suite().hash(&[plaintext]));
    *digest.0.first_chunk().expect("a digest is longer than a check")
}

/// Encrypts `input` (associated data and plaintext) with its check, and makes sure that it opens.
pub(crate) fn seal(
    live: &mut Live,
    profile: &Profile,
    (algorithm, table): (AeadAlgorithm, &SealingMechanisms),
    key: ObjectHandle,
    (aad, plaintext): (&[u8], &[u8]),
    effect: &mut Effect,
) -> Result<Sealed, CallError> {
    let mut checked = Vec::with_capacity(plaintext.len() + CHECK_LEN);
    checked.extend_from_slice(plaintext);
    checked.extend_from_slice(&check(algorithm, plaintext));
    let checked = Secret::new(checked);
    let sealed = encrypt(live, profile, table, key, (aad, checked.expose()), effect)?;
    // The key was used, and uses are counted: nothing from here on is repeated by itself.
    *effect = Effect::Possible;
    match decrypt(live, profile, table, key, aad, &sealed) {
        Ok(opened) if opened.expose() == checked.expose() => Ok(sealed),
        Ok(_) | Err(CallError::Ours(HsmError::CiphertextInvalid)) => {
            Err(HsmError::UnexpectedAnswer { what: "a ciphertext that does not open" }.into())
        }
        Err(error) => Err(error),
    }
}

/// Decrypts what [`seal`] made.
pub(crate) fn open(
    live: &mut Live,
    profile: &Profile,
    (algorithm, table): (AeadAlgorithm, &SealingMechanisms),
    key: ObjectHandle,
    aad: &[u8],
    sealed: &Sealed,
) -> Result<Secret, CallError> {
    let mut opened = decrypt(live, profile, table, key, aad, sealed)?.into_zeroizing();
    let is_right = match opened.split_last_chunk::<CHECK_LEN>() {
        Some((plaintext, found)) => *found == check(algorithm, plaintext),
        None => false,
    };
    if !is_right {
        // The tag was right, so this was sealed; the plaintext is not the one that was.
        return Err(HsmError::UnexpectedAnswer { what: "a plaintext that was not sealed" }.into());
    }
    let len = opened.len() - CHECK_LEN;
    opened.truncate(len);
    Ok(Secret::new(std::mem::take(&mut *opened)))
}

/// Encrypts `input`: associated data and plaintext, as they are.
pub(crate) fn encrypt(
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

/// Decrypts what [`encrypt`] made. The nonce is always given: only its maker differs between devices.
pub(crate) fn decrypt(
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
        Err(error) => Err(refusal(live, profile, error)),
    }
}

/// What a token's error to a decryption means.
pub(crate) fn refusal(live: &mut Live, profile: &Profile, error: Pkcs11Error) -> CallError {
    match error {
        Pkcs11Error::Pkcs11(code, Function::Decrypt) if means_bad_tag(code) => {
            HsmError::CiphertextInvalid.into()
        }
        // Nobody can tell a forged ciphertext from a broken device by this answer. A device that
        // works a moment later was given a forged one; garbage alone trips nothing.
        Pkcs11Error::Pkcs11(code, Function::Decrypt) if profile.may_mean_bad_tag(code) => {
            match live.check_device() {
                Ok(()) => HsmError::CiphertextInvalid.into(),
                Err(error) => error,
            }
        }
        error => error.into(),
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

    /// Computed without this crate, in docs/formats/ciphertext.md. A failure means that stored ciphertexts count as
    /// answers of a broken device.
    #[test]
    fn the_check_is_the_documented_one() {
        let document = include_str!("../../docs/formats/ciphertext.md");
        for (algorithm, hash) in [(AeadAlgorithm::Aes256Gcm, "SHA-256"), (AeadAlgorithm::Sm4Gcm, "SM3")] {
            let check: String =
                check(algorithm, b"attack at dawn").iter().map(|byte| format!("{byte:02x}")).collect();
            let golden = format!("`{check}` ({hash})");
            assert!(document.contains(&golden), "docs/formats/ciphertext.md must hold {golden}");
        }
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
