//! Every specification, resident and wrapped: what it encrypts, and what no specification is.

use super::{Expected, admin, app};
use kms_core::envelope;
use kms_core::suite::AeadAlgorithm;
use kms_proto::v1;

const CIPHERS: [(v1::KeySpec, AeadAlgorithm); 4] = [
    (v1::KeySpec::Aes256, AeadAlgorithm::Aes256Gcm),
    (v1::KeySpec::Sm4, AeadAlgorithm::Sm4Gcm),
    (v1::KeySpec::Aes128, AeadAlgorithm::Aes128Gcm),
    (v1::KeySpec::Aes192, AeadAlgorithm::Aes192Gcm),
];

#[tokio::test]
async fn every_cipher_encrypts_and_makes_data_keys_of_every_cipher_and_of_no_mac() {
    for protection in [v1::Protection::HsmResident, v1::Protection::HsmWrapped] {
        for (spec, algorithm) in CIPHERS {
            let name = format!("spec-{}-{}", algorithm.name(), protection as i32);
            let (mut rpc, mut expected) = (app().await, Expected::default());
            let request = v1::CreateKeyRequest {
                name: name.clone(),
                spec: spec.into(),
                protection: protection.into(),
                ..Default::default()
            };
            let key = admin().await.keys.create_key(request).await.expect("creates").into_inner();
            assert_eq!((key.spec(), key.protection()), (spec, protection));
            let request =
                v1::EncryptRequest { key: name.clone(), plaintext: vec![7; 20], ..Default::default() };
            let ciphertext = rpc.crypto.encrypt(request).await.expect("encrypts").into_inner().ciphertext;
            assert_eq!(envelope::open(&ciphertext).expect("ours").header.algorithm, algorithm);
            let mut renamed = ciphertext.clone();
            let request = v1::DecryptRequest { ciphertext, ..Default::default() };
            let opened = rpc.crypto.decrypt(request).await.expect("decrypts").into_inner();
            assert_eq!(opened.plaintext, [7; 20]);
            for other in
                [1_u8, 2, 3, 4, 5, 16].into_iter().filter(|other| u16::from(*other) != algorithm.number())
            {
                renamed[7] = other;
                let request = v1::DecryptRequest { ciphertext: renamed.clone(), ..Default::default() };
                expected.refusal(rpc.crypto.decrypt(request).await, "CIPHERTEXT_INVALID", None);
            }
            for (data_key_spec, data_key) in CIPHERS {
                let request = v1::GenerateDataKeyRequest {
                    key: name.clone(),
                    data_key_spec: data_key_spec.into(),
                    ..Default::default()
                };
                let made = rpc.crypto.generate_data_key(request).await.expect("makes").into_inner();
                assert_eq!((made.data_key_spec(), made.plaintext.len()), (data_key_spec, data_key.key_len()));
                let request = v1::DecryptDataKeyRequest { ciphertext: made.ciphertext, ..Default::default() };
                let opened = rpc.crypto.decrypt_data_key(request).await.expect("opens").into_inner();
                assert_eq!((opened.data_key_spec(), &opened.plaintext), (data_key_spec, &made.plaintext));
            }
            let request = v1::GenerateDataKeyRequest { key: name.clone(), ..Default::default() };
            let made = rpc.crypto.generate_data_key(request).await.expect("makes").into_inner();
            assert_eq!(made.data_key_spec(), spec, "by default the key's own");
            for no_cipher in
                [v1::KeySpec::HmacSha256.into(), v1::KeySpec::HmacSm3.into(), 5, 8, 9, 12, 32, 64, 99]
            {
                let request = v1::GenerateDataKeyRequest {
                    key: name.clone(),
                    data_key_spec: no_cipher,
                    ..Default::default()
                };
                let answer = rpc.crypto.generate_data_key(request).await;
                expected.refusal(answer, "SPEC_UNSUPPORTED", Some("data_key_spec"));
            }
            expected.are_all_recorded().await;
        }
    }
}

/// The numbers that the registry plans are no specifications yet.
#[tokio::test]
async fn a_planned_number_makes_no_key() {
    let (mut rpc, mut expected) = (admin().await, Expected::default());
    for number in [0, 9, 11, 13, 15, 20, 31, 35, 39, 41, 45, 64, 66, 72, 74, 99, -1] {
        let request =
            v1::CreateKeyRequest { name: "spec-planned".into(), spec: number, ..Default::default() };
        expected.refusal(rpc.keys.create_key(request).await, "SPEC_UNSUPPORTED", Some("spec"));
    }
    expected.are_all_recorded().await;
}
