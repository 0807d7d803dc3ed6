//! Keys that OpenSSL makes and wraps become keys of the service, on a token that takes them and on one that has no OAEP.

use kms_core::pair::SignatureAlgorithm;
use kms_core::suite::Suite;
use kms_proto::v1;
use kms_tests::rpc::refused;
use kms_tests::{Deployment, Module, Options, Rpc, audit};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const PROTECTIONS: [v1::Protection; 2] = [v1::Protection::HsmResident, v1::Protection::HsmWrapped];

/// Runs OpenSSL in a folder.
pub fn openssl(folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("openssl").current_dir(folder).args(arguments).output();
    let output = output.expect("openssl is installed (scripts/test installs it)");
    assert!(output.status.success(), "openssl {arguments:?}: {output:?}");
    output.stdout
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What OpenSSL encrypts to the public key of an import.
fn encrypt(folder: &Path, parameters: &v1::ImportParameters, plaintext: &[u8]) -> Vec<u8> {
    fs::write(folder.join("import.der"), &parameters.public_key).expect("written");
    fs::write(folder.join("plaintext"), plaintext).expect("written");
    let mut arguments = "pkeyutl -encrypt -pubin -keyform DER -inkey import.der -in plaintext -out first"
        .split(' ')
        .collect::<Vec<_>>();
    if parameters.wrapping() == v1::ImportWrapping::RsaOaepSha256AesKwp {
        arguments.extend(["-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256"]);
        arguments.extend(["-pkeyopt", "rsa_mgf1_md:sha256"]);
    }
    openssl(folder, &arguments);
    fs::read(folder.join("first")).expect("a ciphertext")
}

/// Tag, length and content in DER.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len();
    let length = match len {
        0..0x80 => vec![len as u8],
        0x80..0x100 => vec![0x81, len as u8],
        _ => vec![0x82, (len >> 8) as u8, len as u8],
    };
    [&[tag], length.as_slice(), content].concat()
}

/// The `SM2EnvelopedKey` of GB/T 35276 with a scalar and a public point.
pub fn enveloped(folder: &Path, parameters: &v1::ImportParameters, scalar: &[u8], point: &[u8]) -> Vec<u8> {
    const SM4_ECB: [u8; 10] = [0x06, 0x08, 0x2a, 0x81, 0x1c, 0xcf, 0x55, 0x01, 0x68, 0x01];
    let transport = [0x5a; 16];
    fs::write(folder.join("scalar"), scalar).expect("written");
    let key = hex(&transport);
    let encrypted = openssl(folder, &["enc", "-sm4-ecb", "-nopad", "-K", &key, "-in", "scalar"]);
    let bits = |bytes: &[u8]| der(0x03, &[&[0], bytes].concat());
    let parts = [der(0x30, &SM4_ECB), encrypt(folder, parameters, &transport), bits(point), bits(&encrypted)];
    der(0x30, &parts.concat())
}

/// Material wrapped as docs/formats/import.md says.
pub fn wrap(folder: &Path, parameters: &v1::ImportParameters, material: &[u8]) -> Vec<u8> {
    match parameters.wrapping() {
        v1::ImportWrapping::Sm2Envelope => encrypt(folder, parameters, material),
        _ => {
            let transport = [0xa5; 32];
            let mut wrapped = encrypt(folder, parameters, &transport);
            wrapped.extend(kwp(folder, &transport, material));
            wrapped
        }
    }
}

pub fn kwp(folder: &Path, key: &[u8], material: &[u8]) -> Vec<u8> {
    fs::write(folder.join("material"), material).expect("written");
    let key = hex(key);
    let arguments = ["enc", "-id-aes256-wrap-pad", "-iv", "A65959A6", "-K", &key, "-in", "material"];
    openssl(folder, &arguments)
}

/// A private key that OpenSSL makes: PKCS#8 and SubjectPublicKeyInfo.
pub fn make_pair(folder: &Path, spec: v1::KeySpec) -> (Vec<u8>, Vec<u8>) {
    let (algorithm, option) = match spec {
        v1::KeySpec::Rsa2048 => ("RSA", "rsa_keygen_bits:2048"),
        v1::KeySpec::Rsa3072 => ("RSA", "rsa_keygen_bits:3072"),
        v1::KeySpec::Rsa4096 => ("RSA", "rsa_keygen_bits:4096"),
        v1::KeySpec::EcP256 => ("EC", "ec_paramgen_curve:P-256"),
        v1::KeySpec::EcP384 => ("EC", "ec_paramgen_curve:P-384"),
        v1::KeySpec::EcP521 => ("EC", "ec_paramgen_curve:P-521"),
        v1::KeySpec::Sm2 => ("EC", "ec_paramgen_curve:SM2"),
        _ => ("ED25519", ""),
    };
    let mut arguments = vec!["genpkey", "-algorithm", algorithm, "-out", "key.pem"];
    if !option.is_empty() {
        arguments.extend(["-pkeyopt", option]);
    }
    openssl(folder, &arguments);
    let pkcs8 = openssl(folder, &["pkcs8", "-topk8", "-nocrypt", "-in", "key.pem", "-outform", "DER"]);
    let spki = openssl(folder, &["pkey", "-in", "key.pem", "-pubout", "-outform", "DER"]);
    (pkcs8, spki)
}

pub async fn parameters(admin: &mut Rpc, spec: v1::KeySpec) -> v1::ImportParameters {
    let request = v1::GetImportParametersRequest { wrapping_key_spec: spec.into(), valid_seconds: 0 };
    let parameters = admin.keys.get_import_parameters(request).await.expect("parameters").into_inner();
    assert_eq!(parameters.wrapping_key_spec(), spec);
    parameters
}

pub fn request(
    name: &str,
    spec: v1::KeySpec,
    protection: v1::Protection,
    parameters: &v1::ImportParameters,
    wrapped_material: Vec<u8>,
) -> v1::ImportKeyMaterialRequest {
    let key = v1::CreateKeyRequest {
        name: name.to_owned(),
        spec: spec.into(),
        protection: protection.into(),
        ..Default::default()
    };
    v1::ImportKeyMaterialRequest {
        import_id: parameters.import_id.clone(),
        key: Some(key),
        wrapped_material,
        check_value: vec![],
    }
}

#[track_caller]
fn is_imported(key: &v1::Key, protection: v1::Protection) {
    assert_eq!((key.state(), key.protection()), (v1::KeyState::Active, protection), "{key:?}");
    assert_eq!(key.versions[0].origin(), v1::KeyOrigin::Imported);
}

/// Keys of ciphers and MACs: the check value and the MAC are those that OpenSSL computes with the key.
async fn secret_keys_do_what_openssl_does_with_them(
    deployment: &Deployment,
    wrapping: v1::KeySpec,
    ciphers: &[(v1::KeySpec, &str, usize)],
    macs: &[(v1::KeySpec, &str, usize)],
) {
    let (folder, mut admin) =
        (tempfile::tempdir().expect("a folder"), Rpc::connect(deployment, "admin").await);
    let (folder, mut app) = (folder.path(), Rpc::connect(deployment, "app").await);
    for protection in PROTECTIONS {
        for (spec, cipher, len) in ciphers {
            let name = &format!("brought-{cipher}-{}", protection as i32);
            let material: Vec<u8> = (1..=*len as u8).map(|byte| byte.wrapping_mul(37)).collect();
            fs::write(folder.join("zeros"), [0; 16]).expect("written");
            let key = hex(&material);
            let block = openssl(folder, &["enc", cipher, "-nopad", "-K", &key, "-in", "zeros"]);
            let parameters = parameters(&mut admin, wrapping).await;
            let wrapped = wrap(folder, &parameters, &material);
            let mut import = request(name, *spec, protection, &parameters, wrapped);
            import.check_value = block[..3].to_vec();
            let made = admin.keys.import_key_material(import).await.expect("is taken").into_inner();
            is_imported(&made, protection);
            assert_eq!(made.versions[0].check_value, block[..3]);
            let encrypt =
                v1::EncryptRequest { key: name.clone(), plaintext: b"x".into(), ..Default::default() };
            let ciphertext = app.crypto.encrypt(encrypt).await.expect("encrypts").into_inner().ciphertext;
            let decrypt = v1::DecryptRequest { ciphertext, ..Default::default() };
            assert_eq!(app.crypto.decrypt(decrypt).await.expect("decrypts").into_inner().plaintext, b"x");
            let rotate = v1::RotateKeyRequest { key: name.clone(), ..Default::default() };
            let rotated = admin.keys.rotate_key(rotate).await.expect("rotates").into_inner();
            let origins: Vec<_> = rotated.versions.iter().map(v1::KeyVersion::origin).collect();
            assert_eq!(origins, [v1::KeyOrigin::Imported, v1::KeyOrigin::Generated]);
        }
        for (spec, digest, len) in macs {
            let name = &format!("brought-{digest}-{}", protection as i32);
            let material: Vec<u8> = (1..=*len as u8).map(|byte| byte.wrapping_mul(91)).collect();
            let parameters = parameters(&mut admin, wrapping).await;
            let wrapped = wrap(folder, &parameters, &material);
            let import = request(name, *spec, protection, &parameters, wrapped);
            let made = admin.keys.import_key_material(import).await.expect("is taken").into_inner();
            is_imported(&made, protection);
            fs::write(folder.join("message"), "a message").expect("written");
            let option = format!("hexkey:{}", hex(&material));
            let arguments = ["dgst", "-mac", "HMAC", "-macopt", &option, digest, "-binary", "message"];
            let expected = openssl(folder, &arguments);
            let mac = v1::GenerateMacRequest { key: name.clone(), message: b"a message".to_vec() };
            assert_eq!(app.crypto.generate_mac(mac).await.expect("makes").into_inner().mac, expected);
        }
    }
}

/// Pairs: what they sign verifies under the public key that OpenSSL knows.
async fn pairs_sign_as_their_owner(
    deployment: &Deployment,
    specs: &[v1::KeySpec],
    residents: &[v1::KeySpec],
) {
    let (folder, mut admin) =
        (tempfile::tempdir().expect("a folder"), Rpc::connect(deployment, "admin").await);
    let (folder, mut app) = (folder.path(), Rpc::connect(deployment, "app").await);
    for spec in specs {
        let (pkcs8, spki) = make_pair(folder, *spec);
        for protection in PROTECTIONS {
            let name = &format!("brought-{}-{}", *spec as i32, protection as i32);
            let parameters = parameters(&mut admin, v1::KeySpec::Rsa3072).await;
            let wrapped = wrap(folder, &parameters, &pkcs8);
            let mut import = request(name, *spec, protection, &parameters, wrapped);
            if protection == v1::Protection::HsmResident && !residents.contains(spec) {
                let refused = refused(admin.keys.import_key_material(import.clone()).await);
                assert_eq!(refused.reason, "SPEC_UNSUPPORTED", "{refused:?}");
                // The import is as it was.
                import.key.as_mut().expect("a key").protection = v1::Protection::Unspecified.into();
                let made = admin.keys.import_key_material(import).await.expect("is taken").into_inner();
                is_imported(&made, v1::Protection::HsmWrapped);
                continue;
            }
            let made = admin.keys.import_key_material(import).await.expect("is taken").into_inner();
            is_imported(&made, protection);
            let public = v1::GetPublicKeyRequest { key: name.clone() };
            let public = app.crypto.get_public_key(public).await.expect("reads").into_inner();
            assert_eq!(public.public_key, spki, "{spec:?} {protection:?}");
            let sign =
                v1::SignRequest { key: name.clone(), input: b"a message".to_vec(), ..Default::default() };
            let signed = app.crypto.sign(sign).await.expect("signs").into_inner();
            let algorithm = SignatureAlgorithm::from_number(signed.algorithm as u16).expect("known");
            verifies(folder, &spki, algorithm, &signed.signature);
        }
    }
}

/// OpenSSL takes the signature over "a message" under the owner's public key.
fn verifies(folder: &Path, spki: &[u8], algorithm: SignatureAlgorithm, signature: &[u8]) {
    fs::write(folder.join("public.der"), spki).expect("written");
    fs::write(folder.join("signature"), signature).expect("written");
    fs::write(folder.join("message"), "a message").expect("written");
    let name = algorithm.to_string();
    let mut arguments =
        "pkeyutl -verify -pubin -keyform DER -inkey public.der -sigfile signature -rawin -in message"
            .split(' ')
            .collect::<Vec<_>>();
    match name.as_str() {
        "ed25519" => {}
        "sm2-sm3" => arguments.extend(["-digest", "sm3", "-pkeyopt", "distid:1234567812345678"]),
        "ecdsa-sha-384" => arguments.extend(["-digest", "sha384"]),
        "ecdsa-sha-512" => arguments.extend(["-digest", "sha512"]),
        "ecdsa-sha-256" => arguments.extend(["-digest", "sha256"]),
        _ => arguments.extend([
            "-digest",
            "sha256",
            "-pkeyopt",
            "rsa_padding_mode:pss",
            "-pkeyopt",
            "rsa_pss_saltlen:32",
        ]),
    }
    openssl(folder, &arguments);
}

/// What the log says about imports, until as many have ended as have begun: their key pairs are gone then.
async fn every_import_ends(deployment: &Deployment) {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let entries = audit::records_from(deployment, 0).await;
        let count = |event: &str| {
            let is_one =
                |entry: &&kms_tests::LogEntry| entry.record.event == event && entry.record.outcome == "done";
            entries.iter().filter(is_one).count()
        };
        let (begun, ended) = (count("import.begin"), count("import.end"));
        assert!(begun > 0 && ended <= begun);
        if begun == ended {
            return;
        }
        assert!(Instant::now() < end, "{begun} imports have begun, {ended} have ended");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

const CIPHERS: [(v1::KeySpec, &str, usize); 3] = [
    (v1::KeySpec::Aes128, "-aes-128-ecb", 16),
    (v1::KeySpec::Aes192, "-aes-192-ecb", 24),
    (v1::KeySpec::Aes256, "-aes-256-ecb", 32),
];
const MACS: [(v1::KeySpec, &str, usize); 3] = [
    (v1::KeySpec::HmacSha256, "-sha256", 32),
    (v1::KeySpec::HmacSha384, "-sha384", 48),
    (v1::KeySpec::HmacSha512, "-sha512", 64),
];
const PAIRS: [v1::KeySpec; 8] = [
    v1::KeySpec::Rsa2048,
    v1::KeySpec::Rsa3072,
    v1::KeySpec::Rsa4096,
    v1::KeySpec::EcP256,
    v1::KeySpec::EcP384,
    v1::KeySpec::EcP521,
    v1::KeySpec::Ed25519,
    v1::KeySpec::Sm2,
];

/// Everything into hsm-sim, with pairs that the HSM made for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_key_is_brought_to_the_simulator() {
    let deployment = Deployment::start(Options::default());
    let ciphers = [CIPHERS.as_slice(), &[(v1::KeySpec::Sm4, "-sm4-ecb", 16)]].concat();
    let macs = [MACS.as_slice(), &[(v1::KeySpec::HmacSm3, "-sm3", 32)]].concat();
    secret_keys_do_what_openssl_does_with_them(&deployment, v1::KeySpec::Sm2, &ciphers, &macs).await;
    pairs_sign_as_their_owner(&deployment, &PAIRS, &PAIRS).await;
    let (folder, mut admin) =
        (tempfile::tempdir().expect("a folder"), Rpc::connect(&deployment, "admin").await);
    // An SM2 pair as GB/T 35276 wraps it.
    for protection in PROTECTIONS {
        let (_, spki) = make_pair(folder.path(), v1::KeySpec::Sm2);
        let text = openssl(folder.path(), &["pkey", "-in", "key.pem", "-noout", "-text"]);
        let text = String::from_utf8(text).expect("text");
        let digits = text.split("priv:").nth(1).and_then(|rest| rest.split("pub:").next()).expect("a scalar");
        let digits: String = digits.chars().filter(char::is_ascii_hexdigit).collect();
        let scalar: Vec<u8> = (0..digits.len())
            .step_by(2)
            .map(|place| u8::from_str_radix(&digits[place..place + 2], 16).expect("hexadecimal"))
            .collect();
        let scalar = [vec![0; 32_usize.saturating_sub(scalar.len())], scalar].concat();
        let scalar = &scalar[scalar.len() - 32..];
        let parameters = parameters(&mut admin, v1::KeySpec::Sm2).await;
        let envelope = enveloped(folder.path(), &parameters, scalar, &spki[spki.len() - 65..]);
        let name = &format!("enveloped-{}", protection as i32);
        let import = request(name, v1::KeySpec::Sm2, protection, &parameters, envelope);
        let made = admin.keys.import_key_material(import).await.expect("is taken").into_inner();
        is_imported(&made, protection);
        let public = v1::GetPublicKeyRequest { key: name.clone() };
        let public = admin.crypto.get_public_key(public).await.expect("reads").into_inner();
        assert_eq!(public.public_key, spki);
    }
    every_import_ends(&deployment).await;
    // They are keys like others after a restart.
    deployment.restart();
    let mut app = Rpc::connect(&deployment, "app").await;
    let mac = v1::GenerateMacRequest { key: "brought--sm3-1".into(), message: b"a message".to_vec() };
    app.crypto.generate_mac(mac).await.expect("makes");
    audit::verify(&deployment);
}

/// SoftHSM has no OAEP with SHA-256: the one-time pairs are the server's, and the keys go into the token all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_key_that_softhsm_knows_is_brought_to_it() {
    let options = Options { module: Module::SoftHsm, suite: Suite::Intl, ..Options::default() };
    let deployment = Deployment::start(options);
    secret_keys_do_what_openssl_does_with_them(&deployment, v1::KeySpec::Rsa3072, &CIPHERS, &MACS).await;
    pairs_sign_as_their_owner(&deployment, &PAIRS, &PAIRS[..7]).await;
    every_import_ends(&deployment).await;
    audit::verify(&deployment);
}
