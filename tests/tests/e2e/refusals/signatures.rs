//! Signatures of every kind of pair, resident and wrapped: OpenSSL takes them, and what is no signature is refused.

use super::{Expected, PAIRS, PROTECTIONS, admin, app, make_key};
use kms_core::pair::{PairPublicKey, SignatureAlgorithm, SignedInput, Sm2UserId, ToSign};
use kms_proto::v1;
use std::fs;
use std::path::Path;
use std::process::Command;

const MESSAGE: &[u8] = b"attack at dawn";

pub async fn make_pair(name: &str, spec: v1::KeySpec, protection: v1::Protection) -> v1::Key {
    let request = v1::CreateKeyRequest {
        name: name.to_owned(),
        spec: spec.into(),
        protection: protection.into(),
        ..Default::default()
    };
    let key = admin().await.keys.create_key(request).await.expect("creates").into_inner();
    assert_eq!((key.spec(), key.protection()), (spec, protection));
    key
}

fn sign(key: &str, algorithm: Option<SignatureAlgorithm>) -> v1::SignRequest {
    v1::SignRequest {
        key: key.to_owned(),
        algorithm: algorithm.map_or(0, |algorithm| algorithm.number().into()),
        input: MESSAGE.to_vec(),
        ..Default::default()
    }
}

fn verify(signed: &v1::SignRequest, signature: &[u8]) -> v1::VerifyRequest {
    v1::VerifyRequest {
        key: signed.key.clone(),
        algorithm: signed.algorithm,
        input: signed.input.clone(),
        is_digest: signed.is_digest,
        user_id: signed.user_id.clone(),
        signature: signature.to_vec(),
    }
}

/// Whether the command line of OpenSSL takes a signature over the message.
fn openssl_takes(folder: &Path, algorithm: SignatureAlgorithm, signature: &[u8]) -> bool {
    use SignatureAlgorithm as A;
    fs::write(folder.join("message"), MESSAGE).expect("written");
    fs::write(folder.join("signature"), signature).expect("written");
    let mut command = Command::new("openssl");
    command.current_dir(folder).args([
        "pkeyutl",
        "-verify",
        "-pubin",
        "-keyform",
        "DER",
        "-inkey",
        "public.der",
    ]);
    command.args(["-in", "message", "-sigfile", "signature", "-rawin"]);
    match algorithm {
        A::Ed25519 => &mut command,
        A::Sm2Sm3 => command.args(["-digest", "sm3", "-pkeyopt", "distid:1234567812345678"]),
        A::EcdsaSha256 | A::RsaPssSha256 | A::RsaPkcs1Sha256 => command.args(["-digest", "sha256"]),
        A::EcdsaSha384 | A::RsaPssSha384 | A::RsaPkcs1Sha384 => command.args(["-digest", "sha384"]),
        A::EcdsaSha512 | A::RsaPssSha512 | A::RsaPkcs1Sha512 => command.args(["-digest", "sha512"]),
    };
    if matches!(algorithm, A::RsaPssSha256 | A::RsaPssSha384 | A::RsaPssSha512) {
        command.args(["-pkeyopt", "rsa_padding_mode:pss", "-pkeyopt", "rsa_pss_saltlen:digest"]);
    }
    command.output().expect("openssl is installed (scripts/test installs it)").status.success()
}

#[tokio::test]
async fn openssl_takes_every_signature_and_a_changed_one_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    for ((spec, pair), protection) in
        PAIRS.into_iter().flat_map(|pair| PROTECTIONS.map(|place| (pair, place)))
    {
        let name = &format!("sign-{pair}-{}", protection as i32);
        make_pair(name, spec, protection).await;
        let (mut rpc, mut expected) = (app().await, Expected::default());
        let public = v1::GetPublicKeyRequest { key: name.clone() };
        let public = rpc.crypto.get_public_key(public).await.expect("a public key").into_inner();
        assert_eq!((public.spec(), public.key_version), (spec, 1));
        fs::write(folder.path().join("public.der"), &public.public_key).expect("written");
        let public_key = PairPublicKey::from_spki(&public.public_key).expect("a public key");
        let of_pair: Vec<SignatureAlgorithm> = SignatureAlgorithm::of(pair).collect();
        assert_eq!(public.algorithms, of_pair.iter().map(|one| i32::from(one.number())).collect::<Vec<_>>());
        for algorithm in of_pair.iter().copied() {
            let request = sign(name, Some(algorithm));
            let made = rpc.crypto.sign(request.clone()).await.expect("signs").into_inner();
            assert_eq!(made.algorithm, i32::from(algorithm.number()));
            assert!(openssl_takes(folder.path(), algorithm, &made.signature), "{name}, {algorithm}");
            rpc.crypto.verify(verify(&request, &made.signature)).await.expect("verifies");

            // The digest of the message has the same signatures.
            let input = SignedInput::Message(MESSAGE);
            let digest = ToSign::new(algorithm, &public_key, &Sm2UserId::default(), input).expect("it fits");
            let by_digest = v1::SignRequest {
                input: digest.as_bytes().to_vec(),
                is_digest: true,
                ..sign(name, Some(algorithm))
            };
            if algorithm == SignatureAlgorithm::Ed25519 {
                expected.refusal(rpc.crypto.sign(by_digest).await, "FIELD_INVALID", Some("is_digest"));
            } else {
                rpc.crypto.verify(verify(&by_digest, &made.signature)).await.expect("verifies");
                let made = rpc.crypto.sign(by_digest.clone()).await.expect("signs").into_inner();
                assert!(openssl_takes(folder.path(), algorithm, &made.signature), "{name}, {algorithm}");
                for len in [0, 20, 31, 65] {
                    let wrong = v1::SignRequest { input: vec![7; len], ..by_digest.clone() };
                    expected.refusal(rpc.crypto.sign(wrong).await, "FIELD_INVALID", Some("input"));
                }
            }

            let last = made.signature.len() - 1;
            let mut changed = made.signature.clone();
            changed[last] ^= 1;
            for wrong in
                [&changed[..], &made.signature[..last], &[made.signature.as_slice(), &[0]].concat(), &[]]
            {
                let answer = rpc.crypto.verify(verify(&request, wrong)).await;
                expected.refusal(answer, "KEY_SIGNATURE_INVALID", None);
            }
            let other = v1::SignRequest { input: b"attack at dusk".to_vec(), ..request.clone() };
            let answer = rpc.crypto.verify(verify(&other, &made.signature)).await;
            expected.refusal(answer, "KEY_SIGNATURE_INVALID", None);
        }
        let default = rpc.crypto.sign(sign(name, None)).await.expect("signs").into_inner();
        assert_eq!(default.algorithm, i32::from(of_pair[0].number()), "{name}");
        for algorithm in SignatureAlgorithm::ALL.into_iter().filter(|one| !of_pair.contains(one)) {
            let answer = rpc.crypto.sign(sign(name, Some(algorithm))).await;
            expected.refusal(answer, "FIELD_INVALID", Some("algorithm"));
        }
        expected.are_all_recorded().await;
    }
}

#[tokio::test]
async fn a_pair_signs_in_the_states_in_which_keys_encrypt_and_shows_its_public_half_in_every_one() {
    for protection in PROTECTIONS {
        let name = &format!("sign-life-{}", protection as i32);
        let key = make_pair(name, v1::KeySpec::Sm2, protection).await;
        let (mut admin, mut rpc, mut expected) = (admin().await, app().await, Expected::default());
        let first = rpc.crypto.sign(sign(name, None)).await.expect("signs").into_inner();
        let rotate = v1::RotateKeyRequest { key: name.clone(), ..Default::default() };
        let rotated = admin.keys.rotate_key(rotate).await.expect("rotates").into_inner();
        assert_eq!((key.current_version, rotated.current_version), (1, 2));
        let mut public = Vec::new();
        for version in [1, 2] {
            let asked = v1::GetPublicKeyRequest { key: format!("{name}@{version}") };
            public
                .push(rpc.crypto.get_public_key(asked).await.expect("a public key").into_inner().public_key);
        }
        assert_ne!(public[0], public[1], "each version has its own");
        // The new version does not verify what the old one signed; that one still does, and signs no more.
        let (current, old) = (sign(name, None), sign(&format!("{name}@1"), None));
        expected.refusal(
            rpc.crypto.verify(verify(&current, &first.signature)).await,
            "KEY_SIGNATURE_INVALID",
            None,
        );
        rpc.crypto.verify(verify(&old, &first.signature)).await.expect("verifies");
        expected.refusal(rpc.crypto.sign(old.clone()).await, "KEY_STATE_FORBIDS", None);

        let alice = v1::SignRequest { user_id: b"alice@example".to_vec(), ..current.clone() };
        let made = rpc.crypto.sign(alice.clone()).await.expect("signs").into_inner();
        rpc.crypto.verify(verify(&alice, &made.signature)).await.expect("verifies");
        let answer = rpc.crypto.verify(verify(&current, &made.signature)).await;
        expected.refusal(answer, "KEY_SIGNATURE_INVALID", None);
        let too_long = v1::SignRequest { user_id: vec![b'x'; 8192], ..current.clone() };
        expected.refusal(rpc.crypto.sign(too_long).await, "FIELD_INVALID", Some("user_id"));

        let suspend = v1::SuspendKeyRequest { key: name.clone() };
        admin.keys.suspend_key(suspend).await.expect("suspends");
        expected.refusal(rpc.crypto.sign(current.clone()).await, "KEY_STATE_FORBIDS", None);
        expected.refusal(rpc.crypto.verify(verify(&old, &first.signature)).await, "KEY_STATE_FORBIDS", None);
        let schedule = v1::ScheduleDestructionRequest { key: name.clone(), window_days: 7 };
        admin.keys.schedule_destruction(schedule).await.expect("schedules");
        let asked = v1::GetPublicKeyRequest { key: format!("{name}@1") };
        let shown =
            rpc.crypto.get_public_key(asked).await.expect("what was signed stays signed").into_inner();
        assert_eq!(shown.public_key, public[0]);
        expected.are_all_recorded().await;
    }
}

#[tokio::test]
async fn a_pair_does_nothing_but_sign_and_no_other_key_signs() {
    let (mut rpc, mut expected) = (app().await, Expected::default());
    make_pair("sign-only", v1::KeySpec::EcP256, v1::Protection::HsmWrapped).await;
    make_key("sign-not", v1::Protection::HsmWrapped).await;
    let key = || "sign-only".to_owned();
    let request = v1::EncryptRequest { key: key(), plaintext: b"x".to_vec(), ..Default::default() };
    expected.refusal(rpc.crypto.encrypt(request).await, "KEY_USAGE_FORBIDS", Some("key"));
    let request = v1::GenerateDataKeyRequest { key: key(), ..Default::default() };
    expected.refusal(rpc.crypto.generate_data_key(request).await, "KEY_USAGE_FORBIDS", Some("key"));
    let request = v1::GenerateMacRequest { key: key(), message: b"x".to_vec() };
    expected.refusal(rpc.crypto.generate_mac(request).await, "KEY_USAGE_FORBIDS", Some("key"));
    expected.refusal(rpc.crypto.sign(sign("sign-not", None)).await, "KEY_USAGE_FORBIDS", Some("key"));
    let request = verify(&sign("sign-not", None), &[0; 64]);
    expected.refusal(rpc.crypto.verify(request).await, "KEY_USAGE_FORBIDS", Some("key"));
    let request = v1::GetPublicKeyRequest { key: "sign-not".into() };
    expected.refusal(rpc.crypto.get_public_key(request).await, "KEY_USAGE_FORBIDS", Some("key"));
    let unknown = v1::SignRequest { algorithm: 99, ..sign("sign-only", None) };
    expected.refusal(rpc.crypto.sign(unknown).await, "FIELD_INVALID", Some("algorithm"));
    let long = v1::SignRequest { input: vec![7; 64 * 1024 + 1], ..sign("sign-only", None) };
    expected.refusal(rpc.crypto.sign(long).await, "FIELD_INVALID", Some("input"));
    let mut admin = admin().await;
    expected.refusal(admin.crypto.sign(sign("sign-only", None)).await, "NOT_PERMITTED", None);
    expected.are_all_recorded().await;
}
