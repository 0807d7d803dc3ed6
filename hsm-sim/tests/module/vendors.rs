//! The personalities beside the default one. Each is chosen when the module starts, so each of these
//! tests runs in a process of its own: this test binary, started again.

use std::ffi::OsStr;
use std::process::Command;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::RvError;
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::mechanism::vendor_defined::VendorDefinedMechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use hsm_sim::PERSONALITY_VARIABLE;

use crate::harness::{
    TOKENS, hex, known_key, master_key, module, module_path, refusal, token, token_directory, user_session,
    vendor, vendor_key, vendor_type,
};
use crate::openssl::{Desk, curve_key_info, openssl, sm2_ciphertext_to_der, try_openssl};

const SM2_PARAMETERS: &[u8] = &[0x06, 0x08, 0x2A, 0x81, 0x1C, 0xCF, 0x55, 0x01, 0x82, 0x2D];

/// Runs the body under the personality. `test` is the name of the calling test.
pub fn under(personality: &str, test: &str, directory: Option<&OsStr>, body: impl FnOnce()) {
    if std::env::var_os(PERSONALITY_VARIABLE).is_some() {
        return body();
    }
    let mut command = Command::new(std::env::current_exe().expect("the system knows this executable"));
    command.args(["--exact", test, "--nocapture"]);
    command.env(PERSONALITY_VARIABLE, personality);
    match directory {
        Some(directory) => command.env(TOKENS, directory),
        None => command.env_remove(TOKENS),
    };
    let output = command.output().expect("the child starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("1 passed"), "the test has another name: {text}");
}

fn key_pair(session: &Session, generate: u64) -> (ObjectHandle, ObjectHandle) {
    let public = [Attribute::Verify(true), Attribute::Encrypt(true)];
    let private = [Attribute::Sign(true), Attribute::Decrypt(true)];
    session.generate_key_pair(&vendor(generate), &public, &private).expect("a pair")
}

fn key_info(session: &Session, public: ObjectHandle) -> Vec<u8> {
    let told = session.get_attributes(public, &[AttributeType::EcPoint]).expect("readable");
    let [Attribute::EcPoint(point)] = &told[..] else { panic!("no point: {told:?}") };
    curve_key_info(SM2_PARAMETERS, &point[2..])
}

#[test]
fn a_vendor_that_is_not_known_is_refused() {
    under("nobody", "vendors::a_vendor_that_is_not_known_is_refused", Some(OsStr::new("/")), || {
        let module = Pkcs11::new(module_path()).expect("the module loads");
        let attempt = module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK));
        assert_eq!(refusal(attempt), RvError::GeneralError);
    });
}

#[test]
fn a_token_of_another_vendor_is_not_recognised() {
    let is_parent = std::env::var_os(PERSONALITY_VARIABLE).is_none();
    let directory = is_parent.then(|| {
        let _ = token("sansec's token");
        token_directory()
    });
    let directory = directory.as_deref().map(std::path::Path::as_os_str);
    under("luna", "vendors::a_token_of_another_vendor_is_not_recognised", directory, || {
        let slots = module().get_all_slots().expect("slots");
        let slot = slots.first().copied().expect("the parent's token");
        assert_eq!(refusal(module().open_rw_session(slot)), RvError::TokenNotRecognized);
    });
}

#[test]
fn luna_makes_the_iv_and_appends_it() {
    under("luna", "vendors::luna_makes_the_iv_and_appends_it", None, || {
        let session = user_session("iv appended");
        let key = master_key(&session, b"1");
        let mut nothing = [];
        let mut chosen = [5; 12];
        let by_token = Mechanism::AesGcm(GcmParams::new(&mut nothing, b"aad", 128.into()).expect("valid"));
        let by_caller = Mechanism::AesGcm(GcmParams::new(&mut chosen, b"aad", 128.into()).expect("valid"));
        let attempt = session.encrypt(&by_caller, key, b"message");
        assert_eq!(refusal(attempt), RvError::MechanismParamInvalid);

        let sealed = session.encrypt(&by_token, key, b"message").expect("sealed");
        assert_eq!(sealed.len(), 7 + 16 + 12);
        assert_ne!(sealed, session.encrypt(&by_token, key, b"message").expect("sealed"), "a new IV");
        assert_eq!(session.decrypt(&by_token, key, &sealed).expect("opened"), b"message");
        let (body, iv) = sealed.split_at(23);
        let mut iv = iv.to_vec();
        let passed = Mechanism::AesGcm(GcmParams::new(&mut iv, b"aad", 128.into()).expect("valid"));
        assert_eq!(session.decrypt(&passed, key, body).expect("opened"), b"message");
        for position in 0..sealed.len() {
            let mut tampered = sealed.clone();
            tampered[position] ^= 1;
            let attempt = session.decrypt(&by_token, key, &tampered);
            assert_eq!(refusal(attempt), RvError::EncryptedDataInvalid);
        }
        let attempt = session.decrypt(&by_token, key, &sealed[..27]);
        assert_eq!(refusal(attempt), RvError::EncryptedDataLenRange);
    });
}

#[test]
fn luna_signs_in_der_under_the_identifier_that_is_passed() {
    under("luna", "vendors::luna_signs_in_der_under_the_identifier_that_is_passed", None, || {
        let session = user_session("luna sm2");
        let desk = Desk::new();
        let (public, private) = key_pair(&session, 0x8000_0B20);
        let key = desk.file("key", &key_info(&session, public));
        let message = desk.file("message", b"message");
        let id = *b"alice@example.com";
        let with_id = VendorDefinedMechanism::new(vendor_type(0x8000_0B22), Some(&id));
        for (mechanism, distid) in [
            (vendor(0x8000_0B22), "distid:1234567812345678"),
            (Mechanism::VendorDefined(with_id), "distid:alice@example.com"),
        ] {
            let signature = session.sign(&mechanism, private, b"message").expect("signed");
            let file = desk.file("signature", &signature);
            let arguments = [
                "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", &key, "-rawin", "-digest",
                "sm3", "-in", &message, "-sigfile", &file, "-pkeyopt",
            ];
            openssl(&[&arguments[..], &[distid]].concat(), b"");
            assert!(try_openssl(&[&arguments[..], &["distid:somebody else"]].concat(), b"").is_none());
            session.verify(&mechanism, public, b"message", &signature).expect("and inside");
        }
        let signature = session.sign(&vendor(0x8000_0B21), private, &[7; 32]).expect("signed");
        session.verify(&vendor(0x8000_0B21), public, &[7; 32], &signature).expect("prehashed");
        let attempt = session.verify(&vendor(0x8000_0B21), public, &[7; 32], &[1; 64]);
        assert_eq!(refusal(attempt), RvError::SignatureInvalid, "r || s is not this vendor's form");
        let attempt = session.verify(&vendor(0x8000_0B21), public, &[7; 32], &[0x30; 80]);
        assert_eq!(refusal(attempt), RvError::SignatureLenRange);
    });
}

#[test]
fn luna_has_its_own_numbers() {
    under("luna", "vendors::luna_has_its_own_numbers", None, || {
        let session = user_session("luna numbers");
        let abc = session.digest(&vendor(0x8000_0B01), b"abc").expect("SM3");
        assert_eq!(abc, hex("66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"));
        let key = known_key(&session, KeyType::GENERIC_SECRET, &[0x0b; 20], &[Attribute::Sign(true)]);
        let mac = session.sign(&vendor(0x8000_0B02), key, b"Hi There").expect("HMAC-SM3");
        assert_eq!(mac, hex("51b00d1fb49832bfb01c3ce27848e59f871d9ba938dc563b338ca964755cce70"));
        let uses = [Attribute::Encrypt(true)];
        let sm4 = hex("0123456789abcdeffedcba9876543210");
        let key = known_key(&session, vendor_key(0x8000_0015), &sm4, &uses);
        let iv: [u8; 16] = hex("000102030405060708090a0b0c0d0e0f").try_into().expect("a block");
        let cbc = VendorDefinedMechanism::new(vendor_type(0x8000_0B12), Some(&iv));
        let plaintext = hex("aaaaaaaabbbbbbbbccccccccddddddddeeeeeeeeffffffffaaaaaaaabbbbbbbb");
        let encrypted = session.encrypt(&Mechanism::VendorDefined(cbc), key, &plaintext).expect("SM4-CBC");
        assert_eq!(encrypted, hex("78ebb11cc40b0a48312aaeb2040244cb4cb7016951909226979b0d15dc6a8f6d"));
        let attempt = session.generate_key(&vendor(0x8000_0107), &[]);
        assert_eq!(refusal(attempt), RvError::MechanismInvalid, "Sansec's number");
    });
}

#[test]
fn tass_makes_the_iv_and_returns_it() {
    under("tass", "vendors::tass_makes_the_iv_and_returns_it", None, || {
        let session = user_session("iv returned");
        let key = master_key(&session, b"1");
        let mut place = [0; 12];
        let sealed = {
            let gcm = Mechanism::AesGcm(GcmParams::new(&mut place, b"aad", 128.into()).expect("valid"));
            session.encrypt(&gcm, key, b"message").expect("sealed")
        };
        assert_eq!(sealed.len(), 7 + 16);
        assert_ne!(place, [0; 12], "the token has put its IV here");
        let gcm = Mechanism::AesGcm(GcmParams::new(&mut place, b"aad", 128.into()).expect("valid"));
        assert_eq!(session.decrypt(&gcm, key, &sealed).expect("opened"), b"message");
        let mut nothing = [];
        let empty = Mechanism::AesGcm(GcmParams::new(&mut nothing, b"aad", 128.into()).expect("valid"));
        let attempt = session.encrypt(&empty, key, b"message");
        assert_eq!(refusal(attempt), RvError::MechanismParamInvalid, "there is no place to return it");

        let uses = [Attribute::Wrap(true), Attribute::Unwrap(true)];
        let wrapping = known_key(&session, KeyType::AES, &[1; 32], &uses);
        let uses = [Attribute::Sensitive(false), Attribute::Extractable(true)];
        let secret = known_key(&session, KeyType::AES, &[2; 32], &uses);
        let mut place = [0; 12];
        let wrapped = {
            let gcm = Mechanism::AesGcm(GcmParams::new(&mut place, b"", 128.into()).expect("valid"));
            session.wrap_key(&gcm, wrapping, secret).expect("wrapped")
        };
        assert_ne!(place, [0; 12]);
        let gcm = Mechanism::AesGcm(GcmParams::new(&mut place, b"", 128.into()).expect("valid"));
        let template = [Attribute::Class(ObjectClass::SECRET_KEY), Attribute::KeyType(KeyType::AES)];
        session.unwrap_key(&gcm, wrapping, &wrapped, &template).expect("with the IV that was returned");
    });
}

/// GB/T 32918.5, Annex A: the private key, and the parts of its ciphertext.
const SCALAR: &str = "3945208f7b2144b13f36e38ac6d39f95889393692860b51a42fb81ef4df7c5b8";
const C1: &str = "0404ebfc718e8d1798620432268e77feb6415e2ede0e073c0f4f640ecd2e149a73\
    e858f9d81e5430a57b36daab8f950a3c64e6ee6a63094d99283aff767e124df0";
const C2: &str = "21886ca989ca9c7d58087307ca93092d651efa";
const C3: &str = "59983c18f809e262923c53aec295d30383b54e39d609d160afcb1908d0bd8766";

fn opens(key_type: u64, mechanism: u64, ciphertext: &[u8]) {
    let session = user_session("sm2 layout");
    let template = [
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::KeyType(vendor_key(key_type)),
        Attribute::EcParams(SM2_PARAMETERS.to_vec()),
        Attribute::Value(hex(SCALAR)),
        Attribute::Decrypt(true),
    ];
    let private = session.create_object(&template).expect("a private key");
    let opened = session.decrypt(&vendor(mechanism), private, ciphertext).expect("opened");
    assert_eq!(opened, b"encryption standard");
}

#[test]
fn tass_puts_the_hash_behind_the_message() {
    under("tass", "vendors::tass_puts_the_hash_behind_the_message", None, || {
        opens(0x8000_0004, 0x8000_8200, &[hex(C1), hex(C2), hex(C3)].concat());
        let session = user_session("sm2 made here");
        let (public, private) = key_pair(&session, 0x8000_8001);
        let sealed = session.encrypt(&vendor(0x8000_8200), public, b"message").expect("encrypted");
        assert_eq!(sealed.len(), 65 + 7 + 32);
        assert_eq!(session.decrypt(&vendor(0x8000_8200), private, &sealed).expect("opened"), b"message");
    });
}

#[test]
fn ep11_writes_ciphertexts_in_asn1() {
    under("ep11", "vendors::ep11_writes_ciphertexts_in_asn1", None, || {
        let raw = [hex(C1), hex(C3), hex(C2)].concat();
        opens(0x8005_0002, 0x8005_000D, &sm2_ciphertext_to_der(&raw));
        let session = user_session("sm2 in asn1");
        let (public, private) = key_pair(&session, 0x8005_000A);
        // The length varies with the numbers inside; many rounds see many lengths.
        for len in 1..40 {
            let message = vec![7; len];
            let sealed = session.encrypt(&vendor(0x8005_000D), public, &message).expect("encrypted");
            assert_eq!(sealed[0], 0x30, "a SEQUENCE");
            assert_eq!(session.decrypt(&vendor(0x8005_000D), private, &sealed).expect("opened"), message);
        }
        let attempt = session.decrypt(&vendor(0x8005_000D), private, &raw);
        assert_eq!(refusal(attempt), RvError::EncryptedDataInvalid, "this layout is another vendor's");
    });
}
