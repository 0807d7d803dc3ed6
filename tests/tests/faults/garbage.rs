//! One client that sends forged ciphertexts, or garbage, as fast as it can: everybody else is served, and nothing takes the
//! HSM for broken. How fast that is depends on the machine, on which the client takes its share too, and is printed.

use crate::metrics::Metrics;
use kms_core::suite::Suite;
use kms_proto::v1;
use kms_tests::{Deployment, Module, Options, Rpc};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tonic::Code;

/// How long the flood lasts.
const FLOOD_TIME: Duration = Duration::from_secs(5);
/// Over how many connections one client floods.
const CONNECTION_COUNT: usize = 4;
/// How many calls it has under way on each.
const AT_A_TIME: usize = 16;
/// How many different ciphertexts it has ready.
const GARBAGE_COUNT: usize = 256;
/// How often each of the others calls.
const PACE: Duration = Duration::from_millis(20);
/// How long one of the others waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Fewer would be no flood.
const FLOOD_MIN: u32 = 1_000;

/// What the client floods with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flood {
    /// A genuine header, so that only the HSM can tell.
    Forged,
    /// Random bytes, which no header begins with.
    Garbage,
}

impl Flood {
    /// Ciphertexts that do not open.
    fn ciphertexts(self, genuine: &[u8]) -> Vec<Vec<u8>> {
        let ciphertext = |_| {
            let mut ciphertext = genuine.to_vec();
            let place = match self {
                Flood::Forged => genuine.len() - 4,
                Flood::Garbage => 0,
            };
            getrandom::fill(&mut ciphertext[place..]).expect("the system has randomness");
            ciphertext
        };
        (0..GARBAGE_COUNT).map(ciphertext).collect()
    }
}

fn patient<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(PATIENCE);
    request
}

async fn encrypt(rpc: &mut Rpc, key: &str) -> Vec<u8> {
    let request = v1::EncryptRequest { key: key.into(), plaintext: b"text".to_vec(), context: vec![] };
    let made = rpc.crypto.encrypt(patient(request)).await.expect("what others send harms nobody");
    made.into_inner().ciphertext
}

async fn decrypt(rpc: &mut Rpc, ciphertext: Vec<u8>) {
    let request = v1::DecryptRequest { ciphertext, ..Default::default() };
    let opened = rpc.crypto.decrypt(patient(request)).await.expect("what others send harms nobody");
    assert_eq!(opened.into_inner().plaintext, b"text");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_forged_ciphertexts_harms_nobody_else() {
    flood(Flood::Forged, Options::default(), "sm4").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_garbage_harms_nobody_else_and_costs_no_hsm_call() {
    flood(Flood::Garbage, Options::default(), "sm4").await;
}

/// It answers a forged ciphertext with an error that a broken device gives too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_forged_ciphertexts_harms_nobody_else_on_softhsm() {
    let options = Options { module: Module::SoftHsm, suite: Suite::Intl, ..Options::default() };
    flood(Flood::Forged, options, "aes-256").await;
}

async fn flood(of: Flood, options: Options, spec: &str) {
    let module = format!("{:?}", options.module);
    let deployment = Arc::new(Deployment::start(options));
    for (name, protection) in [("resident", "resident"), ("wrapped", "wrapped")] {
        deployment.kms("admin", &["key", "create", name, "--spec", spec, "--protection", protection]).done();
    }
    let mut app = Rpc::connect(&deployment, "app").await;
    let genuine = encrypt(&mut app, "resident").await;
    let hsm_calls_before = Metrics::read(&deployment, "auditor").await.hsm_operations("open");

    let (is_over, sent_count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let ciphertexts = Arc::new(of.ciphertexts(&genuine));
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..CONNECTION_COUNT {
        let attacker = Rpc::connect(&deployment, "app").await;
        for _ in 0..AT_A_TIME {
            let (mut attacker, ciphertexts) = (attacker.clone(), ciphertexts.clone());
            let (is_over, count) = (is_over.clone(), sent_count.clone());
            senders.spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    let number = count.fetch_add(1, Ordering::Relaxed) as usize;
                    let ciphertext = ciphertexts[number % ciphertexts.len()].clone();
                    let request = v1::DecryptRequest { ciphertext, ..Default::default() };
                    let refused = attacker.crypto.decrypt(request).await.expect_err("it does not open");
                    let is_refused =
                        matches!(refused.code(), Code::InvalidArgument | Code::ResourceExhausted);
                    assert!(is_refused, "{refused:?}");
                }
            });
        }
    }
    let start = Instant::now();
    let (mut call_count, mut slowest) = (0, Duration::ZERO);
    while start.elapsed() < FLOOD_TIME {
        for key in ["resident", "wrapped"] {
            let begin = Instant::now();
            let ciphertext = encrypt(&mut app, key).await;
            decrypt(&mut app, ciphertext).await;
            call_count += 2;
            slowest = slowest.max(begin.elapsed() / 2);
        }
        tokio::time::sleep(PACE).await;
    }
    let (sent, elapsed) = (sent_count.load(Ordering::Relaxed), start.elapsed());
    let metrics = Metrics::read(&deployment, "auditor").await;
    is_over.store(true, Ordering::Relaxed);
    while let Some(ended) = senders.join_next().await {
        ended.expect("every ciphertext was refused as what it is");
    }
    let asked = metrics.hsm_operations("open") - hsm_calls_before;
    eprintln!(
        "{module}, {of:?}: {:.0} ciphertexts per second ({asked} openings in the HSM, with those of others); meanwhile \
         {call_count} calls of others, the slowest took {} ms",
        f64::from(sent) / elapsed.as_secs_f64(),
        slowest.as_millis()
    );
    assert!(sent > FLOOD_MIN, "{sent} sent");
    match of {
        Flood::Forged => assert!(asked > u64::from(FLOOD_MIN), "{asked} for the HSM"),
        Flood::Garbage => assert!(asked <= call_count, "{asked} openings for {call_count} calls of others"),
    }
    assert_eq!(metrics.value("kms_hsm_circuit_open"), 0);
    let log = deployment.log();
    assert!(!log.contains("self-test"), "nothing took the HSM for broken:\n{log}");
}
