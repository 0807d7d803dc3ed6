//! Aliases: other names of keys, which applications use and administrators give from one key to the next.

use super::keys::{key_exists, token_conflict};
use super::open::{DECISION_COUNT_MAX, Found, KeyEntry, Open, contention};
use super::{Caller, Node, ServiceError};
use crate::random::now;
use crate::store::{AliasRow, Change, Commit, Entry, Idempotency, Refusal};
use kms_core::audit::{Outcome, Record};
use kms_core::id::{CatalogueRevision, KeyId, KeyName, KeySelector};
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

/// How a change of the catalogue ended.
enum Changed {
    Done,
    /// The catalogue has changed since what it depends on was found.
    Again,
    /// An earlier request with the same token had this result.
    Replayed(KeyId),
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
        idempotency_token: Option<&str>,
    ) -> Result<AliasRow, ServiceError> {
        let open = self.require_open()?;
        let tenant = &caller.principal.tenant;
        let selector = match key {
            KeySelector::Name(name) => name.to_string(),
            KeySelector::Id(id) => id.to_string(),
        };
        let asked = [alias.as_str().as_bytes(), selector.as_bytes()];
        let claim = self.claim(caller, Action::CreateAlias, idempotency_token, &asked);
        if let Some(key_id) = self.replayed(claim.as_ref()).await? {
            return self.answer_alias_again(&open, caller, alias, key_id).await;
        }
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
            let row = alias_row(alias, &target);
            match self.commit_alias(&open, &row, target.revision, record, claim.clone()).await? {
                Changed::Done => return Ok(row),
                Changed::Again => {}
                Changed::Replayed(key_id) => {
                    return self.answer_alias_again(&open, caller, alias, key_id).await;
                }
            }
        }
        Err(contention())
    }

    /// The answer to a request whose token was used with it before: the alias as it is now.
    async fn answer_alias_again(
        &self,
        open: &Open,
        caller: &Caller,
        alias: &KeyName,
        first: KeyId,
    ) -> Result<AliasRow, ServiceError> {
        let found = self.database.find_alias(&caller.principal.tenant, alias, &open.row_mac).await?;
        let row = found.ok_or_else(|| alias_not_found(alias))?;
        let record = self
            .record(Action::CreateAlias.event(), Outcome::Done, caller)
            .key(first, None)
            .detail("alias", alias.as_str())
            .detail("repeats", "an earlier request with the same token");
        self.committer.commit(Entry::record(record)).await?;
        Ok(row)
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
            let row = alias_row(alias, &target);
            if let Changed::Done = self.commit_alias(&open, &row, revision, record, None).await? {
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
            let changed = self.commit_catalogue(&open, record, change, before.revision, None).await?;
            if let Changed::Done = changed {
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

    /// Makes an alias name a key.
    async fn commit_alias(
        &self,
        open: &Open,
        row: &AliasRow,
        revision: CatalogueRevision,
        record: Record,
        claim: Option<Idempotency>,
    ) -> Result<Changed, ServiceError> {
        let change = Change::Alias(Box::new((row.clone(), open.row_mac.of_alias(row))));
        self.commit_catalogue(open, record, change, revision, claim).await
    }

    /// Commits a change that holds only for the catalogue under which it was decided.
    async fn commit_catalogue(
        &self,
        open: &Open,
        record: Record,
        change: Change,
        revision: CatalogueRevision,
        claim: Option<Idempotency>,
    ) -> Result<Changed, ServiceError> {
        let entry = Entry { record, change: Some(change), decided_under: Some(revision), idempotency: claim };
        match self.committer.commit(entry).await? {
            Commit::Done { catalogue, .. } => {
                open.advance(catalogue);
                Ok(Changed::Done)
            }
            Commit::Stale(revision) => {
                open.advance(revision);
                Ok(Changed::Again)
            }
            Commit::Refused(Refusal::Replayed(key_id)) => Ok(Changed::Replayed(key_id)),
            Commit::Refused(Refusal::TokenConflict) => Err(token_conflict()),
            Commit::Refused(_) => unreachable!("an alias is decided under the catalogue that it changes"),
        }
    }
}

fn alias_row(alias: &KeyName, target: &Found) -> AliasRow {
    let key = &target.key.row;
    AliasRow { tenant: key.tenant.clone(), name: alias.clone(), key_id: key.key_id, changed: now() }
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
