//! Reshare on real tokens: what it changes, what it refuses, and what is left when it is killed at any moment.

use crate::scene::{Ran, Scene, names};
use ceremonies::bundle_file::VerifiedBundle;
use ceremonies::pin::{self, PinOf};
use ceremonies::reshare::moments;
use kms_core::codec;
use kms_core::passphrase::Passphrase;
use kms_core::quorum::{SecretKind, combine};
use kms_core::secret::Secret;
use kms_core::share::{IdentityFile, SharePair, StoredShare};
use kms_core::suite::Suite;
use kms_hsm::{Pin, PinPurpose, ProfileChoice};

const BOTH: [Suite; 2] = [Suite::Intl, Suite::Sm];
/// Bob and Erin leave, Carol and Dave join.
const NEXT: [&str; 3] = ["alice", "carol", "dave"];
const PRINCIPALS: &str = r#"principals = ["kms://default/operator/app", "kms://default/custodian/alice",
    "kms://default/custodian/carol", "kms://default/custodian/dave"]"#;

fn plan(scene: &Scene, threshold: u8, custodians: &[&str]) -> String {
    let mut plan = format!(
        "threshold = {threshold}\nreason = \"Bob and Erin leave\"\n{PRINCIPALS}\n[module]\npath = \"{}\"\nprofile = \"{}\"\n",
        scene.module.display(),
        scene.profile
    );
    for name in custodians {
        plan.push_str(&format!("[[custodian]]\nenrolment = \"enrolments/{name}.enrolment\"\n"));
    }
    plan
}

/// Options for people with their shares: of the old set (`shares`) or of the new one (`next-shares`).
fn present(people: &[(&str, &[&str])]) -> String {
    let mut options = String::new();
    for (name, folders) in people {
        options
            .push_str(&format!(" --identity enrolments/{name}.identity --passphrase-file {name}.passphrase"));
        for folder in *folders {
            options.push_str(&format!(
                " --share {folder}/{name}.share --share-passphrase-file {name}.share-passphrase"
            ));
        }
    }
    options
}

const OLD_QUORUM: &[(&str, &[&str])] = &[("alice", &["shares"]), ("bob", &["shares"])];
const BOTH_QUORUMS: &[(&str, &[&str])] =
    &[("alice", &["shares", "next-shares"]), ("bob", &["shares"]), ("carol", &["next-shares"])];

const PREPARE: &str = "reshare prepare --plan reshare.toml --bundle made/bundle.kms --out next";
const FINISH: &str = "reshare finish --plan reshare.toml --bundle made/bundle.kms --folder next";

fn accept_next(scene: &Scene, name: &str) {
    scene.write(&format!("{name}.share-passphrase"), format!("the other passphrase of {name}"));
    scene
        .run(&format!(
            "share accept --delivery next/{name}.delivery --identity enrolments/{name}.identity \
             --bundle next/bundle.kms --out next-shares --passphrase-file {name}.passphrase \
             --share-passphrase-file {name}.share-passphrase"
        ))
        .succeeds();
}

/// Everything is prepared and acknowledged, and no PIN is changed.
fn prepared(suite: Suite) -> Scene {
    let scene = Scene::accepted(suite);
    ["carol", "dave"].into_iter().for_each(|name| scene.enroll(name));
    scene.write("reshare.toml", plan(&scene, 2, &NEXT));
    scene.run(&format!("{PREPARE}{}", present(OLD_QUORUM))).succeeds();
    NEXT.into_iter().for_each(|name| accept_next(&scene, name));
    scene
}

fn acknowledgements() -> String {
    NEXT.map(|name| format!(" --acknowledgement next-shares/{name}.acknowledgement")).concat()
}

fn finish_command() -> String {
    format!("{FINISH}{}{}", present(BOTH_QUORUMS), acknowledgements())
}

fn bundle(scene: &Scene, folder: &str) -> VerifiedBundle {
    VerifiedBundle::read(&scene.path(&format!("{folder}/bundle.kms"))).expect("a valid bundle")
}

/// The shares of a file, opened as the custodian does.
fn open_share(scene: &Scene, folder: &str, name: &str, bundle: &VerifiedBundle) -> SharePair {
    let stored: StoredShare =
        codec::open_armour(scene.read(&format!("{folder}/{name}.share")).as_bytes()).expect("a share");
    let identity: IdentityFile =
        codec::open_armour(scene.read(&format!("enrolments/{name}.identity")).as_bytes())
            .expect("an identity");
    let passphrase = format!("the other passphrase of {name}").into_bytes();
    let enrolment = identity.enrolment.verify().expect("signed");
    stored.open(&Passphrase::enter(Secret::new(passphrase)), &enrolment, &bundle.bundle).expect("opens")
}

/// The PIN of the operations partition that a set gives.
fn start_pin(scene: &Scene, made: &str, folder: &str, people: [&str; 2]) -> Pin {
    let verified = bundle(scene, made);
    let bundle = &verified.bundle;
    let shares = people.map(|name| open_share(scene, folder, name, &verified));
    let shares: Vec<_> = shares.iter().map(|pair| pair.share(SecretKind::Start)).collect();
    let (set, commitment) = (bundle.share_set(), bundle.commitment(SecretKind::Start));
    let secret = combine(&shares, bundle.threshold(), &set, SecretKind::Start, commitment).expect("a quorum");
    let of = PinOf {
        suite: bundle.suite,
        purpose: PinPurpose::OperationsUser,
        serial: &bundle.operations.serial,
        epoch: bundle.operations.pin_epoch,
    };
    let ProfileChoice::Given(profile) = ProfileChoice::from_name(scene.profile).expect("a profile") else {
        panic!("the scene names its profile");
    };
    pin::derive(of, &secret, profile.pin_rules()).expect("derives")
}

/// Whether a process of its own gets in with the PIN.
fn opens(scene: &Scene, pin: &Pin) -> bool {
    let pin = String::from_utf8(pin.expose().to_vec()).expect("characters");
    let mut command = scene.command("pkcs11-tool");
    command.arg("--module").arg(&scene.module).args([
        "--token-label",
        "ops",
        "--list-objects",
        "--login",
        "--pin",
    ]);
    let output = command.arg(pin).output().expect("pkcs11-tool is needed for this test");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() || said.contains("CKR_PIN_INCORRECT"), "{said}");
    output.status.success()
}

struct Pins {
    old: Pin,
    new: Pin,
}

impl Pins {
    fn of(scene: &Scene) -> Self {
        Self {
            old: start_pin(scene, "made", "shares", ["alice", "bob"]),
            new: start_pin(scene, "next", "next-shares", ["carol", "dave"]),
        }
    }

    /// Which set starts the service: exactly one.
    fn in_force(&self, scene: &Scene) -> &'static str {
        match (opens(scene, &self.old), opens(scene, &self.new)) {
            (true, false) => "old",
            (false, true) => "new",
            both_or_neither => panic!("old and new open: {both_or_neither:?}"),
        }
    }
}

#[test]
fn a_reshare_kills_the_old_shares_and_the_new_ones_open_everything() {
    for suite in BOTH {
        let scene = prepared(suite);
        let pins = Pins::of(&scene);
        assert_eq!(pins.in_force(&scene), "old");
        assert_eq!(
            names(&scene.path("next")),
            ["alice.delivery", "bundle.kms", "carol.delivery", "dave.delivery", "prepare.transcript.kms"]
        );
        let (before, next) = (bundle(&scene, "made"), bundle(&scene, "next"));
        assert_eq!(next.bundle.previous, Some(before.fingerprint));
        assert_eq!(
            (next.bundle.share_epoch, next.bundle.operations.pin_epoch, next.bundle.core.pin_epoch),
            (2, 2, 2)
        );
        assert_eq!(next.bundle.master_keys.len(), 2, "somebody left, so the master key has a new version");
        let said = scene.run(&finish_command()).succeeds().stdout;
        assert!(said.contains("in force now"), "{said}");
        assert_eq!(pins.in_force(&scene), "new");
        for (transcript, words) in [
            ("prepare", ["bob leaves", "carol joins", "master key version 2", "no PIN was changed"]),
            (
                "finish",
                [
                    "dave has acknowledged",
                    "operations-so: PIN changed",
                    "operations-user: PIN changed",
                    "the old shares are dead",
                ],
            ),
        ] {
            let verify =
                format!("transcript verify next/{transcript}.transcript.kms --plan reshare.toml --bundle");
            let old = scene.run(&format!("{verify} made/bundle.kms")).succeeds().stdout;
            for word in words.into_iter().chain(["alice agreed", "bob agreed"]) {
                assert!(old.contains(word), "{word} in {old}");
            }
            let report = format!("--report {transcript}.md --language zh");
            scene.run(&format!("{verify} next/bundle.kms {report}")).succeeds();
            let report = scene.read(&format!("{transcript}.md"));
            assert!(report.contains("分量重新分割仪式记录") && report.contains("alice"), "{report}");
            assert!(!report.contains("（原文）"), "every step has a translation: {report}");
        }
        let foreign =
            "transcript verify next/finish.transcript.kms --bundle made/bundle.kms --report other.md";
        scene.run(foreign).refuses(&["does not name this bundle", "no report is written"]);
        // Everything again with the old shares: there is nothing that they could do.
        scene.run(&finish_command()).refuses(&["is finished"]);
        let again = format!("{} --out again", PREPARE.replace(" --out next", ""));
        scene.run(&format!("{again}{}", present(OLD_QUORUM))).refuses(&[
            "is not in force",
            "Do not try again with it",
            "no PIN was changed",
        ]);
        assert_eq!(pins.in_force(&scene), "new");
    }
}

/// The steps are those of the code: `moments` lists them.
fn every_moment_leaves_one_set_in_force(suite: Suite) {
    let original = prepared(suite);
    let pins = Pins::of(&original);
    let moments = moments();
    let place = |wanted: &str| moments.iter().position(|one| one == wanted).expect("it is one of them");
    for moment in &moments {
        let scene = original.copy();
        let mut command = scene.command(env!("CARGO_BIN_EXE_kms-ceremony"));
        command.args(finish_command().split_whitespace()).env("KMS_CRASH_AT", moment);
        let killed = command.output().expect("kms-ceremony starts");
        assert_eq!(killed.status.code(), None, "{moment}: {}", String::from_utf8_lossy(&killed.stderr));
        let is_new = place(moment) >= place("reshare.changed-operations-user");
        assert_eq!(pins.in_force(&scene), if is_new { "new" } else { "old" }, "{moment}");
        let resumed = scene.run(&finish_command());
        assert_eq!(resumed.code, 0, "{moment}: {resumed:?}");
        assert_eq!(pins.in_force(&scene), "new", "{moment}");
    }
}

#[test]
fn a_reshare_that_is_killed_at_any_moment_leaves_one_set_in_force_on_softhsm() {
    every_moment_leaves_one_set_in_force(Suite::Intl);
}

#[test]
fn a_reshare_that_is_killed_at_any_moment_leaves_one_set_in_force_on_the_simulator() {
    every_moment_leaves_one_set_in_force(Suite::Sm);
}

#[test]
fn a_reshare_goes_on_without_its_progress_file_and_without_the_old_quorum_where_it_is_not_needed() {
    let original = prepared(Suite::Sm);
    let pins = Pins::of(&original);
    let killed_at = |moment: &str| {
        let scene = original.copy();
        let mut command = scene.command(env!("CARGO_BIN_EXE_kms-ceremony"));
        command.args(finish_command().split_whitespace()).env("KMS_CRASH_AT", moment);
        assert_eq!(command.output().expect("starts").status.code(), None);
        scene
    };
    let scene = killed_at("reshare.done-operations-so");
    std::fs::remove_file(scene.path("next/reshare.progress")).expect("was there");
    scene.run(&finish_command()).refuses(&["nothing was begun", "has another PIN", "--in-doubt"]);
    assert!(!scene.path("next/reshare.progress").exists(), "it was not begun here");
    scene.run(&format!("{} --in-doubt", finish_command())).succeeds();
    assert_eq!(pins.in_force(&scene), "new");

    // The way through the doubt can be stopped as well, and more than once.
    for moment in [
        "begun-operations-so",
        "done-operations-so",
        "changed-core-so",
        "begun-operations-user",
        "done-operations-user",
    ] {
        let scene = killed_at("reshare.done-operations-so");
        std::fs::remove_file(scene.path("next/reshare.progress")).expect("was there");
        let command = format!("{} --in-doubt", finish_command());
        for _ in 0..2 {
            let mut again = scene.command(env!("CARGO_BIN_EXE_kms-ceremony"));
            again.args(command.split_whitespace()).env("KMS_CRASH_AT", format!("reshare.{moment}"));
            again.output().expect("starts");
        }
        let resumed = scene.run(&command);
        // The second run may have come through: the step at which it should have been killed was done already.
        assert!(resumed.code == 0 || resumed.stderr.contains("is finished"), "{moment}: {resumed:?}");
        assert_eq!(pins.in_force(&scene), "new", "{moment}");
    }

    let new_alone: &[(&str, &[&str])] = &[("dave", &["next-shares"]), ("carol", &["next-shares"])];
    let command = format!("{FINISH}{}{}", present(new_alone), acknowledgements());
    let scene = killed_at("reshare.done-core-so");
    std::fs::remove_file(scene.path("next/reshare.progress")).expect("was there");
    scene.run(&format!("{command} --in-doubt")).succeeds();
    assert_eq!(pins.in_force(&scene), "new", "the old quorum was needed no more");
    let scene = killed_at("reshare.begun-core-so");
    scene.run(&command).refuses(&["0 of share epoch 1 are present, 2 are needed"]);
    let scene = killed_at("reshare.done-core-so");
    scene.run(&command).succeeds();
    assert_eq!(pins.in_force(&scene), "new");

    // What a crash leaves of a line counts for nothing; what people leave is refused.
    let scene = killed_at("reshare.begun-core-so");
    let progress = scene.read("next/reshare.progress");
    scene.write("next/reshare.progress", format!("{progress}done core"));
    scene.run(&finish_command()).succeeds();
    assert!(
        scene.read("next/reshare.progress").starts_with(&format!("{progress}began core-so\ndone core-so\n"))
    );
    let scene = killed_at("reshare.begun-core-so");
    scene.write("next/reshare.progress", format!("{progress}done core-user\n"));
    scene.run(&finish_command()).refuses(&["reshare.progress", "line 5 does not follow"]);
    scene.write("next/reshare.progress", format!("reshare {}\n", "0".repeat(64)));
    scene.run(&finish_command()).refuses(&["reshare.progress", "is of another reshare"]);
}

/// Two reshares of one bundle: one of them can be carried out, and the other one is refused before an SO PIN is tried again and
/// again.
#[test]
fn of_two_reshares_of_one_bundle_one_is_carried_out() {
    let scene = prepared(Suite::Sm);
    let pins = Pins::of(&scene);
    // The other one, in folders of its own.
    let move_away = |from: &str, to: &str| std::fs::rename(scene.path(from), scene.path(to)).expect("moves");
    let swap = || {
        for folder in ["next", "next-shares"] {
            move_away(folder, "away");
            if scene.path(&format!("other-{folder}")).exists() {
                move_away(&format!("other-{folder}"), folder);
            }
            move_away("away", &format!("other-{folder}"));
        }
    };
    swap();
    scene.run(&format!("{PREPARE}{}", present(OLD_QUORUM))).succeeds();
    NEXT.into_iter().for_each(|name| accept_next(&scene, name));
    // The second is begun, and stopped before its first PIN is changed.
    let mut command = scene.command(env!("CARGO_BIN_EXE_kms-ceremony"));
    command.args(finish_command().split_whitespace()).env("KMS_CRASH_AT", "reshare.begun-operations-so");
    assert_eq!(command.output().expect("starts").status.code(), None);
    swap();
    // The first one is carried out, with a stop in the middle, where no third one can be prepared.
    let mut command = scene.command(env!("CARGO_BIN_EXE_kms-ceremony"));
    command.args(finish_command().split_whitespace()).env("KMS_CRASH_AT", "reshare.done-core-so");
    assert_eq!(command.output().expect("starts").status.code(), None);
    let third = PREPARE.replace("--out next", "--out third");
    scene
        .run(&format!("{third}{}", present(OLD_QUORUM)))
        .refuses(&["is not in force", "must be finished first"]);
    assert!(names(&scene.path("third")).is_empty());
    scene.run(&finish_command()).succeeds();
    assert_eq!(pins.in_force(&scene), "new");
    // The second one meets PINs that it does not know, says so once, and tries nothing more.
    swap();
    scene.run(&finish_command()).refuses(&[
        "operations-so",
        "none of the PINs",
        "may have been begun or finished",
    ]);
    let state = || std::fs::read(so_state(&scene)).expect("reads");
    let before = state();
    scene.run(&finish_command()).refuses(&["was refused by the token in an earlier run"]);
    assert_eq!(state(), before, "no attempt was spent");
    assert_eq!(scene.read("next/reshare.progress").lines().last(), Some("refused operations-so"));
    swap();
    scene.run(&finish_command()).refuses(&["is finished"]);
}

/// The simulator's state file of the operations token: it counts wrong attempts.
fn so_state(scene: &Scene) -> std::path::PathBuf {
    let serial = bundle(scene, "made").bundle.operations.serial;
    let folders = std::fs::read_dir(scene.path("tokens")).expect("lists");
    let holds = |folder: &std::path::PathBuf| {
        let state = std::fs::read(folder.join("state")).unwrap_or_default();
        state.windows(serial.len()).any(|window| window == serial.as_bytes())
    };
    let mut folders = folders.map(|entry| entry.expect("lists").path());
    folders.find(holds).expect("the token is there").join("state")
}

#[test]
fn two_runs_do_not_work_at_once() {
    let scene = prepared(Suite::Sm);
    let folder = std::fs::File::open(scene.path("next")).expect("opens");
    rustix::fs::flock(&folder, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .expect("nobody else has it");
    scene.run(&finish_command()).refuses(&["another run is at work in next"]);
    drop(folder);
    scene.run(&finish_command()).succeeds();
}

/// Refused before any PIN is sent.
#[test]
fn a_reshare_with_the_wrong_people_plan_or_files_is_refused_by_name() {
    let scene = prepared(Suite::Sm);
    let pins = Pins::of(&scene);
    let again = PREPARE.replace("--out next", "--out again");
    let prepare = |people: &[(&str, &[&str])]| scene.run(&format!("{again}{}", present(people)));
    let finish =
        |people: &[(&str, &[&str])]| scene.run(&format!("{FINISH}{}{}", present(people), acknowledgements()));
    let cases: Vec<(Ran, &[&str])> = vec![
        (prepare(&[("alice", &["shares"])]), &["1 of share epoch 1 are present, 2 are needed"]),
        (prepare(&[("alice", &["shares"]), ("alice", &["shares"])]), &["a second time"]),
        (prepare(&[("alice", &["shares", "shares"])]), &["a second time"]),
        (
            prepare(&[("alice", &["shares"]), ("carol", &["next-shares"])]),
            &["carol.share", "epoch 2", "of 1 are needed"],
        ),
        (
            prepare(&[("alice", &["shares"]), ("bob", &["shares"]), ("dave", &[])]),
            &["dave.identity", "no --share"],
        ),
        (
            scene.run(&format!(
                "{again}{} --share shares/bob.share --share-passphrase-file bob.share-passphrase",
                present(&[("alice", &["shares"])])
            )),
            &["bob.share is bob's", "--identity is missing"],
        ),
        (
            scene.run(&format!("{PREPARE}{}", present(OLD_QUORUM))),
            &["nothing was done", "is not overwritten"],
        ),
        (finish(OLD_QUORUM), &["0 of share epoch 2 are present"]),
        (
            finish(&[("carol", &["next-shares"]), ("dave", &["next-shares"])]),
            &["0 of share epoch 1 are present"],
        ),
        (
            scene.run(&format!(
                "{FINISH}{} --acknowledgement next-shares/alice.acknowledgement",
                present(BOTH_QUORUMS)
            )),
            &["carol has not acknowledged"],
        ),
        (
            scene.run(&format!(
                "{FINISH}{} --acknowledgement shares/alice.acknowledgement",
                present(BOTH_QUORUMS)
            )),
            &["shares/alice.acknowledgement", "another bundle"],
        ),
        (
            scene.run(&format!("{} --operation {}", finish_command(), "0".repeat(64))),
            &["operation digest is", "nothing was done"],
        ),
        (
            scene.run(&finish_command().replace("--bundle made/bundle.kms", "--bundle next/bundle.kms")),
            &["next/bundle.kms does not follow", "another bundle"],
        ),
        (
            scene.run(&finish_command().replacen(
                "--passphrase-file alice.passphrase",
                "--passphrase-file bob.passphrase",
                1,
            )),
            &["alice.identity is refused"],
        ),
        (
            scene.run(&finish_command().replacen("--passphrase-file alice.passphrase", "", 1)),
            &["--passphrase-file is given 2 times for 3 files"],
        ),
    ];
    for (ran, words) in cases {
        ran.refuses(words);
    }
    for (name, changed, words) in [
        ("one.toml", plan(&scene, 1, &NEXT), ["plan field threshold", "at least 2"]),
        ("many.toml", plan(&scene, 4, &NEXT), ["plan field threshold", "more than the 3"]),
        ("twice.toml", plan(&scene, 2, &["alice", "alice"]), ["custodian[2].enrolment", "same name"]),
        (
            "erin.toml",
            plan(&scene, 2, &["alice", "erin"]),
            ["plan field principals", "kms://TENANT/custodian/erin"],
        ),
        (
            "silent.toml",
            plan(&scene, 2, &NEXT).replace("Bob and Erin leave", " "),
            ["plan field reason", "1 to 200 bytes"],
        ),
        (
            "turned.toml",
            plan(&scene, 2, &NEXT).replace("Bob and Erin", "Bob \\u202e and Erin"),
            ["plan field reason", "on one line"],
        ),
        ("typo.toml", plan(&scene, 2, &NEXT).replace("reason", "raison"), ["typo.toml is refused", "raison"]),
    ] {
        scene.write(name, changed);
        scene.run(&format!("reshare check --plan {name} --bundle made/bundle.kms")).refuses(&words);
    }
    // Another plan than the one that was prepared.
    scene.write("reshare.toml", plan(&scene, 3, &NEXT));
    scene.run(&finish_command()).refuses(&["does not follow", "not those of the plan"]);
    scene.write("reshare.toml", plan(&scene, 2, &NEXT));
    assert!(!scene.path("next/reshare.progress").exists(), "no step was begun");
    assert!(
        !scene.path("again").exists() || names(&scene.path("again")).is_empty(),
        "no output of a refused run stays"
    );
    assert_eq!(pins.in_force(&scene), "old");
    let shown = scene.run("reshare check --plan reshare.toml --bundle made/bundle.kms").succeeds().stdout;
    for word in [
        "2 of 3 becomes 2 of 3",
        "leaving          bob, erin",
        "joining          carol, dave",
        "a new version, 2",
        "operation",
    ] {
        assert!(shown.contains(word), "{word} in {shown}");
    }
    scene.run(&finish_command()).succeeds();
    assert_eq!(pins.in_force(&scene), "new");
}

/// The same people and nobody new: every share is another one afterwards, and the master key stays.
#[test]
fn the_same_people_can_have_new_shares() {
    let scene = Scene::accepted(Suite::Sm);
    let principals = PRINCIPALS.replace("carol", "erin").replace("dave", "bob");
    scene.write("reshare.toml", plan(&scene, 3, &["alice", "bob", "erin"]).replace(PRINCIPALS, &principals));
    scene.run(&format!("{PREPARE}{}", present(OLD_QUORUM))).succeeds();
    let people = ["alice", "bob", "erin"];
    people.into_iter().for_each(|name| accept_next(&scene, name));
    let both: &[(&str, &[&str])] = &[
        ("alice", &["shares", "next-shares"]),
        ("bob", &["shares", "next-shares"]),
        ("erin", &["next-shares"]),
    ];
    let acknowledged =
        people.map(|name| format!(" --acknowledgement next-shares/{name}.acknowledgement")).concat();
    scene.run(&format!("{FINISH}{}{acknowledged}", present(both))).succeeds();
    let next = bundle(&scene, "next").bundle;
    assert_eq!((next.threshold_needed, next.master_keys.len()), (3, 1));
    assert!(!opens(&scene, &start_pin(&scene, "made", "shares", ["alice", "bob"])));
}

/// What differs each time: keys and digests, and times.
fn masked(text: &str) -> String {
    let is_time = |word: &str| word.len() == 20 && word.ends_with('Z') && word.as_bytes()[10] == b'T';
    let mask = |word: &str| {
        let inner = word.trim_matches(|letter: char| !letter.is_ascii_alphanumeric());
        let is_hex = inner.len() >= 16 && inner.chars().all(|letter| letter.is_ascii_hexdigit());
        match inner {
            _ if is_hex => word.replace(inner, "HEX"),
            _ if is_time(inner) => word.replace(inner, "TIME"),
            _ => word.to_owned(),
        }
    };
    // A digest in groups or in words is the rest of its line.
    let line = |line: &str| {
        for name in ["operation        ", "in words         ", "in words: ", "bundle fingerprint: "] {
            if line.starts_with(name) {
                return format!("{name}DIGEST");
            }
        }
        let (line, digest) = match line.split_once(", enrolment ") {
            Some((line, _)) => (line, ", enrolment DIGEST"),
            None => (line, ""),
        };
        line.split(' ').map(mask).collect::<Vec<_>>().join(" ") + digest
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n") + "\n"
}

/// With `KMS_RECORD=1` the block is written anew.
#[test]
fn the_runbook_of_a_reshare_is_what_happens() {
    let scene = Scene::accepted(Suite::Intl);
    ["carol", "dave"].into_iter().for_each(|name| scene.enroll(name));
    scene.write("reshare.toml", plan(&scene, 2, &NEXT));
    for name in NEXT {
        scene.write(&format!("{name}.share-passphrase"), format!("the other passphrase of {name}"));
    }
    let accept = |name: &str| {
        format!(
            "share accept --delivery next/{name}.delivery --identity enrolments/{name}.identity --bundle next/bundle.kms \
             --out next-shares --passphrase-file {name}.passphrase --share-passphrase-file {name}.share-passphrase"
        )
    };
    let mut recorded = String::new();
    for command in [
        "reshare check --plan reshare.toml --bundle made/bundle.kms".to_owned(),
        format!("{PREPARE}{}", present(OLD_QUORUM)),
        accept("alice"),
        accept("carol"),
        accept("dave"),
        finish_command(),
        "transcript verify next/finish.transcript.kms --bundle next/bundle.kms --plan reshare.toml"
            .to_owned(),
    ] {
        let ran = scene.run(&command).succeeds();
        let shown = command.replace(" --", " \\\n    --");
        recorded.push_str(&format!(
            "$ kms-ceremony {shown}\n{}{}",
            masked(&ran.stdout),
            masked(&ran.stderr).trim_start()
        ));
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/runbooks/reshare.md");
    let document = std::fs::read_to_string(&path).expect("the runbook is there");
    let (before, rest) = document.split_once("```console recorded\n").expect("it has a recorded block");
    let (block, after) = rest.split_once("```\n").expect("the block has an end");
    if std::env::var_os("KMS_RECORD").is_some() {
        let document = format!("{before}```console recorded\n{recorded}```\n{after}");
        std::fs::write(&path, document).expect("writes");
        return;
    }
    assert_eq!(block, recorded, "record it anew: KMS_RECORD=1 cargo test -p ceremonies the_runbook");
}
