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
use crate::token_setup::OpenPartition;
use kms_core::bundle::{BUNDLE_DOMAIN, Bundle, MasterKey, Partition, SignedBundle};
use kms_core::codec::{self, VersionOne};
use kms_core::id::UnixMillis;
use kms_core::quorum::SecretKind;
use kms_core::reshare::{NextSet, next_bundle, next_share_set};
use kms_core::share::ShareDelivery;
use kms_core::suite::Digest32;
use kms_core::transcript::{Agreement, SignedTranscript, TRANSCRIPT_DOMAIN, Transcript};
use kms_hsm::{HsmModule, ModuleError, ObjectKind, PinPurpose, SoPin};
use rand_core::CryptoRng;
use std::path::{Path, PathBuf};

/// The next bundle in the folder of a reshare.
pub const NEXT_BUNDLE: &str = "bundle.kms";
/// The kind of ceremony in transcripts and consents of [`prepare`].
const PREPARE_KIND: &str = "reshare-prepare";

/// Why a reshare was not prepared. The old set is in force.
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
    /// Something failed in the HSM.
    #[error("{}. {exists} The old shares are in force; begin again with another --out", sentence(.source))]
    HalfWay {
        /// What is in the HSM now and was not before.
        exists: Inventory,
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
/// [`PrepareError`]; whatever it is, the old set stays in force.
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
    let mut transcript = Transcript::begin(bundle.suite, PREPARE_KIND, &plan.text);
    let consents = present.consents(before, PREPARE_KIND, plan.digest, clock(), rng);
    transcript.agreement = Some(Agreement { operation: plan.digest, consents });
    let record = |transcript: &mut Transcript, what: String| transcript.record(clock(), what);
    record(&mut transcript, format!("reshare of bundle {}, because: {}", before.fingerprint, plan.reason));
    record(&mut transcript, format!("present: {}", present.names()));
    for name in &plan.change.leaving {
        record(&mut transcript, format!("{name} leaves"));
    }
    for name in &plan.change.joining {
        record(&mut transcript, format!("{name} joins"));
    }
    let (start, core) =
        (present.secret(bundle, SecretKind::Start)?, present.secret(bundle, SecretKind::Core)?);
    drop(present);
    let mut exists = Inventory::default();
    let half_way =
        |exists: Inventory| move |source| PrepareError::HalfWay { exists, source: Box::new(source) };
    let made = (|| -> Result<_, StepError> {
        let suite = bundle.suite;
        let mut master_key = None;
        if let Some(version) = master_version {
            let algorithm = bundle.current_master_key().algorithm;
            let mut open =
                OpenPartition::open(&module, suite, &bundle.operations, PinPurpose::OperationsUser, &start)?;
            let label = format!("kms master key v{version}");
            let made = open.create(ObjectKind::SealingKey(algorithm), &label, &mut exists, rng)?;
            open.close();
            record(
                &mut transcript,
                format!("master key version {version} {} ({}) made", made.id, algorithm.name()),
            );
            master_key = Some(MasterKey { version, object: made.id, algorithm });
        }
        let set = next_share_set(bundle);
        let new_start = Split::make(SecretKind::Start, plan.threshold, &set, rng);
        let new_core = Split::make(SecretKind::Core, plan.threshold, &set, rng);
        new_start.recombine(plan.threshold, &set)?;
        new_core.recombine(plan.threshold, &set)?;
        let next = NextSet {
            threshold_needed: plan.threshold.needed(),
            enrolments: &plan.custodians,
            start: (&new_start.shares, new_start.commitment),
            core: (&new_core.shares, new_core.commitment),
            principals: plan.principals.clone(),
            master_key,
        };
        let next = next_bundle(bundle, before.fingerprint, next);
        let mut open = OpenPartition::open(&module, suite, &bundle.core, PinPurpose::CoreUser, &core)?;
        let body = codec::to_bytes(&next);
        let signature = open.sign(suite, &bundle.core_key, BUNDLE_DOMAIN, &body)?;
        let signed = SignedBundle { version: VersionOne, body, signature };
        if signed.verify()? != next {
            return Err(StepError::SelfCheck { what: "the next bundle does not read back" });
        }
        let fingerprint = signed.fingerprint(suite);
        record(&mut transcript, format!("next bundle signed by the core key, fingerprint {fingerprint}"));
        let deliveries = deliveries(&next, new_start, new_core, rng)?;
        record(
            &mut transcript,
            "new shares encrypted to the custodians, every secret wiped; no PIN was changed".to_owned(),
        );
        let body = codec::to_bytes(&transcript);
        let signature = open.sign(suite, &bundle.core_key, TRANSCRIPT_DOMAIN, &body)?;
        open.close();
        let transcript = SignedTranscript { version: VersionOne, body, signature };
        transcript.verify(&bundle.core_key.public_key)?;
        Ok((signed, fingerprint, deliveries, transcript))
    })();
    let (signed, fingerprint, deliveries, transcript) = match made {
        Ok(made) => made,
        Err(source) => return Err(half_way(exists)(source)),
    };
    let written = write(outputs, &signed, &deliveries, &transcript, fingerprint);
    written.map_err(|source| half_way(exists)(source.into()))
}

/// The bundle last: where it is, everything is.
fn write(
    outputs: Outputs,
    signed: &SignedBundle,
    deliveries: &[ShareDelivery],
    transcript: &SignedTranscript,
    fingerprint: Digest32,
) -> Result<Prepared, FileError> {
    let pairs = outputs.deliveries.into_iter().zip(deliveries);
    Ok(Prepared {
        fingerprint,
        deliveries: pairs
            .map(|(output, delivery)| output.write(codec::to_armour(delivery).as_bytes()))
            .collect::<Result<_, _>>()?,
        transcript: outputs.transcript.write(codec::to_armour(transcript).as_bytes())?,
        bundle: outputs.bundle.write(codec::to_armour(signed).as_bytes())?,
    })
}
