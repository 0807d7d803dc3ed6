//! Where a secret must not be: in files, logs and answers, and in the memory of a sealed server.

use crate::known_secrets::{QuorumSecrets, node_key, passphrases, tls_keys};
use crate::memory;
use crate::own_process;
use crate::scan::{KnownSecret, Scanner, files_in};
use crate::workload::context;
use aes_kw::KwpAes256;
use aes_kw::cipher::KeyInit;
use kms_core::pair::PairPublicKey;
use kms_core::suite::Suite;
use kms_hsm::{PinPurpose, encrypt_to};
use kms_proto::v1;
use kms_tests::rpc::refused;
use kms_tests::{Custodian, Deployment, Finished, JoinStream, Module, Options, Rpc, Started};
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a seal may take until connections and their buffers are gone too.
const SEALED_MAX: Duration = Duration::from_secs(10);

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
    secrets.extend(be_refused(&deployment).await);
    hold_ceremonies(&deployment).await;
    handle_shares(&deployment);
    secrets.extend(use_keys(&deployment).await);
    write_what_is_shown(&deployment).await;
    deployment.terminate();

    let quorum = QuorumSecrets::of(&deployment);
    secrets.extend(quorum.all());
    secrets.extend(quorum.identity_keys());
    secrets.extend(quorum.in_the_hsm(&deployment).await);
    secrets.extend(passphrases(&deployment));
    secrets.push(node_key(&deployment));
    secrets.extend(tls_keys(&deployment));
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
    if let Some(owner) = name.strip_prefix("the TLS key of ") {
        return Some(deployment.state("certificates").join(format!("{owner}.key")));
    }
    match name {
        "the node's private key" => Some(deployment.state("node/node.key")),
        "a planted secret" => Some(deployment.folder().join("planted")),
        _ => None,
    }
}

/// Keeps what a tool said where the scan looks. The tool has done its work.
fn keep(deployment: &Deployment, finished: Finished) {
    let path = deployment.folder().join("said-by-tools");
    let mut file = fs::File::options().create(true).append(true).open(path).expect("a file");
    let Finished { line, stdout, stderr, .. } = finished.ended_with(0);
    writeln!(file, "{line}\n{stdout}\n{stderr}").expect("what a tool said is written");
}

/// Uses keys of both kinds and gives the secrets that went over the wire.
async fn use_keys(deployment: &Deployment) -> Vec<KnownSecret> {
    let mut app = Rpc::connect(deployment, "app").await;
    let mut secrets = Vec::new();
    for (protection, spec) in [("wrapped", "aes-256"), ("wrapped", "sm4"), ("resident", "aes-256")] {
        let name = format!("{protection}-{}", getrandom::u32().expect("random bytes"));
        let create = ["key", "create", name.as_str(), "--spec", spec, "--protection", protection];
        keep(deployment, deployment.kms("admin", &create));
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
                recipient: None,
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
            keep(deployment, deployment.kms("admin", &["key", "rotate", &name]));
        }
    }
    for protection in ["wrapped", "resident"] {
        let name = format!("mac-{protection}-{}", getrandom::u32().expect("random bytes"));
        let create = ["key", "create", name.as_str(), "--spec", "hmac-sha-384", "--protection", protection];
        keep(deployment, deployment.kms("admin", &create));
        let message = format!("the message {:032x}", u128::from(getrandom::u64().expect("random bytes")));
        let message = message.into_bytes();
        let generate = v1::GenerateMacRequest { key: name.clone(), message: message.clone() };
        let mac = app.crypto.generate_mac(generate).await.expect("a MAC").into_inner().mac;
        let verify = v1::VerifyMacRequest { key: name.clone(), message: message.clone(), mac: mac.clone() };
        app.crypto.verify_mac(verify).await.expect("the right MAC");
        let mut wrong = mac.clone();
        wrong[0] ^= 1;
        let verify = v1::VerifyMacRequest { key: name.clone(), message: message.clone(), mac: wrong };
        app.crypto.verify_mac(verify).await.expect_err("a wrong MAC");
        secrets.push(KnownSecret::new(format!("a message under {name}"), message));
        // The refusal of a wrong one must not tell the right one.
        secrets.push(KnownSecret::new(format!("a MAC under {name}"), mac));
    }
    secrets.extend(encrypt_raw(deployment, &mut app).await);
    secrets.extend(keep_data_keys(deployment, &mut app).await);
    secrets.extend(bring_keys(deployment).await);
    let random = app.crypto.generate_random(v1::GenerateRandomRequest { byte_count: 64 }).await;
    secrets.push(KnownSecret::new("random bytes for a caller", random.expect("random").into_inner().random));
    secrets
}

/// A text that is encrypted without a header, opened, and refused once.
async fn encrypt_raw(deployment: &Deployment, app: &mut Rpc) -> Vec<KnownSecret> {
    let name = format!("raw-{}", getrandom::u32().expect("random bytes"));
    let create = ["key", "create", name.as_str(), "--spec", "aes-256-cbc-hmac-sha-512"];
    keep(deployment, deployment.kms("admin", &create));
    let text = format!("the raw text {:032x}", u128::from(getrandom::u64().expect("random bytes")));
    let encrypt = v1::RawEncryptRequest {
        key: name.clone(),
        plaintext: text.clone().into_bytes(),
        ..v1::RawEncryptRequest::default()
    };
    let made = app.crypto.raw_encrypt(encrypt).await.expect("a ciphertext").into_inner();
    let mut decrypt = v1::RawDecryptRequest {
        key: name.clone(),
        ciphertext: made.ciphertext,
        initialization_vector: made.initialization_vector,
        tag: made.tag,
        ..v1::RawDecryptRequest::default()
    };
    app.crypto.raw_decrypt(decrypt.clone()).await.expect("it opens");
    decrypt.tag[0] ^= 1;
    app.crypto.raw_decrypt(decrypt).await.expect_err("a wrong tag");
    vec![KnownSecret::new(format!("a caller's text under {name}"), text.into_bytes())]
}

/// A registered data key, given out twice.
async fn keep_data_keys(deployment: &Deployment, app: &mut Rpc) -> Vec<KnownSecret> {
    let mut admin = Rpc::connect(deployment, "admin").await;
    let name = format!("registered-{}", getrandom::u32().expect("random bytes"));
    let key = v1::CreateKeyRequest {
        name: format!("{name}-key"),
        spec: v1::KeySpec::Aes256.into(),
        ..v1::CreateKeyRequest::default()
    };
    admin.keys.create_key(key).await.expect("a key");
    let create = v1::CreateDataKeyRequest {
        name: name.clone(),
        key: format!("{name}-key"),
        ..v1::CreateDataKeyRequest::default()
    };
    admin.data_keys.create_data_key(create).await.expect("a data key");
    let mut secrets = Vec::new();
    for version in 1..=2 {
        let get = v1::GetDataKeyRequest { name: name.clone(), ..v1::GetDataKeyRequest::default() };
        let got = app.data_keys.get_data_key(get).await.expect("it is given out").into_inner();
        assert_eq!(got.version, version);
        secrets.push(KnownSecret::new(format!("version {version} of {name}"), got.plaintext));
        let rotate = v1::RotateDataKeyRequest { name: name.clone(), ..v1::RotateDataKeyRequest::default() };
        admin.data_keys.rotate_data_key(rotate).await.expect("rotates");
    }
    secrets
}

/// Keys from elsewhere, and the keys that they were wrapped under: taken, and refused once.
async fn bring_keys(deployment: &Deployment) -> Vec<KnownSecret> {
    let mut admin = Rpc::connect(deployment, "admin").await;
    let mut secrets = Vec::new();
    for protection in [v1::Protection::HsmResident, v1::Protection::HsmWrapped] {
        let name = format!("brought-{}", getrandom::u32().expect("random bytes"));
        let asked = v1::GetImportParametersRequest::default();
        let parameters = admin.keys.get_import_parameters(asked).await.expect("parameters").into_inner();
        let (mut transport, mut material) = ([0; 32], [0; 32]);
        getrandom::fill(&mut transport).expect("random bytes");
        getrandom::fill(&mut material).expect("random bytes");
        let public = PairPublicKey::from_spki(&parameters.public_key).expect("a public key");
        let mut wrapped = [0; 40];
        KwpAes256::new(&transport.into()).wrap_key(&material, &mut wrapped).expect("wraps");
        let mut import = v1::ImportKeyMaterialRequest {
            import_id: parameters.import_id,
            key: Some(v1::CreateKeyRequest {
                name: name.clone(),
                spec: v1::KeySpec::Aes128.into(),
                protection: protection.into(),
                ..v1::CreateKeyRequest::default()
            }),
            wrapped_material: [encrypt_to(&public, &transport).expect("encrypts").as_slice(), &wrapped]
                .concat(),
            check_value: vec![],
        };
        let refused = refused(admin.keys.import_key_material(import.clone()).await);
        assert_eq!(refused.reason, "IMPORT_INVALID", "another length: {refused:?}");
        import.key.as_mut().expect("a key").spec = v1::KeySpec::Aes256.into();
        admin.keys.import_key_material(import).await.expect("is taken");
        secrets.push(KnownSecret::new(format!("the key that was brought as {name}"), material.to_vec()));
        secrets.push(KnownSecret::new(format!("the key around {name}"), transport.to_vec()));
    }
    secrets
}

/// Refusals are written down too, and must not quote what was refused. Gives what that was.
async fn be_refused(deployment: &Deployment) -> Vec<KnownSecret> {
    let name = "refusing";
    let create = ["key", "create", name, "--spec", "aes-256", "--protection", "resident"];
    keep(deployment, deployment.kms("admin", &create));
    let mut app = Rpc::connect(deployment, "app").await;
    let mut admin = Rpc::connect(deployment, "admin").await;
    let mut secrets = Vec::new();
    // Short and repeated, so that a sentence that quotes any part of a text holds all of it.
    let mut text = |what: &str, len: usize| -> Vec<u8> {
        let text = format!("{:016x}", getrandom::u64().expect("random bytes")).into_bytes();
        secrets.push(KnownSecret::new(format!("a caller's text {what}"), text.clone()));
        text.into_iter().cycle().take(len).collect()
    };
    let encrypt = |plaintext| v1::EncryptRequest { key: name.into(), plaintext, context: context() };

    let changed = encrypt(text("whose ciphertext was changed", 48));
    let mut ciphertext = app.crypto.encrypt(changed).await.expect("a ciphertext").into_inner().ciphertext;
    *ciphertext.last_mut().expect("not empty") ^= 1;
    let decrypt = v1::DecryptRequest { ciphertext, context: context(), expected_key: String::new() };
    refused(app.crypto.decrypt(decrypt.clone()).await);
    refused(admin.crypto.decrypt(decrypt).await);

    refused(app.crypto.encrypt(encrypt(text("that was too long", (64 << 10) + 1))).await);
    refused(admin.crypto.encrypt(encrypt(text("of the wrong role", 48))).await);
    let unknown = v1::EncryptRequest { key: "unknown".into(), ..encrypt(text("for no key", 48)) };
    refused(app.crypto.encrypt(unknown).await);
    // In the place of a ciphertext: a caller who mixed the two up.
    let ciphertext = text("that is no ciphertext", 48);
    let decrypt = v1::DecryptRequest { ciphertext, context: context(), expected_key: String::new() };
    refused(app.crypto.decrypt(decrypt).await);
    secrets
}

/// A seal, a custodian with another one's share, an unseal, and a signature of the core key.
async fn hold_ceremonies(deployment: &Deployment) {
    keep(deployment, deployment.kms("custodian-3", &["seal"]));
    let (first, second) =
        (Custodian::open(deployment, "custodian-1"), Custodian::open(deployment, "custodian-2"));
    let stream = JoinStream::start_service(deployment, &first.name).await.expect("a ceremony");
    let wrong = first.answer_with(&stream.offer, &second.shares);
    assert_eq!(stream.refusal_of(&wrong).await.reason, "SHARE_INVALID");
    for finished in deployment.two_custodians(&["unseal", "--wait", "60"]) {
        keep(deployment, finished);
    }

    let signed = deployment.folder().join("to-be-signed");
    fs::write(&signed, "a file for the core key").expect("a file");
    let sign = |name: &str| {
        let mut arguments: Vec<OsString> = vec!["core".into(), "sign".into(), signed.clone().into()];
        arguments.extend(["--out".into(), deployment.folder().join(format!("{name}.signature")).into()]);
        arguments.extend(deployment.as_custodian(&[], name));
        deployment.start_ceremony(&arguments)
    };
    for finished in ["custodian-1", "custodian-2"].map(sign).map(Started::finish) {
        keep(deployment, finished);
    }
}

/// What custodians do without the service. `dev` does it too, and throws away what its tools say.
fn handle_shares(deployment: &Deployment) {
    let name = "custodian-1";
    let (bundle, passphrase) = (deployment.bundle_file(), deployment.custodian_file(name, "passphrase"));
    let run = |words: &[&str], options: &[(&str, &Path)]| {
        let mut arguments: Vec<OsString> = words.iter().map(OsString::from).collect();
        for (option, path) in options {
            arguments.extend([OsString::from(option), path.as_os_str().to_owned()]);
        }
        keep(deployment, deployment.ceremony(&arguments));
    };
    let again = deployment.folder().join("again");
    let enroll = ["enroll", "--name", "newcomer", "--suite", deployment.options().suite.name()];
    run(&enroll, &[("--out", &again), ("--passphrase-file", &passphrase)]);
    let (delivery, identity) =
        (deployment.state(&format!("ceremony/{name}.delivery")), deployment.custodian_file(name, "identity"));
    let accept: [(&str, &Path); 6] = [
        ("--delivery", &delivery),
        ("--identity", &identity),
        ("--bundle", &bundle),
        ("--out", &again),
        ("--passphrase-file", &passphrase),
        ("--share-passphrase-file", &passphrase),
    ];
    run(&["share", "accept"], &accept);
    let share = again.join(format!("{name}.share"));
    let verify: [(&str, &Path); 4] = [
        ("--share", &share),
        ("--identity", &identity),
        ("--bundle", &bundle),
        ("--share-passphrase-file", &passphrase),
    ];
    run(&["share", "verify"], &verify);
    let transcript = deployment.state("ceremony/transcript.kms");
    run(&["bundle", "show", &bundle.to_string_lossy()], &[]);
    run(&["transcript", "verify", &transcript.to_string_lossy()], &[("--bundle", &bundle)]);
}

/// Answers that people keep: an export of the log, metrics, and what the command line prints.
async fn write_what_is_shown(deployment: &Deployment) {
    let export = deployment.folder().join("export");
    keep(deployment, deployment.kms("auditor", &[Path::new("audit"), Path::new("export"), &export]));
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
    for name in [
        "the core",
        "the start",
        "the PIN of the operations SO",
        "the PIN of the core user",
        "the PIN of the core SO",
    ] {
        assert!(secrets.iter().any(|secret| secret.name.starts_with(name)), "{name} is looked for");
        assert!(!is_there(name), "a server is never given what is called {name} ...");
    }
    drop(quorum.pin(PinPurpose::OperationsUser));

    deployment.kms("admin", &["seal"]).done();
    // Connections and their buffers end a moment after the clients.
    let end = Instant::now() + SEALED_MAX;
    let sealed = loop {
        let found = memory::scan(server, &scanner);
        if found.is_empty() || Instant::now() >= end {
            break found;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    for one in &sealed {
        eprintln!("{} at {:x} in {}\n  {}", one.hit.name, one.hit.offset, one.mapping, one.around);
    }
    assert!(sealed.is_empty(), "a sealed server still holds {} secrets", sealed.len());
}
