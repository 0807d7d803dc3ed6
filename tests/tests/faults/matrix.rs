//! Every fault of the HSM against every operation, with traffic running: nothing wrong is answered, nothing that was
//! acknowledged is lost, every refusal can be repeated, and the node needs no restart.

mod cycle;
mod fault;

use fault::{CRASH, FAULTS, Fault, HANG, begin, checkpoint_count, end};
use kms_proto::v1;
use kms_tests::{Deployment, Options, Refused, Rpc, audit};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tonic::{Code, Request, Status};

/// How long the faults of a row last.
const FAULT_TIME: Duration = Duration::from_secs(4);
/// How long a caller waits for one answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the service may take to recover before that counts as "needs a restart".
const RECOVERY_MAX: Duration = Duration::from_secs(30);
/// The signal of a process that aborts.
const ABORTED: i32 = 6;
/// How many clients make traffic.
const CLIENT_COUNT: usize = 3;

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Operation {
    CreateResident,
    CreateWrapped,
    RotateResident,
    DataKeyOfResident,
    DataKeyOfWrapped,
    EncryptWithResident,
    DecryptWithResident,
    EncryptWithWrapped,
    SuspendAndResume,
}

impl Operation {
    const ALL: [Operation; 9] = [
        Operation::CreateResident,
        Operation::CreateWrapped,
        Operation::RotateResident,
        Operation::DataKeyOfResident,
        Operation::DataKeyOfWrapped,
        Operation::EncryptWithResident,
        Operation::DecryptWithResident,
        Operation::EncryptWithWrapped,
        Operation::SuspendAndResume,
    ];

    fn name(self) -> &'static str {
        match self {
            Operation::CreateResident => "create res.",
            Operation::CreateWrapped => "create wrap.",
            Operation::RotateResident => "rotate res.",
            Operation::DataKeyOfResident => "data key res.",
            Operation::DataKeyOfWrapped => "data key wrap.",
            Operation::EncryptWithResident => "encrypt res.",
            Operation::DecryptWithResident => "decrypt res.",
            Operation::EncryptWithWrapped => "encrypt wrap.",
            Operation::SuspendAndResume => "suspend, resume",
        }
    }
}

/// What the clients of one row have seen.
#[derive(Default)]
struct Seen {
    done: BTreeMap<Operation, u32>,
    refused: BTreeMap<Operation, BTreeMap<String, u32>>,
    /// Creations that were refused, to be repeated.
    unfinished: Vec<v1::CreateKeyRequest>,
    /// Data keys that were handed out, wrapped and not.
    data_keys: Vec<(Vec<u8>, Vec<u8>)>,
    /// The highest version that a rotation has acknowledged.
    rotated_to: u32,
    /// Names of keys whose creation was acknowledged.
    keys: Vec<String>,
    /// Ciphertexts that were handed out, and their plaintexts.
    kept: Vec<(Vec<u8>, Vec<u8>)>,
    /// Checkpoints that were made.
    checkpoint_count: usize,
}

impl Seen {
    fn count(&mut self, operation: Operation, outcome: &Result<(), Refused>) {
        match outcome {
            Ok(()) => *self.done.entry(operation).or_default() += 1,
            Err(refused) => {
                let reasons = self.refused.entry(operation).or_default();
                *reasons.entry(refused.reason.clone()).or_default() += 1;
            }
        }
    }

    fn cell(&self, operation: Operation) -> String {
        let done = self.done.get(&operation).copied().unwrap_or_default();
        let refused = self.refused.get(&operation);
        let refused = refused.into_iter().flatten().map(|(reason, count)| format!(" {count} {reason}"));
        format!("{done} ok{}", refused.collect::<String>())
    }
}

fn within<T>(message: T, patience: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(patience);
    request
}

/// A refusal that a client may repeat, or a failed test.
fn retryable(operation: Operation, status: Status) -> Refused {
    let refused = Refused::from(status);
    // A deadline that passes on the client's side carries no reason of the service.
    let is_deadline = matches!(refused.code, Code::DeadlineExceeded | Code::Cancelled);
    let is_retryable = matches!(refused.code, Code::Unavailable | Code::ResourceExhausted | Code::Aborted);
    // Nor does a connection that the server's end broke.
    let is_broken = refused.code == Code::Unknown && refused.message == "transport error";
    assert!(is_retryable || is_deadline || is_broken, "{operation:?} was refused for good: {refused:?}");
    assert_ne!(refused.reason, "SEALED", "{operation:?}: the node has sealed itself");
    let reason = if refused.reason.is_empty() { "DEADLINE".to_owned() } else { refused.reason.clone() };
    Refused { reason, ..refused }
}

/// Done, or somebody else was faster.
fn accepted(operation: Operation, done: Result<(), Status>) -> Result<(), Refused> {
    match done {
        Err(status) if Refused::from(status.clone()).reason == "KEY_STATE_FORBIDS" => Ok(()),
        done => done.map_err(|status| retryable(operation, status)),
    }
}

struct Client {
    admin: Rpc,
    app: Rpc,
    seen: Arc<Mutex<Seen>>,
}

impl Client {
    async fn new(deployment: &Deployment, seen: &Arc<Mutex<Seen>>) -> Self {
        let (admin, app) = (Rpc::connect(deployment, "admin").await, Rpc::connect(deployment, "app").await);
        Self { admin, app, seen: seen.clone() }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().expect("no client panicked")
    }

    async fn run(&mut self, operation: Operation) -> Result<(), Refused> {
        let outcome = match operation {
            Operation::CreateResident => self.create(operation, v1::Protection::HsmResident).await,
            Operation::CreateWrapped => self.create(operation, v1::Protection::HsmWrapped).await,
            Operation::RotateResident => self.rotate(operation).await,
            Operation::DataKeyOfResident => self.data_key(operation, "resident").await,
            Operation::DataKeyOfWrapped => self.data_key(operation, "wrapped").await,
            Operation::EncryptWithResident => self.encrypt(operation, "resident").await,
            Operation::DecryptWithResident => self.decrypt(operation).await,
            Operation::EncryptWithWrapped => self.encrypt(operation, "wrapped").await,
            Operation::SuspendAndResume => self.suspend_and_resume(operation).await,
        };
        self.seen().count(operation, &outcome);
        outcome
    }

    async fn create(&mut self, operation: Operation, protection: v1::Protection) -> Result<(), Refused> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("made-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let request = v1::CreateKeyRequest {
            name: name.clone(),
            spec: v1::KeySpec::Sm4.into(),
            protection: protection.into(),
            idempotency_token: name.clone(),
            ..Default::default()
        };
        match self.admin.keys.create_key(within(request.clone(), PATIENCE)).await {
            Ok(_) => self.seen().keys.push(name),
            Err(status) => {
                self.seen().unfinished.push(request);
                return Err(retryable(operation, status));
            }
        }
        Ok(())
    }

    async fn rotate(&mut self, operation: Operation) -> Result<(), Refused> {
        let request = v1::RotateKeyRequest { key: "rotated".into(), ..Default::default() };
        let rotated = self.admin.keys.rotate_key(within(request, PATIENCE)).await;
        let version = rotated.map_err(|status| retryable(operation, status))?.into_inner().current_version;
        let mut seen = self.seen();
        seen.rotated_to = seen.rotated_to.max(version);
        Ok(())
    }

    /// Of one key for all clients: who comes second finds it in the state already.
    async fn suspend_and_resume(&mut self, operation: Operation) -> Result<(), Refused> {
        let request = v1::SuspendKeyRequest { key: "suspended".into() };
        let done = self.admin.keys.suspend_key(within(request, PATIENCE)).await.map(drop);
        accepted(operation, done)?;
        let request = v1::ResumeKeyRequest { key: "suspended".into() };
        let done = self.admin.keys.resume_key(within(request, PATIENCE)).await.map(drop);
        accepted(operation, done)
    }

    async fn data_key(&mut self, operation: Operation, key: &str) -> Result<(), Refused> {
        let request = v1::GenerateDataKeyRequest { key: key.into(), ..Default::default() };
        let made = self.app.crypto.generate_data_key(within(request, PATIENCE)).await;
        let made = made.map_err(|status| retryable(operation, status))?.into_inner();
        let request = v1::DecryptDataKeyRequest { ciphertext: made.ciphertext.clone(), ..Default::default() };
        let opened = self.app.crypto.decrypt_data_key(within(request, PATIENCE)).await;
        let opened = opened.map_err(|status| retryable(operation, status))?.into_inner();
        assert!(opened.plaintext == made.plaintext, "{operation:?}: a data key opens to itself");
        self.seen().data_keys.push((made.ciphertext, made.plaintext));
        Ok(())
    }

    async fn encrypt(&mut self, operation: Operation, key: &str) -> Result<(), Refused> {
        let plaintext = uuid_like();
        let request = v1::EncryptRequest { key: key.into(), plaintext: plaintext.clone(), context: vec![] };
        let made = self.app.crypto.encrypt(within(request, PATIENCE)).await;
        let ciphertext = made.map_err(|status| retryable(operation, status))?.into_inner().ciphertext;
        self.seen().kept.push((ciphertext, plaintext));
        Ok(())
    }

    async fn decrypt(&mut self, operation: Operation) -> Result<(), Refused> {
        let Some((ciphertext, plaintext)) = self.seen().kept.last().cloned() else { return Ok(()) };
        self.open(operation, ciphertext, plaintext).await
    }

    async fn open(
        &mut self,
        operation: Operation,
        ciphertext: Vec<u8>,
        plaintext: Vec<u8>,
    ) -> Result<(), Refused> {
        let request = v1::DecryptRequest { ciphertext, ..Default::default() };
        let opened = self.app.crypto.decrypt(within(request, PATIENCE)).await;
        let opened = opened.map_err(|status| retryable(operation, status))?.into_inner();
        assert!(opened.plaintext == plaintext, "{operation:?}: a ciphertext opens to its plaintext");
        Ok(())
    }
}

/// A plaintext that no other call has.
fn uuid_like() -> Vec<u8> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("plaintext number {}", NEXT.fetch_add(1, Ordering::Relaxed)).into_bytes()
}

/// Lets clients work while a fault lasts, and gives how long each operation took to be good again.
async fn row(
    deployment: &Arc<Deployment>,
    fault: &Fault,
) -> (Arc<Mutex<Seen>>, BTreeMap<Operation, Duration>) {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let mut probe = Client::new(deployment, &Arc::default()).await;
    // Something to decrypt that was made in good times.
    for operation in [Operation::EncryptWithResident, Operation::DecryptWithResident] {
        probe.run(operation).await.expect("before the fault everything works");
    }
    seen.lock().expect("nobody works yet").kept.clone_from(&probe.seen().kept);

    let is_over = Arc::new(AtomicBool::new(false));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENT_COUNT {
        let (mut client, is_over) = (Client::new(deployment, &seen).await, is_over.clone());
        clients.spawn(async move {
            while !is_over.load(Ordering::Relaxed) {
                for operation in Operation::ALL {
                    if client.run(operation).await.is_err() {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            }
        });
    }
    begin(deployment, fault);
    let checkpoints_before = checkpoint_count(deployment);
    tokio::time::sleep(FAULT_TIME).await;
    let checkpoint_count = checkpoint_count(deployment) - checkpoints_before;
    end(deployment);
    let ended = Instant::now();
    let mut recovered = BTreeMap::new();
    for operation in Operation::ALL {
        while let Err(refused) = probe.run(operation).await {
            let (name, log) = (fault.name, || deployment.log());
            assert!(ended.elapsed() < RECOVERY_MAX, "{name}: {operation:?} stays {refused:?}\n{}", log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        recovered.insert(operation, ended.elapsed());
    }
    is_over.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        if let Err(error) = ended {
            panic!("{}: {error}; the server said\n{}", fault.name, deployment.log());
        }
    }
    nothing_is_lost(&mut probe, &seen).await;
    seen.lock().expect("no client panicked").checkpoint_count = checkpoint_count;
    (seen, recovered)
}

/// What was handed out opens, what was acknowledged is there, and what was refused can be repeated.
async fn nothing_is_lost(probe: &mut Client, seen: &Arc<Mutex<Seen>>) {
    let (kept, data_keys, unfinished, keys, rotated_to) = {
        let mut seen = seen.lock().expect("no client panicked");
        let unfinished = std::mem::take(&mut seen.unfinished);
        (seen.kept.clone(), seen.data_keys.clone(), unfinished, seen.keys.clone(), seen.rotated_to)
    };
    for (ciphertext, plaintext) in data_keys {
        let request = v1::DecryptDataKeyRequest { ciphertext, ..Default::default() };
        let opened = probe.app.crypto.decrypt_data_key(request).await.expect("a data key opens later");
        assert!(opened.into_inner().plaintext == plaintext, "it is the one that was handed out");
    }
    let request = v1::DescribeKeyRequest { key: "rotated".into() };
    let rotated = probe.admin.keys.describe_key(request).await.expect("it is there").into_inner();
    assert!(rotated.current_version >= rotated_to, "version {rotated_to} was acknowledged");
    for (ciphertext, plaintext) in kept {
        let opened = probe.open(Operation::DecryptWithResident, ciphertext, plaintext).await;
        opened.expect("what was handed out opens when the fault is over");
    }
    let repeated = unfinished.len();
    for request in unfinished {
        let name = request.name.clone();
        let made = probe.admin.keys.create_key(request).await;
        made.unwrap_or_else(|status| panic!("{name} cannot be repeated, of {repeated}: {status:?}"));
    }
    for key in keys {
        let request = v1::EncryptRequest { key, plaintext: uuid_like(), context: vec![] };
        probe.app.crypto.encrypt(request).await.expect("a key that was acknowledged is there");
    }
}

fn create_keys(deployment: &Deployment) {
    let names =
        [("resident", "resident"), ("rotated", "resident"), ("wrapped", "wrapped"), ("suspended", "wrapped")];
    for (name, protection) in names {
        deployment.kms("admin", &["key", "create", name, "--spec", "sm4", "--protection", protection]).done();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_the_hsm_is_survived_by_every_operation() {
    let deployment = Arc::new(Deployment::start(Options::default()));
    create_keys(&deployment);
    deployment.terminate();
    // `dev` has no setting for it, so the same files are served by `run`.
    let configuration = fs::read_to_string(deployment.state("kms.toml")).expect("the configuration");
    let soon_stuck = configuration.replace("[hsm]\n", "[hsm]\nhang_seconds = 1\n");
    assert_ne!(soon_stuck, configuration, "the configuration has a section for the HSM");
    let path = deployment.state("soon-stuck.toml");
    fs::write(&path, soon_stuck).expect("the configuration is written");
    deployment.run_with(&path);
    crate::token::wait(&deployment, "the node answers", |_| true).await;
    deployment.unseal();
    let server = deployment.server_id();
    let mut table = String::from(
        "| fault | operation | during the fault | first good answer after its end |\n|---|---|---|---|\n",
    );
    for fault in &FAULTS {
        let (seen, recovered) = row(&deployment, fault).await;
        let cycle = cycle::run(&deployment, fault).await;
        let seen = seen.lock().expect("no client panicked");
        for operation in Operation::ALL {
            let cells =
                (fault.name, operation.name(), seen.cell(operation), recovered[&operation].as_millis());
            table += &format!("| {} | {} | {} | {} ms |\n", cells.0, cells.1, cells.2, cells.3);
        }
        table += &cycle.rows(fault, seen.checkpoint_count);
        assert!(
            deployment.is_running() && deployment.server_id() == server,
            "{} ended the server",
            fault.name
        );
        if fault.name == HANG {
            let said = "a call does not come back from the HSM";
            assert!(deployment.log().contains(said), "workers were stuck and replaced");
            let said = "the HSM's library did not answer within";
            assert!(deployment.log().contains(said), "a login that hangs ends the ceremony");
        }
    }
    // Past the capture of the test runner: this is the result.
    let _ = std::io::stderr().write_all(table.as_bytes());
    audit::verify(&deployment);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_library_of_the_hsm_crashes_nothing_acknowledged_is_lost() {
    let deployment = Arc::new(Deployment::start(Options::default()));
    create_keys(&deployment);
    let seen = Arc::new(Mutex::new(Seen::default()));
    let mut client = Client::new(&deployment, &seen).await;
    begin(&deployment, &CRASH);
    let ended = loop {
        for operation in Operation::ALL {
            // The connection breaks in the middle of some call.
            let _ = client.run(operation).await;
        }
        if let Some(ended) = deployment.wait_until_ended(Duration::ZERO) {
            break ended;
        }
    };
    assert_eq!(ended.signal(), Some(ABORTED), "{}", deployment.last_log());
    end(&deployment);
    deployment.start_again();
    let mut probe = Client::new(&deployment, &Arc::default()).await;
    for operation in Operation::ALL {
        probe.run(operation).await.unwrap_or_else(|refused| panic!("{operation:?}: {refused:?}"));
    }
    assert!(!seen.lock().expect("nobody works").kept.is_empty(), "something was acknowledged before");
    nothing_is_lost(&mut probe, &seen).await;
    audit::verify(&deployment);
}
