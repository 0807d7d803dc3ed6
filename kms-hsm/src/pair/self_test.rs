//! Known answers and trials of the mechanisms for key pairs.
//!
//! A pair on a curve is made for it, which takes no time. An RSA pair takes up to seconds, so a known one is used where the
//! token takes a key from outside; only else one is made, of 2048 bits. Longer ones have the same mechanisms, and every
//! pair is tried when it is made.

use super::known_rsa as known;
use super::{TRIAL, private_key, public, public_key, read_public_key, sign, size, try_pair};
use crate::encoding::plain;
use crate::error::HsmError;
use crate::live::{CallError, Live};
use crate::pair::profile::{PairTable, PairUse};
use crate::partition::Partition;
use crate::self_test::{Fault, MESSAGE, destroy, of_session, wrong};
use cryptoki::object::{Attribute, ObjectHandle};
use kms_core::pair::{
    PairAlgorithm, PairPublicKey, PairUsage, RSA_EXPONENT, SignatureAlgorithm, SignedInput, Sm2UserId, ToSign,
};

/// Whether a kind has a part of its own in the self-test.
pub(crate) fn is_tested(algorithm: PairAlgorithm) -> bool {
    !matches!(algorithm, PairAlgorithm::Rsa3072 | PairAlgorithm::Rsa4096)
}

pub(crate) fn run(
    live: &mut Live,
    partition: &Partition,
    (algorithm, usage): (PairAlgorithm, PairUsage),
    table: &PairTable,
) -> Result<(), Fault> {
    if algorithm.rsa_modulus_len().is_some()
        && let Some(key) = import(live, partition, usage, table)?
    {
        let result = known_answers(live, table, usage, key);
        destroy(live, partition, [key].into_iter());
        return result;
    }
    let profile = partition.module().profile();
    let mut public_template = of_session(public_key(usage, table));
    public_template.extend(size(algorithm));
    let private_template = of_session(private_key(profile, usage, table));
    let pair = {
        let _turn = partition.turn_at_objects();
        live.session.get().generate_key_pair(&plain(table.generate), &public_template, &private_template)
    };
    let (public, private) = pair.map_err(|error| Fault::Generate(error.into()))?;
    let result = read_public_key(live, algorithm, public)
        .map_err(Fault::Generate)
        .and_then(|key| try_pair(live, table, usage, private, &key).map_err(Fault::Use))
        .and_then(|()| match usage {
            PairUsage::Sign => Ok(()),
            PairUsage::Decrypt => {
                let key = read_public_key(live, algorithm, public).map_err(Fault::Generate)?;
                refuses_a_forgery(live, partition, table, private, &key).map_err(Fault::Use)
            }
        });
    destroy(live, partition, [private, public].into_iter());
    result
}

/// The known private key as an object of the session; `None` where the token takes none.
fn import(
    live: &Live,
    partition: &Partition,
    usage: PairUsage,
    table: &PairTable,
) -> Result<Option<ObjectHandle>, Fault> {
    let mut template = of_session(private_key(partition.module().profile(), usage, table));
    template.extend([
        Attribute::Modulus(known::MODULUS.to_vec()),
        Attribute::PublicExponent(RSA_EXPONENT.to_vec()),
        Attribute::PrivateExponent(known::PRIVATE_EXPONENT.to_vec()),
        Attribute::Prime1(known::PRIME_1.to_vec()),
        Attribute::Prime2(known::PRIME_2.to_vec()),
        Attribute::Exponent1(known::EXPONENT_1.to_vec()),
        Attribute::Exponent2(known::EXPONENT_2.to_vec()),
        Attribute::Coefficient(known::COEFFICIENT.to_vec()),
    ]);
    let _turn = partition.turn_at_objects();
    match live.session.get().create_object(&template).map_err(HsmError::from) {
        Ok(key) => Ok(Some(key)),
        // A device that does not take keys in the clear says so in one of these ways.
        Err(
            HsmError::Refused { .. }
            | HsmError::Unsupported { .. }
            | HsmError::DeviceSick { .. }
            | HsmError::NoRoom { .. },
        ) => Ok(None),
        Err(error) => Err(Fault::Generate(error.into())),
    }
}

fn known_answers(live: &Live, table: &PairTable, usage: PairUsage, key: ObjectHandle) -> Result<(), Fault> {
    let algorithm = PairAlgorithm::Rsa2048;
    let public = PairPublicKey::from_rsa(known::MODULUS, &RSA_EXPONENT)
        .map_err(|_| Fault::Use(wrong("a known key that is none")))?;
    if usage == PairUsage::Decrypt {
        let decrypted = super::decrypt_once(live, table, key, algorithm, known::OAEP_CIPHERTEXT);
        return match decrypted.map_err(|error| Fault::Use(error.into()))? {
            Ok(plaintext) if plaintext.expose() == MESSAGE => Ok(()),
            Ok(_) => Err(Fault::Use(wrong("a plaintext that is not the one of this algorithm"))),
            Err(error) => Err(Fault::Use(error.into())),
        };
    }
    for how in SignatureAlgorithm::of(algorithm) {
        let input = ToSign::new(how, &public, &Sm2UserId::default(), SignedInput::Message(MESSAGE))
            .map_err(|_| Fault::Use(wrong("a known key that does not sign")))?;
        let used = table.sign_mechanism(&input);
        let signature =
            sign(live, table, key, algorithm, &input).map_err(|error| Fault::UseOf(used, error))?;
        let is_right = public::verify_signature(&public, &input, &signature).is_ok()
            && (how != SignatureAlgorithm::RsaPkcs1Sha256 || signature == known::PKCS1_SIGNATURE);
        if !is_right {
            return Err(Fault::UseOf(used, wrong("a signature that does not verify")));
        }
    }
    Ok(())
}

/// A ciphertext with one wrong bit must be refused, and in a way that says so.
fn refuses_a_forgery(
    live: &mut Live,
    partition: &Partition,
    table: &PairTable,
    private: ObjectHandle,
    public: &PairPublicKey,
) -> Result<(), CallError> {
    let mut forged =
        public::encrypt_to(public, TRIAL).map_err(|_| wrong("a public key to which nothing is encrypted"))?;
    // The last byte: of the masked message, or of a number that stays below the modulus.
    if let Some(last) = forged.last_mut() {
        *last ^= 1;
    }
    if matches!(table.uses, PairUse::RsaDecrypt { .. })
        && kms_core::pair::EncryptionAlgorithm::RsaOaepSha256.check_ciphertext(public, &forged).is_err()
    {
        return Ok(());
    }
    let profile = partition.module().profile();
    match super::decrypt(live, profile, table, private, public.algorithm(), &forged) {
        Err(CallError::Ours(HsmError::CiphertextInvalid)) => Ok(()),
        Ok(_) => Err(wrong("a plaintext for a forged ciphertext")),
        Err(error) => Err(error),
    }
}
