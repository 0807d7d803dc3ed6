//! Registered data keys: what is refused, and that a repeated request is done once.

use super::recipients::{P256, make_recipient, private_key, recipient};
use super::{Expected, admin, app, deployment, make_key};
use kms_core::context::EncryptionContext;
use kms_core::envelope::Purpose;
use kms_core::id::{KeyId, KeyVersion};
use kms_core::recipient::RecipientBinding;
use kms_core::spec::KeySpec;
use kms_proto::v1;
use kms_tests::audit;
use tempfile::TempDir;

const WRAPPED: v1::Protection = v1::Protection::HsmWrapped;

fn create(name: &str, key: &str) -> v1::CreateDataKeyRequest {
    v1::CreateDataKeyRequest { name: name.into(), key: key.into(), ..Default::default() }
}

fn get(name: &str, version: u32) -> v1::GetDataKeyRequest {
    v1::GetDataKeyRequest { name: name.into(), version, recipient: None }
}

fn disable(name: &str, version: u32) -> v1::DisableDataKeyRequest {
    v1::DisableDataKeyRequest { name: name.into(), version }
}

fn destroy(name: &str, version: u32) -> v1::DestroyDataKeyRequest {
    v1::DestroyDataKeyRequest { name: name.into(), version }
}

fn rotate(name: &str, token: &str) -> v1::RotateDataKeyRequest {
    v1::RotateDataKeyRequest { name: name.into(), idempotency_token: token.into() }
}

#[tokio::test]
async fn a_data_key_that_cannot_be_made_is_refused_by_its_field() {
    make_key("registered-kek", WRAPPED).await;
    make_key("registered-off", WRAPPED).await;
    let (mut admin, mut expected) = (admin().await, Expected::default());
    let mac = v1::CreateKeyRequest {
        name: "registered-mac".into(),
        spec: v1::KeySpec::HmacSm3.into(),
        ..Default::default()
    };
    admin.keys.create_key(mac).await.expect("creates");
    admin.keys.suspend_key(v1::SuspendKeyRequest { key: "registered-off".into() }).await.expect("suspends");
    admin.data_keys.create_data_key(create("registered-one", "registered-kek")).await.expect("creates");
    type Asked = v1::CreateDataKeyRequest;
    let good = || create("registered-bad", "registered-kek");
    for (request, reason, field) in [
        (Asked { name: String::new(), ..good() }, "FIELD_INVALID", Some("name")),
        (Asked { name: "No Name".into(), ..good() }, "FIELD_INVALID", Some("name")),
        (Asked { name: "x".repeat(65), ..good() }, "FIELD_INVALID", Some("name")),
        (Asked { name: "registered@1".into(), ..good() }, "FIELD_INVALID", Some("name")),
        (Asked { key: String::new(), ..good() }, "FIELD_INVALID", Some("key")),
        (Asked { key: "registered-kek@1".into(), ..good() }, "FIELD_INVALID", Some("key")),
        (Asked { data_key_spec: 99, ..good() }, "SPEC_UNSUPPORTED", Some("data_key_spec")),
        (
            Asked { data_key_spec: v1::KeySpec::HmacSm3.into(), ..good() },
            "SPEC_UNSUPPORTED",
            Some("data_key_spec"),
        ),
        (Asked { rotation_period_days: 3_651, ..good() }, "FIELD_INVALID", Some("rotation_period_days")),
        (Asked { idempotency_token: "x".repeat(65), ..good() }, "FIELD_INVALID", Some("idempotency_token")),
        (Asked { key: "registered-none".into(), ..good() }, "KEY_NOT_FOUND", None),
        (Asked { key: "registered-mac".into(), ..good() }, "KEY_USAGE_FORBIDS", Some("key")),
        (Asked { key: "registered-off".into(), ..good() }, "KEY_STATE_FORBIDS", None),
        (Asked { name: "registered-one".into(), ..good() }, "KEY_EXISTS", Some("name")),
    ] {
        expected.refusal(admin.data_keys.create_data_key(request).await, reason, field);
    }
    for page_token in ["No Name", "a@1"] {
        let list = v1::ListDataKeysRequest { page_token: page_token.into(), ..Default::default() };
        expected.refusal(admin.data_keys.list_data_keys(list).await, "FIELD_INVALID", Some("page_token"));
    }
    let list = v1::ListDataKeysRequest { page_size: 251, ..Default::default() };
    expected.refusal(admin.data_keys.list_data_keys(list).await, "FIELD_INVALID", Some("page_size"));
    // A key may have the name of a data key, and the longest period is taken.
    let longest = Asked { rotation_period_days: 3_650, ..create("registered-kek", "registered-kek") };
    let made = admin.data_keys.create_data_key(longest).await.expect("creates").into_inner();
    assert_eq!((made.name.as_str(), made.rotation_period_days), ("registered-kek", 3_650));
    expected.are_all_recorded().await;
}

#[tokio::test]
async fn a_data_key_that_is_not_given_out_is_refused_with_the_reason() {
    make_key("given-kek", WRAPPED).await;
    let (mut admin, mut app, mut expected) = (admin().await, app().await, Expected::default());
    admin.data_keys.create_data_key(create("given", "given-kek")).await.expect("creates");
    admin.data_keys.rotate_data_key(rotate("given", "")).await.expect("rotates");
    for (name, reason) in [("", "FIELD_INVALID"), ("Given", "FIELD_INVALID"), ("givem", "DATA_KEY_NOT_FOUND")]
    {
        let field = Some("name");
        expected.refusal(app.data_keys.get_data_key(get(name, 0)).await, reason, field);
        let describe = v1::DescribeDataKeyRequest { name: name.into() };
        expected.refusal(app.data_keys.describe_data_key(describe).await, reason, field);
        expected.refusal(admin.data_keys.rotate_data_key(rotate(name, "")).await, reason, field);
        expected.refusal(admin.data_keys.disable_data_key(disable(name, 0)).await, reason, field);
        expected.refusal(admin.data_keys.destroy_data_key(destroy(name, 1)).await, reason, field);
    }
    let version = Some("version");
    expected.refusal(app.data_keys.get_data_key(get("given", 3)).await, "KEY_VERSION_NOT_FOUND", version);
    let answer = admin.data_keys.disable_data_key(disable("given", u32::MAX)).await;
    expected.refusal(answer, "KEY_VERSION_NOT_FOUND", version);
    let no_key = v1::Recipient { public_key: vec![1, 2, 3], algorithm: 1 };
    let to_nobody = v1::GetDataKeyRequest { recipient: Some(no_key), ..get("given", 0) };
    let answer = app.data_keys.get_data_key(to_nobody).await;
    expected.refusal(answer, "FIELD_INVALID", Some("recipient.public_key"));

    const FORBIDS: &str = "DATA_KEY_STATE_FORBIDS";
    let enable = |version| v1::EnableDataKeyRequest { name: "given".into(), version };
    expected.refusal(admin.data_keys.enable_data_key(enable(0)).await, FORBIDS, None);
    expected.refusal(admin.data_keys.destroy_data_key(destroy("given", 0)).await, FORBIDS, None);
    expected.refusal(admin.data_keys.destroy_data_key(destroy("given", 1)).await, FORBIDS, None);
    // One version, and then all of it.
    admin.data_keys.disable_data_key(disable("given", 1)).await.expect("disables");
    expected.refusal(admin.data_keys.disable_data_key(disable("given", 1)).await, FORBIDS, None);
    expected.refusal(app.data_keys.get_data_key(get("given", 1)).await, FORBIDS, None);
    app.data_keys.get_data_key(get("given", 2)).await.expect("the other one is given");
    admin.data_keys.disable_data_key(disable("given", 0)).await.expect("disables");
    for version in [0, 1, 2] {
        expected.refusal(app.data_keys.get_data_key(get("given", version)).await, FORBIDS, None);
    }
    expected.refusal(admin.data_keys.rotate_data_key(rotate("given", "")).await, FORBIDS, None);
    for version in [0, 1, 2] {
        // Not before it was disabled for seven days.
        let answer = admin.data_keys.destroy_data_key(destroy("given", version)).await;
        expected.refusal(answer, FORBIDS, None);
    }
    admin.data_keys.enable_data_key(enable(0)).await.expect("enables");
    expected.refusal(app.data_keys.get_data_key(get("given", 1)).await, FORBIDS, None);
    admin.data_keys.enable_data_key(enable(1)).await.expect("enables");
    app.data_keys.get_data_key(get("given", 1)).await.expect("it is given again");

    // A key that only decrypts gives what there is and nothing new; a suspended one gives nothing.
    let deactivate = v1::DeactivateKeyRequest { key: "given-kek".into() };
    admin.keys.deactivate_key(deactivate).await.expect("deactivates");
    app.data_keys.get_data_key(get("given", 0)).await.expect("the current one is given");
    expected.refusal(admin.data_keys.rotate_data_key(rotate("given", "")).await, "KEY_STATE_FORBIDS", None);
    let answer = admin.data_keys.create_data_key(create("given-not", "given-kek")).await;
    expected.refusal(answer, "KEY_STATE_FORBIDS", None);
    admin.keys.archive_key(v1::ArchiveKeyRequest { key: "given-kek".into() }).await.expect("archives");
    expected.refusal(app.data_keys.get_data_key(get("given", 0)).await, "KEY_STATE_FORBIDS", None);
    expected.are_all_recorded().await;
}

#[tokio::test]
async fn a_repeated_request_for_a_data_key_is_done_once_and_another_one_is_a_conflict() {
    make_key("once-kek", WRAPPED).await;
    let (mut admin, mut expected) = (admin().await, Expected::default());
    let with_token = |request: v1::CreateDataKeyRequest| v1::CreateDataKeyRequest {
        idempotency_token: "once".into(),
        ..request
    };
    let request = with_token(create("once", "once-kek"));
    let first = admin.data_keys.create_data_key(request.clone()).await.expect("creates").into_inner();
    let again = admin.data_keys.create_data_key(request.clone()).await.expect("answers again").into_inner();
    assert_eq!(first, again);
    type Asked = v1::CreateDataKeyRequest;
    for other in [
        Asked { name: "twice".into(), ..request.clone() },
        Asked { key: "given-kek".into(), ..request.clone() },
        Asked { data_key_spec: v1::KeySpec::Aes128.into(), ..request.clone() },
        Asked { rotation_period_days: 1, ..request.clone() },
    ] {
        let answer = admin.data_keys.create_data_key(other).await;
        expected.refusal(answer, "IDEMPOTENCY_CONFLICT", Some("idempotency_token"));
    }
    let rotated =
        admin.data_keys.rotate_data_key(rotate("once", "next")).await.expect("rotates").into_inner();
    let again = admin.data_keys.rotate_data_key(rotate("once", "next")).await.expect("once").into_inner();
    assert_eq!((rotated.current_version, &rotated), (2, &again));
    admin.data_keys.create_data_key(create("once-other", "once-kek")).await.expect("creates");
    let answer = admin.data_keys.rotate_data_key(rotate("once-other", "next")).await;
    expected.refusal(answer, "IDEMPOTENCY_CONFLICT", Some("idempotency_token"));
    expected.are_all_recorded().await;
    let usage = v1::GetUsageReportRequest { key: "once-kek".into() };
    let usage = admin.keys.get_usage_report(usage).await.expect("a report").into_inner();
    let counted: Vec<_> =
        usage.versions.iter().map(|one| (one.version, one.data_keys, one.registered_data_keys)).collect();
    assert_eq!(counted, [(1, 3, 3)], "two of one and one of the other");
}

#[tokio::test]
async fn a_recipient_alone_reads_a_registered_data_key() {
    make_key("sent-kek", WRAPPED).await;
    let folder = TempDir::new().expect("a folder");
    let public = make_recipient(folder.path(), "p256", &P256);
    let (mut admin, mut app) = (admin().await, app().await);
    let made =
        admin.data_keys.create_data_key(create("sent", "sent-kek")).await.expect("creates").into_inner();
    let plain = app.data_keys.get_data_key(get("sent", 0)).await.expect("gives").into_inner();
    let to = Some(recipient(&public, v1::RecipientAlgorithm::HpkeP256));
    let answer = app
        .data_keys
        .get_data_key(v1::GetDataKeyRequest { recipient: to, ..get("sent", 0) })
        .await
        .expect("gives");
    let id = answer.metadata().get("x-request-id").expect("an id").to_str().expect("text").to_owned();
    let sent = answer.into_inner();
    assert!(sent.plaintext.is_empty());
    let (context, key_id) = (EncryptionContext::default(), KeyId::parse(&made.data_key_id).expect("an id"));
    let binding = |key| RecipientBinding {
        purpose: Purpose::RegisteredDataKey,
        spec: KeySpec::Sm4,
        key,
        context: &context,
    };
    let private = private_key(folder.path(), "p256");
    let opens = |key| private.open(&binding(key).to_info(), &sent.recipient_ciphertext);
    let opened = opens((key_id, KeyVersion::FIRST)).expect("opens");
    assert_eq!((opened.expose().len(), opened.expose()), (16, plain.plaintext.as_slice()));
    assert!(opens((key_id, KeyVersion::new(2).expect("from 1"))).is_err(), "it is bound to its version");
    let entry = audit::record_of(deployment(), &id).await;
    assert_eq!(entry.record.event, "data_key.get");
    assert_eq!((entry.detail("data_key"), entry.detail("data_key_version")), (Some("sent"), Some("1")));
    assert!(entry.detail("recipient_fingerprint").is_some_and(|shown| shown.starts_with("sha-256:")));
}
