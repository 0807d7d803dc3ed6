use super::crypto::expose;
use super::keys::{key_name, page_size, page_start};
use super::{Gate, convert, recipient};
use crate::service::{CreateDataKey, DataKeyEntry, ServiceError};
use crate::store::DataKeyVersionRow;
use kms_core::data_key::{DataKeyCommand, DataKeyStanding, DataKeyState, ROTATION_DAYS_MAX, RotationPeriod};
use kms_core::id::KeyVersion;
use kms_core::policy::Action;
use kms_proto::v1::{self, data_keys_server::DataKeys};
use tonic::{Request, Response, Status};

/// A version that may be left out.
fn version(number: u32) -> Option<KeyVersion> {
    KeyVersion::new(number)
}

fn rotation_period(days: u32) -> Result<RotationPeriod, ServiceError> {
    RotationPeriod::from_days(days).ok_or_else(|| {
        let message = format!("is {days}; 0 (never) to {ROTATION_DAYS_MAX} days are possible");
        ServiceError::field("rotation_period_days", message)
    })
}

fn proto_state(standing: DataKeyStanding) -> i32 {
    match standing.state {
        DataKeyState::Enabled => v1::DataKeyState::Enabled,
        DataKeyState::Disabled => v1::DataKeyState::Disabled,
        DataKeyState::Destroyed => v1::DataKeyState::Destroyed,
    }
    .into()
}

fn proto_version(version: &DataKeyVersionRow) -> v1::RegisteredDataKeyVersion {
    v1::RegisteredDataKeyVersion {
        version: version.version.number(),
        state: proto_state(version.standing),
        state_since: Some(convert::timestamp(version.standing.since)),
        created: Some(convert::timestamp(version.created)),
        key_id: version.key.0.to_string(),
        key_version: version.key.1.number(),
    }
}

fn proto_data_key(entry: &DataKeyEntry) -> v1::RegisteredDataKey {
    let row = &entry.row;
    v1::RegisteredDataKey {
        data_key_id: row.data_key_id.to_string(),
        name: row.name.to_string(),
        data_key_spec: convert::proto_spec(row.algorithm.into()),
        key_id: row.key_id.to_string(),
        state: proto_state(row.standing),
        state_since: Some(convert::timestamp(row.standing.since)),
        rotation_period_days: row.rotation_period.days(),
        current_version: row.current_version.number(),
        versions: entry.versions.iter().map(proto_version).collect(),
        created: Some(convert::timestamp(row.created)),
        creator: row.creator.to_uri(),
        revision: row.revision,
    }
}

impl Gate {
    /// One command to one data key or version.
    async fn change_data_key(
        &self,
        method: &'static str,
        (action, command): (Action, DataKeyCommand),
        request: Request<(String, u32)>,
    ) -> Result<Response<v1::RegisteredDataKey>, Status> {
        let allowed = self.check_administration();
        self.call(method, action, request, move |node, caller, (name, number)| async move {
            allowed?;
            let (name, number) = (key_name("name", &name)?, version(number));
            let entry = node.change_data_key_state(&caller, &name, number, (action, command)).await?;
            Ok(proto_data_key(&entry))
        })
        .await
    }
}

#[tonic::async_trait]
impl DataKeys for Gate {
    async fn create_data_key(
        &self,
        request: Request<v1::CreateDataKeyRequest>,
    ) -> Result<Response<v1::RegisteredDataKey>, Status> {
        let allowed = self.check_administration();
        let (method, action) = ("DataKeys.CreateDataKey", Action::CreateDataKey);
        self.call(method, action, request, |node, caller, message| async move {
            allowed?;
            let request = CreateDataKey {
                name: key_name("name", &message.name)?,
                key: convert::key_selector("key", &message.key)?,
                algorithm: convert::data_key_algorithm(message.data_key_spec)?,
                rotation_period: rotation_period(message.rotation_period_days)?,
                idempotency_token: convert::token(message.idempotency_token)?,
            };
            Ok(proto_data_key(&node.create_data_key(&caller, &request).await?))
        })
        .await
    }

    async fn get_data_key(
        &self,
        request: Request<v1::GetDataKeyRequest>,
    ) -> Result<Response<v1::GetDataKeyResponse>, Status> {
        self.call("DataKeys.GetDataKey", Action::GetDataKey, request, |node, caller, message| async move {
            let name = key_name("name", &message.name)?;
            let delivery = recipient::delivery(false, message.recipient)?;
            let given = node.get_data_key(&caller, &name, version(message.version), &delivery).await?;
            Ok(v1::GetDataKeyResponse {
                data_key_id: given.data_key_id.to_string(),
                name: name.to_string(),
                version: given.version.number(),
                data_key_spec: convert::proto_spec(given.data_key.algorithm.into()),
                plaintext: given.data_key.plaintext.map(expose).unwrap_or_default(),
                recipient_ciphertext: given.data_key.recipient_ciphertext.unwrap_or_default(),
                created: Some(convert::timestamp(given.created)),
            })
        })
        .await
    }

    async fn describe_data_key(
        &self,
        request: Request<v1::DescribeDataKeyRequest>,
    ) -> Result<Response<v1::RegisteredDataKey>, Status> {
        let (method, action) = ("DataKeys.DescribeDataKey", Action::DescribeDataKey);
        self.call(method, action, request, |node, caller, message| async move {
            let name = key_name("name", &message.name)?;
            Ok(proto_data_key(&node.describe_data_key(&caller, &name).await?))
        })
        .await
    }

    async fn list_data_keys(
        &self,
        request: Request<v1::ListDataKeysRequest>,
    ) -> Result<Response<v1::ListDataKeysResponse>, Status> {
        let allowed = self.check_administration();
        let (method, action) = ("DataKeys.ListDataKeys", Action::ListDataKeys);
        self.call(method, action, request, |node, caller, message| async move {
            allowed?;
            let count = page_size(message.page_size)?;
            let page = node.list_data_keys(&caller, page_start(&message.page_token)?, count).await?;
            Ok(v1::ListDataKeysResponse {
                data_keys: page.data_keys.iter().map(proto_data_key).collect(),
                next_page_token: page.next_after.unwrap_or_default(),
            })
        })
        .await
    }

    async fn rotate_data_key(
        &self,
        request: Request<v1::RotateDataKeyRequest>,
    ) -> Result<Response<v1::RegisteredDataKey>, Status> {
        let allowed = self.check_administration();
        let (method, action) = ("DataKeys.RotateDataKey", Action::RotateDataKey);
        self.call(method, action, request, |node, caller, message| async move {
            allowed?;
            let name = key_name("name", &message.name)?;
            let token = convert::token(message.idempotency_token)?;
            Ok(proto_data_key(&node.rotate_data_key(&caller, &name, token.as_deref()).await?))
        })
        .await
    }

    async fn disable_data_key(
        &self,
        request: Request<v1::DisableDataKeyRequest>,
    ) -> Result<Response<v1::RegisteredDataKey>, Status> {
        let request = request.map(|message| (message.name, message.version));
        let command = (Action::DisableDataKey, DataKeyCommand::Disable);
        self.change_data_key("DataKeys.DisableDataKey", command, request).await
    }

    async fn enable_data_key(
        &self,
        request: Request<v1::EnableDataKeyRequest>,
    ) -> Result<Response<v1::RegisteredDataKey>, Status> {
        let request = request.map(|message| (message.name, message.version));
        let command = (Action::EnableDataKey, DataKeyCommand::Enable);
        self.change_data_key("DataKeys.EnableDataKey", command, request).await
    }

    async fn destroy_data_key(
        &self,
        request: Request<v1::DestroyDataKeyRequest>,
    ) -> Result<Response<v1::RegisteredDataKey>, Status> {
        let request = request.map(|message| (message.name, message.version));
        let command = (Action::DestroyDataKey, DataKeyCommand::Destroy);
        self.change_data_key("DataKeys.DestroyDataKey", command, request).await
    }
}
