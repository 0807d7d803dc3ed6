//! Worker threads for one partition: a bounded queue in front, a session in each, and a keeper behind.
//!
//! The *workers* run jobs. The *keeper* fills the stock of random bytes, asks the HSM for a sign of life,
//! and decides when it is away for too long. Callers never wait for a thread to be free: a full queue is
//! refused at once, and a job whose deadline passed while it waited costs no HSM call.

use crate::error::{ErrorClass, HsmError};
use crate::health::{FailureReason, Health, HealthBoard, HealthObserver};
use crate::observe::{NoObserver, Observed, Observer};
use crate::random::RandomBuffer;
use crate::{HsmPartition, HsmSession, ObjectKind};
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// How often the keeper asks a HSM that is away.
const AWAY_ROUND: Duration = Duration::from_millis(250);
/// How many random bytes the keeper fetches at a time.
const REFILL_LEN: usize = 1024;

/// How a pool works.
#[derive(Clone)]
pub struct PoolOptions {
    /// How many jobs run at a time; one thread and one session each, and one of both for the keeper.
    pub workers: usize,
    /// How many jobs wait at most.
    pub queue_len: usize,
    /// Told about every operation.
    pub observer: Arc<dyn Observer>,
    /// How long the HSM may be away before the pool gives it up and wipes the PIN.
    pub relogin_grace: Duration,
    /// How often the keeper asks an idle HSM for a sign of life.
    pub heartbeat: Duration,
    /// How many random bytes are kept ready.
    pub random_len: usize,
    /// How long [`Pool::stop`] waits for threads that are inside a driver call.
    pub stop_wait_max: Duration,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            workers: 4,
            queue_len: 1024,
            observer: Arc::new(NoObserver),
            relogin_grace: Duration::from_secs(60),
            heartbeat: Duration::from_secs(5),
            random_len: 64 << 10,
            stop_wait_max: Duration::from_secs(10),
        }
    }
}

impl fmt::Debug for PoolOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolOptions")
            .field("workers", &self.workers)
            .field("queue_len", &self.queue_len)
            .field("relogin_grace", &self.relogin_grace)
            .field("heartbeat", &self.heartbeat)
            .field("random_len", &self.random_len)
            .field("stop_wait_max", &self.stop_wait_max)
            .finish_non_exhaustive()
    }
}

/// How a pool ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Stopped {
    /// Every thread has ended.
    Cleanly,
    /// Some threads are still inside a driver call. They are logged out with everybody else, and end when the
    /// driver answers; only ending the process frees them before.
    WithStuckThreads {
        /// How many.
        count: usize,
    },
}

/// Takes jobs for one partition from any thread.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    partition: Arc<dyn HsmPartition>,
    options: PoolOptions,
    observer: Arc<dyn Observer>,
    queue: Mutex<Queue>,
    /// Rung for each job, and when the pool stops.
    job_bell: Condvar,
    /// Rung by each thread that ends.
    end_bell: Condvar,
    health: Arc<HealthBoard>,
    random: RandomBuffer,
    is_stopping: AtomicBool,
}

struct Queue {
    jobs: VecDeque<Job>,
    threads_running: usize,
}

type Work = Box<dyn FnOnce(Result<&mut dyn HsmSession, HsmError>) + Send>;

struct Job {
    deadline: Instant,
    work: Work,
}

impl Pool {
    /// Starts the threads. `partition` is logged in already; [`Pool::stop`] logs it out.
    ///
    /// # Errors
    /// What the system says when it gives no more threads; those that started are ended again.
    pub fn start(partition: Arc<dyn HsmPartition>, options: PoolOptions) -> Result<Self, std::io::Error> {
        let health = Arc::new(HealthBoard::new());
        let observer: Arc<dyn Observer> =
            Arc::new(HealthObserver { board: health.clone(), next: options.observer.clone() });
        let workers = options.workers.max(1);
        let shared = Arc::new(Shared {
            partition,
            observer,
            queue: Mutex::new(Queue { jobs: VecDeque::new(), threads_running: 0 }),
            job_bell: Condvar::new(),
            end_bell: Condvar::new(),
            health,
            random: RandomBuffer::new(options.random_len.max(1)),
            is_stopping: AtomicBool::new(false),
            options,
        });
        let pool = Self { shared, threads: Mutex::new(Vec::new()) };
        pool.spawn("kms-hsm-keeper".to_owned(), Shared::keep)?;
        for number in 0..workers {
            pool.spawn(format!("kms-hsm-{number}"), Shared::work)?;
        }
        Ok(pool)
    }

    fn spawn(&self, name: String, run: fn(&Shared)) -> Result<(), std::io::Error> {
        let ends = RunningThread::new(self.shared.clone());
        let handle = thread::Builder::new().name(name).spawn(move || run(&ends.0))?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(handle);
        Ok(())
    }

    /// Runs `work` on a session when a worker is free, and gives its result to `reply`.
    ///
    /// `reply` is called exactly once: on the worker, or on the calling thread when the job is refused. The
    /// deadline is checked when a worker takes the job; a driver call that has begun is not stopped.
    ///
    /// Refused with [`HsmError::Busy`] (full queue), [`HsmError::Deadline`], [`HsmError::TokenGone`] (away, or given
    /// up), [`HsmError::PinRefused`] or [`HsmError::Stopped`], each without an HSM call.
    pub fn submit<T, W, R>(&self, operation: &'static str, deadline: Instant, work: W, reply: R)
    where
        W: FnOnce(&mut dyn HsmSession) -> Result<T, HsmError> + Send + 'static,
        R: FnOnce(Result<T, HsmError>) + Send + 'static,
    {
        let work: Work = Box::new(move |session| {
            let result = session.and_then(|session| {
                // Our own panic ends one job, not the thread: a pool that quietly lost its workers would
                // answer nobody.
                catch_unwind(AssertUnwindSafe(|| work(session)))
                    .unwrap_or(Err(HsmError::Panicked { operation }))
            });
            reply(result);
        });
        if let Err((refusal, work)) = self.shared.enqueue(Job { deadline, work }) {
            work(Err(refusal));
        }
    }

    /// [`Pool::submit`], and waits for the answer until the deadline.
    ///
    /// # Errors
    /// Those of `submit` and of the work. On [`HsmError::Deadline`] the work may still happen.
    pub fn call<T, W>(&self, operation: &'static str, deadline: Instant, work: W) -> Result<T, HsmError>
    where
        T: Send + 'static,
        W: FnOnce(&mut dyn HsmSession) -> Result<T, HsmError> + Send + 'static,
    {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.submit(operation, deadline, work, move |result| {
            // The caller may have gone at its deadline.
            let _ = sender.send(result);
        });
        let left = deadline.saturating_duration_since(Instant::now());
        receiver.recv_timeout(left).unwrap_or(Err(HsmError::Deadline))
    }

    /// Fills `out` from the stock of random bytes without asking the HSM. `false`, and nothing changed,
    /// when the stock is too small or the HSM is not healthy: submit a job then.
    #[must_use]
    pub fn take_random(&self, out: &mut [u8]) -> bool {
        if self.health() != Health::Healthy || self.shared.is_stopping.load(Ordering::Acquire) {
            return false;
        }
        let is_filled = self.shared.random.take(out);
        if self.shared.random.is_low() {
            self.shared.health.ring();
        }
        is_filled
    }

    /// Fills `out` from the stock, or from the HSM when the stock is too small.
    ///
    /// # Errors
    /// Those of [`Pool::call`].
    pub fn random(&self, out: &mut [u8], deadline: Instant) -> Result<(), HsmError> {
        if self.take_random(out) {
            return Ok(());
        }
        let len = out.len();
        let fresh = self.call("random", deadline, move |session| {
            let mut fresh = Zeroizing::new(vec![0; len]);
            session.random(&mut fresh)?;
            Ok(fresh)
        })?;
        out.copy_from_slice(&fresh);
        Ok(())
    }

    /// Whether the HSM can be used. When it has failed, the service must seal.
    pub fn health(&self) -> Health {
        self.shared.health.health()
    }

    /// Whether the partition offers objects of this kind.
    pub fn can(&self, kind: ObjectKind) -> bool {
        self.shared.partition.can(kind)
    }

    /// How many jobs wait.
    pub fn queue_len(&self) -> usize {
        self.shared.lock().jobs.len()
    }

    /// Refuses new jobs, lets the waiting ones run, ends the threads, closes the sessions, logs out and wipes
    /// the PIN and the stock of random bytes. Stopping twice does nothing more.
    pub fn stop(&self) -> Stopped {
        let shared = &self.shared;
        shared.is_stopping.store(true, Ordering::Release);
        // Taken once, so that no worker misses the bell between looking at the flag and waiting for it.
        drop(shared.lock());
        shared.job_bell.notify_all();
        shared.health.stop();

        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        // A reply may hold the last reference to this pool, so this may be one of its own threads.
        let is_own = |thread: &JoinHandle<()>| thread.thread().id() == thread::current().id();
        let own_count = usize::from(threads.iter().any(is_own));
        let (mut queue, _) = shared
            .end_bell
            .wait_timeout_while(shared.lock(), shared.options.stop_wait_max, |queue| {
                queue.threads_running > own_count
            })
            .unwrap_or_else(PoisonError::into_inner);
        let count = queue.threads_running - own_count;
        let left_over = std::mem::take(&mut queue.jobs);
        drop(queue);
        for job in left_over {
            (job.work)(Err(HsmError::Stopped));
        }
        if count == 0 {
            for thread in threads.into_iter().filter(|thread| !is_own(thread)) {
                // It has ended, and a panic in it was caught or is in the log.
                let _ = thread.join();
            }
        }
        shared.random.wipe();
        shared.partition.close();
        if count == 0 { Stopped::Cleanly } else { Stopped::WithStuckThreads { count } }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Stopped::WithStuckThreads { count } = self.stop() {
            tracing::error!(count, "threads are left inside the HSM's driver");
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({:?}, {} waiting)", self.health(), self.queue_len())
    }
}

/// Counts a thread for as long as it runs, also when it unwinds.
struct RunningThread(Arc<Shared>);

impl RunningThread {
    fn new(shared: Arc<Shared>) -> Self {
        shared.lock().threads_running += 1;
        Self(shared)
    }
}

impl Drop for RunningThread {
    fn drop(&mut self) {
        self.0.lock().threads_running -= 1;
        self.0.end_bell.notify_all();
    }
}

impl Shared {
    /// Puts a job into the queue, or gives it back with the reason why not.
    fn enqueue(&self, job: Job) -> Result<(), (HsmError, Work)> {
        if let Err(refusal) = self.admit(job.deadline) {
            return Err((refusal, job.work));
        }
        let mut queue = self.lock();
        // Looked at again under the lock: whoever sees the flag down here is seen by the workers.
        if self.is_stopping.load(Ordering::Acquire) {
            return Err((HsmError::Stopped, job.work));
        }
        if queue.jobs.len() >= self.options.queue_len {
            return Err((HsmError::Busy, job.work));
        }
        queue.jobs.push_back(job);
        let len = queue.jobs.len();
        drop(queue);
        self.job_bell.notify_one();
        self.observer.queue_len(len);
        Ok(())
    }

    /// Refusals that cost no HSM call.
    fn admit(&self, deadline: Instant) -> Result<(), HsmError> {
        if Instant::now() >= deadline {
            return Err(HsmError::Deadline);
        }
        match self.health.health() {
            Health::Healthy => Ok(()),
            Health::Away { .. } | Health::Failed { reason: FailureReason::StayedAway } => {
                Err(HsmError::TokenGone { source: None })
            }
            Health::Failed { reason: FailureReason::PinIncorrect } => {
                Err(HsmError::PinRefused { source: None })
            }
        }
    }

    /// The life of a worker.
    fn work(&self) {
        let mut session = self.open_session().ok();
        while let Some(job) = self.next_job() {
            if let Err(refusal) = self.admit(job.deadline) {
                (job.work)(Err(refusal));
                continue;
            }
            let mut current = match session.take().map_or_else(|| self.open_session(), Ok) {
                Ok(current) => current,
                Err(error) => {
                    (job.work)(Err(error));
                    continue;
                }
            };
            // The work catches its own panics; this is about a panic in its reply. Either way the session
            // is kept, because it looks after itself.
            let finished = catch_unwind(AssertUnwindSafe(|| (job.work)(Ok(&mut current))));
            if finished.is_err() {
                tracing::error!("a reply to an HSM job panicked");
            }
            session = Some(current);
        }
    }

    fn next_job(&self) -> Option<Job> {
        let mut queue = self.lock();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                let len = queue.jobs.len();
                drop(queue);
                self.observer.queue_len(len);
                return Some(job);
            }
            if self.is_stopping.load(Ordering::Acquire) {
                return None;
            }
            queue = self.job_bell.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Opens a watched session. Opening one can find the token gone or the PIN changed, so it is watched too.
    fn open_session(&self) -> Result<Observed, HsmError> {
        let start = Instant::now();
        self.observer.before("open_session");
        let session = self.partition.open_session();
        let outcome = session.as_ref().map(|_| ()).map_err(HsmError::class);
        self.observer.after("open_session", &outcome, start.elapsed());
        session.map(|session| Observed::new(session, self.observer.clone()))
    }

    /// The life of the keeper.
    fn keep(&self) {
        let mut session = None;
        let mut next_heartbeat = Instant::now();
        loop {
            let round = match self.health.health() {
                Health::Healthy => next_heartbeat.saturating_duration_since(Instant::now()),
                Health::Away { .. } => AWAY_ROUND,
                Health::Failed { .. } => self.options.heartbeat,
            };
            let wake = self.health.wait(round);
            if wake.is_stopping {
                return;
            }
            let is_due = wake.is_suspicious || Instant::now() >= next_heartbeat;
            match wake.health {
                Health::Failed { .. } => {
                    self.random.wipe();
                    self.partition.forget_pin();
                    session = None;
                    continue;
                }
                Health::Healthy if !is_due && !self.random.is_low() => continue,
                Health::Healthy | Health::Away { .. } => {}
            }
            let is_away = matches!(wake.health, Health::Away { .. });
            let result = match self.keepers_round(&mut session, is_due || is_away) {
                // One odd answer is not an absence: the round is repeated on a new session first.
                Err(ErrorClass::DeviceSick | ErrorClass::RetryOnNewSession | ErrorClass::Busy)
                    if !is_away =>
                {
                    self.keepers_round(&mut session, true)
                }
                result => result,
            };
            match result {
                Ok(()) => self.health.is_back(),
                Err(ErrorClass::PinIncorrect) => self.health.fail(FailureReason::PinIncorrect),
                Err(class) => self.stayed_away(class),
            }
            if is_due {
                next_heartbeat = Instant::now() + self.options.heartbeat;
            }
        }
    }

    /// Asks for a sign of life when `is_due`, and fills the stock.
    fn keepers_round(&self, session: &mut Option<Observed>, is_due: bool) -> Result<(), ErrorClass> {
        let mut current = match session.take() {
            Some(current) => current,
            None => self.open_session().map_err(|error| error.class())?,
        };
        if is_due {
            current.status().map_err(|error| error.class())?;
            current.random(&mut [0; 16]).map_err(|error| error.class())?;
        }
        let mut fresh = Zeroizing::new([0; REFILL_LEN]);
        while self.random.room() > 0 && !self.is_stopping.load(Ordering::Acquire) {
            let len = self.random.room().min(REFILL_LEN);
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

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
