//! The ceremony worker: the one process that ever holds a quorum's shares (docs/formats/worker.md).
//!
//! It speaks frames with its server over standard input and output, does one operation, and is gone. The
//! server relays what it cannot read. Whatever ends the worker also ends the memory that held the shares.

use crate::error_chain::sentence;
use crate::pin::{self, PinError, PinOf};
use crate::process;
use crate::random::os_rng;
use kms_core::asymmetric::{PrivateKey, Signature, SignatureError};
use kms_core::bundle::{Bundle, BundleError, SignedBundle};
use kms_core::ceremony::{
    CeremonyKind, Collector, Contribution, Refusal, SignedOffer, Statement, StreamId, WINDOW_SECONDS,
    service_start_digest,
};
use kms_core::codec::{self, CodecError};
use kms_core::id::{CustodianName, UnixMillis};
use kms_core::quorum::CombineError;
use kms_core::reason::Reason;
use kms_core::secret::{Secret, SecretBytes};
use kms_core::suite::Digest32;
use kms_core::worker::{FRAME_HEADER_LEN, FrameLenError, FromWorker, ToWorker, body_len, to_frame};
use kms_hsm::{
    HsmError, HsmModule, HsmPartition, ModuleError, PinPurpose, Profile, ProfileChoice, ProfileError,
};
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// The server closes the window; this is for a server that no longer does.
const LIFE: Duration = Duration::from_secs(WINDOW_SECONDS + 10);
/// Frames that may wait between the reader and the ceremony.
const FRAME_QUEUE_LEN: usize = 16;

/// Why the worker ends without a result.
#[derive(Debug, thiserror::Error)]
enum WorkerError {
    #[error("the worker's memory cannot be protected")]
    Harden(#[source] io::Error),
    #[error("the server's frames cannot be read")]
    Input(#[source] io::Error),
    #[error("the server's frame is refused")]
    Frame(#[from] FrameLenError),
    #[error("the server's frame {0}")]
    Message(#[from] CodecError),
    #[error("the server's first frame is not a start, or a later one is")]
    Order,
    #[error("the answer cannot be written to the server")]
    Output(#[source] io::Error),
    #[error("the bundle is refused")]
    Bundle(#[from] BundleError),
    #[error("the operation is not the start of any node of the bundle")]
    ForeignOperation,
    #[error("the window closed before a quorum was present")]
    Expired,
    #[error("the shares of the quorum are of no use")]
    Combine(#[from] CombineError),
    #[error("the vendor profile cannot be used")]
    Profile(#[from] ProfileError),
    #[error(transparent)]
    Pin(#[from] PinError),
    #[error("the core partition cannot be opened")]
    Module(#[from] ModuleError),
    #[error("the core key does not sign")]
    Hsm(#[from] HsmError),
    #[error("what the core key signed does not verify; it was not handed out")]
    Signature(#[from] SignatureError),
}

impl WorkerError {
    fn reason(&self) -> Reason {
        match self {
            WorkerError::Expired => Reason::CeremonyExpired,
            WorkerError::Order | WorkerError::Frame(_) | WorkerError::Message(_) => Reason::Internal,
            _ => Reason::CeremonyFailed,
        }
    }
}

/// How the ceremony went on after a frame.
enum End {
    /// The operation has run.
    Done(FromWorker),
    /// The server went away.
    Closed,
}

/// Runs one ceremony over the two pipes. Returns when it is over or `input` ends.
pub fn run(input: impl Read + Send + 'static, mut output: impl Write) -> ExitCode {
    match run_hardened(input, &mut output) {
        Ok(End::Done(result)) => match send(&mut output, &result) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => report(&error),
        },
        Ok(End::Closed) => ExitCode::SUCCESS,
        Err(error) => {
            let detail = sentence(&error);
            // The server may be what is gone; then standard error alone tells.
            let _ = send(&mut output, &FromWorker::Failed { reason: error.reason(), detail });
            report(&error)
        }
    }
}

fn report(error: &WorkerError) -> ExitCode {
    eprintln!("kms-ceremony worker: {}", sentence(error));
    ExitCode::from(Reason::CeremonyFailed.exit_code())
}

fn send(output: &mut impl Write, message: &FromWorker) -> Result<(), WorkerError> {
    output.write_all(to_frame(message).expose()).and_then(|()| output.flush()).map_err(WorkerError::Output)
}

fn run_hardened(input: impl Read + Send + 'static, output: &mut impl Write) -> Result<End, WorkerError> {
    process::harden().map_err(WorkerError::Harden)?;
    let (sender, frames) = sync_channel(FRAME_QUEUE_LEN);
    thread::spawn(move || read_frames(input, &sender));
    let Some(first) = next(&frames, Instant::now() + LIFE)? else { return Ok(End::Closed) };
    let mut ceremony = Ceremony::start(first)?;
    send(output, &FromWorker::Ready { one_time_key: ceremony.collector.one_time_key() })?;
    let ends = Instant::now() + LIFE;
    loop {
        // What waits comes first: somebody who left in time must not count.
        let message = match frames.try_recv() {
            Ok(message) => Some(message?),
            Err(TryRecvError::Disconnected) => None,
            Err(TryRecvError::Empty) if ceremony.collector.is_quorum() => {
                return ceremony.operate().map(End::Done);
            }
            Err(TryRecvError::Empty) => next(&frames, ends)?,
        };
        let Some(message) = message else { return Ok(End::Closed) };
        if let Some(answer) = ceremony.take(message)? {
            send(output, &answer)?;
        }
    }
}

type Frames = Receiver<Result<ToWorker, WorkerError>>;

/// The next frame; `None` at the end of the input.
fn next(frames: &Frames, ends: Instant) -> Result<Option<ToWorker>, WorkerError> {
    match frames.recv_timeout(ends.saturating_duration_since(Instant::now())) {
        Ok(message) => message.map(Some),
        Err(RecvTimeoutError::Disconnected) => Ok(None),
        Err(RecvTimeoutError::Timeout) => Err(WorkerError::Expired),
    }
}

/// Reads frames until the input ends or is no longer understood; dropping the sender says so.
fn read_frames(mut input: impl Read, frames: &SyncSender<Result<ToWorker, WorkerError>>) {
    loop {
        let message = match read_frame(&mut input) {
            Ok(Some(message)) => Ok(message),
            Ok(None) => return,
            Err(error) => Err(error),
        };
        let is_last = message.is_err();
        // A send fails when the ceremony is over.
        if frames.send(message).is_err() || is_last {
            return;
        }
    }
}

fn read_frame(input: &mut impl Read) -> Result<Option<ToWorker>, WorkerError> {
    let mut header = [0; FRAME_HEADER_LEN];
    match input.read_exact(&mut header) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(WorkerError::Input(error)),
    }
    let mut body = vec![0; body_len(header)?];
    input.read_exact(&mut body).map_err(WorkerError::Input)?;
    Ok(Some(codec::open(&body)?))
}

/// What one worker is for.
struct Ceremony {
    bundle: Bundle,
    kind: CeremonyKind,
    operation: Digest32,
    module_path: String,
    profile: String,
    collector: Collector,
}

impl Ceremony {
    fn start(message: ToWorker) -> Result<Self, WorkerError> {
        let ToWorker::Start { bundle, kind, ceremony_id, operation, module_path, profile } = message else {
            return Err(WorkerError::Order);
        };
        let bundle = codec::open::<SignedBundle>(&bundle)?.verify()?;
        let is_start_of = |node| service_start_digest(&bundle, node) == operation;
        if kind == CeremonyKind::ServiceStart && !bundle.nodes.iter().any(|node| is_start_of(&node.name)) {
            return Err(WorkerError::ForeignOperation);
        }
        let one_time_key = PrivateKey::generate(bundle.suite, &mut os_rng());
        let collector = Collector::new(bundle.clone(), kind, ceremony_id, operation, one_time_key);
        Ok(Self { bundle, kind, operation, module_path, profile, collector })
    }

    fn take(&mut self, message: ToWorker) -> Result<Option<FromWorker>, WorkerError> {
        match message {
            ToWorker::Start { .. } => Err(WorkerError::Order),
            ToWorker::Withdraw { stream } => {
                self.collector.withdraw(StreamId(stream));
                Ok(None)
            }
            ToWorker::Contribute { stream, offer, contribution, now } => {
                Ok(Some(self.contribute(stream, &offer, &contribution, now)))
            }
        }
    }

    fn contribute(&mut self, stream: u64, offer: &[u8], contribution: &[u8], now: UnixMillis) -> FromWorker {
        let refused = |refusal: Refusal, custodian| FromWorker::Refused {
            stream,
            custodian,
            reason: refusal.reason(),
            counts_as_failure: refusal.counts_as_failure(),
        };
        let (Ok(offer), Ok(contribution)) =
            (codec::open::<SignedOffer>(offer), codec::open::<Contribution>(contribution))
        else {
            return refused(Refusal::Foreign, None);
        };
        match self.collector.contribute(StreamId(stream), &offer, &contribution, now) {
            Ok(custodian) => {
                let present = self.collector.present().cloned().collect();
                FromWorker::Accepted { stream, custodian, present }
            }
            Err(refusal) => refused(refusal, sender(refusal, &contribution)),
        }
    }

    /// Combines and does the one operation. Every share is wiped before the HSM is asked.
    fn operate(self) -> Result<FromWorker, WorkerError> {
        let secret = self.collector.combine()?;
        let job = Operation {
            bundle: self.bundle,
            operation: self.operation,
            module_path: self.module_path,
            profile: self.profile,
        };
        match self.kind {
            CeremonyKind::ServiceStart => job.derive_operations_pin(&secret),
            CeremonyKind::CoreSign => job.sign(&secret),
        }
    }
}

/// Whom a refused contribution is from, where its signature was checked before it was refused.
fn sender(refusal: Refusal, contribution: &Contribution) -> Option<CustodianName> {
    match refusal {
        Refusal::Share | Refusal::AlreadyPresent => {
            codec::open::<Statement>(&contribution.statement).ok().map(|statement| statement.custodian)
        }
        Refusal::Foreign | Refusal::Expired | Refusal::UnknownCustodian | Refusal::Signature => None,
    }
}

/// What is left of a ceremony once its secret is combined.
struct Operation {
    bundle: Bundle,
    operation: Digest32,
    module_path: String,
    profile: String,
}

impl Operation {
    /// Needs no login: the server logs in itself, and the worker never sees the operations keys.
    fn derive_operations_pin(&self, secret: &SecretBytes<32>) -> Result<FromWorker, WorkerError> {
        let partition = &self.bundle.operations;
        let of = PinOf {
            suite: self.bundle.suite,
            purpose: PinPurpose::OperationsUser,
            serial: &partition.serial,
            epoch: partition.pin_epoch,
        };
        let pin = pin::derive(of, secret, self.profile()?.pin_rules())?;
        Ok(FromWorker::Opened { pin: Secret::new(pin.expose().to_vec()) })
    }

    fn profile(&self) -> Result<Profile, WorkerError> {
        match ProfileChoice::from_name(&self.profile)? {
            ProfileChoice::Given(profile) => Ok(*profile),
            // Only the library itself says what it is.
            ProfileChoice::Auto => Ok(self.module()?.profile().clone()),
        }
    }

    fn module(&self) -> Result<HsmModule, WorkerError> {
        let choice = ProfileChoice::from_name(&self.profile)?;
        Ok(HsmModule::open(Path::new(&self.module_path), choice)?)
    }

    fn sign(&self, secret: &SecretBytes<32>) -> Result<FromWorker, WorkerError> {
        let (suite, partition, key) = (self.bundle.suite, &self.bundle.core, &self.bundle.core_key);
        let module = self.module()?;
        let of = PinOf {
            suite,
            purpose: PinPurpose::CoreUser,
            serial: &partition.serial,
            epoch: partition.pin_epoch,
        };
        let pin = pin::derive(of, secret, module.profile().pin_rules())?;
        // The serial number is compared before the PIN is sent.
        let open = module.open_partition(&partition.label, &partition.serial, pin)?;
        let signed =
            open.open_session().and_then(|mut session| session.sign(key.object, suite, &self.operation.0));
        open.close();
        let signature = Signature(signed?);
        key.public_key.verify_digest(suite, &self.operation, &signature)?;
        Ok(FromWorker::Signed { signature })
    }
}
