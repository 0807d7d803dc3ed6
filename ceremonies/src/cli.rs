//! The `kms-ceremony` command: arguments in, sentences out.

use crate::accept::{self, Delivered};
use crate::bundle_file::{self, VerifiedBundle};
use crate::prompt::{self, Question};
use crate::reshare::{self, Brought, ResharePlan};
use crate::{clock, enroll, init, plan::Plan, random::os_rng, worker};
use clap::{Args, Parser, Subcommand};
use kms_core::id::CustodianName;
use kms_core::suite::{Digest32, Suite};
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

/// Ceremonies of the key management service: key custodians, the HSM host, and their files.
///
/// Exit codes: 0 done; 1 anything that is not listed; 2 wrong arguments, or the service is sealed; 5 not
/// permitted; 7 the service is open already; 8 try again; 9 the ceremony was refused or no quorum came.
#[derive(Debug, Parser)]
#[command(name = "kms-ceremony", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a custodian's identity (keep it) and enrolment (for the plan)
    Enroll(EnrollArguments),
    /// Carry out an init ceremony on the HSM host
    Init(InitArguments),
    /// New shares for new or the same custodians, on the HSM host; the old ones are dead afterwards
    #[command(subcommand)]
    Reshare(ReshareCommand),
    /// A custodian's shares
    #[command(subcommand)]
    Share(ShareCommand),
    /// The public description of a deployment
    #[command(subcommand)]
    Bundle(BundleCommand),
    /// Transcripts of ceremonies
    #[command(subcommand)]
    Transcript(TranscriptCommand),
    /// Take part in opening a node
    #[cfg(feature = "online")]
    Unseal(crate::online::UnsealArguments),
    /// Operations of the core private key
    #[cfg(feature = "online")]
    #[command(subcommand)]
    Core(crate::online::CoreCommand),
    /// The process that combines shares; a server starts it
    #[command(hide = true)]
    Worker,
}

#[derive(Debug, Args)]
struct EnrollArguments {
    /// The custodian's name: lower-case letters, digits, '.', '_' and '-'
    #[arg(long)]
    name: String,
    /// sm or intl, as the plan says
    #[arg(long, value_parser = suite)]
    suite: Suite,
    /// Folder for NAME.identity and NAME.enrolment
    #[arg(long)]
    out: PathBuf,
    /// Take the passphrase from the first line of this file instead of asking twice
    #[arg(long)]
    passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct InitArguments {
    /// The reviewed plan
    #[arg(long)]
    plan: PathBuf,
    /// Folder for bundle.kms, transcript.kms and CUSTODIAN.delivery
    #[arg(long)]
    out: PathBuf,
}

#[derive(Debug, Subcommand)]
enum ReshareCommand {
    /// Check a plan and show what it does, with the digest to compare; asks no HSM
    Check {
        #[command(flatten)]
        plan: ResharePlanArguments,
    },
    /// Make the next bundle and its shares; changes no PIN
    Prepare {
        #[command(flatten)]
        plan: ResharePlanArguments,
        #[command(flatten)]
        present: PresentArguments,
        /// Folder for the next bundle, the deliveries and the transcript
        #[arg(long)]
        out: PathBuf,
    },
    /// Change the PINs, or go on where an earlier run was stopped
    Finish {
        #[command(flatten)]
        plan: ResharePlanArguments,
        #[command(flatten)]
        present: PresentArguments,
        /// The folder that prepare made
        #[arg(long)]
        folder: PathBuf,
        /// A new custodian's acknowledgement; once for everybody
        #[arg(long = "acknowledgement", value_name = "FILE")]
        acknowledgements: Vec<PathBuf>,
        /// The folder's reshare.progress was lost: try the new SO PINs first, at the cost of an attempt each
        #[arg(long)]
        in_doubt: bool,
    },
}

#[derive(Debug, Args)]
struct ResharePlanArguments {
    /// The reviewed plan
    #[arg(long)]
    plan: PathBuf,
    /// The bundle that is in force
    #[arg(long)]
    bundle: PathBuf,
    /// The operation digest that was read out; another plan is refused, and nothing is asked
    #[arg(long, value_parser = fingerprint)]
    operation: Option<Digest32>,
}

/// Everybody who is present.
#[derive(Debug, Args)]
struct PresentArguments {
    /// The identity of somebody who is present; once for each person
    #[arg(long = "identity", value_name = "FILE", required = true)]
    identities: Vec<PathBuf>,
    /// A share of somebody who is present, of the old or the new set; once for each share
    #[arg(long = "share", value_name = "FILE", required = true)]
    shares: Vec<PathBuf>,
    /// Take the identities' passphrases from these files, in the order of --identity
    #[arg(long = "passphrase-file", value_name = "FILE")]
    passphrase_files: Vec<PathBuf>,
    /// Take the shares' passphrases from these files, in the order of --share
    #[arg(long = "share-passphrase-file", value_name = "FILE")]
    share_passphrase_files: Vec<PathBuf>,
}

/// The files and passphrases of a custodian who has a share.
#[derive(Debug, Args)]
pub(crate) struct ShareArguments {
    /// The share file
    #[arg(long)]
    pub(crate) share: PathBuf,
    /// The identity file
    #[arg(long)]
    pub(crate) identity: PathBuf,
    /// The bundle that was compared when the share was accepted
    #[arg(long)]
    pub(crate) bundle: PathBuf,
}

#[derive(Debug, Subcommand)]
enum ShareCommand {
    /// Open a delivery, check it, and store the shares under a passphrase
    Accept(AcceptArguments),
    /// Check that a share file opens and is the one that the bundle says
    Verify(VerifyArguments),
}

#[derive(Debug, Args)]
struct AcceptArguments {
    /// The delivery from the init ceremony
    #[arg(long)]
    delivery: PathBuf,
    /// The identity file
    #[arg(long)]
    identity: PathBuf,
    /// The bundle from the init ceremony
    #[arg(long)]
    bundle: PathBuf,
    /// Folder for NAME.share and NAME.acknowledgement
    #[arg(long)]
    out: PathBuf,
    /// The fingerprint that was read out at the ceremony; another bundle is refused, and nothing is asked
    #[arg(long, value_parser = fingerprint)]
    fingerprint: Option<Digest32>,
    /// Take the identity's passphrase from this file; the fingerprint is then shown and not asked about
    #[arg(long)]
    passphrase_file: Option<PathBuf>,
    /// Take the new share file's passphrase from this file
    #[arg(long)]
    share_passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct VerifyArguments {
    #[command(flatten)]
    files: ShareArguments,
    /// Take the share file's passphrase from this file
    #[arg(long)]
    share_passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum BundleCommand {
    /// Verify a bundle and show its content and fingerprint
    Show {
        /// The bundle
        file: PathBuf,
    },
    /// Print the core public key as PEM, for OpenSSL
    ExportCoreKey {
        /// The bundle
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum TranscriptCommand {
    /// Check a transcript's signature and chain, and show it
    Verify {
        /// The transcript
        file: PathBuf,
        /// The bundle whose core key signed it
        #[arg(long)]
        bundle: PathBuf,
        /// The reviewed plan: checks that it is the one that was carried out
        #[arg(long)]
        plan: Option<PathBuf>,
    },
}

fn suite(text: &str) -> Result<Suite, String> {
    Suite::from_name(text).ok_or_else(|| "write sm or intl".to_owned())
}

fn fingerprint(text: &str) -> Result<Digest32, String> {
    // As people write it: in groups.
    let digits: String = text.chars().filter(|letter| !letter.is_whitespace() && *letter != ':').collect();
    Digest32::from_hex(&digits).ok_or_else(|| "write 64 hexadecimal digits".to_owned())
}

/// The question for an identity's passphrase.
pub(crate) fn identity_question(file: Option<&PathBuf>) -> Question<'_> {
    Question {
        what: "the passphrase of the identity",
        option: "--passphrase-file",
        file: file.map(PathBuf::as_path),
    }
}

/// The question for a share file's passphrase.
pub(crate) fn share_question(file: Option<&PathBuf>) -> Question<'_> {
    Question {
        what: "the passphrase of the share",
        option: "--share-passphrase-file",
        file: file.map(PathBuf::as_path),
    }
}

/// Runs the command line and gives the process's exit code. The first argument is the program's name.
pub fn main_from(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // To a closed pipe nothing can be printed; the code says it.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    if matches!(cli.command, Command::Worker) {
        return worker::run(io::stdin(), io::stdout());
    }
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", crate::error_chain::sentence(error.as_ref()));
            ExitCode::from(code(&error))
        }
    }
}

#[cfg(feature = "online")]
fn code(error: &anyhow::Error) -> u8 {
    error.downcast_ref::<crate::online::JoinError>().map_or(crate::exit::OTHER, |error| error.exit_code())
}

#[cfg(not(feature = "online"))]
fn code(_: &anyhow::Error) -> u8 {
    crate::exit::OTHER
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Enroll(arguments) => enroll(&arguments),
        Command::Init(arguments) => init(&arguments),
        Command::Reshare(command) => reshare(&command),
        Command::Share(ShareCommand::Accept(arguments)) => accept(&arguments),
        Command::Share(ShareCommand::Verify(arguments)) => verify(&arguments),
        Command::Bundle(BundleCommand::Show { file }) => {
            print!("{}", VerifiedBundle::read(&file)?.summary());
            Ok(())
        }
        Command::Bundle(BundleCommand::ExportCoreKey { file }) => {
            let bundle = VerifiedBundle::read(&file)?.bundle;
            print!("{}", bundle_file::to_pem(bundle.suite, &bundle.core_key.public_key));
            Ok(())
        }
        Command::Transcript(TranscriptCommand::Verify { file, bundle, plan }) => {
            let verified = VerifiedBundle::read(&bundle)?;
            let transcript = verified.read_transcript(&file)?;
            if let Some(plan) = plan {
                bundle_file::check_plan(&transcript, &plan)?;
            }
            print!("{}", bundle_file::transcript_text(&transcript));
            for line in bundle_file::consents_text(&transcript, &verified.bundle)? {
                println!("{line}");
            }
            println!("the transcript is complete and signed by the core key of this bundle");
            Ok(())
        }
        #[cfg(feature = "online")]
        Command::Unseal(arguments) => Ok(crate::online::unseal(&arguments)?),
        #[cfg(feature = "online")]
        Command::Core(command) => Ok(crate::online::core(&command)?),
        Command::Worker => unreachable!("the worker is started before other commands are looked at"),
    }
}

fn enroll(arguments: &EnrollArguments) -> anyhow::Result<()> {
    crate::process::harden()?;
    let name = CustodianName::parse(&arguments.name)
        .map_err(|error| anyhow::anyhow!("--name {:?} {error}", arguments.name))?;
    let question = Question {
        what: "a passphrase for the identity",
        option: "--passphrase-file",
        file: arguments.passphrase_file.as_deref(),
    };
    let made = enroll::run(name, arguments.suite, &arguments.out, || question.choose(), &mut os_rng())?;
    println!("{}: keep this file and its passphrase to yourself", made.identity.display());
    println!("{}: hand this file to whoever writes the plan", made.enrolment.display());
    Ok(())
}

fn init(arguments: &InitArguments) -> anyhow::Result<()> {
    crate::process::harden()?;
    let plan = Plan::read(&arguments.plan)?;
    let outcome = init::run(&plan, &arguments.out, &clock::now, &mut os_rng())?;
    for delivery in &outcome.deliveries {
        println!("{}: for this custodian only", delivery.display());
    }
    println!("{}: keep with the plan", outcome.transcript.display());
    println!("{}: for every custodian and node", outcome.bundle.display());
    println!("bundle fingerprint: {}", outcome.fingerprint);
    println!("every custodian writes this fingerprint down and compares it when accepting the shares");
    Ok(())
}

fn reshare(command: &ReshareCommand) -> anyhow::Result<()> {
    crate::process::harden()?;
    let (ReshareCommand::Check { plan: arguments }
    | ReshareCommand::Prepare { plan: arguments, .. }
    | ReshareCommand::Finish { plan: arguments, .. }) = command;
    let before = VerifiedBundle::read(&arguments.bundle)?;
    let plan = ResharePlan::read(&arguments.plan, &before)?;
    let summary = plan.summary(&before);
    print!("{summary}");
    let present = match command {
        ReshareCommand::Check { .. } => return Ok(()),
        ReshareCommand::Prepare { present, .. } | ReshareCommand::Finish { present, .. } => present,
    };
    if let Some(expected) = arguments.operation
        && expected != plan.digest
    {
        anyhow::bail!(
            "the plan's operation digest is {}, but {expected} was expected; nothing was done",
            plan.digest
        );
    }
    if arguments.operation.is_none() && present.passphrase_files.is_empty() {
        prompt::confirm("Is this the operation that everybody present agreed to?", "--operation")?;
    }
    let brought = Brought {
        identities: &present.identities,
        shares: &present.shares,
        passphrase_files: &present.passphrase_files,
        share_passphrase_files: &present.share_passphrase_files,
    };
    let inputs = reshare::Inputs { plan: &plan, before: &before, brought };
    match command {
        ReshareCommand::Check { .. } => Ok(()),
        ReshareCommand::Prepare { out, .. } => {
            let made = reshare::prepare(&inputs, out, &clock::now, &mut os_rng())?;
            for delivery in &made.deliveries {
                println!("{}: for this custodian only", delivery.display());
            }
            println!("{}: keep with the plan", made.transcript.display());
            println!("{}: the next bundle, not in force yet", made.bundle.display());
            println!("bundle fingerprint: {}", made.fingerprint);
            println!("no PIN was changed; when everybody has accepted: kms-ceremony reshare finish");
            Ok(())
        }
        ReshareCommand::Finish { folder, acknowledgements, in_doubt, .. } => {
            let finish = reshare::Finish { folder, acknowledgements, is_in_doubt: *in_doubt };
            let done = reshare::finish(&inputs, &finish, &clock::now, &mut os_rng())?;
            println!("{}: keep with the plan", done.transcript.display());
            println!("{}: in force now; for every custodian and node", done.bundle.display());
            println!("the old shares open nothing any more; destroy them");
            Ok(())
        }
    }
}

fn accept(arguments: &AcceptArguments) -> anyhow::Result<()> {
    crate::process::harden()?;
    let bundle = VerifiedBundle::read(&arguments.bundle)?;
    println!("bundle fingerprint: {}", bundle.fingerprint);
    let summary = bundle.summary();
    let expected = arguments.fingerprint.map(|expected| bundle.expect(expected)).transpose()?;
    let delivered = Delivered::read(&arguments.delivery, &arguments.identity, bundle, &arguments.out)?;
    if expected.is_none() && arguments.passphrase_file.is_none() {
        let statement = format!(
            "{summary}Is this the deployment and the fingerprint that you wrote down at the ceremony?"
        );
        prompt::confirm(&statement, "--fingerprint")?;
    }
    let identity = identity_question(arguments.passphrase_file.as_ref()).enter()?;
    let question = Question {
        what: "a passphrase for the share",
        option: "--share-passphrase-file",
        file: arguments.share_passphrase_file.as_deref(),
    };
    let accepted = delivered.accept(&identity, || question.choose(), clock::now(), &mut os_rng())?;
    println!("{}: keep this file and its passphrase to yourself", accepted.share.display());
    println!("{}: hand this file back to the ceremony", accepted.acknowledgement.display());
    println!("destroy the delivery: whoever has it and your identity has your shares");
    Ok(())
}

fn verify(arguments: &VerifyArguments) -> anyhow::Result<()> {
    crate::process::harden()?;
    let bundle = VerifiedBundle::read(&arguments.files.bundle)?;
    let question = share_question(arguments.share_passphrase_file.as_ref());
    let name =
        accept::verify(&arguments.files.share, &arguments.files.identity, &bundle, || question.enter())?;
    println!("both shares of {name} are the ones that the bundle commits to");
    println!("bundle fingerprint: {}", bundle.fingerprint);
    Ok(())
}
