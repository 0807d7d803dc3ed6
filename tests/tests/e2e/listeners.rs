//! Two listeners: what applications reach cannot administer, and the other way round.

use crate::state_copy::{StateCopy, original, wait_for};
use kms_proto::v1;
use kms_tests::custodian::service_start;
use kms_tests::rpc::{ClientCertificate, refused};
use kms_tests::{Custodian, JoinStream, Rpc};
use tonic::Code;

async fn connect(address: &str, name: &str) -> Rpc {
    let certificate = ClientCertificate::of(original(), name);
    Rpc::connect_to(address, original(), &certificate).await.expect("connects")
}

async fn unseal(address: &str) {
    let mut streams = Vec::new();
    for name in ["custodian-1", "custodian-2"] {
        let custodian = Custodian::open(original(), name);
        let stream = JoinStream::begin(&connect(address, name).await, service_start(name)).await;
        let stream = stream.expect("an offer");
        stream.contribute(&custodian.answer(&stream.offer)).await;
        streams.push(stream);
    }
    for stream in &mut streams {
        stream.result().await.expect("the node opens");
    }
}

#[tokio::test]
async fn each_listener_offers_its_own_part_of_the_interface() {
    let copy = StateCopy::new();
    let administration = copy.address();
    let applications = StateCopy::free_address();
    let text = format!("applications = \"{administration}\"");
    copy.edit_config(&text, &format!("applications = \"{applications}\""));
    let mut server = copy.start("run");
    wait_for(&administration, &mut server);
    wait_for(&applications, &mut server);

    let custodian = connect(&applications, "custodian-1").await;
    let stream = custodian.ceremony.clone().join(tokio_stream::empty()).await;
    assert_eq!(refused(stream).code, Code::Unimplemented, "no ceremonies for applications");
    unseal(&administration).await;

    let mut admin = connect(&administration, "admin").await;
    let create =
        v1::CreateKeyRequest { name: "listened".into(), spec: v1::KeySpec::Sm4.into(), ..Default::default() };
    admin.keys.create_key(create.clone()).await.expect("creates");
    let encrypt = v1::EncryptRequest { key: "listened".into(), ..Default::default() };
    let mut app = connect(&administration, "app").await;
    assert_eq!(refused(app.crypto.encrypt(encrypt.clone()).await).code, Code::Unimplemented);

    let mut app = connect(&applications, "app").await;
    app.crypto.encrypt(encrypt).await.expect("encrypts");
    app.keys.describe_key(v1::DescribeKeyRequest { key: "listened".into() }).await.expect("describes");
    app.system.get_status(v1::GetStatusRequest {}).await.expect("answers");
    let mut admin = connect(&applications, "admin").await;
    let answers = [
        refused(admin.keys.create_key(create).await),
        refused(admin.keys.list_keys(v1::ListKeysRequest::default()).await),
        refused(admin.keys.suspend_key(v1::SuspendKeyRequest { key: "listened".into() }).await),
    ];
    for answer in answers {
        assert_eq!(answer.reason, "NOT_PERMITTED", "{answer:?}");
    }
    let mut auditor = connect(&applications, "auditor").await;
    let show = auditor.audit.show_record(v1::ShowRecordRequest { index: 0 }).await;
    assert_eq!(refused(show).code, Code::Unimplemented);
}
