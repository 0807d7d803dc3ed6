//! Work that was interrupted half-way, or done by two at the same time, and is finished by whoever comes next.

use kms_proto::v1;
use kms_tests::{Deployment, Options, Refused, Rpc, audit};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::time::{Duration, Instant};

fn create(name: &str) -> v1::CreateKeyRequest {
    v1::CreateKeyRequest {
        name: name.into(),
        spec: v1::KeySpec::Sm4.into(),
        protection: v1::Protection::HsmResident.into(),
        idempotency_token: format!("create {name}"),
        ..Default::default()
    }
}

fn rotate(name: &str, token: &str) -> v1::RotateKeyRequest {
    v1::RotateKeyRequest { key: name.into(), idempotency_token: token.into() }
}

/// The row is there and the HSM is not: the caller hears of it, and its repetition finishes the work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_hsm_interrupted_is_finished_by_its_repetition() {
    let deployment = Deployment::start(Options::default());
    let mut admin = Rpc::connect(&deployment, "admin").await;
    admin.keys.create_key(create("lasting")).await.expect("a key");
    let (tokens, away) = (deployment.state("tokens"), deployment.state("tokens-away"));
    fs::rename(&tokens, &away).expect("the token goes");
    // The node has not noticed, so it begins both.
    let rotated = admin.keys.rotate_key(rotate("lasting", "once")).await;
    assert_eq!(Refused::from(rotated.expect_err("no HSM")).reason, "HSM_UNAVAILABLE");
    let created = admin.keys.create_key(create("new")).await;
    assert_eq!(Refused::from(created.expect_err("no HSM")).reason, "HSM_UNAVAILABLE");
    fs::rename(&away, &tokens).expect("the token comes back");

    let end = Instant::now() + Duration::from_secs(20);
    let rotated = loop {
        match admin.keys.rotate_key(rotate("lasting", "once")).await {
            Ok(rotated) => break rotated.into_inner(),
            Err(status) => assert!(Instant::now() < end, "the HSM is not used again: {status:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(rotated.current_version, 2, "an acknowledged rotation has happened");
    let states: Vec<_> = rotated.versions.iter().map(|version| version.state()).collect();
    assert_eq!(states, [v1::KeyState::Deactivated, v1::KeyState::Active]);
    let created = admin.keys.create_key(create("new")).await.expect("a key").into_inner();
    assert_eq!((created.state(), created.current_version), (v1::KeyState::Active, 1));
    let again = admin.keys.rotate_key(rotate("lasting", "once")).await.expect("answered").into_inner();
    assert_eq!(again.current_version, 2, "one token makes one version");
    audit::verify(&deployment);
}

/// A version whose creation was interrupted, and whose destruction was scheduled and cancelled, comes late: another one has
/// taken over, and stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_is_finished_late_does_not_take_over() {
    let deployment = Deployment::start(Options::default());
    let mut admin = Rpc::connect(&deployment, "admin").await;
    admin.keys.create_key(create("late")).await.expect("a key");
    let (tokens, away) = (deployment.state("tokens"), deployment.state("tokens-away"));
    fs::rename(&tokens, &away).expect("the token goes");
    let rotated = admin.keys.rotate_key(rotate("late", "second")).await;
    assert_eq!(Refused::from(rotated.expect_err("no HSM")).reason, "HSM_UNAVAILABLE");
    fs::rename(&away, &tokens).expect("the token comes back");
    let schedule = v1::ScheduleDestructionRequest { key: "late@2".into(), window_days: 7 };
    admin.keys.schedule_destruction(schedule).await.expect("schedules");
    let end = Instant::now() + Duration::from_secs(20);
    while let Err(status) = admin.keys.rotate_key(rotate("late", "third")).await {
        assert!(Instant::now() < end, "the HSM is not used again: {status:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let cancel = v1::CancelDestructionRequest { key: "late@2".into() };
    admin.keys.cancel_destruction(cancel).await.expect("cancels");
    deployment.restart();

    let mut admin = Rpc::connect(&deployment, "admin").await;
    let describe = v1::DescribeKeyRequest { key: "late".into() };
    let key = admin.keys.describe_key(describe).await.expect("describes").into_inner();
    let states: Vec<_> = key.versions.iter().map(|version| version.state()).collect();
    use v1::KeyState::{Active, Deactivated};
    assert_eq!((key.current_version, states), (3, vec![Deactivated, Deactivated, Active]));
    audit::verify(&deployment);
}

/// How long an administrator tries while others are faster.
const TRYING_MAX: Duration = Duration::from_secs(60);

/// Everybody who finds a rotation begun finishes it. Whoever was second must not hear of it as a fault.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn administrators_who_rotate_one_key_at_once_each_get_a_version() {
    const ADMINISTRATORS: u32 = 6;
    let deployment = Deployment::start(Options::default());
    let admin = Rpc::connect(&deployment, "admin").await;
    admin.keys.clone().create_key(create("busy")).await.expect("a key");
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..ADMINISTRATORS {
        let mut keys = admin.keys.clone();
        calls.spawn(async move {
            let end = Instant::now() + TRYING_MAX;
            while let Err(status) = keys.rotate_key(rotate("busy", &format!("rotation {number}"))).await {
                assert_eq!(Refused::from(status).reason, "CONTENTION");
                assert!(Instant::now() < end, "rotation {number} is not done within {TRYING_MAX:?}");
            }
        });
    }
    while let Some(ended) = calls.join_next().await {
        ended.expect("every rotation is done in the end");
    }
    let describe = v1::DescribeKeyRequest { key: "busy".into() };
    let key = admin.keys.clone().describe_key(describe).await.expect("the key").into_inner();
    assert_eq!(key.current_version, 1 + ADMINISTRATORS);
    audit::verify(&deployment);
}

/// A power cut can leave half a line in the second place of checkpoints. The node opens all the same, and goes on
/// writing checkpoints that the next start believes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_checkpoint_in_the_second_place_does_not_keep_the_node_sealed() {
    let deployment = Deployment::start(Options::default());
    let path = deployment.state("node/checkpoints.log");
    let whole_lines =
        || fs::read_to_string(&path).unwrap_or_default().lines().filter(|line| line.len() > 200).count();
    wait(|| whole_lines() == 1).await;
    for starts in 2..=3 {
        deployment.kill9();
        let text = fs::read_to_string(&path).expect("the second place");
        let last = text.lines().last().expect("a checkpoint").to_owned();
        let mut file = OpenOptions::new().append(true).open(&path).expect("the second place");
        file.write_all(&last.as_bytes()[..last.len() / 2]).expect("half a line");
        deployment.start_again();
        wait(|| whole_lines() == starts).await;
    }
    audit::verify(&deployment);
}

async fn wait(is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < end, "there is no checkpoint after the unseal");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
