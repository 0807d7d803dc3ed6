//! Seal, unseal and checkpoint under a fault. A seal always ends sealed, whatever the HSM does; an unseal opens the node or
//! leaves it sealed and costs no attempt at the PIN; when the fault is over, the next one opens it and signs the log.

use super::RECOVERY_MAX;
use super::fault::{Fault, begin, checkpoint_count, end};
use crate::known_secrets::QuorumSecrets;
use crate::memory;
use crate::scan::Scanner;
use kms_proto::v1;
use kms_tests::{Deployment, Finished, PinWatch, Refused, Rpc};
use std::time::{Duration, Instant};

/// How long a seal may take while no driver's thread comes back, and some more.
const SEAL_MAX: Duration = Duration::from_secs(60);
/// How long a sealed server may go on holding what its last connections and threads had.
const FORGET_MAX: Duration = Duration::from_secs(10);

/// What one fault made of them, as lines of the table.
pub struct Cycle {
    sealed: Duration,
    under_fault: UnderFault,
    unsealed: Duration,
    checkpoint: Duration,
    checkpoint_count: usize,
}

/// How an unseal ended while the fault lasted.
enum UnderFault {
    Opened(Duration),
    Refused(Duration),
}

impl Cycle {
    /// Lines of the table of the matrix.
    pub fn rows(&self, fault: &Fault, checkpoints_with_traffic: usize) -> String {
        let unseal = match self.under_fault {
            UnderFault::Opened(time) => format!("opened in {} ms", time.as_millis()),
            UnderFault::Refused(time) => format!("1 CEREMONY_FAILED after {} ms", time.as_millis()),
        };
        let checkpoints = checkpoints_with_traffic + self.checkpoint_count;
        [
            ("seal", format!("sealed in {} ms", self.sealed.as_millis()), String::from("-")),
            ("unseal", unseal, format!("{} ms", self.unsealed.as_millis())),
            ("checkpoint", format!("{checkpoints} ok"), format!("{} ms", self.checkpoint.as_millis())),
        ]
        .map(|(operation, during, after)| format!("| {} | {operation} | {during} | {after} |\n", fault.name))
        .concat()
    }
}

/// Seals an open node while a fault lasts, tries to open it, and opens it when the fault is over.
pub async fn run(deployment: &Deployment, fault: &Fault) -> Cycle {
    let secrets = Scanner::of_bytes(&QuorumSecrets::of(deployment).all());
    let held = memory::scan(deployment.server_id(), &secrets);
    assert!(held.iter().any(|one| one.hit.name.contains("operations user")), "an open server keeps its PIN");

    let (pins, checkpoints_before) = (PinWatch::of(deployment), checkpoint_count(deployment));
    begin(deployment, fault);
    let sealed = seal(deployment, fault).await;
    expect_nothing_secret(deployment, fault, &secrets).await;
    let under_fault = unseal_under(deployment, fault);
    if matches!(under_fault, UnderFault::Opened(_)) {
        seal(deployment, fault).await;
    } else {
        // Whatever was opened half-way went with the ceremony. A driver that hangs still has the PIN that it was given.
        expect_sealed(deployment, fault).await;
    }
    let checkpoints_seen = checkpoint_count(deployment);
    end(deployment);
    let ended = Instant::now();

    let traces = pins.traces();
    assert!(traces.is_empty(), "{}: an attempt at a PIN was spent: {traces:?}", fault.name);
    let unsealed = loop {
        let outcome = ceremony(deployment, fault);
        if outcome.is_ok() {
            break ended.elapsed();
        }
        // A call that hung may still be on its way back.
        let (name, log) = (fault.name, || deployment.last_log());
        assert!(ended.elapsed() < RECOVERY_MAX, "{name}: the node stays sealed\n{}", log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let checkpoint = loop {
        if checkpoint_count(deployment) > checkpoints_seen {
            break ended.elapsed();
        }
        let (name, log) = (fault.name, || deployment.last_log());
        assert!(ended.elapsed() < RECOVERY_MAX, "{name}: the log is not signed again\n{}", log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let checkpoint_count = checkpoints_seen - checkpoints_before;
    Cycle { sealed, under_fault, unsealed, checkpoint, checkpoint_count }
}

/// A seal is answered, and the node says that it is sealed and why.
async fn seal(deployment: &Deployment, fault: &Fault) -> Duration {
    let start = Instant::now();
    deployment.kms("admin", &["seal"]).done();
    let elapsed = start.elapsed();
    assert!(elapsed < SEAL_MAX, "{}: a seal took {elapsed:?}", fault.name);
    expect_sealed(deployment, fault).await;
    elapsed
}

async fn expect_sealed(deployment: &Deployment, fault: &Fault) {
    let mut admin = Rpc::connect(deployment, "admin").await;
    let status = admin.system.get_status(v1::GetStatusRequest {}).await.expect("a status").into_inner();
    assert_eq!(status.seal_state, v1::SealState::Sealed as i32, "{}", fault.name);
    let mut app = Rpc::connect(deployment, "app").await;
    let request = v1::EncryptRequest { key: "wrapped".into(), plaintext: b"text".to_vec(), context: vec![] };
    let refused = Refused::from(app.crypto.encrypt(request).await.expect_err("the node is sealed"));
    assert_eq!(refused.reason, "SEALED", "{}", fault.name);
}

async fn expect_nothing_secret(deployment: &Deployment, fault: &Fault, secrets: &Scanner) {
    let end = Instant::now() + FORGET_MAX;
    loop {
        let found = memory::scan(deployment.server_id(), secrets);
        if found.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "{}: a sealed server holds {found:?}", fault.name);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn unseal_under(deployment: &Deployment, fault: &Fault) -> UnderFault {
    let start = Instant::now();
    match ceremony(deployment, fault) {
        Ok(()) => UnderFault::Opened(start.elapsed()),
        Err(()) => UnderFault::Refused(start.elapsed()),
    }
}

/// Two custodians open the node, or both hear that it could not be opened: with the one reason that says to hold the
/// ceremony again.
fn ceremony(deployment: &Deployment, fault: &Fault) -> Result<(), ()> {
    let outcomes = deployment.two_custodians(&["unseal", "--wait", "60"]).map(|finished| {
        let Finished { code, ref stderr, .. } = finished;
        assert!(code == 0 || stderr.contains("CEREMONY_FAILED"), "{}: {code}: {stderr}", fault.name);
        if code == 0 { Ok(()) } else { Err(()) }
    });
    assert_eq!(outcomes[0], outcomes[1], "{}: both custodians hear the same", fault.name);
    outcomes[0]
}
