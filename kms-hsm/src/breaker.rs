//! The circuit breaker: after several failures of the device in a row nobody is sent there until a self-test
//! has passed.
//!
//! What counts is decided in [`crate::health`]; here is only the counting. A client's request is never the
//! probe: the keeper asks with values of its own.

use std::time::{Duration, Instant};

/// When the breaker opens and how often it is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerOptions {
    /// So many failures of the device in a row open it; at least 1.
    pub failures: u32,
    /// How long it stays open before the first self-test. After each that fails it stays open for twice as long: a
    /// device that was odd for a moment is back at once, and one that is broken is left in peace.
    pub probe_first: Duration,
    /// How long it stays open before a self-test at most.
    pub probe_interval: Duration,
}

impl Default for BreakerOptions {
    fn default() -> Self {
        Self { failures: 5, probe_first: Duration::from_millis(250), probe_interval: Duration::from_secs(1) }
    }
}

#[derive(Debug)]
pub(crate) struct Breaker {
    options: BreakerOptions,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { probe_at: Instant, wait: Duration },
}

impl Breaker {
    pub(crate) fn new(options: BreakerOptions) -> Self {
        Self { options, state: State::Closed { failures: 0 } }
    }

    /// When the next self-test is due; `None` while it is closed.
    pub(crate) fn probe_at(&self) -> Option<Instant> {
        match self.state {
            State::Closed { .. } => None,
            State::Open { probe_at, .. } => Some(probe_at),
        }
    }

    /// The device answered a caller. An answer that was on its way when the breaker opened changes nothing:
    /// only a self-test closes it.
    pub(crate) fn succeeded(&mut self) {
        if let State::Closed { .. } = self.state {
            self.state = State::Closed { failures: 0 };
        }
    }

    /// The device failed a caller. `true` when that opened the breaker.
    pub(crate) fn failed(&mut self, now: Instant) -> bool {
        match self.state {
            State::Open { .. } => false,
            State::Closed { failures } if failures + 1 >= self.options.failures => {
                self.open(now, self.options.probe_first)
            }
            State::Closed { failures } => {
                self.state = State::Closed { failures: failures + 1 };
                false
            }
        }
    }

    /// The self-test was run. `true` when that opened or closed the breaker.
    pub(crate) fn probed(&mut self, is_passed: bool, now: Instant) -> bool {
        match (self.state, is_passed) {
            (State::Open { .. }, true) => {
                self.state = State::Closed { failures: 0 };
                true
            }
            // That the device does what it must says nothing about the failures that callers have met.
            (State::Closed { .. }, true) => false,
            (State::Open { wait, .. }, false) => {
                self.open(now, wait * 2);
                false
            }
            (State::Closed { .. }, false) => self.open(now, self.options.probe_first),
        }
    }

    fn open(&mut self, now: Instant, wait: Duration) -> bool {
        let wait = wait.min(self.options.probe_interval);
        self.state = State::Open { probe_at: now + wait, wait };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_secs(2);
    const INTERVAL: Duration = Duration::from_secs(5);

    fn breaker() -> (Breaker, Instant) {
        (
            Breaker::new(BreakerOptions { failures: 3, probe_first: FIRST, probe_interval: INTERVAL }),
            Instant::now(),
        )
    }

    fn fail(breaker: &mut Breaker, now: Instant) {
        let opened = [breaker.failed(now), breaker.failed(now), breaker.failed(now)];
        assert_eq!(opened, [false, false, true]);
    }

    #[test]
    fn it_opens_at_the_configured_failure_in_a_row_and_not_before() {
        let (mut breaker, now) = breaker();
        assert_eq!([breaker.failed(now), breaker.failed(now)], [false, false]);
        breaker.succeeded();
        assert_eq!([breaker.failed(now), breaker.failed(now)], [false, false]);
        assert_eq!(breaker.probe_at(), None);
        assert!(breaker.failed(now));
        assert_eq!(breaker.probe_at(), Some(now + FIRST));
    }

    #[test]
    fn a_late_success_does_not_close_it_and_a_late_failure_does_not_move_the_probe() {
        let (mut breaker, now) = breaker();
        fail(&mut breaker, now);
        breaker.succeeded();
        assert!(!breaker.failed(now + FIRST / 2));
        assert_eq!(breaker.probe_at(), Some(now + FIRST));
    }

    #[test]
    fn only_a_passed_self_test_closes_it() {
        let (mut breaker, now) = breaker();
        fail(&mut breaker, now);
        for wait in [2 * FIRST, INTERVAL, INTERVAL] {
            assert!(!breaker.probed(false, now), "it was open and stays so");
            assert_eq!(breaker.probe_at(), Some(now + wait), "twice as long, up to the interval");
        }
        assert!(breaker.probed(true, now + INTERVAL));
        assert_eq!(breaker.probe_at(), None);
        fail(&mut breaker, now);
        assert_eq!(breaker.probe_at(), Some(now + FIRST), "the next time it begins anew");
        assert!(breaker.probed(true, now + FIRST));
        assert!(!breaker.failed(now), "it counts from zero again");
    }

    #[test]
    fn a_failed_self_test_opens_it_at_once_and_a_passed_one_forgives_nothing() {
        let (mut breaker, now) = breaker();
        assert!(breaker.probed(false, now));
        assert!(breaker.probed(true, now + INTERVAL));
        assert_eq!([breaker.failed(now), breaker.failed(now)], [false, false]);
        assert!(!breaker.probed(true, now));
        assert!(breaker.failed(now), "the two before the self-test still count");
    }
}
