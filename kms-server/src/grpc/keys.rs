use super::{Gate, convert};
use crate::random::now;
use crate::service::{
    CreateKey, ImportKey, KeyFilter, ServiceError, UpdateKey, VALID_SECONDS_MAX, WINDOW_DAYS_MAX,
    WINDOW_DAYS_MIN, is_rotation_advised,
};
use kms_core::id::{KeyId, KeyName, KeyVersion, UnixMillis};
use kms_core::key::KeyCommand;
use kms_core::policy::Action;
use kms_core::reason::Reason;
use kms_core::suite::CheckValue;
use kms_proto::v1::{self, keys_server::Keys};
use prost::Message;
use tonic::{Request, Response, Status};

const MILLIS_PER_DAY: u64 = 24 * 60 * 60 * 1000;
/// One of a key with the most versions has about 200 KB.
const CERTIFICATES_DEFAULT: u32 = 1;
const CERTIFICATES_MAX: u32 = 100;
const PAGE_SIZE_DEFAULT: u32 = 100;
const PAGE_SIZE_MAX: u32 = 250;
/// Most bytes of keys in one page: they fit into the shortest message that can be configured.
const PAGE_BYTES_MAX: usize = 96 * 1024;

pub(super) fn page_size(asked: u32) -> Result<u32, ServiceError> {
    match asked {
        0 => Ok(PAGE_SIZE_DEFAULT),
        size if size <= PAGE_SIZE_MAX => Ok(size),
        size => {
            let error = format!("is {size}; at most {PAGE_SIZE_MAX} are allowed");
            Err(ServiceError::field("page_size", error))
        }
    }
}

/// The name after which a page begins; the first one is empty. Readable, stable, and useless for anything else.
pub(super) fn page_start(token: &str) -> Result<&str, ServiceError> {
    if !token.is_empty() {
        KeyName::parse(token)
            .map_err(|_| ServiceError::field("page_token", "is not one that this list returned"))?;
    }
    Ok(token)
}

pub(super) fn key_name(field: &'static str, text: &str) -> Result<KeyName, ServiceError> {
    KeyName::parse(text).map_err(|error| ServiceError::field(field, error))
}

/// What a key that is created or imported shall be.
fn new_key(message: v1::CreateKeyRequest) -> Result<CreateKey, ServiceError> {
    Ok(CreateKey {
        name: key_name("name", &message.name)?,
        spec: convert::spec(message.spec)?,
        usage: convert::usage(message.usage)?,
        protection: convert::protection(message.protection)?,
        idempotency_token: convert::token(message.idempotency_token)?,
        period: convert::period(message.activates, message.expires)?,
        attributes: convert::attributes(message.attributes.unwrap_or_default())?,
    })
}

impl Gate {
    pub(super) fn check_administration(&self) -> Result<(), ServiceError> {
        if self.is_administration {
            return Ok(());
        }
        let message = "this is the applications' address; use the administration's";
        Err(ServiceError::new(Reason::NotPermitted, message))
    }

    /// One command to one key or version. `request` is the reference.
    async fn change_state(
        &self,
        method: &'static str,
        (action, command): (Action, KeyCommand),
        request: Request<String>,
    ) -> Result<Response<v1::Key>, Status> {
        let allowed = self.check_administration();
        self.call(method, action, request, move |node, caller, key| async move {
            allowed?;
            let key = convert::key_ref("key", &key)?;
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
            Ok(convert::proto_key(&*node.create_key(&caller, &new_key(message)?).await?))
        })
        .await
    }

    async fn get_import_parameters(
        &self,
        request: Request<v1::GetImportParametersRequest>,
    ) -> Result<Response<v1::ImportParameters>, Status> {
        let allowed = self.check_administration();
        self.call(
            "Keys.GetImportParameters",
            Action::BeginImport,
            request,
            |node, caller, message| async move {
                allowed?;
                let pair = convert::optional_pair("wrapping_key_spec", message.wrapping_key_spec)?;
                let valid_seconds = match message.valid_seconds {
                    0 => VALID_SECONDS_MAX,
                    seconds if seconds <= VALID_SECONDS_MAX => seconds,
                    seconds => {
                        let error =
                            format!("is {seconds}; an import is valid for 1 to {VALID_SECONDS_MAX} seconds");
                        return Err(ServiceError::field("valid_seconds", error));
                    }
                };
                let (import, public_key, wrapping) = node.begin_import(&caller, pair, valid_seconds).await?;
                Ok(v1::ImportParameters {
                    import_id: import.import_id.to_string(),
                    public_key: public_key.to_spki(),
                    wrapping: convert::proto_wrapping(wrapping),
                    expires: Some(convert::timestamp(import.expires)),
                    wrapping_key_spec: i32::from(import.spec.number()),
                })
            },
        )
        .await
    }

    async fn import_key_material(
        &self,
        request: Request<v1::ImportKeyMaterialRequest>,
    ) -> Result<Response<v1::Key>, Status> {
        let allowed = self.check_administration();
        self.call("Keys.ImportKeyMaterial", Action::ImportKey, request, |node, caller, message| async move {
            allowed?;
            let missing = || ServiceError::field("key", "is missing; it says what the key shall be");
            let check_value = match message.check_value.as_slice() {
                [] => None,
                bytes => Some(bytes.try_into().map(CheckValue).map_err(|_| {
                    ServiceError::field("check_value", format!("has {} bytes, not 3", bytes.len()))
                })?),
            };
            let import_id = KeyId::parse(&message.import_id).map_err(|_| {
                ServiceError::field("import_id", "is not one that GetImportParameters returned")
            })?;
            let request = ImportKey {
                import_id,
                create: new_key(message.key.ok_or_else(missing)?)?,
                wrapped_material: message.wrapped_material,
                check_value,
            };
            Ok(convert::proto_key(&*node.import_key(&caller, &request).await?))
        })
        .await
    }

    async fn describe_key(
        &self,
        request: Request<v1::DescribeKeyRequest>,
    ) -> Result<Response<v1::Key>, Status> {
        self.call("Keys.DescribeKey", Action::DescribeKey, request, |node, caller, message| async move {
            let key = convert::key_selector("key", &message.key)?;
            let (entry, counts) = node.describe_key(&caller, &key).await?;
            let mut described = convert::proto_key(&entry);
            let max = node.config.keys.resident_encryptions_max;
            for version in &mut described.versions {
                let taken = KeyVersion::new(version.version).and_then(|number| counts.get(&number));
                version.encryptions_taken = taken.copied().unwrap_or_default();
                version.is_rotation_advised = is_rotation_advised(version.encryptions_taken, max);
            }
            Ok(described)
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
            let count = page_size(message.page_size)?;
            let after = page_start(&message.page_token)?;
            let filter = KeyFilter {
                labels: convert::labels("labels", message.labels)?,
                state: convert::state(message.state)?,
            };
            let page = node.list_keys(&caller, after, count, &filter).await?;
            let mut response = v1::ListKeysResponse {
                keys: Vec::with_capacity(page.keys.len()),
                next_page_token: page.next_after.unwrap_or_default(),
            };
            let mut bytes = 0;
            for key in &page.keys {
                let key = convert::proto_key(key);
                bytes += key.encoded_len();
                if bytes > PAGE_BYTES_MAX {
                    response.next_page_token =
                        response.keys.last().map(|last| last.name.clone()).unwrap_or_default();
                    break;
                }
                response.keys.push(key);
            }
            Ok(response)
        })
        .await
    }

    async fn update_key(&self, request: Request<v1::UpdateKeyRequest>) -> Result<Response<v1::Key>, Status> {
        let allowed = self.check_administration();
        self.call("Keys.UpdateKey", Action::UpdateKey, request, |node, caller, message| async move {
            allowed?;
            let request = UpdateKey {
                key: convert::key_selector("key", &message.key)?,
                expected_revision: Some(message.expected_revision).filter(|revision| *revision != 0),
                changes: convert::attribute_changes(message)?,
            };
            Ok(convert::proto_key(&*node.update_key(&caller, &request).await?))
        })
        .await
    }

    async fn create_alias(
        &self,
        request: Request<v1::CreateAliasRequest>,
    ) -> Result<Response<v1::Alias>, Status> {
        let allowed = self.check_administration();
        self.call("Keys.CreateAlias", Action::CreateAlias, request, |node, caller, message| async move {
            allowed?;
            let alias = key_name("alias", &message.alias)?;
            let key = convert::key_selector("key", &message.key)?;
            let token = convert::token(message.idempotency_token)?;
            let made = node.create_alias(&caller, &alias, &key, token.as_deref()).await?;
            Ok(convert::proto_alias(&made))
        })
        .await
    }

    async fn retarget_alias(
        &self,
        request: Request<v1::RetargetAliasRequest>,
    ) -> Result<Response<v1::Alias>, Status> {
        let allowed = self.check_administration();
        self.call("Keys.RetargetAlias", Action::RetargetAlias, request, |node, caller, message| async move {
            allowed?;
            let alias = key_name("alias", &message.alias)?;
            let key = convert::key_selector("key", &message.key)?;
            let expected = match message.expected_key.as_str() {
                "" => None,
                expected => Some(convert::key_selector("expected_key", expected)?),
            };
            let row = node.retarget_alias(&caller, &alias, &key, expected.as_ref()).await?;
            Ok(convert::proto_alias(&row))
        })
        .await
    }

    async fn delete_alias(
        &self,
        request: Request<v1::DeleteAliasRequest>,
    ) -> Result<Response<v1::DeleteAliasResponse>, Status> {
        let allowed = self.check_administration();
        self.call("Keys.DeleteAlias", Action::DeleteAlias, request, |node, caller, message| async move {
            allowed?;
            let alias = key_name("alias", &message.alias)?;
            node.delete_alias(&caller, &alias).await?;
            Ok(v1::DeleteAliasResponse {})
        })
        .await
    }

    async fn list_aliases(
        &self,
        request: Request<v1::ListAliasesRequest>,
    ) -> Result<Response<v1::ListAliasesResponse>, Status> {
        let allowed = self.check_administration();
        self.call("Keys.ListAliases", Action::ListAliases, request, |node, caller, message| async move {
            allowed?;
            let count = page_size(message.page_size)?;
            let page = node.list_aliases(&caller, page_start(&message.page_token)?, count).await?;
            Ok(v1::ListAliasesResponse {
                aliases: page.aliases.iter().map(convert::proto_alias).collect(),
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

    async fn schedule_destruction(
        &self,
        request: Request<v1::ScheduleDestructionRequest>,
    ) -> Result<Response<v1::Key>, Status> {
        let allowed = self.check_administration();
        let (method, action) = ("Keys.ScheduleDestruction", Action::ScheduleDestruction);
        self.call(method, action, request, move |node, caller, message| async move {
            allowed?;
            let key = convert::key_ref("key", &message.key)?;
            let days = match message.window_days {
                0 => WINDOW_DAYS_MAX,
                days if (WINDOW_DAYS_MIN..=WINDOW_DAYS_MAX).contains(&days) => days,
                days => {
                    let error =
                        format!("is {days}; {WINDOW_DAYS_MIN} to {WINDOW_DAYS_MAX} days are possible");
                    return Err(ServiceError::field("window_days", error));
                }
            };
            let command =
                KeyCommand::ScheduleDestruction(UnixMillis(now().0 + u64::from(days) * MILLIS_PER_DAY));
            Ok(convert::proto_key(&*node.change_key_state(&caller, &key, action, command).await?))
        })
        .await
    }

    async fn cancel_destruction(
        &self,
        request: Request<v1::CancelDestructionRequest>,
    ) -> Result<Response<v1::Key>, Status> {
        let request = request.map(|message| message.key);
        let command = (Action::CancelDestruction, KeyCommand::CancelDestruction);
        self.change_state("Keys.CancelDestruction", command, request).await
    }

    async fn get_usage_report(
        &self,
        request: Request<v1::GetUsageReportRequest>,
    ) -> Result<Response<v1::UsageReport>, Status> {
        let allowed = self.check_administration();
        self.call("Keys.GetUsageReport", Action::ReadUsage, request, |node, caller, message| async move {
            allowed?;
            let key = convert::key_selector("key", &message.key)?;
            Ok(convert::proto_usage(&node.usage_report(&caller, &key).await?))
        })
        .await
    }

    async fn get_destruction_certificates(
        &self,
        request: Request<v1::GetDestructionCertificatesRequest>,
    ) -> Result<Response<v1::GetDestructionCertificatesResponse>, Status> {
        let allowed = self.check_administration();
        let (method, action) = ("Keys.GetDestructionCertificates", Action::ReadDestruction);
        self.call(method, action, request, |node, caller, message| async move {
            allowed?;
            let key = convert::key_selector("key", &message.key)?;
            let count = match message.page_size {
                0 => CERTIFICATES_DEFAULT,
                size if size <= CERTIFICATES_MAX => size,
                size => {
                    let error = format!("is {size}; at most {CERTIFICATES_MAX} are allowed");
                    return Err(ServiceError::field("page_size", error));
                }
            };
            let after = match message.page_token.as_str() {
                "" => UnixMillis(0),
                token => {
                    token.parse().map(UnixMillis).ok().filter(|time| time.0 < i64::MAX as u64).ok_or_else(
                        || {
                            ServiceError::field(
                                "page_token",
                                "is not one that GetDestructionCertificates returned",
                            )
                        },
                    )?
                }
            };
            let mut found = node.destruction_certificates(&caller, &key, after, count + 1).await?;
            let has_more = found.len() > count as usize;
            found.truncate(count as usize);
            let next_page_token = match found.last() {
                Some((time, _)) if has_more => time.0.to_string(),
                _ => String::new(),
            };
            let certificates = found.into_iter().map(|(_, certificate)| certificate).collect();
            Ok(v1::GetDestructionCertificatesResponse { certificates, next_page_token })
        })
        .await
    }
}
