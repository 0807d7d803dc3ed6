//! What is believed because of a signature: no changed byte passes, and what is signed anew is judged by every rule
//! behind the signature.

use crate::made::{CEREMONY_ID, EXPIRES, Made};
use crate::random::Random;
use crate::stored::certificate;
use crate::target::Target;
use kms_core::audit::{BATCH_HEAD_DOMAIN, BatchHead, Segment, SignedCheckpoint, Verifier};
use kms_core::bundle::{BUNDLE_DOMAIN, Bundle, SignedBundle};
use kms_core::ceremony::{
    CeremonyKind, Collector, Contribution, Purpose, SignedOffer, StreamId, service_start_digest,
};
use kms_core::codec::{self, Format, VersionOne};
use kms_core::destruction::{DESTRUCTION_DOMAIN, SignedDestruction};
use kms_core::id::UnixMillis;
use kms_core::merkle::Frontier;
use kms_core::share::{ShareDelivery, ShareLabel, SignedAcknowledgement, SignedEnrolment};
use kms_core::suite::{Digest32, Suite};
use kms_core::transcript::{SignedTranscript, TRANSCRIPT_DOMAIN, Transcript};

/// A signed structure: what is taken says what the example says. (An ECDSA signature has two forms, so the bytes may
/// differ.)
fn signed<T: Format + 'static>(
    suite: Suite,
    example: &T,
    body: fn(&T) -> &[u8],
    verify: impl Fn(&T) -> bool + 'static,
) -> Target {
    let original = body(example).to_vec();
    let name = format!("{}, {}", T::WHAT, suite.name());
    Target::new(name, vec![codec::to_bytes(example)], move |bytes| {
        let Ok(value) = codec::open::<T>(bytes) else { return false };
        let is_taken = verify(&value);
        assert!(!is_taken || body(&value) == original, "a changed body passes");
        is_taken
    })
}

pub fn targets() -> Vec<Target> {
    [Suite::Sm, Suite::Intl].into_iter().flat_map(of_suite).collect()
}

fn of_suite(suite: Suite) -> Vec<Target> {
    let mut made = Made::new(suite);
    let bundle = made.bundle.clone();
    let core_public = made.core_key.public_key();
    let mut targets =
        vec![rules_of_a_bundle(suite), leaves_signed_anew(suite), collector(suite), delivery(suite)];

    // A bundle vouches for itself: the core key is the one that people have checked.
    targets.push(signed(
        suite,
        &made.signed_bundle(),
        |value| &value.body,
        move |value| value.verify().is_ok_and(|bundle| bundle.core_key.public_key == core_public),
    ));

    let mut transcript = Transcript::begin(suite, "init", b"plan");
    transcript.record(UnixMillis(1), "token made");
    let body = codec::to_bytes(&transcript);
    let signature = made.core_key.sign(TRANSCRIPT_DOMAIN, &body, &mut made.random);
    let transcript = SignedTranscript { version: VersionOne, body, signature };
    targets.push(signed(
        suite,
        &transcript,
        |value| &value.body,
        move |value| value.verify(&core_public).is_ok(),
    ));

    let body = codec::to_bytes(&certificate(&made));
    let signature = made.checkpoint_key.sign(DESTRUCTION_DOMAIN, &body, &mut made.random);
    let destruction = SignedDestruction { version: VersionOne, body, signature };
    let of = bundle.clone();
    targets.push(signed(suite, &destruction, |value| &value.body, move |value| value.verify(&of).is_ok()));

    let checkpoint: SignedCheckpoint = made.signed_checkpoint();
    let of = bundle.clone();
    targets.push(signed(suite, &checkpoint, |value| &value.body, move |value| value.verify(&of).is_ok()));

    let identity = &made.custodians[0].0;
    let label = ShareLabel::of(&bundle, &bundle.custodians[0]);
    let digest = Digest32([1; 32]);
    let acknowledged = SignedAcknowledgement::sign(label, digest, UnixMillis(9), identity, &mut made.random);
    let of = bundle.clone();
    targets.push(signed(suite, &acknowledged, |value| &value.body, move |value| value.verify(&of).is_ok()));

    let sign_key = identity.enrolment.sign_key;
    let enrolment: SignedEnrolment = made.signed_enrolment(0);
    targets.push(signed(
        suite,
        &enrolment,
        |value| &value.body,
        move |value| value.verify().is_ok_and(|enrolment| enrolment.sign_key == sign_key),
    ));

    let offer: SignedOffer = made.signed_offer();
    let custodian = identity_name(&made);
    targets.push(signed(
        suite,
        &offer,
        |value| &value.body,
        move |value| {
            let purpose = Purpose { kind: CeremonyKind::ServiceStart, operation: None };
            value.verify(&bundle, &custodian, purpose, UnixMillis(0)).is_ok()
        },
    ));
    targets
}

fn identity_name(made: &Made) -> kms_core::id::CustodianName {
    made.custodians[0].0.enrolment.name.clone()
}

/// Bodies of bundles, signed by the core key whatever they say: what passes can be asked everything.
fn rules_of_a_bundle(suite: Suite) -> Target {
    let Made { bundle, core_key, .. } = Made::new(suite);
    let example = codec::to_bytes(&bundle);
    Target::new(format!("bundle signed anew, {}", suite.name()), vec![example], move |body| {
        if codec::open::<Bundle>(body).is_err() {
            return false;
        }
        let signature = core_key.sign(BUNDLE_DOMAIN, body, &mut Random::new(1, "sign"));
        let signed = SignedBundle { version: VersionOne, body: body.to_vec(), signature };
        let Ok(bundle) = signed.verify() else { return false };
        assert!(bundle.threshold().needed() >= 2);
        let current = bundle.current_master_key();
        assert!(bundle.master_keys.iter().all(|key| key.version <= current.version));
        for custodian in &bundle.custodians {
            assert_eq!(bundle.custodian(&custodian.name), Some(custodian));
        }
        true
    })
}

/// Leaves of a segment, under a head that a node signed for them: the records themselves are judged.
fn leaves_signed_anew(suite: Suite) -> Target {
    let mut made = Made::new(suite);
    let example = made.segment().leaves;
    let head = made.head();
    let Made { bundle, node_key, .. } = made;
    Target::new(format!("segment signed anew, {}", suite.name()), vec![example], move |bytes| {
        let Ok(leaves) = kms_core::audit::open_leaves(bytes) else { return false };
        let mut tree = Frontier::empty(suite);
        leaves.iter().for_each(|leaf| tree.append(leaf.hash(suite)));
        let head = codec::to_bytes(&BatchHead { size: tree.size(), root: tree.root(), ..head.clone() });
        let signature = node_key.sign(BATCH_HEAD_DOMAIN, &head, &mut Random::new(1, "sign"));
        let segment = Segment { version: VersionOne, leaves: bytes.to_vec(), head, signature };
        let mut verifier = Verifier::new(&bundle, &[]).expect("no checkpoint is wrong");
        match verifier.accept(&segment) {
            Ok(taken) => {
                assert_eq!(taken, leaves);
                for (position, leaf) in taken.iter().enumerate() {
                    assert_eq!(leaf.index, position as u64);
                }
                true
            }
            Err(fault) => {
                let _ = fault.to_string();
                false
            }
        }
    })
}

/// What a custodian sends, at the worker that holds the one-time key.
fn collector(suite: Suite) -> Target {
    let mut made = Made::new(suite);
    let offer = made.signed_offer();
    let example = made.contribution(&offer);
    let name = identity_name(&made);
    let Made { bundle, node, .. } = made;
    let operation = service_start_digest(&bundle, &node);
    let statement = example.statement.clone();
    Target::new(
        format!("contribution at a worker, {}", suite.name()),
        vec![codec::to_bytes(&example)],
        move |bytes| {
            let Ok(contribution) = codec::open::<Contribution>(bytes) else { return false };
            let key = Made::one_time_key(suite);
            let kind = CeremonyKind::ServiceStart;
            let mut collector = Collector::new(bundle.clone(), kind, CEREMONY_ID, operation, key);
            match collector.contribute(StreamId(1), &offer, &contribution, UnixMillis(0)) {
                Ok(custodian) => {
                    assert_eq!((custodian, &contribution.statement), (name.clone(), &statement));
                    let late = collector.contribute(StreamId(2), &offer, &contribution, EXPIRES);
                    assert!(late.is_err() && !collector.is_quorum());
                    true
                }
                Err(_) => {
                    assert_eq!(collector.present().count(), 0);
                    false
                }
            }
        },
    )
}

/// A share on its way to a custodian: it opens as it was sealed, or not at all.
fn delivery(suite: Suite) -> Target {
    let mut made = Made::new(suite);
    let bundle = made.bundle.clone();
    let label = ShareLabel::of(&bundle, &bundle.custodians[0]);
    let (identity, shares) = made.custodians.remove(0);
    let seal_key = identity.enrolment.seal_key;
    let example = ShareDelivery::seal(suite, label, &seal_key, &shares, &mut made.random).expect("seals");
    let original = codec::to_bytes(&example);
    let name = format!("share delivery opened, {}", suite.name());
    Target::new(name, vec![original.clone()], move |bytes| {
        let Ok(delivery) = codec::open::<ShareDelivery>(bytes) else { return false };
        let is_open = delivery.open(&identity, &bundle).is_ok();
        assert!(!is_open || bytes == original, "a changed delivery opens");
        is_open
    })
}
