//! A server that must not start, does not: one sentence with a hint, exit code 1, and nothing created.

use crate::state_copy::{StateCopy, copy_folder, foreign, wait_for};
use kms_tests::{Started, binaries};
use std::ffi::OsString;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

const ALL: [&str; 3] = ["run", "init", "check-config"];
const RUN: [&str; 1] = ["run"];
/// Commands that read the certificates and the node key.
const READERS: [&str; 2] = ["run", "check-config"];

#[test]
fn an_unspoiled_copy_is_valid_and_starts() {
    let copy = StateCopy::new();
    copy.start("check-config").finish().done();
    let mut server = copy.start("run");
    wait_for(&copy.address(), &mut server);
}

#[test]
fn a_missing_database_is_not_created_by_run() {
    let copy = StateCopy::new();
    fs::remove_file(copy.path("kms.db")).expect("removes");
    copy.refuses(&RUN, &["kms.db", "does not exist", "kms-server init"]);
    copy.start("init").finish().done();
    assert!(copy.path("kms.db").exists());
}

#[test]
fn an_existing_database_is_left_alone_by_init() {
    StateCopy::new().refuses(&["init"], &["kms.db", "exists already", "nothing was created"]);
    let empty = StateCopy::new();
    fs::write(empty.path("kms.db"), "").expect("writes");
    empty.refuses(&["init"], &["kms.db", "exists already"]);
}

#[test]
fn a_database_of_another_deployment_is_refused() {
    let copy = StateCopy::new();
    fs::copy(foreign().state("kms.db"), copy.path("kms.db")).expect("copies");
    copy.refuses(&RUN, &["belongs to another deployment than the bundle"]);
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let copy = StateCopy::new();
    fs::write(copy.path("kms.db"), "this is a text\n".repeat(1000)).expect("writes");
    copy.refuses(&RUN, &["no SQLite database and is left as it is; correct database.url"]);
}

#[test]
fn a_missing_bundle_is_refused() {
    let copy = StateCopy::new();
    fs::remove_file(copy.path("ceremony/bundle.kms")).expect("removes");
    fs::remove_file(copy.path("kms.db")).expect("removes");
    copy.refuses(&ALL, &["bundle", "bundle.kms", "cannot be read"]);
}

#[test]
fn an_edited_bundle_is_refused() {
    let copy = StateCopy::new();
    fs::remove_file(copy.path("kms.db")).expect("removes");
    let path = copy.path("ceremony/bundle.kms");
    let text = fs::read_to_string(&path).expect("reads");
    let lines: Vec<&str> = text.lines().collect();
    for place in [1, lines.len() / 2, lines.len() - 2] {
        let letter = lines[place].as_bytes()[10];
        let other = if letter == b'A' { "B" } else { "A" };
        let mut edited: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        edited[place].replace_range(10..11, other);
        fs::write(&path, edited.join("\n") + "\n").expect("writes");
        copy.refuses(&ALL, &["bundle"]);
    }
    fs::write(&path, "").expect("writes");
    copy.refuses(&ALL, &["bundle"]);
}

#[test]
fn a_bundle_of_another_deployment_is_refused() {
    let copy = StateCopy::new();
    fs::copy(foreign().bundle_file(), copy.path("ceremony/bundle.kms")).expect("copies");
    copy.refuses(&READERS, &["node_key is not the key of node node-1 in the bundle"]);
}

#[test]
fn another_node_key_or_node_name_is_refused() {
    let copy = StateCopy::new();
    fs::copy(foreign().state("node/node.key"), copy.path("node/node.key")).expect("copies");
    copy.refuses(&READERS, &["node_key is not the key of node node-1 in the bundle"]);
    let copy = StateCopy::new();
    copy.edit_config("node = \"node-1\"", "node = \"node-2\"");
    copy.refuses(&READERS, &["node_key is not the key of node node-2 in the bundle"]);
}

#[test]
fn a_missing_or_wrong_pkcs11_library_is_refused() {
    let copy = StateCopy::new();
    let text = fs::read_to_string(copy.config()).expect("reads");
    let line = text.lines().find(|line| line.starts_with("module = ")).expect("is there");
    copy.edit_config(line, "module = \"/nowhere/libpkcs11.so\"");
    copy.refuses(&RUN, &["/nowhere/libpkcs11.so"]);
    copy.edit_config("/nowhere/libpkcs11.so", "certificates/ca.pem");
    copy.refuses(&RUN, &["ca.pem"]);
}

#[test]
fn a_missing_token_is_refused_and_no_token_is_made() {
    let mut copy = StateCopy::new();
    copy.tokens = copy.path("../no-tokens");
    fs::create_dir(&copy.tokens).expect("a folder");
    copy.refuses(&RUN, &["kms-operations"]);
}

#[test]
fn the_token_of_another_deployment_is_refused() {
    let mut copy = StateCopy::new();
    copy.tokens = copy.path("../other-tokens");
    copy_folder(&foreign().state("tokens"), &copy.tokens);
    copy.refuses(&RUN, &["kms-operations"]);
}

#[test]
fn a_private_key_that_others_can_read_is_refused_with_the_command_that_helps() {
    for key in ["node/node.key", "certificates/server.key"] {
        for mode in [0o644, 0o640, 0o604] {
            let copy = StateCopy::new();
            fs::set_permissions(copy.path(key), fs::Permissions::from_mode(mode)).expect("sets the mode");
            copy.refuses(&READERS, &[key, "can be read by others", "chmod 600"]);
        }
    }
}

#[test]
fn certificates_that_are_none_are_refused() {
    for file in ["server.pem", "server.key", "ca.pem"] {
        let copy = StateCopy::new();
        fs::write(copy.path("certificates").join(file), "nothing\n").expect("writes");
        copy.refuses(&READERS, &["[tls]"]);
        fs::remove_file(copy.path("certificates").join(file)).expect("removes");
        copy.refuses(&READERS, &[file, "cannot be read"]);
    }
}

#[test]
fn an_unknown_missing_or_wrong_configuration_key_is_named() {
    for (from, to, hint) in [
        ("[database]", "[database]\nurll = \"x\"", "urll"),
        ("[hsm]", "[hsm]\npin = \"1234\"", "pin"),
        ("state_dir = \"node\"", "", "state_dir"),
        ("node = \"node-1\"", "node = 1", "node"),
        ("sqlite:", "mysql:", "database.url"),
        ("profile = \"auto\"", "profile = \"no-such-vendor\"", "no-such-vendor"),
    ] {
        let copy = StateCopy::new();
        copy.edit_config(from, to);
        let commands: &[&str] = if hint == "no-such-vendor" { &READERS } else { &ALL };
        copy.refuses(commands, &[hint]);
    }
    let copy = StateCopy::new();
    fs::remove_file(copy.config()).expect("removes");
    copy.refuses(&ALL, &["kms.toml", "cannot be read"]);
}

#[test]
fn a_missing_state_folder_is_refused_and_not_made() {
    let copy = StateCopy::new();
    copy.edit_config("state_dir = \"node\"", "state_dir = \"nowhere\"");
    copy.refuses(&RUN, &["state_dir", "nowhere"]);
}

#[test]
fn two_servers_do_not_share_a_state_folder() {
    let copy = StateCopy::new();
    let mut first = copy.start("run");
    wait_for(&copy.address(), &mut first);
    copy.start("run").finish().ended_with(1).says("locked by another kms-server").says("state_dir");
    assert!(first.is_running(), "the first goes on");
}

#[test]
fn a_port_in_use_is_refused() {
    let copy = StateCopy::new();
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = other.local_addr().expect("an address").to_string();
    copy.edit_config(&copy.address(), &taken);
    copy.refuses(&RUN, &["cannot listen on", &taken, "[listen]"]);
}

#[test]
fn dev_does_not_touch_a_folder_that_it_did_not_make() {
    let folder = TempDir::new().expect("a temporary folder");
    let state = folder.path().join("state");
    fs::create_dir(&state).expect("a folder");
    fs::write(state.join("letter.txt"), "mine").expect("writes");
    let arguments: [OsString; 3] = ["dev".into(), "--state".into(), state.clone().into()];
    let program = binaries::program("kms-server");
    Started::new(&program, &arguments, folder.path())
        .finish()
        .ended_with(1)
        .says("is not empty and holds no finished development deployment");
    assert_eq!(fs::read_dir(&state).expect("lists").count(), 1);
}
