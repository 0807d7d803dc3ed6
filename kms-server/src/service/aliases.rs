//! Aliases: other names of keys, which applications use and administrators give from one key to the next.

use super::keys::key_exists;
use super::open::{DECISION_COUNT_MAX, Found, KeyEntry, Open, contention};
use super::{Caller, Node, ServiceError};
use crate::random::now;
use crate::store::{AliasRow, Change, Commit, Entry};
use kms_core::audit::{Outcome, Record};
use kms_core::id::{CatalogueRevision, KeyName, KeySelector};
use kms_core::policy::Action;
use kms_core::reason::Reason;

/// A page of aliases.
#[derive(Debug)]
pub struct AliasPage {
    /// In order of their names.
    pub aliases: Vec<AliasRow>,
    /// The name to go on after; `None` on the last page.
    pub next_after: Option<String>,
}

fn alias_not_found(alias: &KeyName) -> ServiceError {
    let message = format!("there is no alias {alias} in this tenant");
    ServiceError { field: Some("alias"), ..ServiceError::new(Reason::AliasNotFound, message) }
}

/// That a key can be given a name that applications use.
fn check_target(entry: &KeyEntry, selector: &KeySelector) -> Result<(), ServiceError> {
    entry.check_named(selector)?;
    let state = entry.row.standing_at(now()).state;
    if state.is_destroyed() {
        let message = format!("key {} is {state}; it gets no other name", entry.row.name);
        return Err(ServiceError::new(Reason::KeyStateForbids, message));
    }
    Ok(())
}

impl Node {
    /// Gives a key another name.
    ///
    /// # Errors
    /// `KEY_EXISTS` when a key or an alias has the name; others with their documented reasons; [`Node::perform`] records them.
    pub async fn create_alias(
        &self,
        caller: &Caller,
        alias: &KeyName,
        key: &KeySelector,
    ) -> Result<AliasRow, ServiceError> {
        let open = self.require_open()?;
        let tenant = &caller.principal.tenant;
        for _ in 0..DECISION_COUNT_MAX {
            let by_alias = KeySelector::Name(alias.clone());
            let taken = |_: &KeyEntry| -> Result<(), ServiceError> {
                Err(ServiceError { field: Some("alias"), ..key_exists(alias) })
            };
            match open.judge(&self.database, tenant, &by_alias, taken).await {
                Ok(_) => unreachable!("a name that is found is taken"),
                Err(error) if error.reason == Reason::KeyNotFound => {}
                Err(error) => return Err(error),
            }
            let (target, ()) =
                open.judge(&self.database, tenant, key, |entry| check_target(entry, key)).await?;
            let record = self.alias_record(caller, Action::CreateAlias, alias, &target.key);
            if let Some(row) = self.commit_alias(&open, alias, &target, record).await? {
                return Ok(row);
            }
        }
        Err(contention())
    }

    /// Gives an alias from the key that it names to another one. No caller finds it without a key in between.
    ///
    /// # Errors
    /// `ALIAS_NOT_FOUND`; `KEY_USAGE_FORBIDS` when the other key is for something else; others with their documented
    /// reasons; [`Node::perform`] records them.
    pub async fn retarget_alias(
        &self,
        caller: &Caller,
        alias: &KeyName,
        key: &KeySelector,
        expected: Option<&KeySelector>,
    ) -> Result<AliasRow, ServiceError> {
        let open = self.require_open()?;
        let tenant = &caller.principal.tenant;
        for _ in 0..DECISION_COUNT_MAX {
            let before = self.alias_target(&open, caller, alias).await?;
            let (target, ()) = open
                .judge(&self.database, tenant, key, |entry| {
                    check_target(entry, key)?;
                    check_successor(&before.key, entry, alias)
                })
                .await?;
            if let Some(expected) = expected {
                let expected = open.find(&self.database, tenant, expected).await?;
                if expected.key.row.key_id != before.key.row.key_id {
                    let message = format!("alias {alias} names key {} now", before.key.row.name);
                    let error = ServiceError::new(Reason::KeyMismatch, message);
                    return Err(ServiceError { field: Some("expected_key"), ..error });
                }
            }
            let record = self
                .alias_record(caller, Action::RetargetAlias, alias, &target.key)
                .detail("before", before.key.row.name.as_str());
            // What was found under an older catalogue than the target is found again.
            let revision = before.revision.min(target.revision);
            let target = Found { revision, ..target };
            if let Some(row) = self.commit_alias(&open, alias, &target, record).await? {
                return Ok(row);
            }
        }
        Err(contention())
    }

    /// Removes an alias. The key stays.
    ///
    /// # Errors
    /// `ALIAS_NOT_FOUND`; others with their documented reasons; [`Node::perform`] records them.
    pub async fn delete_alias(&self, caller: &Caller, alias: &KeyName) -> Result<(), ServiceError> {
        let open = self.require_open()?;
        for _ in 0..DECISION_COUNT_MAX {
            let before = self.alias_target(&open, caller, alias).await?;
            let record = self.alias_record(caller, Action::DeleteAlias, alias, &before.key);
            let change = Change::AliasRemoved { tenant: before.key.row.tenant.clone(), name: alias.clone() };
            if self.commit_catalogue(&open, record, change, before.revision).await? {
                return Ok(());
            }
        }
        Err(contention())
    }

    /// A page of the tenant's aliases.
    ///
    /// # Errors
    /// [`ServiceError`] with the documented reason; [`Node::perform`] records it.
    pub async fn list_aliases(
        &self,
        caller: &Caller,
        after: &str,
        count_max: u32,
    ) -> Result<AliasPage, ServiceError> {
        let open = self.require_open()?;
        let tenant = &caller.principal.tenant;
        let mut aliases = self.database.list_aliases(tenant, after, count_max + 1, &open.row_mac).await?;
        let has_more = aliases.len() > count_max as usize;
        aliases.truncate(count_max as usize);
        let record = self
            .record(Action::ListAliases.event(), Outcome::Done, caller)
            .detail("count", aliases.len().to_string());
        self.committer.commit(Entry::record(record)).await?;
        let next_after = aliases.last().filter(|_| has_more).map(|last| last.name.as_str().to_owned());
        Ok(AliasPage { aliases, next_after })
    }

    fn alias_record(&self, caller: &Caller, action: Action, alias: &KeyName, key: &KeyEntry) -> Record {
        self.record(action.event(), Outcome::Done, caller)
            .key(key.row.key_id, None)
            .detail("alias", alias.as_str())
            .detail("name", key.row.name.as_str())
    }

    /// The key that an alias names.
    async fn alias_target(
        &self,
        open: &Open,
        caller: &Caller,
        alias: &KeyName,
    ) -> Result<Found, ServiceError> {
        let selector = KeySelector::Name(alias.clone());
        let judged = open
            .judge(&self.database, &caller.principal.tenant, &selector, |entry| {
                if entry.row.name == *alias { Err(alias_not_found(alias)) } else { Ok(()) }
            })
            .await;
        match judged {
            Ok((found, ())) => Ok(found),
            Err(error) if error.reason == Reason::KeyNotFound => Err(alias_not_found(alias)),
            Err(error) => Err(error),
        }
    }

    /// Makes an alias name a key. `None` when the catalogue has changed since the key was found.
    async fn commit_alias(
        &self,
        open: &Open,
        alias: &KeyName,
        target: &Found,
        record: Record,
    ) -> Result<Option<AliasRow>, ServiceError> {
        let tenant = target.key.row.tenant.clone();
        let row = AliasRow { tenant, name: alias.clone(), key_id: target.key.row.key_id, changed: now() };
        let mac = open.row_mac.of_alias(&row);
        let change = Change::Alias(Box::new((row.clone(), mac)));
        let is_done = self.commit_catalogue(open, record, change, target.revision).await?;
        Ok(is_done.then_some(row))
    }

    /// Commits a change that holds only for the catalogue under which it was decided. `false` when that is no more.
    async fn commit_catalogue(
        &self,
        open: &Open,
        record: Record,
        change: Change,
        revision: CatalogueRevision,
    ) -> Result<bool, ServiceError> {
        let entry = Entry { record, change: Some(change), decided_under: Some(revision), idempotency: None };
        match self.committer.commit(entry).await? {
            Commit::Done { catalogue, .. } => {
                open.advance(catalogue);
                Ok(true)
            }
            Commit::Stale(revision) => {
                open.advance(revision);
                Ok(false)
            }
            Commit::Refused(_) => unreachable!("an alias is decided under the catalogue that it changes"),
        }
    }
}

/// What is called through an alias goes on working with the next key: it is for the same.
fn check_successor(before: &KeyEntry, next: &KeyEntry, alias: &KeyName) -> Result<(), ServiceError> {
    let (was, is) = (before.row.usage, next.row.usage);
    if was == is {
        return Ok(());
    }
    let message = format!(
        "alias {alias} names a key for {}, and key {} is for {}; delete the alias and create it again if that is meant",
        was.name(),
        next.row.name,
        is.name()
    );
    Err(ServiceError { field: Some("key"), ..ServiceError::new(Reason::KeyUsageForbids, message) })
}
