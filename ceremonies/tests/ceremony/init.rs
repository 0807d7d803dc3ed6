//! The init ceremony on real tokens.

use crate::scene::{CUSTODIANS, NODE, Scene, names};
use ceremonies::random::os_rng;
use kms_core::codec;
use kms_core::share::SignedAcknowledgement;
use kms_core::suite::Suite;

const BOTH: [Suite; 2] = [Suite::Intl, Suite::Sm];

#[test]
fn init_makes_a_bundle_deliveries_and_a_transcript_that_verify() {
    for suite in BOTH {
        let scene = Scene::accepted(suite);
        let made = names(&scene.path("made"));
        assert_eq!(made, ["alice.delivery", "bob.delivery", "bundle.kms", "erin.delivery", "transcript.kms"]);
        let verified = scene.bundle();
        let shown = scene.run("bundle show made/bundle.kms").succeeds().stdout;
        for word in CUSTODIANS.into_iter().chain([NODE, "2 of 3", suite.name(), "kms://default/operator/app"])
        {
            assert!(shown.contains(word), "{word} in {shown}");
        }
        assert!(shown.contains(&verified.fingerprint.to_hex()));
        for name in CUSTODIANS {
            let text = scene.read(&format!("shares/{name}.acknowledgement"));
            let signed: SignedAcknowledgement = codec::open_armour(text.as_bytes()).expect("accept wrote it");
            let acknowledgement = signed.verify(&verified.bundle).expect("signed by the custodian");
            assert_eq!(acknowledgement.bundle, verified.fingerprint);
        }
        let transcript =
            scene.run("transcript verify made/transcript.kms --bundle made/bundle.kms").succeeds().stdout;
        for word in
            ["core key", "self-check passed", "signed by the core key", &verified.fingerprint.to_hex()]
        {
            assert!(transcript.contains(word), "{word} in {transcript}");
        }
        let verify = "transcript verify made/transcript.kms --bundle made/bundle.kms --plan";
        scene.run(&format!("{verify} plan.toml")).succeeds();
        scene.write("other.toml", scene.plan() + "# changed after the ceremony");
        scene.run(&format!("{verify} other.toml")).refuses(&["other.toml is not the plan"]);
    }
}

#[test]
fn an_edited_bundle_or_a_transcript_of_another_deployment_is_refused() {
    let scene = Scene::initialised(Suite::Sm);
    let text = scene.read("made/bundle.kms");
    let mut signed: kms_core::bundle::SignedBundle =
        codec::open_armour(text.as_bytes()).expect("init wrote it");
    let place = signed.body.len() - 5;
    signed.body[place] ^= 1;
    scene.write("edited.kms", codec::to_armour(&signed));
    scene.run("bundle show edited.kms").refuses(&["edited.kms is refused"]);

    let text = scene.read("made/transcript.kms");
    let mut signed: kms_core::transcript::SignedTranscript =
        codec::open_armour(text.as_bytes()).expect("init wrote it");
    let stranger = kms_core::asymmetric::PrivateKey::generate(Suite::Sm, &mut os_rng());
    signed.signature = stranger.sign(kms_core::transcript::TRANSCRIPT_DOMAIN, &signed.body, &mut os_rng());
    scene.write("other.kms", codec::to_armour(&signed));
    scene
        .run("transcript verify other.kms --bundle made/bundle.kms")
        .refuses(&["other.kms is refused", "not signed by the core key"]);
}

#[test]
fn a_label_is_never_used_again_and_nothing_changes() {
    for suite in BOTH {
        let scene = Scene::initialised(suite);
        let tokens_before = names(&scene.path("tokens"));
        scene.run("init --plan plan.toml --out again").refuses(&[
            "operations.label",
            "has a token \"ops\" already",
            "nothing was made",
        ]);
        scene.write("second.toml", scene.plan().replace("\"ops\"", "\"ops-2\""));
        scene.run("init --plan second.toml --out again").refuses(&[
            "core.label",
            "has a token \"core\" already",
            "nothing was made",
        ]);
        assert_eq!(names(&scene.path("tokens")), tokens_before);
        assert!(names(&scene.path("again")).is_empty(), "no output of a refused run stays");
    }
}

#[test]
fn an_output_that_is_there_is_found_before_the_hsm_is_asked() {
    let scene = Scene::new(Suite::Intl);
    CUSTODIANS.into_iter().for_each(|name| scene.enroll(name));
    scene.write("plan.toml", scene.plan());
    std::fs::create_dir(scene.path("made")).expect("is new");
    scene.write("made/erin.delivery", "an old one");
    scene
        .run("init --plan plan.toml --out made")
        .refuses(&["nothing was done", "erin.delivery is there already and is not overwritten"]);
    assert_eq!(names(&scene.path("made")), ["erin.delivery"]);
    assert_eq!(scene.read("made/erin.delivery"), "an old one");
    assert!(names(&scene.path("tokens")).is_empty(), "no token was made");
}

/// SoftHSM has no SM mechanisms, which only shows once its tokens are made.
#[test]
fn a_run_that_stops_half_way_says_what_is_in_the_hsm() {
    let mut scene = Scene::new(Suite::Intl);
    scene.suite = Suite::Sm;
    scene.node_key = kms_core::asymmetric::PrivateKey::generate(Suite::Sm, &mut os_rng());
    CUSTODIANS.into_iter().for_each(|name| scene.enroll(name));
    scene.write("plan.toml", scene.plan());
    scene.run("init --plan plan.toml --out made").refuses(&[
        "token \"core\" does not offer all mechanisms for SigningKey(Sm)",
        "In the HSM there is now: token \"ops\" (serial ",
        "; token \"core\" (serial ",
        "Nothing was deleted",
        "other labels",
    ]);
    assert!(names(&scene.path("made")).is_empty());
    assert_eq!(names(&scene.path("tokens")).len(), 2, "both tokens are where they were");
}
