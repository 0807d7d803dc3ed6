//! The states of keys and versions: commands, and what dates do by themselves (docs/key-states.md).

use super::attributes::check_retention;
use super::keys::{Changed, Draft, transition};
use super::open::{DECISION_COUNT_MAX, KeyEntry, Open, contention};
use super::{Caller, Node, ServiceError};
use crate::random::now;
use crate::store::{DestructionRequest, KeyRow, VersionRow};
use kms_core::audit::Outcome;
use kms_core::id::{KeyId, KeyRef, KeySelector, KeyVersion, TenantName, UnixMillis};
use kms_core::key::{KeyCommand, KeyState, Standing};
use kms_core::policy::Action;
use kms_core::reason::Reason;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How often it is looked whether the date of some key has come, and what other nodes have destroyed.
const DATES_ROUND: Duration = Duration::from_secs(2);
/// Most keys whose dates are written in one round.
const DUE_KEYS_MAX: u32 = 100;
/// How far wall clock and monotonic clock may move apart while a node is unsealed, before it destroys nothing more.
const DRIFT_MAX: Duration = Duration::from_secs(5 * 60);
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

/// What a command starts from. That the window is over is recorded by itself, and not with a compromise that comes later.
fn start(written: Standing, dated: Standing, command: KeyCommand) -> Standing {
    match (written.state, command) {
        (KeyState::DestroyPending, KeyCommand::Compromise) => written,
        _ => dated,
    }
}

/// A key with a command applied to it.
fn with_key_changed(entry: &KeyEntry, command: KeyCommand, caller: &Caller) -> Result<Draft, ServiceError> {
    let row = &entry.row;
    let mut standing =
        start(row.standing, row.standing_at(now()), command).apply(command).map_err(transition)?;
    if command == KeyCommand::CancelDestruction
        && row.period.standing_at(standing, now()).state == KeyState::Active
    {
        // Its activation date has come meanwhile: it shall not encrypt because somebody kept it from being destroyed.
        let active = standing.apply(KeyCommand::Activate).map_err(transition)?;
        standing = active.apply(KeyCommand::Suspend).map_err(transition)?;
    }
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
    if entry.row.standing.state == KeyState::Creating {
        let name = &entry.row.name;
        let message =
            format!("key {name} is CREATING; {command} is for the whole key then: leave out \"@{number}\"");
        return Err(ServiceError::new(Reason::KeyStateForbids, message));
    }
    let row = entry.version(number)?;
    let mut standing =
        start(row.standing, row.standing_at(now()), command).apply(command).map_err(transition)?;
    if standing.state == KeyState::Active && number != entry.row.current_version {
        // A newer one has taken over meanwhile.
        standing = standing.apply(KeyCommand::Deactivate).map_err(transition)?;
    }
    let destruction_request = request(&standing, row.destruction_request.clone(), caller);
    let version = VersionRow { standing, destruction_request, ..row.clone() };
    Ok(Draft::of(entry.row.clone(), vec![version]))
}

/// Whether this node's clock may be believed when it says that something is to be destroyed for good.
struct ClockWatch {
    unsealed: UnixMillis,
    since: Instant,
    delay: Duration,
}

impl ClockWatch {
    fn may_destroy(&self) -> bool {
        match believed(self.unsealed, now(), self.since.elapsed()) {
            Ok(()) => self.since.elapsed() >= self.delay,
            Err(drift) => {
                tracing::error!(
                    drift_seconds = drift.as_secs(),
                    "the clock has jumped since the unseal: nothing is destroyed until the next one"
                );
                false
            }
        }
    }
}

/// Fails with the drift when the wall clock has moved otherwise than the monotonic one since the unseal.
fn believed(unsealed: UnixMillis, now: UnixMillis, passed: Duration) -> Result<(), Duration> {
    let expected = u128::from(unsealed.0) + passed.as_millis();
    let drift = Duration::from_millis(u64::try_from(expected.abs_diff(now.0.into())).unwrap_or(u64::MAX));
    if drift > DRIFT_MAX { Err(drift) } else { Ok(()) }
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
            let changed = |entry: &KeyEntry| {
                entry.check_named(&reference.key)?;
                if let KeyCommand::ScheduleDestruction(time) = command {
                    check_retention(entry, time)?;
                }
                match reference.version {
                    None => with_key_changed(entry, command, caller),
                    Some(number) => with_version_changed(entry, number, command, caller),
                }
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
        may_destroy: bool,
    ) -> Result<(), ServiceError> {
        let selector = KeySelector::Id(key_id);
        let entry = open.find(&self.database, tenant, &selector).await?.key;
        let row = &entry.row;
        let is_allowed = |command: &KeyCommand| may_destroy || *command != KeyCommand::Destroy;
        if let Some(command) = row.period.due(row.standing, now()).filter(is_allowed) {
            let standing = row.standing.apply(command).map_err(transition)?;
            let draft = Draft::of(KeyRow { standing, ..row.clone() }, vec![]);
            self.commit_due(open, &entry, None, command, draft).await?;
        }
        let is_due = |version: &&VersionRow| version.standing_at(now()) != version.standing;
        if let Some(version) = entry.versions.iter().find(is_due).filter(|_| may_destroy) {
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
        let watch = ClockWatch {
            unsealed: now(),
            since: Instant::now(),
            delay: self.config.keys.destruction_delay(),
        };
        let mut forget_since = watch.unsealed;
        // Where the last page ended: keys that cannot be written must not keep the others from being seen.
        let mut after = None;
        loop {
            // Sealing waits for whoever holds the unsealed state: it is held for one key at a time.
            if open.strong_count() == 0 || self.opened().is_none() {
                return;
            }
            self.forget_destroyed(&open, &mut forget_since).await;
            self.end_imports(&open).await;
            let may_destroy = watch.may_destroy();
            let due =
                self.database.due_keys(now(), after.as_ref(), DUE_KEYS_MAX).await.unwrap_or_else(|error| {
                    tracing::warn!(error = %crate::chain(&error), "the keys' dates cannot be read");
                    Vec::new()
                });
            let (mut failed, mut last_error) = (0, None);
            for (tenant, key) in &due {
                let Some(opened) = open.upgrade().filter(|_| self.opened().is_some()) else { return };
                if let Err(error) = self.write_due_state(&opened, tenant, *key, may_destroy).await {
                    (failed, last_error) = (failed + 1, Some((*key, error)));
                }
            }
            if let Some((key, error)) = last_error {
                tracing::error!(failed, %key, %error, "the state of keys cannot be written; their dates count anyway");
            }
            let is_last_page = due.len() < DUE_KEYS_MAX as usize;
            after = if is_last_page { None } else { due.into_iter().last() };
            if is_last_page {
                tokio::time::sleep(DATES_ROUND).await;
            }
        }
    }

    /// Drops from memory what any node has destroyed since this one was unsealed.
    async fn forget_destroyed(&self, open: &Weak<Open>, since: &mut UnixMillis) {
        let start = now();
        match self.database.destroyed_since(UnixMillis(since.0.saturating_sub(CLOCK_SKEW_MILLIS))).await {
            Ok(destroyed) => {
                if let Some(opened) = open.upgrade() {
                    opened.forget_destroyed(&destroyed);
                }
                *since = start;
            }
            Err(error) => {
                tracing::warn!(error = %crate::chain(&error), "what was destroyed cannot be read");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_jumps_is_not_believed_and_one_that_is_set_a_little_is() {
        let (unsealed, hour) = (UnixMillis(1_000_000_000), Duration::from_secs(3600));
        let after = |millis: i64| UnixMillis(unsealed.0.saturating_add_signed(3_600_000 + millis));
        for adjusted in [0, 60_000, -60_000, 300_000, -300_000] {
            assert_eq!(believed(unsealed, after(adjusted), hour), Ok(()), "{adjusted}");
        }
        let week = Duration::from_secs(7 * 86_400);
        assert_eq!(believed(unsealed, after(week.as_millis() as i64), hour), Err(week));
        assert_eq!(believed(unsealed, after(-300_001), hour), Err(Duration::from_millis(300_001)));
        assert!(believed(unsealed, UnixMillis(0), hour).is_err(), "set back before the unseal");
    }
}
