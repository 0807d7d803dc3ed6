//! Encrypting again: across keys, contexts and versions, and what the log and the usage report say about it.

use kms_core::suite::Suite;
use kms_proto::v1;
use kms_tests::{Deployment, Options, Rpc, audit};

const PROTECTIONS: [v1::Protection; 2] = [v1::Protection::HsmResident, v1::Protection::HsmWrapped];

fn context(value: &str) -> Vec<v1::ContextPair> {
    vec![v1::ContextPair { key: "file".into(), value: value.into() }]
}

struct Scene {
    deployment: Deployment,
    admin: Rpc,
    app: Rpc,
    spec: v1::KeySpec,
}

impl Scene {
    async fn make(&mut self, name: &str, protection: v1::Protection) -> String {
        let request = v1::CreateKeyRequest {
            name: name.into(),
            spec: self.spec.into(),
            protection: protection.into(),
            ..Default::default()
        };
        self.admin.keys.create_key(request).await.expect("creates").into_inner().key_id
    }

    /// Encryptions and decryptions of a version, as the usage report counts them.
    async fn usage(&mut self, key: &str, version: u32) -> (u64, u64) {
        let request = v1::GetUsageReportRequest { key: key.into() };
        let report = self.admin.keys.get_usage_report(request).await.expect("reports").into_inner();
        let found = report.versions.iter().find(|one| one.version == version);
        found.map_or((0, 0), |one| (one.encryptions, one.decryptions))
    }
}

async fn data_goes_from_key_to_key(scene: &mut Scene, from: v1::Protection, to: v1::Protection) {
    let (old, new) =
        (format!("old-{}-{}", from as i32, to as i32), format!("new-{}-{}", from as i32, to as i32));
    let (old_id, new_id) = (scene.make(&old, from).await, scene.make(&new, to).await);
    let encrypt =
        v1::EncryptRequest { key: old.clone(), plaintext: b"salary".to_vec(), context: context("a") };
    let sealed = scene.app.crypto.encrypt(encrypt).await.expect("encrypts").into_inner().ciphertext;
    let request = v1::ReEncryptRequest {
        ciphertext: sealed.clone(),
        context: context("a"),
        expected_key: format!("{old}@1"),
        new_key: new.clone(),
        new_context: context("b"),
    };
    let answer = scene.app.crypto.re_encrypt(request).await.expect("encrypts again");
    let request_id = answer.metadata().get("x-request-id").expect("an id").to_str().expect("text").to_owned();
    let made = answer.into_inner();
    assert_eq!((&made.key_id, made.key_version), (&new_id, 1));
    assert_eq!((&made.old_key_id, made.old_key_version), (&old_id, 1));
    let decrypt = |ciphertext: &[u8], value: &str, expected: &str| v1::DecryptRequest {
        ciphertext: ciphertext.to_vec(),
        context: context(value),
        expected_key: expected.into(),
    };
    let opened = scene.app.crypto.decrypt(decrypt(&made.ciphertext, "b", &new)).await.expect("opens");
    assert_eq!(opened.into_inner().plaintext, b"salary");
    scene.app.crypto.decrypt(decrypt(&made.ciphertext, "a", "")).await.expect_err("the old context");
    let opened =
        scene.app.crypto.decrypt(decrypt(&sealed, "a", &old)).await.expect("the old one still opens");
    assert_eq!(opened.into_inner().plaintext, b"salary");

    // One record for both keys, which a look at either shows.
    for key in [&old, &new] {
        let mut auditor = Rpc::connect(&scene.deployment, "auditor").await;
        let list = v1::ListRecordsRequest { key: key.clone(), count_max: 1000, ..Default::default() };
        let mut records = auditor.audit.list_records(list).await.expect("lists").into_inner();
        let mut found = Vec::new();
        while let Some(listed) = records.message().await.expect("a record") {
            let record: kms_core::audit::Record = kms_core::codec::open(&listed.body).expect("a record");
            if record.request_id == request_id {
                found.push(record);
            }
        }
        let [record] = found.as_slice() else { panic!("{} records", found.len()) };
        assert_eq!((record.event.as_str(), record.outcome.as_str()), ("data.reencrypt", "done"));
        assert_eq!(record.key_id.map(|id| id.to_string()), Some(new_id.clone()));
        assert_eq!(record.key_version.map(|version| version.number()), Some(1));
        let details: Vec<_> =
            record.details.iter().map(|detail| (detail.name.as_str(), detail.value.as_str())).collect();
        assert_eq!(details, [("from", format!("{old_id}@1").as_str()), ("purpose", "data")]);
    }
    assert_eq!(scene.usage(&old, 1).await, (1, 2), "encrypted once; encrypted again, and decrypted once");
    assert_eq!(scene.usage(&new, 1).await, (1, 1));
}

async fn a_data_key_follows_a_rotation(scene: &mut Scene, protection: v1::Protection) {
    let name = format!("rotated-{}", protection as i32);
    let key_id = scene.make(&name, protection).await;
    let generate =
        v1::GenerateDataKeyRequest { key: name.clone(), context: context("a"), ..Default::default() };
    let data_key = scene.app.crypto.generate_data_key(generate).await.expect("generates").into_inner();
    let rotate = v1::RotateKeyRequest { key: name.clone(), ..Default::default() };
    scene.admin.keys.rotate_key(rotate).await.expect("rotates");
    let request = v1::ReEncryptRequest {
        ciphertext: data_key.ciphertext,
        context: context("a"),
        new_context: context("a"),
        ..Default::default()
    };
    let made = scene.app.crypto.re_encrypt(request).await.expect("encrypts again").into_inner();
    assert_eq!((&made.key_id, made.key_version, made.old_key_version), (&key_id, 2, 1));
    assert_eq!(made.old_key_id, key_id);
    let as_data = v1::DecryptRequest {
        ciphertext: made.ciphertext.clone(),
        context: context("a"),
        ..Default::default()
    };
    scene.app.crypto.decrypt(as_data).await.expect_err("it is still a data key");
    let opened = v1::DecryptDataKeyRequest {
        ciphertext: made.ciphertext,
        context: context("a"),
        expected_key: format!("{name}@2"),
        recipient: None,
    };
    let opened = scene.app.crypto.decrypt_data_key(opened).await.expect("opens").into_inner();
    assert_eq!(opened.plaintext, data_key.plaintext);
    assert_eq!(scene.usage(&name, 1).await, (0, 1));
    assert_eq!(scene.usage(&name, 2).await, (1, 1));
}

async fn story(suite: Suite, spec: v1::KeySpec) {
    let deployment = Deployment::start(Options { suite, ..Options::default() });
    let (admin, app) = (Rpc::connect(&deployment, "admin").await, Rpc::connect(&deployment, "app").await);
    let mut scene = Scene { deployment, admin, app, spec };
    for from in PROTECTIONS {
        for to in PROTECTIONS {
            data_goes_from_key_to_key(&mut scene, from, to).await;
        }
        a_data_key_follows_a_rotation(&mut scene, from).await;
    }
    audit::verify(&scene.deployment);
}

#[tokio::test]
async fn what_was_encrypted_goes_to_another_key_context_or_version_in_the_sm_suite() {
    story(Suite::Sm, v1::KeySpec::Sm4).await;
}

#[tokio::test]
async fn what_was_encrypted_goes_to_another_key_context_or_version_in_the_international_suite() {
    story(Suite::Intl, v1::KeySpec::Aes256).await;
}
