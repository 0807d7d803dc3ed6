//! The end of keys: what is erased and proven, and that a crash on the way neither undoes nor forgets it.

use kms_core::suite::Suite;
use kms_proto::v1;
use kms_tests::{Deployment, Module, Options, Refused, Rpc, audit};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Row};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// The steps that a destruction reaches and everyday work does not; the end of an import reaches them, too.
pub const STEPS: [&str; 4] =
    ["hsm.before-destroy", "hsm.after-destroy", "hsm.before-exists", "hsm.after-exists"];
/// More than the shortest window.
const WINDOW: u64 = 7 * 86_400 + 60;
/// How long a node may take to destroy what is due, once it is unsealed.
const DESTROYED_MAX: Duration = Duration::from_secs(30);

fn create(name: &str, spec: v1::KeySpec, protection: v1::Protection) -> v1::CreateKeyRequest {
    v1::CreateKeyRequest {
        name: name.into(),
        spec: spec.into(),
        protection: protection.into(),
        ..Default::default()
    }
}

async fn encrypt(app: &mut Rpc, key: &str) -> Vec<u8> {
    let request = v1::EncryptRequest { key: key.into(), plaintext: b"salary".to_vec(), ..Default::default() };
    app.crypto.encrypt(request).await.expect("encrypts").into_inner().ciphertext
}

async fn decrypt(app: &mut Rpc, ciphertext: &[u8]) -> Result<Vec<u8>, Refused> {
    let request = v1::DecryptRequest { ciphertext: ciphertext.to_vec(), ..Default::default() };
    app.crypto.decrypt(request).await.map(|answer| answer.into_inner().plaintext).map_err(Refused::from)
}

async fn rotate(admin: &mut Rpc, key: &str) {
    let request = v1::RotateKeyRequest { key: key.into(), ..Default::default() };
    admin.keys.rotate_key(request).await.expect("rotates");
}

async fn schedule(admin: &mut Rpc, key: &str) {
    let request = v1::ScheduleDestructionRequest { key: key.into(), window_days: 7 };
    admin.keys.schedule_destruction(request).await.expect("schedules");
}

async fn describe(admin: &mut Rpc, key: &str) -> v1::Key {
    let request = v1::DescribeKeyRequest { key: key.into() };
    admin.keys.describe_key(request).await.expect("describes").into_inner()
}

fn start_ahead(deployment: &Deployment, seconds: u64, armed: Option<&str>) -> Result<(), String> {
    let mut environment = vec![("KMS_CLOCK_AHEAD".into(), seconds.to_string().into())];
    environment.extend(armed.map(|step| ("KMS_CRASH_AT".into(), step.into())));
    deployment.try_start_with(&environment)
}

/// Waits until no key and no version is on its way to the end any more.
async fn wait_until_destroyed(admin: &mut Rpc, keys: &[&str]) {
    let end = Instant::now() + DESTROYED_MAX;
    for key in keys {
        loop {
            let described = describe(admin, key).await;
            let is_on_its_way =
                |state| matches!(state, v1::KeyState::DestroyPending | v1::KeyState::Destroying);
            if !is_on_its_way(described.state())
                && !described.versions.iter().any(|version| is_on_its_way(version.state()))
            {
                break;
            }
            assert!(Instant::now() < end, "{key} is not destroyed: {described:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Where the versions of a key keep their material: ids of objects, and sealed bytes.
async fn materials(deployment: &Deployment, key_id: &str) -> Vec<(Option<Vec<u8>>, Option<Vec<u8>>)> {
    let database = SqliteConnectOptions::new().filename(deployment.state("kms.db")).read_only(true);
    let mut database = database.connect().await.expect("the database can be read");
    let id = kms_core::id::KeyId::parse(key_id).expect("an id").0.to_vec();
    let sql = "SELECT hsm_object, wrapped FROM key_versions WHERE key_id = $1 ORDER BY version";
    let rows = sqlx::query(sql).bind(id).fetch_all(&mut database).await.expect("versions");
    database.close().await.expect("the database is closed");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn files_below(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files_below(&path, found) } else { found.push(path) }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_destroyed_is_gone_and_certified_on_the_simulator() {
    what_is_destroyed_is_gone(Options::default(), v1::KeySpec::Sm4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_destroyed_is_gone_and_certified_on_softhsm() {
    let options = Options { module: Module::SoftHsm, suite: Suite::Intl, ..Options::default() };
    what_is_destroyed_is_gone(options, v1::KeySpec::Aes256).await;
}

async fn what_is_destroyed_is_gone(options: Options, spec: v1::KeySpec) {
    let deployment = Deployment::start(options);
    let (mut admin, mut app) =
        (Rpc::connect(&deployment, "admin").await, Rpc::connect(&deployment, "app").await);
    let (resident, wrapped) = (v1::Protection::HsmResident, v1::Protection::HsmWrapped);
    let mut ciphertexts = Vec::new();
    for (name, protection) in [("whole-resident", resident), ("whole-wrapped", wrapped), ("stolen", wrapped)]
    {
        admin.keys.create_key(create(name, spec, protection)).await.expect("creates");
        ciphertexts.push(encrypt(&mut app, name).await);
        rotate(&mut admin, name).await;
        ciphertexts.push(encrypt(&mut app, name).await);
    }
    let mut kept = Vec::new();
    for (name, protection) in [("part-resident", resident), ("part-wrapped", wrapped)] {
        admin.keys.create_key(create(name, spec, protection)).await.expect("creates");
        ciphertexts.push(encrypt(&mut app, name).await);
        rotate(&mut admin, name).await;
        kept.push(encrypt(&mut app, name).await);
        schedule(&mut admin, &format!("{name}@1")).await;
    }
    admin.keys.create_key(create("saved", spec, wrapped)).await.expect("creates");
    kept.push(encrypt(&mut app, "saved").await);
    schedule(&mut admin, "saved").await;
    let compromise = v1::CompromiseKeyRequest { key: "stolen@1".into() };
    admin.keys.compromise_key(compromise).await.expect("marks it");
    // Of a compromised key one version goes; that it was compromised with its key goes with it.
    admin.keys.create_key(create("part-stolen", spec, wrapped)).await.expect("creates");
    ciphertexts.push(encrypt(&mut app, "part-stolen").await);
    rotate(&mut admin, "part-stolen").await;
    let compromise = v1::CompromiseKeyRequest { key: "part-stolen".into() };
    admin.keys.compromise_key(compromise).await.expect("marks it");
    schedule(&mut admin, "part-stolen@1").await;
    let doomed =
        ["part-stolen", "whole-resident", "whole-wrapped", "stolen", "part-resident", "part-wrapped"];
    for name in &doomed[1..4] {
        schedule(&mut admin, name).await;
    }
    for ciphertext in &ciphertexts {
        assert_eq!(
            decrypt(&mut app, ciphertext).await.expect_err("its use has ended").reason,
            "KEY_STATE_FORBIDS"
        );
    }
    let (mut objects, mut sealed) = (Vec::new(), Vec::new());
    for name in doomed {
        let key = describe(&mut admin, name).await;
        let of_key = materials(&deployment, &key.key_id).await;
        // Of some keys the second version stays.
        let gone = if name.starts_with("part-") { &of_key[..1] } else { &of_key[..] };
        objects.extend(gone.iter().filter_map(|(object, _)| object.clone()));
        sealed.extend(gone.iter().filter_map(|(_, wrapped)| wrapped.clone()));
        let checks: Vec<_> = key.versions.iter().map(|version| version.check_value.len()).collect();
        assert_eq!(checks, [3, 3], "{name}: its versions have check values");
    }
    assert_eq!((objects.len(), sealed.len()), (3, 6));
    let tokens = deployment.state("tokens");
    deployment.terminate();
    let object_count = {
        let mut files = Vec::new();
        files_below(&tokens, &mut files);
        files.len()
    };

    // Almost at the end of the window it can be cancelled, a minute later not.
    start_ahead(&deployment, WINDOW - 120, None).expect("starts before the end");
    let mut admin = Rpc::connect(&deployment, "admin").await;
    let cancel = |key: &str| v1::CancelDestructionRequest { key: key.into() };
    let saved = admin.keys.cancel_destruction(cancel("saved")).await.expect("in time").into_inner();
    assert_eq!(saved.state(), v1::KeyState::Suspended);
    let resume = v1::ResumeKeyRequest { key: "saved".into() };
    admin.keys.resume_key(resume).await.expect("resumes");
    deployment.terminate();
    start_ahead(&deployment, WINDOW, None).expect("starts after the end");
    let (mut admin, mut app) =
        (Rpc::connect(&deployment, "admin").await, Rpc::connect(&deployment, "app").await);
    let refused = admin.keys.cancel_destruction(cancel("whole-wrapped")).await.expect_err("too late");
    assert_eq!(Refused::from(refused).reason, "KEY_STATE_FORBIDS");
    wait_until_destroyed(&mut admin, &doomed).await;

    for ciphertext in &ciphertexts {
        assert_eq!(decrypt(&mut app, ciphertext).await.expect_err("destroyed").reason, "KEY_STATE_FORBIDS");
    }
    for ciphertext in &kept {
        assert_eq!(decrypt(&mut app, ciphertext).await.expect("it was kept"), b"salary");
    }
    let states = |key: &v1::Key| {
        let states: Vec<_> = key.versions.iter().map(|version| version.state()).collect();
        (key.state(), states)
    };
    use v1::KeyState::{Active, Compromised, Destroyed, DestroyedCompromised};
    for (name, expected) in [
        ("part-stolen", (Compromised, vec![DestroyedCompromised, Active])),
        ("whole-resident", (Destroyed, vec![Destroyed; 2])),
        ("whole-wrapped", (Destroyed, vec![Destroyed; 2])),
        ("stolen", (Destroyed, vec![DestroyedCompromised, Destroyed])),
        ("part-resident", (Active, vec![Destroyed, Active])),
        ("part-wrapped", (Active, vec![Destroyed, Active])),
    ] {
        assert_eq!(states(&describe(&mut admin, name).await), expected, "{name}");
    }
    let taken =
        admin.keys.create_key(create("whole-wrapped", spec, wrapped)).await.expect_err("its name stays");
    assert_eq!(Refused::from(taken).reason, "KEY_EXISTS");

    // The certificates are verified by somebody who has nothing but them and the bundle.
    let bundle = deployment.bundle_file();
    for name in doomed {
        let text = deployment.kms("auditor", &["key", "certificates", name]).done();
        let file = deployment.folder().join(format!("{name}.certificate"));
        fs::write(&file, &text).expect("written");
        let verify = |bundle: &Path| {
            let arguments = ["key", "verify-certificate", "--output", "json"].map(std::ffi::OsStr::new);
            let rest = [file.as_os_str(), std::ffi::OsStr::new("--bundle"), bundle.as_os_str()];
            deployment.kms("auditor", &[&arguments[..], &rest[..]].concat())
        };
        let shown = verify(&bundle).json();
        let [certificate] = shown["certificates"].as_array().expect("a list").as_slice() else {
            panic!("one destruction has one certificate: {shown}");
        };
        assert_eq!(certificate["name"], name);
        assert_eq!(certificate["whole_key"], !name.starts_with("part-"));
        assert_eq!(certificate["asked_by"], "kms://default/administrator/admin");
        let count = if name.starts_with("part-") { 1 } else { 2 };
        assert_eq!(certificate["versions"].as_array().expect("versions").len(), count);
        let damaged = text.replace('A', "B");
        assert_ne!(damaged, text);
        fs::write(&file, damaged).expect("written");
        verify(&bundle).ended_with(4);
    }
    let entries = audit::records_from(&deployment, 0).await;
    let erased: Vec<_> = entries.iter().filter(|entry| entry.record.event == "key.erase").collect();
    assert_eq!(erased.len(), doomed.len());
    assert!(erased.iter().all(|entry| entry.record.evidence.is_some()), "the certificates are in the log");
    audit::verify(&deployment);

    // With the database closed, none of the sealed bytes is in any of its files, nor any object in the token.
    deployment.terminate();
    for bytes in &sealed {
        let files = fs::read_dir(deployment.state("")).expect("the state folder");
        for file in files.map(|file| file.expect("an entry").path()).filter(|path| path.is_file()) {
            let content = fs::read(&file).expect("a file");
            let is_there = content.windows(bytes.len()).any(|window| window == bytes.as_slice());
            assert!(!is_there, "{} still holds sealed material", file.display());
        }
    }
    let mut files = Vec::new();
    files_below(&tokens, &mut files);
    assert!(files.len() <= object_count - objects.len(), "each object is a file, of either module");
}

/// Each round: keys whose window has ended, a server that kills itself somewhere on the way, and another start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destruction_that_is_killed_at_any_step_is_finished_by_the_next_start() {
    let deployment = Deployment::start(Options::default());
    let commits = ["commit.head-locked", "commit.segment-written", "commit.committed"];
    // The first batches are the unseal's; each destruction takes two more.
    let commit_steps = commits.iter().flat_map(|step| (2..=7).map(move |count| format!("{step}:{count}")));
    let steps = STEPS.iter().flat_map(|step| (1..=2).map(move |count| format!("{step}:{count}")));
    let mut ahead = 0;
    let mut killed_count = 0;
    for (round, armed) in steps.chain(commit_steps).enumerate() {
        let (mut admin, mut app) =
            (Rpc::connect(&deployment, "admin").await, Rpc::connect(&deployment, "app").await);
        let names = [format!("round-{round}-resident"), format!("round-{round}-wrapped")];
        let mut ciphertexts = Vec::new();
        for (name, protection) in names.iter().zip([v1::Protection::HsmResident, v1::Protection::HsmWrapped])
        {
            admin.keys.create_key(create(name, v1::KeySpec::Sm4, protection)).await.expect("creates");
            rotate(&mut admin, name).await;
            ciphertexts.push(encrypt(&mut app, name).await);
            schedule(&mut admin, name).await;
        }
        deployment.terminate();
        ahead += WINDOW;
        let is_up = start_ahead(&deployment, ahead, Some(&armed)).is_ok();
        let ended = if is_up { deployment.wait_until_ended(Duration::from_secs(6)) } else { None };
        killed_count += usize::from(!is_up || ended.is_some());
        if is_up && ended.is_none() {
            deployment.terminate();
        }
        start_ahead(&deployment, ahead, None).expect("starts again");
        let (mut admin, mut app) =
            (Rpc::connect(&deployment, "admin").await, Rpc::connect(&deployment, "app").await);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        wait_until_destroyed(&mut admin, &names).await;
        for (name, ciphertext) in names.iter().zip(&ciphertexts) {
            let key = describe(&mut admin, name).await;
            assert_eq!(key.state(), v1::KeyState::Destroyed, "{armed}: {key:?}");
            assert!(materials(&deployment, &key.key_id).await.iter().all(|one| *one == (None, None)));
            let request = v1::GetDestructionCertificatesRequest { key: (*name).into(), ..Default::default() };
            let found =
                admin.keys.get_destruction_certificates(request).await.expect("certified").into_inner();
            assert_eq!(found.certificates.len(), 1, "{armed}: one destruction, one certificate");
            assert_eq!(
                decrypt(&mut app, ciphertext).await.expect_err("destroyed").reason,
                "KEY_STATE_FORBIDS"
            );
        }
    }
    assert!(killed_count >= 20, "the steps are reached: {killed_count}");
    let entries = audit::records_from(&deployment, 0).await;
    let events = |event: &str| entries.iter().filter(|entry| entry.record.event == event).count();
    assert_eq!(events("key.erase"), events("key.schedule_destruction"), "each ends once");
    audit::verify(&deployment);
}
