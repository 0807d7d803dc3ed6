//! The commands of a custodian who is alone: shares and the identity.

use super::{ShareArguments, fingerprint, identity_question, language, share_question};
use crate::accept::{self, Delivered};
use crate::bundle_file::VerifiedBundle;
use crate::files::{self, Reserved};
use crate::html::Language;
use crate::print::Print;
use crate::prompt::{self, Question};
use crate::restore::{self, Source};
use crate::{change_passphrase, clock, inspect, random::os_rng};
use clap::{Args, Subcommand};
use kms_core::share::{IdentityFile, StoredShare, UnderPassphrase};
use kms_core::suite::Digest32;
use kms_core::words;
use std::path::{Path, PathBuf};

#[derive(Debug, Subcommand)]
pub(super) enum ShareCommand {
    /// Open a delivery, check it, and store the shares under a passphrase
    Accept(AcceptArguments),
    /// Say what a custodian's file is, without a passphrase: share, identity, enrolment, delivery, acknowledgement
    Inspect {
        /// The file
        file: PathBuf,
        /// Also say whether it belongs to this bundle; if not, the exit code is 1
        #[arg(long)]
        bundle: Option<PathBuf>,
    },
    /// Check that a share file opens and is the one that the bundle says
    Verify(VerifyArguments),
    /// Put a share file under another passphrase
    ChangePassphrase(ChangeShareArguments),
    /// Make a page for paper: the share, sealed as it is in the file, as words and a QR code
    Print(PrintArguments),
    /// Make a share file from the words or the QR code of a page
    Restore(RestoreArguments),
}

#[derive(Debug, Subcommand)]
pub(super) enum IdentityCommand {
    /// Put an identity file under another passphrase
    ChangePassphrase(ChangeIdentityArguments),
}

#[derive(Debug, Args)]
pub(super) struct AcceptArguments {
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
pub(super) struct VerifyArguments {
    #[command(flatten)]
    files: ShareArguments,
    /// Take the share file's passphrase from this file
    #[arg(long)]
    share_passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct ChangeShareArguments {
    /// The share file
    #[arg(long)]
    share: PathBuf,
    /// Leave the share file as it is and write this one
    #[arg(long)]
    out: Option<PathBuf>,
    /// Take the share file's passphrase from this file
    #[arg(long)]
    share_passphrase_file: Option<PathBuf>,
    /// Take the new passphrase from the first line of this file instead of asking twice
    #[arg(long)]
    new_passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct ChangeIdentityArguments {
    /// The identity file
    #[arg(long)]
    identity: PathBuf,
    /// Leave the identity file as it is and write this one
    #[arg(long)]
    out: Option<PathBuf>,
    /// Take the identity's passphrase from this file
    #[arg(long)]
    passphrase_file: Option<PathBuf>,
    /// Take the new passphrase from the first line of this file instead of asking twice
    #[arg(long)]
    new_passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct PrintArguments {
    /// The share file
    #[arg(long)]
    share: PathBuf,
    /// The page, a name that ends in .html: open it in a browser and print it on one sheet of A4
    #[arg(long)]
    out: PathBuf,
    /// The bundle: puts the deployment's name on the page, and refuses a share of another one
    #[arg(long)]
    bundle: Option<PathBuf>,
    /// en or zh: the language of the explanations; the words are English in both
    #[arg(long, value_parser = language, default_value = "en")]
    language: Language,
}

#[derive(Debug, Args)]
pub(super) struct RestoreArguments {
    /// The share file to write
    #[arg(long)]
    out: PathBuf,
    /// Read the words from this file, or from the standard input with `-`; without it you type line by line
    #[arg(long, conflicts_with = "qr_text")]
    words: Option<PathBuf>,
    /// Read the text of the QR code from this file, or from the standard input with `-`
    #[arg(long)]
    qr_text: Option<PathBuf>,
    /// The bundle: opens the share with its passphrase and checks that it is the one that the bundle says
    #[arg(long)]
    bundle: Option<PathBuf>,
    /// With --bundle: take the share file's passphrase from this file
    #[arg(long, requires = "bundle")]
    share_passphrase_file: Option<PathBuf>,
}

pub(super) fn share(command: &ShareCommand) -> anyhow::Result<()> {
    match command {
        ShareCommand::Accept(arguments) => accept(arguments),
        ShareCommand::Inspect { file, bundle } => inspect_file(file, bundle.as_ref()),
        ShareCommand::Verify(arguments) => verify(arguments),
        ShareCommand::ChangePassphrase(arguments) => change_share(arguments),
        ShareCommand::Print(arguments) => print(arguments),
        ShareCommand::Restore(arguments) => restore(arguments),
    }
}

pub(super) fn identity(command: &IdentityCommand) -> anyhow::Result<()> {
    let IdentityCommand::ChangePassphrase(arguments) = command;
    let ChangeIdentityArguments { identity, out, passphrase_file, new_passphrase_file } = arguments;
    let old = identity_question(passphrase_file.as_ref());
    let written = change::<IdentityFile>(identity, out.as_ref(), old, new_passphrase_file.as_ref())?;
    println!("{}: opens with the new passphrase", written.display());
    println!("copies of the old file open with the old passphrase: destroy those that you do not need");
    Ok(())
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

fn inspect_file(file: &Path, bundle: Option<&PathBuf>) -> anyhow::Result<()> {
    let bundle = bundle.map(|bundle| VerifiedBundle::read(bundle)).transpose()?;
    let inspected = inspect::inspect(file, bundle.as_ref())?;
    print!("{}", inspected.text);
    if let Some(belongs) = inspected.belongs {
        belongs?;
        println!("{:<16} yes, it belongs to this bundle", "bundle");
    }
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

fn change<T: UnderPassphrase>(
    file: &Path,
    out: Option<&PathBuf>,
    old: Question<'_>,
    new: Option<&PathBuf>,
) -> anyhow::Result<PathBuf> {
    crate::process::harden()?;
    let new = Question {
        what: "the new passphrase",
        option: "--new-passphrase-file",
        file: new.map(PathBuf::as_path),
    };
    let out = out.map(PathBuf::as_path);
    Ok(change_passphrase::run::<T>(file, out, || old.enter(), || new.choose(), &mut os_rng())?)
}

fn change_share(arguments: &ChangeShareArguments) -> anyhow::Result<()> {
    let ChangeShareArguments { share, out, share_passphrase_file, new_passphrase_file } = arguments;
    let old = share_question(share_passphrase_file.as_ref());
    let written = change::<StoredShare>(share, out.as_ref(), old, new_passphrase_file.as_ref())?;
    println!("{}: opens with the new passphrase", written.display());
    println!(
        "copies and printed pages of the old file open with the old passphrase: destroy them, and print again"
    );
    Ok(())
}

fn print(arguments: &PrintArguments) -> anyhow::Result<()> {
    let bundle = arguments.bundle.as_ref().map(|bundle| VerifiedBundle::read(bundle)).transpose()?;
    let print = Print {
        share: &arguments.share,
        bundle: bundle.as_ref(),
        out: &arguments.out,
        language: arguments.language,
    };
    let share = print.write(clock::now())?;
    println!("{}: print it on one sheet of A4, then delete the file", arguments.out.display());
    println!(
        "the page opens nothing without the passphrase of {}: keep that elsewhere",
        share.label.custodian
    );
    println!("share fingerprint: {}", words::spoken(&share.fingerprint()));
    Ok(())
}

fn restore(arguments: &RestoreArguments) -> anyhow::Result<()> {
    crate::process::harden()?;
    let bundle = arguments.bundle.as_ref().map(|bundle| VerifiedBundle::read(bundle)).transpose()?;
    let out = Reserved::new(arguments.out.clone(), files::PRIVATE)?;
    let source = match (&arguments.words, &arguments.qr_text) {
        (Some(path), _) => Source::Words(path),
        (None, Some(path)) => Source::QrText(path),
        (None, None) => Source::Person,
    };
    let ask = |prompt: &str| prompt::line(prompt, "the words", "--words or --qr-text");
    let share = restore::read(source, ask, |problem| eprintln!("{problem}"))?;
    println!("share of {}, share epoch {}", share.label.custodian, share.label.share_epoch);
    let question = share_question(arguments.share_passphrase_file.as_ref());
    let path = restore::store(&share, out, bundle.as_ref(), || question.enter())?;
    println!("{}: written; keep it and its passphrase to yourself", path.display());
    println!("share fingerprint: {}", words::spoken(&share.fingerprint()));
    println!("compare these eight words with the ones on the page");
    if let Some(bundle) = bundle {
        println!("both shares are the ones that the bundle commits to");
        println!("bundle fingerprint: {}", bundle.fingerprint);
    }
    Ok(())
}
