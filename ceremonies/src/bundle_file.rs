//! A bundle as a file: verified, shown, and its core key for other tools.

use crate::clock;
use crate::files::{self, FileError};
use crate::plan::PLAN_LEN_MAX;
use kms_core::asymmetric::PublicKey;
use kms_core::bundle::{Bundle, BundleError, SignedBundle};
use kms_core::suite::{Digest32, Suite};
use kms_core::transcript::{CheckedConsent, Consent, SignedTranscript, Transcript, TranscriptError};
use p256::pkcs8::{EncodePublicKey, LineEnding};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Why a bundle, or what depends on one, is refused.
#[derive(Debug, thiserror::Error)]
pub enum BundleFileError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its content breaks a rule.
    #[error("{path} is refused")]
    Bundle {
        /// Which file.
        path: PathBuf,
        /// Which rule.
        #[source]
        source: BundleError,
    },
    /// Another bundle than the custodian was told to expect.
    #[error(
        "the bundle's fingerprint is {found}, but {expected} was expected; do not use it and find out who changed it"
    )]
    OtherFingerprint {
        /// What people agreed on.
        expected: Digest32,
        /// What the file has.
        found: Digest32,
    },
    /// The transcript is not of this deployment, or was changed.
    #[error("{path} is refused")]
    Transcript {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: TranscriptError,
    },
    /// Another plan was carried out.
    #[error("{path} is not the plan of this transcript: the ceremony carried out {found}")]
    OtherPlan {
        /// Which file.
        path: PathBuf,
        /// Digest of the plan in the transcript.
        found: Digest32,
    },
}

/// A bundle whose signature and rules were checked.
#[derive(Debug)]
pub struct VerifiedBundle {
    /// The signed form, as everybody has it.
    pub signed: SignedBundle,
    /// Its content.
    pub bundle: Bundle,
    /// What people compare.
    pub fingerprint: Digest32,
}

impl VerifiedBundle {
    /// Reads and verifies a bundle file.
    ///
    /// # Errors
    /// [`BundleFileError::File`], [`BundleFileError::Bundle`].
    pub fn read(path: &Path) -> Result<Self, BundleFileError> {
        let signed: SignedBundle = files::read_armour(path)?;
        let bundle =
            signed.verify().map_err(|source| BundleFileError::Bundle { path: path.to_owned(), source })?;
        let fingerprint = signed.fingerprint(bundle.suite);
        Ok(Self { signed, bundle, fingerprint })
    }

    /// Refuses a bundle other than the one that people agreed on.
    ///
    /// # Errors
    /// [`BundleFileError::OtherFingerprint`].
    pub fn expect(&self, expected: Digest32) -> Result<(), BundleFileError> {
        if self.fingerprint == expected {
            return Ok(());
        }
        Err(BundleFileError::OtherFingerprint { expected, found: self.fingerprint })
    }

    /// The content for people, one line each.
    pub fn summary(&self) -> String {
        let bundle = &self.bundle;
        let mut text = String::new();
        let mut line = |name: &str, value: &dyn std::fmt::Display| {
            writeln!(text, "{name:<16} {value}").expect("writing to a String cannot fail");
        };
        line("cluster", &bundle.cluster_name);
        line("cluster id", &base16ct::lower::encode_string(&bundle.cluster_id));
        line("suite", &bundle.suite.name());
        line("created", &clock::to_text(bundle.created));
        line("share epoch", &bundle.share_epoch);
        line("threshold", &format_args!("{} of {}", bundle.threshold_needed, bundle.custodians.len()));
        for one in &bundle.custodians {
            let key = base16ct::lower::encode_string(one.sign_key.as_bytes());
            line("custodian", &format_args!("{} (share {}, sign key {key})", one.name, one.share_index));
        }
        for (name, one) in [("operations", &bundle.operations), ("core", &bundle.core)] {
            let epoch = one.pin_epoch;
            line(name, &format_args!("token {:?}, serial {}, PIN epoch {epoch}", one.label, one.serial));
        }
        line("core key", &format_args!("{:?}", bundle.core_key.public_key));
        line("checkpoint key", &format_args!("{:?}", bundle.checkpoint_key.public_key));
        for key in &bundle.master_keys {
            line("master key", &format_args!("version {}, {}", key.version, key.algorithm.name()));
        }
        for node in &bundle.nodes {
            line("node", &format_args!("{} (key {:?})", node.name, node.key));
        }
        for principal in &bundle.principals {
            line("principal", principal);
        }
        line("fingerprint", &self.fingerprint);
        line("in words", &kms_core::words::spoken(&self.fingerprint));
        text
    }

    /// Reads a transcript and checks it with this bundle's core key.
    ///
    /// # Errors
    /// [`BundleFileError::File`], [`BundleFileError::Transcript`].
    pub fn read_transcript(&self, path: &Path) -> Result<Transcript, BundleFileError> {
        let signed: SignedTranscript = files::read_armour(path)?;
        signed
            .verify(&self.bundle.core_key.public_key)
            .map_err(|source| BundleFileError::Transcript { path: path.to_owned(), source })
    }
}

/// Refuses a transcript of another plan than this file.
///
/// # Errors
/// [`BundleFileError::File`], [`BundleFileError::OtherPlan`].
pub fn check_plan(transcript: &Transcript, plan: &Path) -> Result<(), BundleFileError> {
    let text = files::read(plan, PLAN_LEN_MAX)?;
    if transcript.suite.hash(&[text.expose()]) != transcript.plan {
        return Err(BundleFileError::OtherPlan { path: plan.to_owned(), found: transcript.plan });
    }
    Ok(())
}

/// The transcript for people.
pub fn transcript_text(transcript: &Transcript) -> String {
    let mut text = format!("{} ceremony, plan {}\n", transcript.kind, transcript.plan);
    for step in &transcript.steps {
        writeln!(text, "{}  {}", clock::to_text(step.time), step.what)
            .expect("writing to a String cannot fail");
    }
    text
}

/// A consent for people.
pub fn consent_text(one: &CheckedConsent) -> String {
    let Consent { custodian, operation, share_epoch, time, .. } = &one.consent;
    let standing = match one.is_checked {
        true => "signed by the custodian's key",
        false => "signature not checked: give --bundle of that share epoch",
    };
    let time = clock::to_text(*time);
    format!("{time}  {custodian} agreed to operation {operation} (share epoch {share_epoch}; {standing})")
}

/// A public key as PEM (SubjectPublicKeyInfo, RFC 5280), as OpenSSL reads it.
pub fn to_pem(suite: Suite, key: &PublicKey) -> String {
    const ON_CURVE: &str = "the keys of a verified bundle are on the curve of its suite";
    const ENCODES: &str = "a public key has an encoding";
    match suite {
        Suite::Intl => p256::PublicKey::from_sec1_bytes(key.as_bytes())
            .expect(ON_CURVE)
            .to_public_key_pem(LineEnding::LF)
            .expect(ENCODES),
        Suite::Sm => sm2::PublicKey::from_sec1_bytes(key.as_bytes())
            .expect(ON_CURVE)
            .to_public_key_pem(LineEnding::LF)
            .expect(ENCODES),
    }
}
