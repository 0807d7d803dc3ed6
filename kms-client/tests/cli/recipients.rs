//! `--recipient`: secrets that go to somebody else.

use crate::online::setup;
use crate::support::service::KEY_ID;
use kms_client::{ClientError, EncryptionContext, KeyRef, PairPublicKey, Recipient, RecipientAlgorithm};
use std::time::Duration;

/// The public key of the vector in docs/formats/recipient.md, whose private scalar is 01 02 .. 20.
fn public_key() -> PairPublicKey {
    let point = concat!(
        "04515c3d6eb9e396b904d3feca7f54fdcd0cc1e997bf375dca515ad0a6c3b4035f",
        "4536be3a50f318fbf9a5475902a221502bef0d57e08c53b2cc0a56f17d9f9354"
    );
    let point = base16ct::lower::decode_vec(point).expect("hexadecimal");
    PairPublicKey::from_point(kms_core::pair::PairAlgorithm::P256, &point).expect("on its curve")
}

fn pem(label: &str, der: &[u8]) -> String {
    pem_rfc7468::encode_string(label, pem_rfc7468::LineEnding::LF, der).expect("fits")
}

#[test]
fn a_data_key_for_a_recipient_is_not_shown_and_its_ciphertext_is() {
    let setup = setup();
    let der = public_key().to_spki();
    setup.write("public.der", &der);
    setup.write("public.pem", pem("PUBLIC KEY", &der).as_bytes());
    for file in ["public.pem", "public.der"] {
        let value = setup.json(&["data-key", "generate", "--key", "payroll", "--recipient", file]);
        assert_eq!((value.get("plaintext"), value["key_id"].as_str()), (None, Some(KEY_ID)));
        assert!(value["recipient_ciphertext"].as_str().expect("base64").len() > 100);
    }
    let generate = ["data-key", "generate", "--key", "payroll", "--recipient", "public.pem"];
    let files = ["--out-recipient", "theirs", "--out-ciphertext", "wrapped"];
    let (code, out, _) = setup.kms(&[&generate[..], &files].concat());
    assert_eq!((code, out), (0, format!("key id       {KEY_ID}\nkey version  1\nspec         aes-256\n")));
    let theirs = setup.read("theirs");
    assert!(theirs.starts_with(&[&[3], der.as_slice()].concat()), "HPKE goes with the key by itself");
    let again =
        ["data-key", "decrypt", "--in", "wrapped", "--recipient", "public.pem", "--out-recipient", "again"];
    assert_eq!(setup.kms(&again).0, 0);
    assert_eq!(setup.read("again"), theirs);
    let calls = setup.service.script().calls.len();
    let (code, _, err) = setup.kms(&again);
    assert_eq!((code, err.contains("again exists already")), (1, true), "{err}");
    assert_eq!(setup.service.script().calls.len(), calls, "what cannot be kept is not asked for");
}

#[test]
fn a_recipient_that_will_not_do_is_refused_without_a_call() {
    let setup = setup();
    let der = public_key().to_spki();
    setup.write("public.pem", pem("PUBLIC KEY", &der).as_bytes());
    setup.write("certificate.pem", pem("CERTIFICATE", &der).as_bytes());
    setup.write("half.der", &der[..40]);
    setup.write("long", &[7; 16 * 1024 + 1]);
    // RFC 8410, section 10.1.
    let ed25519 = "302a300506032b657003210019bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1";
    setup.write("ed25519.der", &base16ct::lower::decode_vec(ed25519).expect("hexadecimal"));
    for (more, field, says) in [
        (&["--recipient", "certificate.pem"][..], "recipient.public_key", "PUBLIC KEY is expected"),
        (&["--recipient", "half.der"], "recipient.public_key", "not a public key in DER"),
        (&["--recipient", "long"], "recipient.public_key", "longer than"),
        (&["--recipient", "ed25519.der"], "recipient.public_key", "nothing is encrypted to a key of ed25519"),
        (
            &["--recipient", "public.pem", "--recipient-algorithm", "sm2"],
            "recipient.algorithm",
            "hpke-p256 does",
        ),
    ] {
        let (code, _, err) = setup.kms(&[&["data-key", "generate", "--key", "payroll"], more].concat());
        assert_eq!(code, 3, "{more:?}: {err}");
        assert!(err.contains(&format!("field: {field}\n")) && err.contains(says), "{err}");
    }
    let (code, _, err) = setup.kms(&["data-key", "generate", "--key", "payroll", "--recipient", "missing"]);
    assert_eq!((code, err.contains("missing cannot be read")), (1, true), "{err}");
    for wrong in [
        &["--recipient", "public.pem", "--without-plaintext"][..],
        &["--recipient", "public.pem", "--out-plaintext", "plain"],
        &["--recipient", "public.pem", "--recipient-algorithm", "rsa"],
        &["--out-recipient", "theirs"],
        &["--recipient-algorithm", "sm2"],
    ] {
        let (code, _, err) = setup.kms(&[&["data-key", "generate", "--key", "payroll"], wrong].concat());
        assert_eq!(code, 64, "{wrong:?}: {err}");
    }
    assert!(setup.service.script().calls.is_empty());
}

/// It would answer in the clear: the field is new to it.
#[test]
fn an_answer_of_a_service_from_before_recipients_is_not_taken() {
    let setup = setup();
    setup.service.script().knows_no_recipients = true;
    let recipient = Recipient::new(RecipientAlgorithm::HpkeP256, public_key()).expect("fits");
    let key = KeyRef::parse("payroll").expect("a name");
    let context = EncryptionContext::default();
    let made = setup.client(Duration::from_secs(5), async |client| {
        client.generate_data_key_for(&recipient, &key, None, &context).await
    });
    assert!(matches!(made, Err(ClientError::AnswerMalformed { .. })), "{made:?}");
    let opened = setup.client(Duration::from_secs(5), async |client| {
        client.decrypt_data_key_for(&recipient, b"wrapped 0", &context, None).await
    });
    assert!(matches!(opened, Err(ClientError::AnswerMalformed { .. })), "{opened:?}");
}
