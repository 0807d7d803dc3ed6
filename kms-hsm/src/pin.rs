//! PINs: derived from a quorum secret, never stored.

use crate::locked::LockedBytes;
use crate::profile::PinRules;
use cryptoki::types::AuthPin;
use kms_core::secret::SecretBytes;
use kms_core::suite::Suite;
use std::fmt;
use zeroize::Zeroizing;

/// The most that HKDF gives with a 32-byte hash.
const STREAM_LEN: usize = 255 * 32;

/// Whose PIN it is. Each purpose gives an unrelated PIN from the same secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PinPurpose {
    /// The user of the operations partition; from the start secret.
    OperationsUser,
    /// The security officer of the operations partition; from the core secret.
    OperationsSo,
    /// The user of the core partition; from the core secret.
    CoreUser,
    /// The security officer of the core partition; from the core secret.
    CoreSo,
}

impl PinPurpose {
    /// Part of the derivation. Fixed length, so that nothing can run into the epoch behind it.
    const fn label(self) -> &'static [u8; 16] {
        match self {
            PinPurpose::OperationsUser => b"/operations-user",
            PinPurpose::OperationsSo => b"/operations-so..",
            PinPurpose::CoreUser => b"/core-user......",
            PinPurpose::CoreSo => b"/core-so........",
        }
    }
}

/// A PIN, in locked memory, wiped when dropped.
pub struct Pin(LockedBytes);

impl Pin {
    /// Derives the PIN of one token, purpose and epoch.
    ///
    /// HKDF with the suite's hash, salt = `token_serial`, info = `kms/v1/pin`, purpose (16 bytes), epoch
    /// (4 bytes, big-endian), gives 8,160 bytes. Each byte below the largest multiple of the alphabet's
    /// size picks a character, the others are skipped: every character is equally likely.
    ///
    /// `None` when the stream runs out. With at most 255 characters of at least 10 that does not happen:
    /// at least half of the 8,160 bytes are usable.
    pub fn derive(
        suite: Suite,
        secret: &SecretBytes<32>,
        purpose: PinPurpose,
        token_serial: &str,
        pin_epoch: u32,
        rules: &PinRules,
    ) -> Option<Self> {
        let mut stream = Zeroizing::new(vec![0; STREAM_LEN]);
        let info: [&[u8]; 3] = [b"kms/v1/pin", purpose.label(), &pin_epoch.to_be_bytes()];
        suite.hkdf(secret.expose(), token_serial.as_bytes(), &info, &mut stream);

        let alphabet = rules.alphabet();
        let usable = 256 / alphabet.len() * alphabet.len();
        let mut characters = stream
            .iter()
            .map(|byte| usize::from(*byte))
            .filter(|byte| *byte < usable)
            .map(|byte| alphabet[byte % alphabet.len()]);
        let mut bytes = LockedBytes::zeroed(rules.length());
        for place in bytes.expose_mut() {
            *place = characters.next()?;
        }
        Some(Self(bytes))
    }

    /// A PIN that somebody entered: the SO PIN of a module whose administration is the vendor's.
    ///
    /// `None` unless it is 1 to 255 printable ASCII characters.
    pub fn entered(text: &Zeroizing<String>) -> Option<Self> {
        let is_pin = (1..=255).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        is_pin.then(|| {
            let mut bytes = LockedBytes::zeroed(text.len());
            bytes.expose_mut().copy_from_slice(text.as_bytes());
            Self(bytes)
        })
    }

    /// The characters, for the process that will log in with them. Never hand them to a log macro.
    pub fn expose(&self) -> &[u8] {
        self.0.expose()
    }

    /// Length in characters; each is one byte.
    pub fn len(&self) -> usize {
        self.0.expose().len()
    }

    /// Never: a PIN has at least one character.
    pub fn is_empty(&self) -> bool {
        self.0.expose().is_empty()
    }

    /// A copy for one driver call, wiped when dropped.
    pub(crate) fn for_driver(&self) -> AuthPin {
        // Exactly sized, so that nothing is moved to another place and left behind.
        let mut text = String::with_capacity(self.len());
        text.extend(self.0.expose().iter().copied().map(char::from));
        AuthPin::from(text)
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({} characters)", self.len())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]
mod tests {
    use super::*;
    use crate::profile::Profile;
    use std::collections::HashSet;

    const ALL: [PinPurpose; 4] =
        [PinPurpose::OperationsUser, PinPurpose::OperationsSo, PinPurpose::CoreUser, PinPurpose::CoreSo];

    fn secret() -> SecretBytes<32> {
        SecretBytes::from_slice(&[7; 32]).unwrap()
    }

    fn digits(purpose: PinPurpose, serial: &str, epoch: u32, suite: Suite) -> Vec<u8> {
        let rules = PinRules::new("0123456789", 12).unwrap();
        Pin::derive(suite, &secret(), purpose, serial, epoch, &rules).unwrap().0.expose().to_vec()
    }

    #[test]
    fn purpose_serial_epoch_and_suite_each_give_another_pin() {
        let mut pins = HashSet::new();
        for purpose in ALL {
            for serial in ["1", "2"] {
                for epoch in [1, 2] {
                    for suite in [Suite::Sm, Suite::Intl] {
                        pins.insert(digits(purpose, serial, epoch, suite));
                    }
                }
            }
        }
        assert_eq!(pins.len(), 4 * 2 * 2 * 2);
    }

    /// Computed with Python's `hmac` and `hashlib` (HKDF as in RFC 5869, then the rule above). If this
    /// fails, no existing token can be opened any more: change the derivation's version instead.
    #[test]
    fn the_derivation_gives_the_pins_that_tokens_already_have() {
        let rules = Profile::by_name("softhsm").unwrap().pin_rules().clone();
        let pin =
            Pin::derive(Suite::Intl, &secret(), PinPurpose::OperationsUser, "0123456789abcdef", 1, &rules);
        assert_eq!(pin.unwrap().0.expose(), b"jN3OwVE_VxLBGtcxgDMMWd5PYe4jA1RJUfexI2JjYQH");
        assert_eq!(digits(PinPurpose::CoreSo, "42", 3, Suite::Intl), b"845537597576");
    }

    #[test]
    fn every_character_of_an_odd_alphabet_comes_up_and_no_other() {
        let rules = PinRules::new("23456789abcdefghjkmnpqrstuvwxyz", 255).unwrap();
        let pin = Pin::derive(Suite::Sm, &secret(), PinPurpose::CoreUser, "x", 1, &rules).unwrap();
        let seen: HashSet<u8> = pin.0.expose().iter().copied().collect();
        assert_eq!(seen, rules.alphabet().iter().copied().collect());
    }

    #[test]
    fn an_entered_pin_that_no_token_can_have_is_refused() {
        assert!(Pin::entered(&Zeroizing::new(String::new())).is_none());
        assert!(Pin::entered(&Zeroizing::new("x".repeat(256))).is_none());
        assert!(Pin::entered(&Zeroizing::new("a\n".to_owned())).is_none());
        let pin = Pin::entered(&Zeroizing::new("so pin".to_owned())).unwrap();
        assert_eq!(format!("{pin:?}"), "Pin(6 characters)");
    }
}
