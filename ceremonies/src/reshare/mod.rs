//! Reshare on the HSM host: new quorum secrets for new or the same custodians (docs/reshare.md).
//!
//! [`prepare`] makes the next bundle and its shares and changes nothing. When every new custodian has acknowledged,
//! [`finish`] changes the PINs, step by step, and can be stopped and run again at any moment.

mod finish;
mod plan;
mod present;

pub use finish::{Finish, FinishError, Finished, finish, moments};
pub use plan::ResharePlan;
pub use present::{Brought, Present, PresentError, Set};

use crate::bundle_file::{BundleFileError, VerifiedBundle};
use crate::error_chain::sentence;
use crate::files::{self, FileError, Reserved};
use crate::init::{Inventory, StepError};
use crate::plan::PlanError;
use crate::split::{Split, deliveries};
use crate::steps::Steps;
use crate::token_setup::{OpenPartition, derived};
use kms_core::bundle::{BUNDLE_DOMAIN, Bundle, MasterKey, Partition, SignedBundle};
use kms_core::codec::{self, VersionOne};
use kms_core::id::{KeyVersion, UnixMillis};
use kms_core::quorum::SecretKind;
use kms_core::reshare::{NextSet, next_bundle, next_share_set};
use kms_core::secret::SecretBytes;
use kms_core::share::ShareDelivery;
use kms_core::suite::Digest32;
use kms_core::transcript::{Agreement, SignedTranscript};
use kms_hsm::{HsmModule, ModuleError, ObjectKind, PinPurpose, SoPin};
use rand_core::CryptoRng;
use std::path::{Path, PathBuf};

/// The next bundle in the folder of a reshare.
pub const NEXT_BUNDLE: &str = "bundle.kms";
/// The kind of ceremony in transcripts and consents of [`prepare`].
const PREPARE_KIND: &str = "reshare-prepare";

/// Why a reshare was not prepared. No PIN was changed.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The bundle.
    #[error(transparent)]
    Bundle(#[from] BundleFileError),
    /// An output is there already or cannot be written. No HSM was asked.
    #[error("nothing was done")]
    Output(#[from] FileError),
    /// The people who are there.
    #[error(transparent)]
    Present(#[from] PresentError),
    /// The tokens of the bundle.
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// The version numbers of master keys are used up.
    #[error("the bundle has no version left for a new master key")]
    NoVersion,
    /// A token has another PIN than this bundle's shares give.
    #[error(
        "the bundle given with --bundle is not in force: {}. A reshare of it was finished, or was begun and must be finished first. Do not try again with it; no PIN was changed", sentence(.0)
    )]
    NotInForce(#[source] ModuleError),
    /// Something failed in the HSM.
    #[error("{}. {exists}This run changed no PIN; begin again with another --out", sentence(.source))]
    HalfWay {
        /// A key that was made, in words.
        exists: String,
        /// What failed.
        source: Box<StepError>,
    },
}

/// Why the tokens cannot be used. No PIN was sent.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// The module or a token is missing.
    #[error("the PKCS#11 module or a token of the bundle cannot be used; nothing was changed")]
    Module(#[from] ModuleError),
    /// Somebody else keeps the SO PIN.
    #[error(
        "the SO PIN of modules with profile {profile} is the vendor's own; this version reshares only where it is derived"
    )]
    ExternalSoPin {
        /// Name of the profile.
        profile: String,
    },
}

/// What a command of the reshare is given.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// The reviewed plan.
    pub plan: &'a ResharePlan,
    /// The bundle that is in force.
    pub before: &'a VerifiedBundle,
    /// Who is there.
    pub brought: Brought<'a>,
}

/// What was prepared.
#[derive(Debug)]
pub struct Prepared {
    /// What the new custodians compare.
    pub fingerprint: Digest32,
    /// The next bundle.
    pub bundle: PathBuf,
    /// One for each new custodian.
    pub deliveries: Vec<PathBuf>,
    /// The signed transcript.
    pub transcript: PathBuf,
}

struct Outputs {
    bundle: Reserved,
    transcript: Reserved,
    deliveries: Vec<Reserved>,
}

impl Outputs {
    fn reserve(plan: &ResharePlan, out: &Path) -> Result<Self, FileError> {
        files::make_folder(out)?;
        let reserve = |name: String| Reserved::new(out.join(name), files::PUBLIC);
        let delivery = |one: &kms_core::share::Enrolment| reserve(format!("{}.delivery", one.name));
        Ok(Self {
            bundle: reserve(NEXT_BUNDLE.to_owned())?,
            transcript: reserve("prepare.transcript.kms".to_owned())?,
            deliveries: plan.custodians.iter().map(delivery).collect::<Result<_, _>>()?,
        })
    }
}

/// Opens the module and finds both tokens of a bundle, without any PIN.
fn open_module(plan: &ResharePlan, bundle: &Bundle) -> Result<HsmModule, TokensError> {
    let module = HsmModule::open(&plan.module.path, plan.module.profile.clone())?;
    if module.profile().so_pin() != SoPin::Derived {
        return Err(TokensError::ExternalSoPin { profile: module.profile().name().to_owned() });
    }
    for Partition { label, serial, .. } in [&bundle.operations, &bundle.core] {
        module.find_token_with_serial(label, serial)?;
    }
    Ok(module)
}

/// Makes new secrets, the next bundle and its deliveries. `clock` gives the times in the transcript.
///
/// # Errors
/// [`PrepareError`]; whatever it is, no PIN was changed.
pub fn prepare(
    inputs: &Inputs<'_>,
    out: &Path,
    clock: &dyn Fn() -> UnixMillis,
    rng: &mut impl CryptoRng,
) -> Result<Prepared, PrepareError> {
    let (plan, before) = (inputs.plan, inputs.before);
    let bundle = &before.bundle;
    let outputs = Outputs::reserve(plan, out)?;
    let module = open_module(plan, bundle)?;
    let next_version = bundle.current_master_key().version.next();
    let master_version = match plan.change.leaving.is_empty() {
        true => None,
        false => Some(next_version.ok_or(PrepareError::NoVersion)?),
    };
    let present = Present::open(&inputs.brought, &[Set { bundle, is_needed: true }])?;
    let mut steps = Steps::begin(bundle.suite, PREPARE_KIND, &plan.text, clock);
    let consents = present.consents(before, PREPARE_KIND, plan.digest, steps.now(), rng);
    steps.transcript.agreement = Some(Agreement { operation: plan.digest, consents });
    steps.add(format!("reshare of bundle {}, because: {}", before.fingerprint, plan.reason));
    steps.add(format!("present: {}", present.names()));
    plan.change.leaving.iter().for_each(|name| steps.add(format!("{name} leaves")));
    plan.change.joining.iter().for_each(|name| steps.add(format!("{name} joins")));
    let old = OldSecrets {
        start: present.secret(bundle, SecretKind::Start)?,
        core: present.secret(bundle, SecretKind::Core)?,
    };
    drop(present);
    check_in_force(bundle, &module, &old).map_err(|error| match error {
        StepError::Module(source) if source.is_pin_refused() => PrepareError::NotInForce(source),
        source => PrepareError::HalfWay { exists: String::new(), source: Box::new(source) },
    })?;
    let mut exists = Inventory::default();
    let made = make(inputs, &module, &old, master_version, &mut steps, &mut exists, rng);
    drop(old);
    made.and_then(|made| Ok(write(outputs, &made)?))
        .map_err(|source| PrepareError::HalfWay { exists: leftover(&exists), source: Box::new(source) })
}

/// What was made in the operations token, which is in use: nobody should initialise it or remove objects by their label.
fn leftover(exists: &Inventory) -> String {
    match exists.names() {
        None => String::new(),
        Some(names) => {
            format!("The operations token has a key that nothing uses, and that may stay: {names}. ")
        }
    }
}

/// That all four PINs are those of this bundle: with one that is half-way to another, nothing is prepared. A wrong one costs
/// one attempt, in this case alone.
fn check_in_force(bundle: &Bundle, module: &HsmModule, old: &OldSecrets) -> Result<(), StepError> {
    let suite = bundle.suite;
    // The users first: an attempt at an SO PIN can be worth a token.
    OpenPartition::open(module, suite, &bundle.core, PinPurpose::CoreUser, &old.core)?.close();
    OpenPartition::open(module, suite, &bundle.operations, PinPurpose::OperationsUser, &old.start)?.close();
    for (partition, purpose) in
        [(&bundle.operations, PinPurpose::OperationsSo), (&bundle.core, PinPurpose::CoreSo)]
    {
        let token = module.find_token_with_serial(&partition.label, &partition.serial)?;
        module.check_so_pin(&token, &derived(module, suite, partition, (purpose, &old.core))?)?;
    }
    Ok(())
}

struct OldSecrets {
    start: SecretBytes<32>,
    core: SecretBytes<32>,
}

/// What is to be written.
struct Made {
    bundle: SignedBundle,
    fingerprint: Digest32,
    deliveries: Vec<ShareDelivery>,
    transcript: SignedTranscript,
}

fn make(
    inputs: &Inputs<'_>,
    module: &HsmModule,
    old: &OldSecrets,
    master_version: Option<KeyVersion>,
    steps: &mut Steps<'_>,
    exists: &mut Inventory,
    rng: &mut impl CryptoRng,
) -> Result<Made, StepError> {
    let (plan, before) = (inputs.plan, inputs.before);
    let (bundle, suite) = (&before.bundle, before.bundle.suite);
    let mut core_open = OpenPartition::open(module, suite, &bundle.core, PinPurpose::CoreUser, &old.core)?;
    let mut master_key = None;
    if let Some(version) = master_version {
        let algorithm = bundle.current_master_key().algorithm;
        let operations = &bundle.operations;
        let mut open =
            OpenPartition::open(module, suite, operations, PinPurpose::OperationsUser, &old.start)?;
        let label = format!("kms master key v{version}");
        let kind = ObjectKind::SealingKey(algorithm);
        open.require(&[kind])?;
        let made = open.create(kind, &label, exists, rng)?;
        steps.add(format!("master key version {version} {} ({}) made", made.id, algorithm.name()));
        let made = MasterKey { version, object: made.id, algorithm };
        open.check_sealing(&made, rng)?;
        open.close();
        master_key = Some(made);
    }
    let set = next_share_set(bundle);
    let start = Split::make(SecretKind::Start, plan.threshold, &set, rng);
    let core = Split::make(SecretKind::Core, plan.threshold, &set, rng);
    start.recombine(plan.threshold, &set)?;
    core.recombine(plan.threshold, &set)?;
    let next = NextSet {
        threshold_needed: plan.threshold.needed(),
        enrolments: &plan.custodians,
        start: (&start.shares, start.commitment),
        core: (&core.shares, core.commitment),
        principals: plan.principals.clone(),
        master_key,
    };
    let next = next_bundle(bundle, before.fingerprint, next);
    let body = codec::to_bytes(&next);
    let signature = core_open.sign(suite, &bundle.core_key, BUNDLE_DOMAIN, &body)?;
    let signed = SignedBundle { version: VersionOne, body, signature };
    if signed.verify()? != next {
        return Err(StepError::SelfCheck { what: "the next bundle does not read back" });
    }
    let fingerprint = signed.fingerprint(suite);
    steps.add(format!("next bundle signed by the core key, fingerprint {fingerprint}"));
    let deliveries = deliveries(&next, start, core, rng)?;
    steps.add("new shares encrypted to the custodians, every secret wiped; no PIN was changed");
    let transcript = steps.sign(&mut core_open, suite, &bundle.core_key)?;
    core_open.close();
    Ok(Made { bundle: signed, fingerprint, deliveries, transcript })
}

/// The bundle last: where it is, everything is.
fn write(outputs: Outputs, made: &Made) -> Result<Prepared, FileError> {
    let pairs = outputs.deliveries.into_iter().zip(&made.deliveries);
    Ok(Prepared {
        fingerprint: made.fingerprint,
        deliveries: pairs
            .map(|(output, delivery)| output.write(codec::to_armour(delivery).as_bytes()))
            .collect::<Result<_, _>>()?,
        transcript: outputs.transcript.write(codec::to_armour(&made.transcript).as_bytes())?,
        bundle: outputs.bundle.write(codec::to_armour(&made.bundle).as_bytes())?,
    })
}
