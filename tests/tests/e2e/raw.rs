//! Raw encryption against OpenSSL, both ways, and old data under 3DES where the configuration allows it.

use crate::configured::{serve, wait_until_served};
use crate::imports::{hex, openssl, parameters, request, wrap};
use kms_core::suite::Suite;
use kms_proto::v1;
use kms_tests::rpc::refused;
use kms_tests::{Deployment, Module, Options, Rpc, audit};
use std::fs;
use std::path::Path;

/// A specification, its key length, and what OpenSSL calls its cipher and its hash.
type Case = (v1::KeySpec, usize, &'static str, &'static str);

const CASES: [Case; 4] = [
    (v1::KeySpec::Aes128CbcHmacSha256, 32, "-aes-128-cbc", "SHA256"),
    (v1::KeySpec::Aes192CbcHmacSha384, 48, "-aes-192-cbc", "SHA384"),
    (v1::KeySpec::Aes256CbcHmacSha512, 64, "-aes-256-cbc", "SHA512"),
    (v1::KeySpec::Sm4CbcHmacSm3, 32, "-sm4-cbc", "SM3"),
];
const ANYWHERE: v1::Protection = v1::Protection::Unspecified;
const TWO_PARTS: &str = "0123456789abcdef23456789abcdef010123456789abcdef";
const THREE_PARTS: &str = "0123456789abcdef23456789abcdef01456789abcdef0123";

fn bytes(text: &str) -> Vec<u8> {
    let digits = |place: usize| u8::from_str_radix(&text[place..place + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(digits).collect()
}

/// Ciphertext and tag by OpenSSL, put together as docs/formats/raw.md says.
fn sealed_by_openssl(
    folder: &Path,
    (_, key_len, cipher, hash): Case,
    key: &[u8],
    (iv, data): (&[u8], &[u8]),
    plaintext: &[u8],
) -> (Vec<u8>, Vec<u8>) {
    fs::write(folder.join("plaintext"), plaintext).expect("written");
    let (mac_key, cipher_key) = key.split_at(key_len / 2);
    let (cipher_key, iv_text) = (hex(cipher_key), hex(iv));
    let arguments = ["enc", cipher, "-K", &cipher_key, "-iv", &iv_text, "-in", "plaintext"];
    let ciphertext = openssl(folder, &arguments);
    let len = (8 * data.len() as u64).to_be_bytes();
    fs::write(folder.join("message"), [data, iv, &ciphertext, &len].concat()).expect("written");
    let option = format!("hexkey:{}", hex(mac_key));
    let arguments = ["mac", "-digest", hash, "-macopt", &option, "-binary", "-in", "message", "HMAC"];
    let mut tag = openssl(folder, &arguments);
    tag.truncate(key_len / 2);
    (ciphertext, tag)
}

async fn import(
    rpc: &mut Rpc,
    folder: &Path,
    (name, spec): (&str, v1::KeySpec),
    wrapping: v1::KeySpec,
    material: &[u8],
) -> v1::Key {
    let parameters = parameters(rpc, wrapping).await;
    let import = request(name, spec, ANYWHERE, &parameters, wrap(folder, &parameters, material));
    rpc.keys.import_key_material(import).await.expect("is taken").into_inner()
}

async fn openssl_agrees(deployment: &Deployment, wrapping: v1::KeySpec) {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let mut admin = Rpc::connect(deployment, "admin").await;
    let mut app = Rpc::connect(deployment, "app").await;
    for case in CASES {
        let (spec, key_len, ..) = case;
        let name = &format!("raw-openssl-{}", spec as i32);
        let material: Vec<u8> = (1..=key_len as u8).map(|byte| byte.wrapping_mul(73)).collect();
        let made = import(&mut admin, folder, (name, spec), wrapping, &material).await;
        assert_eq!((made.spec(), made.usage()), (spec, v1::KeyUsage::RawEncryptDecrypt));
        assert_eq!(made.protection(), v1::Protection::HsmWrapped);
        assert!(made.versions[0].check_value.is_empty(), "two keys have no one check value");
        let mut seen = Vec::new();
        for (len, data) in
            [(0, &b""[..]), (1, b"a"), (15, b"data"), (16, b""), (17, &[7; 64 << 10]), (64 << 10, b"data")]
        {
            let plaintext = vec![0xa5; len];
            let encrypt = v1::RawEncryptRequest {
                key: name.clone(),
                plaintext: plaintext.clone(),
                additional_authenticated_data: data.to_vec(),
            };
            let made = app.crypto.raw_encrypt(encrypt).await.expect("encrypts").into_inner();
            assert_eq!((made.key_version, made.initialization_vector.len()), (1, 16));
            let place = (&made.initialization_vector[..], data);
            let (ciphertext, tag) = sealed_by_openssl(folder, case, &material, place, &plaintext);
            assert!(made.ciphertext == ciphertext && made.tag == tag, "{spec:?} {len}");
            assert!(!seen.contains(&made.initialization_vector), "never one twice");
            seen.push(made.initialization_vector);
            // Somebody else's initialization vector is as good.
            let iv = [len as u8 ^ 0x5a; 16];
            let (ciphertext, tag) = sealed_by_openssl(folder, case, &material, (&iv, data), &plaintext);
            let decrypt = v1::RawDecryptRequest {
                key: name.clone(),
                ciphertext,
                initialization_vector: iv.to_vec(),
                tag,
                additional_authenticated_data: data.to_vec(),
                padding: v1::RawPadding::Pkcs7.into(),
            };
            let opened = app.crypto.raw_decrypt(decrypt).await.expect("it opens").into_inner();
            assert!(opened.plaintext == plaintext && opened.key_version == 1, "{spec:?} {len}");
        }
        // A rotated key of theirs goes on with a version of our own.
        let rotate = v1::RotateKeyRequest { key: name.clone(), ..Default::default() };
        let rotated = admin.keys.rotate_key(rotate).await.expect("rotates").into_inner();
        let origins: Vec<_> = rotated.versions.iter().map(v1::KeyVersion::origin).collect();
        assert_eq!(origins, [v1::KeyOrigin::Imported, v1::KeyOrigin::Generated]);
        let usage = v1::GetUsageReportRequest { key: name.clone() };
        let usage = admin.keys.get_usage_report(usage).await.expect("a report").into_inner();
        assert_eq!((usage.versions[0].encryptions, usage.versions[0].decryptions), (6, 6));
    }
    audit::verify(deployment);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssl_opens_what_is_encrypted_raw_and_the_other_way_round() {
    openssl_agrees(&Deployment::start(Options::default()), v1::KeySpec::Sm2).await;
    let options = Options { module: Module::SoftHsm, suite: Suite::Intl, ..Options::default() };
    openssl_agrees(&Deployment::start(options), v1::KeySpec::Rsa3072).await;
}

/// What OpenSSL makes of a plaintext under a key of 3DES.
fn old_data(folder: &Path, key: &str, plaintext: &[u8], is_padded: bool) -> v1::RawDecryptRequest {
    fs::write(folder.join("plaintext"), plaintext).expect("written");
    let mut arguments =
        vec!["enc", "-des-ede3-cbc", "-K", key, "-iv", "0001020304050607", "-in", "plaintext"];
    if !is_padded {
        arguments.push("-nopad");
    }
    let padding = if is_padded { v1::RawPadding::Unspecified } else { v1::RawPadding::None };
    v1::RawDecryptRequest {
        ciphertext: openssl(folder, &arguments),
        initialization_vector: (0..8).collect(),
        padding: padding.into(),
        ..Default::default()
    }
}

fn of_key(key: &str, request: &v1::RawDecryptRequest) -> v1::RawDecryptRequest {
    v1::RawDecryptRequest { key: key.to_owned(), ..request.clone() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn triple_des_opens_what_openssl_made_only_where_the_configuration_says_so() {
    const KEYS: &str = "[keys]\nspecs = [\"sm4\", \"sm2\", \"rsa-3072\"]\n";
    let deployment = serve(ToOwned::to_owned, &format!("{KEYS}legacy = [\"3des\"]\n"));
    deployment.unseal();
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let mut admin = Rpc::connect(&deployment, "admin").await;
    let mut app = Rpc::connect(&deployment, "app").await;

    let spec = v1::KeySpec::KeySpec3des;
    for (name, key, wrapping) in
        [("old-three", THREE_PARTS, v1::KeySpec::Sm2), ("old-two", TWO_PARTS, v1::KeySpec::Rsa3072)]
    {
        fs::write(folder.join("zeros"), [0; 8]).expect("written");
        let block = openssl(folder, &["enc", "-des-ede3", "-nopad", "-K", key, "-in", "zeros"]);
        let parameters = parameters(&mut admin, wrapping).await;
        let wrapped = wrap(folder, &parameters, &bytes(key));
        let mut import = request(name, spec, ANYWHERE, &parameters, wrapped);
        import.check_value = vec![1, 2, 3];
        let answer = refused(admin.keys.import_key_material(import.clone()).await);
        assert_eq!(
            (answer.reason.as_str(), answer.field.as_deref()),
            ("IMPORT_INVALID", Some("check_value"))
        );
        import.check_value = block[..3].to_vec();
        let made = admin.keys.import_key_material(import).await.expect("is taken").into_inner();
        assert_eq!((made.spec(), made.protection()), (spec, v1::Protection::HsmWrapped));
        assert_eq!(made.versions[0].check_value, block[..3]);
        for len in [0, 7, 8, 9, 64 << 10] {
            let plaintext = vec![0x7e; len];
            let asked = of_key(name, &old_data(folder, key, &plaintext, true));
            let opened = app.crypto.raw_decrypt(asked.clone()).await.expect("it opens").into_inner();
            assert!(opened.plaintext == plaintext && opened.key_version == 1, "{name} {len}");
            // The same blocks, padding and all.
            let whole = v1::RawDecryptRequest { padding: v1::RawPadding::None.into(), ..asked };
            let padded = app.crypto.raw_decrypt(whole).await.expect("it opens").into_inner().plaintext;
            let fill = 8 - len % 8;
            assert_eq!(padded, [plaintext, vec![fill as u8; fill]].concat());
        }
        let unpadded = of_key(name, &old_data(folder, key, b"a whole block!!!", false));
        let opened = app.crypto.raw_decrypt(unpadded.clone()).await.expect("it opens").into_inner();
        assert_eq!(opened.plaintext, b"a whole block!!!");
        let padded = v1::RawDecryptRequest { padding: v1::RawPadding::Pkcs7.into(), ..unpadded };
        assert_eq!(refused(app.crypto.raw_decrypt(padded).await).reason, "CIPHERTEXT_INVALID");
    }
    old_keys_do_nothing_else(&mut admin, &mut app, folder).await;

    // A node that does not say so has the key and does not use it, and takes no other one.
    assert!(deployment.terminate().success());
    let text = fs::read_to_string(deployment.state("changed.toml")).expect("the configuration");
    fs::write(deployment.state("without.toml"), text.replace("legacy = [\"3des\"]\n", "")).expect("writes");
    deployment.run_with(&deployment.state("without.toml"));
    wait_until_served(&deployment);
    deployment.unseal();
    let mut admin = Rpc::connect(&deployment, "admin").await;
    let mut app = Rpc::connect(&deployment, "app").await;
    let asked = of_key("old-three", &old_data(folder, THREE_PARTS, b"x", true));
    let parameters = parameters(&mut admin, v1::KeySpec::Sm2).await;
    let wrapped = wrap(folder, &parameters, &bytes(THREE_PARTS));
    let another =
        admin.keys.import_key_material(request("old-new", spec, ANYWHERE, &parameters, wrapped)).await;
    for (answer, field) in
        [(refused(app.crypto.raw_decrypt(asked.clone()).await), "key"), (refused(another), "spec")]
    {
        assert_eq!((answer.reason.as_str(), answer.field.as_deref()), ("SPEC_NOT_ALLOWED", Some(field)));
        assert!(answer.message.contains("keys.legacy = [\"3des\"]"), "{answer:?}");
    }
    let describe = v1::DescribeKeyRequest { key: "old-three".into() };
    assert_eq!(admin.keys.describe_key(describe).await.expect("it is there").into_inner().spec(), spec);
    let destroy = v1::ScheduleDestructionRequest { key: "old-three".into(), window_days: 7 };
    admin.keys.schedule_destruction(destroy).await.expect("it can go");
    audit::verify(&deployment);
}

/// Whatever else somebody could want of keys of 3DES.
async fn old_keys_do_nothing_else(admin: &mut Rpc, app: &mut Rpc, folder: &Path) {
    let spec: i32 = v1::KeySpec::KeySpec3des.into();
    let is = |answer: kms_tests::Refused, reason: &str, field: Option<&str>, words: &str| {
        assert_eq!((answer.reason.as_str(), answer.field.as_deref()), (reason, field), "{answer:?}");
        assert!(answer.message.contains(words), "{answer:?}");
    };
    let encrypt = v1::RawEncryptRequest { key: "old-two".into(), plaintext: vec![7], ..Default::default() };
    let answer = refused(app.crypto.raw_encrypt(encrypt).await);
    is(answer, "KEY_USAGE_FORBIDS", Some("key"), "encrypts nothing");
    let encrypt = v1::EncryptRequest { key: "old-two".into(), plaintext: vec![7], ..Default::default() };
    let answer = refused(app.crypto.encrypt(encrypt).await);
    is(answer, "KEY_USAGE_FORBIDS", Some("key"), "RawEncrypt and RawDecrypt");
    let rotate = v1::RotateKeyRequest { key: "old-two".into(), ..Default::default() };
    is(refused(admin.keys.rotate_key(rotate).await), "SPEC_UNSUPPORTED", Some("key"), "never made here");
    let create = v1::CreateKeyRequest { name: "old-made".into(), spec, ..Default::default() };
    is(refused(admin.keys.create_key(create).await), "SPEC_UNSUPPORTED", Some("spec"), "only brought");

    let parameters = parameters(admin, v1::KeySpec::Sm2).await;
    let good = wrap(folder, &parameters, &bytes(THREE_PARTS));
    let resident = v1::Protection::HsmResident;
    let import = request("old-new", v1::KeySpec::KeySpec3des, resident, &parameters, good);
    let answer = refused(admin.keys.import_key_material(import).await);
    is(answer, "SPEC_UNSUPPORTED", Some("protection"), "ask for protection wrapped");
    let (one, two) = (&THREE_PARTS[..16], &THREE_PARTS[16..32]);
    for (material, words) in [
        ([one, one, two].concat(), "single DES"),
        ([one, two, two].concat(), "single DES"),
        // The same but for parity bits.
        ([one, two, "22446688aaccee00"].concat(), "single DES"),
        ([one, "01fe01fe01fe01fe", two].concat(), "weak key of DES"),
        ([one, "0101010101010101", two].concat(), "one byte that repeats"),
        (one.repeat(2), "holds a key of 16 bytes; 3des has 24"),
    ] {
        let wrapped = wrap(folder, &parameters, &bytes(&material));
        let import = request("old-new", v1::KeySpec::KeySpec3des, ANYWHERE, &parameters, wrapped);
        let answer = refused(admin.keys.import_key_material(import).await);
        is(answer, "IMPORT_INVALID", Some("wrapped_material"), words);
    }

    let good = of_key("old-two", &old_data(folder, TWO_PARTS, b"old", true));
    app.crypto.raw_decrypt(good.clone()).await.expect("it opens");
    let asked = v1::RawDecryptRequest { tag: vec![7; 16], ..good.clone() };
    let answer = refused(app.crypto.raw_decrypt(asked).await);
    is(answer, "FIELD_INVALID", Some("tag"), "authenticates nothing");
    let asked = v1::RawDecryptRequest { additional_authenticated_data: vec![7], ..good.clone() };
    let answer = refused(app.crypto.raw_decrypt(asked).await);
    is(answer, "FIELD_INVALID", Some("additional_authenticated_data"), "authenticates nothing");
    let asked = v1::RawDecryptRequest { initialization_vector: vec![7; 16], ..good.clone() };
    let answer = refused(app.crypto.raw_decrypt(asked).await);
    is(answer, "FIELD_INVALID", Some("initialization_vector"), "has 16 bytes");
    for ciphertext in [vec![], vec![7; 7], vec![7; 9]] {
        let asked = v1::RawDecryptRequest { ciphertext, ..good.clone() };
        is(refused(app.crypto.raw_decrypt(asked).await), "CIPHERTEXT_INVALID", None, "damaged");
    }
    let deactivate = v1::DeactivateKeyRequest { key: "old-two".into() };
    admin.keys.deactivate_key(deactivate).await.expect("deactivates");
    app.crypto.raw_decrypt(good.clone()).await.expect("a deactivated key decrypts");
    let archive = v1::ArchiveKeyRequest { key: "old-two".into() };
    admin.keys.archive_key(archive).await.expect("archives");
    is(refused(app.crypto.raw_decrypt(good).await), "KEY_STATE_FORBIDS", None, "ARCHIVED");
}
