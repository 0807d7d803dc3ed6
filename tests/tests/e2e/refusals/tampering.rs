//! Changed ciphertexts: one reason for all of them, and no harm to the service.

use super::{Expected, app, deployment, make_key, pair};
use kms_proto::v1;
use kms_tests::Rpc;

async fn is_refused(rpc: &mut Rpc, ciphertext: Vec<u8>, expected: &mut Expected) {
    let context = vec![pair("file", "a")];
    let request = v1::DecryptRequest { ciphertext, context, expected_key: String::new() };
    expected.refusal(rpc.crypto.decrypt(request).await, "CIPHERTEXT_INVALID", None);
}

#[tokio::test]
async fn a_ciphertext_with_any_changed_byte_or_length_is_refused() {
    for (name, protection) in
        [("tamper-resident", v1::Protection::HsmResident), ("tamper-wrapped", v1::Protection::HsmWrapped)]
    {
        make_key(name, protection).await;
        let (mut rpc, mut expected) = (app().await, Expected::default());
        let context = vec![pair("file", "a")];
        let request =
            v1::EncryptRequest { key: name.into(), plaintext: b"small".to_vec(), context: context.clone() };
        let good = rpc.crypto.encrypt(request).await.expect("encrypts").into_inner().ciphertext;
        for place in 0..good.len() {
            let mut changed = good.clone();
            changed[place] ^= 1 << (place % 8);
            is_refused(&mut rpc, changed, &mut expected).await;
        }
        for len in 0..good.len() {
            is_refused(&mut rpc, good[..len].to_vec(), &mut expected).await;
        }
        for more in [vec![0], vec![0xff; 16], good.clone()] {
            is_refused(&mut rpc, [good.clone(), more].concat(), &mut expected).await;
        }
        let request = v1::DecryptRequest { ciphertext: good, context, expected_key: String::new() };
        let decrypted = rpc.crypto.decrypt(request).await.expect("the original opens").into_inner();
        assert_eq!(decrypted.plaintext, b"small");
        expected.are_all_recorded().await;
    }
    deployment().kms("admin", &["status"]).done();
}

#[tokio::test]
async fn a_ciphertext_that_names_another_key_of_the_same_kind_is_refused() {
    let (first, second) = ("moved-first", "moved-second");
    make_key(first, v1::Protection::HsmWrapped).await;
    make_key(second, v1::Protection::HsmWrapped).await;
    let (mut rpc, mut expected) = (app().await, Expected::default());
    let context = vec![pair("file", "a")];
    let mut ciphertexts = Vec::new();
    for key in [first, second] {
        let request =
            v1::EncryptRequest { key: key.into(), plaintext: b"moved".to_vec(), context: context.clone() };
        ciphertexts.push(rpc.crypto.encrypt(request).await.expect("encrypts").into_inner());
    }
    // The key id stands in the header as its 16 bytes.
    let id =
        |answer: &v1::EncryptResponse| kms_core::id::KeyId::parse(&answer.key_id).expect("an id").0.to_vec();
    let (from, to) = (id(&ciphertexts[0]), id(&ciphertexts[1]));
    let bytes = &ciphertexts[0].ciphertext;
    let place = bytes.windows(16).position(|window| window == from).expect("the header names the key");
    let moved = [&bytes[..place], &to, &bytes[place + 16..]].concat();
    is_refused(&mut rpc, moved, &mut expected).await;
    expected.are_all_recorded().await;
}
