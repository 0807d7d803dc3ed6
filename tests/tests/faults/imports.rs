//! Keys from elsewhere and power cuts: an import is done, or can be done again, and no step leaves anything behind.

use kms_core::mac::MacAlgorithm;
use kms_core::pair::PairPublicKey;
use kms_hsm::encrypt_to;
use kms_proto::v1;
use kms_tests::rpc::ClientCertificate;
use kms_tests::{Deployment, Options, Rpc, audit};
use std::time::Duration;

/// The steps that only an import reaches, beside those of [`crate::destruction`], which its end reaches.
pub const STEPS: [&str; 4] =
    ["hsm.before-import", "hsm.after-import", "hsm.before-decrypt_with", "hsm.after-decrypt_with"];

/// What an import has come to on the client's side.
struct Attempt {
    request: v1::ImportKeyMaterialRequest,
    material: Vec<u8>,
}

async fn begin(admin: &mut Rpc, name: &str) -> Option<Attempt> {
    let asked = v1::GetImportParametersRequest::default();
    let parameters = admin.keys.get_import_parameters(asked).await.ok()?.into_inner();
    let public = PairPublicKey::from_spki(&parameters.public_key).expect("a public key");
    let mut material = vec![0; 32];
    getrandom::fill(&mut material).expect("the system has randomness");
    let key = v1::CreateKeyRequest {
        name: name.to_owned(),
        spec: v1::KeySpec::HmacSm3.into(),
        idempotency_token: name.to_owned(),
        ..Default::default()
    };
    let request = v1::ImportKeyMaterialRequest {
        import_id: parameters.import_id,
        key: Some(key),
        wrapped_material: encrypt_to(&public, &material).expect("encrypts"),
        check_value: vec![],
    };
    Some(Attempt { request, material })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_that_is_killed_at_any_step_is_finished_or_done_again() {
    let deployment = Deployment::start(Options::default());
    let calls = STEPS.iter().chain(&crate::destruction::STEPS).chain(&[
        "hsm.after-create",
        "hsm.before-seal",
        "hsm.after-seal",
        "hsm.before-confirm",
        "hsm.after-confirm",
    ]);
    let steps = calls.flat_map(|step| (1..=2).map(move |count| format!("{step}:{count}")));
    // The first batches are the unseal's.
    let commits = ["commit.head-locked", "commit.segment-written", "commit.committed"];
    let commit_steps = commits.iter().flat_map(|step| (2..=9).map(move |count| format!("{step}:{count}")));
    let (mut killed_count, mut again_count) = (0, 0);
    for (round, armed) in steps.chain(commit_steps).enumerate() {
        let name = format!("brought-{round}");
        deployment.terminate();
        let is_up = deployment.try_start_with(&[("KMS_CRASH_AT".into(), armed.clone().into())]).is_ok();
        let (mut attempt, mut is_acknowledged) = (None, false);
        let certificate = ClientCertificate::of(&deployment, "admin");
        // It may have ended by now.
        if is_up && let Ok(mut admin) = Rpc::connect_with(&deployment, &certificate).await {
            attempt = begin(&mut admin, &name).await;
            if let Some(attempt) = &attempt {
                is_acknowledged = admin.keys.import_key_material(attempt.request.clone()).await.is_ok();
            }
        }
        let ended = if is_up { deployment.wait_until_ended(Duration::from_secs(1)) } else { None };
        killed_count += usize::from(!is_up || ended.is_some());
        if is_up && ended.is_none() {
            deployment.terminate();
        }
        deployment.start_again();
        let mut admin = Rpc::connect(&deployment, "admin").await;
        if !is_acknowledged {
            again_count += 1;
            // With what was got before, or with new parameters when nothing was.
            if attempt.is_none() {
                attempt = begin(&mut admin, &name).await;
            }
            let request = attempt.as_ref().expect("parameters").request.clone();
            admin.keys.import_key_material(request).await.unwrap_or_else(|refused| {
                panic!("{armed}: an import that was not acknowledged cannot be repeated: {refused:?}")
            });
        }
        // It is the key that was brought, and not one that was made in its place.
        let material = attempt.expect("parameters").material;
        let described = v1::DescribeKeyRequest { key: name.clone() };
        let key = admin.keys.describe_key(described).await.expect("it is there").into_inner();
        assert_eq!(key.state(), v1::KeyState::Active, "{armed}");
        assert_eq!(key.versions[0].origin(), v1::KeyOrigin::Imported, "{armed}");
        let mut app = Rpc::connect(&deployment, "app").await;
        let generate = v1::GenerateMacRequest { key: name, message: b"message".to_vec() };
        let mac = app.crypto.generate_mac(generate).await.expect("makes").into_inner().mac;
        assert!(MacAlgorithm::HmacSm3.mac(&material, b"message").is_equal(&mac), "{armed}: another key");
    }
    assert!(killed_count >= 25 && again_count >= 15, "the steps are reached: {killed_count}, {again_count}");
    // Whatever is in the token is named by a row.
    deployment.restart();
    assert!(!deployment.last_log().contains("is not known; it is left alone"), "{}", deployment.last_log());
    audit::verify(&deployment);
}
