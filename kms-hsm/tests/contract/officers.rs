//! The security officer, and other processes: whoever has a say about the token beside the user.

use super::{Device, Fixture, LABEL, SO_PIN, USER_PIN, in_another_process, new_id, pin, raw, role};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass};
use cryptoki::session::{SessionState, UserType};
use cryptoki::types::{AuthPin, Ulong};
use kms_core::suite::AeadAlgorithm;
use kms_hsm::{HsmModule, HsmPartition, ObjectKind};

const KIND: ObjectKind = ObjectKind::SealingKey(AeadAlgorithm::Aes256Gcm);
const NEW_PIN: &str = "user-pin-of-epoch-2";

fn so_pin() -> AuthPin {
    AuthPin::from(SO_PIN)
}

pub fn the_security_officer_does_not_get_in_beside_open_sessions(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (_partition, mut session) = fixture.session();
    let id = new_id();
    session.create(id, KIND, "sealing").unwrap();
    let refused = raw::session(&fixture).login(UserType::So, Some(&so_pin()));
    assert!(matches!(refused, Err(Error::Pkcs11(RvError::UserAnotherAlreadyLoggedIn, _))), "{refused:?}");
    // The service does not notice.
    session.seal(id, AeadAlgorithm::Aes256Gcm, b"", b"text").unwrap();
    assert!(session.exists(id).unwrap());
}

pub fn a_login_of_the_security_officer_does_not_keep_the_user_out(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let officer = raw::session(&fixture);
    let state = || officer.get_session_info().unwrap().session_state();
    officer.login(UserType::So, Some(&so_pin())).unwrap();
    assert_eq!(state(), SessionState::RwSecurityOfficer);
    let (_partition, mut session) = fixture.session();
    assert_eq!(state(), SessionState::RwUser);
    let id = new_id();
    session.create(id, KIND, "sealing").unwrap();

    // Nor does one that came in after the login was lost.
    officer.logout().unwrap();
    officer.login(UserType::So, Some(&so_pin())).unwrap();
    session.seal(id, AeadAlgorithm::Aes256Gcm, b"", b"text").unwrap();
    assert_eq!(state(), SessionState::RwUser);
}

/// The wrapping key of a backup: an object of the session alone, made by the security officer, used by the user.
pub fn a_trusted_wrapping_key_can_neither_be_changed_nor_copied_by_the_user(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let template = |is_trusted| {
        vec![
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::AES),
            Attribute::Token(false),
            Attribute::Private(false),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Modifiable(false),
            Attribute::Copyable(false),
            Attribute::Wrap(true),
            Attribute::Unwrap(false),
            Attribute::Encrypt(false),
            Attribute::Decrypt(false),
            Attribute::Trusted(is_trusted),
            Attribute::ValueLen(Ulong::new(32)),
        ]
    };
    let hands = raw::session(&fixture);
    hands.login(UserType::So, Some(&so_pin())).unwrap();
    let trusted = hands.generate_key(&Mechanism::AesKeyGen, &template(true)).unwrap();
    hands.logout().unwrap();

    let (_partition, mut session) = fixture.session();
    let kept = hands.get_attributes(trusted, &[AttributeType::Trusted]).unwrap();
    assert_eq!(kept, [Attribute::Trusted(true)]);
    for change in [Attribute::Decrypt(true), Attribute::Unwrap(true), Attribute::Label(b"mine".to_vec())] {
        assert!(hands.update_attributes(trusted, std::slice::from_ref(&change)).is_err(), "{change:?}");
    }
    assert!(hands.copy_object(trusted, &[Attribute::Decrypt(true)]).is_err());
    assert!(hands.copy_object(trusted, &[Attribute::Token(true)]).is_err());
    assert!(hands.generate_key(&Mechanism::AesKeyGen, &template(true)).is_err(), "the user trusts no key");

    // What may leave does so under the trusted key and no other, where the module wraps at all.
    let (client, slot) = raw::client(&fixture);
    let wraps = client.get_mechanism_info(slot, MechanismType::AES_KEY_WRAP).is_ok_and(|one| one.wrap());
    if wraps {
        let id = new_id();
        session.create(id, KIND, "master").unwrap();
        let master = hands.find_objects(&[Attribute::Id(id.0.to_vec())]).unwrap()[0];
        let untrusted = hands.generate_key(&Mechanism::AesKeyGen, &template(false)).unwrap();
        assert!(hands.wrap_key(&Mechanism::AesKeyWrap, untrusted, master).is_err());
        assert_eq!(hands.wrap_key(&Mechanism::AesKeyWrap, trusted, master).unwrap().len(), 40);
    }
}

/// What a reshare ceremony does to a service that is running. Whether a lost login is found again with the old PIN
/// differs: a SoftHSM process goes on accepting it, hardware does not (tests/hsm_sim.rs).
pub fn a_pin_that_another_process_changed_binds_the_next_process(device: &dyn Device) {
    let open = |text: &str| {
        let module = HsmModule::open(&device.module_path(), device.choice()).unwrap();
        let token = module.find_token(LABEL).unwrap();
        (module.open_partition(LABEL, &token.serial, pin(text)), module, token)
    };
    match role().as_deref() {
        None => {
            let fixture = Fixture::new(device);
            let (_partition, mut session) = fixture.session();
            let id = new_id();
            session.create(id, KIND, "lasting").unwrap();
            in_another_process("changes the PIN");
            // The token asks for a PIN only at the next login.
            session.seal(id, AeadAlgorithm::Aes256Gcm, b"", b"text").unwrap();
            session.status().unwrap();
            in_another_process("has the old PIN");
            in_another_process("has the new PIN");
            session.seal(id, AeadAlgorithm::Aes256Gcm, b"", b"text").unwrap();
        }
        Some("changes the PIN") => {
            let module = HsmModule::open(&device.module_path(), device.choice()).unwrap();
            let token = module.find_token(LABEL).unwrap();
            module.set_user_pin(&token, &pin(USER_PIN), &pin(NEW_PIN)).unwrap();
        }
        Some("has the old PIN") => assert!(open(USER_PIN).0.unwrap_err().is_pin_refused()),
        Some(_) => {
            let (partition, _, _) = open(NEW_PIN);
            assert_eq!(partition.unwrap().open_session().unwrap().objects().unwrap().len(), 1);
        }
    }
}
