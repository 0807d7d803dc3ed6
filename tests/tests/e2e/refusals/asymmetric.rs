//! Key pairs that decrypt, resident and wrapped: OpenSSL encrypts to them, and what is no ciphertext is refused.

use super::{Expected, PAIRS, PROTECTIONS, admin, app, make_key};
use kms_core::pair::{EncryptionAlgorithm, PairAlgorithm};
use kms_proto::v1;
use std::fs;
use std::path::Path;
use std::process::Command;

fn create(name: &str, spec: v1::KeySpec, protection: v1::Protection) -> v1::CreateKeyRequest {
    v1::CreateKeyRequest {
        name: name.to_owned(),
        spec: spec.into(),
        protection: protection.into(),
        usage: v1::KeyUsage::EncryptDecrypt.into(),
        ..Default::default()
    }
}

fn encrypt(key: &str, plaintext: &[u8]) -> v1::AsymmetricEncryptRequest {
    v1::AsymmetricEncryptRequest { key: key.to_owned(), plaintext: plaintext.to_vec() }
}

fn decrypt(key: &str, ciphertext: &[u8]) -> v1::AsymmetricDecryptRequest {
    v1::AsymmetricDecryptRequest { key: key.to_owned(), ciphertext: ciphertext.to_vec() }
}

/// What the command line of OpenSSL encrypts to a public key in DER.
fn openssl_encrypts(folder: &Path, spki: &[u8], pair: PairAlgorithm, plaintext: &[u8]) -> Vec<u8> {
    fs::write(folder.join("public.der"), spki).expect("written");
    fs::write(folder.join("plaintext"), plaintext).expect("written");
    let mut command = Command::new("openssl");
    command.current_dir(folder).args([
        "pkeyutl",
        "-encrypt",
        "-pubin",
        "-keyform",
        "DER",
        "-inkey",
        "public.der",
    ]);
    command.args(["-in", "plaintext", "-out", "ciphertext"]);
    if pair != PairAlgorithm::Sm2 {
        command.args(["-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256"]);
        command.args(["-pkeyopt", "rsa_mgf1_md:sha256"]);
    }
    let output = command.output().expect("openssl is installed (scripts/test installs it)");
    assert!(output.status.success(), "{output:?}");
    fs::read(folder.join("ciphertext")).expect("a ciphertext")
}

#[tokio::test]
async fn what_openssl_encrypts_to_a_pair_is_decrypted_and_what_is_changed_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    for ((spec, pair), protection) in
        PAIRS.into_iter().flat_map(|pair| PROTECTIONS.map(|place| (pair, place)))
    {
        let Some(algorithm) = EncryptionAlgorithm::of(pair) else { continue };
        let name = &format!("decrypt-{pair}-{}", protection as i32);
        let (mut rpc, mut expected) = (app().await, Expected::default());
        let made = admin().await.keys.create_key(create(name, spec, protection)).await.expect("creates");
        let made = made.into_inner();
        assert_eq!((made.usage(), made.protection()), (v1::KeyUsage::EncryptDecrypt, protection));
        let public = v1::GetPublicKeyRequest { key: name.clone() };
        let public = rpc.crypto.get_public_key(public).await.expect("a public key").into_inner();
        assert_eq!((public.usage(), public.algorithms.len()), (v1::KeyUsage::EncryptDecrypt, 0));

        let len_max = algorithm.plaintext_len_max(pair);
        let shortest = usize::from(pair == PairAlgorithm::Sm2);
        for len in [1, 32, len_max] {
            let plaintext = vec![0x5a; len];
            let theirs = openssl_encrypts(folder.path(), &public.public_key, pair, &plaintext);
            let opened = rpc.crypto.asymmetric_decrypt(decrypt(name, &theirs)).await.expect("decrypts");
            assert_eq!(opened.into_inner().plaintext, plaintext, "{name}, {len} bytes of OpenSSL");
            let ours = rpc
                .crypto
                .asymmetric_encrypt(encrypt(name, &plaintext))
                .await
                .expect("encrypts")
                .into_inner();
            assert_eq!((ours.key_id.as_str(), ours.key_version), (made.key_id.as_str(), 1));
            let opened =
                rpc.crypto.asymmetric_decrypt(decrypt(name, &ours.ciphertext)).await.expect("decrypts");
            assert_eq!(opened.into_inner().plaintext, plaintext, "{name}, {len} bytes of ours");
        }
        let answer = rpc.crypto.asymmetric_encrypt(encrypt(name, &vec![1; len_max + 1])).await;
        expected.refusal(answer, "FIELD_INVALID", Some("plaintext"));
        let empty = rpc.crypto.asymmetric_encrypt(encrypt(name, &[])).await;
        if shortest == 1 {
            expected.refusal(empty, "FIELD_INVALID", Some("plaintext"));
        } else {
            let made = empty.expect("OAEP takes nothing, too").into_inner();
            let opened =
                rpc.crypto.asymmetric_decrypt(decrypt(name, &made.ciphertext)).await.expect("decrypts");
            assert!(opened.into_inner().plaintext.is_empty());
        }

        let theirs = openssl_encrypts(folder.path(), &public.public_key, pair, b"7000");
        let last = theirs.len() - 1;
        let mut changed = theirs.clone();
        changed[last] ^= 1;
        let long = [theirs.as_slice(), &[0]].concat();
        for wrong in [&changed[..], &theirs[..last], &long, &[0; 4096], &vec![0xff; theirs.len()], &[]] {
            let answer = rpc.crypto.asymmetric_decrypt(decrypt(name, wrong)).await;
            expected.refusal(answer, "CIPHERTEXT_INVALID", None);
        }

        // It is for nothing else, and decrypts nothing of another version.
        let sign = v1::SignRequest { key: name.clone(), input: vec![1], ..Default::default() };
        expected.refusal(rpc.crypto.sign(sign).await, "KEY_USAGE_FORBIDS", Some("key"));
        let data_key = v1::GenerateDataKeyRequest { key: name.clone(), ..Default::default() };
        expected.refusal(rpc.crypto.generate_data_key(data_key).await, "KEY_USAGE_FORBIDS", Some("key"));
        let rotate = v1::RotateKeyRequest { key: name.clone(), ..Default::default() };
        admin().await.keys.rotate_key(rotate).await.expect("rotates");
        let answer = rpc.crypto.asymmetric_decrypt(decrypt(name, &theirs)).await;
        expected.refusal(answer, "CIPHERTEXT_INVALID", None);
        let old = format!("{name}@1");
        let opened = rpc.crypto.asymmetric_decrypt(decrypt(&old, &theirs)).await.expect("decrypts");
        assert_eq!(opened.into_inner().plaintext, b"7000");
        let answer = rpc.crypto.asymmetric_encrypt(encrypt(&old, b"7000")).await;
        expected.refusal(answer, "KEY_STATE_FORBIDS", None);
        let suspend = v1::SuspendKeyRequest { key: name.clone() };
        admin().await.keys.suspend_key(suspend).await.expect("suspends");
        let answer = rpc.crypto.asymmetric_decrypt(decrypt(&old, &theirs)).await;
        expected.refusal(answer, "KEY_STATE_FORBIDS", None);
        expected.are_all_recorded().await;
    }
}

#[tokio::test]
async fn a_key_that_does_not_decrypt_so_is_refused_for_it() {
    let (mut rpc, mut expected) = (app().await, Expected::default());
    make_key("decrypts-not", v1::Protection::HsmWrapped).await;
    let signs = v1::CreateKeyRequest {
        usage: v1::KeyUsage::Unspecified.into(),
        ..create("decrypts-not-signs", v1::KeySpec::Sm2, v1::Protection::HsmWrapped)
    };
    admin().await.keys.create_key(signs).await.expect("creates");
    for name in ["decrypts-not", "decrypts-not-signs"] {
        let answer = rpc.crypto.asymmetric_encrypt(encrypt(name, b"x")).await;
        expected.refusal(answer, "KEY_USAGE_FORBIDS", Some("key"));
        let answer = rpc.crypto.asymmetric_decrypt(decrypt(name, &[7; 256])).await;
        expected.refusal(answer, "KEY_USAGE_FORBIDS", Some("key"));
    }
    let mut admin = admin().await;
    for spec in [v1::KeySpec::EcP256, v1::KeySpec::Ed25519, v1::KeySpec::HmacSm3] {
        let answer = admin.keys.create_key(create("decrypts-never", spec, v1::Protection::HsmWrapped)).await;
        expected.refusal(answer, "KEY_USAGE_FORBIDS", Some("usage"));
    }
    let answer = admin.crypto.asymmetric_decrypt(decrypt("decrypts-not", &[7; 256])).await;
    expected.refusal(answer, "NOT_PERMITTED", None);
    expected.are_all_recorded().await;
}
