//! The node itself: status, the caller's identity, sealing.

use crate::connect::{Client, Repeat};
use crate::convert;
use crate::error::ClientError;
use kms_core::id::UnixMillis;
use kms_core::suite::Suite;
use kms_proto::v1;

/// Whether the node can use keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealState {
    /// It waits for custodians.
    Sealed,
    /// It serves.
    Unsealed,
}

impl SealState {
    /// `sealed` or `unsealed`.
    pub const fn name(self) -> &'static str {
        match self {
            SealState::Sealed => "sealed",
            SealState::Unsealed => "unsealed",
        }
    }
}

/// A node's status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whether it can use keys.
    pub seal_state: SealState,
    /// Why it is sealed, in a sentence; empty when unsealed.
    pub sealed_reason: String,
    /// Custodians needed to unseal.
    pub threshold: u32,
    /// Custodians there are.
    pub custodian_count: u32,
    /// Custodians present in an unseal ceremony right now.
    pub present: Vec<String>,
    /// The deployment's suite.
    pub suite: Suite,
    /// The deployment's name.
    pub cluster_name: String,
    /// The node's name.
    pub node: String,
    /// The server's version.
    pub version: String,
    /// PKCS#11 module and profile.
    pub module: String,
    /// Fingerprint of the bundle, hexadecimal.
    pub bundle_fingerprint: String,
    /// Records in the audit log.
    pub log_size: u64,
    /// Size and time of the last checkpoint; `None` before the first.
    pub checkpoint: Option<(u64, UnixMillis)>,
}

/// Who the service thinks the caller is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhoAmI {
    /// `kms://tenant/role/name`
    pub principal: String,
    /// Events that the role allows.
    pub allowed: Vec<String>,
}

impl TryFrom<v1::Status> for Status {
    type Error = ClientError;

    fn try_from(status: v1::Status) -> Result<Self, ClientError> {
        let seal_state = match status.seal_state() {
            v1::SealState::Sealed => SealState::Sealed,
            v1::SealState::Unsealed => SealState::Unsealed,
            v1::SealState::Unspecified => {
                return Err(ClientError::malformed("the status does not say whether the node is sealed"));
            }
        };
        let suite = Suite::from_name(&status.suite)
            .ok_or_else(|| ClientError::malformed(format!("suite {:?} is unknown", status.suite)))?;
        let checkpoint = match status.checkpoint_time {
            None => None,
            some => Some((status.checkpoint_size, convert::time(some, "a checkpoint")?)),
        };
        Ok(Self {
            seal_state,
            sealed_reason: status.sealed_reason,
            threshold: status.threshold,
            custodian_count: status.custodian_count,
            present: status.present,
            suite,
            cluster_name: status.cluster_name,
            node: status.node,
            version: status.version,
            module: status.module,
            bundle_fingerprint: status.bundle_fingerprint,
            log_size: status.log_size,
            checkpoint,
        })
    }
}

impl Client {
    /// A node's status; works sealed and unsealed. With several nodes it is that of the first that answers.
    ///
    /// # Errors
    /// `PRINCIPAL_UNKNOWN`, or no connection.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.call(Repeat::Safe, &v1::GetStatusRequest {}, |mut stubs, request| async move {
            stubs.system.get_status(request).await
        })
        .await?
        .try_into()
    }

    /// Who the service thinks the caller is.
    ///
    /// # Errors
    /// `PRINCIPAL_UNKNOWN`, or no connection.
    pub async fn who_am_i(&self) -> Result<WhoAmI, ClientError> {
        let answer = self
            .call(Repeat::Safe, &v1::WhoAmIRequest {}, |mut stubs, request| async move {
                stubs.system.who_am_i(request).await
            })
            .await?;
        Ok(WhoAmI { principal: answer.principal, allowed: answer.allowed })
    }

    /// Closes the operations partition and wipes every key from memory. Custodians must come to open it again.
    ///
    /// # Errors
    /// [`ClientError::NodeAmbiguous`]: the client knows several nodes; choose one with
    /// [`Profile::at`](crate::Profile::at). `NOT_PERMITTED`.
    pub async fn seal(&self) -> Result<(), ClientError> {
        let endpoints: Vec<String> = self.endpoints().map(str::to_owned).collect();
        if endpoints.len() > 1 {
            return Err(ClientError::NodeAmbiguous { endpoints });
        }
        self.call(Repeat::Never, &v1::SealRequest {}, |mut stubs, request| async move {
            stubs.system.seal(request).await
        })
        .await
        .map(|_| ())
    }
}
