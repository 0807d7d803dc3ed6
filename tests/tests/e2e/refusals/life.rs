//! The life of a key: what each state allows, what each command does, and what dates do by themselves.

use super::{Expected, admin, app, deployment, make_key};
use kms_proto::v1;
use kms_tests::{Refused, Rpc, audit};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tonic::{Response, Status};

/// The commands that a client can give, as docs/key-states.md names them.
const COMMANDS: [&str; 7] =
    ["activate", "suspend", "resume", "deactivate", "archive", "recover", "compromise"];
/// How each state is reached from a new key.
const WAYS: [(&str, &[&str]); 6] = [
    ("PRE_ACTIVE", &[]),
    ("ACTIVE", &["activate"]),
    ("SUSPENDED", &["activate", "suspend"]),
    ("DEACTIVATED", &["activate", "deactivate"]),
    ("ARCHIVED", &["activate", "deactivate", "archive"]),
    ("COMPROMISED", &["activate", "compromise"]),
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
    let heading =
        "| state | complete | activate | suspend | resume | deactivate | archive | recover | compromise |";
    let table = table(heading);
    assert_eq!(table.len(), 1 + WAYS.len(), "CREATING and every state that a client can bring about");
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

    let is_of_key =
        |entry: &&kms_tests::LogEntry| entry.detail("name") == Some("dated") && entry.record.actor == "node";
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
