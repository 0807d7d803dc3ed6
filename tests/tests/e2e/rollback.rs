//! A log that is not the one that the second place saw.

use kms_tests::{Deployment, Options, audit};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

async fn wait_for_line(path: &Path, seen: usize) {
    let end = Instant::now() + Duration::from_secs(70);
    while line_count(path) == seen {
        assert!(Instant::now() < end, "no checkpoint reached the second place within its 60 seconds");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn line_count(path: &Path) -> usize {
    fs::read_to_string(path).unwrap_or_default().lines().count()
}

/// The database of an earlier moment under the second place of a later one: a restored copy, or a rollback.
#[tokio::test]
async fn a_node_does_not_open_over_a_log_that_was_rolled_back() {
    let deployment = Deployment::start(Options { sealed: true, ..Options::default() });
    let second_place = deployment.state("node/checkpoints.log");
    deployment.unseal();
    deployment.terminate();
    let early = fs::read(deployment.state("kms.db")).expect("reads");
    let seen = line_count(&second_place);

    deployment.start_again();
    deployment.unseal();
    deployment.kms("admin", &["key", "create", "later", "--spec", "sm4"]).done();
    wait_for_line(&second_place, seen).await;
    deployment.terminate();
    let late = fs::read(deployment.state("kms.db")).expect("reads");

    fs::write(deployment.state("kms.db"), early).expect("writes");
    deployment.start_again();
    for refused in deployment.two_custodians(&["unseal", "--wait", "30"]) {
        refused.ended_with(9).says("rolled back or replaced");
    }
    deployment.kms("admin", &["status"]).ended_with(2);
    deployment.terminate();

    // What was refused is forgotten once the right log is back.
    fs::write(deployment.state("kms.db"), late).expect("writes");
    deployment.start_again();
    deployment.unseal();
    deployment.kms("admin", &["key", "show", "later"]).done();
    audit::verify(&deployment);
}

/// Somebody rolls the log back while the node runs, and it grows beyond its old size: then the last checkpoint of the
/// second place is right, and an older one is not.
#[tokio::test]
async fn a_node_does_not_open_over_a_log_that_was_rolled_back_and_has_grown_since() {
    let deployment = Deployment::start(Options { sealed: true, ..Options::default() });
    let second_place = deployment.state("node/checkpoints.log");
    deployment.unseal();
    deployment.terminate();
    let early = fs::read(deployment.state("kms.db")).expect("reads");
    let early_lines = fs::read_to_string(&second_place).unwrap_or_default();

    let grow = async |name: &str| {
        deployment.start_again();
        let seen = line_count(&second_place);
        deployment.unseal();
        deployment.kms("admin", &["key", "create", name, "--spec", "sm4"]).done();
        wait_for_line(&second_place, seen).await;
        deployment.terminate();
        let lines = fs::read_to_string(&second_place).expect("reads");
        lines.strip_prefix(&early_lines).expect("lines are only added").to_owned()
    };
    let lost_lines = grow("lost").await;
    fs::write(deployment.state("kms.db"), early).expect("writes");
    fs::write(&second_place, &early_lines).expect("writes");
    let new_lines = grow("new").await;

    // Junk is not the reason: what two power cuts left of two lines is no checkpoint.
    fs::write(&second_place, format!("{early_lines}a5\n01\n{new_lines}a5\n01")).expect("writes");
    deployment.start_again();
    deployment.unseal();
    deployment.terminate();
    fs::write(&second_place, format!("{early_lines}{lost_lines}{new_lines}")).expect("writes");
    deployment.start_again();
    for refused in deployment.two_custodians(&["unseal", "--wait", "30"]) {
        refused.ended_with(9).says("rolled back or replaced");
    }
    deployment.kms("admin", &["status"]).ended_with(2);
}
