//! A custodian makes a key pair for signing and one for receiving shares.

use crate::files::{self, FileError, Reserved};
use crate::prompt::PromptError;
use kms_core::codec;
use kms_core::id::CustodianName;
use kms_core::passphrase::Passphrase;
use kms_core::share::Identity;
use kms_core::suite::Suite;
use rand_core::CryptoRng;
use std::path::{Path, PathBuf};

/// Why no identity was made.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// An output cannot be written or is there already.
    #[error(transparent)]
    File(#[from] FileError),
    /// No passphrase, or one that is too short.
    #[error(transparent)]
    Prompt(#[from] PromptError),
}

/// What was made.
#[derive(Debug)]
pub struct Enrolled {
    /// Private keys under the passphrase: the custodian keeps it.
    pub identity: PathBuf,
    /// What goes into the plan.
    pub enrolment: PathBuf,
}

/// Makes `NAME.identity` and `NAME.enrolment` in `out`.
///
/// # Errors
/// [`EnrollError`]; then neither file is there.
pub fn run(
    name: CustodianName,
    suite: Suite,
    out: &Path,
    passphrase: impl FnOnce() -> Result<Passphrase, PromptError>,
    rng: &mut impl CryptoRng,
) -> Result<Enrolled, EnrollError> {
    files::make_folder(out)?;
    let identity_output = Reserved::new(out.join(format!("{name}.identity")), files::PRIVATE)?;
    let enrolment_output = Reserved::new(out.join(format!("{name}.enrolment")), files::PUBLIC)?;
    let passphrase = passphrase()?;
    let file = Identity::generate(suite, name, rng).to_file(&passphrase, rng);
    // The identity first: an enrolment whose keys are lost could come into a plan.
    let identity = identity_output.write(codec::to_armour(&file).as_bytes())?;
    let enrolment = enrolment_output.write(codec::to_armour(&file.enrolment).as_bytes())?;
    Ok(Enrolled { identity, enrolment })
}
