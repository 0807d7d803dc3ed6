//! The change of the PINs: four steps, each written down before and after.

use super::{
    Inputs, NEXT_BUNDLE, OldSecrets, Present, PresentError, Set, TokensError, check_in_force, open_module,
};
use crate::bundle_file::{BundleFileError, VerifiedBundle};
use crate::crash;
use crate::error_chain::sentence;
use crate::files::{self, FileError, Reserved};
use crate::init::StepError;
use crate::random::os_rng;
use crate::steps::Steps;
use crate::token_setup::{OpenPartition, derived};
use kms_core::bundle::Bundle;
use kms_core::codec;
use kms_core::id::{CustodianName, UnixMillis};
use kms_core::quorum::SecretKind;
use kms_core::reshare::{PinStep, Progress, ProgressError, Standing};
use kms_core::secret::SecretBytes;
use kms_core::share::{ShareError, SignedAcknowledgement};
use kms_core::suite::Digest32;
use kms_core::transcript::{Agreement, SignedTranscript};
use kms_hsm::{HsmModule, ModuleError, PinPurpose};
use rand_core::CryptoRng;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const FINISH_KIND: &str = "reshare-finish";
const PROGRESS: &str = "reshare.progress";
const TRANSCRIPT: &str = "finish.transcript.kms";
/// Longest progress file, in bytes: each run adds at most eight lines.
const PROGRESS_LEN_MAX: u64 = 1 << 20;

/// Why a reshare was not finished.
#[derive(Debug, thiserror::Error)]
pub enum FinishError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The next bundle.
    #[error(transparent)]
    Bundle(#[from] BundleFileError),
    /// The folder is of another reshare than the plan or the bundle.
    #[error("{path} does not follow from this bundle and plan: {what}")]
    OtherReshare {
        /// The next bundle's file.
        path: PathBuf,
        /// What differs.
        what: &'static str,
    },
    /// An acknowledgement is wrong.
    #[error("{path} is refused")]
    Acknowledgement {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: ShareError,
    },
    /// An acknowledgement of another bundle.
    #[error("{path} acknowledges shares of another bundle")]
    OtherBundle {
        /// Which file.
        path: PathBuf,
    },
    /// Somebody has not acknowledged.
    #[error(
        "{custodian} has not acknowledged the new shares; no PIN is changed before everybody has (--acknowledgement)"
    )]
    NotAcknowledged {
        /// Who.
        custodian: CustodianName,
    },
    /// The progress file.
    #[error("{path} {source}")]
    Progress {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ProgressError,
    },
    /// It is finished.
    #[error("this reshare is finished: {path} is there")]
    IsFinished {
        /// The transcript.
        path: PathBuf,
    },
    /// The people who are there.
    #[error(transparent)]
    Present(#[from] PresentError),
    /// The tokens.
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// The progress file cannot be written.
    #[error("{path} cannot be written; {standing}")]
    Journal {
        /// Which file.
        path: PathBuf,
        /// How far it is.
        standing: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The token refused the PIN that it should have.
    #[error(
        "step {step}: token {label:?} has none of the PINs that it could have, and no other was tried. Another reshare of this bundle may have been begun or finished: find out which, and bring its folder. Only when it was this one and its {PROGRESS} was lost, run again with --in-doubt: that costs attempts, and some tokens destroy their keys after ten", step = .step.name()
    )]
    PinRefused {
        /// Which step.
        step: PinStep,
        /// The token.
        label: String,
    },
    /// An earlier run met [`FinishError::PinRefused`].
    #[error(
        "step {step} was refused by the token in an earlier run; find out why before anything more is tried (docs/reshare.md), then run again with --in-doubt", step = .step.name()
    )]
    WasRefused {
        /// Which step.
        step: PinStep,
    },
    /// The tokens are not as the old bundle says, or not able to do what the next one asks.
    #[error("nothing was begun: {}. If a reshare of this bundle was begun or finished elsewhere, bring its folder; only when it was this one and its {PROGRESS} was lost, run again with --in-doubt", sentence(.0))]
    NotBegun(#[source] Box<StepError>),
    /// Somebody else is at it.
    #[error("another run is at work in {path}; wait for its end")]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// Everything is changed, but the transcript is not there.
    #[error("every PIN is changed, and the new shares are in force; but the transcript is not written: {}. Run the same command again", sentence(.0))]
    Unfiled(#[source] FileError),
    /// A step failed.
    #[error("step {}: {}; {standing}", .step.name(), sentence(.source))]
    Step {
        /// Which step.
        step: PinStep,
        /// What failed.
        source: Box<StepError>,
        /// How far it is.
        standing: String,
    },
    /// Everything is changed, but the last check failed.
    #[error("every PIN is changed, and the new shares are in force; but {}. Run the same command again", sentence(.0))]
    Closing(#[source] Box<StepError>),
}

/// What `finish` is given beside the inputs.
#[derive(Debug)]
pub struct Finish<'a> {
    /// The folder that `prepare` made.
    pub folder: &'a Path,
    /// The new custodians' acknowledgements.
    pub acknowledgements: &'a [PathBuf],
    /// The progress file was lost: every SO step may have been begun.
    pub is_in_doubt: bool,
}

/// How it ended.
#[derive(Debug)]
pub struct Finished {
    /// The next bundle, in force now.
    pub bundle: PathBuf,
    /// The signed transcript.
    pub transcript: PathBuf,
}

/// Changes the PINs, or goes on where an earlier run was stopped.
///
/// # Errors
/// [`FinishError`] says how far it is.
pub fn finish(
    inputs: &Inputs<'_>,
    finish: &Finish<'_>,
    clock: &dyn Fn() -> UnixMillis,
    rng: &mut impl CryptoRng,
) -> Result<Finished, FinishError> {
    let (plan, before) = (inputs.plan, inputs.before);
    let next_path = finish.folder.join(NEXT_BUNDLE);
    let next = VerifiedBundle::read(&next_path)?;
    check_follows(inputs, &next)
        .map_err(|what| FinishError::OtherReshare { path: next_path.clone(), what })?;
    check_acknowledgements(&next, finish.acknowledgements)?;
    let transcript_path = finish.folder.join(TRANSCRIPT);
    let _one_at_a_time = lock(finish.folder)?;
    clear_placeholder(&transcript_path)?;
    let mut journal = Journal::open(finish.folder.join(PROGRESS), &next)?;
    if finish.is_in_doubt {
        journal.doubt()?;
    }
    if let Some(step) =
        PinStep::ALL.into_iter().find(|step| journal.progress.standing(*step) == Standing::Refused)
    {
        return Err(FinishError::WasRefused { step });
    }
    let module = open_module(plan, &before.bundle)?;
    let needs_old = journal.progress.needs_old_secret();
    let sets = [
        Set { bundle: &next.bundle, is_needed: true },
        // Taken even when it is needed no more: the command that is run again is the same one.
        Set { bundle: &before.bundle, is_needed: needs_old },
    ];
    let present = Present::open(&inputs.brought, &sets)?;
    let mut steps = Steps::begin(before.bundle.suite, FINISH_KIND, &plan.text, clock);
    let consents = present.consents(before, FINISH_KIND, plan.digest, steps.now(), rng);
    steps.transcript.agreement = Some(Agreement { operation: plan.digest, consents });
    steps.add(format!("reshare to bundle {}, because: {}", next.fingerprint, plan.reason));
    steps.add(format!("present: {}", present.names()));
    for one in &next.bundle.custodians {
        steps.add(format!("{} has acknowledged the new shares", one.name));
    }
    let secrets = Secrets {
        old: match present.has_quorum(&before.bundle) {
            true => Some(OldSecrets {
                start: present.secret(&before.bundle, SecretKind::Start)?,
                core: present.secret(&before.bundle, SecretKind::Core)?,
            }),
            false => None,
        },
        start: present.secret(&next.bundle, SecretKind::Start)?,
        core: present.secret(&next.bundle, SecretKind::Core)?,
    };
    drop(present);
    let tokens = Tokens { module: &module, before: &before.bundle, next: &next.bundle, secrets: &secrets };
    if !journal.progress.has_begun() {
        tokens.check_before().map_err(|error| FinishError::NotBegun(Box::new(error)))?;
    }
    if finish.is_in_doubt {
        steps.add("in doubt: an earlier progress file was lost, or a step was refused");
    }
    for step in PinStep::ALL {
        if journal.progress.standing(step) == Standing::Done {
            steps.add(format!("{}: changed by an earlier run", step.name()));
            continue;
        }
        crash::at(&moment("before", step));
        let standing = journal.progress.standing(step);
        journal.write(step, Standing::InDoubt)?;
        crash::at(&moment("begun", step));
        if let Err(error) = tokens.change(step, standing) {
            return Err(match error {
                ChangeError::Refused { label } => {
                    journal.write(step, Standing::Refused)?;
                    FinishError::PinRefused { step, label }
                }
                ChangeError::Failed(source) => {
                    FinishError::Step { step, source: Box::new(source), standing: journal.standing_text() }
                }
            });
        }
        crash::at(&moment("changed", step));
        journal.write(step, Standing::Done)?;
        crash::at(&moment("done", step));
        steps.add(format!("{}: PIN changed", step.name()));
    }
    let signed = tokens.close(&mut steps, rng).map_err(|error| FinishError::Closing(Box::new(error)))?;
    crash::at("reshare.closed");
    let output = Reserved::new(transcript_path, files::PUBLIC).map_err(FinishError::Unfiled)?;
    crash::at("reshare.transcript-reserved");
    let transcript = output.write(codec::to_armour(&signed).as_bytes()).map_err(FinishError::Unfiled)?;
    Ok(Finished { bundle: next_path, transcript })
}

fn moment(when: &str, step: PinStep) -> String {
    format!("reshare.{when}-{}", step.name())
}

/// Every moment of `finish` at which a test build can be killed.
pub fn moments() -> Vec<String> {
    let of_step = |step| ["before", "begun", "changed", "done"].map(|when| moment(when, step));
    let closing = ["reshare.closed".to_owned(), "reshare.transcript-reserved".to_owned()];
    PinStep::ALL.into_iter().flat_map(of_step).chain(closing).collect()
}

fn check_follows(inputs: &Inputs<'_>, next: &VerifiedBundle) -> Result<(), &'static str> {
    let (plan, before, next) = (inputs.plan, inputs.before, &next.bundle);
    let is_signed_by_the_same =
        next.core_key == before.bundle.core_key && next.cluster_id == before.bundle.cluster_id;
    if !is_signed_by_the_same || next.previous != Some(before.fingerprint) {
        return Err("it follows another bundle");
    }
    let enrolled = plan.custodians.iter().map(|one| (&one.name, &one.sign_key, &one.seal_key));
    let listed = next.custodians.iter().map(|one| (&one.name, &one.sign_key, &one.seal_key));
    if !enrolled.eq(listed) || next.threshold() != plan.threshold || next.principals != plan.principals {
        return Err("its custodians, threshold or principals are not those of the plan");
    }
    Ok(())
}

fn check_acknowledgements(next: &VerifiedBundle, paths: &[PathBuf]) -> Result<(), FinishError> {
    let mut acknowledged = Vec::new();
    for path in paths {
        let signed: SignedAcknowledgement = files::read_armour(path)?;
        let refused = |source| FinishError::Acknowledgement { path: path.clone(), source };
        let said = signed.verify(&next.bundle).map_err(refused)?;
        if said.bundle != next.fingerprint {
            return Err(FinishError::OtherBundle { path: path.clone() });
        }
        acknowledged.push(said.label.custodian);
    }
    match next.bundle.custodians.iter().find(|one| !acknowledged.contains(&one.name)) {
        None => Ok(()),
        Some(one) => Err(FinishError::NotAcknowledged { custodian: one.name.clone() }),
    }
}

/// Keeps a second run out for as long as the folder is open.
fn lock(folder: &Path) -> Result<File, FinishError> {
    let unreadable = |source| FileError::Read { path: folder.to_owned(), source };
    let opened = File::open(folder).map_err(unreadable)?;
    match rustix::fs::flock(&opened, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(opened),
        Err(Errno::WOULDBLOCK) => Err(FinishError::Busy { path: folder.to_owned() }),
        Err(error) => Err(unreadable(error.into()).into()),
    }
}

/// A run that was killed while it wrote the transcript leaves its empty place.
fn clear_placeholder(path: &Path) -> Result<(), FinishError> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(FileError::Read { path: path.to_owned(), source }.into()),
        Ok(there) if there.len() == 0 => {
            std::fs::remove_file(path)
                .map_err(|source| FileError::Write { path: path.to_owned(), source })?;
            Ok(())
        }
        Ok(_) => Err(FinishError::IsFinished { path: path.to_owned() }),
    }
}

/// The progress file: what is in it is durable. It begins with the first step.
struct Journal {
    path: PathBuf,
    file: Option<File>,
    next: Digest32,
    progress: Progress,
}

impl Journal {
    fn open(path: PathBuf, next: &VerifiedBundle) -> Result<Self, FinishError> {
        let next = next.fingerprint;
        if !path.exists() {
            return Ok(Self { path, file: None, next, progress: Progress::untouched() });
        }
        let text = files::read(&path, PROGRESS_LEN_MAX)?;
        let text = String::from_utf8_lossy(text.expose()).into_owned();
        let refused = |source| FinishError::Progress { path: path.clone(), source };
        let progress = Progress::parse(&text, &next).map_err(refused)?;
        // A line without its end was never durable.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let unwritable = |source| FileError::Write { path: path.clone(), source };
        let mut file = OpenOptions::new().append(true).open(&path).map_err(unwritable)?;
        file.set_len(whole as u64).map_err(unwritable)?;
        if whole == 0 {
            file.write_all(Progress::first_line(&next).as_bytes()).map_err(unwritable)?;
        }
        file.sync_all().map_err(unwritable)?;
        Ok(Self { path, file: Some(file), next, progress })
    }

    fn begin(&self) -> io::Result<File> {
        let mut file = OpenOptions::new().append(true).create_new(true).open(&self.path)?;
        file.write_all(Progress::first_line(&self.next).as_bytes())?;
        file.sync_all()?;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()?;
        Ok(file)
    }

    fn add(&mut self, line: &str) -> io::Result<()> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.begin()?,
        };
        file.write_all(line.as_bytes())?;
        file.sync_all()?;
        self.file = Some(file);
        Ok(())
    }

    fn write(&mut self, step: PinStep, standing: Standing) -> Result<(), FinishError> {
        self.add_durably(&Progress::line(step, standing))?;
        self.progress.set(step, standing);
        Ok(())
    }

    fn doubt(&mut self) -> Result<(), FinishError> {
        self.add_durably(&Progress::doubted())?;
        self.progress.doubt();
        Ok(())
    }

    fn add_durably(&mut self, line: &str) -> Result<(), FinishError> {
        let written = self.add(line);
        written.map_err(|source| FinishError::Journal {
            path: self.path.clone(),
            standing: self.standing_text(),
            source,
        })
    }

    fn standing_text(&self) -> String {
        if !self.progress.has_begun() {
            return "no PIN was changed, and the old shares are in force".to_owned();
        }
        let set = match self.progress.standing(PinStep::OperationsUser) {
            Standing::Untouched => "the old shares still start the service",
            Standing::InDoubt | Standing::Refused => "the old or the new shares start the service",
            Standing::Done => "the new shares start the service",
        };
        format!("run the same command again: there is no way back; {set}")
    }
}

struct Secrets {
    /// `None` where no quorum of the old set is there, because it is needed no more.
    old: Option<OldSecrets>,
    start: SecretBytes<32>,
    core: SecretBytes<32>,
}

struct Tokens<'a> {
    module: &'a HsmModule,
    before: &'a Bundle,
    next: &'a Bundle,
    secrets: &'a Secrets,
}

/// Why one step failed.
enum ChangeError {
    Refused { label: String },
    Failed(StepError),
}

impl From<ModuleError> for ChangeError {
    fn from(error: ModuleError) -> Self {
        ChangeError::Failed(error.into())
    }
}

/// A token has another PIN: of everything that goes wrong with a login, this alone is certain.
fn is_wrong_pin(error: &ModuleError) -> bool {
    matches!(error, ModuleError::WrongPin { .. })
}

impl Tokens<'_> {
    /// Before the first step: the old PINs are there, and the operations partition can do what the next bundle asks, the new
    /// master key too. Afterwards nobody could begin again.
    fn check_before(&self) -> Result<(), StepError> {
        let Some(old) = &self.secrets.old else { return Ok(()) };
        check_in_force(self.before, self.module, old)?;
        let (suite, operations) = (self.before.suite, &self.before.operations);
        let mut open =
            OpenPartition::open(self.module, suite, operations, PinPurpose::OperationsUser, &old.start)?;
        open.check_operations(self.next, &mut os_rng())?;
        open.close();
        Ok(())
    }

    fn change(&self, step: PinStep, standing: Standing) -> Result<(), ChangeError> {
        let Secrets { start, core, .. } = self.secrets;
        match step {
            PinStep::OperationsSo => {
                self.change_so_pin(|bundle| &bundle.operations, PinPurpose::OperationsSo, standing)
            }
            PinStep::CoreSo => self.change_so_pin(|bundle| &bundle.core, PinPurpose::CoreSo, standing),
            PinStep::CoreUser => {
                self.set_user_pin(&self.next.core, PinPurpose::CoreSo, (PinPurpose::CoreUser, core))
            }
            PinStep::OperationsUser => self.set_user_pin(
                &self.next.operations,
                PinPurpose::OperationsSo,
                (PinPurpose::OperationsUser, start),
            ),
        }
    }

    fn change_so_pin(
        &self,
        partition: fn(&Bundle) -> &kms_core::bundle::Partition,
        purpose: PinPurpose,
        standing: Standing,
    ) -> Result<(), ChangeError> {
        let (before, next) = (partition(self.before), partition(self.next));
        let failed = |error: crate::pin::PinError| ChangeError::Failed(error.into());
        let suite = self.next.suite;
        let new = derived(self.module, suite, next, (purpose, &self.secrets.core)).map_err(failed)?;
        let token = self.module.find_token_with_serial(&next.label, &next.serial)?;
        if standing == Standing::InDoubt {
            // The new one first: most often the answer was lost and not the change.
            match self.module.check_so_pin(&token, &new) {
                Ok(()) => return Ok(()),
                Err(error) if is_wrong_pin(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let refused = || ChangeError::Refused { label: next.label.clone() };
        let old = self.secrets.old.as_ref().ok_or_else(refused)?;
        let old = derived(self.module, suite, before, (purpose, &old.core)).map_err(failed)?;
        match self.module.set_so_pin(&token, &old, &new) {
            Err(error) if is_wrong_pin(&error) => Err(refused()),
            done => Ok(done?),
        }
    }

    fn set_user_pin(
        &self,
        partition: &kms_core::bundle::Partition,
        so: PinPurpose,
        (purpose, secret): (PinPurpose, &SecretBytes<32>),
    ) -> Result<(), ChangeError> {
        let failed = |error: crate::pin::PinError| ChangeError::Failed(error.into());
        let pin = |of| derived(self.module, self.next.suite, partition, of).map_err(failed);
        let (so, user) = (pin((so, &self.secrets.core))?, pin((purpose, secret))?);
        let token = self.module.find_token_with_serial(&partition.label, &partition.serial)?;
        match self.module.initialise_user_pin(&token, &so, &user) {
            Err(error) if is_wrong_pin(&error) => {
                Err(ChangeError::Refused { label: partition.label.clone() })
            }
            done => Ok(done?),
        }
    }

    /// Opens both partitions with the new PINs, tries what the next start needs, and signs the transcript.
    fn close(&self, steps: &mut Steps<'_>, rng: &mut impl CryptoRng) -> Result<SignedTranscript, StepError> {
        let (next, suite) = (self.next, self.next.suite);
        let (module, secrets) = (self.module, self.secrets);
        let mut open =
            OpenPartition::open(module, suite, &next.operations, PinPurpose::OperationsUser, &secrets.start)?;
        open.check_operations(next, rng)?;
        open.close();
        steps.add("the new start secret opens the operations partition, and its keys work");
        let mut open = OpenPartition::open(module, suite, &next.core, PinPurpose::CoreUser, &secrets.core)?;
        steps.add("the new core secret opens the core partition; the old shares are dead");
        let signed = steps.sign(&mut open, suite, &next.core_key)?;
        open.close();
        Ok(signed)
    }
}
