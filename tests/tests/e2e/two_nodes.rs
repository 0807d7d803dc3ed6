//! Two servers on one database: what one commits, the other one goes by at once, whatever it remembers.

use crate::state_copy::wait_for;
use kms_proto::v1;
use kms_tests::custodian::service_start;
use kms_tests::deployment::free_port;
use kms_tests::rpc::ClientCertificate;
use kms_tests::{Custodian, Deployment, JoinStream, Options, Rpc, Started, audit, binaries};
use std::ffi::OsString;
use std::fs;

/// A second server of a deployment, with a state folder and addresses of its own.
struct SecondNode {
    address: String,
    _server: Started,
}

impl SecondNode {
    fn start(deployment: &Deployment) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let metrics = format!("127.0.0.1:{}", free_port());
        let text = fs::read_to_string(deployment.state("kms.toml")).expect("the configuration");
        let text = text
            .replace(&deployment.address(), &address)
            .replace(&deployment.metrics_address(), &metrics)
            .lines()
            .map(|line| match line.starts_with("state_dir") {
                true => format!("state_dir = {:?}\n", deployment.state("second")),
                false => format!("{line}\n"),
            })
            .collect::<String>();
        fs::create_dir(deployment.state("second")).expect("a folder");
        let path = deployment.state("second.toml");
        fs::write(&path, text).expect("writes");
        let arguments: [OsString; 3] = ["run".into(), "--config".into(), path.into()];
        let environment = [(hsm_sim::DIRECTORY_VARIABLE.into(), deployment.state("tokens").into())];
        let program = binaries::program("kms-server");
        let mut server = Started::with_environment(&program, &arguments, deployment.folder(), &environment);
        wait_for(&address, &mut server);
        Self { address, _server: server }
    }

    async fn connect(&self, deployment: &Deployment, name: &str) -> Rpc {
        let certificate = ClientCertificate::of(deployment, name);
        Rpc::connect_to(&self.address, deployment, &certificate).await.expect("it listens")
    }

    async fn unseal(&self, deployment: &Deployment) {
        let mut streams = Vec::new();
        for name in ["custodian-1", "custodian-2"] {
            let rpc = self.connect(deployment, name).await;
            let stream = JoinStream::begin(&rpc, service_start(name)).await.expect("an offer");
            stream.contribute(&Custodian::open(deployment, name).answer(&stream.offer)).await;
            streams.push(stream);
        }
        for stream in &mut streams {
            stream.result().await.expect("two open the second node");
        }
    }
}

fn encrypt() -> v1::EncryptRequest {
    v1::EncryptRequest { key: "shared".into(), plaintext: b"text".to_vec(), context: vec![] }
}

#[tokio::test]
async fn a_refusal_of_one_node_is_never_older_than_what_the_other_has_committed() {
    let deployment = Deployment::start(Options::default());
    let second = SecondNode::start(&deployment);
    second.unseal(&deployment).await;
    let mut admin = Rpc::connect(&deployment, "admin").await;
    let mut app = Rpc::connect(&deployment, "app").await;
    let mut admin_there = second.connect(&deployment, "admin").await;
    let mut app_there = second.connect(&deployment, "app").await;
    for name in ["shared", "other"] {
        deployment.kms("admin", &["key", "create", name, "--spec", "sm4"]).done();
    }

    deployment.kms("admin", &["key", "create", "shared-2", "--spec", "sm4"]).done();
    deployment.kms("admin", &["alias", "create", "shared-name", "shared"]).done();

    let create = v1::CreateDataKeyRequest { name: "kept".into(), key: "other".into(), ..Default::default() };
    admin.data_keys.create_data_key(create).await.expect("a registered data key");

    let key = || "shared".to_owned();
    for _ in 0..3 {
        // What an alias names is asked of the catalogue as it is now, to use the key and to compare it.
        for target in ["shared-2", "shared"] {
            let alias = || "shared-name".to_owned();
            let before = v1::EncryptRequest { key: alias(), ..encrypt() };
            app_there.crypto.encrypt(before.clone()).await.expect("the second node remembers the alias");
            let move_on =
                v1::RetargetAliasRequest { alias: alias(), key: target.into(), ..Default::default() };
            let moved = admin.keys.retarget_alias(move_on).await.expect("moves").into_inner();
            let made = app.crypto.encrypt(before.clone()).await.expect("encrypts").into_inner();
            assert_eq!(made.key_id, moved.key_id);
            let ciphertext = made.ciphertext;
            let decrypt = v1::DecryptRequest { ciphertext, context: vec![], expected_key: alias() };
            app_there.crypto.decrypt(decrypt).await.expect("the alias names that key there, too");
            let there = app_there.crypto.encrypt(before).await.expect("encrypts").into_inner();
            assert_eq!(there.key_id, moved.key_id);
        }
        // The second node remembers the key as usable, then as suspended.
        app_there.crypto.encrypt(encrypt()).await.expect("the key is active");
        admin.keys.suspend_key(v1::SuspendKeyRequest { key: key() }).await.expect("suspends");
        app_there.crypto.encrypt(encrypt()).await.expect_err("the key is suspended");
        admin.keys.resume_key(v1::ResumeKeyRequest { key: key() }).await.expect("resumes");
        app_there.crypto.encrypt(encrypt()).await.expect("the key is active again");

        let rotate = v1::RotateKeyRequest { key: key(), ..Default::default() };
        let rotated = admin.keys.rotate_key(rotate).await.expect("rotates").into_inner();
        let made = app.crypto.encrypt(encrypt()).await.expect("encrypts").into_inner();
        assert_eq!(made.key_version, rotated.current_version);
        let decrypt = v1::DecryptRequest { ciphertext: made.ciphertext, ..Default::default() };
        let opened = app_there.crypto.decrypt(decrypt).await.expect("the new version is known there");
        assert_eq!(opened.into_inner().plaintext, b"text");
        // Neither key of a re-encryption may be remembered from before.
        let made = app_there.crypto.encrypt(encrypt()).await.expect("encrypts").into_inner();
        let again = |new_key: &str| v1::ReEncryptRequest {
            ciphertext: made.ciphertext.clone(),
            new_key: new_key.into(),
            ..Default::default()
        };
        for (new_key, suspended) in [("other", "other"), ("other", "shared")] {
            app_there.crypto.re_encrypt(again(new_key)).await.expect("both keys are active");
            let suspend = v1::SuspendKeyRequest { key: suspended.into() };
            admin.keys.suspend_key(suspend).await.expect("suspends");
            app_there.crypto.re_encrypt(again(new_key)).await.expect_err("one of them is suspended");
            let resume = v1::ResumeKeyRequest { key: suspended.into() };
            admin.keys.resume_key(resume).await.expect("resumes");
            app_there.crypto.re_encrypt(again(new_key)).await.expect("both are active again");
        }
        let described = v1::DescribeKeyRequest { key: key() };
        let described = app_there.keys.describe_key(described).await.expect("describes").into_inner();
        assert_eq!(described.current_version, rotated.current_version);

        // A registered data key that one node disables is given out by no other, and neither is one of before a rotation.
        let get = || v1::GetDataKeyRequest { name: "kept".into(), ..Default::default() };
        app_there.data_keys.get_data_key(get()).await.expect("gives");
        let disable = v1::DisableDataKeyRequest { name: "kept".into(), version: 0 };
        admin.data_keys.disable_data_key(disable).await.expect("disables");
        app_there.data_keys.get_data_key(get()).await.expect_err("it is disabled");
        let enable = v1::EnableDataKeyRequest { name: "kept".into(), version: 0 };
        admin.data_keys.enable_data_key(enable).await.expect("enables");
        let rotate = v1::RotateDataKeyRequest { name: "kept".into(), ..Default::default() };
        let rotated = admin.data_keys.rotate_data_key(rotate).await.expect("rotates").into_inner();
        let given = app_there.data_keys.get_data_key(get()).await.expect("gives").into_inner();
        assert_eq!(given.version, rotated.current_version);

        // An emergency stop must not fail because the node that is asked has missed a resumption.
        admin_there.keys.suspend_key(v1::SuspendKeyRequest { key: key() }).await.expect("suspends");
        admin.keys.resume_key(v1::ResumeKeyRequest { key: key() }).await.expect("resumes");
        admin_there.keys.suspend_key(v1::SuspendKeyRequest { key: key() }).await.expect("suspends again");
        admin.keys.resume_key(v1::ResumeKeyRequest { key: key() }).await.expect("resumes");
    }
    audit::verify(&deployment);
}
