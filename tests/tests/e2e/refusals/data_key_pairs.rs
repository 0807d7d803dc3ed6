//! Data key pairs: OpenSSL uses them, they open as nothing else, and nothing else opens as one.

use super::recipients::{P256, make_recipient, openssl, private_key, recipient};
use super::{Expected, PAIRS, PROTECTIONS, admin, app, deployment, make_key, pair};
use crate::configured::serve;
use kms_core::context::EncryptionContext;
use kms_core::envelope::Purpose;
use kms_core::id::{KeyId, KeyVersion};
use kms_core::pair::{PairPublicKey, check_private_key};
use kms_core::recipient::RecipientBinding;
use kms_proto::v1;
use kms_tests::rpc::refused;
use kms_tests::{Rpc, audit};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

fn generate(key: &str, spec: v1::KeySpec) -> v1::GenerateDataKeyPairRequest {
    v1::GenerateDataKeyPairRequest {
        key: key.to_owned(),
        pair_spec: spec.into(),
        context: vec![pair("file", "a")],
        ..Default::default()
    }
}

fn decrypt(ciphertext: &[u8]) -> v1::DecryptDataKeyPairRequest {
    v1::DecryptDataKeyPairRequest {
        ciphertext: ciphertext.to_vec(),
        context: vec![pair("file", "a")],
        ..Default::default()
    }
}

#[tokio::test]
async fn every_kind_of_pair_is_made_and_opened_again_and_openssl_knows_it() {
    let folder = TempDir::new().expect("a folder");
    for protection in PROTECTIONS {
        let name = &format!("pair-{}", protection as i32);
        make_key(name, protection).await;
        let mut rpc = app().await;
        for (spec, algorithm) in PAIRS {
            let made = rpc.crypto.generate_data_key_pair(generate(name, spec)).await.expect("makes one");
            let made = made.into_inner();
            assert_eq!((made.pair_spec(), made.key_version, made.recipient_ciphertext.len()), (spec, 1, 0));
            let public = PairPublicKey::from_spki(&made.public_key).expect("a public key");
            assert_eq!(check_private_key(algorithm, &made.private_key), Ok(public), "{algorithm}");
            fs::write(folder.path().join("private.der"), &made.private_key).expect("written");
            let arguments = ["pkey", "-inform", "DER", "-in", "private.der", "-pubout", "-outform", "DER"];
            assert_eq!(openssl(folder.path(), &arguments), made.public_key, "{algorithm}");
            let opened = rpc.crypto.decrypt_data_key_pair(decrypt(&made.ciphertext)).await.expect("opens");
            let opened = opened.into_inner();
            assert_eq!(opened.private_key, made.private_key);
            assert_eq!((opened.pair_spec(), opened.public_key), (spec, made.public_key));
        }
        let without = v1::GenerateDataKeyPairRequest {
            without_plaintext: true,
            ..generate(name, v1::KeySpec::Ed25519)
        };
        let made = rpc.crypto.generate_data_key_pair(without).await.expect("makes one").into_inner();
        assert!(made.private_key.is_empty() && !made.public_key.is_empty());
        let opened = rpc.crypto.decrypt_data_key_pair(decrypt(&made.ciphertext)).await.expect("opens");
        assert_eq!(opened.into_inner().public_key, made.public_key);
        let usage = v1::GetUsageReportRequest { key: name.clone() };
        let usage = admin().await.keys.get_usage_report(usage).await.expect("a report").into_inner();
        assert_eq!((usage.versions[0].data_keys, usage.versions[0].decryptions), (9, 9));
    }
}

#[tokio::test]
async fn a_pair_opens_as_nothing_else_and_nothing_else_opens_as_one() {
    for protection in PROTECTIONS {
        let name = &format!("pair-mixed-{}", protection as i32);
        make_key(name, protection).await;
        let (mut rpc, mut expected) = (app().await, Expected::default());
        let context = vec![pair("file", "a")];
        let made = rpc.crypto.generate_data_key_pair(generate(name, v1::KeySpec::Sm2)).await;
        let made = made.expect("makes one").into_inner();
        let as_data = v1::DecryptRequest {
            ciphertext: made.ciphertext.clone(),
            context: context.clone(),
            ..Default::default()
        };
        expected.refusal(rpc.crypto.decrypt(as_data).await, "CIPHERTEXT_INVALID", None);
        let as_key = v1::DecryptDataKeyRequest {
            ciphertext: made.ciphertext.clone(),
            context: context.clone(),
            ..Default::default()
        };
        expected.refusal(rpc.crypto.decrypt_data_key(as_key).await, "CIPHERTEXT_INVALID", None);
        let data =
            v1::EncryptRequest { key: name.clone(), plaintext: vec![7; 150], context: context.clone() };
        let data = rpc.crypto.encrypt(data).await.expect("encrypts").into_inner().ciphertext;
        let key = v1::GenerateDataKeyRequest { key: name.clone(), context, ..Default::default() };
        let key = rpc.crypto.generate_data_key(key).await.expect("makes one").into_inner().ciphertext;
        let mut relabelled = made.ciphertext.clone();
        assert_eq!(relabelled[5], 3, "docs/formats/ciphertext.md");
        relabelled[5] = 1;
        let relabelled_request = v1::DecryptRequest {
            ciphertext: relabelled,
            context: vec![pair("file", "a")],
            ..Default::default()
        };
        expected.refusal(rpc.crypto.decrypt(relabelled_request).await, "CIPHERTEXT_INVALID", None);
        let relabel = |ciphertext: &[u8]| {
            let mut ciphertext = ciphertext.to_vec();
            ciphertext[5] = 3;
            ciphertext
        };
        let mut damaged = made.ciphertext.clone();
        *damaged.last_mut().expect("bytes") ^= 1;
        for wrong in [&data, &key, &relabel(&data), &relabel(&key), &damaged, &vec![], &vec![0; 80]] {
            let answer = rpc.crypto.decrypt_data_key_pair(decrypt(wrong)).await;
            expected.refusal(answer, "CIPHERTEXT_INVALID", None);
        }
        let other = v1::DecryptDataKeyPairRequest { context: vec![], ..decrypt(&made.ciphertext) };
        expected.refusal(rpc.crypto.decrypt_data_key_pair(other).await, "CIPHERTEXT_INVALID", None);
        let other =
            v1::DecryptDataKeyPairRequest { expected_key: format!("{name}@2"), ..decrypt(&made.ciphertext) };
        let answer = rpc.crypto.decrypt_data_key_pair(other).await;
        expected.refusal(answer, "KEY_MISMATCH", Some("expected_key"));
        expected.are_all_recorded().await;
    }
}

#[tokio::test]
async fn a_request_for_a_pair_that_will_not_do_is_refused_by_its_field() {
    use v1::RecipientAlgorithm as A;
    make_key("pair-bad", v1::Protection::HsmWrapped).await;
    let folder = TempDir::new().expect("a folder");
    let folder = folder.path();
    let (mut rpc, mut expected) = (app().await, Expected::default());
    for number in [0, 1, 2, 16, 19, 35, 64, 99, -1] {
        let request =
            v1::GenerateDataKeyPairRequest { pair_spec: number, ..generate("pair-bad", v1::KeySpec::Sm2) };
        let answer = rpc.crypto.generate_data_key_pair(request).await;
        expected.refusal(answer, "SPEC_UNSUPPORTED", Some("pair_spec"));
    }
    let made = rpc.crypto.generate_data_key_pair(generate("pair-bad", v1::KeySpec::Sm2)).await;
    let made = made.expect("makes one").into_inner();
    let rsa = make_recipient(folder, "rsa", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
    let sm2 = make_recipient(folder, "sm2", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:SM2"]);
    let p256 = make_recipient(folder, "p256", &P256);
    for (key, algorithm, field) in [
        (&rsa, A::RsaOaepSha256, "recipient.algorithm"),
        (&sm2, A::Sm2, "recipient.algorithm"),
        (&p256, A::Sm2, "recipient.algorithm"),
        (&vec![], A::HpkeP256, "recipient.public_key"),
    ] {
        let to = Some(recipient(key, algorithm));
        let request = v1::GenerateDataKeyPairRequest {
            recipient: to.clone(),
            ..generate("pair-bad", v1::KeySpec::Sm2)
        };
        let answer = rpc.crypto.generate_data_key_pair(request).await;
        expected.refusal(answer, "FIELD_INVALID", Some(field));
        let request = v1::DecryptDataKeyPairRequest { recipient: to, ..decrypt(&made.ciphertext) };
        let answer = rpc.crypto.decrypt_data_key_pair(request).await;
        expected.refusal(answer, "FIELD_INVALID", Some(field));
    }
    let to = Some(recipient(&p256, A::HpkeP256));
    let nobody = v1::GenerateDataKeyPairRequest {
        recipient: to,
        without_plaintext: true,
        ..generate("pair-bad", v1::KeySpec::Sm2)
    };
    let answer = rpc.crypto.generate_data_key_pair(nobody).await;
    expected.refusal(answer, "FIELD_INVALID", Some("without_plaintext"));
    let mut admin = admin().await;
    let answer = admin.crypto.generate_data_key_pair(generate("pair-bad", v1::KeySpec::Sm2)).await;
    expected.refusal(answer, "NOT_PERMITTED", None);
    let answer = admin.crypto.decrypt_data_key_pair(decrypt(&made.ciphertext)).await;
    expected.refusal(answer, "NOT_PERMITTED", None);
    admin.keys.suspend_key(v1::SuspendKeyRequest { key: "pair-bad".into() }).await.expect("suspends");
    let answer = rpc.crypto.generate_data_key_pair(generate("pair-bad", v1::KeySpec::Sm2)).await;
    expected.refusal(answer, "KEY_STATE_FORBIDS", None);
    let answer = rpc.crypto.decrypt_data_key_pair(decrypt(&made.ciphertext)).await;
    expected.refusal(answer, "KEY_STATE_FORBIDS", None);
    expected.are_all_recorded().await;
}

#[tokio::test]
async fn the_private_key_goes_to_a_recipient_alone() {
    make_key("pair-recipient", v1::Protection::HsmResident).await;
    let folder = TempDir::new().expect("a folder");
    let to = Some(recipient(&make_recipient(folder.path(), "p256", &P256), v1::RecipientAlgorithm::HpkeP256));
    let mut rpc = app().await;
    for spec in [v1::KeySpec::Rsa4096, v1::KeySpec::Ed25519] {
        let request =
            v1::GenerateDataKeyPairRequest { recipient: to.clone(), ..generate("pair-recipient", spec) };
        let answer = rpc.crypto.generate_data_key_pair(request).await.expect("makes one");
        let id = answer.metadata().get("x-request-id").expect("an id").to_str().expect("text").to_owned();
        let made = answer.into_inner();
        assert!(made.private_key.is_empty());
        let context = EncryptionContext::new([("file".into(), "a".into())]).expect("a context");
        let public = PairPublicKey::from_spki(&made.public_key).expect("a public key");
        let binding = RecipientBinding {
            purpose: Purpose::DataKeyPair,
            spec: public.algorithm().into(),
            key: (KeyId::parse(&made.key_id).expect("an id"), KeyVersion::FIRST),
            context: &context,
        };
        let key = private_key(folder.path(), "p256");
        let private = key.open(&binding.to_info(), &made.recipient_ciphertext).expect("opens");
        assert_eq!(check_private_key(public.algorithm(), private.expose()), Ok(public));
        let request = v1::DecryptDataKeyPairRequest { recipient: to.clone(), ..decrypt(&made.ciphertext) };
        let opened = rpc.crypto.decrypt_data_key_pair(request).await.expect("opens").into_inner();
        assert!(opened.private_key.is_empty());
        let again = key.open(&binding.to_info(), &opened.recipient_ciphertext).expect("opens");
        assert_eq!(again.expose(), private.expose());
        let entry = audit::record_of(deployment(), &id).await;
        assert_eq!(entry.record.event, "data_key_pair.generate");
        assert_eq!(entry.detail("recipient_algorithm"), Some("hpke-p256"));
        assert!(
            entry.detail("recipient_fingerprint").is_some_and(|text| text.starts_with("sha-256:")),
            "{entry:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pair_outside_the_list_is_not_made() {
    let deployment = serve(ToOwned::to_owned, "[keys]\nspecs = [\"sm4\", \"sm2\"]\n");
    deployment.unseal();
    let mut rpc = Rpc::connect(&deployment, "app").await;
    let made = rpc.crypto.generate_data_key_pair(generate("resident", v1::KeySpec::Sm2)).await;
    let made = made.expect("it is in the list").into_inner();
    rpc.crypto.decrypt_data_key_pair(decrypt(&made.ciphertext)).await.expect("opens");
    let refused =
        refused(rpc.crypto.generate_data_key_pair(generate("resident", v1::KeySpec::Rsa2048)).await);
    assert_eq!((refused.reason.as_str(), refused.field.as_deref()), ("SPEC_NOT_ALLOWED", Some("pair_spec")));
}

/// The commands of docs/cli.md.
#[tokio::test]
async fn a_pair_goes_through_files_that_openssl_reads() {
    make_key("pair-files", v1::Protection::HsmWrapped).await;
    let folder = TempDir::new().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (private, public, wrapped) = (path("private.pem"), path("public.pem"), path("wrapped"));
    let generate = ["data-key-pair", "generate", "--key", "pair-files", "--spec", "ec-p256"];
    let files = ["--out-private", &private, "--out-public", &public, "--out-ciphertext", &wrapped];
    let arguments = [&generate[..], &files].concat();
    let shown = deployment().kms("app", &arguments).done();
    assert!(!shown.contains("private") && !shown.contains("ciphertext"), "all of it is in files: {shown}");
    let mode = fs::metadata(&private).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let from_private = openssl(folder.path(), &["pkey", "-in", "private.pem", "-pubout"]);
    assert_eq!(from_private, fs::read(&public).expect("it is there"));
    deployment().kms("app", &arguments).ended_with(1).says("exists already");
    let again = path("again.pem");
    let decrypt = ["data-key-pair", "decrypt", "--in", &wrapped, "--out-private", &again];
    deployment().kms("app", &decrypt).done();
    assert_eq!(fs::read(&again).expect("it is there"), fs::read(&private).expect("it is there"));
    let as_data_key = ["data-key", "decrypt", "--in", &wrapped];
    deployment().kms("app", &as_data_key).ended_with(4).says("CIPHERTEXT_INVALID");
}
