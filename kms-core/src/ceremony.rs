//! Ceremonies with present custodians: offer, statement, contribution, and the collector that decides
//! when a quorum is present (docs/formats/ceremony.md).
//!
//! An offer is what a node asks of one custodian on one stream: it names the ceremony, its operation and
//! the worker's one-time key, and the node signs it. A statement is the custodian's signed consent to
//! exactly that offer. The share travels beside it, encrypted to the one-time key.

use crate::asymmetric::{PrivateKey, PublicKey, Signature};
use crate::bundle::{Bundle, Custodian};
use crate::codec::{self, CodecError, Format, VersionOne};
use crate::id::{CustodianName, NodeName, UnixMillis};
use crate::quorum::{CombineError, SECRET_LEN, SecretKind, SecretShare, combine};
use crate::reason::Reason;
use crate::secret::SecretBytes;
use crate::share::{Identity, SharePair};
use crate::suite::{Digest32, Suite};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use minicbor::{Decode, Encode};
use rand_core::CryptoRng;

/// Signature domain of offers.
pub const OFFER_DOMAIN: &str = "kms/v1/ceremony-offer";
/// Signature domain of statements.
pub const STATEMENT_DOMAIN: &str = "kms/v1/ceremony-statement";
/// How long a ceremony collects, in seconds.
pub const WINDOW_SECONDS: u64 = 300;
/// Failures in a row that lock a custodian (REQUIREMENTS S4-05).
pub const FAILURE_COUNT_MAX: u32 = 3;
/// How long a lock lasts, in milliseconds: 30 minutes (REQUIREMENTS S2-20).
pub const LOCK_MILLIS: u64 = 30 * 60 * 1000;

/// What a ceremony does once its quorum is present.
#[derive(Encode, Decode, Clone, Copy, Debug, PartialEq, Eq)]
#[cbor(index_only)]
pub enum CeremonyKind {
    /// Opens the operations partition of one node: unseal.
    #[n(1)]
    ServiceStart,
    /// One signature by the core private key.
    #[n(2)]
    CoreSign,
}

impl CeremonyKind {
    /// The name in records and messages.
    pub const fn name(self) -> &'static str {
        match self {
            CeremonyKind::ServiceStart => "service-start",
            CeremonyKind::CoreSign => "core-sign",
        }
    }

    /// Which secret its quorum gives.
    pub const fn secret(self) -> SecretKind {
        match self {
            CeremonyKind::ServiceStart => SecretKind::Start,
            CeremonyKind::CoreSign => SecretKind::Core,
        }
    }
}

/// The digest that stands for opening one node's operations partition.
pub fn service_start_digest(bundle: &Bundle, node: &NodeName) -> Digest32 {
    bundle.suite.hash(&[
        b"kms/v1/service-start\0",
        &bundle.cluster_id,
        &bundle.operations.pin_epoch.to_be_bytes(),
        node.as_str().as_bytes(),
    ])
}

/// What a node asks of one custodian.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
#[cbor(map)]
pub struct Offer {
    /// Always 1.
    #[n(0)]
    pub version: VersionOne,
    /// The deployment.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub cluster_id: [u8; 16],
    /// This ceremony.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub ceremony_id: [u8; 16],
    /// What it will do.
    #[n(3)]
    pub kind: CeremonyKind,
    /// The share epoch that it needs.
    #[n(4)]
    pub share_epoch: u32,
    /// Fresh for each offer.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub nonce: [u8; 32],
    /// When the window closes.
    #[n(6)]
    pub expires: UnixMillis,
    /// The worker's one-time key: shares are encrypted to it.
    #[n(7)]
    pub one_time_key: PublicKey,
    /// The operation, as everybody sees it.
    #[n(8)]
    pub operation: Digest32,
    /// The node that makes the offer.
    #[n(9)]
    pub node: NodeName,
    /// The custodian to whom it is made.
    #[n(10)]
    pub custodian: CustodianName,
}

impl Format for Offer {
    const WHAT: &'static str = "ceremony offer";
}

/// An offer with the node's signature.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
#[cbor(map)]
pub struct SignedOffer {
    /// Always 1.
    #[n(0)]
    pub version: VersionOne,
    /// Canonical bytes of the [`Offer`].
    #[cbor(n(1), with = "minicbor::bytes")]
    pub body: Vec<u8>,
    /// Signature by the node key.
    #[n(2)]
    pub signature: Signature,
}

impl Format for SignedOffer {
    const WHAT: &'static str = "signed ceremony offer";
}

/// Why a custodian's own tool refuses an offer. Nothing has been sent by then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// Bytes that are not of the format.
    #[error("the offer {0}")]
    Codec(#[from] CodecError),
    /// Not signed by a node of the bundle: somebody in between put in another key.
    #[error(
        "the offer is not signed by node {node} of your bundle; somebody between you and the node may have changed it"
    )]
    NotByNode {
        /// The node that the offer names.
        node: NodeName,
    },
    /// Another deployment or share epoch than the custodian's.
    #[error("the offer is for another deployment or share epoch than your share")]
    ForeignSet,
    /// Made to somebody else.
    #[error("the offer is made to custodian {custodian}")]
    ForSomebodyElse {
        /// To whom it is made.
        custodian: CustodianName,
    },
    /// Another operation than the custodian came for.
    #[error("the offer is for another operation: {kind}, digest {operation}", kind = .kind.name())]
    OtherOperation {
        /// The kind offered.
        kind: CeremonyKind,
        /// The digest offered.
        operation: Digest32,
    },
    /// Its window has closed.
    #[error("the offer has expired")]
    Expired,
}

/// What a custodian came for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purpose {
    /// Which ceremony.
    pub kind: CeremonyKind,
    /// The operation; `None` for a service start, where any node of the bundle may be meant.
    pub operation: Option<Digest32>,
}

impl SignedOffer {
    /// Signs an offer.
    pub fn sign(offer: &Offer, node_key: &PrivateKey, rng: &mut impl CryptoRng) -> Self {
        let body = codec::to_bytes(offer);
        let signature = node_key.sign(OFFER_DOMAIN, &body, rng);
        Self { version: VersionOne, body, signature }
    }

    /// The custodian's check, before anything of the share is touched.
    ///
    /// # Errors
    /// [`OfferError`] names what does not fit.
    pub fn verify(
        &self,
        bundle: &Bundle,
        custodian: &CustodianName,
        purpose: Purpose,
        now: UnixMillis,
    ) -> Result<Offer, OfferError> {
        let offer: Offer = codec::open(&self.body)?;
        let not_by_node = || OfferError::NotByNode { node: offer.node.clone() };
        let node = bundle.node(&offer.node).ok_or_else(not_by_node)?;
        node.key
            .verify(bundle.suite, OFFER_DOMAIN, &self.body, &self.signature)
            .map_err(|_| not_by_node())?;
        if offer.cluster_id != bundle.cluster_id || offer.share_epoch != bundle.share_epoch {
            return Err(OfferError::ForeignSet);
        }
        if offer.custodian != *custodian {
            return Err(OfferError::ForSomebodyElse { custodian: offer.custodian });
        }
        let operation = match purpose.kind {
            CeremonyKind::ServiceStart => Some(service_start_digest(bundle, &offer.node)),
            CeremonyKind::CoreSign => purpose.operation,
        };
        if offer.kind != purpose.kind || operation != Some(offer.operation) {
            return Err(OfferError::OtherOperation { kind: offer.kind, operation: offer.operation });
        }
        if now >= offer.expires {
            return Err(OfferError::Expired);
        }
        Ok(offer)
    }
}

/// A custodian's consent to one offer.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
#[cbor(map)]
pub struct Statement {
    /// Always 1.
    #[n(0)]
    pub version: VersionOne,
    /// Hash of the offer's bytes: cluster, ceremony, kind, epoch, nonce, expiry, key and operation.
    #[n(1)]
    pub offer: Digest32,
    /// Who consents.
    #[n(2)]
    pub custodian: CustodianName,
    /// Commitment of the share that is sent.
    #[n(3)]
    pub share_commitment: Digest32,
    /// Hash of the encrypted share that is sent.
    #[n(4)]
    pub sealed_share: Digest32,
}

impl Format for Statement {
    const WHAT: &'static str = "ceremony statement";
}

/// What a custodian sends: the signed statement and the encrypted share.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
#[cbor(map)]
pub struct Contribution {
    /// Always 1.
    #[n(0)]
    pub version: VersionOne,
    /// Canonical bytes of the [`Statement`].
    #[cbor(n(1), with = "minicbor::bytes")]
    pub statement: Vec<u8>,
    /// Signature by the custodian's sign key.
    #[n(2)]
    pub signature: Signature,
    /// The share, sealed to the one-time key and bound to the offer.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub sealed_share: Vec<u8>,
}

impl Format for Contribution {
    const WHAT: &'static str = "ceremony contribution";
}

/// What stays of a contribution: proof of who consented to what, without the share.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
#[cbor(map)]
pub struct Evidence {
    /// Always 1.
    #[n(0)]
    pub version: VersionOne,
    /// The offer.
    #[n(1)]
    pub offer: SignedOffer,
    /// Canonical bytes of the [`Statement`].
    #[cbor(n(2), with = "minicbor::bytes")]
    pub statement: Vec<u8>,
    /// The custodian's signature over it.
    #[n(3)]
    pub signature: Signature,
}

impl Format for Evidence {
    const WHAT: &'static str = "ceremony evidence";
}

fn share_context(offer_digest: &Digest32, custodian: &CustodianName) -> Vec<u8> {
    let mut context = b"kms/v1/ceremony-share\0".to_vec();
    context.extend_from_slice(&offer_digest.0);
    context.extend_from_slice(custodian.as_str().as_bytes());
    context
}

fn digest_of(suite: Suite, bytes: &[u8]) -> Digest32 {
    suite.hash(&[bytes])
}

impl Contribution {
    /// Answers a verified offer with a share.
    ///
    /// # Errors
    /// [`crate::asymmetric::SealError`] when the one-time key is not on the curve.
    pub fn answer(
        offer: &SignedOffer,
        one_time_key: &PublicKey,
        bundle: &Bundle,
        identity: &Identity,
        shares: &SharePair,
        kind: CeremonyKind,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, crate::asymmetric::SealError> {
        let suite = bundle.suite;
        let share = shares.share(kind.secret());
        let offer_digest = digest_of(suite, &offer.body);
        let custodian = identity.enrolment.name.clone();
        let sealed_share = one_time_key.seal(
            suite,
            &share_context(&offer_digest, &custodian),
            share.value().expose(),
            rng,
        )?;
        let statement = codec::to_bytes(&Statement {
            version: VersionOne,
            offer: offer_digest,
            custodian,
            share_commitment: bundle.share_set().share_commitment(kind.secret(), share),
            sealed_share: digest_of(suite, &sealed_share),
        });
        let signature = identity.sign_key.sign(STATEMENT_DOMAIN, &statement, rng);
        Ok(Self { version: VersionOne, statement, signature, sealed_share })
    }
}

/// Why a contribution is refused. Only the sender is affected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not of the format, or an answer to another offer, ceremony or operation.
    #[error("the contribution does not answer an offer of this ceremony")]
    Foreign,
    /// Too late.
    #[error("the ceremony's window has closed")]
    Expired,
    /// Nobody of that name in the bundle.
    #[error("the bundle has no such custodian")]
    UnknownCustodian,
    /// Not signed by the enrolled key.
    #[error("the statement is not signed by the custodian's enrolled key")]
    Signature,
    /// The custodian is present already.
    #[error("this custodian is present already and counts once")]
    AlreadyPresent,
    /// Does not open under the one-time key, or is not the committed share.
    #[error("the share is not this custodian's share of this set")]
    Share,
}

impl Refusal {
    /// The stable reason.
    pub const fn reason(self) -> Reason {
        match self {
            Refusal::Foreign => Reason::CeremonyForeign,
            Refusal::Expired => Reason::CeremonyExpired,
            Refusal::UnknownCustodian => Reason::CustodianUnknown,
            Refusal::Signature => Reason::SignatureInvalid,
            Refusal::AlreadyPresent => Reason::CustodianPresent,
            Refusal::Share => Reason::ShareInvalid,
        }
    }

    /// Whether it counts towards the custodian's lock: only what carries that custodian's valid signature.
    pub const fn counts_as_failure(self) -> bool {
        matches!(self, Refusal::Share)
    }
}

/// Names one custodian's open stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(pub u64);

struct Held {
    stream: StreamId,
    custodian: CustodianName,
    share: SecretShare,
}

/// Collects the shares of one ceremony and decides when its quorum is present.
///
/// A share is held exactly as long as its stream is open. Dropping the collector wipes everything.
pub struct Collector {
    bundle: Bundle,
    kind: CeremonyKind,
    ceremony_id: [u8; 16],
    operation: Digest32,
    one_time_key: PrivateKey,
    held: Vec<Held>,
}

impl core::fmt::Debug for Collector {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Collector")
            .field("kind", &self.kind)
            .field("present", &self.held.len())
            .finish_non_exhaustive()
    }
}

impl Collector {
    /// A ceremony in which nobody is present yet.
    pub fn new(
        bundle: Bundle,
        kind: CeremonyKind,
        ceremony_id: [u8; 16],
        operation: Digest32,
        one_time_key: PrivateKey,
    ) -> Self {
        Self { bundle, kind, ceremony_id, operation, one_time_key, held: Vec::new() }
    }

    /// The public half of the one-time key.
    pub fn one_time_key(&self) -> PublicKey {
        self.one_time_key.public_key()
    }

    /// Who is present, in the order in which they came.
    pub fn present(&self) -> impl Iterator<Item = &CustodianName> {
        self.held.iter().map(|held| &held.custodian)
    }

    /// Whether enough distinct custodians are present.
    pub fn is_quorum(&self) -> bool {
        self.held.len() >= usize::from(self.bundle.threshold().needed())
    }

    /// Takes one custodian's contribution on one stream.
    ///
    /// The order of the checks is the rule: form and freshness, signature, person, share.
    ///
    /// # Errors
    /// [`Refusal`]; nothing that is held changes.
    pub fn contribute(
        &mut self,
        stream: StreamId,
        offer: &SignedOffer,
        contribution: &Contribution,
        now: UnixMillis,
    ) -> Result<CustodianName, Refusal> {
        let suite = self.bundle.suite;
        let offered: Offer = codec::open(&offer.body).map_err(|_| Refusal::Foreign)?;
        let statement: Statement = codec::open(&contribution.statement).map_err(|_| Refusal::Foreign)?;
        let offer_digest = digest_of(suite, &offer.body);
        let is_ours = offered.cluster_id == self.bundle.cluster_id
            && offered.ceremony_id == self.ceremony_id
            && offered.kind == self.kind
            && offered.share_epoch == self.bundle.share_epoch
            && offered.operation == self.operation
            && offered.one_time_key == self.one_time_key()
            && statement.offer == offer_digest
            && statement.custodian == offered.custodian
            && statement.sealed_share == digest_of(suite, &contribution.sealed_share);
        if !is_ours {
            return Err(Refusal::Foreign);
        }
        if now >= offered.expires {
            return Err(Refusal::Expired);
        }
        let custodian = self.bundle.custodian(&statement.custodian).ok_or(Refusal::UnknownCustodian)?;
        custodian
            .sign_key
            .verify(suite, STATEMENT_DOMAIN, &contribution.statement, &contribution.signature)
            .map_err(|_| Refusal::Signature)?;
        if self.held.iter().any(|held| held.custodian == custodian.name) {
            return Err(Refusal::AlreadyPresent);
        }
        let share = self.open_share(custodian, &offer_digest, contribution)?;
        let name = custodian.name.clone();
        self.held.push(Held { stream, custodian: name.clone(), share });
        Ok(name)
    }

    fn open_share(
        &self,
        custodian: &Custodian,
        offer_digest: &Digest32,
        contribution: &Contribution,
    ) -> Result<SecretShare, Refusal> {
        let context = share_context(offer_digest, &custodian.name);
        let value =
            self.one_time_key.open(&context, &contribution.sealed_share).map_err(|_| Refusal::Share)?;
        let share = SecretBytes::from_slice(value.expose())
            .and_then(|value| SecretShare::new(custodian.share_index, value))
            .ok_or(Refusal::Share)?;
        let kind = self.kind.secret();
        if self.bundle.share_set().share_commitment(kind, &share) != *custodian.commitment(kind) {
            return Err(Refusal::Share);
        }
        Ok(share)
    }

    /// A stream closed: its share is wiped.
    pub fn withdraw(&mut self, stream: StreamId) {
        self.held.retain(|held| held.stream != stream);
    }

    /// Combines the shares of a present quorum. Everything held is wiped, whatever comes out.
    ///
    /// # Errors
    /// [`CombineError`] when no quorum is present or the result is not the committed secret.
    pub fn combine(self) -> Result<SecretBytes<SECRET_LEN>, CombineError> {
        let kind = self.kind.secret();
        let shares: Vec<&SecretShare> = self.held.iter().map(|held| &held.share).collect();
        combine(
            &shares,
            self.bundle.threshold(),
            &self.bundle.share_set(),
            kind,
            self.bundle.commitment(kind),
        )
    }
}

/// Counts failures for each custodian and locks after three in a row. Never locks anybody else.
#[derive(Clone, Debug, Default)]
pub struct FailureLocks(BTreeMap<CustodianName, Failures>);

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    locked_until: Option<UnixMillis>,
}

impl FailureLocks {
    /// Until when a custodian is locked.
    pub fn locked_until(&self, custodian: &CustodianName, now: UnixMillis) -> Option<UnixMillis> {
        self.0.get(custodian)?.locked_until.filter(|until| now < *until)
    }

    /// A contribution with the custodian's valid signature was refused.
    pub fn fail(&mut self, custodian: &CustodianName, now: UnixMillis) {
        let failures = self.0.entry(custodian.clone()).or_insert(Failures { count: 0, locked_until: None });
        if failures.locked_until.is_some_and(|until| now >= until) {
            *failures = Failures { count: 0, locked_until: None };
        }
        failures.count += 1;
        if failures.count >= FAILURE_COUNT_MAX {
            failures.locked_until = Some(UnixMillis(now.0 + LOCK_MILLIS));
        }
    }

    /// A contribution was accepted: the count starts again.
    pub fn succeed(&mut self, custodian: &CustodianName) {
        self.0.remove(custodian);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::testing::{TestBundle, test_bundle};
    use crate::quorum::testing::TestRng;
    use crate::share::Enrolment;

    const NOW: UnixMillis = UnixMillis(1_000_000);

    struct Scene {
        made: TestBundle,
        collector: Collector,
        rng: TestRng,
    }

    fn scene(suite: Suite, kind: CeremonyKind) -> Scene {
        let made = test_bundle(suite);
        let mut rng = TestRng::new(77);
        let operation = match kind {
            CeremonyKind::ServiceStart => service_start_digest(&made.bundle, &made.node),
            CeremonyKind::CoreSign => Digest32([0x0d; 32]),
        };
        let one_time_key = PrivateKey::generate(suite, &mut rng);
        let collector = Collector::new(made.bundle.clone(), kind, [9; 16], operation, one_time_key);
        Scene { made, collector, rng }
    }

    impl Scene {
        fn offer(&mut self, to: usize) -> SignedOffer {
            let offer = Offer {
                version: VersionOne,
                cluster_id: self.made.bundle.cluster_id,
                ceremony_id: [9; 16],
                kind: self.collector.kind,
                share_epoch: 1,
                nonce: [to as u8; 32],
                expires: UnixMillis(NOW.0 + 1000),
                one_time_key: self.collector.one_time_key(),
                operation: self.collector.operation,
                node: self.made.node.clone(),
                custodian: self.made.custodians[to].name.clone(),
            };
            SignedOffer::sign(&offer, &self.made.node_key, &mut self.rng)
        }

        fn identity(&mut self, of: usize) -> Identity {
            let custodian = &self.made.custodians[of];
            let scalar = SecretBytes::from_slice(custodian.sign_key.scalar().expose()).expect("32 bytes");
            let suite = self.made.bundle.suite;
            let sign_key = PrivateKey::from_scalar(suite, scalar).expect("valid");
            let seal_key = PrivateKey::generate(suite, &mut self.rng);
            let enrolment = Enrolment {
                version: VersionOne,
                suite,
                name: custodian.name.clone(),
                sign_key: sign_key.public_key(),
                seal_key: seal_key.public_key(),
            };
            Identity { enrolment, sign_key, seal_key }
        }

        fn shares(&self, of: usize) -> SharePair {
            let custodian = &self.made.custodians[of];
            let copy = |share: &SecretShare| {
                let value = SecretBytes::from_slice(share.value().expose()).expect("32 bytes");
                SecretShare::new(share.index(), value).expect("not zero")
            };
            SharePair { start: copy(&custodian.start), core: copy(&custodian.core) }
        }

        fn answer(&mut self, offer: &SignedOffer, by: usize, with_share_of: usize) -> Contribution {
            let (identity, shares) = (self.identity(by), self.shares(with_share_of));
            let key = self.collector.one_time_key();
            Contribution::answer(
                offer,
                &key,
                &self.made.bundle,
                &identity,
                &shares,
                self.collector.kind,
                &mut self.rng,
            )
            .expect("the key is on the curve")
        }

        fn contribute(&mut self, by: usize, stream: u64) -> Result<CustodianName, Refusal> {
            let offer = self.offer(by);
            let contribution = self.answer(&offer, by, by);
            self.collector.contribute(StreamId(stream), &offer, &contribution, NOW)
        }
    }

    #[test]
    fn one_custodian_is_no_quorum_and_two_are() {
        for suite in [Suite::Sm, Suite::Intl] {
            let mut scene = scene(suite, CeremonyKind::ServiceStart);
            scene.contribute(0, 1).expect("accepted");
            assert!(!scene.collector.is_quorum());
            scene.contribute(2, 2).expect("accepted");
            assert!(scene.collector.is_quorum());
            let secret = scene.collector.combine().expect("combines");
            assert!(secret.is_equal(scene.made.start_secret.expose()));
        }
    }

    #[test]
    fn a_second_share_from_the_same_custodian_is_refused() {
        let mut scene = scene(Suite::Intl, CeremonyKind::ServiceStart);
        scene.contribute(0, 1).expect("accepted");
        assert_eq!(scene.contribute(0, 2), Err(Refusal::AlreadyPresent));
        assert!(!scene.collector.is_quorum());
    }

    #[test]
    fn a_share_is_wiped_when_its_stream_closes() {
        let mut scene = scene(Suite::Intl, CeremonyKind::ServiceStart);
        scene.contribute(0, 1).expect("accepted");
        scene.contribute(1, 2).expect("accepted");
        scene.collector.withdraw(StreamId(1));
        assert!(!scene.collector.is_quorum());
        assert_eq!(scene.collector.present().count(), 1);
        assert_eq!(scene.collector.combine().err(), Some(CombineError));
    }

    #[test]
    fn a_wrong_share_is_refused_on_arrival_and_harms_nobody() {
        let mut scene = scene(Suite::Sm, CeremonyKind::ServiceStart);
        scene.contribute(0, 1).expect("accepted");
        let offer = scene.offer(1);
        let with_anothers_share = scene.answer(&offer, 1, 2);
        let refused = scene.collector.contribute(StreamId(2), &offer, &with_anothers_share, NOW);
        assert_eq!(refused, Err(Refusal::Share));
        assert!(Refusal::Share.counts_as_failure());
        assert_eq!(scene.collector.present().count(), 1);
        scene.contribute(1, 3).expect("the same person with the right share is welcome");
    }

    #[test]
    fn a_start_share_is_no_core_share() {
        let mut scene = scene(Suite::Intl, CeremonyKind::CoreSign);
        let offer = scene.offer(0);
        scene.collector.kind = CeremonyKind::ServiceStart;
        let start_answer = scene.answer(&offer, 0, 0);
        scene.collector.kind = CeremonyKind::CoreSign;
        let refused = scene.collector.contribute(StreamId(1), &offer, &start_answer, NOW);
        assert_eq!(refused, Err(Refusal::Share));
    }

    #[test]
    fn a_late_replayed_or_foreign_contribution_is_refused() {
        let mut scene = scene(Suite::Intl, CeremonyKind::ServiceStart);
        let offer = scene.offer(0);
        let contribution = scene.answer(&offer, 0, 0);
        let late = UnixMillis(NOW.0 + 1000);
        let refused = scene.collector.contribute(StreamId(1), &offer, &contribution, late);
        assert_eq!(refused, Err(Refusal::Expired));
        let other_offer = scene.offer(1);
        let refused = scene.collector.contribute(StreamId(1), &other_offer, &contribution, NOW);
        assert_eq!(refused, Err(Refusal::Foreign), "an answer to another offer");
        let mut changed = contribution.clone();
        changed.sealed_share[0] ^= 1;
        let refused = scene.collector.contribute(StreamId(1), &offer, &changed, NOW);
        assert_eq!(refused, Err(Refusal::Foreign), "a share that was not signed for");
        scene.collector.ceremony_id = [8; 16];
        let refused = scene.collector.contribute(StreamId(1), &offer, &contribution, NOW);
        assert_eq!(refused, Err(Refusal::Foreign), "an answer from an earlier ceremony");
    }

    #[test]
    fn a_statement_by_another_key_is_refused_and_counts_against_nobody() {
        let mut scene = scene(Suite::Intl, CeremonyKind::ServiceStart);
        let offer = scene.offer(0);
        let mut contribution = scene.answer(&offer, 0, 0);
        let stranger = PrivateKey::generate(Suite::Intl, &mut scene.rng);
        contribution.signature = stranger.sign(STATEMENT_DOMAIN, &contribution.statement, &mut scene.rng);
        let refused = scene.collector.contribute(StreamId(1), &offer, &contribution, NOW);
        assert_eq!(refused, Err(Refusal::Signature));
        assert!(!Refusal::Signature.counts_as_failure());
    }

    #[test]
    fn a_custodian_refuses_a_key_that_the_node_did_not_sign() {
        let mut scene = scene(Suite::Sm, CeremonyKind::ServiceStart);
        let offer = scene.offer(0);
        let name = scene.made.custodians[0].name.clone();
        let purpose = Purpose { kind: CeremonyKind::ServiceStart, operation: None };
        assert!(offer.verify(&scene.made.bundle, &name, purpose, NOW).is_ok());
        let mut body: Offer = codec::open(&offer.body).expect("opens");
        body.one_time_key = PrivateKey::generate(Suite::Sm, &mut scene.rng).public_key();
        let mut forged = offer.clone();
        forged.body = codec::to_bytes(&body);
        let node = scene.made.node.clone();
        let refused = forged.verify(&scene.made.bundle, &name, purpose, NOW);
        assert_eq!(refused, Err(OfferError::NotByNode { node: node.clone() }));
        let by_proxy = PrivateKey::generate(Suite::Sm, &mut scene.rng);
        let forged = SignedOffer::sign(&body, &by_proxy, &mut scene.rng);
        let refused = forged.verify(&scene.made.bundle, &name, purpose, NOW);
        assert_eq!(refused, Err(OfferError::NotByNode { node }));
    }

    #[test]
    fn a_custodian_refuses_another_person_operation_and_time() {
        let mut scene = scene(Suite::Intl, CeremonyKind::CoreSign);
        let offer = scene.offer(0);
        let bundle = &scene.made.bundle;
        let (first, second) = (&scene.made.custodians[0].name, &scene.made.custodians[1].name);
        let purpose = |operation| Purpose { kind: CeremonyKind::CoreSign, operation };
        let wanted = purpose(Some(Digest32([0x0d; 32])));
        assert!(offer.verify(bundle, first, wanted, NOW).is_ok());
        let refused = offer.verify(bundle, second, wanted, NOW);
        assert!(matches!(refused, Err(OfferError::ForSomebodyElse { .. })));
        let refused = offer.verify(bundle, first, purpose(Some(Digest32([0x0e; 32]))), NOW);
        assert!(matches!(refused, Err(OfferError::OtherOperation { .. })));
        let start = Purpose { kind: CeremonyKind::ServiceStart, operation: None };
        assert!(matches!(offer.verify(bundle, first, start, NOW), Err(OfferError::OtherOperation { .. })));
        let refused = offer.verify(bundle, first, wanted, UnixMillis(NOW.0 + 1000));
        assert_eq!(refused, Err(OfferError::Expired));
    }

    #[test]
    fn three_failures_in_a_row_lock_one_custodian_for_half_an_hour() {
        let name = |text| CustodianName::parse(text).expect("valid");
        let (alice, bob) = (name("alice"), name("bob"));
        let mut locks = FailureLocks::default();
        locks.fail(&alice, NOW);
        locks.fail(&alice, NOW);
        locks.succeed(&alice);
        locks.fail(&alice, NOW);
        locks.fail(&alice, NOW);
        assert_eq!(locks.locked_until(&alice, NOW), None);
        locks.fail(&alice, NOW);
        let until = UnixMillis(NOW.0 + LOCK_MILLIS);
        assert_eq!(locks.locked_until(&alice, UnixMillis(until.0 - 1)), Some(until));
        assert_eq!(locks.locked_until(&alice, until), None);
        assert_eq!(locks.locked_until(&bob, NOW), None);
        locks.fail(&alice, until);
        assert_eq!(locks.locked_until(&alice, until), None, "the count starts again after the lock");
    }
}
