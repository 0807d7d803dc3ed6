//! When the database is slow, gone, or comes back.

use crate::place::{Deployment, Place, index_of, record, spawn_commit};
use crate::postgres::Server;
use crate::proxy::{Cut, Proxy};
use crate::run;
use kms_core::suite::Suite;
use kms_server::store::{Commit, CommitError, Database, DatabaseError, Entry};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a commit may take when the database does not answer: the limit of one batch, and a little more.
const REFUSAL_TIME_MAX: Duration = Duration::from_secs(12);

fn event() -> Entry {
    Entry::record(record("test.event"))
}

pub async fn full(place: Place) {
    const ASKED: usize = 6_000;
    // 4,096 wait, and the batch in work has at most 512.
    const TAKEN_MAX: usize = 4_096 + 512;
    let (database, committer) = place.node().await;
    let held = place.hold().await;
    let waiting: Vec<_> = (0..ASKED).map(|_| spawn_commit(&committer, event())).collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    held.release().await;
    let (mut done, mut refused) = (0, 0);
    for one in waiting {
        match one.await.expect("runs") {
            Ok(Commit::Done { .. }) => done += 1,
            Err(CommitError::Full) => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!((4_096..=TAKEN_MAX).contains(&done), "{done} done, {refused} refused");
    assert_eq!(place.verified(&database).await.0.head.size, done as u64);
    index_of(committer.commit(event()).await);
}

pub async fn held(place: Place) {
    let (database, committer) = place.node().await;
    let held = place.hold().await;
    let start = Instant::now();
    assert_eq!(committer.commit(event()).await, Err(CommitError::Unavailable));
    assert!(start.elapsed() < REFUSAL_TIME_MAX, "{:?}", start.elapsed());
    held.release().await;
    assert_eq!(index_of(committer.commit(event()).await), 0, "nothing of the refused one was written");
    place.verified(&database).await;
}

pub async fn closed(place: Place) {
    let (database, committer) = place.node().await;
    index_of(committer.commit(event()).await);
    database.close().await;
    assert_eq!(committer.commit(event()).await, Err(CommitError::Unavailable));
    let again = Database::open(&place.url, &place.deployment.bundle).await.expect("it is still there");
    assert_eq!(place.verified(&again).await.0.head.size, 1);
    index_of(place.committer(&again, 0).commit(event()).await);
}

#[test]
fn a_stopped_postgres_acknowledges_nothing_and_the_committer_goes_on_when_it_is_back() {
    run(async {
        let server = Arc::new(Server::start(&[]));
        let place = Place::at(server.new_database().await, server.clone());
        let (database, committer) = place.node().await;
        index_of(committer.commit(event()).await);
        server.stop();
        let start = Instant::now();
        let refused: Vec<_> = (0..10).map(|_| spawn_commit(&committer, event())).collect();
        for one in refused {
            assert_eq!(one.await.expect("runs"), Err(CommitError::Unavailable));
        }
        assert!(start.elapsed() < REFUSAL_TIME_MAX, "{:?}", start.elapsed());
        server.start_again(&[]);
        assert_eq!(index_of(committer.commit(event()).await), 1, "the first try after it is back");
        place.verified(&database).await;
    });
}

#[test]
fn a_connection_that_was_cut_is_replaced() {
    run(async {
        let server = Server::shared();
        let place = Place::at(server.new_database().await, server.clone());
        let (database, committer) = place.node().await;
        for index in 0..3 {
            assert_eq!(index_of(committer.commit(event()).await), index);
            place
                .number(
                    "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity \
                     WHERE datname = current_database() AND pid <> pg_backend_pid()",
                )
                .await;
        }
        place.verified(&database).await;
    });
}

#[test]
fn a_commit_whose_answer_is_lost_is_looked_up_and_acknowledged() {
    run(async {
        let (place, proxy, database, committer) = behind_a_proxy().await;
        proxy.cut_next_commit(Cut::AfterCommit);
        assert_eq!(index_of(committer.commit(event()).await), 1);
        assert_eq!(index_of(committer.commit(event()).await), 2);
        assert_eq!(place.verified(&database).await.0.head.size, 3);
    });
}

#[test]
fn a_commit_that_never_arrived_is_refused_and_leaves_nothing() {
    run(async {
        let (place, proxy, database, committer) = behind_a_proxy().await;
        proxy.cut_next_commit(Cut::BeforeCommit);
        assert_eq!(committer.commit(event()).await, Err(CommitError::Unavailable));
        assert_eq!(index_of(committer.commit(event()).await), 1);
        assert_eq!(place.verified(&database).await.0.head.size, 2);
    });
}

/// A node that reaches its database through a relay, with one record in the log.
async fn behind_a_proxy() -> (Place, Proxy, Database, kms_server::store::Committer) {
    let server = Server::shared();
    let direct = server.new_database().await;
    let name = direct.split(['/', '?']).nth(3).expect("a name").to_owned();
    let proxy = Proxy::start(&server);
    let place = Place::at(proxy.url(&name), server);
    let (database, committer) = place.node().await;
    index_of(committer.commit(event()).await);
    (place, proxy, database, committer)
}

#[test]
fn a_node_that_vanished_in_a_transaction_does_not_hold_up_the_others() {
    run(async {
        let (place, proxy, database, committer) = behind_a_proxy().await;
        let direct = Database::open(&place.direct_url(), &place.deployment.bundle).await.expect("opens");
        let other_node = place.committer(&direct, 1);
        proxy.cut_next_commit(Cut::Silence);
        let start = Instant::now();
        let vanished = spawn_commit(&committer, event());
        tokio::time::sleep(Duration::from_millis(500)).await;
        while other_node.commit(event()).await.is_err() {
            assert!(start.elapsed() < 2 * REFUSAL_TIME_MAX, "the lock is still held");
        }
        assert_eq!(vanished.await.expect("runs"), Err(CommitError::Unavailable));
        assert_eq!(place.verified(&database).await.0.head.size, 2);
    });
}

#[test]
fn a_postgres_that_may_lose_commits_is_refused() {
    run(async {
        let server = Server::start(&["fsync=off"]);
        let url = server.new_database().await;
        let Deployment { signed, bundle, .. } = Deployment::new(Suite::Intl);
        let is_unsafe = |result: Result<Database, DatabaseError>| match result {
            Err(DatabaseError::Unsafe { setting }) => setting,
            other => panic!("{other:?}"),
        };
        assert_eq!(is_unsafe(Database::create(&url, &signed, &bundle).await), "fsync=off");
        server.stop();
        server.start_again(&[]);
        Database::create(&url, &signed, &bundle).await.expect("nothing was made in it before");
        server.stop();
        server.start_again(&["fsync=off"]);
        assert_eq!(is_unsafe(Database::open(&url, &bundle).await), "fsync=off");
        server.stop();
        server.start_again(&[]);
        Database::open(&url, &bundle).await.expect("with fsync it is safe");
        server.execute("ALTER ROLE postgres SET synchronous_commit = off".to_owned()).await;
        assert_eq!(is_unsafe(Database::open(&url, &bundle).await), "synchronous_commit=off");
    });
}
