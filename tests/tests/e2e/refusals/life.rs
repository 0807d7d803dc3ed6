//! The life of a key: what each state allows, what each command does, and what dates do by themselves.

use super::{Expected, admin, app, deployment, make_key};
use kms_proto::v1;
use kms_tests::{Refused, Rpc, audit};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tonic::{Response, Status};

/// The commands that a client can give, as docs/key-states.md names them.
const COMMANDS: [&str; 9] =
    ["activate", "suspend", "resume", "deactivate", "archive", "recover", "compromise", "schedule", "cancel"];
/// How each state is reached from a new key.
const WAYS: [(&str, &[&str]); 7] = [
    ("PRE_ACTIVE", &[]),
    ("ACTIVE", &["activate"]),
    ("SUSPENDED", &["activate", "suspend"]),
    ("DEACTIVATED", &["activate", "deactivate"]),
    ("ARCHIVED", &["activate", "deactivate", "archive"]),
    ("COMPROMISED", &["activate", "compromise"]),
    ("DESTROY_PENDING", &["activate", "schedule"]),
];

async fn command(rpc: &mut Rpc, command: &str, key: &str) -> Result<Response<v1::Key>, Status> {
    let key = key.to_owned();
    match command {
        "activate" => rpc.keys.activate_key(v1::ActivateKeyRequest { key }).await,
        "suspend" => rpc.keys.suspend_key(v1::SuspendKeyRequest { key }).await,
        "resume" => rpc.keys.resume_key(v1::ResumeKeyRequest { key }).await,
        "deactivate" => rpc.keys.deactivate_key(v1::DeactivateKeyRequest { key }).await,
        "archive" => rpc.keys.archive_key(v1::ArchiveKeyRequest { key }).await,
        "recover" => rpc.keys.recover_key(v1::RecoverKeyRequest { key }).await,
        "compromise" => rpc.keys.compromise_key(v1::CompromiseKeyRequest { key }).await,
        "schedule" => {
            rpc.keys.schedule_destruction(v1::ScheduleDestructionRequest { key, window_days: 7 }).await
        }
        "cancel" => rpc.keys.cancel_destruction(v1::CancelDestructionRequest { key }).await,
        other => panic!("there is no command {other}"),
    }
}

/// Rows of the document's tables: the state, and the cells after it.
fn table(heading: &str) -> Vec<(String, Vec<String>)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/key-states.md");
    let text = std::fs::read_to_string(path).expect("docs/key-states.md");
    let after = text.split_once(heading).expect("the table is there").1;
    let rows = after.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells = row.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`').to_owned());
        let mut cells: Vec<String> = cells.collect();
        let state = cells.remove(0).split('`').next().expect("a state").to_owned();
        (state, cells)
    })
    .collect()
}

fn proto_state(name: &str) -> v1::KeyState {
    v1::KeyState::from_str_name(&format!("KEY_STATE_{name}")).expect("a state of the proto")
}

fn after_now(later: Duration) -> prost_types::Timestamp {
    let time = (SystemTime::now() + later).duration_since(UNIX_EPOCH).expect("after 1970");
    prost_types::Timestamp { seconds: time.as_secs() as i64, nanos: time.subsec_nanos() as i32 }
}

fn create(name: &str, protection: v1::Protection) -> v1::CreateKeyRequest {
    v1::CreateKeyRequest {
        name: name.to_owned(),
        spec: v1::KeySpec::Sm4.into(),
        protection: protection.into(),
        ..Default::default()
    }
}

fn encrypt(key: &str) -> v1::EncryptRequest {
    v1::EncryptRequest { key: key.to_owned(), plaintext: b"salary".to_vec(), ..Default::default() }
}

fn decrypt(ciphertext: &[u8]) -> v1::DecryptRequest {
    v1::DecryptRequest { ciphertext: ciphertext.to_vec(), ..Default::default() }
}

/// A key in a state, and a ciphertext of it where it has ever encrypted.
async fn key_in(state: &str, name: &str, protection: v1::Protection) -> Option<Vec<u8>> {
    let (mut rpc, mut app) = (admin().await, app().await);
    let request = v1::CreateKeyRequest {
        activates: Some(after_now(Duration::from_secs(3_600))),
        ..create(name, protection)
    };
    rpc.keys.create_key(request).await.expect("creates");
    let (_, way) = WAYS.into_iter().find(|(reached, _)| *reached == state).expect("a way to the state");
    let mut ciphertext = None;
    for step in way {
        let key = command(&mut rpc, step, name).await.expect("a step of the way").into_inner();
        if key.state() == v1::KeyState::Active {
            let answer = app.crypto.encrypt(encrypt(name)).await.expect("an active key encrypts");
            ciphertext = Some(answer.into_inner().ciphertext);
        }
    }
    ciphertext
}

#[tokio::test]
async fn every_command_does_in_every_state_what_the_document_says() {
    let (mut rpc, mut expected) = (admin().await, Expected::default());
    let table = table("| state | complete | activate | suspend | resume | deactivate | archive | recover | ");
    // The others are CREATING and the three that only time leads to.
    assert_eq!(table.len(), WAYS.len() + 4, "every state that a client can bring about has a way");
    for (number, (state, _)) in WAYS.into_iter().enumerate() {
        let (_, cells) = table.iter().find(|(row, _)| row == state).expect("a row of every state");
        for (column, verb) in COMMANDS.into_iter().enumerate() {
            let name = format!("table-{number}-{verb}");
            key_in(state, &name, v1::Protection::HsmWrapped).await;
            let answer = command(&mut rpc, verb, &name).await;
            match cells[column + 1].as_str() {
                "-" => expected.refusal(answer, "KEY_STATE_FORBIDS", None),
                to => assert_eq!(
                    answer.expect("allowed").into_inner().state(),
                    proto_state(to),
                    "{state} {verb}"
                ),
            }
        }
    }
    expected.are_all_recorded().await;
}

#[tokio::test]
async fn a_key_encrypts_and_decrypts_in_the_states_of_the_document_and_rotates_when_active() {
    let (mut rpc, mut app, mut expected) = (admin().await, app().await, Expected::default());
    let table = table("| state | encrypts | decrypts | entered by |");
    for (kind, protection) in
        [("resident", v1::Protection::HsmResident), ("wrapped", v1::Protection::HsmWrapped)]
    {
        for (state, _) in WAYS {
            let name = format!("use-{kind}-{}", state.to_lowercase());
            let ciphertext = key_in(state, &name, protection).await;
            let (_, cells) = table.iter().find(|(row, _)| row == state).expect("a row of every state");
            let may_encrypt = cells[0] == "yes";
            let generate = v1::GenerateDataKeyRequest { key: name.clone(), ..Default::default() };
            let rotate = v1::RotateKeyRequest { key: name.clone(), ..Default::default() };
            let described = v1::DescribeKeyRequest { key: name.clone() };
            let described = rpc.keys.describe_key(described).await.expect("describes").into_inner();
            assert_eq!(described.state(), proto_state(state));
            if let Some(ciphertext) = &ciphertext {
                let answer = app.crypto.decrypt(decrypt(ciphertext)).await;
                match cells[1].as_str() {
                    "yes" => assert_eq!(answer.expect("decrypts").into_inner().plaintext, b"salary"),
                    _ => expected.refusal(answer, "KEY_STATE_FORBIDS", None),
                }
            }
            if may_encrypt {
                app.crypto.encrypt(encrypt(&name)).await.expect("encrypts");
                app.crypto.generate_data_key(generate).await.expect("generates");
                rpc.keys.rotate_key(rotate).await.expect("rotates");
            } else {
                expected.refusal(app.crypto.encrypt(encrypt(&name)).await, "KEY_STATE_FORBIDS", None);
                expected.refusal(app.crypto.generate_data_key(generate).await, "KEY_STATE_FORBIDS", None);
                expected.refusal(rpc.keys.rotate_key(rotate).await, "KEY_STATE_FORBIDS", None);
            }
        }
    }
    expected.are_all_recorded().await;
}

#[tokio::test]
async fn a_key_is_used_between_its_dates_and_its_row_follows() {
    let (mut rpc, mut app, mut expected) = (admin().await, app().await, Expected::default());
    let start = SystemTime::now();
    let request = v1::CreateKeyRequest {
        activates: Some(after_now(Duration::from_secs(5))),
        expires: Some(after_now(Duration::from_secs(10))),
        idempotency_token: "dated".into(),
        ..create("dated", v1::Protection::HsmResident)
    };
    let created = rpc.keys.create_key(request.clone()).await.expect("creates").into_inner();
    assert_eq!(created.state(), v1::KeyState::PreActive);
    assert_eq!((created.activates.is_some(), created.expires.is_some()), (true, true));
    expected.refusal(app.crypto.encrypt(encrypt("dated")).await, "KEY_STATE_FORBIDS", None);
    let until = async |seconds: u64| {
        let left = start + Duration::from_secs(seconds);
        tokio::time::sleep(left.duration_since(SystemTime::now()).unwrap_or_default()).await;
    };
    // The dates count at once: no row needs to be written for it.
    until(5).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let ciphertext =
        app.crypto.encrypt(encrypt("dated")).await.expect("its date has come").into_inner().ciphertext;
    until(10).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    expected.refusal(app.crypto.encrypt(encrypt("dated")).await, "KEY_STATE_FORBIDS", None);
    let opened = app.crypto.decrypt(decrypt(&ciphertext)).await.expect("an expired key decrypts");
    assert_eq!(opened.into_inner().plaintext, b"salary");
    let described = rpc.keys.describe_key(v1::DescribeKeyRequest { key: "dated".into() }).await;
    assert_eq!(described.expect("describes").into_inner().state(), v1::KeyState::Deactivated);
    let repeated = rpc.keys.create_key(request).await.expect("the same request, though its dates have come");
    assert_eq!(repeated.into_inner().key_id, created.key_id);
    let rotate = v1::RotateKeyRequest { key: "dated".into(), ..Default::default() };
    expected.refusal(rpc.keys.rotate_key(rotate).await, "KEY_STATE_FORBIDS", None);

    // Beside what its dates do, the node counts what a resident key encrypts.
    let is_of_key = |entry: &&kms_tests::LogEntry| {
        let record = &entry.record;
        entry.detail("name") == Some("dated") && record.actor == "node" && record.event != "key.encryptions"
    };
    let deadline = SystemTime::now() + Duration::from_secs(20);
    loop {
        let entries = audit::records_from(deployment(), 0).await;
        let events: Vec<&str> =
            entries.iter().filter(is_of_key).map(|entry| entry.record.event.as_str()).collect();
        if events == ["key.activate", "key.deactivate"] {
            break;
        }
        assert!(SystemTime::now() < deadline, "the node has written {events:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    expected.are_all_recorded().await;
}

#[tokio::test]
async fn a_suspended_key_does_not_decrypt_because_it_expires() {
    let (mut rpc, mut app, mut expected) = (admin().await, app().await, Expected::default());
    let expires = Some(after_now(Duration::from_secs(5)));
    let request = v1::CreateKeyRequest { expires, ..create("late-to-expire", v1::Protection::HsmWrapped) };
    rpc.keys.create_key(request).await.expect("creates");
    let ciphertext =
        app.crypto.encrypt(encrypt("late-to-expire")).await.expect("encrypts").into_inner().ciphertext;
    command(&mut rpc, "suspend", "late-to-expire").await.expect("suspends");
    tokio::time::sleep(Duration::from_millis(5_100)).await;
    expected.refusal(app.crypto.decrypt(decrypt(&ciphertext)).await, "KEY_STATE_FORBIDS", None);
    let resumed = command(&mut rpc, "resume", "late-to-expire").await.expect("resumes").into_inner();
    assert_eq!(resumed.state(), v1::KeyState::Deactivated, "its time has passed meanwhile");
    expected.refusal(app.crypto.encrypt(encrypt("late-to-expire")).await, "KEY_STATE_FORBIDS", None);
    app.crypto.decrypt(decrypt(&ciphertext)).await.expect("decrypts");
    expected.are_all_recorded().await;
}

#[tokio::test]
async fn dates_in_the_past_or_out_of_order_are_refused() {
    let (mut rpc, mut expected) = (admin().await, Expected::default());
    let soon = after_now(Duration::from_secs(60));
    let at = |seconds, nanos| Some(prost_types::Timestamp { seconds, nanos });
    for (field, activates, expires) in [
        ("activates", at(1_000, 0), None),
        ("activates", at(-5, 0), None),
        ("activates", at(253_402_300_800, 0), None),
        ("activates", at(i64::MAX, 999_999_999), None),
        ("activates", at(soon.seconds, -1), None),
        ("activates", at(soon.seconds, 1_000_000_000), None),
        ("expires", None, at(1_000, 0)),
        ("expires", None, at(i64::MAX, 0)),
        ("expires", at(soon.seconds, 0), at(soon.seconds, 0)),
        ("expires", at(soon.seconds + 10, 0), at(soon.seconds, 0)),
    ] {
        let request =
            v1::CreateKeyRequest { activates, expires, ..create("misdated", v1::Protection::Unspecified) };
        expected.refusal(rpc.keys.create_key(request).await, "FIELD_INVALID", Some(field));
    }
    let missing = v1::DescribeKeyRequest { key: "misdated".into() };
    expected.refusal(rpc.keys.describe_key(missing).await, "KEY_NOT_FOUND", None);
    expected.are_all_recorded().await;
}

#[tokio::test]
async fn a_token_with_other_dates_is_a_conflict_and_a_compromise_takes_effect_on_a_cached_key() {
    let (mut rpc, mut app, mut expected) = (admin().await, app().await, Expected::default());
    let request = v1::CreateKeyRequest {
        idempotency_token: "dated-once".into(),
        expires: Some(after_now(Duration::from_secs(600))),
        ..create("dated-once", v1::Protection::Unspecified)
    };
    rpc.keys.create_key(request.clone()).await.expect("creates");
    let other = v1::CreateKeyRequest { expires: Some(after_now(Duration::from_secs(700))), ..request };
    expected.refusal(rpc.keys.create_key(other).await, "IDEMPOTENCY_CONFLICT", Some("idempotency_token"));

    make_key("stolen", v1::Protection::HsmWrapped).await;
    let ciphertext = app.crypto.encrypt(encrypt("stolen")).await.expect("encrypts").into_inner().ciphertext;
    command(&mut rpc, "compromise", "stolen").await.expect("marks it");
    let refused = Refused::from(app.crypto.decrypt(decrypt(&ciphertext)).await.expect_err("refused"));
    assert!(refused.message.contains("COMPROMISED"), "{refused:?}");
    expected.are_all_recorded().await;
}

fn schedule(key: &str, window_days: u32) -> v1::ScheduleDestructionRequest {
    v1::ScheduleDestructionRequest { key: key.into(), window_days }
}

#[tokio::test]
async fn a_window_has_7_to_30_days_and_30_when_none_is_named() {
    let (mut rpc, mut expected) = (admin().await, Expected::default());
    make_key("windowed", v1::Protection::HsmWrapped).await;
    for days in [1, 6, 31, u32::MAX] {
        let answer = rpc.keys.schedule_destruction(schedule("windowed", days)).await;
        expected.refusal(answer, "FIELD_INVALID", Some("window_days"));
    }
    for (asked, days) in [(0, 30), (7, 7), (30, 30)] {
        let key = rpc.keys.schedule_destruction(schedule("windowed", asked)).await.expect("schedules");
        let destruction = key.into_inner().destruction.expect("a destruction");
        assert_eq!(destruction.asked_by, "kms://default/administrator/admin");
        let (time, asked) = (destruction.time.expect("a time"), destruction.asked.expect("a time"));
        assert!((days * 86_400 - 5..=days * 86_400).contains(&(time.seconds - asked.seconds)), "{time:?}");
        let cancelled = command(&mut rpc, "cancel", "windowed").await.expect("cancels").into_inner();
        assert_eq!(cancelled.destruction, None);
        command(&mut rpc, "resume", "windowed").await.ok();
    }
    expected.refusal(command(&mut rpc, "cancel", "windowed").await, "KEY_STATE_FORBIDS", None);
    let certificates = v1::GetDestructionCertificatesRequest { key: "windowed".into(), ..Default::default() };
    expected.refusal(rpc.keys.get_destruction_certificates(certificates).await, "KEY_STATE_FORBIDS", None);
    expected.are_all_recorded().await;
}

#[tokio::test]
async fn a_command_to_one_version_changes_that_version_alone() {
    let (mut rpc, mut app, mut expected) = (admin().await, app().await, Expected::default());
    for (name, protection) in
        [("versions-resident", v1::Protection::HsmResident), ("versions-wrapped", v1::Protection::HsmWrapped)]
    {
        make_key(name, protection).await;
        let first = app.crypto.encrypt(encrypt(name)).await.expect("encrypts").into_inner().ciphertext;
        let rotate = v1::RotateKeyRequest { key: name.into(), ..Default::default() };
        rpc.keys.rotate_key(rotate.clone()).await.expect("rotates");
        let second = app.crypto.encrypt(encrypt(name)).await.expect("encrypts").into_inner().ciphertext;
        let (one, two) = (format!("{name}@1"), format!("{name}@2"));

        // The old version goes; the current one does not notice.
        let key = command(&mut rpc, "compromise", &one).await.expect("marks it").into_inner();
        let states: Vec<_> = key.versions.iter().map(|version| version.state()).collect();
        assert_eq!(key.state(), v1::KeyState::Active);
        assert_eq!(states, [v1::KeyState::Compromised, v1::KeyState::Active]);
        expected.refusal(app.crypto.decrypt(decrypt(&first)).await, "KEY_STATE_FORBIDS", None);
        app.crypto.decrypt(decrypt(&second)).await.expect("the other version decrypts");
        app.crypto.encrypt(encrypt(name)).await.expect("the key encrypts");

        // The current one stops: nothing encrypts until there is another, and it comes back to decrypt only.
        command(&mut rpc, "suspend", &two).await.expect("suspends");
        expected.refusal(app.crypto.encrypt(encrypt(name)).await, "KEY_STATE_FORBIDS", None);
        rpc.keys.rotate_key(rotate).await.expect("rotates");
        app.crypto.encrypt(encrypt(name)).await.expect("the new version encrypts");
        expected.refusal(app.crypto.decrypt(decrypt(&second)).await, "KEY_STATE_FORBIDS", None);
        let key = command(&mut rpc, "resume", &two).await.expect("resumes").into_inner();
        assert_eq!(key.versions[1].state(), v1::KeyState::Deactivated, "version 3 has taken over");
        app.crypto.decrypt(decrypt(&second)).await.expect("decrypts again");
        expected.refusal(app.crypto.encrypt(encrypt(&two)).await, "KEY_STATE_FORBIDS", None);

        let key = rpc.keys.schedule_destruction(schedule(&two, 7)).await.expect("schedules").into_inner();
        assert_eq!(key.versions[1].state(), v1::KeyState::DestroyPending);
        assert!(key.destruction.is_none() && key.versions[1].destruction.is_some());
        expected.refusal(app.crypto.decrypt(decrypt(&second)).await, "KEY_STATE_FORBIDS", None);
        let key = command(&mut rpc, "cancel", &two).await.expect("cancels").into_inner();
        assert_eq!(key.versions[1].state(), v1::KeyState::Deactivated, "as before");
        app.crypto.decrypt(decrypt(&second)).await.expect("decrypts again");

        for verb in ["activate", "deactivate"] {
            expected.refusal(command(&mut rpc, verb, &one).await, "FIELD_INVALID", Some("key"));
        }
        let missing = command(&mut rpc, "suspend", &format!("{name}@9")).await;
        expected.refusal(missing, "KEY_VERSION_NOT_FOUND", None);
    }
    expected.are_all_recorded().await;
}

#[tokio::test]
async fn the_usage_of_a_key_counts_what_was_done_with_each_version() {
    let (mut rpc, mut app, mut expected) = (admin().await, app().await, Expected::default());
    make_key("counted", v1::Protection::HsmWrapped).await;
    make_key("counted-not", v1::Protection::HsmWrapped).await;
    let usage = |key: &str| v1::GetUsageReportRequest { key: key.into() };
    let unused = rpc.keys.get_usage_report(usage("counted")).await.expect("answers").into_inner();
    assert_eq!((unused.name.as_str(), unused.versions.len()), ("counted", 0));
    let generate = v1::GenerateDataKeyRequest { key: "counted".into(), ..Default::default() };
    let data_key = app.crypto.generate_data_key(generate.clone()).await.expect("generates").into_inner();
    app.crypto.generate_data_key(generate.clone()).await.expect("generates");
    app.crypto.encrypt(encrypt("counted-not")).await.expect("encrypts");
    let rotate = v1::RotateKeyRequest { key: "counted".into(), ..Default::default() };
    rpc.keys.rotate_key(rotate).await.expect("rotates");
    let ciphertext = app.crypto.encrypt(encrypt("counted")).await.expect("encrypts").into_inner().ciphertext;
    app.crypto.decrypt(decrypt(&ciphertext)).await.expect("decrypts");
    let open = |ciphertext: Vec<u8>| v1::DecryptDataKeyRequest { ciphertext, ..Default::default() };
    app.crypto.decrypt_data_key(open(data_key.ciphertext)).await.expect("decrypts");
    // What was refused is no use.
    command(&mut rpc, "suspend", "counted").await.expect("suspends");
    expected.refusal(app.crypto.generate_data_key(generate).await, "KEY_STATE_FORBIDS", None);

    let used = rpc.keys.get_usage_report(usage("counted")).await.expect("answers").into_inner();
    let counts: Vec<_> = used
        .versions
        .iter()
        .map(|one| (one.version, one.data_keys, one.encryptions, one.decryptions, one.last_used_by.as_str()))
        .collect();
    let by = "kms://default/operator/app";
    assert_eq!(counts, [(1, 2, 0, 1, by), (2, 0, 1, 1, by)]);
    assert!(
        used.versions[0].last_used.expect("a time").seconds
            >= used.versions[1].last_used.expect("a time").seconds
    );
    expected.refusal(app.keys.get_usage_report(usage("counted")).await, "NOT_PERMITTED", None);
    expected.refusal(rpc.keys.get_usage_report(usage("nobody")).await, "KEY_NOT_FOUND", None);
    expected.are_all_recorded().await;
}
