//! Reading the audit log of a deployment as its auditor.

use crate::deployment::Deployment;
use crate::rpc::Rpc;
use kms_core::audit::Record;
use kms_core::codec;
use kms_proto::v1;

/// One entry of the log.
#[derive(Clone, Debug)]
pub struct LogEntry {
    /// Its place, from 0.
    pub index: u64,
    /// What it says.
    pub record: Record,
}

impl LogEntry {
    /// The value of a detail.
    pub fn detail(&self, name: &str) -> Option<&str> {
        self.record.details.iter().find(|detail| detail.name == name).map(|detail| detail.value.as_str())
    }

    /// Whether it records a refusal for this reason.
    pub fn is_refusal(&self, reason: &str) -> bool {
        self.record.outcome == "refused" && self.record.reason.as_deref() == Some(reason)
    }
}

/// Every record from an index on.
///
/// # Panics
/// When the auditor is refused; the service must be unsealed.
pub async fn records_from(deployment: &Deployment, from_index: u64) -> Vec<LogEntry> {
    let mut auditor = Rpc::connect(deployment, "auditor").await;
    let request = v1::ListRecordsRequest { from_index, count_max: 10_000, ..Default::default() };
    let mut stream = auditor.audit.list_records(request).await.expect("the auditor may read").into_inner();
    let mut entries = Vec::new();
    while let Some(listed) = stream.message().await.expect("the log can be read") {
        let record: Record = codec::open(&listed.body).expect("a record is canonical");
        entries.push(LogEntry { index: listed.index, record });
    }
    entries
}

/// How many records there are.
///
/// # Panics
/// When the service does not answer.
pub async fn log_size(deployment: &Deployment) -> u64 {
    let mut auditor = Rpc::connect(deployment, "auditor").await;
    let status = auditor.system.get_status(v1::GetStatusRequest {}).await.expect("status answers");
    status.into_inner().log_size
}

/// The whole log verifies with the bundle; gives the verifier's summary.
///
/// # Panics
/// When it does not.
#[track_caller]
pub fn verify(deployment: &Deployment) -> serde_json::Value {
    deployment.kms("auditor", &["--output", "json", "audit", "verify"]).json()
}

/// The record of one request, found by its id.
///
/// # Panics
/// When there is none.
pub async fn record_of(deployment: &Deployment, request_id: &str) -> LogEntry {
    assert!(!request_id.is_empty(), "the answer carries no request id");
    let entries = records_from(deployment, 0).await;
    let found = entries.into_iter().rev().find(|entry| entry.record.request_id == request_id);
    found.unwrap_or_else(|| panic!("the audit log has no record of request {request_id}"))
}
