//! How mechanisms, signatures and points are written for and by a PKCS#11 module.

use crate::PUBLIC_KEY_LEN;
use crate::error::HsmError;
use crate::profile::{GcmLayout, SignatureFormat};
use cryptoki::mechanism::vendor_defined::VendorDefinedMechanism;
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki_sys::{CK_GCM_PARAMS, CK_ULONG};
use kms_core::suite::{NONCE_LEN, Suite, TAG_LEN};
use std::marker::PhantomData;
use std::ptr::null_mut;

/// A mechanism without parameters. The "vendor" form carries any number, also those of the standard.
pub(crate) fn plain(mechanism: MechanismType) -> Mechanism<'static> {
    Mechanism::VendorDefined(VendorDefinedMechanism::new::<()>(mechanism, None))
}

/// The parameters of GCM, as long as what they point to lives.
pub(crate) struct GcmParameters<'a> {
    layout: GcmLayout,
    with_iv_bits: CK_GCM_PARAMS,
    without_iv_bits: GcmParametersWithoutIvBits,
    lives: PhantomData<(&'a mut [u8; NONCE_LEN], &'a [u8])>,
}

/// `CK_GCM_PARAMS` as the text of PKCS#11 2.40 has it; its header has one field more.
#[repr(C)]
struct GcmParametersWithoutIvBits {
    iv: *mut u8,
    iv_len: CK_ULONG,
    aad: *mut u8,
    aad_len: CK_ULONG,
    tag_bits: CK_ULONG,
}

impl<'a> GcmParameters<'a> {
    /// With a place for the nonce: one that the caller made, or one that the device fills.
    pub(crate) fn with_iv(layout: GcmLayout, iv: &'a mut [u8; NONCE_LEN], aad: &'a [u8]) -> Self {
        Self::new(layout, iv.as_mut_ptr(), NONCE_LEN, aad)
    }

    /// For a device that makes the nonce and takes none. The number of bits says which length we want: Luna from
    /// firmware 7.9.3 on makes 96 bits then, and 128 otherwise.
    pub(crate) fn without_iv(layout: GcmLayout, aad: &'a [u8]) -> Self {
        Self::new(layout, null_mut(), 0, aad)
    }

    fn new(layout: GcmLayout, iv: *mut u8, iv_len: usize, aad: &'a [u8]) -> Self {
        // The standard's type is not const; nobody writes there.
        let (aad, aad_len) = (aad.as_ptr().cast_mut(), aad.len() as CK_ULONG);
        let (iv_len, tag_bits) = (iv_len as CK_ULONG, 8 * TAG_LEN as CK_ULONG);
        Self {
            layout,
            with_iv_bits: CK_GCM_PARAMS {
                pIv: iv,
                ulIvLen: iv_len,
                ulIvBits: 8 * NONCE_LEN as CK_ULONG,
                pAAD: aad,
                ulAADLen: aad_len,
                ulTagBits: tag_bits,
            },
            without_iv_bits: GcmParametersWithoutIvBits { iv, iv_len, aad, aad_len, tag_bits },
            lives: PhantomData,
        }
    }

    /// The mechanism with these parameters.
    pub(crate) fn mechanism(&'a self, mechanism: MechanismType) -> Mechanism<'a> {
        Mechanism::VendorDefined(match self.layout {
            GcmLayout::WithIvBits => VendorDefinedMechanism::new(mechanism, Some(&self.with_iv_bits)),
            GcmLayout::WithoutIvBits => VendorDefinedMechanism::new(mechanism, Some(&self.without_iv_bits)),
        })
    }
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
