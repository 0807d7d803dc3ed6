//! What can be known to be wrong without the HSM costs no HSM call. A sealed node has no session in which it could
//! be asked, so nothing is said about that here.

use crate::metrics::Metrics;
use crate::workload::context;
use kms_core::envelope::{self, Freshness};
use kms_core::id::{KeyId, KeyVersion};
use kms_core::suite::NONCE_LEN;
use kms_proto::v1;
use kms_tests::rpc::refused;
use kms_tests::{Deployment, Options, Rpc};
use std::fs;
use std::time::{Duration, Instant};
use tonic::{Response, Status};

/// Operations that only callers cause. The node itself asks for signs of life, signs checkpoints and fills its stock
/// of random bytes: those are counted apart, because time causes them too.
const CALLED_FOR: [&str; 8] = ["seal", "open", "create", "confirm", "mac", "exists", "destroy", "objects"];
/// How long what the node does by itself may take to be counted: a few of its rounds, and a slow machine.
const ROUNDS_MAX: Duration = Duration::from_secs(60);

/// Keys that make MACs. Nothing is ever done with the wrapped one, so that its material is not open.
const MAC_KEYS: [(&str, v1::Protection); 2] =
    [("mac-resident", v1::Protection::HsmResident), ("mac-wrapped", v1::Protection::HsmWrapped)];

/// How often the HSM was asked for each operation that callers cause.
type Asked = Vec<(&'static str, u64)>;

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

/// What callers asked of the HSM so far. Every signature must be explained by a checkpoint in the second place.
async fn asked(deployment: &Deployment) -> Asked {
    let end = Instant::now() + ROUNDS_MAX;
    loop {
        let metrics = Metrics::read(deployment, "auditor").await;
        let (signatures, checkpoints) = (metrics.hsm_operations("sign"), checkpoint_count(deployment));
        // A checkpoint is written a moment after it was signed.
        if signatures == checkpoints {
            return CALLED_FOR.map(|operation| (operation, metrics.hsm_operations(operation))).to_vec();
        }
        assert!(Instant::now() < end, "{signatures} signatures were made, and {checkpoints} checkpoints");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn checkpoint_count(deployment: &Deployment) -> u64 {
    let lines = fs::read_to_string(deployment.state("node/checkpoints.log")).unwrap_or_default();
    lines.lines().count() as u64
}

/// How often the HSM was asked for random bytes to fill the stock from which calls take theirs.
///
/// The node looks after its stock at every sign of life, which is one `status` and one `random` more. So it waits for
/// two of them: what was taken before is filled up by then.
async fn stock_fills(deployment: &Deployment) -> u64 {
    let end = Instant::now() + ROUNDS_MAX;
    let mut first_sign = None;
    let mut fills = 0;
    loop {
        let metrics = Metrics::read(deployment, "auditor").await;
        let (signs, random) = (metrics.hsm_operations("status"), metrics.hsm_operations("random"));
        // Between the two halves of a sign of life there is one less.
        fills = random.saturating_sub(signs).max(fills);
        if signs >= *first_sign.get_or_insert(signs) + 2 {
            return fills;
        }
        assert!(Instant::now() < end, "the node does not ask the HSM for signs of life");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
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
        for (name, protection) in MAC_KEYS {
            let spec = v1::KeySpec::HmacSm3.into();
            let request = v1::CreateKeyRequest { spec, ..create(name, protection) };
            admin.keys.create_key(request).await.expect("a key");
        }
        let spec = v1::KeySpec::Sm4CbcHmacSm3.into();
        let request = v1::CreateKeyRequest { spec, ..create("raw", v1::Protection::HsmWrapped) };
        admin.keys.create_key(request).await.expect("a key");
        let suspend = v1::SuspendKeyRequest { key: "suspended".into() };
        admin.keys.suspend_key(suspend).await.expect("suspended");
        for name in ["salaries", "disabled"] {
            let request = v1::CreateDataKeyRequest {
                idempotency_token: name.into(),
                ..create_data_key(name, "resident")
            };
            admin.data_keys.create_data_key(request).await.expect("a registered data key");
        }
        let disable = v1::DisableDataKeyRequest { name: "disabled".into(), version: 0 };
        admin.data_keys.disable_data_key(disable).await.expect("disabled");
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
        ..Default::default()
    }
}

fn create_data_key(name: &str, key: &str) -> v1::CreateDataKeyRequest {
    v1::CreateDataKeyRequest { name: name.into(), key: key.into(), ..Default::default() }
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
    let fills = stock_fills(&deployment).await;

    // The watch sees what is not refused.
    let mut watch = Watch::new(&deployment).await;
    app.crypto.decrypt(decrypt(&scene.ciphertext)).await.expect("it opens");
    let after = asked(&deployment).await;
    assert_ne!(after, watch.asked, "opening under a resident key asks the HSM");
    app.crypto.generate_data_key(generate("wrapped")).await.expect("a data key");
    let fills_after = stock_fills(&deployment).await;
    assert!(fills_after > fills, "a data key's bytes are random bytes of the HSM");
    watch.asked = asked(&deployment).await;

    refuse_keys(&mut watch, &mut admin, &mut app).await;
    refuse_uses(&mut watch, &mut app).await;
    refuse_ciphertexts(&mut watch, &mut app, &scene).await;
    refuse_recipients_pairs_and_names(&mut watch, &mut app, &scene).await;
    refuse_macs(&mut watch, &mut app).await;
    refuse_raw(&mut watch, &mut admin, &mut app).await;
    refuse_registered_data_keys(&mut watch, &mut admin, &mut app).await;
    assert_eq!(stock_fills(&deployment).await, fills_after, "a refused call took random bytes of the HSM");
    eprintln!("{} refusals asked the HSM nothing", watch.refusal_count);
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

async fn refuse_registered_data_keys(watch: &mut Watch<'_>, admin: &mut Rpc, app: &mut Rpc) {
    type Asked = v1::CreateDataKeyRequest;
    let good = || create_data_key("new", "resident");
    for (what, reason, request) in [
        ("an empty name", "FIELD_INVALID", Asked { name: String::new(), ..good() }),
        ("no such key", "KEY_NOT_FOUND", create_data_key("new", "unknown")),
        ("a suspended key", "KEY_STATE_FORBIDS", create_data_key("new", "suspended")),
        ("a key for MACs", "KEY_USAGE_FORBIDS", create_data_key("new", "mac-resident")),
        ("no cipher", "SPEC_UNSUPPORTED", Asked { data_key_spec: 99, ..good() }),
        ("a period that is too long", "FIELD_INVALID", Asked { rotation_period_days: 3_651, ..good() }),
        ("a name that is taken", "KEY_EXISTS", create_data_key("salaries", "resident")),
        ("another's token", "IDEMPOTENCY_CONFLICT", Asked { idempotency_token: "salaries".into(), ..good() }),
    ] {
        let answer = admin.data_keys.create_data_key(request).await;
        watch.refused(&format!("making a data key: {what}"), reason, answer).await;
    }
    let answer = app.data_keys.create_data_key(good()).await;
    watch.refused("making a data key with the wrong role", "NOT_PERMITTED", answer).await;
    for (name, version, reason) in [
        ("", 0, "FIELD_INVALID"),
        ("unknown", 0, "DATA_KEY_NOT_FOUND"),
        ("salaries", 2, "KEY_VERSION_NOT_FOUND"),
        ("disabled", 0, "DATA_KEY_STATE_FORBIDS"),
        ("disabled", 1, "DATA_KEY_STATE_FORBIDS"),
    ] {
        let request = v1::GetDataKeyRequest { name: name.into(), version, recipient: None };
        let answer = app.data_keys.get_data_key(request).await;
        watch.refused(&format!("taking the data key {name:?}@{version}"), reason, answer).await;
    }
    let request = v1::GetDataKeyRequest { name: "salaries".into(), ..Default::default() };
    let answer = admin.data_keys.get_data_key(request).await;
    watch.refused("taking a data key with the wrong role", "NOT_PERMITTED", answer).await;
    let rotate = |name: &str| v1::RotateDataKeyRequest { name: name.into(), ..Default::default() };
    let answer = admin.data_keys.rotate_data_key(rotate("disabled")).await;
    watch.refused("rotating a disabled data key", "DATA_KEY_STATE_FORBIDS", answer).await;
    let destroy = v1::DestroyDataKeyRequest { name: "disabled".into(), version: 0 };
    let answer = admin.data_keys.destroy_data_key(destroy).await;
    watch.refused("destroying a data key too early", "DATA_KEY_STATE_FORBIDS", answer).await;
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
        // Nobody has to look the key up to know how long its data key is.
        let given = v1::GenerateDataKeyRequest { data_key_spec: v1::KeySpec::Aes256.into(), ..generate(key) };
        watch.refused(what, reason, app.crypto.generate_data_key(given).await).await;
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

async fn refuse_macs(watch: &mut Watch<'_>, app: &mut Rpc) {
    let generate_mac = |key: &str, len| v1::GenerateMacRequest { key: key.into(), message: vec![7; len] };
    let verify_mac = |key: &str, len, mac| v1::VerifyMacRequest {
        key: key.into(),
        message: vec![7; len],
        mac: vec![7; mac],
    };
    for (key, _) in MAC_KEYS {
        let what = "a key for MACs";
        watch.refused(what, "KEY_USAGE_FORBIDS", app.crypto.encrypt(encrypt(key)).await).await;
        watch.refused(what, "KEY_USAGE_FORBIDS", app.crypto.generate_data_key(generate(key)).await).await;
        let too_long = app.crypto.generate_mac(generate_mac(key, (64 << 10) + 1)).await;
        watch.refused("too long a message", "FIELD_INVALID", too_long).await;
        for len in [0, 16, 31, 33, 48, 64] {
            let answer = app.crypto.verify_mac(verify_mac(key, 1, len)).await;
            watch.refused("a MAC of another length", "FIELD_INVALID", answer).await;
        }
        let version = app.crypto.generate_mac(generate_mac(&format!("{key}@9"), 1)).await;
        watch.refused("an unknown version", "KEY_VERSION_NOT_FOUND", version).await;
    }
    for key in ["resident", "wrapped", "never-used"] {
        let what = "a key for encryption";
        watch.refused(what, "KEY_USAGE_FORBIDS", app.crypto.generate_mac(generate_mac(key, 1)).await).await;
        watch.refused(what, "KEY_USAGE_FORBIDS", app.crypto.verify_mac(verify_mac(key, 1, 32)).await).await;
    }
    for byte_count in [0, 1025] {
        let answer = app.crypto.generate_random(v1::GenerateRandomRequest { byte_count }).await;
        watch.refused("too many random bytes or none", "FIELD_INVALID", answer).await;
    }
    let mac_data_key =
        v1::GenerateDataKeyRequest { data_key_spec: v1::KeySpec::HmacSm3.into(), ..generate("resident") };
    let answer = app.crypto.generate_data_key(mac_data_key).await;
    watch.refused("a data key that does not encrypt", "SPEC_UNSUPPORTED", answer).await;
}

/// Of a key whose material is not open, so that even opening it would be seen.
async fn refuse_raw(watch: &mut Watch<'_>, admin: &mut Rpc, app: &mut Rpc) {
    let encrypting = |key: &str, len| v1::RawEncryptRequest {
        key: key.into(),
        plaintext: vec![7; len],
        ..Default::default()
    };
    let good = v1::RawDecryptRequest {
        key: "raw".into(),
        ciphertext: vec![7; 32],
        initialization_vector: vec![7; 16],
        tag: vec![7; 16],
        ..Default::default()
    };
    for (what, reason, request) in [
        ("too long a plaintext", "FIELD_INVALID", encrypting("raw", (64 << 10) + 1)),
        ("an unknown version", "KEY_VERSION_NOT_FOUND", encrypting("raw@9", 1)),
        ("a key for encryption", "KEY_USAGE_FORBIDS", encrypting("never-used", 1)),
        ("a key for MACs", "KEY_USAGE_FORBIDS", encrypting("mac-wrapped", 1)),
    ] {
        let answer = app.crypto.raw_encrypt(request).await;
        watch.refused(&format!("raw encryption: {what}"), reason, answer).await;
    }
    let changed = |change: &dyn Fn(&mut v1::RawDecryptRequest)| {
        let mut request = good.clone();
        change(&mut request);
        request
    };
    for (what, reason, request) in [
        ("no vector", "FIELD_INVALID", changed(&|one| one.initialization_vector.clear())),
        ("half a tag", "FIELD_INVALID", changed(&|one| one.tag.truncate(8))),
        ("another padding", "FIELD_INVALID", changed(&|one| one.padding = v1::RawPadding::None.into())),
        ("an unknown padding", "FIELD_INVALID", changed(&|one| one.padding = 9)),
        ("half a block", "CIPHERTEXT_INVALID", changed(&|one| one.ciphertext.truncate(24))),
        ("too much", "FIELD_INVALID", changed(&|one| one.ciphertext.resize(70_000, 7))),
        ("a key for encryption", "KEY_USAGE_FORBIDS", changed(&|one| one.key = "never-used".into())),
        ("an unknown key", "KEY_NOT_FOUND", changed(&|one| one.key = "unknown".into())),
    ] {
        let answer = app.crypto.raw_decrypt(request).await;
        watch.refused(&format!("raw decryption: {what}"), reason, answer).await;
    }
    let role = admin.crypto.raw_decrypt(good.clone()).await;
    watch.refused("raw decryption with the wrong role", "NOT_PERMITTED", role).await;
    watch
        .refused("a raw key that encrypts", "KEY_USAGE_FORBIDS", app.crypto.encrypt(encrypt("raw")).await)
        .await;
    let raw = |spec: v1::KeySpec, protection| v1::CreateKeyRequest {
        spec: spec.into(),
        ..create("new-raw", protection)
    };
    let (anywhere, resident) = (v1::Protection::Unspecified, v1::Protection::HsmResident);
    for (what, request) in [
        ("a resident raw key", raw(v1::KeySpec::Sm4CbcHmacSm3, resident)),
        ("a legacy key", raw(v1::KeySpec::KeySpec3des, anywhere)),
    ] {
        watch.refused(what, "SPEC_UNSUPPORTED", admin.keys.create_key(request).await).await;
    }
    let old = v1::ImportKeyMaterialRequest {
        import_id: "07070707-0707-0707-0707-070707070707".into(),
        key: Some(raw(v1::KeySpec::KeySpec3des, anywhere)),
        wrapped_material: vec![7; 100],
        check_value: vec![],
    };
    let answer = admin.keys.import_key_material(old).await;
    watch.refused("a legacy key that is brought", "SPEC_NOT_ALLOWED", answer).await;
}

async fn refuse_recipients_pairs_and_names(watch: &mut Watch<'_>, app: &mut Rpc, scene: &Scene) {
    let recipient = Some(v1::Recipient { public_key: vec![7; 91], algorithm: 3 });
    for key in ["resident", "wrapped", "never-used"] {
        let request = v1::GenerateDataKeyRequest { recipient: recipient.clone(), ..generate(key) };
        let answer = app.crypto.generate_data_key(request).await;
        watch.refused("a recipient without a key", "FIELD_INVALID", answer).await;
        let pair = |pair_spec: i32| v1::GenerateDataKeyPairRequest {
            key: key.into(),
            pair_spec,
            ..v1::GenerateDataKeyPairRequest::default()
        };
        let answer = app.crypto.generate_data_key_pair(pair(v1::KeySpec::Sm4.into())).await;
        watch.refused("a pair that is none", "SPEC_UNSUPPORTED", answer).await;
        let pair =
            v1::GenerateDataKeyPairRequest { recipient: recipient.clone(), ..pair(v1::KeySpec::Sm2.into()) };
        let answer = app.crypto.generate_data_key_pair(pair).await;
        watch.refused("a pair for a recipient without a key", "FIELD_INVALID", answer).await;
        let csr = v1::GetCertificateSigningRequestRequest {
            key: key.into(),
            subject: "CN=app".into(),
            ..v1::GetCertificateSigningRequestRequest::default()
        };
        let answer = app.crypto.get_certificate_signing_request(csr).await;
        watch.refused("a request of a key for encryption", "KEY_USAGE_FORBIDS", answer).await;
    }
    let request = v1::DecryptDataKeyRequest {
        ciphertext: scene.data_key.clone(),
        context: context(),
        expected_key: String::new(),
        recipient,
    };
    let answer = app.crypto.decrypt_data_key(request).await;
    watch.refused("a data key for a recipient without a key", "FIELD_INVALID", answer).await;
    for ciphertext in [&scene.data_key, &scene.ciphertext] {
        let request = v1::DecryptDataKeyPairRequest {
            ciphertext: ciphertext.clone(),
            context: context(),
            ..v1::DecryptDataKeyPairRequest::default()
        };
        let answer = app.crypto.decrypt_data_key_pair(request).await;
        watch.refused("what is no data key pair", "CIPHERTEXT_INVALID", answer).await;
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
        (
            "another algorithm",
            with_header(&|header| header.algorithm = kms_core::suite::AeadAlgorithm::Aes256Gcm),
        ),
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
        recipient: None,
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
