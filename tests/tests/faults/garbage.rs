//! One client that sends forged ciphertexts as fast as it can: everybody else is served, and nothing takes the HSM for
//! broken.

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
/// How many forged ciphertexts one client has under way at a time.
const FORGED_AT_A_TIME: usize = 48;
/// How often each of the others calls.
const PACE: Duration = Duration::from_millis(20);
/// How long one of the others waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Fewer would be no flood.
const FORGED_MIN: u32 = 1_000;

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
    flood(Options::default(), "sm4").await;
}

/// It answers a forged ciphertext with an error that a broken device gives too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_forged_ciphertexts_harms_nobody_else_on_softhsm() {
    let options = Options { module: Module::SoftHsm, suite: Suite::Intl, ..Options::default() };
    flood(options, "aes-256").await;
}

async fn flood(options: Options, spec: &str) {
    let module = format!("{:?}", options.module);
    let deployment = Arc::new(Deployment::start(options));
    for (name, protection) in [("resident", "resident"), ("wrapped", "wrapped")] {
        deployment.kms("admin", &["key", "create", name, "--spec", spec, "--protection", protection]).done();
    }
    let mut app = Rpc::connect(&deployment, "app").await;
    let genuine = encrypt(&mut app, "resident").await;
    let hsm_calls_before = Metrics::read(&deployment, "auditor").await.hsm_operations("open");

    let (is_over, forged_count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let mut flood = tokio::task::JoinSet::new();
    let attacker = Rpc::connect(&deployment, "app").await;
    for _ in 0..FORGED_AT_A_TIME {
        let (mut attacker, mut forged) = (attacker.clone(), genuine.clone());
        let (is_over, count) = (is_over.clone(), forged_count.clone());
        flood.spawn(async move {
            while !is_over.load(Ordering::Relaxed) {
                let number = count.fetch_add(1, Ordering::Relaxed);
                // The header stays, so that only the HSM can tell.
                let place = forged.len() - 4;
                forged[place..].copy_from_slice(&number.to_be_bytes());
                let request = v1::DecryptRequest { ciphertext: forged.clone(), ..Default::default() };
                let refused = attacker.crypto.decrypt(request).await.expect_err("it is forged");
                let is_refused = matches!(refused.code(), Code::InvalidArgument | Code::ResourceExhausted);
                assert!(is_refused, "{refused:?}");
            }
        });
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
    let metrics = Metrics::read(&deployment, "auditor").await;
    is_over.store(true, Ordering::Relaxed);
    while let Some(ended) = flood.join_next().await {
        ended.expect("every forged ciphertext was refused as what it is");
    }
    let forged = forged_count.load(Ordering::Relaxed);
    let asked = metrics.hsm_operations("open") - hsm_calls_before;
    eprintln!(
        "{module}: {} forged ciphertexts per second ({asked} asked the HSM); meanwhile {call_count} calls of others, \
         the slowest took {} ms",
        u64::from(forged) / FLOOD_TIME.as_secs(),
        slowest.as_millis()
    );
    assert!(forged > FORGED_MIN && asked > u64::from(FORGED_MIN), "{forged} forged, {asked} for the HSM");
    assert_eq!(metrics.value("kms_hsm_circuit_open"), 0);
    let log = deployment.log();
    assert!(!log.contains("self-test"), "nothing took the HSM for broken:\n{log}");
}
