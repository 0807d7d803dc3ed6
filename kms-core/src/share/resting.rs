//! What may be done with a custodian's files as they lie: telling them apart, changing their passphrase, and
//! checking a share where the identity is not at hand.

use super::{
    ENROLMENT_DOMAIN, Enrolment, Identity, IdentityFile, STORED_DOMAIN, ShareError, ShareLabel, SharePair,
    StoredShare,
};
use crate::bundle::{Bundle, Custodian};
use crate::codec;
use crate::passphrase::{Passphrase, PassphraseError};
use crate::suite::Digest32;
use rand_core::CryptoRng;

const FINGERPRINT_DOMAIN: &str = "kms/v1/share-file";

impl Enrolment {
    /// What a custodian compares with a plan: the plan names only the file, so its own digest does not cover this.
    pub fn digest(&self) -> Digest32 {
        self.suite.hash(&[ENROLMENT_DOMAIN.as_bytes(), &[0], &codec::to_bytes(self)])
    }
}

impl ShareLabel {
    /// The custodian of the bundle whose share this is.
    ///
    /// # Errors
    /// [`ShareError::ForeignSet`], [`ShareError::NotInBundle`].
    pub fn find_in<'a>(&self, bundle: &'a Bundle) -> Result<&'a Custodian, ShareError> {
        if self.cluster_id != bundle.cluster_id || self.share_epoch != bundle.share_epoch {
            return Err(ShareError::ForeignSet);
        }
        bundle
            .custodian(&self.custodian)
            .filter(|custodian| custodian.share_index == self.share_index)
            .ok_or_else(|| ShareError::NotInBundle { name: self.custodian.clone() })
    }
}

impl StoredShare {
    /// What people compare to see that a file and a print are the same.
    pub fn fingerprint(&self) -> Digest32 {
        self.shares.suite.hash(&[FINGERPRINT_DOMAIN.as_bytes(), &[0], &codec::to_bytes(self)])
    }

    /// Opens the file and checks both shares against the bundle alone: the custodian's keys are not looked at.
    ///
    /// # Errors
    /// [`ShareError`] names what does not fit.
    pub fn open_without_identity(
        &self,
        passphrase: &Passphrase,
        bundle: &Bundle,
    ) -> Result<SharePair, ShareError> {
        let custodian = self.label.find_in(bundle)?;
        let both = self.shares.open(passphrase, &self.label.context(STORED_DOMAIN))?;
        let shares = SharePair::from_secret(self.label.share_index, &both).ok_or(PassphraseError)?;
        shares.check(bundle, custodian)?;
        Ok(shares)
    }
}

/// A custodian's file under a passphrase that can become another one.
pub trait UnderPassphrase: codec::ArmouredFormat + PartialEq {
    /// The same secrets under the passphrase that `new` gives; it is asked only when the old one is right.
    ///
    /// # Errors
    /// [`ShareError`] when the file does not open, and whatever `new` gives.
    fn change_passphrase<E: From<ShareError>>(
        &self,
        old: &Passphrase,
        new: impl FnOnce() -> Result<Passphrase, E>,
        rng: &mut impl CryptoRng,
    ) -> Result<(Self, Passphrase), E>;

    /// Whether the file opens and holds the same as another one of its kind.
    ///
    /// # Errors
    /// [`ShareError::Passphrase`] also when it holds something else.
    fn holds_the_same(
        &self,
        passphrase: &Passphrase,
        other: &Self,
        others: &Passphrase,
    ) -> Result<(), ShareError>;
}

impl UnderPassphrase for StoredShare {
    fn change_passphrase<E: From<ShareError>>(
        &self,
        old: &Passphrase,
        new: impl FnOnce() -> Result<Passphrase, E>,
        rng: &mut impl CryptoRng,
    ) -> Result<(Self, Passphrase), E> {
        let both = self.shares.open(old, &self.label.context(STORED_DOMAIN)).map_err(ShareError::from)?;
        let shares =
            SharePair::from_secret(self.label.share_index, &both).ok_or(ShareError::from(PassphraseError))?;
        let new = new()?;
        Ok((Self::seal(self.shares.suite, self.label.clone(), &new, &shares, rng), new))
    }

    fn holds_the_same(
        &self,
        passphrase: &Passphrase,
        other: &Self,
        others: &Passphrase,
    ) -> Result<(), ShareError> {
        let both = self.shares.open(passphrase, &self.label.context(STORED_DOMAIN))?;
        let expected = other.shares.open(others, &other.label.context(STORED_DOMAIN))?;
        let is_same = self.label == other.label && both.is_equal(expected.expose());
        is_same.then_some(()).ok_or(PassphraseError.into())
    }
}

impl UnderPassphrase for IdentityFile {
    fn change_passphrase<E: From<ShareError>>(
        &self,
        old: &Passphrase,
        new: impl FnOnce() -> Result<Passphrase, E>,
        rng: &mut impl CryptoRng,
    ) -> Result<(Self, Passphrase), E> {
        let identity: Identity = self.open(old)?;
        let new = new()?;
        let mut changed = identity.to_file(&new, rng);
        // The enrolment stays as it was published, with its signature.
        changed.enrolment = self.enrolment.clone();
        Ok((changed, new))
    }

    fn holds_the_same(
        &self,
        passphrase: &Passphrase,
        other: &Self,
        others: &Passphrase,
    ) -> Result<(), ShareError> {
        let (mine, expected) = (self.open(passphrase)?, other.open(others)?);
        let is_same = self.enrolment == other.enrolment
            && mine.sign_key.scalar().is_equal(expected.sign_key.scalar().expose())
            && mine.seal_key.scalar().is_equal(expected.seal_key.scalar().expose());
        is_same.then_some(()).ok_or(PassphraseError.into())
    }
}
