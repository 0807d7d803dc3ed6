//! Idempotency tokens.

use crate::place::{Place, idempotency, index_of, key_row, set_clock};
use kms_core::id::{Principal, UnixMillis};
use kms_server::store::{Commit, Entry, Idempotency, KeyRow, Refusal};

const DAY: u64 = 24 * 60 * 60 * 1000;

fn create(place: &Place, key: &KeyRow, token: &Idempotency) -> Entry {
    Entry { idempotency: Some(token.clone()), ..place.create_key(key) }
}

pub async fn replayed(place: Place) {
    let (database, committer) = place.node().await;
    let (first, second) = (key_row(1, "payroll"), key_row(2, "payroll"));
    let token = idempotency("token-1", "create payroll");
    // A retry makes a new key id before it knows that it is one; even in the same batch it is found.
    let results = place
        .in_one_batch(&committer, vec![create(&place, &first, &token), create(&place, &second, &token)])
        .await;
    let replayed = Ok(Commit::Refused(Refusal::Replayed(first.key_id)));
    assert_eq!((index_of(results[0]), results[1]), (1, replayed));
    assert_eq!(committer.commit(create(&place, &second, &token)).await, replayed, "and in a later one");
    let other = idempotency("token-1", "create invoices");
    let conflict = committer.commit(create(&place, &key_row(3, "invoices"), &other)).await;
    assert_eq!(conflict, Ok(Commit::Refused(Refusal::TokenConflict)));
    assert_eq!(place.verified(&database).await.0.head.size, 2, "neither wrote a record");
    assert_eq!(place.number("SELECT COUNT(*) FROM keys").await, 1);
}

pub async fn refused(place: Place) {
    let (_database, committer) = place.node().await;
    index_of(committer.commit(place.create_key(&key_row(1, "payroll"))).await);
    let token = idempotency("token-1", "create payroll");
    let refused = committer.commit(create(&place, &key_row(2, "payroll"), &token)).await;
    assert_eq!(refused, Ok(Commit::Refused(Refusal::Exists)));
    assert_eq!(place.number("SELECT COUNT(*) FROM idempotency").await, 0);
    let corrected = idempotency("token-1", "create payroll-2");
    // In one batch: the refused use must not stand in the way of the corrected one.
    let results = place
        .in_one_batch(
            &committer,
            vec![
                create(&place, &key_row(2, "payroll"), &token),
                create(&place, &key_row(2, "payroll-2"), &corrected),
            ],
        )
        .await;
    assert_eq!(results[0], Ok(Commit::Refused(Refusal::Exists)));
    index_of(results[1]);
}

pub async fn expired(place: Place) {
    let (database, committer) = place.node().await;
    let token = idempotency("token-1", "create payroll");
    set_clock(1_000);
    index_of(committer.commit(create(&place, &key_row(1, "payroll"), &token)).await);
    let known = |now| {
        let (database, token) = (database.clone(), token.clone());
        async move { database.find_token(&token, UnixMillis(now)).await.expect("it can be read").is_some() }
    };
    assert!(known(1_000 + DAY - 1).await);
    assert!(!known(1_000 + DAY).await, "it is forgotten although its row is still there");
    let other = idempotency("token-1", "create invoices");
    let again = create(&place, &key_row(2, "invoices"), &other);
    set_clock(1_000 + DAY - 1);
    assert_eq!(committer.commit(again.clone()).await, Ok(Commit::Refused(Refusal::TokenConflict)));
    set_clock(1_000 + DAY);
    index_of(committer.commit(again).await);
    assert_eq!(place.number("SELECT COUNT(*) FROM idempotency").await, 1, "the old one is gone");
}

pub async fn scoped(place: Place) {
    let (_database, committer) = place.node().await;
    let token = idempotency("token-1", "create payroll");
    index_of(committer.commit(create(&place, &key_row(1, "payroll"), &token)).await);
    let principal = Principal::parse("kms://default/administrator/second").expect("valid");
    let of_another = Idempotency { principal, ..token.clone() };
    index_of(committer.commit(create(&place, &key_row(2, "invoices"), &of_another)).await);
    let of_another_method = Idempotency { method: "key.rotate", ..token };
    index_of(committer.commit(create(&place, &key_row(3, "archive"), &of_another_method)).await);
}

pub async fn strange(place: Place) {
    let (_database, committer) = place.node().await;
    let token = idempotency("a\0b\u{fffd}'; --", "create payroll");
    let entries = vec![
        place.create_key(&key_row(1, "innocent")),
        create(&place, &key_row(2, "payroll"), &token),
        place.create_key(&key_row(3, "bystander")),
    ];
    let results = place.in_one_batch(&committer, entries).await;
    assert_eq!(results.into_iter().map(index_of).collect::<Vec<_>>(), [1, 2, 3]);
    let replayed = committer.commit(create(&place, &key_row(4, "payroll"), &token)).await;
    assert_eq!(replayed, Ok(Commit::Refused(Refusal::Replayed(key_row(2, "payroll").key_id))));
}
