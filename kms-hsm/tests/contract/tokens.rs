//! Tokens and their PINs.

use super::{Device, Fixture, LABEL, SO_PIN, USER_PIN, new_id, pin};
use kms_core::secret::SecretBytes;
use kms_core::suite::{AeadAlgorithm, Suite};
use kms_hsm::{
    HsmModule, HsmPartition, ModuleError, ObjectKind, Pin, PinPurpose, Profile, ProfileChoice, ProfileError,
};
use std::path::Path;

pub fn a_label_that_is_taken_is_refused_and_its_token_left_alone(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let id = new_id();
    let (partition, mut session) = fixture.session();
    session.create(id, ObjectKind::SealingKey(AeadAlgorithm::Aes256Gcm), "kept").unwrap();
    drop(session);
    drop(partition);

    let error = fixture.module.initialise_token(LABEL, &pin(SO_PIN)).unwrap_err();
    assert!(matches!(error, ModuleError::LabelTaken { label } if label == LABEL));
    assert_eq!(fixture.module.find_token(LABEL).unwrap().serial, fixture.token.serial);
    let (_partition, mut session) = fixture.session();
    assert!(session.exists(id).unwrap());
}

pub fn a_label_that_no_token_can_have_is_refused(device: &dyn Device) {
    let module = HsmModule::open(&device.module_path(), device.choice()).unwrap();
    for label in ["", " operations", "operations ", "opera\ntions", &"x".repeat(33)] {
        let error = module.initialise_token(label, &pin(SO_PIN)).unwrap_err();
        assert!(matches!(error, ModuleError::LabelInvalid { .. }), "{label:?}");
    }
    assert!(module.tokens().unwrap().iter().all(|token| !token.is_initialised));
}

pub fn a_token_that_is_not_there_is_named_with_those_that_are(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let error = fixture.module.find_token("core").unwrap_err();
    assert!(
        matches!(&error, ModuleError::NoToken { label, present } if label == "core" && present == &[LABEL]),
        "{error}"
    );
}

pub fn the_profile_is_found_by_what_the_library_says(device: &dyn Device) {
    let path = device.module_path();
    let module = HsmModule::open(&path, device.choice()).unwrap();
    assert_eq!(module.profile().name(), device.profile());
    assert!(HsmModule::open(&path, ProfileChoice::from_name(device.profile()).unwrap()).is_ok());

    let other = if device.profile() == "softhsm" { "hsm-sim" } else { "softhsm" };
    let other = ProfileChoice::Given(Box::new(Profile::by_name(other).unwrap()));
    assert!(matches!(HsmModule::open(&path, other), Err(ModuleError::OtherProfile { .. })));
    assert!(matches!(
        ProfileChoice::from_name("acme"),
        Err(ModuleError::Profile(ProfileError::UnknownName { .. }))
    ));
    let missing = HsmModule::open(Path::new("/nonexistent/libpkcs11.so"), ProfileChoice::Auto);
    assert!(matches!(missing, Err(ModuleError::Load { .. })));
}

pub fn a_token_with_another_serial_number_gets_no_pin(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let error = fixture.module.open_partition(LABEL, "0000", pin("a wrong one")).unwrap_err();
    assert!(
        matches!(&error, ModuleError::OtherToken { found, .. } if *found == fixture.token.serial),
        "{error}"
    );
    let (_partition, mut session) = fixture.session();
    assert!(!session.status().unwrap().user_pin_count_low, "no attempt was spent");
}

pub fn a_pin_of_a_length_that_the_token_does_not_take_is_not_sent(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let serial = &fixture.token.serial;
    let error = fixture.module.open_partition(LABEL, serial, pin("123")).unwrap_err();
    assert!(matches!(error, ModuleError::PinLength { len: 3, .. }), "{error}");
    for error in [
        fixture.module.set_so_pin(&fixture.token, &pin("123"), &pin(SO_PIN)),
        fixture.module.set_so_pin(&fixture.token, &pin(SO_PIN), &pin("123")),
        fixture.module.initialise_user_pin(&fixture.token, &pin(SO_PIN), &pin("123")),
        fixture.module.initialise_token("another", &pin("123")).map(|_| ()),
    ] {
        assert!(matches!(error, Err(ModuleError::PinLength { len: 3, .. })));
    }
    let (_partition, mut session) = fixture.session();
    assert!(!session.status().unwrap().user_pin_count_low, "no attempt was spent");
}

pub fn a_token_is_open_once_per_process(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let serial = &fixture.token.serial;
    let partition = fixture.open();
    let again = fixture.module.open_partition(LABEL, serial, pin(USER_PIN));
    assert!(matches!(again, Err(ModuleError::InUse { .. })));
    let administration = fixture.module.set_so_pin(&fixture.token, &pin(SO_PIN), &pin("another-so-pin"));
    assert!(matches!(administration, Err(ModuleError::InUse { .. })));
    partition.close();
    assert!(fixture.module.open_partition(LABEL, serial, pin(USER_PIN)).is_ok());
}

pub fn a_wrong_so_pin_is_refused_and_changes_nothing(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let refused =
        fixture.module.initialise_user_pin(&fixture.token, &pin("a-wrong-so-pin"), &pin("new-user-pin"));
    assert!(refused.unwrap_err().is_pin_refused());
    let refused = fixture.module.set_so_pin(&fixture.token, &pin("a-wrong-so-pin"), &pin("new-so-pin"));
    assert!(refused.unwrap_err().is_pin_refused());
    let refused = fixture.module.set_user_pin(&fixture.token, &pin("a-wrong-user-pin"), &pin("new-user-pin"));
    assert!(refused.unwrap_err().is_pin_refused());
    fixture.open();
}

pub fn pins_are_changed_by_their_owner_and_the_old_ones_are_dead(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (module, token) = (&fixture.module, &fixture.token);
    let id = new_id();
    let (partition, mut session) = fixture.session();
    session.create(id, ObjectKind::SealingKey(AeadAlgorithm::Aes256Gcm), "kept").unwrap();
    drop((session, partition));

    module.set_so_pin(token, &pin(SO_PIN), &pin("so-pin-of-epoch-2")).unwrap();
    assert!(module.set_so_pin(token, &pin(SO_PIN), &pin("so-pin-of-epoch-3")).unwrap_err().is_pin_refused());
    module.set_user_pin(token, &pin(USER_PIN), &pin("user-pin-of-epoch-2")).unwrap();
    assert!(module.open_partition(LABEL, &token.serial, pin(USER_PIN)).unwrap_err().is_pin_refused());
    module.initialise_user_pin(token, &pin("so-pin-of-epoch-2"), &pin("user-pin-of-epoch-3")).unwrap();
    let old = module.open_partition(LABEL, &token.serial, pin("user-pin-of-epoch-2"));
    assert!(old.unwrap_err().is_pin_refused());

    let partition = module.open_partition(LABEL, &token.serial, pin("user-pin-of-epoch-3")).unwrap();
    assert!(partition.open_session().unwrap().exists(id).unwrap(), "the keys have stayed");
}

pub fn a_derived_pin_opens_the_token_that_it_was_derived_for(device: &dyn Device) {
    let module = HsmModule::open(&device.module_path(), device.choice()).unwrap();
    let rules = module.profile().pin_rules();
    let secret = SecretBytes::from_slice(&[9; 32]).unwrap();
    let derive = |purpose, serial: &str, epoch| {
        Pin::derive(Suite::Intl, &secret, purpose, serial, epoch, rules).unwrap()
    };
    // The serial number is known after initialisation only, so the first SO PIN is another one.
    let token = module.initialise_token(LABEL, &pin("a first SO PIN")).unwrap();
    let so_pin = derive(PinPurpose::OperationsSo, &token.serial, 1);
    module.set_so_pin(&token, &pin("a first SO PIN"), &so_pin).unwrap();
    let user_pin = derive(PinPurpose::OperationsUser, &token.serial, 1);
    module.initialise_user_pin(&token, &so_pin, &user_pin).unwrap();

    let other_epoch = derive(PinPurpose::OperationsUser, &token.serial, 2);
    assert!(module.open_partition(LABEL, &token.serial, other_epoch).unwrap_err().is_pin_refused());
    let same = derive(PinPurpose::OperationsUser, &token.serial, 1);
    assert_eq!(same.len(), rules.length());
    module.open_partition(LABEL, &token.serial, same).unwrap();
}
