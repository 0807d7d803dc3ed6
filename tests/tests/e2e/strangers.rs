//! Certificates that open no door.

use kms_proto::v1;
use kms_tests::certificates::{Authority, Wanted};
use kms_tests::rpc::{ClientCertificate, refused};
use kms_tests::{Deployment, Options, Rpc, audit};
use rcgen::ExtendedKeyUsagePurpose;
use tonic::Code;

/// The TLS layer refuses: at the handshake, or at the first call, because TLS 1.3 lets a client finish first.
async fn is_kept_out(deployment: &Deployment, certificate: &ClientCertificate, what: &str) {
    let Ok(mut rpc) = Rpc::connect_with(deployment, certificate).await else { return };
    let answer = rpc.system.get_status(v1::GetStatusRequest {}).await;
    let refused = refused(answer);
    assert_eq!(refused.reason, "", "{what} got past TLS: {refused:?}");
}

async fn is_unknown(deployment: &Deployment, certificate: &ClientCertificate, what: &str) {
    let mut rpc = Rpc::connect_with(deployment, certificate).await.expect("TLS accepts");
    let answers = [
        refused(rpc.system.get_status(v1::GetStatusRequest {}).await),
        refused(rpc.system.who_am_i(v1::WhoAmIRequest {}).await),
        refused(rpc.system.seal(v1::SealRequest {}).await),
        refused(rpc.keys.list_keys(v1::ListKeysRequest::default()).await),
        refused(rpc.crypto.encrypt(v1::EncryptRequest::default()).await),
        refused(rpc.audit.export(v1::ExportRequest {}).await),
        refused(rpc.ceremony.join(tokio_stream::empty()).await),
    ];
    for answer in answers {
        assert_eq!(answer.reason, "PRINCIPAL_UNKNOWN", "{what}: {answer:?}");
        assert_eq!(answer.code, Code::PermissionDenied, "{what}");
    }
}

#[tokio::test]
async fn a_stranger_is_refused_everywhere_and_counted_in_the_log() {
    let deployment = Deployment::start(Options::default());
    let (trusted, untrusted) = (Authority::of(&deployment), Authority::of_nobody());
    let app = ["kms://default/operator/app"];

    let foreign = untrusted.issue(&Wanted::client(&app));
    is_kept_out(&deployment, &foreign, "a listed name from another authority").await;
    let expired = trusted.issue(&Wanted { years: (2020, 2021), ..Wanted::client(&app) });
    is_kept_out(&deployment, &expired, "an expired certificate").await;
    let server =
        trusted.issue(&Wanted { usage: ExtendedKeyUsagePurpose::ServerAuth, ..Wanted::client(&app) });
    is_kept_out(&deployment, &server, "a server's certificate").await;

    for (what, uris) in [
        ("an unlisted name", vec!["kms://default/operator/mallory"]),
        ("a listed name in another role", vec!["kms://default/administrator/app"]),
        ("a listed name in another tenant", vec!["kms://other/operator/app"]),
        ("two names", vec!["kms://default/operator/app", "kms://default/administrator/admin"]),
        ("no name", vec![]),
        ("another scheme", vec!["https://default/operator/app"]),
    ] {
        let certificate = trusted.issue(&Wanted::client(&uris));
        is_unknown(&deployment, &certificate, what).await;
    }
    let listed = trusted.issue(&Wanted::client(&app));
    let mut rpc = Rpc::connect_with(&deployment, &listed).await.expect("a listed name is let in");
    rpc.system.get_status(v1::GetStatusRequest {}).await.expect("and served");

    // Strangers are counted and written once a minute, and when the service ends.
    deployment.restart();
    let entries = audit::records_from(&deployment, 0).await;
    let stranger = entries
        .iter()
        .find(|entry| entry.record.actor == "kms://default/operator/mallory")
        .expect("the stranger is in the log");
    assert_eq!(stranger.record.event, "auth.unknown-principal");
    assert!(stranger.is_refusal("PRINCIPAL_UNKNOWN"));
    assert_eq!(stranger.detail("calls"), Some("7"));
    audit::verify(&deployment);
}
