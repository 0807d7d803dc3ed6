//! Where a contract test runs: an empty place for a database, and everything that a test needs to fill it.

use crate::postgres::Server;
use kms_core::asymmetric::PrivateKey;
use kms_core::attributes::KeyAttributes;
use kms_core::audit::{
    CHECKPOINT_DOMAIN, Checkpoint, Leaf, Outcome, Record, SignedCheckpoint, Verified, Verifier,
};
use kms_core::bundle::{
    BUNDLE_DOMAIN, Bundle, Custodian, HsmSigningKey, MasterKey, Node, Partition, SignedBundle,
};
use kms_core::codec::{self, VersionOne};
use kms_core::id::{
    ClusterName, CustodianName, HsmObjectId, KeyId, KeyName, KeyVersion, NodeName, Principal, TenantName,
    UnixMillis,
};
use kms_core::key::{Cryptoperiod, KeyState};
use kms_core::merkle::Frontier;
use kms_core::spec::{KeyOrigin, KeySpec, KeyUsage, Protection};
use kms_core::suite::{AeadAlgorithm, CheckValue, Digest32, Suite};
use kms_hsm::LockedBytes;
use kms_server::random::{now, random_id, system_rng};
use kms_server::store::{
    BatchMeter, Change, Commit, CommitError, Committer, Database, Entry, HeadSigner, Idempotency, KeyRow,
    Material, RowMac, StoredCheckpoint, VersionRow,
};
use sqlx::{AnyPool, AssertSqlSafe, Executor, Row};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

thread_local! {
    /// The clock of this thread's committers; 0 is the real time. Every test has a thread to itself.
    static CLOCK: Cell<u64> = const { Cell::new(0) };
}

/// Sets the clock of this test.
pub fn set_clock(millis: u64) {
    CLOCK.set(millis);
}

fn clock() -> UnixMillis {
    match CLOCK.get() {
        0 => now(),
        millis => UnixMillis(millis),
    }
}

/// What keeps a place alive.
enum Keeper {
    Folder(TempDir),
    Server(Arc<Server>),
}

/// A place for one database, with a deployment that may use it.
pub struct Place {
    pub url: String,
    pub deployment: Deployment,
    pub mac: RowMac,
    keeper: Keeper,
}

impl Place {
    pub async fn sqlite(suite: Suite) -> Self {
        let folder = TempDir::new().expect("a temporary folder can be made");
        let url = format!("sqlite:{}", folder.path().join("kms.db").display());
        Self::new(url, suite, Keeper::Folder(folder))
    }

    pub async fn postgres(suite: Suite) -> Self {
        let server = Server::shared();
        Self::new(server.new_database().await, suite, Keeper::Server(server))
    }

    pub fn at(url: String, server: Arc<Server>) -> Self {
        Self::new(url, Suite::Intl, Keeper::Server(server))
    }

    fn new(url: String, suite: Suite, keeper: Keeper) -> Self {
        let mut key = LockedBytes::zeroed(32);
        key.expose_mut().fill(7);
        Self { url, deployment: Deployment::new(suite), mac: RowMac::new(suite, key), keeper }
    }

    /// The URL of the same database without a relay in between.
    pub fn direct_url(&self) -> String {
        let Keeper::Server(server) = &self.keeper else { panic!("only a server has a relay") };
        server.url(self.url.split(['/', '?']).nth(3).expect("a name"))
    }

    /// A URL where nothing is.
    pub fn missing_url(&self) -> String {
        match &self.keeper {
            Keeper::Folder(folder) => format!("sqlite:{}", folder.path().join("missing.db").display()),
            Keeper::Server(server) => server.url("missing"),
        }
    }

    pub async fn create(&self) -> Database {
        let Deployment { signed, bundle, .. } = &self.deployment;
        Database::create(&self.url, signed, bundle).await.expect("the place is empty")
    }

    /// Creates the database and starts the first node on it.
    pub async fn node(&self) -> (Database, Committer) {
        let database = self.create().await;
        let committer = self.committer(&database, 0);
        (database, committer)
    }

    /// Starts a node's committer on the database.
    pub fn committer(&self, database: &Database, node: usize) -> Committer {
        let signer = HeadSigner {
            cluster_id: self.deployment.bundle.cluster_id,
            node: self.deployment.bundle.nodes[node].name.clone(),
            key: self.deployment.node_keys[node].clone(),
        };
        Committer::start(database.clone(), signer, clock, system_rng(), Arc::new(NoMeter)).0
    }

    /// A connection that knows nothing of the store.
    pub async fn raw(&self) -> AnyPool {
        sqlx::any::install_default_drivers();
        sqlx::any::AnyPoolOptions::new().max_connections(1).connect(&self.url).await.expect("it is there")
    }

    /// Changes the database behind the store's back.
    pub async fn tamper(&self, sql: &str) {
        let raw = self.raw().await;
        raw.execute(AssertSqlSafe(sql.to_owned())).await.expect("the statement is right");
        raw.close().await;
    }

    /// The number that a query gives.
    pub async fn number(&self, sql: &str) -> i64 {
        let raw = self.raw().await;
        let row = raw.fetch_one(AssertSqlSafe(sql.to_owned())).await.expect("the query is right");
        raw.close().await;
        row.try_get(0).expect("a number")
    }

    /// Holds the lock that every commit needs, until the answer is dropped with [`Held::release`].
    pub async fn hold(&self) -> Held {
        let pool = self.raw().await;
        let transaction = match &self.keeper {
            Keeper::Folder(_) => pool.begin_with("BEGIN IMMEDIATE").await.expect("the lock is free"),
            Keeper::Server(_) => {
                let mut transaction = pool.begin().await.expect("the server answers");
                transaction
                    .execute("SELECT size FROM log_head WHERE id = 1 FOR UPDATE")
                    .await
                    .expect("the lock is free");
                transaction
            }
        };
        Held { transaction, pool }
    }

    /// Commits the entries in one batch of their own: they queue while the batch before them is held up.
    pub async fn in_one_batch(
        &self,
        committer: &Committer,
        entries: Vec<Entry>,
    ) -> Vec<Result<Commit, CommitError>> {
        let held = self.hold().await;
        let warm_up = spawn_commit(committer, Entry::record(record("test.warm-up")));
        tokio::time::sleep(Duration::from_millis(100)).await;
        let waiting: Vec<_> = entries.into_iter().map(|entry| spawn_commit(committer, entry)).collect();
        tokio::time::sleep(Duration::from_millis(100)).await;
        held.release().await;
        assert!(matches!(warm_up.await.expect("runs"), Ok(Commit::Done { .. })));
        let mut results = Vec::new();
        for one in waiting {
            results.push(one.await.expect("runs"));
        }
        results
    }

    /// Verifies the whole log as an auditor would and gives its leaves.
    pub async fn verified(&self, database: &Database) -> (Verified, Vec<Leaf>) {
        let checkpoints = database.checkpoints_from(0, 1000).await.expect("the checkpoints can be read");
        let checkpoints: Vec<_> = checkpoints.into_iter().map(|(_, checkpoint)| checkpoint).collect();
        let mut verifier =
            Verifier::new(&self.deployment.bundle, &checkpoints).expect("the checkpoints hold");
        let mut leaves = Vec::new();
        loop {
            let segments = database.segments_from(verifier.size(), 3).await.expect("the log can be read");
            if segments.is_empty() {
                break;
            }
            for stored in segments {
                assert_eq!(stored.first_index, verifier.size());
                let accepted = verifier.accept(&stored.segment).expect("the segment verifies");
                assert_eq!(stored.count, accepted.len() as u64);
                leaves.extend(accepted);
            }
        }
        let verified = verifier.finish().expect("the log is complete");
        let head = database.head().await.expect("the head can be read");
        assert_eq!((head.frontier.size(), head.frontier.root()), (verified.head.size, verified.head.root));
        (verified, leaves)
    }

    /// A new key of the default tenant with one version, as an entry.
    pub fn create_key(&self, key: &KeyRow) -> Entry {
        self.put_key(None, key, &[1])
    }

    /// A change of a key and some of its versions.
    pub fn put_key(&self, expected_revision: Option<u64>, key: &KeyRow, versions: &[u32]) -> Entry {
        let versions = versions.iter().map(|version| version_row(key, *version)).collect();
        self.put_rows(expected_revision, key, versions, None)
    }

    /// A change of a key, rows of its versions, and a certificate.
    pub fn put_rows(
        &self,
        expected_revision: Option<u64>,
        key: &KeyRow,
        versions: Vec<VersionRow>,
        certificate: Option<(UnixMillis, Vec<u8>)>,
    ) -> Entry {
        let versions = versions.into_iter().map(|row| {
            let mac = self.mac.of_version(&row);
            (row, mac)
        });
        let change = Change::Key {
            expected_revision,
            key: Box::new((key.clone(), self.mac.of_key(key))),
            versions: versions.collect(),
            certificate,
            import: None,
        };
        Entry { change: Some(change), ..Entry::record(record("key.create")) }
    }

    /// The checkpoint of a log's tree.
    pub fn checkpoint(&self, frontier: &Frontier) -> StoredCheckpoint {
        let bundle = &self.deployment.bundle;
        let time = clock();
        let body = codec::to_bytes(&Checkpoint {
            version: VersionOne,
            cluster_id: bundle.cluster_id,
            log_epoch: 1,
            size: frontier.size(),
            root: frontier.root(),
            time,
        });
        let signature = self.deployment.checkpoint_key.sign(CHECKPOINT_DOMAIN, &body, &mut system_rng());
        let signed = SignedCheckpoint { version: VersionOne, body, signature };
        StoredCheckpoint { time, signed, frontier: frontier.clone() }
    }
}

/// The lock that every commit needs.
pub struct Held {
    transaction: sqlx::Transaction<'static, sqlx::Any>,
    pool: AnyPool,
}

impl Held {
    pub async fn release(self) {
        self.transaction.rollback().await.expect("rolls back");
        self.pool.close().await;
    }
}

struct NoMeter;

impl BatchMeter for NoMeter {
    fn batch(&self, _entries: usize, _elapsed: Duration, _is_committed: bool) {}
}

/// Commits beside the test.
pub fn spawn_commit(
    committer: &Committer,
    entry: Entry,
) -> tokio::task::JoinHandle<Result<Commit, CommitError>> {
    let committer = committer.clone();
    tokio::spawn(async move { committer.commit(entry).await })
}

/// The index of a commit that was done.
pub fn index_of(commit: Result<Commit, CommitError>) -> u64 {
    match commit {
        Ok(Commit::Done { index, .. }) => index,
        other => panic!("not committed: {other:?}"),
    }
}

pub fn record(event: &str) -> Record {
    Record::new(event, Outcome::Done, "node", &NodeName::parse("node-1").expect("valid"), "request")
}

pub fn key_row(number: u8, name: &str) -> KeyRow {
    KeyRow {
        tenant: TenantName::parse("default").expect("valid"),
        key_id: KeyId([number; 16]),
        name: KeyName::parse(name).expect("valid"),
        spec: KeySpec::Sm4,
        usage: KeyUsage::EncryptDecrypt,
        protection: Protection::HsmWrapped,
        standing: KeyState::Active.into(),
        destruction_request: None,
        current_version: KeyVersion::FIRST,
        creator: Principal::parse("kms://default/administrator/admin").expect("valid"),
        created: UnixMillis(1),
        period: Cryptoperiod { activates: Some(UnixMillis(2)), expires: None },
        attributes: KeyAttributes::default(),
        revision: 1,
    }
}

pub fn version_row(key: &KeyRow, number: u32) -> VersionRow {
    VersionRow {
        tenant: key.tenant.clone(),
        key_id: key.key_id,
        version: KeyVersion::new(number).expect("from 1"),
        origin: KeyOrigin::Generated,
        standing: KeyState::Active.into(),
        destruction_request: None,
        created: UnixMillis(1),
        check_value: Some(CheckValue([number as u8; 3])),
        public_key: None,
        // Every kind of material: a column that it does not need is NULL.
        material: match number {
            3 => Material::Staged { object: HsmObjectId([3; 16]), wrapped: vec![3; 60] },
            1 => Material::Wrapped(vec![key.key_id.0[0]; 60]),
            _ => Material::Resident(HsmObjectId([number as u8; 16])),
        },
    }
}

pub fn idempotency(token: &str, request: &str) -> Idempotency {
    Idempotency {
        principal: Principal::parse("kms://default/administrator/admin").expect("valid"),
        method: "key.create",
        token: token.to_owned(),
        request_digest: Suite::Intl.hash(&[request.as_bytes()]),
    }
}

/// A deployment with two nodes, whose private keys the tests have.
pub struct Deployment {
    pub bundle: Bundle,
    pub signed: SignedBundle,
    pub node_keys: Vec<Arc<PrivateKey>>,
    pub checkpoint_key: PrivateKey,
}

impl Deployment {
    pub fn new(suite: Suite) -> Self {
        let key = || PrivateKey::generate(suite, &mut system_rng());
        let (core_key, checkpoint_key) = (key(), key());
        let node_keys = vec![Arc::new(key()), Arc::new(key())];
        let custodian = |share_index: u8| Custodian {
            name: CustodianName::parse(&format!("custodian-{share_index}")).expect("valid"),
            sign_key: key().public_key(),
            seal_key: key().public_key(),
            share_index,
            start_commitment: Digest32([share_index; 32]),
            core_commitment: Digest32([share_index; 32]),
        };
        let partition = |label: &str| Partition { label: label.into(), serial: "01".into(), pin_epoch: 1 };
        let signing_key = |number, key: &PrivateKey| HsmSigningKey {
            object: HsmObjectId([number; 16]),
            public_key: key.public_key(),
        };
        let node = |number: usize| Node {
            name: NodeName::parse(&format!("node-{}", number + 1)).expect("valid"),
            key: node_keys[number].public_key(),
        };
        let bundle = Bundle {
            version: VersionOne,
            cluster_id: random_id(),
            cluster_name: ClusterName::parse("test").expect("valid"),
            suite,
            created: UnixMillis(1),
            share_epoch: 1,
            threshold_needed: 2,
            custodians: (1..=3).map(custodian).collect(),
            start_commitment: Digest32([4; 32]),
            core_commitment: Digest32([5; 32]),
            operations: partition("operations"),
            core: partition("core"),
            core_key: signing_key(1, &core_key),
            checkpoint_key: signing_key(2, &checkpoint_key),
            row_mac_key: HsmObjectId([3; 16]),
            master_keys: vec![MasterKey {
                version: KeyVersion::FIRST,
                object: HsmObjectId([4; 16]),
                algorithm: AeadAlgorithm::Sm4Gcm,
            }],
            nodes: vec![node(0), node(1)],
            principals: vec![Principal::parse("kms://default/administrator/admin").expect("valid")],
            previous: None,
        };
        let body = codec::to_bytes(&bundle);
        let signature = core_key.sign(BUNDLE_DOMAIN, &body, &mut system_rng());
        let signed = SignedBundle { version: VersionOne, body, signature };
        assert_eq!(signed.verify().as_ref(), Ok(&bundle));
        Self { bundle, signed, node_keys, checkpoint_key }
    }
}
