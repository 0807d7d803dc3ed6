//! Private keys as other people write them: PKCS#8 (RFC 5208), which is what wrapping puts out.

use der::asn1::{AnyRef, BitStringRef, OctetStringRef};
use der::{Decode, Encode, Sequence};
use p256::pkcs8::spki::AlgorithmIdentifierRef;
use p256::pkcs8::{ObjectIdentifier, PrivateKeyInfoRef};
use zeroize::Zeroizing;

use crate::key_kind::{ED25519_PARAMETERS, KeyKind, SM2_PARAMETERS};
use crate::mechanism::cipher::Bytes;
use crate::refusal::Refusal;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// RFC 5915.
#[derive(Sequence)]
struct EcPrivateKey<'a> {
    version: u8,
    private_key: &'a OctetStringRef,
    #[asn1(context_specific = "0", optional = "true")]
    parameters: Option<ObjectIdentifier>,
    #[asn1(context_specific = "1", optional = "true")]
    public_key: Option<BitStringRef<'a>>,
}

/// The value of a private key, and what it says about itself.
pub struct PrivateKey {
    pub kind: KeyKind,
    /// `CKA_EC_PARAMS`, for a key on a curve.
    pub parameters: Option<Vec<u8>>,
    pub value: Bytes,
}

/// The `RSAPrivateKey` that an RSA key is kept as, in its wrapping of PKCS#8.
pub fn rsa_to_pkcs8(private: &[u8]) -> Result<Bytes, Refusal> {
    encode(AlgorithmIdentifierRef { oid: RSA, parameters: Some(AnyRef::NULL) }, private)
}

/// PKCS#8 of a private key's value.
pub fn to_pkcs8(kind: KeyKind, parameters: Option<&[u8]>, value: &[u8]) -> Result<Bytes, Refusal> {
    match kind {
        KeyKind::Rsa => rsa_to_pkcs8(value),
        KeyKind::Edwards => {
            let seed = OctetStringRef::new(value).and_then(|seed| seed.to_der());
            let seed = Zeroizing::new(seed.map_err(|_| Refusal::DeviceError)?);
            encode(AlgorithmIdentifierRef { oid: ED25519, parameters: None }, &seed)
        }
        KeyKind::Ec | KeyKind::Sm2 => {
            let broken = |_| Refusal::DeviceError;
            let key = EcPrivateKey {
                version: 1,
                private_key: OctetStringRef::new(value).map_err(broken)?,
                parameters: None,
                public_key: None,
            };
            let key = Zeroizing::new(key.to_der().map_err(broken)?);
            let curve = AnyRef::from_der(parameters.ok_or(Refusal::DeviceError)?).map_err(broken)?;
            encode(AlgorithmIdentifierRef { oid: EC, parameters: Some(curve) }, &key)
        }
        KeyKind::Aes | KeyKind::Des3 | KeyKind::Sm4 | KeyKind::GenericSecret | KeyKind::Hmac(_) => {
            Err(Refusal::KeyNotWrappable)
        }
    }
}

fn encode(algorithm: AlgorithmIdentifierRef<'_>, key: &[u8]) -> Result<Bytes, Refusal> {
    let key = OctetStringRef::new(key).map_err(|_| Refusal::DeviceError)?;
    let info = PrivateKeyInfoRef::new(algorithm, key);
    info.to_der().map(Zeroizing::new).map_err(|_| Refusal::DeviceError)
}

/// Takes the value of a private key out of PKCS#8.
pub fn from_pkcs8(der: &[u8]) -> Result<PrivateKey, Refusal> {
    let invalid = |_| Refusal::WrappedKeyInvalid;
    let info = PrivateKeyInfoRef::try_from(der).map_err(|_| Refusal::WrappedKeyInvalid)?;
    let inner = info.private_key.as_bytes();
    let found = |kind, parameters, value: &[u8]| {
        Ok(PrivateKey { kind, parameters, value: Zeroizing::new(value.to_vec()) })
    };
    match (info.algorithm.oid, info.algorithm.parameters) {
        (RSA, _) => found(KeyKind::Rsa, None, inner),
        (ED25519, None) => {
            let seed = <&OctetStringRef>::from_der(inner).map_err(invalid)?;
            found(KeyKind::Edwards, Some(ED25519_PARAMETERS.to_vec()), seed.as_bytes())
        }
        (EC, Some(curve)) => {
            let key = EcPrivateKey::from_der(inner).map_err(invalid)?;
            let parameters = curve.to_der().map_err(invalid)?;
            let kind = if parameters == SM2_PARAMETERS { KeyKind::Sm2 } else { KeyKind::Ec };
            found(kind, Some(parameters), key.private_key.as_bytes())
        }
        _ => Err(Refusal::WrappedKeyInvalid),
    }
}
