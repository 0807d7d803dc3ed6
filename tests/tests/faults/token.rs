//! A token that goes away, and a token whose PIN somebody changed.

use crate::known_secrets::QuorumSecrets;
use kms_hsm::{Pin, PinPurpose};
use kms_proto::v1;
use kms_tests::{Deployment, Finished, Options, Outsider, Rpc, audit};
use std::fs;
use std::time::{Duration, Instant};

/// The label of the token whose PIN is changed.
const OPERATIONS: &str = "kms-operations";
/// After so many wrong PINs the simulator locks.
const PIN_FAILURES_MAX: usize = 10;
/// How often an idle HSM is asked for a sign of life, and some more.
const HEARTBEAT: Duration = Duration::from_secs(7);

/// `pkcs11-tool` on the operations token.
pub fn pkcs11_tool(deployment: &Deployment, arguments: &[&str]) -> Finished {
    let all = [&["--token-label", OPERATIONS], arguments].concat();
    Outsider::of(deployment).pkcs11_tool(&all)
}

fn text(pin: &Pin) -> String {
    String::from_utf8(pin.expose().to_vec()).expect("a derived PIN is text")
}

/// The security officer gives the user another PIN.
fn set_user_pin(deployment: &Deployment, so_pin: &str, user_pin: &str) {
    let arguments =
        ["--login", "--login-type", "so", "--so-pin", so_pin, "--init-pin", "--new-pin", user_pin];
    pkcs11_tool(deployment, &arguments).done();
}

fn token_has_flag(deployment: &Deployment, flag: &str) -> bool {
    Outsider::of(deployment).token_flags()[OPERATIONS].contains(flag)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_pin_is_never_tried_again() {
    let deployment = Deployment::start(Options::default());
    let quorum = QuorumSecrets::of(&deployment);
    let (so_pin, user_pin) =
        (text(&quorum.pin(PinPurpose::OperationsSo)), text(&quorum.pin(PinPurpose::OperationsUser)));
    let (other_pin, wrong_pin) = ("another PIN of the user", "a wrong PIN");
    deployment.kms("admin", &["seal"]).done();
    set_user_pin(&deployment, &so_pin, other_pin);
    assert!(!token_has_flag(&deployment, "user PIN count low"), "no attempt was made yet");

    for finished in deployment.two_custodians(&["unseal", "--wait", "60"]) {
        assert_ne!(finished.code, 0, "the node did not open");
        assert!(finished.stderr.contains("CEREMONY_FAILED"), "{}", finished.stderr);
    }
    assert!(deployment.log().contains("the token refused the PIN"), "{}", deployment.log());
    // Long enough for everything that repeats itself.
    tokio::time::sleep(HEARTBEAT).await;
    let mut admin = Rpc::connect(&deployment, "admin").await;
    let status = admin.system.get_status(v1::GetStatusRequest {}).await.expect("it lives on").into_inner();
    assert_eq!(status.seal_state, v1::SealState::Sealed as i32);

    // Exactly one attempt was spent: with all but one of the others the PIN is not locked, with the last it is.
    assert!(token_has_flag(&deployment, "user PIN count low"));
    let try_wrong_pin =
        || pkcs11_tool(&deployment, &["--login", "--pin", wrong_pin, "--list-objects"]).ended_with(1);
    for _ in 0..PIN_FAILURES_MAX - 2 {
        try_wrong_pin().says("CKR_PIN_INCORRECT");
    }
    assert!(!token_has_flag(&deployment, "user PIN locked"), "the server made more than one attempt");
    try_wrong_pin();
    assert!(token_has_flag(&deployment, "user PIN locked"), "the server made no attempt");

    // A locked PIN is seen before it is tried, and the right one opens the node once it is back.
    for finished in deployment.two_custodians(&["unseal", "--wait", "60"]) {
        assert!(finished.stderr.contains("CEREMONY_FAILED"), "{}", finished.stderr);
    }
    set_user_pin(&deployment, &so_pin, &user_pin);
    deployment.unseal();
    let entries = audit::records_from(&deployment, 0).await;
    let failed = entries.iter().filter(|entry| {
        entry.record.event == "ceremony.service-start"
            && entry.record.outcome == "failed"
            && entry.record.reason.as_deref() == Some("CEREMONY_FAILED")
    });
    assert_eq!(failed.count(), 2, "both failed ceremonies are recorded");
    audit::verify(&deployment);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_token_stays_away_seals_and_says_why() {
    let deployment = Deployment::start(Options::default());
    deployment.kms("admin", &["key", "create", "lasting", "--spec", "sm4"]).done();
    deployment.terminate();
    // `dev` has no setting for the grace, so the same files are served by `run`.
    let configuration = fs::read_to_string(deployment.state("kms.toml")).expect("the configuration");
    let with_grace = configuration.replace("[hsm]\n", "[hsm]\ngrace_seconds = 2\n");
    assert_ne!(with_grace, configuration, "the configuration has a section for the HSM");
    let path = deployment.state("short-grace.toml");
    fs::write(&path, with_grace).expect("the configuration is written");
    let tokens = deployment.state("tokens");
    deployment.run_with(&path);
    wait(&deployment, "the node answers", |_| true).await;
    deployment.unseal();
    let mut app = Rpc::connect(&deployment, "app").await;
    let encrypt = v1::EncryptRequest { key: "lasting".into(), plaintext: b"text".to_vec(), context: vec![] };
    let ciphertext = app.crypto.encrypt(encrypt).await.expect("a ciphertext").into_inner().ciphertext;

    let away = deployment.state("tokens-away");
    fs::rename(&tokens, &away).expect("the token goes");
    let sealed = v1::SealState::Sealed as i32;
    let status = wait(&deployment, "the node seals itself", |status| status.seal_state == sealed).await;
    assert!(status.sealed_reason.contains("token stayed away"), "{}", status.sealed_reason);
    let shown = deployment.kms("admin", &["status"]).stdout;
    assert!(shown.contains("token stayed away"), "{shown}");

    // Opening fails while the token is away, and the node lives on.
    for finished in deployment.two_custodians(&["unseal", "--wait", "60"]) {
        assert!(finished.stderr.contains("CEREMONY_FAILED"), "{}", finished.stderr);
    }
    assert!(deployment.is_running(), "the node lives on");
    fs::rename(&away, &tokens).expect("the token comes back");
    deployment.unseal();
    let decrypt = v1::DecryptRequest { ciphertext, context: vec![], expected_key: String::new() };
    let opened = app.crypto.decrypt(decrypt).await.expect("the key is there again").into_inner();
    assert_eq!(opened.plaintext, b"text");
    let entries = audit::records_from(&deployment, 0).await;
    let says_why = |entry: &audit::LogEntry| {
        entry.record.event == "service.seal"
            && entry.detail("because").is_some_and(|because| because.contains("token stayed away"))
    };
    assert!(entries.iter().any(says_why), "the log says why the node sealed itself");
    audit::verify(&deployment);
}

/// Asks for the status until it is as expected.
pub async fn wait(deployment: &Deployment, what: &str, is_so: impl Fn(&v1::Status) -> bool) -> v1::Status {
    use kms_tests::rpc::ClientCertificate;
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let certificate = ClientCertificate::of(deployment, "admin");
        if let Ok(mut rpc) = Rpc::connect_with(deployment, &certificate).await {
            let status = rpc.system.get_status(v1::GetStatusRequest {}).await.expect("a status").into_inner();
            if is_so(&status) {
                return status;
            }
        }
        assert!(Instant::now() < end, "{what}: not within 30 s");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
