//! The people who are there: their identities and shares, opened, and nothing of it kept longer than the command.

use crate::bundle_file::VerifiedBundle;
use crate::cli::{identity_question, share_question};
use crate::files::{self, FileError};
use crate::prompt::PromptError;
use kms_core::bundle::Bundle;
use kms_core::codec::VersionOne;
use kms_core::id::{CustodianName, UnixMillis};
use kms_core::quorum::{CombineError, SecretKind, SecretShare, combine};
use kms_core::secret::SecretBytes;
use kms_core::share::{Enrolment, Identity, IdentityFile, ShareError, ShareLabel, SharePair, StoredShare};
use kms_core::suite::Digest32;
use kms_core::transcript::{Consent, SignedConsent};
use rand_core::CryptoRng;
use std::path::{Path, PathBuf};

/// Why the people who are there are not enough, or not the right ones. The HSM has not been asked.
#[derive(Debug, thiserror::Error)]
pub enum PresentError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// No passphrase.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// Identity or share does not open, or is not the one that the bundle says.
    #[error("{path} is refused")]
    Share {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: ShareError,
    },
    /// A share of neither set.
    #[error("{path} is of share epoch {found}; here shares of {expected} are needed")]
    OtherEpoch {
        /// Which file.
        path: PathBuf,
        /// The file's epoch.
        found: u32,
        /// The epochs that are needed.
        expected: String,
    },
    /// A share without its person.
    #[error("{path} is {custodian}'s, whose --identity is missing: everybody who is present signs")]
    NoIdentity {
        /// Which file.
        path: PathBuf,
        /// Whose share.
        custodian: CustodianName,
    },
    /// A person without a share.
    #[error("{path} comes with no --share; who only watches does not sign")]
    NoShare {
        /// Which identity.
        path: PathBuf,
    },
    /// One share or identity twice.
    #[error("{path} is {custodian}'s a second time; everybody counts once")]
    Twice {
        /// Which file.
        path: PathBuf,
        /// Whose.
        custodian: CustodianName,
    },
    /// As many passphrase files as files, or none.
    #[error(
        "{option} is given {given} times for {needed} files; give it once for each, in the same order, or not at all"
    )]
    PassphraseFiles {
        /// The option.
        option: &'static str,
        /// How often.
        given: usize,
        /// How many are needed.
        needed: usize,
    },
    /// Too few.
    #[error("{present} of share epoch {epoch} are present, {needed} are needed")]
    TooFew {
        /// Which set.
        epoch: u32,
        /// How many are there.
        present: usize,
        /// How many are needed.
        needed: u8,
    },
    /// The shares are of no use.
    #[error("the shares of the quorum are of no use")]
    Combine(#[from] CombineError),
}

/// Which files the people who are there have brought.
#[derive(Debug)]
pub struct Brought<'a> {
    /// Identities.
    pub identities: &'a [PathBuf],
    /// Shares of the old or new set.
    pub shares: &'a [PathBuf],
    /// Passphrases of the identities, in their order, or nothing: then people are asked.
    pub passphrase_files: &'a [PathBuf],
    /// Passphrases of the shares, in their order, or nothing.
    pub share_passphrase_files: &'a [PathBuf],
}

/// A set of custodians whose shares may be brought.
#[derive(Clone, Copy, Debug)]
pub struct Set<'a> {
    /// Describes it.
    pub bundle: &'a Bundle,
    /// A quorum of it must be there.
    pub is_needed: bool,
}

struct Opened {
    epoch: u32,
    /// Place of the identity.
    holder: usize,
    shares: SharePair,
}

/// The people who are there. Dropping it wipes everything.
pub struct Present {
    identities: Vec<Identity>,
    opened: Vec<Opened>,
}

impl std::fmt::Debug for Present {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.identities.iter().map(|one| &one.enrolment.name).collect();
        f.debug_struct("Present").field("names", &names).finish_non_exhaustive()
    }
}

impl Present {
    /// Reads the files, checks what can be checked without a passphrase, and opens them. Every share is one of `sets`.
    ///
    /// # Errors
    /// [`PresentError`] names the file.
    pub fn open(brought: &Brought<'_>, sets: &[Set<'_>]) -> Result<Self, PresentError> {
        let counts = [
            ("--passphrase-file", brought.passphrase_files.len(), brought.identities.len()),
            ("--share-passphrase-file", brought.share_passphrase_files.len(), brought.shares.len()),
        ];
        for (option, given, needed) in counts {
            if given != 0 && given != needed {
                return Err(PresentError::PassphraseFiles { option, given, needed });
            }
        }
        let identities = read_identities(brought.identities)?;
        let shares = read_shares(brought.shares, sets)?;
        for (path, share, set) in &shares {
            if !identities.iter().any(|(_, _, enrolment)| is_holder(set, &share.label, enrolment)) {
                let custodian = share.label.custodian.clone();
                return Err(PresentError::NoIdentity { path: path.to_path_buf(), custodian });
            }
        }
        for (path, _, enrolment) in &identities {
            if !shares.iter().any(|(_, share, set)| is_holder(set, &share.label, enrolment)) {
                return Err(PresentError::NoShare { path: path.to_path_buf() });
            }
        }
        for set in sets.iter().filter(|set| set.is_needed).map(|set| set.bundle) {
            let present =
                shares.iter().filter(|(_, share, _)| share.label.share_epoch == set.share_epoch).count();
            let needed = set.threshold().needed();
            if present < usize::from(needed) {
                return Err(PresentError::TooFew { epoch: set.share_epoch, present, needed });
            }
        }
        let identities = open_identities(identities, brought.passphrase_files)?;
        let opened = open_shares(shares, &identities, brought.share_passphrase_files)?;
        Ok(Self { identities, opened })
    }

    /// Whether a quorum of a set is there.
    pub fn has_quorum(&self, bundle: &Bundle) -> bool {
        let present = self.opened.iter().filter(|one| one.epoch == bundle.share_epoch).count();
        present >= usize::from(bundle.threshold().needed())
    }

    /// A secret of a set, from the shares that are there.
    ///
    /// # Errors
    /// [`PresentError::Combine`].
    pub fn secret(&self, bundle: &Bundle, kind: SecretKind) -> Result<SecretBytes<32>, PresentError> {
        let shares: Vec<&SecretShare> = self
            .opened
            .iter()
            .filter(|one| one.epoch == bundle.share_epoch)
            .map(|one| one.shares.share(kind))
            .collect();
        let (threshold, set) = (bundle.threshold(), bundle.share_set());
        Ok(combine(&shares, threshold, &set, kind, bundle.commitment(kind))?)
    }

    /// Everybody's signed consent, once for each set to which they belong.
    pub fn consents(
        &self,
        before: &VerifiedBundle,
        kind: &str,
        operation: Digest32,
        time: UnixMillis,
        rng: &mut impl CryptoRng,
    ) -> Vec<SignedConsent> {
        let mut consents = Vec::new();
        for one in &self.opened {
            let identity = &self.identities[one.holder];
            let consent = Consent {
                version: VersionOne,
                cluster_id: before.bundle.cluster_id,
                kind: kind.to_owned(),
                operation,
                share_epoch: one.epoch,
                custodian: identity.enrolment.name.clone(),
                time,
            };
            consents.push(SignedConsent::sign(&consent, identity, rng));
        }
        consents
    }

    /// Their names, for the transcript.
    pub fn names(&self) -> String {
        let names: Vec<_> = self.identities.iter().map(|one| one.enrolment.name.as_str()).collect();
        names.join(", ")
    }
}

/// Whether a share was made for this identity. A name alone does not say it: who lost an identity enrols again.
fn is_holder(set: &Bundle, label: &ShareLabel, enrolment: &Enrolment) -> bool {
    let custodian = set.custodian(&label.custodian);
    custodian.is_some_and(|one| one.name == enrolment.name && one.sign_key == enrolment.sign_key)
}

type ReadIdentity<'a> = (&'a Path, IdentityFile, Enrolment);

fn read_identities(paths: &[PathBuf]) -> Result<Vec<ReadIdentity<'_>>, PresentError> {
    let mut identities: Vec<ReadIdentity<'_>> = Vec::new();
    for path in paths {
        let file: IdentityFile = files::read_armour(path)?;
        let refused = |source| PresentError::Share { path: path.clone(), source };
        let enrolment = file.enrolment.verify().map_err(refused)?;
        if identities.iter().any(|(_, _, other)| other.sign_key == enrolment.sign_key) {
            return Err(PresentError::Twice { path: path.clone(), custodian: enrolment.name });
        }
        identities.push((path, file, enrolment));
    }
    Ok(identities)
}

type ReadShare<'a> = (&'a Path, StoredShare, &'a Bundle);

fn read_shares<'a>(paths: &'a [PathBuf], sets: &[Set<'a>]) -> Result<Vec<ReadShare<'a>>, PresentError> {
    let mut shares: Vec<ReadShare<'a>> = Vec::new();
    for path in paths {
        let share: StoredShare = files::read_armour(path)?;
        let label = &share.label;
        let mut bundles = sets.iter().map(|set| set.bundle);
        let set = bundles.find(|set| set.share_epoch == label.share_epoch).ok_or_else(|| {
            let expected: Vec<_> = sets.iter().map(|set| set.bundle.share_epoch.to_string()).collect();
            PresentError::OtherEpoch {
                path: path.clone(),
                found: label.share_epoch,
                expected: expected.join(" and "),
            }
        })?;
        if shares.iter().any(|(_, other, _)| other.label == *label) {
            return Err(PresentError::Twice { path: path.clone(), custodian: label.custodian.clone() });
        }
        shares.push((path, share, set));
    }
    Ok(shares)
}

fn open_identities(
    read: Vec<ReadIdentity<'_>>,
    passphrase_files: &[PathBuf],
) -> Result<Vec<Identity>, PresentError> {
    let mut identities = Vec::new();
    for (position, (path, file, enrolment)) in read.into_iter().enumerate() {
        let what = format!("the passphrase of {}'s identity {}", enrolment.name, path.display());
        let mut question = identity_question(passphrase_files.get(position));
        question.what = &what;
        let opened = file.open(&question.enter()?);
        identities.push(opened.map_err(|source| PresentError::Share { path: path.to_path_buf(), source })?);
    }
    Ok(identities)
}

fn open_shares(
    read: Vec<ReadShare<'_>>,
    identities: &[Identity],
    passphrase_files: &[PathBuf],
) -> Result<Vec<Opened>, PresentError> {
    let mut opened = Vec::new();
    for (position, (path, share, set)) in read.into_iter().enumerate() {
        let holder = identities.iter().position(|one| is_holder(set, &share.label, &one.enrolment));
        let Some(holder) = holder else { continue };
        let (custodian, epoch) = (&share.label.custodian, share.label.share_epoch);
        let what = format!("the passphrase of {custodian}'s share of epoch {epoch}");
        let mut question = share_question(passphrase_files.get(position));
        question.what = &what;
        let shares = share
            .open(&question.enter()?, &identities[holder].enrolment, set)
            .map_err(|source| PresentError::Share { path: path.to_path_buf(), source })?;
        opened.push(Opened { epoch, holder, shares });
    }
    Ok(opened)
}
