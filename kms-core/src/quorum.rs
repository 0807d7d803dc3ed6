//! Shamir's secret sharing over GF(256) with commitments, and the rule of the threshold.
//!
//! The arithmetic is `vsss-rs` (constant time, uniform coefficients including zero). Combining wrong or
//! too few shares gives some other secret without an error, so every share and the secret itself are
//! checked against published commitments. Both are 256 random bits: a commitment reveals nothing.

use crate::secret::SecretBytes;
use crate::suite::{Digest32, Suite};
use alloc::vec::Vec;
use core::fmt;
use rand_core::CryptoRng;
use vsss_rs::Gf256;
use zeroize::Zeroize;

/// Length of a quorum secret and of each share, in bytes.
pub const SECRET_LEN: usize = 32;
/// Largest number of custodians. GF(256) allows 255; more than 16 people cannot hold a ceremony.
pub const CUSTODIAN_COUNT_MAX: u8 = 16;

/// How many custodians must act, of how many. At least 2, never more than `total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold {
    needed: u8,
    total: u8,
}

/// Why two numbers are not a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ThresholdError {
    /// One person alone must never be enough.
    #[error("threshold is {needed}; at least 2 custodians must be needed")]
    BelowTwo {
        /// The number that was asked.
        needed: u8,
    },
    /// More are needed than exist.
    #[error("threshold {needed} is more than the {total} custodians")]
    AboveTotal {
        /// The number that was asked.
        needed: u8,
        /// The number of custodians.
        total: u8,
    },
    /// More custodians than can hold a ceremony.
    #[error("{total} custodians are too many; at most 16 are allowed")]
    TooMany {
        /// The number of custodians.
        total: u8,
    },
}

impl Threshold {
    /// # Errors
    /// [`ThresholdError`] says which rule is broken.
    pub const fn new(needed: u8, total: u8) -> Result<Self, ThresholdError> {
        if needed < 2 {
            return Err(ThresholdError::BelowTwo { needed });
        }
        if needed > total {
            return Err(ThresholdError::AboveTotal { needed, total });
        }
        if total > CUSTODIAN_COUNT_MAX {
            return Err(ThresholdError::TooMany { total });
        }
        Ok(Self { needed, total })
    }

    /// How many custodians must act.
    pub const fn needed(self) -> u8 {
        self.needed
    }

    /// How many custodians there are.
    pub const fn total(self) -> u8 {
        self.total
    }
}

/// Which of the two quorum secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretKind {
    /// Opens the operations partition: service start.
    Start,
    /// Opens the core partition and both SO roles: every other ceremony.
    Core,
}

impl SecretKind {
    /// The name used in formats.
    pub const fn name(self) -> &'static str {
        match self {
            SecretKind::Start => "start",
            SecretKind::Core => "core",
        }
    }
}

/// One custodian's share of one secret.
pub struct SecretShare {
    index: u8,
    value: SecretBytes<SECRET_LEN>,
}

impl SecretShare {
    /// `None` for index 0, which would be the secret itself.
    pub fn new(index: u8, value: SecretBytes<SECRET_LEN>) -> Option<Self> {
        (index != 0).then_some(Self { index, value })
    }

    /// The point at which the polynomials were evaluated, from 1.
    pub fn index(&self) -> u8 {
        self.index
    }

    /// The share's bytes, to be sealed.
    pub fn value(&self) -> &SecretBytes<SECRET_LEN> {
        &self.value
    }
}

impl fmt::Debug for SecretShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretShare").field("index", &self.index).finish_non_exhaustive()
    }
}

/// The set of shares to which a share belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareSet {
    /// The deployment's suite.
    pub suite: Suite,
    /// The deployment.
    pub cluster_id: [u8; 16],
    /// Grows with every reshare.
    pub share_epoch: u32,
}

impl ShareSet {
    /// What is published about a share so that a wrong one is found on arrival.
    pub fn share_commitment(&self, kind: SecretKind, share: &SecretShare) -> Digest32 {
        self.commit("kms/v1/share-commitment", kind, share.index, share.value.expose())
    }

    /// What is published about the secret so that no PIN attempt is spent on a wrong one.
    pub fn secret_commitment(&self, kind: SecretKind, secret: &SecretBytes<SECRET_LEN>) -> Digest32 {
        self.commit("kms/v1/secret-commitment", kind, 0, secret.expose())
    }

    fn commit(&self, domain: &str, kind: SecretKind, index: u8, value: &[u8]) -> Digest32 {
        self.suite.hash(&[
            domain.as_bytes(),
            &[0],
            &self.cluster_id,
            &self.share_epoch.to_be_bytes(),
            kind.name().as_bytes(),
            &[0, index],
            value,
        ])
    }
}

/// Splits a secret into `threshold.total()` shares with indexes from 1.
pub fn split(
    secret: &SecretBytes<SECRET_LEN>,
    threshold: Threshold,
    rng: &mut impl CryptoRng,
) -> Vec<SecretShare> {
    let raw = Gf256::split_array(
        usize::from(threshold.needed),
        usize::from(threshold.total),
        secret.expose().as_slice(),
        rng,
    )
    .expect("the threshold was checked when it was made and the secret is not empty");
    raw.into_iter()
        .map(|mut bytes| {
            let value = SecretBytes::from_slice(&bytes[1..]).expect("a share is an index and 32 bytes");
            let index = bytes[0];
            bytes.zeroize();
            SecretShare { index, value }
        })
        .collect()
}

/// The shares do not give the committed secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shares do not combine to the committed secret")]
pub struct CombineError;

/// Combines shares and checks the result against its published commitment.
///
/// # Errors
/// [`CombineError`] when there are too few, two of one index, or the result is not the committed secret.
pub fn combine(
    shares: &[&SecretShare],
    threshold: Threshold,
    set: &ShareSet,
    kind: SecretKind,
    commitment: &Digest32,
) -> Result<SecretBytes<SECRET_LEN>, CombineError> {
    if shares.len() < usize::from(threshold.needed) {
        return Err(CombineError);
    }
    let mut raw: Vec<Vec<u8>> = shares
        .iter()
        .map(|share| {
            let mut bytes = Vec::with_capacity(1 + SECRET_LEN);
            bytes.push(share.index);
            bytes.extend_from_slice(share.value.expose());
            bytes
        })
        .collect();
    let combined = Gf256::combine_array(&raw);
    raw.iter_mut().for_each(Zeroize::zeroize);
    let mut combined = combined.map_err(|_| CombineError)?;
    let secret = SecretBytes::from_slice(&combined);
    combined.zeroize();
    let secret = secret.ok_or(CombineError)?;
    if set.secret_commitment(kind, &secret) != *commitment {
        return Err(CombineError);
    }
    Ok(secret)
}

/// Deterministic randomness for this crate's tests.
#[cfg(test)]
pub(crate) mod testing {
    use core::convert::Infallible;
    use rand_core::{TryCryptoRng, TryRng};

    /// SHA-256 of a counter: repeatable, and good enough for tests only.
    pub struct TestRng {
        seed: u64,
        counter: u64,
    }

    impl TestRng {
        pub fn new(seed: u64) -> Self {
            Self { seed, counter: 0 }
        }
    }

    impl TryRng for TestRng {
        type Error = Infallible;

        fn try_next_u32(&mut self) -> Result<u32, Infallible> {
            let mut bytes = [0; 4];
            self.try_fill_bytes(&mut bytes).map(|()| u32::from_be_bytes(bytes))
        }

        fn try_next_u64(&mut self) -> Result<u64, Infallible> {
            let mut bytes = [0; 8];
            self.try_fill_bytes(&mut bytes).map(|()| u64::from_be_bytes(bytes))
        }

        fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
            for chunk in out.chunks_mut(32) {
                self.counter += 1;
                let parts: [&[u8]; 2] = [&self.seed.to_be_bytes(), &self.counter.to_be_bytes()];
                let block = crate::suite::Suite::Intl.hash(&parts);
                chunk.copy_from_slice(&block.0[..chunk.len()]);
            }
            Ok(())
        }
    }

    impl TryCryptoRng for TestRng {}
}

#[cfg(test)]
mod tests {
    use super::testing::TestRng;
    use super::*;

    const SET: ShareSet = ShareSet { suite: Suite::Intl, cluster_id: [1; 16], share_epoch: 1 };

    fn hex(text: &str) -> SecretBytes<32> {
        SecretBytes::from_slice(&base16ct::mixed::decode_vec(text).expect("hexadecimal")).expect("32 bytes")
    }

    #[test]
    fn one_person_is_never_enough() {
        assert_eq!(Threshold::new(0, 3), Err(ThresholdError::BelowTwo { needed: 0 }));
        assert_eq!(Threshold::new(1, 3), Err(ThresholdError::BelowTwo { needed: 1 }));
        assert_eq!(Threshold::new(4, 3), Err(ThresholdError::AboveTotal { needed: 4, total: 3 }));
        assert_eq!(Threshold::new(2, 17), Err(ThresholdError::TooMany { total: 17 }));
        assert!(Threshold::new(2, 2).is_ok());
    }

    #[test]
    fn every_quorum_gives_the_secret_and_nothing_less_does() {
        for (needed, total) in [(2, 2), (2, 3), (3, 5), (5, 5)] {
            let mut rng = TestRng::new(u64::from(needed) * 100 + u64::from(total));
            let threshold = Threshold::new(needed, total).expect("valid");
            let secret = SecretBytes::random(&mut rng);
            let commitment = SET.secret_commitment(SecretKind::Start, &secret);
            let shares = split(&secret, threshold, &mut rng);
            assert_eq!(
                shares.iter().map(SecretShare::index).collect::<Vec<_>>(),
                (1..=total).collect::<Vec<_>>()
            );
            for subset in 0u32..(1 << total) {
                let chosen: Vec<&SecretShare> =
                    shares.iter().filter(|share| subset & (1 << (share.index - 1)) != 0).collect();
                let combined = combine(&chosen, threshold, &SET, SecretKind::Start, &commitment);
                assert_eq!(combined.is_ok(), chosen.len() >= usize::from(needed));
            }
        }
    }

    #[test]
    fn a_changed_or_repeated_share_does_not_combine() {
        let mut rng = TestRng::new(3);
        let threshold = Threshold::new(2, 3).expect("valid");
        let secret = SecretBytes::random(&mut rng);
        let commitment = SET.secret_commitment(SecretKind::Core, &secret);
        let mut shares = split(&secret, threshold, &mut rng);
        let twice = combine(&[&shares[0], &shares[0]], threshold, &SET, SecretKind::Core, &commitment);
        assert_eq!(twice.err(), Some(CombineError));
        shares[1].value.expose_mut()[31] ^= 1;
        let changed = combine(&[&shares[0], &shares[1]], threshold, &SET, SecretKind::Core, &commitment);
        assert_eq!(changed.err(), Some(CombineError));
    }

    /// Self-made: 2-of-3 with the polynomial s + a x over GF(256) with the AES polynomial 0x11b,
    /// computed by an independent table-driven implementation. A failure means that shares on paper and in
    /// safes no longer combine.
    #[test]
    fn shares_made_by_an_independent_implementation_combine() {
        let secret = hex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
        let one = hex("a0a0a0a0a4a4a4a4a8a8a8a8acacacacb0b0b0b0b4b4b4b4b8b8b8b8bcbcbcbc");
        let three = hex(VECTOR_SHARE_THREE);
        let one = SecretShare::new(1, one).expect("index 1");
        let three = SecretShare::new(3, three).expect("index 3");
        let commitment = SET.secret_commitment(SecretKind::Start, &secret);
        let threshold = Threshold::new(2, 3).expect("valid");
        let combined = combine(&[&one, &three], threshold, &SET, SecretKind::Start, &commitment);
        assert!(combined.expect("combines").is_equal(secret.expose()));
    }

    const VECTOR_SHARE_THREE: &str = "fbf9fffdfffdfbf9f3f1f7f5f7f5f3f1ebe9efedefedebe9e3e1e7e5e7e5e3e1";

    #[test]
    fn a_commitment_binds_set_kind_and_index() {
        let share = |index| SecretShare::new(index, SecretBytes::zeroed()).expect("not zero");
        let base = SET.share_commitment(SecretKind::Start, &share(1));
        assert_ne!(base, SET.share_commitment(SecretKind::Core, &share(1)));
        assert_ne!(base, SET.share_commitment(SecretKind::Start, &share(2)));
        let later = ShareSet { share_epoch: 2, ..SET };
        assert_ne!(base, later.share_commitment(SecretKind::Start, &share(1)));
        let other = ShareSet { cluster_id: [2; 16], ..SET };
        assert_ne!(base, other.share_commitment(SecretKind::Start, &share(1)));
    }
}
