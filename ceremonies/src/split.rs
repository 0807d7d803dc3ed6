//! Quorum secrets, split among custodians and encrypted to them.

use crate::init::StepError;
use kms_core::bundle::Bundle;
use kms_core::quorum::{CombineError, SecretKind, SecretShare, ShareSet, Threshold, combine, split};
use kms_core::secret::SecretBytes;
use kms_core::share::{ShareDelivery, ShareLabel, SharePair};
use kms_core::suite::Digest32;
use rand_core::CryptoRng;

/// One quorum secret and its shares.
pub(crate) struct Split {
    kind: SecretKind,
    pub(crate) secret: SecretBytes<32>,
    pub(crate) shares: Vec<SecretShare>,
    pub(crate) commitment: Digest32,
}

impl Split {
    /// A fresh secret.
    pub(crate) fn make(
        kind: SecretKind,
        threshold: Threshold,
        set: &ShareSet,
        rng: &mut impl CryptoRng,
    ) -> Self {
        let secret = SecretBytes::random(rng);
        let shares = split(&secret, threshold, rng);
        let commitment = set.secret_commitment(kind, &secret);
        Self { kind, secret, shares, commitment }
    }

    /// The secret as the last custodians of the list would give it.
    pub(crate) fn recombine(
        &self,
        threshold: Threshold,
        set: &ShareSet,
    ) -> Result<SecretBytes<32>, CombineError> {
        let first = self.shares.len() - usize::from(threshold.needed());
        let quorum: Vec<&SecretShare> = self.shares[first..].iter().collect();
        combine(&quorum, threshold, set, self.kind, &self.commitment)
    }
}

/// Encrypts the shares to the custodians of a bundle and wipes everything that the secrets were.
pub(crate) fn deliveries(
    bundle: &Bundle,
    start: Split,
    core: Split,
    rng: &mut impl CryptoRng,
) -> Result<Vec<ShareDelivery>, StepError> {
    let pairs = start.shares.into_iter().zip(core.shares);
    let pairs = pairs.map(|(start, core)| SharePair { start, core });
    bundle
        .custodians
        .iter()
        .zip(pairs)
        .map(|(custodian, pair)| {
            let label = ShareLabel::of(bundle, custodian);
            ShareDelivery::seal(bundle.suite, label, &custodian.seal_key, &pair, rng)
                .map_err(|source| StepError::Delivery { custodian: custodian.name.clone(), source })
        })
        .collect()
}
