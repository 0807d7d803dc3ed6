//! House rules that a machine can see: import arrows, links, tests that documents name, paths of machines.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests are a member of the workspace")
        .to_owned()
}

fn tracked_files() -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git runs");
    assert!(output.status.success(), "git ls-files works in the checkout");
    output
        .stdout
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| root().join(String::from_utf8_lossy(name).as_ref()))
        .filter(|path| path.is_file())
        .collect()
}

fn text(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
        .into_owned()
}

/// What a crate may use of ours, and what it must never use.
struct Arrow {
    package: &'static str,
    may_use: &'static [&'static str],
    must_not: &'static [&'static str],
}

const ARROWS: [Arrow; 7] = [
    Arrow {
        package: "kms-core",
        may_use: &[],
        must_not: &["tokio", "sqlx", "tonic", "tracing", "log", "time"],
    },
    Arrow { package: "kms-hsm", may_use: &["kms-core"], must_not: &["tokio", "sqlx", "tonic"] },
    Arrow { package: "kms-proto", may_use: &[], must_not: &["sqlx", "cryptoki"] },
    // ceremonies and hsm-sim: for the feature `dev` only, checked below.
    Arrow {
        package: "kms-server",
        may_use: &["kms-core", "kms-hsm", "kms-proto", "ceremonies", "hsm-sim"],
        must_not: &["cryptoki", "cryptoki-sys"],
    },
    Arrow { package: "kms-client", may_use: &["kms-core", "kms-proto"], must_not: &["sqlx", "cryptoki"] },
    // kms-proto and kms-client: for the feature `online` only, checked below.
    Arrow {
        package: "ceremonies",
        may_use: &["kms-core", "kms-hsm", "kms-proto", "kms-client"],
        must_not: &["sqlx", "cryptoki"],
    },
    Arrow { package: "hsm-sim", may_use: &[], must_not: &["tokio", "sqlx", "tonic", "cryptoki"] },
];

const OURS: [&str; 8] =
    ["kms-core", "kms-hsm", "kms-proto", "kms-server", "kms-client", "ceremonies", "hsm-sim", "kms-tests"];

fn metadata() -> serde_json::Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON")
}

#[test]
fn imports_go_down_only() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    let names: BTreeSet<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    assert_eq!(names, BTreeSet::from(OURS), "the workspace has exactly these members");
    for arrow in ARROWS {
        let package = packages.iter().find(|one| one["name"] == arrow.package).expect("it is a member");
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let name = dependency["name"].as_str().expect("a name");
            // A test may look at anything; what is built into the crate may not.
            if dependency["kind"] == "dev" {
                continue;
            }
            assert!(!arrow.must_not.contains(&name), "{} must never see {name}", arrow.package);
            if OURS.contains(&name) {
                assert!(arrow.may_use.contains(&name), "{} must not use {name}", arrow.package);
            }
            let is_for_dev = arrow.package == "kms-server" && ["ceremonies", "hsm-sim"].contains(&name);
            let is_for_online = arrow.package == "ceremonies"
                && ["kms-proto", "kms-client", "tonic", "tokio"].contains(&name);
            if is_for_dev || is_for_online {
                assert_eq!(
                    dependency["optional"], true,
                    "{} uses {name} behind a feature only",
                    arrow.package
                );
            }
        }
    }
}

#[test]
fn only_dev_uses_the_ceremonies() {
    for path in tracked_files() {
        let is_server = path.starts_with(root().join("kms-server/src")) && !path.ends_with("dev.rs");
        if is_server && path.extension().is_some_and(|extension| extension == "rs") {
            for (number, line) in text(&path).lines().enumerate() {
                let uses = line.contains("ceremonies::cli") || line.contains("hsm_sim::");
                assert!(!uses, "{}:{}: only dev.rs uses ceremonies and hsm-sim", path.display(), number + 1);
            }
        }
    }
}

#[test]
fn links_in_documents_lead_somewhere() {
    for path in tracked_files().into_iter().filter(|path| path.extension().is_some_and(|e| e == "md")) {
        for (number, line) in text(&path).lines().enumerate() {
            for link in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                let file = link.split('#').next().unwrap_or_default();
                if file.is_empty() || link.contains("://") {
                    continue;
                }
                let target = path.parent().expect("a file is in a folder").join(file);
                assert!(target.exists(), "{}:{}: {link} leads nowhere", path.display(), number + 1);
            }
        }
    }
}

/// `ARCHITECTURE.md` names the tests that watch each invariant.
#[test]
fn every_test_that_the_architecture_names_exists() {
    let sources: String = tracked_files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| text(&path))
        .collect();
    let document = text(&root().join("ARCHITECTURE.md"));
    let section = document.split("## Invariants").nth(1).expect("ARCHITECTURE.md has a section Invariants");
    let section = section.split("\n## ").next().expect("a section");
    let mut count = 0;
    for name in section.split('`').skip(1).step_by(2).filter(|name| name.contains('_') && !name.contains('.'))
    {
        assert!(
            sources.contains(&format!("fn {name}(")),
            "ARCHITECTURE.md names the test {name}, which does not exist"
        );
        count += 1;
    }
    assert!(count >= 9, "each invariant has a test");
}

#[test]
fn nothing_names_a_folder_of_somebodys_machine() {
    let forbidden = [["/wo", "rk/"].concat(), ["/ro", "ot/"].concat(), ["/ho", "me/"].concat()];
    for path in tracked_files() {
        let content = text(&path);
        for folder in &forbidden {
            assert!(!content.contains(folder.as_str()), "{} names {folder}", path.display());
        }
    }
}

#[test]
fn nothing_unfinished_is_hidden_in_the_code() {
    for path in tracked_files().into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs")) {
        for (number, line) in text(&path).lines().enumerate() {
            let is_hidden = line.contains(&["TO", "DO"].concat()) && !line.contains(&["TO", "DO(#"].concat())
                || line.contains(&["FIX", "ME"].concat())
                || line.trim_start().starts_with(&["#[al", "low("].concat());
            assert!(!is_hidden, "{}:{}: {line}", path.display(), number + 1);
        }
    }
}
