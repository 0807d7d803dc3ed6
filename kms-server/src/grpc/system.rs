use super::{Gate, convert};
use kms_core::audit::Checkpoint;
use kms_core::codec;
use kms_core::id::CustodianName;
use kms_core::policy::{Action, Decision, decide};
use kms_proto::v1::{self, system_server::System};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl System for Gate {
    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::Status>, Status> {
        self.call("System.GetStatus", Action::ReadStatus, request, |node, _, _| async move {
            let open = node.opened();
            let checkpoint = node.database.last_checkpoint().await?;
            let checkpoint: Option<Checkpoint> = checkpoint.and_then(|signed| codec::open(&signed.body).ok());
            let threshold = node.bundle.threshold();
            Ok(v1::Status {
                seal_state: convert::proto_seal_state(open.as_deref()),
                sealed_reason: if open.is_none() { node.sealed_because() } else { String::new() },
                threshold: threshold.needed().into(),
                custodian_count: threshold.total().into(),
                present: node.custodians_present().iter().map(CustodianName::to_string).collect(),
                suite: node.bundle.suite.name().into(),
                cluster_name: node.bundle.cluster_name.to_string(),
                node: node.name.to_string(),
                version: env!("CARGO_PKG_VERSION").into(),
                module: format!("{} ({})", node.config.hsm.module.display(), node.profile_name()),
                bundle_fingerprint: node.fingerprint.to_hex(),
                log_size: node.database.head().await?.frontier.size(),
                checkpoint_size: checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.size),
                checkpoint_time: checkpoint.map(|checkpoint| convert::timestamp(checkpoint.time)),
            })
        })
        .await
    }

    async fn who_am_i(
        &self,
        request: Request<v1::WhoAmIRequest>,
    ) -> Result<Response<v1::WhoAmIResponse>, Status> {
        self.call("System.WhoAmI", Action::ReadStatus, request, |_, caller, _| async move {
            let allowed = Action::ALL
                .into_iter()
                .filter(|action| decide(&caller.principal, *action) == Decision::Allow)
                .map(|action| action.event().to_owned())
                .collect();
            Ok(v1::WhoAmIResponse { principal: caller.principal.to_uri(), allowed })
        })
        .await
    }

    async fn seal(&self, request: Request<v1::SealRequest>) -> Result<Response<v1::SealResponse>, Status> {
        self.call("System.Seal", Action::Seal, request, |node, caller, _| async move {
            node.seal_for(&caller).await?;
            Ok(v1::SealResponse {})
        })
        .await
    }
}
