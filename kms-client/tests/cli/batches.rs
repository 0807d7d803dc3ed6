//! Re-encryption, batches and streams, against a service.

use crate::online::setup;
use crate::support::service::{KEY_ID, refusal};
use kms_client::{BatchAnswer, BatchItem, Client, ClientError, KeyRef, Profile, Reason, context};
use serde_json::json;
use std::time::Duration;
use tokio_stream::StreamExt;
use tonic::Code;

const DEADLINE: Duration = Duration::from_secs(10);

fn key() -> KeyRef {
    KeyRef::parse("payroll").expect("a valid name")
}

fn encrypt(text: &[u8]) -> BatchItem {
    BatchItem::encrypt(&key(), text, &context([]).expect("empty"))
}

fn data_key() -> BatchItem {
    BatchItem::generate_data_key(&key(), None, &context([]).expect("empty"))
}

async fn connect(setup: &crate::online::Setup) -> Client {
    let profile = Profile::load(&setup.folder.path().join("profile.toml")).expect("the profile loads");
    Client::builder(&profile).deadline(DEADLINE).connect().await.expect("connects")
}

fn busy() -> tonic::Status {
    refusal(Code::ResourceExhausted, Reason::Overloaded, "too many calls")
}

#[test]
fn a_ciphertext_is_encrypted_again_from_file_to_file() {
    let setup = setup();
    setup.write("in", b"wrapped 0");
    let arguments = ["reencrypt", "--key", "new@2", "--context", "a=b", "--expected-key", "old", "in", "out"];
    let (code, out, err) = setup.kms(&arguments);
    assert_eq!((code, err.as_str()), (0, ""));
    let sentence =
        format!("encrypted again with key {KEY_ID}, version 2; it was under key {KEY_ID}, version 1\n");
    assert_eq!(out, sentence);
    assert_eq!(setup.read("out"), b"wrapped 0|a=b|old|new@2|a=b", "the context stays");
    let shown = setup.json(&["reencrypt", "--context", "a=b", "--new-context", "c=d", "in", "out"]);
    let expected = json!({ "key_id": KEY_ID, "key_version": 2, "old_key_id": KEY_ID, "old_key_version": 1 });
    assert_eq!(shown, expected);
    assert_eq!(setup.read("out"), b"wrapped 0|a=b|||c=d");
    let (code, out, _) = setup.kms(&["reencrypt", "--context", "a=b", "--without-new-context", "in", "-"]);
    assert_eq!((code, out.as_str()), (0, "wrapped 0|a=b|||"));
}

#[test]
fn what_cannot_be_encrypted_again_is_told_before_any_call_and_an_old_file_stays() {
    let setup = setup();
    setup.write("out", b"old");
    setup.write("in", b"KMSFILE and more");
    let (code, _, err) = setup.kms(&["reencrypt", "in", "out"]);
    assert_eq!(code, 4, "{err}");
    assert!(err.contains("decrypt it and encrypt it again") && err.contains("next: kms decrypt"), "{err}");
    assert_eq!(setup.kms(&["reencrypt", "--new-context", "a=b", "--without-new-context", "in", "out"]).0, 64);
    assert_eq!(setup.kms(&["reencrypt", "--key", "No Name", "in", "out"]).0, 3);
    assert_eq!(setup.kms(&["reencrypt", "missing", "out"]).0, 1);
    assert!(setup.service.script().calls.is_empty());
    setup.write("in", b"wrapped 0");
    setup.service.refuse([refusal(Code::InvalidArgument, Reason::CiphertextInvalid, "it does not open")]);
    assert_eq!(setup.kms(&["reencrypt", "in", "out"]).0, 4);
    assert_eq!(setup.read("out"), b"old");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_gives_typed_results_in_order_and_refusals_as_errors() {
    let setup = tokio::task::block_in_place(setup);
    let client = connect(&setup).await;
    // The whole is asked again, as every safe call.
    setup.service.refuse([busy()]);
    let items = [
        encrypt(b"abc"),
        BatchItem::sign(&key(), kms_client::SignedInput::Message(b"x"), &Default::default()),
        data_key(),
    ];
    let results = client.batch(items).await.expect("the second try succeeds");
    assert_eq!(setup.service.script().calls, ["batch", "batch", "encrypt", "generate_data_key"]);
    let [Ok(BatchAnswer::Ciphertext(first)), Err(second), Ok(BatchAnswer::DataKey(third))] =
        results.as_slice()
    else {
        panic!("{results:?}");
    };
    assert_eq!((first.bytes.as_slice(), third.plaintext.expose().len()), (b"cba".as_slice(), 32));
    assert_eq!((second.reason(), second.field()), (Some(Reason::KeyStateForbids), Some("key")));
    assert_eq!(second.retry_after(), Some(Duration::from_secs(2)));
    assert!(!format!("{results:?}").contains(&format!("{:?}", third.plaintext.expose())));
    tokio::task::block_in_place(|| drop(setup));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_gives_every_item_its_own_result_whatever_their_order() {
    let setup = tokio::task::block_in_place(setup);
    let client = connect(&setup).await;
    setup.service.refuse([busy()]);
    let items = tokio_stream::iter(0..1001_u32).map(|number| encrypt(&number.to_be_bytes()));
    let mut results = client.stream(items).await.expect("the second try begins it");
    let mut seen = vec![false; 1001];
    let mut is_in_order = true;
    let mut last = None;
    while let Some(next) = results.next().await {
        let (place, result) = next.expect("the stream goes on");
        let Ok(BatchAnswer::Ciphertext(made)) = result else { panic!("{result:?}") };
        let expected: Vec<u8> = (place as u32).to_be_bytes().into_iter().rev().collect();
        assert_eq!(made.bytes, expected);
        assert!(!std::mem::replace(&mut seen[place as usize], true), "{place} twice");
        is_in_order &= last.replace(place).is_none_or(|last| last < place);
    }
    assert!(seen.iter().all(|seen| *seen) && !is_in_order);
    tokio::task::block_in_place(|| drop(setup));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_or_falls_silent_is_an_error_and_then_over() {
    let setup = tokio::task::block_in_place(setup);
    let client = connect(&setup).await;
    setup.service.script().breaks_records_after = Some(4);
    let items = tokio_stream::iter(0..10).map(|_| data_key());
    let mut results = client.stream(items).await.expect("begins");
    for _ in 0..4 {
        results.next().await.expect("a result").expect("of an item").1.expect("a data key");
    }
    let broken = results.next().await.expect("an end is told").expect_err("of a stream that broke");
    assert_eq!(broken.reason(), Some(Reason::Sealed), "{broken}");
    assert!(results.next().await.is_none());

    setup.service.script().breaks_records_after = None;
    let profile = Profile::load(&setup.folder.path().join("profile.toml")).expect("the profile loads");
    let hurried =
        Client::builder(&profile).deadline(Duration::from_secs(1)).connect().await.expect("connects");
    let mut results =
        hurried.stream(tokio_stream::once(data_key()).chain(tokio_stream::pending())).await.expect("begins");
    // The service holds one result back until another item comes, which never does.
    let silent = results.next().await.expect("an end is told").expect_err("nothing came");
    assert!(matches!(silent, ClientError::DeadlinePassed { .. }), "{silent}");
    tokio::task::block_in_place(|| drop(setup));
}
