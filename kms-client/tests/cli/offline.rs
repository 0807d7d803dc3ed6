//! The `kms` command as a user meets it, without a service.

use crate::support::Log;
use kms_client::audit::{ExportError, ExportReader};
use kms_core::suite::Suite;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

fn kms(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kms"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("KMS_PROFILE")
        .output()
        .expect("the command starts")
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn write(folder: &TempDir, name: &str, content: impl AsRef<[u8]>, mode: u32) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, content).expect("writes");
    fs::set_permissions(&path, Permissions::from_mode(mode)).expect("changes the mode");
    path
}

/// Exit code, standard output, standard error.
fn text(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    (output.status.code().expect("an exit code"), text(&output.stdout), text(&output.stderr))
}

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
const PROFILE: &str = "endpoint = \"https://localhost:7443\"\nserver_ca = \"ca.pem\"\n\
                       certificate = \"app.pem\"\nkey = \"app.key\"\n";

fn several(endpoints: &str) -> String {
    PROFILE.replace("endpoint = \"https://localhost:7443\"", &format!("endpoints = {endpoints}"))
}

/// A folder with a profile and its files; the tests then break one of them.
fn profile(text: &str) -> TempDir {
    let folder = folder();
    write(&folder, "profile.toml", text, 0o644);
    write(&folder, "ca.pem", CERTIFICATE, 0o644);
    write(&folder, "app.pem", CERTIFICATE, 0o644);
    write(&folder, "app.key", KEY, 0o600);
    folder
}

fn whoami(folder: &TempDir) -> (i32, String) {
    let (code, out, err) = text(&kms(folder.path(), &["--profile", "profile.toml", "whoami"]));
    assert_eq!(out, "");
    (code, err)
}

#[test]
fn the_version_is_printed() {
    let folder = folder();
    let version = format!("kms {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(text(&kms(folder.path(), &["--version"])), (0, version, String::new()));
}

#[test]
fn a_wrong_command_line_ends_with_64_and_never_with_the_code_of_a_sealed_service() {
    let folder = folder();
    for arguments in [
        &["unseal"][..],
        &[],
        &["key"],
        &["key", "create", "payroll"],
        &["key", "create", "payroll", "--spec", "des"],
        &["data-key", "generate", "--key", "k", "--spec", "hmac-sm3"],
        &["mac", "generate", "--key", "k"],
        &["mac", "verify", "--key", "k", "in"],
        &["mac", "verify", "--key", "k", "--mac", "AAAA", "--mac-file", "f", "in"],
        &["random", "--bytes", "0"],
        &["random", "--bytes", "1025"],
        &["random"],
        &["key", "create", "payroll", "--spec", "sm4", "--protection", "none"],
        &["status", "--timeout", "0"],
        &["encrypt", "--key", "payroll", "in"],
        &["audit", "list", "--since", "yesterday"],
        &["audit", "verify", "--export", "log.kmsaudit"],
        &["data-key", "generate", "--key", "k", "--without-plaintext", "--out-plaintext", "f"],
    ] {
        let (code, out, err) = text(&kms(folder.path(), arguments));
        assert_eq!((code, out.as_str()), (64, ""), "{arguments:?}: {err}");
    }
    let (_, _, err) = text(&kms(folder.path(), &["unseal"]));
    assert!(err.starts_with("error: unrecognized subcommand 'unseal'"), "{err}");
}

#[test]
fn a_context_that_is_no_pair_is_refused_before_anything_is_read() {
    let folder = folder();
    for (pair, problem) in [
        ("payroll", "has no '='; a pair is KEY=VALUE"),
        ("=payroll", "has nothing before '='; a pair is KEY=VALUE"),
    ] {
        let (code, _, err) =
            text(&kms(folder.path(), &["encrypt", "--key", "k", "--context", pair, "missing", "out"]));
        assert_eq!(code, 64);
        assert!(err.contains(problem), "{err}");
    }
    let (code, _, err) = text(&kms(
        folder.path(),
        &["encrypt", "--key", "k", "--context", "a=1", "--context", "a=2", "missing", "out"],
    ));
    assert_eq!(code, 3);
    assert_eq!(
        err,
        "error: context has the key \"a\" twice\nfield: context\nreason: FIELD_INVALID\n\
         next: kms encrypt --help\n"
    );
}

#[test]
fn a_name_that_no_service_would_take_is_refused_without_asking_one() {
    let folder = folder();
    let (code, _, err) = text(&kms(folder.path(), &["key", "create", "Payroll", "--spec", "sm4"]));
    assert_eq!(code, 3);
    assert_eq!(
        err,
        "error: name may hold only lower-case letters, digits, '.', '_' and '-', and must start with a \
         letter or digit\nfield: name\nreason: FIELD_INVALID\nnext: kms key create --help\n"
    );
    let (code, _, err) = text(&kms(folder.path(), &["key", "show", "payroll@0"]));
    assert_eq!(code, 3);
    assert!(err.starts_with("error: key is not of the form NAME@VERSION with a version from 1\n"), "{err}");
}

#[test]
fn without_a_profile_the_command_says_how_to_name_one() {
    let folder = folder();
    let (code, out, err) = text(&kms(folder.path(), &["status"]));
    assert_eq!((code, out.as_str()), (64, ""));
    assert_eq!(
        err,
        "error: no profile is named: give --profile FILE, or set KMS_PROFILE to the path of the file\n\
         next: kms --profile FILE status\n"
    );
}

#[test]
fn the_environment_names_the_profile_too() {
    let folder = folder();
    let output = Command::new(env!("CARGO_BIN_EXE_kms"))
        .arg("whoami")
        .current_dir(folder.path())
        .env("KMS_PROFILE", "elsewhere.toml")
        .output()
        .expect("the command starts");
    let (code, _, err) = text(&output);
    assert_eq!(code, 1);
    assert!(err.starts_with("error: profile elsewhere.toml cannot be read: No such file"), "{err}");
}

#[test]
fn errors_are_json_when_the_output_is() {
    let folder = folder();
    let (code, _, err) = text(&kms(folder.path(), &["--output", "json", "key", "show", "A"]));
    assert_eq!(code, 3);
    let value: serde_json::Value = serde_json::from_str(&err).expect("JSON");
    assert_eq!(value["reason"], "FIELD_INVALID");
    assert_eq!(value["field"], "key");
    assert_eq!(value["exit_code"], 3);
    assert_eq!(value["next"], "kms key list");
}

#[test]
fn a_private_key_that_others_can_read_is_refused() {
    for mode in [0o644, 0o640, 0o620, 0o601] {
        let folder = profile(PROFILE);
        write(&folder, "app.key", KEY, mode);
        let (code, err) = whoami(&folder);
        assert_eq!(code, 1);
        assert_eq!(
            err,
            format!(
                "error: key app.key is open to other users (mode {mode:03o}); run: chmod 600 app.key\n\
                 next: kms --profile FILE status\n"
            )
        );
    }
}

#[test]
fn a_wrong_profile_is_refused_with_its_place() {
    for (text, problem) in [
        (PROFILE.replace("https", "http"), "endpoint \"http://localhost:7443\" is not of the form"),
        (PROFILE.replace(":7443", ""), "endpoint \"https://localhost\" is not of the form"),
        (PROFILE.replace(":7443", ":7443/path"), "is not of the form \"https://HOST:PORT\""),
        (format!("{PROFILE}password = \"x\"\n"), "profile profile.toml: line 5: unknown field `password`"),
        (PROFILE.replace("endpoint", "address"), "profile profile.toml: line 1: unknown field `address`"),
        (PROFILE.replace("key = \"app.key\"\n", ""), "missing field `key`"),
        ("endpoint".into(), "profile profile.toml: line 1: "),
        (
            PROFILE.replace("endpoint = \"https://localhost:7443\"\n", ""),
            "it names no service; add endpoint = ",
        ),
        (
            format!("{PROFILE}endpoints = [\"https://b:1\"]\n"),
            "profile profile.toml: it has endpoint and endpoints; keep one of them",
        ),
        (several("[]"), "endpoints has 0 addresses; 1 to 16 are allowed"),
        (several("[\"https://a:1\", \"https://a:1\"]"), "endpoints has \"https://a:1\" twice"),
        (several("[\"https://a:1\", \"http://b:1\"]"), "endpoint \"http://b:1\" is not of the form"),
    ] {
        let (code, err) = whoami(&profile(&text));
        assert_eq!(code, 1);
        assert!(err.contains(problem), "{err}");
        assert_eq!(err.lines().count(), 2, "{err}");
    }
}

#[test]
fn a_missing_or_swapped_file_of_the_profile_is_named() {
    let folder = profile(PROFILE);
    fs::remove_file(folder.path().join("ca.pem")).expect("removes");
    assert!(whoami(&folder).1.starts_with("error: server_ca ca.pem cannot be read: No such file"));
    let folder = profile(PROFILE);
    write(&folder, "app.pem", KEY, 0o600);
    assert!(whoami(&folder).1.contains("certificate app.pem holds no PEM block \"BEGIN CERTIFICATE\""));
    let folder = profile(PROFILE);
    write(&folder, "app.key", CERTIFICATE, 0o600);
    assert!(whoami(&folder).1.contains("key app.key holds no PEM block \"PRIVATE KEY\""));
}

#[test]
fn decrypting_something_else_is_refused_before_the_profile_is_needed() {
    let folder = folder();
    write(&folder, "in", "name,salary\n", 0o644);
    let (code, _, err) = text(&kms(folder.path(), &["decrypt", "in", "out"]));
    assert_eq!(code, 4);
    assert_eq!(
        err,
        "error: the input is not a file that `kms encrypt` made\nreason: CIPHERTEXT_INVALID\n\
         next: kms decrypt --help\n"
    );
    assert!(!folder.path().join("out").exists());
}

#[test]
fn a_failed_command_leaves_the_old_output_and_nothing_else() {
    let folder = folder();
    write(&folder, "in", "name,salary\n", 0o644);
    write(&folder, "out", "old", 0o644);
    let (code, _, _) = text(&kms(folder.path(), &["encrypt", "--key", "payroll", "in", "out"]));
    assert_eq!(code, 64, "no profile");
    assert_eq!(fs::read(folder.path().join("out")).expect("reads"), b"old");
    assert_eq!(fs::read_dir(folder.path()).expect("lists").count(), 2);
}

#[test]
fn an_output_that_is_no_plain_file_is_refused() {
    let folder = folder();
    write(&folder, "in", "x", 0o644);
    let (code, _, err) = text(&kms(folder.path(), &["encrypt", "--key", "k", "in", "/dev/null"]));
    assert_eq!(code, 1);
    assert!(
        err.starts_with("error: /dev/null is not a plain file; use - for the standard output\n"),
        "{err}"
    );
}

fn verify(export: &[u8], bundle: &str) -> (i32, String, String) {
    let folder = folder();
    write(&folder, "log.kmsaudit", export, 0o644);
    write(&folder, "bundle.pem", bundle, 0o644);
    let arguments = ["audit", "verify", "--export", "log.kmsaudit", "--bundle", "bundle.pem"];
    text(&kms(folder.path(), &arguments))
}

#[test]
fn an_export_is_verified_with_nothing_but_the_bundle() {
    for suite in [Suite::Sm, Suite::Intl] {
        let log = Log::sample(suite);
        let fingerprint = log.deployment.signed.fingerprint(suite);
        let (code, out, err) = verify(&log.export(), &log.deployment.armour());
        assert_eq!((code, err.as_str()), (0, ""), "{err}");
        let (summary, table) = out.split_once("\n\n").expect("two parts");
        assert_eq!(
            table,
            "EVENT              DONE  REFUSED  FAILED\ndata_key.generate  7     0        0\nkey.create         1     1        0\n"
        );
        for line in [
            "result       every record, signature and checkpoint is right".to_owned(),
            "records      9".to_owned(),
            format!("root         {}", log.root()),
            "last record  2026-11-23T02:00:08Z".to_owned(),
            "checkpoints  2; 6 records since the last rest on node signatures".to_owned(),
            format!("bundle       {fingerprint}; compare it with the custodians'"),
        ] {
            assert!(summary.lines().any(|shown| shown == line), "{line} is not in\n{summary}");
        }
    }
}

#[test]
fn a_verified_export_in_json_has_stable_fields() {
    let log = Log::sample(Suite::Intl);
    let folder = folder();
    write(&folder, "log", log.export(), 0o644);
    write(&folder, "bundle", log.deployment.armour(), 0o644);
    let arguments = ["audit", "verify", "--output", "json", "--export", "log", "--bundle", "bundle"];
    let (code, out, _) = text(&kms(folder.path(), &arguments));
    assert_eq!(code, 0);
    let mut value: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert!(value.as_object_mut().expect("an object").remove("duration_ms").expect("a duration").is_u64());
    let fingerprint = log.deployment.signed.fingerprint(Suite::Intl).to_hex();
    assert_eq!(
        value,
        serde_json::json!({
            "size": 9,
            "root": log.root().to_hex(),
            "last_time": "2026-11-23T02:00:08Z",
            "checkpoint_count": 2,
            "checkpoint_size": 3,
            "bundle_fingerprint": fingerprint,
            "events": {
                "data_key.generate": { "done": 7, "refused": 0, "failed": 0 },
                "key.create": { "done": 1, "refused": 1, "failed": 0 },
            },
        })
    );
}

#[test]
fn the_first_bad_record_of_an_export_is_named() {
    let mut missing = Log::sample(Suite::Intl);
    missing.segments.remove(1);
    let (code, out, err) = verify(&missing.export(), &missing.deployment.armour());
    assert_eq!((code, out.as_str()), (4, ""));
    assert_eq!(
        err,
        "error: record 1 is missing: the next segment begins with 3\nnext: kms audit export OUT\n"
    );
    let mut short = Log::sample(Suite::Intl);
    short.checkpoint();
    short.segments.pop();
    let (code, _, err) = verify(&short.export(), &short.deployment.armour());
    assert_eq!(code, 4);
    assert!(err.contains("the log has 3 records, but a checkpoint of 9 exists"), "{err}");
    let other = Log::sample(Suite::Intl);
    let (code, _, _) = verify(&other.export(), &missing.deployment.armour());
    assert_eq!(code, 4, "the bundle of another deployment");
}

#[test]
fn every_truncation_of_an_export_is_found_or_ends_after_a_whole_segment() {
    let mut log = Log::sample(Suite::Intl);
    log.checkpoint();
    let export = log.export();
    // Each step starts a process; the frame boundaries and their surroundings are what matters.
    for cut in [1, 2, 5, 6, 100, export.len() - 9] {
        let (code, _, err) = verify(&export[..export.len() - cut], &log.deployment.armour());
        assert_eq!(code, 4, "{cut} bytes less: {err}");
    }
}

#[test]
fn a_file_that_is_no_export_or_no_bundle_is_refused() {
    let log = Log::sample(Suite::Sm);
    let (code, _, err) = verify(b"KMSAUDI", &log.deployment.armour());
    assert_eq!(code, 4);
    assert!(err.starts_with("error: the file is not an export of an audit log\n"), "{err}");
    let (code, _, err) = verify(&log.export(), CERTIFICATE);
    assert_eq!(code, 4);
    assert!(err.starts_with("error: bundle bundle.pem: the file is not a file that begins with"), "{err}");
}

#[test]
fn a_frame_at_the_wrong_place_or_of_no_kind_or_size_is_refused() {
    let log = Log::sample(Suite::Intl);
    let export = log.export();
    let frame_len = |at: usize| {
        let len: [u8; 4] = export[at + 1..at + 5].try_into().expect("four bytes");
        5 + u32::from_be_bytes(len) as usize
    };
    let checkpoint = &export[8..8 + frame_len(8)];
    let read = |bytes: &[u8]| -> Result<usize, ExportError> {
        let mut reader = ExportReader::new(bytes)?;
        let mut count = 0;
        while reader.next_frame()?.is_some() {
            count += 1;
        }
        Ok(count)
    };
    assert!(matches!(read(&export), Ok(5)));
    assert!(matches!(read(&[&export, checkpoint].concat()), Err(ExportError::FrameMisplaced)));
    assert!(matches!(read(&[&export[..], &[3, 0, 0, 0, 0]].concat()), Err(ExportError::FrameMisplaced)));
    assert!(matches!(read(&[&export[..], &[1, 1, 0, 0, 1]].concat()), Err(ExportError::FrameTooLong { .. })));
    assert!(matches!(read(&[&export[..], &[1, 0, 0, 0, 1, 0]].concat()), Err(ExportError::Codec(_))));
    for cut in 1..frame_len(8) {
        let last = 8 + frame_len(8) - cut;
        assert!(matches!(read(&export[..last]), Err(ExportError::Incomplete) | Ok(0)), "{cut} bytes less");
    }
}
