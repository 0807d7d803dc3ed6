//! Algorithms, encodings and import checks against the document, the standards and keys that OpenSSL made.

use super::*;
use crate::suite::Suite;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use sm2::elliptic_curve::sec1::ToSec1Point;

macro_rules! vector {
    ($name:literal) => {
        (
            include_bytes!(concat!("vectors/", $name, ".pkcs8.der")).as_slice(),
            include_bytes!(concat!("vectors/", $name, ".spki.der")).as_slice(),
        )
    };
}

/// PKCS#8 and SubjectPublicKeyInfo of one pair.
type Vector = (&'static [u8], &'static [u8]);

fn vectors() -> [(PairAlgorithm, Vector); 6] {
    [
        (PairAlgorithm::Sm2, vector!("sm2")),
        (PairAlgorithm::P256, vector!("ec-p256")),
        (PairAlgorithm::P384, vector!("ec-p384")),
        (PairAlgorithm::P521, vector!("ec-p521")),
        (PairAlgorithm::Ed25519, vector!("ed25519")),
        (PairAlgorithm::Rsa2048, vector!("rsa-2048")),
    ]
}

fn hex(text: &str) -> Vec<u8> {
    base16ct::mixed::decode_vec(text).expect("hexadecimal")
}

/// The bytes with `from`, which is there exactly once, in the form `to` of the same length.
fn with_change(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let places: Vec<usize> =
        (0..=bytes.len() - from.len()).filter(|start| bytes[*start..].starts_with(from)).collect();
    let [start] = places.as_slice() else { panic!("at {places:?}") };
    let mut changed = bytes.to_vec();
    changed[*start..*start + to.len()].copy_from_slice(to);
    changed
}

#[test]
fn the_registry_is_the_one_in_the_document() {
    let document = include_str!("../../../docs/formats/pairs.md");
    let mut table = String::new();
    for pair in PairAlgorithm::ALL {
        assert_eq!(PairAlgorithm::from_name(pair.name()), Some(pair));
        assert_eq!(PairAlgorithm::from_number(pair.number()), Some(pair));
        let signs: Vec<String> = SignatureAlgorithm::of(pair).map(|one| format!("`{one}`")).collect();
        let decrypts = EncryptionAlgorithm::of(pair).map_or("-".into(), |one| format!("`{one}`"));
        assert_eq!(pair.allows(PairUsage::Decrypt), EncryptionAlgorithm::of(pair).is_some());
        assert!(pair.allows(PairUsage::Sign) && !signs.is_empty());
        table.push_str(&format!("| {} | `{pair}` | {} | {decrypts} |\n", pair.number(), signs.join(", ")));
    }
    assert!(document.contains(&table), "docs/formats/pairs.md must hold:\n{table}");
    let mut table = String::new();
    for one in SignatureAlgorithm::ALL {
        assert_eq!(SignatureAlgorithm::from_name(one.name()), Some(one));
        assert_eq!(SignatureAlgorithm::from_number(one.number()), Some(one));
        let input = one.digest_len().map_or("the message".into(), |len| format!("a digest of {len} bytes"));
        let form = if one.is_two_numbers() { "DER" } else { "raw" };
        table.push_str(&format!("| {} | `{one}` | {input} | {form} |\n", one.number()));
    }
    assert!(document.contains(&table), "docs/formats/pairs.md must hold:\n{table}");
    let mut table = String::new();
    for one in EncryptionAlgorithm::ALL {
        assert_eq!(EncryptionAlgorithm::from_name(one.name()), Some(one));
        assert_eq!(EncryptionAlgorithm::from_number(one.number()), Some(one));
        let lengths: Vec<String> = PairAlgorithm::ALL
            .into_iter()
            .filter(|pair| EncryptionAlgorithm::of(*pair) == Some(one))
            .map(|pair| format!("{} (`{pair}`)", one.plaintext_len_max(pair)))
            .collect();
        table.push_str(&format!("| {} | `{one}` | {} |\n", one.number(), lengths.join(", ")));
    }
    assert!(document.contains(&table), "docs/formats/pairs.md must hold:\n{table}");
    for usage in PairUsage::ALL {
        assert_eq!(PairUsage::from_name(usage.name()), Some(usage));
        assert!(document.contains(&format!("`{usage}`")));
    }
}

#[test]
fn a_public_key_of_openssl_is_read_and_written_as_it_was() {
    for (algorithm, (_, spki)) in vectors() {
        let key = PairPublicKey::from_spki(spki).expect("a key that is offered");
        assert_eq!(key.algorithm(), algorithm);
        assert_eq!(key.to_spki(), spki, "{algorithm}");
    }
}

#[test]
fn a_public_key_that_will_not_do_is_refused_with_its_reason() {
    let refused = |spki: &[u8]| PairPublicKey::from_spki(spki).expect_err("not taken");
    assert_eq!(refused(vector!("rsa-1024").1), PublicKeyError::RsaModulus { bits: 1024 });
    assert_eq!(refused(vector!("rsa-2048-exponent-3").1), PublicKeyError::RsaExponent);
    assert_eq!(refused(vector!("secp256k1").1), PublicKeyError::UnknownAlgorithm);
    assert_eq!(refused(b""), PublicKeyError::Malformed);
    for (algorithm, (_, spki)) in vectors() {
        assert_eq!(refused(&spki[..spki.len() - 1]), PublicKeyError::Malformed, "{algorithm}");
        assert_eq!(refused(&[spki, b"\0"].concat()), PublicKeyError::Malformed, "{algorithm}");
        let key = PairPublicKey::from_spki(spki).expect("a key");
        if let Some(point) = key.point() {
            let mut moved = point.to_vec();
            *moved.last_mut().expect("a point has bytes") ^= 1;
            assert_eq!(refused(&with_change(spki, point, &moved)), PublicKeyError::NotOnCurve);
            // A compressed point is the same key in another form; one key has one form here.
            let short = [&[2 + (point[point.len() - 1] & 1)], &point[1..=point.len() / 2]].concat();
            assert_eq!(
                PairPublicKey::from_point(algorithm, &short),
                Err(PublicKeyError::NotOnCurve),
                "{algorithm}"
            );
            for other in PairAlgorithm::ALL.into_iter().filter(|other| *other != algorithm) {
                assert!(PairPublicKey::from_point(other, point).is_err(), "{algorithm} as {other}");
            }
        }
    }
}

#[test]
fn numbers_of_rsa_and_ed25519_that_will_not_do_are_refused() {
    let key = PairPublicKey::from_spki(vector!("rsa-2048").1).expect("a key");
    let modulus = key.rsa_modulus().expect("RSA").to_vec();
    let with_zeros = [&[0, 0], modulus.as_slice()].concat();
    assert_eq!(PairPublicKey::from_rsa(&with_zeros, &[0, 1, 0, 1]), Ok(key));
    let mut even = modulus.clone();
    even[255] &= 0xfe;
    assert_eq!(PairPublicKey::from_rsa(&even, &[1, 0, 1]), Err(PublicKeyError::RsaModulusEven));
    let mut short = modulus.clone();
    short[0] = 0x7f;
    assert_eq!(PairPublicKey::from_rsa(&short, &[1, 0, 1]), Err(PublicKeyError::RsaModulus { bits: 2047 }));
    assert_eq!(PairPublicKey::from_rsa(&[], &[1, 0, 1]), Err(PublicKeyError::RsaModulus { bits: 0 }));
    for exponent in [&[][..], &[0], &[1], &[3], &[1, 0, 0], &[1, 0, 1, 0]] {
        assert_eq!(PairPublicKey::from_rsa(&modulus, exponent), Err(PublicKeyError::RsaExponent));
    }
    // The neutral element and the point of order two, y = 1 and y = -1.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let minus_one = hex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f");
    for weak in [&neutral[..], &minus_one, &[2; 32], &[0; 31]] {
        assert_eq!(PairPublicKey::from_ed25519(weak), Err(PublicKeyError::NotOnCurve), "{weak:?}");
    }
}

/// GB/T 32918.5, annex A.2.
#[test]
fn the_sm2_digest_of_the_standard_is_made_with_the_default_user_id_and_another_with_another() {
    let point = hex(concat!(
        "0409f9df311e5421a150dd7d161e4bc5c672179fad1833fc076bb08ff356f35020",
        "ccea490ce26775a52dc6ea718cc1aa600aed05fbf35e084a6632f6072da9ad13"
    ));
    let key = PairPublicKey::from_point(PairAlgorithm::Sm2, &point).expect("the standard's key");
    let digest = |user_id: &Sm2UserId| {
        let input = SignedInput::Message(b"message digest");
        ToSign::new(SignatureAlgorithm::Sm2Sm3, &key, user_id, input).expect("fits").as_bytes().to_vec()
    };
    let expected = hex("f0b43e94ba45accaace692ed534382eb17e6ab5a19ce7b31f4486fdfc0d28640");
    assert_eq!(digest(&Sm2UserId::default()), expected);
    assert_eq!(digest(&Sm2UserId::new(b"1234567812345678").expect("a user ID")), expected);
    assert_ne!(digest(&Sm2UserId::new(b"alice").expect("a user ID")), expected);
    assert_eq!(Sm2UserId::new(b""), Err(Sm2UserIdError { len: 0 }));
    assert_eq!(Sm2UserId::new(&[b'x'; 8192]), Err(Sm2UserIdError { len: 8192 }));
    // The longest: its length in bits fills the 16 bits.
    let longest = Sm2UserId::new(&[b'x'; 8191]).expect("a user ID");
    let za = key.sm2_za(&[b'x'; 8191]).expect("SM2");
    assert_eq!(digest(&longest), Suite::Sm.hash(&[&za, b"message digest"]).0);
}

#[test]
fn an_algorithm_that_does_not_fit_its_key_or_input_is_refused() {
    let user_id = Sm2UserId::default();
    for (pair, (_, spki)) in vectors() {
        let key = PairPublicKey::from_spki(spki).expect("a key");
        for algorithm in SignatureAlgorithm::ALL {
            let sign = |input| ToSign::new(algorithm, &key, &user_id, input);
            if !algorithm.fits(pair) {
                let other_pair = SignedInputError::OtherPair { pair, algorithm };
                assert_eq!(sign(SignedInput::Message(b"text")), Err(other_pair));
                assert_eq!(
                    algorithm.signature_to_api(pair, &[1; 64]),
                    Err(SignatureEncodingError { algorithm })
                );
                continue;
            }
            let hashed = sign(SignedInput::Message(b"text")).expect("fits");
            match algorithm.digest_len() {
                None => {
                    assert_eq!(hashed.as_bytes(), b"text");
                    let refused = sign(SignedInput::Digest(&[0; 64]));
                    assert_eq!(refused, Err(SignedInputError::NeedsMessage { algorithm }));
                }
                Some(expected) => {
                    assert_eq!(hashed.as_bytes().len(), expected);
                    assert_eq!(sign(SignedInput::Digest(hashed.as_bytes())), Ok(hashed.clone()));
                    for len in [0, expected - 1, expected + 1] {
                        let refused = sign(SignedInput::Digest(&[1; 65][..len]));
                        assert_eq!(refused, Err(SignedInputError::DigestLen { algorithm, expected, len }));
                    }
                }
            }
        }
    }
}

#[test]
fn signatures_change_between_raw_and_der_and_any_other_form_is_refused() {
    let ecdsa = SignatureAlgorithm::EcdsaSha256;
    let mut raw = [0; 64];
    (raw[0], raw[31], raw[63]) = (0x80, 1, 5);
    let der = ecdsa.signature_to_api(PairAlgorithm::P256, &raw).expect("two numbers");
    let expected = [&[0x30, 0x26, 0x02, 0x21, 0x00, 0x80], &[0; 30][..], &[0x01, 0x02, 0x01, 0x05]].concat();
    assert_eq!(der, expected);
    assert_eq!(ecdsa.signature_from_api(PairAlgorithm::P256, &der).as_deref(), Ok(&raw[..]));
    let refused = Err(SignatureEncodingError { algorithm: ecdsa });
    for wrong in [
        &[][..],
        &raw,
        &der[..der.len() - 1],
        &[&der[..], b"\0"].concat(),
        // A length in two bytes, a needless zero in front, a negative number, a number that is too long.
        &[&[0x30, 0x81, 0x26], &der[2..]].concat(),
        &hex("3007020200010201 05".replace(' ', "").as_str()),
        &hex("3006020181020105"),
        &[&[0x30, 0x26, 0x02, 0x21, 0x01], &[0; 32][..], &[0x02, 0x01, 0x05]].concat(),
    ] {
        assert_eq!(ecdsa.signature_from_api(PairAlgorithm::P256, wrong), refused, "{wrong:02x?}");
    }
    assert_eq!(ecdsa.signature_to_api(PairAlgorithm::P256, &raw[..63]), refused);
    let ed25519 = SignatureAlgorithm::Ed25519;
    assert_eq!(ed25519.signature_to_api(PairAlgorithm::Ed25519, &raw).as_deref(), Ok(&raw[..]));
    assert!(ed25519.signature_from_api(PairAlgorithm::Ed25519, &raw[..63]).is_err());
    let pss = SignatureAlgorithm::RsaPssSha256;
    assert!(pss.signature_from_api(PairAlgorithm::Rsa2048, &[1; 256]).is_ok());
    assert!(pss.signature_from_api(PairAlgorithm::Rsa3072, &[1; 256]).is_err());
    let p521 = SignatureAlgorithm::EcdsaSha512;
    let long = [1; 132];
    let der = p521.signature_to_api(PairAlgorithm::P521, &long).expect("two numbers");
    assert_eq!(p521.signature_from_api(PairAlgorithm::P521, &der).as_deref(), Ok(&long[..]));
}

#[test]
fn an_sm2_ciphertext_changes_its_form_and_garbage_is_refused() {
    // GB/T 32918.5, annex C.2, as C1 || C3 || C2.
    let raw = hex(concat!(
        "0404ebfc718e8d1798620432268e77feb6415e2ede0e073c0f4f640ecd2e149a73",
        "e858f9d81e5430a57b36daab8f950a3c64e6ee6a63094d99283aff767e124df0",
        "59983c18f809e262923c53aec295d30383b54e39d609d160afcb1908d0bd8766",
        "21886ca989ca9c7d58087307ca93092d651efa"
    ));
    let read = Sm2Ciphertext::from_raw(&raw, false).expect("the standard's ciphertext");
    assert_eq!(read.plaintext_len(), 19);
    let der = read.to_der();
    let back = Sm2Ciphertext::from_der(&der).expect("its own form");
    assert_eq!(back.to_raw(false), raw);
    let swapped = [&raw[..65], &raw[97..], &raw[65..97]].concat();
    assert_eq!(back.to_raw(true), swapped);
    assert_eq!(Sm2Ciphertext::from_raw(&swapped, true).expect("the old order").to_der(), der);

    let mut off_curve = raw.clone();
    off_curve[64] ^= 1;
    assert_eq!(Sm2Ciphertext::from_raw(&off_curve, false).err(), Some(CiphertextError));
    let off_curve = with_change(&der, &raw[33..65], &off_curve[33..65]);
    for wrong in [&[][..], &der[..der.len() - 1], &[&der[..], b"\0"].concat(), &raw, &off_curve] {
        assert_eq!(Sm2Ciphertext::from_der(wrong).err(), Some(CiphertextError));
    }
    for len in [0, SM2_PLAINTEXT_LEN_MAX + 1, 1 << 20] {
        let other = [&raw[..97], &alloc::vec![7; len]].concat();
        assert_eq!(Sm2Ciphertext::from_raw(&other, false).err(), Some(CiphertextError), "{len}");
    }
    let longest = [&raw[..97], &[7; SM2_PLAINTEXT_LEN_MAX]].concat();
    let longest = Sm2Ciphertext::from_raw(&longest, false).expect("the longest").to_der();
    assert!(Sm2Ciphertext::from_der(&longest).is_ok());

    let key = PairPublicKey::from_spki(vector!("sm2").1).expect("a key");
    assert_eq!(EncryptionAlgorithm::Sm2.check_ciphertext(&key, &der), Ok(()));
    assert_eq!(EncryptionAlgorithm::Sm2.check_ciphertext(&key, &raw), Err(CiphertextError));
    assert_eq!(EncryptionAlgorithm::RsaOaepSha256.check_ciphertext(&key, &der), Err(CiphertextError));
}

#[test]
fn a_number_that_is_no_ciphertext_under_the_modulus_is_refused() {
    let key = PairPublicKey::from_spki(vector!("rsa-2048").1).expect("a key");
    let modulus = key.rsa_modulus().expect("RSA");
    let check = |bytes: &[u8]| EncryptionAlgorithm::RsaOaepSha256.check_ciphertext(&key, bytes);
    let mut below = modulus.to_vec();
    below[255] -= 1;
    assert_eq!(check(&below), Ok(()));
    assert_eq!(check(&[0; 256]), Ok(()));
    for wrong in [modulus, &[0xff; 256], &[0; 255], &[0; 257], &[]] {
        assert_eq!(check(wrong), Err(CiphertextError));
    }
    assert_eq!(EncryptionAlgorithm::Sm2.check_ciphertext(&key, &below), Err(CiphertextError));
}

#[test]
fn a_private_key_of_openssl_gives_the_public_key_of_openssl() {
    for (algorithm, (pkcs8, spki)) in vectors() {
        let key = check_private_key(algorithm, pkcs8).expect("a key that is offered");
        assert_eq!(key.to_spki(), spki, "{algorithm}");
        for expected in PairAlgorithm::ALL.into_iter().filter(|other| *other != algorithm) {
            let refused = Err(ImportError::OtherAlgorithm { expected, found: algorithm });
            assert_eq!(check_private_key(expected, pkcs8), refused);
        }
        let malformed = Err(ImportError::Malformed);
        assert_eq!(check_private_key(algorithm, &pkcs8[..pkcs8.len() - 1]), malformed, "{algorithm}");
        assert_eq!(check_private_key(algorithm, &[pkcs8, b"\0"].concat()), malformed, "{algorithm}");
        assert_eq!(check_private_key(algorithm, spki), malformed, "{algorithm}");
    }
}

#[test]
fn an_rsa_key_that_will_not_do_is_not_imported() {
    let refused = |pkcs8: &[u8]| check_private_key(PairAlgorithm::Rsa2048, pkcs8).expect_err("not taken");
    let short = ImportError::PublicHalf(PublicKeyError::RsaModulus { bits: 1024 });
    assert_eq!(refused(vector!("rsa-1024").0), short);
    let exponent = ImportError::PublicHalf(PublicKeyError::RsaExponent);
    assert_eq!(refused(vector!("rsa-2048-exponent-3").0), exponent);
    assert_eq!(refused(vector!("rsa-2048-three-primes").0), ImportError::MultiPrime);
    assert_eq!(refused(vector!("secp256k1").0), ImportError::UnknownAlgorithm);
}

/// The scalar in a PKCS#8 key of OpenSSL: an OCTET STRING behind the version of RFC 5915.
fn scalar_of(algorithm: PairAlgorithm, pkcs8: &[u8]) -> Vec<u8> {
    let len = algorithm.coordinate_len().expect("a curve");
    let start = [0x02, 0x01, 0x01, 0x04, len as u8];
    let at = pkcs8.windows(start.len()).position(|window| window == start).expect("RFC 5915");
    pkcs8[at + start.len()..][..len].to_vec()
}

#[test]
fn a_scalar_out_of_range_is_not_imported() {
    let orders = [
        (PairAlgorithm::Sm2, "fffffffeffffffffffffffffffffffff7203df6b21c6052b53bbf40939d54123"),
        (PairAlgorithm::P256, "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"),
        (
            PairAlgorithm::P384,
            "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973",
        ),
        (
            PairAlgorithm::P521,
            concat!(
                "01fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffa",
                "51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409"
            ),
        ),
    ];
    for (algorithm, order) in orders {
        let (_, (pkcs8, _)) = vectors().into_iter().find(|one| one.0 == algorithm).expect("a vector");
        let order = hex(order);
        let zero = alloc::vec![0; order.len()];
        let highest = alloc::vec![0xff; order.len()];
        let scalar = scalar_of(algorithm, pkcs8);
        for wrong in [&zero, &order, &highest] {
            let wrong = with_change(pkcs8, &scalar, wrong);
            assert_eq!(check_private_key(algorithm, &wrong), Err(ImportError::ScalarRange), "{algorithm}");
        }
        let mut last = order.clone();
        *last.last_mut().expect("an order has bytes") -= 1;
        let last = with_change(pkcs8, &scalar, &last);
        // n - 1 is a private key on the other curves; here only its public half is another one's.
        let refusal = if algorithm == PairAlgorithm::Sm2 {
            ImportError::ScalarRange
        } else {
            ImportError::OtherPublicKey
        };
        assert_eq!(check_private_key(algorithm, &last), Err(refusal), "{algorithm}");
    }
    // n - 2 is the highest private key of SM2: refused only because the public half that came with it is another's.
    let (pkcs8, _) = vector!("sm2");
    let highest = hex("fffffffeffffffffffffffffffffffff7203df6b21c6052b53bbf40939d54121");
    let key = sm2::SecretKey::from_slice(&highest).expect("in range");
    let changed = with_change(pkcs8, &scalar_of(PairAlgorithm::Sm2, pkcs8), &highest);
    assert_eq!(check_private_key(PairAlgorithm::Sm2, &changed), Err(ImportError::OtherPublicKey));
    let old = PairPublicKey::from_spki(vector!("sm2").1).expect("a key");
    let point = key.public_key().to_sec1_point(false);
    let changed = with_change(&changed, old.point().expect("a point"), point.as_bytes());
    assert!(check_private_key(PairAlgorithm::Sm2, &changed).is_ok());
}

#[test]
fn a_public_half_that_is_off_its_curve_or_anothers_is_not_imported() {
    for (algorithm, (pkcs8, spki)) in vectors() {
        let public = PairPublicKey::from_spki(spki).expect("a key");
        let Some(point) = public.point() else { continue };
        let mut moved = point.to_vec();
        *moved.last_mut().expect("a point has bytes") ^= 1;
        let off_curve = with_change(pkcs8, point, &moved);
        let refused = Err(ImportError::PublicHalf(PublicKeyError::NotOnCurve));
        assert_eq!(check_private_key(algorithm, &off_curve), refused, "{algorithm}");
        let mut scalar = scalar_of(algorithm, pkcs8);
        *scalar.last_mut().expect("a scalar has bytes") ^= 1;
        let other = with_change(pkcs8, &scalar_of(algorithm, pkcs8), &scalar);
        assert_eq!(check_private_key(algorithm, &other), Err(ImportError::OtherPublicKey), "{algorithm}");
    }
}
