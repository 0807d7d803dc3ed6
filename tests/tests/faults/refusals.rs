//! What can be known to be wrong without the HSM costs no HSM call.

use crate::metrics::Metrics;
use crate::workload::context;
use kms_core::envelope::{self, Freshness};
use kms_core::id::{KeyId, KeyVersion};
use kms_core::suite::NONCE_LEN;
use kms_proto::v1;
use kms_tests::rpc::refused;
use kms_tests::{Deployment, Options, Rpc};
use std::time::{Duration, Instant};
use tonic::{Response, Status};

/// Operations that only callers cause. The node itself asks for random bytes and for signs of life, and signs
/// checkpoints.
const CALLED_FOR: [&str; 8] = ["seal", "open", "create", "confirm", "mac", "exists", "destroy", "objects"];

/// What the HSM was asked.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    operations: Vec<(&'static str, u64)>,
    /// Signatures that no checkpoint explains.
    signatures: u64,
}

struct Watch<'a> {
    deployment: &'a Deployment,
    asked: Asked,
    refusal_count: u32,
}

impl<'a> Watch<'a> {
    async fn new(deployment: &'a Deployment) -> Self {
        let asked = asked(deployment).await;
        Self { deployment, asked, refusal_count: 0 }
    }

    /// The call was refused for this reason, and the HSM was not asked anything.
    async fn refused<T>(&mut self, what: &str, reason: &str, result: Result<Response<T>, Status>) {
        let refused = refused(result);
        assert_eq!(refused.reason, reason, "{what}: {}", refused.message);
        assert_eq!(asked(self.deployment).await, self.asked, "{what}: the HSM was asked");
        self.refusal_count += 1;
    }
}

async fn asked(deployment: &Deployment) -> Asked {
    let metrics = Metrics::read(deployment, "auditor").await;
    let operations = CALLED_FOR.map(|operation| (operation, metrics.hsm_operations(operation)));
    // There is one checkpoint after the unseal; the next is due a minute or a thousand records later.
    Asked { operations: operations.to_vec(), signatures: metrics.hsm_operations("sign") }
}

/// Keys and ciphertexts to be refused with.
struct Scene {
    /// A wrapped key whose material has not been opened yet.
    never_used: KeyId,
    ciphertext: Vec<u8>,
    wrapped_ciphertext: Vec<u8>,
    data_key: Vec<u8>,
}

impl Scene {
    async fn make(admin: &mut Rpc, app: &mut Rpc) -> Self {
        for (name, protection) in [
            ("resident", v1::Protection::HsmResident),
            ("wrapped", v1::Protection::HsmWrapped),
            ("never-used", v1::Protection::HsmWrapped),
            ("suspended", v1::Protection::HsmResident),
        ] {
            admin.keys.create_key(create(name, protection)).await.expect("a key");
        }
        let suspend = v1::SuspendKeyRequest { key: "suspended".into() };
        admin.keys.suspend_key(suspend).await.expect("suspended");
        let rotate = v1::RotateKeyRequest { key: "resident".into(), idempotency_token: "once".into() };
        admin.keys.rotate_key(rotate).await.expect("rotated");
        let describe = v1::DescribeKeyRequest { key: "never-used".into() };
        let never_used = admin.keys.describe_key(describe).await.expect("described").into_inner();

        let ciphertext = app.crypto.encrypt(encrypt("resident")).await.expect("a ciphertext");
        let wrapped_ciphertext = app.crypto.encrypt(encrypt("wrapped")).await.expect("a ciphertext");
        let data_key = app.crypto.generate_data_key(generate("wrapped")).await.expect("a data key");
        Self {
            never_used: KeyId::parse(&never_used.key_id).expect("a key id"),
            ciphertext: ciphertext.into_inner().ciphertext,
            wrapped_ciphertext: wrapped_ciphertext.into_inner().ciphertext,
            data_key: data_key.into_inner().ciphertext,
        }
    }
}

fn create(name: &str, protection: v1::Protection) -> v1::CreateKeyRequest {
    v1::CreateKeyRequest {
        name: name.into(),
        spec: v1::KeySpec::Sm4.into(),
        protection: protection.into(),
        idempotency_token: String::new(),
    }
}

fn encrypt(key: &str) -> v1::EncryptRequest {
    v1::EncryptRequest { key: key.into(), plaintext: b"text".to_vec(), context: context() }
}

fn decrypt(ciphertext: &[u8]) -> v1::DecryptRequest {
    v1::DecryptRequest { ciphertext: ciphertext.to_vec(), context: context(), expected_key: String::new() }
}

fn generate(key: &str) -> v1::GenerateDataKeyRequest {
    v1::GenerateDataKeyRequest {
        key: key.into(),
        context: context(),
        ..v1::GenerateDataKeyRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_request_costs_no_hsm_call() {
    let deployment = Deployment::start(Options::default());
    let mut admin = Rpc::connect(&deployment, "admin").await;
    let mut app = Rpc::connect(&deployment, "app").await;
    let scene = Scene::make(&mut admin, &mut app).await;
    wait_for_checkpoint(&deployment).await;

    // The watch sees what is not refused.
    let mut watch = Watch::new(&deployment).await;
    app.crypto.decrypt(decrypt(&scene.ciphertext)).await.expect("it opens");
    let after = asked(&deployment).await;
    assert_ne!(after, watch.asked, "opening under a resident key asks the HSM");
    watch.asked = after;

    refuse_keys(&mut watch, &mut admin, &mut app).await;
    refuse_uses(&mut watch, &mut app).await;
    refuse_ciphertexts(&mut watch, &mut app, &scene).await;

    admin.system.seal(v1::SealRequest {}).await.expect("sealed");
    watch.asked = asked(&deployment).await;
    let creation = create("late", v1::Protection::HsmResident);
    watch.refused("sealed: CreateKey", "SEALED", admin.keys.create_key(creation).await).await;
    watch.refused("sealed: Encrypt", "SEALED", app.crypto.encrypt(encrypt("resident")).await).await;
    watch.refused("sealed: Decrypt", "SEALED", app.crypto.decrypt(decrypt(&scene.ciphertext)).await).await;
    let generation = app.crypto.generate_data_key(generate("wrapped")).await;
    watch.refused("sealed: GenerateDataKey", "SEALED", generation).await;
    eprintln!("{} refusals asked the HSM nothing", watch.refusal_count);
}

async fn wait_for_checkpoint(deployment: &Deployment) {
    let end = Instant::now() + Duration::from_secs(10);
    while Metrics::read(deployment, "auditor").await.value("kms_audit_checkpoint_size") == 0 {
        assert!(Instant::now() < end, "there is no checkpoint after the unseal");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn refuse_keys(watch: &mut Watch<'_>, admin: &mut Rpc, app: &mut Rpc) {
    let good = create("new", v1::Protection::HsmResident);
    let changed = |change: &dyn Fn(&mut v1::CreateKeyRequest)| {
        let mut request = good.clone();
        change(&mut request);
        request
    };
    let too_long = "x".repeat(65);
    for (what, reason, request) in [
        ("an empty name", "FIELD_INVALID", changed(&|one| one.name.clear())),
        ("a name with a space", "FIELD_INVALID", changed(&|one| one.name = "a b".into())),
        ("a name that is too long", "FIELD_INVALID", changed(&|one| one.name = too_long.clone())),
        ("no specification", "SPEC_UNSUPPORTED", changed(&|one| one.spec = 0)),
        ("an unknown specification", "SPEC_UNSUPPORTED", changed(&|one| one.spec = 99)),
        ("an unknown protection", "FIELD_INVALID", changed(&|one| one.protection = 9)),
        ("a long token", "FIELD_INVALID", changed(&|one| one.idempotency_token = too_long.clone())),
        ("a name that is taken", "KEY_EXISTS", changed(&|one| one.name = "resident".into())),
    ] {
        watch.refused(what, reason, admin.keys.create_key(request).await).await;
    }
    watch.refused("the wrong role", "NOT_PERMITTED", app.keys.create_key(good).await).await;

    let rotate =
        |key: &str, token: &str| v1::RotateKeyRequest { key: key.into(), idempotency_token: token.into() };
    let unknown = admin.keys.rotate_key(rotate("unknown", "")).await;
    watch.refused("rotating no key", "KEY_NOT_FOUND", unknown).await;
    let suspended = admin.keys.rotate_key(rotate("suspended", "")).await;
    watch.refused("rotating a suspended key", "KEY_STATE_FORBIDS", suspended).await;
    let conflict = admin.keys.rotate_key(rotate("wrapped", "once")).await;
    watch.refused("a token of another request", "IDEMPOTENCY_CONFLICT", conflict).await;
    let role = app.keys.rotate_key(rotate("resident", "")).await;
    watch.refused("rotating with the wrong role", "NOT_PERMITTED", role).await;
    let role = admin.crypto.encrypt(encrypt("resident")).await;
    watch.refused("encrypting with the wrong role", "NOT_PERMITTED", role).await;
}

async fn refuse_uses(watch: &mut Watch<'_>, app: &mut Rpc) {
    for (what, reason, key) in [
        ("no key", "FIELD_INVALID", ""),
        ("an unknown key", "KEY_NOT_FOUND", "unknown"),
        ("an unknown version", "KEY_VERSION_NOT_FOUND", "resident@99"),
        ("a deactivated version", "KEY_STATE_FORBIDS", "resident@1"),
        ("a suspended key", "KEY_STATE_FORBIDS", "suspended"),
    ] {
        watch.refused(what, reason, app.crypto.encrypt(encrypt(key)).await).await;
        watch.refused(what, reason, app.crypto.generate_data_key(generate(key)).await).await;
    }
    let too_much = v1::EncryptRequest { plaintext: vec![0; (64 << 10) + 1], ..encrypt("resident") };
    watch.refused("too long a plaintext", "FIELD_INVALID", app.crypto.encrypt(too_much).await).await;
    let spec = v1::GenerateDataKeyRequest { data_key_spec: 99, ..generate("resident") };
    let spec = app.crypto.generate_data_key(spec).await;
    watch.refused("an unknown data key", "SPEC_UNSUPPORTED", spec).await;

    let pair = |key: usize, len| v1::ContextPair { key: key.to_string(), value: "v".repeat(len) };
    for (what, pairs) in [
        ("too many pairs", (0..17).map(|number| pair(number, 1)).collect()),
        ("a pair twice", vec![pair(1, 1), pair(1, 1)]),
        ("too long a context", vec![pair(1, 8 << 10)]),
        ("a pair without a key", vec![v1::ContextPair { key: String::new(), value: "v".into() }]),
    ] {
        let request = v1::EncryptRequest { context: pairs, ..encrypt("resident") };
        watch.refused(what, "FIELD_INVALID", app.crypto.encrypt(request).await).await;
    }
}

async fn refuse_ciphertexts(watch: &mut Watch<'_>, app: &mut Rpc, scene: &Scene) {
    let with_header = |change: &dyn Fn(&mut envelope::Header)| {
        let opened = envelope::open(&scene.ciphertext).expect("a ciphertext");
        let mut header = opened.header;
        change(&mut header);
        envelope::join(&header, opened.body)
    };
    let mut other_magic = scene.ciphertext.clone();
    other_magic[0] ^= 1;
    for (what, ciphertext) in [
        ("no bytes", Vec::new()),
        ("another magic", other_magic),
        ("half a header", scene.ciphertext[..20].to_vec()),
        ("no tag", scene.ciphertext[..41 + 8].to_vec()),
        ("another purpose", scene.data_key.clone()),
        ("a key that does not exist", with_header(&|header| header.key_id = KeyId([7; 16]))),
        (
            "a version that does not exist",
            with_header(&|header| header.version = KeyVersion::new(9).expect("from 1")),
        ),
        ("another algorithm", with_header(&|header| header.spec = kms_core::key::KeySpec::Aes256)),
        (
            "a nonce for a wrapped key whose material is not open",
            with_header(&|header| {
                (header.key_id, header.version) = (scene.never_used, KeyVersion::FIRST);
                header.freshness = Freshness::Nonce([1; NONCE_LEN]);
            }),
        ),
    ] {
        watch.refused(what, "CIPHERTEXT_INVALID", app.crypto.decrypt(decrypt(&ciphertext)).await).await;
    }
    let data_key = v1::DecryptDataKeyRequest {
        ciphertext: scene.ciphertext.clone(),
        context: context(),
        expected_key: String::new(),
    };
    let data_key = app.crypto.decrypt_data_key(data_key).await;
    watch.refused("data that is no data key", "CIPHERTEXT_INVALID", data_key).await;

    // A wrapped key's ciphertext is opened here, so that even a changed one costs nothing.
    let mut changed = scene.wrapped_ciphertext.clone();
    *changed.last_mut().expect("not empty") ^= 1;
    let changed = app.crypto.decrypt(decrypt(&changed)).await;
    watch.refused("a changed tag under a wrapped key", "CIPHERTEXT_INVALID", changed).await;

    let expecting =
        |expected: &str| v1::DecryptRequest { expected_key: expected.into(), ..decrypt(&scene.ciphertext) };
    let other = app.crypto.decrypt(expecting("wrapped")).await;
    watch.refused("another expected key", "KEY_MISMATCH", other).await;
    let unknown = app.crypto.decrypt(expecting("unknown")).await;
    watch.refused("an unknown expected key", "KEY_NOT_FOUND", unknown).await;
    let too_long = vec![0; 70_000];
    let too_long = app.crypto.decrypt(decrypt(&too_long)).await;
    watch.refused("too long a ciphertext", "FIELD_INVALID", too_long).await;
}
