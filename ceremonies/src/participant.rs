//! A custodian's part in a ceremony of a running node: what is checked, and what is answered. No network.

use crate::bundle_file::VerifiedBundle;
use crate::files::{self, FileError};
use kms_core::asymmetric::SealError;
use kms_core::ceremony::{Contribution, OfferError, Purpose, SignedOffer};
use kms_core::codec;
use kms_core::id::{CustodianName, UnixMillis};
use kms_core::passphrase::Passphrase;
use kms_core::reason::Reason;
use kms_core::share::{IdentityFile, ShareError, StoredShare};
use rand_core::CryptoRng;
use std::path::Path;

/// Why a custodian cannot take part.
#[derive(Debug, thiserror::Error)]
pub enum ParticipantError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// Identity, share and bundle do not belong together.
    #[error("identity, share and bundle do not belong together")]
    Mismatch(#[from] ShareError),
}

/// Why an offer is not answered. Nothing of the share has left the machine.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The offer is not what the custodian came for, or not from where it should be.
    #[error("the offer is refused and nothing was sent")]
    Offer(#[from] OfferError),
    /// Identity or share do not open.
    #[error("nothing was sent")]
    Open(#[from] ShareError),
    /// The offered key is no key.
    #[error("the offered key is of no use and nothing was sent")]
    Seal(#[from] SealError),
}

impl AnswerError {
    /// What the node is told, where the offer is to blame.
    pub fn decline_reason(&self) -> Option<Reason> {
        match self {
            // A custodian whose clock is wrong meets this too: it is no proof of a forgery.
            AnswerError::Offer(OfferError::Expired) => Some(Reason::CeremonyExpired),
            AnswerError::Offer(_) | AnswerError::Seal(_) => Some(Reason::OfferForged),
            AnswerError::Open(_) => None,
        }
    }
}

/// A custodian with everything at hand, before anything is opened.
#[derive(Debug)]
pub struct Participant {
    bundle: VerifiedBundle,
    identity: IdentityFile,
    share: StoredShare,
    name: CustodianName,
}

/// Both passphrases, asked before the window opens so that it is not spent typing.
#[derive(Debug)]
pub struct Passphrases {
    /// Opens the identity.
    pub identity: Passphrase,
    /// Opens the share file.
    pub share: Passphrase,
}

impl Participant {
    /// Reads the files and checks what can be checked without a passphrase.
    ///
    /// # Errors
    /// [`ParticipantError`].
    pub fn read(bundle: VerifiedBundle, identity: &Path, share: &Path) -> Result<Self, ParticipantError> {
        let identity: IdentityFile = files::read_armour(identity)?;
        let share: StoredShare = files::read_armour(share)?;
        let enrolment = identity.enrolment.verify()?;
        let set = &bundle.bundle;
        if share.label.cluster_id != set.cluster_id || share.label.share_epoch != set.share_epoch {
            return Err(ShareError::ForeignSet.into());
        }
        let is_ours = set.custodian(&enrolment.name).is_some_and(|custodian| {
            custodian.sign_key == enrolment.sign_key && share.label.custodian == custodian.name
        });
        if !is_ours {
            return Err(ShareError::NotInBundle { name: share.label.custodian }.into());
        }
        Ok(Self { bundle, identity, share, name: enrolment.name })
    }

    /// Who takes part.
    pub fn name(&self) -> &CustodianName {
        &self.name
    }

    /// The bundle that offers are checked against.
    pub fn bundle(&self) -> &VerifiedBundle {
        &self.bundle
    }

    /// Checks the offer, and only then opens the share for a moment and encrypts it to the one-time key.
    ///
    /// Takes the canonical bytes of the signed offer and gives those of the contribution.
    ///
    /// # Errors
    /// [`AnswerError`].
    pub fn answer(
        &self,
        offer: &[u8],
        purpose: Purpose,
        passphrases: &Passphrases,
        now: UnixMillis,
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<u8>, AnswerError> {
        let bundle = &self.bundle.bundle;
        let signed: SignedOffer = codec::open(offer).map_err(OfferError::from)?;
        let offer = signed.verify(bundle, &self.name, purpose, now)?;
        let identity = self.identity.open(&passphrases.identity)?;
        let shares = self.share.open(&passphrases.share, &identity.enrolment, bundle)?;
        let key = &offer.one_time_key;
        let contribution = Contribution::answer(&signed, key, bundle, &identity, &shares, purpose.kind, rng)?;
        Ok(codec::to_bytes(&contribution))
    }
}
