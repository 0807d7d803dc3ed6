//! Faults: what a control file makes of the calls of a client. `ffi/gate` is the one place that asks.
//!
//! - `control`: the file format; `script`: what it says; `function` and `error_code`: its names.
//! - `watch`: which version of the file counts, and what a new version does to the tokens.
//!
//! The format is docs/formats/hsm-sim-control.md.

mod control;
mod error_code;
mod function;
mod script;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cryptoki_sys as ck;

use crate::module::Module;
use crate::session::SessionHandle;
use crate::store::SlotId;
pub use function::Function;
pub use script::TokenScript;
use script::{Action, Loss, Moment, Rule, Script};
use watch::Version;

/// How often a call that stands still looks at the file.
const PAUSE_STEP: Duration = Duration::from_millis(5);

/// What a call is about, as far as its parameters say.
#[derive(Debug, Clone, Copy)]
pub enum Subject {
    Nothing,
    Slot(SlotId),
    Session(SessionHandle),
}

/// A call that goes by a version of the control file.
pub struct ScriptedCall {
    version: Arc<Version>,
    function: Function,
    slot: Option<SlotId>,
    session: Option<SessionHandle>,
    /// Places of rules that act after the work, with their counts of this call.
    later: Vec<(usize, u64)>,
}

/// The scripted state of the token in a slot. May be asked for under any lock.
pub fn token_script(slot: SlotId) -> TokenScript {
    let version = watch::current();
    let script = version.as_ref().and_then(|version| version.script.as_ref());
    script.map_or_else(|| TokenScript::unscripted(slot), |script| script.token(slot))
}

/// Whether anything is scripted that can happen to the token in this slot.
pub fn is_scripted(slot: SlotId) -> bool {
    let version = watch::current();
    version.is_some_and(|version| version.script.as_ref().is_none_or(|script| script.touches(slot)))
}

/// The version of the control file that counts for a call. `None`, the usual case, is cheap.
pub fn version_for(function: Function, directory: impl FnOnce() -> Option<PathBuf>) -> Option<Arc<Version>> {
    if function == Function::C_Initialize {
        watch::start(directory());
    }
    watch::version()
}

impl ScriptedCall {
    /// Everything that is scripted for before the work. An error is the answer of the call, whose
    /// work is not done.
    pub fn begin(version: Arc<Version>, function: Function, subject: Subject) -> Result<Self, ck::CK_RV> {
        let mut call = Self { version, function, slot: None, session: None, later: Vec::new() };
        let module = match Module::current() {
            Ok(module) => Some(module),
            Err(_) if function == Function::C_Initialize => None,
            // The work is to say that the module is not initialised.
            Err(_) => return Ok(call),
        };
        (call.slot, call.session) = match subject {
            Subject::Nothing => (None, None),
            Subject::Slot(slot) => (Some(slot), None),
            Subject::Session(session) => {
                let known = module.as_ref().and_then(|module| module.session(session).ok());
                (known.map(|known| known.token.slot), Some(session))
            }
        };
        let version = call.version.clone();
        let script = version.script.as_ref().ok_or(ck::CKR_DEVICE_ERROR)?;
        for (place, count) in call.acting(script) {
            let Some(rule) = script.rules.get(place) else { continue };
            if rule.action.moment() == Moment::AfterWork {
                call.later.push((place, count));
            } else {
                call.act(script, rule, place, count)?;
            }
        }
        call.require_token(module.as_deref())?;
        Ok(call)
    }

    /// The rules that act on this call. All that fit have counted it before the first one acts.
    fn acting(&self, script: &Script) -> Vec<(usize, u64)> {
        let mut acting = Vec::new();
        for (place, rule) in script.rules.iter().enumerate() {
            let fits = rule.functions.contains(self.function)
                && rule.slot.is_none_or(|slot| self.slot == Some(slot));
            if !fits {
                continue;
            }
            if matches!(rule.action, Action::Corrupt { .. }) {
                // Counts calls that gave output, which is not known yet.
                acting.push((place, 0));
                continue;
            }
            let count = self.version.count(place);
            if rule.occasion.is_on(count, &script.draws(place + 1, count)) {
                acting.push((place, count));
            }
        }
        acting
    }

    /// Everything that is scripted for after the work, which gave this answer and so many bytes.
    /// Returns the answer for the client and the bits to turn over.
    pub fn end(self, work_answer: ck::CK_RV, output_len: usize) -> (ck::CK_RV, Vec<u64>) {
        let mut answer = work_answer;
        let mut flipped = Vec::new();
        let version = self.version.clone();
        let Some(script) = &version.script else { return (answer, flipped) };
        for (place, count) in &self.later {
            let Some(rule) = script.rules.get(*place) else { continue };
            if let Action::Corrupt { bit } = rule.action {
                let bit_count = 8 * output_len as u64;
                if bit_count > 0 {
                    let draws = script.draws(place + 1, self.version.count(*place));
                    if rule.occasion.is_on(draws.call(), &draws) {
                        flipped.push(bit.map_or_else(|| draws.bit(bit_count), |bit| bit % bit_count));
                    }
                }
            } else if let Err(code) = self.act(script, rule, *place, *count) {
                answer = code;
            }
        }
        (answer, flipped)
    }

    fn act(&self, script: &Script, rule: &Rule, place: usize, count: u64) -> Result<(), ck::CK_RV> {
        match &rule.action {
            Action::Fail { code, .. } => Err(*code),
            Action::Delay { delay, .. } => {
                let until = Instant::now() + delay.duration(&script.draws(place + 1, count));
                self.pause(Some(until), None)
            }
            Action::Hang { limit, .. } => {
                let until = limit.map(|limit| Instant::now() + limit);
                self.pause(until, Some(rule))
            }
            Action::Crash { .. } => {
                eprintln!("hsm-sim: rule {} crashes the process in {}", place + 1, self.function.name());
                std::process::abort();
            }
            Action::Lose(loss) => {
                self.lose(*loss);
                Ok(())
            }
            // Its place is in `end`, where the output is known.
            Action::Corrupt { .. } => Ok(()),
        }
    }

    /// Stands still until the time has come or, given a rule, until the file has it no more. The
    /// token may be pulled out meanwhile.
    fn pause(&self, until: Option<Instant>, rule: Option<&Rule>) -> Result<(), ck::CK_RV> {
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                break;
            }
            std::thread::sleep(left.unwrap_or(PAUSE_STEP).min(PAUSE_STEP));
            let version = watch::version();
            self.require_token(Module::current().ok().as_deref())?;
            if rule.is_some_and(|rule| !version.is_some_and(|version| version.has_rule(rule))) {
                break;
            }
        }
        match watch::version() {
            Some(version) if version.script.is_none() => Err(ck::CKR_DEVICE_ERROR),
            _ => Ok(()),
        }
    }

    /// Refuses the call if its token has been pulled out.
    fn require_token(&self, module: Option<&Module>) -> Result<(), ck::CK_RV> {
        let (Some(module), Some(slot)) = (module, self.slot) else { return Ok(()) };
        if token_script(slot).present || self.function == Function::C_GetSlotInfo {
            return Ok(());
        }
        if self.session.is_some() {
            return Err(ck::CKR_DEVICE_REMOVED);
        }
        module.slot(slot).map_err(|refusal| refusal.code())?;
        Err(ck::CKR_TOKEN_NOT_PRESENT)
    }

    fn lose(&self, loss: Loss) {
        let (Ok(module), Some(slot)) = (Module::current(), self.slot) else { return };
        let lost = match (loss, self.session) {
            (Loss::Session, Some(session)) => module.close_session(session),
            (Loss::Session, None) => Ok(()),
            (Loss::Sessions, _) => module.close_all_sessions(slot),
            (Loss::Login, _) => module.log_out_of_slot(slot),
        };
        // What is lost already cannot be lost: no session, no login, no token in the slot.
        lost.unwrap_or(());
    }
}

impl Action {
    fn moment(&self) -> Moment {
        match self {
            Self::Fail { moment, .. }
            | Self::Delay { moment, .. }
            | Self::Hang { moment, .. }
            | Self::Crash { moment } => *moment,
            Self::Lose(_) => Moment::BeforeWork,
            Self::Corrupt { .. } => Moment::AfterWork,
        }
    }
}
