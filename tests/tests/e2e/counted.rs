//! Resident keys are counted: a deployment that allows forty encryptions.

use crate::configured::{serve, wait_until_served};
use kms_proto::v1;
use kms_tests::rpc::refused;
use kms_tests::{Rpc, audit};

fn encrypt() -> v1::EncryptRequest {
    v1::EncryptRequest { key: "resident".into(), plaintext: b"text".to_vec(), context: vec![] }
}

async fn describe(rpc: &mut Rpc) -> Vec<(u64, bool)> {
    let request = v1::DescribeKeyRequest { key: "resident".into() };
    let key = rpc.keys.describe_key(request).await.expect("describes").into_inner();
    key.versions.iter().map(|one| (one.encryptions_taken, one.is_rotation_advised)).collect()
}

#[tokio::test]
async fn a_resident_key_encrypts_as_often_as_it_may_and_decrypts_ever_after() {
    let deployment = serve(str::to_owned, "[keys]\nresident_encryptions_max = 40\n");
    deployment.unseal();
    let mut app = Rpc::connect(&deployment, "app").await;
    let mut admin = Rpc::connect(&deployment, "admin").await;
    deployment.kms("admin", &["key", "create", "sealed", "--spec", "sm4", "--protection", "wrapped"]).done();
    assert_eq!(describe(&mut admin).await, [(0, false)]);
    let mut ciphertexts = Vec::new();
    for _ in 0..10 {
        ciphertexts.push(app.crypto.encrypt(encrypt()).await.expect("encrypts").into_inner().ciphertext);
    }
    // Data keys count alike, also at the same time.
    let data_keys = (0..10).map(|_| {
        let mut crypto = app.crypto.clone();
        let request = v1::GenerateDataKeyRequest { key: "resident".into(), ..Default::default() };
        tokio::spawn(async move { crypto.generate_data_key(request).await })
    });
    for made in data_keys.collect::<Vec<_>>() {
        made.await.expect("no panic").expect("makes a data key");
    }
    assert_eq!(describe(&mut admin).await, [(20, true)], "half of it is gone");

    // What was taken is taken, whatever a restart forgets.
    let changed = deployment.state("changed.toml");
    assert!(deployment.terminate().success());
    deployment.run_with(&changed);
    wait_until_served(&deployment);
    deployment.unseal();
    let mut app = Rpc::connect(&deployment, "app").await;
    let mut admin = Rpc::connect(&deployment, "admin").await;
    let mut made = 0;
    let last = loop {
        match app.crypto.encrypt(encrypt()).await {
            Ok(_) => made += 1,
            refusal => break refused(refusal),
        }
    };
    assert_eq!((last.reason.as_str(), made), ("KEY_EXHAUSTED", 20), "{last:?}");
    for ciphertext in ciphertexts {
        let request = v1::DecryptRequest { ciphertext, ..Default::default() };
        assert_eq!(app.crypto.decrypt(request).await.expect("decrypts").into_inner().plaintext, b"text");
    }
    for _ in 0..50 {
        let request = v1::EncryptRequest { key: "sealed".into(), ..encrypt() };
        app.crypto.encrypt(request).await.expect("a wrapped key has no limit");
    }
    let rotate = v1::RotateKeyRequest { key: "resident".into(), ..Default::default() };
    admin.keys.rotate_key(rotate).await.expect("rotates");
    app.crypto.encrypt(encrypt()).await.expect("the new version encrypts");
    assert_eq!(describe(&mut admin).await, [(40, true), (1, false)]);
    let entries = audit::records_from(&deployment, 0).await;
    let taken: Vec<&str> = entries
        .iter()
        .filter(|entry| entry.record.event == "key.encryptions")
        .filter_map(|entry| entry.detail("taken"))
        .collect();
    let expected: Vec<String> = (1..=40).chain([1]).map(|number: u32| number.to_string()).collect();
    assert_eq!(taken, expected, "each block is in the log before it is used");
    audit::verify(&deployment);
}
