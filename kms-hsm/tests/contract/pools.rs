//! The worker pool on a real module. What it does when the HSM misbehaves is in `tests/pool/`.

use super::{Device, Fixture, LABEL, USER_PIN, eventually, new_id, pin, raw, soon};
use cryptoki::object::Attribute;
use cryptoki::session::SessionState;
use kms_core::suite::AeadAlgorithm;
use kms_hsm::{ErrorClass, Health, HsmError, ObjectKind, Sealed, Stopped};
use std::sync::mpsc;

const KIND: ObjectKind = ObjectKind::SealingKey(AeadAlgorithm::Aes256Gcm);

pub fn many_threads_share_a_pool(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (pool, _) = fixture.pool_of(4);
    let id = new_id();
    pool.call("create", soon(), move |session| session.create(id, KIND, "shared")).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8_u8 {
            let pool = &pool;
            scope.spawn(move || {
                for message in 0..50_u8 {
                    let text = [thread, message];
                    let opened = pool.call("round trip", soon(), move |session| {
                        let sealed = session.seal(id, AeadAlgorithm::Aes256Gcm, b"aad", &text)?;
                        session.open(id, AeadAlgorithm::Aes256Gcm, b"aad", &sealed)
                    });
                    assert_eq!(opened.unwrap().expose(), text);
                }
            });
        }
    });
    assert_eq!(pool.stop(), Stopped::Cleanly);
}

/// Each of SoftHSM's failures under such a load was another one: GeneralError, TemplateInconsistent, FunctionFailed,
/// and an object that its maker does not find.
pub fn many_threads_make_and_find_objects_at_the_same_time(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (pool, _) = fixture.pool_of(4);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let pool = &pool;
            scope.spawn(move || {
                for _ in 0..12 {
                    let id = new_id();
                    pool.call("create", soon(), move |session| {
                        assert!(!session.exists(id)?);
                        session.create(id, KIND, "one of many")?;
                        session.confirm(id, KIND)?;
                        session.seal(id, AeadAlgorithm::Aes256Gcm, b"aad", b"text")
                    })
                    .unwrap();
                }
            });
        }
    });
    assert_eq!(pool.stop(), Stopped::Cleanly);
}

pub fn stopping_finishes_waiting_jobs_logs_out_and_a_new_pool_opens(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (pool, _) = fixture.pool_of(1);
    let id = new_id();
    pool.call("create", soon(), move |session| session.create(id, KIND, "lasting")).unwrap();
    let sealed = pool
        .call("seal", soon(), move |session| session.seal(id, AeadAlgorithm::Aes256Gcm, b"", b"text"))
        .unwrap();

    let (sender, replies) = mpsc::channel();
    for _ in 0..20 {
        let (sender, sealed) = (sender.clone(), sealed.clone());
        let work = move |session: &mut dyn kms_hsm::HsmSession| {
            session.open(id, AeadAlgorithm::Aes256Gcm, b"", &sealed)
        };
        pool.submit("open", soon(), work, move |result| sender.send(result.is_ok()).unwrap());
    }
    assert_eq!(pool.stop(), Stopped::Cleanly);
    drop(sender);
    assert_eq!(replies.iter().collect::<Vec<_>>(), [true; 20]);
    let error = pool.call("status", soon(), |session| session.status()).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Stopped);
    assert!(!pool.take_random(&mut [0; 1]));

    // Nobody in this process can use the key now.
    let other = raw::session(&fixture);
    assert_eq!(other.get_session_info().unwrap().session_state(), SessionState::RwPublic);
    assert!(other.find_objects(&[Attribute::Id(id.0.to_vec())]).unwrap().is_empty());
    drop(other);

    let (pool, _) = fixture.pool_of(1);
    let opened = pool
        .call("open", soon(), move |session| session.open(id, AeadAlgorithm::Aes256Gcm, b"", &sealed))
        .unwrap();
    assert_eq!(opened.expose(), b"text");
}

pub fn random_bytes_come_from_the_stock_without_an_hsm_call(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (pool, recorder) = fixture.pool();
    // 64 KiB in pieces of 1 KiB, and the sign of life before them.
    eventually("the stock is full", || recorder.count("random") == 65);
    let (mut first, mut second) = ([0; 32], [0; 32]);
    assert!(pool.take_random(&mut first));
    pool.random(&mut second, soon()).unwrap();
    assert_ne!(first, second);
    assert_ne!(first, [0; 32]);
    assert_eq!(recorder.count("random"), 65);

    // More than the stock can hold comes from the HSM.
    let mut large = vec![0; 65 << 10];
    assert!(!pool.take_random(&mut large));
    pool.random(&mut large, soon()).unwrap();
    assert!(large.chunks(16).all(|chunk| chunk != [0; 16]));
    // Below one half it is filled again.
    assert!(pool.take_random(&mut vec![0; 40 << 10]));
    eventually("the stock is full again", || pool.take_random(&mut vec![0; 60 << 10]));
}

pub fn a_pool_that_is_dropped_logs_out(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (pool, _) = fixture.pool();
    drop(pool);
    let again = fixture.module.open_partition(LABEL, &fixture.token.serial, pin(USER_PIN));
    again.unwrap();
}

/// SoftHSM answers each of them as if the device were broken.
pub fn ten_thousand_forged_ciphertexts_open_no_circuit(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (pool, _) = fixture.pool();
    for algorithm in fixture.algorithms.iter().copied() {
        let id = new_id();
        let sealed = pool
            .call("prepare", soon(), move |session| {
                session.create(id, ObjectKind::SealingKey(algorithm), "sealing")?;
                session.seal(id, algorithm, b"aad", b"text")
            })
            .unwrap();
        for number in 0..10_000_u32 {
            let mut body = sealed.ciphertext_and_tag().to_vec();
            let place = number as usize % body.len();
            body[place] ^= 1 << (number % 8);
            let forged = Sealed::parse(sealed.nonce(), body).unwrap();
            let opened =
                pool.call("open", soon(), move |session| session.open(id, algorithm, b"aad", &forged));
            assert!(matches!(opened, Err(HsmError::CiphertextInvalid)));
        }
        assert_eq!(pool.health(), Health::Healthy);
        pool.call("open", soon(), move |session| session.open(id, algorithm, b"aad", &sealed)).unwrap();
    }
}
