//! Batches: what is refused as a whole, and what one item alone is refused for.

use super::{Expected, admin, app, deployment, make_key};
use kms_proto::v1::{self, batch_item::Item, batch_result::Result as Done};
use kms_tests::audit;
use tonic::Code;

fn batch(items: Vec<Option<Item>>) -> v1::BatchRequest {
    v1::BatchRequest { items: items.into_iter().map(|item| v1::BatchItem { item }).collect() }
}

fn generate(key: &str) -> Option<Item> {
    Some(Item::GenerateDataKey(v1::GenerateDataKeyRequest { key: key.into(), ..Default::default() }))
}

#[tokio::test]
async fn a_batch_has_1_to_100_items() {
    make_key("batch-count", v1::Protection::HsmWrapped).await;
    let (mut rpc, mut expected) = (app().await, Expected::default());
    for count in [0, 101] {
        let request = batch(vec![generate("batch-count"); count]);
        expected.refusal(rpc.crypto.batch(request).await, "FIELD_INVALID", Some("items"));
    }
    for count in [1, 100] {
        let answer = rpc.crypto.batch(batch(vec![generate("batch-count"); count])).await.expect("allowed");
        let request_id =
            answer.metadata().get("x-request-id").expect("an id").to_str().expect("text").to_owned();
        let results = answer.into_inner().results;
        assert_eq!(results.len(), count);
        let mut plaintexts = std::collections::BTreeSet::new();
        for result in results {
            let Some(Done::GenerateDataKey(made)) = result.result else { panic!("{result:?}") };
            plaintexts.insert(made.plaintext);
        }
        assert_eq!(plaintexts.len(), count, "each item has a data key of its own");
        let entries = audit::records_from(deployment(), 0).await;
        let prefix = format!("{request_id}/");
        let ours: Vec<_> =
            entries.iter().filter(|entry| entry.record.request_id.starts_with(&prefix)).collect();
        assert_eq!(ours.len(), count, "one record each");
        assert!(
            ours.iter().all(|one| one.record.event == "data_key.generate" && one.record.outcome == "done")
        );
        let own = entries.iter().filter(|entry| entry.record.request_id == request_id).count();
        assert_eq!(own, 0, "the batch itself did nothing");
    }
    let mut admin = admin().await;
    expected.refusal(admin.crypto.batch(batch(vec![generate("batch-count")])).await, "NOT_PERMITTED", None);
    expected.are_all_recorded().await;
}

#[tokio::test]
async fn each_item_has_its_own_result_in_its_place_whatever_the_others_have() {
    make_key("batch-wrapped", v1::Protection::HsmWrapped).await;
    make_key("batch-resident", v1::Protection::HsmResident).await;
    for (name, spec) in [("batch-mac", v1::KeySpec::HmacSm3), ("batch-pair", v1::KeySpec::Sm2)] {
        let create = v1::CreateKeyRequest { name: name.into(), spec: spec.into(), ..Default::default() };
        admin().await.keys.create_key(create).await.expect("creates");
    }
    let mut rpc = app().await;
    let encrypt =
        |key: &str| v1::EncryptRequest { key: key.into(), plaintext: b"text".to_vec(), ..Default::default() };
    let sealed =
        rpc.crypto.encrypt(encrypt("batch-wrapped")).await.expect("encrypts").into_inner().ciphertext;
    let data_key = v1::GenerateDataKeyRequest { key: "batch-resident".into(), ..Default::default() };
    let data_key = rpc.crypto.generate_data_key(data_key).await.expect("generates").into_inner();
    let mac = v1::GenerateMacRequest { key: "batch-mac".into(), message: b"text".to_vec() };
    let made_mac = rpc.crypto.generate_mac(mac.clone()).await.expect("a MAC").into_inner().mac;
    let sign = v1::SignRequest { key: "batch-pair".into(), input: b"text".to_vec(), ..Default::default() };
    let signature = rpc.crypto.sign(sign.clone()).await.expect("signs").into_inner().signature;
    let verify = v1::VerifyRequest {
        key: "batch-pair".into(),
        input: b"text".to_vec(),
        signature: signature.clone(),
        ..Default::default()
    };
    let verify_mac =
        v1::VerifyMacRequest { key: "batch-mac".into(), message: b"text".to_vec(), mac: made_mac };
    let mut damaged = sealed.clone();
    damaged[60] ^= 1;
    let items = vec![
        Some(Item::Encrypt(encrypt("batch-resident"))),
        Some(Item::Encrypt(encrypt("nobody-made-this"))),
        Some(Item::Decrypt(v1::DecryptRequest { ciphertext: sealed.clone(), ..Default::default() })),
        Some(Item::Decrypt(v1::DecryptRequest { ciphertext: damaged, ..Default::default() })),
        generate("batch-wrapped"),
        generate("batch-mac"),
        Some(Item::DecryptDataKey(v1::DecryptDataKeyRequest {
            ciphertext: data_key.ciphertext,
            ..Default::default()
        })),
        None,
        Some(Item::ReEncrypt(v1::ReEncryptRequest {
            ciphertext: sealed,
            new_key: "batch-resident".into(),
            ..Default::default()
        })),
        Some(Item::GenerateMac(mac)),
        Some(Item::VerifyMac(verify_mac.clone())),
        Some(Item::VerifyMac(v1::VerifyMacRequest { message: b"other".to_vec(), ..verify_mac })),
        Some(Item::Sign(sign)),
        Some(Item::Verify(verify.clone())),
        Some(Item::Verify(v1::VerifyRequest { input: b"other".to_vec(), ..verify })),
        Some(Item::Encrypt(v1::EncryptRequest {
            plaintext: vec![7; 64 * 1024 + 1],
            ..encrypt("batch-wrapped")
        })),
    ];
    let answer = rpc.crypto.batch(batch(items)).await.expect("the batch is done");
    let request_id = answer.metadata().get("x-request-id").expect("an id").to_str().expect("text").to_owned();
    let results = answer.into_inner().results;
    let refused = |place: usize| match &results[place].result {
        Some(Done::Error(error)) => {
            assert_eq!(error.request_id, format!("{request_id}/{}", place + 1));
            assert!(!error.message.is_empty());
            (Code::from_i32(error.code), error.reason.as_str(), error.field.as_str())
        }
        other => panic!("item {place}: {other:?}"),
    };
    assert!(matches!(&results[0].result, Some(Done::Encrypt(made)) if !made.ciphertext.is_empty()));
    assert_eq!(refused(1), (Code::NotFound, "KEY_NOT_FOUND", ""));
    assert!(matches!(&results[2].result, Some(Done::Decrypt(opened)) if opened.plaintext == b"text"));
    assert_eq!(refused(3), (Code::InvalidArgument, "CIPHERTEXT_INVALID", ""));
    assert!(matches!(&results[4].result, Some(Done::GenerateDataKey(made)) if made.plaintext.len() == 16));
    assert_eq!(refused(5), (Code::FailedPrecondition, "KEY_USAGE_FORBIDS", "key"));
    assert!(
        matches!(&results[6].result, Some(Done::DecryptDataKey(made)) if made.plaintext == data_key.plaintext)
    );
    assert_eq!(refused(7), (Code::InvalidArgument, "FIELD_INVALID", "item"));
    assert!(matches!(&results[8].result, Some(Done::ReEncrypt(made)) if made.old_key_version == 1));
    assert!(matches!(&results[9].result, Some(Done::GenerateMac(made)) if made.mac.len() == 32));
    assert!(matches!(&results[10].result, Some(Done::VerifyMac(_))));
    assert_eq!(refused(11), (Code::InvalidArgument, "MAC_INVALID", ""));
    assert!(matches!(&results[12].result, Some(Done::Sign(made)) if !made.signature.is_empty()));
    assert!(matches!(&results[13].result, Some(Done::Verify(_))));
    assert_eq!(refused(14), (Code::InvalidArgument, "KEY_SIGNATURE_INVALID", ""));
    assert_eq!(refused(15), (Code::InvalidArgument, "FIELD_INVALID", "plaintext"));
    assert_eq!(results.len(), 16);

    // Each is recorded under its own id, with its own event and end.
    let entries = audit::records_from(deployment(), 0).await;
    for (place, result) in results.iter().enumerate() {
        let id = format!("{request_id}/{}", place + 1);
        let found: Vec<_> = entries.iter().filter(|entry| entry.record.request_id == id).collect();
        let [entry] = found.as_slice() else { panic!("{} records of item {place}", found.len()) };
        match &result.result {
            Some(Done::Error(error)) => {
                assert!(entry.is_refusal(&error.reason), "{entry:?}");
                assert_eq!(entry.detail("field").unwrap_or_default(), error.field);
            }
            _ => assert_eq!(entry.record.outcome, "done"),
        }
    }
    audit::verify(deployment());
}

#[tokio::test]
async fn the_answer_to_the_largest_batch_is_not_too_long() {
    make_key("batch-large", v1::Protection::HsmWrapped).await;
    let mut rpc = app().await;
    // Just under 256 KiB together: each answer is longer than its item.
    let item = |len| {
        let plaintext = vec![7; len];
        Some(Item::Encrypt(v1::EncryptRequest { key: "batch-large".into(), plaintext, ..Default::default() }))
    };
    let results = rpc.crypto.batch(batch(vec![item(2590); 100])).await.expect("fits").into_inner().results;
    assert!(results.iter().all(|result| matches!(result.result, Some(Done::Encrypt(_)))));
    let refused =
        rpc.crypto.batch(batch(vec![item(2640); 100])).await.expect_err("above limits.message_bytes");
    assert_eq!(refused.code(), Code::OutOfRange);
}
