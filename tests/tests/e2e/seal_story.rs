//! A node that starts sealed, and everything that two custodians can do with it and one cannot.

use kms_core::suite::Suite;
use kms_tests::{Deployment, Finished, Module, Options, PinWatch, audit, command};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

const UNSEAL: [&str; 3] = ["unseal", "--wait", "3"];

fn openssl(deployment: &Deployment, file: &str, signature: &str) -> Finished {
    let arguments = match deployment.options().suite {
        Suite::Intl => {
            vec!["dgst", "-sha256", "-verify", "core.pem", "-signature", signature, file]
        }
        Suite::Sm => vec![
            "pkeyutl",
            "-verify",
            "-rawin",
            "-digest",
            "sm3",
            "-pkeyopt",
            "distid:1234567812345678",
            "-pubin",
            "-inkey",
            "core.pem",
            "-sigfile",
            signature,
            "-in",
            file,
        ],
    };
    command::run(Path::new("/usr/bin/openssl"), &arguments, deployment.folder())
}

fn is_sealed(deployment: &Deployment) {
    let status = deployment.kms("admin", &["status"]).ended_with(2);
    assert!(status.stdout.contains("sealed"), "{}", status.stdout);
    deployment
        .kms("admin", &["key", "create", "too-early", "--spec", "sm4"])
        .ended_with(2)
        .says("reason: SEALED")
        .says("0 of 2 custodians present");
}

fn one_custodian_does_not_open(deployment: &Deployment, name: &str) {
    let pins = PinWatch::of(deployment);
    deployment.ceremony(&deployment.as_custodian(&UNSEAL, name)).ended_with(9).says("1 of 2");
    // The tool has gone; the node notices when the connection closes.
    let end = Instant::now() + Duration::from_secs(10);
    let status = || deployment.kms("admin", &["--output", "json", "status"]).ended_with(2).stdout;
    while !status().contains(r#""present":[]"#) {
        assert!(Instant::now() < end, "the share of a custodian who left is still counted");
    }
    pins.no_attempt_was_spent();
    is_sealed(deployment);
}

fn two_custodians_open(deployment: &Deployment) {
    for finished in deployment.two_custodians(&["unseal", "--wait", "30"]) {
        assert!(finished.done().contains("the node is open"));
    }
    deployment.kms("admin", &["status", "--wait", "10"]).done();
}

/// No call of a running, unsealed service uses the core key: only two present custodians do.
fn the_core_key_signs_for_two_and_not_for_one(deployment: &Deployment) {
    let write = |name: &str, text: &str| fs::write(deployment.folder().join(name), text).expect("writes");
    write("statement.txt", "what two people signed");
    write("other.txt", "what nobody signed");
    let alone = ["core", "sign", "statement.txt", "--out", "alone.sig", "--wait", "3"];
    deployment.ceremony(&deployment.as_custodian(&alone, "custodian-1")).ended_with(9).says("1 of 2");
    assert!(!deployment.folder().join("alone.sig").exists(), "a refused ceremony leaves no file");

    let sign = |name: &str, out: &str| {
        let command = ["core", "sign", "statement.txt", "--out", out, "--wait", "30"];
        deployment.start_ceremony(&deployment.as_custodian(&command, name))
    };
    let (first, second) = (sign("custodian-1", "first.sig"), sign("custodian-3", "second.sig"));
    first.finish().done();
    second.finish().done();

    let bundle = deployment.bundle_file();
    let export = ["bundle".as_ref(), "export-core-key".as_ref(), bundle.as_os_str()];
    write("core.pem", &deployment.ceremony(&export).done());
    for signature in ["first.sig", "second.sig"] {
        openssl(deployment, "statement.txt", signature).done();
        let refused = openssl(deployment, "other.txt", signature);
        assert_ne!(refused.code, 0, "the signature verifies for another file");
    }
}

/// Two custodians who want different things signed are one each.
fn two_custodians_with_different_files_do_not_sign(deployment: &Deployment) {
    let pins = PinWatch::of(deployment);
    let sign = |name: &str, file: &str| {
        let out = format!("{name}.different.sig");
        let command = ["core", "sign", file, "--out", &out, "--wait", "3"];
        deployment.start_ceremony(&deployment.as_custodian(&command, name))
    };
    let (first, second) = (sign("custodian-1", "statement.txt"), sign("custodian-2", "other.txt"));
    first.finish().ended_with(9).says("1 of 2");
    second.finish().ended_with(9).says("1 of 2");
    pins.no_attempt_was_spent();
}

/// What was encrypted before an end of the process, however it ended, opens after it.
fn encrypt_some(deployment: &Deployment) {
    fs::write(deployment.folder().join("salaries.txt"), "kept across restarts").expect("writes");
    for (key, protection) in [("payroll", "resident"), ("archive", "wrapped")] {
        let protection = match deployment.options().module {
            Module::Sim => protection,
            // SoftHSM has no SM4.
            Module::SoftHsm => "wrapped",
        };
        let create = ["key", "create", key, "--spec", "sm4", "--protection", protection];
        deployment.kms("admin", &create).done();
        let out = format!("{key}.kms");
        deployment.kms("app", &["encrypt", "--key", key, "--context", "a=b", "salaries.txt", &out]).done();
    }
}

fn decrypt_all(deployment: &Deployment) {
    for key in ["payroll", "archive"] {
        let (sealed, opened) = (format!("{key}.kms"), format!("{key}.opened"));
        deployment.kms("app", &["decrypt", "--context", "a=b", &sealed, &opened]).done();
        let bytes = fs::read(deployment.folder().join(&opened)).expect("reads");
        assert_eq!(bytes, b"kept across restarts");
        let other = deployment.kms("app", &["decrypt", "--context", "a=c", &sealed, "other"]);
        assert_ne!(other.code, 0, "another context opens the file");
        assert!(!deployment.folder().join("other").exists(), "a refused file is not written");
    }
}

fn a_custodian_may_seal_alone(deployment: &Deployment) {
    deployment.kms("custodian-2", &["seal"]).done();
    let status = deployment.kms("admin", &["--output", "json", "status"]).ended_with(2).stdout;
    assert!(status.contains("kms://default/custodian/custodian-2 asked for it"), "{status}");
    deployment.kms("app", &["encrypt", "--key", "payroll", "statement.txt", "x.kms"]).ended_with(2);
}

fn reasons(entries: &[kms_tests::LogEntry], event: &str) -> Vec<String> {
    let ours = entries.iter().filter(|entry| entry.record.event == event);
    ours.filter_map(|entry| entry.detail("because").map(str::to_owned)).collect()
}

async fn every_step_is_in_the_log(deployment: &Deployment) {
    let entries = audit::records_from(deployment, 0).await;
    let count = |event: &str, outcome: &str| {
        let is_it =
            |entry: &&kms_tests::LogEntry| entry.record.event == event && entry.record.outcome == outcome;
        entries.iter().filter(is_it).count()
    };
    assert!(count("service.unseal", "done") >= 3);
    assert_eq!(count("ceremony.core-sign", "done"), 1, "one signature was made");
    assert!(entries.iter().any(|entry| entry.record.event == "key.create" && entry.is_refusal("SEALED")));
    let asked_by = "kms://default/custodian/custodian-2";
    assert!(
        entries.iter().any(|entry| entry.record.event == "system.seal" && entry.record.actor == asked_by)
    );
    let seals = reasons(&entries, "service.seal");
    for because in ["kms://default/custodian/custodian-2 asked for it", "the process is ending"] {
        assert!(seals.iter().any(|seal| seal == because), "no seal because {because:?} in {seals:?}");
    }
    audit::verify(deployment);
}

async fn story(module: Module, suite: Suite) {
    let deployment = Deployment::start(Options { module, suite, sealed: true, ..Options::default() });
    is_sealed(&deployment);
    one_custodian_does_not_open(&deployment, "custodian-1");
    two_custodians_open(&deployment);
    encrypt_some(&deployment);

    assert!(deployment.terminate().success(), "SIGTERM ends the service with exit code 0");
    deployment.start_again();
    is_sealed(&deployment);
    one_custodian_does_not_open(&deployment, "custodian-3");
    two_custodians_open(&deployment);
    decrypt_all(&deployment);

    the_core_key_signs_for_two_and_not_for_one(&deployment);
    two_custodians_with_different_files_do_not_sign(&deployment);
    deployment.kms("app", &["data-key", "generate", "--key", "payroll"]).done();

    a_custodian_may_seal_alone(&deployment);
    two_custodians_open(&deployment);
    every_step_is_in_the_log(&deployment).await;

    deployment.kill9();
    deployment.start_again();
    is_sealed(&deployment);
    two_custodians_open(&deployment);
    decrypt_all(&deployment);
    audit::verify(&deployment);
}

#[tokio::test]
async fn one_custodian_can_seal_and_only_two_can_open_and_sign_on_the_simulator_in_sm() {
    story(Module::Sim, Suite::Sm).await;
}

#[tokio::test]
async fn one_custodian_can_seal_and_only_two_can_open_and_sign_on_softhsm_in_intl() {
    story(Module::SoftHsm, Suite::Intl).await;
}

/// Refused calls are recorded while the log is compared with its head: the node must open all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_opens_while_refused_calls_are_being_recorded() {
    let deployment = Deployment::start(Options { sealed: true, ..Options::default() });
    let is_over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut callers = Vec::new();
    for _ in 0..8 {
        let mut rpc = kms_tests::Rpc::connect(&deployment, "admin").await;
        let is_over = is_over.clone();
        callers.push(tokio::spawn(async move {
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                let request = kms_proto::v1::ListKeysRequest::default();
                let _ = rpc.keys.list_keys(request).await;
            }
        }));
    }
    tokio::task::block_in_place(|| two_custodians_open(&deployment));
    is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    for caller in callers {
        caller.await.expect("a caller ends");
    }
    audit::verify(&deployment);
}
