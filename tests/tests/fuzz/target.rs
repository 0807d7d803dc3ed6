//! One parser and its law, and the loop that feeds it.

use crate::mutation;
use crate::random::Random;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Inputs of each target where time is short.
const INPUT_COUNT: u64 = 3_000;
/// Seconds for each target with `KMS_DEEP=1`, unless `KMS_FUZZ_SECONDS` says otherwise.
const DEEP_SECONDS: u64 = 30;
/// No parser needs so long for one input, however busy the machine is.
const HANG: Duration = Duration::from_secs(30);

/// Says whether it took the bytes; panics when it took them and its law is broken.
type Parse = Box<dyn Fn(&[u8]) -> bool>;

/// A parser of bytes from outside.
pub struct Target {
    name: String,
    examples: Vec<Vec<u8>>,
    parse: Parse,
}

impl Target {
    /// `parse` takes each of the examples.
    pub fn new(
        name: impl Into<String>,
        examples: Vec<Vec<u8>>,
        parse: impl Fn(&[u8]) -> bool + 'static,
    ) -> Self {
        let name = name.into();
        assert!(!examples.is_empty(), "{name} has no example");
        for example in &examples {
            assert!(parse(example), "{name} refuses its example {}", hex(example));
        }
        Self { name, examples, parse: Box::new(parse) }
    }

    /// The same under another name.
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// Adds inputs to begin with that are refused: near misses that others made.
    pub fn near(mut self, others: Vec<Vec<u8>>) -> Self {
        for other in &others {
            assert!(!(self.parse)(other), "{} takes what it should refuse: {}", self.name, hex(other));
        }
        self.examples.extend(others);
        self
    }
}

/// The input that is being parsed, shown when that panics.
struct Current<'a> {
    target: &'a str,
    seed: u64,
    number: u64,
    input: &'a [u8],
}

impl Drop for Current<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { target, seed, number, input } = self;
            eprintln!("{target}: input {number} of KMS_SEED={seed} is {}", hex(input));
        }
    }
}

/// Ends the watch, also when a target panics.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Feeds every target. `KMS_SEED` repeats the inputs, `KMS_DEEP=1` gives each target `KMS_FUZZ_SECONDS`.
pub fn feed(group: &str, targets: &[Target]) {
    let seed = match std::env::var("KMS_SEED") {
        Ok(seed) => seed.parse().expect("KMS_SEED is a number"),
        Err(_) => getrandom::u64().expect("the system has randomness"),
    };
    eprintln!("{group}: KMS_SEED={seed} repeats these inputs");
    let time = std::env::var_os("KMS_DEEP").map(|_| {
        let seconds = std::env::var("KMS_FUZZ_SECONDS").ok();
        Duration::from_secs(
            seconds.map_or(DEEP_SECONDS, |text| text.parse().expect("KMS_FUZZ_SECONDS is a number")),
        )
    });
    let names: BTreeSet<&str> = targets.iter().map(|target| target.name.as_str()).collect();
    assert_eq!(names.len(), targets.len(), "each target has its own name");
    let (fed, has_ended) = (AtomicU64::new(0), AtomicBool::new(false));
    let results: serde_json::Map<String, serde_json::Value> = std::thread::scope(|scope| {
        let _ended = Ended(&has_ended);
        scope.spawn(|| watch(group, seed, &fed, &has_ended));
        targets.iter().map(|target| (target.name.clone(), feed_one(target, seed, time, &fed))).collect()
    });
    println!("DEEP-RESULT {}", serde_json::json!({ "group": group, "seed": seed, "targets": results }));
}

fn feed_one(target: &Target, seed: u64, time: Option<Duration>, fed: &AtomicU64) -> serde_json::Value {
    let mut random = Random::new(seed, &target.name);
    let start = Instant::now();
    let (mut inputs, mut taken) = (0, 0);
    // The clock is read now and then: it costs as much as some parsers.
    while time.map_or(inputs < INPUT_COUNT, |time| inputs % 64 != 0 || start.elapsed() < time) {
        inputs += 1;
        let input = mutation::next(&mut random, &target.examples);
        let current = Current { target: &target.name, seed, number: inputs, input: &input };
        taken += u64::from((target.parse)(current.input));
        fed.fetch_add(1, Ordering::Relaxed);
    }
    serde_json::json!({ "inputs": inputs, "taken": taken })
}

/// Ends the process when one input takes too long: a parser that hangs would end nothing by itself.
fn watch(group: &str, seed: u64, fed: &AtomicU64, has_ended: &AtomicBool) {
    let mut last = (0, Instant::now());
    while !has_ended.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(20));
        let now = fed.load(Ordering::Relaxed);
        if now != last.0 {
            last = (now, Instant::now());
        }
        if last.1.elapsed() > HANG {
            eprintln!("{group}: the input after {now} of KMS_SEED={seed} hangs");
            std::process::abort();
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
