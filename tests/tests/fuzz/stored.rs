//! Structures in canonical CBOR, and the files in PEM armour around them.

use crate::made::{Made, principal};
use crate::target::Target;
use kms_core::attributes::{Description, KeyAttributes, Sensitivity, ShortText};
use kms_core::audit::{BatchHead, Checkpoint, Record, Segment, SignedCheckpoint};
use kms_core::bundle::{Bundle, SignedBundle};
use kms_core::ceremony::{CeremonyKind, Contribution, Evidence, Offer, SignedOffer, Statement};
use kms_core::codec::{self, ArmouredFormat, Format, VersionOne};
use kms_core::destruction::{DestroyedVersion, DestructionCertificate, DestructionMethod, SignedDestruction};
use kms_core::id::{HsmObjectId, KeyId, KeyName, KeyVersion, LabelName, TenantName, UnixMillis};
use kms_core::node_key::NodeKeyFile;
use kms_core::passphrase::PassphraseBox;
use kms_core::reason::Reason;
use kms_core::secret::Secret;
use kms_core::share::{
    Acknowledgement, Enrolment, IdentityFile, ShareDelivery, ShareLabel, SignedAcknowledgement,
    SignedEnrolment, StoredShare,
};
use kms_core::suite::{Digest32, Suite};
use kms_core::transcript::{Agreement, Consent, SignedConsent, SignedTranscript, Step, Transcript};
use kms_core::worker::{FromWorker, ToWorker};

/// Read, and written back to the same bytes.
fn canonical<T: Format + 'static>(examples: &[T]) -> Target {
    let examples = examples.iter().map(codec::to_bytes).collect();
    Target::new(T::WHAT, examples, |bytes| match codec::open::<T>(bytes) {
        Ok(value) => {
            assert_eq!(codec::to_bytes(&value), bytes);
            true
        }
        Err(error) => {
            let _ = error.to_string();
            false
        }
    })
}

/// A text may have other line ends than ours; what it holds has one form.
fn armoured<T: ArmouredFormat + 'static>(examples: &[T]) -> Target {
    let examples = examples.iter().map(|value| codec::to_armour(value).into_bytes()).collect();
    Target::new(T::LABEL, examples, |text| match codec::open_armour::<T>(text) {
        Ok(value) => {
            let again: T =
                codec::open_armour(codec::to_armour(&value).as_bytes()).expect("what was written is read");
            assert_eq!(codec::to_bytes(&again), codec::to_bytes(&value));
            true
        }
        Err(error) => {
            let _ = error.to_string();
            false
        }
    })
}

/// Both: the structure and its file.
fn both<T: ArmouredFormat + 'static>(examples: &[T]) -> [Target; 2] {
    [canonical(examples), armoured(examples)]
}

pub fn targets() -> Vec<Target> {
    let mut made = [Made::new(Suite::Sm), Made::new(Suite::Intl)];
    let mut targets = vec![canonical(&attributes())];
    targets.extend(of_bundle_and_ceremonies(&mut made));
    targets.extend(of_log(&mut made));
    targets.extend(of_custodians(&mut made));
    targets.extend(of_worker(&mut made));
    targets
}

fn attributes() -> Vec<KeyAttributes> {
    let said = KeyAttributes {
        sensitivity: Sensitivity::new(2).expect("a level"),
        owner: ShortText::parse("payroll team").expect("a line"),
        description: Description::parse("工资").expect("a line"),
        labels: ["env", "team"]
            .map(|name| (LabelName::parse(name).expect("a name"), ShortText::parse("x").expect("a line")))
            .into(),
        retain_until: Some(UnixMillis(5)),
        is_protected: true,
        ..Default::default()
    };
    vec![KeyAttributes::default(), said]
}

fn of_bundle_and_ceremonies(made: &mut [Made]) -> Vec<Target> {
    let bundles: Vec<Bundle> = made.iter().map(|one| one.bundle.clone()).collect();
    let signed: Vec<SignedBundle> = made.iter_mut().map(Made::signed_bundle).collect();
    let offers: Vec<Offer> = made.iter().map(Made::offer).collect();
    let signed_offers: Vec<SignedOffer> = made.iter_mut().map(Made::signed_offer).collect();
    let contributions: Vec<Contribution> =
        made.iter_mut().zip(&signed_offers).map(|(one, offer)| one.contribution(offer)).collect();
    let statements: Vec<Statement> = contributions
        .iter()
        .map(|contribution| codec::open(&contribution.statement).expect("a statement"))
        .collect();
    let evidence: Vec<Evidence> = contributions
        .iter()
        .zip(&signed_offers)
        .map(|(contribution, offer)| Evidence {
            version: VersionOne,
            offer: offer.clone(),
            statement: contribution.statement.clone(),
            signature: contribution.signature,
        })
        .collect();
    let mut targets = vec![
        canonical(&bundles),
        canonical(&offers),
        canonical(&signed_offers),
        canonical(&contributions),
        canonical(&statements),
        canonical(&evidence),
    ];
    targets.extend(both(&signed));
    targets.extend(both(&made.iter().map(|one| NodeKeyFile::of(&one.node_key)).collect::<Vec<_>>()));
    targets
}

fn of_log(made: &mut [Made]) -> Vec<Target> {
    let records: Vec<Record> = made[0].records();
    let heads: Vec<BatchHead> = made.iter().map(Made::head).collect();
    let segments: Vec<Segment> = made.iter_mut().map(Made::segment).collect();
    let checkpoints: Vec<Checkpoint> = made.iter().map(Made::checkpoint).collect();
    let signed: Vec<SignedCheckpoint> = made.iter_mut().map(Made::signed_checkpoint).collect();
    let certificate = certificate(&made[0]);
    let body = codec::to_bytes(&certificate);
    let signature = signed[0].signature;
    let mut targets = vec![
        canonical(&records),
        canonical(&heads),
        canonical(&segments),
        canonical(&checkpoints),
        canonical(&signed),
        canonical(&[certificate]),
    ];
    targets.extend(both(&[SignedDestruction { version: VersionOne, body, signature }]));
    targets.extend(of_transcript(&made[0]));
    targets
}

fn of_transcript(made: &Made) -> Vec<Target> {
    let mut transcript = Transcript::begin(made.bundle.suite, "init", b"plan");
    transcript.record(UnixMillis(1), "token made");
    transcript.record(UnixMillis(2), "key made");
    let consent = Consent {
        version: VersionOne,
        cluster_id: made.bundle.cluster_id,
        kind: "init".into(),
        operation: Digest32([5; 32]),
        share_epoch: 1,
        custodian: made.bundle.custodians[0].name.clone(),
        time: UnixMillis(3),
    };
    let (body, signature) = (codec::to_bytes(&consent), kms_core::asymmetric::Signature([7; 64]));
    let consents = vec![SignedConsent { version: VersionOne, body, signature }];
    transcript.agreement = Some(Agreement { operation: consent.operation, consents });
    let steps: Vec<Step> = transcript.steps.clone();
    let signed = SignedTranscript {
        version: VersionOne,
        body: codec::to_bytes(&transcript),
        signature: kms_core::asymmetric::Signature([7; 64]),
    };
    let mut targets = vec![canonical(&steps), canonical(&[consent]), canonical(&[transcript])];
    targets.extend(both(&[signed]));
    targets
}

pub fn certificate(made: &Made) -> DestructionCertificate {
    let version = |number, method| DestroyedVersion {
        number: KeyVersion::new(number).expect("from 1"),
        created: UnixMillis(1),
        state_before: "active".into(),
        state: "destroyed".into(),
        method,
        check_value: Some(vec![1, 2, 3]),
    };
    DestructionCertificate {
        version: VersionOne,
        cluster_id: made.bundle.cluster_id,
        tenant: TenantName::parse("default").expect("a name"),
        key_id: KeyId([7; 16]),
        name: KeyName::parse("payroll").expect("a name"),
        spec: "sm4".into(),
        protection: "resident".into(),
        created: UnixMillis(1),
        is_whole_key: true,
        scheduled_by: principal(),
        scheduled: UnixMillis(2),
        destroyed: UnixMillis(3),
        node: made.node.clone(),
        tool: "kms-server 0.1.0".into(),
        versions: vec![
            version(1, DestructionMethod::HsmObject { object: HsmObjectId([1; 16]), was_there: true }),
            version(2, DestructionMethod::SealedMaterial { master_version: KeyVersion::FIRST }),
        ],
    }
}

fn of_custodians(made: &mut [Made]) -> Vec<Target> {
    let (bundle, suite) = (made[0].bundle.clone(), made[0].bundle.suite);
    let label = ShareLabel::of(&bundle, &bundle.custodians[0]);
    let enrolment: SignedEnrolment = made[0].signed_enrolment(0);
    let Made { custodians, random, .. } = &mut made[0];
    let (identity, shares) = &custodians[0];
    let seal_key = &identity.enrolment.seal_key;
    let delivery = ShareDelivery::seal(suite, label.clone(), seal_key, shares, random).expect("seals");
    // The form of what a passphrase seals; deriving a key from one would take long.
    let sealed = PassphraseBox {
        version: VersionOne,
        suite,
        memory_kib: 65_536,
        pass_count: 3,
        salt: vec![1; 16],
        nonce: vec![2; 12],
        ciphertext: vec![3; 80],
    };
    let digest = Digest32([1; 32]);
    let acknowledged = SignedAcknowledgement::sign(label.clone(), digest, UnixMillis(9), identity, random);
    let acknowledgement: Acknowledgement = codec::open(&acknowledged.body).expect("just made");
    let identity_file =
        IdentityFile { version: VersionOne, enrolment: enrolment.clone(), keys: sealed.clone() };
    let stored = StoredShare { version: VersionOne, label: label.clone(), shares: sealed.clone() };
    let enrolments: [Enrolment; 1] = [identity.enrolment.clone()];
    let mut targets = vec![canonical(&[label]), canonical(&[sealed]), canonical(&[acknowledgement])];
    // An enrolment and a signed one have one name for people.
    targets.push(canonical(&enrolments).named("enrolment, unsigned"));
    targets.extend(both(&[enrolment]));
    targets.extend(both(&[identity_file]));
    targets.extend(both(&[delivery]));
    targets.extend(both(&[stored]));
    targets.extend(both(&[acknowledged]));
    targets
}

fn of_worker(made: &mut [Made]) -> Vec<Target> {
    let offer = made[0].signed_offer();
    let contribution = codec::to_bytes(&made[0].contribution(&offer));
    let custodian = made[0].custodians[0].0.enrolment.name.clone();
    let to_worker = [
        ToWorker::Start {
            bundle: codec::to_bytes(&made[0].signed_bundle()),
            kind: CeremonyKind::CoreSign,
            ceremony_id: [9; 16],
            operation: Digest32([8; 32]),
            module_path: "module.so".into(),
            profile: "auto".into(),
        },
        ToWorker::Contribute { stream: 1, offer: codec::to_bytes(&offer), contribution, now: UnixMillis(1) },
        ToWorker::Withdraw { stream: u64::MAX },
    ];
    let from_worker = [
        FromWorker::Ready { one_time_key: made[0].node_key.public_key() },
        FromWorker::Accepted { stream: 1, custodian: custodian.clone(), present: vec![custodian] },
        FromWorker::Refused {
            stream: 2,
            custodian: None,
            reason: Reason::ShareInvalid,
            counts_as_failure: true,
        },
        FromWorker::Opened { pin: Secret::new(b"0000".to_vec()) },
        FromWorker::Signed { signature: offer.signature },
        FromWorker::Failed { reason: Reason::CeremonyFailed, detail: "why".into() },
    ];
    vec![canonical(&to_worker), canonical(&from_worker)]
}
