//! The init ceremony: two tokens, two secrets split among the custodians, the first keys, and the bundle.
//!
//! Nothing is ever deleted here. A run that stops half-way leaves what it made and says what that is: the
//! next run uses other labels, and a person removes the rest with the vendor's tools.

use crate::error_chain::sentence;
use crate::files::{self, FileError, Reserved};
use crate::pin::PinError;
use crate::plan::Plan;
use crate::split::{Split, deliveries};
use crate::steps::Steps;
use crate::token_setup::{OpenPartition, PinSecrets, make_token};

pub use crate::token_setup::Inventory;
use kms_core::asymmetric::{SealError, SignatureError};
use kms_core::bundle::{BUNDLE_DOMAIN, Bundle, BundleError, Custodian, MasterKey, SignedBundle};
use kms_core::codec::{self, VersionOne};
use kms_core::id::{CustodianName, HsmObjectId, KeyVersion, UnixMillis};
use kms_core::quorum::{CombineError, SecretKind, ShareSet};
use kms_core::suite::Digest32;
use kms_core::transcript::TranscriptError;
use kms_hsm::{HsmError, HsmModule, ModuleError, ObjectKind, PinPurpose, SoPin};
use rand_core::CryptoRng;
use std::path::{Path, PathBuf};

const FIRST_SHARE_EPOCH: u32 = 1;
const CHECKPOINT_KEY: &str = "kms checkpoint key";
const ROW_MAC_KEY: &str = "kms row-mac key";
const MASTER_KEY: &str = "kms master key v1";
const CORE_KEY: &str = "kms core key";

/// Why the ceremony did not complete.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// An output is there already or cannot be written. No HSM was asked.
    #[error("nothing was done")]
    Output(#[from] FileError),
    /// The module cannot be used.
    #[error("the PKCS#11 module cannot be used; nothing was made in it")]
    Module(#[from] ModuleError),
    /// The label is not free.
    #[error(
        "{field}: the module has a token {label:?} already; nothing was made. Choose another label: a token is never initialised again"
    )]
    LabelInUse {
        /// Field of the plan.
        field: &'static str,
        /// The label.
        label: String,
    },
    /// Somebody else keeps the SO PIN.
    #[error(
        "the SO PIN of modules with profile {profile} is the vendor's own; this version initialises only tokens whose SO PIN is derived. Nothing was made"
    )]
    ExternalSoPin {
        /// Name of the profile.
        profile: String,
    },
    /// Something failed after the first change.
    #[error("{}. {exists} Nothing was deleted.", sentence(.source))]
    HalfWay {
        /// What is in the HSM now.
        exists: Inventory,
        /// What failed.
        source: Box<StepError>,
    },
}

/// What failed in the middle.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// A token could not be made or opened.
    #[error("a token did not do its part")]
    Module(#[from] ModuleError),
    /// An operation in a token failed.
    #[error("a token did not do its part")]
    Hsm(#[from] HsmError),
    /// No PIN of this length.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// A mechanism is missing.
    #[error("token {label:?} does not offer all mechanisms for {kind:?}")]
    Lacks {
        /// The token.
        label: String,
        /// What cannot be made in it.
        kind: ObjectKind,
    },
    /// A key pair without a public key.
    #[error("the token gave no public key for {id}")]
    NoPublicKey {
        /// The key.
        id: HsmObjectId,
    },
    /// A share cannot be encrypted to its custodian.
    #[error("the shares of {custodian} cannot be encrypted to the enrolled key")]
    Delivery {
        /// Whose.
        custodian: CustodianName,
        /// Why.
        #[source]
        source: SealError,
    },
    /// The token signed something else.
    #[error("the core key's signature does not verify")]
    Signature(#[from] SignatureError),
    /// The bundle breaks a rule.
    #[error("the bundle breaks a rule")]
    Bundle(#[from] BundleError),
    /// The transcript does not verify.
    #[error("the transcript does not verify")]
    Transcript(#[from] TranscriptError),
    /// The shares do not give the secret back.
    #[error("self-check")]
    Combine(#[from] CombineError),
    /// A key does not do what it is for.
    #[error("self-check: {what}")]
    SelfCheck {
        /// What was found.
        what: &'static str,
    },
    /// An output could not be written.
    #[error("an output was lost, and files of this run that are there are of no use")]
    File(#[from] FileError),
}

/// What the ceremony made.
#[derive(Debug)]
pub struct InitOutcome {
    /// What the custodians compare.
    pub fingerprint: Digest32,
    /// The signed bundle.
    pub bundle: PathBuf,
    /// One for each custodian.
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
    fn reserve(plan: &Plan, out: &Path) -> Result<Self, FileError> {
        files::make_folder(out)?;
        let reserve = |name: String| Reserved::new(out.join(name), files::PUBLIC);
        Ok(Self {
            bundle: reserve("bundle.kms".to_owned())?,
            transcript: reserve("transcript.kms".to_owned())?,
            deliveries: plan
                .custodians
                .iter()
                .map(|one| reserve(format!("{}.delivery", one.name)))
                .collect::<Result<_, _>>()?,
        })
    }
}

/// Carries out a plan. `clock` gives the times in bundle and transcript.
///
/// # Errors
/// [`InitError`]; only [`InitError::HalfWay`] leaves anything behind, and says what.
pub fn run(
    plan: &Plan,
    out: &Path,
    clock: &dyn Fn() -> UnixMillis,
    rng: &mut impl CryptoRng,
) -> Result<InitOutcome, InitError> {
    let outputs = Outputs::reserve(plan, out)?;
    let module = HsmModule::open(&plan.module.path, plan.module.profile.clone())?;
    if module.profile().so_pin() != SoPin::Derived {
        return Err(InitError::ExternalSoPin { profile: module.profile().name().to_owned() });
    }
    let tokens = module.tokens()?;
    for (field, label) in [("operations.label", &plan.operations_label), ("core.label", &plan.core_label)] {
        if tokens.iter().any(|token| token.label == *label) {
            return Err(InitError::LabelInUse { field, label: label.clone() });
        }
    }
    let mut exists = Inventory::default();
    let steps = begin(plan, clock);
    carry_out(plan, &module, outputs, steps, &mut exists, rng)
        .map_err(|source| InitError::HalfWay { exists, source: Box::new(source) })
}

fn begin<'a>(plan: &Plan, clock: &'a dyn Fn() -> UnixMillis) -> Steps<'a> {
    let mut steps = Steps::begin(plan.suite, "init", &plan.text, clock);
    let (needed, total) = (plan.threshold.needed(), plan.threshold.total());
    steps.add(format!(
        "plan accepted: cluster {}, suite {}, {needed} of {total} custodians",
        plan.cluster,
        plan.suite.name()
    ));
    for one in &plan.custodians {
        steps.add(format!("custodian {} with sign key {:?}", one.name, one.sign_key));
    }
    steps
}

fn carry_out(
    plan: &Plan,
    module: &HsmModule,
    outputs: Outputs,
    mut steps: Steps<'_>,
    exists: &mut Inventory,
    rng: &mut impl CryptoRng,
) -> Result<InitOutcome, StepError> {
    let suite = plan.suite;
    let mut cluster_id = [0; 16];
    rng.fill_bytes(&mut cluster_id);
    let set = ShareSet { suite, cluster_id, share_epoch: FIRST_SHARE_EPOCH };
    let start = Split::make(SecretKind::Start, plan.threshold, &set, rng);
    let core = Split::make(SecretKind::Core, plan.threshold, &set, rng);
    steps.add("two quorum secrets made and split");

    let operations_pins = PinSecrets {
        so: (PinPurpose::OperationsSo, &core.secret),
        user: (PinPurpose::OperationsUser, &start.secret),
    };
    let core_pins =
        PinSecrets { so: (PinPurpose::CoreSo, &core.secret), user: (PinPurpose::CoreUser, &core.secret) };
    let operations = make_token(module, suite, &plan.operations_label, &operations_pins, exists, rng)?;
    steps.add(format!("operations token {:?} made, serial {}", operations.label, operations.serial));
    let core_partition = make_token(module, suite, &plan.core_label, &core_pins, exists, rng)?;
    steps.add(format!("core token {:?} made, serial {}", core_partition.label, core_partition.serial));

    let mut core_open =
        OpenPartition::open(module, suite, &core_partition, PinPurpose::CoreUser, &core.secret)?;
    let mut operations_open =
        OpenPartition::open(module, suite, &operations, PinPurpose::OperationsUser, &start.secret)?;
    let master_kind = ObjectKind::SealingKey(plan.master_key);
    core_open.require(&[ObjectKind::SigningKey(suite)])?;
    operations_open.require(&[
        ObjectKind::SigningKey(suite),
        ObjectKind::MacKey(suite.mac()),
        master_kind,
    ])?;

    let core_key = core_open.create_signing_key(suite, CORE_KEY, exists, rng)?;
    steps.add(format!("core key {} made: {:?}", core_key.object, core_key.public_key));
    let checkpoint_key = operations_open.create_signing_key(suite, CHECKPOINT_KEY, exists, rng)?;
    steps.add(format!("checkpoint key {} made: {:?}", checkpoint_key.object, checkpoint_key.public_key));
    let row_mac_key = operations_open.create(ObjectKind::MacKey(suite.mac()), ROW_MAC_KEY, exists, rng)?.id;
    steps.add(format!("row-MAC key {row_mac_key} made"));
    let master_key = operations_open.create(master_kind, MASTER_KEY, exists, rng)?.id;
    steps.add(format!("master key version 1 {master_key} ({}) made", plan.master_key.name()));

    let bundle = Bundle {
        version: VersionOne,
        cluster_id,
        cluster_name: plan.cluster.clone(),
        suite,
        created: steps.now(),
        share_epoch: FIRST_SHARE_EPOCH,
        threshold_needed: plan.threshold.needed(),
        custodians: Custodian::of_set(&set, &plan.custodians, &start.shares, &core.shares),
        start_commitment: start.commitment,
        core_commitment: core.commitment,
        operations,
        core: core_partition,
        core_key,
        checkpoint_key,
        row_mac_key,
        master_keys: vec![MasterKey {
            version: KeyVersion::FIRST,
            object: master_key,
            algorithm: plan.master_key,
        }],
        nodes: plan.nodes.clone(),
        principals: plan.principals.clone(),
        previous: None,
    };
    let body = codec::to_bytes(&bundle);
    let signature = core_open.sign(suite, &bundle.core_key, BUNDLE_DOMAIN, &body)?;
    let signed = SignedBundle { version: VersionOne, body, signature };
    if signed.verify()? != bundle {
        return Err(StepError::SelfCheck { what: "the bundle does not read back" });
    }
    let fingerprint = signed.fingerprint(suite);
    steps.add(format!("bundle signed by the core key, fingerprint {fingerprint}"));

    operations_open.close();
    self_check(plan, module, &bundle, (&start, &core), rng)?;
    steps.add("self-check passed: a quorum's shares give both secrets, and its PIN opens keys that work");

    let deliveries = deliveries(&bundle, start, core, rng)?;
    steps.add("shares encrypted to the custodians, secrets wiped");
    let transcript = steps.sign(&mut core_open, suite, &bundle.core_key)?;
    core_open.close();

    // The bundle last: where it is, everything is.
    let written = outputs
        .deliveries
        .into_iter()
        .zip(&deliveries)
        .map(|(output, delivery)| output.write(codec::to_armour(delivery).as_bytes()))
        .collect::<Result<_, _>>()?;
    Ok(InitOutcome {
        fingerprint,
        deliveries: written,
        transcript: outputs.transcript.write(codec::to_armour(&transcript).as_bytes())?,
        bundle: outputs.bundle.write(codec::to_armour(&signed).as_bytes())?,
    })
}

/// Does once what the first unseal will do: while somebody is there who can begin again.
fn self_check(
    plan: &Plan,
    module: &HsmModule,
    bundle: &Bundle,
    (start, core): (&Split, &Split),
    rng: &mut impl CryptoRng,
) -> Result<(), StepError> {
    let suite = plan.suite;
    let set = bundle.share_set();
    core.recombine(plan.threshold, &set)?;
    let secret = start.recombine(plan.threshold, &set)?;
    let operations = &bundle.operations;
    let mut open = OpenPartition::open(module, suite, operations, PinPurpose::OperationsUser, &secret)?;
    open.check_operations(bundle, rng)?;
    open.close();
    Ok(())
}
