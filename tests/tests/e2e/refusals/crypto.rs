//! Using keys: what is too large, of another kind, or about another key than the caller thinks.

use super::{Expected, admin, app, deployment, make_key, pair};
use kms_proto::v1;
use kms_tests::rpc::refused;
use tonic::Code;

fn encrypt(key: &str, len: usize) -> v1::EncryptRequest {
    v1::EncryptRequest { key: key.to_owned(), plaintext: vec![7; len], ..Default::default() }
}

async fn encrypted(key: &str, context: Vec<v1::ContextPair>) -> v1::DecryptRequest {
    let request = v1::EncryptRequest { context: context.clone(), ..encrypt(key, 20) };
    let ciphertext = app().await.crypto.encrypt(request).await.expect("encrypts").into_inner().ciphertext;
    v1::DecryptRequest { ciphertext, context, expected_key: String::new() }
}

#[tokio::test]
async fn another_context_is_refused() {
    for (name, protection) in
        [("context-resident", v1::Protection::HsmResident), ("context-wrapped", v1::Protection::HsmWrapped)]
    {
        make_key(name, protection).await;
        let (mut rpc, mut expected) = (app().await, Expected::default());
        let request = encrypted(name, vec![pair("file", "a"), pair("owner", "b")]).await;
        let swapped = vec![pair("owner", "b"), pair("file", "a")];
        let same = v1::DecryptRequest { context: swapped, ..request.clone() };
        rpc.crypto.decrypt(same).await.expect("the order of the pairs does not matter");
        for context in [
            vec![],
            vec![pair("file", "a")],
            vec![pair("file", "b"), pair("owner", "a")],
            vec![pair("file", "a"), pair("owner", "b"), pair("more", "c")],
            vec![pair("fil", "ea"), pair("owner", "b")],
            vec![pair("file", "A"), pair("owner", "b")],
        ] {
            let other = v1::DecryptRequest { context, ..request.clone() };
            expected.refusal(rpc.crypto.decrypt(other).await, "CIPHERTEXT_INVALID", None);
        }
        expected.are_all_recorded().await;
    }
}

#[tokio::test]
async fn a_context_that_is_too_large_or_ambiguous_is_refused() {
    make_key("context-limits", v1::Protection::Unspecified).await;
    let (mut rpc, mut expected) = (app().await, Expected::default());
    let many = |count: usize| (0..count).map(|number| pair(&format!("k{number}"), "v")).collect::<Vec<_>>();
    let at_limit = v1::EncryptRequest { context: many(16), ..encrypt("context-limits", 1) };
    rpc.crypto.encrypt(at_limit).await.expect("16 pairs are allowed");
    let longest = vec![pair("k", &"v".repeat(8191))];
    let at_limit = v1::EncryptRequest { context: longest, ..encrypt("context-limits", 1) };
    rpc.crypto.encrypt(at_limit).await.expect("8 KiB are allowed");
    for context in [
        many(17),
        vec![pair("k", &"v".repeat(8192))],
        vec![pair("k", "v"), pair("k", "v")],
        vec![pair("k", "v"), pair("k", "w")],
        vec![pair("", "v")],
    ] {
        let request = v1::EncryptRequest { context: context.clone(), ..encrypt("context-limits", 1) };
        expected.refusal(rpc.crypto.encrypt(request).await, "FIELD_INVALID", Some("context"));
        let request = v1::GenerateDataKeyRequest {
            key: "context-limits".into(),
            context: context.clone(),
            ..Default::default()
        };
        expected.refusal(rpc.crypto.generate_data_key(request).await, "FIELD_INVALID", Some("context"));
        let request = v1::DecryptRequest { context, ciphertext: vec![0; 100], ..Default::default() };
        expected.refusal(rpc.crypto.decrypt(request).await, "FIELD_INVALID", Some("context"));
    }
    expected.are_all_recorded().await;
}

#[tokio::test]
async fn a_ciphertext_of_another_key_than_expected_is_refused() {
    make_key("expected", v1::Protection::Unspecified).await;
    let other = make_key("not-expected", v1::Protection::Unspecified).await;
    let (mut rpc, mut expected) = (app().await, Expected::default());
    let request = encrypted("expected", vec![]).await;
    for right in ["expected", "expected@1"] {
        let request = v1::DecryptRequest { expected_key: right.into(), ..request.clone() };
        rpc.crypto.decrypt(request).await.expect("the expected key");
    }
    for wrong in ["not-expected", "expected@2", other.key_id.as_str()] {
        let request = v1::DecryptRequest { expected_key: wrong.into(), ..request.clone() };
        expected.refusal(rpc.crypto.decrypt(request).await, "KEY_MISMATCH", Some("expected_key"));
    }
    let unknown = v1::DecryptRequest { expected_key: "nobody-made-this".into(), ..request.clone() };
    expected.refusal(rpc.crypto.decrypt(unknown).await, "KEY_NOT_FOUND", None);
    let no_name = v1::DecryptRequest { expected_key: "No Name".into(), ..request };
    expected.refusal(rpc.crypto.decrypt(no_name).await, "FIELD_INVALID", Some("expected_key"));
    expected.are_all_recorded().await;
}

#[tokio::test]
async fn a_ciphertext_of_another_purpose_is_refused() {
    for (name, protection) in
        [("purpose-resident", v1::Protection::HsmResident), ("purpose-wrapped", v1::Protection::HsmWrapped)]
    {
        make_key(name, protection).await;
        let (mut rpc, mut expected) = (app().await, Expected::default());
        let generate = v1::GenerateDataKeyRequest { key: name.into(), ..Default::default() };
        let data_key = rpc.crypto.generate_data_key(generate).await.expect("generates").into_inner();
        let as_data = v1::DecryptRequest { ciphertext: data_key.ciphertext, ..Default::default() };
        expected.refusal(rpc.crypto.decrypt(as_data).await, "CIPHERTEXT_INVALID", None);
        let as_data_key = v1::DecryptDataKeyRequest {
            ciphertext: encrypted(name, vec![]).await.ciphertext,
            ..Default::default()
        };
        expected.refusal(rpc.crypto.decrypt_data_key(as_data_key).await, "CIPHERTEXT_INVALID", None);
        expected.are_all_recorded().await;
    }
}

#[tokio::test]
async fn a_version_that_does_not_exist_or_only_decrypts_is_refused() {
    make_key("rotating", v1::Protection::Unspecified).await;
    let (mut rpc, mut expected) = (app().await, Expected::default());
    let old = encrypted("rotating", vec![]).await;
    let rotate = v1::RotateKeyRequest { key: "rotating".into(), ..Default::default() };
    admin().await.keys.rotate_key(rotate).await.expect("rotates");
    for missing in ["rotating@3", "rotating@4294967295"] {
        expected.refusal(rpc.crypto.encrypt(encrypt(missing, 1)).await, "KEY_VERSION_NOT_FOUND", None);
    }
    for no_version in ["rotating@0", "rotating@4294967296", "rotating@-1", "rotating@ 1"] {
        let answer = rpc.crypto.encrypt(encrypt(no_version, 1)).await;
        expected.refusal(answer, "FIELD_INVALID", Some("key"));
    }
    expected.refusal(rpc.crypto.encrypt(encrypt("rotating@1", 1)).await, "KEY_STATE_FORBIDS", None);
    rpc.crypto.decrypt(old).await.expect("an old version decrypts");
    let current = rpc.crypto.encrypt(encrypt("rotating", 1)).await.expect("encrypts").into_inner();
    assert_eq!(current.key_version, 2);
    expected.are_all_recorded().await;
}

#[tokio::test]
async fn a_suspended_key_does_nothing_and_a_resumed_one_everything() {
    make_key("suspended", v1::Protection::Unspecified).await;
    let (mut rpc, mut admin, mut expected) = (app().await, admin().await, Expected::default());
    let old = encrypted("suspended", vec![]).await;
    let generate = v1::GenerateDataKeyRequest { key: "suspended".into(), ..Default::default() };
    let data_key = rpc.crypto.generate_data_key(generate.clone()).await.expect("generates").into_inner();
    let data_key = v1::DecryptDataKeyRequest { ciphertext: data_key.ciphertext, ..Default::default() };
    admin.keys.suspend_key(v1::SuspendKeyRequest { key: "suspended".into() }).await.expect("suspends");
    expected.refusal(rpc.crypto.encrypt(encrypt("suspended", 1)).await, "KEY_STATE_FORBIDS", None);
    expected.refusal(rpc.crypto.decrypt(old.clone()).await, "KEY_STATE_FORBIDS", None);
    expected.refusal(rpc.crypto.generate_data_key(generate).await, "KEY_STATE_FORBIDS", None);
    expected.refusal(rpc.crypto.decrypt_data_key(data_key.clone()).await, "KEY_STATE_FORBIDS", None);
    admin.keys.resume_key(v1::ResumeKeyRequest { key: "suspended".into() }).await.expect("resumes");
    rpc.crypto.decrypt(old).await.expect("decrypts again");
    rpc.crypto.decrypt_data_key(data_key).await.expect("decrypts again");
    expected.are_all_recorded().await;
}

#[tokio::test]
async fn more_than_64_kib_are_refused_and_64_kib_are_not() {
    for (name, protection) in
        [("sizes-resident", v1::Protection::HsmResident), ("sizes-wrapped", v1::Protection::HsmWrapped)]
    {
        make_key(name, protection).await;
        let (mut rpc, mut expected) = (app().await, Expected::default());
        for len in [0, 1, 64 * 1024] {
            let answer = rpc.crypto.encrypt(encrypt(name, len)).await.expect("encrypts").into_inner();
            let request = v1::DecryptRequest { ciphertext: answer.ciphertext, ..Default::default() };
            let decrypted = rpc.crypto.decrypt(request).await.expect("decrypts").into_inner();
            assert_eq!(decrypted.plaintext, vec![7; len]);
        }
        let answer = rpc.crypto.encrypt(encrypt(name, 64 * 1024 + 1)).await;
        expected.refusal(answer, "FIELD_INVALID", Some("plaintext"));
        let request = v1::DecryptRequest { ciphertext: vec![0; 128 * 1024], ..Default::default() };
        expected.refusal(rpc.crypto.decrypt(request).await, "FIELD_INVALID", Some("ciphertext"));
        expected.are_all_recorded().await;
    }
}

#[tokio::test]
async fn a_message_of_10_mib_is_refused_and_the_service_goes_on() {
    make_key("huge", v1::Protection::Unspecified).await;
    let mut rpc = app().await;
    let refused = refused(rpc.crypto.encrypt(encrypt("huge", 10 << 20)).await);
    // Refused by the transport before the message is read, hence without a reason of ours.
    assert!(matches!(refused.code, Code::OutOfRange | Code::ResourceExhausted), "{refused:?}");
    rpc.crypto.encrypt(encrypt("huge", 1)).await.expect("the same connection still serves");
    kms_tests::audit::verify(deployment());
}

#[tokio::test]
async fn a_deadline_that_has_passed_is_refused() {
    make_key("late", v1::Protection::HsmResident).await;
    let mut rpc = app().await;
    let mut request = tonic::Request::new(encrypt("late", 1));
    request.set_timeout(std::time::Duration::from_nanos(1));
    let refused = refused(rpc.crypto.encrypt(request).await);
    // The client's own clock may be first.
    assert!(matches!(refused.code, Code::DeadlineExceeded | Code::Cancelled), "{refused:?}");
    rpc.crypto.encrypt(encrypt("late", 1)).await.expect("the next call has time");
}
