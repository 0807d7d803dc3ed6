//! Keys that are made of other keys.

use cryptoki::error::RvError;
use cryptoki::mechanism::elliptic_curve::{EcKdf, Ecdh1DeriveParams};
use cryptoki::mechanism::hkdf::{HkdfParams, HkdfSalt};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

use crate::harness::{SM3, hex, known_key, refusal, user_session, vendor_type};
use crate::key_pairs::P256_PARAMETERS;
use crate::openssl::openssl;

const DERIVES: [Attribute; 1] = [Attribute::Derive(true)];

fn wanted(key_type: KeyType, len: u64) -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(key_type),
        Attribute::ValueLen(len.into()),
        Attribute::Sensitive(false),
        Attribute::Extractable(true),
    ]
}

fn value(session: &Session, key: ObjectHandle) -> Vec<u8> {
    let told = session.get_attributes(key, &[AttributeType::Value]).expect("readable");
    let [Attribute::Value(value)] = &told[..] else { panic!("no value: {told:?}") };
    value.clone()
}

// NIST CAVP, ECC CDH primitive, P-256, count 0.
const PEER: &str = "04700c48f77f56584c5cc632ca65640db91b6bacce3a4df6b42ce7cc838833d287\
     db71e509e3fd9b060ddb20ba5c51dcc5948d46fbf640dfe0441782cab85fa4ac";
const SCALAR: &str = "7d7dc5f71eb29ddaf80d6214632eeae03d9058af1fb6d22ed80badb62bc1a534";
const AGREED: &str = "46fc62106420ff012e54a434fbdd2d25ccc5852060561e68040dd7778997bd7b";

fn private_key(session: &Session, uses: &[Attribute]) -> ObjectHandle {
    let mut template = vec![
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::KeyType(KeyType::EC),
        Attribute::EcParams(P256_PARAMETERS.to_vec()),
        Attribute::Value(hex(SCALAR)),
    ];
    template.extend_from_slice(uses);
    session.create_object(&template).expect("a private key")
}

#[test]
fn a_key_that_may_not_derive_does_not() {
    let session = user_session("no derive use");
    let peer = hex(PEER);
    let ecdh = Mechanism::Ecdh1Derive(Ecdh1DeriveParams::new(EcKdf::null(), &peer));
    let attempt = session.derive_key(&ecdh, private_key(&session, &[]), &wanted(KeyType::GENERIC_SECRET, 32));
    assert_eq!(refusal(attempt), RvError::KeyFunctionNotPermitted);
    let base = known_key(&session, KeyType::GENERIC_SECRET, &[1; 32], &[]);
    let params = HkdfParams::new(MechanismType::SHA256, Some(HkdfSalt::Null), Some(b"info"));
    let attempt =
        session.derive_key(&Mechanism::HkdfDerive(params), base, &wanted(KeyType::GENERIC_SECRET, 32));
    assert_eq!(refusal(attempt), RvError::KeyFunctionNotPermitted);
}

#[test]
fn a_point_off_the_curve_is_no_peer() {
    let session = user_session("bad peer");
    let key = private_key(&session, &DERIVES);
    let mut off = hex(PEER);
    off[64] ^= 1;
    for peer in [off, vec![4; 10], Vec::new()] {
        let ecdh = Mechanism::Ecdh1Derive(Ecdh1DeriveParams::new(EcKdf::null(), &peer));
        let attempt = session.derive_key(&ecdh, key, &wanted(KeyType::GENERIC_SECRET, 32));
        assert_eq!(refusal(attempt), RvError::MechanismParamInvalid);
    }
}

#[test]
fn more_than_there_is_cannot_be_derived() {
    let session = user_session("too much");
    let key = private_key(&session, &DERIVES);
    let peer = hex(PEER);
    let ecdh = Mechanism::Ecdh1Derive(Ecdh1DeriveParams::new(EcKdf::null(), &peer));
    let attempt = session.derive_key(&ecdh, key, &wanted(KeyType::GENERIC_SECRET, 33));
    assert_eq!(refusal(attempt), RvError::KeySizeRange);
    let attempt = session.derive_key(&ecdh, key, &wanted(KeyType::AES, 20));
    assert_eq!(refusal(attempt), RvError::KeySizeRange);
    let with_kdf = Mechanism::Ecdh1Derive(Ecdh1DeriveParams::new(EcKdf::sha256(b""), &peer));
    let no_len = [Attribute::Class(ObjectClass::SECRET_KEY), Attribute::KeyType(KeyType::AES)];
    assert_eq!(refusal(session.derive_key(&with_kdf, key, &no_len)), RvError::TemplateIncomplete);
}

#[test]
fn ecdh_gives_the_published_value() {
    let session = user_session("ecdh vector");
    let key = private_key(&session, &DERIVES);
    let in_der = [&[0x04, 65][..], &hex(PEER)].concat();
    for peer in [hex(PEER), in_der] {
        let ecdh = Mechanism::Ecdh1Derive(Ecdh1DeriveParams::new(EcKdf::null(), &peer));
        let whole = session.derive_key(&ecdh, key, &wanted(KeyType::GENERIC_SECRET, 32));
        assert_eq!(value(&session, whole.expect("derived")), hex(AGREED));
        let shorter = session.derive_key(&ecdh, key, &wanted(KeyType::AES, 16)).expect("derived");
        assert_eq!(value(&session, shorter), hex(AGREED)[16..], "bytes are taken off the leading end");
    }
}

#[test]
fn the_kdf_after_ecdh_agrees_with_openssl() {
    let session = user_session("x963");
    let key = private_key(&session, &DERIVES);
    let peer = hex(PEER);
    let shared = b"shared data";
    for (kdf, digest) in [
        (EcKdf::sha1(shared), "SHA1"),
        (EcKdf::sha224(shared), "SHA224"),
        (EcKdf::sha256(shared), "SHA256"),
        (EcKdf::sha384(shared), "SHA384"),
        (EcKdf::sha512(shared), "SHA512"),
    ] {
        let ecdh = Mechanism::Ecdh1Derive(Ecdh1DeriveParams::new(kdf, &peer));
        for len in [16_u64, 100] {
            let derived = session.derive_key(&ecdh, key, &wanted(KeyType::GENERIC_SECRET, len));
            let expected = openssl(
                &[
                    "kdf",
                    "-keylen",
                    &len.to_string(),
                    "-kdfopt",
                    &format!("digest:{digest}"),
                    "-kdfopt",
                    &format!("hexsecret:{AGREED}"),
                    "-kdfopt",
                    "info:shared data",
                    "-binary",
                    "X963KDF",
                ],
                b"",
            );
            assert_eq!(value(&session, derived.expect("derived")), expected, "{digest}, {len} bytes");
        }
    }
}

#[test]
fn two_parties_on_every_curve_agree() {
    let session = user_session("every curve agrees");
    for (parameters, len) in [
        (P256_PARAMETERS, 32),
        (&[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22], 48),
        (&[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23], 66),
    ] {
        let public = [Attribute::EcParams(parameters.to_vec())];
        let pair =
            || session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &DERIVES).expect("a pair");
        let point = |key| {
            let told = session.get_attributes(key, &[AttributeType::EcPoint]).expect("readable");
            let [Attribute::EcPoint(point)] = &told[..] else { panic!("no point: {told:?}") };
            point.clone()
        };
        let (one, other) = (pair(), pair());
        let derive = |private, peer: Vec<u8>| {
            let ecdh = Mechanism::Ecdh1Derive(Ecdh1DeriveParams::new(EcKdf::null(), &peer));
            let template = [
                Attribute::Class(ObjectClass::SECRET_KEY),
                Attribute::KeyType(KeyType::GENERIC_SECRET),
                Attribute::Sensitive(false),
                Attribute::Extractable(true),
            ];
            value(&session, session.derive_key(&ecdh, private, &template).expect("derived"))
        };
        let here = derive(one.1, point(other.0));
        assert_eq!(here, derive(other.1, point(one.0)));
        assert_eq!(here.len(), len, "without a length it is as long as the field");
    }
}

#[test]
fn hkdf_gives_the_values_of_rfc_5869() {
    let session = user_session("hkdf vector");
    let base = known_key(&session, KeyType::GENERIC_SECRET, &[0x0b; 22], &DERIVES);
    let (salt, info) = (hex("000102030405060708090a0b0c"), hex("f0f1f2f3f4f5f6f7f8f9"));
    let prk_expected = "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5";
    let okm_expected = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865";
    let sha256 = MechanismType::SHA256;
    let derive = |params, base, len| {
        let derived =
            session.derive_key(&Mechanism::HkdfDerive(params), base, &wanted(KeyType::GENERIC_SECRET, len));
        value(&session, derived.expect("derived"))
    };
    let both = HkdfParams::new(sha256, Some(HkdfSalt::Data(&salt)), Some(&info));
    assert_eq!(derive(both, base, 42), hex(okm_expected));
    let extract_only = HkdfParams::new(sha256, Some(HkdfSalt::Data(&salt)), None);
    assert_eq!(derive(extract_only, base, 32), hex(prk_expected));
    let prk = known_key(&session, KeyType::GENERIC_SECRET, &hex(prk_expected), &DERIVES);
    let expand_only = HkdfParams::new(sha256, None, Some(&info));
    assert_eq!(derive(expand_only, prk, 42), hex(okm_expected));
    let salt_key = known_key(&session, KeyType::GENERIC_SECRET, &salt, &[]);
    let with_key = HkdfParams::new(sha256, Some(HkdfSalt::Key(salt_key)), Some(&info));
    assert_eq!(derive(with_key, base, 42), hex(okm_expected));

    // Self-made: no publication has HKDF over SM3.
    let over_sm3 = HkdfParams::new(vendor_type(SM3), Some(HkdfSalt::Data(&salt)), Some(&info));
    let sm3_expected = "c69fe91b7aaee2dd5718d72dcaee0cce93f1b8e41f792da51261b6a517e68b36ed2c595572b01dfa359b";
    assert_eq!(derive(over_sm3, base, 42), hex(sm3_expected));
}

#[test]
fn hkdf_needs_something_to_do_and_a_hash() {
    let session = user_session("hkdf parameters");
    let base = known_key(&session, KeyType::GENERIC_SECRET, &[0x0b; 22], &DERIVES);
    let nothing = HkdfParams::new(MechanismType::SHA256, None, None);
    let no_hash = HkdfParams::new(MechanismType::AES_ECB, Some(HkdfSalt::Null), Some(b"info"));
    for params in [nothing, no_hash] {
        let attempt =
            session.derive_key(&Mechanism::HkdfDerive(params), base, &wanted(KeyType::GENERIC_SECRET, 32));
        assert_eq!(refusal(attempt), RvError::MechanismParamInvalid);
    }
    let short_prk = HkdfParams::new(MechanismType::SHA256, None, Some(b"info"));
    let attempt =
        session.derive_key(&Mechanism::HkdfDerive(short_prk), base, &wanted(KeyType::GENERIC_SECRET, 32));
    assert_eq!(refusal(attempt), RvError::KeySizeRange, "a pseudorandom key is as long as the hash");
}

#[test]
fn a_derived_key_has_no_better_history_than_its_base() {
    let session = user_session("derived history");
    let protected = [Attribute::Sensitive(true), Attribute::Extractable(false), Attribute::Derive(true)];
    let mut template = protected.to_vec();
    template.push(Attribute::ValueLen(32.into()));
    let generated = session.generate_key(&Mechanism::GenericSecretKeyGen, &template).expect("a key");
    let imported = known_key(&session, KeyType::GENERIC_SECRET, &[1; 32], &protected);
    for (base, was_protected) in [(generated, true), (imported, false)] {
        let params = HkdfParams::new(MechanismType::SHA256, Some(HkdfSalt::Null), Some(b"info"));
        let derived = session.derive_key(&Mechanism::HkdfDerive(params), base, &template).expect("derived");
        let asked = [AttributeType::Local, AttributeType::AlwaysSensitive, AttributeType::NeverExtractable];
        let told = session.get_attributes(derived, &asked).expect("readable");
        let expected = [
            Attribute::Local(false),
            Attribute::AlwaysSensitive(was_protected),
            Attribute::NeverExtractable(was_protected),
        ];
        assert_eq!(told, expected);
    }
}
