//! Creating and opening.

use crate::place::{Deployment, Place};
use crate::run;
use kms_core::suite::Suite;
use kms_server::store::{Database, DatabaseError};

pub async fn created_once(place: Place) {
    let database = place.create().await;
    let before = database.head().await.expect("the head can be read");
    assert_eq!((before.log_epoch, before.frontier.size(), before.catalogue.0), (1, 0, 0));
    let other = Deployment::new(Suite::Intl);
    let again = Database::create(&place.url, &other.signed, &other.bundle).await;
    assert!(matches!(again, Err(DatabaseError::Exists { .. })), "{again:?}");
    Database::open(&place.url, &place.deployment.bundle).await.expect("still the first one's");
    if let Some(path) = place.url.strip_prefix("sqlite:") {
        let folder = std::path::Path::new(path).parent().expect("a folder");
        let names = folder.read_dir().expect("lists").map(|entry| entry.expect("lists").file_name());
        let drafts: Vec<_> = names.filter(|name| name.to_string_lossy().contains("draft")).collect();
        assert!(drafts.is_empty(), "{drafts:?}");
    }
}

pub async fn missing(place: Place) {
    let url = place.missing_url();
    let opened = Database::open(&url, &place.deployment.bundle).await;
    assert!(matches!(opened, Err(DatabaseError::Missing { .. })), "{opened:?}");
    if let Some(path) = url.strip_prefix("sqlite:") {
        assert!(!std::path::Path::new(path).exists(), "nothing was created");
    }
}

pub async fn empty(place: Place) {
    if let Some(path) = place.url.strip_prefix("sqlite:") {
        std::fs::write(path, b"").expect("the folder is there");
    }
    let opened = Database::open(&place.url, &place.deployment.bundle).await;
    assert!(matches!(opened, Err(DatabaseError::Missing { .. })), "{opened:?}");
    let tables = match place.url.starts_with("sqlite:") {
        true => "SELECT COUNT(*) FROM sqlite_master",
        false => "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = current_schema()",
    };
    assert_eq!(place.number(tables).await, 0);
}

pub async fn foreign(place: Place) {
    place.create().await;
    let other = Deployment::new(Suite::Intl);
    let opened = Database::open(&place.url, &other.bundle).await;
    assert!(matches!(opened, Err(DatabaseError::Foreign)), "{opened:?}");
}

pub async fn newer(place: Place) {
    place.create().await;
    place.tamper("UPDATE meta SET schema_version = 6").await;
    let opened = Database::open(&place.url, &place.deployment.bundle).await;
    assert!(matches!(opened, Err(DatabaseError::OtherSchema { found: 6, known: 5 })), "{opened:?}");
}

pub async fn at_once(place: Place) {
    let Deployment { signed, bundle, .. } = &place.deployment;
    let create = || Database::create(&place.url, signed, bundle);
    let both = tokio::join!(create(), create());
    let is_exists = |result: &Result<Database, _>| matches!(result, Err(DatabaseError::Exists { .. }));
    assert!(
        both.0.is_ok() && is_exists(&both.1) || both.1.is_ok() && is_exists(&both.0),
        "one creates: {both:?}"
    );
    Database::open(&place.url, bundle).await.expect("it is complete");
}

#[test]
fn a_file_of_something_else_is_refused_by_name_and_left_as_it_is() {
    run(async {
        let place = Place::sqlite(Suite::Intl).await;
        let bundle = &place.deployment.bundle;
        let path = std::path::Path::new(place.url.strip_prefix("sqlite:").expect("a file"));
        let text = b"A letter, longer than the page of a hundred bytes with which a database begins, and no database at all.";
        std::fs::write(path, text).expect("the folder is there");
        let opened = Database::open(&place.url, bundle).await;
        assert!(matches!(opened, Err(DatabaseError::NotADatabase { .. })), "{opened:?}");
        assert_eq!(std::fs::read(path).expect("it is there"), text);

        // Another program's database: not even its journal mode is changed.
        std::fs::remove_file(path).expect("it is there");
        std::fs::write(path, b"").expect("the folder is there");
        place.tamper("CREATE TABLE letters (text TEXT)").await;
        let before = std::fs::read(path).expect("it is there");
        let opened = Database::open(&place.url, bundle).await;
        assert!(matches!(opened, Err(DatabaseError::Missing { .. })), "{opened:?}");
        assert_eq!(std::fs::read(path).expect("it is there"), before);
        let beside = path.parent().expect("a folder").read_dir().expect("it is there");
        assert_eq!(beside.count(), 1, "nothing was made beside it");
    });
}

#[test]
fn a_url_that_is_no_file_and_no_server_is_refused_without_its_password() {
    run(async {
        let deployment = Deployment::new(Suite::Intl);
        for url in [
            "mysql://root:secret@host/kms",
            "sqlite::memory:",
            "sqlite:",
            "sqlite:kms.db?mode=rwc",
            "sqlite:kms%20.db",
            "kms.db?password=secret",
        ] {
            let error = Database::open(url, &deployment.bundle).await.expect_err("refused");
            assert!(matches!(error, DatabaseError::Url { .. }), "{url}: {error:?}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    });
}

#[test]
fn a_password_is_left_out_of_messages() {
    run(async {
        let deployment = Deployment::new(Suite::Intl);
        for url in [
            "postgres://kms:secret@localhost/kms?host=/nonexistent",
            "postgres://localhost/kms?host=/nonexistent&password=secret",
        ] {
            let error = Database::open(url, &deployment.bundle).await.expect_err("nobody listens");
            assert!(matches!(error, DatabaseError::Missing { .. }), "{error:?}");
            assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
        }
    });
}

#[test]
fn only_its_owner_can_read_a_new_file() {
    use std::os::unix::fs::MetadataExt;
    run(async {
        let place = Place::sqlite(Suite::Intl).await;
        let database = place.create().await;
        database.head().await.expect("reading makes the write-ahead log");
        let path = place.url.strip_prefix("sqlite:").expect("a file");
        for suffix in ["", "-wal"] {
            let mode = std::fs::metadata(format!("{path}{suffix}")).expect("it is there").mode();
            assert_eq!(mode & 0o777, 0o600, "{suffix}");
        }
    });
}
