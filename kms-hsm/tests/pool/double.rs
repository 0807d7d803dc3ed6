//! An HSM that does as it is told.

use kms_core::id::HsmObjectId;
use kms_core::mac::MacAlgorithm;
use kms_core::pair::{EncryptionAlgorithm, PairPublicKey, ToSign};
use kms_core::secret::Secret;
use kms_core::suite::{AeadAlgorithm, Suite};
use kms_hsm::{
    ConfirmedObject, HsmError, HsmPartition, HsmSession, ListedObject, ObjectKind, Pool, PoolOptions, Sealed,
    TokenStatus,
};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::{Duration, Instant};

/// What the double answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mood {
    Works,
    Gone,
    Sick,
    /// Sick towards jobs, well when the keeper asks.
    SickForJobs,
    /// As before, and its self-test does not pass either.
    FailsSelfTest,
    /// Answers every decryption with an error of the device.
    SickForOpens,
    /// Does not answer jobs.
    Hangs,
    /// Does not answer anybody.
    HangsForAll,
    /// Answers everything but the logout.
    HangsInClose,
    RefusesPin,
}

/// What happened to the double.
pub struct Hsm {
    pub mood: Mutex<Mood>,
    changed: Condvar,
    pub calls: AtomicUsize,
    pub self_tests: AtomicUsize,
    pub next_random: AtomicU8,
    pub sessions_open: AtomicUsize,
    pub pins_forgotten: AtomicUsize,
    pub closed_with_sessions: Mutex<Vec<usize>>,
}

pub struct Partition(Arc<Hsm>);
pub struct Session(Arc<Hsm>);

impl Hsm {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            mood: Mutex::new(Mood::Works),
            changed: Condvar::new(),
            calls: AtomicUsize::new(0),
            self_tests: AtomicUsize::new(0),
            next_random: AtomicU8::new(0),
            sessions_open: AtomicUsize::new(0),
            pins_forgotten: AtomicUsize::new(0),
            closed_with_sessions: Mutex::new(Vec::new()),
        })
    }

    pub fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
        self.changed.notify_all();
    }

    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    pub fn self_tests(&self) -> usize {
        self.self_tests.load(Ordering::SeqCst)
    }

    /// Waits while it is in one of these moods.
    fn hang(&self, moods: &[Mood]) -> Mood {
        *self.changed.wait_while(self.mood.lock().unwrap(), |mood| moods.contains(mood)).unwrap()
    }

    fn answer(&self, is_job: bool) -> Result<(), HsmError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let moods: &[Mood] = if is_job { &[Mood::Hangs, Mood::HangsForAll] } else { &[Mood::HangsForAll] };
        match self.hang(moods) {
            Mood::Works | Mood::SickForOpens | Mood::Hangs | Mood::HangsForAll | Mood::HangsInClose => Ok(()),
            Mood::Gone => Err(HsmError::TokenGone { source: None }),
            Mood::Sick => Err(HsmError::UnexpectedAnswer { what: "nonsense" }),
            Mood::SickForJobs | Mood::FailsSelfTest if is_job => {
                Err(HsmError::UnexpectedAnswer { what: "nonsense" })
            }
            Mood::SickForJobs | Mood::FailsSelfTest => Ok(()),
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

    fn takes_keys(&self) -> bool {
        false
    }

    fn forget_pin(&self) {
        self.0.pins_forgotten.fetch_add(1, Ordering::SeqCst);
    }

    fn close(&self) {
        self.0.hang(&[Mood::HangsInClose]);
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
    fn mac(&mut self, _: HsmObjectId, _: MacAlgorithm, _: &[u8]) -> Result<Secret, HsmError> {
        self.0.answer(true).map(|()| Secret::new(vec![0; 32]))
    }

    fn open(&mut self, _: HsmObjectId, _: AeadAlgorithm, _: &[u8], _: &Sealed) -> Result<Secret, HsmError> {
        self.0.answer(true)?;
        match *self.0.mood.lock().unwrap() {
            Mood::SickForOpens => Err(HsmError::UnexpectedAnswer { what: "nonsense" }),
            _ => Err(HsmError::CiphertextInvalid),
        }
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

    fn seal(&mut self, _: HsmObjectId, _: AeadAlgorithm, _: &[u8], _: &[u8]) -> Result<Sealed, HsmError> {
        unreachable!("no job seals")
    }

    fn create(&mut self, _: HsmObjectId, _: ObjectKind, _: &str) -> Result<ConfirmedObject, HsmError> {
        unreachable!("no job creates")
    }

    fn import(
        &mut self,
        _: HsmObjectId,
        _: ObjectKind,
        _: &str,
        _: &[u8],
    ) -> Result<ConfirmedObject, HsmError> {
        unreachable!("no job imports")
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

    fn sign_with(&mut self, _: HsmObjectId, _: &PairPublicKey, _: &ToSign) -> Result<Vec<u8>, HsmError> {
        unreachable!("no job signs")
    }

    fn decrypt_with(
        &mut self,
        _: HsmObjectId,
        _: &PairPublicKey,
        _: EncryptionAlgorithm,
        _: &[u8],
    ) -> Result<Secret, HsmError> {
        unreachable!("no job decrypts")
    }

    fn self_test(&mut self) -> Result<(), HsmError> {
        self.0.self_tests.fetch_add(1, Ordering::SeqCst);
        self.0.answer(false)?;
        if *self.0.mood.lock().unwrap() == Mood::FailsSelfTest {
            return Err(HsmError::UnexpectedAnswer { what: "a wrong known answer" });
        }
        Ok(())
    }

    fn objects(&mut self) -> Result<Vec<ListedObject>, HsmError> {
        unreachable!("no job asks for objects")
    }
}

/// One worker, a small stock, and a keeper that looks by itself only when a test says how often.
pub fn options() -> PoolOptions {
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

pub fn start(hsm: &Arc<Hsm>, options: PoolOptions) -> Pool {
    let random_len = options.random_len;
    let pool = Pool::start(Arc::new(Partition(hsm.clone())), options).unwrap();
    // Both threads have a session and the keeper has filled the stock: from here on it rests.
    eventually("the start", || hsm.sessions_open.load(Ordering::SeqCst) >= 2);
    eventually("the stock", || pool.take_random(&mut vec![0; random_len / 4]));
    pool
}

pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = soon();
    while !is_so() {
        assert!(Instant::now() < end, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn use_hsm(session: &mut dyn HsmSession) -> Result<(), HsmError> {
    session.mac(HsmObjectId([1; 16]), MacAlgorithm::HmacSha256, b"").map(|_| ())
}

/// Asks for the decryption of something that nobody sealed.
pub fn open_garbage(session: &mut dyn HsmSession) -> Result<(), HsmError> {
    let garbage = Sealed::parse(&[0; 12], vec![0; 24]).unwrap();
    session.open(HsmObjectId([1; 16]), AeadAlgorithm::Aes256Gcm, b"", &garbage).map(|_| ())
}

/// Keeps the only worker busy until it is let go.
pub struct Blocker {
    release: mpsc::Sender<()>,
    done: mpsc::Receiver<()>,
}

impl Blocker {
    pub fn block(pool: &Pool) -> Self {
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

    pub fn let_go(self) {
        self.release.send(()).unwrap();
        self.done.recv().unwrap();
    }
}
