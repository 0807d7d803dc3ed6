//! Whether the HSM can be used, and what the pool's keeper has to do about it.

use crate::breaker::{Breaker, BreakerOptions};
use crate::error::ErrorClass;
use crate::observe::{DECRYPT_WITH, Observer};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Whether the HSM can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It can.
    Healthy,
    /// It is there and failed several times in a row: the circuit breaker is open. Jobs are refused until a
    /// self-test passes.
    CircuitOpen {
        /// When the next self-test is due.
        probe_at: Instant,
    },
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

/// What opening a session is called where operations are watched.
pub(crate) const OPEN_SESSION: &str = "open_session";

/// The pool's health, and the bell of its keeper.
pub(crate) struct HealthBoard {
    board: Mutex<Board>,
    bell: Condvar,
    observer: Arc<dyn Observer>,
}

struct Board {
    presence: Presence,
    breaker: Breaker,
    /// Something was odd; the keeper looks now instead of at its next round.
    is_suspicious: bool,
    /// A call failed in a way that only the device's self-test can explain.
    wants_probe: bool,
    is_rung: bool,
    is_stopping: bool,
}

#[derive(Clone, Copy)]
enum Presence {
    There,
    Away { since: Instant },
    Failed { reason: FailureReason },
}

/// Why the keeper woke up.
pub(crate) struct Wake {
    pub(crate) is_suspicious: bool,
    pub(crate) wants_probe: bool,
    pub(crate) is_stopping: bool,
    pub(crate) health: Health,
}

impl Board {
    fn health(&self) -> Health {
        match (self.presence, self.breaker.probe_at()) {
            (Presence::Failed { reason }, _) => Health::Failed { reason },
            (Presence::Away { since }, _) => Health::Away { since },
            (Presence::There, Some(probe_at)) => Health::CircuitOpen { probe_at },
            (Presence::There, None) => Health::Healthy,
        }
    }
}

impl HealthBoard {
    pub(crate) fn new(breaker: BreakerOptions, observer: Arc<dyn Observer>) -> Self {
        let board = Board {
            presence: Presence::There,
            breaker: Breaker::new(breaker),
            is_suspicious: false,
            wants_probe: false,
            is_rung: false,
            is_stopping: false,
        };
        Self { board: Mutex::new(board), bell: Condvar::new(), observer }
    }

    pub(crate) fn health(&self) -> Health {
        self.lock().health()
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
        if let Presence::Away { since } = board.presence {
            tracing::info!(away_ms = since.elapsed().as_millis(), "the HSM answers again");
            board.presence = Presence::There;
        }
    }

    /// The HSM did not answer. Gives since when.
    pub(crate) fn is_away(&self) -> Option<Instant> {
        let mut board = self.lock();
        match board.presence {
            Presence::Failed { .. } => None,
            Presence::Away { since } => Some(since),
            Presence::There => {
                let since = Instant::now();
                tracing::warn!("the HSM does not answer");
                board.presence = Presence::Away { since };
                Some(since)
            }
        }
    }

    /// The HSM is given up. The first reason stays.
    pub(crate) fn fail(&self, reason: FailureReason) {
        let mut board = self.lock();
        if !matches!(board.presence, Presence::Failed { .. }) {
            tracing::error!(?reason, "the HSM is given up");
            board.presence = Presence::Failed { reason };
            board.is_rung = true;
            self.bell.notify_all();
        }
    }

    /// The device failed a caller: counted, and the keeper looks.
    pub(crate) fn device_failed(&self) {
        let mut board = self.lock();
        let is_opened = board.breaker.failed(Instant::now());
        board.is_suspicious = true;
        // Presence alone may hide that one mechanism is broken.
        board.wants_probe = true;
        board.is_rung = true;
        self.bell.notify_all();
        drop(board);
        if is_opened {
            tracing::error!("the HSM failed too often in a row; calls are refused until a self-test passes");
            self.observer.breaker(true);
        }
    }

    /// The keeper has run the self-test.
    pub(crate) fn probed(&self, is_passed: bool) {
        let is_changed = self.lock().breaker.probed(is_passed, Instant::now());
        if is_changed {
            if is_passed {
                tracing::info!("the HSM's self-test passed; calls go to it again");
            } else {
                tracing::error!("the HSM's self-test does not pass; calls are refused until it does");
            }
            self.observer.breaker(!is_passed);
        }
    }

    /// Waits for the bell, at most `timeout`.
    pub(crate) fn wait(&self, timeout: Duration) -> Wake {
        let (mut board, _) = self
            .bell
            .wait_timeout_while(self.lock(), timeout, |board| !board.is_rung && !board.is_stopping)
            .unwrap_or_else(PoisonError::into_inner);
        let wake = Wake {
            is_suspicious: board.is_suspicious,
            wants_probe: board.wants_probe,
            is_stopping: board.is_stopping,
            health: board.health(),
        };
        board.is_rung = false;
        board.is_suspicious = false;
        board.wants_probe = false;
        wake
    }

    fn suspect(&self, wants_probe: bool) {
        let mut board = self.lock();
        board.is_suspicious = true;
        board.wants_probe |= wants_probe;
        board.is_rung = true;
        self.bell.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Draws conclusions from every operation before the caller's own observer hears of it.
///
/// A request that was wrong says nothing about the HSM, so clients cannot bring it down with garbage. A failed
/// decryption is not counted either, whatever the device answered: a device may answer a forged ciphertext
/// with any error. It makes the keeper test the device with values of its own, and only that counts.
pub(crate) struct HealthObserver {
    pub(crate) board: Arc<HealthBoard>,
    /// Whether the operations are those of callers. The keeper draws its own conclusions, and what it
    /// succeeds in must not hide what callers meet.
    pub(crate) is_for_callers: bool,
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
                self.board.suspect(false);
            }
            Err(ErrorClass::RetryOnNewSession) => self.board.suspect(false),
            Err(ErrorClass::DeviceSick) if !self.is_for_callers => {}
            Err(ErrorClass::DeviceSick) if operation == "open" || operation == DECRYPT_WITH => {
                self.board.suspect(true)
            }
            Err(ErrorClass::DeviceSick) => self.board.device_failed(),
            // A session opens on a device that does nothing else, and a replaced worker opens one.
            Ok(()) if self.is_for_callers && operation != OPEN_SESSION => {
                self.board.lock().breaker.succeeded();
            }
            Ok(())
            | Err(
                ErrorClass::CallersFault
                | ErrorClass::Busy
                | ErrorClass::Deadline
                | ErrorClass::NoAnswer
                | ErrorClass::CircuitOpen
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

    fn stuck_threads(&self, count: usize) {
        self.next.stuck_threads(count);
    }
}
