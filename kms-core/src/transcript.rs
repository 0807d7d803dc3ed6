//! The transcript of an offline ceremony: what was done, in order, chained by hashes and signed by the
//! core private key (docs/formats/transcript.md).

use crate::asymmetric::{PublicKey, Signature, SignatureError};
use crate::bundle::Bundle;
use crate::codec::{self, ArmouredFormat, CodecError, Format, VersionOne};
use crate::id::{CustodianName, UnixMillis};
use crate::share::Identity;
use crate::suite::{Digest32, Suite};
use alloc::string::String;
use alloc::vec::Vec;
use minicbor::{Decode, Encode};
use rand_core::CryptoRng;

/// Signature domain of transcripts.
pub const TRANSCRIPT_DOMAIN: &str = "kms/v1/transcript";

/// Signature domain of consents.
pub const CONSENT_DOMAIN: &str = "kms/v1/ceremony-consent";

/// One step. Never holds a secret.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
#[cbor(map)]
pub struct Step {
    /// Hash of the step before; of the first step, the plan's digest.
    #[n(0)]
    pub previous: Digest32,
    /// When.
    #[n(1)]
    pub time: UnixMillis,
    /// What was done, in words.
    #[n(2)]
    pub what: String,
}

impl Format for Step {
    const WHAT: &'static str = "transcript step";
}

/// What a custodian agrees to.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
#[cbor(map)]
pub struct Consent {
    /// Always 1.
    #[n(0)]
    pub version: VersionOne,
    /// The deployment.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub cluster_id: [u8; 16],
    /// The kind of ceremony.
    #[n(2)]
    pub kind: String,
    /// The operation.
    #[n(3)]
    pub operation: Digest32,
    /// The share set to which the custodian belongs.
    #[n(4)]
    pub share_epoch: u32,
    /// Who agrees.
    #[n(5)]
    pub custodian: CustodianName,
    /// When.
    #[n(6)]
    pub time: UnixMillis,
}

impl Format for Consent {
    const WHAT: &'static str = "consent";
}

/// A consent with the custodian's signature.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
#[cbor(map)]
pub struct SignedConsent {
    /// Always 1.
    #[n(0)]
    pub version: VersionOne,
    /// Canonical bytes of the [`Consent`].
    #[cbor(n(1), with = "minicbor::bytes")]
    pub body: Vec<u8>,
    /// Signature by the custodian's sign key.
    #[n(2)]
    pub signature: Signature,
}

impl SignedConsent {
    /// Signs a consent.
    pub fn sign(consent: &Consent, identity: &Identity, rng: &mut impl CryptoRng) -> Self {
        let body = codec::to_bytes(consent);
        let signature = identity.sign_key.sign(CONSENT_DOMAIN, &body, rng);
        Self { version: VersionOne, body, signature }
    }
}

/// What people agreed to, and their signatures.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
#[cbor(map)]
pub struct Agreement {
    /// The operation.
    #[n(0)]
    pub operation: Digest32,
    /// Who agreed.
    #[n(1)]
    pub consents: Vec<SignedConsent>,
}

/// A whole ceremony.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
#[cbor(map)]
pub struct Transcript {
    /// Always 1.
    #[n(0)]
    pub version: VersionOne,
    /// The deployment's suite.
    #[n(1)]
    pub suite: Suite,
    /// The kind of ceremony.
    #[n(2)]
    pub kind: String,
    /// Hash of the plan file as it was read.
    #[n(3)]
    pub plan: Digest32,
    /// The steps in order.
    #[n(4)]
    pub steps: Vec<Step>,
    /// What people agreed to; `None` where nobody was asked.
    #[n(5)]
    pub agreement: Option<Agreement>,
}

impl Format for Transcript {
    const WHAT: &'static str = "transcript";
}

/// A transcript with the core private key's signature.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
#[cbor(map)]
pub struct SignedTranscript {
    /// Always 1.
    #[n(0)]
    pub version: VersionOne,
    /// Canonical bytes of the [`Transcript`].
    #[cbor(n(1), with = "minicbor::bytes")]
    pub body: Vec<u8>,
    /// Signature by the core private key.
    #[n(2)]
    pub signature: Signature,
}

impl Format for SignedTranscript {
    const WHAT: &'static str = "signed transcript";
}

impl ArmouredFormat for SignedTranscript {
    const LABEL: &'static str = "KMS TRANSCRIPT";
}

/// Why a transcript is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TranscriptError {
    /// Bytes that are not of the format.
    #[error("the transcript {0}")]
    Codec(#[from] CodecError),
    /// Not signed by the core key.
    #[error(
        "the transcript is not signed by the core key; its steps follow from each other, so its heading, its last step or its signature was changed, or another deployment's core key signed it"
    )]
    Signature(#[source] SignatureError),
    /// Not signed by the core key, and what was changed shows.
    #[error(
        "the transcript is not signed by the core key; step {number} does not follow from {before}: one of the two was changed", before = before(*.number)
    )]
    Changed {
        /// Number of the step, from 1.
        number: usize,
        /// What the check of the signature said.
        #[source]
        source: SignatureError,
    },
    /// A step does not follow from the one before.
    #[error("step {number} of the transcript does not follow from the one before")]
    Chain {
        /// Number of the step, from 1.
        number: usize,
    },
    /// A consent that is not by the custodian of the bundle, or to something else.
    #[error("consent {number} of the transcript is not one of a custodian of this bundle to this operation")]
    Consent {
        /// Number of the consent, from 1.
        number: usize,
    },
}

/// A consent, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedConsent {
    /// What it says.
    pub consent: Consent,
    /// Whether its signature was checked: only a bundle of its share epoch has the key.
    pub is_checked: bool,
}

fn before(number: usize) -> String {
    match number {
        1 => "the plan's digest".into(),
        number => alloc::format!("step {}", number - 1),
    }
}

impl Transcript {
    /// An empty transcript of a ceremony with this plan.
    pub fn begin(suite: Suite, kind: &str, plan: &[u8]) -> Self {
        let plan = suite.hash(&[plan]);
        Self { version: VersionOne, suite, kind: kind.into(), plan, steps: Vec::new(), agreement: None }
    }

    /// Checks the consents with the custodians' keys of a bundle. Those of another share epoch are given back unchecked.
    ///
    /// # Errors
    /// [`TranscriptError::Consent`] names the first that does not fit.
    pub fn check_consents(&self, bundle: &Bundle) -> Result<Vec<CheckedConsent>, TranscriptError> {
        let Some(agreement) = &self.agreement else { return Ok(Vec::new()) };
        let checked = agreement.consents.iter().enumerate().map(|(position, signed)| {
            let refused = TranscriptError::Consent { number: position + 1 };
            let consent: Consent = codec::open(&signed.body)?;
            let is_to_this = consent.kind == self.kind
                && consent.operation == agreement.operation
                && consent.cluster_id == bundle.cluster_id;
            if !is_to_this {
                return Err(refused);
            }
            if consent.share_epoch != bundle.share_epoch {
                return Ok(CheckedConsent { consent, is_checked: false });
            }
            let custodian = bundle.custodian(&consent.custodian).ok_or_else(|| refused.clone())?;
            custodian
                .sign_key
                .verify(bundle.suite, CONSENT_DOMAIN, &signed.body, &signed.signature)
                .map_err(|_| refused)?;
            Ok(CheckedConsent { consent, is_checked: true })
        });
        checked.collect()
    }

    /// Adds a step.
    pub fn record(&mut self, time: UnixMillis, what: impl Into<String>) {
        let previous = self.last_hash();
        self.steps.push(Step { previous, time, what: what.into() });
    }

    /// The first step that does not follow from the one before, or from the plan. Counts from 1.
    fn first_break(&self) -> Option<usize> {
        let mut previous = self.plan;
        for (position, step) in self.steps.iter().enumerate() {
            if step.previous != previous {
                return Some(position + 1);
            }
            previous = self.suite.hash(&[&codec::to_bytes(step)]);
        }
        None
    }

    fn last_hash(&self) -> Digest32 {
        self.steps.last().map_or(self.plan, |step| self.suite.hash(&[&codec::to_bytes(step)]))
    }
}

impl SignedTranscript {
    /// Checks signature and chain.
    ///
    /// # Errors
    /// [`TranscriptError`] names what is wrong.
    pub fn verify(&self, core_key: &PublicKey) -> Result<Transcript, TranscriptError> {
        let transcript: Transcript = codec::open(&self.body)?;
        let signed = core_key.verify(transcript.suite, TRANSCRIPT_DOMAIN, &self.body, &self.signature);
        match (signed, transcript.first_break()) {
            (Ok(()), None) => Ok(transcript),
            (Ok(()), Some(number)) => Err(TranscriptError::Chain { number }),
            (Err(source), None) => Err(TranscriptError::Signature(source)),
            (Err(source), Some(number)) => Err(TranscriptError::Changed { number, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asymmetric::PrivateKey;
    use crate::bundle::testing::test_bundle;
    use crate::quorum::testing::TestRng;

    #[test]
    fn a_changed_or_reordered_step_is_named() {
        let mut rng = TestRng::new(1);
        let core_key = PrivateKey::generate(Suite::Sm, &mut rng);
        let mut transcript = Transcript::begin(Suite::Sm, "init", b"plan");
        transcript.record(UnixMillis(1), "token made");
        transcript.record(UnixMillis(2), "key made");
        let mut sign = |transcript: &Transcript| {
            let body = codec::to_bytes(transcript);
            let signature = core_key.sign(TRANSCRIPT_DOMAIN, &body, &mut rng);
            SignedTranscript { version: VersionOne, body, signature }
        };
        let public = core_key.public_key();
        assert_eq!(sign(&transcript).verify(&public).as_ref(), Ok(&transcript));
        let mut swapped = transcript.clone();
        swapped.steps.swap(0, 1);
        assert_eq!(sign(&swapped).verify(&public), Err(TranscriptError::Chain { number: 1 }));
        let mut changed = sign(&transcript);
        changed.body[10] ^= 1;
        assert!(changed.verify(&public).is_err());

        // Changed without the key: what can be seen of it is named.
        let signature = sign(&transcript).signature;
        let verify = |change: fn(&mut Transcript)| {
            let mut changed = transcript.clone();
            change(&mut changed);
            SignedTranscript { version: VersionOne, body: codec::to_bytes(&changed), signature }
                .verify(&public)
        };
        assert!(verify(|_| {}).is_ok());
        let number = |result| match result {
            Err(TranscriptError::Changed { number, .. }) => number,
            other => panic!("{other:?}"),
        };
        assert_eq!(number(verify(|changed| changed.steps[0].what.push('!'))), 2);
        assert_eq!(number(verify(|changed| changed.steps[0].time = UnixMillis(5))), 2);
        assert_eq!(number(verify(|changed| changed.plan.0[0] ^= 1)), 1);
        assert_eq!(number(verify(|changed| drop(changed.steps.remove(0)))), 1);
        for change in [
            (|changed| changed.steps[1].what.push('!')) as fn(&mut Transcript),
            |changed| changed.kind.push('!'),
            |changed| drop(changed.steps.pop()),
        ] {
            assert!(matches!(verify(change), Err(TranscriptError::Signature(_))));
        }
    }

    #[test]
    fn a_consent_counts_for_its_custodian_operation_and_kind_alone() {
        let mut made = test_bundle(Suite::Sm);
        let mut rng = TestRng::new(2);
        let name = CustodianName::parse("custodian-1").expect("valid");
        let identity = Identity::generate(Suite::Sm, name.clone(), &mut rng);
        made.bundle.custodians[0].sign_key = identity.enrolment.sign_key;
        let operation = Digest32([5; 32]);
        let right = Consent {
            version: VersionOne,
            cluster_id: made.bundle.cluster_id,
            kind: "reshare-finish".into(),
            operation,
            share_epoch: made.bundle.share_epoch,
            custodian: name,
            time: UnixMillis(1),
        };
        let mut check = |consent: &Consent, who: &Identity| {
            let mut transcript = Transcript::begin(Suite::Sm, "reshare-finish", b"plan");
            let consents = alloc::vec![SignedConsent::sign(consent, who, &mut rng)];
            transcript.agreement = Some(Agreement { operation, consents });
            transcript.check_consents(&made.bundle)
        };
        let checked = check(&right, &identity).expect("is right");
        assert_eq!(checked, [CheckedConsent { consent: right.clone(), is_checked: true }]);
        let later = Consent { share_epoch: 2, ..right.clone() };
        assert!(!check(&later, &identity).expect("another bundle has the key")[0].is_checked);
        let other = CustodianName::parse("custodian-2").expect("valid");
        for wrong in [
            Consent { cluster_id: [0; 16], ..right.clone() },
            Consent { kind: "reshare-prepare".into(), ..right.clone() },
            Consent { operation: Digest32([6; 32]), ..right.clone() },
            Consent { custodian: other, ..right.clone() },
        ] {
            assert_eq!(check(&wrong, &identity), Err(TranscriptError::Consent { number: 1 }), "{wrong:?}");
        }
        let stranger = Identity::generate(Suite::Sm, right.custodian.clone(), &mut TestRng::new(3));
        assert_eq!(check(&right, &stranger), Err(TranscriptError::Consent { number: 1 }));
    }
}
