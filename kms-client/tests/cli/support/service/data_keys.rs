//! One registered data key, `salaries`, of two versions.

use super::{Answer, Fake, KEY_ID, time};
use crate::support::ADMIN;
use kms_proto::v1;
use kms_proto::v1::data_keys_server::DataKeys;
use tonic::{Request, Response};

pub const DATA_KEY_ID: &str = "05050505-0505-0505-0505-050505050505";

fn version(number: u32, state: v1::DataKeyState) -> v1::RegisteredDataKeyVersion {
    v1::RegisteredDataKeyVersion {
        version: number,
        state: state.into(),
        state_since: Some(time()),
        created: Some(time()),
        key_id: KEY_ID.into(),
        key_version: number,
    }
}

fn data_key(state: v1::DataKeyState) -> v1::RegisteredDataKey {
    v1::RegisteredDataKey {
        data_key_id: DATA_KEY_ID.into(),
        name: "salaries".into(),
        data_key_spec: v1::KeySpec::Sm4.into(),
        key_id: KEY_ID.into(),
        state: state.into(),
        state_since: Some(time()),
        rotation_period_days: 90,
        current_version: 2,
        versions: vec![version(1, v1::DataKeyState::Destroyed), version(2, v1::DataKeyState::Enabled)],
        created: Some(time()),
        creator: ADMIN.into(),
        revision: 3,
    }
}

impl Fake {
    /// The change arrives with the version that it is about.
    async fn change_data_key(
        &self,
        call: &'static str,
        version: u32,
        state: v1::DataKeyState,
    ) -> Answer<v1::RegisteredDataKey> {
        self.script.lock().expect("no test panics with the script").data_key_version = Some(version);
        self.admit(call).await?;
        Ok(Response::new(data_key(state)))
    }
}

#[tonic::async_trait]
impl DataKeys for Fake {
    async fn create_data_key(
        &self,
        request: Request<v1::CreateDataKeyRequest>,
    ) -> Answer<v1::RegisteredDataKey> {
        let request = request.into_inner();
        {
            let mut script = self.script.lock().expect("no test panics with the script");
            script.tokens.push(request.idempotency_token.clone());
            script.created_data_key = Some(request);
        }
        self.admit("create_data_key").await?;
        Ok(Response::new(data_key(v1::DataKeyState::Enabled)))
    }

    async fn get_data_key(&self, request: Request<v1::GetDataKeyRequest>) -> Answer<v1::GetDataKeyResponse> {
        self.admit("get_data_key").await?;
        let request = request.into_inner();
        let version = if request.version == 0 { 2 } else { request.version };
        let mut plaintext = vec![version as u8; 16];
        let script = self.script.lock().expect("no test panics with the script");
        let recipient_ciphertext = script.for_recipient(request.recipient.as_ref(), &mut plaintext);
        Ok(Response::new(v1::GetDataKeyResponse {
            data_key_id: DATA_KEY_ID.into(),
            name: request.name,
            version,
            data_key_spec: v1::KeySpec::Sm4.into(),
            plaintext,
            recipient_ciphertext,
            created: Some(time()),
        }))
    }

    async fn describe_data_key(
        &self,
        _: Request<v1::DescribeDataKeyRequest>,
    ) -> Answer<v1::RegisteredDataKey> {
        self.admit("describe_data_key").await?;
        Ok(Response::new(data_key(v1::DataKeyState::Enabled)))
    }

    async fn list_data_keys(
        &self,
        request: Request<v1::ListDataKeysRequest>,
    ) -> Answer<v1::ListDataKeysResponse> {
        self.admit("list_data_keys").await?;
        let listed = v1::RegisteredDataKey { versions: vec![], ..data_key(v1::DataKeyState::Enabled) };
        Ok(Response::new(match request.into_inner().page_token.as_str() {
            "" => v1::ListDataKeysResponse { data_keys: vec![listed], next_page_token: "salaries".into() },
            _ => {
                let second = v1::RegisteredDataKey { name: "wages".into(), ..listed };
                v1::ListDataKeysResponse { data_keys: vec![second], next_page_token: String::new() }
            }
        }))
    }

    async fn rotate_data_key(
        &self,
        request: Request<v1::RotateDataKeyRequest>,
    ) -> Answer<v1::RegisteredDataKey> {
        let token = request.into_inner().idempotency_token;
        self.script.lock().expect("no test panics with the script").tokens.push(token);
        self.admit("rotate_data_key").await?;
        Ok(Response::new(data_key(v1::DataKeyState::Enabled)))
    }

    async fn disable_data_key(
        &self,
        request: Request<v1::DisableDataKeyRequest>,
    ) -> Answer<v1::RegisteredDataKey> {
        let version = request.into_inner().version;
        self.change_data_key("disable_data_key", version, v1::DataKeyState::Disabled).await
    }

    async fn enable_data_key(
        &self,
        request: Request<v1::EnableDataKeyRequest>,
    ) -> Answer<v1::RegisteredDataKey> {
        let version = request.into_inner().version;
        self.change_data_key("enable_data_key", version, v1::DataKeyState::Enabled).await
    }

    async fn destroy_data_key(
        &self,
        request: Request<v1::DestroyDataKeyRequest>,
    ) -> Answer<v1::RegisteredDataKey> {
        let version = request.into_inner().version;
        self.change_data_key("destroy_data_key", version, v1::DataKeyState::Destroyed).await
    }
}
