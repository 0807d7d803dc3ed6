//! Deployments that are served with a configuration of the test's own: `dev` has no settings for it.

use kms_tests::{Deployment, Options};
use std::fs;
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Long enough for a slow machine, short enough for a person.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A deployment with an active resident key `resident`, served sealed by `kms-server run`. The configuration is the
/// one of `dev` after this change, and these lines behind it.
pub fn serve(change: impl FnOnce(&str) -> String, more: &str) -> Deployment {
    let deployment = Deployment::start(Options::default());
    let create = ["key", "create", "resident", "--spec", "sm4", "--protection", "resident"];
    deployment.kms("admin", &create).done();
    assert!(deployment.terminate().success());
    let text = change(&fs::read_to_string(deployment.state("kms.toml")).expect("the configuration"));
    let path = deployment.state("changed.toml");
    fs::write(&path, format!("{text}\n{more}")).expect("writes");
    deployment.run_with(&path);
    wait_until_served(&deployment);
    deployment
}

/// Waits until the server listens.
#[track_caller]
pub fn wait_until_served(deployment: &Deployment) {
    let end = Instant::now() + PATIENCE;
    while TcpStream::connect(deployment.address()).is_err() {
        let is_in_time = Instant::now() < end && deployment.is_running();
        assert!(is_in_time, "the server does not listen; it said\n{}", deployment.last_log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until something is so.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "{what}: not within {} s", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// From now on every encryption of the HSM takes so much longer.
pub fn slow_encryption(deployment: &Deployment, delay: Duration) {
    let rule = format!(
        "format = 1\n[[rule]]\nfunctions = [\"C_Encrypt\"]\naction = \"delay\"\ndelay_us = {}\n",
        delay.as_micros()
    );
    let draft = deployment.state("control.draft");
    fs::write(&draft, rule).expect("the control file is written");
    fs::rename(&draft, deployment.state("tokens/control.toml")).expect("it is put in place");
    // The document promises that calls which begin 5 ms later see it.
    std::thread::sleep(Duration::from_millis(10));
}
