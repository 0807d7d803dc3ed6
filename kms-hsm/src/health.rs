//! Whether the HSM can be used, and what the pool's keeper has to do about it.

use crate::error::ErrorClass;
use crate::observe::Observer;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Whether the HSM can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It can.
    Healthy,
    /// It does not answer; the pool asks again until the grace is over. Jobs are refused meanwhile.
    Away {
        /// Since when.
        since: Instant,
    },
    /// It will not be asked again: the service must seal. Only a new pool can go on.
    Failed {
        /// Why.
        reason: FailureReason,
    },
}

/// Why a pool has given its HSM up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureReason {
    /// It refused the PIN, once: somebody changed it, or it is another token.
    PinIncorrect,
    /// It stayed away for longer than the grace.
    StayedAway,
}

/// The pool's health, and the bell of its keeper.
pub(crate) struct HealthBoard {
    board: Mutex<Board>,
    bell: Condvar,
}

struct Board {
    health: Health,
    /// Something was odd; the keeper looks now instead of at its next round.
    is_suspicious: bool,
    is_rung: bool,
    is_stopping: bool,
}

/// Why the keeper woke up.
pub(crate) struct Wake {
    pub(crate) is_suspicious: bool,
    pub(crate) is_stopping: bool,
    pub(crate) health: Health,
}

impl HealthBoard {
    pub(crate) fn new() -> Self {
        let board =
            Board { health: Health::Healthy, is_suspicious: false, is_rung: false, is_stopping: false };
        Self { board: Mutex::new(board), bell: Condvar::new() }
    }

    pub(crate) fn health(&self) -> Health {
        self.lock().health
    }

    /// Wakes the keeper.
    pub(crate) fn ring(&self) {
        self.lock().is_rung = true;
        self.bell.notify_all();
    }

    pub(crate) fn stop(&self) {
        self.lock().is_stopping = true;
        self.bell.notify_all();
    }

    /// The keeper found the HSM working.
    pub(crate) fn is_back(&self) {
        let mut board = self.lock();
        if let Health::Away { since } = board.health {
            tracing::info!(away_ms = since.elapsed().as_millis(), "the HSM answers again");
            board.health = Health::Healthy;
        }
    }

    /// The HSM did not answer. Gives since when.
    pub(crate) fn is_away(&self) -> Option<Instant> {
        let mut board = self.lock();
        match board.health {
            Health::Failed { .. } => None,
            Health::Away { since } => Some(since),
            Health::Healthy => {
                let since = Instant::now();
                tracing::warn!("the HSM does not answer");
                board.health = Health::Away { since };
                Some(since)
            }
        }
    }

    /// The HSM is given up. The first reason stays.
    pub(crate) fn fail(&self, reason: FailureReason) {
        let mut board = self.lock();
        if !matches!(board.health, Health::Failed { .. }) {
            tracing::error!(?reason, "the HSM is given up");
            board.health = Health::Failed { reason };
            board.is_rung = true;
            self.bell.notify_all();
        }
    }

    /// Waits for the bell, at most `timeout`.
    pub(crate) fn wait(&self, timeout: Duration) -> Wake {
        let (mut board, _) = self
            .bell
            .wait_timeout_while(self.lock(), timeout, |board| !board.is_rung && !board.is_stopping)
            .unwrap_or_else(PoisonError::into_inner);
        let wake =
            Wake { is_suspicious: board.is_suspicious, is_stopping: board.is_stopping, health: board.health };
        board.is_rung = false;
        board.is_suspicious = false;
        wake
    }

    fn suspect(&self) {
        let mut board = self.lock();
        board.is_suspicious = true;
        board.is_rung = true;
        self.bell.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Draws conclusions from every operation before the caller's own observer hears of it.
///
/// A request that was wrong says nothing about the HSM, so clients cannot bring it down with garbage; a
/// sick answer only makes the keeper ask with a request of its own.
pub(crate) struct HealthObserver {
    pub(crate) board: Arc<HealthBoard>,
    pub(crate) next: Arc<dyn Observer>,
}

impl Observer for HealthObserver {
    fn before(&self, operation: &'static str) {
        self.next.before(operation);
    }

    fn after(&self, operation: &'static str, outcome: &Result<(), ErrorClass>, elapsed: Duration) {
        match outcome {
            Err(ErrorClass::PinIncorrect) => self.board.fail(FailureReason::PinIncorrect),
            Err(ErrorClass::TokenGone | ErrorClass::LoginLost) => {
                self.board.is_away();
                self.board.suspect();
            }
            Err(ErrorClass::DeviceSick | ErrorClass::RetryOnNewSession) => self.board.suspect(),
            Ok(())
            | Err(
                ErrorClass::CallersFault
                | ErrorClass::Busy
                | ErrorClass::Deadline
                | ErrorClass::NotFound
                | ErrorClass::Unsupported
                | ErrorClass::Stopped,
            ) => {}
        }
        self.next.after(operation, outcome, elapsed);
    }

    fn queue_len(&self, len: usize) {
        self.next.queue_len(len);
    }
}
