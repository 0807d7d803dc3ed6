//! Rows, segments and checkpoints as they are read back.

use crate::place::{Place, index_of, key_row, record, version_row};
use kms_core::attributes::{KeyAttributes, ShortText};
use kms_core::audit::{AuditFault, Verifier};
use kms_core::codec;
use kms_core::id::{CatalogueRevision, KeyName, KeySelector, UnixMillis};
use kms_core::key::{KeyCommand, Standing};
use kms_core::merkle::Frontier;
use kms_server::store::{
    AliasRow, Change, Commit, Database, DatabaseError, DestructionRequest, Entry, KeyRow, Material, Refusal,
    VersionRow,
};

const ID_1: &str = "01010101010101010101010101010101";
const ID_2: &str = "02020202020202020202020202020202";

/// A blob literal in the dialect of the place.
pub fn blob(place: &Place, hex: &str) -> String {
    if place.url.starts_with("sqlite:") { format!("x'{hex}'") } else { format!("'\\x{hex}'::bytea") }
}

pub async fn edited(place: Place) {
    let (database, committer) = place.node().await;
    let key = key_row(1, "payroll");
    index_of(committer.commit(place.put_key(None, &key, &[1, 2])).await);
    let (bytes, three) = (blob(&place, ID_2), blob(&place, "000000"));
    let owned = KeyAttributes { owner: ShortText::parse("eve").expect("valid"), ..KeyAttributes::default() };
    let attributes = codec::to_bytes(&owned).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let attributes = blob(&place, &attributes);
    let edits = [
        ("keys", "state", "'SUSPENDED'"),
        ("keys", "spec", "'aes-256'"),
        ("keys", "protection", "'resident'"),
        ("keys", "current_version", "2"),
        ("keys", "creator", "'kms://default/administrator/eve'"),
        ("keys", "created", "2"),
        ("keys", "activates", "3"),
        ("keys", "activates", "NULL"),
        ("keys", "expires", "2"),
        ("keys", "attributes", &attributes),
        ("keys", "revision", "2"),
        ("keys", "mac", &bytes),
        ("key_versions", "state", "'DEACTIVATED'"),
        ("key_versions", "origin", "'imported'"),
        ("key_versions", "created", "2"),
        ("key_versions", "check_value", &three),
        ("key_versions", "check_value", "NULL"),
        ("key_versions", "mac", &bytes),
    ];
    let by_id = KeySelector::Id(key.key_id);
    let by_name = KeySelector::Name(KeyName::parse("payroll").expect("valid"));
    for (table, column, value) in edits {
        place.tamper(&format!("CREATE TABLE saved AS SELECT * FROM {table}")).await;
        place.tamper(&format!("UPDATE {table} SET {column} = {value}")).await;
        for selector in [&by_id, &by_name] {
            let found = database.find_key(&key.tenant, selector, &place.mac).await;
            let is_refused =
                matches!(&found, Err(DatabaseError::RowMac(error)) if error.key_id == key.key_id);
            assert!(is_refused, "{table}.{column}: {found:?}");
        }
        if table == "keys" {
            let listed = database.list_keys(&key.tenant, "", 10, &place.mac).await;
            assert!(matches!(listed, Err(DatabaseError::RowMac(_))), "{table}.{column}: {listed:?}");
        }
        place.tamper(&format!("DELETE FROM {table}")).await;
        place.tamper(&format!("INSERT INTO {table} SELECT * FROM saved")).await;
        place.tamper("DROP TABLE saved").await;
        let found = database.find_key(&key.tenant, &by_id, &place.mac).await.expect("it is as it was");
        assert_eq!(found.expect("it is there").key, key);
    }
}

/// An alias of a key, decided under a catalogue.
fn alias(place: &Place, name: &str, key: &KeyRow, revision: u64) -> Entry {
    let row = AliasRow {
        tenant: key.tenant.clone(),
        name: KeyName::parse(name).expect("valid"),
        key_id: key.key_id,
        changed: UnixMillis(7),
    };
    let mac = place.mac.of_alias(&row);
    Entry {
        change: Some(Change::Alias(Box::new((row, mac)))),
        decided_under: Some(CatalogueRevision(revision)),
        ..Entry::record(record("alias.create"))
    }
}

async fn named(database: &Database, place: &Place, name: &str) -> Option<KeyRow> {
    let (name, key) = (KeyName::parse(name).expect("valid"), key_row(1, "payroll"));
    let found =
        database.find_key(&key.tenant, &KeySelector::Name(name), &place.mac).await.expect("it can be read");
    found.map(|found| found.key)
}

pub async fn aliased(place: Place) {
    let (database, committer) = place.node().await;
    let (first, second) = (key_row(1, "payroll"), key_row(2, "payroll-2027"));
    index_of(committer.commit(place.put_key(None, &first, &[1])).await);
    index_of(committer.commit(place.put_key(None, &second, &[1])).await);
    let stale = committer.commit(alias(&place, "wages", &first, 1)).await;
    assert_eq!(stale, Ok(Commit::Stale(CatalogueRevision(2))), "a key could have taken the name meanwhile");
    index_of(committer.commit(alias(&place, "wages", &first, 2)).await);
    assert_eq!(named(&database, &place, "wages").await, Some(first.clone()));
    let by_id = KeySelector::Id(first.key_id);
    let found = database.find_key(&first.tenant, &by_id, &place.mac).await.expect("read").expect("there");
    assert_eq!(found.aliases, [KeyName::parse("wages").expect("valid")]);
    let taken = committer.commit(place.create_key(&key_row(3, "wages"))).await;
    assert_eq!(taken, Ok(Commit::Refused(Refusal::Exists)), "no key takes the name of an alias");

    index_of(committer.commit(alias(&place, "wages", &second, 3)).await);
    assert_eq!(named(&database, &place, "wages").await, Some(second.clone()), "it names the other one now");
    let listed = database.list_aliases(&first.tenant, "", 10, &place.mac).await.expect("read");
    assert_eq!(listed.iter().map(|alias| alias.key_id).collect::<Vec<_>>(), [second.key_id]);
    place.tamper(&format!("UPDATE aliases SET key_id = {}", blob(&place, ID_1))).await;
    let name = KeySelector::Name(KeyName::parse("wages").expect("valid"));
    let edited = database.find_key(&first.tenant, &name, &place.mac).await;
    assert!(matches!(edited, Err(DatabaseError::RowMac(_))), "it names what somebody else wrote: {edited:?}");
    let edited = database.find_key(&first.tenant, &by_id, &place.mac).await;
    assert!(matches!(edited, Err(DatabaseError::RowMac(_))), "also where it was moved to: {edited:?}");
    place.tamper(&format!("UPDATE aliases SET key_id = {}", blob(&place, ID_2))).await;

    let removed =
        Change::AliasRemoved { tenant: first.tenant.clone(), name: KeyName::parse("wages").expect("valid") };
    let entry = |revision| Entry {
        change: Some(removed.clone()),
        decided_under: Some(CatalogueRevision(revision)),
        ..Entry::record(record("alias.delete"))
    };
    assert_eq!(committer.commit(entry(3)).await, Ok(Commit::Stale(CatalogueRevision(4))));
    index_of(committer.commit(entry(4)).await);
    assert_eq!(named(&database, &place, "wages").await, None);
    index_of(committer.commit(place.create_key(&key_row(3, "wages"))).await);
}

pub async fn destroyed(place: Place) {
    let (database, committer) = place.node().await;
    let (mut key, time) = (key_row(1, "payroll"), UnixMillis(1_000));
    index_of(committer.commit(place.put_key(None, &key, &[1, 2])).await);
    let by_id = KeySelector::Id(key.key_id);
    let request = Some(DestructionRequest { by: key.creator.clone(), time: UnixMillis(5) });
    let pending = key.standing.apply(KeyCommand::ScheduleDestruction(time)).expect("from active");
    key = KeyRow { standing: pending, destruction_request: request.clone(), revision: 2, ..key };
    let alone =
        VersionRow { standing: pending, destruction_request: request.clone(), ..version_row(&key, 1) };
    let entry = place.put_rows(Some(1), &key, vec![alone.clone()], None);
    index_of(committer.commit(entry).await);
    let found = database.find_key(&key.tenant, &by_id, &place.mac).await.expect("reads").expect("is there");
    assert_eq!((&found.key, &found.versions[0]), (&key, &alone));

    for table in ["keys", "key_versions"] {
        for (column, value) in [
            ("state", "'ACTIVE'"),
            ("state_before", "'SUSPENDED'"),
            ("state_before", "NULL"),
            ("destroys", "2000"),
            ("destroys", "NULL"),
            ("destruction_asked", "6"),
            ("destruction_asked", "NULL"),
            ("destruction_asked_by", "'kms://default/administrator/eve'"),
            ("destruction_asked_by", "NULL"),
        ] {
            place.tamper(&format!("CREATE TABLE saved AS SELECT * FROM {table}")).await;
            place.tamper(&format!("UPDATE {table} SET {column} = {value}")).await;
            let found = database.find_key(&key.tenant, &by_id, &place.mac).await;
            let is_refused = matches!(&found, Err(DatabaseError::RowMac(_) | DatabaseError::Corrupt { .. }));
            assert!(is_refused, "{table}.{column}: {found:?}");
            place.tamper(&format!("DELETE FROM {table}")).await;
            place.tamper(&format!("INSERT INTO {table} SELECT * FROM saved")).await;
            place.tamper("DROP TABLE saved").await;
        }
    }
    let due = async |now| database.due_keys(UnixMillis(now), None, 10).await.expect("reads");
    assert_eq!(due(999).await, []);
    assert_eq!(due(1_000).await, [(key.tenant.clone(), key.key_id)]);
    let other = key_row(2, "invoices");
    let doomed =
        VersionRow { standing: pending, destruction_request: request.clone(), ..version_row(&other, 2) };
    index_of(committer.commit(place.put_rows(None, &other, vec![doomed], None)).await);
    assert_eq!(due(1_000).await.len(), 2, "a version alone counts, too");

    let end = |standing: Standing| {
        let standing = standing.apply(KeyCommand::Destroy).expect("from pending");
        standing.apply(KeyCommand::Finish(UnixMillis(1_500))).expect("from destroying")
    };
    key = KeyRow { standing: end(pending), revision: 3, ..key };
    let erased: Vec<VersionRow> = [1, 2]
        .map(|number| VersionRow {
            standing: end(pending),
            destruction_request: request.clone(),
            material: Material::Erased,
            ..version_row(&key, number)
        })
        .into();
    let certificate = Some((UnixMillis(1_500), b"a certificate".to_vec()));
    index_of(committer.commit(place.put_rows(Some(2), &key, erased.clone(), certificate)).await);
    let found = database.find_key(&key.tenant, &by_id, &place.mac).await.expect("reads").expect("is there");
    assert_eq!((&found.key, &found.versions), (&key, &erased));
    let after = async |time| {
        database.destructions(&key.tenant, key.key_id, UnixMillis(time), 10).await.expect("reads")
    };
    assert_eq!(after(0).await, [(UnixMillis(1_500), b"a certificate".to_vec())]);
    assert_eq!(after(1_500).await, []);
    let since = async |time| database.destroyed_since(UnixMillis(time)).await.expect("reads");
    assert_eq!((since(1_500).await.len(), since(1_501).await.len()), (2, 0));
    assert_eq!(due(2_000).await, [(other.tenant, other.key_id)], "what is done is not due");
    assert_eq!(database.hsm_objects().await.expect("reads").len(), 1, "the other key's");

    let bytes = blob(&place, ID_2);
    place.tamper(&format!("UPDATE key_versions SET wrapped = {bytes} WHERE version = 1")).await;
    let found = database.find_key(&key.tenant, &by_id, &place.mac).await;
    assert!(matches!(found, Err(DatabaseError::Corrupt { .. })), "{found:?}");
}

pub async fn moved(place: Place) {
    let (database, committer) = place.node().await;
    let (victim, other) = (key_row(1, "payroll"), key_row(2, "invoices"));
    index_of(committer.commit(place.put_key(None, &victim, &[1])).await);
    index_of(committer.commit(place.put_key(None, &other, &[1, 2])).await);
    let (id_1, id_2) = (blob(&place, ID_1), blob(&place, ID_2));
    let is_refused = async || {
        let found = database.find_key(&victim.tenant, &KeySelector::Id(victim.key_id), &place.mac).await;
        assert!(matches!(found, Err(DatabaseError::RowMac(_))), "{found:?}");
    };
    // A version of another key beside its own.
    let to_other = format!("UPDATE key_versions SET key_id = {id_1} WHERE key_id = {id_2} AND version = 2");
    place.tamper(&to_other).await;
    is_refused().await;
    place.tamper("DELETE FROM key_versions WHERE version = 2").await;
    // The material of another key in its own version.
    place
        .tamper(&format!(
            "UPDATE key_versions SET wrapped = (SELECT wrapped FROM key_versions WHERE key_id = {id_2} \
             AND version = 1) WHERE key_id = {id_1}"
        ))
        .await;
    is_refused().await;
    // Another version number.
    place.tamper("UPDATE key_versions SET version = 9").await;
    is_refused().await;
    // Another tenant: it is gone from the one, and nobody's in the other.
    place.tamper("UPDATE keys SET tenant = 'thieves'").await;
    place.tamper("UPDATE key_versions SET tenant = 'thieves'").await;
    let thieves = kms_core::id::TenantName::parse("thieves").expect("valid");
    let found = database.find_key(&thieves, &KeySelector::Id(victim.key_id), &place.mac).await;
    assert!(matches!(found, Err(DatabaseError::RowMac(_))), "{found:?}");
}

pub async fn listed(place: Place) {
    let (database, committer) = place.node().await;
    // The order is that of the bytes on every database, whatever its locale.
    let names = ["9-lives", "a-b", "a.a", "a_a", "aa", "b"];
    for (number, name) in names.iter().enumerate() {
        index_of(committer.commit(place.create_key(&key_row(number as u8 + 1, name))).await);
    }
    let tenant = key_row(1, "a").tenant;
    let (mut after, mut found) = (String::new(), Vec::new());
    loop {
        let page = database.list_keys(&tenant, &after, 2, &place.mac).await.expect("they can be read");
        let Some(last) = page.last() else { break };
        after = last.name.as_str().to_owned();
        found.extend(page.iter().map(|key| key.name.as_str().to_owned()));
    }
    assert_eq!(found, names);
    let unfinished = database.unfinished_keys(&place.mac).await.expect("they can be read");
    assert!(unfinished.is_empty());
    assert!(database.hsm_objects().await.expect("they can be read").is_empty(), "all are wrapped");
}

pub async fn segments(place: Place) {
    let (database, committer) = place.node().await;
    let empty = database.segments_from(0, 10).await.expect("the log can be read");
    assert!(empty.is_empty());
    // Batches of 1, 3, 1 and 4 records: indexes 0, 1 to 3, 4, 5 to 8.
    for count in [3, 4] {
        let entries = (0..count).map(|_| Entry::record(record("test.event"))).collect();
        place.in_one_batch(&committer, entries).await.into_iter().map(index_of).for_each(drop);
    }
    let firsts = [(0, 0), (1, 1), (2, 1), (3, 1), (4, 4), (5, 5), (7, 5), (8, 5)];
    for (index, first) in firsts {
        let found = database.segments_from(index, 1).await.expect("the log can be read");
        assert_eq!(found.iter().map(|one| one.first_index).collect::<Vec<_>>(), [first], "index {index}");
    }
    for index in [9, 10, i64::MAX as u64] {
        assert!(database.segments_from(index, 1).await.expect("the log can be read").is_empty());
    }
    let page = database.segments_from(2, 2).await.expect("the log can be read");
    assert_eq!(page.iter().map(|one| (one.first_index, one.count)).collect::<Vec<_>>(), [(1, 3), (4, 1)]);
    place.tamper("DELETE FROM segments WHERE first_index = 4").await;
    let behind_the_gap = database.segments_from(4, 9).await.expect("the log can be read");
    assert_eq!(behind_the_gap[0].first_index, 5, "a deleted segment is not papered over");
}

pub async fn checkpoints(place: Place) {
    let (database, committer) = place.node().await;
    assert!(database.last_checkpoint().await.expect("it can be read").is_none());
    let entries = (0..5).map(|_| Entry::record(record("test.event"))).collect();
    place.in_one_batch(&committer, entries).await;
    let frontier = database.head().await.expect("the head").frontier;
    let checkpoint = place.checkpoint(&frontier);
    let commit = async |checkpoint| {
        let change = Some(Change::Checkpoint(Box::new(checkpoint)));
        committer.commit(Entry { change, ..Entry::record(record("audit.checkpoint")) }).await
    };
    index_of(commit(checkpoint.clone()).await);
    assert_eq!(commit(checkpoint.clone()).await, Ok(Commit::Refused(Refusal::Exists)), "one of each size");
    index_of(committer.commit(Entry::record(record("test.event"))).await);

    let last = database.last_checkpoint().await.expect("it can be read").expect("it is there");
    assert_eq!(last, checkpoint.signed);
    let all = database.checkpoints_from(0, 10).await.expect("they can be read");
    assert_eq!(all, [(6, last.clone())]);
    assert_eq!(database.checkpoints_from(6, 10).await.expect("they can be read").len(), 1);
    assert_eq!(database.checkpoints_from(7, 10).await.expect("they can be read"), []);
    let tree = database.checkpoint_tree(6).await.expect("it can be read").expect("it is there");
    assert_eq!(tree, frontier);
    for size in [0, 5, 7] {
        assert!(database.checkpoint_tree(size).await.expect("it can be read").is_none());
    }
    let bundle = &place.deployment.bundle;
    let mut verifier = Verifier::resume(bundle, &last, tree).expect("the tree is what was signed");
    for stored in database.segments_from(6, 100).await.expect("the log can be read") {
        verifier.accept(&stored.segment).expect("the log goes on from it");
    }
    let verified = verifier.finish().expect("complete");
    assert_eq!(verified.head, place.verified(&database).await.0.head);

    // A tree that somebody changed is either no tree or not the one that was signed.
    let other = blob(&place, &format!("{}{}", ID_1.repeat(2), ID_2.repeat(2)));
    place.tamper(&format!("UPDATE checkpoints SET frontier = {other}")).await;
    let changed: Frontier = database.checkpoint_tree(6).await.expect("it can be read").expect("it is there");
    let refused = Verifier::resume(bundle, &last, changed).err();
    assert_eq!(refused, Some(AuditFault::CheckpointRoot { size: 6 }));
    place.tamper(&format!("UPDATE checkpoints SET frontier = {}", blob(&place, ID_1))).await;
    let broken = database.checkpoint_tree(6).await;
    assert!(matches!(broken, Err(DatabaseError::Corrupt { .. })), "{broken:?}");
}
