//! Key pairs of applications.

use super::{Device, Fixture, new_id, profiles, raw, soon};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, ObjectClass as RawClass};
use kms_core::pair::{
    EncryptionAlgorithm, PairAlgorithm, PairPublicKey, PairUsage, SignatureAlgorithm, SignedInput, Sm2UserId,
    ToSign,
};
use kms_hsm::{
    ErrorClass, Health, HsmError, HsmPartition, HsmSession, MechanismRole, ObjectKind, Presence, encrypt_to,
    verify_signature,
};
use std::time::{Duration, Instant};

fn with_use(device: &dyn Device, wanted: PairUsage) -> Vec<PairAlgorithm> {
    let of_use = |kind: &ObjectKind| match kind {
        ObjectKind::KeyPair(algorithm, usage) if *usage == wanted => Some(*algorithm),
        _ => None,
    };
    device.pairs().iter().filter_map(of_use).collect()
}

/// Longer RSA pairs take seconds to make and do the same: one case makes them.
fn is_quick(algorithm: &PairAlgorithm) -> bool {
    !matches!(algorithm, PairAlgorithm::Rsa3072 | PairAlgorithm::Rsa4096)
}

fn to_sign(algorithm: SignatureAlgorithm, key: &PairPublicKey, message: &[u8]) -> ToSign {
    ToSign::new(algorithm, key, &Sm2UserId::default(), SignedInput::Message(message)).unwrap()
}

fn create(session: &mut dyn HsmSession, kind: ObjectKind) -> (kms_core::id::HsmObjectId, PairPublicKey) {
    let id = new_id();
    let created = session.create(id, kind, "a pair").unwrap_or_else(|error| panic!("{kind:?}: {error:?}"));
    assert_eq!(session.confirm(id, kind).unwrap(), created);
    (id, created.pair_public_key.unwrap())
}

pub fn a_pair_signs_in_every_way_that_fits_it(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (_partition, mut session) = fixture.session();
    for pair in with_use(device, PairUsage::Sign) {
        let (id, key) = create(session.as_mut(), ObjectKind::KeyPair(pair, PairUsage::Sign));
        assert_eq!(key.algorithm(), pair);
        for algorithm in SignatureAlgorithm::of(pair) {
            for message in [&b"message"[..], b"", &[7; 100_000]] {
                let input = to_sign(algorithm, &key, message);
                let signature = session.sign_with(id, &key, &input).unwrap();
                verify_signature(&key, &input, &signature).unwrap();
                let other = to_sign(algorithm, &key, b"another message");
                assert!(verify_signature(&key, &other, &signature).is_err(), "{algorithm}");
                let sent = algorithm.signature_to_api(pair, &signature).unwrap();
                assert_eq!(algorithm.signature_from_api(pair, &sent).unwrap(), signature);
            }
        }
    }
}

pub fn what_was_encrypted_to_a_pair_decrypts(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (_partition, mut session) = fixture.session();
    for pair in with_use(device, PairUsage::Decrypt) {
        let algorithm = EncryptionAlgorithm::of(pair).unwrap();
        let (id, key) = create(session.as_mut(), ObjectKind::KeyPair(pair, PairUsage::Decrypt));
        for len in [1, 16, 32, algorithm.plaintext_len_max(pair)] {
            let plaintext: Vec<u8> = (0..len).map(|index| index as u8).collect();
            let ciphertext = encrypt_to(&key, &plaintext).unwrap();
            let opened = session.decrypt_with(id, &key, algorithm, &ciphertext).unwrap();
            assert_eq!(opened.expose(), plaintext, "{pair}");
        }
        let empty = encrypt_to(&key, b"");
        assert_eq!(empty.is_ok(), pair != PairAlgorithm::Sm2);
        if let Ok(empty) = empty {
            assert_eq!(session.decrypt_with(id, &key, algorithm, &empty).unwrap().expose(), b"");
        }
        assert!(encrypt_to(&key, &vec![1; algorithm.plaintext_len_max(pair) + 1]).is_err());
    }
}

pub fn no_forged_ciphertext_of_a_pair_makes_the_device_look_broken(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (pool, recorder) = fixture.pool();
    for pair in with_use(device, PairUsage::Decrypt).into_iter().filter(is_quick) {
        let algorithm = EncryptionAlgorithm::of(pair).unwrap();
        let (id, kind) = (new_id(), ObjectKind::KeyPair(pair, PairUsage::Decrypt));
        let created = pool.call("create", soon(), move |session| session.create(id, kind, "a pair")).unwrap();
        let key = created.pair_public_key.unwrap();
        let ciphertext = encrypt_to(&key, b"text").unwrap();
        let mut wrong: Vec<Vec<u8>> = (0..ciphertext.len())
            .map(|place| {
                let mut changed = ciphertext.clone();
                changed[place] ^= 1 << (place % 8);
                changed
            })
            .collect();
        wrong.extend([vec![], vec![0], vec![0; ciphertext.len()], vec![0xff; ciphertext.len()]]);
        wrong.extend([ciphertext[1..].to_vec(), [&ciphertext[..], b"x"].concat(), vec![0x30; 1 << 20]]);
        for wrong in wrong {
            let key = key.clone();
            let decrypted = pool
                .call("decrypt", soon(), move |session| session.decrypt_with(id, &key, algorithm, &wrong))
                .map(|plaintext| plaintext.expose().to_vec());
            assert!(matches!(decrypted, Err(HsmError::CiphertextInvalid)), "{pair}: {decrypted:?}");
        }
        let opened = pool
            .call("decrypt", soon(), move |session| session.decrypt_with(id, &key, algorithm, &ciphertext));
        assert_eq!(opened.unwrap().expose(), b"text");
    }
    assert_eq!(pool.health(), Health::Healthy);
    for class in [ErrorClass::DeviceSick, ErrorClass::RetryOnNewSession, ErrorClass::TokenGone] {
        assert!(!recorder.has_outcome(class), "{class:?}");
    }
}

pub fn what_cannot_be_a_ciphertext_of_a_pair_costs_no_hsm_call(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (pool, recorder) = fixture.pool();
    // No such pair needs to be there: it is refused before anybody looks.
    let other =
        PairPublicKey::from_spki(include_bytes!("../../../kms-core/src/pair/vectors/rsa-2048.spki.der"));
    let key = other.unwrap();
    let modulus = key.rsa_modulus().unwrap().to_vec();
    for wrong in [vec![], vec![1; 255], vec![1; 257], modulus] {
        let key = key.clone();
        let refused = pool.call("decrypt", soon(), move |session| {
            session.decrypt_with(new_id(), &key, EncryptionAlgorithm::RsaOaepSha256, &wrong)
        });
        assert!(matches!(refused, Err(HsmError::CiphertextInvalid)));
    }
    assert_eq!(recorder.count("decrypt_with"), 0);
}

pub fn a_pair_does_what_it_is_for_and_nothing_else(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (_partition, mut session) = fixture.session();
    for kind in device.pairs() {
        let ObjectKind::KeyPair(pair, usage) = kind else { panic!("{kind:?}") };
        if !is_quick(&pair) || !pair.allows(PairUsage::Decrypt) {
            continue;
        }
        let (id, key) = create(session.as_mut(), kind);
        let other_use = PairUsage::ALL.into_iter().find(|other| *other != usage).unwrap();
        let done = match usage {
            PairUsage::Decrypt => {
                let input = to_sign(SignatureAlgorithm::of(pair).next().unwrap(), &key, b"text");
                session.sign_with(id, &key, &input).map(drop)
            }
            PairUsage::Sign => {
                let algorithm = EncryptionAlgorithm::of(pair).unwrap();
                let ciphertext = encrypt_to(&key, b"text").unwrap();
                session.decrypt_with(id, &key, algorithm, &ciphertext).map(drop)
            }
        };
        let class = done.expect_err("it is not for that").class();
        assert!(matches!(class, ErrorClass::CallersFault | ErrorClass::Unsupported), "{kind:?}: {class:?}");
        let confirmed = session.confirm(id, ObjectKind::KeyPair(pair, other_use)).map(drop);
        let class = confirmed.expect_err("another use").class();
        assert_eq!(class, ErrorClass::Unsupported, "{kind:?}");
        session.confirm(id, kind).unwrap();
    }
}

pub fn a_pairs_attributes_keep_its_private_half_inside(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (_partition, mut session) = fixture.session();
    let raw = raw::session(&fixture);
    for kind in device.pairs() {
        let ObjectKind::KeyPair(pair, usage) = kind else { panic!("{kind:?}") };
        if !is_quick(&pair) {
            continue;
        }
        let (id, _) = create(session.as_mut(), kind);
        let one = |class| {
            let found = raw.find_objects(&[Attribute::Id(id.0.to_vec()), Attribute::Class(class)]).unwrap();
            let [handle] = found.as_slice() else { panic!("{found:?}") };
            *handle
        };
        let (private, public) = (one(RawClass::PRIVATE_KEY), one(RawClass::PUBLIC_KEY));
        let is_sign = usage == PairUsage::Sign;
        let of_private = [
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::AlwaysSensitive(true),
            Attribute::Local(true),
            Attribute::Modifiable(false),
            Attribute::Copyable(false),
            Attribute::Sign(is_sign),
            Attribute::Decrypt(!is_sign),
            Attribute::Unwrap(false),
            Attribute::Derive(false),
            // Recoverable, and under a key that the security officer has marked alone.
            Attribute::Extractable(true),
            Attribute::WrapWithTrusted(true),
        ];
        let of_public = [
            Attribute::Token(true),
            Attribute::Modifiable(false),
            Attribute::Copyable(false),
            Attribute::Verify(is_sign),
            Attribute::Encrypt(!is_sign),
            Attribute::Wrap(false),
            Attribute::Derive(false),
        ];
        for (handle, expected) in [(private, &of_private[..]), (public, &of_public[..])] {
            let types: Vec<AttributeType> = expected.iter().map(Attribute::attribute_type).collect();
            let kept = raw.get_attributes(handle, &types).unwrap();
            for attribute in expected {
                assert!(kept.contains(attribute), "{kind:?}: {attribute:?} is not in {kept:?}");
            }
            assert!(raw.copy_object(handle, &[]).is_err(), "{kind:?}");
        }
        for secret in [AttributeType::Value, AttributeType::PrivateExponent, AttributeType::Prime1] {
            let shown = raw.get_attributes(private, &[secret]).unwrap_or_default();
            let is_empty = |one: &Attribute| match one {
                Attribute::Value(bytes) | Attribute::PrivateExponent(bytes) | Attribute::Prime1(bytes) => {
                    bytes.is_empty()
                }
                _ => false,
            };
            assert!(shown.iter().all(is_empty), "{kind:?}: {secret}");
        }
        let weaker = [
            Attribute::WrapWithTrusted(false),
            Attribute::Sensitive(false),
            Attribute::Decrypt(true),
            Attribute::Sign(true),
        ];
        for change in weaker {
            assert!(
                raw.update_attributes(private, std::slice::from_ref(&change)).is_err(),
                "{kind:?}: {change:?}"
            );
        }
        // No key that the user makes takes it out.
        let template = [
            Attribute::Token(false),
            Attribute::Wrap(true),
            Attribute::ValueLen(cryptoki::types::Ulong::new(32)),
        ];
        let own = raw.generate_key(&Mechanism::AesKeyGen, &template).unwrap();
        assert!(raw.wrap_key(&Mechanism::AesKeyWrapPad, own, private).is_err(), "{kind:?}");
    }
}

/// Made past our code: it works, and could get out.
pub fn a_pair_with_weaker_attributes_is_not_confirmed(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (_partition, mut session) = fixture.session();
    let kind = ObjectKind::KeyPair(PairAlgorithm::P256, PairUsage::Sign);
    let whole = [
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Modifiable(false),
        Attribute::Copyable(false),
        Attribute::Sign(true),
        Attribute::Decrypt(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
        Attribute::Extractable(true),
        Attribute::WrapWithTrusted(true),
    ];
    for (weaker, name) in [
        (Attribute::WrapWithTrusted(false), "CKA_WRAP_WITH_TRUSTED"),
        (Attribute::Sensitive(false), "CKA_SENSITIVE"),
        (Attribute::Derive(true), "CKA_DERIVE"),
        (Attribute::Decrypt(true), "CKA_DECRYPT"),
        (Attribute::Unwrap(true), "CKA_UNWRAP"),
        (Attribute::Modifiable(true), "CKA_MODIFIABLE"),
        (Attribute::Copyable(true), "CKA_COPYABLE"),
        (Attribute::Extractable(false), "CKA_EXTRACTABLE"),
    ] {
        let id = new_id();
        let public = [
            Attribute::Token(true),
            Attribute::Private(false),
            Attribute::Modifiable(false),
            Attribute::Copyable(false),
            Attribute::Verify(true),
            Attribute::Encrypt(false),
            Attribute::Wrap(false),
            Attribute::Derive(false),
            Attribute::EcParams(PairAlgorithm::P256.curve_der().unwrap()),
            Attribute::Id(id.0.to_vec()),
        ];
        let mut private: Vec<Attribute> =
            whole.iter().filter(|one| one.attribute_type() != weaker.attribute_type()).cloned().collect();
        private.extend([weaker, Attribute::Id(id.0.to_vec())]);
        let made = raw::session(&fixture).generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private);
        if made.is_err() && name == "CKA_DECRYPT" {
            // A token that makes no such key of this type.
            continue;
        }
        made.unwrap();
        let error = session.confirm(id, kind).unwrap_err();
        assert!(
            matches!(&error, HsmError::AttributeNotKept { attribute, .. } if attribute == name),
            "{name}: {error}"
        );
    }
}

/// Data encrypted to a public key that is not the private key's would be lost; and a signature by another key than the
/// one that is known is no signature.
pub fn a_public_half_that_is_anothers_is_noticed(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (_partition, mut session) = fixture.session();
    let raw = raw::session(&fixture);
    for kind in device.pairs() {
        let ObjectKind::KeyPair(pair, usage) = kind else { panic!("{kind:?}") };
        if !is_quick(&pair) {
            continue;
        }
        let (one, one_key) = create(session.as_mut(), kind);
        let (two, two_key) = create(session.as_mut(), kind);
        match usage {
            PairUsage::Sign => {
                let input = to_sign(SignatureAlgorithm::of(pair).next().unwrap(), &two_key, b"text");
                let error = session.sign_with(one, &two_key, &input).unwrap_err();
                assert!(matches!(error, HsmError::UnexpectedAnswer { .. }), "{kind:?}: {error}");
            }
            PairUsage::Decrypt => {
                let algorithm = EncryptionAlgorithm::of(pair).unwrap();
                let ciphertext = encrypt_to(&two_key, b"text").unwrap();
                let error = session.decrypt_with(one, &one_key, algorithm, &ciphertext).unwrap_err();
                assert!(matches!(error, HsmError::CiphertextInvalid), "{kind:?}: {error}");
            }
        }
        // The public halves are exchanged past our code.
        let public_of = |id: kms_core::id::HsmObjectId| {
            let class = Attribute::Class(RawClass::PUBLIC_KEY);
            raw.find_objects(&[Attribute::Id(id.0.to_vec()), class]).unwrap()[0]
        };
        let types = match pair.rsa_modulus_len() {
            Some(_) => vec![AttributeType::Modulus, AttributeType::PublicExponent],
            None => vec![AttributeType::EcParams, AttributeType::EcPoint],
        };
        let mut template = raw.get_attributes(public_of(two), &types).unwrap();
        template.extend(raw.get_attributes(public_of(two), &[AttributeType::KeyType]).unwrap());
        raw.destroy_object(public_of(one)).unwrap();
        template.extend([
            Attribute::Class(RawClass::PUBLIC_KEY),
            Attribute::Token(true),
            Attribute::Private(false),
            Attribute::Modifiable(false),
            Attribute::Copyable(false),
            Attribute::Verify(usage == PairUsage::Sign),
            Attribute::Encrypt(usage == PairUsage::Decrypt),
            Attribute::Wrap(false),
            Attribute::Derive(false),
            Attribute::Id(one.0.to_vec()),
        ]);
        raw.create_object(&template).unwrap();
        let error = session.confirm(one, kind).unwrap_err();
        let is_noticed = matches!(
            error.class(),
            // A token that is asked to decrypt what was encrypted to another key says so.
            ErrorClass::DeviceSick | ErrorClass::CallersFault
        );
        assert!(is_noticed, "{kind:?}: {error}");
        session.confirm(two, kind).unwrap();
    }
}

pub fn what_pairs_the_token_has_is_said_without_a_login(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let survey = fixture.module.survey(&fixture.token);
    let (partition, mut session) = fixture.session();
    for kind in ObjectKind::pairs() {
        let of_kind: Vec<_> = survey.iter().filter(|one| one.kind == kind).collect();
        let is_offered = device.pairs().contains(&kind);
        assert_eq!(partition.can(kind), is_offered, "{kind:?}");
        assert_eq!(!of_kind.is_empty(), is_offered, "{kind:?}");
        assert!(of_kind.iter().all(|one| one.presence == Presence::Present), "{of_kind:?}");
        let make_count = of_kind.iter().filter(|one| one.role == MechanismRole::Make).count();
        assert_eq!(make_count, usize::from(is_offered));
        if !is_offered {
            let id = new_id();
            let error = session.create(id, kind, "impossible").unwrap_err();
            assert_eq!(error.class(), ErrorClass::Unsupported, "{error}");
            assert!(!session.exists(id).unwrap());
        }
    }
}

pub fn a_destroyed_pair_is_gone_with_both_halves(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (_partition, mut session) = fixture.session();
    for kind in device.pairs() {
        let ObjectKind::KeyPair(pair, usage) = kind else { panic!("{kind:?}") };
        if !is_quick(&pair) {
            continue;
        }
        let (id, key) = create(session.as_mut(), kind);
        let error = session.create(id, kind, "again").unwrap_err();
        assert!(matches!(error, HsmError::AlreadyExists { .. }), "{error}");
        session.destroy(id).unwrap();
        let used = match usage {
            PairUsage::Sign => {
                let input = to_sign(SignatureAlgorithm::of(pair).next().unwrap(), &key, b"text");
                session.sign_with(id, &key, &input).map(drop)
            }
            PairUsage::Decrypt => {
                let ciphertext = encrypt_to(&key, b"text").unwrap();
                let algorithm = EncryptionAlgorithm::of(pair).unwrap();
                session.decrypt_with(id, &key, algorithm, &ciphertext).map(drop)
            }
        };
        assert!(matches!(used, Err(HsmError::NotFound { .. })), "{kind:?}");
        assert!(!session.exists(id).unwrap());
    }
    assert_eq!(session.objects().unwrap(), []);
}

/// The self-test runs before every opening and whenever the device is in doubt: it makes no RSA pair where it need not.
pub fn the_self_test_of_pairs_is_quick(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (_partition, mut session) = fixture.session();
    let begin = Instant::now();
    session.self_test().unwrap();
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
}

/// Raw RSA, or another mechanism: what it makes does not verify.
pub fn a_profile_with_another_padding_does_not_open(device: &dyn Device) {
    let refused = profiles::refusal(device, "pkcs1 = \"0x00000001\"", "pkcs1 = \"0x00000040\"");
    assert_eq!(refused.0, "0x00000040");
    assert!(["a signature that does not verify", "the token answered an error"].contains(&refused.1));
}

/// PSS that hashes once more.
pub fn a_profile_with_another_pss_does_not_open(device: &dyn Device) {
    let refused = profiles::refusal(device, "pss = \"0x0000000d\"", "pss = \"0x0000000e\"");
    assert_eq!(refused, ("0x0000000e".to_owned(), "the token answered an error"));
}
