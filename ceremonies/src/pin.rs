//! PINs from a quorum secret (docs/formats/bundle.md, section PINs): for a token that this process opens
//! itself, and as text for the server that a service start is for.

use kms_core::secret::{Secret, SecretBytes};
use kms_core::suite::Suite;
use kms_hsm::{Pin, PinPurpose, PinRules};
use zeroize::Zeroizing;

/// The epoch of the PINs that an init ceremony sets.
pub const FIRST_EPOCH: u32 = 1;
/// The most that HKDF gives with a 32-byte hash.
const STREAM_LEN: usize = 255 * 32;

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

/// The PIN's characters, to be handed to the server that opens the token itself.
///
/// [`Pin`] keeps its characters to itself, so they are derived here a second time. The tests log in with
/// what this gives to a token whose PIN [`derive`] set.
///
/// # Errors
/// [`PinError`].
pub fn derive_characters(
    pin: PinOf<'_>,
    secret: &SecretBytes<32>,
    rules: &PinRules,
) -> Result<Secret, PinError> {
    let purpose: &[u8; 16] = match pin.purpose {
        PinPurpose::OperationsUser => b"/operations-user",
        PinPurpose::OperationsSo => b"/operations-so..",
        PinPurpose::CoreUser => b"/core-user......",
        PinPurpose::CoreSo => b"/core-so........",
    };
    let mut stream = Zeroizing::new(vec![0; STREAM_LEN]);
    let info: [&[u8]; 3] = [b"kms/v1/pin", purpose, &pin.epoch.to_be_bytes()];
    pin.suite.hkdf(secret.expose(), pin.serial.as_bytes(), &info, &mut stream);
    // A byte beyond the largest multiple of the alphabet's size would favour the first characters.
    let alphabet = rules.alphabet();
    let usable = 256 - 256 % alphabet.len();
    // Exactly sized, so that nothing is moved to another place and left behind.
    let mut characters = Vec::with_capacity(rules.length());
    characters.extend(
        stream
            .iter()
            .map(|byte| usize::from(*byte))
            .filter(|byte| *byte < usable)
            .map(|byte| alphabet[byte % alphabet.len()])
            .take(rules.length()),
    );
    let characters = Secret::new(characters);
    if characters.expose().len() == rules.length() { Ok(characters) } else { Err(PinError) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answer of `kms-hsm`'s derivation, computed outside with Python's `hmac`: 12 digits of the
    /// core SO PIN. A failure means that a server gets a PIN that its token does not have.
    #[test]
    fn the_characters_are_those_of_the_known_answer() {
        let secret = SecretBytes::from_slice(&[7; 32]).expect("32 bytes");
        let rules = PinRules::new("0123456789", 12).expect("valid");
        let of = PinOf { suite: Suite::Intl, purpose: PinPurpose::CoreSo, serial: "42", epoch: 3 };
        assert_eq!(derive_characters(of, &secret, &rules).expect("derives").expose(), b"845537597576");
    }
}
