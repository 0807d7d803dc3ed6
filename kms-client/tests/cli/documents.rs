//! What documents and the command line say about each other.

use std::fs;
use std::process::Command;

const README: &str = include_str!("../../../README.md");
const EXAMPLE: &str = include_str!("../../examples/cached.rs");

fn kms(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_kms")).args(arguments).env_remove("KMS_PROFILE").output();
    let output = output.expect("the command starts");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The commands that `--help` lists, with their own below them: what a user sees, not what the code says.
fn subcommands() -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut rest: Vec<Vec<String>> = vec![vec![]];
    while let Some(path) = rest.pop() {
        let arguments: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
        let help = kms(&arguments);
        let Some(listed) = help.split("\nCommands:\n").nth(1) else { continue };
        for line in listed.lines().take_while(|line| line.starts_with("  ")) {
            let name = line.split_whitespace().next().expect("a line has a name").to_owned();
            if name != "help" {
                let path = [path.clone(), vec![name]].concat();
                found.push(path.clone());
                rest.push(path);
            }
        }
    }
    found
}

#[test]
fn the_program_in_the_readme_is_the_example_and_has_at_most_20_lines() {
    let block = README.split("```rust\n").nth(1).expect("README.md has a program");
    let block = block.split("```").next().expect("the block ends");
    assert_eq!(block, EXAMPLE);
    assert!(block.lines().count() <= 20, "{} lines", block.lines().count());
}

#[test]
fn every_command_is_in_the_completions_of_every_shell() {
    let commands = subcommands();
    assert!(commands.len() > 25, "{commands:?}");
    for shell in ["bash", "zsh", "fish"] {
        let script = kms(&["completions", shell]);
        for command in &commands {
            let name = command.last().expect("a command has a name");
            assert!(script.contains(name.as_str()), "{shell}: {command:?}");
        }
        assert!(
            script.contains("without-plaintext") && script.contains("expected-key"),
            "{shell}: options too"
        );
    }
}

#[test]
fn the_manual_has_a_page_for_every_command() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    kms(&["man", "--out", &folder.path().display().to_string()]);
    let page = |name: &str| {
        let page = fs::read_to_string(folder.path().join(format!("{name}.1")));
        page.unwrap_or_else(|error| panic!("{name}.1: {error}"))
    };
    assert_eq!(page("kms"), kms(&["man"]));
    for command in subcommands() {
        let name = format!("kms-{}", command.join("-"));
        assert!(page(&name).contains(".SH SYNOPSIS"), "{name}");
        if let [name] = command.as_slice() {
            let shown = name.replace('-', "\\-");
            assert!(page("kms").contains(&format!("kms\\-{shown}(1)")), "kms.1 names {name}");
        }
    }
}

/// docs/cli.md is the promise that scripts rely on.
#[test]
fn every_command_and_global_option_is_in_the_document() {
    let document =
        include_str!("../../../docs/cli.md").split("# `kms-ceremony`").next().expect("a first part");
    for command in subcommands() {
        // Groups have no line of their own.
        if ["key", "alias", "data-key", "asymmetric", "audit"].contains(&command.join(" ").as_str()) {
            continue;
        }
        let words = command.join(" ");
        let is_there =
            document.lines().filter(|line| line.starts_with('|')).any(|line| line.contains(&words));
        assert!(is_there, "docs/cli.md has no line for kms {words}");
    }
    for option in ["--profile", "--endpoint", "--output", "--timeout"] {
        assert!(document.contains(option), "docs/cli.md does not name {option}");
    }
}
