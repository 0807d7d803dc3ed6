//! PINs from a quorum secret (docs/formats/bundle.md, section PINs).

use kms_core::secret::SecretBytes;
use kms_core::suite::Suite;
use kms_hsm::{Pin, PinPurpose, PinRules};

/// The epoch of the PINs that an init ceremony sets.
pub const FIRST_EPOCH: u32 = 1;

/// The rules ask for more characters than the derivation gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the profile's PIN rules ask for a longer PIN than can be derived")]
pub struct PinError;

/// For which token and epoch a PIN is.
#[derive(Clone, Copy, Debug)]
pub struct PinOf<'a> {
    /// The deployment's suite.
    pub suite: Suite,
    /// Whose PIN.
    pub purpose: PinPurpose,
    /// The token's serial number.
    pub serial: &'a str,
    /// Grows with every PIN change.
    pub epoch: u32,
}

/// The PIN for a token.
///
/// # Errors
/// [`PinError`].
pub fn derive(pin: PinOf<'_>, secret: &SecretBytes<32>, rules: &PinRules) -> Result<Pin, PinError> {
    Pin::derive(pin.suite, secret, pin.purpose, pin.serial, pin.epoch, rules).ok_or(PinError)
}
