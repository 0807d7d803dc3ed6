//! What cannot be encrypted again, and which of the two keys is to blame.

use super::{Expected, admin, app, make_key, pair};
use crate::other_deployment;
use kms_proto::v1;
use kms_tests::Rpc;

const PROTECTIONS: [v1::Protection; 2] = [v1::Protection::HsmResident, v1::Protection::HsmWrapped];

/// A ciphertext under a key, to be encrypted again under another one.
async fn scene(old: &str, new: &str) -> v1::ReEncryptRequest {
    let context = vec![pair("file", "a")];
    let request =
        v1::EncryptRequest { key: old.into(), plaintext: b"salary".to_vec(), context: context.clone() };
    let ciphertext = app().await.crypto.encrypt(request).await.expect("encrypts").into_inner().ciphertext;
    v1::ReEncryptRequest { ciphertext, context, new_key: new.into(), ..Default::default() }
}

#[tokio::test]
async fn a_changed_ciphertext_context_or_expectation_is_refused() {
    for protection in PROTECTIONS {
        let (old, new) =
            (format!("again-old-{}", protection as i32), format!("again-new-{}", protection as i32));
        make_key(&old, protection).await;
        let new_key = make_key(&new, protection).await;
        let (mut rpc, mut expected) = (app().await, Expected::default());
        let request = scene(&old, &new).await;
        rpc.crypto.re_encrypt(request.clone()).await.expect("nothing is changed");
        for at in (0..request.ciphertext.len()).step_by(3) {
            let mut changed = request.clone();
            changed.ciphertext[at] ^= 0x10;
            expected.refusal(rpc.crypto.re_encrypt(changed).await, "CIPHERTEXT_INVALID", None);
        }
        for context in [vec![], vec![pair("file", "b")], vec![pair("file", "a"), pair("more", "c")]] {
            // A right new context does not help.
            let other =
                v1::ReEncryptRequest { context, new_context: vec![pair("file", "a")], ..request.clone() };
            expected.refusal(rpc.crypto.re_encrypt(other).await, "CIPHERTEXT_INVALID", None);
        }
        for expected_key in [&new, &format!("{old}@2"), &new_key.key_id] {
            let other = v1::ReEncryptRequest { expected_key: expected_key.clone(), ..request.clone() };
            expected.refusal(rpc.crypto.re_encrypt(other).await, "KEY_MISMATCH", Some("expected_key"));
        }
        expected.are_all_recorded().await;
    }
}

#[tokio::test]
async fn fields_of_a_wrong_form_are_named() {
    make_key("again-form", v1::Protection::Unspecified).await;
    let (mut rpc, mut expected) = (app().await, Expected::default());
    let request = scene("again-form", "").await;
    let long = v1::ReEncryptRequest { ciphertext: vec![0; 128 * 1024], ..request.clone() };
    expected.refusal(rpc.crypto.re_encrypt(long).await, "FIELD_INVALID", Some("ciphertext"));
    let none = v1::ReEncryptRequest { ciphertext: vec![], ..request.clone() };
    expected.refusal(rpc.crypto.re_encrypt(none).await, "CIPHERTEXT_INVALID", None);
    let no_name = v1::ReEncryptRequest { new_key: "No Name".into(), ..request.clone() };
    expected.refusal(rpc.crypto.re_encrypt(no_name).await, "FIELD_INVALID", Some("new_key"));
    let no_name = v1::ReEncryptRequest { expected_key: "No Name".into(), ..request.clone() };
    expected.refusal(rpc.crypto.re_encrypt(no_name).await, "FIELD_INVALID", Some("expected_key"));
    let twice = vec![pair("k", "v"), pair("k", "w")];
    let other = v1::ReEncryptRequest { context: twice.clone(), ..request.clone() };
    expected.refusal(rpc.crypto.re_encrypt(other).await, "FIELD_INVALID", Some("context"));
    let other = v1::ReEncryptRequest { new_context: twice, ..request };
    expected.refusal(rpc.crypto.re_encrypt(other).await, "FIELD_INVALID", Some("new_context"));
    expected.are_all_recorded().await;
}

#[tokio::test]
async fn the_old_version_must_decrypt_and_the_new_one_encrypt() {
    for protection in PROTECTIONS {
        let (old, new) =
            (format!("again-from-{}", protection as i32), format!("again-to-{}", protection as i32));
        make_key(&old, protection).await;
        make_key(&new, protection).await;
        let (mut rpc, mut admin, mut expected) = (app().await, admin().await, Expected::default());
        let request = scene(&old, &new).await;
        let same = v1::ReEncryptRequest { new_key: String::new(), ..request.clone() };
        let key = |name: &str| name.to_owned();

        admin.keys.suspend_key(v1::SuspendKeyRequest { key: key(&new) }).await.expect("suspends");
        expected.refusal(rpc.crypto.re_encrypt(request.clone()).await, "KEY_STATE_FORBIDS", Some("new_key"));
        admin.keys.resume_key(v1::ResumeKeyRequest { key: key(&new) }).await.expect("resumes");
        let rotate = v1::RotateKeyRequest { key: key(&new), ..Default::default() };
        admin.keys.rotate_key(rotate).await.expect("rotates");
        let first = v1::ReEncryptRequest { new_key: format!("{new}@1"), ..request.clone() };
        expected.refusal(rpc.crypto.re_encrypt(first).await, "KEY_STATE_FORBIDS", Some("new_key"));
        let missing = v1::ReEncryptRequest { new_key: format!("{new}@3"), ..request.clone() };
        expected.refusal(rpc.crypto.re_encrypt(missing).await, "KEY_VERSION_NOT_FOUND", Some("new_key"));

        // A deactivated key is left for another one, and not entered again.
        admin.keys.deactivate_key(v1::DeactivateKeyRequest { key: key(&old) }).await.expect("deactivates");
        expected.refusal(rpc.crypto.re_encrypt(same).await, "KEY_STATE_FORBIDS", Some("new_key"));
        rpc.crypto.re_encrypt(request.clone()).await.expect("a deactivated key decrypts");
        admin.keys.archive_key(v1::ArchiveKeyRequest { key: key(&old) }).await.expect("archives");
        expected.refusal(rpc.crypto.re_encrypt(request.clone()).await, "KEY_STATE_FORBIDS", None);
        admin.keys.recover_key(v1::RecoverKeyRequest { key: key(&old) }).await.expect("recovers");
        rpc.crypto.re_encrypt(request).await.expect("it decrypts again");
        expected.are_all_recorded().await;
    }
}

#[tokio::test]
async fn keys_for_something_else_or_of_somebody_else_are_refused() {
    make_key("again-mine", v1::Protection::Unspecified).await;
    let mac = v1::CreateKeyRequest {
        name: "again-mac".into(),
        spec: v1::KeySpec::HmacSm3.into(),
        ..Default::default()
    };
    admin().await.keys.create_key(mac).await.expect("creates");
    let (mut rpc, mut expected) = (app().await, Expected::default());
    let request = scene("again-mine", "again-mac").await;
    expected.refusal(rpc.crypto.re_encrypt(request.clone()).await, "KEY_USAGE_FORBIDS", Some("new_key"));
    let unknown = v1::ReEncryptRequest { new_key: "nobody-made-this".into(), ..request.clone() };
    expected.refusal(rpc.crypto.re_encrypt(unknown).await, "KEY_NOT_FOUND", Some("new_key"));

    // Keys that are not in the caller's tenant do not exist, and what is under them is a wrong ciphertext.
    let mut there = Rpc::connect(other_deployment(), "admin").await;
    let create = v1::CreateKeyRequest {
        name: "again-foreign".into(),
        spec: v1::KeySpec::Sm4.into(),
        ..Default::default()
    };
    let foreign = there.keys.create_key(create).await.expect("creates").into_inner().key_id;
    let mut there = Rpc::connect(other_deployment(), "app").await;
    let encrypt = v1::EncryptRequest { key: foreign.clone(), plaintext: b"x".to_vec(), ..Default::default() };
    let ciphertext = there.crypto.encrypt(encrypt).await.expect("encrypts").into_inner().ciphertext;
    let from_there = v1::ReEncryptRequest { ciphertext, new_key: "again-mine".into(), ..Default::default() };
    expected.refusal(rpc.crypto.re_encrypt(from_there).await, "CIPHERTEXT_INVALID", None);
    let to_there = v1::ReEncryptRequest { new_key: foreign, ..request.clone() };
    expected.refusal(rpc.crypto.re_encrypt(to_there).await, "KEY_NOT_FOUND", Some("new_key"));
    let mut admin = admin().await;
    expected.refusal(admin.crypto.re_encrypt(request).await, "NOT_PERMITTED", None);
    expected.are_all_recorded().await;
}
