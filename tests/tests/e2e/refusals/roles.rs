//! The role table of docs/authority.md, cell by cell.

use super::deployment;
use kms_core::reason::Reason;
use kms_proto::v1;
use kms_tests::custodian::service_start;
use kms_tests::rpc::refused;
use kms_tests::{JoinStream, Refused, Rpc, audit};
use std::fs;
use std::path::Path;
use tonic::Status;

/// A principal of each column.
const COLUMNS: [&str; 4] = ["app", "admin", "auditor", "custodian-1"];
const NOBODYS: &str = "nobody-made-this";

/// `(action, who may)` for each row of the table.
fn table() -> Vec<(String, [bool; 4])> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/authority.md");
    let text = fs::read_to_string(path).expect("docs/authority.md");
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let may = [1, 2, 3, 4].map(|column: usize| cells[column] == "yes");
        (cells[0].trim_matches('`').to_owned(), may)
    })
    .collect()
}

/// Calls an action in a way that changes nothing. `Ok` when it was done.
async fn call(rpc: &mut Rpc, action: &str, name: &str) -> Result<(), Refused> {
    let key = || NOBODYS.to_owned();
    let done = |answer: Result<(), Status>| answer.map_err(Refused::from);
    match action {
        "system.status" => done(rpc.system.get_status(v1::GetStatusRequest {}).await.map(drop)),
        "system.seal" => done(rpc.system.seal(v1::SealRequest {}).await.map(drop)),
        "key.describe" => done(rpc.keys.describe_key(v1::DescribeKeyRequest { key: key() }).await.map(drop)),
        "key.list" => done(rpc.keys.list_keys(v1::ListKeysRequest::default()).await.map(drop)),
        "key.create" => {
            // A protection that the caller may ask for, but a name that is made once only.
            let request = v1::CreateKeyRequest {
                name: "made-by-the-role-table".into(),
                spec: v1::KeySpec::Sm4.into(),
                ..Default::default()
            };
            done(rpc.keys.create_key(request).await.map(drop))
        }
        "import.begin" => {
            // One that expires at once: it makes a key pair.
            let request = v1::GetImportParametersRequest { valid_seconds: 1, ..Default::default() };
            done(rpc.keys.get_import_parameters(request).await.map(drop))
        }
        "key.import" => {
            let key = v1::CreateKeyRequest {
                name: "imported-by-the-role-table".into(),
                spec: v1::KeySpec::Sm4.into(),
                ..Default::default()
            };
            let request = v1::ImportKeyMaterialRequest {
                import_id: "07070707-0707-0707-0707-070707070707".into(),
                key: Some(key),
                wrapped_material: vec![1],
                check_value: vec![],
            };
            done(rpc.keys.import_key_material(request).await.map(drop))
        }
        "key.rotate" => {
            let request = v1::RotateKeyRequest { key: key(), ..Default::default() };
            done(rpc.keys.rotate_key(request).await.map(drop))
        }
        "key.update" => {
            let request = v1::UpdateKeyRequest { key: key(), owner: Some("x".into()), ..Default::default() };
            done(rpc.keys.update_key(request).await.map(drop))
        }
        "alias.create" => {
            let request =
                v1::CreateAliasRequest { alias: "nobodys-alias".into(), key: key(), ..Default::default() };
            done(rpc.keys.create_alias(request).await.map(drop))
        }
        "alias.retarget" => {
            let alias = "nobodys-alias".into();
            let request = v1::RetargetAliasRequest { alias, key: key(), ..Default::default() };
            done(rpc.keys.retarget_alias(request).await.map(drop))
        }
        "alias.delete" => {
            let request = v1::DeleteAliasRequest { alias: "nobodys-alias".into() };
            done(rpc.keys.delete_alias(request).await.map(drop))
        }
        "alias.list" => done(rpc.keys.list_aliases(v1::ListAliasesRequest::default()).await.map(drop)),
        "key.suspend" => done(rpc.keys.suspend_key(v1::SuspendKeyRequest { key: key() }).await.map(drop)),
        "key.resume" => done(rpc.keys.resume_key(v1::ResumeKeyRequest { key: key() }).await.map(drop)),
        "key.activate" => done(rpc.keys.activate_key(v1::ActivateKeyRequest { key: key() }).await.map(drop)),
        "key.deactivate" => {
            done(rpc.keys.deactivate_key(v1::DeactivateKeyRequest { key: key() }).await.map(drop))
        }
        "key.archive" => done(rpc.keys.archive_key(v1::ArchiveKeyRequest { key: key() }).await.map(drop)),
        "key.recover" => done(rpc.keys.recover_key(v1::RecoverKeyRequest { key: key() }).await.map(drop)),
        "key.compromise" => {
            done(rpc.keys.compromise_key(v1::CompromiseKeyRequest { key: key() }).await.map(drop))
        }
        "key.schedule_destruction" => {
            let request = v1::ScheduleDestructionRequest { key: key(), window_days: 7 };
            done(rpc.keys.schedule_destruction(request).await.map(drop))
        }
        "key.cancel_destruction" => {
            done(rpc.keys.cancel_destruction(v1::CancelDestructionRequest { key: key() }).await.map(drop))
        }
        "key.usage_report" => {
            done(rpc.keys.get_usage_report(v1::GetUsageReportRequest { key: key() }).await.map(drop))
        }
        "key.destruction" => {
            let request = v1::GetDestructionCertificatesRequest { key: key(), ..Default::default() };
            done(rpc.keys.get_destruction_certificates(request).await.map(drop))
        }
        "key.public" => {
            done(rpc.crypto.get_public_key(v1::GetPublicKeyRequest { key: key() }).await.map(drop))
        }
        "signature.sign" => {
            let request = v1::SignRequest { key: key(), input: vec![1], ..Default::default() };
            done(rpc.crypto.sign(request).await.map(drop))
        }
        "signature.verify" => {
            let request = v1::VerifyRequest { key: key(), input: vec![1], ..Default::default() };
            done(rpc.crypto.verify(request).await.map(drop))
        }
        "data_key.generate" => {
            let request = v1::GenerateDataKeyRequest { key: key(), ..Default::default() };
            done(rpc.crypto.generate_data_key(request).await.map(drop))
        }
        "data_key.decrypt" => {
            let request = v1::DecryptDataKeyRequest { ciphertext: vec![1; 80], ..Default::default() };
            done(rpc.crypto.decrypt_data_key(request).await.map(drop))
        }
        "data_key.create" => {
            let request = v1::CreateDataKeyRequest { name: key(), key: key(), ..Default::default() };
            done(rpc.data_keys.create_data_key(request).await.map(drop))
        }
        "data_key.get" => {
            let request = v1::GetDataKeyRequest { name: key(), ..Default::default() };
            done(rpc.data_keys.get_data_key(request).await.map(drop))
        }
        "data_key.describe" => {
            done(rpc.data_keys.describe_data_key(v1::DescribeDataKeyRequest { name: key() }).await.map(drop))
        }
        "data_key.list" => {
            done(rpc.data_keys.list_data_keys(v1::ListDataKeysRequest::default()).await.map(drop))
        }
        "data_key.rotate" => {
            let request = v1::RotateDataKeyRequest { name: key(), ..Default::default() };
            done(rpc.data_keys.rotate_data_key(request).await.map(drop))
        }
        "data_key.disable" => {
            let request = v1::DisableDataKeyRequest { name: key(), ..Default::default() };
            done(rpc.data_keys.disable_data_key(request).await.map(drop))
        }
        "data_key.enable" => {
            let request = v1::EnableDataKeyRequest { name: key(), ..Default::default() };
            done(rpc.data_keys.enable_data_key(request).await.map(drop))
        }
        "data_key.destroy" => {
            let request = v1::DestroyDataKeyRequest { name: key(), ..Default::default() };
            done(rpc.data_keys.destroy_data_key(request).await.map(drop))
        }
        "data_key_pair.generate" => {
            let pair_spec = v1::KeySpec::Ed25519.into();
            let request = v1::GenerateDataKeyPairRequest { key: key(), pair_spec, ..Default::default() };
            done(rpc.crypto.generate_data_key_pair(request).await.map(drop))
        }
        "data_key_pair.decrypt" => {
            let request = v1::DecryptDataKeyPairRequest { ciphertext: vec![1; 80], ..Default::default() };
            done(rpc.crypto.decrypt_data_key_pair(request).await.map(drop))
        }
        "signature.request" => {
            let subject = "CN=nobody".into();
            let request =
                v1::GetCertificateSigningRequestRequest { key: key(), subject, ..Default::default() };
            done(rpc.crypto.get_certificate_signing_request(request).await.map(drop))
        }
        "data.encrypt" => {
            let request = v1::EncryptRequest { key: key(), ..Default::default() };
            done(rpc.crypto.encrypt(request).await.map(drop))
        }
        "data.decrypt" => {
            let request = v1::DecryptRequest { ciphertext: vec![1; 80], ..Default::default() };
            done(rpc.crypto.decrypt(request).await.map(drop))
        }
        "asymmetric.encrypt" => {
            let request = v1::AsymmetricEncryptRequest { key: key(), plaintext: vec![1] };
            done(rpc.crypto.asymmetric_encrypt(request).await.map(drop))
        }
        "asymmetric.decrypt" => {
            let request = v1::AsymmetricDecryptRequest { key: key(), ciphertext: vec![1] };
            done(rpc.crypto.asymmetric_decrypt(request).await.map(drop))
        }
        "data.reencrypt" => {
            let request = v1::ReEncryptRequest { ciphertext: vec![1; 80], ..Default::default() };
            done(rpc.crypto.re_encrypt(request).await.map(drop))
        }
        "crypto.batch" => batch_and_stream(rpc).await,
        "mac.generate" => {
            let request = v1::GenerateMacRequest { key: key(), message: vec![1] };
            done(rpc.crypto.generate_mac(request).await.map(drop))
        }
        "mac.verify" => {
            let request = v1::VerifyMacRequest { key: key(), message: vec![1], mac: vec![1; 32] };
            done(rpc.crypto.verify_mac(request).await.map(drop))
        }
        "raw.encrypt" => {
            let request = v1::RawEncryptRequest { key: key(), plaintext: vec![1], ..Default::default() };
            done(rpc.crypto.raw_encrypt(request).await.map(drop))
        }
        "raw.decrypt" => {
            let request = v1::RawDecryptRequest { key: key(), ciphertext: vec![1; 16], ..Default::default() };
            done(rpc.crypto.raw_decrypt(request).await.map(drop))
        }
        "random.generate" => {
            done(rpc.crypto.generate_random(v1::GenerateRandomRequest { byte_count: 1 }).await.map(drop))
        }
        "audit.read" => show_list_and_export(rpc).await,
        "ceremony.join" => JoinStream::begin(rpc, service_start(name)).await.map(drop),
        other => panic!("docs/authority.md has an action {other} that this test does not know"),
    }
}

/// Three ways of reading one thing: they are refused together.
async fn show_list_and_export(rpc: &mut Rpc) -> Result<(), Refused> {
    let list = v1::ListRecordsRequest { count_max: 1, ..Default::default() };
    let mut stream = rpc.audit.list_records(list).await?.into_inner();
    let listed = stream.message().await.map(drop).map_err(Refused::from);
    let mut stream = rpc.audit.export(v1::ExportRequest {}).await?.into_inner();
    let exported = stream.message().await.map(drop).map_err(Refused::from);
    let shown = rpc.audit.show_record(v1::ShowRecordRequest { index: 0 }).await;
    let shown = shown.map(drop).map_err(Refused::from);
    let reason = |answer: &Result<(), Refused>| answer.as_ref().err().map(|refused| refused.reason.clone());
    assert_eq!((reason(&listed), reason(&exported)), (reason(&shown), reason(&shown)));
    shown
}

/// Two ways of beginning one thing. The item is not refused with the whole.
async fn batch_and_stream(rpc: &mut Rpc) -> Result<(), Refused> {
    let message = v1::EncryptRequest { key: NOBODYS.into(), ..Default::default() };
    let item = v1::BatchItem { item: Some(v1::batch_item::Item::Encrypt(message)) };
    let streamed = v1::StreamItem { id: 7, item: Some(item.clone()) };
    let stream = rpc.crypto.stream(tokio_stream::once(streamed)).await.map(tonic::Response::into_inner);
    let batch = rpc.crypto.batch(v1::BatchRequest { items: vec![item] }).await;
    match (stream, batch) {
        (Ok(mut stream), Ok(batch)) => {
            let streamed = stream.message().await?.expect("the item has a result");
            let reason = |result: Option<v1::BatchResult>| match result.and_then(|one| one.result) {
                Some(v1::batch_result::Result::Error(error)) => error.reason,
                other => panic!("{other:?}"),
            };
            let reasons = [reason(streamed.result), reason(batch.into_inner().results.pop())];
            assert_eq!(reasons, ["KEY_NOT_FOUND", "KEY_NOT_FOUND"]);
            Ok(())
        }
        (Err(stream), Err(batch)) => {
            let (stream, batch) = (Refused::from(stream), Refused::from(batch));
            assert_eq!((&stream.reason, stream.code), (&batch.reason, batch.code));
            Err(batch)
        }
        (stream, batch) => {
            panic!("one is refused and the other is not: {:?} {:?}", stream.err(), batch.err())
        }
    }
}

#[tokio::test]
async fn every_role_may_do_what_the_document_says_and_nothing_else() {
    let table = table();
    assert!(table.len() >= 53, "the table of docs/authority.md was not read");
    let mut denied = Vec::new();
    for (column, name) in COLUMNS.into_iter().enumerate() {
        let mut rpc = Rpc::connect(deployment(), name).await;
        for (action, may) in &table {
            if may[column] && action == "system.seal" {
                // The other tests need the service open; seal_story seals.
                continue;
            }
            let answer = call(&mut rpc, action, name).await;
            if may[column] {
                let reason = answer.as_ref().err().map(|refused| refused.reason.as_str());
                let is_about_the_request = [
                    "KEY_NOT_FOUND",
                    "ALIAS_NOT_FOUND",
                    "IMPORT_NOT_FOUND",
                    "DATA_KEY_NOT_FOUND",
                    "CIPHERTEXT_INVALID",
                    "ALREADY_UNSEALED",
                ];
                let is_allowed = reason.is_none_or(|reason| is_about_the_request.contains(&reason));
                assert!(is_allowed, "{name} may do {action}, but: {answer:?}");
            } else {
                let refused = answer.expect_err(&format!("{name} may not do {action}"));
                assert_eq!(refused.reason, "NOT_PERMITTED", "{name} {action}: {refused:?}");
                assert_eq!(refused.code, kms_server::grpc::code(Reason::NotPermitted));
                denied.push((action.clone(), refused));
            }
        }
    }
    let entries = audit::records_from(deployment(), 0).await;
    for (action, refused) in denied {
        let found = entries.iter().find(|entry| entry.record.request_id == refused.request_id);
        let found = found.unwrap_or_else(|| panic!("no record of {refused:?}"));
        assert!(found.is_refusal("NOT_PERMITTED"), "{found:?}");
        assert_eq!(found.record.event, action);
    }
    audit::verify(deployment());
}

/// Authority is decided before the request is looked at: who may not ask learns nothing about the answer.
#[tokio::test]
async fn a_wrong_role_hears_that_first_whatever_else_is_wrong() {
    let mut rpc = Rpc::connect(deployment(), "app").await;
    let create = refused(rpc.keys.create_key(v1::CreateKeyRequest::default()).await);
    assert_eq!(create.reason, "NOT_PERMITTED", "{create:?}");
    let list = v1::ListKeysRequest { page_size: 5000, ..Default::default() };
    assert_eq!(refused(rpc.keys.list_keys(list).await).reason, "NOT_PERMITTED");
    let mut rpc = Rpc::connect(deployment(), "admin").await;
    let encrypt = refused(rpc.crypto.encrypt(v1::EncryptRequest::default()).await);
    assert_eq!(encrypt.reason, "NOT_PERMITTED", "{encrypt:?}");
}
