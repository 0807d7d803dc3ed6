//! Creating, listing and changing keys; reading the log.

use super::{Expected, admin, app, deployment, make_key};
use kms_proto::v1;
use kms_tests::Rpc;
use kms_tests::rpc::refused;

fn create(name: &str) -> v1::CreateKeyRequest {
    v1::CreateKeyRequest { name: name.to_owned(), spec: v1::KeySpec::Sm4.into(), ..Default::default() }
}

#[tokio::test]
async fn a_name_that_is_no_name_is_refused() {
    let (mut rpc, mut expected) = (admin().await, Expected::default());
    let long = "x".repeat(10_000);
    for name in ["", &long, "Upper", "-first", "a b", "a/b", "ключ", "a\0", "'; drop table keys; --"] {
        expected.refusal(rpc.keys.create_key(create(name)).await, "FIELD_INVALID", Some("name"));
        let request = v1::DescribeKeyRequest { key: name.to_owned() };
        expected.refusal(rpc.keys.describe_key(request).await, "FIELD_INVALID", Some("key"));
    }
    let id = "0198c1d2-0000-7000-8000-000000000000";
    expected.refusal(rpc.keys.create_key(create(id)).await, "FIELD_INVALID", Some("name"));
    expected.are_all_recorded().await;
}

#[tokio::test]
async fn a_specification_or_protection_that_does_not_exist_is_refused() {
    let (mut rpc, mut expected) = (admin().await, Expected::default());
    for spec in [0, 99, -1, i32::MAX] {
        let request = v1::CreateKeyRequest { spec, ..create("unknown-spec") };
        expected.refusal(rpc.keys.create_key(request).await, "SPEC_UNSUPPORTED", Some("spec"));
    }
    for protection in [3, 99, -1] {
        let request = v1::CreateKeyRequest { protection, ..create("unknown-protection") };
        expected.refusal(rpc.keys.create_key(request).await, "FIELD_INVALID", Some("protection"));
    }
    let mut app = app().await;
    make_key("data-key-specs", v1::Protection::Unspecified).await;
    let request =
        v1::GenerateDataKeyRequest { key: "data-key-specs".into(), data_key_spec: 99, ..Default::default() };
    let answer = app.crypto.generate_data_key(request).await;
    expected.refusal(answer, "SPEC_UNSUPPORTED", Some("data_key_spec"));
    expected.are_all_recorded().await;
}

#[tokio::test]
async fn a_taken_name_is_refused() {
    let (mut rpc, mut expected) = (admin().await, Expected::default());
    make_key("taken", v1::Protection::Unspecified).await;
    expected.refusal(rpc.keys.create_key(create("taken")).await, "KEY_EXISTS", Some("name"));
    expected.are_all_recorded().await;
}

#[tokio::test]
async fn of_many_who_create_the_same_name_one_succeeds() {
    let mut creators = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let mut rpc = admin().await;
        creators.spawn(async move { rpc.keys.create_key(create("contested")).await });
    }
    let mut expected = Expected::default();
    let mut created = 0;
    while let Some(answer) = creators.join_next().await {
        match answer.expect("the task ends") {
            Ok(_) => created += 1,
            refused => expected.refusal(refused, "KEY_EXISTS", Some("name")),
        }
    }
    assert_eq!(created, 1);
    expected.are_all_recorded().await;
}

#[tokio::test]
async fn the_same_token_gives_the_same_key_and_another_request_is_a_conflict() {
    let (mut rpc, mut expected) = (admin().await, Expected::default());
    let request = v1::CreateKeyRequest { idempotency_token: "create-once".into(), ..create("once") };
    let first = rpc.keys.create_key(request.clone()).await.expect("creates").into_inner();
    let second = rpc.keys.create_key(request.clone()).await.expect("replays").into_inner();
    assert_eq!(first, second);
    for other in [
        v1::CreateKeyRequest { name: "twice".into(), ..request.clone() },
        v1::CreateKeyRequest { spec: v1::KeySpec::Aes256.into(), ..request.clone() },
        v1::CreateKeyRequest { protection: v1::Protection::HsmWrapped.into(), ..request.clone() },
    ] {
        let answer = rpc.keys.create_key(other).await;
        expected.refusal(answer, "IDEMPOTENCY_CONFLICT", Some("idempotency_token"));
    }
    let missing = v1::DescribeKeyRequest { key: "twice".into() };
    expected.refusal(rpc.keys.describe_key(missing).await, "KEY_NOT_FOUND", None);

    let rotate = v1::RotateKeyRequest { key: "once".into(), idempotency_token: "rotate-once".into() };
    for _ in 0..3 {
        let rotated = rpc.keys.rotate_key(rotate.clone()).await.expect("rotates once").into_inner();
        assert_eq!(rotated.current_version, 2);
    }
    make_key("rotated-other", v1::Protection::Unspecified).await;
    let other = v1::RotateKeyRequest { key: "rotated-other".into(), ..rotate };
    let answer = rpc.keys.rotate_key(other).await;
    expected.refusal(answer, "IDEMPOTENCY_CONFLICT", Some("idempotency_token"));

    let long = v1::CreateKeyRequest { idempotency_token: "t".repeat(65), ..create("long-token") };
    let answer = rpc.keys.create_key(long).await;
    expected.refusal(answer, "FIELD_INVALID", Some("idempotency_token"));
    expected.are_all_recorded().await;
}

#[tokio::test]
async fn a_key_that_does_not_exist_is_refused_in_every_call() {
    let (mut rpc, mut app, mut expected) = (admin().await, app().await, Expected::default());
    for key in ["nobody-made-this", "0198c1d2-0000-7000-8000-000000000000"].map(str::to_owned) {
        let describe = v1::DescribeKeyRequest { key: key.clone() };
        expected.refusal(rpc.keys.describe_key(describe).await, "KEY_NOT_FOUND", None);
        let rotate = v1::RotateKeyRequest { key: key.clone(), ..Default::default() };
        expected.refusal(rpc.keys.rotate_key(rotate).await, "KEY_NOT_FOUND", None);
        let suspend = v1::SuspendKeyRequest { key: key.clone() };
        expected.refusal(rpc.keys.suspend_key(suspend).await, "KEY_NOT_FOUND", None);
        let resume = v1::ResumeKeyRequest { key: key.clone() };
        expected.refusal(rpc.keys.resume_key(resume).await, "KEY_NOT_FOUND", None);
        let encrypt = v1::EncryptRequest { key: key.clone(), ..Default::default() };
        expected.refusal(app.crypto.encrypt(encrypt).await, "KEY_NOT_FOUND", None);
        let generate = v1::GenerateDataKeyRequest { key, ..Default::default() };
        expected.refusal(app.crypto.generate_data_key(generate).await, "KEY_NOT_FOUND", None);
    }
    expected.are_all_recorded().await;
}

#[tokio::test]
async fn a_reference_with_a_version_is_refused_where_a_key_is_meant() {
    let (mut rpc, mut expected) = (admin().await, Expected::default());
    make_key("versioned", v1::Protection::Unspecified).await;
    for key in ["versioned@1", "versioned@0", "versioned@", "versioned@x", "@1"].map(str::to_owned) {
        let describe = v1::DescribeKeyRequest { key: key.clone() };
        expected.refusal(rpc.keys.describe_key(describe).await, "FIELD_INVALID", Some("key"));
        let rotate = v1::RotateKeyRequest { key, ..Default::default() };
        expected.refusal(rpc.keys.rotate_key(rotate).await, "FIELD_INVALID", Some("key"));
    }
    expected.are_all_recorded().await;
}

#[tokio::test]
async fn a_state_change_from_the_wrong_state_is_refused() {
    let (mut rpc, mut expected) = (admin().await, Expected::default());
    make_key("stateful", v1::Protection::Unspecified).await;
    let (suspend, resume) =
        (v1::SuspendKeyRequest { key: "stateful".into() }, v1::ResumeKeyRequest { key: "stateful".into() });
    expected.refusal(rpc.keys.resume_key(resume.clone()).await, "KEY_STATE_FORBIDS", None);
    rpc.keys.suspend_key(suspend.clone()).await.expect("suspends");
    expected.refusal(rpc.keys.suspend_key(suspend).await, "KEY_STATE_FORBIDS", None);
    let rotate = v1::RotateKeyRequest { key: "stateful".into(), ..Default::default() };
    expected.refusal(rpc.keys.rotate_key(rotate).await, "KEY_STATE_FORBIDS", None);
    rpc.keys.resume_key(resume).await.expect("resumes");
    expected.are_all_recorded().await;
}

#[tokio::test]
async fn a_page_that_was_never_offered_is_refused() {
    let (mut rpc, mut expected) = (admin().await, Expected::default());
    for page_token in ["!", "' or 1=1", &"x".repeat(1000)].map(str::to_owned) {
        let request = v1::ListKeysRequest { page_size: 10, page_token, ..Default::default() };
        expected.refusal(rpc.keys.list_keys(request).await, "FIELD_INVALID", Some("page_token"));
    }
    let request = v1::ListKeysRequest { page_size: 251, ..Default::default() };
    expected.refusal(rpc.keys.list_keys(request).await, "FIELD_INVALID", Some("page_size"));
    expected.are_all_recorded().await;
}

#[tokio::test]
async fn every_key_is_on_exactly_one_page() {
    for number in 0..5 {
        make_key(&format!("paged-{number}"), v1::Protection::Unspecified).await;
    }
    let mut rpc = admin().await;
    let (mut names, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListKeysRequest { page_size: 2, page_token, ..Default::default() };
        let page = rpc.keys.list_keys(request).await.expect("lists").into_inner();
        assert!(page.keys.len() <= 2);
        names.extend(page.keys.into_iter().map(|key| key.name).filter(|name| name.starts_with("paged-")));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["paged-0", "paged-1", "paged-2", "paged-3", "paged-4"]);
}

#[tokio::test]
async fn records_that_do_not_exist_and_questions_out_of_range_are_refused() {
    let mut rpc = Rpc::connect(deployment(), "auditor").await;
    let mut expected = Expected::default();
    for index in [1 << 40, u64::MAX] {
        let answer = rpc.audit.show_record(v1::ShowRecordRequest { index }).await;
        expected.refusal(answer, "RECORD_NOT_FOUND", None);
    }
    expected.are_all_recorded().await;
    let (too_many, beyond, unknown_key, bad_key) = (
        v1::ListRecordsRequest { count_max: 10_001, ..Default::default() },
        v1::ListRecordsRequest { from_index: 1 << 63, ..Default::default() },
        v1::ListRecordsRequest { key: "nobody-made-this".into(), ..Default::default() },
        v1::ListRecordsRequest { key: "Not A Name".into(), ..Default::default() },
    );
    for (request, reason) in [
        (too_many, "FIELD_INVALID"),
        (beyond, "FIELD_INVALID"),
        (unknown_key, "KEY_NOT_FOUND"),
        (bad_key, "FIELD_INVALID"),
    ] {
        // The refusal of a stream is its first message.
        let mut stream = rpc.audit.list_records(request).await.expect("the stream opens").into_inner();
        let refused = refused(stream.message().await.map(tonic::Response::new));
        assert_eq!(refused.reason, reason, "{refused:?}");
        let entries = kms_tests::audit::records_from(deployment(), 0).await;
        let of_request = |entry: &kms_tests::LogEntry| entry.record.request_id == refused.request_id;
        let records: Vec<_> = entries.into_iter().filter(of_request).collect();
        assert!(matches!(records.as_slice(), [one] if one.is_refusal(reason)), "{records:?}");
    }
}
