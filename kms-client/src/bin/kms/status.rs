//! `kms status`, `kms whoami`, `kms seal`.

use crate::Session;
use crate::output::{EXIT_SEALED, Failure, fields};
use kms_client::audit::rfc3339;
use kms_client::{Client, ClientError, SealState, Status};
use kms_core::reason::Reason;
use serde_json::json;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::Instant;

/// Time between two looks with `--wait`.
const POLL: Duration = Duration::from_millis(500);

pub async fn status(session: &Session, wait: Option<Duration>) -> Result<ExitCode, Failure> {
    let profile = session.profile()?;
    let end = Instant::now() + wait.unwrap_or_default();
    let status = loop {
        let answer = match Client::builder(&profile).deadline(session.deadline).connect().await {
            Ok(client) => client.status().await,
            Err(error) => Err(error),
        };
        let is_over = Instant::now() + POLL >= end;
        match answer {
            Ok(status) if status.seal_state == SealState::Unsealed || is_over => break status,
            Err(error) if is_over || !may_pass(&error) => return Err(error.into()),
            _ => tokio::time::sleep(POLL).await,
        }
    };
    show(session, &status)?;
    Ok(match status.seal_state {
        SealState::Unsealed => ExitCode::SUCCESS,
        SealState::Sealed => ExitCode::from(EXIT_SEALED),
    })
}

/// Whether the obstacle may go away while the node starts.
fn may_pass(error: &ClientError) -> bool {
    match error {
        ClientError::NoNodeServed { failures } => failures.iter().any(|failure| may_pass(&failure.error)),
        ClientError::Unreachable { .. }
        | ClientError::ConnectionBroke { .. }
        | ClientError::DeadlinePassed { .. }
        | ClientError::Foreign { code: tonic::Code::Unavailable, .. } => true,
        other => matches!(
            other.reason(),
            Some(
                Reason::Sealed
                    | Reason::Overloaded
                    | Reason::DeadlineExceeded
                    | Reason::HsmUnavailable
                    | Reason::LogUnavailable
            )
        ),
    }
}

fn show(session: &Session, status: &Status) -> Result<(), Failure> {
    let text = || {
        let mut rows = vec![("state", status.seal_state.name().to_owned())];
        if !status.sealed_reason.is_empty() {
            rows.push(("why", status.sealed_reason.clone()));
        }
        let present = match status.present.is_empty() {
            true => "nobody".to_owned(),
            false => status.present.join(", "),
        };
        rows.extend([
            ("threshold", format!("{} of {} custodians", status.threshold, status.custodian_count)),
            ("present", present),
            ("cluster", status.cluster_name.clone()),
            ("node", format!("{}, version {}", status.node, status.version)),
            ("suite", status.suite.name().to_owned()),
            ("module", status.module.clone()),
            ("bundle", status.bundle_fingerprint.clone()),
            ("log", format!("{} records", status.log_size)),
            (
                "last checkpoint",
                status.checkpoint.map_or("none yet".to_owned(), |(size, time)| {
                    format!("at {size} records, {}", rfc3339(time))
                }),
            ),
        ]);
        fields(&rows)
    };
    session.output.show(text, || {
        json!({
            "seal_state": status.seal_state.name(),
            "sealed_reason": status.sealed_reason,
            "threshold": status.threshold,
            "custodian_count": status.custodian_count,
            "present": status.present,
            "suite": status.suite.name(),
            "cluster_name": status.cluster_name,
            "node": status.node,
            "version": status.version,
            "module": status.module,
            "bundle_fingerprint": status.bundle_fingerprint,
            "log_size": status.log_size,
            "checkpoint_size": status.checkpoint.map(|(size, _)| size),
            "checkpoint_time": status.checkpoint.map(|(_, time)| rfc3339(time)),
        })
    })
}

pub async fn whoami(session: &Session) -> Result<(), Failure> {
    let answer = session.connect().await?.who_am_i().await?;
    let text = || fields(&[("principal", answer.principal.clone()), ("allowed", answer.allowed.join(", "))]);
    session.output.show(text, || json!({ "principal": answer.principal, "allowed": answer.allowed }))
}

pub async fn seal(session: &Session) -> Result<(), Failure> {
    session.connect().await?.seal().await?;
    session.output.show(
        || "sealed: no key can be used until custodians run kms-ceremony unseal\n".to_owned(),
        || json!({ "seal_state": "sealed" }),
    )
}
