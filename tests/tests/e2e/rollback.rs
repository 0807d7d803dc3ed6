//! A log that is not the one that the second place saw.

use kms_tests::{Deployment, Options, audit};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

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
    let end = Instant::now() + Duration::from_secs(70);
    while line_count(&second_place) == seen {
        assert!(Instant::now() < end, "no checkpoint reached the second place within its 60 seconds");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
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
