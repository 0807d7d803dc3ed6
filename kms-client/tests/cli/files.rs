//! Files and data keys through the `kms` command, against a service.

use crate::online::setup;
use crate::support::service::KEY_ID;
use kms_proto::v1;
use serde_json::json;
use std::fs::{self, File};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn a_file_comes_back_under_every_algorithm_and_its_plaintext_is_for_the_owner_alone() {
    let setup = setup();
    let plaintext: Vec<u8> = (0..200_000u32).map(|number| number as u8).collect();
    setup.write("in", &plaintext);
    for (spec, name) in [
        (v1::KeySpec::Aes256, "aes-256"),
        (v1::KeySpec::Sm4, "sm4"),
        (v1::KeySpec::Aes128, "aes-128"),
        (v1::KeySpec::Aes192, "aes-192"),
    ] {
        setup.service.script().data_key_spec = spec;
        let (code, out, err) =
            setup.kms(&["encrypt", "--key", "payroll", "--context", "file=in", "in", "out.kms"]);
        assert_eq!((code, err.as_str()), (0, ""));
        assert!(out.starts_with("encrypted 195.31 KiB ("), "{out}");
        assert!(setup.read("out.kms").starts_with(b"KMSFILE\x02"));
        let value = setup.json(&["decrypt", "--expected-key", "payroll", "out.kms", "back"]);
        let expected =
            json!({ "key_id": KEY_ID, "key_version": 1, "spec": name, "plaintext_bytes": 200_000 });
        assert_eq!(value, expected);
        assert!(setup.read("back") == plaintext);
        assert_eq!(setup.mode("back"), 0o600);
    }
}

#[test]
fn a_file_goes_through_pipes() {
    let setup = setup();
    let mut encrypt = setup
        .command(&["encrypt", "--key", "payroll", "-", "-"])
        .stdin(Stdio::piped())
        .stdout(File::create(setup.folder.path().join("out.kms")).expect("creates"))
        .spawn()
        .expect("the command starts");
    encrypt.stdin.take().expect("a pipe").write_all(b"attack at dawn").expect("writes");
    assert!(encrypt.wait().expect("ends").success());
    let output = setup
        .command(&["decrypt", "-", "-"])
        .stdin(File::open(setup.folder.path().join("out.kms")).expect("opens"))
        .output()
        .expect("the command starts");
    assert_eq!(output.stdout, b"attack at dawn");
    assert!(output.status.success() && output.stderr.is_empty());
}

#[test]
fn a_changed_file_leaves_no_output_and_no_temporary_file() {
    let setup = setup();
    setup.write("in", &vec![7; 150_000]);
    assert_eq!(setup.kms(&["encrypt", "--key", "payroll", "in", "out.kms"]).0, 0);
    let mut changed = setup.read("out.kms");
    // The last chunk: two good ones have been written by then.
    *changed.last_mut().expect("not empty") ^= 1;
    setup.write("out.kms", &changed);
    let before = fs::read_dir(setup.folder.path()).expect("lists").count();
    let (code, out, err) = setup.kms(&["decrypt", "out.kms", "back"]);
    assert_eq!((code, out.as_str()), (4, ""));
    assert!(err.starts_with("error: the file is damaged, incomplete or was changed"), "{err}");
    assert!(err.contains("\nreason: CIPHERTEXT_INVALID\n"), "{err}");
    assert!(!setup.exists("back"));
    assert_eq!(fs::read_dir(setup.folder.path()).expect("lists").count(), before);
    let (code, _, _) = setup.kms(&["decrypt", "out.kms", "-"]);
    assert_eq!(code, 4, "the standard output is told apart by the exit code alone");
}

#[test]
fn another_context_or_key_than_expected_is_refused() {
    let setup = setup();
    setup.write("in", b"x");
    assert_eq!(setup.kms(&["encrypt", "--key", "payroll", "--context", "a=1", "in", "out.kms"]).0, 0);
    let calls = setup.service.script().calls.len();
    let (code, _, err) = setup.kms(&["decrypt", "--context", "a=2", "out.kms", "back"]);
    assert_eq!(code, 4);
    assert!(err.starts_with("error: the file was encrypted with another context: a=1\n"), "{err}");
    assert_eq!(setup.service.script().calls.len(), calls, "found without the service");
    let (code, _, err) = setup.kms(&["decrypt", "--expected-key", "salaries", "out.kms", "back"]);
    assert_eq!((code, err.contains("KEY_MISMATCH")), (4, true));
    assert_eq!(setup.kms(&["decrypt", "--context", "a=1", "out.kms", "back"]).0, 0);
    // A context that was changed in the header does not fit the data key.
    let mut file = setup.read("out.kms");
    let place = file.windows(4).position(|four| four == b"a\0\x011").expect("the pair");
    file[place] = b'b';
    setup.write("out.kms", &file);
    assert_eq!(setup.kms(&["decrypt", "out.kms", "other"]).0, 4);
}

#[test]
fn an_interrupted_decryption_leaves_no_plaintext_behind() {
    let setup = setup();
    setup.write("in", &vec![7; 150_000]);
    assert_eq!(setup.kms(&["encrypt", "--key", "payroll", "in", "out.kms"]).0, 0);
    let file = setup.read("out.kms");
    let before = fs::read_dir(setup.folder.path()).expect("lists").count();
    let mut decrypt =
        setup.command(&["decrypt", "-", "back"]).stdin(Stdio::piped()).spawn().expect("the command starts");
    let mut pipe = decrypt.stdin.take().expect("a pipe");
    pipe.write_all(&file[..140_000]).expect("writes");
    let incomplete = || {
        let entries = fs::read_dir(setup.folder.path()).expect("lists").map(|entry| entry.expect("an entry"));
        entries.filter(|entry| entry.metadata().is_ok_and(|data| data.len() == 131_072)).count()
    };
    let begin = Instant::now();
    while incomplete() == 0 {
        assert!(begin.elapsed() < Duration::from_secs(20), "two chunks are written");
        std::thread::sleep(Duration::from_millis(10));
    }
    let id = decrypt.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().expect("kill starts").success());
    assert_eq!(decrypt.wait().expect("ends").code(), Some(130));
    assert_eq!(fs::read_dir(setup.folder.path()).expect("lists").count(), before);
    drop(pipe);
}

#[test]
fn a_data_key_is_printed_or_kept_in_a_file_for_the_owner_alone() {
    let setup = setup();
    let value = setup.json(&["data-key", "generate", "--key", "payroll", "--out-ciphertext", "wrapped"]);
    let plaintext = value["plaintext"].as_str().expect("base64").to_owned();
    assert_eq!((plaintext.len(), value["key_version"].as_u64()), (44, Some(1)));
    assert_eq!(value.get("ciphertext"), None, "it is in the file");
    let (code, out, _) = setup.kms(&["data-key", "decrypt", "--in", "wrapped"]);
    assert_eq!(code, 0);
    assert_eq!(
        out,
        format!("key id       {KEY_ID}\nkey version  1\nspec         aes-256\nplaintext    {plaintext}\n")
    );
    let (code, out, _) = setup.kms(&["data-key", "decrypt", "--in", "wrapped", "--out-plaintext", "plain"]);
    assert_eq!((code, out.contains("plaintext")), (0, false));
    assert_eq!((setup.read("plain").len(), setup.mode("plain")), (32, 0o600));
    let (code, _, err) = setup.kms(&["data-key", "decrypt", "--in", "wrapped", "--out-plaintext", "plain"]);
    assert_eq!(code, 1);
    assert!(err.contains("plain exists already"), "{err}");
    let value =
        setup.json(&["data-key", "generate", "--key", "payroll", "--without-plaintext", "--spec", "sm4"]);
    assert_eq!((value.get("plaintext"), value["spec"].as_str()), (None, Some("sm4")));
    let (code, _, _) = setup.kms(&["data-key", "decrypt", "--in", "wrapped", "--context", "a=1"]);
    assert_eq!(code, 4);
}

/// The most resident memory that the child process `id` had, in KiB.
fn peak_memory_kib(id: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[test]
fn a_large_stream_needs_little_memory() {
    const LEN: usize = 256 * 1024 * 1024;
    let setup = setup();
    let mut encrypt = setup
        .command(&["encrypt", "--key", "payroll", "-", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("the command starts");
    let mut pipe = encrypt.stdin.take().expect("a pipe");
    let block = vec![0x5a; 1024 * 1024];
    (0..LEN / block.len()).for_each(|_| pipe.write_all(&block).expect("writes"));
    let peak = peak_memory_kib(encrypt.id()).expect("the command is still reading");
    drop(pipe);
    assert!(encrypt.wait().expect("ends").success());
    assert!(peak < 64 * 1024, "{peak} KiB");
}
