//! A client that is generated from proto/ makes the main calls, and a second reader opens the files of `kms encrypt`.

use kms_core::suite::Suite;
use kms_tests::command::run;
use kms_tests::{Deployment, Options};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("it is in the repository").to_owned()
}

/// Python with the packages of tests/python/requirements.txt.
fn python() -> PathBuf {
    let python = repository().join("target/python/bin/python");
    assert!(python.is_file(), "{} is missing: scripts/test makes it", python.display());
    python
}

/// Modules that are generated from the proto files as they are now.
fn stubs(folder: &TempDir) -> PathBuf {
    let (stubs, proto) = (folder.path().join("stubs"), repository().join("proto"));
    std::fs::create_dir(&stubs).expect("the folder is there");
    let out = |option: &str| format!("--{option}={}", stubs.display());
    let mut arguments =
        vec!["-m".to_owned(), "grpc_tools.protoc".to_owned(), format!("-I{}", proto.display())];
    arguments.extend([out("python_out"), out("grpc_python_out")]);
    let files = std::fs::read_dir(proto.join("kms/v1")).expect("the proto files");
    let files = files.map(|file| file.expect("a name").path().display().to_string());
    arguments.extend(files.filter(|file| file.ends_with(".proto")));
    run(&python(), &arguments, folder.path()).done();
    stubs
}

fn calls_everything_and_reads_a_file(suite: Suite, spec: &str) {
    let deployment = Deployment::start(Options { suite, ..Options::default() });
    deployment.kms("admin", &["key", "create", "payroll", "--spec", spec]).done();
    let folder = TempDir::new().expect("a temporary folder can be made");
    let path = |name: &str| folder.path().join(name).display().to_string();
    // Three chunks, and more than one.
    let plaintext: Vec<u8> = (0..196_609_u32).map(|number| (number % 251) as u8).collect();
    std::fs::write(path("plain"), plaintext).expect("the folder is there");
    let context = ["--context", "file=payroll.csv", "--context", "owner=薪资"];
    let (plain, sealed) = (path("plain"), path("sealed"));
    let encrypt = [["encrypt", "--key", "payroll"].as_slice(), &context, &[&plain, &sealed]].concat();
    deployment.kms("app", &encrypt).done();
    let script = repository().join("tests/python/client.py").display().to_string();
    let (profiles, stubs) =
        (deployment.state("profiles").display().to_string(), stubs(&folder).display().to_string());
    let arguments = ["-B", &script, &profiles, &stubs, spec, &sealed, &plain];
    assert_eq!(run(&python(), &arguments, folder.path()).done(), "ok\n");
}

#[test]
fn a_python_client_makes_the_main_calls_and_reads_a_file_of_the_sm_suite() {
    calls_everything_and_reads_a_file(Suite::Sm, "sm4");
}

#[test]
fn a_python_client_makes_the_main_calls_and_reads_a_file_of_the_international_suite() {
    calls_everything_and_reads_a_file(Suite::Intl, "aes-256");
}

#[test]
fn a_python_client_makes_the_main_calls_and_reads_a_file_of_a_shorter_key() {
    calls_everything_and_reads_a_file(Suite::Sm, "aes-192");
}

/// The vectors of docs/formats/file.md, with the data keys that the document tells.
#[test]
fn the_second_reader_opens_the_documented_files() {
    let program = r#"
import io, re, sys
import read_file
text = open(sys.argv[1]).read()
files = [bytes.fromhex(line) for line in re.findall(r"^(4b4d5346494c45[0-9a-f]+)$", text, re.M)]
assert [file[7] for file in files] == [2] * 8 + [1] * 8, "formats 2 and 1"
for data, expected in zip(files, ([b"attack at dawn"] * 4 + [b""] * 4) * 2):
    file = io.BytesIO(data)
    header = read_file.Header(file)
    key = bytes(range(read_file.CIPHERS[header.algorithm][1]))
    assert b"".join(read_file.plaintext(header, key, file)) == expected
    assert (header.context, header.data_key) == ([("file", "payroll.csv")], b"wrapped")
"#;
    let document = repository().join("docs/formats/file.md").display().to_string();
    run(&python(), &["-B", "-c", program, &document], &repository().join("tests/python")).done();
}
