//! The circuit breaker: the device's failures open it, nobody's garbage does, a self-test closes it.

use crate::double::{Hsm, Mood, eventually, open_garbage, options, soon, start, use_hsm};
use kms_hsm::{BreakerOptions, ErrorClass, Health, HsmError, Pool, PoolOptions};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(600);

fn breaking_options(probe_interval: Duration) -> PoolOptions {
    PoolOptions {
        breaker: BreakerOptions { failures: 3, probe_first: probe_interval, probe_interval },
        ..options()
    }
}

fn fail(pool: &Pool, times: usize) {
    for _ in 0..times {
        assert_eq!(pool.call("mac", soon(), use_hsm).unwrap_err().class(), ErrorClass::DeviceSick);
    }
}

fn is_open(pool: &Pool) -> bool {
    matches!(pool.health(), Health::CircuitOpen { .. })
}

#[test]
fn failures_in_a_row_open_it_and_refusals_say_when_to_come_back_without_a_call() {
    let hsm = Hsm::new();
    let pool = start(&hsm, breaking_options(LONG));
    hsm.set(Mood::SickForJobs);
    fail(&pool, 2);
    hsm.set(Mood::Works);
    pool.call("mac", soon(), use_hsm).unwrap();
    hsm.set(Mood::SickForJobs);
    fail(&pool, 2);
    assert!(!is_open(&pool), "a success was between them");
    fail(&pool, 1);
    assert!(is_open(&pool));
    // Whatever the keeper was asked to look at before is over.
    std::thread::sleep(Duration::from_millis(50));
    let calls = hsm.calls();
    let error = pool.call("mac", soon(), use_hsm).unwrap_err();
    let HsmError::CircuitOpen { probe_in } = error else { panic!("{error}") };
    assert!(probe_in <= LONG && probe_in > LONG / 2, "{probe_in:?}");
    assert!(!pool.take_random(&mut [0; 1]));
    assert_eq!(hsm.calls(), calls);
    assert!(is_open(&pool), "a self-test from before the last failure does not close it");
}

#[test]
fn only_a_self_test_that_passes_closes_it() {
    let hsm = Hsm::new();
    let pool = start(&hsm, breaking_options(Duration::from_millis(10)));
    hsm.set(Mood::FailsSelfTest);
    let _ = pool.call("mac", soon(), use_hsm);
    eventually("the open circuit", || is_open(&pool));
    let before = hsm.self_tests();
    eventually("a few self-tests", || hsm.self_tests() > before + 3);
    assert!(is_open(&pool));
    assert_eq!(pool.call("mac", soon(), use_hsm).unwrap_err().class(), ErrorClass::CircuitOpen);
    hsm.set(Mood::Works);
    eventually("the return", || pool.health() == Health::Healthy);
    pool.call("mac", soon(), use_hsm).unwrap();
}

#[test]
fn ten_thousand_garbage_ciphertexts_do_not_open_it() {
    let hsm = Hsm::new();
    let pool = start(&hsm, breaking_options(LONG));
    let calls = hsm.calls();
    for _ in 0..10_000 {
        let error = pool.call("open", soon(), open_garbage).unwrap_err();
        assert_eq!(error.class(), ErrorClass::CallersFault);
    }
    assert_eq!(pool.health(), Health::Healthy);
    assert_eq!(hsm.calls(), calls + 10_000, "nobody looked after the HSM because of it");
}

/// A module whose answer to a wrong tag is not in its profile.
#[test]
fn ten_thousand_garbage_ciphertexts_that_the_device_answers_with_an_error_do_not_open_it() {
    let hsm = Hsm::new();
    let pool = start(&hsm, breaking_options(LONG));
    hsm.set(Mood::SickForOpens);
    for _ in 0..10_000 {
        assert_eq!(pool.call("open", soon(), open_garbage).unwrap_err().class(), ErrorClass::DeviceSick);
    }
    eventually("a self-test", || hsm.self_tests() > 0);
    assert_eq!(pool.health(), Health::Healthy);
    assert_eq!(hsm.self_tests(), 1, "nor do they keep the device busy with self-tests");
    pool.call("mac", soon(), use_hsm).unwrap();
}

#[test]
fn a_failed_decryption_opens_it_when_the_self_test_fails_too() {
    let hsm = Hsm::new();
    let pool = start(&hsm, breaking_options(LONG));
    hsm.set(Mood::FailsSelfTest);
    assert_eq!(pool.call("open", soon(), open_garbage).unwrap_err().class(), ErrorClass::DeviceSick);
    eventually("the open circuit", || is_open(&pool));
}
