//! `kms data-key-pair` and `kms key csr`, against a service.

use crate::online::{Setup, setup};
use crate::support::service::{KEY_ID, PAIR_PRIVATE_KEY, pair_public_key};

fn pem(label: &str, der: &[u8]) -> Vec<u8> {
    pem_rfc7468::encode_string(label, pem_rfc7468::LineEnding::LF, der).expect("fits").into_bytes()
}

/// A public key on P-256: that of docs/formats/recipient.md.
fn write_recipient(setup: &Setup) {
    let der = concat!(
        "3059301306072a8648ce3d020106082a8648ce3d030107034200",
        "04515c3d6eb9e396b904d3feca7f54fdcd0cc1e997bf375dca515ad0a6c3b4035f",
        "4536be3a50f318fbf9a5475902a221502bef0d57e08c53b2cc0a56f17d9f9354"
    );
    setup.write("recipient.der", &base16ct::lower::decode_vec(der).expect("hexadecimal"));
}

const GENERATE: [&str; 6] = ["data-key-pair", "generate", "--key", "payroll", "--spec", "ed25519"];

#[test]
fn a_pair_is_printed_or_kept_in_files_the_private_key_for_the_owner_alone() {
    let setup = setup();
    let value = setup.json(&GENERATE);
    assert_eq!((&value["key_id"], &value["spec"]), (&KEY_ID.into(), &"ed25519".into()));
    for part in ["public_key", "private_key", "ciphertext"] {
        assert!(value[part].is_string(), "{part} is in {value}");
    }
    let files = ["--out-private", "private", "--out-public", "public", "--out-ciphertext", "wrapped"];
    let (code, out, err) = setup.kms(&[&GENERATE[..], &files].concat());
    assert_eq!(
        (code, out),
        (0, format!("key id       {KEY_ID}\nkey version  1\nspec         ed25519\n")),
        "{err}"
    );
    assert_eq!((setup.read("private"), setup.mode("private")), (pem("PRIVATE KEY", PAIR_PRIVATE_KEY), 0o600));
    assert_eq!(setup.read("public"), pem("PUBLIC KEY", &pair_public_key()));
    assert_eq!(setup.read("wrapped"), b"wrapped pair");
    let calls = setup.service.script().calls.len();
    for one in ["--out-private", "--out-public", "--out-ciphertext"] {
        let file = &one["--out-".len()..].replace("ciphertext", "wrapped");
        let (code, _, err) = setup.kms(&[&GENERATE[..], &[one, file]].concat());
        assert_eq!((code, err.contains("exists already")), (1, true), "{err}");
    }
    assert_eq!(setup.service.script().calls.len(), calls, "what cannot be kept is not asked for");
    let decrypt = ["data-key-pair", "decrypt", "--in", "wrapped", "--out-private", "again"];
    let (code, out, err) = setup.kms(&decrypt);
    assert_eq!((code, out.contains("private"), out.contains("public key")), (0, false, true), "{err}");
    assert_eq!((setup.read("again"), setup.mode("again")), (setup.read("private"), 0o600));
    setup.write("other", b"something else");
    assert_eq!(setup.kms(&["data-key-pair", "decrypt", "--in", "other"]).0, 4);
}

#[test]
fn a_private_key_for_a_recipient_or_for_nobody_is_not_shown() {
    let setup = setup();
    write_recipient(&setup);
    let value = setup.json(&[&GENERATE[..], &["--without-private-key"]].concat());
    assert_eq!((value.get("private_key"), value.get("recipient_ciphertext")), (None, None));
    assert!(value["public_key"].is_string() && value["ciphertext"].is_string(), "{value}");
    let value = setup
        .json(&[&GENERATE[..], &["--recipient", "recipient.der", "--out-ciphertext", "wrapped"]].concat());
    assert_eq!(value.get("private_key"), None);
    assert!(value["recipient_ciphertext"].is_string(), "{value}");
    let decrypt = ["data-key-pair", "decrypt", "--in", "wrapped", "--recipient", "recipient.der"];
    let opened = setup.json(&decrypt);
    assert_eq!(
        (&opened["recipient_ciphertext"], opened.get("private_key")),
        (&value["recipient_ciphertext"], None)
    );
    setup.service.script().knows_no_recipients = true;
    let (code, out, err) = setup.kms(&decrypt);
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    for wrong in [
        &["--without-private-key", "--out-private", "f"][..],
        &["--without-private-key", "--recipient", "recipient.der"],
        &["--out-private", "f", "--recipient", "recipient.der"],
        &["--spec", "sm4"],
    ] {
        assert_eq!(setup.kms(&[&GENERATE[..], wrong].concat()).0, 64, "{wrong:?}");
    }
}

#[test]
fn a_certificate_signing_request_names_what_was_asked_for() {
    let setup = setup();
    let names = ["--subject", "CN=app,O=x", "--dns", "a.example", "--dns", "b.example", "--ip", "::1"];
    let more = ["--uri", "urn:a", "--email", "ops@example.org"];
    let arguments = [&["key", "csr", "payroll"][..], &names, &more].concat();
    let text = b"CN=app,O=x|a.example|b.example|::1|urn:a|ops@example.org";
    let (code, out, err) = setup.kms(&arguments);
    assert_eq!((code, out.into_bytes()), (0, pem("CERTIFICATE REQUEST", text)), "{err}");
    let value = setup.json(&arguments);
    assert_eq!((&value["key_version"], &value["algorithm"]), (&2.into(), &"ed25519".into()));
    let to_file = [&arguments[..], &["--out", "request"]].concat();
    assert_eq!(setup.kms(&to_file).0, 0);
    assert_eq!(setup.read("request"), pem("CERTIFICATE REQUEST", text));
    let calls = setup.service.script().calls.len();
    assert_eq!(setup.kms(&to_file).0, 1, "it exists already");
    for (wrong, field) in [
        (&["--subject", "app"][..], "subject"),
        (&[], "subject"),
        (&["--dns", "a b"], "dns_names"),
        (&["--ip", "1.2.3"], "ip_addresses"),
        (&["--uri", "a"], "uris"),
        (&["--email", "a"], "email_addresses"),
    ] {
        let (code, _, err) = setup.kms(&[&["key", "csr", "payroll"][..], wrong].concat());
        assert_eq!((code, err.contains(&format!("field: {field}\n"))), (3, true), "{err}");
    }
    assert_eq!(setup.service.script().calls.len(), calls, "what would be refused is not asked for");
}

#[test]
fn a_key_is_brought_in_two_commands_and_nothing_wrong_is_sent() {
    let setup = setup();
    let parameters =
        ["key", "import-parameters", "--wrapping-key", "sm2", "--valid-seconds", "600", "--out-public-key"];
    let value = setup.json(&[&parameters[..], &["import.pem"]].concat());
    assert_eq!(
        (&value["import_id"], &value["wrapping"], &value["expires"]),
        (&KEY_ID.into(), &"sm2-envelope".into(), &"2026-11-23T02:00:00Z".into())
    );
    let asked = setup.service.script().import_asked.take().expect("parameters were asked for");
    assert_eq!((asked.wrapping_key_spec(), asked.valid_seconds), (kms_proto::v1::KeySpec::Sm2, 600));
    let text = String::from_utf8(setup.read("import.pem")).expect("PEM");
    assert!(text.starts_with("-----BEGIN PUBLIC KEY-----\n"), "{text}");
    let calls = setup.service.script().calls.len();
    assert_eq!(setup.kms(&[&parameters[..], &["import.pem"]].concat()).0, 1, "it exists already");

    setup.write("wrapped.bin", &[9; 100]);
    setup.write("too-long.bin", &[9; 8193]);
    let import = ["key", "import", "payroll", "--spec", "sm4", "--import-id", KEY_ID, "--in"];
    for (wrong, field) in [
        (["too-long.bin", "--check-value", "c1c2c3"], "wrapped_material"),
        (["wrapped.bin", "--check-value", "c1c2"], "check_value"),
        (["wrapped.bin", "--check-value", "c1c2+3"], "check_value"),
    ] {
        let (code, _, err) = setup.kms(&[&import[..], &wrong].concat());
        assert_eq!((code, err.contains(&format!("field: {field}\n"))), (3, true), "{err}");
    }
    assert_eq!(setup.service.script().calls.len(), calls, "what would be refused is not asked for");
    let more = ["wrapped.bin", "--check-value", "C1c2c3", "--protection", "wrapped", "--label", "a=b"];
    let key = setup.json(&[&import[..], &more].concat());
    assert_eq!(key["key_id"], KEY_ID);
    let sent = setup.service.script().imported.take().expect("it was sent");
    assert_eq!((sent.import_id.as_str(), sent.wrapped_material.len()), (KEY_ID, 100));
    assert_eq!(sent.check_value, [0xc1, 0xc2, 0xc3]);
    let create = sent.key.expect("what the key shall be");
    assert_eq!((create.name.as_str(), create.spec()), ("payroll", kms_proto::v1::KeySpec::Sm4));
    assert_eq!(create.attributes.expect("labels").labels.len(), 1);
    assert!(!create.idempotency_token.is_empty());
}
