//! The worker pool when the HSM, a job or a caller misbehaves: on a double that does as it is told.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use kms_core::id::HsmObjectId;
use kms_core::key::KeySpec;
use kms_core::secret::{Secret, SecretBytes};
use kms_core::suite::Suite;
use kms_hsm::{
    ConfirmedObject, ErrorClass, FailureReason, Health, HsmError, HsmPartition, HsmSession, ListedObject,
    MAC_LEN, ObjectKind, Pool, PoolOptions, Sealed, Stopped, TokenStatus,
};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

/// What the double answers.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Works,
    Gone,
    Sick,
    /// Sick towards jobs, well when the keeper asks.
    SickForJobs,
    RefusesPin,
}

/// What happened to the double.
struct Hsm {
    mood: Mutex<Mood>,
    calls: AtomicUsize,
    next_random: AtomicU8,
    sessions_open: AtomicUsize,
    pins_forgotten: AtomicUsize,
    closed_with_sessions: Mutex<Vec<usize>>,
}

struct Partition(Arc<Hsm>);
struct Session(Arc<Hsm>);

impl Hsm {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            mood: Mutex::new(Mood::Works),
            calls: AtomicUsize::new(0),
            next_random: AtomicU8::new(0),
            sessions_open: AtomicUsize::new(0),
            pins_forgotten: AtomicUsize::new(0),
            closed_with_sessions: Mutex::new(Vec::new()),
        })
    }

    fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn answer(&self, is_job: bool) -> Result<(), HsmError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        match *self.mood.lock().unwrap() {
            Mood::Works => Ok(()),
            Mood::Gone => Err(HsmError::TokenGone { source: None }),
            Mood::Sick => Err(HsmError::UnexpectedAnswer { what: "nonsense" }),
            Mood::SickForJobs if is_job => Err(HsmError::UnexpectedAnswer { what: "nonsense" }),
            Mood::SickForJobs => Ok(()),
            Mood::RefusesPin => Err(HsmError::PinRefused { source: None }),
        }
    }
}

impl HsmPartition for Partition {
    fn open_session(&self) -> Result<Box<dyn HsmSession>, HsmError> {
        self.0.answer(false)?;
        self.0.sessions_open.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(Session(self.0.clone())))
    }

    fn can(&self, _kind: ObjectKind) -> bool {
        true
    }

    fn forget_pin(&self) {
        self.0.pins_forgotten.fetch_add(1, Ordering::SeqCst);
    }

    fn close(&self) {
        let open = self.0.sessions_open.load(Ordering::SeqCst);
        self.0.closed_with_sessions.lock().unwrap().push(open);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.0.sessions_open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Jobs of these tests ask for a MAC; the keeper asks for the others.
impl HsmSession for Session {
    fn mac(&mut self, _: HsmObjectId, _: Suite, _: &[u8]) -> Result<SecretBytes<MAC_LEN>, HsmError> {
        self.0.answer(true).map(|()| SecretBytes::zeroed())
    }

    fn open(&mut self, _: HsmObjectId, _: KeySpec, _: &[u8], _: &Sealed) -> Result<Secret, HsmError> {
        self.0.answer(true)?;
        Err(HsmError::CiphertextInvalid)
    }

    fn random(&mut self, out: &mut [u8]) -> Result<(), HsmError> {
        self.0.answer(false)?;
        out.fill(self.0.next_random.fetch_add(1, Ordering::SeqCst));
        Ok(())
    }

    fn status(&mut self) -> Result<TokenStatus, HsmError> {
        self.0.answer(false)?;
        let text = String::new;
        Ok(TokenStatus {
            label: text(),
            serial: text(),
            manufacturer: text(),
            model: text(),
            firmware: text(),
            user_pin_count_low: false,
        })
    }

    fn seal(&mut self, _: HsmObjectId, _: KeySpec, _: &[u8], _: &[u8]) -> Result<Sealed, HsmError> {
        unreachable!("no job seals")
    }

    fn create(&mut self, _: HsmObjectId, _: ObjectKind, _: &str) -> Result<ConfirmedObject, HsmError> {
        unreachable!("no job creates")
    }

    fn confirm(&mut self, _: HsmObjectId, _: ObjectKind) -> Result<ConfirmedObject, HsmError> {
        unreachable!("no job confirms")
    }

    fn exists(&mut self, _: HsmObjectId) -> Result<bool, HsmError> {
        unreachable!("no job asks for objects")
    }

    fn destroy(&mut self, _: HsmObjectId) -> Result<(), HsmError> {
        unreachable!("no job destroys")
    }

    fn sign(&mut self, _: HsmObjectId, _: Suite, _: &[u8; 32]) -> Result<[u8; 64], HsmError> {
        unreachable!("no job signs")
    }

    fn objects(&mut self) -> Result<Vec<ListedObject>, HsmError> {
        unreachable!("no job asks for objects")
    }
}

/// One worker, a small stock, and a keeper that looks by itself only when a test says how often.
fn options() -> PoolOptions {
    PoolOptions {
        workers: 1,
        queue_len: 2,
        heartbeat: Duration::from_secs(600),
        relogin_grace: Duration::from_secs(600),
        random_len: 64,
        stop_wait_max: Duration::from_millis(200),
        ..PoolOptions::default()
    }
}

fn start(hsm: &Arc<Hsm>, options: PoolOptions) -> Pool {
    let random_len = options.random_len;
    let pool = Pool::start(Arc::new(Partition(hsm.clone())), options).unwrap();
    // Both threads have a session and the keeper has filled the stock: from here on it rests.
    eventually("the start", || hsm.sessions_open.load(Ordering::SeqCst) >= 2);
    eventually("the stock", || pool.take_random(&mut vec![0; random_len / 4]));
    pool
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = soon();
    while !is_so() {
        assert!(Instant::now() < end, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn use_hsm(session: &mut dyn HsmSession) -> Result<(), HsmError> {
    session.mac(HsmObjectId([1; 16]), Suite::Intl, b"").map(|_| ())
}

/// Keeps the only worker busy until it is let go.
struct Blocker {
    release: mpsc::Sender<()>,
    done: mpsc::Receiver<()>,
}

impl Blocker {
    fn block(pool: &Pool) -> Self {
        let (release, released) = mpsc::channel();
        let (started, has_started) = mpsc::channel();
        let (finished, done) = mpsc::channel();
        let work = move |_: &mut dyn HsmSession| {
            started.send(()).unwrap();
            // Ends also when the test forgets about it.
            let _ = released.recv();
            Ok(())
        };
        pool.submit("block", soon(), work, move |_| {
            let _ = finished.send(());
        });
        has_started.recv().unwrap();
        Self { release, done }
    }

    fn let_go(self) {
        self.release.send(()).unwrap();
        self.done.recv().unwrap();
    }
}

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
fn garbage_from_clients_trips_nothing() {
    let hsm = Hsm::new();
    let pool = start(&hsm, options());
    let calls = hsm.calls();
    for _ in 0..1_000 {
        let garbage = Sealed::parse(&[0; 12], vec![0; 16]).unwrap();
        let work = move |session: &mut dyn HsmSession| {
            session.open(HsmObjectId([1; 16]), KeySpec::Aes256, b"", &garbage)
        };
        assert_eq!(pool.call("open", soon(), work).unwrap_err().class(), ErrorClass::CallersFault);
    }
    assert_eq!(pool.health(), Health::Healthy);
    assert_eq!(hsm.calls(), calls + 1_000, "nobody looked after the HSM because of it");
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
