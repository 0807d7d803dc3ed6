//! Power cuts: the server kills itself at one step, is started again, and everything acknowledged is there.

use crate::account::Account;
use crate::metrics::Metrics;
use crate::workload;
use kms_core::suite::Suite;
use kms_tests::{Deployment, Module, Options, binaries, command};
use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a workload may run until its server reaches the step, on a machine that needs no time for one pass.
const WORK_MAX: Duration = Duration::from_secs(20);
/// And how many times the measured pass more: some steps come with time, and not with work.
const WORK_PASSES: u32 = 4;
/// Rounds of one step with `KMS_DEEP=1`.
const DEEP_ROUND_COUNT: u32 = 10;
/// A step that is reached while the server starts is tried there in one of so many rounds.
const START_UP_SHARE: u64 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_key_survives_a_kill_at_every_step() {
    // The others are not reached by work; `ceremony_crash`, `destruction` and `imports` try them.
    let is_of_work = |step: &String| {
        (step.starts_with("commit.") || step.starts_with("hsm."))
            && !crate::destruction::STEPS.contains(&step.as_str())
            && !crate::imports::STEPS.contains(&step.as_str())
    };
    let steps = step_names().into_iter().filter(is_of_work).collect();
    run("every step on the simulator", Options::default(), steps).await;
}

/// A second module has other times between the steps, and another way of keeping objects.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_key_survives_a_kill_around_the_calls_of_softhsm() {
    let operations = ["-create", "-confirm", "-seal", "-open"];
    let steps: Vec<String> = step_names()
        .into_iter()
        .filter(|step| step.starts_with("hsm.") && operations.iter().any(|one| step.ends_with(one)))
        .collect();
    assert_eq!(steps.len(), 2 * operations.len(), "each operation has a step before and after");
    let options = Options { module: Module::SoftHsm, suite: Suite::Intl, ..Options::default() };
    run("calls of SoftHSM", options, steps).await;
}

/// The steps that the server knows.
pub fn step_names() -> Vec<String> {
    let folder = std::env::temp_dir();
    let names = command::run(&binaries::program("kms-server"), &["crash-steps"], &folder).done();
    names.lines().map(str::to_owned).collect()
}

async fn run(name: &str, options: Options, steps: Vec<String>) {
    let seed = match std::env::var("KMS_SEED") {
        Ok(seed) => seed.parse().expect("KMS_SEED is a number"),
        Err(_) => getrandom::u64().expect("the system has randomness"),
    };
    eprintln!("{name}: KMS_SEED={seed} repeats this run's choices");
    let round_count = if std::env::var_os("KMS_DEEP").is_some() { DEEP_ROUND_COUNT } else { 1 };
    let start = Instant::now();
    let deployment = Arc::new(Deployment::start(options));
    let mut account = Account::default();
    let reach = Reach::measure(&deployment, &mut account).await;
    reach.check_that_every_operation_has_steps();
    deployment.kill9();

    let mut choices = Choices(seed);
    for round in 1..=round_count {
        for step in &steps {
            let armed = format!("{step}:{}", reach.choose(step, &mut choices));
            let start = Instant::now();
            let first_kept = account.kept.len();
            let phase = crash_at(&deployment, &mut account, &armed, reach.work_max()).await;
            deployment.start_again();
            account.check(&deployment, first_kept).await;
            eprintln!("{name}, round {round}: {armed} {phase}, {:.1} s", start.elapsed().as_secs_f32());
            deployment.kill9();
        }
    }
    deployment.start_again();
    account.check(&deployment, 0).await;
    let result = serde_json::json!({
        "test": name,
        "seed": seed,
        "rounds": round_count,
        "steps": steps.len(),
        "keys": account.keys.len(),
        "ciphertexts": account.kept.len(),
        "acknowledged_operations": account.operation_count,
        "seconds": start.elapsed().as_secs(),
    });
    println!("DEEP-RESULT {result}");
}

/// Starts the server armed and lets it work until it has killed itself. Says when that was.
async fn crash_at(
    deployment: &Arc<Deployment>,
    account: &mut Account,
    armed: &str,
    work_max: Duration,
) -> &'static str {
    let step = armed.split(':').next().expect("a step has a name");
    let killed = format!("crash test: killed at {step}");
    if let Err(said) = deployment.try_start_with(&[("KMS_CRASH_AT".into(), armed.into())]) {
        assert!(said.contains(&killed), "{armed}: the server did not start and said\n{said}");
        return "while starting";
    }
    account.merge(workload::run(deployment, Some(work_max)).await);
    let ended = deployment.wait_until_ended(Duration::from_secs(1));
    let ended = ended.unwrap_or_else(|| panic!("{armed} was not reached within {work_max:?} of work"));
    // Of this start alone: an earlier round was killed at the same step.
    let said = deployment.last_log();
    assert_eq!(ended.signal(), Some(KILLED), "{armed}: the server ended by itself\n{said}");
    assert!(said.contains(&killed), "{armed}: the server was killed elsewhere\n{said}");
    "at work"
}

/// The signal of `kill -9`.
pub const KILLED: i32 = 9;

/// How often the steps are reached: until the server is ready, and in one pass of the workload.
struct Reach {
    ready: Metrics,
    worked: Metrics,
    pass_time: Duration,
}

impl Reach {
    async fn measure(deployment: &Arc<Deployment>, account: &mut Account) -> Self {
        let end = Instant::now() + Duration::from_secs(10);
        let ready = loop {
            let metrics = Metrics::read(deployment, "auditor").await;
            // The first checkpoint follows the unseal; from then on the next one is far away.
            if metrics.value("kms_audit_checkpoint_size") > 0 {
                break metrics;
            }
            assert!(Instant::now() < end, "there is no checkpoint after the unseal");
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let start = Instant::now();
        account.merge(workload::run(deployment, None).await);
        let pass_time = start.elapsed();
        let worked = Metrics::read(deployment, "auditor").await;
        account.check(deployment, 0).await;
        Self { ready, worked, pass_time }
    }

    /// How long a workload may run until its server reaches the step.
    fn work_max(&self) -> Duration {
        WORK_MAX + WORK_PASSES * self.pass_time
    }

    /// The server's list of steps is written by hand; what the HSM was asked is counted.
    fn check_that_every_operation_has_steps(&self) {
        let steps: BTreeSet<String> = step_names().into_iter().collect();
        let asked = self.worked.hsm_operation_names();
        assert!(asked.contains("seal"), "the metrics name the operations: {asked:?}");
        for operation in asked {
            for side in ["before", "after"] {
                let step = format!("hsm.{side}-{operation}");
                assert!(steps.contains(&step), "the HSM is asked to {operation}, and {step} is no step");
            }
        }
    }

    /// At which occurrence of a step to stop: anywhere in the workload, or anywhere before.
    fn choose(&self, step: &str, choices: &mut Choices) -> u64 {
        let count = |metrics: &Metrics| match step.rsplit_once('-') {
            Some(("hsm.before" | "hsm.after", operation)) => metrics.hsm_operations(operation),
            _ => metrics.batches(),
        };
        let (ready, worked) = (count(&self.ready), count(&self.worked));
        assert!(worked > 0, "the step {step} is never reached");
        let is_start_up = ready > 0 && (worked == ready || choices.below(START_UP_SHARE) == 0);
        if is_start_up { 1 + choices.below(ready) } else { ready + 1 + choices.below(worked - ready) }
    }
}

/// SplitMix64: repeatable choices from a printed seed, nothing that must be hard to guess.
struct Choices(u64);

impl Choices {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}
