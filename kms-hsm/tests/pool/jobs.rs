//! Jobs, the keeper and the end of a pool.

use crate::double::{Blocker, Hsm, Mood, eventually, options, soon, start, use_hsm};
use kms_hsm::{ErrorClass, FailureReason, Health, HsmError, HsmSession, PoolOptions, Stopped};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

#[test]
fn a_full_queue_is_refused_at_once_and_not_for_long() {
    let hsm = Hsm::new();
    let pool = start(&hsm, options());
    let blocker = Blocker::block(&pool);
    let (sender, replies) = mpsc::channel();
    for _ in 0..3 {
        let sender = sender.clone();
        pool.submit("mac", soon(), use_hsm, move |result| {
            sender.send(result.map_err(|e| e.class())).unwrap()
        });
    }
    assert_eq!(replies.try_recv(), Ok(Err(ErrorClass::Busy)), "the third of two places");
    assert_eq!(pool.queue_len(), 2);
    blocker.let_go();
    assert_eq!([replies.recv().unwrap(), replies.recv().unwrap()], [Ok(()); 2]);
    pool.call("mac", soon(), use_hsm).unwrap();
}

#[test]
fn a_job_whose_deadline_passed_costs_no_hsm_call() {
    let hsm = Hsm::new();
    let pool = start(&hsm, options());
    let error = pool.call("mac", Instant::now(), use_hsm).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Deadline);

    let blocker = Blocker::block(&pool);
    let calls = hsm.calls();
    let (sender, replies) = mpsc::channel();
    let deadline = Instant::now() + Duration::from_millis(20);
    pool.submit("mac", deadline, use_hsm, move |result| sender.send(result.map_err(|e| e.class())).unwrap());
    std::thread::sleep(Duration::from_millis(30));
    blocker.let_go();
    assert_eq!(replies.recv(), Ok(Err(ErrorClass::Deadline)));
    assert_eq!(hsm.calls(), calls);
}

#[test]
fn a_caller_waits_no_longer_than_its_deadline() {
    let hsm = Hsm::new();
    let pool = start(&hsm, options());
    let blocker = Blocker::block(&pool);
    let start = Instant::now();
    let error = pool.call("mac", start + Duration::from_millis(20), use_hsm).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Deadline);
    assert!(start.elapsed() < Duration::from_secs(5));
    blocker.let_go();
}

#[test]
fn a_panic_ends_one_job_and_no_worker() {
    let hsm = Hsm::new();
    let pool = start(&hsm, options());
    let panics = |_: &mut dyn HsmSession| -> Result<(), HsmError> { panic!("scripted: in the work") };
    let error = pool.call("panics", soon(), panics).unwrap_err();
    assert!(matches!(error, HsmError::Panicked { operation: "panics" }), "{error}");
    pool.submit("mac", soon(), use_hsm, |_| panic!("scripted: in the reply"));
    pool.call("mac", soon(), use_hsm).unwrap();
    assert_eq!(pool.health(), Health::Healthy);
}

#[test]
fn an_hsm_that_goes_away_is_noticed_refused_and_welcomed_back() {
    let hsm = Hsm::new();
    let pool = start(&hsm, PoolOptions { heartbeat: Duration::from_millis(10), ..options() });
    hsm.set(Mood::Gone);
    // No job asked: an idle service has to notice too.
    eventually("the absence", || matches!(pool.health(), Health::Away { .. }));
    let error = pool.call("mac", soon(), use_hsm).unwrap_err();
    assert_eq!(error.class(), ErrorClass::TokenGone);
    assert!(!pool.take_random(&mut [0; 1]));
    hsm.set(Mood::Works);
    eventually("the return", || pool.health() == Health::Healthy);
    pool.call("mac", soon(), use_hsm).unwrap();
    assert_eq!(hsm.pins_forgotten.load(Ordering::SeqCst), 0);
}

#[test]
fn an_hsm_that_a_job_finds_gone_is_away_at_once() {
    let hsm = Hsm::new();
    let pool = start(&hsm, options());
    hsm.set(Mood::Gone);
    let error = pool.call("mac", soon(), use_hsm).unwrap_err();
    assert_eq!(error.class(), ErrorClass::TokenGone);
    assert!(matches!(pool.health(), Health::Away { .. }));
}

#[test]
fn an_hsm_that_stays_away_longer_than_the_grace_is_given_up_for_good() {
    let hsm = Hsm::new();
    let grace = Duration::from_millis(50);
    let pool =
        start(&hsm, PoolOptions { heartbeat: Duration::from_millis(10), relogin_grace: grace, ..options() });
    hsm.set(Mood::Gone);
    let failed = Health::Failed { reason: FailureReason::StayedAway };
    eventually("giving up", || pool.health() == failed);
    eventually("wiping the PIN", || hsm.pins_forgotten.load(Ordering::SeqCst) > 0);
    hsm.set(Mood::Works);
    let calls = hsm.calls();
    assert_eq!(pool.call("mac", soon(), use_hsm).unwrap_err().class(), ErrorClass::TokenGone);
    assert!(!pool.take_random(&mut [0; 1]));
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!((pool.health(), hsm.calls()), (failed, calls));
}

#[test]
fn a_refused_pin_ends_everything_at_once() {
    let hsm = Hsm::new();
    let pool = start(&hsm, options());
    hsm.set(Mood::RefusesPin);
    assert_eq!(pool.call("mac", soon(), use_hsm).unwrap_err().class(), ErrorClass::PinIncorrect);
    assert_eq!(pool.health(), Health::Failed { reason: FailureReason::PinIncorrect });
    eventually("wiping the PIN", || hsm.pins_forgotten.load(Ordering::SeqCst) > 0);
    let calls = hsm.calls();
    assert_eq!(pool.call("mac", soon(), use_hsm).unwrap_err().class(), ErrorClass::PinIncorrect);
    assert_eq!(hsm.calls(), calls);
}

#[test]
fn a_sick_answer_makes_the_keeper_look_and_only_a_sick_keeper_counts() {
    let hsm = Hsm::new();
    let pool = start(&hsm, options());
    hsm.set(Mood::SickForJobs);
    let calls = hsm.calls();
    assert_eq!(pool.call("mac", soon(), use_hsm).unwrap_err().class(), ErrorClass::DeviceSick);
    eventually("a look", || hsm.calls() > calls + 1);
    assert_eq!(pool.health(), Health::Healthy);
    hsm.set(Mood::Sick);
    let _ = pool.call("mac", soon(), use_hsm);
    eventually("the absence", || matches!(pool.health(), Health::Away { .. }));
    hsm.set(Mood::Works);
    eventually("the return", || pool.health() == Health::Healthy);
}

#[test]
fn stopping_closes_every_session_before_it_logs_out() {
    let hsm = Hsm::new();
    let pool = start(&hsm, PoolOptions { workers: 3, ..options() });
    pool.call("mac", soon(), use_hsm).unwrap();
    assert_eq!(pool.stop(), Stopped::Cleanly);
    assert_eq!(*hsm.closed_with_sessions.lock().unwrap(), [0]);
}

#[test]
fn stopping_does_not_wait_for_ever_for_a_driver_that_hangs() {
    let hsm = Hsm::new();
    let pool = start(&hsm, options());
    let blocker = Blocker::block(&pool);
    let (sender, replies) = mpsc::channel();
    pool.submit("mac", soon(), use_hsm, move |result| sender.send(result.map_err(|e| e.class())).unwrap());
    assert_eq!(pool.stop(), Stopped::WithStuckThreads { count: 1 });
    assert_eq!(hsm.closed_with_sessions.lock().unwrap().len(), 1, "logged out all the same");
    assert_eq!(replies.recv(), Ok(Err(ErrorClass::Stopped)), "the job behind it is answered");
    blocker.let_go();
}

#[test]
fn a_reply_may_drop_the_last_reference_to_the_pool() {
    let hsm = Hsm::new();
    let pool = Arc::new(start(&hsm, PoolOptions { stop_wait_max: Duration::from_secs(30), ..options() }));
    let held = pool.clone();
    let (sender, dropped) = mpsc::channel();
    let blocker = Blocker::block(&pool);
    pool.submit("mac", soon(), use_hsm, move |_| {
        drop(held);
        sender.send(()).unwrap();
    });
    drop(pool);
    blocker.let_go();
    dropped.recv_timeout(Duration::from_secs(10)).unwrap();
}
