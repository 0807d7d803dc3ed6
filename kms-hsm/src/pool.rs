//! Worker threads for one partition: a bounded queue in front, a session in each, and a keeper behind.
//!
//! The *workers* run jobs. The *keeper* fills the stock of random bytes, asks the HSM for a sign of life,
//! and decides when it is away for too long. The *watch* answers callers at their deadlines, also when the
//! driver does not come back. Callers never wait for a thread to be free: a full queue is refused at once, and
//! a job whose deadline passed while it waited costs no HSM call.

use crate::breaker::BreakerOptions;
use crate::desk::{Desk, Full, Job, Limits, Refuse, Work};
use crate::error::HsmError;
use crate::health::{FailureReason, Health, HealthBoard, HealthObserver};
use crate::observe::{NoObserver, Observer};
use crate::random::RandomBuffer;
use crate::threads::{spawn, spawn_worker};
use crate::{HsmPartition, HsmSession, ObjectKind};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

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
    /// A call that is inside the driver for longer than this, and past its deadline, counts as stuck.
    pub hang_after: Duration,
    /// How many workers may be stuck and still have another thread started in their place. So there are never more
    /// than `workers + stuck_threads_max` workers, each with a session. Beyond that, jobs are refused.
    pub stuck_threads_max: usize,
    /// When failures of the device stop all calls, and how often it is tested then.
    pub breaker: BreakerOptions,
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
            hang_after: Duration::from_secs(10),
            stuck_threads_max: 4,
            breaker: BreakerOptions::default(),
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
            .field("hang_after", &self.hang_after)
            .field("stuck_threads_max", &self.stuck_threads_max)
            .field("breaker", &self.breaker)
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
}

/// What the threads of a pool share.
pub(crate) struct Shared {
    pub(crate) partition: Arc<dyn HsmPartition>,
    pub(crate) options: PoolOptions,
    /// For the calls of jobs.
    pub(crate) observer: Arc<dyn Observer>,
    /// For the keeper's own calls.
    pub(crate) keepers_observer: Arc<dyn Observer>,
    desk: Mutex<Desk>,
    pub(crate) threads: Mutex<Vec<JoinHandle<()>>>,
    /// Rung for each job, and when the pool stops.
    pub(crate) job_bell: Condvar,
    /// Rung by each thread that ends.
    pub(crate) end_bell: Condvar,
    /// Rung when something is due earlier than the watch planned to look, and when the pool stops.
    pub(crate) watch_bell: Condvar,
    pub(crate) health: Arc<HealthBoard>,
    pub(crate) random: RandomBuffer,
    pub(crate) is_stopping: AtomicBool,
}

impl Pool {
    /// Starts the threads. `partition` is logged in already; [`Pool::stop`] logs it out.
    ///
    /// # Errors
    /// What the system says when it gives no more threads; those that started are ended again.
    pub fn start(partition: Arc<dyn HsmPartition>, options: PoolOptions) -> Result<Self, std::io::Error> {
        let health = Arc::new(HealthBoard::new(options.breaker, options.observer.clone()));
        let observer = |is_for_callers| -> Arc<dyn Observer> {
            Arc::new(HealthObserver { board: health.clone(), is_for_callers, next: options.observer.clone() })
        };
        let workers = options.workers.max(1);
        let limits = Limits {
            workers,
            queue_len: options.queue_len,
            hang_after: options.hang_after,
            stuck_threads_max: options.stuck_threads_max,
        };
        let shared = Arc::new(Shared {
            partition,
            observer: observer(true),
            keepers_observer: observer(false),
            desk: Mutex::new(Desk::new(limits)),
            threads: Mutex::new(Vec::new()),
            job_bell: Condvar::new(),
            end_bell: Condvar::new(),
            watch_bell: Condvar::new(),
            health,
            random: RandomBuffer::new(options.random_len.max(1)),
            is_stopping: AtomicBool::new(false),
            options,
        });
        // Dropped on an early return, which ends the threads that have started.
        let pool = Self { shared };
        spawn(&pool.shared, "kms-hsm-watch".to_owned(), Shared::watch)?;
        spawn(&pool.shared, "kms-hsm-keeper".to_owned(), Shared::keep)?;
        for _ in 0..workers {
            spawn_worker(&pool.shared)?;
        }
        Ok(pool)
    }

    /// Runs `work` on a session when a worker is free, and gives its result to `reply`.
    ///
    /// `reply` is called exactly once, at the deadline at the latest: on the worker, on the watch, or on the calling
    /// thread when the job is refused. It must be quick.
    ///
    /// Refused with [`HsmError::Busy`] (full queue), [`HsmError::Deadline`], [`HsmError::CircuitOpen`],
    /// [`HsmError::TokenGone`] (away, or given up), [`HsmError::PinRefused`] or [`HsmError::Stopped`], each without an
    /// HSM call. [`HsmError::NoAnswer`]: the deadline passed while the driver was at work, which cannot be stopped;
    /// what it does then is nobody's answer any more, or every worker is stuck like that.
    pub fn submit<T, W, R>(&self, operation: &'static str, deadline: Instant, work: W, reply: R)
    where
        W: FnOnce(&mut dyn HsmSession) -> Result<T, HsmError> + Send + 'static,
        R: FnOnce(Result<T, HsmError>) + Send + 'static,
    {
        // Whoever comes first takes the reply out and calls it: the worker, or the watch at the deadline.
        let reply = Arc::new(Mutex::new(Some(reply)));
        let refuse: Refuse = {
            let reply = reply.clone();
            Arc::new(move |error| {
                if let Some(reply) = take(&reply) {
                    reply(Err(error));
                }
            })
        };
        let work: Work = Box::new(move |session| {
            // Our own panic ends one job, not the thread: a pool that quietly lost its workers would
            // answer nobody.
            let result = catch_unwind(AssertUnwindSafe(|| work(session)))
                .unwrap_or(Err(HsmError::Panicked { operation }));
            match take(&reply) {
                Some(reply) => reply(result),
                None => {
                    tracing::warn!(operation, is_done = result.is_ok(), "an answer came after its deadline")
                }
            }
        });
        let job = Job { operation, deadline, work, refuse: refuse.clone() };
        if let Err(refusal) = self.shared.enqueue(job) {
            refuse(refusal);
        }
    }

    /// [`Pool::submit`], and waits for the answer until the deadline.
    ///
    /// # Errors
    /// Those of `submit` and of the work. On [`HsmError::NoAnswer`] the work may still happen.
    pub fn call<T, W>(&self, operation: &'static str, deadline: Instant, work: W) -> Result<T, HsmError>
    where
        T: Send + 'static,
        W: FnOnce(&mut dyn HsmSession) -> Result<T, HsmError> + Send + 'static,
    {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.submit(operation, deadline, work, move |result| {
            // The caller waits below for as long as it takes.
            let _ = sender.send(result);
        });
        receiver.recv().unwrap_or(Err(HsmError::Stopped))
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

    /// Whether the partition takes keys from outside.
    pub fn takes_keys(&self) -> bool {
        self.shared.partition.takes_keys()
    }

    /// How many jobs wait.
    pub fn queue_len(&self) -> usize {
        self.shared.lock().len()
    }

    /// How many threads are inside a driver call that does not come back.
    pub fn stuck_threads(&self) -> usize {
        self.shared.lock().stuck_count()
    }

    /// Refuses new jobs, lets the waiting ones run, ends the threads, closes the sessions, logs out and wipes
    /// the PIN and the stock of random bytes. Stopping twice does nothing more.
    pub fn stop(&self) -> Stopped {
        let shared = &self.shared;
        shared.is_stopping.store(true, Ordering::Release);
        // Taken once, so that no worker misses the bell between looking at the flag and waiting for it.
        drop(shared.lock());
        shared.job_bell.notify_all();
        shared.watch_bell.notify_all();
        shared.health.stop();

        let threads = std::mem::take(&mut *shared.threads.lock().unwrap_or_else(PoisonError::into_inner));
        // A reply may hold the last reference to this pool, so this may be one of its own threads.
        let is_own = |thread: &JoinHandle<()>| thread.thread().id() == thread::current().id();
        let own_count = usize::from(threads.iter().any(is_own));
        let (mut desk, _) = shared
            .end_bell
            .wait_timeout_while(shared.lock(), shared.options.stop_wait_max, |desk| desk.threads > own_count)
            .unwrap_or_else(PoisonError::into_inner);
        let mut count = desk.threads - own_count;
        let left_over = desk.give_up();
        drop(desk);
        for refuse in left_over {
            refuse(HsmError::Stopped);
        }
        if count == 0 {
            for thread in threads.into_iter().filter(|thread| !is_own(thread)) {
                // It has ended, and a panic in it was caught or is in the log.
                let _ = thread.join();
            }
        }
        shared.random.wipe();
        shared.partition.forget_pin();
        if !shared.close_partition() {
            count += 1;
        }
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

fn take<R>(reply: &Mutex<Option<R>>) -> Option<R> {
    reply.lock().unwrap_or_else(PoisonError::into_inner).take()
}

impl Shared {
    /// Puts a job into the queue, or says why not.
    fn enqueue(&self, job: Job) -> Result<(), HsmError> {
        self.admit(job.deadline)?;
        let mut desk = self.lock();
        // Looked at again under the lock: whoever sees the flag down here is seen by the workers.
        if self.is_stopping.load(Ordering::Acquire) {
            return Err(HsmError::Stopped);
        }
        let is_earlier = desk.enqueue(job).map_err(|full| match full {
            Full::Queue => HsmError::Busy,
            Full::Stuck => HsmError::NoAnswer,
        })?;
        let len = desk.len();
        drop(desk);
        self.job_bell.notify_one();
        if is_earlier {
            self.watch_bell.notify_all();
        }
        self.observer.queue_len(len);
        Ok(())
    }

    /// Refusals that cost no HSM call.
    pub(crate) fn admit(&self, deadline: Instant) -> Result<(), HsmError> {
        let now = Instant::now();
        if now >= deadline {
            return Err(HsmError::Deadline);
        }
        match self.health.health() {
            Health::Healthy => Ok(()),
            Health::CircuitOpen { probe_at } => {
                Err(HsmError::CircuitOpen { probe_in: probe_at.saturating_duration_since(now) })
            }
            Health::Away { .. } | Health::Failed { reason: FailureReason::StayedAway } => {
                Err(HsmError::TokenGone { source: None })
            }
            Health::Failed { reason: FailureReason::PinIncorrect } => {
                Err(HsmError::PinRefused { source: None })
            }
        }
    }

    /// Logs out, on a thread of its own: the device's library may hang there too. `false` when it does.
    fn close_partition(&self) -> bool {
        let (sender, closed) = mpsc::sync_channel(1);
        let partition = self.partition.clone();
        let closing = move || {
            partition.close();
            // Nobody may be waiting any more.
            let _ = sender.send(());
        };
        match thread::Builder::new().name("kms-hsm-close".to_owned()).spawn(closing) {
            Ok(_) => closed.recv_timeout(self.options.stop_wait_max).is_ok(),
            Err(_) => {
                self.partition.close();
                true
            }
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
