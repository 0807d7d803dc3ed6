//! What a deployment has acknowledged, and the proof that it kept it.

use crate::workload;
use kms_core::key::KeyState;
use kms_proto::v1;
use kms_tests::{Deployment, Rpc, audit};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Row};
use std::collections::{BTreeMap, BTreeSet};
use tonic::Response;

/// A key whose creation was acknowledged.
#[derive(Clone, Debug)]
pub struct KnownKey {
    /// Its id.
    pub id: String,
    /// The last version that was acknowledged.
    pub version: u32,
}

/// A change whose answer was lost. Repeated with its token it must happen exactly once.
#[derive(Clone, Debug)]
pub enum Unanswered {
    /// `CreateKey`
    Create(v1::CreateKeyRequest),
    /// `RotateKey` of a key that had this version.
    Rotate(v1::RotateKeyRequest, u32),
}

/// A ciphertext that was handed out.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Whether it is a data key.
    pub is_data_key: bool,
    /// What was handed out.
    pub ciphertext: Vec<u8>,
    /// What it must open to.
    pub plaintext: Vec<u8>,
}

/// Everything that a deployment has acknowledged.
#[derive(Debug, Default)]
pub struct Account {
    /// By name.
    pub keys: BTreeMap<String, KnownKey>,
    /// Every ciphertext.
    pub kept: Vec<Kept>,
    /// Request ids of acknowledged operations whose records have not been looked for yet.
    pub requests: Vec<String>,
    /// Answers that were lost and not asked for again yet.
    pub unanswered: Vec<Unanswered>,
    /// Records before this index have been looked at.
    seen_log_size: u64,
    /// How many acknowledged operations were found in the log.
    pub operation_count: u64,
    creations: BTreeMap<[u8; 16], u32>,
    rotations: BTreeMap<[u8; 16], u32>,
}

impl Account {
    /// Adds what happened elsewhere.
    pub fn merge(&mut self, other: Self) {
        self.keys.extend(other.keys);
        self.kept.extend(other.kept);
        self.requests.extend(other.requests);
        self.unanswered.extend(other.unanswered);
    }

    /// Compares the account with a deployment that was started again: repeats what was not answered, looks
    /// at every key, opens the ciphertexts from `first_kept` on, and finds every operation in a log that verifies.
    pub async fn check(&mut self, deployment: &Deployment, first_kept: usize) {
        // Unsealing finished what was interrupted, before anybody repeats anything.
        self.check_that_nothing_is_being_created(deployment).await;
        for unanswered in std::mem::take(&mut self.unanswered) {
            self.repeat(deployment, unanswered).await;
        }
        self.check_keys(deployment).await;
        self.check_ciphertexts(deployment, first_kept).await;
        self.check_log(deployment).await;
    }

    async fn check_that_nothing_is_being_created(&self, deployment: &Deployment) {
        let database = SqliteConnectOptions::new().filename(deployment.state("kms.db")).read_only(true);
        let mut database = database.connect().await.expect("the database can be read");
        let sql = "SELECT (SELECT COUNT(*) FROM keys WHERE state = $1) \
                   + (SELECT COUNT(*) FROM key_versions WHERE state = $1)";
        let count = sqlx::query(sql).bind(KeyState::Creating.name()).fetch_one(&mut database).await;
        let count: i64 = count.and_then(|row| row.try_get(0)).expect("keys are counted");
        assert_eq!(count, 0, "keys or versions are still being created after an unseal");
        database.close().await.expect("the database is closed");
    }

    /// Remembers to look for the record of an answered call.
    pub fn acknowledged<T>(&mut self, answer: Response<T>) -> T {
        self.requests.push(workload::request_id(&answer));
        answer.into_inner()
    }

    async fn repeat(&mut self, deployment: &Deployment, unanswered: Unanswered) {
        let mut admin = Rpc::connect(deployment, "admin").await;
        match unanswered {
            Unanswered::Create(request) => {
                let first = admin.keys.create_key(request.clone()).await;
                let first = self.acknowledged(first.expect("a repeated creation is answered"));
                let again = admin.keys.create_key(request.clone()).await;
                let again = self.acknowledged(again.expect("a repeated creation is answered"));
                assert_eq!(first.key_id, again.key_id, "one token made two keys");
                assert_eq!((first.name.as_str(), first.current_version), (request.name.as_str(), 1));
                self.keys.insert(request.name, KnownKey { id: first.key_id, version: 1 });
            }
            Unanswered::Rotate(request, version) => {
                for _ in 0..2 {
                    let rotated = admin.keys.rotate_key(request.clone()).await;
                    let rotated = self.acknowledged(rotated.expect("a repeated rotation is answered"));
                    assert_eq!(rotated.current_version, version + 1, "one token made one version");
                }
                self.keys.get_mut(&request.key).expect("only known keys are rotated").version = version + 1;
            }
        }
    }

    async fn check_keys(&self, deployment: &Deployment) {
        let listed = list(deployment).await;
        let names: BTreeSet<&String> = listed.keys().collect();
        assert_eq!(names, self.keys.keys().collect(), "exactly the acknowledged keys exist");
        for (name, known) in &self.keys {
            let key = &listed[name];
            assert_eq!(key.key_id, known.id, "key {name} is the one that was acknowledged");
            assert_eq!(key.current_version, known.version, "key {name} has its acknowledged version");
            assert_eq!(key.state, v1::KeyState::Active as i32, "key {name} can be used");
        }
    }

    async fn check_ciphertexts(&self, deployment: &Deployment, first_kept: usize) {
        let app = Rpc::connect(deployment, "app").await;
        for kept in &self.kept[first_kept..] {
            let plaintext = workload::opened(&app, kept).await;
            assert!(plaintext == kept.plaintext, "an acknowledged ciphertext opens to its plaintext");
        }
    }

    /// The log verifies; every acknowledged operation is in it; nothing was created or rotated twice.
    async fn check_log(&mut self, deployment: &Deployment) {
        audit::verify(deployment);
        let mut done = BTreeSet::new();
        loop {
            let entries = audit::records_from(deployment, self.seen_log_size).await;
            let Some(last) = entries.last() else { break };
            let is_end = entries.len() < RECORDS_AT_A_TIME;
            self.seen_log_size = last.index + 1;
            for entry in entries.into_iter().filter(|entry| entry.record.outcome == "done") {
                let counts = match entry.record.event.as_str() {
                    "key.create" => Some(&mut self.creations),
                    "key.rotate" => Some(&mut self.rotations),
                    _ => None,
                };
                let is_repetition = entry.detail("repeats").is_some();
                if let (Some(counts), Some(key_id), false) = (counts, entry.record.key_id, is_repetition) {
                    *counts.entry(key_id.0).or_default() += 1;
                }
                done.insert(entry.record.request_id);
            }
            if is_end {
                break;
            }
        }
        for request_id in std::mem::take(&mut self.requests) {
            assert!(
                done.contains(&request_id),
                "the log has no record of the acknowledged call {request_id}"
            );
            self.operation_count += 1;
        }
        assert_eq!(self.creations.len(), self.keys.len(), "each key has its own record of creation");
        for (name, known) in &self.keys {
            let id = kms_core::id::KeyId::parse(&known.id).expect("a key id").0;
            assert_eq!(self.creations.get(&id), Some(&1), "key {name} was created once");
            let rotations = self.rotations.get(&id).copied().unwrap_or_default();
            assert_eq!(rotations, known.version - 1, "key {name} was rotated as often as it has versions");
        }
    }
}

/// What `records_from` gives at most.
const RECORDS_AT_A_TIME: usize = 10_000;

/// Every key of the tenant, by name.
async fn list(deployment: &Deployment) -> BTreeMap<String, v1::Key> {
    let mut admin = Rpc::connect(deployment, "admin").await;
    let mut keys = BTreeMap::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListKeysRequest { page_size: 250, page_token, ..Default::default() };
        let page = admin.keys.list_keys(request).await.expect("the administrator may list").into_inner();
        for key in page.keys {
            let other = keys.insert(key.name.clone(), key);
            assert!(other.is_none(), "a name is listed twice: {other:?}");
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return keys;
        }
    }
}
