//! Objects and what they do.

use super::{Device, Fixture, new_id, raw, soon};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, ObjectClass as RawClass};
use cryptoki::types::Ulong;
use kms_core::mac::MacAlgorithm;
use kms_core::suite::{AeadAlgorithm, Suite};
use kms_hsm::{
    AAD_LEN_MAX, ErrorClass, Health, HsmError, HsmPartition, INPUT_LEN_MAX, ListedObject, ObjectClass,
    ObjectKind, Sealed,
};
use signature::hazmat::PrehashVerifier;
use std::collections::HashSet;

const KIND: ObjectKind = ObjectKind::SealingKey(AeadAlgorithm::Aes256Gcm);

pub fn what_was_sealed_opens(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (_partition, mut session) = fixture.session();
    for algorithm in fixture.algorithms.iter().copied() {
        let id = new_id();
        session.create(id, ObjectKind::SealingKey(algorithm), "sealing").unwrap();
        for (aad, plaintext) in [(&b"aad"[..], &b"text"[..]), (b"", b"text"), (b"aad", b""), (b"", b"")] {
            let sealed = session.seal(id, algorithm, aad, plaintext).unwrap();
            assert_eq!(sealed.ciphertext_and_tag().len(), plaintext.len() + 8 + 16, "text, check and tag");
            assert_eq!(
                session.open(id, algorithm, aad, &sealed).unwrap().expose(),
                plaintext,
                "{algorithm:?}"
            );
        }
        let (aad, plaintext) = (vec![1; AAD_LEN_MAX], vec![2; 64 << 10]);
        let sealed = session.seal(id, algorithm, &aad, &plaintext).unwrap();
        assert_eq!(session.open(id, algorithm, &aad, &sealed).unwrap().expose(), plaintext);

        let nonces: HashSet<_> =
            (0..100).map(|_| *session.seal(id, algorithm, b"", b"").unwrap().nonce()).collect();
        assert_eq!(nonces.len(), 100);
    }
}

pub fn anything_else_is_an_invalid_ciphertext_and_the_pool_stays_healthy(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (pool, recorder) = fixture.pool();
    for algorithm in fixture.algorithms.iter().copied() {
        let (id, other) = (new_id(), new_id());
        let sealed = pool
            .call("prepare", soon(), move |session| {
                session.create(id, ObjectKind::SealingKey(algorithm), "sealing")?;
                session.create(other, ObjectKind::SealingKey(algorithm), "other")?;
                session.seal(id, algorithm, b"aad", b"text")
            })
            .unwrap();
        let (nonce, body) = (*sealed.nonce(), sealed.ciphertext_and_tag().to_vec());
        let mut wrong = vec![
            (other, b"aad".to_vec(), sealed.clone()),
            (id, b"AAD".to_vec(), sealed.clone()),
            (id, Vec::new(), sealed.clone()),
            (id, b"aad".to_vec(), Sealed::parse(&nonce, body[1..].to_vec()).unwrap()),
            (id, b"aad".to_vec(), Sealed::parse(&nonce, body[4..].to_vec()).unwrap()),
            (id, b"aad".to_vec(), Sealed::parse(&nonce, [body.as_slice(), b"x"].concat()).unwrap()),
        ];
        for index in 0..body.len() {
            let mut body = body.clone();
            body[index] ^= 1;
            wrong.push((id, b"aad".to_vec(), Sealed::parse(&nonce, body).unwrap()));
        }
        for index in 0..nonce.len() {
            let mut nonce = nonce;
            nonce[index] ^= 0x80;
            wrong.push((id, b"aad".to_vec(), Sealed::parse(&nonce, body.clone()).unwrap()));
        }
        for (key, aad, wrong) in wrong {
            let error = pool
                .call("open", soon(), move |session| session.open(key, algorithm, &aad, &wrong))
                .unwrap_err();
            assert!(matches!(error, HsmError::CiphertextInvalid), "{algorithm:?}: {error}");
        }
        let opened =
            pool.call("open", soon(), move |session| session.open(id, algorithm, b"aad", &sealed)).unwrap();
        assert_eq!(opened.expose(), b"text");
    }
    assert_eq!(pool.health(), Health::Healthy);
    for class in [ErrorClass::DeviceSick, ErrorClass::RetryOnNewSession, ErrorClass::TokenGone] {
        assert!(!recorder.has_outcome(class), "{class:?}");
    }
}

pub fn lengths_that_no_sealed_value_has_are_refused_without_the_hsm(_device: &dyn Device) {
    for nonce_len in [0, 11, 13, 16] {
        let parsed = Sealed::parse(&vec![0; nonce_len], vec![0; 24]);
        assert!(matches!(parsed, Err(HsmError::CiphertextInvalid)), "{nonce_len}");
    }
    for body_len in [0, 1, 4, 12, 15] {
        let parsed = Sealed::parse(&[0; 12], vec![0; body_len]);
        assert!(matches!(parsed, Err(HsmError::CiphertextInvalid)), "{body_len}");
    }
    let parsed = Sealed::parse(&[0; 12], vec![0; INPUT_LEN_MAX + 25]);
    assert!(matches!(parsed, Err(HsmError::TooLong { .. })));
}

pub fn inputs_that_are_too_long_are_refused_without_the_hsm(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (pool, recorder) = fixture.pool();
    let id = new_id();
    let sealed = pool
        .call("prepare", soon(), move |session| {
            session.create(id, KIND, "sealing")?;
            session.seal(id, AeadAlgorithm::Aes256Gcm, b"", b"")
        })
        .unwrap();
    let long = || vec![0; INPUT_LEN_MAX + 1];
    let long_aad = || vec![0; AAD_LEN_MAX + 1];
    let errors = [
        pool.call("seal", soon(), move |session| {
            session.seal(id, AeadAlgorithm::Aes256Gcm, b"", &long()).map(|_| ())
        }),
        pool.call("seal", soon(), move |session| {
            session.seal(id, AeadAlgorithm::Aes256Gcm, &long_aad(), b"").map(|_| ())
        }),
        pool.call("open", soon(), move |session| {
            session.open(id, AeadAlgorithm::Aes256Gcm, &long_aad(), &sealed).map(|_| ())
        }),
        pool.call("mac", soon(), move |session| {
            session.mac(id, MacAlgorithm::HmacSha256, &long()).map(|_| ())
        }),
    ];
    for error in errors {
        assert!(matches!(error, Err(HsmError::TooLong { .. })));
    }
    assert_eq!((recorder.count("seal"), recorder.count("open"), recorder.count("mac")), (1, 0, 0));
}

pub fn a_signature_verifies_outside_the_hsm(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (_partition, mut session) = fixture.session();
    for suite in fixture.suites.iter().copied() {
        let (id, kind) = (new_id(), ObjectKind::SigningKey(suite));
        let created = session.create(id, kind, "signing").unwrap();
        assert_eq!(session.confirm(id, kind).unwrap(), created);
        let public_key = created.public_key.unwrap();
        for digest in [[1; 32], [0x5a; 32]] {
            let signature = session.sign(id, suite, &digest).unwrap();
            assert!(verifies(suite, &public_key, &digest, &signature), "{suite:?}");
            assert!(!verifies(suite, &public_key, &[3; 32], &signature), "{suite:?}");
        }
    }
}

fn verifies(suite: Suite, public_key: &[u8], digest: &[u8], signature: &[u8]) -> bool {
    match suite {
        Suite::Intl => p256::ecdsa::VerifyingKey::from_sec1_bytes(public_key)
            .unwrap()
            .verify_prehash(digest, &p256::ecdsa::Signature::from_slice(signature).unwrap())
            .is_ok(),
        Suite::Sm => sm2::dsa::VerifyingKey::from_sec1_bytes("1234567812345678", public_key)
            .unwrap()
            .verify_prehash(digest, &sm2::dsa::Signature::from_slice(signature).unwrap())
            .is_ok(),
    }
}

pub fn a_mac_depends_on_key_and_message_and_on_nothing_else(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (partition, mut session) = fixture.session();
    for algorithm in fixture.macs.iter().copied() {
        let (one, two) = (new_id(), new_id());
        session.create(one, ObjectKind::MacKey(algorithm), "mac").unwrap();
        session.create(two, ObjectKind::MacKey(algorithm), "mac").unwrap();
        let mac = session.mac(one, algorithm, b"message").unwrap();
        assert_eq!(mac.expose().len(), algorithm.mac_len());
        let mut other_session = partition.open_session().unwrap();
        assert!(other_session.mac(one, algorithm, b"message").unwrap().is_equal(mac.expose()));
        assert!(!session.mac(one, algorithm, b"Message").unwrap().is_equal(mac.expose()));
        assert!(!session.mac(two, algorithm, b"message").unwrap().is_equal(mac.expose()));
        session.mac(one, algorithm, b"").unwrap();
        session.mac(one, algorithm, &vec![1; 64 << 10]).unwrap();
    }
}

pub fn an_id_is_never_used_twice(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (_partition, mut session) = fixture.session();
    for kind in fixture.kinds() {
        let id = new_id();
        session.create(id, kind, "first").unwrap();
        for again in fixture.kinds() {
            let error = session.create(id, again, "second").unwrap_err();
            assert!(matches!(error, HsmError::AlreadyExists { id: found } if found == id), "{error}");
        }
        session.confirm(id, kind).unwrap();
    }
}

pub fn a_destroyed_object_is_gone_with_both_halves(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (partition, mut session) = fixture.session();
    let mut other = partition.open_session().unwrap();
    let not_found = |error: HsmError| assert!(matches!(error, HsmError::NotFound { .. }), "{error}");
    for kind in fixture.kinds() {
        let id = new_id();
        session.create(id, kind, "short-lived").unwrap();
        // The other session knows the object by its handle.
        let use_it = |session: &mut dyn kms_hsm::HsmSession| match kind {
            ObjectKind::SealingKey(algorithm) => session.seal(id, algorithm, b"", b"").map(|_| ()),
            ObjectKind::SigningKey(suite) => session.sign(id, suite, &[1; 32]).map(|_| ()),
            ObjectKind::MacKey(algorithm) => session.mac(id, algorithm, b"").map(|_| ()),
            ObjectKind::KeyPair(..) => panic!("pairs have cases of their own"),
        };
        use_it(other.as_mut()).unwrap();
        session.destroy(id).unwrap();
        not_found(use_it(other.as_mut()).unwrap_err());
        not_found(use_it(session.as_mut()).unwrap_err());
        not_found(session.confirm(id, kind).unwrap_err());
        not_found(session.destroy(id).unwrap_err());
        assert!(!other.exists(id).unwrap());
    }
    assert_eq!(session.objects().unwrap(), []);
}

pub fn destroying_one_object_leaves_the_others(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (_partition, mut session) = fixture.session();
    let ids: Vec<_> = fixture.kinds().into_iter().map(|kind| (new_id(), kind)).collect();
    for (id, kind) in &ids {
        session.create(*id, *kind, "one of several").unwrap();
    }
    let (gone, kept) = ids.split_first().unwrap();
    session.destroy(gone.0).unwrap();
    for (id, kind) in kept {
        session.confirm(*id, *kind).unwrap();
    }
}

pub fn an_object_of_another_kind_is_not_found(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (_partition, mut session) = fixture.session();
    let id = new_id();
    session.create(id, ObjectKind::SigningKey(Suite::Intl), "signing").unwrap();
    assert!(matches!(session.seal(id, AeadAlgorithm::Aes256Gcm, b"", b""), Err(HsmError::NotFound { .. })));
    assert!(matches!(session.confirm(id, KIND), Err(HsmError::NotFound { .. })));

    // Of the same class it is found, and refused for what it may not do.
    let id = new_id();
    session.create(id, ObjectKind::MacKey(MacAlgorithm::HmacSha256), "mac").unwrap();
    assert!(session.seal(id, AeadAlgorithm::Aes256Gcm, b"", b"").is_err());
    assert!(matches!(session.confirm(id, KIND), Err(HsmError::AttributeNotKept { .. })));
    session.mac(id, MacAlgorithm::HmacSha256, b"still works").unwrap();
}

pub fn what_the_token_cannot_do_is_said_without_an_effect(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (partition, mut session) = fixture.session();
    let all = [Suite::Sm, Suite::Intl];
    let kinds = AeadAlgorithm::ALL.into_iter().map(ObjectKind::SealingKey);
    let kinds = kinds.chain(all.map(ObjectKind::SigningKey)).chain(MacAlgorithm::ALL.map(ObjectKind::MacKey));
    for kind in kinds {
        assert_eq!(partition.can(kind), fixture.kinds().contains(&kind), "{kind:?}");
        if !partition.can(kind) {
            let id = new_id();
            let error = session.create(id, kind, "impossible").unwrap_err();
            assert_eq!(error.class(), ErrorClass::Unsupported, "{error}");
            assert!(!session.exists(id).unwrap());
        }
    }
}

pub fn attributes_keep_every_key_inside(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (_partition, mut session) = fixture.session();
    let raw = raw::session(&fixture);
    for kind in fixture.kinds() {
        let id = new_id();
        session.create(id, kind, "inspected").unwrap();
        let is_pair = matches!(kind, ObjectKind::SigningKey(_));
        let class = if is_pair { RawClass::PRIVATE_KEY } else { RawClass::SECRET_KEY };
        let found = raw.find_objects(&[Attribute::Id(id.0.to_vec()), Attribute::Class(class)]).unwrap();
        let [key] = found.as_slice() else { panic!("{found:?}") };
        let mut expected = vec![
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::AlwaysSensitive(true),
            Attribute::Local(true),
            Attribute::Modifiable(false),
            Attribute::Copyable(false),
            Attribute::Unwrap(false),
            Attribute::Derive(false),
            Attribute::Extractable(!is_pair),
            Attribute::NeverExtractable(is_pair),
            Attribute::WrapWithTrusted(true),
            Attribute::Label(b"inspected".to_vec()),
        ];
        if !is_pair {
            expected.push(Attribute::Wrap(false));
        }
        let is_sealing = matches!(kind, ObjectKind::SealingKey(_));
        expected.push(Attribute::Decrypt(is_sealing));
        expected.push(Attribute::Sign(!is_sealing));
        let types: Vec<AttributeType> = expected.iter().map(Attribute::attribute_type).collect();
        let kept = raw.get_attributes(*key, &types).unwrap();
        for attribute in expected {
            assert!(kept.contains(&attribute), "{kind:?}: {attribute:?} is not in {kept:?}");
        }
        // A sensitive value reads as an error or as nothing, depending on the device.
        let value = raw.get_attributes(*key, &[AttributeType::Value]).unwrap_or_default();
        assert!(value.iter().all(|one| *one == Attribute::Value(Vec::new())), "{kind:?}");
        for change in [Attribute::Extractable(true), Attribute::Sensitive(false), Attribute::Wrap(true)] {
            assert!(
                raw.update_attributes(*key, std::slice::from_ref(&change)).is_err(),
                "{kind:?}: {change:?}"
            );
        }
        assert!(raw.copy_object(*key, &[]).is_err(), "{kind:?}");
    }
}

pub fn a_key_with_weaker_attributes_is_not_confirmed(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (_partition, mut session) = fixture.session();
    let id = new_id();
    let template = [
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(true),
        Attribute::Modifiable(false),
        Attribute::Copyable(false),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
        Attribute::Wrap(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
        Attribute::Sign(false),
        Attribute::Verify(false),
        Attribute::ValueLen(Ulong::new(32)),
        Attribute::Id(id.0.to_vec()),
    ];
    raw::session(&fixture).generate_key(&Mechanism::AesKeyGen, &template).unwrap();
    let error = session.confirm(id, KIND).unwrap_err();
    assert!(
        matches!(&error, HsmError::AttributeNotKept { attribute, .. } if attribute == "CKA_WRAP_WITH_TRUSTED"),
        "{error}"
    );
}

pub fn two_objects_with_one_id_are_ambiguous(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (_partition, mut session) = fixture.session();
    let id = new_id();
    session.create(id, KIND, "first").unwrap();
    let template = [
        Attribute::Token(true),
        Attribute::Encrypt(true),
        Attribute::ValueLen(Ulong::new(32)),
        Attribute::Id(id.0.to_vec()),
    ];
    raw::session(&fixture).generate_key(&Mechanism::AesKeyGen, &template).unwrap();
    let ambiguous =
        |error: HsmError| assert!(matches!(error, HsmError::Ambiguous { count: 2, .. }), "{error}");
    ambiguous(session.seal(id, AeadAlgorithm::Aes256Gcm, b"", b"").unwrap_err());
    ambiguous(session.confirm(id, KIND).unwrap_err());
    ambiguous(session.destroy(id).unwrap_err());
    assert!(session.exists(id).unwrap());
}

pub fn objects_of_others_are_listed(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (_partition, mut session) = fixture.session();
    assert_eq!(session.objects().unwrap(), []);
    let (sealing, signing) = (new_id(), new_id());
    session.create(sealing, KIND, "sealing").unwrap();
    session.create(signing, ObjectKind::SigningKey(Suite::Intl), "signing").unwrap();
    let template = [
        Attribute::Token(true),
        Attribute::ValueLen(Ulong::new(32)),
        Attribute::Id(b"short".to_vec()),
        Attribute::Label(b"not ours".to_vec()),
    ];
    raw::session(&fixture).generate_key(&Mechanism::AesKeyGen, &template).unwrap();
    let listed = session.objects().unwrap();
    let expected = [
        (Some(sealing), "sealing", ObjectClass::SecretKey),
        (Some(signing), "signing", ObjectClass::PrivateKey),
        (Some(signing), "signing", ObjectClass::PublicKey),
        (None, "not ours", ObjectClass::SecretKey),
    ];
    assert_eq!(listed.len(), expected.len());
    for (id, label, class) in expected {
        assert!(listed.contains(&ListedObject { id, label: label.to_owned(), class }), "{label}: {listed:?}");
    }
}

pub fn random_bytes_differ(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (_partition, mut session) = fixture.session();
    let mut seen = HashSet::new();
    for len in [16, 32, 1024, 1025, 5000] {
        let mut out = vec![0; len];
        session.random(&mut out).unwrap();
        assert!(seen.insert(out[..16].to_vec()));
        assert!(seen.insert(out[len - 16..].to_vec()) || len == 16);
    }
    session.random(&mut []).unwrap();
    session.random(&mut [0; 1]).unwrap();
}
