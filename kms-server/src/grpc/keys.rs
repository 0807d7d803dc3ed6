use super::{Gate, convert};
use crate::service::{CreateKey, ServiceError};
use kms_core::id::KeyName;
use kms_core::key::KeyCommand;
use kms_core::policy::Action;
use kms_core::reason::Reason;
use kms_proto::v1::{self, keys_server::Keys};
use tonic::{Request, Response, Status};

const PAGE_SIZE_DEFAULT: u32 = 100;
/// The longest names in so many keys fit into the shortest message that can be configured.
const PAGE_SIZE_MAX: u32 = 250;

impl Gate {
    fn check_administration(&self) -> Result<(), ServiceError> {
        if self.is_administration {
            return Ok(());
        }
        let message = "this is the applications' address; use the administration's";
        Err(ServiceError::new(Reason::NotPermitted, message))
    }

    /// One command to one key. `request` is the key's name or id.
    async fn change_state(
        &self,
        method: &'static str,
        (action, command): (Action, KeyCommand),
        request: Request<String>,
    ) -> Result<Response<v1::Key>, Status> {
        let allowed = self.check_administration();
        self.call(method, action, request, move |node, caller, key| async move {
            allowed?;
            let key = convert::key_selector("key", &key)?;
            Ok(convert::proto_key(&*node.change_key_state(&caller, &key, action, command).await?))
        })
        .await
    }
}

#[tonic::async_trait]
impl Keys for Gate {
    async fn create_key(&self, request: Request<v1::CreateKeyRequest>) -> Result<Response<v1::Key>, Status> {
        let allowed = self.check_administration();
        self.call("Keys.CreateKey", Action::CreateKey, request, |node, caller, message| async move {
            allowed?;
            let request = CreateKey {
                name: KeyName::parse(&message.name).map_err(|error| ServiceError::field("name", error))?,
                spec: convert::spec(message.spec)?,
                protection: convert::protection(message.protection)?,
                idempotency_token: convert::token(message.idempotency_token)?,
                period: convert::period(message.activates, message.expires)?,
            };
            Ok(convert::proto_key(&*node.create_key(&caller, &request).await?))
        })
        .await
    }

    async fn describe_key(
        &self,
        request: Request<v1::DescribeKeyRequest>,
    ) -> Result<Response<v1::Key>, Status> {
        self.call("Keys.DescribeKey", Action::DescribeKey, request, |node, caller, message| async move {
            let key = convert::key_selector("key", &message.key)?;
            Ok(convert::proto_key(&*node.describe_key(&caller, &key).await?))
        })
        .await
    }

    async fn list_keys(
        &self,
        request: Request<v1::ListKeysRequest>,
    ) -> Result<Response<v1::ListKeysResponse>, Status> {
        let allowed = self.check_administration();
        self.call("Keys.ListKeys", Action::ListKeys, request, |node, caller, message| async move {
            allowed?;
            let count = match message.page_size {
                0 => PAGE_SIZE_DEFAULT,
                size if size <= PAGE_SIZE_MAX => size,
                size => {
                    let error = format!("is {size}; at most {PAGE_SIZE_MAX} are allowed");
                    return Err(ServiceError::field("page_size", error));
                }
            };
            // The token is the last name seen: readable, stable, and useless for anything else.
            if !message.page_token.is_empty() {
                KeyName::parse(&message.page_token)
                    .map_err(|_| ServiceError::field("page_token", "is not one that ListKeys returned"))?;
            }
            let page = node.list_keys(&caller, &message.page_token, count).await?;
            Ok(v1::ListKeysResponse {
                // Without their versions, of which a key can have any number.
                keys: page
                    .keys
                    .iter()
                    .map(|key| v1::Key { versions: vec![], ..convert::proto_key(key) })
                    .collect(),
                next_page_token: page.next_after.unwrap_or_default(),
            })
        })
        .await
    }

    async fn rotate_key(&self, request: Request<v1::RotateKeyRequest>) -> Result<Response<v1::Key>, Status> {
        let allowed = self.check_administration();
        self.call("Keys.RotateKey", Action::RotateKey, request, |node, caller, message| async move {
            allowed?;
            let key = convert::key_selector("key", &message.key)?;
            let token = convert::token(message.idempotency_token)?;
            Ok(convert::proto_key(&*node.rotate_key(&caller, &key, token.as_deref()).await?))
        })
        .await
    }

    async fn activate_key(
        &self,
        request: Request<v1::ActivateKeyRequest>,
    ) -> Result<Response<v1::Key>, Status> {
        let request = request.map(|message| message.key);
        self.change_state("Keys.ActivateKey", (Action::ActivateKey, KeyCommand::Activate), request).await
    }

    async fn suspend_key(
        &self,
        request: Request<v1::SuspendKeyRequest>,
    ) -> Result<Response<v1::Key>, Status> {
        let request = request.map(|message| message.key);
        self.change_state("Keys.SuspendKey", (Action::SuspendKey, KeyCommand::Suspend), request).await
    }

    async fn resume_key(&self, request: Request<v1::ResumeKeyRequest>) -> Result<Response<v1::Key>, Status> {
        let request = request.map(|message| message.key);
        self.change_state("Keys.ResumeKey", (Action::ResumeKey, KeyCommand::Resume), request).await
    }

    async fn deactivate_key(
        &self,
        request: Request<v1::DeactivateKeyRequest>,
    ) -> Result<Response<v1::Key>, Status> {
        let request = request.map(|message| message.key);
        self.change_state("Keys.DeactivateKey", (Action::DeactivateKey, KeyCommand::Deactivate), request)
            .await
    }

    async fn archive_key(
        &self,
        request: Request<v1::ArchiveKeyRequest>,
    ) -> Result<Response<v1::Key>, Status> {
        let request = request.map(|message| message.key);
        self.change_state("Keys.ArchiveKey", (Action::ArchiveKey, KeyCommand::Archive), request).await
    }

    async fn recover_key(
        &self,
        request: Request<v1::RecoverKeyRequest>,
    ) -> Result<Response<v1::Key>, Status> {
        let request = request.map(|message| message.key);
        self.change_state("Keys.RecoverKey", (Action::RecoverKey, KeyCommand::Recover), request).await
    }

    async fn compromise_key(
        &self,
        request: Request<v1::CompromiseKeyRequest>,
    ) -> Result<Response<v1::Key>, Status> {
        let request = request.map(|message| message.key);
        self.change_state("Keys.CompromiseKey", (Action::CompromiseKey, KeyCommand::Compromise), request)
            .await
    }
}
