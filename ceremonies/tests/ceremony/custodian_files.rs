//! `enroll`, `share accept`, `share verify`: what a custodian does alone.

use crate::scene::{CUSTODIANS, Scene, names};
use kms_core::suite::Suite;
use std::fs;
use std::os::unix::fs::PermissionsExt;

#[test]
fn enroll_refuses_a_short_passphrase_and_leaves_nothing() {
    let scene = Scene::new(Suite::Intl);
    scene.write("short", "12345678\nthis second line is long enough\n");
    scene.run("enroll --name alice --suite intl --out here --passphrase-file short").refuses(&[
        "a passphrase for the identity is refused",
        "8 characters",
        "at least 9",
    ]);
    assert!(names(&scene.path("here")).is_empty());
}

#[test]
fn enroll_never_overwrites_and_asks_nothing_before_it_says_so() {
    let scene = Scene::new(Suite::Sm);
    scene.enroll("alice");
    let before = (scene.read("enrolments/alice.identity"), scene.read("enrolments/alice.enrolment"));
    scene
        .run("enroll --name alice --suite sm --out enrolments --passphrase-file is-never-read")
        .refuses(&["alice.identity is there already and is not overwritten", "--out"]);
    fs::remove_file(scene.path("enrolments/alice.identity")).expect("removes");
    scene
        .run("enroll --name alice --suite sm --out enrolments --passphrase-file is-never-read")
        .refuses(&["alice.enrolment is there already"]);
    assert_eq!(names(&scene.path("enrolments")), ["alice.enrolment"], "no half of a new identity");
    assert_eq!(scene.read("enrolments/alice.enrolment"), before.1);
    assert!(before.0.starts_with("-----BEGIN KMS CUSTODIAN IDENTITY-----"));
}

#[test]
fn an_identity_is_for_its_owner_only() {
    let scene = Scene::new(Suite::Intl);
    scene.enroll("alice");
    let mode = |name: &str| fs::metadata(scene.path(name)).expect("is there").permissions().mode() & 0o777;
    assert_eq!(mode("enrolments/alice.identity"), 0o600);
    assert_eq!(mode("enrolments"), 0o700);
}

#[test]
fn without_a_terminal_the_option_that_answers_is_named() {
    let scene = Scene::new(Suite::Intl);
    scene.run("enroll --name alice --suite intl --out here").refuses(&[
        "no terminal",
        "a passphrase for the identity",
        "--passphrase-file",
    ]);
    let wrong = scene.run("enroll --name Alice --suite intl --out here --passphrase-file x");
    wrong.refuses(&["--name \"Alice\"", "lower-case letters"]);
    assert_eq!(scene.run("enroll --name alice --suite both --out here").code, 2);
}

#[test]
fn a_share_is_accepted_once_and_verifies() {
    let scene = Scene::accepted(Suite::Intl);
    let mut expected: Vec<String> = CUSTODIANS
        .iter()
        .flat_map(|name| [format!("{name}.acknowledgement"), format!("{name}.share")])
        .collect();
    expected.sort();
    assert_eq!(names(&scene.path("shares")), expected);
    let mode = fs::metadata(scene.path("shares/bob.share")).expect("is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    scene.accept("bob").refuses(&["bob.share is there already"]);

    let verify = |share: &str, identity: &str, passphrase: &str| {
        scene.run(&format!(
            "share verify --share shares/{share}.share --identity enrolments/{identity}.identity \
             --bundle made/bundle.kms --share-passphrase-file {passphrase}"
        ))
    };
    let fine = verify("bob", "bob", "bob.share-passphrase").succeeds();
    assert!(fine.stdout.contains("both shares of bob"), "{fine:?}");
    assert!(fine.stdout.contains(&scene.bundle().fingerprint.to_hex()));
    verify("bob", "bob", "bob.passphrase").refuses(&["the passphrase is wrong or the file was changed"]);
    verify("bob", "erin", "bob.share-passphrase").refuses(&["no custodian bob with this key"]);
}

#[test]
fn an_edited_foreign_or_unread_delivery_is_refused_and_nothing_is_written() {
    let scene = Scene::initialised(Suite::Sm);
    scene.write("long", "a passphrase that is long enough");
    let accept = |delivery: &str, identity: &str, rest: &str| {
        scene.run(&format!(
            "share accept --delivery {delivery} --identity enrolments/{identity}.identity --bundle \
             made/bundle.kms --out shares --share-passphrase-file long {rest}"
        ))
    };
    let alice = "--passphrase-file alice.passphrase";
    accept("made/alice.delivery", "alice", "--passphrase-file long")
        .refuses(&["the identity is refused", "the passphrase is wrong"]);
    accept("made/bob.delivery", "alice", alice).refuses(&["the delivery is refused", "no custodian bob"]);
    accept("made/bundle.kms", "alice", alice).refuses(&["-----BEGIN KMS SHARE DELIVERY-----"]);

    // One bit inside the encrypted shares.
    let text = scene.read("made/alice.delivery");
    let mut delivery: kms_core::share::ShareDelivery =
        kms_core::codec::open_armour(text.as_bytes()).expect("init wrote it");
    *delivery.sealed.last_mut().expect("not empty") ^= 1;
    scene.write("edited.delivery", kms_core::codec::to_armour(&delivery));
    accept("edited.delivery", "alice", alice)
        .refuses(&["the delivery is refused", "not encrypted to this identity, or was changed"]);

    accept("made/alice.delivery", "alice", "--passphrase-file alice.passphrase --fingerprint zz").code_is(2);
    let other = "0".repeat(64);
    accept("made/alice.delivery", "alice", &format!("{alice} --fingerprint {other}")).refuses(&[
        "was expected",
        &other,
        &scene.bundle().fingerprint.to_hex(),
    ]);
    // Nobody compared the fingerprint, and nobody can be asked.
    accept("made/alice.delivery", "alice", "").refuses(&["no terminal", "--fingerprint"]);
    scene.write("short", "12345678");
    scene
        .run(&format!(
            "share accept --delivery made/alice.delivery --identity enrolments/alice.identity --bundle \
             made/bundle.kms --out shares --share-passphrase-file short {alice}"
        ))
        .refuses(&["at least 9"]);
    assert!(names(&scene.path("shares")).is_empty());

    let right = scene.bundle().fingerprint.to_hex();
    accept("made/alice.delivery", "alice", &format!("{alice} --fingerprint {right}")).succeeds();
}
