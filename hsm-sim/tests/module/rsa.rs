//! RSA, each way against OpenSSL.

use std::sync::OnceLock;

use cryptoki::error::RvError;
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsOaepParams, PkcsOaepSource, PkcsPssParams};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeInfo, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use der::asn1::UintRef;
use der::{Decode, Sequence};

use crate::harness::{hex, known_key, refusal, user_session};
use crate::openssl::{Desk, openssl, rsa_key_info, try_openssl};

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

/// An RSA key of OpenSSL's making, as `RSAPrivateKey`. One for all tests: making one takes a while.
fn openssl_key() -> &'static [u8] {
    static KEY: OnceLock<Vec<u8>> = OnceLock::new();
    KEY.get_or_init(|| {
        let desk = Desk::new();
        let key = desk.name("key");
        openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", &key], b"");
        openssl(&["rsa", "-in", &key, "-traditional", "-outform", "DER"], b"")
    })
}

fn private_template(der: &[u8]) -> Vec<Attribute> {
    let key = RsaPrivateKey::from_der(der).expect("a key of two primes");
    let bytes = |number: UintRef<'_>| number.as_bytes().to_vec();
    vec![
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::KeyType(KeyType::RSA),
        Attribute::Modulus(bytes(key.modulus)),
        Attribute::PublicExponent(bytes(key.public_exponent)),
        Attribute::PrivateExponent(bytes(key.private_exponent)),
        Attribute::Prime1(bytes(key.prime_1)),
        Attribute::Prime2(bytes(key.prime_2)),
        Attribute::Exponent1(bytes(key.exponent_1)),
        Attribute::Exponent2(bytes(key.exponent_2)),
        Attribute::Coefficient(bytes(key.coefficient)),
        Attribute::Sign(true),
        Attribute::Decrypt(true),
        Attribute::Unwrap(true),
    ]
}

fn public_template(der: &[u8]) -> Vec<Attribute> {
    let key = RsaPrivateKey::from_der(der).expect("a key of two primes");
    vec![
        Attribute::Class(ObjectClass::PUBLIC_KEY),
        Attribute::KeyType(KeyType::RSA),
        Attribute::Modulus(key.modulus.as_bytes().to_vec()),
        Attribute::PublicExponent(key.public_exponent.as_bytes().to_vec()),
        Attribute::Verify(true),
        Attribute::Encrypt(true),
        Attribute::Wrap(true),
    ]
}

/// The imported pair: public, private.
fn imported(session: &Session) -> (ObjectHandle, ObjectHandle) {
    let public = session.create_object(&public_template(openssl_key())).expect("a public key");
    let private = session.create_object(&private_template(openssl_key())).expect("a private key");
    (public, private)
}

fn pss(hash: MechanismType, mask: PkcsMgfType, salt_len: u64) -> PkcsPssParams {
    PkcsPssParams { hash_alg: hash, mgf: mask, s_len: salt_len.into() }
}

fn sha256_pss() -> PkcsPssParams {
    pss(MechanismType::SHA256, PkcsMgfType::MGF1_SHA256, 32)
}

fn oaep(hash: MechanismType, mask: PkcsMgfType) -> Mechanism<'static> {
    Mechanism::RsaPkcsOaep(PkcsOaepParams::new(hash, mask, PkcsOaepSource::empty()))
}

#[test]
fn a_key_whose_numbers_do_not_fit_together_is_refused() {
    let session = user_session("rsa numbers");
    let sound = private_template(openssl_key());
    for missing in 2..10 {
        let mut template = sound.clone();
        template.remove(missing);
        assert_eq!(refusal(session.create_object(&template)), RvError::TemplateIncomplete, "{missing}");
    }
    for (position, changed) in [
        (4, Attribute::PrivateExponent(vec![3; 256])),
        (5, Attribute::Prime1(vec![5; 128])),
        (9, Attribute::Coefficient(vec![1; 128])),
    ] {
        let mut template = sound.clone();
        template[position] = changed;
        assert_eq!(refusal(session.create_object(&template)), RvError::AttributeValueInvalid);
    }
    let mut template = public_template(openssl_key());
    template[2] = Attribute::Modulus(vec![0xf1; 64]);
    assert_eq!(refusal(session.create_object(&template)), RvError::AttributeValueInvalid, "512 bits");
}

#[test]
fn a_size_or_exponent_that_is_not_offered_is_refused() {
    let session = user_session("rsa sizes");
    let generate = |public: &[Attribute]| {
        session.generate_key_pair(&Mechanism::RsaPkcsKeyPairGen, public, &[Attribute::Sign(true)])
    };
    assert_eq!(refusal(generate(&[])), RvError::TemplateIncomplete);
    assert_eq!(refusal(generate(&[Attribute::ModulusBits(1024.into())])), RvError::KeySizeRange);
    let exponent = [Attribute::ModulusBits(2048.into()), Attribute::PublicExponent(vec![3])];
    assert_eq!(refusal(generate(&exponent)), RvError::AttributeValueInvalid);
    let curve = [Attribute::ModulusBits(2048.into()), Attribute::EcParams(vec![6, 1, 1])];
    assert_eq!(refusal(generate(&curve)), RvError::TemplateInconsistent);
}

#[test]
fn what_is_not_offered_is_refused() {
    let session = user_session("rsa refusals");
    let (public, private) = imported(&session);
    let too_long = session.sign(&Mechanism::RsaPkcs, private, &[1; 246]);
    assert_eq!(refusal(too_long), RvError::DataLenRange, "11 bytes are for the padding");
    let too_long = session.verify(&Mechanism::RsaPkcs, public, &[1; 246], &[1; 256]);
    assert_eq!(refusal(too_long), RvError::DataLenRange);
    for params in [
        pss(MechanismType::SHA256, PkcsMgfType::MGF1_SHA256, 223),
        pss(MechanismType::SHA256, PkcsMgfType::MGF1_SHA256, u64::MAX),
        pss(MechanismType::SHA384, PkcsMgfType::MGF1_SHA384, 48),
        pss(MechanismType::SHA1, PkcsMgfType::MGF1_SHA1, 20),
    ] {
        let attempt = session.sign(&Mechanism::Sha256RsaPkcsPss(params), private, b"message");
        assert_eq!(refusal(attempt), RvError::MechanismParamInvalid);
    }
    let attempt = session.sign(&Mechanism::RsaPkcsPss(sha256_pss()), private, &[1; 20]);
    assert_eq!(refusal(attempt), RvError::DataLenRange, "not the length of a SHA-256");
    let mixed = oaep(MechanismType::SHA256, PkcsMgfType::MGF1_SHA1);
    assert_eq!(refusal(session.encrypt(&mixed, public, b"x")), RvError::MechanismParamInvalid);
    let sha256 = oaep(MechanismType::SHA256, PkcsMgfType::MGF1_SHA256);
    assert_eq!(refusal(session.encrypt(&sha256, public, &[1; 191])), RvError::DataLenRange);
    let attempt = session.decrypt(&sha256, private, &[1; 255]);
    assert_eq!(refusal(attempt), RvError::EncryptedDataLenRange);
    assert_eq!(refusal(session.decrypt(&sha256, private, &[1; 256])), RvError::EncryptedDataInvalid);
    assert_eq!(refusal(session.encrypt(&sha256, private, b"x")), RvError::KeyTypeInconsistent);
}

#[test]
fn the_private_numbers_of_a_sensitive_key_are_not_told() {
    let session = user_session("rsa sensitive");
    let asked = [AttributeType::PrivateExponent, AttributeType::Prime1, AttributeType::Coefficient];
    let (_, private) = imported(&session);
    let info = session.get_attribute_info(private, &asked).expect("answered");
    assert!(matches!(
        info[..],
        [AttributeInfo::Sensitive, AttributeInfo::Sensitive, AttributeInfo::Sensitive]
    ));
    let info = session.get_attribute_info(private, &[AttributeType::Value]).expect("answered");
    assert!(matches!(info[..], [AttributeInfo::TypeInvalid]), "an RSA key has no such attribute");

    let mut template = private_template(openssl_key());
    template.extend([Attribute::Sensitive(false), Attribute::Extractable(true)]);
    let shown = session.create_object(&template).expect("a private key");
    let told = session.get_attributes(shown, &asked).expect("readable");
    assert_eq!(told, [template[4].clone(), template[5].clone(), template[9].clone()]);
    let public = [AttributeType::Modulus, AttributeType::PublicExponent];
    let told = session.get_attributes(private, &public).expect("these are no secret");
    assert_eq!(told, [template[2].clone(), template[3].clone()]);
}

#[test]
fn a_generated_pair_signs_what_openssl_verifies() {
    let session = user_session("rsa pair");
    let desk = Desk::new();
    let public = [Attribute::ModulusBits(2048.into()), Attribute::Verify(true)];
    let (public, private) = session
        .generate_key_pair(&Mechanism::RsaPkcsKeyPairGen, &public, &[Attribute::Sign(true)])
        .expect("a pair");
    let asked = [AttributeType::Modulus, AttributeType::PublicExponent, AttributeType::ModulusBits];
    let told = session.get_attributes(public, &asked).expect("readable");
    let [Attribute::Modulus(modulus), Attribute::PublicExponent(exponent), bits] = &told[..] else {
        panic!("not what was asked: {told:?}")
    };
    assert_eq!(*bits, Attribute::ModulusBits(2048.into()));
    let key = desk.file("key", &rsa_key_info(modulus, exponent));
    for (mechanism, digest) in [
        (Mechanism::Sha1RsaPkcs, "-sha1"),
        (Mechanism::Sha224RsaPkcs, "-sha224"),
        (Mechanism::Sha256RsaPkcs, "-sha256"),
        (Mechanism::Sha384RsaPkcs, "-sha384"),
        (Mechanism::Sha512RsaPkcs, "-sha512"),
    ] {
        let signature = session.sign(&mechanism, private, b"message").expect("signed");
        let file = desk.file("signature", &signature);
        openssl(&["dgst", digest, "-verify", &key, "-keyform", "DER", "-signature", &file], b"message");
        session.verify(&mechanism, public, b"message", &signature).expect("and inside");
        let attempt = session.verify(&mechanism, public, b"another", &signature);
        assert_eq!(refusal(attempt), RvError::SignatureInvalid);
        let attempt = session.verify(&mechanism, public, b"message", &signature[1..]);
        assert_eq!(refusal(attempt), RvError::SignatureLenRange);
    }
}

#[test]
fn raw_pkcs1_signs_a_digest_info_as_the_hashing_mechanism_does() {
    let session = user_session("digest info");
    let (public, private) = imported(&session);
    let digest = openssl(&["dgst", "-sha256", "-binary"], b"message");
    let info = [hex("3031300d060960864801650304020105000420"), digest].concat();
    let raw = session.sign(&Mechanism::RsaPkcs, private, &info).expect("signed");
    assert_eq!(raw, session.sign(&Mechanism::Sha256RsaPkcs, private, b"message").expect("signed"));
    session.verify(&Mechanism::RsaPkcs, public, &info, &raw).expect("it verifies");
}

#[test]
fn raw_pkcs1_signs_whatever_it_is_given() {
    let session = user_session("raw pkcs1");
    let desk = Desk::new();
    let (public, private) = imported(&session);
    let key = desk.file("key", openssl_key());
    for data in [&b""[..], b"no DigestInfo", &[0; 245]] {
        let signature = session.sign(&Mechanism::RsaPkcs, private, data).expect("signed");
        session.verify(&Mechanism::RsaPkcs, public, data, &signature).expect("it verifies");
        let file = desk.file("signature", &signature);
        let recover = ["pkeyutl", "-verifyrecover", "-inkey", &key, "-keyform", "DER", "-in", &file];
        assert_eq!(openssl(&recover, b""), data, "what OpenSSL finds in the signature");
        let another = session.verify(&Mechanism::RsaPkcs, public, b"another", &signature);
        assert_eq!(refusal(another), RvError::SignatureInvalid);
        let longer = session.verify(&Mechanism::RsaPkcs, public, &[0; 244], &signature);
        assert_eq!(refusal(longer), RvError::SignatureInvalid);
    }
    let file = desk.file("data", b"not a digest");
    let sign = ["pkeyutl", "-sign", "-inkey", &key, "-keyform", "DER", "-in", &file];
    let theirs = openssl(&sign, b"");
    assert_eq!(session.sign(&Mechanism::RsaPkcs, private, b"not a digest").expect("signed"), theirs);
    let mut damaged = theirs;
    damaged[7] ^= 1;
    let attempt = session.verify(&Mechanism::RsaPkcs, public, b"not a digest", &damaged);
    assert_eq!(refusal(attempt), RvError::SignatureInvalid);
    // Above the modulus: no number that a signature could be.
    let attempt = session.verify(&Mechanism::RsaPkcs, public, b"not a digest", &[0xff; 256]);
    assert_eq!(refusal(attempt), RvError::SignatureInvalid);
}

#[test]
fn an_old_signature_over_sha1_verifies() {
    let session = user_session("sha1 verifies");
    let desk = Desk::new();
    let (public, _) = imported(&session);
    let key = desk.file("key", openssl_key());
    let signature = openssl(&["dgst", "-sha1", "-sign", &key, "-keyform", "DER", "-binary"], b"message");
    session.verify(&Mechanism::Sha1RsaPkcs, public, b"message", &signature).expect("it verifies");
}

#[test]
fn pss_agrees_with_openssl_both_ways() {
    let session = user_session("pss");
    let desk = Desk::new();
    let (public, private) = imported(&session);
    let key = desk.file("key", openssl_key());
    for (mechanism, digest, salt) in [
        (Mechanism::Sha256RsaPkcsPss(sha256_pss()), "-sha256", 32),
        (
            Mechanism::Sha384RsaPkcsPss(pss(MechanismType::SHA384, PkcsMgfType::MGF1_SHA384, 48)),
            "-sha384",
            48,
        ),
        (
            Mechanism::Sha512RsaPkcsPss(pss(MechanismType::SHA512, PkcsMgfType::MGF1_SHA512, 64)),
            "-sha512",
            64,
        ),
    ] {
        let salt = format!("rsa_pss_saltlen:{salt}");
        let pss = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", &salt];
        let signature = session.sign(&mechanism, private, b"message").expect("signed");
        let file = desk.file("signature", &signature);
        let verify = ["dgst", digest, "-prverify", &key, "-keyform", "DER", "-signature", &file];
        openssl(&[&verify[..], &pss].concat(), b"message");
        assert!(try_openssl(&[&verify[..], &pss].concat(), b"another").is_none());
        let sign = ["dgst", digest, "-sign", &key, "-keyform", "DER", "-binary"];
        let signature = openssl(&[&sign[..], &pss].concat(), b"message");
        session.verify(&mechanism, public, b"message", &signature).expect("it verifies");
    }
    // A salt of any length that fits, and another hash in the mask.
    for salt in [0, 20, 222] {
        let mechanism = Mechanism::Sha256RsaPkcsPss(pss(MechanismType::SHA256, PkcsMgfType::MGF1_SHA1, salt));
        let signature = session.sign(&mechanism, private, b"message").expect("signed");
        let file = desk.file("signature", &signature);
        let salt = format!("rsa_pss_saltlen:{salt}");
        let options = ["rsa_padding_mode:pss", "rsa_mgf1_md:sha1", &salt];
        let options: Vec<&str> = options.iter().flat_map(|option| ["-sigopt", option]).collect();
        let verify = ["dgst", "-sha256", "-prverify", &key, "-keyform", "DER", "-signature", &file];
        openssl(&[&verify[..], &options].concat(), b"message");
        session.verify(&mechanism, public, b"message", &signature).expect("and inside");
        let another = Mechanism::Sha256RsaPkcsPss(pss(MechanismType::SHA256, PkcsMgfType::MGF1_SHA1, 21));
        let attempt = session.verify(&another, public, b"message", &signature);
        assert_eq!(refusal(attempt), RvError::SignatureInvalid, "another length of salt");
    }
    let digest = openssl(&["dgst", "-sha256", "-binary"], b"message");
    let signature = session.sign(&Mechanism::RsaPkcsPss(sha256_pss()), private, &digest).expect("signed");
    let hashing = Mechanism::Sha256RsaPkcsPss(sha256_pss());
    session.verify(&hashing, public, b"message", &signature).expect("the same over the message");
}

#[test]
fn encryption_agrees_with_openssl_both_ways() {
    let session = user_session("rsa encryption");
    let desk = Desk::new();
    let (public, private) = imported(&session);
    let key = desk.file("key", openssl_key());
    let label = b"label";
    let labelled = PkcsOaepParams::new(
        MechanismType::SHA256,
        PkcsMgfType::MGF1_SHA256,
        PkcsOaepSource::data_specified(label),
    );
    for (mechanism, options) in [
        (Mechanism::RsaPkcs, &["rsa_padding_mode:pkcs1"][..]),
        (oaep(MechanismType::SHA1, PkcsMgfType::MGF1_SHA1), &["rsa_padding_mode:oaep", "rsa_oaep_md:sha1"]),
        (
            oaep(MechanismType::SHA256, PkcsMgfType::MGF1_SHA256),
            &["rsa_padding_mode:oaep", "rsa_oaep_md:sha256"],
        ),
        (
            oaep(MechanismType::SHA384, PkcsMgfType::MGF1_SHA384),
            &["rsa_padding_mode:oaep", "rsa_oaep_md:sha384"],
        ),
        (
            oaep(MechanismType::SHA512, PkcsMgfType::MGF1_SHA512),
            &["rsa_padding_mode:oaep", "rsa_oaep_md:sha512"],
        ),
        (
            Mechanism::RsaPkcsOaep(labelled),
            &["rsa_padding_mode:oaep", "rsa_oaep_md:sha256", "rsa_oaep_label:6c6162656c"],
        ),
    ] {
        let options: Vec<&str> = options.iter().flat_map(|option| ["-pkeyopt", option]).collect();
        let ciphertext = session.encrypt(&mechanism, public, b"message").expect("encrypted");
        let file = desk.file("input", &ciphertext);
        let arguments = ["pkeyutl", "-decrypt", "-inkey", &key, "-keyform", "DER", "-in", &file];
        assert_eq!(openssl(&[&arguments[..], &options].concat(), b""), b"message");
        let file = desk.file("input", b"message");
        let arguments = ["pkeyutl", "-encrypt", "-inkey", &key, "-keyform", "DER", "-in", &file];
        let ciphertext = openssl(&[&arguments[..], &options].concat(), b"");
        assert_eq!(session.decrypt(&mechanism, private, &ciphertext).expect("decrypted"), b"message");
    }
}

#[test]
fn a_secret_key_travels_under_rsa() {
    let session = user_session("rsa wrap");
    let (public, private) = imported(&session);
    let uses = [Attribute::Sensitive(false), Attribute::Extractable(true)];
    let key = known_key(&session, KeyType::AES, &[9; 32], &uses);
    let template = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Sensitive(false),
    ];
    for mechanism in [Mechanism::RsaPkcs, oaep(MechanismType::SHA256, PkcsMgfType::MGF1_SHA256)] {
        let wrapped = session.wrap_key(&mechanism, public, key).expect("wrapped");
        let back = session.unwrap_key(&mechanism, private, &wrapped, &template).expect("unwrapped");
        let told = session.get_attributes(back, &[AttributeType::Value]).expect("readable");
        assert_eq!(told, [Attribute::Value(vec![9; 32])]);
        let mut tampered = wrapped.clone();
        tampered[100] ^= 1;
        let attempt = session.unwrap_key(&mechanism, private, &tampered, &template);
        assert!(matches!(refusal(attempt), RvError::WrappedKeyInvalid | RvError::WrappedKeyLenRange));
    }
    let attempt = session.wrap_key(&Mechanism::RsaPkcs, public, private);
    assert_eq!(refusal(attempt), RvError::KeyUnextractable);
}
