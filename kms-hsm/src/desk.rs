//! What a pool has to do: the jobs that wait, the calls that run, and the time until which each is wanted.
//!
//! Only bookkeeping, under one lock of the pool: nothing here asks the HSM, and no reply runs here.

use crate::HsmSession;
use crate::error::HsmError;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Runs a job's work on a session and answers its caller, unless somebody has answered already.
pub(crate) type Work = Box<dyn FnOnce(&mut dyn HsmSession) + Send>;
/// Answers a job's caller with an error, unless somebody has answered already.
pub(crate) type Refuse = Arc<dyn Fn(HsmError) + Send + Sync>;

pub(crate) struct Job {
    pub(crate) operation: &'static str,
    pub(crate) deadline: Instant,
    pub(crate) work: Work,
    pub(crate) refuse: Refuse,
}

/// What a thread is doing inside the HSM.
struct Running {
    operation: &'static str,
    started: Instant,
    /// A job's caller, until it is answered at the deadline; the pool's own calls have none.
    caller: Option<(Instant, Refuse)>,
    deadline: Instant,
    is_keeper: bool,
    is_stuck: bool,
}

/// A thread of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ThreadNumber(u64);

/// Why a job is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// As many wait as may.
    Queue,
    /// Every worker is inside a call that does not come back, and no more are started.
    Stuck,
}

pub(crate) struct Desk {
    limits: Limits,
    jobs: VecDeque<Job>,
    running: HashMap<ThreadNumber, Running>,
    last_number: u64,
    /// Threads that have not ended, stuck ones and the keeper included.
    pub(crate) threads: usize,
    /// Workers that take jobs, or will when their call comes back in time.
    workers: usize,
    stuck_workers: usize,
    is_keeper_stuck: bool,
    /// When the watch looks next; `None` while nothing can become due.
    watch_at: Option<Instant>,
}

#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) workers: usize,
    pub(crate) queue_len: usize,
    pub(crate) hang_after: Duration,
    pub(crate) stuck_threads_max: usize,
}

/// What the watch has to do after looking.
#[derive(Default)]
pub(crate) struct Due {
    /// Callers whose jobs waited too long: nothing was done for them.
    pub(crate) waited: Vec<Refuse>,
    /// Callers whose calls are inside the HSM: nobody knows whether they happened.
    pub(crate) unanswered: Vec<Refuse>,
    /// Calls that turned out to be stuck, by name.
    pub(crate) stuck: Vec<&'static str>,
    /// How many workers to start in their place.
    pub(crate) replacements: usize,
    pub(crate) is_keeper_stuck: bool,
}

impl Desk {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            jobs: VecDeque::new(),
            running: HashMap::new(),
            last_number: 0,
            threads: 0,
            workers: 0,
            stuck_workers: 0,
            is_keeper_stuck: false,
            watch_at: None,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.jobs.len()
    }

    pub(crate) fn stuck_count(&self) -> usize {
        self.stuck_workers + usize::from(self.is_keeper_stuck)
    }

    /// Puts a job in. `true` when the watch must look earlier than it planned.
    pub(crate) fn enqueue(&mut self, job: Job) -> Result<bool, Full> {
        if self.workers == 0 {
            return Err(Full::Stuck);
        }
        if self.jobs.len() >= self.limits.queue_len {
            return Err(Full::Queue);
        }
        let is_earlier = self.is_earlier(job.deadline);
        self.jobs.push_back(job);
        Ok(is_earlier)
    }

    fn is_earlier(&self, at: Instant) -> bool {
        self.watch_at.is_none_or(|planned| at < planned)
    }

    /// A worker comes, new or as a replacement.
    pub(crate) fn worker_starts(&mut self) -> ThreadNumber {
        self.workers += 1;
        self.number()
    }

    /// A worker that was not stuck ends.
    pub(crate) fn worker_ends(&mut self) {
        self.workers -= 1;
    }

    pub(crate) fn number(&mut self) -> ThreadNumber {
        self.last_number += 1;
        ThreadNumber(self.last_number)
    }

    pub(crate) fn take(&mut self) -> Option<Job> {
        self.jobs.pop_front()
    }

    /// A thread enters the HSM for a job. `true` when the watch must look earlier than it planned.
    pub(crate) fn begin_job(&mut self, thread: ThreadNumber, now: Instant, job: &Job) -> bool {
        let caller = Some((job.deadline, job.refuse.clone()));
        self.begin_running(thread, now, job.operation, job.deadline, caller, false)
    }

    /// A thread enters the HSM for the pool itself. `true` when the watch must look earlier than it planned.
    pub(crate) fn begin(&mut self, thread: ThreadNumber, now: Instant, operation: &'static str) -> bool {
        self.begin_running(thread, now, operation, now, None, false)
    }

    pub(crate) fn begin_keeper(&mut self, thread: ThreadNumber, now: Instant) -> bool {
        self.begin_running(thread, now, "keeper", now, None, true)
    }

    /// The keeper's call came back and the next one begins: each has the whole time for itself.
    pub(crate) fn keeper_goes_on(&mut self, thread: ThreadNumber, now: Instant) {
        if let Some(running) = self.running.get_mut(&thread) {
            (running.started, running.deadline) = (now, now);
            if std::mem::take(&mut running.is_stuck) {
                self.is_keeper_stuck = false;
            }
        }
    }

    fn begin_running(
        &mut self,
        thread: ThreadNumber,
        started: Instant,
        operation: &'static str,
        deadline: Instant,
        caller: Option<(Instant, Refuse)>,
        is_keeper: bool,
    ) -> bool {
        let running = Running { operation, started, caller, deadline, is_keeper, is_stuck: false };
        let is_earlier = self.is_earlier(running.due_at(self.limits.hang_after));
        self.running.insert(thread, running);
        is_earlier
    }

    /// A thread is out of the HSM again. `false` when it was replaced meanwhile and is not needed any more.
    #[must_use]
    pub(crate) fn end(&mut self, thread: ThreadNumber) -> bool {
        let Some(running) = self.running.remove(&thread) else { return true };
        if !running.is_stuck {
            return true;
        }
        if running.is_keeper {
            self.is_keeper_stuck = false;
            return true;
        }
        self.stuck_workers -= 1;
        tracing::info!(
            operation = running.operation,
            after_ms = running.started.elapsed().as_millis(),
            "a call came back from the HSM after its thread had been given up"
        );
        let is_needed = self.workers < self.limits.workers;
        self.workers += usize::from(is_needed);
        is_needed
    }

    /// Looks at everything that waits or runs, and plans the next look.
    pub(crate) fn look(&mut self, now: Instant) -> Due {
        let mut due = Due::default();
        let mut kept = VecDeque::with_capacity(self.jobs.len());
        for job in self.jobs.drain(..) {
            if job.deadline <= now { due.waited.push(job.refuse) } else { kept.push_back(job) }
        }
        self.jobs = kept;
        for running in self.running.values_mut() {
            if let Some((_, refuse)) = running.caller.take_if(|(deadline, _)| *deadline <= now) {
                due.unanswered.push(refuse);
            }
            if !running.is_stuck && running.stuck_at(self.limits.hang_after) <= now {
                running.is_stuck = true;
                due.stuck.push(running.operation);
                if running.is_keeper {
                    self.is_keeper_stuck = true;
                } else {
                    self.workers -= 1;
                    self.stuck_workers += 1;
                    if self.stuck_workers <= self.limits.stuck_threads_max {
                        due.replacements += 1;
                    }
                }
            }
        }
        due.is_keeper_stuck = self.is_keeper_stuck;
        let hang_after = self.limits.hang_after;
        let jobs = self.jobs.iter().map(|job| job.deadline);
        let running = self.running.values().filter(|running| !running.is_settled());
        self.watch_at = jobs.chain(running.map(|running| running.due_at(hang_after))).min();
        due
    }

    /// When the watch looks next, and that it does: `at` is another reason to.
    pub(crate) fn watch_at(&mut self, at: Option<Instant>) -> Option<Instant> {
        self.watch_at = self.watch_at.into_iter().chain(at).min();
        self.watch_at
    }

    /// Everybody who still waits for an answer, and the jobs are gone.
    pub(crate) fn give_up(&mut self) -> Vec<Refuse> {
        let waiting = self.jobs.drain(..).map(|job| job.refuse);
        let running = self.running.values_mut().filter_map(|running| running.caller.take());
        waiting.chain(running.map(|(_, refuse)| refuse)).collect()
    }
}

impl Running {
    /// A caller may want an answer sooner than the device gives any; that alone says nothing about the device.
    fn stuck_at(&self, hang_after: Duration) -> Instant {
        self.deadline.max(self.started + hang_after)
    }

    fn due_at(&self, hang_after: Duration) -> Instant {
        self.caller.as_ref().map_or_else(|| self.stuck_at(hang_after), |(deadline, _)| *deadline)
    }

    fn is_settled(&self) -> bool {
        self.is_stuck && self.caller.is_none()
    }
}
