//! RSA keys: how they are made, checked, and kept. The value of a private key is its `RSAPrivateKey`
//! of RFC 8017.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeyPairComponents, KeySize, PublicEncryptingKey, PublicKeyComponents};
use cryptoki_sys as ck;
use der::asn1::UintRef;
use der::{Decode, Sequence};
use p256::pkcs8::PrivateKeyInfoRef;
use zeroize::Zeroizing;

use crate::mechanism::cipher::Bytes;
use crate::mechanism::rsa::{BITS_MAX, BITS_MIN};
use crate::refusal::Refusal;

/// 65537, the only public exponent that keys are generated with.
pub const PUBLIC_EXPONENT: &[u8] = &[0x01, 0x00, 0x01];

/// The attributes that only the owner may know.
pub const SECRET_ATTRIBUTES: [ck::CK_ATTRIBUTE_TYPE; 6] = [
    ck::CKA_PRIVATE_EXPONENT,
    ck::CKA_PRIME_1,
    ck::CKA_PRIME_2,
    ck::CKA_EXPONENT_1,
    ck::CKA_EXPONENT_2,
    ck::CKA_COEFFICIENT,
];

/// RFC 8017, A.1.2, with two primes.
#[derive(Sequence)]
struct RsaPrivateKey<'a> {
    version: u8,
    modulus: UintRef<'a>,
    public_exponent: UintRef<'a>,
    private_exponent: UintRef<'a>,
    prime_1: UintRef<'a>,
    prime_2: UintRef<'a>,
    exponent_1: UintRef<'a>,
    exponent_2: UintRef<'a>,
    coefficient: UintRef<'a>,
}

/// The public half, big-endian without zeros in front.
#[derive(Debug, Clone)]
pub struct PublicHalf {
    pub modulus: Vec<u8>,
    pub exponent: Vec<u8>,
}

pub struct RsaKey {
    pub private: Bytes,
    pub public: PublicHalf,
}

impl PublicHalf {
    pub fn new(modulus: &[u8], exponent: &[u8]) -> Self {
        let trimmed = |number: &[u8]| {
            let zeros = number.iter().take_while(|byte| **byte == 0).count();
            number[zeros..].to_vec()
        };
        Self { modulus: trimmed(modulus), exponent: trimmed(exponent) }
    }

    pub fn bits(&self) -> u64 {
        let leading_zeros = self.modulus.first().map_or(0, |byte| byte.leading_zeros());
        8 * self.modulus.len() as u64 - u64::from(leading_zeros)
    }

    /// Refuses what the library would not work with.
    pub fn require_usable(&self) -> Result<(), Refusal> {
        let is_usable = (BITS_MIN..=BITS_MAX).contains(&self.bits())
            && PublicEncryptingKey::from_der(&self.to_der()?).is_ok();
        if is_usable { Ok(()) } else { Err(Refusal::AttributeValueInvalid) }
    }

    /// The `SubjectPublicKeyInfo`.
    pub fn to_der(&self) -> Result<Vec<u8>, Refusal> {
        let components = PublicKeyComponents { n: &self.modulus, e: &self.exponent };
        let der = components.as_der().map_err(|_| Refusal::AttributeValueInvalid)?;
        Ok(der.as_ref().to_vec())
    }
}

pub fn generate(bits: u64) -> Result<RsaKey, Refusal> {
    let size = match bits {
        2048 => KeySize::Rsa2048,
        3072 => KeySize::Rsa3072,
        4096 => KeySize::Rsa4096,
        _ => return Err(Refusal::KeySizeRange),
    };
    let pair = KeyPair::generate(size).map_err(|_| Refusal::RandomNoRng)?;
    export(&pair)
}

/// From the values of a template; `secret` gives the values of [`SECRET_ATTRIBUTES`]. All of them are
/// needed, and they are checked against each other.
pub fn import<'a>(
    public: &PublicHalf,
    secret: impl Fn(ck::CK_ATTRIBUTE_TYPE) -> Option<&'a [u8]>,
) -> Result<RsaKey, Refusal> {
    let needed = |attribute| secret(attribute).ok_or(Refusal::TemplateIncomplete);
    let components = KeyPairComponents {
        public_key: PublicKeyComponents { n: public.modulus.as_slice(), e: public.exponent.as_slice() },
        d: needed(ck::CKA_PRIVATE_EXPONENT)?,
        p: needed(ck::CKA_PRIME_1)?,
        q: needed(ck::CKA_PRIME_2)?,
        dP: needed(ck::CKA_EXPONENT_1)?,
        dQ: needed(ck::CKA_EXPONENT_2)?,
        qInv: needed(ck::CKA_COEFFICIENT)?,
    };
    export(&KeyPair::from_components(&components).map_err(|_| Refusal::AttributeValueInvalid)?)
}

/// From the `RSAPrivateKey` inside a PKCS#8 structure.
pub fn from_private_der(der: &[u8]) -> Result<RsaKey, Refusal> {
    export(&KeyPair::from_der(der).map_err(|_| Refusal::AttributeValueInvalid)?)
}

fn export(pair: &KeyPair) -> Result<RsaKey, Refusal> {
    let pkcs8: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| Refusal::DeviceError)?;
    let info = PrivateKeyInfoRef::try_from(pkcs8.as_ref()).map_err(|_| Refusal::DeviceError)?;
    let private = Zeroizing::new(info.private_key.as_bytes().to_vec());
    let key = parse(&private)?;
    let public = PublicHalf::new(key.modulus.as_bytes(), key.public_exponent.as_bytes());
    Ok(RsaKey { private, public })
}

fn parse(der: &[u8]) -> Result<RsaPrivateKey<'_>, Refusal> {
    RsaPrivateKey::from_der(der).map_err(|_| Refusal::DeviceError)
}

/// One of [`SECRET_ATTRIBUTES`].
pub fn secret_attribute(der: &[u8], attribute: ck::CK_ATTRIBUTE_TYPE) -> Option<Bytes> {
    let key = parse(der).ok()?;
    let number = match attribute {
        ck::CKA_PRIVATE_EXPONENT => key.private_exponent,
        ck::CKA_PRIME_1 => key.prime_1,
        ck::CKA_PRIME_2 => key.prime_2,
        ck::CKA_EXPONENT_1 => key.exponent_1,
        ck::CKA_EXPONENT_2 => key.exponent_2,
        ck::CKA_COEFFICIENT => key.coefficient,
        _ => return None,
    };
    Some(Zeroizing::new(number.as_bytes().to_vec()))
}
