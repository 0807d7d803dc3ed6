//! What is said of a key, what keeps it from being destroyed, and its other names.

use super::{Expected, admin, app, deployment, make_key};
use kms_proto::v1;
use kms_tests::audit;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const WRAPPED: v1::Protection = v1::Protection::HsmWrapped;

fn in_days(days: u64) -> Option<prost_types::Timestamp> {
    let time = SystemTime::now() + Duration::from_secs(days * 86_400);
    let seconds = time.duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    Some(prost_types::Timestamp { seconds: seconds as i64, nanos: 0 })
}

fn update(key: &str) -> v1::UpdateKeyRequest {
    v1::UpdateKeyRequest { key: key.into(), ..Default::default() }
}

fn label(name: &str, value: &str) -> v1::Label {
    v1::Label { name: name.into(), value: value.into() }
}

fn create_alias(alias: &str, key: &str) -> v1::CreateAliasRequest {
    v1::CreateAliasRequest { alias: alias.into(), key: key.into(), ..Default::default() }
}

fn retarget(alias: &str, key: &str) -> v1::RetargetAliasRequest {
    v1::RetargetAliasRequest { alias: alias.into(), key: key.into(), ..Default::default() }
}

#[tokio::test]
async fn what_is_said_of_a_key_is_kept_listed_and_recorded() {
    let mut rpc = admin().await;
    let attributes = v1::KeyAttributes {
        owner: "payments".into(),
        description: "工资 · salaries".into(),
        sensitivity: 3,
        labels: vec![label("env", "prod"), label("team", "red")],
        retain_until: in_days(1),
        deletion_protection: true,
    };
    let request = v1::CreateKeyRequest {
        name: "said".into(),
        spec: v1::KeySpec::Sm4.into(),
        attributes: Some(attributes.clone()),
        ..Default::default()
    };
    let made = rpc.keys.create_key(request).await.expect("creates").into_inner();
    assert_eq!(
        (made.attributes.clone(), made.usage),
        (Some(attributes.clone()), v1::KeyUsage::EncryptDecrypt.into())
    );
    make_key("unsaid", WRAPPED).await;

    let request = v1::UpdateKeyRequest {
        expected_revision: made.revision,
        owner: Some(String::new()),
        sensitivity: Some(2),
        set_labels: vec![label("team", "blue")],
        remove_labels: vec!["env".into()],
        retain_until: in_days(2),
        deletion_protection: Some(false),
        ..update("said")
    };
    let updated = rpc.keys.update_key(request.clone()).await.expect("updates").into_inner();
    let expected = v1::KeyAttributes {
        owner: String::new(),
        sensitivity: 2,
        labels: vec![label("team", "blue")],
        retain_until: request.retain_until,
        deletion_protection: false,
        ..attributes
    };
    assert_eq!((updated.attributes, updated.revision), (Some(expected.clone()), made.revision + 1));
    let described = rpc.keys.describe_key(v1::DescribeKeyRequest { key: "said".into() }).await;
    assert_eq!(described.expect("describes").into_inner().attributes, Some(expected));

    let listed = |labels, state: v1::KeyState| {
        let mut rpc = rpc.keys.clone();
        async move {
            let request =
                v1::ListKeysRequest { page_size: 250, labels, state: state.into(), ..Default::default() };
            let page = rpc.list_keys(request).await.expect("lists").into_inner();
            page.keys.into_iter().map(|key| key.name).collect::<Vec<_>>()
        }
    };
    let any = v1::KeyState::Unspecified;
    assert_eq!(listed(vec![label("team", "blue")], any).await, ["said"]);
    assert!(listed(vec![label("team", "red")], any).await.is_empty(), "that was its label before");
    assert!(listed(vec![label("team", "blue")], v1::KeyState::Suspended).await.is_empty());
    assert!(listed(vec![], v1::KeyState::Active).await.contains(&"unsaid".to_owned()));

    let entries = audit::records_from(deployment(), 0).await;
    let of_key = |event: &str| {
        let found = entries.iter().find(|entry| {
            entry.record.event == event
                && entry.detail("name") == Some("said")
                && entry.record.outcome == "done"
        });
        found.unwrap_or_else(|| panic!("no record of {event}"))
    };
    let created = of_key("key.create");
    assert_eq!((created.detail("owner"), created.detail("label.env")), (Some("payments"), Some("prod")));
    assert_eq!(
        (created.detail("usage"), created.detail("sensitivity")),
        (Some("ENCRYPT_DECRYPT"), Some("3"))
    );
    let changed = of_key("key.update");
    assert_eq!((changed.detail("owner"), changed.detail("label.team")), (Some(""), Some("blue")));
    assert_eq!((changed.detail("labels-removed"), changed.detail("description")), (Some("env"), None));
    assert_eq!(
        (changed.detail("sensitivity"), changed.detail("deletion-protection")),
        (Some("2"), Some("off"))
    );
}

#[tokio::test]
async fn an_update_that_cannot_be_is_refused_by_field_and_changes_nothing() {
    let (mut rpc, mut expected) = (admin().await, Expected::default());
    let made = make_key("unchanged", WRAPPED).await;
    let many = (0..33).map(|number| label(&format!("l{number}"), "")).collect();
    let cases: Vec<(v1::UpdateKeyRequest, &str)> = vec![
        (v1::UpdateKeyRequest { owner: Some("x".repeat(129)), ..update("unchanged") }, "owner"),
        (v1::UpdateKeyRequest { owner: Some("a\nb".into()), ..update("unchanged") }, "owner"),
        (v1::UpdateKeyRequest { description: Some("x".repeat(513)), ..update("unchanged") }, "description"),
        (v1::UpdateKeyRequest { sensitivity: Some(0), ..update("unchanged") }, "sensitivity"),
        (v1::UpdateKeyRequest { sensitivity: Some(2), ..update("unchanged") }, "sensitivity"),
        (v1::UpdateKeyRequest { sensitivity: Some(1), ..update("unchanged") }, "key"),
        (v1::UpdateKeyRequest { set_labels: vec![label("Env", "x")], ..update("unchanged") }, "set_labels"),
        (
            v1::UpdateKeyRequest { set_labels: vec![label("a", "\u{1b}")], ..update("unchanged") },
            "set_labels",
        ),
        (
            v1::UpdateKeyRequest {
                set_labels: vec![label("a", "1"), label("a", "2")],
                ..update("unchanged")
            },
            "set_labels",
        ),
        (v1::UpdateKeyRequest { set_labels: many, ..update("unchanged") }, "set_labels"),
        (
            v1::UpdateKeyRequest { remove_labels: vec!["absent".into()], ..update("unchanged") },
            "remove_labels",
        ),
        (
            v1::UpdateKeyRequest {
                set_labels: vec![label("a", "1")],
                remove_labels: vec!["a".into()],
                ..update("unchanged")
            },
            "remove_labels",
        ),
        (
            v1::UpdateKeyRequest {
                retain_until: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
                ..update("unchanged")
            },
            "retain_until",
        ),
        (update("unchanged"), "key"),
        (update("unchanged@1"), "key"),
    ];
    for (request, field) in cases {
        expected.refusal(rpc.keys.update_key(request).await, "FIELD_INVALID", Some(field));
    }
    let owned = |expected_revision| v1::UpdateKeyRequest {
        owner: Some("x".into()),
        expected_revision,
        ..update("unchanged")
    };
    let answer = rpc.keys.update_key(owned(made.revision + 1)).await;
    expected.refusal(answer, "REVISION_MISMATCH", Some("expected_revision"));
    expected.refusal(rpc.keys.update_key(update("nobody-made-this")).await, "KEY_NOT_FOUND", None);
    let described = rpc.keys.describe_key(v1::DescribeKeyRequest { key: "unchanged".into() }).await;
    assert_eq!(described.expect("describes").into_inner(), made);
    rpc.keys.update_key(owned(made.revision)).await.expect("the revision that it has");

    let create = |attributes| v1::CreateKeyRequest {
        name: "misdescribed".into(),
        spec: v1::KeySpec::Sm4.into(),
        attributes: Some(attributes),
        ..Default::default()
    };
    for (attributes, field) in [
        (v1::KeyAttributes { sensitivity: 4, ..Default::default() }, "attributes.sensitivity"),
        (v1::KeyAttributes { owner: "\0".into(), ..Default::default() }, "attributes.owner"),
        (v1::KeyAttributes { labels: vec![label("", "")], ..Default::default() }, "attributes.labels"),
        (
            v1::KeyAttributes {
                retain_until: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
                ..Default::default()
            },
            "attributes.retain_until",
        ),
    ] {
        expected.refusal(rpc.keys.create_key(create(attributes)).await, "FIELD_INVALID", Some(field));
    }
    let mac = v1::KeyUsage::GenerateVerifyMac.into();
    let request = v1::CreateKeyRequest { usage: mac, ..create(v1::KeyAttributes::default()) };
    expected.refusal(rpc.keys.create_key(request).await, "KEY_USAGE_FORBIDS", Some("usage"));
    let request = v1::CreateKeyRequest { usage: 99, ..create(v1::KeyAttributes::default()) };
    expected.refusal(rpc.keys.create_key(request).await, "FIELD_INVALID", Some("usage"));
    let request = v1::ListKeysRequest { state: 99, ..Default::default() };
    expected.refusal(rpc.keys.list_keys(request).await, "FIELD_INVALID", Some("state"));
    let request = v1::ListKeysRequest { labels: vec![label("A", "")], ..Default::default() };
    expected.refusal(rpc.keys.list_keys(request).await, "FIELD_INVALID", Some("labels"));
    expected.are_all_recorded().await;
}

#[tokio::test]
async fn a_token_is_not_used_for_a_key_with_another_owner() {
    let (mut rpc, mut expected) = (admin().await, Expected::default());
    let create = |owner: &str| v1::CreateKeyRequest {
        name: "owned-once".into(),
        spec: v1::KeySpec::Sm4.into(),
        idempotency_token: "owned-once".into(),
        attributes: Some(v1::KeyAttributes { owner: owner.into(), ..Default::default() }),
        ..Default::default()
    };
    let first = rpc.keys.create_key(create("red")).await.expect("creates").into_inner();
    let again = rpc.keys.create_key(create("red")).await.expect("the same request").into_inner();
    assert_eq!(first.key_id, again.key_id);
    let other = rpc.keys.create_key(create("blue")).await;
    expected.refusal(other, "IDEMPOTENCY_CONFLICT", Some("idempotency_token"));
    expected.are_all_recorded().await;
}

#[tokio::test]
async fn a_protected_or_retained_key_is_not_destroyed() {
    let (mut rpc, mut expected) = (admin().await, Expected::default());
    make_key("kept", WRAPPED).await;
    let schedule = |key: &str, window_days| v1::ScheduleDestructionRequest { key: key.into(), window_days };
    let protect = |protected| v1::UpdateKeyRequest { deletion_protection: Some(protected), ..update("kept") };
    rpc.keys.update_key(protect(true)).await.expect("protects");
    for key in ["kept", "kept@1"] {
        let answer = rpc.keys.schedule_destruction(schedule(key, 30)).await;
        expected.refusal(answer, "KEY_RETAINED", Some("key"));
    }
    rpc.keys.update_key(protect(false)).await.expect("frees");
    let retain = |days| v1::UpdateKeyRequest { retain_until: in_days(days), ..update("kept") };
    rpc.keys.update_key(retain(10)).await.expect("retains");
    for key in ["kept", "kept@1"] {
        let answer = rpc.keys.schedule_destruction(schedule(key, 7)).await;
        expected.refusal(answer, "KEY_RETAINED", Some("key"));
    }
    expected.refusal(rpc.keys.update_key(retain(9)).await, "FIELD_INVALID", Some("retain_until"));
    rpc.keys.schedule_destruction(schedule("kept", 11)).await.expect("after the retention");
    let later = rpc.keys.update_key(retain(12)).await;
    expected.refusal(later, "FIELD_INVALID", Some("retain_until"));
    rpc.keys.cancel_destruction(v1::CancelDestructionRequest { key: "kept".into() }).await.expect("cancels");
    rpc.keys.update_key(retain(12)).await.expect("nothing is scheduled any more");
    expected.are_all_recorded().await;
}

#[tokio::test]
async fn an_alias_goes_from_key_to_key_and_everything_still_decrypts() {
    let (mut rpc, mut app) = (admin().await, app().await);
    let (old, new) = (make_key("payroll-2026", WRAPPED).await, make_key("payroll-2027", WRAPPED).await);
    let made = rpc.keys.create_alias(create_alias("payroll-now", "payroll-2026")).await.expect("names");
    assert_eq!(made.into_inner().key_id, old.key_id);
    let encrypt = |key: &str| v1::EncryptRequest { key: key.into(), plaintext: vec![7; 9], context: vec![] };
    let first = app.crypto.encrypt(encrypt("payroll-now")).await.expect("encrypts").into_inner();
    assert_eq!(first.key_id, old.key_id);
    let request = v1::RetargetAliasRequest {
        expected_key: "payroll-2026".into(),
        ..retarget("payroll-now", &new.key_id)
    };
    rpc.keys.retarget_alias(request).await.expect("moves");
    let second = app.crypto.encrypt(encrypt("payroll-now")).await.expect("encrypts").into_inner();
    assert_eq!(second.key_id, new.key_id);
    for (ciphertext, expected_key) in [(first.ciphertext, "payroll-2026"), (second.ciphertext, "payroll-now")]
    {
        let request = v1::DecryptRequest { ciphertext, context: vec![], expected_key: expected_key.into() };
        assert_eq!(app.crypto.decrypt(request).await.expect("decrypts").into_inner().plaintext, vec![7; 9]);
    }
    let described = rpc.keys.describe_key(v1::DescribeKeyRequest { key: "payroll-now".into() }).await;
    let described = described.expect("describes").into_inner();
    assert_eq!(
        (described.name.as_str(), described.aliases),
        ("payroll-2027", vec!["payroll-now".to_owned()])
    );
    let listed = rpc.keys.list_aliases(v1::ListAliasesRequest::default()).await.expect("lists").into_inner();
    let found = listed.aliases.iter().find(|alias| alias.alias == "payroll-now").expect("it is listed");
    assert_eq!(found.key_id, new.key_id);
    let delete = v1::DeleteAliasRequest { alias: "payroll-now".into() };
    rpc.keys.delete_alias(delete).await.expect("removes");
    assert!(app.crypto.encrypt(encrypt("payroll-now")).await.is_err(), "nothing has that name any more");
    make_key("payroll-now", WRAPPED).await;
    let entries = audit::records_from(deployment(), 0).await;
    let moved = entries
        .iter()
        .find(|entry| entry.record.event == "alias.retarget" && entry.detail("alias") == Some("payroll-now"));
    let moved = moved.expect("it is in the log");
    assert_eq!((moved.detail("before"), moved.detail("name")), (Some("payroll-2026"), Some("payroll-2027")));
}

#[tokio::test]
async fn an_alias_is_made_once_for_one_token() {
    let (mut rpc, mut expected) = (admin().await, Expected::default());
    make_key("made-once", WRAPPED).await;
    let second = make_key("made-twice", WRAPPED).await;
    let request = |alias: &str, key: &str| v1::CreateAliasRequest {
        idempotency_token: "alias-token".into(),
        ..create_alias(alias, key)
    };
    // A request that is refused uses no token up.
    expected.refusal(
        rpc.keys.create_alias(request("made-twice", "made-once")).await,
        "KEY_EXISTS",
        Some("alias"),
    );
    let made = rpc.keys.create_alias(request("once", "made-once")).await.expect("names").into_inner();
    let again = rpc.keys.create_alias(request("once", "made-once")).await.expect("the same").into_inner();
    assert_eq!(made, again);
    for (alias, key) in [("once", "made-twice"), ("once-more", "made-once")] {
        let answer = rpc.keys.create_alias(request(alias, key)).await;
        expected.refusal(answer, "IDEMPOTENCY_CONFLICT", Some("idempotency_token"));
    }
    // Late, it does not take the alias back from the key that has it now.
    rpc.keys.retarget_alias(retarget("once", "made-twice")).await.expect("moves");
    let late = rpc.keys.create_alias(request("once", "made-once")).await.expect("the same").into_inner();
    assert_eq!(late.key_id, second.key_id);
    rpc.keys.delete_alias(v1::DeleteAliasRequest { alias: "once".into() }).await.expect("removes");
    let gone = rpc.keys.create_alias(request("once", "made-once")).await;
    expected.refusal(gone, "ALIAS_NOT_FOUND", Some("alias"));
    let long =
        v1::CreateAliasRequest { idempotency_token: "t".repeat(65), ..create_alias("twice", "made-once") };
    expected.refusal(rpc.keys.create_alias(long).await, "FIELD_INVALID", Some("idempotency_token"));
    expected.are_all_recorded().await;
}

#[tokio::test]
async fn every_alias_is_on_exactly_one_page() {
    make_key("target-of-pages", WRAPPED).await;
    let mut rpc = admin().await;
    for number in 0..5 {
        let alias = format!("paged-alias-{number}");
        rpc.keys.create_alias(create_alias(&alias, "target-of-pages")).await.expect("names");
    }
    let (mut names, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListAliasesRequest { page_size: 2, page_token };
        let page = rpc.keys.list_aliases(request).await.expect("lists").into_inner();
        assert!(page.aliases.len() <= 2);
        names.extend(
            page.aliases.into_iter().map(|alias| alias.alias).filter(|name| name.starts_with("paged-")),
        );
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, (0..5).map(|number| format!("paged-alias-{number}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_alias_that_cannot_be_is_refused_and_a_change_names_the_key_itself() {
    let (mut rpc, mut expected) = (admin().await, Expected::default());
    make_key("named", WRAPPED).await;
    make_key("named-2", WRAPPED).await;
    rpc.keys.create_alias(create_alias("other-name", "named")).await.expect("names");
    for (alias, key, reason, field) in [
        ("Other", "named", "FIELD_INVALID", Some("alias")),
        ("", "named", "FIELD_INVALID", Some("alias")),
        ("fresh", "named@1", "FIELD_INVALID", Some("key")),
        ("fresh", "other-name", "FIELD_INVALID", Some("key")),
        ("fresh", "nobody-made-this", "KEY_NOT_FOUND", None),
        ("named", "named-2", "KEY_EXISTS", Some("alias")),
        ("other-name", "named-2", "KEY_EXISTS", Some("alias")),
    ] {
        expected.refusal(rpc.keys.create_alias(create_alias(alias, key)).await, reason, field);
    }
    let create = v1::CreateKeyRequest {
        name: "other-name".into(),
        spec: v1::KeySpec::Sm4.into(),
        ..Default::default()
    };
    expected.refusal(rpc.keys.create_key(create).await, "KEY_EXISTS", Some("name"));
    let signing = v1::CreateKeyRequest {
        name: "named-signer".into(),
        spec: v1::KeySpec::Sm2.into(),
        protection: WRAPPED.into(),
        ..Default::default()
    };
    rpc.keys.create_key(signing).await.expect("creates");
    for (request, reason, field) in [
        (retarget("absent", "named"), "ALIAS_NOT_FOUND", Some("alias")),
        (retarget("named", "named-2"), "ALIAS_NOT_FOUND", Some("alias")),
        (retarget("other-name", "other-name"), "FIELD_INVALID", Some("key")),
        (retarget("other-name", "named-signer"), "KEY_USAGE_FORBIDS", Some("key")),
        (
            v1::RetargetAliasRequest { expected_key: "named-2".into(), ..retarget("other-name", "named-2") },
            "KEY_MISMATCH",
            Some("expected_key"),
        ),
        (
            v1::RetargetAliasRequest { expected_key: "x@1".into(), ..retarget("other-name", "named-2") },
            "FIELD_INVALID",
            Some("expected_key"),
        ),
    ] {
        expected.refusal(rpc.keys.retarget_alias(request).await, reason, field);
    }
    for alias in ["absent", "named"] {
        let request = v1::DeleteAliasRequest { alias: alias.into() };
        expected.refusal(rpc.keys.delete_alias(request).await, "ALIAS_NOT_FOUND", Some("alias"));
    }
    let key = || "other-name".to_owned();
    let keys = &mut rpc.keys;
    let field = Some("key");
    let answer = keys.rotate_key(v1::RotateKeyRequest { key: key(), ..Default::default() }).await;
    expected.refusal(answer, "FIELD_INVALID", field);
    let answer = keys.suspend_key(v1::SuspendKeyRequest { key: key() }).await;
    expected.refusal(answer, "FIELD_INVALID", field);
    let answer = keys.compromise_key(v1::CompromiseKeyRequest { key: "other-name@1".into() }).await;
    expected.refusal(answer, "FIELD_INVALID", field);
    let request = v1::ScheduleDestructionRequest { key: key(), window_days: 7 };
    expected.refusal(keys.schedule_destruction(request).await, "FIELD_INVALID", field);
    let request = v1::UpdateKeyRequest { owner: Some("x".into()), ..update("other-name") };
    expected.refusal(keys.update_key(request).await, "FIELD_INVALID", field);
    expected.are_all_recorded().await;
}
