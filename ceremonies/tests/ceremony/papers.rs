//! `share inspect`, `share print`, `share restore`: a custodian's files in other forms.

use crate::scene::{Ran, Scene, names};
use kms_core::codec;
use kms_core::printed_share;
use kms_core::share::{SignedAcknowledgement, StoredShare};
use kms_core::suite::Suite;
use kms_core::words;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

fn share(scene: &Scene, name: &str) -> StoredShare {
    codec::open_armour(scene.read(&format!("shares/{name}.share")).as_bytes()).expect("accept wrote it")
}

/// The words of a page, as a person copies them from a browser.
fn words_of(page: &str) -> String {
    let list = page.split("<ol class=\"words\">").nth(1).and_then(|rest| rest.split("</ol>").next());
    let mut text = list.expect("the page has the words").to_owned();
    for tag in ["<li>", "</li>", "<span>", "</span>"] {
        text = text.replace(tag, "");
    }
    text
}

#[test]
fn inspect_tells_files_apart_without_a_passphrase() {
    let scene = Scene::accepted(Suite::Sm);
    let inspect =
        |file: &str| scene.run(&format!("share inspect {file} --bundle made/bundle.kms")).succeeds().stdout;
    let share = share(&scene, "bob");
    let said = inspect("shares/bob.share");
    let id = base16ct::lower::encode_string(&share.label.cluster_id);
    for word in [
        "share of a custodian",
        &id,
        "share epoch      1",
        "custodian        bob",
        "share index      2",
        "suite            sm",
        "Argon2id, 65536 KiB, 3 passes; SM4-GCM",
        &words::spoken(&share.fingerprint()),
        "yes, it belongs to this bundle",
    ] {
        assert!(said.contains(word), "{word} in {said}");
    }
    for (file, word) in [
        ("enrolments/bob.identity", "identity of a custodian"),
        ("enrolments/bob.enrolment", "enrolment of a custodian"),
        ("made/bob.delivery", "delivery of shares"),
        ("shares/bob.acknowledgement", "acknowledgement that shares arrived"),
    ] {
        let said = inspect(file);
        assert!(said.contains(word) && said.contains("bob") && said.contains("yes, it belongs"), "{said}");
        let alone = scene.run(&format!("share inspect {file}")).succeeds().stdout;
        assert!(!alone.contains("belongs"), "{alone}");
    }
    scene.run("share inspect made/bundle.kms").refuses(&["is a bundle", "kms-ceremony bundle show"]);
    scene.run("share inspect made/transcript.kms").refuses(&["is a transcript", "transcript verify"]);
    scene.run("share inspect plan.toml").refuses(&["plan.toml is no file of a custodian", "-----BEGIN KMS"]);
    scene.run("share inspect nowhere").refuses(&["nowhere cannot be read"]);

    // Of another deployment, or another person than the bundle has under that name.
    let mut foreign = share;
    foreign.label.cluster_id[0] ^= 1;
    scene.write("foreign.share", codec::to_armour(&foreign));
    let refused = scene
        .run("share inspect foreign.share --bundle made/bundle.kms")
        .refuses(&["does not belong to this bundle", "another deployment or share epoch"]);
    assert!(refused.stdout.contains("custodian        bob"), "what it is, is said all the same: {refused:?}");
    scene.enroll_for("bob", Suite::Sm, "again");
    scene
        .run("share inspect again/bob.identity --bundle made/bundle.kms")
        .refuses(&["does not belong to this bundle", "no custodian bob with this key"]);
    let text = scene.read("shares/bob.acknowledgement");
    let mut changed: SignedAcknowledgement = codec::open_armour(text.as_bytes()).expect("accept wrote it");
    changed.signature.0[0] ^= 1;
    scene.write("changed.acknowledgement", codec::to_armour(&changed));
    scene
        .run("share inspect changed.acknowledgement --bundle made/bundle.kms")
        .refuses(&["does not belong to this bundle", "signature"]);
}

#[test]
fn a_share_goes_to_paper_and_comes_back_byte_for_byte() {
    let scene = Scene::accepted(Suite::Intl);
    let original = scene.read("shares/alice.share");
    let fingerprint = words::spoken(&share(&scene, "alice").fingerprint());
    for language in ["en", "zh"] {
        let printed = scene
            .run(&format!(
                "share print --share shares/alice.share --bundle made/bundle.kms --out {language}.html --language {language}"
            ))
            .succeeds();
        assert!(printed.stdout.contains(&fingerprint), "{printed:?}");
        let mode =
            fs::metadata(scene.path(&format!("{language}.html"))).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let (english, chinese) = (scene.read("en.html"), scene.read("zh.html"));
    assert_eq!(words_of(&english), words_of(&chinese), "one list of words");
    for word in [
        "This page alone opens nothing",
        "<td>test</td>",
        "alice",
        &fingerprint,
        "share restore --out alice.share",
    ] {
        assert!(english.contains(word), "{word} is not on the page");
    }
    assert!(chinese.contains("仅凭本页无法打开任何东西") && chinese.contains(&fingerprint));

    scene.write("words", words_of(&english));
    let restore = |arguments: &str| scene.run(&format!("share restore {arguments}"));
    let restored = restore("--words words --out restored/none.share");
    restored.refuses(&["restored/none.share cannot be written"]);
    let restored = restore(
        "--words words --out w.share --bundle made/bundle.kms --share-passphrase-file alice.share-passphrase",
    )
    .succeeds();
    assert!(restored.stdout.contains(&fingerprint), "{restored:?}");
    assert!(restored.stdout.contains("both shares are the ones that the bundle commits to"), "{restored:?}");
    assert_eq!(scene.read("w.share"), original);
    let mode = fs::metadata(scene.path("w.share")).expect("is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    restore("--words words --out w.share").refuses(&["w.share is there already and is not overwritten"]);

    scene.write("qr", printed_share::to_qr_text(&share(&scene, "alice")).expect("prints"));
    restore("--qr-text qr --out q.share").succeeds();
    assert_eq!(scene.read("q.share"), original);
    let piped = pipe(&scene, "share restore --words - --out p.share", &words_of(&english));
    piped.succeeds();
    assert_eq!(scene.read("p.share"), original);
}

/// `kms-ceremony` with a text on its standard input.
fn pipe(scene: &Scene, arguments: &str, text: &str) -> Ran {
    let mut child = scene
        .command(env!("CARGO_BIN_EXE_kms-ceremony"))
        .args(arguments.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kms-ceremony starts");
    child.stdin.take().expect("is piped").write_all(text.as_bytes()).expect("it reads");
    Ran::of(child.wait_with_output().expect("it ends"))
}

#[test]
fn what_cannot_be_printed_or_restored_leaves_nothing() {
    let scene = Scene::accepted(Suite::Sm);
    let before = names(&scene.path("."));
    let print = |arguments: &str| scene.run(&format!("share print {arguments}"));
    print("--share shares/bob.share --out page.pdf").refuses(&["page.pdf", "ends in .html"]);
    print("--share made/bundle.kms --out page.html").refuses(&["-----BEGIN KMS SHARE-----"]);
    print("--share shares/bob.share --out page.html --language fr").code_is(2);
    let mut foreign = share(&scene, "bob");
    foreign.label.share_epoch = 2;
    scene.write("shares/foreign.share", codec::to_armour(&foreign));
    print("--share shares/foreign.share --bundle made/bundle.kms --out page.html")
        .refuses(&["the share does not belong to this bundle; nothing was printed", "share epoch"]);
    assert_eq!(names(&scene.path(".")), before);

    print("--share shares/bob.share --out page.html").succeeds();
    print("--share shares/bob.share --out page.html").refuses(&["page.html is there already"]);
    let right = words_of(&scene.read("page.html"));
    let lines: Vec<&str> = right.trim().lines().collect();
    let refused = |text: String, words: &[&str]| {
        scene.write("typed", text);
        scene.run("share restore --words typed --out new.share").refuses(words);
        assert!(!scene.path("new.share").exists());
    };
    let with = |number: usize, line: &str| {
        let mut changed = lines.clone();
        changed[number - 1] = line;
        changed.join("\n")
    };
    let mut words: Vec<&str> = lines[2].split(' ').collect();
    words.swap(3, 4);
    refused(with(3, &words.join(" ")), &["line 3 has an error", "have words 4 and 5 changed places?"]);
    refused(with(7, &format!("q{}", lines[6])), &["line 7, word 1", "is not in the list; did you mean"]);
    refused(with(2, lines[1].rsplit_once(' ').expect("words").0), &["line 2 has 7 words, it must have 8"]);
    refused(lines[..9].join("\n"), &["lines 10 to 15 are missing"]);
    let mut swapped = lines.clone();
    swapped.swap(4, 5);
    refused(swapped.join("\n"), &["line 5 has the words of line 6", "line 6 has the words of line 5"]);
    refused(String::new(), &["line 1 is missing"]);
    scene.write("typed", [0xff, 0xfe]);
    scene.run("share restore --words typed --out new.share").refuses(&["typed is not text"]);
    scene.run("share restore --qr-text typed --words typed --out new.share").code_is(2);
    scene.run("share restore --out new.share").refuses(&["no terminal", "the words", "--words"]);
    scene.write("qr", "KMS-SHARE-1:11");
    scene.run("share restore --qr-text qr --out new.share").refuses(&["the QR code is damaged"]);
    assert!(!scene.path("new.share").exists());

    // Right words, and another bundle or passphrase.
    scene.write(
        "foreign",
        words_of(&{
            print("--share shares/foreign.share --out foreign.html").succeeds();
            scene.read("foreign.html")
        }),
    );
    scene
        .run("share restore --words foreign --out new.share --bundle made/bundle.kms")
        .refuses(&["does not belong to this bundle; nothing was written"]);
    assert!(!scene.path("new.share").exists());
    scene.write("right", &right);
    let verified = "share restore --words right --bundle made/bundle.kms --out";
    scene.run(&format!("{verified} new.share --share-passphrase-file bob.passphrase")).refuses(&[
        "new.share was written",
        "was not verified",
        "the passphrase is wrong",
    ]);
    assert_eq!(scene.read("new.share"), scene.read("shares/bob.share"), "nobody types all words again");
    scene.run(&format!("{verified} two.share")).refuses(&["two.share was written", "no terminal"]);
}

/// A person at a terminal, made by `script` (util-linux).
#[test]
fn a_person_types_the_lines_and_hears_of_an_error_at_once() {
    let scene = Scene::accepted(Suite::Sm);
    scene.run("share print --share shares/erin.share --out page.html").succeeds();
    let page = words_of(&scene.read("page.html"));
    let mut lines: Vec<String> = page.trim().lines().map(str::to_owned).collect();
    let wrong = lines[5].rsplit_once(' ').expect("words").0.to_owned();
    lines.insert(5, wrong);
    let binary = env!("CARGO_BIN_EXE_kms-ceremony");
    let mut child = scene
        .command("script")
        .args(["-qec", &format!("{binary} share restore --out typed.share"), "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script (util-linux) is needed for this test");
    child.stdin.take().expect("is piped").write_all((lines.join("\n") + "\n").as_bytes()).expect("it reads");
    let ran = Ran::of(child.wait_with_output().expect("it ends")).succeeds();
    for word in
        ["line 1: ", "line 6 of 15: ", "line 6 has 7 words, it must have 8", "compare these eight words"]
    {
        assert!(ran.stdout.contains(word), "{word} in {ran:?}");
    }
    assert_eq!(scene.read("typed.share"), scene.read("shares/erin.share"));
}
