//! The lives of a pool's threads: workers, the keeper, and the watch.

use crate::HsmSession;
use crate::desk::{Job, ThreadNumber};
use crate::error::{ErrorClass, HsmError};
use crate::health::{FailureReason, Health, OPEN_SESSION, Wake};
use crate::observe::{Observed, Observer};
use crate::pool::Shared;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// How often the keeper asks a HSM that is away.
const AWAY_ROUND: Duration = Duration::from_millis(250);
/// How often a self-test that an error ended is run before the token counts as broken.
const SELF_TESTS_MAX: u32 = 3;
/// How many random bytes the keeper fetches at a time.
const REFILL_LEN: usize = 1024;

/// Counts a thread for as long as it runs, also when it unwinds.
pub(crate) struct RunningThread(Arc<Shared>);

impl RunningThread {
    fn new(shared: Arc<Shared>) -> Self {
        shared.lock().threads += 1;
        Self(shared)
    }
}

impl Drop for RunningThread {
    fn drop(&mut self) {
        self.0.lock().threads -= 1;
        self.0.end_bell.notify_all();
    }
}

/// Starts a thread of the pool.
pub(crate) fn spawn(
    shared: &Arc<Shared>,
    name: String,
    run: impl FnOnce(&Arc<Shared>) + Send + 'static,
) -> Result<(), std::io::Error> {
    let ends = RunningThread::new(shared.clone());
    let handle = thread::Builder::new().name(name).spawn(move || run(&ends.0))?;
    let mut threads = shared.threads.lock().unwrap_or_else(PoisonError::into_inner);
    // A device that hangs again and again has its threads replaced again and again.
    threads.retain(|thread| !thread.is_finished());
    threads.push(handle);
    Ok(())
}

pub(crate) fn spawn_worker(shared: &Arc<Shared>) -> Result<(), std::io::Error> {
    let number = shared.lock().worker_starts();
    let started = spawn(shared, "kms-hsm-worker".to_owned(), move |shared| shared.work(number));
    if started.is_err() {
        shared.lock().worker_ends();
    }
    started
}

impl Shared {
    /// The life of a worker.
    fn work(&self, number: ThreadNumber) {
        let mut session = None;
        // Opened now instead of with the first job. What it finds is told to the health board.
        let is_needed = self.inside(number, OPEN_SESSION, || session = self.open_session().ok());
        if !is_needed {
            return;
        }
        while let Some(job) = self.next_job(number) {
            let deadline = job.deadline;
            if let Err(refusal) = self.admit(deadline) {
                (job.refuse)(refusal);
            } else {
                // The work catches its own panics; this is about a panic in its reply. Either way the session
                // is kept, because it looks after itself.
                let finished = catch_unwind(AssertUnwindSafe(|| {
                    match session.take().map_or_else(|| self.open_session(), Ok) {
                        Ok(current) => (job.work)(session.insert(current)),
                        Err(error) => (job.refuse)(error),
                    }
                }));
                if finished.is_err() {
                    tracing::error!("a reply to an HSM job panicked");
                }
            }
            if !self.leave(number) {
                return;
            }
        }
        self.lock().worker_ends();
    }

    /// Waits for a job and enters the HSM with it; `None` when the pool stops.
    fn next_job(&self, number: ThreadNumber) -> Option<Job> {
        let mut desk = self.lock();
        loop {
            if let Some(job) = desk.take() {
                let len = desk.len();
                let is_earlier = desk.begin_job(number, Instant::now(), &job);
                drop(desk);
                if is_earlier {
                    self.watch_bell.notify_all();
                }
                self.observer.queue_len(len);
                return Some(job);
            }
            if self.is_stopping.load(Ordering::Acquire) {
                return None;
            }
            desk = self.job_bell.wait(desk).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Runs one of the pool's own calls. `false` when the thread was replaced meanwhile.
    fn inside(&self, number: ThreadNumber, operation: &'static str, call: impl FnOnce()) -> bool {
        if self.lock().begin(number, Instant::now(), operation) {
            self.watch_bell.notify_all();
        }
        call();
        self.leave(number)
    }

    fn leave(&self, number: ThreadNumber) -> bool {
        let (is_needed, before, after) = {
            let mut desk = self.lock();
            let before = desk.stuck_count();
            (desk.end(number), before, desk.stuck_count())
        };
        if before != after {
            self.observer.stuck_threads(after);
        }
        is_needed
    }

    /// Opens a watched session. Opening one can find the token gone or the PIN changed, so it is watched too.
    fn open_session(&self) -> Result<Observed, HsmError> {
        self.open_session_for(self.observer.clone())
    }

    fn open_session_for(&self, observer: Arc<dyn Observer>) -> Result<Observed, HsmError> {
        let start = Instant::now();
        observer.before(OPEN_SESSION);
        let session = self.partition.open_session();
        let outcome = session.as_ref().map(|_| ()).map_err(HsmError::class);
        observer.after(OPEN_SESSION, &outcome, start.elapsed());
        session.map(|session| Observed::new(session, observer))
    }

    /// The life of the watch: it answers callers at their deadlines and replaces workers whose calls hang. It
    /// never asks the HSM, so nothing can hang here.
    pub(crate) fn watch(self: &Arc<Self>) {
        let mut desk = self.lock();
        while !self.is_stopping.load(Ordering::Acquire) {
            let due = desk.look(Instant::now());
            let is_work = !(due.waited.is_empty() && due.unanswered.is_empty() && due.stuck.is_empty());
            let give_up_at = due.is_keeper_stuck.then(|| self.keeper_is_stuck()).flatten();
            if is_work {
                let stuck_count = desk.stuck_count();
                drop(desk);
                for operation in &due.stuck {
                    tracing::error!(
                        operation,
                        "a call does not come back from the HSM; its thread is given up"
                    );
                    self.health.device_failed();
                    self.observer.stuck_threads(stuck_count);
                }
                for _ in 0..due.replacements {
                    if let Err(error) = spawn_worker(self) {
                        tracing::error!(%error, "no thread for a worker in place of one that is stuck");
                    }
                }
                for refuse in due.waited {
                    self.refuse(&refuse, HsmError::Deadline);
                }
                for refuse in due.unanswered {
                    self.refuse(&refuse, HsmError::NoAnswer);
                }
                desk = self.lock();
                continue;
            }
            desk = match desk.watch_at(give_up_at) {
                None => self.watch_bell.wait(desk).unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let left = at.saturating_duration_since(Instant::now());
                    let waited = self.watch_bell.wait_timeout(desk, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn refuse(&self, refuse: &crate::desk::Refuse, error: HsmError) {
        if catch_unwind(AssertUnwindSafe(|| refuse(error))).is_err() {
            tracing::error!("a reply to an HSM job panicked");
        }
    }

    /// The keeper cannot look, so the watch counts the absence in its place. Gives when to look again.
    fn keeper_is_stuck(&self) -> Option<Instant> {
        let since = self.health.is_away()?;
        let end = since + self.options.relogin_grace;
        if Instant::now() < end {
            return Some(end);
        }
        tracing::error!("the HSM did not answer for longer than the grace");
        self.health.fail(FailureReason::StayedAway);
        self.random.wipe();
        self.partition.forget_pin();
        None
    }

    /// The life of the keeper.
    pub(crate) fn keep(self: &Arc<Self>) {
        let number = self.lock().number();
        let mut session = None;
        let mut next_heartbeat = Instant::now();
        let mut next_probe = Instant::now();
        let mut owes_probe = false;
        loop {
            let left = |until: Instant| until.saturating_duration_since(Instant::now());
            let round = match self.health.health() {
                Health::Healthy if owes_probe => left(next_probe.min(next_heartbeat)),
                Health::Healthy => left(next_heartbeat),
                Health::CircuitOpen { probe_at } => left(probe_at.min(next_heartbeat)),
                Health::Away { .. } => AWAY_ROUND,
                Health::Failed { .. } => self.options.heartbeat,
            };
            let wake = self.health.wait(round);
            if wake.is_stopping {
                return;
            }
            if let Health::Failed { .. } = wake.health {
                self.random.wipe();
                self.partition.forget_pin();
                session = None;
                continue;
            }
            let now = Instant::now();
            let is_due = wake.is_suspicious || now >= next_heartbeat;
            // Whoever sends garbage must not keep the device busy with self-tests.
            owes_probe |= wake.wants_probe;
            let is_probe_due = match wake.health {
                Health::CircuitOpen { probe_at } => now >= probe_at,
                _ => owes_probe && now >= next_probe,
            };
            let is_refill_due = wake.health == Health::Healthy && self.random.is_low();
            let is_away = matches!(wake.health, Health::Away { .. });
            if !(is_due || is_probe_due || is_refill_due || is_away) {
                continue;
            }
            if self.lock().begin_keeper(number, now) {
                self.watch_bell.notify_all();
            }
            self.keepers_turn(number, &mut session, &wake, (is_due || is_away, is_probe_due));
            let _ = self.leave(number);
            if is_due {
                next_heartbeat = Instant::now() + self.options.heartbeat;
            }
            if is_probe_due {
                next_probe = Instant::now() + self.options.breaker.probe_interval;
                owes_probe = false;
            }
        }
    }

    fn keepers_turn(
        &self,
        number: ThreadNumber,
        session: &mut Option<Observed>,
        wake: &Wake,
        (is_due, is_probe_due): (bool, bool),
    ) {
        let is_away = matches!(wake.health, Health::Away { .. });
        let result = match self.keepers_round(number, session, is_due) {
            // One odd answer is not an absence: the round is repeated on a new session first.
            Err(ErrorClass::DeviceSick | ErrorClass::RetryOnNewSession | ErrorClass::Busy) if !is_away => {
                self.keepers_round(number, session, true)
            }
            result => result,
        };
        let is_open = matches!(wake.health, Health::CircuitOpen { .. });
        match result {
            Ok(()) => self.health.is_back(),
            Err(ErrorClass::PinIncorrect) => self.health.fail(FailureReason::PinIncorrect),
            // No room for one more session says nothing about those that are there: the next round tries again.
            Err(ErrorClass::Busy) if !is_away => {}
            Err(class) => return self.stayed_away(class),
        }
        if is_probe_due {
            let passed = session.as_mut().and_then(|session| self.passes_self_test(number, session));
            match passed {
                // One that was begun before the circuit opened must not close it.
                Some(true) if is_open => self.health.probed(true),
                Some(true) => {}
                Some(false) => self.health.probed(false),
                // An open circuit stays open until a test has passed.
                None if is_open => self.health.probed(false),
                None => {}
            }
        }
    }

    /// Whether a token does what it must; `None` when that was not to be found out. An error may be an odd one, of which a
    /// token that serves its callers has some: it is asked again. A wrong answer is believed at once.
    fn passes_self_test(&self, number: ThreadNumber, session: &mut Observed) -> Option<bool> {
        let mut is_undecided = false;
        for _ in 0..SELF_TESTS_MAX {
            self.lock().keeper_goes_on(number, Instant::now());
            match session.self_test() {
                Ok(()) => return Some(true),
                Err(error) => {
                    tracing::error!(%error, "the HSM's self-test");
                    if matches!(error, HsmError::SelfTest { source: None, .. }) {
                        return Some(false);
                    }
                    // A session, the login or the token went, or somebody was in the way: no word about mechanisms.
                    is_undecided |= matches!(
                        error.class(),
                        ErrorClass::Busy
                            | ErrorClass::LoginLost
                            | ErrorClass::TokenGone
                            | ErrorClass::RetryOnNewSession
                    );
                }
            }
        }
        if is_undecided { None } else { Some(false) }
    }

    /// Asks for a sign of life when `is_due`, and fills the stock.
    fn keepers_round(
        &self,
        number: ThreadNumber,
        session: &mut Option<Observed>,
        is_due: bool,
    ) -> Result<(), ErrorClass> {
        let next_call = || self.lock().keeper_goes_on(number, Instant::now());
        let mut current = match session.take() {
            Some(current) => current,
            None => self.open_session_for(self.keepers_observer.clone()).map_err(|error| error.class())?,
        };
        if is_due {
            next_call();
            current.status().map_err(|error| error.class())?;
            next_call();
            current.random(&mut [0; 16]).map_err(|error| error.class())?;
        }
        let mut fresh = Zeroizing::new([0; REFILL_LEN]);
        while self.random.room() > 0 && !self.is_stopping.load(Ordering::Acquire) {
            let len = self.random.room().min(REFILL_LEN);
            next_call();
            current.random(&mut fresh[..len]).map_err(|error| error.class())?;
            self.random.put(&mut fresh[..len]);
        }
        *session = Some(current);
        Ok(())
    }

    /// Counts the time that the HSM has been away, and gives it up after the grace.
    fn stayed_away(&self, class: ErrorClass) {
        let Some(since) = self.health.is_away() else { return };
        if since.elapsed() >= self.options.relogin_grace {
            tracing::error!(class = class.name(), "the HSM stayed away for longer than the grace");
            self.health.fail(FailureReason::StayedAway);
        }
    }
}
