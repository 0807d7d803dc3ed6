//! Named steps at which a test build kills its own process, as `kill -9` would.
//!
//! The steps of the commit path, of a ceremony's end in the server, and both sides of every operation in an HSM session
//! are enumerated here, so that the crash tests can run through all of them. The ceremony worker has none: it keeps nothing,
//! and the tests let its HSM crash. Armed by `KMS_CRASH_AT=STEP[:N]` (the Nth time, from 1) and only in
//! builds with the feature `dev`; release builds are made without it.

/// A step of the commit path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitStep {
    /// A batch is formed; the database has not been asked.
    BatchFormed,
    /// The head row is locked.
    HeadLocked,
    /// Changes are applied in the open transaction.
    ChangesApplied,
    /// Segment and head are written in the open transaction.
    SegmentWritten,
    /// The transaction is committed; nobody has been answered.
    Committed,
    /// Everybody has been answered.
    Answered,
}

impl CommitStep {
    /// Every step, in order.
    pub const ALL: [CommitStep; 6] = [
        CommitStep::BatchFormed,
        CommitStep::HeadLocked,
        CommitStep::ChangesApplied,
        CommitStep::SegmentWritten,
        CommitStep::Committed,
        CommitStep::Answered,
    ];

    /// The name in `KMS_CRASH_AT`.
    pub const fn name(self) -> &'static str {
        match self {
            CommitStep::BatchFormed => "commit.batch-formed",
            CommitStep::HeadLocked => "commit.head-locked",
            CommitStep::ChangesApplied => "commit.changes-applied",
            CommitStep::SegmentWritten => "commit.segment-written",
            CommitStep::Committed => "commit.committed",
            CommitStep::Answered => "commit.answered",
        }
    }
}

/// A step of a ceremony, from the quorum on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CeremonyStep {
    /// Service start: the worker has a quorum's shares.
    StartQuorum,
    /// The worker gave the PIN; the token has not seen it.
    PinGiven,
    /// The server is logged in to the token and has checked nothing.
    LoggedIn,
    /// The unseal is recorded; the node does not serve yet.
    UnsealRecorded,
    /// The service start is recorded; no custodian has heard of it.
    StartRecorded,
    /// Core sign: the worker has a quorum's shares.
    SignQuorum,
    /// The worker gave the signature; it is not recorded.
    Signed,
    /// The core sign is recorded; no custodian has the signature.
    SignRecorded,
}

impl CeremonyStep {
    /// Every step, in order.
    pub const ALL: [CeremonyStep; 8] = [
        CeremonyStep::StartQuorum,
        CeremonyStep::PinGiven,
        CeremonyStep::LoggedIn,
        CeremonyStep::UnsealRecorded,
        CeremonyStep::StartRecorded,
        CeremonyStep::SignQuorum,
        CeremonyStep::Signed,
        CeremonyStep::SignRecorded,
    ];

    /// The name in `KMS_CRASH_AT`.
    pub const fn name(self) -> &'static str {
        match self {
            CeremonyStep::StartQuorum => "service-start.quorum",
            CeremonyStep::PinGiven => "service-start.pin-given",
            CeremonyStep::LoggedIn => "service-start.logged-in",
            CeremonyStep::UnsealRecorded => "service-start.unseal-recorded",
            CeremonyStep::StartRecorded => "service-start.recorded",
            CeremonyStep::SignQuorum => "core-sign.quorum",
            CeremonyStep::Signed => "core-sign.signed",
            CeremonyStep::SignRecorded => "core-sign.recorded",
        }
    }
}

/// HSM operations that the running service makes; each has a step before and after.
pub const HSM_OPERATIONS: [&str; 10] =
    ["open_session", "random", "seal", "open", "create", "confirm", "sign", "mac", "objects", "status"];

/// HSM operations that only the removal of an object makes, of a key or of the pair of an import; each has a step before and after.
pub const DESTRUCTION_OPERATIONS: [&str; 2] = ["destroy", "exists"];

/// HSM operations that only an import makes; each has a step before and after.
pub const IMPORT_OPERATIONS: [&str; 2] = ["import", "decrypt_with"];

/// Every step's name.
pub fn step_names() -> Vec<String> {
    let commit = CommitStep::ALL.into_iter().map(|step| step.name().to_owned());
    let hsm = HSM_OPERATIONS
        .into_iter()
        .chain(DESTRUCTION_OPERATIONS)
        .chain(IMPORT_OPERATIONS)
        .flat_map(|operation| [format!("hsm.before-{operation}"), format!("hsm.after-{operation}")]);
    let ceremony = CeremonyStep::ALL.into_iter().map(|step| step.name().to_owned());
    commit.chain(hsm).chain(ceremony).collect()
}

/// The commit path has reached a step.
pub fn at_commit(step: CommitStep) {
    reached(|armed| armed == step.name());
}

/// A ceremony has reached a step.
pub fn at_ceremony(step: CeremonyStep) {
    reached(|armed| armed == step.name());
}

/// The HSM is about to be asked, or has answered.
pub fn at_hsm(side: &'static str, operation: &'static str) {
    reached(|armed| {
        armed
            .strip_prefix("hsm.")
            .and_then(|rest| rest.strip_prefix(side))
            .and_then(|rest| rest.strip_prefix('-'))
            == Some(operation)
    });
}

#[cfg(not(feature = "dev"))]
fn reached(_is_step: impl FnOnce(&str) -> bool) {}

#[cfg(feature = "dev")]
fn reached(is_step: impl FnOnce(&str) -> bool) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    static ARMED: LazyLock<Option<(String, AtomicU32)>> = LazyLock::new(|| {
        let text = std::env::var("KMS_CRASH_AT").ok()?;
        let (step, count) = match text.rsplit_once(':') {
            Some((step, count)) => (step.to_owned(), count.parse().ok()?),
            None => (text, 1),
        };
        Some((step, AtomicU32::new(count)))
    });

    let Some((step, left)) = ARMED.as_ref() else { return };
    if is_step(step) && left.fetch_sub(1, Ordering::Relaxed) == 1 {
        eprintln!("crash test: killed at {step}");
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        loop {
            std::thread::park();
        }
    }
}
