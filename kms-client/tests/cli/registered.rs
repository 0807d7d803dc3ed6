//! `kms data-key` for data keys that the service keeps.

use crate::online::setup;
use crate::support::service::{DATA_KEY_ID, KEY_ID, refusal};
use kms_core::reason::Reason;
use kms_proto::v1;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use tonic::Code;

const TIME: &str = "2026-11-23T02:00:00Z";

#[test]
fn a_registered_data_key_is_made_with_what_was_asked_and_shown() {
    let setup = setup();
    let create = ["data-key", "create", "salaries", "--key", "payroll", "--spec", "sm4"];
    let more = ["--rotation-period-days", "90", "--idempotency-token", "once"];
    let made = setup.json(&[&create[..], &more].concat());
    assert_eq!(
        setup.service.script().created_data_key,
        Some(v1::CreateDataKeyRequest {
            name: "salaries".into(),
            key: "payroll".into(),
            data_key_spec: v1::KeySpec::Sm4.into(),
            rotation_period_days: 90,
            idempotency_token: "once".into(),
        })
    );
    let version = |number: u32, state: &str| {
        json!({
            "version": number, "state": state, "state_since": TIME, "created": TIME, "key_id": KEY_ID,
            "key_version": number,
        })
    };
    let shown = json!({
        "data_key_id": DATA_KEY_ID,
        "name": "salaries",
        "spec": "sm4",
        "key_id": KEY_ID,
        "state": "ENABLED",
        "state_since": TIME,
        "rotation_period_days": 90,
        "current_version": 2,
        "versions": [version(1, "DESTROYED"), version(2, "ENABLED")],
        "created": TIME,
        "creator": "kms://default/administrator/admin",
        "revision": 3,
    });
    assert_eq!(made, shown);
    assert_eq!(setup.json(&["data-key", "describe", "salaries"]), shown);
    let (_, text, _) = setup.kms(&["data-key", "describe", "salaries"]);
    assert!(text.contains("after 90 days") && text.contains("ENABLED since 2026-11-23T02:00:00Z"), "{text}");
    setup.json(&["data-key", "rotate", "salaries", "--idempotency-token", "next"]);
    assert_eq!(setup.service.script().tokens, ["once", "next"]);
    let listed = setup.json(&["data-key", "list"]);
    let names: Vec<_> =
        listed["data_keys"].as_array().expect("a list").iter().map(|one| one["name"].clone()).collect();
    assert_eq!(names, ["salaries", "wages"], "both pages");
    let (_, text, _) = setup.kms(&["data-key", "list"]);
    assert!(text.contains("salaries") && text.contains("wages"), "{text}");
}

#[test]
fn a_registered_data_key_is_printed_or_goes_to_a_new_file() {
    let setup = setup();
    let got = setup.json(&["data-key", "get", "salaries"]);
    assert_eq!((&got["version"], &got["plaintext"]), (&json!("2"), &json!("AgICAgICAgICAgICAgICAg==")));
    let out = setup.json(&["data-key", "get", "salaries@1", "--out-plaintext", "salaries.key"]);
    assert_eq!((&out["version"], out.get("plaintext")), (&json!("1"), None));
    assert_eq!(setup.read("salaries.key"), [1; 16]);
    let mode = setup.folder.path().join("salaries.key").metadata().expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let calls = setup.service.script().calls.len();
    let (code, _, err) = setup.kms(&["data-key", "get", "salaries", "--out-plaintext", "salaries.key"]);
    assert_eq!((code, err.contains("exists already")), (1, true), "{err}");
    assert_eq!(setup.service.script().calls.len(), calls, "what cannot be kept is not asked for");
}

#[test]
fn a_change_is_about_the_version_that_is_named() {
    let setup = setup();
    for (command, reference, version, state) in [
        ("disable", "salaries", 0, "DISABLED"),
        ("disable", "salaries@1", 1, "DISABLED"),
        ("enable", "salaries", 0, "ENABLED"),
        ("enable", "salaries@2", 2, "ENABLED"),
        ("destroy", "salaries", 0, "DESTROYED"),
        ("destroy", "salaries@1", 1, "DESTROYED"),
    ] {
        let changed = setup.json(&["data-key", command, reference]);
        assert_eq!(changed["state"], state, "{command} {reference}");
        assert_eq!(setup.service.script().data_key_version, Some(version), "{command} {reference}");
    }
}

#[test]
fn a_name_that_will_not_do_is_refused_without_a_call_and_a_refusal_says_what_helps() {
    let setup = setup();
    for arguments in [
        &["data-key", "get", "Salaries"][..],
        &["data-key", "get", "salaries@0"],
        &["data-key", "get", DATA_KEY_ID],
        &["data-key", "describe", "salaries@1"],
        &["data-key", "rotate", "salaries@1"],
        &["data-key", "create", "salaries@1", "--key", "payroll"],
        &["data-key", "destroy", ""],
    ] {
        let (code, _, err) = setup.kms(arguments);
        assert_eq!((code, err.contains("field: name")), (3, true), "{arguments:?}: {err}");
    }
    let period = ["data-key", "create", "salaries", "--key", "payroll", "--rotation-period-days", "3651"];
    assert_eq!(setup.kms(&period).0, 64);
    assert_eq!(setup.service.script().calls.len(), 0);
    setup.service.refuse([
        refusal(Code::FailedPrecondition, Reason::DataKeyStateForbids, "data key salaries is DISABLED"),
        refusal(Code::NotFound, Reason::DataKeyNotFound, "there is none"),
        refusal(Code::AlreadyExists, Reason::KeyExists, "there is one"),
    ]);
    for (arguments, exit, next) in [
        (&["data-key", "get", "salaries"][..], 7, "next: kms data-key describe salaries"),
        (&["data-key", "get", "salaries"], 6, "next: kms data-key list"),
        (&["data-key", "create", "salaries", "--key", "payroll"], 7, "next: kms data-key list"),
    ] {
        let (code, _, err) = setup.kms(arguments);
        assert_eq!((code, err.contains(next)), (exit, true), "{arguments:?}: {err}");
    }
}
