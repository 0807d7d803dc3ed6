//! The commit path.

use crate::place::{Place, index_of, key_row, record, set_clock, spawn_commit};
use kms_core::audit::{BatchHead, open_leaves};
use kms_core::codec;
use kms_core::id::{CatalogueRevision, KeySelector, NodeName};
use kms_server::store::{Commit, CommitError, Database, Entry, Refusal};
use std::collections::BTreeSet;
use std::time::Duration;

pub async fn one_row(place: Place) {
    let (database, committer) = place.node().await;
    let entries = (0..20).map(|number| Entry::record(record(&format!("test.event-{number}")))).collect();
    let results = place.in_one_batch(&committer, entries).await;
    let indexes: Vec<u64> = results.into_iter().map(index_of).collect();
    assert_eq!(indexes, (1..=20).collect::<Vec<u64>>(), "in the order in which they came");
    let segments = database.segments_from(0, 100).await.expect("the log can be read");
    let places: Vec<_> = segments.iter().map(|one| (one.first_index, one.count)).collect();
    assert_eq!(places, [(0, 1), (1, 20)]);
    let batch = &segments[1].segment;
    let head: BatchHead = codec::open(&batch.head).expect("a head");
    assert_eq!((head.first_index, head.size, head.log_epoch), (1, 21, 1));
    let leaves = open_leaves(&batch.leaves).expect("leaves");
    assert!(leaves.iter().all(|leaf| leaf.time == head.time), "one batch, one time");
    assert_eq!(*committer.size().borrow(), 21);
    place.verified(&database).await;
}

pub async fn clock(place: Place) {
    let (database, committer) = place.node().await;
    for millis in [5_000, 4_000, 6_000, 1] {
        set_clock(millis);
        index_of(committer.commit(Entry::record(record("test.event"))).await);
    }
    let (verified, leaves) = place.verified(&database).await;
    assert_eq!(leaves.iter().map(|leaf| leaf.time.0).collect::<Vec<_>>(), [5_000, 5_000, 6_000, 6_000]);
    assert_eq!(verified.last_time.0, 6_000);
}

pub async fn stale(place: Place) {
    let (database, committer) = place.node().await;
    let under = |revision, event| Entry {
        decided_under: Some(CatalogueRevision(revision)),
        ..Entry::record(record(event))
    };
    let create = place.create_key(&key_row(1, "payroll"));
    let late_key =
        Entry { decided_under: Some(CatalogueRevision(0)), ..place.create_key(&key_row(2, "late")) };
    let entries = vec![
        under(7, "test.from-another-time"),
        under(0, "test.in-time"),
        create,
        under(0, "test.overtaken-in-its-own-batch"),
        late_key,
        under(1, "test.decided-again"),
        Entry::record(record("test.does-not-care")),
    ];
    let results = place.in_one_batch(&committer, entries).await;
    let stale = |revision| Ok(Commit::Stale(CatalogueRevision(revision)));
    let done = |index, revision| Ok(Commit::Done { index, catalogue: CatalogueRevision(revision) });
    let expected = [stale(0), done(1, 0), done(2, 1), stale(1), stale(1), done(3, 1), done(4, 1)];
    assert_eq!(results, expected);
    let (_, leaves) = place.verified(&database).await;
    let bodies: Vec<String> =
        leaves.iter().map(|leaf| String::from_utf8_lossy(&leaf.body).into_owned()).collect();
    assert!(!bodies.iter().any(|body| body.contains("overtaken") || body.contains("from-another-time")));
    assert_eq!(place.number("SELECT COUNT(*) FROM keys").await, 1);
    assert_eq!(place.number("SELECT COUNT(*) FROM key_versions").await, 1);
    assert_eq!(place.number("SELECT COUNT(*) FROM segments").await, 2);
}

pub async fn taken(place: Place) {
    let (database, committer) = place.node().await;
    index_of(committer.commit(place.create_key(&key_row(1, "payroll"))).await);
    let entries = vec![
        place.create_key(&key_row(2, "invoices")),
        place.put_key(None, &key_row(3, "payroll"), &[1, 2]),
        place.put_key(None, &key_row(1, "other-name"), &[1, 2]),
        place.create_key(&key_row(4, "invoices")),
        place.create_key(&key_row(5, "archive")),
    ];
    let results = place.in_one_batch(&committer, entries).await;
    let exists = Ok(Commit::Refused(Refusal::Exists));
    assert_eq!([results[1], results[2], results[3]], [exists; 3]);
    assert_eq!([index_of(results[0]), index_of(results[4])], [2, 3], "refusals leave no gap");
    let versions = "SELECT COUNT(*) FROM key_versions";
    assert_eq!(place.number(versions).await, 3, "no version of a refused key");
    assert_eq!(database.head().await.expect("the head").catalogue, CatalogueRevision(3));
    place.verified(&database).await;
}

pub async fn conflict(place: Place) {
    let (database, committer) = place.node().await;
    let mut key = key_row(1, "payroll");
    index_of(committer.commit(place.create_key(&key)).await);
    key.revision = 2;
    let unknown = key_row(9, "unknown");
    let entries = vec![
        place.put_key(Some(2), &key, &[2]),
        place.put_key(Some(1), &unknown, &[1]),
        place.put_key(Some(1), &key, &[2]),
        place.put_key(Some(1), &key, &[3]),
    ];
    let results = place.in_one_batch(&committer, entries).await;
    let conflict = Ok(Commit::Refused(Refusal::Conflict));
    assert_eq!([results[0], results[1], results[3]], [conflict; 3], "one of two changes wins");
    assert_eq!(index_of(results[2]), 2);
    let selector = KeySelector::Id(key.key_id);
    let found = database.find_key(&key.tenant, &selector, &place.mac).await.expect("it can be read");
    let found = found.expect("it is there");
    let versions: Vec<u32> = found.versions.iter().map(|row| row.version.number()).collect();
    assert_eq!((found.key, versions), (key, vec![1, 2]));
}

pub async fn all_refused(place: Place) {
    let (database, committer) = place.node().await;
    let refused = place.put_key(Some(3), &key_row(1, "payroll"), &[1]);
    assert_eq!(committer.commit(refused).await, Ok(Commit::Refused(Refusal::Conflict)));
    assert_eq!(place.number("SELECT COUNT(*) FROM segments").await, 0);
    assert_eq!(place.verified(&database).await.0.head.size, 0);
}

pub async fn shrunk(place: Place) {
    let (database, committer) = place.node().await;
    let event = || committer.commit(Entry::record(record("test.event")));
    index_of(event().await);
    place.tamper("CREATE TABLE kept AS SELECT size, frontier, last_time FROM log_head").await;
    index_of(event().await);
    place.tamper("DELETE FROM segments WHERE first_index = 1").await;
    place
        .tamper(
            "UPDATE log_head SET size = (SELECT size FROM kept), frontier = (SELECT frontier FROM kept), \
             last_time = (SELECT last_time FROM kept)",
        )
        .await;
    for _ in 0..2 {
        assert_eq!(event().await, Err(CommitError::Unavailable), "the log is not the one that was written");
    }
    // As large as before, and another one.
    let other_node = place.committer(&database, 1);
    index_of(other_node.commit(Entry::record(record("test.event"))).await);
    assert_eq!(event().await, Err(CommitError::Unavailable), "the log is not the one that was written");
}

pub async fn two_nodes(place: Place) {
    const TASKS: usize = 20;
    const COMMITS: usize = 20;
    let first = place.create().await;
    let second = Database::open(&place.url, &place.deployment.bundle).await.expect("a second node opens it");
    let committers = [place.committer(&first, 0), place.committer(&second, 1)];
    let mut tasks = Vec::new();
    for (node, committer) in committers.iter().enumerate() {
        for task in 0..TASKS {
            // One change of each task's own, so that both nodes also write rows and grow the catalogue.
            let number = (node * TASKS + task + 1) as u8;
            let create = place.create_key(&key_row(number, &format!("key-{number}")));
            let committer = committer.clone();
            tasks.push(tokio::spawn(async move {
                let mut indexes = vec![index_of(committer.commit(create).await)];
                for _ in 1..COMMITS {
                    // Without a pause the node that has SQLite's lock keeps it: it does not queue.
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    indexes.push(index_of(committer.commit(Entry::record(record("test.event"))).await));
                }
                assert!(indexes.is_sorted(), "what was answered earlier stands earlier");
                indexes
            }));
        }
    }
    let mut indexes = BTreeSet::new();
    for task in tasks {
        indexes.extend(task.await.expect("every commit is done"));
    }
    let total = 2 * TASKS * COMMITS;
    assert_eq!(indexes, (0..total as u64).collect(), "each index once");
    let (verified, leaves) = place.verified(&first).await;
    assert_eq!((verified.head.size, leaves.len()), (total as u64, total));
    assert_eq!(place.verified(&second).await.0, verified);
    let segments = first.segments_from(0, u32::MAX).await.expect("the log can be read");
    assert!(segments.len() < total / 2, "{} batches", segments.len());
    let nodes: BTreeSet<NodeName> = segments
        .iter()
        .map(|stored| codec::open::<BatchHead>(&stored.segment.head).expect("a head").node)
        .collect();
    assert_eq!(nodes.len(), 2, "both signed some of it");
    let catalogue = first.head().await.expect("the head").catalogue;
    assert_eq!(catalogue, CatalogueRevision(2 * TASKS as u64));
}

pub async fn large(place: Place) {
    let (database, committer) = place.node().await;
    let text = "x".repeat(60_000);
    let entries = (0..40).map(|_| Entry::record(record("test.large").detail("text", &text))).collect();
    place.in_one_batch(&committer, entries).await.into_iter().map(index_of).for_each(drop);
    // One that is too large for any batch still gets one of its own.
    let giant = Entry::record(record("test.giant").detail("text", "x".repeat(2 << 20)));
    index_of(spawn_commit(&committer, giant).await.expect("runs"));
    let segments = database.segments_from(0, 100).await.expect("the log can be read");
    let counts: Vec<u64> = segments.iter().map(|one| one.count).collect();
    assert_eq!(counts, [1, 17, 17, 6, 1]);
    place.verified(&database).await;
}
