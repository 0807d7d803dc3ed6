//! Known answers through the token, before anybody relies on it and whenever it is in doubt.
//!
//! Every key here lives in the session alone. With a key that the token makes, what can be checked without
//! knowing it is checked; where the token takes a key from outside (most refuse it in their approved mode), its
//! answers are compared with those of our own implementation. Either way a profile that is wrong about a mechanism,
//! its parameters or the form of its answers is found here and not by the first caller.

use crate::attributes::{mac_key, sealing_key, signing_private_key, signing_public_key};
use crate::encoding::{plain, public_point, raw_signature};
use crate::error::{ErrorClass, HsmError};
use crate::live::{CallError, Effect, Live};
use crate::partition::Partition;
use crate::profile::{MacMechanisms, Profile, SealingMechanisms, SigningMechanisms, code_of};
use crate::sealing;
use crate::{ObjectKind, Sealed, pair};
use cryptoki::mechanism::MechanismType;
use cryptoki::object::{Attribute, AttributeType, ObjectHandle};
use kms_core::asymmetric::{PublicKey, Signature};
use kms_core::mac::MacAlgorithm;
use kms_core::secret::Secret;
use kms_core::suite::{AeadAlgorithm, Digest32, NONCE_LEN, Suite, aead_open, aead_seal};

/// Key, nonce, associated data and message of the known answers. None of them protects anything.
const KEY: [u8; 64] = *b"kms/v1/self-test: not a real keykms/v1/self-test: nor this part.";
const NONCE: [u8; NONCE_LEN] = *b"self-test/iv";
const AAD: &[u8] = b"kms/v1/self-test: associated data";
pub(crate) const MESSAGE: &[u8] = b"kms/v1/self-test: a message longer than one block of either cipher";

/// One part of the test. A part is repeated as a whole when the session or the login goes meanwhile.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    Random,
    Kind(ObjectKind),
}

/// Everything that the token offers.
pub(crate) fn parts(partition: &Partition) -> Vec<Part> {
    let has_part = |kind: &ObjectKind| match kind {
        ObjectKind::KeyPair(algorithm, _) => pair::self_test::is_tested(*algorithm),
        _ => true,
    };
    std::iter::once(Part::Random).chain(partition.kinds().filter(has_part).map(Part::Kind)).collect()
}

/// Runs one part.
pub(crate) fn run(live: &mut Live, partition: &Partition, part: Part) -> Result<(), CallError> {
    let profile = partition.module().profile();
    if partition.try_turn_at_objects().is_none() {
        // Whoever has it may be inside a call that hangs. Nothing is known then; waiting would tell no more.
        return Err(HsmError::Busy.into());
    }
    let kind = match part {
        Part::Random => {
            return random(live).map_err(|error| name(profile, "C_GenerateRandom".to_owned(), error));
        }
        Part::Kind(kind) => kind,
    };
    match test(live, partition, kind) {
        // A token that is full is not sick: what it has made it still uses.
        Err(CallError::Ours(HsmError::NoRoom { .. })) => {
            tracing::warn!(?kind, "the token has no room for a key of the self-test");
            Ok(())
        }
        result => result,
    }
}

/// Whether a part failed because of the token's state, and neither because it answered something wrong nor because it
/// lacks a mechanism.
pub(crate) fn may_pass(error: &HsmError) -> bool {
    match error {
        HsmError::SelfTest { source, .. } => {
            source.as_ref().is_some_and(|source| source.class() == ErrorClass::DeviceSick)
        }
        error => matches!(error.class(), ErrorClass::RetryOnNewSession | ErrorClass::LoginLost),
    }
}

fn test(live: &mut Live, partition: &Partition, kind: ObjectKind) -> Result<(), CallError> {
    let profile = partition.module().profile();
    match kind {
        ObjectKind::KeyPair(algorithm, usage) => profile.pair(algorithm, usage).map_or(Ok(()), |table| {
            pair::self_test::run(live, partition, (algorithm, usage), table).map_err(|fault| {
                let using = table.uses().first().copied().unwrap_or(table.generate);
                fault.name(profile, table.generate, using)
            })
        }),
        ObjectKind::SealingKey(algorithm) => profile.sealing(algorithm).map_or(Ok(()), |table| {
            sealing_key_test(live, partition, algorithm, table)
                .map_err(|fault| fault.name(profile, table.generate, table.seal))
        }),
        ObjectKind::SigningKey(suite) => profile.signing(suite).map_or(Ok(()), |table| {
            signing_key_test(live, partition, suite, table)
                .map_err(|fault| fault.name(profile, table.generate, table.sign))
        }),
        ObjectKind::MacKey(algorithm) => profile.mac(algorithm).map_or(Ok(()), |table| {
            mac_key_test(live, partition, algorithm, table)
                .map_err(|fault| fault.name(profile, table.generate, table.mac))
        }),
    }
}

/// Which of a kind's two mechanisms did not do what it must.
pub(crate) enum Fault {
    Generate(CallError),
    Use(CallError),
    /// Of a kind with several mechanisms for its use: which one.
    UseOf(MechanismType, CallError),
}

impl Fault {
    fn name(self, profile: &Profile, generate: MechanismType, using: MechanismType) -> CallError {
        match self {
            Fault::Generate(error) => name(profile, format!("{:#010x}", code_of(generate)), error),
            Fault::Use(error) => name(profile, format!("{:#010x}", code_of(using)), error),
            Fault::UseOf(used, error) => name(profile, format!("{:#010x}", code_of(used)), error),
        }
    }
}

/// Says which mechanism failed, unless it was not the mechanism: a session, a login or the token that went.
fn name(profile: &Profile, mechanism: String, error: CallError) -> CallError {
    let error = HsmError::from(error);
    let (what, source) = match error {
        HsmError::UnexpectedAnswer { what } => (what, None),
        error => match error.class() {
            ErrorClass::RetryOnNewSession
            | ErrorClass::LoginLost
            | ErrorClass::TokenGone
            | ErrorClass::PinIncorrect
            | ErrorClass::Busy
            | ErrorClass::Stopped => return error.into(),
            _ => ("the token answered an error", Some(Box::new(error))),
        },
    };
    HsmError::SelfTest { profile: profile.name().to_owned(), mechanism, what, source }.into()
}

pub(crate) fn wrong(what: &'static str) -> CallError {
    HsmError::UnexpectedAnswer { what }.into()
}

fn random(live: &mut Live) -> Result<(), CallError> {
    let (mut one, mut two) = ([0; 64], [0; 64]);
    live.random(&mut one)?;
    live.random(&mut two)?;
    let halves = [&one[..32], &one[32..], &two[..32], &two[32..]];
    let is_repeated = (1..halves.len()).any(|index| halves[..index].contains(&halves[index]));
    if is_repeated { Err(wrong("random bytes that are not random")) } else { Ok(()) }
}

fn sealing_key_test(
    live: &mut Live,
    partition: &Partition,
    algorithm: AeadAlgorithm,
    table: &SealingMechanisms,
) -> Result<(), Fault> {
    let profile = partition.module().profile();
    let template = of_session(sealing_key(profile, algorithm, table));
    let known = &KEY[..algorithm.key_len()];
    let keys = secret_keys(live, partition, table.generate, template, known)?;
    let result = keys.iter().try_for_each(|(key, is_known)| {
        let sealed = sealing::encrypt(live, profile, table, *key, (AAD, MESSAGE), &mut Effect::NotYet)?;
        if *is_known {
            let opened = aead_open(algorithm, known, &sealed.nonce, AAD, &sealed.ciphertext_and_tag);
            if !opened.is_ok_and(|opened| opened.expose() == MESSAGE) {
                return Err(wrong("a ciphertext that is not the one of this algorithm"));
            }
            let body = aead_seal(algorithm, known, &NONCE, AAD, MESSAGE)
                .map_err(|_| wrong("a key of another length"))?;
            let foreign = Sealed { nonce: NONCE, ciphertext_and_tag: body };
            expect_message(sealing::decrypt(live, profile, table, *key, AAD, &foreign)?)?;
        }
        expect_message(sealing::decrypt(live, profile, table, *key, AAD, &sealed)?)?;
        let mut forged = sealed.clone();
        forged.ciphertext_and_tag[0] ^= 1;
        for (aad, sealed) in [(AAD, &forged), (MESSAGE, &sealed)] {
            match sealing::decrypt(live, profile, table, *key, aad, sealed) {
                Err(CallError::Ours(HsmError::CiphertextInvalid)) => {}
                Ok(_) => return Err(wrong("a plaintext for a forged ciphertext")),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    });
    destroy(live, partition, keys.iter().map(|(key, _)| *key));
    result.map_err(Fault::Use)
}

fn expect_message(opened: Secret) -> Result<(), CallError> {
    if opened.expose() == MESSAGE { Ok(()) } else { Err(wrong("a plaintext that was never sealed")) }
}

fn mac_key_test(
    live: &mut Live,
    partition: &Partition,
    algorithm: MacAlgorithm,
    table: &MacMechanisms,
) -> Result<(), Fault> {
    let template = of_session(mac_key(partition.module().profile(), algorithm, table));
    let known = &KEY[..algorithm.key_len()];
    let keys = secret_keys(live, partition, table.generate, template, known)?;
    let result = keys.iter().try_for_each(|(key, is_known)| {
        let mac = |data: &[u8]| -> Result<Secret, CallError> {
            Ok(Secret::new(live.session.get().sign(&plain(table.mac), *key, data)?))
        };
        let (one, again, other) = (mac(MESSAGE)?, mac(MESSAGE)?, mac(AAD)?);
        let is_right = if *is_known {
            algorithm.mac(known, MESSAGE).is_equal(one.expose())
                && algorithm.mac(known, AAD).is_equal(other.expose())
        } else {
            one.expose().len() == algorithm.mac_len()
                && one.expose() == again.expose()
                && one.expose() != other.expose()
        };
        if is_right { Ok(()) } else { Err(wrong("a MAC that is not the one of this algorithm")) }
    });
    destroy(live, partition, keys.iter().map(|(key, _)| *key));
    result.map_err(Fault::Use)
}

fn signing_key_test(
    live: &mut Live,
    partition: &Partition,
    suite: Suite,
    table: &SigningMechanisms,
) -> Result<(), Fault> {
    let profile = partition.module().profile();
    let public_template = of_session(signing_public_key(table));
    let private_template = of_session(signing_private_key(profile, table));
    let pair = {
        let _turn = partition.turn_at_objects();
        live.session.get().generate_key_pair(&plain(table.generate), &public_template, &private_template)
    };
    let (public, private) = pair.map_err(|error| Fault::Generate(error.into()))?;
    let point = || {
        let found = live.session.get().get_attributes(public, &[AttributeType::EcPoint])?;
        let Some(Attribute::EcPoint(point)) = found.first() else {
            return Err(wrong("a public key without a point"));
        };
        let point = public_point(suite, point)?;
        PublicKey::from_sec1(&point).ok_or_else(|| wrong("a public key that is not on its curve"))
    };
    let result = point().map_err(Fault::Generate).and_then(|point| {
        let digest: Digest32 = point.message_digest(suite, MESSAGE);
        let signed = live.session.get().sign(&plain(table.sign), private, &digest.0);
        let signature = signed.map_err(|error| Fault::Use(error.into()))?;
        let signature = raw_signature(suite, table.signature, &signature)
            .ok_or_else(|| Fault::Use(wrong("a signature of another form")))?;
        point
            .verify_digest(suite, &digest, &Signature(signature))
            .map_err(|_| Fault::Use(wrong("a signature that does not verify")))
    });
    destroy(live, partition, [private, public].into_iter());
    result
}

/// Keys of the session: one that the token makes, and the known one where the token takes it. The flag says which
/// is known.
fn secret_keys(
    live: &Live,
    partition: &Partition,
    generate: MechanismType,
    template: Vec<Attribute>,
    value: &[u8],
) -> Result<Vec<(ObjectHandle, bool)>, Fault> {
    let _turn = partition.turn_at_objects();
    let session = live.session.get();
    let made = session.generate_key(&plain(generate), &template);
    let mut keys = vec![(made.map_err(|error| Fault::Generate(error.into()))?, false)];
    let mut known = template;
    known.retain(|one| !matches!(one, Attribute::ValueLen(_)));
    known.push(Attribute::Value(value.to_vec()));
    match session.create_object(&known).map_err(HsmError::from) {
        Ok(key) => keys.push((key, true)),
        // A device that does not take keys in the clear says so in one of these ways.
        Err(
            HsmError::Refused { .. }
            | HsmError::Unsupported { .. }
            | HsmError::DeviceSick { .. }
            | HsmError::NoRoom { .. },
        ) => {}
        Err(error) => {
            for (key, _) in keys {
                // It goes with the session at the latest.
                let _ = session.destroy_object(key);
            }
            return Err(Fault::Generate(error.into()));
        }
    }
    Ok(keys)
}

/// The same attributes for an object that goes with its session and leaves it in no way.
pub(crate) fn of_session(template: Vec<Attribute>) -> Vec<Attribute> {
    template
        .into_iter()
        .filter_map(|attribute| match attribute {
            Attribute::Token(_) => Some(Attribute::Token(false)),
            Attribute::Extractable(_) => Some(Attribute::Extractable(false)),
            Attribute::WrapWithTrusted(_) => None,
            other => Some(other),
        })
        .collect()
}

pub(crate) fn destroy(live: &Live, partition: &Partition, objects: impl Iterator<Item = ObjectHandle>) {
    let _turn = partition.turn_at_objects();
    for object in objects {
        // It goes with the session at the latest.
        if let Err(error) = live.session.get().destroy_object(object) {
            tracing::debug!(%error, "destroying a key of the self-test");
        }
    }
}
