//! Where a secret must not be: in files, logs and answers, and in the memory of a sealed server.

use crate::known_secrets::{QuorumSecrets, node_key, passphrases};
use crate::memory;
use crate::own_process;
use crate::scan::{KnownSecret, Scanner, files_in};
use crate::workload::context;
use kms_core::suite::Suite;
use kms_hsm::PinPurpose;
use kms_proto::v1;
use kms_tests::rpc::refused;
use kms_tests::{Custodian, Deployment, JoinStream, Module, Options, Rpc};
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::Duration;

#[test]
fn nothing_stored_or_written_holds_a_secret() {
    own_process::run("secrets::nothing_stored_or_written_holds_a_secret", || {
        runtime().block_on(look_at_files());
    });
}

#[test]
fn a_sealed_server_holds_no_key_in_memory() {
    own_process::run("secrets::a_sealed_server_holds_no_key_in_memory", || {
        runtime().block_on(look_at_memory());
    });
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads")
}

async fn look_at_files() {
    let options = Options {
        module: Module::SoftHsm,
        suite: Suite::Intl,
        // As much as the server and its libraries can be made to say.
        environment: vec![("RUST_LOG".into(), "trace".into())],
        ..Options::default()
    };
    let deployment = Deployment::start(options);
    own_process::use_tokens_of(&deployment);
    let mut secrets = use_keys(&deployment).await;
    be_refused(&deployment).await;
    hold_ceremonies(&deployment).await;
    secrets.extend(use_keys(&deployment).await);
    write_what_is_shown(&deployment).await;
    deployment.terminate();

    let quorum = QuorumSecrets::of(&deployment);
    secrets.extend(quorum.all());
    secrets.extend(quorum.identity_keys());
    secrets.extend(quorum.in_the_hsm(&deployment).await);
    secrets.extend(passphrases(&deployment));
    secrets.push(node_key(&deployment));
    let planted = KnownSecret::new("a planted secret", *b"it is here so that it is found");
    fs::write(deployment.folder().join("planted"), &planted.bytes).expect("a file");
    secrets.push(planted);

    let scanner = Scanner::of_all_forms(&secrets);
    let (mut at_home, mut file_count) = (Vec::new(), 0);
    for path in files_in(deployment.folder()) {
        // SoftHSM is the HSM here: what it keeps, it keeps sealed by its own means.
        if path.starts_with(deployment.state("tokens")) {
            continue;
        }
        file_count += 1;
        for hit in scanner.find_in_file(&path) {
            let is_home = home(&deployment, &hit.name).is_some_and(|home| home == path);
            assert!(is_home, "{} holds {} as {}, at {}", path.display(), hit.name, hit.form, hit.offset);
            at_home.push(hit.name);
        }
    }
    at_home.sort();
    at_home.dedup();
    let mut with_home: Vec<_> = secrets.iter().map(|secret| secret.name.clone()).collect();
    with_home.retain(|name| home(&deployment, name).is_some());
    with_home.sort();
    assert_eq!(at_home, with_home, "what has its place in a file was found there");
    eprintln!("{} secrets in {file_count} files; only in their own: {at_home:?}", secrets.len());
}

/// The one file in which a secret has to be.
fn home(deployment: &Deployment, name: &str) -> Option<std::path::PathBuf> {
    if let Some(custodian) = name.strip_prefix("the passphrase of ") {
        // Only `dev` writes passphrases down: its custodians are files.
        return Some(deployment.custodian_file(custodian, "passphrase"));
    }
    match name {
        "the node's private key" => Some(deployment.state("node/node.key")),
        "a planted secret" => Some(deployment.folder().join("planted")),
        _ => None,
    }
}

/// Uses keys of both kinds and gives the secrets that went over the wire.
async fn use_keys(deployment: &Deployment) -> Vec<KnownSecret> {
    let mut app = Rpc::connect(deployment, "app").await;
    let mut secrets = Vec::new();
    for (protection, spec) in [("wrapped", "aes-256"), ("wrapped", "sm4"), ("resident", "aes-256")] {
        let name = format!("{protection}-{}", getrandom::u32().expect("random bytes"));
        let create = ["key", "create", name.as_str(), "--spec", spec, "--protection", protection];
        deployment.kms("admin", &create).done();
        for _ in 0..2 {
            let generate = v1::GenerateDataKeyRequest {
                key: name.clone(),
                context: context(),
                ..v1::GenerateDataKeyRequest::default()
            };
            let made = app.crypto.generate_data_key(generate).await.expect("a data key").into_inner();
            let decrypt = v1::DecryptDataKeyRequest {
                ciphertext: made.ciphertext,
                context: context(),
                expected_key: name.clone(),
            };
            let opened = app.crypto.decrypt_data_key(decrypt).await.expect("it opens").into_inner();
            assert!(opened.plaintext == made.plaintext, "the same data key");
            secrets.push(KnownSecret::new(format!("a data key under {name}"), made.plaintext));

            let text = format!("the plaintext {:032x}", u128::from(getrandom::u64().expect("random bytes")));
            let encrypt = v1::EncryptRequest {
                key: name.clone(),
                plaintext: text.clone().into_bytes(),
                context: context(),
            };
            let made = app.crypto.encrypt(encrypt).await.expect("a ciphertext").into_inner();
            let decrypt = v1::DecryptRequest {
                ciphertext: made.ciphertext,
                context: context(),
                expected_key: String::new(),
            };
            app.crypto.decrypt(decrypt).await.expect("it opens");
            secrets.push(KnownSecret::new(format!("a caller's text under {name}"), text.into_bytes()));
            deployment.kms("admin", &["key", "rotate", &name]).done();
        }
    }
    secrets
}

/// Refusals are written down too, and must not quote what was refused.
async fn be_refused(deployment: &Deployment) {
    let name = "refusing";
    deployment.kms("admin", &["key", "create", name, "--spec", "aes-256", "--protection", "resident"]).done();
    let mut app = Rpc::connect(deployment, "app").await;
    let encrypt =
        |len| v1::EncryptRequest { key: name.into(), plaintext: vec![b'p'; len], context: context() };
    let mut ciphertext = app.crypto.encrypt(encrypt(40)).await.expect("a ciphertext").into_inner().ciphertext;
    refused(app.crypto.encrypt(encrypt((64 << 10) + 1)).await);
    *ciphertext.last_mut().expect("not empty") ^= 1;
    let decrypt = v1::DecryptRequest { ciphertext, context: context(), expected_key: String::new() };
    refused(app.crypto.decrypt(decrypt.clone()).await);
    let mut admin = Rpc::connect(deployment, "admin").await;
    refused(admin.crypto.decrypt(decrypt).await);
}

/// A seal, a custodian with another one's share, an unseal, and a signature of the core key.
async fn hold_ceremonies(deployment: &Deployment) {
    deployment.kms("custodian-3", &["seal"]).done();
    let (first, second) =
        (Custodian::open(deployment, "custodian-1"), Custodian::open(deployment, "custodian-2"));
    let stream = JoinStream::start_service(deployment, &first.name).await.expect("a ceremony");
    let wrong = first.answer_with(&stream.offer, &second.shares);
    assert_eq!(stream.refusal_of(&wrong).await.reason, "SHARE_INVALID");
    deployment.unseal();

    let signed = deployment.folder().join("to-be-signed");
    fs::write(&signed, "a file for the core key").expect("a file");
    let sign = |name: &str| {
        let mut arguments: Vec<OsString> = vec!["core".into(), "sign".into(), signed.clone().into()];
        arguments.extend(["--out".into(), deployment.folder().join(format!("{name}.signature")).into()]);
        arguments.extend(deployment.as_custodian(&[], name));
        deployment.start_ceremony(&arguments)
    };
    for started in ["custodian-1", "custodian-2"].map(sign) {
        started.finish().done();
    }
}

/// Answers that people keep: an export of the log, metrics, and what the command line prints.
async fn write_what_is_shown(deployment: &Deployment) {
    let export = deployment.folder().join("export");
    deployment.kms("auditor", &[Path::new("audit"), Path::new("export"), &export]).done();
    let mut shown = String::new();
    for (profile, arguments) in [
        ("admin", ["key", "list"]),
        ("admin", ["--output=json", "status"]),
        ("auditor", ["audit", "list"]),
        ("auditor", ["audit", "verify"]),
    ] {
        shown += &deployment.kms(profile, &arguments).done();
    }
    shown += &crate::metrics::text(deployment, "auditor").await;
    fs::write(deployment.folder().join("shown"), shown).expect("a file");
}

async fn look_at_memory() {
    let options = Options { module: Module::SoftHsm, suite: Suite::Intl, ..Options::default() };
    let deployment = Deployment::start(options);
    own_process::use_tokens_of(&deployment);
    let mut secrets = use_keys(&deployment).await;
    let quorum = QuorumSecrets::of(&deployment);
    secrets.extend(quorum.all());
    secrets.extend(quorum.in_the_hsm(&deployment).await);
    let scanner = Scanner::of_bytes(&secrets);

    // The scan finds a buffer of this process, and in the unsealed server what it works with.
    let planted = secrets[0].bytes.clone().into_boxed_slice();
    let here = memory::scan(std::process::id(), &scanner);
    assert!(
        here.iter().any(|one| one.hit.offset == planted.as_ptr() as usize),
        "the planted buffer is found"
    );
    let server = deployment.server_id();
    let unsealed = memory::scan(server, &scanner);
    let is_there = |name: &str| unsealed.iter().any(|one| one.hit.name.starts_with(name));
    assert!(is_there("the PIN of the operations user"), "an unsealed server keeps its PIN");
    assert!(is_there("the material of "), "an unsealed server keeps the material of wrapped keys");
    assert!(!is_there("the core") && !is_there("the start"), "quorum secrets never reach the server");
    drop(quorum.pin(PinPurpose::OperationsUser));

    deployment.kms("admin", &["seal"]).done();
    // Connections and their buffers end a moment after the clients.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let sealed = memory::scan(server, &scanner);
    for one in &sealed {
        eprintln!("{} at {:x} in {}\n  {}", one.hit.name, one.hit.offset, one.mapping, one.around);
    }
    assert!(sealed.is_empty(), "a sealed server still holds {} secrets", sealed.len());
}
