//! The README's tour, run line by line as a reader would type it.

use kms_core::suite::Suite;
use kms_tests::{Deployment, Module, Options, Started, audit, binaries};
use std::fs;
use std::path::{Path, PathBuf};

/// What opens the block of commands in the README.
const TOUR: &str = "```console tour";
/// The events that the tour must leave behind.
const EVENTS: [&str; 4] = ["key.create", "key.rotate", "data_key.generate", "data_key.decrypt"];

fn readme() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")
}

/// The commands of the tour: lines that begin with `$ `, joined where they end with a backslash.
fn commands(readme: &str) -> Vec<String> {
    let mut lines = readme.lines().skip_while(|line| line.trim() != TOUR).skip(1);
    let block = lines.by_ref().take_while(|line| line.trim() != "```");
    let mut commands: Vec<String> = Vec::new();
    let mut is_continued = false;
    for line in block {
        match line.strip_prefix("$ ") {
            Some(command) => commands.push(command.to_owned()),
            None if is_continued => {
                let command = commands.last_mut().expect("a continued line follows a command");
                command.push('\n');
                command.push_str(line);
            }
            None => continue,
        }
        is_continued = line.ends_with('\\');
    }
    assert!(!commands.is_empty(), "README.md has no block {TOUR:?} with lines \"$ COMMAND\"");
    commands
}

/// Whether another file of the folder has exactly these bytes.
fn has_copy(folder: &Path, original: &[u8]) -> bool {
    fs::read_dir(folder)
        .expect("the folder lists")
        .map(|entry| entry.expect("the folder lists").path())
        .filter(|path| path.is_file() && !path.ends_with("README.md"))
        .any(|path| fs::read(path).is_ok_and(|bytes| bytes == original))
}

fn take_the_tour(options: Options) {
    let text = fs::read_to_string(readme()).expect("README.md is beside Cargo.toml");
    let deployment = Deployment::start(options);
    fs::copy(readme(), deployment.folder().join("README.md")).expect("the README is copied");
    let built = binaries::folder();
    // The tour may name the programs as in a checkout, or by their names alone.
    fs::create_dir(deployment.folder().join("target")).expect("a folder");
    std::os::unix::fs::symlink(&built, deployment.folder().join("target/release")).expect("a link");
    let path = format!("{}:{}", built.display(), std::env::var("PATH").expect("PATH is set"));
    for command in commands(&text) {
        if command.contains("kms-server dev") {
            // This test has done that already, with a port of its own.
            continue;
        }
        let environment = [("PATH".into(), path.clone().into()), ("KMS_STATE".into(), ".kms-dev".into())];
        let shell = Path::new("/bin/sh");
        Started::with_environment(shell, &["-ec", &command], deployment.folder(), &environment)
            .finish()
            .done();
    }
    assert!(has_copy(deployment.folder(), text.as_bytes()), "no file of the tour is equal to README.md");
    let summary = audit::verify(&deployment);
    for event in EVENTS {
        assert_ne!(summary["events"][event]["done"].as_u64(), None, "the log has no {event}: {summary}");
        assert_ne!(summary["events"][event]["done"], 0, "the log has no {event}: {summary}");
    }
    assert!(deployment.terminate().success());
}

#[test]
fn the_tour_of_the_readme_works_on_the_simulator() {
    take_the_tour(Options::default());
}

#[test]
fn the_tour_of_the_readme_works_on_softhsm() {
    take_the_tour(Options { module: Module::SoftHsm, suite: Suite::Intl, ..Options::default() });
}
