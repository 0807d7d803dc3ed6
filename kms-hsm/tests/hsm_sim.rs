//! The contract of the HSM layer, on hsm-sim; and what only a double of hardware can be made to do.

mod contract;
mod sim;

use contract::logins::{take_tokens_away, watchful_pool};
use contract::{
    Device, Fixture, LABEL, USER_PIN, eventually, in_own_process, new_id, pin, raw, soon, tokens_folder,
};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType};
use kms_core::mac::MacAlgorithm;
use kms_core::pair::{
    EncryptionAlgorithm, PairAlgorithm, PairUsage, SignatureAlgorithm, SignedInput, Sm2UserId, ToSign,
};
use kms_core::suite::AeadAlgorithm;
use kms_hsm::{
    ErrorClass, FailureReason, Health, HsmError, HsmModule, HsmPartition, HsmSession, ModuleError,
    ObjectKind, ProfileChoice, encrypt_to,
};
use sim::HsmSim;
use std::process::Command;
use std::time::{Duration, Instant};

const DEVICE: HsmSim = HsmSim { personality: "sansec", profile: "hsm-sim", algorithms: &AeadAlgorithm::ALL };

contract::cases!(DEVICE);

/// SoftHSM cannot show it: a process of its own does not find the objects of a token again whose folder was away.
#[test]
fn a_token_that_comes_back_is_served_again_by_itself() {
    in_own_process("a_token_that_comes_back_is_served_again_by_itself", &DEVICE, |device| {
        let fixture = Fixture::new(device);
        let pool = watchful_pool(&fixture, Duration::from_secs(600));
        let (id, algorithm) = (new_id(), AeadAlgorithm::Sm4Gcm);
        let create = move |session: &mut dyn HsmSession| {
            session.create(id, ObjectKind::SealingKey(algorithm), "sealing")?;
            session.seal(id, algorithm, b"", b"text")
        };
        let sealed = pool.call("create", soon(), create).expect("a key");
        for _ in 0..3 {
            let away = take_tokens_away();
            eventually("the absence", || matches!(pool.health(), Health::Away { .. }));
            let begin = Instant::now();
            let error = pool.call("status", soon(), |session| session.status()).expect_err("it is away");
            assert_eq!(error.class(), ErrorClass::TokenGone, "{error}");
            assert!(begin.elapsed() < Duration::from_secs(1), "refused at once");
            std::fs::rename(&away, tokens_folder()).expect("it comes back");
            eventually("the return", || pool.health() == Health::Healthy);
            let sealed = sealed.clone();
            let opened = pool.call("open", soon(), move |session| session.open(id, algorithm, b"", &sealed));
            assert_eq!(opened.expect("it is served again").expose(), b"text");
        }
    });
}

#[test]
fn a_profile_with_another_hash_does_not_open() {
    in_own_process("a_profile_with_another_hash_does_not_open", &DEVICE, |device| {
        // SHA-256 in place of SM3: the answer has the right length, and only its value tells.
        contract::profiles::refuses_another_hash(device, "mac = \"0x80009002\"", "mac = \"0x00000251\"");
    });
}

/// Set for the process that changes the PIN.
const OTHER_PROCESS: &str = "KMS_HSM_CONTRACT_OTHER_PROCESS";
const NEW_PIN: &str = "operations-user-0002";

/// What a ceremony does to a service that is running. SoftHSM cannot show it: a process of its own that has
/// loaded a token goes on accepting the old PIN.
#[test]
fn a_pin_that_another_process_changed_is_tried_once_when_the_login_is_lost() {
    let name = "a_pin_that_another_process_changed_is_tried_once_when_the_login_is_lost";
    if std::env::var_os(OTHER_PROCESS).is_some() {
        let module = HsmModule::open(&DEVICE.module_path(), ProfileChoice::Auto).expect("the library loads");
        let token = module.find_token(LABEL).expect("the first process made the token");
        module.set_user_pin(&token, &pin(USER_PIN), &pin(NEW_PIN)).expect("the old PIN is right");
        return;
    }
    in_own_process(name, &DEVICE, |device| {
        let fixture = Fixture::new(device);
        let (pool, _) = fixture.pool();
        let status = || pool.call("status", soon(), |session| session.status());
        status().expect("the PIN is right");

        let executable = std::env::current_exe().expect("the test knows where it is");
        let other = Command::new(executable).args(["--exact", name]).env(OTHER_PROCESS, "1").output();
        assert!(other.expect("the process starts").status.success());
        // The login itself goes on: the token asks for a PIN only at the next one.
        status().expect("the login holds");
        assert_eq!(pool.health(), Health::Healthy);

        raw::session(&fixture).logout().expect("the process is logged in");
        assert_eq!(status().expect_err("the PIN is old").class(), ErrorClass::PinIncorrect);
        assert_eq!(pool.health(), Health::Failed { reason: FailureReason::PinIncorrect });
        let _ = pool.stop();
        fixture
            .module
            .open_partition(LABEL, &fixture.token.serial, pin(NEW_PIN))
            .expect("the new PIN is right");
    });
}

/// Only a device that can be told when to lose a login shows it every time.
#[test]
fn a_login_that_was_lost_and_restored_during_a_search_does_not_hide_an_object() {
    let name = "a_login_that_was_lost_and_restored_during_a_search_does_not_hide_an_object";
    in_own_process(name, &DEVICE, |device| {
        let fixture = Fixture::new(device);
        let (partition, mut session) = fixture.session();
        let (id, kind) = (new_id(), ObjectKind::SealingKey(AeadAlgorithm::Sm4Gcm));
        session.create(id, kind, "sealing").expect("a key");
        // The search begins without a login, and ends when the other session has logged in again.
        let lost_in_a_search = "format = 1\n\
            [[rule]]\nfunctions = [\"C_FindObjectsInit\"]\ncalls = [1]\naction = \"lose_login\"\n\
            [[rule]]\nfunctions = [\"C_FindObjectsFinal\"]\ncalls = [1]\naction = \"delay\"\ndelay_us = 400000\n\
            moment = \"after\"\n";
        let control = tokens_folder().join("control.toml");
        for round in 0..2 {
            std::fs::write(&control, format!("{lost_in_a_search}# {round}\n"))
                .expect("the faults are scripted");
            std::thread::sleep(Duration::from_millis(20));
            let is_there = std::thread::scope(|scope| {
                let searching = scope.spawn(|| match round {
                    0 => session.exists(id).expect("the search is repeated"),
                    _ => {
                        session.objects().expect("the list is repeated").iter().any(|one| one.id == Some(id))
                    }
                });
                std::thread::sleep(Duration::from_millis(100));
                partition.open_session().expect("the login is restored");
                assert!(!searching.is_finished(), "the login is restored during the search");
                searching.join().expect("the search ends")
            });
            assert!(is_there, "in round {round}");
            std::fs::remove_file(&control).expect("no more faults");
        }
    });
}

/// What the service hands out and keeps is right, or refused: never a ciphertext that nobody opens again.
#[test]
fn an_answer_with_one_wrong_bit_is_noticed() {
    in_own_process("an_answer_with_one_wrong_bit_is_noticed", &DEVICE, |device| {
        let fixture = Fixture::new(device);
        let (partition, mut session) = fixture.session();
        let new_session = || partition.open_session().expect("a session");
        let (key, mac_key, algorithm) = (new_id(), new_id(), AeadAlgorithm::Sm4Gcm);
        session.create(key, ObjectKind::SealingKey(algorithm), "sealing").expect("a key");
        session.create(mac_key, ObjectKind::MacKey(MacAlgorithm::HmacSm3), "MAC").expect("a key");
        let sealed = session.seal(key, algorithm, b"aad", b"text").expect("a ciphertext");
        let control = tokens_folder().join("control.toml");
        let mut wrong_answer_to =
            |function: &str, bit: u32, call: &mut dyn FnMut(&mut dyn HsmSession) -> _| {
                let rule = format!(
                    "format = 1\n[[rule]]\nfunctions = [\"{function}\"]\ncalls = [1]\naction = \"corrupt\"\nbit = {bit}\n"
                );
                std::fs::write(&control, rule).expect("the fault is scripted");
                std::thread::sleep(Duration::from_millis(20));
                let outcome: Result<(), HsmError> = call(session.as_mut());
                let error = outcome.expect_err("the wrong bit is noticed");
                assert!(matches!(error, HsmError::UnexpectedAnswer { .. }), "{function}, bit {bit}: {error}");
                assert_eq!(error.class(), ErrorClass::DeviceSick);
                std::fs::remove_file(&control).expect("no more faults");
                std::thread::sleep(Duration::from_millis(20));
            };
        // In text, check and tag; then in text and check.
        for bit in (0..8 * (4 + 8 + 16)).step_by(7) {
            wrong_answer_to("C_Encrypt", bit, &mut |session| {
                session.seal(key, algorithm, b"aad", b"text").map(drop)
            });
        }
        for bit in (0..8 * (4 + 8)).step_by(7) {
            wrong_answer_to("C_Decrypt", bit, &mut |session| {
                session.open(key, algorithm, b"aad", &sealed).map(drop)
            });
        }
        wrong_answer_to("C_Decrypt", 0, &mut |session| {
            session.seal(key, algorithm, b"aad", b"text").map(drop)
        });
        wrong_answer_to("C_Sign", 9, &mut |session| {
            session.mac(mac_key, MacAlgorithm::HmacSm3, b"message").map(drop)
        });
        for pair in [PairAlgorithm::Sm2, PairAlgorithm::P521, PairAlgorithm::Ed25519, PairAlgorithm::Rsa2048]
        {
            let (id, kind) = (new_id(), ObjectKind::KeyPair(pair, PairUsage::Sign));
            let created = new_session().create(id, kind, "signing").expect("a pair");
            let public = created.pair_public_key.expect("it is a pair");
            let algorithm = SignatureAlgorithm::of(pair).next().expect("it signs");
            let message = SignedInput::Message(b"message");
            let input = ToSign::new(algorithm, &public, &Sm2UserId::default(), message).expect("it fits");
            for bit in [0, 77, 500] {
                wrong_answer_to("C_Sign", bit, &mut |session| {
                    session.sign_with(id, &public, &input).map(drop)
                });
            }
        }
        for pair in [PairAlgorithm::Sm2, PairAlgorithm::Rsa2048] {
            let (id, kind) = (new_id(), ObjectKind::KeyPair(pair, PairUsage::Decrypt));
            let created = new_session().create(id, kind, "decrypting").expect("a pair");
            let public = created.pair_public_key.expect("it is a pair");
            let algorithm = EncryptionAlgorithm::of(pair).expect("it decrypts");
            let ciphertext = encrypt_to(&public, b"text").expect("short enough");
            for bit in [0, 31] {
                wrong_answer_to("C_Decrypt", bit, &mut |session| {
                    session.decrypt_with(id, &public, algorithm, &ciphertext).map(drop)
                });
            }
        }
        let opened = session.open(key, algorithm, b"aad", &sealed).expect("nothing was wrong with it");
        assert_eq!(opened.expose(), b"text");
    });
}

/// Two nodes finish the creation that a third has left behind: whoever comes second takes its own object away again.
#[test]
fn an_object_that_somebody_else_made_meanwhile_stays_and_ours_goes() {
    in_own_process("an_object_that_somebody_else_made_meanwhile_stays_and_ours_goes", &DEVICE, |device| {
        let fixture = Fixture::new(device);
        let (_partition, mut session) = fixture.session();
        let (id, kind) = (new_id(), ObjectKind::SealingKey(AeadAlgorithm::Aes256Gcm));
        let slow = "format = 1\n[[rule]]\nfunctions = [\"C_GenerateKey\"]\ncalls = [1]\naction = \"delay\"\ndelay_us = 400000\n";
        std::fs::write(tokens_folder().join("control.toml"), slow).expect("the fault is scripted");
        std::thread::sleep(Duration::from_millis(20));
        let other = raw::session(&fixture);
        let named = [Attribute::Token(true), Attribute::Id(id.0.to_vec())];
        std::thread::scope(|scope| {
            let creating = scope.spawn(|| session.create(id, kind, "ours"));
            std::thread::sleep(Duration::from_millis(100));
            let mut template = named.to_vec();
            template.extend([Attribute::Label(b"theirs".to_vec()), Attribute::ValueLen(32.into())]);
            other.generate_key(&Mechanism::AesKeyGen, &template).expect("the other node is faster");
            assert!(!creating.is_finished(), "ours is still being made");
            let refused = creating.join().expect("it ends").expect_err("there is one already");
            assert!(matches!(refused, HsmError::AlreadyExists { .. }), "{refused}");
        });
        let found = other.find_objects(&named).expect("a list");
        let [left] = found.as_slice() else { panic!("{} objects", found.len()) };
        let label = other.get_attributes(*left, &[AttributeType::Label]).expect("its label");
        assert_eq!(label, [Attribute::Label(b"theirs".to_vec())]);
    });
}

/// Scripts the faults of every call from now on.
fn script(rules: &str) {
    std::fs::write(tokens_folder().join("control.toml"), format!("format = 1\n{rules}"))
        .expect("a control file");
    std::thread::sleep(Duration::from_millis(20));
}

#[test]
fn a_token_that_is_full_passes_its_self_test() {
    in_own_process("a_token_that_is_full_passes_its_self_test", &DEVICE, |device| {
        let fixture = Fixture::new(device);
        let (_partition, mut session) = fixture.session();
        for function in ["C_GenerateKey", "C_GenerateKeyPair", "C_CreateObject"] {
            script(&format!(
                "[[rule]]\nfunctions = [\"{function}\"]\naction = \"fail\"\nerror = \"CKR_DEVICE_MEMORY\"\n"
            ));
            session.self_test().expect("what is full is not sick");
        }
        std::fs::remove_file(tokens_folder().join("control.toml")).expect("no more faults");
        assert!(
            raw::session(&fixture).find_objects(&[]).expect("a list").is_empty(),
            "nothing is left behind"
        );
    });
}

/// People have come together to open a partition: an error that passes does not send them away. A wrong answer does.
#[test]
fn opening_tries_again_after_an_error_and_not_after_a_wrong_answer() {
    let name = "opening_tries_again_after_an_error_and_not_after_a_wrong_answer";
    in_own_process(name, &DEVICE, |device| {
        let fixture = Fixture::new(device);
        let open = || fixture.module.open_partition(LABEL, &fixture.token.serial, pin(USER_PIN));
        let self_test_error = |error| match error {
            ModuleError::Hsm(HsmError::SelfTest { source, .. }) => source,
            other => panic!("not the self-test: {other}"),
        };
        let fails = "functions = [\"C_Sign\"]\naction = \"fail\"\nerror = \"CKR_DEVICE_ERROR\"\n";
        script(&format!("[[rule]]\ncalls = [1, 2]\n{fails}"));
        let partition = open().expect("the third try succeeds");
        let mut session = partition.open_session().expect("a session");
        script(&format!("[[rule]]\ncalls = [1]\n{fails}"));
        let error = session.self_test().expect_err("an open partition's test has one try");
        assert!(matches!(error, HsmError::SelfTest { source: Some(_), .. }), "{error}");
        drop(session);
        partition.close();
        drop(partition);

        script(&format!("[[rule]]\n{fails}"));
        let source = self_test_error(open().expect_err("it never signs"));
        assert!(source.is_some(), "the token's own error is told");
        script("[[rule]]\nfunctions = [\"C_Sign\"]\ncalls = [1]\naction = \"corrupt\"\n");
        let source = self_test_error(open().expect_err("one wrong answer is enough"));
        assert!(source.is_none(), "{source:?}");
        std::fs::remove_file(tokens_folder().join("control.toml")).expect("no more faults");
        std::thread::sleep(Duration::from_millis(20));
        open().expect("nothing is wrong with it");
    });
}

#[test]
fn a_foreign_card_in_another_slot_does_not_hide_ours() {
    in_own_process("a_foreign_card_in_another_slot_does_not_hide_ours", &DEVICE, |device| {
        let fixture = Fixture::new(device);
        let refused = |slot: u64| {
            script(&format!(
                "[[rule]]\nfunctions = [\"C_GetTokenInfo\"]\nslot = {slot}\naction = \"fail\"\n\
                 error = \"CKR_TOKEN_NOT_RECOGNIZED\"\n"
            ));
        };
        // The folder of a token is named after its slot; the slot after it waits for the next token.
        let folders = std::fs::read_dir(tokens_folder())
            .expect("the tokens")
            .map(|entry| entry.expect("a name").path());
        let number =
            |path: std::path::PathBuf| path.to_string_lossy().rsplit('-').next()?.parse::<u64>().ok();
        let ours = folders.filter_map(number).max().expect("a token");
        refused(ours + 1);
        fixture.module.find_token(LABEL).expect("ours says what it is");
        // It may be ours that does not: then it is not said that there is none.
        refused(ours);
        let error = fixture.module.find_token(LABEL).expect_err("nobody says that it is ours");
        assert!(matches!(error, ModuleError::Hsm(HsmError::TokenGone { .. })), "{error}");
    });
}

#[test]
fn while_one_session_hangs_at_an_object_another_says_that_the_token_lives() {
    let name = "while_one_session_hangs_at_an_object_another_says_that_the_token_lives";
    in_own_process(name, &DEVICE, |device| {
        let fixture = Fixture::new(device);
        let (partition, mut session) = fixture.session();
        let mut keeper = partition.open_session().expect("a second session");
        script("[[rule]]\nfunctions = [\"C_GenerateKey\"]\naction = \"hang\"\n");
        let kind = ObjectKind::SealingKey(AeadAlgorithm::Sm4Gcm);
        std::thread::scope(|scope| {
            let hanging = scope.spawn(|| session.create(new_id(), kind, "slow"));
            std::thread::sleep(Duration::from_millis(100));
            let begin = Instant::now();
            keeper.status().expect("the token lives");
            let error = keeper.self_test().expect_err("it would have to wait");
            assert_eq!(error.class(), ErrorClass::Busy, "{error}");
            assert!(begin.elapsed() < Duration::from_secs(1) && !hanging.is_finished());
            std::fs::remove_file(tokens_folder().join("control.toml")).expect("no more faults");
            hanging.join().expect("it ends").expect("and was only slow");
        });
    });
}
