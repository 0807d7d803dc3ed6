//! Whom a secret is encrypted to when not even its caller's connection may carry it in the clear
//! (docs/formats/recipient.md).

use crate::context::EncryptionContext;
use crate::envelope::Purpose;
use crate::id::{KeyId, KeyVersion};
use crate::pair::{PairAlgorithm, PairPublicKey};
use crate::spec::KeySpec;
use crate::suite::Suite;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// In front of everything that an HPKE ciphertext is bound to. The version is part of it.
const DOMAIN: &[u8] = b"kms/v1/recipient\0";

/// How a secret is encrypted to a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RecipientAlgorithm {
    /// SM2 (GB/T 32918.4), as the SEQUENCE of GM/T 0009.
    Sm2,
    /// RSAES-OAEP with SHA-256, MGF1 with SHA-256 and an empty label.
    RsaOaepSha256,
    /// HPKE base mode (RFC 9180): DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, AES-256-GCM.
    HpkeP256,
}

impl RecipientAlgorithm {
    /// Every algorithm, in registry order.
    pub const ALL: [RecipientAlgorithm; 3] =
        [RecipientAlgorithm::Sm2, RecipientAlgorithm::RsaOaepSha256, RecipientAlgorithm::HpkeP256];

    /// The name used on command lines and in records.
    pub const fn name(self) -> &'static str {
        match self {
            RecipientAlgorithm::Sm2 => "sm2",
            RecipientAlgorithm::RsaOaepSha256 => "rsa-oaep-sha-256",
            RecipientAlgorithm::HpkeP256 => "hpke-p256",
        }
    }

    /// Reads the name that [`RecipientAlgorithm::name`] gives.
    pub fn from_name(name: &str) -> Option<Self> {
        RecipientAlgorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// The number in the registry.
    pub const fn number(self) -> u16 {
        match self {
            RecipientAlgorithm::Sm2 => 1,
            RecipientAlgorithm::RsaOaepSha256 => 2,
            RecipientAlgorithm::HpkeP256 => 3,
        }
    }

    /// Reads the number that [`RecipientAlgorithm::number`] gives.
    pub fn from_number(number: u16) -> Option<Self> {
        RecipientAlgorithm::ALL.into_iter().find(|algorithm| algorithm.number() == number)
    }

    /// The one way in which something is encrypted to a key of this algorithm; `None` when there is none.
    pub const fn of(pair: PairAlgorithm) -> Option<Self> {
        match pair {
            PairAlgorithm::Sm2 => Some(RecipientAlgorithm::Sm2),
            PairAlgorithm::Rsa2048 | PairAlgorithm::Rsa3072 | PairAlgorithm::Rsa4096 => {
                Some(RecipientAlgorithm::RsaOaepSha256)
            }
            PairAlgorithm::P256 => Some(RecipientAlgorithm::HpkeP256),
            PairAlgorithm::P384 | PairAlgorithm::P521 | PairAlgorithm::Ed25519 => None,
        }
    }

    /// The suite whose hash gives the fingerprints of such recipients.
    const fn suite(self) -> Suite {
        match self {
            RecipientAlgorithm::Sm2 => Suite::Sm,
            RecipientAlgorithm::RsaOaepSha256 | RecipientAlgorithm::HpkeP256 => Suite::Intl,
        }
    }
}

impl fmt::Display for RecipientAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The algorithm does not fit the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecipientError {
    /// Something is encrypted to such a key in another way.
    #[error("{algorithm} does not encrypt to a key of {pair}; {fitting} does")]
    OtherPair {
        /// What the key is.
        pair: PairAlgorithm,
        /// What was asked.
        algorithm: RecipientAlgorithm,
        /// What fits.
        fitting: RecipientAlgorithm,
    },
    /// Nothing is encrypted to such a key.
    #[error("nothing is encrypted to a key of {pair}; take rsa-2048, rsa-3072 or rsa-4096, ec-p256, or sm2")]
    NoPair {
        /// What the key is.
        pair: PairAlgorithm,
    },
}

/// A public key, and how something is encrypted to it. The two fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    algorithm: RecipientAlgorithm,
    key: PairPublicKey,
}

impl Recipient {
    /// Takes a key and the algorithm that its owner expects.
    ///
    /// # Errors
    /// [`RecipientError`] when they do not fit.
    pub fn new(algorithm: RecipientAlgorithm, key: PairPublicKey) -> Result<Self, RecipientError> {
        let pair = key.algorithm();
        match RecipientAlgorithm::of(pair) {
            Some(fitting) if fitting == algorithm => Ok(Self { algorithm, key }),
            Some(fitting) => Err(RecipientError::OtherPair { pair, algorithm, fitting }),
            None => Err(RecipientError::NoPair { pair }),
        }
    }

    /// How something is encrypted to the key.
    pub fn algorithm(&self) -> RecipientAlgorithm {
        self.algorithm
    }

    /// The key.
    pub fn key(&self) -> &PairPublicKey {
        &self.key
    }

    /// `sm3:` or `sha-256:` and the hash of the SubjectPublicKeyInfo in hexadecimal.
    pub fn fingerprint(&self) -> String {
        self.algorithm.suite().fingerprint(&self.key.to_spki())
    }
}

/// What an HPKE ciphertext is bound to: it opens as nothing else.
#[derive(Clone, Copy, Debug)]
pub struct RecipientBinding<'a> {
    /// What the secret is.
    pub purpose: Purpose,
    /// What kind of key the secret is.
    pub spec: KeySpec,
    /// The key that it is encrypted under, and the version.
    pub key: (KeyId, KeyVersion),
    /// The caller's context.
    pub context: &'a EncryptionContext,
}

impl RecipientBinding<'_> {
    /// The `info` of RFC 9180. `aad` is empty: that is what section 8.1 advises for single messages.
    pub fn to_info(&self) -> Vec<u8> {
        let mut out = DOMAIN.to_vec();
        out.push(self.purpose.number());
        out.extend_from_slice(&self.spec.number().to_be_bytes());
        out.extend_from_slice(&self.key.0.0);
        out.extend_from_slice(&self.key.1.number().to_be_bytes());
        out.extend_from_slice(&self.context.to_canonical());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asymmetric::{PrivateKey, PublicKey, SealError};
    use crate::quorum::testing::TestRng;
    use crate::secret::SecretBytes;
    use crate::suite::AeadAlgorithm;
    use alloc::format;
    use alloc::vec;

    const DOCUMENT: &str = include_str!("../../docs/formats/recipient.md");

    /// The hexadecimal text in the last line of the document that begins so.
    fn vector(start: &str) -> Vec<u8> {
        let line = DOCUMENT.lines().rfind(|line| line.starts_with(start)).expect("a line of the document");
        base16ct::lower::decode_vec(line[start.len()..].trim()).expect("hexadecimal")
    }

    fn context() -> EncryptionContext {
        EncryptionContext::new([("file".into(), "payroll.csv".into())]).expect("a context")
    }

    fn binding(context: &EncryptionContext) -> RecipientBinding<'_> {
        let spec = AeadAlgorithm::Aes256Gcm.into();
        RecipientBinding {
            purpose: Purpose::DataKey,
            spec,
            key: (KeyId([7; 16]), KeyVersion::FIRST),
            context,
        }
    }

    fn recipient_key() -> PrivateKey {
        let mut scalar = SecretBytes::<32>::zeroed();
        scalar.expose_mut().copy_from_slice(&vector("private "));
        PrivateKey::from_scalar(Suite::Intl, scalar).expect("a scalar")
    }

    /// Made by another implementation. A failure means that recipients can no longer open what is sent to them.
    #[test]
    fn the_vector_of_the_document_opens_and_only_as_what_it_is() {
        let context = context();
        let right = binding(&context);
        assert_eq!(right.to_info(), vector("info "));
        let (key, sealed) = (recipient_key(), vector("sealed "));
        assert_eq!(key.open(&right.to_info(), &sealed).expect("opens").expose(), vector("secret "));
        let none = EncryptionContext::default();
        for wrong in [
            RecipientBinding { purpose: Purpose::Data, ..right },
            RecipientBinding { spec: KeySpec::Sm4, ..right },
            RecipientBinding { key: (KeyId([8; 16]), KeyVersion::FIRST), ..right },
            RecipientBinding { key: (KeyId([7; 16]), KeyVersion::new(2).expect("a version")), ..right },
            RecipientBinding { context: &none, ..right },
        ] {
            assert_eq!(key.open(&wrong.to_info(), &sealed).err(), Some(SealError), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_sealed_here_opens_with_the_private_key_and_has_the_length_of_the_document() {
        let (context, key) = (context(), recipient_key());
        let info = binding(&context).to_info();
        let sealed =
            key.public_key().seal(Suite::Intl, &info, &[7; 32], &mut TestRng::new(5)).expect("seals");
        assert_eq!(sealed.len(), 65 + 32 + 16);
        assert_eq!(key.open(&info, &sealed).expect("opens").expose(), [7; 32]);
    }

    #[test]
    fn an_algorithm_takes_keys_of_its_own_kind_alone() {
        let point = |suite| {
            let key = PrivateKey::generate(suite, &mut TestRng::new(6)).public_key();
            let pair = if suite == Suite::Sm { PairAlgorithm::Sm2 } else { PairAlgorithm::P256 };
            PairPublicKey::from_point(pair, PublicKey::as_bytes(&key)).expect("on its curve")
        };
        let mut modulus = vec![0xff; 256];
        modulus[255] = 1;
        let rsa = PairPublicKey::from_rsa(&modulus, &[1, 0, 1]).expect("a modulus");
        let p384 = {
            let key = p384::SecretKey::from_slice(&[7; 48]).expect("a scalar").public_key();
            let point = p384::elliptic_curve::sec1::ToSec1Point::to_sec1_point(&key, false);
            PairPublicKey::from_point(PairAlgorithm::P384, point.as_bytes()).expect("on its curve")
        };
        for (key, fitting) in [
            (point(Suite::Sm), Some(RecipientAlgorithm::Sm2)),
            (rsa, Some(RecipientAlgorithm::RsaOaepSha256)),
            (point(Suite::Intl), Some(RecipientAlgorithm::HpkeP256)),
            (p384, None),
        ] {
            let pair = key.algorithm();
            for algorithm in RecipientAlgorithm::ALL {
                let expected = match fitting {
                    Some(fitting) if fitting == algorithm => None,
                    Some(fitting) => Some(RecipientError::OtherPair { pair, algorithm, fitting }),
                    None => Some(RecipientError::NoPair { pair }),
                };
                assert_eq!(Recipient::new(algorithm, key.clone()).err(), expected, "{pair}, {algorithm}");
            }
        }
        let sm2 = Recipient::new(RecipientAlgorithm::Sm2, point(Suite::Sm)).expect("fits");
        let hash = Suite::Sm.hash(&[&sm2.key().to_spki()]).to_hex();
        assert_eq!(sm2.fingerprint(), format!("sm3:{hash}"));
        let p256 = Recipient::new(RecipientAlgorithm::HpkeP256, point(Suite::Intl)).expect("fits");
        let hash = Suite::Intl.hash(&[&p256.key().to_spki()]).to_hex();
        assert_eq!(p256.fingerprint(), format!("sha-256:{hash}"));
    }

    #[test]
    fn every_algorithm_is_the_one_in_the_registry() {
        let document = include_str!("../../docs/formats/registry.md");
        for algorithm in RecipientAlgorithm::ALL {
            let row = format!("| {} | `{}` |", algorithm.number(), algorithm.name());
            assert!(document.contains(&row), "docs/formats/registry.md must hold {row}");
            assert_eq!(RecipientAlgorithm::from_name(algorithm.name()), Some(algorithm));
            assert_eq!(RecipientAlgorithm::from_number(algorithm.number()), Some(algorithm));
        }
    }
}
