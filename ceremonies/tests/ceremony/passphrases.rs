//! `share change-passphrase` and `identity change-passphrase`.

use crate::scene::{Scene, names};
use kms_core::suite::Suite;
use std::fs;
use std::os::unix::fs::PermissionsExt;

fn verify(scene: &Scene, share: &str, passphrase: &str) -> crate::scene::Ran {
    scene.run(&format!(
        "share verify --share {share} --identity enrolments/bob.identity --bundle made/bundle.kms \
         --share-passphrase-file {passphrase}"
    ))
}

#[test]
fn a_share_gets_another_passphrase_in_its_place_or_in_a_new_file() {
    let scene = Scene::accepted(Suite::Sm);
    scene.write("new", "a passphrase for next year");
    let before = scene.read("shares/bob.share");
    let change =
        "share change-passphrase --share-passphrase-file bob.share-passphrase --new-passphrase-file new";
    scene.run(&format!("{change} --share shares/bob.share --out copy.share")).succeeds();
    assert_eq!(scene.read("shares/bob.share"), before, "with --out the file stays");
    verify(&scene, "copy.share", "new").succeeds();
    verify(&scene, "copy.share", "bob.share-passphrase").refuses(&["the passphrase is wrong"]);
    scene
        .run(&format!("{change} --share shares/bob.share --out copy.share"))
        .refuses(&["copy.share is there already"]);

    let files = names(&scene.path("shares"));
    std::os::unix::fs::symlink(scene.path("shares/bob.share"), scene.path("link.share")).expect("links");
    let said = scene.run(&format!("{change} --share link.share")).succeeds().stdout;
    assert!(said.contains("printed pages of the old file open with the old passphrase"), "{said}");
    assert!(fs::symlink_metadata(scene.path("link.share")).expect("is there").is_symlink());
    assert_eq!(names(&scene.path("shares")), files, "no draft is left");
    let mode = fs::metadata(scene.path("shares/bob.share")).expect("is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    verify(&scene, "shares/bob.share", "new").succeeds();
    verify(&scene, "shares/bob.share", "bob.share-passphrase").refuses(&["the passphrase is wrong"]);
}

#[test]
fn a_change_that_is_refused_leaves_the_file_as_it_was() {
    let scene = Scene::accepted(Suite::Sm);
    scene.write("new", "a passphrase for next year");
    scene.write("short", "12345678");
    let before = scene.read("shares/bob.share");
    let files = names(&scene.path("shares"));
    let refused = |old: &str, new: &str, words: &[&str]| {
        let ran = scene.run(&format!(
            "share change-passphrase --share shares/bob.share --share-passphrase-file {old} --new-passphrase-file {new}"
        ));
        let said = format!("{ran:?}");
        assert!(!said.contains("next year") && !said.contains("other passphrase of bob"), "{said}");
        ran.refuses(words);
        assert_eq!(scene.read("shares/bob.share"), before);
        assert_eq!(names(&scene.path("shares")), files);
    };
    refused(
        "bob.passphrase",
        "is-never-read",
        &["the file is refused; nothing was changed", "passphrase is wrong"],
    );
    refused("bob.share-passphrase", "short", &["the new passphrase is refused", "at least 9"]);
    refused("bob.share-passphrase", "bob.share-passphrase", &["the new passphrase is the old one"]);
    refused("bob.share-passphrase", "nowhere", &["nowhere cannot be read"]);
    scene.run("share change-passphrase --share shares/bob.share").refuses(&[
        "no terminal",
        "the passphrase of the share",
        "--share-passphrase-file",
    ]);
    scene
        .run("share change-passphrase --share enrolments/bob.identity")
        .refuses(&["-----BEGIN KMS SHARE-----"]);
}

#[test]
fn an_identity_gets_another_passphrase_and_stays_who_it_is() {
    let scene = Scene::new(Suite::Intl);
    scene.enroll("alice");
    scene.write("new", "a passphrase for next year");
    let enrolment = scene.read("enrolments/alice.enrolment");
    let before = scene.run("share inspect enrolments/alice.identity").succeeds().stdout;
    let change = |old: &str, new: &str| {
        scene.run(&format!(
            "identity change-passphrase --identity enrolments/alice.identity --passphrase-file {old} \
             --new-passphrase-file {new}"
        ))
    };
    change("alice.passphrase", "new").succeeds();
    change("alice.passphrase", "new").refuses(&["the file is refused; nothing was changed"]);
    assert_eq!(scene.run("share inspect enrolments/alice.identity").succeeds().stdout, before);
    assert_eq!(scene.read("enrolments/alice.enrolment"), enrolment);
    change("new", "alice.passphrase").succeeds();
    assert_eq!(names(&scene.path("enrolments")), ["alice.enrolment", "alice.identity"]);
}
