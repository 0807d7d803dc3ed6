//! What a control file says, once it is known to make sense.

use std::time::Duration;

use cryptoki_sys as ck;
use sha2::{Digest, Sha256};

use crate::fault::function::FunctionSet;
use crate::pin::Role;
use crate::store::SlotId;

#[derive(Debug, Default)]
pub struct Script {
    pub seed: u64,
    pub tokens: Vec<TokenScript>,
    pub rules: Vec<Rule>,
}

/// The scripted state of one token. The default is that of a token that nobody scripted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenScript {
    pub present: bool,
    pub slot: SlotId,
    pub insertion: u64,
    pub session_count_max: Option<usize>,
    pub user_pin_locked: bool,
    pub so_pin_locked: bool,
}

impl TokenScript {
    pub fn unscripted(slot: SlotId) -> Self {
        Self {
            present: true,
            slot,
            insertion: 0,
            session_count_max: None,
            user_pin_locked: false,
            so_pin_locked: false,
        }
    }

    pub fn locks_pin_of(&self, role: Role) -> bool {
        match role {
            Role::User => self.user_pin_locked,
            Role::SecurityOfficer => self.so_pin_locked,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    pub functions: FunctionSet,
    /// `None`: calls on any slot and on none.
    pub slot: Option<SlotId>,
    pub occasion: Occasion,
    pub action: Action,
}

/// Which of the calls that fit a rule it acts on. Calls count from 1.
#[derive(Debug, Clone, PartialEq)]
pub enum Occasion {
    Always,
    Calls(Vec<u64>),
    From(u64),
    Every(u64),
    Probability(f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    BeforeWork,
    AfterWork,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Fail {
        code: ck::CK_RV,
        moment: Moment,
    },
    Delay {
        delay: Delay,
        moment: Moment,
    },
    /// Without a limit the call stands still until the rule is gone.
    Hang {
        limit: Option<Duration>,
        moment: Moment,
    },
    Crash {
        moment: Moment,
    },
    Lose(Loss),
    /// `None`: which bit is drawn.
    Corrupt {
        bit: Option<u64>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    Session,
    Sessions,
    Login,
}

/// In microseconds.
#[derive(Debug, Clone, PartialEq)]
pub enum Delay {
    Fixed(u64),
    Uniform { min: u64, max: u64 },
    Exponential { mean: u64, max: u64 },
}

impl Script {
    pub fn token(&self, slot: SlotId) -> TokenScript {
        let scripted = self.tokens.iter().find(|token| token.slot == slot);
        scripted.cloned().unwrap_or_else(|| TokenScript::unscripted(slot))
    }

    /// Whether anything here can happen to the token in this slot.
    pub fn touches(&self, slot: SlotId) -> bool {
        self.tokens.iter().any(|token| token.slot == slot)
            || self.rules.iter().any(|rule| rule.slot.is_none_or(|named| named == slot))
    }

    /// The draws of one call that a rule has counted; rules count from 1 here, as in the file.
    pub fn draws(&self, rule: usize, call: u64) -> Draws {
        Draws { seed: self.seed, rule: rule as u64, call }
    }
}

impl Occasion {
    pub fn is_on(&self, call: u64, draws: &Draws) -> bool {
        match self {
            Self::Always => true,
            Self::Calls(calls) => calls.contains(&call),
            Self::From(first) => call >= *first,
            Self::Every(period) => call.is_multiple_of(*period),
            Self::Probability(probability) => draws.fraction(Purpose::Probability) < *probability,
        }
    }
}

impl Delay {
    pub fn duration(&self, draws: &Draws) -> Duration {
        let micros = match self {
            Self::Fixed(micros) => return Duration::from_micros(*micros),
            Self::Uniform { min, max } => {
                let (min, max) = (*min as f64, *max as f64);
                min + draws.fraction(Purpose::Delay) * (max - min)
            }
            Self::Exponential { mean, max } => {
                let drawn = -(*mean as f64) * (1.0 - draws.fraction(Purpose::Delay)).ln();
                drawn.min(*max as f64)
            }
        };
        Duration::from_secs_f64(micros / 1e6)
    }
}

/// Random numbers that depend on nothing but the seed, the rule and the count of the call, so that a
/// run can be repeated even when threads take turns in another order.
#[derive(Debug, Clone, Copy)]
pub struct Draws {
    seed: u64,
    rule: u64,
    call: u64,
}

#[derive(Debug, Clone, Copy)]
enum Purpose {
    Probability = 1,
    Delay = 2,
    Bit = 3,
}

impl Draws {
    pub fn call(&self) -> u64 {
        self.call
    }

    /// The bit to corrupt, of `bit_count`, which is not zero.
    pub fn bit(&self, bit_count: u64) -> u64 {
        self.number(Purpose::Bit) % bit_count
    }

    /// At least 0 and less than 1.
    fn fraction(&self, purpose: Purpose) -> f64 {
        // A double has 53 bits; all of them are drawn.
        const STEPS: f64 = (1_u64 << 53) as f64;
        (self.number(purpose) >> 11) as f64 / STEPS
    }

    fn number(&self, purpose: Purpose) -> u64 {
        let digest = Sha256::new()
            .chain_update(self.seed.to_be_bytes())
            .chain_update(self.rule.to_be_bytes())
            .chain_update(self.call.to_be_bytes())
            .chain_update([purpose as u8])
            .finalize();
        digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Delay, Occasion, Script};

    fn seeded(seed: u64) -> Script {
        Script { seed, ..Script::default() }
    }

    /// Computed apart from this code, with Python's hashlib. If this fails, runs with an old control
    /// file do not repeat any more: the format has changed.
    #[test]
    fn draws_are_those_of_the_document() {
        let bits: Vec<_> = (1..=4).map(|call| seeded(42).draws(1, call).bit(1 << 32)).collect();
        assert_eq!(bits, EXPECTED_BITS);
    }

    const EXPECTED_BITS: [u64; 4] = [145_478_588, 3_960_512_930, 1_991_153_408, 3_473_925_977];

    #[test]
    fn a_probability_is_met_in_the_long_run_and_depends_on_the_seed() {
        let acted = |seed| {
            let on = Occasion::Probability(0.3);
            (1..=10_000).filter(|call| on.is_on(*call, &seeded(seed).draws(1, *call))).collect::<Vec<u64>>()
        };
        let (one, other) = (acted(1), acted(2));
        assert!((2_800..3_200).contains(&one.len()), "{} of 10,000", one.len());
        assert_ne!(one, other);
        assert_eq!(one, acted(1));
    }

    #[test]
    fn delays_keep_to_their_distribution_and_their_cap() {
        let mean_of = |delay: &Delay| {
            let total: Duration = (1..=10_000).map(|call| delay.duration(&seeded(7).draws(1, call))).sum();
            total / 10_000
        };
        let uniform = Delay::Uniform { min: 1_000, max: 3_000 };
        assert!((1_960..2_040).contains(&mean_of(&uniform).as_micros()), "{:?}", mean_of(&uniform));
        let exponential = Delay::Exponential { mean: 1_000, max: 1_000_000 };
        assert!((950..1_050).contains(&mean_of(&exponential).as_micros()), "{:?}", mean_of(&exponential));
        let capped = Delay::Exponential { mean: 1_000, max: 1_500 };
        let longest = (1..=10_000).map(|call| capped.duration(&seeded(7).draws(1, call))).max();
        assert_eq!(longest, Some(Duration::from_micros(1_500)));
    }

    #[test]
    fn occasions_count_from_one() {
        let acted = |occasion: &Occasion| {
            (1..=7).filter(|call| occasion.is_on(*call, &seeded(0).draws(1, *call))).collect::<Vec<u64>>()
        };
        assert_eq!(acted(&Occasion::Always), [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(acted(&Occasion::Calls(vec![1, 6])), [1, 6]);
        assert_eq!(acted(&Occasion::From(6)), [6, 7]);
        assert_eq!(acted(&Occasion::Every(3)), [3, 6]);
    }
}
