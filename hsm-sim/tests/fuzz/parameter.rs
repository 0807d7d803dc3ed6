//! Parameters of mechanisms: mostly valid, half valid often, and now and then hostile. Every pointer in
//! them keeps the promise of `memory`.

use std::ffi::c_void;
use std::ptr::null_mut;

use cryptoki_sys as ck;

use crate::input::Input;
use crate::memory::Bytes;

const SM4_GCM: ck::CK_MECHANISM_TYPE = 0x8000_010F;
const SM4_CTR: ck::CK_MECHANISM_TYPE = 0x8000_F101;
const SM4_CBC: ck::CK_MECHANISM_TYPE = 0x8000_0109;
const SM4_CBC_PAD: ck::CK_MECHANISM_TYPE = 0x8000_A102;
const SM2_WITH_SM3: ck::CK_MECHANISM_TYPE = 0x8000_8100;

const HASHES: [(ck::CK_MECHANISM_TYPE, ck::CK_RSA_PKCS_MGF_TYPE, ck::CK_ULONG); 6] = [
    (ck::CKM_SHA256, ck::CKG_MGF1_SHA256, 32),
    (ck::CKM_SHA_1, ck::CKG_MGF1_SHA1, 20),
    (ck::CKM_SHA224, ck::CKG_MGF1_SHA224, 28),
    (ck::CKM_SHA384, ck::CKG_MGF1_SHA384, 48),
    (ck::CKM_SHA512, ck::CKG_MGF1_SHA512, 64),
    // SM3, which has no mask generation.
    (0x8000_9001, 0, 32),
];

/// The base point of P-256 (SEC 2, 2.4.2): a public key that everybody has.
const POINT: [u8; 65] = *b"\x04\
    \x6b\x17\xd1\xf2\xe1\x2c\x42\x47\xf8\xbc\xe6\xe5\x63\xa4\x40\xf2\
    \x77\x03\x7d\x81\x2d\xeb\x33\xa0\xf4\xa1\x39\x45\xd8\x98\xc2\x96\
    \x4f\xe3\x42\xe2\xfe\x1a\x7f\x9b\x8e\xe7\xeb\x4a\x7c\x0f\x9e\x16\
    \x2b\xce\x33\x57\x6b\x31\x5e\xce\xcb\xb6\x40\x68\x37\xbf\x51\xf5";

enum Place {
    Nothing(ck::CK_ULONG),
    Raw(Bytes),
    Zeros(Box<[u64]>, ck::CK_ULONG),
    Number(Box<ck::CK_ULONG>),
    Counter(Box<ck::CK_AES_CTR_PARAMS>),
    Gcm(Box<ck::CK_GCM_PARAMS>),
    Pss(Box<ck::CK_RSA_PKCS_PSS_PARAMS>),
    Oaep(Box<ck::CK_RSA_PKCS_OAEP_PARAMS>),
    Ecdh(Box<ck::CK_ECDH1_DERIVE_PARAMS>),
    Hkdf(Box<ck::CK_HKDF_PARAMS>),
}

/// A parameter and everything that it points to.
pub struct Parameter {
    place: Place,
    /// Whether it says to be shorter than it is.
    is_cut: bool,
    _parts: Vec<Bytes>,
}

/// The number that is right, or any.
fn about(input: &mut Input<'_>, right: ck::CK_ULONG) -> ck::CK_ULONG {
    if input.rarely(10) { input.number() } else { right }
}

/// Bytes that are right, or any, or none.
fn like(input: &mut Input<'_>, right: Vec<u8>) -> Bytes {
    match input.below(8) {
        0 => Bytes::draw(input),
        1 => {
            let mut wrong = right;
            if let Some(byte) = wrong.get_mut(3) {
                *byte ^= input.byte();
            }
            Bytes::of(wrong)
        }
        _ => Bytes::of(right),
    }
}

impl Parameter {
    /// One for the mechanism of this number.
    pub fn draw(input: &mut Input<'_>, code: ck::CK_MECHANISM_TYPE) -> Self {
        let mut parts = Vec::new();
        let place =
            if input.rarely(8) { Self::hostile(input) } else { Self::fitting(input, code, &mut parts) };
        Self { place, is_cut: input.rarely(24), _parts: parts }
    }

    fn hostile(input: &mut Input<'_>) -> Place {
        match input.below(3) {
            0 => Place::Nothing(input.number()),
            1 => Place::Raw(Bytes::of(Vec::new())),
            // NULL to whoever reads a pointer there.
            _ => Place::Zeros(
                vec![0; 32].into_boxed_slice(),
                input.pick(&[1, 8, 16, 24, 40, 47, 48, 49, 56, 64, 200]),
            ),
        }
    }

    fn fitting(input: &mut Input<'_>, code: ck::CK_MECHANISM_TYPE, parts: &mut Vec<Bytes>) -> Place {
        match code {
            ck::CKM_AES_GCM | SM4_GCM => Place::Gcm(Box::new(gcm(input, parts))),
            ck::CKM_AES_CTR | SM4_CTR => Place::Counter(Box::new(ck::CK_AES_CTR_PARAMS {
                ulCounterBits: about(input, 32),
                cb: [input.byte(); 16],
            })),
            ck::CKM_AES_CBC | ck::CKM_AES_CBC_PAD | SM4_CBC | SM4_CBC_PAD => {
                let iv = vec![input.byte(); 16];
                Place::Raw(like(input, iv))
            }
            ck::CKM_DES3_CBC | ck::CKM_DES3_CBC_PAD => {
                let iv = vec![input.byte(); 8];
                Place::Raw(like(input, iv))
            }
            ck::CKM_AES_CMAC_GENERAL
            | ck::CKM_SHA_1_HMAC_GENERAL
            | ck::CKM_SHA224_HMAC_GENERAL
            | ck::CKM_SHA256_HMAC_GENERAL
            | ck::CKM_SHA384_HMAC_GENERAL
            | ck::CKM_SHA512_HMAC_GENERAL => Place::Number(Box::new(about(input, 12))),
            ck::CKM_RSA_PKCS_PSS
            | ck::CKM_SHA1_RSA_PKCS_PSS
            | ck::CKM_SHA224_RSA_PKCS_PSS
            | ck::CKM_SHA256_RSA_PKCS_PSS
            | ck::CKM_SHA384_RSA_PKCS_PSS
            | ck::CKM_SHA512_RSA_PKCS_PSS => Place::Pss(Box::new(pss(input, code))),
            ck::CKM_RSA_PKCS_OAEP => Place::Oaep(Box::new(oaep(input, parts))),
            ck::CKM_ECDH1_DERIVE => Place::Ecdh(Box::new(ecdh(input, parts))),
            ck::CKM_HKDF_DERIVE => Place::Hkdf(Box::new(hkdf(input, parts))),
            // Only some vendors take the user's identifier.
            SM2_WITH_SM3 if input.rarely(3) => Place::Raw(like(input, b"ALICE123@YAHOO.COM".to_vec())),
            _ => Place::Nothing(0),
        }
    }

    pub fn pointer(&mut self) -> *mut c_void {
        fn of<T>(place: &mut T) -> *mut c_void {
            (&raw mut *place).cast()
        }
        match &mut self.place {
            Place::Nothing(_) => null_mut(),
            Place::Raw(bytes) => bytes.pointer().cast(),
            Place::Zeros(words, _) => words.as_mut_ptr().cast(),
            Place::Number(place) => of(&mut **place),
            Place::Counter(place) => of(&mut **place),
            Place::Gcm(place) => of(&mut **place),
            Place::Pss(place) => of(&mut **place),
            Place::Oaep(place) => of(&mut **place),
            Place::Ecdh(place) => of(&mut **place),
            Place::Hkdf(place) => of(&mut **place),
        }
    }

    pub fn len(&self) -> ck::CK_ULONG {
        let len = match &self.place {
            Place::Nothing(len) | Place::Zeros(_, len) => *len,
            Place::Raw(bytes) => bytes.len(),
            Place::Number(_) => size_of::<ck::CK_ULONG>() as ck::CK_ULONG,
            Place::Counter(_) => size_of::<ck::CK_AES_CTR_PARAMS>() as ck::CK_ULONG,
            Place::Gcm(_) => size_of::<ck::CK_GCM_PARAMS>() as ck::CK_ULONG,
            Place::Pss(_) => size_of::<ck::CK_RSA_PKCS_PSS_PARAMS>() as ck::CK_ULONG,
            Place::Oaep(_) => size_of::<ck::CK_RSA_PKCS_OAEP_PARAMS>() as ck::CK_ULONG,
            Place::Ecdh(_) => size_of::<ck::CK_ECDH1_DERIVE_PARAMS>() as ck::CK_ULONG,
            Place::Hkdf(_) => size_of::<ck::CK_HKDF_PARAMS>() as ck::CK_ULONG,
        };
        if self.is_cut { len / 2 } else { len }
    }
}

/// The place and the length of a part, which is kept.
fn part(bytes: Bytes, parts: &mut Vec<Bytes>) -> (*mut u8, ck::CK_ULONG) {
    parts.push(bytes);
    // The bytes stay where they are when the vector moves.
    parts.last_mut().map_or((null_mut(), 0), |bytes| (bytes.pointer(), bytes.len()))
}

fn gcm(input: &mut Input<'_>, parts: &mut Vec<Bytes>) -> ck::CK_GCM_PARAMS {
    let iv = vec![input.byte(); 12];
    let (iv, iv_len) = part(like(input, iv), parts);
    let (aad, aad_len) = part(like(input, Vec::new()), parts);
    ck::CK_GCM_PARAMS {
        pIv: iv,
        ulIvLen: iv_len,
        ulIvBits: about(input, 0),
        pAAD: aad,
        ulAADLen: aad_len,
        ulTagBits: about(input, 128),
    }
}

fn pss(input: &mut Input<'_>, code: ck::CK_MECHANISM_TYPE) -> ck::CK_RSA_PKCS_PSS_PARAMS {
    // The number of some mechanisms already names the hash.
    let named = match code {
        ck::CKM_SHA256_RSA_PKCS_PSS => Some(HASHES[0]),
        ck::CKM_SHA1_RSA_PKCS_PSS => Some(HASHES[1]),
        ck::CKM_SHA224_RSA_PKCS_PSS => Some(HASHES[2]),
        ck::CKM_SHA384_RSA_PKCS_PSS => Some(HASHES[3]),
        ck::CKM_SHA512_RSA_PKCS_PSS => Some(HASHES[4]),
        _ => None,
    };
    let drawn = input.pick(&HASHES);
    let (hash, mask, salt_len) = named.unwrap_or(drawn);
    let mask = if input.rarely(4) { input.pick(&HASHES).1 } else { mask };
    ck::CK_RSA_PKCS_PSS_PARAMS {
        hashAlg: about(input, hash),
        mgf: about(input, mask),
        sLen: about(input, salt_len),
    }
}

fn oaep(input: &mut Input<'_>, parts: &mut Vec<Bytes>) -> ck::CK_RSA_PKCS_OAEP_PARAMS {
    let (hash, mask, _) = input.pick(&HASHES);
    let source = about(input, ck::CKZ_DATA_SPECIFIED);
    let label = vec![input.byte(); usize::from(input.byte() % 20)];
    let (label, label_len) = part(like(input, label), parts);
    ck::CK_RSA_PKCS_OAEP_PARAMS {
        hashAlg: about(input, hash),
        mgf: about(input, mask),
        source,
        pSourceData: label.cast(),
        ulSourceDataLen: label_len,
    }
}

fn ecdh(input: &mut Input<'_>, parts: &mut Vec<Bytes>) -> ck::CK_ECDH1_DERIVE_PARAMS {
    const KDFS: [ck::CK_EC_KDF_TYPE; 6] = [
        ck::CKD_NULL,
        ck::CKD_SHA1_KDF,
        ck::CKD_SHA224_KDF,
        ck::CKD_SHA256_KDF,
        ck::CKD_SHA384_KDF,
        ck::CKD_SHA512_KDF,
    ];
    let kdf = input.pick(&KDFS);
    let point = match input.below(4) {
        // In an OCTET STRING.
        0 => [&[0x04, 65][..], &POINT].concat(),
        _ => POINT.to_vec(),
    };
    let shared = if kdf == ck::CKD_NULL { Vec::new() } else { vec![input.byte(); 9] };
    let (shared, shared_len) = part(like(input, shared), parts);
    let (public, public_len) = part(like(input, point), parts);
    ck::CK_ECDH1_DERIVE_PARAMS {
        kdf: about(input, kdf),
        ulSharedDataLen: shared_len,
        pSharedData: shared,
        ulPublicDataLen: public_len,
        pPublicData: public,
    }
}

fn hkdf(input: &mut Input<'_>, parts: &mut Vec<Bytes>) -> ck::CK_HKDF_PARAMS {
    const SALTS: [ck::CK_ULONG; 3] = [ck::CKF_HKDF_SALT_NULL, ck::CKF_HKDF_SALT_DATA, ck::CKF_HKDF_SALT_KEY];
    let (hash, ..) = input.pick(&HASHES);
    let salt_type = input.pick(&SALTS);
    let salt = vec![input.byte(); 16];
    let (salt, salt_len) = part(like(input, salt), parts);
    let (info, info_len) = part(like(input, b"info".to_vec()), parts);
    ck::CK_HKDF_PARAMS {
        bExtract: input.pick(&[ck::CK_TRUE, ck::CK_TRUE, ck::CK_FALSE, 7]),
        bExpand: input.pick(&[ck::CK_TRUE, ck::CK_TRUE, ck::CK_FALSE, 7]),
        prfHashMechanism: about(input, hash),
        ulSaltType: about(input, salt_type),
        pSalt: salt,
        ulSaltLen: salt_len,
        hSaltKey: input.number(),
        pInfo: info,
        ulInfoLen: info_len,
    }
}
