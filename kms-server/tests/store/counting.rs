//! How often resident keys have encrypted.

use crate::place::{Place, index_of, key_row, record};
use kms_core::id::KeyVersion;
use kms_server::store::{Change, Commit, CountRow, DatabaseError, Entry, KeyRow, Refusal};
use std::collections::BTreeMap;

fn take(place: &Place, key: &KeyRow, version: u32, before: u64, taken: u64) -> Entry {
    let version = KeyVersion::new(version).expect("from 1");
    let row = CountRow { tenant: key.tenant.clone(), key_id: key.key_id, version, taken };
    let mac = place.mac.of_count(&row);
    Entry {
        change: Some(Change::Encryptions { before, row: Box::new((row, mac)) }),
        ..Entry::record(record("key.encryptions"))
    }
}

pub async fn taken(place: Place) {
    let (database, committer) = place.node().await;
    let (key, other) = (key_row(1, "payroll"), key_row(2, "invoices"));
    index_of(committer.commit(take(&place, &key, 1, 0, 10)).await);
    // Two nodes that have read the same number: one of them takes, also within a batch.
    let results = place
        .in_one_batch(
            &committer,
            vec![
                take(&place, &key, 1, 0, 10),
                take(&place, &key, 1, 10, 20),
                take(&place, &key, 1, 10, 20),
                take(&place, &key, 2, 5, 10),
                take(&place, &other, 1, 0, 7),
            ],
        )
        .await;
    let conflict = Ok(Commit::Refused(Refusal::Conflict));
    assert_eq!(
        [results[0], results[2], results[3]],
        [conflict; 3],
        "somebody was faster, or nothing was there"
    );
    index_of(results[1]);
    index_of(results[4]);
    let counts = database.encryption_counts(&key.tenant, key.key_id, &place.mac).await.expect("read");
    assert_eq!(counts, BTreeMap::from([(KeyVersion::FIRST, 20)]));
    place.tamper("UPDATE encryption_counts SET taken = 10 WHERE taken = 20").await;
    let edited = database.encryption_counts(&key.tenant, key.key_id, &place.mac).await;
    assert!(matches!(edited, Err(DatabaseError::RowMac(_))), "{edited:?}");
    let counts = database.encryption_counts(&key.tenant, other.key_id, &place.mac).await.expect("read");
    assert_eq!(counts, BTreeMap::from([(KeyVersion::FIRST, 7)]));
}
