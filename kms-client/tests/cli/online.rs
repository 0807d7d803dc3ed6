//! Client library and `kms` command against a service over mutual TLS.

use crate::support::service::{KEY_ID, Service, refusal};
use kms_client::audit::RecordQuery;
use kms_client::{Client, ClientError, CreateKey, IdempotencyToken, Profile};
use kms_core::context::EncryptionContext;
use kms_core::id::{KeyName, KeyRef};
use kms_core::merkle::is_included;
use kms_core::reason::Reason;
use kms_core::spec::KeySpec;
use kms_core::suite::{Digest32, Suite};
use kms_proto::v1;
use serde_json::{Value, json};
use std::fs;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;
use tonic::{Code, Status};

const DEADLINE: Duration = Duration::from_secs(10);

pub struct Setup {
    pub folder: TempDir,
    pub service: Service,
}

pub fn setup() -> Setup {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let service = Service::start(folder.path(), Suite::Intl);
    Setup { folder, service }
}

impl Setup {
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kms"));
        command.args(arguments).current_dir(self.folder.path()).env("KMS_PROFILE", "profile.toml");
        command
    }

    /// Exit code, standard output, standard error.
    pub fn kms(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.command(arguments).output().expect("the command starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        let (code, out, err) = self.kms(&[arguments, &["--output", "json"]].concat());
        assert_eq!((code, err.as_str()), (0, ""));
        serde_json::from_str(&out).expect("JSON")
    }

    pub fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.folder.path().join(name), content).expect("writes");
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.folder.path().join(name)).expect("reads")
    }

    pub fn exists(&self, name: &str) -> bool {
        self.folder.path().join(name).exists()
    }

    pub fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.folder.path().join(name)).expect("a file").permissions().mode() & 0o777
    }

    /// Runs a client in a runtime of its own.
    pub fn client<T, F: Future<Output = T>>(&self, deadline: Duration, work: impl FnOnce(Client) -> F) -> T {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let profile = Profile::load(&self.folder.path().join("profile.toml")).expect("the profile loads");
            work(Client::builder(&profile).deadline(deadline).connect().await.expect("connects")).await
        })
    }
}

fn payroll() -> KeyRef {
    KeyRef::parse("payroll").expect("a valid name")
}

fn busy() -> Status {
    refusal(Code::ResourceExhausted, Reason::Overloaded, "too many calls")
}

#[test]
fn a_busy_service_is_asked_again_and_at_most_three_times() {
    let setup = setup();
    setup.service.refuse([busy(), refusal(Code::Aborted, Reason::Contention, "again")]);
    let described = setup.client(DEADLINE, async |client| client.describe_key(&payroll()).await);
    assert_eq!(described.expect("the third try succeeds").id.to_string(), KEY_ID);
    setup.service.refuse([busy(), busy(), busy(), busy()]);
    let refused = setup.client(DEADLINE, async |client| client.describe_key(&payroll()).await);
    assert_eq!(refused.expect_err("three refusals").reason(), Some(Reason::Overloaded));
    assert_eq!(setup.service.script().calls.len(), 6);
    assert_eq!(setup.service.script().refusals.len(), 1);
}

#[test]
fn all_tries_of_a_creation_carry_the_same_token_and_two_creations_do_not() {
    let setup = setup();
    setup.service.refuse([busy()]);
    let name = KeyName::parse("payroll").expect("a valid name");
    let create = CreateKey::new(name, KeySpec::Sm4);
    setup.client(DEADLINE, async |client| {
        client.create_key(&create, &IdempotencyToken::generate()).await.expect("creates");
        client.create_key(&create, &IdempotencyToken::generate()).await.expect("creates");
    });
    let tokens = setup.service.script().tokens.clone();
    assert_eq!(tokens.len(), 3);
    assert_eq!(tokens[0], tokens[1]);
    assert_ne!(tokens[1], tokens[2]);
}

#[test]
fn a_call_without_a_token_that_changes_state_is_not_sent_twice() {
    let setup = setup();
    setup.service.refuse([busy(), busy(), busy()]);
    setup.client(DEADLINE, async |client| {
        assert!(client.suspend_key(&payroll()).await.is_err());
        assert!(client.resume_key(&payroll()).await.is_err());
        assert!(client.seal().await.is_err());
    });
    assert_eq!(setup.service.script().calls, ["suspend_key", "resume_key", "seal"]);
}

#[test]
fn every_change_of_state_has_a_command_and_shows_what_became_of_the_key() {
    let setup = setup();
    for (verb, state) in [
        ("activate", "ACTIVE"),
        ("suspend", "SUSPENDED"),
        ("resume", "ACTIVE"),
        ("deactivate", "DEACTIVATED"),
        ("archive", "ARCHIVED"),
        ("recover", "DEACTIVATED"),
        ("compromise", "COMPROMISED"),
        ("schedule-destruction", "DESTROY_PENDING"),
        ("cancel-destruction", "SUSPENDED"),
    ] {
        let key = setup.json(&["key", verb, "payroll"]);
        assert_eq!((&key["state"], &key["name"]), (&state.into(), &"payroll".into()));
        assert_eq!((&key["activates"], &key["expires"]), (&Value::Null, &"2030-01-23T11:46:40Z".into()));
        let call = if verb.contains('-') { verb.replace('-', "_") } else { format!("{verb}_key") };
        assert_eq!(setup.service.script().calls.last().copied(), Some(call.as_str()));
    }
}

#[test]
fn a_destruction_shows_when_it_can_no_longer_be_cancelled_and_who_asked() {
    let setup = setup();
    let key = setup.json(&["key", "schedule-destruction", "payroll", "--window-days", "7"]);
    assert_eq!(
        key["destruction"],
        serde_json::json!({
            "state_before": "ACTIVE",
            "time": "2026-11-25T11:06:40Z",
            "asked": "2026-11-18T11:06:40Z",
            "asked_by": "kms://default/administrator/admin",
        })
    );
    assert_eq!(key["versions"][0]["check_value"], "c1c2c3");
    let (_, text, _) = setup.kms(&["key", "schedule-destruction", "payroll"]);
    assert!(text.contains("can be cancelled until 2026-12-18T11:06:40Z; asked for"), "{text}");
    for days in ["6", "31", "-1", "soon"] {
        let (code, _, _) = setup.kms(&["key", "schedule-destruction", "payroll", "--window-days", days]);
        assert_eq!(code, 64, "{days}");
    }
}

#[test]
fn the_use_of_a_key_is_shown_by_version() {
    let setup = setup();
    let used = setup.json(&["key", "usage", "payroll"]);
    assert_eq!(
        used,
        serde_json::json!({ "versions": [{
            "version": 2,
            "data_keys": 7,
            "registered_data_keys": 4,
            "encryptions": 5,
            "decryptions": 3,
            "macs": 2,
            "mac_verifications": 1,
            "signatures": 0,
            "signature_verifications": 0,
            "last_used": "2026-11-18T11:06:40Z",
            "last_used_by": "kms://default/operator/app",
        }]})
    );
}

#[test]
fn a_signature_is_made_and_verified_over_the_same_input_and_options() {
    let setup = setup();
    setup.write("contract", b"we agree");
    let made = setup.json(&["sign", "--key", "payroll", "--user-id", "alice", "contract"]);
    assert_eq!((&made["key_version"], &made["algorithm"]), (&2.into(), &"ed25519".into()));
    let signature = made["signature"].as_str().expect("base64");
    let verify = |more: &[&str]| {
        setup.kms(&[&["verify", "--key", "payroll", "--signature", signature], more, &["contract"]].concat())
    };
    assert_eq!(verify(&["--user-id", "alice"]).0, 0);
    let (code, _, err) = verify(&["--user-id", "bob"]);
    assert_eq!(code, 4);
    assert!(err.contains("KEY_SIGNATURE_INVALID"), "{err}");
    assert_eq!(verify(&["--user-id", "alice", "--digest"]).0, 4);
    assert_eq!(verify(&["--algorithm", "md5"]).0, 64);
    let (code, _, _) = setup.kms(&["sign", "--key", "payroll", "--out", "contract.sig", "contract"]);
    assert_eq!((code, setup.read("contract.sig")), (0, b"we agree\x00".to_vec()));
    let again = setup.kms(&["verify", "--key", "payroll", "--signature-file", "contract.sig", "contract"]);
    assert_eq!(again.0, 0, "{}", again.2);
    setup.write("long", &[0; 64 * 1024 + 1]);
    let (code, _, err) = setup.kms(&["sign", "--key", "payroll", "long"]);
    assert_eq!(code, 3, "{err}");
}

#[test]
fn a_few_bytes_go_to_a_key_pair_and_come_back() {
    let setup = setup();
    setup.write("secret", b"7000");
    let made = setup.json(&["asymmetric", "encrypt", "--key", "payroll", "secret"]);
    assert_eq!((&made["key_version"], &made["ciphertext"]), (&2.into(), &"MDAwNw==".into()));
    let (code, _, _) = setup.kms(&["asymmetric", "encrypt", "--key", "payroll", "--out", "sealed", "secret"]);
    assert_eq!((code, setup.read("sealed")), (0, b"0007".to_vec()));
    let opened = setup.json(&["asymmetric", "decrypt", "--key", "payroll@2", "sealed"]);
    assert_eq!(opened["plaintext"], "NzAwMA==");
    let out = ["asymmetric", "decrypt", "--key", "payroll", "--out-plaintext", "opened", "sealed"];
    let (code, shown, _) = setup.kms(&out);
    assert_eq!((code, setup.read("opened"), shown.contains("plaintext")), (0, b"7000".to_vec(), false));
    assert_eq!(setup.kms(&out).0, 1, "a file that is there is left alone");
    setup.write("long", &[0; 1025]);
    let (code, _, err) = setup.kms(&["asymmetric", "encrypt", "--key", "payroll", "long"]);
    assert_eq!(code, 3, "{err}");
}

#[test]
fn a_public_key_is_shown_in_pem() {
    let setup = setup();
    let (code, pem, _) = setup.kms(&["key", "public-key", "payroll"]);
    assert_eq!(code, 0);
    assert!(pem.starts_with(
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE="
    ));
}

#[test]
fn certificates_that_are_none_are_not_shown() {
    let setup = setup();
    let (code, out, err) = setup.kms(&["key", "certificates", "payroll"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("certificate"), "{err}");
}

#[test]
fn dates_of_a_new_key_are_times_or_durations_from_now() {
    let setup = setup();
    let until = ["--activates", "2026-12-01T00:00:00Z", "--expires", "90d"];
    setup.json(&[["key", "create", "payroll", "--spec", "sm4"].as_slice(), &until].concat());
    let created = setup.service.script().created.clone().expect("a request arrived");
    assert_eq!(created.activates.map(|time| time.seconds), Some(1_796_083_200));
    let in_90_days =
        SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() + 90 * 86_400;
    let expires = created.expires.expect("an expiry date").seconds as u64;
    assert!(expires.abs_diff(in_90_days) < 60, "{expires} is 90 days from now, and not 90 days ago");
    let (code, _, err) = setup.kms(&["key", "create", "payroll", "--spec", "sm4", "--expires", "soon"]);
    assert_eq!((code, err.contains("soon")), (64, true), "{err}");
}

fn label(name: &str, value: &str) -> v1::Label {
    v1::Label { name: name.into(), value: value.into() }
}

#[test]
fn what_is_said_of_a_key_is_sent_as_it_was_given() {
    let setup = setup();
    let create =
        ["key", "create", "payroll", "--spec", "sm4", "--usage", "ENCRYPT_DECRYPT", "--owner", "payments"];
    let said =
        ["--sensitivity", "2", "--label", "env=prod", "--retain-until", "2030-01-23T11:46:40Z", "--protect"];
    setup.json(&[create.as_slice(), &said].concat());
    let created = setup.service.script().created.clone().expect("a request arrived");
    assert_eq!(created.usage, 1, "{created:?}");
    let attributes = created.attributes.expect("attributes");
    assert_eq!((attributes.owner.as_str(), attributes.sensitivity), ("payments", 2));
    assert_eq!(attributes.labels, [label("env", "prod")]);
    assert_eq!(attributes.retain_until.map(|time| time.seconds), Some(1_895_399_200));
    assert!(attributes.deletion_protection);

    let update = ["key", "update", "payroll", "--description", "", "--label", "a=1", "--remove-label", "b"];
    setup.json(&[update.as_slice(), &["--unprotect", "--expected-revision", "3"]].concat());
    let updated = setup.service.script().updated.clone().expect("a request arrived");
    assert_eq!((updated.description.as_deref(), updated.owner), (Some(""), None), "what is not named stays");
    assert_eq!(updated.set_labels, [label("a", "1")]);
    assert_eq!((updated.remove_labels, updated.deletion_protection), (vec!["b".to_owned()], Some(false)));
    assert_eq!((updated.expected_revision, updated.sensitivity), (3, None));

    setup.json(&["key", "list", "--label", "env=prod", "--state", "ACTIVE"]);
    let listed = setup.service.script().listed.clone().expect("a request arrived");
    assert_eq!(listed.labels, [label("env", "prod")]);
    assert_eq!(listed.state, 2);
    for wrong in [
        ["key", "update", "payroll", "--label", "Env=prod"].as_slice(),
        &["key", "update", "payroll", "--label", "a=1", "--remove-label", "a"],
        &["key", "update", "payroll", "--owner", "a\nb"],
    ] {
        let (code, _, err) = setup.kms(wrong);
        assert_eq!((code, err.contains("FIELD_INVALID")), (3, true), "{err}");
    }
}

#[test]
fn aliases_are_given_moved_listed_and_removed() {
    let setup = setup();
    let alias = json!({ "alias": "wages", "key_id": KEY_ID, "since": "2026-11-23T02:00:00Z" });
    assert_eq!(setup.json(&["alias", "create", "wages", "payroll"]), alias);
    assert_eq!(setup.json(&["alias", "retarget", "wages", "payroll", "--expected-key", "old"]), alias);
    let moved = setup.service.script().retargeted.clone().expect("a request arrived");
    assert_eq!(
        (moved.alias.as_str(), moved.key.as_str(), moved.expected_key.as_str()),
        ("wages", "payroll", "old")
    );
    assert_eq!(setup.json(&["alias", "list"]), json!({ "aliases": [alias] }));
    let (_, out, _) = setup.kms(&["alias", "list"]);
    assert_eq!(
        out,
        format!(
            "ALIAS  KEY ID                                SINCE\nwages  {KEY_ID}  2026-11-23T02:00:00Z\n"
        )
    );
    assert_eq!(setup.json(&["alias", "delete", "wages"]), json!({ "deleted": "wages" }));
    let (code, _, err) = setup.kms(&["alias", "create", "Wages", "payroll"]);
    assert_eq!((code, err.contains("field: alias")), (3, true), "{err}");
}

#[test]
fn a_call_that_is_never_answered_ends_at_the_deadline() {
    let setup = setup();
    setup.service.script().hangs = true;
    let deadline = Duration::from_millis(400);
    let begin = Instant::now();
    let result = setup.client(deadline, async |client| client.describe_key(&payroll()).await);
    assert!(matches!(result, Err(ClientError::DeadlinePassed { .. })), "{result:?}");
    let listed = setup.client(deadline, async |client| client.list_records(&RecordQuery::default()).await);
    assert!(matches!(listed, Err(ClientError::DeadlinePassed { .. })));
    assert!(begin.elapsed() < Duration::from_secs(5));
    let (code, _, err) = setup.kms(&["key", "show", "payroll", "--timeout", "1"]);
    assert_eq!((code, err.as_str()), (8, "error: no answer within 1 s\nnext: kms status --wait 60\n"));
}

#[test]
fn what_the_service_encrypts_itself_comes_back() {
    let setup = setup();
    setup.client(DEADLINE, async |client| {
        let context = EncryptionContext::default();
        let made = client.encrypt(&payroll(), b"attack", &context).await.expect("encrypts");
        assert_eq!(made.bytes, b"kcatta");
        let opened = client.decrypt(&made.bytes, &context, None).await.expect("decrypts");
        assert_eq!(opened.bytes.expose(), b"attack");
        assert!(!format!("{opened:?}").contains("97"), "no byte in Debug");
    });
}

#[test]
fn a_certificate_of_another_authority_is_refused_on_both_sides() {
    let setup = setup();
    let (code, out, err) = setup.kms(&["--profile", "stranger.toml", "whoami"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains(" broke the connection ("), "{err}");
    assert!(err.contains("it does not trust the caller's certificate\nnext: kms status\n"), "{err}");
    // The service's own certificate, seen by a client that trusts another authority.
    setup.write("ca.pem", &setup.read("stranger.pem"));
    let (code, _, err) = setup.kms(&["whoami"]);
    assert_eq!(code, 1);
    assert!(err.contains("cannot be reached: invalid peer certificate: "), "{err}");
}

#[test]
fn status_tells_what_a_sealed_node_waits_for() {
    let setup = setup();
    setup.service.script().sealed_status_count = 1;
    let (code, out, _) = setup.kms(&["status"]);
    assert_eq!(code, 2);
    assert_eq!(
        out,
        format!(
            "state            sealed\n\
             why              the node has just started\n\
             threshold        2 of 3 custodians\n\
             present          alice\n\
             cluster          test\n\
             node             node-1, version 0.1.0\n\
             suite            intl\n\
             module           softhsm (generic)\n\
             bundle           {}\n\
             log              9 records\n\
             last checkpoint  at 3 records, 2026-11-23T02:00:00Z\n",
            "ab".repeat(32)
        )
    );
    let value = setup.json(&["status"]);
    assert_eq!(value["seal_state"], "unsealed");
    assert_eq!(value["present"], json!([]));
    assert_eq!(value["checkpoint_time"], "2026-11-23T02:00:00Z");
}

#[test]
fn status_waits_until_the_node_is_unsealed() {
    let setup = setup();
    setup.service.script().sealed_status_count = 2;
    assert_eq!(setup.kms(&["status", "--wait", "20"]).0, 0);
    assert_eq!(setup.service.script().calls.len(), 3);
    setup.service.script().sealed_status_count = 1000;
    assert_eq!(setup.kms(&["status", "--wait", "1"]).0, 2);
    // Who is not listed gains nothing by waiting.
    let unknown = refusal(Code::PermissionDenied, Reason::PrincipalUnknown, "kms://a/b/c is not listed");
    setup.service.refuse([unknown]);
    let begin = Instant::now();
    assert_eq!(setup.kms(&["status", "--wait", "20"]).0, 5);
    assert!(begin.elapsed() < Duration::from_secs(10));
}

#[test]
fn status_waits_while_nothing_listens() {
    let setup = setup();
    let port = setup.service.address.port();
    let Setup { folder, service } = setup;
    drop(service);
    let mut command = Command::new(env!("CARGO_BIN_EXE_kms"));
    command.args(["--profile", "profile.toml", "status", "--wait", "2"]).current_dir(folder.path());
    let begin = Instant::now();
    let output = command.output().expect("the command starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(begin.elapsed() >= Duration::from_secs(1));
    let err = String::from_utf8(output.stderr).expect("UTF-8");
    let expected = format!("error: https://127.0.0.1:{port} cannot be reached: Connection refused");
    assert!(err.starts_with(&expected), "{err}");
}

#[test]
fn refusals_show_sentence_field_reason_and_the_next_command() {
    let setup = setup();
    setup.service.refuse([refusal(Code::Unavailable, Reason::Sealed, "sealed: 1 of 2 custodians present")]);
    assert_eq!(
        setup.kms(&["key", "list"]),
        (
            2,
            String::new(),
            "error: sealed: 1 of 2 custodians present\nreason: SEALED\nnext: kms status\n".into()
        )
    );
    assert_eq!(setup.service.script().calls.len(), 1, "a sealed service is not asked again");
    setup.service.refuse([refusal(Code::FailedPrecondition, Reason::KeyStateForbids, "it is SUSPENDED")]);
    let (code, _, err) = setup.kms(&["key", "rotate", "payroll"]);
    assert_eq!(code, 7);
    assert_eq!(err, "error: it is SUSPENDED\nreason: KEY_STATE_FORBIDS\nnext: kms key show payroll\n");
}

#[test]
fn keys_are_shown_for_people_and_for_programs() {
    let setup = setup();
    let (code, out, _) = setup.kms(&["key", "show", "payroll"]);
    assert_eq!(code, 0);
    assert_eq!(
        out,
        format!(
            "name             payroll\n\
             aliases          wages\n\
             id               {KEY_ID}\n\
             state            ACTIVE\n\
             spec             sm4\n\
             usage            ENCRYPT_DECRYPT\n\
             protection       wrapped: the material is sealed by a master key\n\
             current version  1\n\
             activates        at once\n\
             expires          2030-01-23T11:46:40Z\n\
             created          2026-11-23T02:00:00Z by kms://default/administrator/admin\n\
             revision         3\n\
             owner            payments\n\
             sensitivity      2\n\
             labels           env=prod\n\
             retain until     2030-01-23T11:46:40Z\n\
             protected        from destruction\n\
             \n\
             VERSION  ORIGIN     STATE   CREATED               CHECK   ENCRYPTIONS                  DESTRUCTION\n\
             1        generated  ACTIVE  2026-11-23T02:00:00Z  c1c2c3  up to 65536: rotate the key\n"
        )
    );
    let value = setup.json(&["key", "create", "payroll", "--spec", "sm4"]);
    assert_eq!(
        value,
        json!({
            "key_id": KEY_ID,
            "name": "payroll",
            "spec": "sm4",
            "protection": "wrapped",
            "protection_note": "the material is sealed by a master key",
            "state": "ACTIVE",
            "current_version": 1,
            "versions": [{
                "version": 1,
                "state": "ACTIVE",
                "created": "2026-11-23T02:00:00Z",
                "origin": "generated",
                "check_value": "c1c2c3",
                "encryptions_taken": 65_536,
                "is_rotation_advised": true,
                "destruction": null,
            }],
            "activates": null,
            "expires": "2030-01-23T11:46:40Z",
            "created": "2026-11-23T02:00:00Z",
            "creator": "kms://default/administrator/admin",
            "revision": 3,
            "destruction": null,
            "usage": "ENCRYPT_DECRYPT",
            "owner": "payments",
            "description": "",
            "sensitivity": 2,
            "labels": { "env": "prod" },
            "retain_until": "2030-01-23T11:46:40Z",
            "deletion_protection": true,
            "aliases": ["wages"],
        })
    );
    let names: Vec<Value> = setup.json(&["key", "list"])["keys"]
        .as_array()
        .expect("an array")
        .iter()
        .map(|key| key["name"].clone())
        .collect();
    assert_eq!(names, ["payroll", "salaries"], "both pages");
}

#[test]
fn records_are_listed_as_sentences_and_as_json_lines() {
    let setup = setup();
    let (code, out, _) = setup.kms(&["audit", "list", "--count", "2"]);
    assert_eq!(code, 0);
    let sentence = format!(
        "2026-11-23T02:00:00Z kms://default/administrator/admin created key payroll ({KEY_ID}, version 1) \
         on node-1: done"
    );
    assert_eq!(
        out,
        format!(
            "       0  {sentence}\n       1  2026-11-23T02:00:01Z kms://default/administrator/admin asked to \
             create key payroll on node-1: refused, KEY_EXISTS\n"
        )
    );
    let (_, out, _) = setup.kms(&["audit", "list", "--from", "1", "--count", "1", "--output", "json"]);
    assert_eq!(
        serde_json::from_str::<Value>(&out).expect("one line of JSON"),
        json!({
            "index": 1,
            "time": "2026-11-23T02:00:01Z",
            "event": "key.create",
            "outcome": "refused",
            "reason": "KEY_EXISTS",
            "actor": "kms://default/administrator/admin",
            "node": "node-1",
            "request_id": "request-1",
            "key_id": null,
            "key_version": null,
            "details": { "name": "payroll" },
            "evidence": null,
        })
    );
    let (code, _, err) = setup.kms(&["audit", "list", "--follow"]);
    assert_eq!(code, 1, "a follower is told when the stream ends");
    assert!(err.starts_with("error: the service ended the stream\n"), "{err}");
}

#[test]
fn a_shown_record_is_proven_to_be_in_the_log() {
    let setup = setup();
    let (code, out, err) = setup.kms(&["audit", "show", "0", "--bundle", "bundle.pem"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.starts_with("2026-11-23T02:00:00Z kms://default/administrator/admin created key payroll"));
    let root = setup.service.log.root();
    assert!(out.contains(&format!("proven in the log of 9 records with root {root}\n")), "{out}");
    assert!(out.contains("verified with the bundle\n"), "{out}");
    let (code, out, _) = setup.kms(&["audit", "show", "4"]);
    assert_eq!((code, out.contains("not verified; give --bundle FILE")), (0, true));
    let value = setup.json(&["audit", "show", "3", "--bundle", "bundle.pem"]);
    assert_eq!(
        (&value["inclusion_verified"], &value["head_signature_verified"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(value["leaf"].as_str().map(|leaf| &leaf[..16]), Some("0000000000000003"));
    assert_eq!(setup.kms(&["audit", "show", "99"]).0, 6);
    setup.service.script().forges_proofs = true;
    let (code, out, err) = setup.kms(&["audit", "show", "0"]);
    assert_eq!((code, out.as_str()), (4, ""));
    assert!(err.starts_with("error: record 0 is not in the log that the node signed\n"), "{err}");
    setup.service.script().forges_proofs = false;
    let other = crate::support::Deployment::new(Suite::Intl).armour();
    setup.write("other.pem", other.as_bytes());
    let (code, _, err) = setup.kms(&["audit", "show", "0", "--bundle", "other.pem"]);
    assert_eq!(code, 4);
    assert!(
        err.starts_with("error: the head of the log is not signed by node node-1 of the bundle\n"),
        "{err}"
    );
}

/// Somebody with a hash function and the two answers needs nothing else from us.
#[test]
fn the_printed_hashes_lead_from_the_record_to_the_root() {
    let setup = setup();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let digest = |value: &Value| Digest32::from_hex(&text(value)).expect("a hash");
    let path = |value: &Value| -> Vec<Digest32> {
        value["inclusion_path"].as_array().expect("a list").iter().map(digest).collect()
    };
    for index in 0..9 {
        let value = setup.json(&["audit", "show", &index.to_string()]);
        let leaf = base16ct::lower::decode_vec(text(&value["leaf"])).expect("bytes");
        let (leaf_hash, root) = (digest(&value["leaf_hash"]), digest(&value["root"]));
        assert_eq!(leaf_hash, Suite::Intl.hash(&[&[0], &leaf]), "record {index}");
        assert_eq!((&value["tree_size"], root), (&json!(9), setup.service.log.root()));
        let path = path(&value);
        assert!(is_included(Suite::Intl, &leaf_hash, index, 9, &path, &root), "record {index}");

        let (code, out, _) = setup.kms(&["audit", "show", &index.to_string()]);
        assert_eq!(code, 0);
        let rows: Vec<(&str, &str)> = out
            .lines()
            .filter_map(|line| line.rsplit_once("  "))
            .map(|(name, value)| (name.trim(), value))
            .collect();
        let named = |name: &str| rows.iter().position(|row| row.0 == name).expect("the row is there");
        assert_eq!(rows[named("leaf hash")].1, leaf_hash.to_hex());
        assert_eq!(rows[named("root")].1, root.to_hex());
        assert_eq!(rows[named("tree size")].1, "9");
        let shown: Vec<&str> = rows[named("path")..named("root")].iter().map(|row| row.1).collect();
        assert_eq!(shown, path.iter().map(|hash| hash.to_hex()).collect::<Vec<_>>(), "{out}");
    }
    // The last of nine stands alone beside a tree of eight: one step, done here by hand.
    let last = setup.json(&["audit", "show", "8"]);
    let [beside] = path(&last)[..] else { panic!("one step leads to the root: {last}") };
    let root = Suite::Intl.hash(&[&[1], &beside.0, &digest(&last["leaf_hash"]).0]);
    assert_eq!(root, digest(&last["root"]));
}

#[test]
fn the_log_is_exported_in_order_and_verified_online_and_offline() {
    let setup = setup();
    let (code, _, err) = setup.kms(&["audit", "verify"]);
    assert_eq!(code, 1);
    assert!(err.starts_with("error: no bundle is named: give --bundle FILE"), "{err}");
    let (code, out, err) = setup.kms(&["audit", "verify", "--bundle", "bundle.pem"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("records      9\n"), "{out}");
    let mut profile = setup.read("profile.toml");
    profile.extend_from_slice(b"bundle = \"bundle.pem\"\n");
    setup.write("profile.toml", &profile);
    assert_eq!(setup.json(&["audit", "verify"])["checkpoint_count"], 2);
    let before = fs::read_dir(setup.folder.path()).expect("lists").count();
    assert_eq!(setup.kms(&["audit", "export", "log.kmsaudit"]).0, 0);
    assert!(setup.read("log.kmsaudit") == setup.service.log.export(), "checkpoints come first");
    assert_eq!(fs::read_dir(setup.folder.path()).expect("lists").count(), before + 1);
    let arguments = ["audit", "verify", "--export", "log.kmsaudit", "--bundle", "bundle.pem"];
    assert_eq!(setup.kms(&arguments).0, 0);
}

#[test]
fn a_node_is_sealed_and_a_caller_is_told_who_it_is() {
    let setup = setup();
    let (code, out, _) = setup.kms(&["seal"]);
    assert_eq!((code, out.starts_with("sealed: no key can be used")), (0, true));
    let (_, out, _) = setup.kms(&["whoami"]);
    assert_eq!(out, "principal  kms://default/administrator/admin\nallowed    key.create, key.list\n");
}
