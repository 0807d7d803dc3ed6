//! Which keys a deployment makes: the list of its configuration, and a token that lacks a mechanism. What was asked for is
//! made or refused; nothing else is ever made in its place.

use crate::configured::serve;
use kms_core::suite::{AeadAlgorithm, Suite};
use kms_proto::v1;
use kms_tests::rpc::refused;
use kms_tests::{Deployment, Module, Options, Rpc};
use tonic::Code;

fn create(name: &str, spec: v1::KeySpec, protection: v1::Protection) -> v1::CreateKeyRequest {
    v1::CreateKeyRequest {
        name: name.to_owned(),
        spec: spec.into(),
        protection: protection.into(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_specification_outside_the_list_is_refused_and_a_key_that_is_there_goes_on_working() {
    let deployment = serve(ToOwned::to_owned, "[keys]\nspecs = [\"aes-192\", \"hmac-sm3\", \"aes-256\"]\n");
    deployment.unseal();
    let mut admin = Rpc::connect(&deployment, "admin").await;
    let mut app = Rpc::connect(&deployment, "app").await;
    let anywhere = v1::Protection::Unspecified;
    for spec in [v1::KeySpec::Aes192, v1::KeySpec::HmacSm3, v1::KeySpec::Aes256] {
        let request = create(&format!("allowed-{}", spec as i32), spec, anywhere);
        let key = admin.keys.create_key(request).await.expect("it is in the list").into_inner();
        assert_eq!(key.spec(), spec);
    }
    for spec in [v1::KeySpec::Sm4, v1::KeySpec::Aes128, v1::KeySpec::HmacSha256] {
        for protection in [anywhere, v1::Protection::HsmResident, v1::Protection::HsmWrapped] {
            let refused = refused(admin.keys.create_key(create("refused", spec, protection)).await);
            assert_eq!(
                (refused.reason.as_str(), refused.field.as_deref()),
                ("SPEC_NOT_ALLOWED", Some("spec"))
            );
            assert_eq!(refused.code, Code::InvalidArgument);
            assert!(refused.message.contains("aes-192, hmac-sm3 or aes-256 (keys.specs"), "{refused:?}");
        }
    }
    // `resident` is an SM4 key from before the list.
    let encrypt =
        v1::EncryptRequest { key: "resident".into(), plaintext: b"x".to_vec(), ..Default::default() };
    let ciphertext = app.crypto.encrypt(encrypt).await.expect("it goes on working").into_inner().ciphertext;
    let decrypt = v1::DecryptRequest { ciphertext, ..Default::default() };
    app.crypto.decrypt(decrypt).await.expect("it goes on working");
    let rotate = v1::RotateKeyRequest { key: "resident".into(), ..Default::default() };
    assert_eq!(admin.keys.rotate_key(rotate).await.expect("rotates").into_inner().spec(), v1::KeySpec::Sm4);
    // A data key is a new key.
    let data_key = |spec: v1::KeySpec| v1::GenerateDataKeyRequest {
        key: "resident".into(),
        data_key_spec: spec.into(),
        ..Default::default()
    };
    for spec in [v1::KeySpec::Unspecified, v1::KeySpec::Sm4, v1::KeySpec::Aes128] {
        let refused = refused(app.crypto.generate_data_key(data_key(spec)).await);
        assert_eq!(refused.reason, "SPEC_NOT_ALLOWED", "{refused:?}");
        assert_eq!(refused.field.as_deref(), Some("data_key_spec"));
    }
    let made = app.crypto.generate_data_key(data_key(v1::KeySpec::Aes256)).await.expect("it is in the list");
    assert_eq!(made.into_inner().plaintext.len(), 32);
}

#[test]
fn a_list_with_an_unknown_name_stops_the_start_with_the_line() {
    let copy = crate::state_copy::StateCopy::new();
    let path = copy.path("kms.toml");
    let text = std::fs::read_to_string(&path).expect("reads");
    let line = text.lines().count() + 2;
    std::fs::write(&path, format!("{}\n[keys]\nspecs = [\"sm4\", \"des\"]\n", text.trim_end()))
        .expect("writes");
    let place = format!("line {line}");
    copy.refuses(&["run", "init", "check-config"], &["\"des\" is no key specification", &place, "specs = "]);
}

/// The token makes neither SM4 nor SM3. Whoever asks for an SM key gets one all the same, wrapped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_without_sm_mechanisms_never_makes_another_algorithm_of_it() {
    let options = Options { module: Module::SoftHsm, suite: Suite::Intl, ..Options::default() };
    let deployment = Deployment::start(options);
    let mut admin = Rpc::connect(&deployment, "admin").await;
    let mut app = Rpc::connect(&deployment, "app").await;
    for (name, spec) in [("sm4-key", v1::KeySpec::Sm4), ("sm3-key", v1::KeySpec::HmacSm3)] {
        let refused = refused(admin.keys.create_key(create(name, spec, v1::Protection::HsmResident)).await);
        assert_eq!(
            (refused.reason.as_str(), refused.field.as_deref()),
            ("SPEC_UNSUPPORTED", Some("protection"))
        );
        let made = admin.keys.create_key(create(name, spec, v1::Protection::Unspecified)).await;
        let made = made.expect("it is wrapped").into_inner();
        assert_eq!((made.spec(), made.protection()), (spec, v1::Protection::HsmWrapped));
        let rotate = v1::RotateKeyRequest { key: name.into(), ..Default::default() };
        let rotated = admin.keys.rotate_key(rotate).await.expect("rotates").into_inner();
        assert_eq!((rotated.spec(), rotated.protection()), (spec, v1::Protection::HsmWrapped));
    }
    let encrypt =
        v1::EncryptRequest { key: "sm4-key".into(), plaintext: b"x".to_vec(), ..Default::default() };
    let ciphertext = app.crypto.encrypt(encrypt).await.expect("encrypts").into_inner().ciphertext;
    let header = kms_core::envelope::open(&ciphertext).expect("ours").header;
    assert_eq!(header.algorithm, AeadAlgorithm::Sm4Gcm);
    let mac = v1::GenerateMacRequest { key: "sm3-key".into(), message: b"x".to_vec() };
    assert_eq!(app.crypto.generate_mac(mac).await.expect("makes").into_inner().mac.len(), 32);
    for (name, spec) in [("aes-128-key", v1::KeySpec::Aes128), ("sha-512-key", v1::KeySpec::HmacSha512)] {
        let made = admin.keys.create_key(create(name, spec, v1::Protection::Unspecified)).await;
        assert_eq!(made.expect("creates").into_inner().protection(), v1::Protection::HsmResident);
    }
}
