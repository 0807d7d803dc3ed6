//! Random calls against the real shared object. The parent runs the calls in a child, because what a
//! fuzzer looks for ends a process.
//!
//! `HSM_SIM_FUZZ_SEED=N` runs the one input of that seed; `HSM_SIM_FUZZ_SECONDS=N` runs longer than the
//! five seconds of every day; `HSM_SIM_FUZZ_KEEP=DIR` writes a small set of inputs there that reaches as
//! much as all of them: a new corpus.

mod calls;
mod input;
mod loaded;
mod memory;
mod operations;
mod parameter;
mod world;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use calls::{MECHANISM, Reached, fuzz_calls};
use operations::WITH_PARAMETER;
use sha2::{Digest, Sha256};
use world::World;

const CHILD: &str = "HSM_SIM_FUZZ_CHILD";
const SECONDS: &str = "HSM_SIM_FUZZ_SECONDS";
const SEED: &str = "HSM_SIM_FUZZ_SEED";
const KEEP: &str = "HSM_SIM_FUZZ_KEEP";

/// Far more than the child needs. Address space, so that memory that was only asked for counts too.
const ADDRESS_SPACE_MAX_KIB: u64 = 1 << 20;

#[test]
fn no_sequence_of_calls_breaks_the_module() {
    let seconds = number(SECONDS).unwrap_or(5);
    let directory = new_directory();
    let mut child = Command::new(std::env::current_exe().expect("the system knows this executable"))
        .args(["--exact", "a_second_process_makes_the_calls", "--nocapture"])
        .env(CHILD, seconds.to_string())
        .env(hsm_sim::DIRECTORY_VARIABLE, &directory)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the child starts");
    let mut stderr = child.stderr.take().expect("it was piped");
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stderr.read_to_end(&mut bytes).expect("readable");
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let is_in_time = ends_within(&mut child, Duration::from_secs(seconds + 120));
    if !is_in_time {
        child.kill().expect("it was alive");
    }
    let status = child.wait().expect("the child ends");
    let said = reader.join().expect("no panic");
    let tail: Vec<_> = said.lines().rev().take(30).collect();
    let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
    std::fs::remove_dir_all(&directory).expect("removed");
    assert!(is_in_time, "a call hangs:\n{tail}");
    assert!(status.success(), "{status}:\n{tail}");
    eprintln!("{tail}");
}

/// In memory where the system has such a place: nothing here has to survive anything.
fn new_directory() -> PathBuf {
    let shared_memory = Path::new("/dev/shm");
    let place = if shared_memory.is_dir() { shared_memory } else { Path::new(env!("CARGO_TARGET_TMPDIR")) };
    tempfile::Builder::new().prefix("hsm-sim-fuzz-").tempdir_in(place).expect("a directory").keep()
}

fn ends_within(child: &mut Child, limit: Duration) -> bool {
    let start = Instant::now();
    while start.elapsed() < limit {
        if child.try_wait().expect("a child").is_some() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

#[test]
fn a_second_process_makes_the_calls() {
    // In the parent there is nothing to do.
    let Some(seconds) = number(CHILD) else { return };
    let world = World::new(loaded::functions());
    if let Some(seed) = number(SEED) {
        let reached = run(&world, &format!("seed {seed}"), &input_of(seed));
        eprintln!("{reached:?}");
        return;
    }
    let mut reached = Reached::new();
    let corpus = corpus();
    for (name, data) in &corpus {
        reached.extend(run(&world, name, data));
    }
    let after_corpus = reached.len();
    let untaken: Vec<_> =
        WITH_PARAMETER.iter().filter(|code| !reached.contains(&(MECHANISM, **code))).collect();
    let keep = std::env::var_os(KEEP).map(PathBuf::from);
    let mut all = Vec::new();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let (start, mut seed) = (Instant::now(), now.as_secs() << 20);
    let first = seed;
    while start.elapsed() < Duration::from_secs(seconds) {
        let of_this = run(&world, &format!("seed {seed}"), &input_of(seed));
        reached.extend(of_this.iter().copied());
        if keep.is_some() {
            all.push((seed, of_this));
        }
        seed += 1;
    }
    let peak = address_space_kib();
    assert!(peak < ADDRESS_SPACE_MAX_KIB, "{peak} KiB of address space: a length was allocated unchecked");
    if let Some(directory) = keep {
        keep_some(all, &directory);
    }
    eprintln!(
        "{} inputs of the corpus reached {after_corpus} answers, {} random ones from seed {first} on {}",
        corpus.len(),
        seed - first,
        reached.len()
    );
    eprintln!("succeeded: {}", succeeded(&reached));
    assert!(untaken.is_empty(), "the corpus never got a parameter taken for {untaken:#x?}");
    assert!(
        corpus.len() >= 10 && after_corpus >= ANSWERS_MIN,
        "the corpus reaches {after_corpus} answers only"
    );
}

/// Greedily: always the input that adds most to what the chosen ones reach.
fn keep_some(mut all: Vec<(u64, Reached)>, directory: &Path) {
    let mut covered = Reached::new();
    loop {
        let most = all.iter().max_by_key(|(_, reached)| reached.difference(&covered).count());
        let Some((seed, reached)) = most.filter(|(_, reached)| !reached.is_subset(&covered)) else { return };
        std::fs::write(directory.join(format!("{seed}.bin")), input_of(*seed)).expect("kept");
        covered.extend(reached.iter().copied());
        all.retain(|(_, reached)| !reached.is_subset(&covered));
    }
}

fn succeeded(reached: &Reached) -> String {
    let functions: Vec<_> = reached
        .iter()
        .filter(|(name, answer)| *answer == 0 && *name != MECHANISM)
        .map(|(function, _)| *function)
        .collect();
    functions.join(" ")
}

/// Pairs of function and answer. If a change makes the corpus reach much less, make a new one.
const ANSWERS_MIN: usize = 100;

fn run(world: &World, name: &str, data: &[u8]) -> Reached {
    // Said before, because afterwards there may be nobody to say it.
    eprintln!("{name}");
    world.restore();
    fuzz_calls(world.functions(), data)
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

/// Up to 2 KiB.
fn input_of(seed: u64) -> Vec<u8> {
    let block = |number: u64| Sha256::digest([seed.to_be_bytes(), number.to_be_bytes()].concat());
    let len = 64 + usize::from(block(0)[0]) * 8;
    (1..).flat_map(|number| block(number).to_vec()).take(len).collect()
}

fn corpus() -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    let mut corpus: Vec<_> = std::fs::read_dir(directory)
        .expect("the corpus")
        .map(|entry| {
            let path = entry.expect("listed").path();
            (path.display().to_string(), std::fs::read(&path).expect("readable"))
        })
        .collect();
    corpus.sort();
    corpus
}

fn address_space_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the system tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:")).expect("the peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
