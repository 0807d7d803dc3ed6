//! Authority: one pure function, default deny.

use crate::id::{Principal, Role};

/// Everything that can be asked of the service. One entry for each call, and nothing finer yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// `System.GetStatus`, `System.WhoAmI`.
    ReadStatus,
    /// `System.Seal`.
    Seal,
    /// `Keys.DescribeKey`.
    DescribeKey,
    /// `Keys.ListKeys`.
    ListKeys,
    /// `Keys.CreateKey`.
    CreateKey,
    /// `Keys.GetImportParameters`.
    BeginImport,
    /// `Keys.ImportKeyMaterial`.
    ImportKey,
    /// `Keys.RotateKey`.
    RotateKey,
    /// `Keys.UpdateKey`.
    UpdateKey,
    /// `Keys.CreateAlias`.
    CreateAlias,
    /// `Keys.RetargetAlias`.
    RetargetAlias,
    /// `Keys.DeleteAlias`.
    DeleteAlias,
    /// `Keys.ListAliases`.
    ListAliases,
    /// `Keys.ActivateKey`.
    ActivateKey,
    /// `Keys.SuspendKey`.
    SuspendKey,
    /// `Keys.ResumeKey`.
    ResumeKey,
    /// `Keys.DeactivateKey`.
    DeactivateKey,
    /// `Keys.ArchiveKey`.
    ArchiveKey,
    /// `Keys.RecoverKey`.
    RecoverKey,
    /// `Keys.CompromiseKey`.
    CompromiseKey,
    /// `Keys.ScheduleDestruction`.
    ScheduleDestruction,
    /// `Keys.CancelDestruction`.
    CancelDestruction,
    /// `Keys.GetUsageReport`.
    ReadUsage,
    /// `Keys.GetDestructionCertificates`.
    ReadDestruction,
    /// `Crypto.GenerateDataKey`.
    GenerateDataKey,
    /// `Crypto.DecryptDataKey`.
    DecryptDataKey,
    /// `Crypto.GenerateDataKeyPair`.
    GenerateDataKeyPair,
    /// `Crypto.DecryptDataKeyPair`.
    DecryptDataKeyPair,
    /// `DataKeys.CreateDataKey`.
    CreateDataKey,
    /// `DataKeys.GetDataKey`.
    GetDataKey,
    /// `DataKeys.DescribeDataKey`.
    DescribeDataKey,
    /// `DataKeys.ListDataKeys`.
    ListDataKeys,
    /// `DataKeys.RotateDataKey`.
    RotateDataKey,
    /// `DataKeys.DisableDataKey`.
    DisableDataKey,
    /// `DataKeys.EnableDataKey`.
    EnableDataKey,
    /// `DataKeys.DestroyDataKey`.
    DestroyDataKey,
    /// `Crypto.Encrypt`.
    Encrypt,
    /// `Crypto.Decrypt`.
    Decrypt,
    /// `Crypto.AsymmetricEncrypt`.
    AsymmetricEncrypt,
    /// `Crypto.AsymmetricDecrypt`.
    AsymmetricDecrypt,
    /// `Crypto.ReEncrypt`.
    ReEncrypt,
    /// `Crypto.GenerateMac`.
    GenerateMac,
    /// `Crypto.VerifyMac`.
    VerifyMac,
    /// `Crypto.RawEncrypt`.
    RawEncrypt,
    /// `Crypto.RawDecrypt`.
    RawDecrypt,
    /// `Crypto.GenerateRandom`.
    GenerateRandom,
    /// `Crypto.Sign`.
    Sign,
    /// `Crypto.GetCertificateSigningRequest`.
    RequestCertificate,
    /// `Crypto.Verify`.
    Verify,
    /// `Crypto.GetPublicKey`.
    GetPublicKey,
    /// `Crypto.Batch`, `Crypto.Stream`: that they are begun. Each item has an action of its own.
    Batch,
    /// `Audit.*`.
    ReadAudit,
    /// `Ceremony.Join`.
    JoinCeremony,
}

impl Action {
    /// Every action.
    pub const ALL: [Action; 53] = [
        Action::ReadStatus,
        Action::Seal,
        Action::DescribeKey,
        Action::ListKeys,
        Action::CreateKey,
        Action::BeginImport,
        Action::ImportKey,
        Action::RotateKey,
        Action::UpdateKey,
        Action::CreateAlias,
        Action::RetargetAlias,
        Action::DeleteAlias,
        Action::ListAliases,
        Action::ActivateKey,
        Action::SuspendKey,
        Action::ResumeKey,
        Action::DeactivateKey,
        Action::ArchiveKey,
        Action::RecoverKey,
        Action::CompromiseKey,
        Action::ScheduleDestruction,
        Action::CancelDestruction,
        Action::ReadUsage,
        Action::ReadDestruction,
        Action::GenerateDataKey,
        Action::DecryptDataKey,
        Action::GenerateDataKeyPair,
        Action::DecryptDataKeyPair,
        Action::CreateDataKey,
        Action::GetDataKey,
        Action::DescribeDataKey,
        Action::ListDataKeys,
        Action::RotateDataKey,
        Action::DisableDataKey,
        Action::EnableDataKey,
        Action::DestroyDataKey,
        Action::Encrypt,
        Action::Decrypt,
        Action::AsymmetricEncrypt,
        Action::AsymmetricDecrypt,
        Action::ReEncrypt,
        Action::GenerateMac,
        Action::VerifyMac,
        Action::RawEncrypt,
        Action::RawDecrypt,
        Action::GenerateRandom,
        Action::Sign,
        Action::RequestCertificate,
        Action::Verify,
        Action::GetPublicKey,
        Action::Batch,
        Action::ReadAudit,
        Action::JoinCeremony,
    ];

    /// The event name in audit records.
    pub const fn event(self) -> &'static str {
        match self {
            Action::ReadStatus => "system.status",
            Action::Seal => "system.seal",
            Action::DescribeKey => "key.describe",
            Action::ListKeys => "key.list",
            Action::CreateKey => "key.create",
            Action::BeginImport => "import.begin",
            Action::ImportKey => "key.import",
            Action::RotateKey => "key.rotate",
            Action::UpdateKey => "key.update",
            Action::CreateAlias => "alias.create",
            Action::RetargetAlias => "alias.retarget",
            Action::DeleteAlias => "alias.delete",
            Action::ListAliases => "alias.list",
            Action::ActivateKey => "key.activate",
            Action::SuspendKey => "key.suspend",
            Action::ResumeKey => "key.resume",
            Action::DeactivateKey => "key.deactivate",
            Action::ArchiveKey => "key.archive",
            Action::RecoverKey => "key.recover",
            Action::CompromiseKey => "key.compromise",
            Action::ScheduleDestruction => "key.schedule_destruction",
            Action::CancelDestruction => "key.cancel_destruction",
            Action::ReadUsage => "key.usage_report",
            Action::ReadDestruction => "key.destruction",
            Action::GenerateDataKey => "data_key.generate",
            Action::DecryptDataKey => "data_key.decrypt",
            Action::GenerateDataKeyPair => "data_key_pair.generate",
            Action::DecryptDataKeyPair => "data_key_pair.decrypt",
            Action::CreateDataKey => "data_key.create",
            Action::GetDataKey => "data_key.get",
            Action::DescribeDataKey => "data_key.describe",
            Action::ListDataKeys => "data_key.list",
            Action::RotateDataKey => "data_key.rotate",
            Action::DisableDataKey => "data_key.disable",
            Action::EnableDataKey => "data_key.enable",
            Action::DestroyDataKey => "data_key.destroy",
            Action::Encrypt => "data.encrypt",
            Action::Decrypt => "data.decrypt",
            Action::AsymmetricEncrypt => "asymmetric.encrypt",
            Action::AsymmetricDecrypt => "asymmetric.decrypt",
            Action::ReEncrypt => "data.reencrypt",
            Action::GenerateMac => "mac.generate",
            Action::VerifyMac => "mac.verify",
            Action::RawEncrypt => "raw.encrypt",
            Action::RawDecrypt => "raw.decrypt",
            Action::GenerateRandom => "random.generate",
            Action::Sign => "signature.sign",
            Action::RequestCertificate => "signature.request",
            Action::Verify => "signature.verify",
            Action::GetPublicKey => "key.public",
            Action::Batch => "crypto.batch",
            Action::ReadAudit => "audit.read",
            Action::JoinCeremony => "ceremony.join",
        }
    }

    /// Whether the action is possible while the service is sealed.
    pub const fn works_sealed(self) -> bool {
        matches!(self, Action::ReadStatus | Action::Seal | Action::JoinCeremony)
    }
}

/// What [`decide`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Go ahead.
    Allow,
    /// The role may not do this.
    Deny,
}

/// Whether `principal` may do `action`: the role table of docs/authority.md, everything else denied.
///
/// That the principal is listed in the bundle has been checked before: without that there is no principal.
pub fn decide(principal: &Principal, action: Action) -> Decision {
    use Action as A;
    let is_allowed = match principal.role {
        _ if action == A::ReadStatus => true,
        Role::Operator => matches!(
            action,
            A::DescribeKey
                | A::GenerateDataKey
                | A::DecryptDataKey
                | A::GenerateDataKeyPair
                | A::DecryptDataKeyPair
                | A::GetDataKey
                | A::DescribeDataKey
                | A::Encrypt
                | A::Decrypt
                | A::AsymmetricEncrypt
                | A::AsymmetricDecrypt
                | A::ReEncrypt
                | A::GenerateMac
                | A::VerifyMac
                | A::RawEncrypt
                | A::RawDecrypt
                | A::GenerateRandom
                | A::Sign
                | A::RequestCertificate
                | A::Verify
                | A::GetPublicKey
                | A::Batch
        ),
        Role::Administrator => matches!(
            action,
            A::DescribeKey
                | A::GetPublicKey
                | A::ListKeys
                | A::CreateKey
                | A::BeginImport
                | A::ImportKey
                | A::RotateKey
                | A::UpdateKey
                | A::CreateAlias
                | A::RetargetAlias
                | A::DeleteAlias
                | A::ListAliases
                | A::ActivateKey
                | A::SuspendKey
                | A::ResumeKey
                | A::DeactivateKey
                | A::ArchiveKey
                | A::RecoverKey
                | A::CompromiseKey
                | A::ScheduleDestruction
                | A::CancelDestruction
                | A::ReadUsage
                | A::ReadDestruction
                | A::CreateDataKey
                | A::DescribeDataKey
                | A::ListDataKeys
                | A::RotateDataKey
                | A::DisableDataKey
                | A::EnableDataKey
                | A::DestroyDataKey
                | A::Seal
        ),
        Role::Auditor => {
            matches!(
                action,
                A::DescribeKey
                    | A::ListKeys
                    | A::ListAliases
                    | A::ReadUsage
                    | A::ReadDestruction
                    | A::DescribeDataKey
                    | A::ListDataKeys
                    | A::GetPublicKey
                    | A::ReadAudit
            )
        }
        Role::Custodian => matches!(action, A::JoinCeremony | A::Seal),
    };
    if is_allowed { Decision::Allow } else { Decision::Deny }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{PrincipalName, TenantName};
    use alloc::format;
    use alloc::string::String;

    /// The document is the specification of the table.
    #[test]
    fn the_role_table_is_the_one_in_the_document() {
        let document = include_str!("../../docs/authority.md");
        let mut table = String::new();
        for action in Action::ALL {
            table.push_str(&format!("| `{}` |", action.event()));
            for role in Role::ALL {
                let principal = Principal {
                    tenant: TenantName::parse("default").expect("valid"),
                    role,
                    name: PrincipalName::parse("x").expect("valid"),
                };
                let cell = if decide(&principal, action) == Decision::Allow { "yes" } else { "-" };
                table.push_str(&format!(" {cell} |"));
            }
            table.push_str(if action.works_sealed() { " yes |\n" } else { " - |\n" });
        }
        assert!(document.contains(&table), "docs/authority.md must hold:\n{table}");
    }
}
