//! Raw encryption: what is not opened, which keys it takes, and what keys for it refuse.

use super::{Expected, admin, app, deployment};
use crate::imports::{parameters, request, wrap};
use kms_proto::v1;

const SPECS: [(v1::KeySpec, usize); 4] = [
    (v1::KeySpec::Aes128CbcHmacSha256, 16),
    (v1::KeySpec::Aes192CbcHmacSha384, 24),
    (v1::KeySpec::Aes256CbcHmacSha512, 32),
    (v1::KeySpec::Sm4CbcHmacSm3, 16),
];

fn create(name: &str, spec: v1::KeySpec) -> v1::CreateKeyRequest {
    v1::CreateKeyRequest { name: name.to_owned(), spec: spec.into(), ..Default::default() }
}

async fn make_key(name: &str, spec: v1::KeySpec) {
    let key = admin().await.keys.create_key(create(name, spec)).await.expect("creates").into_inner();
    assert_eq!(
        (key.usage(), key.protection()),
        (v1::KeyUsage::RawEncryptDecrypt, v1::Protection::HsmWrapped)
    );
}

fn encrypt(key: &str) -> v1::RawEncryptRequest {
    v1::RawEncryptRequest {
        key: key.to_owned(),
        plaintext: b"attack at dawn".to_vec(),
        additional_authenticated_data: b"data".to_vec(),
    }
}

/// What decrypts an answer to [`encrypt`].
fn decrypt(key: &str, made: &v1::RawEncryptResponse) -> v1::RawDecryptRequest {
    v1::RawDecryptRequest {
        key: key.to_owned(),
        ciphertext: made.ciphertext.clone(),
        initialization_vector: made.initialization_vector.clone(),
        tag: made.tag.clone(),
        additional_authenticated_data: b"data".to_vec(),
        padding: 0,
    }
}

#[tokio::test]
async fn no_flipped_bit_of_a_raw_ciphertext_opens_and_no_length_of_its_parts_is_another() {
    for (spec, tag_len) in SPECS {
        let name = &format!("raw-bits-{}", spec as i32);
        make_key(name, spec).await;
        make_key(&format!("{name}-other"), spec).await;
        let (mut rpc, mut expected) = (app().await, Expected::default());
        let made = rpc.crypto.raw_encrypt(encrypt(name)).await.expect("encrypts").into_inner();
        let lens = (made.ciphertext.len(), made.initialization_vector.len(), made.tag.len());
        assert_eq!(lens, (16, 16, tag_len), "{spec:?}");
        let good = decrypt(name, &made);
        let opened = rpc.crypto.raw_decrypt(good.clone()).await.expect("it opens").into_inner();
        assert_eq!((opened.plaintext.as_slice(), opened.key_id), (&b"attack at dawn"[..], made.key_id));

        type Part = fn(&mut v1::RawDecryptRequest) -> &mut Vec<u8>;
        let parts: [Part; 4] = [
            |asked| &mut asked.initialization_vector,
            |asked| &mut asked.ciphertext,
            |asked| &mut asked.tag,
            |asked| &mut asked.additional_authenticated_data,
        ];
        for part in parts {
            for bit in 0..8 * part(&mut good.clone()).len() {
                let mut asked = good.clone();
                part(&mut asked)[bit / 8] ^= 1 << (bit % 8);
                expected.refusal(rpc.crypto.raw_decrypt(asked).await, "CIPHERTEXT_INVALID", None);
            }
        }
        let changed = |change: &dyn Fn(&mut v1::RawDecryptRequest)| {
            let mut asked = good.clone();
            change(&mut asked);
            asked
        };
        for asked in [
            changed(&|asked| asked.ciphertext.clear()),
            changed(&|asked| asked.ciphertext.truncate(15)),
            changed(&|asked| asked.ciphertext.push(7)),
            changed(&|asked| asked.ciphertext.extend([7; 16])),
            changed(&|asked| asked.additional_authenticated_data.clear()),
            changed(&|asked| asked.additional_authenticated_data.push(0)),
            changed(&|asked| asked.key.push_str("-other")),
        ] {
            let answer = rpc.crypto.raw_decrypt(asked).await;
            let sentence = answer.as_ref().expect_err("refused").message().to_owned();
            assert!(sentence.starts_with("the ciphertext is damaged"), "one sentence for all: {sentence}");
            expected.refusal(answer, "CIPHERTEXT_INVALID", None);
        }
        for len in [0, 1, 8, 12, 15, 17, 32] {
            let asked = changed(&|asked| asked.initialization_vector.resize(len, 7));
            let answer = rpc.crypto.raw_decrypt(asked).await;
            expected.refusal(answer, "FIELD_INVALID", Some("initialization_vector"));
        }
        for len in [0, 1, 8, tag_len - 1, tag_len + 1, 2 * tag_len] {
            let asked = changed(&|asked| asked.tag.resize(len, 7));
            expected.refusal(rpc.crypto.raw_decrypt(asked).await, "FIELD_INVALID", Some("tag"));
        }
        for padding in [v1::RawPadding::None.into(), 9, -1] {
            let asked = changed(&|asked| asked.padding = padding);
            expected.refusal(rpc.crypto.raw_decrypt(asked).await, "FIELD_INVALID", Some("padding"));
        }
        expected.are_all_recorded().await;
    }
}

#[tokio::test]
async fn what_is_too_long_or_names_no_key_is_refused() {
    make_key("raw-sizes", v1::KeySpec::Sm4CbcHmacSm3).await;
    let (mut rpc, mut expected) = (app().await, Expected::default());
    let long = vec![7; (64 << 10) + 1];
    let asked = v1::RawEncryptRequest { plaintext: long.clone(), ..encrypt("raw-sizes") };
    expected.refusal(rpc.crypto.raw_encrypt(asked).await, "FIELD_INVALID", Some("plaintext"));
    let field = Some("additional_authenticated_data");
    let asked = v1::RawEncryptRequest { additional_authenticated_data: long.clone(), ..encrypt("raw-sizes") };
    expected.refusal(rpc.crypto.raw_encrypt(asked).await, "FIELD_INVALID", field);
    let made = rpc.crypto.raw_encrypt(encrypt("raw-sizes")).await.expect("encrypts").into_inner();
    let good = decrypt("raw-sizes", &made);
    let asked = v1::RawDecryptRequest { additional_authenticated_data: long, ..good.clone() };
    expected.refusal(rpc.crypto.raw_decrypt(asked).await, "FIELD_INVALID", field);
    let asked = v1::RawDecryptRequest { ciphertext: vec![7; (64 << 10) + 32], ..good.clone() };
    expected.refusal(rpc.crypto.raw_decrypt(asked).await, "FIELD_INVALID", Some("ciphertext"));
    for (key, reason, field) in [
        ("raw-nobody-made-this", "KEY_NOT_FOUND", None),
        ("raw-sizes@7", "KEY_VERSION_NOT_FOUND", None),
        ("No Name", "FIELD_INVALID", Some("key")),
        ("", "FIELD_INVALID", Some("key")),
    ] {
        expected.refusal(rpc.crypto.raw_encrypt(encrypt(key)).await, reason, field);
        let asked = v1::RawDecryptRequest { key: key.into(), ..good.clone() };
        expected.refusal(rpc.crypto.raw_decrypt(asked).await, reason, field);
    }
    expected.are_all_recorded().await;
}

#[tokio::test]
async fn keys_for_raw_encryption_do_nothing_else_and_no_other_key_does_it() {
    const KEY: &str = "raw-usage";
    make_key(KEY, v1::KeySpec::Aes256CbcHmacSha512).await;
    let (mut rpc, mut admin, mut expected) = (app().await, admin().await, Expected::default());
    let key = || KEY.to_owned();
    let answer = rpc.crypto.encrypt(v1::EncryptRequest { key: key(), ..Default::default() }).await;
    let message = answer.as_ref().expect_err("refused").message().to_owned();
    for part in [KEY, "aes-256-cbc-hmac-sha-512", "RAW_ENCRYPT_DECRYPT", "RawEncrypt and RawDecrypt"] {
        assert!(message.contains(part), "{message}");
    }
    let (reason, field) = ("KEY_USAGE_FORBIDS", Some("key"));
    expected.refusal(answer, reason, field);
    let asked = v1::GenerateDataKeyRequest { key: key(), ..Default::default() };
    expected.refusal(rpc.crypto.generate_data_key(asked).await, reason, field);
    let asked = v1::GenerateDataKeyPairRequest {
        key: key(),
        pair_spec: v1::KeySpec::Ed25519.into(),
        ..Default::default()
    };
    expected.refusal(rpc.crypto.generate_data_key_pair(asked).await, reason, field);
    let asked = v1::GenerateMacRequest { key: key(), message: vec![7] };
    expected.refusal(rpc.crypto.generate_mac(asked).await, reason, field);
    let asked = v1::SignRequest { key: key(), input: vec![7], ..Default::default() };
    expected.refusal(rpc.crypto.sign(asked).await, reason, field);
    let asked = v1::AsymmetricDecryptRequest { key: key(), ciphertext: vec![7] };
    expected.refusal(rpc.crypto.asymmetric_decrypt(asked).await, reason, field);
    let asked = v1::GetPublicKeyRequest { key: key() };
    expected.refusal(rpc.crypto.get_public_key(asked).await, reason, field);
    let asked = v1::CreateDataKeyRequest { name: "raw-data-key".into(), key: key(), ..Default::default() };
    expected.refusal(admin.data_keys.create_data_key(asked).await, reason, field);

    for (name, spec) in [("raw-cipher", v1::KeySpec::Sm4), ("raw-pair", v1::KeySpec::Sm2)] {
        admin.keys.create_key(create(name, spec)).await.expect("creates");
        let answer = rpc.crypto.raw_encrypt(encrypt(name)).await;
        let message = answer.as_ref().expect_err("refused").message().to_owned();
        assert!(message.contains("sm4-cbc-hmac-sm3") && message.contains(spec_calls(spec)), "{message}");
        expected.refusal(answer, reason, field);
        let asked = v1::RawDecryptRequest { key: name.into(), ..Default::default() };
        expected.refusal(rpc.crypto.raw_decrypt(asked).await, reason, field);
    }
    expected.are_all_recorded().await;
}

/// What the refusal of another key says that it is for.
fn spec_calls(spec: v1::KeySpec) -> &'static str {
    match spec {
        v1::KeySpec::Sm4 => "Encrypt, Decrypt and data keys",
        _ => "Sign, Verify",
    }
}

#[tokio::test]
async fn keys_for_raw_encryption_are_wrapped_and_made_for_nothing_else() {
    let (mut rpc, mut expected) = (admin().await, Expected::default());
    for (spec, _) in SPECS {
        let asked = v1::CreateKeyRequest {
            protection: v1::Protection::HsmResident.into(),
            ..create("raw-never-made", spec)
        };
        let answer = rpc.keys.create_key(asked).await;
        assert!(answer.as_ref().expect_err("refused").message().contains("ask for protection wrapped"));
        expected.refusal(answer, "SPEC_UNSUPPORTED", Some("protection"));
        for usage in [v1::KeyUsage::EncryptDecrypt, v1::KeyUsage::GenerateVerifyMac] {
            let asked = v1::CreateKeyRequest { usage: usage.into(), ..create("raw-never-made", spec) };
            expected.refusal(rpc.keys.create_key(asked).await, "KEY_USAGE_FORBIDS", Some("usage"));
        }
    }
    let raw = v1::KeyUsage::RawEncryptDecrypt.into();
    let asked = v1::CreateKeyRequest { usage: raw, ..create("raw-never-made", v1::KeySpec::Aes256) };
    expected.refusal(rpc.keys.create_key(asked).await, "KEY_USAGE_FORBIDS", Some("usage"));
    let asked = create("raw-never-made", v1::KeySpec::KeySpec3des);
    expected.refusal(rpc.keys.create_key(asked).await, "SPEC_UNSUPPORTED", Some("spec"));

    let folder = tempfile::tempdir().expect("a folder");
    let parameters = parameters(&mut rpc, v1::KeySpec::Sm2).await;
    let (spec, anywhere) = (v1::KeySpec::Aes128CbcHmacSha256, v1::Protection::Unspecified);
    let material = |material: &[u8]| {
        let wrapped = wrap(folder.path(), &parameters, material);
        request("raw-never-made", spec, anywhere, &parameters, wrapped)
    };
    // Off by default: said before the import is looked for.
    let old = request("raw-old", v1::KeySpec::KeySpec3des, anywhere, &parameters, vec![7; 100]);
    let answer = rpc.keys.import_key_material(old).await;
    assert!(answer.as_ref().expect_err("refused").message().contains("keys.legacy = [\"3des\"]"));
    expected.refusal(answer, "SPEC_NOT_ALLOWED", Some("spec"));
    // One byte throughout, in one half, and a key of the cipher alone.
    let (counting, repeated): (Vec<u8>, _) = ((1..=16).collect(), vec![9; 16]);
    for wrong in [
        [&repeated[..], &repeated].concat(),
        [&counting[..], &repeated].concat(),
        [&repeated[..], &counting].concat(),
        counting,
    ] {
        let answer = rpc.keys.import_key_material(material(&wrong)).await;
        expected.refusal(answer, "IMPORT_INVALID", Some("wrapped_material"));
    }
    let good: Vec<u8> = (0..32).collect();
    let mut asked = material(&good);
    asked.check_value = vec![1, 2, 3];
    expected.refusal(rpc.keys.import_key_material(asked).await, "FIELD_INVALID", Some("check_value"));
    let mut asked = material(&good);
    asked.key.as_mut().expect("a key").protection = v1::Protection::HsmResident.into();
    expected.refusal(rpc.keys.import_key_material(asked).await, "SPEC_UNSUPPORTED", Some("protection"));
    expected.are_all_recorded().await;
}

#[tokio::test]
async fn an_older_version_decrypts_by_its_number_and_states_are_those_of_encryption() {
    const KEY: &str = "raw-life";
    make_key(KEY, v1::KeySpec::Sm4CbcHmacSm3).await;
    let (mut rpc, mut admin, mut expected) = (app().await, admin().await, Expected::default());
    let key = || KEY.to_owned();
    let first = rpc.crypto.raw_encrypt(encrypt(KEY)).await.expect("encrypts").into_inner();
    let rotate = v1::RotateKeyRequest { key: key(), ..Default::default() };
    admin.keys.rotate_key(rotate).await.expect("rotates");
    let answer = rpc.crypto.raw_decrypt(decrypt(KEY, &first)).await;
    expected.refusal(answer, "CIPHERTEXT_INVALID", None);
    let opened = rpc.crypto.raw_decrypt(decrypt("raw-life@1", &first)).await.expect("it opens").into_inner();
    assert_eq!((opened.plaintext.as_slice(), opened.key_version), (&b"attack at dawn"[..], 1));
    expected.refusal(rpc.crypto.raw_encrypt(encrypt("raw-life@1")).await, "KEY_STATE_FORBIDS", None);
    let second = rpc.crypto.raw_encrypt(encrypt(KEY)).await.expect("encrypts").into_inner();
    assert_eq!(second.key_version, 2);

    admin.keys.suspend_key(v1::SuspendKeyRequest { key: key() }).await.expect("suspends");
    expected.refusal(rpc.crypto.raw_encrypt(encrypt(KEY)).await, "KEY_STATE_FORBIDS", None);
    expected.refusal(rpc.crypto.raw_decrypt(decrypt(KEY, &second)).await, "KEY_STATE_FORBIDS", None);
    admin.keys.resume_key(v1::ResumeKeyRequest { key: key() }).await.expect("resumes");
    admin.keys.deactivate_key(v1::DeactivateKeyRequest { key: key() }).await.expect("deactivates");
    expected.refusal(rpc.crypto.raw_encrypt(encrypt(KEY)).await, "KEY_STATE_FORBIDS", None);
    rpc.crypto.raw_decrypt(decrypt(KEY, &second)).await.expect("decrypts what was encrypted");
    rpc.crypto.raw_decrypt(decrypt("raw-life@1", &first)).await.expect("decrypts what was encrypted");
    admin.keys.archive_key(v1::ArchiveKeyRequest { key: key() }).await.expect("archives");
    expected.refusal(rpc.crypto.raw_decrypt(decrypt(KEY, &second)).await, "KEY_STATE_FORBIDS", None);
    admin.keys.compromise_key(v1::CompromiseKeyRequest { key: key() }).await.expect("marks");
    expected.refusal(rpc.crypto.raw_decrypt(decrypt(KEY, &second)).await, "KEY_STATE_FORBIDS", None);
    expected.are_all_recorded().await;

    let entries = kms_tests::audit::records_from(deployment(), 0).await;
    let of_key = |event: &str| {
        let is_one = |entry: &&kms_tests::LogEntry| {
            let record = &entry.record;
            let id = record.key_id.map(|id| id.to_string());
            record.event == event && record.outcome == "done" && id.as_deref() == Some(&first.key_id)
        };
        entries.iter().filter(is_one).count()
    };
    assert_eq!((of_key("raw.encrypt"), of_key("raw.decrypt")), (2, 3));
}
