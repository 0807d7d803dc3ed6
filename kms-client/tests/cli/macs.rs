//! `kms mac` and `kms random`, against a service.

use crate::online::{Setup, setup};
use crate::support::service::{KEY_ID, mac, refusal};
use kms_core::reason::Reason;
use serde_json::json;
use std::fs::File;
use std::process::Stdio;
use tonic::Code;

fn generate(setup: &Setup) -> String {
    let value = setup.json(&["mac", "generate", "--key", "mac-key", "in"]);
    assert_eq!((&value["key_id"], &value["key_version"]), (&json!(KEY_ID), &json!(1)));
    value["mac"].as_str().expect("base64").to_owned()
}

#[test]
fn a_mac_is_made_and_verified_and_another_one_is_not() {
    let setup = setup();
    setup.write("in", b"attack at dawn");
    let text = generate(&setup);
    let (code, out, err) = setup.kms(&["mac", "verify", "--key", "mac-key", "in", "--mac", &text]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(out, format!("the MAC is right: made with key {KEY_ID}, version 1\n"));
    let verified = setup.json(&["mac", "verify", "--key", "mac-key", "in", "--mac", &text]);
    assert_eq!(verified, json!({ "key_id": KEY_ID, "key_version": 1 }));

    setup.write("in", b"attack at dusk");
    let (code, out, err) = setup.kms(&["mac", "verify", "--key", "mac-key", "in", "--mac", &text]);
    assert_eq!((code, out.as_str()), (4, ""));
    assert!(err.contains("reason: MAC_INVALID\nnext: kms mac verify --help\n"), "{err}");
}

#[test]
fn a_mac_goes_through_a_file_that_is_for_its_owner_and_was_not_there() {
    let setup = setup();
    setup.write("in", b"attack at dawn");
    let arguments = ["mac", "generate", "--key", "mac-key", "in", "--out-mac", "made"];
    let (code, out, err) = setup.kms(&arguments);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(out, format!("key id       {KEY_ID}\nkey version  1\n"), "what went to a file is not printed");
    assert!(mac(b"attack at dawn").is_equal(&setup.read("made")));
    assert_eq!(setup.mode("made"), 0o600);
    let verify = ["mac", "verify", "--key", "mac-key", "in", "--mac-file", "made"];
    assert_eq!(setup.kms(&verify).0, 0);
    let calls = setup.service.script().calls.len();
    let (code, _, err) = setup.kms(&arguments);
    assert_eq!(code, 1, "{err}");
    assert_eq!(setup.service.script().calls.len(), calls, "a MAC that cannot be kept is not asked for");
}

#[test]
fn a_message_comes_from_the_standard_input() {
    let setup = setup();
    setup.write("in", b"attack at dawn");
    let output = setup
        .command(&["mac", "generate", "--key", "mac-key", "-", "--output", "json"])
        .stdin(Stdio::from(File::open(setup.folder.path().join("in")).expect("opens")))
        .output()
        .expect("the command starts");
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(value["mac"].as_str(), Some(generate(&setup).as_str()));
}

#[test]
fn what_is_too_long_or_no_base64_is_refused_before_any_call() {
    let setup = setup();
    setup.write("in", b"x");
    setup.write("long", &vec![7; 64 * 1024 + 1]);
    setup.write("long-mac", &[7; 65]);
    for (arguments, field) in [
        (&["mac", "generate", "--key", "mac-key", "long"][..], "message"),
        (&["mac", "verify", "--key", "mac-key", "long", "--mac", "AAAA"], "message"),
        (&["mac", "verify", "--key", "mac-key", "in", "--mac", "AAA"], "mac"),
        (&["mac", "verify", "--key", "mac-key", "in", "--mac-file", "long-mac"], "mac"),
        (&["mac", "generate", "--key", "No Name", "in"], "key"),
    ] {
        let (code, out, err) = setup.kms(arguments);
        assert_eq!((code, out.as_str()), (3, ""), "{arguments:?}");
        assert!(err.contains(&format!("field: {field}\nreason: FIELD_INVALID\n")), "{err}");
    }
    assert_eq!(setup.kms(&["mac", "generate", "--key", "mac-key", "missing"]).0, 1);
    assert!(setup.service.script().calls.is_empty());
    setup.write("longest", &vec![7; 64 * 1024]);
    assert_eq!(setup.kms(&["mac", "generate", "--key", "mac-key", "longest"]).0, 0);
}

#[test]
fn a_key_for_something_else_is_named_with_the_next_command() {
    let setup = setup();
    setup.write("in", b"x");
    let message = "key payroll is of spec sm4 and for ENCRYPT_DECRYPT";
    setup.service.refuse([refusal(Code::FailedPrecondition, Reason::KeyUsageForbids, message)]);
    let (code, _, err) = setup.kms(&["mac", "generate", "--key", "payroll", "in"]);
    assert_eq!(code, 7);
    let rest = "reason: KEY_USAGE_FORBIDS\nnext: kms key show payroll\n";
    assert!(err.starts_with(&format!("error: {message}")) && err.ends_with(rest), "{err}");
}

#[test]
fn random_bytes_are_printed_or_go_to_a_file_of_their_owner() {
    let setup = setup();
    let value = setup.json(&["random", "--bytes", "32"]);
    assert_eq!(value["bytes"], json!(32));
    assert_eq!(value["random"].as_str().map(str::len), Some(44), "base64 of 32 bytes");
    assert_ne!(value, setup.json(&["random", "--bytes", "32"]));
    assert_eq!(setup.json(&["random", "--bytes", "1024", "--out", "made"]), json!({ "bytes": 1024 }));
    assert_eq!((setup.read("made").len(), setup.mode("made")), (1024, 0o600));
}
