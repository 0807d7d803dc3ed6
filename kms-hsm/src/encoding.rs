//! How mechanisms, signatures and points are written for and by a PKCS#11 module.

use crate::PUBLIC_KEY_LEN;
use crate::error::HsmError;
use crate::profile::SignatureFormat;
use cryptoki::error::Error as Pkcs11Error;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::mechanism::vendor_defined::VendorDefinedMechanism;
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::types::Ulong;
use kms_core::suite::{NONCE_LEN, Suite, TAG_LEN};

/// A mechanism without parameters. The "vendor" form carries any number, also those of the standard.
pub(crate) fn plain(mechanism: MechanismType) -> Mechanism<'static> {
    Mechanism::VendorDefined(VendorDefinedMechanism::new::<()>(mechanism, None))
}

/// A mechanism with `CK_GCM_PARAMS`, which `GcmParams` is in memory.
pub(crate) fn with_parameters<'a>(mechanism: MechanismType, parameters: &'a GcmParams<'_>) -> Mechanism<'a> {
    Mechanism::VendorDefined(VendorDefinedMechanism::new(mechanism, Some(parameters)))
}

pub(crate) fn gcm<'a>(iv: &'a mut [u8; NONCE_LEN], aad: &'a [u8]) -> Result<GcmParams<'a>, Pkcs11Error> {
    GcmParams::new(iv, aad, Ulong::new(8 * TAG_LEN as u64))
}

pub(crate) fn raw_signature(suite: Suite, format: SignatureFormat, signature: &[u8]) -> Option<[u8; 64]> {
    match (format, suite) {
        (SignatureFormat::Raw, _) => signature.try_into().ok(),
        (SignatureFormat::Der, Suite::Intl) => {
            p256::ecdsa::Signature::from_der(signature).ok().map(|signature| signature.to_bytes().into())
        }
        (SignatureFormat::Der, Suite::Sm) => {
            sm2::dsa::Signature::from_der(signature).ok().map(|signature| signature.to_bytes().into())
        }
    }
}

/// `CKA_EC_POINT` is a DER octet string by the standard; some modules leave the point bare.
pub(crate) fn public_point(suite: Suite, attribute: &[u8]) -> Result<[u8; PUBLIC_KEY_LEN], HsmError> {
    const UNUSABLE: HsmError = HsmError::UnexpectedAnswer { what: "a public key that is not on its curve" };
    /// Tag and length of a DER octet string of 65 bytes.
    const OCTET_STRING: [u8; 2] = [0x04, 0x41];
    let point = match attribute.strip_prefix(&OCTET_STRING) {
        Some(point) if point.len() == PUBLIC_KEY_LEN => point,
        _ => attribute,
    };
    let point: [u8; PUBLIC_KEY_LEN] = point.try_into().map_err(|_| UNUSABLE)?;
    let is_on_curve = match suite {
        Suite::Intl => p256::PublicKey::from_sec1_bytes(&point).is_ok(),
        Suite::Sm => sm2::PublicKey::from_sec1_bytes(&point).is_ok(),
    };
    if is_on_curve { Ok(point) } else { Err(UNUSABLE) }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]
mod tests {
    use super::*;
    use p256::ecdsa::SigningKey;
    use signature::hazmat::PrehashSigner;

    fn point() -> [u8; PUBLIC_KEY_LEN] {
        let key = SigningKey::from_slice(&[7; 32]).unwrap();
        let point = key.verifying_key().to_sec1_point(false);
        point.as_bytes().try_into().unwrap()
    }

    #[test]
    fn a_point_is_read_from_der_and_bare() {
        let der = [&[0x04, 0x41], point().as_slice()].concat();
        assert_eq!(public_point(Suite::Intl, &der).unwrap(), point());
        assert_eq!(public_point(Suite::Intl, &point()).unwrap(), point());
    }

    #[test]
    fn a_point_of_another_length_or_off_its_curve_is_refused() {
        assert!(public_point(Suite::Intl, &point()[..64]).is_err());
        assert!(public_point(Suite::Intl, &[]).is_err());
        let mut moved = point();
        moved[64] ^= 1;
        assert!(public_point(Suite::Intl, &moved).is_err());
        assert!(public_point(Suite::Sm, &point()).is_err(), "the point is on P-256, not on the SM2 curve");
    }

    #[test]
    fn a_signature_is_read_in_the_form_that_the_profile_names_and_in_no_other() {
        let key = SigningKey::from_slice(&[7; 32]).unwrap();
        let signature: p256::ecdsa::Signature = key.sign_prehash(&[1; 32]).unwrap();
        let raw: [u8; 64] = signature.to_bytes().into();
        let der = signature.to_der();
        assert_eq!(raw_signature(Suite::Intl, SignatureFormat::Raw, &raw), Some(raw));
        assert_eq!(raw_signature(Suite::Intl, SignatureFormat::Der, der.as_bytes()), Some(raw));
        assert_eq!(raw_signature(Suite::Intl, SignatureFormat::Raw, der.as_bytes()), None);
        assert_eq!(raw_signature(Suite::Intl, SignatureFormat::Der, &raw), None);

        let signature = sm2::dsa::Signature::from_slice(&raw).unwrap();
        let der = signature.to_der();
        assert_eq!(raw_signature(Suite::Sm, SignatureFormat::Der, der.as_bytes()), Some(raw));
    }
}
