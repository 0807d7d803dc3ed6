//! Taking part in a ceremony of a running node over gRPC. The open stream is the presence: closing it, also
//! by ending this process, withdraws the share.

use crate::bundle_file::{BundleFileError, VerifiedBundle};
use crate::cli::{ShareArguments, identity_question, share_question};
use crate::files::{self, FileError, Reserved};
use crate::participant::{AnswerError, Participant, ParticipantError, Passphrases};
use crate::prompt::PromptError;
use crate::random::os_rng;
use crate::{clock, exit, process};
use clap::{Args, Subcommand};
use kms_client::{Profile, ProfileError};
use kms_core::asymmetric::{Signature, SignatureError};
use kms_core::ceremony::{CeremonyKind, Purpose};
use kms_core::id::CustodianName;
use kms_core::reason::Reason;
use kms_core::suite::Digest32;
use kms_proto::v1;
use kms_proto::v1::ceremony_client::CeremonyClient;
use kms_proto::v1::join_event::Event;
use kms_proto::v1::join_request::Message;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use tonic_types::StatusExt;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the idle stream is checked, so that a dead node is noticed while a custodian waits.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Longest file that can be signed, in bytes.
const SIGNED_FILE_LEN_MAX: u64 = 256 << 20;

/// What every online ceremony asks for.
#[derive(Debug, Args)]
pub(crate) struct JoinArguments {
    /// Client profile: endpoint, server_ca, certificate, key
    #[arg(long)]
    profile: PathBuf,
    #[command(flatten)]
    files: ShareArguments,
    /// Take the identity's passphrase from this file
    #[arg(long)]
    passphrase_file: Option<PathBuf>,
    /// Take the share file's passphrase from this file
    #[arg(long)]
    share_passphrase_file: Option<PathBuf>,
    /// Give up after this many seconds without a quorum; without it the node's window decides
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct UnsealArguments {
    #[command(flatten)]
    join: JoinArguments,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CoreCommand {
    /// Sign a file with the core private key
    Sign {
        /// The file
        file: PathBuf,
        /// Where the signature goes (DER)
        #[arg(long)]
        out: PathBuf,
        #[command(flatten)]
        join: JoinArguments,
    },
}

/// Why a custodian's part in a ceremony ended without a result.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Memory cannot be protected.
    #[error("this process cannot be protected from others")]
    Harden(#[source] io::Error),
    /// An input or output.
    #[error(transparent)]
    File(#[from] FileError),
    /// The bundle is refused.
    #[error(transparent)]
    Bundle(#[from] BundleFileError),
    /// Identity, share and bundle.
    #[error(transparent)]
    Participant(#[from] ParticipantError),
    /// No passphrase.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// The client profile.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// No connection.
    #[error("{endpoint} cannot be reached with this profile")]
    Connect {
        /// Where to.
        endpoint: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// The custodian's own check.
    #[error(transparent)]
    Answer(#[from] AnswerError),
    /// The node said no, with a reason of docs/errors.md.
    #[error("{} ({})", .message, .reason.name())]
    Refused {
        /// The stable reason.
        reason: Reason,
        /// The node's sentence.
        message: String,
    },
    /// The connection or something in between broke.
    #[error("the connection ended: {message}")]
    Broken {
        /// What is known about it.
        message: String,
    },
    /// Nobody else came.
    #[error(
        "{present} of {threshold} present after {seconds} seconds; your share was withdrawn. Gather, then start again"
    )]
    NoQuorum {
        /// How many were there.
        present: usize,
        /// How many are needed.
        threshold: u32,
        /// How long this custodian waited.
        seconds: u64,
    },
    /// The node's result is not a signature by the core key.
    #[error("the node's signature does not verify with the bundle's core key; nothing was written")]
    Signature(#[from] SignatureError),
}

impl JoinError {
    /// The process's exit code: the last column of docs/errors.md.
    pub fn exit_code(&self) -> u8 {
        match self {
            JoinError::Refused { reason, .. } => reason.exit_code(),
            JoinError::Answer(error) => error.decline_reason().map_or(exit::OTHER, Reason::exit_code),
            JoinError::NoQuorum { .. } => exit::NO_QUORUM,
            _ => exit::OTHER,
        }
    }
}

/// Who is present, as the node last said.
#[derive(Debug)]
struct Presence {
    present: Vec<String>,
    threshold: u32,
}

pub(crate) fn unseal(arguments: &UnsealArguments) -> Result<(), JoinError> {
    let participant = read_participant(&arguments.join)?;
    let purpose = Purpose { kind: CeremonyKind::ServiceStart, operation: None };
    let result = take_part(&arguments.join, &participant, purpose)?;
    println!("the node is open; present: {}", result.present.join(", "));
    Ok(())
}

pub(crate) fn core(command: &CoreCommand) -> Result<(), JoinError> {
    let CoreCommand::Sign { file, out, join } = command;
    let participant = read_participant(join)?;
    let bundle = &participant.bundle().bundle;
    let content = files::read(file, SIGNED_FILE_LEN_MAX)?;
    let key = bundle.core_key.public_key;
    let digest = key.message_digest(bundle.suite, content.expose());
    let output = Reserved::new(out.clone(), files::PUBLIC)?;
    println!("digest: {digest}");
    eprintln!("compare this digest with the other custodians: it is what you sign for");
    let purpose = Purpose { kind: CeremonyKind::CoreSign, operation: Some(digest) };
    let result = take_part(join, &participant, purpose)?;
    let signature = Signature(result.signature.try_into().map_err(|_| SignatureError)?);
    key.verify_digest(bundle.suite, &digest, &signature)?;
    let path = output.write(&signature.to_der())?;
    println!("{}: signed; present: {}", path.display(), result.present.join(", "));
    Ok(())
}

fn read_participant(arguments: &JoinArguments) -> Result<Participant, JoinError> {
    process::harden().map_err(JoinError::Harden)?;
    let bundle = VerifiedBundle::read(&arguments.files.bundle)?;
    Ok(Participant::read(bundle, &arguments.files.identity, &arguments.files.share)?)
}

fn take_part(
    arguments: &JoinArguments,
    participant: &Participant,
    purpose: Purpose,
) -> Result<v1::CeremonyResult, JoinError> {
    let profile = Profile::load(&arguments.profile)?;
    let passphrases = Passphrases {
        identity: identity_question(arguments.passphrase_file.as_ref()).enter()?,
        share: share_question(arguments.share_passphrase_file.as_ref()).enter()?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| JoinError::Broken { message: error.to_string() })?;
    let wait = arguments.wait;
    runtime.block_on(async {
        let channel = connect(&profile).await?;
        join(channel, participant, &passphrases, purpose, wait).await
    })
}

async fn connect(profile: &Profile) -> Result<Channel, JoinError> {
    let failed = |source| JoinError::Connect { endpoint: profile.endpoint().to_owned(), source };
    profile
        .tls_endpoint(CONNECT_TIMEOUT)
        .map_err(failed)?
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .connect()
        .await
        .map_err(failed)
}

/// One custodian's stream from begin to result. Public so that tests and other front ends drive it over a
/// channel of their own.
///
/// # Errors
/// [`JoinError`]; the stream is closed then, so the node wipes the share.
pub async fn join(
    channel: Channel,
    participant: &Participant,
    passphrases: &Passphrases,
    purpose: Purpose,
    wait_seconds: Option<u64>,
) -> Result<v1::CeremonyResult, JoinError> {
    let (requests, outgoing) = mpsc::channel(4);
    send(&requests, Message::Begin(begin(purpose, participant.name()))).await?;
    let opened = CeremonyClient::new(channel).join(ReceiverStream::new(outgoing)).await;
    let mut events: Streaming<v1::JoinEvent> = opened.map_err(refused)?.into_inner();
    let mut presence =
        Presence { present: Vec::new(), threshold: u32::from(participant.bundle().bundle.threshold_needed) };
    let seconds = wait_seconds.unwrap_or(u64::from(u32::MAX));
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let mut has_answered = false;
    loop {
        let Ok(event) = timeout_at(deadline, events.message()).await else {
            let present = presence.present.len();
            return Err(JoinError::NoQuorum { present, threshold: presence.threshold, seconds });
        };
        match event.map_err(refused)?.map(|event| event.event) {
            Some(Some(Event::Offer(offer))) if !has_answered => {
                match answer(participant, passphrases, purpose, &offer) {
                    Ok(contribution) => send(&requests, Message::Contribution(contribution)).await?,
                    Err(error) => {
                        if let Some(reason) = error.decline_reason() {
                            send(&requests, Message::Decline(reason.name().to_owned())).await?;
                            drain(requests, events).await;
                        }
                        return Err(error.into());
                    }
                }
                has_answered = true;
                eprintln!("your share was sent; keep this running until enough custodians are present");
            }
            Some(Some(Event::Progress(progress))) => {
                eprintln!("{}", progress_line(&progress));
                presence = Presence { present: progress.present, threshold: progress.threshold };
            }
            Some(Some(Event::Result(result))) if has_answered => return Ok(result),
            Some(_) => return Err(broken("the node sent something out of turn")),
            None => return Err(broken("the node closed the stream without a result")),
        }
    }
}

fn answer(
    participant: &Participant,
    passphrases: &Passphrases,
    purpose: Purpose,
    offer: &[u8],
) -> Result<Vec<u8>, AnswerError> {
    participant.answer(offer, purpose, passphrases, clock::now(), &mut os_rng())
}

/// Lets the decline reach the node: dropping the connection at once could overtake it.
async fn drain(requests: mpsc::Sender<v1::JoinRequest>, mut events: Streaming<v1::JoinEvent>) {
    drop(requests);
    let until = Instant::now() + Duration::from_secs(2);
    while let Ok(Ok(Some(_))) = timeout_at(until, events.message()).await {}
}

fn begin(purpose: Purpose, custodian: &CustodianName) -> v1::JoinBegin {
    let kind = match purpose.kind {
        CeremonyKind::ServiceStart => v1::CeremonyKind::ServiceStart,
        CeremonyKind::CoreSign => v1::CeremonyKind::CoreSign,
    };
    v1::JoinBegin {
        kind: kind.into(),
        custodian: custodian.to_string(),
        operation: purpose.operation.map(|Digest32(bytes)| bytes.to_vec()).unwrap_or_default(),
    }
}

async fn send(requests: &mpsc::Sender<v1::JoinRequest>, message: Message) -> Result<(), JoinError> {
    requests
        .send(v1::JoinRequest { message: Some(message) })
        .await
        .map_err(|_| broken("the node closed the stream"))
}

fn broken(message: &str) -> JoinError {
    JoinError::Broken { message: message.to_owned() }
}

/// A status with one of our reasons is the node's word; any other is the transport's.
fn refused(status: Status) -> JoinError {
    let reason = status.get_details_error_info().and_then(|info| Reason::from_name(&info.reason));
    match reason {
        Some(reason) => JoinError::Refused { reason, message: status.message().to_owned() },
        None => JoinError::Broken { message: format!("{}: {}", status.code(), status.message()) },
    }
}

/// `1 of 2 present: alice; 297 seconds left`
fn progress_line(progress: &v1::CeremonyProgress) -> String {
    let present = &progress.present;
    let mut line = format!("{} of {} present", present.len(), progress.threshold);
    if !present.is_empty() {
        line = format!("{line}: {}", present.join(", "));
    }
    if let Some(expires) = &progress.expires {
        let now = i64::try_from(clock::now().0 / 1000).unwrap_or(i64::MAX);
        line = format!("{line}; {} seconds left", expires.seconds.saturating_sub(now).max(0));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use tonic::Code;
    use tonic_types::ErrorDetails;

    #[test]
    fn a_refusal_of_the_node_ends_with_the_exit_code_of_its_reason() {
        let details = ErrorDetails::with_error_info("CUSTODIAN_LOCKED", "kms", HashMap::new());
        let status = Status::with_error_details(Code::FailedPrecondition, "locked", details);
        let error = refused(status);
        assert_eq!(error.exit_code(), 9);
        assert_eq!(error.to_string(), "locked (CUSTODIAN_LOCKED)");
        assert_eq!(refused(Status::unavailable("gone")).exit_code(), exit::OTHER);
    }

    #[test]
    fn waiting_in_vain_says_who_was_there() {
        let error = JoinError::NoQuorum { present: 1, threshold: 2, seconds: 30 };
        assert!(error.to_string().starts_with("1 of 2 present"));
        assert_eq!(error.exit_code(), 9);
    }

    #[test]
    fn progress_names_the_present_custodians() {
        let progress = v1::CeremonyProgress { threshold: 2, present: vec!["alice".into()], expires: None };
        assert_eq!(progress_line(&progress), "1 of 2 present: alice");
    }
}
