//! The `kms-ceremony` command: arguments in, sentences out.

use crate::bundle_file::{self, VerifiedBundle};
use crate::files::{self, Reserved};
use crate::html::Language;
use crate::prompt::Question;
use crate::report::{self, Report, ReportFormat};
use crate::{clock, enroll, init, plan::Plan, plan_check, random::os_rng, worker};
use clap::{Args, Parser, Subcommand};
use kms_core::id::CustodianName;
use kms_core::suite::{Digest32, Suite};
use kms_core::words;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

mod reshare;
mod share;

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
    Reshare(reshare::ReshareCommand),
    /// A plan before its ceremony
    #[command(subcommand)]
    Plan(PlanCommand),
    /// A custodian's shares
    #[command(subcommand)]
    Share(share::ShareCommand),
    /// A custodian's identity
    #[command(subcommand)]
    Identity(share::IdentityCommand),
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
enum PlanCommand {
    /// Check a plan completely without an HSM, say what it will do, and print its digest for comparing aloud
    Check {
        /// The plan
        plan: PathBuf,
    },
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
        /// Write a document to sign by hand and file: a name that ends in .md or .html
        #[arg(long)]
        report: Option<PathBuf>,
        /// en or zh: the language of the report
        #[arg(long, value_parser = language, default_value = "en")]
        language: Language,
    },
}

fn suite(text: &str) -> Result<Suite, String> {
    Suite::from_name(text).ok_or_else(|| "write sm or intl".to_owned())
}

fn language(text: &str) -> Result<Language, String> {
    Language::parse(text)
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
        Command::Reshare(command) => reshare::reshare(&command),
        Command::Plan(PlanCommand::Check { plan }) => {
            print!("{}", plan_check::text(&Plan::read(&plan)?));
            Ok(())
        }
        Command::Share(command) => share::share(&command),
        Command::Identity(command) => share::identity(&command),
        Command::Bundle(BundleCommand::Show { file }) => {
            print!("{}", VerifiedBundle::read(&file)?.summary());
            Ok(())
        }
        Command::Bundle(BundleCommand::ExportCoreKey { file }) => {
            let bundle = VerifiedBundle::read(&file)?.bundle;
            print!("{}", bundle_file::to_pem(bundle.suite, &bundle.core_key.public_key));
            Ok(())
        }
        Command::Transcript(command) => transcript(&command),
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
    println!("in words: {}", words::spoken(&outcome.fingerprint));
    println!("every custodian writes this fingerprint down and compares it when accepting the shares");
    Ok(())
}

fn transcript(command: &TranscriptCommand) -> anyhow::Result<()> {
    let TranscriptCommand::Verify { file, bundle, plan, report: path, language } = command;
    let output = path
        .as_ref()
        .map(|path| {
            ReportFormat::of(path).map(|format| (path, format)).ok_or_else(|| {
                anyhow::anyhow!("--report {}: write a name that ends in .md or .html", path.display())
            })
        })
        .transpose()?;
    let bundle = VerifiedBundle::read(bundle)?;
    let transcript = bundle.read_transcript(file)?;
    if let Some(plan) = plan {
        bundle_file::check_plan(&transcript, plan)?;
    }
    let consents = transcript.check_consents(&bundle.bundle)?;
    if output.is_some() && !report::names_bundle(&transcript, &bundle.fingerprint) {
        anyhow::bail!(
            "the transcript does not name this bundle, so no report is written: give --bundle of the ceremony"
        );
    }
    if let Some((path, format)) = output {
        let report = Report {
            bundle: &bundle,
            transcript: &transcript,
            consents: &consents,
            is_plan_checked: plan.is_some(),
            verified: clock::now(),
            language: *language,
        };
        Reserved::new(path.clone(), files::PUBLIC)?.write(report.to_text(format).as_bytes())?;
    }
    print!("{}", bundle_file::transcript_text(&transcript));
    consents.iter().for_each(|one| println!("{}", bundle_file::consent_text(one)));
    println!("the transcript is complete and signed by the core key of this bundle");
    if let Some((path, _)) = output {
        println!("{}: print it, sign it and file it with the plan", path.display());
    }
    Ok(())
}
