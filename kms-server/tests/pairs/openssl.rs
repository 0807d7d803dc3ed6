//! OpenSSL's command line: it shares no code with ours. That it is missing is a failure.

use crate::{generate, sign, verifies};
use kms_core::pair::{EncryptionAlgorithm, PairAlgorithm, PairPublicKey, PairUsage, SignatureAlgorithm};
use kms_server::pairs::{PrivatePair, encrypt_to};
use std::path::Path;
use std::process::Command;

const MESSAGE: &[u8] = b"what both sides sign";

/// A directory for the files of one test.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn write(&self, name: &str, content: &[u8]) {
        std::fs::write(self.0.path().join(name), content).expect("written");
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.0.path().join(name)).expect("openssl wrote it")
    }

    /// Whether `openssl` did it.
    fn try_run(&self, arguments: &[&str]) -> bool {
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir::<&Path>(self.0.path())
            .output()
            .expect("openssl is installed (scripts/test installs it)");
        output.status.success()
    }

    fn run(&self, arguments: &[&str]) {
        assert!(self.try_run(arguments), "openssl refused {arguments:?}");
    }
}

/// What `openssl pkeyutl` has to be told for an algorithm.
fn options(algorithm: SignatureAlgorithm) -> Vec<&'static str> {
    use SignatureAlgorithm as A;
    let hash = match algorithm {
        A::Ed25519 => return vec!["-rawin"],
        A::Sm2Sm3 => return vec!["-rawin", "-digest", "sm3", "-pkeyopt", "distid:1234567812345678"],
        A::EcdsaSha256 | A::RsaPssSha256 | A::RsaPkcs1Sha256 => "sha256",
        A::EcdsaSha384 | A::RsaPssSha384 | A::RsaPkcs1Sha384 => "sha384",
        A::EcdsaSha512 | A::RsaPssSha512 | A::RsaPkcs1Sha512 => "sha512",
    };
    let mut options = vec!["-rawin", "-digest", hash];
    match algorithm {
        A::RsaPssSha256 | A::RsaPssSha384 | A::RsaPssSha512 => {
            options.extend(["-pkeyopt", "rsa_padding_mode:pss", "-pkeyopt", "rsa_pss_saltlen:digest"]);
        }
        A::RsaPkcs1Sha256 | A::RsaPkcs1Sha384 | A::RsaPkcs1Sha512 => {
            options.extend(["-pkeyopt", "rsa_padding_mode:pkcs1"]);
        }
        _ => {}
    }
    options
}

fn check_signatures_both_ways(desk: &Desk, pair: &PrivatePair) {
    let key = pair.public_key();
    desk.write("message", MESSAGE);
    desk.write("public.der", &key.to_spki());
    desk.write("private.der", pair.danger_pkcs8());
    for algorithm in SignatureAlgorithm::of(key.algorithm()) {
        let options = options(algorithm);
        let verify = ["pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", "public.der"];
        let verify = [&verify[..], &["-in", "message", "-sigfile", "signature"], &options].concat();
        let mut signature = sign(pair, algorithm, MESSAGE);
        desk.write("signature", &signature);
        desk.run(&verify);
        let last = signature.len() - 1;
        signature[last] ^= 1;
        desk.write("signature", &signature);
        assert!(!desk.try_run(&verify), "{algorithm}: openssl took a changed signature");

        let theirs = ["pkeyutl", "-sign", "-keyform", "DER", "-inkey", "private.der", "-in", "message"];
        desk.run(&[&theirs[..], &["-out", "theirs"], &options].concat());
        let theirs = desk.read("theirs");
        assert!(verifies(key, algorithm, MESSAGE, &theirs), "{algorithm}: of openssl");
        assert!(!verifies(key, algorithm, b"something else", &theirs), "{algorithm}: of openssl");
        println!("{}: {algorithm} both ways", key.algorithm());
    }
}

#[test]
fn openssl_verifies_what_we_sign_and_we_what_it_signs() {
    let desk = Desk::new();
    for algorithm in PairAlgorithm::ALL {
        check_signatures_both_ways(&desk, &generate(algorithm, PairUsage::Sign));
    }
}

#[test]
fn openssl_opens_what_we_encrypt_and_we_what_it_encrypts() {
    let desk = Desk::new();
    for algorithm in PairAlgorithm::ALL.into_iter().filter(|one| one.allows(PairUsage::Decrypt)) {
        let pair = generate(algorithm, PairUsage::Decrypt);
        let encryption = EncryptionAlgorithm::of(algorithm).expect("it decrypts");
        desk.write("public.der", &pair.public_key().to_spki());
        desk.write("private.der", pair.danger_pkcs8());
        let options: &[&str] = match encryption {
            EncryptionAlgorithm::Sm2 => &["-pkeyopt", "digest:sm3"],
            EncryptionAlgorithm::RsaOaepSha256 => &[
                "-pkeyopt",
                "rsa_padding_mode:oaep",
                "-pkeyopt",
                "rsa_oaep_md:sha256",
                "-pkeyopt",
                "rsa_mgf1_md:sha256",
            ],
        };
        for len in [1, 16, 32, encryption.plaintext_len_max(algorithm)] {
            let plaintext: Vec<u8> = (0..len).map(|index| index as u8).collect();
            desk.write("ours", &encrypt_to(pair.public_key(), &plaintext).expect("short enough"));
            let decrypt = ["pkeyutl", "-decrypt", "-keyform", "DER", "-inkey", "private.der"];
            desk.run(&[&decrypt[..], &["-in", "ours", "-out", "opened"], options].concat());
            assert_eq!(desk.read("opened"), plaintext, "{algorithm}, {len} bytes");

            desk.write("plaintext", &plaintext);
            let encrypt = ["pkeyutl", "-encrypt", "-pubin", "-keyform", "DER", "-inkey", "public.der"];
            desk.run(&[&encrypt[..], &["-in", "plaintext", "-out", "theirs"], options].concat());
            let opened = pair.decrypt(encryption, &desk.read("theirs")).expect("of openssl");
            assert_eq!(opened.expose(), plaintext, "{algorithm}, {len} bytes");
        }
        println!("{algorithm}: {encryption} both ways");
    }
}

#[test]
fn a_key_that_openssl_makes_is_taken_and_signs() {
    let desk = Desk::new();
    for (algorithm, arguments) in [
        (PairAlgorithm::Sm2, &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:SM2"][..]),
        (PairAlgorithm::P256, &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]),
        (PairAlgorithm::P384, &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]),
        (PairAlgorithm::P521, &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"]),
        (PairAlgorithm::Ed25519, &["-algorithm", "ED25519"]),
        (PairAlgorithm::Rsa3072, &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"]),
    ] {
        desk.run(&[&["genpkey", "-out", "made.pem"], arguments].concat());
        let convert =
            ["pkcs8", "-topk8", "-nocrypt", "-in", "made.pem", "-outform", "DER", "-out", "made.der"];
        desk.run(&convert);
        desk.run(&["pkey", "-in", "made.pem", "-pubout", "-outform", "DER", "-out", "made-public.der"]);
        let pair =
            PrivatePair::import(algorithm, PairUsage::Sign, &desk.read("made.der")).expect("openssl's key");
        let public = PairPublicKey::from_spki(&desk.read("made-public.der")).expect("openssl's key");
        assert_eq!(*pair.public_key(), public, "{algorithm}");
        check_signatures_both_ways(&desk, &pair);
    }
}
