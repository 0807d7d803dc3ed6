//! Registered data keys.

use crate::place::{Place, idempotency, index_of, record};
use crate::reading::blob;
use kms_core::data_key::{DataKeyId, DataKeyStanding, DataKeyState, RotationPeriod};
use kms_core::id::{CatalogueRevision, KeyId, KeyName, KeyVersion, Principal, TenantName, UnixMillis};
use kms_core::suite::AeadAlgorithm;
use kms_server::store::{
    Change, Commit, DataKeyChange, DataKeyRow, DataKeyVersionRow, Database, DatabaseError, Entry,
    Idempotency, Refusal,
};
use std::collections::BTreeMap;

const KEY: KeyId = KeyId([7; 16]);

fn standing(state: DataKeyState) -> DataKeyStanding {
    DataKeyStanding { state, since: UnixMillis(4) }
}

fn number(version: u32) -> KeyVersion {
    KeyVersion::new(version).expect("from 1")
}

fn row(id: u8, name: &str) -> DataKeyRow {
    DataKeyRow {
        tenant: TenantName::parse("default").expect("valid"),
        data_key_id: DataKeyId([id; 16]),
        name: KeyName::parse(name).expect("valid"),
        algorithm: AeadAlgorithm::Sm4Gcm,
        key_id: KEY,
        standing: standing(DataKeyState::Enabled),
        rotation_period: RotationPeriod::from_days(90).expect("short enough"),
        current_version: KeyVersion::FIRST,
        creator: Principal::parse("kms://default/administrator/admin").expect("valid"),
        created: UnixMillis(3),
        revision: 1,
    }
}

fn version(row: &DataKeyRow, version: u32) -> DataKeyVersionRow {
    DataKeyVersionRow {
        tenant: row.tenant.clone(),
        data_key_id: row.data_key_id,
        version: number(version),
        standing: standing(DataKeyState::Enabled),
        created: UnixMillis(5),
        key: (KEY, number(version)),
        ciphertext: Some(vec![row.data_key_id.0[0] ^ version as u8; 80]),
    }
}

fn change(
    place: &Place,
    expected_revision: Option<u64>,
    row: &DataKeyRow,
    versions: &[DataKeyVersionRow],
) -> Entry {
    let versions = versions.iter().map(|row| (row.clone(), place.mac.of_data_key_version(row)));
    let change = DataKeyChange {
        expected_revision,
        data_key: (row.clone(), place.mac.of_data_key(row)),
        versions: versions.collect(),
    };
    Entry { change: Some(Change::DataKey(Box::new(change))), ..Entry::record(record("data_key.create")) }
}

async fn read(
    place: &Place,
    database: &Database,
    row: &DataKeyRow,
) -> Result<(DataKeyRow, Vec<DataKeyVersionRow>), DatabaseError> {
    let found = database.find_data_key(&row.tenant, &row.name, &place.mac).await?.expect("it is there");
    let versions = database.data_key_versions(&found, &place.mac).await?;
    Ok((found, versions))
}

pub async fn changed(place: Place) {
    let (database, committer) = place.node().await;
    let (first, other) = (row(1, "salaries"), row(2, "salaries"));
    let token = idempotency("token-1", "create salaries");
    let with_token = |row: &DataKeyRow, token: &Idempotency| Entry {
        idempotency: Some(token.clone()),
        ..change(&place, None, row, &[version(row, 1)])
    };
    index_of(committer.commit(with_token(&first, &token)).await);
    let replayed = Ok(Commit::Refused(Refusal::Replayed(KeyId(first.data_key_id.0))));
    assert_eq!(committer.commit(with_token(&other, &token)).await, replayed);
    let another = idempotency("token-1", "create invoices");
    let conflict = committer.commit(with_token(&row(3, "invoices"), &another)).await;
    assert_eq!(conflict, Ok(Commit::Refused(Refusal::TokenConflict)));
    let second = idempotency("token-2", "create salaries");
    let taken = committer.commit(with_token(&other, &second)).await;
    assert_eq!(taken, Ok(Commit::Refused(Refusal::Exists)), "its name is taken");
    assert_eq!(place.number("SELECT COUNT(*) FROM idempotency").await, 1, "a refusal leaves no token");
    // In one batch: the refused use must not stand in the way of the corrected one.
    let corrected = idempotency("token-2", "create pensions");
    let entries = vec![with_token(&other, &second), with_token(&row(5, "pensions"), &corrected)];
    let results = place.in_one_batch(&committer, entries).await;
    assert_eq!(results[0], Ok(Commit::Refused(Refusal::Exists)));
    index_of(results[1]);
    let (found, versions) = read(&place, &database, &first).await.expect("reads");
    assert_eq!((&found, &versions[..]), (&first, &[version(&first, 1)][..]));

    let next = DataKeyRow { current_version: number(2), revision: 2, ..first.clone() };
    let rotated = change(&place, Some(1), &next, &[version(&next, 2)]);
    let results = place.in_one_batch(&committer, vec![rotated.clone(), rotated]).await;
    // Creation and rotation: a decision that rests on what was before either is made again.
    assert!(
        matches!(results[0], Ok(Commit::Done { catalogue: CatalogueRevision(3), .. })),
        "{:?}",
        results[0]
    );
    assert_eq!(results[1], Ok(Commit::Refused(Refusal::Conflict)), "somebody was faster");
    let (found, versions) = read(&place, &database, &first).await.expect("reads");
    assert_eq!((&found, &versions[..]), (&next, &[version(&next, 1), version(&next, 2)][..]));
    let one = database.find_data_key_version(&next, number(2), &place.mac).await.expect("reads");
    assert_eq!(one, Some(version(&next, 2)));
    assert_eq!(database.find_data_key_version(&next, number(3), &place.mac).await.expect("reads"), None);

    index_of(committer.commit(change(&place, None, &row(4, "a-first"), &[])).await);
    let listed = async |after: &str, count| {
        let rows = database.list_data_keys(&first.tenant, after, count, &place.mac).await.expect("reads");
        rows.iter().map(|row| row.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(listed("", 10).await, ["a-first", "pensions", "salaries"]);
    assert_eq!(listed("", 1).await, ["a-first"]);
    assert_eq!(listed("a-first", 1).await, ["pensions"]);
}

pub async fn edited(place: Place) {
    let (database, committer) = place.node().await;
    let (first, second) = (row(1, "salaries"), row(2, "invoices"));
    for row in [&first, &second] {
        let entry = change(&place, None, row, &[version(row, 1), version(row, 2)]);
        index_of(committer.commit(entry).await);
    }
    let (id, bytes) = (blob(&place, "09090909090909090909090909090909"), blob(&place, &"0a".repeat(80)));
    let of = |hex: &str, version| {
        let id = blob(&place, hex);
        format!(
            "(SELECT v.ciphertext FROM data_key_versions v WHERE v.data_key_id = {id} AND v.version = {version})"
        )
    };
    let (other_version, other_data_key) = (of(&"01".repeat(16), 2), of(&"02".repeat(16), 1));
    let edits = [
        ("data_keys", "spec", "'aes-128'"),
        ("data_keys", "key_id", &id),
        ("data_keys", "state", "'DISABLED'"),
        ("data_keys", "since", "5"),
        ("data_keys", "rotation_days", "0"),
        ("data_keys", "current_version", "2"),
        ("data_keys", "creator", "'kms://default/administrator/eve'"),
        ("data_keys", "created", "4"),
        ("data_keys", "revision", "2"),
        ("data_keys", "mac", &id),
        ("data_key_versions", "state", "'DISABLED'"),
        ("data_key_versions", "since", "5"),
        ("data_key_versions", "created", "6"),
        ("data_key_versions", "key_id", &id),
        ("data_key_versions", "key_version", "2"),
        ("data_key_versions", "ciphertext", &bytes),
        ("data_key_versions", "ciphertext", "NULL"),
        ("data_key_versions", "ciphertext", &other_version),
        ("data_key_versions", "ciphertext", &other_data_key),
        ("data_key_versions", "mac", &id),
    ];
    for (table, column, value) in edits {
        place.tamper(&format!("CREATE TABLE saved AS SELECT * FROM {table}")).await;
        let which = match table {
            "data_keys" => "name = 'salaries'".to_owned(),
            _ => format!("data_key_id = {} AND version = 1", blob(&place, &"01".repeat(16))),
        };
        place.tamper(&format!("UPDATE {table} SET {column} = {value} WHERE {which}")).await;
        let found = read(&place, &database, &first).await;
        let is_refused = matches!(&found, Err(DatabaseError::RowMac(_) | DatabaseError::Corrupt { .. }));
        assert!(is_refused, "{table}.{column} = {value}: {found:?}");
        if table == "data_keys" {
            let listed = database.list_data_keys(&first.tenant, "", 10, &place.mac).await;
            assert!(matches!(listed, Err(DatabaseError::RowMac(_))), "{column}: {listed:?}");
        } else {
            let one = database.find_data_key_version(&first, number(1), &place.mac).await;
            assert!(one.is_err(), "{column}: {one:?}");
        }
        let other = read(&place, &database, &second).await.expect("the other one is as it was");
        assert_eq!(other.0, second);
        place.tamper(&format!("DELETE FROM {table}")).await;
        place.tamper(&format!("INSERT INTO {table} SELECT * FROM saved")).await;
        place.tamper("DROP TABLE saved").await;
        assert_eq!(read(&place, &database, &first).await.expect("it is as it was").0, first);
    }
    // Whole rows in each other's places, MACs and all.
    let (one, two) = (blob(&place, &"01".repeat(16)), blob(&place, &"02".repeat(16)));
    place.tamper(&format!("DELETE FROM data_key_versions WHERE data_key_id = {one}")).await;
    place
        .tamper(&format!("UPDATE data_key_versions SET data_key_id = {one} WHERE data_key_id = {two}"))
        .await;
    let moved = read(&place, &database, &first).await;
    assert!(matches!(moved, Err(DatabaseError::RowMac(_))), "{moved:?}");
}

pub async fn destroyed(place: Place) {
    let (database, committer) = place.node().await;
    let first = row(1, "salaries");
    index_of(committer.commit(change(&place, None, &first, &[version(&first, 1), version(&first, 2)])).await);
    let under = async || database.data_keys_under(&first.tenant, KEY).await.expect("reads");
    assert_eq!(under().await, BTreeMap::from([(number(1), 1), (number(2), 1)]));
    let erased = |number| DataKeyVersionRow {
        standing: standing(DataKeyState::Destroyed),
        ciphertext: None,
        ..version(&first, number)
    };
    let part = DataKeyRow { revision: 2, ..first.clone() };
    index_of(committer.commit(change(&place, Some(1), &part, &[erased(1)])).await);
    assert_eq!(under().await, BTreeMap::from([(number(2), 1)]));
    let whole = DataKeyRow { revision: 3, standing: standing(DataKeyState::Destroyed), ..first.clone() };
    index_of(committer.commit(change(&place, Some(2), &whole, &[erased(2)])).await);
    assert_eq!(under().await, BTreeMap::new());
    let (found, versions) = read(&place, &database, &first).await.expect("reads");
    assert_eq!((&found, &versions[..]), (&whole, &[erased(1), erased(2)][..]));
    let left = place.number("SELECT COUNT(*) FROM data_key_versions WHERE ciphertext IS NOT NULL").await;
    assert_eq!(left, 0);
}
