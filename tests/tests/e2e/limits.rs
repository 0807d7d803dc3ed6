//! The limits of a listener, and the end of a server that is at work.

use crate::configured::{PATIENCE, serve, slow_encryption, wait_until};
use kms_proto::v1;
use kms_tests::command::kill;
use kms_tests::deployment::free_port;
use kms_tests::rpc::ClientCertificate;
use kms_tests::{Deployment, Refused, Rpc, audit};
use rustix::process::Signal;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// How long a slow call takes: long enough for everything that a test does meanwhile.
const SLOW: Duration = Duration::from_secs(4);
/// A refusal does not wait for anything.
const AT_ONCE: Duration = Duration::from_secs(3);

/// A call that is inside the HSM for [`SLOW`].
fn start_slow_call(rpc: &Rpc) -> JoinHandle<Result<v1::EncryptResponse, Status>> {
    let mut crypto = rpc.crypto.clone();
    tokio::spawn(async move {
        let request =
            v1::EncryptRequest { key: "resident".into(), plaintext: b"text".to_vec(), ..Default::default() };
        crypto.encrypt(request).await.map(tonic::Response::into_inner)
    })
}

async fn status(rpc: &Rpc) -> Result<v1::Status, Status> {
    let answer = rpc.system.clone().get_status(v1::GetStatusRequest {}).await;
    answer.map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_refuses_more_calls_at_a_time_than_configured_and_the_other_one_goes_on() {
    let applications = format!("127.0.0.1:{}", free_port());
    let deployment = serve(|text| with_line(text, "applications", &applications), "[limits]\ncalls = 2\n");
    deployment.unseal();
    let app = ClientCertificate::of(&deployment, "app");
    let app = Rpc::connect_to(&applications, &deployment, &app).await.expect("connects");
    let admin = Rpc::connect(&deployment, "admin").await;
    slow_encryption(&deployment, SLOW);
    let slow = [start_slow_call(&app), start_slow_call(&app)];
    // A question that came before them would take the place of one of them.
    tokio::time::sleep(Duration::from_millis(500)).await;

    let begin = Instant::now();
    let refused = loop {
        match status(&app).await {
            Ok(_) => assert!(begin.elapsed() < AT_ONCE, "a third call is served beside two"),
            Err(refused) => break refused,
        }
    };
    assert!(begin.elapsed() < AT_ONCE, "a refusal took {:?}", begin.elapsed());
    let retry = refused.get_details_retry_info().and_then(|info| info.retry_delay);
    assert_eq!(retry, Some(Duration::from_millis(100)));
    let refused = Refused::from(refused);
    assert_eq!((refused.reason.as_str(), refused.code), ("OVERLOADED", Code::ResourceExhausted));
    assert!(refused.message.contains("too many calls run on this listener"), "{refused:?}");
    status(&admin).await.expect("the administration has calls of its own");

    for call in slow {
        call.await.expect("the caller ends").expect("the calls that were first are served");
    }
    status(&app).await.expect("there is room again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_above_the_limit_waits_until_another_one_closes() {
    let deployment = serve(str::to_owned, "[limits]\nconnections = 2\n");
    let (first, second) = (Rpc::connect(&deployment, "app").await, Rpc::connect(&deployment, "admin").await);
    status(&first).await.expect("served");
    status(&second).await.expect("served");
    let auditor = ClientCertificate::of(&deployment, "auditor");
    let third = timeout(AT_ONCE, Rpc::connect_with(&deployment, &auditor)).await;
    assert!(third.is_err(), "a third connection beside two: {third:?}");
    status(&first).await.expect("those that are there are served");

    let third = Rpc::connect_with(&deployment, &auditor);
    let (third, ()) = tokio::join!(timeout(PATIENCE, third), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        drop(second);
    });
    let third = third.expect("it had its turn in time").expect("it connects");
    status(&third).await.expect("served");
}

/// Nobody is served any more: not on a connection that is there, and not on a new one.
async fn is_refused(deployment: &Deployment, what: &str, rpc: Option<&Rpc>) {
    let begin = Instant::now();
    match rpc {
        // The connection says it, or the next one that is tried instead: this is no answer of the service.
        Some(rpc) => {
            let refused = status(rpc).await.expect_err(what).code();
            assert!(matches!(refused, Code::Unavailable | Code::Cancelled), "{what}: {refused:?}");
        }
        None => {
            let admin = ClientCertificate::of(deployment, "admin");
            let connected = timeout(PATIENCE, Rpc::connect_with(deployment, &admin)).await;
            assert!(matches!(connected, Ok(Err(_))), "{what}: {connected:?}");
        }
    }
    assert!(begin.elapsed() < AT_ONCE, "{what} heard of it after {:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ends_answers_the_call_that_is_under_way_and_takes_no_new_one() {
    // Both places are taken until their calls end, so that one who comes later would wait in the system's queue.
    let deployment = serve(str::to_owned, "[limits]\nconnections = 2\n");
    deployment.unseal();
    let (first, second) = (Rpc::connect(&deployment, "app").await, Rpc::connect(&deployment, "app").await);
    slow_encryption(&deployment, SLOW);
    let (slow, other) = (start_slow_call(&first), start_slow_call(&second));
    tokio::time::sleep(Duration::from_millis(500)).await;
    kill(deployment.server_id(), Signal::TERM);
    wait_until("the server hears that it shall end", || {
        deployment.last_log().contains("ending: no new calls, waiting for running ones")
    });
    tokio::time::sleep(Duration::from_millis(200)).await;

    is_refused(&deployment, "a new connection", None).await;
    is_refused(&deployment, "a call on a busy connection", Some(&first)).await;
    assert!(!slow.is_finished() && !other.is_finished(), "the calls were under way all the while");
    let answered = slow.await.expect("the caller ends").expect("the call under way is answered");
    other.await.expect("the caller ends").expect("the other one too");
    let ended = deployment.wait_until_ended(PATIENCE).expect("then the server ends");
    assert!(ended.success(), "{ended}");
    let log = deployment.last_log();
    assert!(!log.contains("cut off"), "{log}");

    // It was recorded, and what it gave out opens.
    std::fs::remove_file(deployment.state("tokens/control.toml")).expect("the control file was there");
    deployment.start_again();
    let mut app = Rpc::connect(&deployment, "app").await;
    let decrypt = v1::DecryptRequest { ciphertext: answered.ciphertext, ..Default::default() };
    let opened = app.crypto.decrypt(decrypt).await.expect("it opens").into_inner();
    assert_eq!(opened.plaintext, b"text");
    let entries = audit::records_from(&deployment, 0).await;
    let place = |event: &str| entries.iter().rposition(|entry| entry.record.event == event);
    let (encrypted, sealed) = (place("data.encrypt"), place("service.seal"));
    assert!(encrypted.is_some() && encrypted < sealed, "{encrypted:?} {sealed:?}");
    audit::verify(&deployment);
}

/// The configuration with another value of a text key.
fn with_line(text: &str, key: &str, value: &str) -> String {
    let start = format!("{key} = ");
    let lines = text.lines().map(|line| match line.starts_with(&start) {
        true => format!("{start}{value:?}\n"),
        false => format!("{line}\n"),
    });
    lines.collect()
}
