//! Plans that are refused. The module does not exist, so every refusal comes before an HSM is asked.

use crate::scene::{CUSTODIANS, Scene};
use kms_core::suite::Suite;
use std::fs;
use std::path::PathBuf;

/// A scene with enrolments and a plan whose module is not there.
fn scene() -> Scene {
    let mut scene = Scene::new(Suite::Intl);
    CUSTODIANS.into_iter().for_each(|name| scene.enroll(name));
    scene.module = PathBuf::from("/nowhere/libnone.so");
    scene
}

#[track_caller]
fn refused(scene: &Scene, from: &str, to: &str, words: &[&str]) {
    let plan = scene.plan();
    let changed = plan.replacen(from, to, 1);
    assert_ne!(plan, changed, "{from:?} is in the plan");
    scene.write("plan.toml", changed);
    scene.run("init --plan plan.toml --out made").refuses(words);
    assert!(!scene.path("made").exists(), "nothing is made for a plan that is refused");
}

#[test]
fn every_refusal_names_the_field() {
    let scene = scene();
    let refused = |from: &str, to: &str, words: &[&str]| refused(&scene, from, to, words);
    refused("threshold = 2", "threshold = 1", &["plan field threshold", "at least 2"]);
    refused("threshold = 2", "threshold = 4", &["plan field threshold", "more than the 3 custodians"]);
    refused("threshold = 2", "treshold = 2", &["treshold"]);
    refused("threshold = 2", "threshold = 2\nmaster = \"x\"", &["unknown field `master`", "master_key"]);
    refused("threshold = 2", "", &["missing field `threshold`"]);
    refused("cluster = \"test\"", "cluster = \"Test\"", &["plan field cluster", "lower-case"]);
    refused("suite = \"intl\"", "suite = \"gost\"", &["plan field suite", "sm or intl"]);
    for kind in ["des", "aes-128", "hmac-sm3"] {
        let plan = format!("threshold = 2\nmaster_key = \"{kind}\"");
        refused("threshold = 2", &plan, &["plan field master_key", kind, "aes-256 or sm4"]);
    }
    refused("profile = \"softhsm\"", "profile = \"acme\"", &["plan field module.profile", "acme", "softhsm"]);
    refused("label = \"ops\"", "label = \" ops\"", &["plan field operations.label", "1 to 32 bytes"]);
    refused("label = \"core\"", "label = \"ops\"", &["plan field core.label", "two tokens"]);
    refused(
        "alice.enrolment",
        "carol.enrolment",
        &["plan field custodian[1].enrolment", "carol.enrolment cannot be read", "No such file"],
    );
    refused(
        "bob.enrolment",
        "alice.enrolment",
        &["plan field custodian[2].enrolment", "same name as custodian[1].enrolment"],
    );
    refused(
        "bob.enrolment",
        "bob.identity",
        &["plan field custodian[2].enrolment", "-----BEGIN KMS ENROLMENT-----"],
    );
    refused(
        "public_key = \"04",
        "public_key = \"05",
        &["plan field node[1].public_key", "curve of suite intl"],
    );
    refused("name = \"node-1\"", "name = \"\"", &["plan field node[1].name", "must not be empty"]);
    refused("[[node]]", "[[nodes]]", &["nodes"]);
    refused(
        "kms://default/operator/app",
        "kms://default/nowhere/app",
        &["plan field principals[1]", "kms://TENANT"],
    );
    refused(
        "kms://default/operator/app",
        "kms://default/custodian/alice",
        &["plan field principals[2]", "same URI as principals[1]"],
    );
}

#[test]
fn an_enrolment_of_the_other_suite_is_refused_by_name() {
    let scene = scene();
    scene.enroll_for("frank", Suite::Sm, "enrolments");
    refused(
        &scene,
        "bob.enrolment",
        "frank.enrolment",
        &["plan field custodian[2].enrolment", "frank is enrolled for suite sm", "--suite intl"],
    );
}

#[test]
fn one_person_under_two_names_of_one_file_or_an_edited_enrolment_is_refused() {
    let scene = scene();
    scene.enroll_for("alice", Suite::Intl, "second");
    // The same name with other keys.
    refused(&scene, "enrolments/bob.enrolment", "second/alice.enrolment", &["same name as custodian[1]"]);
    let text = scene.read("enrolments/bob.enrolment");
    let mut signed: kms_core::share::SignedEnrolment =
        kms_core::codec::open_armour(text.as_bytes()).expect("enroll wrote it");
    let place = signed.body.windows(3).position(|three| three == b"bob").expect("the name is in it");
    signed.body[place] = b'r';
    scene.write("enrolments/rob.enrolment", kms_core::codec::to_armour(&signed));
    refused(&scene, "bob.enrolment", "rob.enrolment", &["custodian[2].enrolment", "it was changed"]);
}

#[test]
fn a_module_that_is_not_there_is_named_and_nothing_is_left() {
    let scene = scene();
    scene.write("plan.toml", scene.plan());
    scene
        .run("init --plan plan.toml --out made")
        .refuses(&["the PKCS#11 module cannot be used; nothing was made in it", "/nowhere/libnone.so"]);
    assert_eq!(fs::read_dir(scene.path("made")).expect("the folder is there").count(), 0);
}

#[test]
fn the_example_plan_is_a_plan() {
    let scene = scene();
    let example = include_str!("../../plans/example.toml");
    fs::write(scene.path("enrolments/plan.toml"), example).expect("writes");
    let plan = ceremonies::plan::Plan::read(&scene.path("enrolments/plan.toml")).expect("it is right");
    assert_eq!(plan.custodians.len(), 3);
    assert_eq!(plan.threshold.needed(), 2);
}

#[test]
fn check_says_what_a_plan_will_do_without_an_hsm() {
    let scene = scene();
    scene.write("plan.toml", scene.plan());
    let said = scene.run("plan check plan.toml").succeeds().stdout;
    let digest = Suite::Intl.hash(&[scene.plan().as_bytes()]);
    let enrolment = scene.run("share inspect enrolments/bob.enrolment").succeeds().stdout;
    let bob = enrolment.lines().find_map(|line| line.strip_prefix("in words         ")).expect("has words");
    for word in [
        "makes the deployment test with suite intl (ECDSA P-256, SHA-256, AES-256)",
        "Of 3 custodians, 2 must act together",
        &format!("share 2  bob  enrolment {bob}"),
        "\"ops\"  master key version 1 (aes-256), checkpoint key, row-MAC key",
        "\"core\"  the core private key",
        "node-1  (key 04",
        "kms://default/operator/app",
        "warning: profile softhsm is software, not an HSM",
        "warning: /nowhere/libnone.so is not on this computer",
        &kms_core::words::spoken_of_plan(&digest),
        &kms_core::words::grouped(&digest),
    ] {
        assert!(said.contains(word), "{word:?} in {said}");
    }
    assert!(!said.contains("custodians are needed"), "{said}");

    let two = scene.plan().replace("\n[[custodian]]\nenrolment = \"enrolments/erin.enrolment\"\n", "");
    scene.write("two.toml", two.replace("\"softhsm\"", "\"auto\"").replace("/nowhere/", ""));
    let said = scene.run("plan check two.toml").succeeds().stdout;
    for word in [
        "warning: there are only 2 custodians",
        "warning: all 2 custodians are needed",
        "warning: module.profile is \"auto\"",
        "warning: module.path is not absolute",
    ] {
        assert!(said.contains(word), "{word:?} in {said}");
    }
    scene.write("three.toml", scene.plan().replace("threshold = 2", "threshold = 4"));
    scene.run("plan check three.toml").refuses(&["plan field threshold", "more than the 3 custodians"]);
    let none = scene.plan().replace("principals = [", "principals = []\n# [").replace("softhsm", "sansec");
    scene.write("none.toml", none);
    let said = scene.run("plan check none.toml").succeeds().stdout;
    for word in ["  nobody", "warning: principals is empty", "never run", "the vendor's own"] {
        assert!(said.contains(word), "{word:?} in {said}");
    }
}
