//! The states of keys and versions: commands, and what dates do by themselves (docs/key-states.md).

use super::keys::{Changed, Draft, transition};
use super::open::{DECISION_COUNT_MAX, KeyEntry, Open, contention};
use super::{Caller, Node, ServiceError};
use crate::random::now;
use crate::store::{DestructionRequest, KeyRow, VersionRow};
use kms_core::audit::Outcome;
use kms_core::id::{KeyId, KeyRef, KeySelector, KeyVersion, TenantName, UnixMillis};
use kms_core::key::{KeyCommand, KeyState, Standing};
use kms_core::policy::Action;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How often it is looked whether the date of some key has come, and what other nodes have destroyed.
const DATES_ROUND: Duration = Duration::from_secs(2);
/// Most keys whose dates are written in one round.
const DUE_KEYS_MAX: u32 = 100;
/// How far the clocks of two nodes may be apart before one of them keeps in memory what the other has destroyed.
const CLOCK_SKEW_MILLIS: u64 = 60 * 60 * 1000;

/// Who gives a command, where that is kept beside the log.
fn request(
    standing: &Standing,
    before: Option<DestructionRequest>,
    caller: &Caller,
) -> Option<DestructionRequest> {
    standing.destruction?;
    before.or_else(|| Some(DestructionRequest { by: caller.principal.clone(), time: now() }))
}

/// A key with a command applied to it.
fn with_key_changed(entry: &KeyEntry, command: KeyCommand, caller: &Caller) -> Result<Draft, ServiceError> {
    let row = &entry.row;
    let standing = row.standing_at(now()).apply(command).map_err(transition)?;
    let destruction_request = request(&standing, row.destruction_request.clone(), caller);
    Ok(Draft::of(KeyRow { standing, destruction_request, ..row.clone() }, vec![]))
}

/// A key with a command applied to one of its versions.
fn with_version_changed(
    entry: &KeyEntry,
    number: KeyVersion,
    command: KeyCommand,
    caller: &Caller,
) -> Result<Draft, ServiceError> {
    if matches!(command, KeyCommand::Activate | KeyCommand::Deactivate) {
        let message = format!("names a version, and {command} is for whole keys; leave out \"@{number}\"");
        return Err(ServiceError::field("key", message));
    }
    let row = entry.version(number)?;
    let mut standing = row.standing_at(now()).apply(command).map_err(transition)?;
    if standing.state == KeyState::Active && number != entry.row.current_version {
        // A newer one has taken over meanwhile.
        standing = standing.apply(KeyCommand::Deactivate).map_err(transition)?;
    }
    let destruction_request = request(&standing, row.destruction_request.clone(), caller);
    let version = VersionRow { standing, destruction_request, ..row.clone() };
    Ok(Draft::of(entry.row.clone(), vec![version]))
}

impl Node {
    /// Moves a key, or one version of it, to another state.
    ///
    /// # Errors
    /// [`ServiceError`] with the documented reason; [`Node::perform`] records it.
    pub async fn change_key_state(
        &self,
        caller: &Caller,
        reference: &KeyRef,
        action: Action,
        command: KeyCommand,
    ) -> Result<Arc<KeyEntry>, ServiceError> {
        let open = self.require_open()?;
        let tenant = &caller.principal.tenant;
        for _ in 0..DECISION_COUNT_MAX {
            let changed = |entry: &KeyEntry| match reference.version {
                None => with_key_changed(entry, command, caller),
                Some(number) => with_version_changed(entry, number, command, caller),
            };
            let (found, draft) = open.judge(&self.database, tenant, &reference.key, changed).await?;
            let row = &found.key.row;
            let mut record = self
                .record(action.event(), Outcome::Done, caller)
                .key(row.key_id, reference.version)
                .detail("name", row.name.as_str());
            if let KeyCommand::ScheduleDestruction(time) = command {
                record = record.detail("destroys", time.0.to_string());
            }
            if let Changed::Done = self.commit_key(&open, record, draft, None).await? {
                return Ok(open.find(&self.database, tenant, &reference.key).await?.key);
            }
        }
        Err(contention())
    }

    /// Writes what a date has done to a key and its versions into their rows, and goes on with destructions that have
    /// begun. `tenant` and `key_id` need not be authenticated.
    async fn write_due_state(
        &self,
        open: &Open,
        tenant: &TenantName,
        key_id: KeyId,
    ) -> Result<(), ServiceError> {
        let selector = KeySelector::Id(key_id);
        let entry = open.find(&self.database, tenant, &selector).await?.key;
        let row = &entry.row;
        if let Some(command) = row.period.due(row.standing, now()) {
            let standing = row.standing.apply(command).map_err(transition)?;
            let draft = Draft::of(KeyRow { standing, ..row.clone() }, vec![]);
            self.commit_due(open, &entry, None, command, draft).await?;
        }
        let is_due = |version: &&VersionRow| version.standing_at(now()) != version.standing;
        if let Some(version) = entry.versions.iter().find(is_due) {
            let standing = version.standing_at(now());
            let draft = Draft::of(row.clone(), vec![VersionRow { standing, ..version.clone() }]);
            self.commit_due(open, &entry, Some(version.version), KeyCommand::Destroy, draft).await?;
        }
        let entry = open.find(&self.database, tenant, &selector).await?.key;
        self.erase(open, &entry).await
    }

    /// Commits what a date has done. When another node was faster there is nothing left to do.
    async fn commit_due(
        &self,
        open: &Open,
        entry: &KeyEntry,
        version: Option<KeyVersion>,
        command: KeyCommand,
        draft: Draft,
    ) -> Result<(), ServiceError> {
        let (event, because) = match command {
            KeyCommand::Activate => (Action::ActivateKey.event(), "its activation date has come"),
            KeyCommand::Deactivate => (Action::DeactivateKey.event(), "its expiry date has come"),
            _ => ("key.destroy", "the window to cancel its destruction is over"),
        };
        let record = self
            .own_record(event, Outcome::Done)
            .key(entry.row.key_id, version)
            .detail("name", entry.row.name.as_str())
            .detail("because", because);
        self.commit_key(open, record, draft, None).await.map(drop)
    }

    /// Writes what dates do to keys into their rows until the node is sealed. The dates count without it.
    pub(super) async fn follow_dates(self: Arc<Self>, open: Weak<Open>) {
        let unsealed = now();
        // Where the last page ended: keys that cannot be written must not keep the others from being seen.
        let mut after = None;
        loop {
            // Sealing waits for whoever holds the unsealed state: it is held for one key at a time.
            if open.strong_count() == 0 || self.opened().is_none() {
                return;
            }
            let due =
                self.database.due_keys(now(), after.as_ref(), DUE_KEYS_MAX).await.unwrap_or_else(|error| {
                    tracing::warn!(error = %crate::chain(&error), "the keys' dates cannot be read");
                    Vec::new()
                });
            let (mut failed, mut last_error) = (0, None);
            for (tenant, key) in &due {
                let Some(opened) = open.upgrade().filter(|_| self.opened().is_some()) else { return };
                if let Err(error) = self.write_due_state(&opened, tenant, *key).await {
                    (failed, last_error) = (failed + 1, Some((*key, error)));
                }
            }
            if let Some((key, error)) = last_error {
                tracing::error!(failed, %key, %error, "the state of keys cannot be written; their dates count anyway");
            }
            let is_last_page = due.len() < DUE_KEYS_MAX as usize;
            after = if is_last_page { None } else { due.into_iter().last() };
            if is_last_page {
                self.forget_destroyed(&open, unsealed).await;
                tokio::time::sleep(DATES_ROUND).await;
            }
        }
    }

    /// Drops from memory what any node has destroyed since this one was unsealed.
    async fn forget_destroyed(&self, open: &Weak<Open>, unsealed: UnixMillis) {
        let since = UnixMillis(unsealed.0.saturating_sub(CLOCK_SKEW_MILLIS));
        match self.database.destroyed_since(since).await {
            Ok(destroyed) => {
                if let Some(opened) = open.upgrade() {
                    opened.forget_destroyed(&destroyed);
                }
            }
            Err(error) => {
                tracing::warn!(error = %crate::chain(&error), "what was destroyed cannot be read");
            }
        }
    }
}
