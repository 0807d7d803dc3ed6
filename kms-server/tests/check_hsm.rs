//! `kms-server check-hsm` as an operator runs it, on both modules.

#![cfg(feature = "dev")]

use kms_core::spec::{KeyAlgorithm, KeySpec};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

const SERVER: &str = env!("CARGO_BIN_EXE_kms-server");
const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// A deployment that `kms-server dev` has made and left again.
struct Deployment {
    folder: TempDir,
}

impl Deployment {
    fn new(module: Option<&str>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new(SERVER);
        command.args(["dev", "--seal", "--listen", "127.0.0.1:0", "--state"]).arg(folder.path());
        if let Some(module) = module {
            command.args(["--module", module]);
        }
        let mut server = command.stdout(Stdio::piped()).spawn().expect("kms-server starts");
        let lines = BufReader::new(server.stdout.take().expect("its output is a pipe")).lines();
        let is_ready = lines.map_while(Result::ok).any(|line| line.contains("kms-server dev is "));
        let _ = server.kill();
        server.wait().expect("it ends");
        assert!(is_ready, "the deployment is made");
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Changes the configuration.
    fn configure(&self, from: &str, to: &str) {
        let path = self.path("kms.toml");
        let text = fs::read_to_string(&path).expect("the configuration");
        assert!(text.contains(from), "{from} is in {text}");
        fs::write(&path, text.replacen(from, to, 1)).expect("writes");
    }

    fn check(&self, arguments: &[&str]) -> Output {
        check(&self.path("kms.toml"), self.folder.path(), arguments)
    }

    fn report(&self) -> Value {
        let output = self.check(&["--output", "json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }
}

fn check(config: &Path, state: &Path, arguments: &[&str]) -> Output {
    Command::new(SERVER)
        .args(["check-hsm", "--config"])
        .arg(config)
        .args(arguments)
        .env("HSM_SIM_DIR", state.join("tokens"))
        .env("SOFTHSM2_CONF", state.join("softhsm2.conf"))
        .output()
        .expect("kms-server starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn spec<'a>(report: &'a Value, name: &str) -> &'a Value {
    let specs = report["key_specs"].as_array().expect("a list");
    specs.iter().find(|one| one["spec"] == name).expect("every specification is there")
}

fn is_of_pair(mechanism: &Value) -> bool {
    mechanism["needed_for"].as_str().is_some_and(|needed_for| needed_for.starts_with("pair "))
}

fn sentences(report: &Value, field: &str) -> String {
    report[field].to_string()
}

/// Keys for raw encryption are resident on no token.
fn is_raw(key: &KeySpec) -> bool {
    matches!(key.algorithm(), KeyAlgorithm::Raw(_))
}

#[test]
fn on_the_simulator_every_key_will_be_resident() {
    let deployment = Deployment::new(None);
    let output = deployment.check(&[]);
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    for expected in
        ["profile  hsm-sim (run against this module)", "suite    sm", "kms-operations", "kms-core"]
    {
        assert!(shown.contains(expected), "{shown}");
    }
    let report = deployment.report();
    for key in KeySpec::ALL {
        let expected = if is_raw(&key) { "wrapped" } else { "resident" };
        assert_eq!(spec(&report, key.name())["protection"], expected, "{report}");
    }
    assert_eq!(spec(&report, "sm4-cbc-hmac-sm3")["why"], "such a key is two keys in one");
    assert!(spec(&report, "3des")["why"].to_string().contains("keys.legacy"), "{report}");
    let mechanisms = report["mechanisms"].as_array().expect("a list");
    // Two for each symmetric specification, and for the signing keys of either suite.
    let is_symmetric = |spec: &KeySpec| spec.key_len().is_some() && !is_raw(spec);
    let symmetric = KeySpec::ALL.into_iter().filter(is_symmetric).count();
    assert_eq!(mechanisms.iter().filter(|one| !is_of_pair(one)).count(), 2 * (symmetric + 2));
    for pair in ["pair sm2 sign", "pair sm2 decrypt", "pair rsa-4096 decrypt", "pair ed25519 sign"] {
        assert!(mechanisms.iter().any(|one| one["needed_for"] == pair), "{pair}: {report}");
    }
    assert!(mechanisms.iter().all(|one| one["presence"] == "present"), "{report}");
    let tokens = report["tokens"].as_array().expect("a list");
    assert!(tokens.iter().all(|one| one["state"] == "ready"), "{report}");
    assert_eq!((sentences(&report, "faults"), sentences(&report, "reduced")), ("[]".into(), "[]".into()));
}

#[test]
fn on_softhsm_sm4_keys_will_be_wrapped_and_the_reason_is_said() {
    let deployment = Deployment::new(Some(SOFTHSM));
    let output = deployment.check(&[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text(&output.stdout).contains("profile  softhsm (run against this module)"));
    let report = deployment.report();
    assert_eq!(
        (&report["suite"], &spec(&report, "aes-256")["protection"]),
        (&"intl".into(), &"resident".into())
    );
    for key in KeySpec::ALL {
        let is_sm = matches!(key, KeySpec::Sm4 | KeySpec::HmacSm3 | KeySpec::Sm2);
        let expected = if is_sm || is_raw(&key) { "wrapped" } else { "resident" };
        assert_eq!(spec(&report, key.name())["protection"], expected, "{report}");
    }
    assert_eq!(spec(&report, "sm4")["why"], "the profile has no mechanism for it");
    let codes: Vec<&str> = report["mechanisms"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|one| !is_of_pair(one))
        .filter_map(|one| one["code"].as_str())
        .collect();
    assert!(codes.contains(&"0x00001087") && codes.len() == 14, "{codes:?}");
}

/// The same token through another vendor's numbers: what is missing is named, and the suite cannot be used.
#[test]
fn a_profile_that_names_mechanisms_the_token_lacks_ends_with_1_and_names_them() {
    let deployment = Deployment::new(None);
    deployment.configure("profile = \"auto\"", "profile = \"sansec\"");
    let output = deployment.check(&[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let complaint = text(&output.stderr);
    for expected in
        ["error: the HSM cannot be used", "a master key", "the row-MAC key", "no mechanism for it"]
    {
        assert!(complaint.contains(expected), "{complaint}");
    }
    let report = deployment.report();
    let reduced = sentences(&report, "reduced");
    for expected in
        ["from the vendor's documents, never run", "no trusted wrapping", "cannot use this profile yet"]
    {
        assert!(reduced.contains(expected), "{reduced}");
    }
    assert!(reduced.contains("of the secret's 256 bits"), "{reduced}");

    // A profile from a file, beside the configuration, with a number that nobody has.
    let built_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kms-hsm/src/profiles/hsm-sim.toml");
    let card = fs::read_to_string(built_in).expect("the profile").replace("0x8000010f", "0x8000abcd");
    fs::write(deployment.path("card.toml"), card).expect("writes");
    deployment.configure("profile = \"sansec\"", "profile = \"card.toml\"");
    let complaint = text(&deployment.check(&[]).stderr);
    assert!(complaint.contains("a master key: the token does not have 0x8000abcd"), "{complaint}");
    let report = deployment.report();
    assert_eq!(spec(&report, "sm4")["protection"], "wrapped");
    assert_eq!(spec(&report, "sm4")["why"], "the token does not have 0x8000abcd");
}

#[test]
fn a_token_that_is_not_there_ends_with_1_and_is_named() {
    let deployment = Deployment::new(None);
    fs::rename(deployment.path("tokens"), deployment.path("away")).expect("the tokens go");
    fs::create_dir(deployment.path("tokens")).expect("an empty folder");
    let output = deployment.check(&[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let complaint = text(&output.stderr);
    assert!(complaint.contains("the operations token is not there"), "{complaint}");
    assert!(complaint.contains("kms-operations"), "{complaint}");
    assert!(text(&output.stdout).contains("not found"));
}

/// The command that comes first: nothing is initialised, and there is no bundle.
#[test]
fn before_the_init_ceremony_it_shows_what_there_is() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::create_dir_all(folder.path().join("tokens")).expect("a folder");
    let example = include_str!("../../config.example.toml");
    let softhsm = folder.path().join("softhsm2.conf");
    let tokens = folder.path().join("tokens").display().to_string();
    fs::write(softhsm, format!("directories.tokendir = {tokens}\nobjectstore.backend = file\n"))
        .expect("writes");
    let config = folder.path().join("kms.toml");
    fs::write(&config, example).expect("writes");
    let output = check(&config, folder.path(), &[]);
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    for expected in ["none yet: there is no bundle", "not initialised", "suite sm cannot be used here"] {
        assert!(shown.contains(expected), "{shown}");
    }
    assert!(fs::read_dir(&tokens).expect("the folder").next().is_none(), "nothing was made");
}

#[test]
fn a_library_that_does_not_load_and_a_profile_that_does_not_fit_end_with_1() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = folder.path().join("kms.toml");
    let example = include_str!("../../config.example.toml");
    for (from, to, expected) in [
        (SOFTHSM, "/nonexistent/pkcs11.so", "/nonexistent/pkcs11.so cannot be loaded"),
        ("profile = \"auto\"", "profile = \"acme\"", "no built-in profile \"acme\""),
        ("profile = \"auto\"", "profile = \"acme.toml\"", "acme.toml cannot be read"),
    ] {
        fs::write(&config, example.replace(from, to)).expect("writes");
        let output = check(&config, folder.path(), &[]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(text(&output.stderr).contains(expected), "{output:?}");
    }
}
