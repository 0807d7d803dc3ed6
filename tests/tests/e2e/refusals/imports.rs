//! Key material that is not taken, and imports that are over.

use super::{Expected, admin};
use crate::imports::{enveloped, kwp, make_pair, openssl, parameters, request, wrap};
use kms_proto::v1;
use kms_tests::Rpc;
use std::fs;
use std::path::Path;
use std::time::Duration;

const ANYWHERE: v1::Protection = v1::Protection::Unspecified;
const KEY: [u8; 16] = *b"0123456789abcdef";

/// Tries material, which is refused.
async fn try_material(
    (rpc, expected): (&mut Rpc, &mut Expected),
    parameters: &v1::ImportParameters,
    spec: v1::KeySpec,
    material: Vec<u8>,
) {
    let import = request("never-imported", spec, ANYWHERE, parameters, material);
    expected.refusal(rpc.keys.import_key_material(import).await, "IMPORT_INVALID", Some("wrapped_material"));
}

/// The bytes with one bit turned over.
fn flipped(bytes: &[u8], place: usize) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    changed[place] ^= 1;
    changed
}

#[tokio::test]
async fn material_that_is_not_taken_is_refused_and_the_import_can_still_be_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder: &Path = folder.path();
    let (mut rpc, mut expected) = (admin().await, Expected::default());
    let sm2 = parameters(&mut rpc, v1::KeySpec::Sm2).await;
    let rsa = parameters(&mut rpc, v1::KeySpec::Rsa3072).await;
    let good = wrap(folder, &sm2, &KEY);
    let by_rsa = wrap(folder, &rsa, &KEY);
    let transport = &by_rsa[..384];

    // Seen to be wrong before anything is opened.
    for material in
        [vec![], vec![7], vec![0; 8193], good[..good.len() - 1].to_vec(), [&good[..], &[0]].concat()]
    {
        try_material((&mut rpc, &mut expected), &sm2, v1::KeySpec::Sm4, material).await;
    }
    for material in [
        transport.to_vec(),
        by_rsa[..399].to_vec(),
        by_rsa[..by_rsa.len() - 1].to_vec(),
        [&[0xff; 384], &by_rsa[384..]].concat(),
    ] {
        try_material((&mut rpc, &mut expected), &rsa, v1::KeySpec::Sm4, material).await;
    }
    // A pair that the envelope has no form for, and a secret key in the place of an envelope.
    try_material((&mut rpc, &mut expected), &sm2, v1::KeySpec::EcP256, good.clone()).await;
    try_material((&mut rpc, &mut expected), &sm2, v1::KeySpec::Sm2, good.clone()).await;

    // Opened, and found wrong: every part of what was wrapped counts.
    for place in [40, 80, good.len() - 1] {
        try_material((&mut rpc, &mut expected), &sm2, v1::KeySpec::Sm4, flipped(&good, place)).await;
    }
    for place in [10, 383, 384, 400, by_rsa.len() - 1] {
        try_material((&mut rpc, &mut expected), &rsa, v1::KeySpec::Sm4, flipped(&by_rsa, place)).await;
    }
    // To another import's key, under another transport key, or one that is too short.
    let other = parameters(&mut rpc, v1::KeySpec::Rsa3072).await;
    let to_other = wrap(folder, &other, &KEY);
    try_material((&mut rpc, &mut expected), &rsa, v1::KeySpec::Sm4, to_other).await;
    let other_kek = [transport, kwp(folder, &[1; 32], &KEY).as_slice()].concat();
    try_material((&mut rpc, &mut expected), &rsa, v1::KeySpec::Sm4, other_kek).await;

    // Keys that will not do.
    for (spec, key) in [
        (v1::KeySpec::Sm4, vec![1; 15]),
        (v1::KeySpec::Aes256, KEY.to_vec()),
        (v1::KeySpec::HmacSha256, KEY.to_vec()),
        (v1::KeySpec::Sm4, vec![0; 16]),
        (v1::KeySpec::HmacSm3, vec![0xaa; 32]),
        (v1::KeySpec::EcP256, KEY.to_vec()),
    ] {
        try_material((&mut rpc, &mut expected), &rsa, spec, wrap(folder, &rsa, &key)).await;
    }
    let (p256, _) = make_pair(folder, v1::KeySpec::EcP256);
    let (sm2_key, sm2_public) = make_pair(folder, v1::KeySpec::Sm2);
    openssl(folder, &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024", "-out", "key.pem"]);
    let short = openssl(folder, &["pkcs8", "-topk8", "-nocrypt", "-in", "key.pem", "-outform", "DER"]);
    let (rsa_key, _) = make_pair(folder, v1::KeySpec::Rsa2048);
    let mut encrypted_pem =
        openssl(folder, &["pkcs8", "-topk8", "-in", "key.pem", "-passout", "pass:x", "-outform", "DER"]);
    encrypted_pem.truncate(4096);
    for (spec, pkcs8) in [
        // The last byte of the public point, and of the private exponent's neighbourhood.
        (v1::KeySpec::EcP256, flipped(&p256, p256.len() - 1)),
        (v1::KeySpec::EcP384, p256.clone()),
        (v1::KeySpec::Rsa2048, short),
        (v1::KeySpec::Rsa2048, flipped(&rsa_key, rsa_key.len() - 3)),
        (v1::KeySpec::Rsa2048, flipped(&rsa_key, 400)),
        (v1::KeySpec::Rsa3072, rsa_key.clone()),
        (v1::KeySpec::Rsa2048, encrypted_pem),
        (v1::KeySpec::EcP256, sm2_key),
    ] {
        try_material((&mut rpc, &mut expected), &rsa, spec, wrap(folder, &rsa, &pkcs8)).await;
    }
    // Scalars of SM2 out of range, and one that is not that of the point beside it.
    const ORDER_MINUS_ONE: &str = "fffffffeffffffffffffffffffffffff7203df6b21c6052b53bbf40939d54122";
    let order_minus_one: Vec<u8> = (0..32)
        .map(|byte| u8::from_str_radix(&ORDER_MINUS_ONE[2 * byte..2 * byte + 2], 16).expect("hexadecimal"))
        .collect();
    let point = &sm2_public[sm2_public.len() - 65..];
    for scalar in [vec![0; 32], order_minus_one, vec![0xff; 32], [&[0; 31][..], &[9]].concat()] {
        let envelope = enveloped(folder, &sm2, &scalar, point);
        try_material((&mut rpc, &mut expected), &sm2, v1::KeySpec::Sm2, envelope).await;
    }
    let off_curve = flipped(point, 64);
    let envelope = enveloped(folder, &sm2, &[&[0; 31][..], &[9]].concat(), &off_curve);
    try_material((&mut rpc, &mut expected), &sm2, v1::KeySpec::Sm2, envelope).await;

    // A check value of another key, of a wrong length, and of a key that has none.
    let mut import = request("never-imported", v1::KeySpec::Sm4, ANYWHERE, &sm2, good.clone());
    import.check_value = vec![1, 2, 3];
    let answer = rpc.keys.import_key_material(import.clone()).await;
    expected.refusal(answer, "IMPORT_INVALID", Some("check_value"));
    import.check_value = vec![1, 2];
    expected.refusal(rpc.keys.import_key_material(import).await, "FIELD_INVALID", Some("check_value"));
    let mut import = request("never-imported", v1::KeySpec::HmacSm3, ANYWHERE, &sm2, good.clone());
    import.check_value = vec![1, 2, 3];
    expected.refusal(rpc.keys.import_key_material(import).await, "FIELD_INVALID", Some("check_value"));

    // Nothing was made, and the import is still there: it is used once and then over.
    let show = v1::DescribeKeyRequest { key: "never-imported".into() };
    expected.refusal(rpc.keys.describe_key(show).await, "KEY_NOT_FOUND", None);
    let mut import = request("imported-once", v1::KeySpec::Sm4, ANYWHERE, &sm2, good);
    import.key.as_mut().expect("a key").idempotency_token = "once".into();
    let made = rpc.keys.import_key_material(import.clone()).await.expect("is taken").into_inner();
    let again = rpc.keys.import_key_material(import.clone()).await.expect("is repeated").into_inner();
    assert_eq!(made.key_id, again.key_id);
    import.wrapped_material[50] ^= 1;
    let answer = rpc.keys.import_key_material(import.clone()).await;
    expected.refusal(answer, "IDEMPOTENCY_CONFLICT", Some("idempotency_token"));
    let other = import.key.as_mut().expect("a key");
    (other.name, other.idempotency_token) = ("imported-twice".into(), String::new());
    expected.refusal(rpc.keys.import_key_material(import).await, "IMPORT_NOT_FOUND", Some("import_id"));
    let mut import = request("imported-once", v1::KeySpec::Sm4, ANYWHERE, &rsa, by_rsa);
    expected.refusal(rpc.keys.import_key_material(import.clone()).await, "KEY_EXISTS", Some("name"));
    import.key = None;
    expected.refusal(rpc.keys.import_key_material(import).await, "FIELD_INVALID", Some("key"));
    expected.are_all_recorded().await;
    fs::remove_file(folder.join("key.pem")).expect("it was made");
}

#[tokio::test]
async fn an_import_that_is_unknown_or_over_is_refused() {
    let (mut rpc, mut expected) = (admin().await, Expected::default());
    for (spec, seconds, reason, field) in [
        (v1::KeySpec::Rsa2048, 0, "FIELD_INVALID", "wrapping_key_spec"),
        (v1::KeySpec::EcP256, 0, "FIELD_INVALID", "wrapping_key_spec"),
        (v1::KeySpec::Sm4, 0, "SPEC_UNSUPPORTED", "wrapping_key_spec"),
        (v1::KeySpec::Sm2, 86_401, "FIELD_INVALID", "valid_seconds"),
    ] {
        let request =
            v1::GetImportParametersRequest { wrapping_key_spec: spec.into(), valid_seconds: seconds };
        expected.refusal(rpc.keys.get_import_parameters(request).await, reason, Some(field));
    }
    let request = v1::GetImportParametersRequest { valid_seconds: 3, ..Default::default() };
    let brief = rpc.keys.get_import_parameters(request).await.expect("parameters").into_inner();
    assert_eq!(brief.wrapping(), v1::ImportWrapping::Sm2Envelope, "that of the suite");
    tokio::time::sleep(Duration::from_millis(3100)).await;
    let unknown =
        v1::ImportParameters { import_id: "07070707-0707-0707-0707-070707070707".into(), ..brief.clone() };
    let malformed = v1::ImportParameters { import_id: "7".into(), ..brief.clone() };
    for (parameters, reason) in
        [(brief, "IMPORT_NOT_FOUND"), (unknown, "IMPORT_NOT_FOUND"), (malformed, "FIELD_INVALID")]
    {
        let import = self::request("never-imported", v1::KeySpec::Sm4, ANYWHERE, &parameters, vec![1; 100]);
        expected.refusal(rpc.keys.import_key_material(import).await, reason, Some("import_id"));
    }
    expected.are_all_recorded().await;
}
