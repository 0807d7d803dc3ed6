//! Streams and batches of a server at work: slow readers, slow devices, a seal, an end, and silence.

use crate::configured::{PATIENCE, serve, slow_encryption};
use kms_client::{BatchAnswer, BatchItem, Client, KeyRef, Profile, Reason, context};
use kms_proto::v1::{self, batch_item::Item, batch_result::Result as Done};
use kms_tests::command::kill;
use kms_tests::{Deployment, Options, Refused, Rpc, audit};
use rustix::process::Signal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

fn encrypt(key: &str, len: usize) -> v1::BatchItem {
    let message = v1::EncryptRequest { key: key.into(), plaintext: vec![7; len], ..Default::default() };
    v1::BatchItem { item: Some(Item::Encrypt(message)) }
}

fn make_wrapped(deployment: &Deployment, name: &str) {
    let create = ["key", "create", name, "--spec", "sm4", "--protection", "wrapped"];
    deployment.kms("admin", &create).done();
}

/// The reason of an item's refusal; empty when it was done.
fn reason(result: Option<v1::BatchResult>) -> String {
    match result.and_then(|result| result.result) {
        Some(Done::Error(error)) => error.reason,
        Some(_) => String::new(),
        None => panic!("an item without a result"),
    }
}

/// A stream whose items are sent one by one.
struct Open {
    items: mpsc::Sender<v1::StreamItem>,
    results: Streaming<v1::StreamResult>,
    next: u64,
}

impl Open {
    async fn begin(rpc: &mut Rpc) -> Self {
        let (items, receiver) = mpsc::channel(1);
        let results = rpc.crypto.stream(ReceiverStream::new(receiver)).await.expect("begins").into_inner();
        Self { items, results, next: 0 }
    }

    /// The reason for which an item was refused; empty when it was done.
    async fn ask(&mut self, item: v1::BatchItem) -> String {
        self.next += 1;
        let item = v1::StreamItem { id: self.next, item: Some(item) };
        self.items.send(item).await.expect("the stream is open");
        let result = timeout(PATIENCE, self.results.message()).await.expect("no item hangs");
        let result = result.expect("the stream goes on").expect("an item has a result");
        assert_eq!(result.id, self.next);
        reason(result.result)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_items_have_their_results_though_the_reader_is_slow_and_the_last_comes_after_the_half_close()
 {
    const COUNT: u64 = 4000;
    let deployment = Deployment::start(Options::default());
    make_wrapped(&deployment, "many");
    deployment
        .kms("admin", &["key", "create", "resident", "--spec", "sm4", "--protection", "resident"])
        .done();
    let profile = Profile::load(&deployment.profile("app")).expect("the profile loads");
    let client = Client::builder(&profile).connect().await.expect("connects");
    let pulled = Arc::new(AtomicU64::new(0));
    let (counter, none) = (pulled.clone(), context([]).expect("empty"));
    let items = (0..COUNT).map(move |number| {
        counter.fetch_add(1, Ordering::Relaxed);
        let key = |name: &str| KeyRef::parse(name).expect("a name");
        match number % 100 {
            98 => BatchItem::encrypt(&key("resident"), &number.to_be_bytes(), &none),
            99 => BatchItem::encrypt(&key("nobody-made-this"), &number.to_be_bytes(), &none),
            // Long enough that what nobody takes does not fit into the transport's buffers.
            _ => BatchItem::encrypt(
                &key("many"),
                &[number.to_be_bytes().as_slice(), &[7; 8000]].concat(),
                &none,
            ),
        }
    });
    let mut results = client.stream(tokio_stream::iter(items)).await.expect("begins");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let ahead = pulled.load(Ordering::Relaxed);
    assert!((1..COUNT).contains(&ahead), "{ahead} items were taken from a reader who takes no result");
    let mut seen = vec![false; COUNT as usize];
    let mut taken = 0;
    while let Some(next) = results.next().await {
        let (place, result) = next.expect("the stream goes on");
        assert!(!std::mem::replace(&mut seen[place as usize], true), "{place} has two results");
        match (place % 100, result) {
            (99, Err(error)) => assert_eq!(error.reason(), Some(Reason::KeyNotFound)),
            (_, Ok(BatchAnswer::Ciphertext(made))) => assert_eq!(made.key_version.number(), 1),
            (_, other) => panic!("{place}: {other:?}"),
        }
        taken += 1;
        if taken % 50 == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    assert!(seen.iter().all(|seen| *seen), "an item has no result");
    let entries = audit::records_from(&deployment, 0).await;
    let count = |outcome: &str| {
        let of_items = entries.iter().filter(|entry| entry.record.event == "data.encrypt");
        of_items.filter(|entry| entry.record.outcome == outcome).count() as u64
    };
    assert_eq!((count("done"), count("refused")), (COUNT - COUNT / 100, COUNT / 100));
    audit::verify(&deployment);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_that_come_while_the_node_is_sealed_are_refused_one_by_one_and_the_stream_goes_on() {
    let deployment = Deployment::start(Options::default());
    make_wrapped(&deployment, "sealing");
    let mut rpc = Rpc::connect(&deployment, "app").await;
    let mut open = Open::begin(&mut rpc).await;
    assert_eq!(open.ask(encrypt("sealing", 9)).await, "");
    deployment.kms("admin", &["seal"]).done();
    for _ in 0..3 {
        assert_eq!(open.ask(encrypt("sealing", 9)).await, "SEALED");
    }
    // What begins now is refused as a whole, so that a client goes to another node.
    let batch = v1::BatchRequest { items: vec![encrypt("sealing", 9)] };
    assert_eq!(Refused::from(rpc.crypto.batch(batch).await.expect_err("sealed")).reason, "SEALED");
    let other = rpc.crypto.stream(tokio_stream::pending()).await.expect_err("sealed");
    assert_eq!(Refused::from(other).reason, "SEALED");
    tokio::task::block_in_place(|| deployment.unseal());
    deployment.kms("admin", &["status", "--wait", "10"]).done();
    assert_eq!(open.ask(encrypt("sealing", 9)).await, "");
    drop(open.items);
    let end = timeout(PATIENCE, open.results.message()).await.expect("it ends").expect("cleanly");
    assert_eq!(end, None);
    let entries = audit::records_from(&deployment, 0).await;
    let refused = |event: &str| {
        entries.iter().filter(|entry| entry.record.event == event && entry.is_refusal("SEALED")).count()
    };
    assert_eq!((refused("data.encrypt"), refused("crypto.batch")), (3, 2));
    audit::verify(&deployment);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seal_amid_a_flood_of_items_leaves_none_without_a_result() {
    let deployment = Deployment::start(Options::default());
    make_wrapped(&deployment, "flood");
    let mut rpc = Rpc::connect(&deployment, "app").await;
    let end = Instant::now() + Duration::from_secs(4);
    let items = std::iter::from_fn(move || {
        (Instant::now() < end).then(|| v1::StreamItem { id: 0, item: Some(encrypt("flood", 9)) })
    });
    let sent = Arc::new(AtomicU64::new(0));
    let counter = sent.clone();
    let items = items.inspect(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    let mut results = rpc.crypto.stream(tokio_stream::iter(items)).await.expect("begins").into_inner();
    let (mut done, mut sealed) = (0, 0);
    let mut count = async || {
        while let Some(result) =
            timeout(PATIENCE, results.message()).await.expect("no item hangs").expect("goes on")
        {
            match reason(result.result).as_str() {
                "" => done += 1,
                "SEALED" => sealed += 1,
                other => panic!("an item ends with {other}"),
            }
        }
        (done, sealed)
    };
    let sealing = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut admin = Rpc::connect(&deployment, "admin").await;
        admin.system.seal(v1::SealRequest {}).await.expect("seals");
    };
    let ((done, sealed), ()) = tokio::join!(count(), sealing);
    assert!(done > 0 && sealed > 0, "{done} {sealed}");
    assert_eq!(done + sealed, sent.load(Ordering::Relaxed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ends_gives_what_it_began_and_says_that_it_took_no_more() {
    let deployment = serve(str::to_owned, "");
    deployment.unseal();
    let mut rpc = Rpc::connect(&deployment, "app").await;
    let mut open = Open::begin(&mut rpc).await;
    slow_encryption(&deployment, Duration::from_secs(2));
    let item = v1::StreamItem { id: 5, item: Some(encrypt("resident", 9)) };
    open.items.send(item).await.expect("open");
    tokio::time::sleep(Duration::from_millis(500)).await;
    kill(deployment.server_id(), Signal::TERM);
    let result = timeout(PATIENCE, open.results.message()).await.expect("in time").expect("goes on");
    let result = result.expect("the item that was begun has its result");
    assert_eq!((result.id, reason(result.result)), (5, String::new()));
    let end =
        timeout(PATIENCE, open.results.message()).await.expect("in time").expect_err("more was possible");
    let end = Refused::from(end);
    assert_eq!(end.reason, "SEALED", "{end:?}");
    let ended = deployment.wait_until_ended(PATIENCE).expect("an open stream does not hold the server");
    assert!(ended.success() && !deployment.last_log().contains("cut off"), "{ended}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_stream_and_one_whose_results_nobody_takes_end_and_give_their_places_back() {
    let deployment = serve(str::to_owned, "[limits]\ncalls = 1\nstream_idle_seconds = 1\n");
    deployment.unseal();
    make_wrapped(&deployment, "idle");
    let mut rpc = Rpc::connect(&deployment, "app").await;
    let mut silent = Open::begin(&mut rpc).await;
    assert_eq!(silent.ask(encrypt("idle", 9)).await, "");
    let status = |mut rpc: Rpc| async move { rpc.system.get_status(v1::GetStatusRequest {}).await };
    let refused = Refused::from(status(rpc.clone()).await.expect_err("the stream has the only place"));
    assert_eq!(refused.reason, "OVERLOADED");
    let end = timeout(PATIENCE, silent.results.message()).await.expect("in time").expect_err("too silent");
    let end = Refused::from(end);
    assert_eq!(end.reason, "DEADLINE_EXCEEDED", "{end:?}");
    assert!(end.message.contains("limits.stream_idle_seconds"), "{end:?}");
    status(rpc.clone()).await.expect("the place is free");

    let endless = std::iter::repeat_with(|| v1::StreamItem { id: 0, item: Some(encrypt("idle", 60_000)) });
    let mut untaken = rpc.crypto.stream(tokio_stream::iter(endless)).await.expect("begins").into_inner();
    let begin = Instant::now();
    while status(rpc.clone()).await.is_err() {
        assert!(begin.elapsed() < PATIENCE, "a stream that nobody reads holds its place");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // What was made is still there to be taken, and then the reason.
    let end = loop {
        match timeout(PATIENCE, untaken.message()).await.expect("in time") {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a stream with items left ends as if it had none"),
            Err(status) => break Refused::from(status),
        }
    };
    assert_eq!(end.reason, "DEADLINE_EXCEEDED", "{end:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_item_of_a_batch_takes_its_own_time_and_not_that_of_the_others() {
    let deployment = serve(str::to_owned, "[limits]\ncall_seconds = 2\n");
    deployment.unseal();
    make_wrapped(&deployment, "quick");
    let mut rpc = Rpc::connect(&deployment, "app").await;
    slow_encryption(&deployment, Duration::from_secs(4));
    let items = vec![encrypt("quick", 9), encrypt("resident", 9), encrypt("quick", 9)];
    let begin = Instant::now();
    let results = rpc.crypto.batch(v1::BatchRequest { items }).await.expect("answers in time").into_inner();
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    let reasons: Vec<String> = results.results.into_iter().map(|result| reason(Some(result))).collect();
    assert_eq!(reasons, ["", "DEADLINE_EXCEEDED", ""]);
    let mut open = Open::begin(&mut rpc).await;
    assert_eq!(open.ask(encrypt("resident", 9)).await, "DEADLINE_EXCEEDED");
    assert_eq!(open.ask(encrypt("quick", 9)).await, "");
}
