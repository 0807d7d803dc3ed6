//! Data keys that only their recipient sees: OpenSSL and HPKE open them, and a recipient that will not do is refused.

use super::{Expected, app, deployment, make_key, pair};
use crate::configured::serve;
use kms_core::asymmetric::PrivateKey;
use kms_core::context::EncryptionContext;
use kms_core::envelope::Purpose;
use kms_core::id::{KeyId, KeyVersion};
use kms_core::recipient::RecipientBinding;
use kms_core::spec::KeySpec;
use kms_core::suite::Suite;
use kms_proto::v1;
use kms_tests::rpc::refused;
use kms_tests::{Rpc, audit};
use std::fs;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

const PROTECTIONS: [v1::Protection; 2] = [v1::Protection::HsmResident, v1::Protection::HsmWrapped];

/// Runs OpenSSL in a folder and gives what it printed.
pub fn openssl(folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("openssl").current_dir(folder).args(arguments).output();
    let output = output.expect("openssl is installed (scripts/test installs it)");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments:?}: {error}");
    output.stdout
}

/// A pair of OpenSSL in `NAME.pem`; gives the public half.
pub fn make_recipient(folder: &Path, name: &str, kind: &[&str]) -> Vec<u8> {
    let private = format!("{name}.pem");
    openssl(folder, &[&["genpkey", "-out", &private], kind].concat());
    let public = openssl(folder, &["pkey", "-in", &private, "-pubout", "-outform", "DER"]);
    fs::write(folder.join(format!("{name}.der")), &public).expect("written");
    public
}

const RSA_1024: [&str; 4] = ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"];
const RSA_2048: [&str; 4] = ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
const RSA_3072: [&str; 4] = ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"];
const RSA_4096: [&str; 4] = ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:4096"];
const SM2: [&str; 4] = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:SM2"];
pub const P256: [&str; 4] = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
const P384: [&str; 4] = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"];
const ED25519: [&str; 2] = ["-algorithm", "ED25519"];

pub fn recipient(public_key: &[u8], algorithm: v1::RecipientAlgorithm) -> v1::Recipient {
    v1::Recipient { public_key: public_key.to_vec(), algorithm: algorithm.into() }
}

/// The private scalar in a P-256 key of OpenSSL: the longest string behind the version of RFC 5915.
pub fn private_key(folder: &Path, name: &str) -> PrivateKey {
    let der = openssl(folder, &["pkey", "-in", &format!("{name}.pem"), "-outform", "DER"]);
    let start = [0x02, 0x01, 0x01, 0x04, 0x20];
    let at = der.windows(start.len()).position(|window| window == start).expect("RFC 5915") + start.len();
    let mut scalar = kms_core::secret::SecretBytes::<32>::zeroed();
    scalar.expose_mut().copy_from_slice(&der[at..at + 32]);
    PrivateKey::from_scalar(Suite::Intl, scalar).expect("a scalar")
}

/// What the recipient reads; the binding counts for HPKE alone.
fn open(folder: &Path, name: &str, sealed: &[u8], binding: &RecipientBinding<'_>) -> Vec<u8> {
    fs::write(folder.join("sealed"), sealed).expect("written");
    let private = format!("{name}.pem");
    let decrypt = ["pkeyutl", "-decrypt", "-in", "sealed", "-inkey", private.as_str()];
    let oaep = ["-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256"];
    match name {
        "p256" => {
            private_key(folder, name).open(&binding.to_info(), sealed).expect("opens").expose().to_vec()
        }
        "sm2" => openssl(folder, &decrypt),
        _ => openssl(folder, &[decrypt.as_slice(), &oaep].concat()),
    }
}

fn request_id<T>(answer: &tonic::Response<T>) -> String {
    let id = answer.metadata().get("x-request-id").expect("a request id");
    id.to_str().expect("text").to_owned()
}

#[tokio::test]
async fn every_kind_of_recipient_opens_the_data_key_and_the_answer_holds_nothing_else() {
    use v1::RecipientAlgorithm as A;
    let folder = TempDir::new().expect("a folder");
    let folder = folder.path();
    let context = EncryptionContext::new([("file".into(), "a".into())]).expect("a context");
    for (name, kind, algorithm) in [
        ("rsa-2048", &RSA_2048[..], A::RsaOaepSha256),
        ("rsa-3072", &RSA_3072, A::RsaOaepSha256),
        ("rsa-4096", &RSA_4096, A::RsaOaepSha256),
        ("sm2", &SM2, A::Sm2),
        ("p256", &P256, A::HpkeP256),
    ] {
        let public = make_recipient(folder, name, kind);
        let digest = if name == "sm2" { "sm3" } else { "sha256" };
        let digest = openssl(folder, &["dgst", &format!("-{digest}"), "-r", &format!("{name}.der")]);
        let digest = String::from_utf8(digest).expect("text");
        let digest = digest.split_whitespace().next().expect("a digest").to_owned();
        let digest = format!("{}:{digest}", if name == "sm2" { "sm3" } else { "sha-256" });
        for protection in PROTECTIONS {
            let key = format!("recipient-{name}-{}", protection as i32);
            make_key(&key, protection).await;
            let mut rpc = app().await;
            let request = v1::GenerateDataKeyRequest {
                key: key.clone(),
                data_key_spec: v1::KeySpec::Aes192.into(),
                context: vec![pair("file", "a")],
                recipient: Some(recipient(&public, algorithm)),
                ..Default::default()
            };
            let answer = rpc.crypto.generate_data_key(request.clone()).await.expect("generates");
            let made_id = request_id(&answer);
            let made = answer.into_inner();
            assert_eq!((made.plaintext.as_slice(), made.data_key_spec()), (&[][..], v1::KeySpec::Aes192));
            let binding = RecipientBinding {
                purpose: Purpose::DataKey,
                spec: KeySpec::Aes192,
                key: (KeyId::parse(&made.key_id).expect("an id"), KeyVersion::FIRST),
                context: &context,
            };
            let data_key = open(folder, name, &made.recipient_ciphertext, &binding);
            assert_eq!(data_key.len(), 24, "{name}");
            let decrypt = v1::DecryptDataKeyRequest {
                ciphertext: made.ciphertext.clone(),
                context: vec![pair("file", "a")],
                ..Default::default()
            };
            let plain = rpc.crypto.decrypt_data_key(decrypt.clone()).await.expect("decrypts");
            let plain_id = request_id(&plain);
            let plain = plain.into_inner();
            assert_eq!((&plain.plaintext, plain.recipient_ciphertext.len()), (&data_key, 0));
            let to = v1::DecryptDataKeyRequest { recipient: request.recipient, ..decrypt };
            let opened = rpc.crypto.decrypt_data_key(to).await.expect("decrypts");
            let opened_id = request_id(&opened);
            let opened = opened.into_inner();
            assert!(opened.plaintext.is_empty());
            assert_ne!(opened.recipient_ciphertext, made.recipient_ciphertext, "each is made anew");
            assert_eq!(open(folder, name, &opened.recipient_ciphertext, &binding), data_key);

            for (id, expected) in [(&made_id, true), (&opened_id, true), (&plain_id, false)] {
                let entry = audit::record_of(deployment(), id).await;
                let named = |detail| entry.detail(detail).map(str::to_owned);
                let wanted = kms_core::recipient::RecipientAlgorithm::from_number(algorithm as u16);
                let wanted = wanted.expect("a number").name().to_owned();
                assert_eq!(named("recipient_algorithm"), expected.then_some(wanted), "{entry:?}");
                assert_eq!(named("recipient_fingerprint"), expected.then(|| digest.clone()), "{entry:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_recipient_that_will_not_do_is_refused_by_its_field() {
    use v1::RecipientAlgorithm as A;
    make_key("recipient-bad", v1::Protection::HsmWrapped).await;
    let folder = TempDir::new().expect("a folder");
    let make = |name: &str, kind: &[&str]| make_recipient(folder.path(), name, kind);
    let (rsa, sm2, p256) = (make("rsa", &RSA_2048), make("sm2", &SM2), make("p256", &P256));
    let off_curve = |key: &[u8]| {
        let mut key = key.to_vec();
        *key.last_mut().expect("a point") ^= 1;
        key
    };
    let (field_key, field_algorithm) = ("recipient.public_key", "recipient.algorithm");
    let (mut rpc, mut expected) = (app().await, Expected::default());
    let generate = v1::GenerateDataKeyRequest { key: "recipient-bad".into(), ..Default::default() };
    let made = rpc.crypto.generate_data_key(generate.clone()).await.expect("generates").into_inner();
    let decrypt = v1::DecryptDataKeyRequest { ciphertext: made.ciphertext, ..Default::default() };
    let number = |algorithm: A| algorithm as i32;
    for (key, algorithm, field, says) in [
        (make("rsa-1024", &RSA_1024), number(A::RsaOaepSha256), field_key, "modulus of 1024 bits"),
        (off_curve(&sm2), number(A::Sm2), field_key, "not on its curve"),
        (off_curve(&p256), number(A::HpkeP256), field_key, "not on its curve"),
        (make("p384", &P384), number(A::HpkeP256), field_key, "nothing is encrypted to a key of ec-p384"),
        (
            make("ed25519", &ED25519),
            number(A::HpkeP256),
            field_key,
            "nothing is encrypted to a key of ed25519",
        ),
        (vec![], number(A::HpkeP256), field_key, "is empty"),
        (b"-----BEGIN PUBLIC KEY-----".to_vec(), number(A::Sm2), field_key, "not a public key in DER"),
        (rsa[..rsa.len() - 1].to_vec(), number(A::RsaOaepSha256), field_key, "not a public key in DER"),
        (rsa.clone(), number(A::Sm2), field_algorithm, "rsa-oaep-sha-256 does"),
        (sm2.clone(), number(A::HpkeP256), field_algorithm, "sm2 does"),
        (p256.clone(), number(A::Sm2), field_algorithm, "hpke-p256 does"),
        (p256.clone(), 0, field_algorithm, "one of sm2, rsa-oaep-sha-256, hpke-p256"),
        (p256.clone(), 4, field_algorithm, "is 4"),
        (p256.clone(), -1, field_algorithm, "is -1"),
        (p256.clone(), 65_539, field_algorithm, "is 65539"),
    ] {
        let recipient = Some(v1::Recipient { public_key: key, algorithm });
        let request = v1::GenerateDataKeyRequest { recipient: recipient.clone(), ..generate.clone() };
        let answer = rpc.crypto.generate_data_key(request).await;
        let message = answer.as_ref().err().map(|status| status.message().to_owned()).unwrap_or_default();
        assert!(message.starts_with(field) && message.contains(says), "{message}");
        expected.refusal(answer, "FIELD_INVALID", Some(field));
        let request = v1::DecryptDataKeyRequest { recipient, ..decrypt.clone() };
        expected.refusal(rpc.crypto.decrypt_data_key(request).await, "FIELD_INVALID", Some(field));
    }
    let nobody = v1::GenerateDataKeyRequest {
        without_plaintext: true,
        recipient: Some(recipient(&p256, A::HpkeP256)),
        ..generate
    };
    let answer = rpc.crypto.generate_data_key(nobody).await;
    expected.refusal(answer, "FIELD_INVALID", Some("without_plaintext"));
    expected.are_all_recorded().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_encrypts_to_no_key_that_it_would_not_make() {
    use v1::RecipientAlgorithm as A;
    let deployment = serve(ToOwned::to_owned, "[keys]\nspecs = [\"sm4\", \"hmac-sm3\", \"sm2\"]\n");
    deployment.unseal();
    let folder = TempDir::new().expect("a folder");
    let make = |name: &str, kind: &[&str]| make_recipient(folder.path(), name, kind);
    let (rsa, sm2, p256) = (make("rsa", &RSA_2048), make("sm2", &SM2), make("p256", &P256));
    let mut rpc = Rpc::connect(&deployment, "app").await;
    let generate = |recipient| v1::GenerateDataKeyRequest {
        key: "resident".into(),
        recipient: Some(recipient),
        ..Default::default()
    };
    let made =
        rpc.crypto.generate_data_key(generate(recipient(&sm2, A::Sm2))).await.expect("it is in the list");
    let made = made.into_inner();
    assert!(made.plaintext.is_empty() && !made.recipient_ciphertext.is_empty());
    let before = audit::log_size(&deployment).await;
    for (spec, other) in
        [("rsa-2048", recipient(&rsa, A::RsaOaepSha256)), ("ec-p256", recipient(&p256, A::HpkeP256))]
    {
        let decrypt = v1::DecryptDataKeyRequest {
            ciphertext: made.ciphertext.clone(),
            recipient: Some(other.clone()),
            ..Default::default()
        };
        for refused in [
            refused(rpc.crypto.generate_data_key(generate(other)).await),
            refused(rpc.crypto.decrypt_data_key(decrypt).await),
        ] {
            assert_eq!(refused.reason, "SPEC_NOT_ALLOWED", "{refused:?}");
            assert_eq!(refused.field.as_deref(), Some("recipient.public_key"));
            assert!(
                refused.message.contains(spec) && refused.message.contains("sm4, hmac-sm3 or sm2"),
                "{refused:?}"
            );
        }
    }
    assert_eq!(audit::log_size(&deployment).await, before + 4, "each refusal is recorded, and nothing else");
    audit::verify(&deployment);
}

/// The commands of docs/cli.md, as somebody without a library uses them.
#[tokio::test]
async fn a_data_key_goes_through_files_to_its_recipient() {
    make_key("recipient-files", v1::Protection::HsmWrapped).await;
    let folder = TempDir::new().expect("a folder");
    make_recipient(folder.path(), "rsa", &RSA_2048);
    openssl(folder.path(), &["pkey", "-in", "rsa.pem", "-pubout", "-out", "rsa.pub"]);
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (public, for_rsa, wrapped, plain) =
        (path("rsa.pub"), path("for-rsa"), path("wrapped"), path("plain"));
    let generate = ["data-key", "generate", "--key", "recipient-files", "--spec", "aes-256"];
    let to = ["--recipient", &public, "--out-recipient", &for_rsa, "--out-ciphertext", &wrapped];
    let shown = deployment().kms("app", &[&generate[..], &to].concat()).done();
    assert!(!shown.contains("plaintext") && !shown.contains("recipient"), "all of it is in files: {shown}");
    deployment().kms("app", &["data-key", "decrypt", "--in", &wrapped, "--out-plaintext", &plain]).done();
    let oaep = ["-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256"];
    let decrypt = |sealed: &str| {
        openssl(
            folder.path(),
            &[&["pkeyutl", "-decrypt", "-inkey", "rsa.pem", "-in", sealed], &oaep[..]].concat(),
        )
    };
    assert_eq!(decrypt("for-rsa"), fs::read(&plain).expect("it was written"));
    let again = path("again");
    let arguments =
        ["data-key", "decrypt", "--in", &wrapped, "--recipient", &path("rsa.der"), "--out-recipient", &again];
    deployment().kms("app", &arguments).done();
    assert_eq!(decrypt("again"), decrypt("for-rsa"));
    deployment().kms("app", &arguments).ended_with(1).says("again exists already");
}
