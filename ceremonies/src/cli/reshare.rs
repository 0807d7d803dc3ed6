//! `kms-ceremony reshare`.

use super::fingerprint;
use crate::bundle_file::VerifiedBundle;
use crate::reshare::{self, Brought, ResharePlan};
use crate::{clock, prompt, random::os_rng};
use clap::{Args, Subcommand};
use kms_core::suite::Digest32;
use kms_core::words;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(super) enum ReshareCommand {
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
pub(super) struct ResharePlanArguments {
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
pub(super) struct PresentArguments {
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

pub(super) fn reshare(command: &ReshareCommand) -> anyhow::Result<()> {
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
            println!("in words: {}", words::spoken(&made.fingerprint));
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
