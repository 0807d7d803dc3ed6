//! The life of registered data keys on a real server, with a clock that is set ahead and somebody at the database.

use kms_core::id::KeyId;
use kms_core::suite::Suite;
use kms_proto::v1;
use kms_tests::{Deployment, Module, Options, Refused, Rpc, audit};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Row};
use std::fs;

const DAY: u64 = 86_400;
const PROTECTIONS: [(&str, v1::Protection); 2] =
    [("resident", v1::Protection::HsmResident), ("wrapped", v1::Protection::HsmWrapped)];

async fn connect(deployment: &Deployment) -> (Rpc, Rpc) {
    (Rpc::connect(deployment, "admin").await, Rpc::connect(deployment, "app").await)
}

async fn database(deployment: &Deployment) -> SqliteConnection {
    let options =
        SqliteConnectOptions::new().filename(deployment.state("kms.db")).pragma("secure_delete", "ON");
    options.connect().await.expect("the database can be opened")
}

/// What the rows of a data key's versions hold, in order.
async fn stored(deployment: &Deployment, id: &str) -> Vec<Option<Vec<u8>>> {
    let mut database = database(deployment).await;
    let id = KeyId::parse(id).expect("an id").0.to_vec();
    let sql = "SELECT ciphertext FROM data_key_versions WHERE data_key_id = $1 ORDER BY version";
    let rows = sqlx::query(sql).bind(id).fetch_all(&mut database).await.expect("versions");
    database.close().await.expect("closes");
    rows.iter().map(|row| row.get(0)).collect()
}

/// Gives each of two versions of a data key the other's ciphertext. A second time it is as it was.
async fn swap(deployment: &Deployment, id: &str) {
    let [Some(first), Some(second)] = &stored(deployment, id).await[..] else { panic!("two versions") };
    let mut database = database(deployment).await;
    let id = KeyId::parse(id).expect("an id").0.to_vec();
    for (version, ciphertext) in [(1, second), (2, first)] {
        let sql = "UPDATE data_key_versions SET ciphertext = $1 WHERE data_key_id = $2 AND version = $3";
        let query = sqlx::query(sql).bind(ciphertext.clone()).bind(id.clone()).bind(version);
        query.execute(&mut database).await.expect("updates");
    }
    database.close().await.expect("closes");
}

async fn get(app: &mut Rpc, name: &str, version: u32) -> Result<v1::GetDataKeyResponse, Refused> {
    let request = v1::GetDataKeyRequest { name: name.into(), version, recipient: None };
    app.data_keys.get_data_key(request).await.map(tonic::Response::into_inner).map_err(Refused::from)
}

async fn reason(app: &mut Rpc, name: &str, version: u32) -> String {
    get(app, name, version).await.expect_err("it is refused").reason
}

async fn describe(admin: &mut Rpc, name: &str) -> v1::RegisteredDataKey {
    let request = v1::DescribeDataKeyRequest { name: name.into() };
    admin.data_keys.describe_data_key(request).await.expect("describes").into_inner()
}

async fn rotate(admin: &mut Rpc, name: &str) -> v1::RegisteredDataKey {
    let request = v1::RotateDataKeyRequest { name: name.into(), ..Default::default() };
    admin.data_keys.rotate_data_key(request).await.expect("rotates").into_inner()
}

async fn disable(admin: &mut Rpc, name: &str, version: u32) {
    let request = v1::DisableDataKeyRequest { name: name.into(), version };
    admin.data_keys.disable_data_key(request).await.expect("disables");
}

async fn destroy(admin: &mut Rpc, name: &str, version: u32) -> Result<v1::RegisteredDataKey, Refused> {
    let request = v1::DestroyDataKeyRequest { name: name.into(), version };
    admin.data_keys.destroy_data_key(request).await.map(tonic::Response::into_inner).map_err(Refused::from)
}

fn start_ahead(deployment: &Deployment, seconds: u64) {
    let environment = [("KMS_CLOCK_AHEAD".into(), seconds.to_string().into())];
    deployment.try_start_with(&environment).expect("starts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registered_data_key_is_kept_rotated_disabled_and_destroyed_on_the_simulator() {
    life(Options::default(), v1::KeySpec::Sm4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registered_data_key_is_kept_rotated_disabled_and_destroyed_on_softhsm() {
    let options = Options { module: Module::SoftHsm, suite: Suite::Intl, ..Options::default() };
    life(options, v1::KeySpec::Aes256).await;
}

async fn life(options: Options, spec: v1::KeySpec) {
    let deployment = Deployment::start(options);
    let (mut admin, mut app) = connect(&deployment).await;
    let len = if spec == v1::KeySpec::Sm4 { 16 } else { 32 };
    let mut kept = Vec::new();
    for (name, protection) in PROTECTIONS {
        let key = v1::CreateKeyRequest {
            name: format!("kek-{name}"),
            spec: spec.into(),
            protection: protection.into(),
            ..Default::default()
        };
        admin.keys.create_key(key).await.expect("creates a key");
        let request =
            v1::CreateDataKeyRequest { name: name.into(), key: format!("kek-{name}"), ..Default::default() };
        let made = admin.data_keys.create_data_key(request).await.expect("creates").into_inner();
        assert_eq!(
            (made.current_version, made.data_key_spec(), made.state()),
            (1, spec, v1::DataKeyState::Enabled)
        );
        let first = get(&mut app, name, 0).await.expect("gives");
        assert_eq!((first.version, first.plaintext.len()), (1, len));
        assert_eq!(get(&mut app, name, 1).await.expect("gives").plaintext, first.plaintext);
        // Whoever has copied the row cannot have it decrypted by another call.
        let ciphertext = stored(&deployment, &made.data_key_id).await.remove(0).expect("it is stored");
        assert!(!ciphertext.windows(len).any(|window| window == first.plaintext));
        let pair = |key: &str, value: &str| v1::ContextPair { key: key.into(), value: value.into() };
        let context = vec![pair("data-key", &made.data_key_id), pair("version", "1")];
        let request = v1::DecryptDataKeyRequest {
            ciphertext: ciphertext.clone(),
            context: context.clone(),
            ..Default::default()
        };
        let refused = app.crypto.decrypt_data_key(request).await.expect_err("it is not of this purpose");
        assert_eq!(Refused::from(refused).reason, "CIPHERTEXT_INVALID");
        let request = v1::ReEncryptRequest {
            ciphertext: ciphertext.clone(),
            new_context: context.clone(),
            context,
            ..Default::default()
        };
        let refused = app.crypto.re_encrypt(request).await.expect_err("it is not encrypted again");
        assert_eq!(Refused::from(refused).reason, "CIPHERTEXT_INVALID");

        assert_eq!(rotate(&mut admin, name).await.current_version, 2);
        let second = get(&mut app, name, 0).await.expect("gives");
        assert_eq!(second.version, 2);
        assert_ne!(second.plaintext, first.plaintext);
        assert_eq!(get(&mut app, name, 1).await.expect("gives").plaintext, first.plaintext);
        kept.push((name, made.data_key_id, [first.plaintext, second.plaintext]));
    }
    let listed = admin.data_keys.list_data_keys(v1::ListDataKeysRequest::default()).await.expect("lists");
    let names: Vec<_> = listed.into_inner().data_keys.into_iter().map(|one| one.name).collect();
    assert_eq!(names, ["resident", "wrapped"]);

    // Somebody at the database exchanges the ciphertexts of two rows; nobody is given the wrong one.
    deployment.terminate();
    for (_, id, _) in &kept {
        swap(&deployment, id).await;
    }
    deployment.start_again();
    let (_, mut app) = connect(&deployment).await;
    for (name, ..) in &kept {
        assert_eq!(reason(&mut app, name, 1).await, "INTERNAL", "{name}");
        assert_eq!(reason(&mut app, name, 0).await, "INTERNAL", "{name}");
    }
    deployment.terminate();
    for (_, id, _) in &kept {
        swap(&deployment, id).await;
    }
    deployment.start_again();
    let (mut admin, mut app) = connect(&deployment).await;
    for (name, _, plaintexts) in &kept {
        for (version, plaintext) in (1..).zip(plaintexts) {
            let given = get(&mut app, name, version).await.expect("it is kept over restarts");
            assert_eq!(&given.plaintext, plaintext, "{name}@{version}");
        }
    }

    // One version, then all of it: disabled at once, erased a week later.
    disable(&mut admin, "resident", 1).await;
    disable(&mut admin, "wrapped", 0).await;
    disable(&mut admin, "wrapped", 2).await;
    const FORBIDS: &str = "DATA_KEY_STATE_FORBIDS";
    assert_eq!(reason(&mut app, "resident", 1).await, FORBIDS);
    assert_eq!(reason(&mut app, "wrapped", 0).await, FORBIDS);
    let mut doomed = stored(&deployment, &kept[1].1).await;
    doomed.push(stored(&deployment, &kept[0].1).await.remove(0));
    deployment.terminate();
    start_ahead(&deployment, 7 * DAY - 120);
    let (mut admin, _) = connect(&deployment).await;
    let early = destroy(&mut admin, "wrapped", 0).await.expect_err("the window is not over");
    assert_eq!(early.reason, FORBIDS, "{early:?}");
    assert!(early.message.contains("in 1 hours"), "{early:?}");
    deployment.terminate();
    start_ahead(&deployment, 7 * DAY + 60);
    let (mut admin, mut app) = connect(&deployment).await;
    let current = destroy(&mut admin, "wrapped", 2).await.expect_err("the current one goes with the whole");
    assert_eq!(current.reason, FORBIDS, "{current:?}");
    use v1::DataKeyState::{Destroyed, Enabled};
    let states = |one: &v1::RegisteredDataKey| {
        (one.state(), one.versions.iter().map(|version| version.state()).collect::<Vec<_>>())
    };
    let part = destroy(&mut admin, "resident", 1).await.expect("destroys");
    assert_eq!(states(&part), (Enabled, vec![Destroyed, Enabled]));
    let whole = destroy(&mut admin, "wrapped", 0).await.expect("destroys");
    assert_eq!(states(&whole), (Destroyed, vec![Destroyed, Destroyed]));
    assert_eq!(stored(&deployment, &kept[1].1).await, [None, None]);
    assert_eq!(reason(&mut app, "resident", 1).await, FORBIDS);
    assert_eq!(get(&mut app, "resident", 0).await.expect("the other one").plaintext, kept[0].2[1]);
    for version in [0, 1, 2] {
        let refused = get(&mut app, "wrapped", version).await.expect_err("it is gone");
        assert_eq!(refused.reason, FORBIDS);
        assert!(refused.message.contains("is DESTROYED"), "{refused:?}");
    }
    let enable = v1::EnableDataKeyRequest { name: "wrapped".into(), version: 0 };
    let refused = admin.data_keys.enable_data_key(enable).await.expect_err("nothing leads back");
    assert_eq!(Refused::from(refused).reason, FORBIDS);
    let again =
        v1::CreateDataKeyRequest { name: "wrapped".into(), key: "kek-wrapped".into(), ..Default::default() };
    let refused = admin.data_keys.create_data_key(again).await.expect_err("its name stays");
    assert_eq!(Refused::from(refused).reason, "KEY_EXISTS");
    assert_eq!(describe(&mut admin, "wrapped").await, whole, "and what is said of it");
    audit::verify(&deployment);
    deployment.terminate();
    for bytes in doomed.iter().map(|bytes| bytes.as_ref().expect("it was stored")) {
        let files = fs::read_dir(deployment.state("")).expect("the state folder");
        for file in files.map(|file| file.expect("an entry").path()).filter(|path| path.is_file()) {
            let content = fs::read(&file).expect("a file");
            let is_there = content.windows(bytes.len()).any(|window| window == bytes.as_slice());
            assert!(!is_there, "{} still holds a ciphertext", file.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_a_current_version_that_is_older_than_its_period() {
    let deployment = Deployment::start(Options::default());
    let (mut admin, mut app) = connect(&deployment).await;
    let key =
        v1::CreateKeyRequest { name: "kek".into(), spec: v1::KeySpec::Sm4.into(), ..Default::default() };
    admin.keys.create_key(key).await.expect("creates a key");
    for (name, rotation_period_days) in [("weekly", 7), ("never", 0)] {
        let request = v1::CreateDataKeyRequest {
            name: name.into(),
            key: "kek".into(),
            rotation_period_days,
            ..Default::default()
        };
        admin.data_keys.create_data_key(request).await.expect("creates");
    }
    let first = get(&mut app, "weekly", 0).await.expect("gives");
    deployment.terminate();
    start_ahead(&deployment, 7 * DAY + 60);
    let (mut admin, mut app) = connect(&deployment).await;
    assert_eq!(get(&mut app, "never", 0).await.expect("gives").version, 1);
    assert_eq!(get(&mut app, "weekly", 1).await.expect("a version that is named").plaintext, first.plaintext);
    assert_eq!(describe(&mut admin, "weekly").await.current_version, 1, "nobody has asked yet");
    // Many at once: one of them makes the next version, and all get it.
    let asking: Vec<_> = (0..8)
        .map(|_| {
            let mut app = app.clone();
            tokio::spawn(async move { get(&mut app, "weekly", 0).await.expect("gives") })
        })
        .collect();
    let mut given = Vec::new();
    for one in asking {
        given.push(one.await.expect("runs"));
    }
    assert!(given.iter().all(|one| one.version == 2 && one.plaintext == given[0].plaintext));
    assert_ne!(given[0].plaintext, first.plaintext);
    let entries = audit::records_from(&deployment, 0).await;
    let rotations: Vec<_> = entries.iter().filter(|entry| entry.record.event == "data_key.rotate").collect();
    let [rotation] = rotations[..] else { panic!("one rotation: {rotations:?}") };
    assert_eq!(rotation.detail("because"), Some("its rotation period is over"));
    assert_eq!(rotation.record.actor, "kms://default/operator/app");

    // A key that encrypts no more cannot keep the policy: that is said, and old data can be read.
    let deactivate = v1::DeactivateKeyRequest { key: "kek".into() };
    admin.keys.deactivate_key(deactivate).await.expect("deactivates");
    assert_eq!(get(&mut app, "weekly", 0).await.expect("it is young enough").version, 2);
    deployment.terminate();
    start_ahead(&deployment, 14 * DAY + 120);
    let (_, mut app) = connect(&deployment).await;
    let refused = get(&mut app, "weekly", 0).await.expect_err("it is too old");
    assert_eq!(refused.reason, "KEY_STATE_FORBIDS");
    assert!(refused.message.contains("name version 2"), "{refused:?}");
    assert_eq!(get(&mut app, "weekly", 2).await.expect("gives").plaintext, given[0].plaintext);
    audit::verify(&deployment);
}
