//! What people say about keys: updating it, recording it, and what of it keeps a key from being destroyed.

use super::keys::{Changed, Draft};
use super::open::{DECISION_COUNT_MAX, KeyEntry, contention};
use super::{Caller, Node, ServiceError};
use crate::random::now;
use crate::store::KeyRow;
use kms_core::attributes::{AttributeChanges, KeyAttributes, Retention};
use kms_core::audit::{Outcome, Record};
use kms_core::id::{KeySelector, UnixMillis};
use kms_core::policy::Action;
use kms_core::reason::Reason;
use std::sync::Arc;

/// What `UpdateKey` asks.
#[derive(Clone, Debug)]
pub struct UpdateKey {
    /// The key, by its own name or id.
    pub key: KeySelector,
    /// The revision that the caller has seen; `None` for any.
    pub expected_revision: Option<u64>,
    /// What changes.
    pub changes: AttributeChanges,
}

/// A record that tells what changes of attributes.
pub(super) fn attributed(mut record: Record, before: &KeyAttributes, after: &KeyAttributes) -> Record {
    if before.sensitivity != after.sensitivity {
        record = record.detail("sensitivity", after.sensitivity.level().to_string());
    }
    for (name, before, after) in [
        ("owner", before.owner.as_str(), after.owner.as_str()),
        ("description", before.description.as_str(), after.description.as_str()),
    ] {
        if before != after {
            record = record.detail(name, after);
        }
    }
    for (name, value) in &after.labels {
        if before.labels.get(name) != Some(value) {
            record = record.detail(&format!("label.{name}"), value.as_str());
        }
    }
    let removed = before.labels.keys().filter(|name| !after.labels.contains_key(name));
    let removed: Vec<&str> = removed.map(|name| name.as_str()).collect();
    if !removed.is_empty() {
        record = record.detail("labels-removed", removed.join(", "));
    }
    if let Some(until) = after.retain_until.filter(|until| before.retain_until != Some(*until)) {
        record = record.detail("retain-until", until.0.to_string());
    }
    if before.is_protected != after.is_protected {
        record = record.detail("deletion-protection", if after.is_protected { "on" } else { "off" });
    }
    record
}

/// That nothing keeps a key from being destroyed at a time.
///
/// # Errors
/// `KEY_RETAINED` with what to do.
pub(super) fn check_retention(entry: &KeyEntry, time: UnixMillis) -> Result<(), ServiceError> {
    let name = &entry.row.name;
    let message = match entry.row.attributes.retention_at(time) {
        None => return Ok(()),
        Some(Retention::Protected) => {
            format!("key {name} is protected from destruction; end its protection first (UpdateKey)")
        }
        Some(Retention::Until(until)) => format!(
            "key {name} is to be retained until {} (milliseconds since 1970); the window must end after that",
            until.0
        ),
    };
    Err(ServiceError { field: Some("key"), ..ServiceError::new(Reason::KeyRetained, message) })
}

/// The key with its new attributes.
fn updated(entry: &KeyEntry, request: &UpdateKey) -> Result<KeyRow, ServiceError> {
    entry.check_named(&request.key)?;
    let row = &entry.row;
    let state = row.standing_at(now()).state;
    if state.is_destroyed() {
        let message = format!("key {} is {state}; what is said of it stays as it is", row.name);
        return Err(ServiceError::new(Reason::KeyStateForbids, message));
    }
    if let Some(expected) = request.expected_revision.filter(|expected| *expected != row.revision) {
        let message = format!(
            "key {} has revision {}, not {expected}; look at it again before changing it",
            row.name, row.revision
        );
        let error = ServiceError::new(Reason::RevisionMismatch, message);
        return Err(ServiceError { field: Some("expected_revision"), ..error });
    }
    let attributes = row
        .attributes
        .changed(&request.changes)
        .map_err(|error| ServiceError::field(error.field(), error))?;
    if let Some(until) = request.changes.retain_until {
        if until <= now() {
            return Err(ServiceError::field("retain_until", "must be in the future"));
        }
        let standings = entry.versions.iter().map(|version| version.standing);
        let is_doomed = |standing: kms_core::key::Standing| {
            !standing.state.is_destroyed() && standing.destruction.is_some_and(|one| one.time < until)
        };
        if std::iter::once(row.standing).chain(standings).any(is_doomed) {
            let message = "is after the end of a destruction that is scheduled; cancel that first";
            return Err(ServiceError::field("retain_until", message));
        }
    }
    Ok(KeyRow { attributes, ..row.clone() })
}

impl Node {
    /// Changes what is said of a key. What it does not name stays.
    ///
    /// # Errors
    /// [`ServiceError`] with the documented reason; [`Node::perform`] records it.
    pub async fn update_key(
        &self,
        caller: &Caller,
        request: &UpdateKey,
    ) -> Result<Arc<KeyEntry>, ServiceError> {
        let open = self.require_open()?;
        let tenant = &caller.principal.tenant;
        for _ in 0..DECISION_COUNT_MAX {
            let (found, row) =
                open.judge(&self.database, tenant, &request.key, |entry| updated(entry, request)).await?;
            let before = &found.key.row;
            let record = self
                .record(Action::UpdateKey.event(), Outcome::Done, caller)
                .key(before.key_id, None)
                .detail("name", before.name.as_str());
            let record = attributed(record, &before.attributes, &row.attributes);
            if let Changed::Done = self.commit_key(&open, record, Draft::of(row, vec![]), None).await? {
                return Ok(open.find(&self.database, tenant, &request.key).await?.key);
            }
        }
        Err(contention())
    }
}
