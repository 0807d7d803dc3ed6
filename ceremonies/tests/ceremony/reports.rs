//! `transcript verify --report`: the document that people file, and what is said of a transcript that was changed.

use crate::scene::{CUSTODIANS, Scene};
use kms_core::codec;
use kms_core::suite::Suite;
use kms_core::transcript::{SignedTranscript, Transcript};
use kms_core::words;

const VERIFY: &str = "transcript verify made/transcript.kms --bundle made/bundle.kms";

#[test]
fn a_verified_transcript_becomes_a_document_in_both_languages() {
    let scene = Scene::initialised(Suite::Sm);
    let fingerprint = scene.bundle().fingerprint;
    let plan = Suite::Sm.hash(&[scene.plan().as_bytes()]);
    let signed: SignedTranscript =
        codec::open_armour(scene.read("made/transcript.kms").as_bytes()).expect("init wrote it");
    let transcript: Transcript = codec::open(&signed.body).expect("init wrote it");
    let enrolment = scene.run("share inspect enrolments/erin.enrolment").succeeds().stdout;
    let erin = enrolment
        .lines()
        .find_map(|line| line.strip_prefix("in words         "))
        .expect("has words")
        .to_owned();
    for (name, language, said) in [
        (
            "en.md",
            "en",
            [
                "# Protocol of the init ceremony",
                "not compared",
                "two quorum secrets made and split",
                "led by",
            ],
        ),
        (
            "en.html",
            "en",
            [
                "<h1>Protocol of the init ceremony</h1>",
                "not compared",
                "two quorum secrets made and split",
                "led by",
            ],
        ),
        ("zh.md", "zh", ["# 初始化仪式记录", "未核对", "已生成两个门限秘密并拆分", "主持人"]),
        ("zh.html", "zh", ["<h1>初始化仪式记录</h1>", "未核对", "已生成两个门限秘密并拆分", "主持人"]),
    ] {
        scene.run(&format!("{VERIFY} --report {name} --language {language}")).succeeds();
        let report = scene.read(name);
        let common = [
            words::spoken(&fingerprint),
            words::grouped(&fingerprint),
            words::spoken_of_plan(&plan),
            erin.clone(),
        ];
        for word in said.into_iter().chain(common.iter().map(String::as_str)).chain(CUSTODIANS) {
            assert!(report.contains(word), "{word} in {report}");
        }
        assert!(!report.contains("（原文）"), "every step of init has a translation: {report}");
        let last = ceremonies::html::time(transcript.steps.last().expect("steps").time);
        assert!(last.ends_with(" UTC") && report.contains(&last), "{last} in {report}");
        for outside in ["src=", "href=", "http:", "https:", "<script"] {
            assert!(!report.contains(outside), "{outside} in {report}");
        }
    }
    let with_plan = scene.run(&format!("{VERIFY} --plan plan.toml --report plan.md")).succeeds();
    assert!(with_plan.stdout.contains("plan.md: print it, sign it"), "{with_plan:?}");
    assert!(scene.read("plan.md").contains("compared: it is the one that was carried out"));
    scene.run(&format!("{VERIFY} --report plan.md")).refuses(&["plan.md is there already"]);
}

#[test]
fn a_transcript_that_was_changed_is_refused_by_step_and_gives_no_report() {
    let scene = Scene::initialised(Suite::Sm);
    let signed: SignedTranscript =
        codec::open_armour(scene.read("made/transcript.kms").as_bytes()).expect("init wrote it");
    let transcript: Transcript = codec::open(&signed.body).expect("init wrote it");
    let refused = |change: &dyn Fn(&mut Transcript), words: &[&str]| {
        let mut changed = transcript.clone();
        change(&mut changed);
        let forged = SignedTranscript { body: codec::to_bytes(&changed), ..signed.clone() };
        scene.write("forged.kms", codec::to_armour(&forged));
        scene
            .run("transcript verify forged.kms --bundle made/bundle.kms --report report.html")
            .refuses(&[&["forged.kms is refused", "not signed by the core key"], words].concat());
        assert!(!scene.path("report.html").exists());
    };
    let followed = ["step 5 does not follow from step 4"];
    refused(&|changed| changed.steps[3].what = "custodian mallory".to_owned(), &followed);
    refused(&|changed| changed.steps[3].time.0 += 1, &followed);
    refused(&|changed| drop(changed.steps.remove(3)), &["step 4 does not follow from step 3"]);
    refused(&|changed| changed.steps.swap(0, 1), &["step 1 does not follow from the plan's digest"]);
    refused(&|changed| changed.plan.0[0] ^= 1, &["step 1 does not follow from the plan's digest"]);
    refused(&|changed| drop(changed.steps.pop()), &["its steps follow from each other"]);
    scene.run(&format!("{VERIFY} --report report.pdf")).refuses(&["--report report.pdf", ".md or .html"]);
    scene.run(&format!("{VERIFY} --report r.md --language de")).code_is(2);
    scene.write("other.toml", scene.plan() + "# later");
    scene.run(&format!("{VERIFY} --plan other.toml --report r.md")).refuses(&["other.toml is not the plan"]);
    assert!(!scene.path("r.md").exists());
}
