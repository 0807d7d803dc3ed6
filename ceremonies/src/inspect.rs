//! What a custodian's file says about itself, without a passphrase.

use crate::bundle_file::VerifiedBundle;
use crate::clock;
use crate::files::{self, ARMOUR_LEN_MAX, FileError};
use kms_core::asymmetric::PublicKey;
use kms_core::codec::{self, ArmouredFormat, CodecError};
use kms_core::passphrase::PassphraseBox;
use kms_core::share::{
    Acknowledgement, Enrolment, IdentityFile, ShareDelivery, ShareError, ShareLabel, SignedAcknowledgement,
    SignedEnrolment, StoredShare,
};
use kms_core::suite::Suite;
use kms_core::words;
use std::fmt::{Display, Write};
use std::path::{Path, PathBuf};

/// Why a file says nothing, or does not belong to the bundle.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not a file of a custodian.
    #[error("{path} is no file of a custodian{}", other_command(.label.as_deref()))]
    Other {
        /// Which file.
        path: PathBuf,
        /// Its PEM label, when it has one.
        label: Option<String>,
    },
    /// Its own signature is wrong.
    #[error("{path} is refused")]
    Refused {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: ShareError,
    },
    /// It does not belong to the bundle.
    #[error("{path} does not belong to this bundle")]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: ShareError,
    },
    /// The shares were checked against another bundle.
    #[error("{path} is about another bundle than this one; compare the fingerprints")]
    OtherBundle {
        /// Which file.
        path: PathBuf,
    },
}

fn other_command(label: Option<&str>) -> String {
    match label {
        Some("KMS BUNDLE") => "; it is a bundle: kms-ceremony bundle show FILE".to_owned(),
        Some("KMS TRANSCRIPT") => {
            "; it is a transcript: kms-ceremony transcript verify FILE --bundle FILE".to_owned()
        }
        Some(label) => format!(": it begins with -----BEGIN {label}-----"),
        None => ": it does not begin with -----BEGIN KMS ...-----".to_owned(),
    }
}

/// The lines about a file, and whether it belongs to the bundle where one is given.
#[derive(Debug)]
pub struct Inspected {
    /// One line for each thing that the file says.
    pub text: String,
    /// With a bundle: whether it belongs to it.
    pub belongs: Option<Result<(), InspectError>>,
}

struct Lines(String);

impl Lines {
    fn add(&mut self, name: &str, value: impl Display) {
        writeln!(self.0, "{name:<16} {value}").expect("writing to a String cannot fail");
    }

    fn label(&mut self, label: &ShareLabel) {
        self.add("deployment id", base16ct::lower::encode_string(&label.cluster_id));
        self.add("share epoch", label.share_epoch);
        self.add("custodian", &label.custodian);
        self.add("share index", label.share_index);
    }

    fn enrolment(&mut self, enrolment: &Enrolment) {
        let hex = |key: &PublicKey| base16ct::lower::encode_string(key.as_bytes());
        self.add("custodian", &enrolment.name);
        self.add("suite", enrolment.suite.name());
        self.add("sign key", hex(&enrolment.sign_key));
        self.add("seal key", hex(&enrolment.seal_key));
        self.add("enrolment", words::grouped(&enrolment.digest()));
        self.add("in words", words::spoken(&enrolment.digest()));
    }

    fn sealed(&mut self, sealed: &PassphraseBox) {
        self.add("passphrase", costs(sealed));
    }
}

/// What a guess of the passphrase costs, and what is behind it.
pub(crate) fn costs(sealed: &PassphraseBox) -> String {
    let cipher = match sealed.suite {
        Suite::Sm => "SM4-GCM",
        Suite::Intl => "AES-256-GCM",
    };
    format!("Argon2id, {} KiB, {} passes; {cipher}", sealed.memory_kib, sealed.pass_count)
}

/// Reads a file of any of a custodian's kinds.
///
/// # Errors
/// [`InspectError`]; that a file does not belong to the bundle is in [`Inspected::belongs`].
pub fn inspect(path: &Path, bundle: Option<&VerifiedBundle>) -> Result<Inspected, InspectError> {
    let content = files::read(path, ARMOUR_LEN_MAX)?;
    let label = codec::armour_label(content.expose());
    let file = File { path, content: content.expose(), bundle };
    match label {
        Some(StoredShare::LABEL) => file.share(),
        Some(IdentityFile::LABEL) => file.identity(),
        Some(SignedEnrolment::LABEL) => file.enrolment(),
        Some(ShareDelivery::LABEL) => file.delivery(),
        Some(SignedAcknowledgement::LABEL) => file.acknowledgement(),
        other => Err(InspectError::Other { path: path.to_owned(), label: other.map(str::to_owned) }),
    }
}

struct File<'a> {
    path: &'a Path,
    content: &'a [u8],
    bundle: Option<&'a VerifiedBundle>,
}

impl File<'_> {
    fn open<T: ArmouredFormat>(&self) -> Result<T, FileError> {
        codec::open_armour(self.content)
            .map_err(|source| FileError::Format { path: self.path.to_owned(), source })
    }

    fn begin(&self, kind: &str) -> Lines {
        let mut lines = Lines(String::new());
        lines.add("file", kind);
        lines
    }

    fn end(&self, lines: Lines, check: impl FnOnce(&VerifiedBundle) -> Result<(), ShareError>) -> Inspected {
        let foreign = |source| InspectError::Foreign { path: self.path.to_owned(), source };
        let belongs = self.bundle.map(|bundle| check(bundle).map_err(foreign));
        Inspected { text: lines.0, belongs }
    }

    fn refused(&self, source: impl Into<ShareError>) -> InspectError {
        InspectError::Refused { path: self.path.to_owned(), source: source.into() }
    }

    fn share(&self) -> Result<Inspected, InspectError> {
        let share: StoredShare = self.open()?;
        let mut lines = self.begin("share of a custodian, under a passphrase");
        lines.label(&share.label);
        lines.add("suite", share.shares.suite.name());
        lines.sealed(&share.shares);
        let fingerprint = share.fingerprint();
        lines.add("fingerprint", words::grouped(&fingerprint));
        lines.add("in words", words::spoken(&fingerprint));
        Ok(self.end(lines, |bundle| share.label.find_in(&bundle.bundle).map(drop)))
    }

    fn delivery(&self) -> Result<Inspected, InspectError> {
        let delivery: ShareDelivery = self.open()?;
        let mut lines = self.begin("delivery of shares, encrypted to a custodian's identity");
        lines.label(&delivery.label);
        Ok(self.end(lines, |bundle| delivery.label.find_in(&bundle.bundle).map(drop)))
    }

    fn identity(&self) -> Result<Inspected, InspectError> {
        let file: IdentityFile = self.open()?;
        let enrolment = file.enrolment.verify().map_err(|source| self.refused(source))?;
        let mut lines = self.begin("identity of a custodian, under a passphrase");
        lines.enrolment(&enrolment);
        lines.sealed(&file.keys);
        Ok(self.end(lines, |bundle| in_bundle(&enrolment, bundle)))
    }

    fn enrolment(&self) -> Result<Inspected, InspectError> {
        let signed: SignedEnrolment = self.open()?;
        let enrolment = signed.verify().map_err(|source| self.refused(source))?;
        let mut lines = self.begin("enrolment of a custodian, signed by its own key");
        lines.enrolment(&enrolment);
        Ok(self.end(lines, |bundle| in_bundle(&enrolment, bundle)))
    }

    fn acknowledgement(&self) -> Result<Inspected, InspectError> {
        let signed: SignedAcknowledgement = self.open()?;
        let body: Result<Acknowledgement, CodecError> = codec::open(&signed.body);
        let body = body.map_err(|source| self.refused(source))?;
        let mut lines = self.begin("acknowledgement that shares arrived");
        lines.label(&body.label);
        lines.add("time", clock::to_text(body.time));
        lines.add("bundle", words::grouped(&body.bundle));
        lines.add("in words", words::spoken(&body.bundle));
        if self.bundle.is_none() {
            lines.add("signature", "not checked; that takes --bundle");
        }
        let mut inspected = self.end(lines, |bundle| {
            signed.verify(&bundle.bundle).and(body.label.find_in(&bundle.bundle)).map(drop)
        });
        if self.bundle.is_some_and(|bundle| bundle.fingerprint != body.bundle)
            && matches!(inspected.belongs, Some(Ok(())))
        {
            inspected.belongs = Some(Err(InspectError::OtherBundle { path: self.path.to_owned() }));
        }
        Ok(inspected)
    }
}

fn in_bundle(enrolment: &Enrolment, bundle: &VerifiedBundle) -> Result<(), ShareError> {
    bundle
        .bundle
        .custodian(&enrolment.name)
        .filter(|one| one.sign_key == enrolment.sign_key && one.seal_key == enrolment.seal_key)
        .map(drop)
        .ok_or_else(|| ShareError::NotInBundle { name: enrolment.name.clone() })
}
