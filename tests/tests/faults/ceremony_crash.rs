//! Power cuts in the middle of a ceremony, and a worker that dies in the HSM's library: nothing half-way leaves the node, and
//! the next ceremony succeeds.

use crate::crash::{KILLED, step_names};
use crate::token::pkcs11_tool;
use kms_tests::{Deployment, Finished, Options, PinWatch, audit};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

/// More calls of `C_Sign` than one worker makes.
const SIGN_CALLS_MAX: u32 = 200;
/// Each of so many of them is tried.
const SIGN_CALLS_STEP: u32 = 9;

/// The steps of one kind of ceremony that the server knows.
fn steps_of(kind: &str) -> Vec<String> {
    let steps: Vec<String> = step_names().into_iter().filter(|step| step.starts_with(kind)).collect();
    assert!(!steps.is_empty(), "{kind} has steps");
    steps
}

/// Two custodians sign the same statement with the core key. What is signed stands in `name.signature` afterwards.
fn core_sign(deployment: &Deployment, name: &str) -> [Finished; 2] {
    fs::write(deployment.folder().join("statement.txt"), "a statement").expect("it is written");
    let started = ["custodian-1", "custodian-2"].map(|custodian| {
        let out = format!("{name}-{custodian}.signature");
        let command = ["core", "sign", "statement.txt", "--out", &out, "--wait", "60"];
        deployment.start_ceremony(&deployment.as_custodian(&command, custodian))
    });
    started.map(kms_tests::Started::finish)
}

fn has_signature(deployment: &Deployment, name: &str) -> bool {
    ["custodian-1", "custodian-2"]
        .iter()
        .any(|custodian| deployment.folder().join(format!("{name}-{custodian}.signature")).exists())
}

async fn count_of_signatures(deployment: &Deployment) -> usize {
    let entries = audit::records_from(deployment, 0).await;
    let is_signature = |entry: &&audit::LogEntry| {
        entry.record.event == "ceremony.core-sign" && entry.record.outcome == "done"
    };
    entries.iter().filter(is_signature).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_start_that_is_killed_at_any_step_is_followed_by_one_that_succeeds() {
    let deployment = Deployment::start(Options::default());
    deployment.terminate();
    let pins = PinWatch::of(&deployment);
    for step in steps_of("service-start.") {
        let armed = [("KMS_CRASH_AT".into(), step.clone().into())];
        let said = deployment.try_start_with(&armed).expect_err("it is killed before it is ready");
        assert!(said.contains(&format!("crash test: killed at {step}")), "{step}: the server said\n{said}");
        pins.no_attempt_was_spent();
        deployment.start_again();
        audit::verify(&deployment);
        deployment.kill9();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_core_sign_that_is_killed_at_any_step_hands_out_nothing_and_can_be_held_again() {
    let deployment = Deployment::start(Options::default());
    deployment.terminate();
    let (mut made, steps) = (0, steps_of("core-sign."));
    for step in &steps {
        let armed = [("KMS_CRASH_AT".into(), step.into())];
        deployment.try_start_with(&armed).expect("a service start does not reach it");
        for finished in core_sign(&deployment, step) {
            assert_ne!(finished.code, 0, "{step}: the node was killed: {}", finished.stdout);
        }
        let ended = deployment.wait_until_ended(Duration::from_secs(5)).expect("the server is killed");
        assert_eq!(ended.signal(), Some(KILLED), "{step}: {}", deployment.last_log());
        assert!(deployment.last_log().contains(&format!("crash test: killed at {step}")));
        assert!(!has_signature(&deployment, step), "{step}: nobody has a signature");

        deployment.start_again();
        // A signature that nobody received may be in the log: the other order could hand out one that nobody can account for.
        let seen = count_of_signatures(&deployment).await;
        let is_recorded = step == "core-sign.recorded";
        assert_eq!(seen, made + usize::from(is_recorded), "{step}: it is recorded, or it never was");
        let again = format!("{step}-again");
        for finished in core_sign(&deployment, &again) {
            finished.done();
        }
        assert!(has_signature(&deployment, &again));
        made = count_of_signatures(&deployment).await;
        assert_eq!(made, seen + 1, "{step}: one signature is one record");
        audit::verify(&deployment);
        deployment.terminate();
    }
}

/// The slot of the core token.
fn core_slot(deployment: &Deployment) -> u64 {
    let listed = pkcs11_tool(deployment, &["--list-token-slots"]).done();
    let label = &deployment.bundle().core.label;
    let slot = listed.split("\nSlot ").find(|slot| slot.contains(label.as_str())).expect("the core token");
    let (_, number) = slot.split_once("(0x").expect("a slot has a number");
    let (number, _) = number.split_once(')').expect("in parentheses");
    u64::from_str_radix(number, 16).expect("which is hexadecimal")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_in_the_hsm_hands_out_nothing_and_the_next_one_signs() {
    let deployment = Deployment::start(Options::default());
    let (slot, server) = (core_slot(&deployment), deployment.server_id());
    let control = deployment.state("tokens/control.toml");
    let dies_in = |name: &str, function: &str, call: u32, moment: &str| {
        let rule = format!(
            "format = 1\n[[rule]]\nfunctions = [\"{function}\"]\nslot = {slot}\ncalls = [{call}]\n\
             action = \"crash\"\nmoment = \"{moment}\"\n"
        );
        let draft = deployment.state("control.draft");
        fs::write(&draft, rule).expect("the control file is written");
        fs::rename(&draft, &control).expect("it is put in place");
        let finished = core_sign(&deployment, name);
        fs::remove_file(&control).expect("it was there");
        let [first, second] = finished.map(|finished| {
            assert!(finished.code == 0 || finished.stderr.contains("CEREMONY_FAILED"), "{}", finished.stderr);
            finished.code != 0
        });
        assert_eq!(first, second, "{name}: both custodians hear the same");
        assert_eq!(has_signature(&deployment, name), !first, "{name}");
        first
    };
    let (mut death_count, mut success_count) = (0, 0);
    for moment in ["before", "after"] {
        assert!(dies_in(&format!("login-{moment}"), "C_Login", 1, moment), "there is a login to die in");
        death_count += 1;
    }
    // Its self-test signs too, and of that some calls will do; the last call is the one that signs the statement.
    for moment in ["before", "after"] {
        let dies = |call: u32| dies_in(&format!("sign-{moment}-{call}"), "C_Sign", call, moment);
        let far = (1..SIGN_CALLS_MAX).step_by(SIGN_CALLS_STEP as usize).take_while(|call| dies(*call));
        let last_far = far.last().expect("there is a signature to die in");
        let near = (last_far + 1..last_far + SIGN_CALLS_STEP).take_while(|call| dies(*call)).count() as u32;
        let count = last_far + near;
        assert!(count < SIGN_CALLS_MAX - SIGN_CALLS_STEP, "{count} calls of C_Sign");
        eprintln!("a worker died {moment} calls of C_Sign, of which there are {count}");
        death_count += (last_far / SIGN_CALLS_STEP + 1 + near) as usize;
        // The first far call behind the last one, and the first near one where that is another, succeeded.
        success_count += if near + 1 < SIGN_CALLS_STEP { 2 } else { 1 };
    }
    assert!(deployment.is_running() && deployment.server_id() == server, "the server is another process");
    let entries = audit::records_from(&deployment, 0).await;
    let failed = entries.iter().filter(|entry| {
        entry.record.event == "ceremony.core-sign"
            && entry.record.reason.as_deref() == Some("CEREMONY_FAILED")
    });
    assert_eq!(failed.count(), death_count, "every failed ceremony is recorded");
    assert_eq!(count_of_signatures(&deployment).await, success_count, "and each that succeeded");
    audit::verify(&deployment);
}
