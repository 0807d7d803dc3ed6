//! A key that was rotated a thousand times: everything opens, and a call costs what it cost before.

use kms_proto::v1;
use kms_tests::{Deployment, Options, Rpc, audit};
use std::time::{Duration, Instant};

/// Calls whose time is taken together.
const MEASURED: u32 = 300;

async fn encrypt(app: &mut Rpc, key: &str, plaintext: &[u8]) -> Vec<u8> {
    let request = v1::EncryptRequest { key: key.into(), plaintext: plaintext.to_vec(), ..Default::default() };
    app.crypto.encrypt(request).await.expect("encrypts").into_inner().ciphertext
}

async fn decrypt(app: &mut Rpc, ciphertext: &[u8]) -> v1::DecryptResponse {
    let request = v1::DecryptRequest { ciphertext: ciphertext.to_vec(), ..Default::default() };
    app.crypto.decrypt(request).await.expect("decrypts").into_inner()
}

/// Time of calls with the newest and the oldest version.
async fn measure(app: &mut Rpc, key: &str, oldest: &[u8]) -> Duration {
    let start = Instant::now();
    for _ in 0..MEASURED {
        encrypt(app, key, b"salary").await;
        decrypt(app, oldest).await;
    }
    start.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_under_any_of_a_thousand_versions_decrypts_at_the_same_cost() {
    let deployment = Deployment::start(Options::default());
    let (mut admin, mut app) =
        (Rpc::connect(&deployment, "admin").await, Rpc::connect(&deployment, "app").await);
    for (name, protection, rotation_count) in
        [("often", v1::Protection::HsmWrapped, 1_000), ("in-hsm", v1::Protection::HsmResident, 100)]
    {
        let request = v1::CreateKeyRequest {
            name: name.into(),
            spec: v1::KeySpec::Sm4.into(),
            protection: protection.into(),
            ..Default::default()
        };
        admin.keys.create_key(request).await.expect("creates");
        let mut ciphertexts = vec![encrypt(&mut app, name, b"version 1").await];
        let before = measure(&mut app, name, &ciphertexts[0]).await;
        for version in 2..=rotation_count + 1 {
            let request = v1::RotateKeyRequest { key: name.into(), ..Default::default() };
            let key = admin.keys.rotate_key(request).await.expect("rotates").into_inner();
            assert_eq!((key.current_version, key.versions.len()), (version, version as usize));
            ciphertexts.push(encrypt(&mut app, name, format!("version {version}").as_bytes()).await);
        }
        let after = measure(&mut app, name, &ciphertexts[0]).await;
        println!(
            "{name}: {rotation_count} rotations; Encrypt and Decrypt take {:.2} of the time before",
            after.as_secs_f64() / before.as_secs_f64()
        );
        for (version, ciphertext) in (1u32..).zip(&ciphertexts) {
            let opened = decrypt(&mut app, ciphertext).await;
            assert_eq!(
                (opened.key_version, opened.plaintext),
                (version, format!("version {version}").into_bytes())
            );
        }
        deployment.restart();
        (admin, app) = (Rpc::connect(&deployment, "admin").await, Rpc::connect(&deployment, "app").await);
        for place in [0, ciphertexts.len() / 2, ciphertexts.len() - 1] {
            assert_eq!(decrypt(&mut app, &ciphertexts[place]).await.key_version as usize, place + 1);
        }
    }
    audit::verify(&deployment);
}
