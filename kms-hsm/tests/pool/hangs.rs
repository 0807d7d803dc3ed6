//! A driver that does not come back.

use crate::double::{Hsm, Mood, eventually, options, soon, start, use_hsm};
use kms_hsm::{ErrorClass, FailureReason, Health, HsmSession, Pool, PoolOptions, Stopped};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(40);
const LONG: Duration = Duration::from_secs(600);

/// One worker, whose calls count as stuck after a short while, and at most one in its place.
fn hanging_options() -> PoolOptions {
    PoolOptions { hang_after: SHORT, stuck_threads_max: 1, ..options() }
}

fn submit(pool: &Pool, deadline: Instant) -> mpsc::Receiver<ErrorClass> {
    let (sender, replies) = mpsc::channel();
    pool.submit("mac", deadline, use_hsm, move |result| {
        sender.send(result.err().map_or(ErrorClass::CallersFault, |error| error.class())).unwrap()
    });
    replies
}

#[test]
fn every_caller_is_answered_at_its_deadline_although_the_driver_hangs() {
    let hsm = Hsm::new();
    let pool = start(&hsm, PoolOptions { hang_after: LONG, ..options() });
    hsm.set(Mood::Hangs);
    let begin = Instant::now();
    let in_the_driver = submit(&pool, begin + SHORT);
    let behind_it = submit(&pool, begin + 2 * SHORT);
    assert_eq!(in_the_driver.recv(), Ok(ErrorClass::NoAnswer));
    assert!(begin.elapsed() >= SHORT);
    assert_eq!(behind_it.recv(), Ok(ErrorClass::Deadline), "nothing was asked for it");
    assert!(begin.elapsed() < Duration::from_secs(10));
    hsm.set(Mood::Works);
    pool.call("mac", soon(), use_hsm).unwrap();
}

#[test]
fn an_impatient_caller_says_nothing_about_the_device() {
    let hsm = Hsm::new();
    let pool = start(&hsm, PoolOptions { hang_after: LONG, ..options() });
    hsm.set(Mood::Hangs);
    assert_eq!(submit(&pool, Instant::now() + SHORT).recv(), Ok(ErrorClass::NoAnswer));
    assert_eq!((pool.stuck_threads(), pool.health()), (0, Health::Healthy));
    hsm.set(Mood::Works);
}

#[test]
fn a_late_answer_reaches_nobody() {
    let hsm = Hsm::new();
    let pool = start(&hsm, options());
    hsm.set(Mood::Hangs);
    let replies = Arc::new(AtomicUsize::new(0));
    let (count, (sender, first)) = (replies.clone(), mpsc::channel());
    pool.submit("mac", Instant::now() + SHORT, use_hsm, move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        sender.send(()).unwrap();
    });
    first.recv().unwrap();
    hsm.set(Mood::Works);
    pool.call("mac", soon(), use_hsm).unwrap();
    assert_eq!(replies.load(Ordering::SeqCst), 1);
}

#[test]
fn a_stuck_worker_is_replaced_and_ends_when_its_call_comes_back() {
    let hsm = Hsm::new();
    let pool = start(&hsm, hanging_options());
    hsm.set(Mood::Hangs);
    assert_eq!(submit(&pool, Instant::now() + SHORT).recv(), Ok(ErrorClass::NoAnswer));
    eventually("giving the thread up", || pool.stuck_threads() == 1);
    // Keeper, the stuck worker and the one in its place.
    eventually("a worker in its place", || hsm.sessions_open.load(Ordering::SeqCst) == 3);
    let random = |session: &mut dyn HsmSession| session.random(&mut [0; 16]);
    pool.call("random", soon(), random).unwrap();

    hsm.set(Mood::Works);
    eventually("the end of the stuck thread", || hsm.sessions_open.load(Ordering::SeqCst) == 2);
    assert_eq!(pool.stuck_threads(), 0);
    pool.call("mac", soon(), use_hsm).unwrap();
}

#[test]
fn there_are_never_more_threads_than_the_bound_and_then_refusals_cost_no_call() {
    let hsm = Hsm::new();
    let pool = start(&hsm, hanging_options());
    hsm.set(Mood::Hangs);
    for stuck in 1..=2 {
        assert_eq!(submit(&pool, Instant::now() + SHORT).recv(), Ok(ErrorClass::NoAnswer));
        eventually("giving the thread up", || pool.stuck_threads() == stuck);
    }
    // The keeper has looked by now.
    std::thread::sleep(2 * SHORT);
    let calls = hsm.calls();
    let begin = Instant::now();
    assert_eq!(submit(&pool, begin + LONG).recv(), Ok(ErrorClass::NoAnswer));
    assert!(begin.elapsed() < Duration::from_secs(10), "refused at once");
    std::thread::sleep(2 * SHORT);
    assert_eq!((hsm.calls(), pool.stuck_threads()), (calls, 2));
    assert_eq!(hsm.sessions_open.load(Ordering::SeqCst), 3);

    hsm.set(Mood::Works);
    eventually("the return", || pool.call("mac", soon(), use_hsm).is_ok());
    eventually("one worker and the keeper", || hsm.sessions_open.load(Ordering::SeqCst) == 2);
}

#[test]
fn a_hang_counts_against_the_device_as_a_failure_does() {
    let hsm = Hsm::new();
    let mut options = PoolOptions { stuck_threads_max: 4, ..hanging_options() };
    options.breaker.failures = 2;
    options.breaker.probe_first = LONG;
    options.breaker.probe_interval = LONG;
    let pool = start(&hsm, options);
    hsm.set(Mood::Hangs);
    for _ in 0..2 {
        assert_eq!(pool.health(), Health::Healthy);
        assert_eq!(submit(&pool, Instant::now() + SHORT).recv(), Ok(ErrorClass::NoAnswer));
        let before = pool.stuck_threads();
        eventually("giving the thread up", || pool.stuck_threads() > before || before > 0);
    }
    eventually("the open circuit", || matches!(pool.health(), Health::CircuitOpen { .. }));
    hsm.set(Mood::Works);
}

#[test]
fn a_device_that_does_not_answer_the_keeper_either_is_away_and_given_up_after_the_grace() {
    let hsm = Hsm::new();
    let heartbeat = Duration::from_millis(10);
    let pool = start(&hsm, PoolOptions { heartbeat, relogin_grace: 4 * SHORT, ..hanging_options() });
    hsm.set(Mood::HangsForAll);
    eventually("the absence", || matches!(pool.health(), Health::Away { .. }));
    hsm.set(Mood::Works);
    eventually("the return", || pool.health() == Health::Healthy);
    assert_eq!(hsm.pins_forgotten.load(Ordering::SeqCst), 0);

    hsm.set(Mood::HangsForAll);
    let failed = Health::Failed { reason: FailureReason::StayedAway };
    eventually("giving up", || pool.health() == failed);
    eventually("wiping the PIN", || hsm.pins_forgotten.load(Ordering::SeqCst) > 0);
    hsm.set(Mood::Works);
}

#[test]
fn a_logout_that_hangs_does_not_keep_the_node_from_sealing() {
    let hsm = Hsm::new();
    let pool = start(&hsm, options());
    hsm.set(Mood::HangsInClose);
    assert_eq!(pool.stop(), Stopped::WithStuckThreads { count: 1 });
    assert!(hsm.pins_forgotten.load(Ordering::SeqCst) > 0, "the PIN is wiped before the token is asked");
    hsm.set(Mood::Works);
}
