//! Profiles against the device: what a profile says is tested before anybody relies on it.

use super::{Device, Fixture, LABEL, USER_PIN, new_id, pin, raw};
use cryptoki::session::SessionState;
use kms_core::suite::AeadAlgorithm;
use kms_hsm::{
    HsmError, HsmPartition, MechanismRole, ModuleError, ObjectKind, Presence, Profile, ProfileChoice,
};
use std::path::PathBuf;

fn built_in(device: &dyn Device) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/profiles");
    folder.join(device.profile()).with_extension("toml")
}

/// The device's own profile with a change.
fn changed(device: &dyn Device, from: &str, to: &str) -> ProfileChoice {
    let text = std::fs::read_to_string(built_in(device)).unwrap();
    let changed = text.replacen(from, to, 1).replacen("name = ", "name = \"changed\"\n#", 1);
    assert!(changed.contains(to), "{from} is in the profile");
    ProfileChoice::Given(Box::new(Profile::parse(&changed).unwrap()))
}

/// Opens the token with a changed profile, and gives the mechanism and the fault that the refusal names.
pub fn refusal(device: &dyn Device, from: &str, to: &str) -> (String, &'static str) {
    let fixture = Fixture::with_profile(device, changed(device, from, to));
    let error = fixture.module.open_partition(LABEL, &fixture.token.serial, pin(USER_PIN)).unwrap_err();
    let text = error.to_string();
    let ModuleError::Hsm(HsmError::SelfTest { profile, mechanism, what, .. }) = error else {
        panic!("{text}")
    };
    assert_eq!(profile, "changed");
    assert!(text.contains(&mechanism) && text.contains("\"changed\""), "{text}");
    // Nobody is left logged in, and the token can be opened again.
    let other = raw::session(&fixture);
    assert_eq!(other.get_session_info().unwrap().session_state(), SessionState::RwPublic);
    let again = fixture.module.open_partition(LABEL, &fixture.token.serial, pin(USER_PIN));
    assert!(matches!(again, Err(ModuleError::Hsm(HsmError::SelfTest { .. }))));
    (mechanism, what)
}

pub fn the_self_test_passes_and_leaves_nothing_behind(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (_partition, mut session) = fixture.session();
    for _ in 0..3 {
        session.self_test().unwrap();
    }
    assert_eq!(session.objects().unwrap(), []);
    assert!(raw::session(&fixture).find_objects(&[]).unwrap().is_empty(), "no object of a session either");
}

/// ECDSA, which every module has, takes no MAC key.
pub fn a_profile_with_another_mac_does_not_open_and_names_the_mechanism(device: &dyn Device) {
    let refused = refusal(device, "mac = \"0x00000251\"", "mac = \"0x00001041\"");
    assert_eq!(refused, ("0x00001041".to_owned(), "the token answered an error"));
}

pub fn a_profile_with_another_form_of_signatures_does_not_open(device: &dyn Device) {
    let refused = refusal(device, "signature = \"raw\"", "signature = \"der\"");
    assert_eq!(refused, ("0x00001041".to_owned(), "a signature of another form"));
}

pub fn a_profile_that_is_wrong_about_the_maker_of_nonces_does_not_open(device: &dyn Device) {
    let from = device.gcm_iv();
    let (to, what) = match from {
        "caller" => ("returned", "a ciphertext of another form"),
        "appended" => ("caller", "the token answered an error"),
        _ => ("caller", "a ciphertext of another form"),
    };
    let [from, to] = [from, to].map(|who| format!("gcm_iv = \"{who}\""));
    assert_eq!(refusal(device, &from, &to), ("0x00001087".to_owned(), what));
}

/// `CKM_GENERIC_SECRET_KEY_GEN` makes no AES keys.
pub fn a_profile_with_another_generator_does_not_open(device: &dyn Device) {
    let refused = refusal(device, "generate = \"0x00001080\"", "generate = \"0x00000350\"");
    assert_eq!(refused, ("0x00000350".to_owned(), "the token answered an error"));
}

/// A mechanism that works and is another one: only its answers tell.
pub fn refuses_another_hash(device: &dyn Device, from: &str, to: &str) {
    let (mechanism, what) = refusal(device, from, to);
    assert!(to.contains(&mechanism), "{mechanism}");
    assert_eq!(what, "a MAC that is not the one of this algorithm");
}

pub fn what_a_token_offers_is_asked_without_a_login(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let survey = fixture.module.survey(&fixture.token);
    for kind in ObjectKind::all().filter(|kind| !matches!(kind, ObjectKind::KeyPair(..))) {
        let of_kind: Vec<_> = survey.iter().filter(|one| one.kind == kind).collect();
        let is_offered = fixture.kinds().contains(&kind);
        assert_eq!(of_kind.len(), if is_offered { 2 } else { 0 }, "{kind:?}");
        assert!(of_kind.iter().all(|one| one.presence == Presence::Present), "{of_kind:?}");
    }
    let gcm = survey.iter().find(|one| one.code == 0x1087).unwrap();
    assert_eq!((gcm.name.as_deref(), gcm.role), (Some("CKM_AES_GCM"), MechanismRole::Use));
    assert_eq!(raw::session(&fixture).get_session_info().unwrap().session_state(), SessionState::RwPublic);
    assert!(!fixture.module.library().unwrap().manufacturer.is_empty());
}

pub fn a_mechanism_that_the_token_lacks_is_said_to_be_missing(device: &dyn Device) {
    let fixture =
        Fixture::with_profile(device, changed(device, "seal = \"0x00001087\"", "seal = \"0x8000abcd\""));
    let survey = fixture.module.survey(&fixture.token);
    let missing: Vec<_> = survey.iter().filter(|one| one.presence != Presence::Present).collect();
    let [missing] = missing.as_slice() else { panic!("{missing:?}") };
    assert_eq!((missing.code, &missing.name, &missing.presence), (0x8000_abcd, &None, &Presence::Missing));
    // The token opens, and does not offer that kind.
    assert!(!fixture.open().can(missing.kind));
}

pub fn a_profile_from_a_file_opens_the_token(device: &dyn Device) {
    let path = built_in(device);
    let fixture = Fixture::with_profile(device, ProfileChoice::from_name(path.to_str().unwrap()).unwrap());
    assert_eq!(fixture.module.profile().name(), device.profile());
    fixture.open();
}

pub fn the_generic_profile_opens_a_module_that_keeps_to_the_standard(device: &dyn Device) {
    let fixture = Fixture::with_profile(device, ProfileChoice::from_name("generic").unwrap());
    if device.gcm_iv() != "caller" {
        // Another habit: only a profile of its own can say so, and this one says why it does not fit.
        let refused = fixture.module.open_partition(LABEL, &fixture.token.serial, pin(USER_PIN));
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("0x00001087") && text.contains("generic"), "{text}");
        return;
    }
    let (partition, mut session) = fixture.session();
    assert!(!partition.can(ObjectKind::SealingKey(AeadAlgorithm::Sm4Gcm)));
    let (id, kind) = (new_id(), ObjectKind::SealingKey(AeadAlgorithm::Aes256Gcm));
    // Without trusted wrapping the key is made so that it never leaves.
    session.create(id, kind, "generic").unwrap();
    let sealed = session.seal(id, AeadAlgorithm::Aes256Gcm, b"aad", b"text").unwrap();
    assert_eq!(session.open(id, AeadAlgorithm::Aes256Gcm, b"aad", &sealed).unwrap().expose(), b"text");
}
