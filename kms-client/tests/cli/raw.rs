//! `kms raw-encrypt` and `kms raw-decrypt`, against a service.

use crate::online::setup;
use crate::support::service::KEY_ID;

const ENCRYPT: [&str; 4] = ["raw-encrypt", "--key", "legacy", "in"];
const DECRYPT: [&str; 4] = ["raw-decrypt", "--key", "legacy@2", "sealed"];
/// 16 times 7, and 8 times.
const IV: &str = "BwcHBwcHBwcHBwcHBwcHBw==";
const OLD_IV: &str = "BwcHBwcHBwc=";

#[test]
fn what_is_encrypted_raw_is_printed_in_its_parts_and_decrypted_from_them() {
    let setup = setup();
    setup.write("in", b"abc");
    let value = setup.json(&[&ENCRYPT[..], &["--aad", "data"]].concat());
    for (field, expected) in [("key_id", KEY_ID), ("iv", IV), ("tag", "ZGF0YQ=="), ("ciphertext", "Y2Jh")] {
        assert_eq!(value[field], expected, "{value}");
    }
    assert_eq!(value["key_version"], 2);
    setup.write("data", b"data");
    let (code, out, err) = setup.kms(&[&ENCRYPT[..], &["--aad-file", "data", "--out", "sealed"]].concat());
    let expected =
        format!("key id       {KEY_ID}\nkey version  2\niv           {IV}\ntag          ZGF0YQ==\n");
    assert_eq!((code, out), (0, expected), "{err}");
    assert_eq!(setup.read("sealed"), b"cba");
    let opened = setup.json(&[&DECRYPT[..], &["--iv", IV, "--tag", "ZGF0YQ==", "--aad", "data"]].concat());
    assert_eq!((&opened["plaintext"], &opened["key_version"]), (&"YWJj".into(), &2.into()));
    setup.write("iv", &[7; 16]);
    setup.write("tag", b"data");
    let files = ["--iv-file", "iv", "--tag-file", "tag", "--aad-file", "data", "--out-plaintext", "opened"];
    let (code, out, err) = setup.kms(&[&DECRYPT[..], &files].concat());
    assert_eq!((code, out), (0, format!("key id       {KEY_ID}\nkey version  2\n")), "{err}");
    assert_eq!((setup.read("opened"), setup.mode("opened")), (b"abc".to_vec(), 0o600));
    let (code, _, err) = setup.kms(&[&DECRYPT[..], &["--iv", IV, "--tag", "ZGF0YQ=="]].concat());
    let text = "reason: CIPHERTEXT_INVALID\nnext: kms raw-decrypt --help\n";
    assert_eq!((code, err.contains(text)), (4, true), "{err}");
}

#[test]
fn old_data_has_no_tag_and_may_have_a_padding_of_its_own() {
    let setup = setup();
    setup.write("sealed", b"cba");
    let opened = setup.json(&[&DECRYPT[..], &["--iv", OLD_IV, "--padding", "none"]].concat());
    assert_eq!(opened["plaintext"], "YWJj");
    assert_eq!(setup.kms(&[&DECRYPT[..], &["--iv", OLD_IV]].concat()).0, 4);
}

#[test]
fn what_would_be_refused_or_could_not_be_kept_is_not_asked_for() {
    let setup = setup();
    setup.write("in", b"abc");
    setup.write("sealed", b"cba");
    setup.write("long", &[0; 64 * 1024 + 17]);
    let long = |words: &[&'static str]| words.iter().map(|word| word.replace("sealed", "long")).collect();
    let long_in: Vec<String> = long(&[&DECRYPT[..], &["--iv", IV]].concat());
    let long_in: Vec<&str> = long_in.iter().map(String::as_str).collect();
    for (arguments, code, text) in [
        (["raw-encrypt", "--key", "legacy", "long"].to_vec(), 3, "field: plaintext\n"),
        ([&ENCRYPT[..], &["--aad-file", "long"]].concat(), 3, "field: additional_authenticated_data\n"),
        ([&ENCRYPT[..], &["--out", "in"]].concat(), 1, "exists already"),
        (["raw-encrypt", "--key", "A B", "in"].to_vec(), 3, "field: key\n"),
        (long_in, 3, "field: ciphertext\n"),
        ([&DECRYPT[..], &["--iv", "AAA"]].concat(), 3, "field: initialization_vector\n"),
        ([&DECRYPT[..], &["--iv-file", "long"]].concat(), 3, "field: initialization_vector\n"),
        ([&DECRYPT[..], &["--iv", IV, "--tag", "+"]].concat(), 3, "field: tag\n"),
        ([&DECRYPT[..], &["--iv", IV, "--out-plaintext", "in"]].concat(), 1, "exists already"),
        (DECRYPT.to_vec(), 64, "--iv"),
        ([&DECRYPT[..], &["--iv", IV, "--padding", "zero"]].concat(), 64, "pkcs7"),
    ] {
        let (found, out, err) = setup.kms(&arguments);
        assert_eq!((found, out.as_str(), err.contains(text)), (code, "", true), "{arguments:?}: {err}");
    }
    assert_eq!(setup.service.script().calls, Vec::<&str>::new());
}
