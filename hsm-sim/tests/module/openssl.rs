//! OpenSSL's command line, as a second opinion that shares no code with the module.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use der::asn1::{AnyRef, BitStringRef, OctetStringRef, UintRef};
use der::{Decode, Encode, Sequence};
use p256::pkcs8::ObjectIdentifier;
use p256::pkcs8::spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};

/// A directory for the files of one test.
#[derive(Debug)]
pub struct Desk(tempfile::TempDir);

impl Desk {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    pub fn file(&self, name: &str, content: &[u8]) -> String {
        std::fs::write(self.path(name), content).expect("written");
        self.name(name)
    }

    pub fn name(&self, name: &str) -> String {
        self.path(name).to_str().expect("a plain name").to_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// Runs `openssl` and gives what it wrote, or nothing if it failed.
pub fn try_openssl(arguments: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let mut child = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl is installed");
    // A command that does not read may be gone before everything is written.
    let _ = child.stdin.take().expect("it was piped").write_all(input);
    let output = child.wait_with_output().expect("it ends");
    output.status.success().then_some(output.stdout)
}

pub fn openssl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    try_openssl(arguments, input).unwrap_or_else(|| panic!("openssl refused {arguments:?}"))
}

/// A `SubjectPublicKeyInfo` around a point on the curve that the parameters name.
pub fn curve_key_info(parameters: &[u8], point: &[u8]) -> Vec<u8> {
    key_info(
        ObjectIdentifier::new_unwrap("1.2.840.10045.2.1"),
        Some(AnyRef::from_der(parameters).expect("DER")),
        point,
    )
}

pub fn ed25519_key_info(point: &[u8]) -> Vec<u8> {
    key_info(ObjectIdentifier::new_unwrap("1.3.101.112"), None, point)
}

#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    exponent: UintRef<'a>,
}

pub fn rsa_key_info(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let key = RsaPublicKey {
        modulus: UintRef::new(modulus).expect("a number"),
        exponent: UintRef::new(exponent).expect("a number"),
    };
    let key = key.to_der().expect("DER");
    key_info(ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1"), Some(AnyRef::NULL), &key)
}

fn key_info(oid: ObjectIdentifier, parameters: Option<AnyRef<'_>>, key: &[u8]) -> Vec<u8> {
    SubjectPublicKeyInfoRef {
        algorithm: AlgorithmIdentifierRef { oid, parameters },
        subject_public_key: BitStringRef::from_bytes(key).expect("whole bytes"),
    }
    .to_der()
    .expect("DER")
}

#[derive(Sequence)]
struct Signature<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

/// `r || s` as the SEQUENCE that OpenSSL wants.
pub fn signature_to_der(raw: &[u8]) -> Vec<u8> {
    let (r, s) = raw.split_at(raw.len() / 2);
    let signature = Signature { r: UintRef::new(r).expect("r"), s: UintRef::new(s).expect("s") };
    signature.to_der().expect("DER")
}

pub fn signature_to_raw(der: &[u8], field_len: usize) -> Vec<u8> {
    let Signature { r, s } = Signature::from_der(der).expect("a signature");
    [r, s].iter().flat_map(|number| to_len(number.as_bytes(), field_len)).collect()
}

fn to_len(number: &[u8], len: usize) -> Vec<u8> {
    let mut padded = vec![0; len - number.len()];
    padded.extend_from_slice(number);
    padded
}

/// The ciphertext of GM/T 0009.
#[derive(Sequence)]
struct Sm2Ciphertext<'a> {
    x: UintRef<'a>,
    y: UintRef<'a>,
    hash: &'a OctetStringRef,
    masked: &'a OctetStringRef,
}

/// From C1 || C3 || C2 to GM/T 0009.
pub fn sm2_ciphertext_to_der(raw: &[u8]) -> Vec<u8> {
    let ciphertext = Sm2Ciphertext {
        x: UintRef::new(&raw[1..33]).expect("x"),
        y: UintRef::new(&raw[33..65]).expect("y"),
        hash: OctetStringRef::new(&raw[65..97]).expect("C3"),
        masked: OctetStringRef::new(&raw[97..]).expect("C2"),
    };
    ciphertext.to_der().expect("DER")
}

/// From GM/T 0009 to C1 || C3 || C2.
pub fn sm2_ciphertext_to_raw(der: &[u8]) -> Vec<u8> {
    let Sm2Ciphertext { x, y, hash, masked } = Sm2Ciphertext::from_der(der).expect("a ciphertext");
    let point = [&[0x04][..], &to_len(x.as_bytes(), 32), &to_len(y.as_bytes(), 32)].concat();
    [&point, hash.as_bytes(), masked.as_bytes()].concat()
}
