//! What stands beside the interface of the service: gRPC health and reflection, and the log for operators.

use crate::configured::{PATIENCE, serve};
use kms_proto::v1;
use kms_tests::certificates::{Authority, Wanted};
use kms_tests::rpc::{ClientCertificate, channel, refused};
use kms_tests::{Deployment, Options, Rpc};
use std::collections::BTreeSet;
use std::time::Instant;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Request, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

/// The service whose health follows the seal.
const CRYPTO: &str = "kms.v1.Crypto";

fn about(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

async fn health(client: &mut HealthClient<Channel>, service: &str) -> Result<ServingStatus, Code> {
    let answer = client.check(about(service)).await.map_err(|status| status.code())?;
    Ok(answer.into_inner().status())
}

async fn wait_for(watched: &mut Streaming<HealthCheckResponse>, expected: ServingStatus) {
    let end = Instant::now() + PATIENCE;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let next = timeout(left, watched.message()).await.expect("the health changes in time");
        let status = next.expect("the stream goes on").expect("the stream goes on").status();
        if status == expected {
            return;
        }
    }
}

async fn connect(deployment: &Deployment, certificate: Option<&ClientCertificate>) -> Channel {
    channel(&deployment.address(), deployment, certificate).await.expect("it connects")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_follows_the_seal_and_answers_while_sealed() {
    let deployment = Deployment::start(Options { sealed: true, ..Options::default() });
    let app = ClientCertificate::of(&deployment, "app");
    let mut client = HealthClient::new(connect(&deployment, Some(&app)).await);
    let mut watched = client.watch(about(CRYPTO)).await.expect("it can be watched").into_inner();
    wait_for(&mut watched, ServingStatus::NotServing).await;
    assert_eq!(health(&mut client, CRYPTO).await, Ok(ServingStatus::NotServing));
    assert_eq!(health(&mut client, "").await, Ok(ServingStatus::Serving), "a sealed server runs");
    assert_eq!(health(&mut client, "kms.v1.Nothing").await, Err(Code::NotFound));

    deployment.unseal();
    wait_for(&mut watched, ServingStatus::Serving).await;
    assert_eq!(health(&mut client, CRYPTO).await, Ok(ServingStatus::Serving));
    deployment.kms("admin", &["seal"]).done();
    wait_for(&mut watched, ServingStatus::NotServing).await;
    assert_eq!(health(&mut client, CRYPTO).await, Ok(ServingStatus::NotServing));
    assert_eq!(health(&mut client, "").await, Ok(ServingStatus::Serving));

    // A load balancer needs a certificate of the authority, and no place in the bundle.
    let nobody = Authority::of(&deployment).issue(&Wanted::client(&[]));
    let mut balancer = HealthClient::new(connect(&deployment, Some(&nobody)).await);
    assert_eq!(health(&mut balancer, CRYPTO).await, Ok(ServingStatus::NotServing));
    if let Ok(channel) = channel(&deployment.address(), &deployment, None).await {
        // TLS 1.3 lets a client finish first; then it is the call that hears it.
        let answer = health(&mut HealthClient::new(channel), "").await;
        assert!(answer.is_err(), "a call without a certificate was answered with {answer:?}");
    }
}

async fn reflected(client: &mut ServerReflectionClient<Channel>, asked: MessageRequest) -> MessageResponse {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(asked) };
    let stream = client.server_reflection_info(tokio_stream::once(request)).await.expect("it answers");
    let answer = stream.into_inner().message().await.expect("it answers").expect("there is an answer");
    answer.message_response.expect("the answer says something")
}

#[tokio::test]
async fn reflection_names_every_service_while_sealed_and_its_messages() {
    let deployment = Deployment::start(Options { sealed: true, ..Options::default() });
    let app = ClientCertificate::of(&deployment, "app");
    let mut client = ServerReflectionClient::new(connect(&deployment, Some(&app)).await);
    let answer = reflected(&mut client, MessageRequest::ListServices(String::new())).await;
    let MessageResponse::ListServicesResponse(listed) = answer else { panic!("no list: {answer:?}") };
    let names: BTreeSet<_> = listed.service.iter().map(|service| service.name.as_str()).collect();
    let ours =
        ["Audit", "Ceremony", "Crypto", "DataKeys", "Keys", "System"].map(|name| format!("kms.v1.{name}"));
    let expected = ours.iter().map(String::as_str);
    let expected = expected.chain(["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"]);
    assert_eq!(names, expected.collect());

    let symbol = MessageRequest::FileContainingSymbol("kms.v1.EncryptRequest".into());
    let answer = reflected(&mut client, symbol).await;
    let MessageResponse::FileDescriptorResponse(files) = answer else { panic!("no file: {answer:?}") };
    let field = b"plaintext".as_slice();
    let has_field = |file: &Vec<u8>| file.windows(field.len()).any(|window| window == field);
    assert!(files.file_descriptor_proto.iter().any(has_field), "the message's fields are described");
    let unknown = MessageRequest::FileContainingSymbol("kms.v1.Nothing".into());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(unknown) };
    let mut stream =
        client.server_reflection_info(tokio_stream::once(request)).await.expect("it answers").into_inner();
    let refused = stream.message().await.expect_err("there is no such symbol");
    assert_eq!(refused.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_json_log_is_one_object_a_line_and_leads_from_a_request_id_to_what_happened() {
    let deployment = serve(str::to_owned, "[log]\nformat = \"json\"\nfilter = \"info,kms_server=debug\"\n");
    deployment.unseal();
    let mut app = Rpc::connect(&deployment, "app").await;
    let answered = app.system.get_status(v1::GetStatusRequest {}).await.expect("answers");
    let answered = answered.metadata().get("x-request-id").expect("every answer has an id");
    let answered = answered.to_str().expect("an id is text").to_owned();

    let encrypt = v1::EncryptRequest { key: "resident".into(), ..Default::default() };
    let mut ciphertext = app.crypto.encrypt(encrypt).await.expect("encrypts").into_inner().ciphertext;
    *ciphertext.last_mut().expect("not empty") ^= 1;
    let decrypt = v1::DecryptRequest { ciphertext, ..Default::default() };
    let forged = refused(app.crypto.decrypt(Request::new(decrypt)).await);
    assert_eq!(forged.reason, "CIPHERTEXT_INVALID");
    assert!(deployment.terminate().success());

    let log = deployment.last_log();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    for line in &lines {
        let is_text = |name: &str| line[name].is_string();
        assert!(is_text("timestamp") && is_text("level") && is_text("target"), "{line}");
        assert!(line["fields"]["message"].is_string(), "{line}");
    }
    let ends = |id: &str| -> Vec<(&str, &str)> {
        let ended = lines.iter().filter(|line| line["fields"]["message"] == "call ended");
        let ended = ended.filter(|line| line["fields"]["request_id"] == id);
        ended
            .map(|line| {
                let field = |name: &str| line["fields"][name].as_str().expect("a text");
                (field("method"), field("outcome"))
            })
            .collect()
    };
    assert_eq!(ends(&answered), [("System.GetStatus", "done")]);
    assert_eq!(ends(&forged.request_id), [("Crypto.Decrypt", "CIPHERTEXT_INVALID")]);
    // What is said on the way to an answer names the call too.
    let on_the_way = lines.iter().find(|line| line["span"]["request_id"] == forged.request_id.as_str());
    let on_the_way = on_the_way.expect("a line from inside the call");
    assert_eq!(on_the_way["fields"]["message"], "the HSM does not open a ciphertext");
    assert_eq!(on_the_way["span"]["caller"], "kms://default/operator/app");
    assert!(lines.iter().any(|line| line["fields"]["message"] == "ended"), "the end is said too");
}
