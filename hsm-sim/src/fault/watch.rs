//! Which version of the control file this process goes by.
//!
//! There is no thread in the background: a call looks at the file by itself. Where no file is, that
//! costs a call two atomic reads and a look at the clock, neither a lock nor a system call; the file
//! system is asked once in [`LOOK_PERIOD_MS`]. Where a file is, every call asks, so that a change
//! counts for the very next call.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Instant;

use crate::fault::script::{Rule, Script, TokenScript};
use crate::module::Module;
use crate::refusal::Refusal;
use crate::store::{FileStamp, SlotId};

const FILE_NAME: &str = "control.toml";
const FILE_LEN_MAX: u64 = 1 << 20;
const LOOK_PERIOD_MS: u64 = 5;
const NEVER: u64 = u64::MAX;

/// One version of the file, with what its rules have counted.
#[derive(Debug)]
pub struct Version {
    source: Source,
    /// `None` if the file was refused: then every call is.
    pub script: Option<Script>,
    counts: Vec<AtomicU64>,
}

#[derive(Debug, PartialEq, Eq)]
enum Source {
    Bytes(Vec<u8>),
    Unreadable(String),
}

impl Version {
    /// The count of a call that fits a rule, from 1.
    pub fn count(&self, rule: usize) -> u64 {
        self.counts.get(rule).map_or(0, |count| count.fetch_add(1, Ordering::Relaxed) + 1)
    }

    pub fn has_rule(&self, rule: &Rule) -> bool {
        self.script.as_ref().is_some_and(|script| script.rules.contains(rule))
    }

    fn new(path: &Path, source: Source) -> Self {
        let parsed = match &source {
            Source::Bytes(bytes) => Script::parse(bytes).map_err(|error| error.to_string()),
            Source::Unreadable(reason) => Err(reason.clone()),
        };
        // The C interface has room for a number only, so the sentence goes to stderr, once.
        let script = parsed.inspect_err(|reason| eprintln!("hsm-sim: {}: {reason}", path.display())).ok();
        let rule_count = script.as_ref().map_or(0, |script| script.rules.len());
        Self { source, script, counts: (0..rule_count).map(|_| AtomicU64::new(0)).collect() }
    }
}

struct Watch {
    /// In milliseconds of [`now_ms`].
    next_look_ms: AtomicU64,
    has_version: AtomicBool,
    /// Held for the moment of a copy only, whatever else is locked.
    current: RwLock<Option<Arc<Version>>>,
    /// Held while a version is read and put into force. Whoever holds the lock of a token must not
    /// ask for this one.
    looking: Mutex<Looking>,
}

struct Looking {
    path: Option<PathBuf>,
    stamp: Option<FileStamp>,
    /// The states that were put into force.
    tokens: Vec<TokenScript>,
}

static WATCH: Watch = Watch {
    next_look_ms: AtomicU64::new(NEVER),
    has_version: AtomicBool::new(false),
    current: RwLock::new(None),
    looking: Mutex::new(Looking { path: None, stamp: None, tokens: Vec::new() }),
};

/// From now on the control file in this directory counts; without a directory, none does.
pub fn start(directory: Option<PathBuf>) {
    let path = directory.map(|directory| directory.join(FILE_NAME));
    let mut looking = WATCH.looking.lock().unwrap_or_else(PoisonError::into_inner);
    if looking.path != path {
        *looking = Looking { path, stamp: None, tokens: Vec::new() };
        publish(None);
    }
    looking.look();
    let next = if looking.path.is_some() { now_ms() + LOOK_PERIOD_MS } else { NEVER };
    WATCH.next_look_ms.store(next, Ordering::Relaxed);
}

/// The version that counts for a call that begins now.
pub fn version() -> Option<Arc<Version>> {
    if !WATCH.has_version.load(Ordering::Acquire) {
        if now_ms() < WATCH.next_look_ms.load(Ordering::Relaxed) {
            return None;
        }
        let mut looking = WATCH.looking.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have looked while this one waited for the lock.
        if now_ms() >= WATCH.next_look_ms.load(Ordering::Relaxed) {
            looking.look();
            WATCH.next_look_ms.store(now_ms() + LOOK_PERIOD_MS, Ordering::Relaxed);
        }
    } else {
        WATCH.looking.lock().unwrap_or_else(PoisonError::into_inner).look();
    }
    current()
}

/// The version in force, without looking at the file. May be asked for under any lock.
pub fn current() -> Option<Arc<Version>> {
    if !WATCH.has_version.load(Ordering::Acquire) {
        return None;
    }
    WATCH.current.read().unwrap_or_else(PoisonError::into_inner).clone()
}

fn publish(version: Option<Arc<Version>>) {
    let has_version = version.is_some();
    *WATCH.current.write().unwrap_or_else(PoisonError::into_inner) = version;
    WATCH.has_version.store(has_version, Ordering::Release);
}

fn now_ms() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as u64
}

impl Looking {
    fn look(&mut self) {
        let Some(path) = &self.path else { return };
        let known = current();
        let source = match stamp_of(path) {
            Ok(None) => None,
            Ok(Some(stamp)) if stamp.is_some() && stamp == self.stamp && known.is_some() => return,
            Ok(Some(stamp)) => {
                self.stamp = stamp;
                match fs::read(path) {
                    Ok(bytes) => Some(Source::Bytes(bytes)),
                    // It went away since.
                    Err(error) if error.kind() == ErrorKind::NotFound => None,
                    Err(error) => Some(Source::Unreadable(error.to_string())),
                }
            }
            Err(reason) => Some(Source::Unreadable(reason)),
        };
        match (source, known) {
            (None, None) => {}
            (None, Some(_)) => {
                publish(None);
                self.put_into_force(Vec::new());
            }
            (Some(source), Some(known)) if known.source == source => {}
            (Some(source), _) => {
                let version = Arc::new(Version::new(path, source));
                let tokens = version.script.as_ref().map(|script| script.tokens.clone());
                publish(Some(version));
                // A refused file leaves the tokens as they are: every call fails anyhow.
                if let Some(tokens) = tokens {
                    self.put_into_force(tokens);
                }
            }
        }
    }

    /// A token that came back, or was out and in again, has no sessions. They are closed when it comes
    /// back and not when it goes: while it is away the gate lets no call through to them, and a call
    /// that was opening one while the token was being pulled out is met too.
    fn put_into_force(&mut self, tokens: Vec<TokenScript>) {
        let before = std::mem::replace(&mut self.tokens, tokens);
        let Ok(module) = Module::current() else { return };
        let mut slots: Vec<_> = before.iter().chain(&self.tokens).map(|token| token.slot).collect();
        slots.sort_unstable();
        slots.dedup();
        for slot in slots {
            let (old, new) = (state_of(&before, slot), state_of(&self.tokens, slot));
            if !new.present || (old.present && old.insertion == new.insertion) {
                continue;
            }
            match module.close_all_sessions(slot) {
                // There is no such slot, and nothing to close.
                Ok(()) | Err(Refusal::SlotIdInvalid) => {}
                Err(refusal) => {
                    eprintln!("hsm-sim: the sessions of slot {} cannot be closed: {refusal:?}", slot.0);
                }
            }
        }
    }
}

fn state_of(tokens: &[TokenScript], slot: SlotId) -> TokenScript {
    let found = tokens.iter().find(|token| token.slot == slot);
    found.cloned().unwrap_or_else(|| TokenScript::unscripted(slot))
}

/// `Ok(None)` if there is no file; no stamp if it is too young to be recognised by one.
fn stamp_of(path: &Path) -> Result<Option<Option<FileStamp>>, String> {
    let said = |error: std::io::Error| error.to_string();
    // A link that leads nowhere is a file that cannot be read, not a missing one.
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Ok(metadata) if metadata.is_symlink() => fs::metadata(path).map_err(said)?,
        other => other.map_err(said)?,
    };
    if !metadata.is_file() {
        return Err("is not a file".to_owned());
    }
    if metadata.len() > FILE_LEN_MAX {
        return Err(format!("is longer than {FILE_LEN_MAX} bytes"));
    }
    Ok(Some(FileStamp::of_settled(&metadata)))
}
