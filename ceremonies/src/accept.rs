//! A custodian takes the shares of an init ceremony, or checks a share file that is there.

use crate::bundle_file::{BundleFileError, VerifiedBundle};
use crate::files::{self, FileError, Reserved};
use crate::prompt::PromptError;
use kms_core::codec;
use kms_core::id::{CustodianName, UnixMillis};
use kms_core::passphrase::Passphrase;
use kms_core::share::{IdentityFile, ShareDelivery, ShareError, SignedAcknowledgement, StoredShare};
use rand_core::CryptoRng;
use std::path::{Path, PathBuf};

/// Why shares were not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The bundle is refused.
    #[error(transparent)]
    Bundle(#[from] BundleFileError),
    /// No passphrase, or one that is too short.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// The identity does not open.
    #[error("the identity is refused")]
    Identity(#[source] ShareError),
    /// The delivery does not open, or holds other shares than the bundle says.
    #[error("the delivery is refused; ask for it again and keep this one for whoever looks into it")]
    Delivery(#[source] ShareError),
    /// The share file was written and does not open again.
    #[error("the share file does not read back; nothing was acknowledged")]
    ReadBack(#[source] ShareError),
}

/// A delivery with everything that is needed to accept it.
#[derive(Debug)]
pub struct Delivered {
    bundle: VerifiedBundle,
    delivery: ShareDelivery,
    identity: IdentityFile,
    share: Reserved,
    acknowledgement: Reserved,
}

/// What was written.
#[derive(Debug)]
pub struct Accepted {
    /// Both shares under the custodian's passphrase.
    pub share: PathBuf,
    /// The custodian's word that they arrived.
    pub acknowledgement: PathBuf,
}

impl Delivered {
    /// Reads the files, verifies the bundle and takes the names of the outputs.
    ///
    /// # Errors
    /// [`AcceptError::File`], [`AcceptError::Bundle`].
    pub fn read(
        delivery: &Path,
        identity: &Path,
        bundle: VerifiedBundle,
        out: &Path,
    ) -> Result<Self, AcceptError> {
        let delivery: ShareDelivery = files::read_armour(delivery)?;
        let identity: IdentityFile = files::read_armour(identity)?;
        files::make_folder(out)?;
        let name = &delivery.label.custodian;
        let share = Reserved::new(out.join(format!("{name}.share")), files::PRIVATE)?;
        let acknowledgement = Reserved::new(out.join(format!("{name}.acknowledgement")), files::PUBLIC)?;
        Ok(Self { bundle, delivery, identity, share, acknowledgement })
    }

    /// Opens the delivery, checks both shares against their commitments, and stores them.
    ///
    /// `share_passphrase` is asked only when the shares are the right ones.
    ///
    /// # Errors
    /// [`AcceptError`]; then no acknowledgement is there.
    pub fn accept(
        self,
        identity_passphrase: &Passphrase,
        share_passphrase: impl FnOnce() -> Result<Passphrase, PromptError>,
        now: UnixMillis,
        rng: &mut impl CryptoRng,
    ) -> Result<Accepted, AcceptError> {
        let bundle = &self.bundle.bundle;
        let identity = self.identity.open(identity_passphrase).map_err(AcceptError::Identity)?;
        let shares = self.delivery.open(&identity, bundle).map_err(AcceptError::Delivery)?;
        let passphrase = share_passphrase()?;
        let label = self.delivery.label;
        let stored = StoredShare::seal(bundle.suite, label.clone(), &passphrase, &shares, rng);
        let share = self.share.write(codec::to_armour(&stored).as_bytes())?;
        // The acknowledgement says that the shares are safe, so it is only made when the file that was
        // written gives them back.
        let written: StoredShare = files::read_armour(&share)?;
        written.open(&passphrase, &identity.enrolment, bundle).map_err(AcceptError::ReadBack)?;
        let signed = SignedAcknowledgement::sign(label, self.bundle.fingerprint, now, &identity, rng);
        let acknowledgement = self.acknowledgement.write(codec::to_armour(&signed).as_bytes())?;
        Ok(Accepted { share, acknowledgement })
    }
}

/// Why a share file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The share does not open, or is not the one that the bundle says.
    #[error("the share is refused")]
    Share(#[from] ShareError),
    /// No passphrase.
    #[error(transparent)]
    Prompt(#[from] PromptError),
}

/// Opens a share file and compares it with the bundle. Gives the custodian's name.
///
/// # Errors
/// [`VerifyError`].
pub fn verify(
    share: &Path,
    identity: &Path,
    bundle: &VerifiedBundle,
    passphrase: impl FnOnce() -> Result<Passphrase, PromptError>,
) -> Result<CustodianName, VerifyError> {
    let stored: StoredShare = files::read_armour(share)?;
    let identity: IdentityFile = files::read_armour(identity)?;
    let enrolment = identity.enrolment.verify()?;
    stored.open(&passphrase()?, &enrolment, &bundle.bundle)?;
    Ok(enrolment.name)
}
