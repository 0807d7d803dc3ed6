//! The control file: TOML, read strictly. The format is docs/formats/hsm-sim-control.md.

use std::time::Duration;

use serde::Deserialize;

use crate::fault::error_code;
use crate::fault::function::{Function, FunctionSet};
use crate::fault::script::{Action, Delay, Loss, Moment, Occasion, Rule, Script, TokenScript};
use crate::store::SlotId;

const FORMAT: u64 = 1;
const RULE_COUNT_MAX: usize = 1_000;
const CALL_COUNT_MAX: usize = 1_000;
const DELAY_MAX_US: u64 = 600_000_000;
const HANG_MAX_MS: u64 = 600_000;
const SESSION_COUNT_MAX: u64 = 1_000_000;

/// Where the file is wrong, and how.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    #[error("the file is not UTF-8")]
    NotText,
    #[error("line {line}: {reason}")]
    Line { line: usize, reason: String },
    #[error("{key}: {reason}")]
    Key { key: &'static str, reason: String },
    #[error("{table} {number}: {key}: {reason}")]
    Table { table: &'static str, number: usize, key: &'static str, reason: String },
}

/// A key that is wrong, and why, before it is known in which table it stands.
type Wrong = (&'static str, String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    format: u64,
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    token: Vec<RawToken>,
    #[serde(default)]
    rule: Vec<RawRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawToken {
    slot: u64,
    present: Option<bool>,
    insertion: Option<u64>,
    session_count_max: Option<u64>,
    user_pin_locked: Option<bool>,
    so_pin_locked: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    functions: Vec<String>,
    slot: Option<u64>,
    calls: Option<Vec<u64>>,
    from_call: Option<u64>,
    every: Option<u64>,
    probability: Option<f64>,
    action: RawAction,
    moment: Option<RawMoment>,
    error: Option<String>,
    delay_us: Option<u64>,
    min_us: Option<u64>,
    mean_us: Option<u64>,
    max_us: Option<u64>,
    hang_ms: Option<u64>,
    bit: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RawAction {
    Fail,
    Delay,
    Hang,
    Crash,
    LoseSession,
    LoseSessions,
    LoseLogin,
    Corrupt,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RawMoment {
    Before,
    After,
}

impl Script {
    pub fn parse(bytes: &[u8]) -> Result<Self, ControlError> {
        let text = std::str::from_utf8(bytes).map_err(|_| ControlError::NotText)?;
        let file: RawFile = toml::from_str(text).map_err(|error| line_of(&error, text))?;
        if file.format != FORMAT {
            return Err(ControlError::Key { key: "format", reason: format!("only {FORMAT} is known") });
        }
        if file.rule.len() > RULE_COUNT_MAX {
            return Err(ControlError::Key { key: "rule", reason: format!("more than {RULE_COUNT_MAX}") });
        }
        let mut tokens: Vec<TokenScript> = Vec::new();
        for (index, raw) in file.token.into_iter().enumerate() {
            let token = raw.check(&tokens).map_err(in_table("token", index))?;
            tokens.push(token);
        }
        let rules = file.rule.into_iter().enumerate();
        let rules = rules.map(|(index, raw)| raw.check().map_err(in_table("rule", index)));
        Ok(Self { seed: file.seed, tokens, rules: rules.collect::<Result<_, _>>()? })
    }
}

fn line_of(error: &toml::de::Error, text: &str) -> ControlError {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = 1 + before.matches('\n').count();
    let reason = error.message().lines().collect::<Vec<_>>().join("; ");
    ControlError::Line { line, reason }
}

fn in_table(table: &'static str, index: usize) -> impl FnOnce(Wrong) -> ControlError {
    move |(key, reason)| ControlError::Table { table, number: index + 1, key, reason }
}

impl RawToken {
    fn check(self, others: &[TokenScript]) -> Result<TokenScript, Wrong> {
        let slot = SlotId(self.slot);
        if others.iter().any(|other| other.slot == slot) {
            return Err(("slot", "this slot has a table already".to_owned()));
        }
        let session_count_max = in_range("session_count_max", self.session_count_max, 0, SESSION_COUNT_MAX)?;
        Ok(TokenScript {
            present: self.present.unwrap_or(true),
            slot,
            insertion: self.insertion.unwrap_or(0),
            session_count_max: session_count_max.and_then(|count| usize::try_from(count).ok()),
            user_pin_locked: self.user_pin_locked.unwrap_or(false),
            so_pin_locked: self.so_pin_locked.unwrap_or(false),
        })
    }
}

impl RawRule {
    fn check(self) -> Result<Rule, Wrong> {
        let functions = self.function_set()?;
        self.refuse_keys_of_other_actions()?;
        Ok(Rule {
            functions,
            slot: self.slot.map(SlotId),
            occasion: self.occasion()?,
            action: self.action()?,
        })
    }

    fn function_set(&self) -> Result<FunctionSet, Wrong> {
        let wrong = |reason: String| ("functions", reason);
        let names: Vec<&str> = self.functions.iter().map(String::as_str).collect();
        if names.is_empty() {
            return Err(wrong("names none".to_owned()));
        }
        if names == ["*"] {
            if self.action == RawAction::Corrupt {
                return Err(wrong("not every function gives bytes; name those to corrupt".to_owned()));
            }
            return Ok(FunctionSet::EVERY);
        }
        names.into_iter().try_fold(FunctionSet::NONE, |functions, name| {
            let function = Function::from_name(name)
                .ok_or_else(|| wrong(format!("{name:?} is not a function that can be scripted")))?;
            if self.action == RawAction::Corrupt && !function.gives_bytes() {
                return Err(wrong(format!("{name} gives no bytes to corrupt")));
            }
            Ok(functions.with(function))
        })
    }

    fn refuse_keys_of_other_actions(&self) -> Result<(), Wrong> {
        use RawAction::{Corrupt, Crash, Delay, Fail, Hang};
        let keys: [(&str, bool, &[RawAction]); 8] = [
            ("moment", self.moment.is_some(), &[Fail, Delay, Hang, Crash]),
            ("error", self.error.is_some(), &[Fail]),
            ("delay_us", self.delay_us.is_some(), &[Delay]),
            ("min_us", self.min_us.is_some(), &[Delay]),
            ("mean_us", self.mean_us.is_some(), &[Delay]),
            ("max_us", self.max_us.is_some(), &[Delay]),
            ("hang_ms", self.hang_ms.is_some(), &[Hang]),
            ("bit", self.bit.is_some(), &[Corrupt]),
        ];
        match keys.into_iter().find(|(_, is_there, actions)| *is_there && !actions.contains(&self.action)) {
            Some((key, ..)) => Err((key, "does not go with this action".to_owned())),
            None => Ok(()),
        }
    }

    fn occasion(&self) -> Result<Occasion, Wrong> {
        let from_call = in_range("from_call", self.from_call, 1, u64::MAX)?.map(Occasion::From);
        let every = in_range("every", self.every, 1, u64::MAX)?.map(Occasion::Every);
        let calls = self.calls.as_ref().map(|calls| {
            let is_sound = (1..=CALL_COUNT_MAX).contains(&calls.len()) && !calls.contains(&0);
            let reason = || format!("must be 1 to {CALL_COUNT_MAX} numbers from 1");
            if is_sound { Ok(Occasion::Calls(calls.clone())) } else { Err(("calls", reason())) }
        });
        let probability = self.probability.map(|probability| {
            let is_sound = probability > 0.0 && probability <= 1.0;
            let reason = || "must be more than 0 and at most 1".to_owned();
            if is_sound { Ok(Occasion::Probability(probability)) } else { Err(("probability", reason())) }
        });
        let mut given =
            [calls.transpose()?, from_call, every, probability.transpose()?].into_iter().flatten();
        match (given.next(), given.next()) {
            (None, _) => Ok(Occasion::Always),
            (Some(occasion), None) => Ok(occasion),
            (Some(_), Some(_)) => {
                Err(("calls", "at most one of calls, from_call, every and probability".to_owned()))
            }
        }
    }

    fn action(&self) -> Result<Action, Wrong> {
        let moment = match self.moment {
            None | Some(RawMoment::Before) => Moment::BeforeWork,
            Some(RawMoment::After) => Moment::AfterWork,
        };
        match self.action {
            RawAction::Fail => {
                let name = self.error.as_deref().ok_or(("error", "is missing".to_owned()))?;
                let code = error_code::parse(name)
                    .ok_or_else(|| ("error", format!("{name:?} is not an error of PKCS#11")))?;
                Ok(Action::Fail { code, moment })
            }
            RawAction::Delay => Ok(Action::Delay { delay: self.delay()?, moment }),
            RawAction::Hang => {
                let limit = in_range("hang_ms", self.hang_ms, 1, HANG_MAX_MS)?;
                Ok(Action::Hang { limit: limit.map(Duration::from_millis), moment })
            }
            RawAction::Crash => Ok(Action::Crash { moment }),
            RawAction::LoseSession => Ok(Action::Lose(Loss::Session)),
            RawAction::LoseSessions => Ok(Action::Lose(Loss::Sessions)),
            RawAction::LoseLogin => Ok(Action::Lose(Loss::Login)),
            RawAction::Corrupt => Ok(Action::Corrupt { bit: self.bit }),
        }
    }

    fn delay(&self) -> Result<Delay, Wrong> {
        let micros = |key, value| in_range(key, value, 0, DELAY_MAX_US);
        let given = (
            micros("delay_us", self.delay_us)?,
            micros("min_us", self.min_us)?,
            micros("mean_us", self.mean_us)?,
            micros("max_us", self.max_us)?,
        );
        match given {
            (Some(fixed), None, None, None) => Ok(Delay::Fixed(fixed)),
            (None, Some(min), None, Some(max)) if min <= max => Ok(Delay::Uniform { min, max }),
            (None, Some(_), None, Some(_)) => Err(("min_us", "is more than max_us".to_owned())),
            (None, None, Some(mean), Some(max)) => Ok(Delay::Exponential { mean, max }),
            _ => {
                let reason = "needs delay_us, or min_us and max_us, or mean_us and max_us";
                Err(("delay_us", reason.to_owned()))
            }
        }
    }
}

fn in_range(key: &'static str, value: Option<u64>, min: u64, max: u64) -> Result<Option<u64>, Wrong> {
    match value {
        Some(value) if !(min..=max).contains(&value) => {
            let most = if max == u64::MAX { String::new() } else { format!(" and at most {max}") };
            Err((key, format!("must be at least {min}{most}")))
        }
        other => Ok(other),
    }
}

#[cfg(test)]
mod tests {
    use super::{ControlError, Script};
    use crate::fault::script::{Action, Delay, Moment, Occasion};

    fn refused(text: &str) -> String {
        Script::parse(text.as_bytes()).expect_err(text).to_string()
    }

    fn rule(lines: &str) -> String {
        format!("format = 1\n[[rule]]\n{lines}")
    }

    #[test]
    fn what_is_not_in_the_document_is_refused_with_its_place_and_reason() {
        assert!(refused("").starts_with("line 1: missing field `format`"), "{}", refused(""));
        assert_eq!(refused("format = 2"), "format: only 1 is known");
        let unknown = refused("format = 1\nsede = 3\n");
        assert!(unknown.starts_with("line 2: unknown field `sede`"), "{unknown}");
        let negative = refused("format = 1\nseed = -1\n");
        assert!(negative.starts_with("line 2: invalid value"), "{negative}");
        let text = refused("format = 1\n[[token]]\nslot = \"1\"\n");
        assert!(text.starts_with("line 3: invalid type"), "{text}");
        let torn = refused("format = 1\n[[rule]]\nfunct");
        assert!(torn.starts_with("line 3: "), "{torn}");
        assert!(!torn.contains('\n'), "one line");
        assert_eq!(Script::parse(&[0xff]).err(), Some(ControlError::NotText));
        let twice = "format = 1\n[[token]]\nslot = 1\n[[token]]\nslot = 1\n";
        assert_eq!(refused(twice), "token 2: slot: this slot has a table already");
        let many = "format = 1\n[[token]]\nslot = 1\nsession_count_max = 1000001";
        assert_eq!(refused(many), "token 1: session_count_max: must be at least 0 and at most 1000000");
    }

    #[test]
    fn a_rule_that_makes_no_sense_is_refused() {
        for (lines, place) in [
            ("functions = []\naction = 'crash'", "rule 1: functions: names none"),
            ("functions = ['C_Encypt']\naction = 'crash'", "rule 1: functions: \"C_Encypt\" is not"),
            ("functions = ['C_GetFunctionList']\naction = 'crash'", "rule 1: functions: "),
            ("functions = ['*', 'C_Sign']\naction = 'crash'", "rule 1: functions: \"*\" is not"),
            ("functions = ['C_Sign']\naction = 'explode'", "line 4: unknown variant `explode`"),
            ("functions = ['C_Sign']", "line 2: missing field `action`"),
            ("functions = ['C_Sign']\naction = 'fail'", "rule 1: error: is missing"),
            ("functions = ['C_Sign']\naction = 'fail'\nerror = 'CKR_OK'", "rule 1: error: \"CKR_OK\" is not"),
            ("functions = ['C_Sign']\naction = 'fail'\nerror = 'CKR_NO'", "rule 1: error: "),
            ("functions = ['C_Sign']\naction = 'fail'\nerror = '0x30'", "rule 1: error: "),
            ("functions = ['C_Sign']\naction = 'crash'\nerror = 'CKR_CANCEL'", "rule 1: error: does not go"),
            ("functions = ['C_Sign']\naction = 'lose_login'\nmoment = 'after'", "rule 1: moment: does not"),
            ("functions = ['C_Sign']\naction = 'crash'\nevery = 0", "rule 1: every: must be at least 1"),
            ("functions = ['C_Sign']\naction = 'crash'\nfrom_call = 0", "rule 1: from_call: "),
            ("functions = ['C_Sign']\naction = 'crash'\ncalls = []", "rule 1: calls: must be"),
            ("functions = ['C_Sign']\naction = 'crash'\ncalls = [0]", "rule 1: calls: must be"),
            ("functions = ['C_Sign']\naction = 'crash'\nprobability = 0.0", "rule 1: probability: "),
            ("functions = ['C_Sign']\naction = 'crash'\nprobability = 1.1", "rule 1: probability: "),
            ("functions = ['C_Sign']\naction = 'crash'\nprobability = nan", "rule 1: probability: "),
            (
                "functions = ['C_Sign']\naction = 'crash'\nevery = 1\ncalls = [1]",
                "rule 1: calls: at most one",
            ),
            ("functions = ['C_Sign']\naction = 'delay'", "rule 1: delay_us: needs"),
            ("functions = ['C_Sign']\naction = 'delay'\nmin_us = 1", "rule 1: delay_us: needs"),
            ("functions = ['C_Sign']\naction = 'delay'\nmean_us = 1", "rule 1: delay_us: needs"),
            ("functions = ['C_Sign']\naction = 'delay'\nmin_us = 2\nmax_us = 1", "rule 1: min_us: is more"),
            ("functions = ['C_Sign']\naction = 'delay'\ndelay_us = 600000001", "rule 1: delay_us: must be"),
            ("functions = ['C_Sign']\naction = 'hang'\nhang_ms = 0", "rule 1: hang_ms: must be"),
            ("functions = ['C_Sign']\naction = 'hang'\nbit = 0", "rule 1: bit: does not go"),
            ("functions = ['*']\naction = 'corrupt'", "rule 1: functions: not every"),
            ("functions = ['C_Login']\naction = 'corrupt'", "rule 1: functions: C_Login gives no bytes"),
        ] {
            let said = refused(&rule(lines));
            assert!(said.starts_with(place), "{lines:?} says: {said}");
        }
    }

    #[test]
    fn the_example_of_the_document_is_read_as_it_says() {
        let script = Script::parse(
            b"format = 1\nseed = 42\n[[token]]\nslot = 1\npresent = false\n\
              [[rule]]\nfunctions = ['C_Sign']\nslot = 1\ncalls = [3, 5]\naction = 'fail'\n\
              error = '0x80000020'\nmoment = 'after'\n\
              [[rule]]\nfunctions = ['*']\naction = 'delay'\nmean_us = 1\nmax_us = 2\n",
        )
        .expect("sound");
        assert_eq!(script.seed, 42);
        assert!(!script.tokens[0].present);
        assert_eq!(script.rules[0].occasion, Occasion::Calls(vec![3, 5]));
        let expected = Action::Fail { code: 0x8000_0020, moment: Moment::AfterWork };
        assert_eq!(script.rules[0].action, expected);
        let delay = Delay::Exponential { mean: 1, max: 2 };
        assert_eq!(script.rules[1].action, Action::Delay { delay, moment: Moment::BeforeWork });
        assert_eq!(script.rules[1].occasion, Occasion::Always);
    }
}
