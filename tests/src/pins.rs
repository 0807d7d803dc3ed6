//! Attempts at the PINs of a deployment's tokens, seen from outside: with another program, and on the disk.

use crate::binaries;
use crate::command::{Finished, Started};
use crate::deployment::{Deployment, Module};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The tokens of a deployment.
const LABELS: [&str; 2] = ["kms-core", "kms-operations"];

/// The tokens of a deployment, with a program that is not ours.
#[derive(Clone, Debug)]
pub struct Outsider {
    library: PathBuf,
    environment: (OsString, OsString),
}

impl Outsider {
    /// At the tokens of a deployment.
    pub fn of(deployment: &Deployment) -> Self {
        match deployment.options().module {
            Module::Sim => Self::of_simulator(&deployment.state("tokens")),
            Module::SoftHsm => Self {
                library: binaries::softhsm().to_owned(),
                environment: ("SOFTHSM2_CONF".into(), deployment.state("softhsm2.conf").into()),
            },
        }
    }

    /// At a folder with the simulator's tokens.
    pub fn of_simulator(tokens: &Path) -> Self {
        Self {
            library: binaries::folder().join("deps").join(hsm_sim::module_file_name()),
            environment: (hsm_sim::DIRECTORY_VARIABLE.into(), tokens.into()),
        }
    }

    /// Runs `pkcs11-tool`.
    ///
    /// # Panics
    /// When it is not installed.
    #[track_caller]
    pub fn pkcs11_tool(&self, arguments: &[&str]) -> Finished {
        let mut all: Vec<OsString> = vec!["--module".into(), self.library.clone().into()];
        all.extend(arguments.iter().map(OsString::from));
        let program = Path::new("/usr/bin/pkcs11-tool");
        assert!(program.is_file(), "pkcs11-tool is missing; run: apt-get install opensc (scripts/test does)");
        let environment = [self.environment.clone()];
        Started::with_environment(program, &all, Path::new("/"), &environment).finish()
    }

    /// The flags that each token shows to anybody, by its label.
    ///
    /// # Panics
    /// When not exactly the two tokens of a deployment are there.
    #[track_caller]
    pub fn token_flags(&self) -> BTreeMap<String, BTreeSet<String>> {
        let listed = self.pkcs11_tool(&["--list-token-slots"]).done();
        let value = |line: &str, name| {
            let (found, value) = line.split_once(':')?;
            (found.trim() == name).then(|| value.trim().to_owned())
        };
        let labels = listed.lines().filter_map(|line| value(line, "token label"));
        let flags = listed.lines().filter_map(|line| value(line, "token flags"));
        let of_each = flags.map(|flags| flags.split(", ").map(str::to_owned).collect());
        let tokens: BTreeMap<String, BTreeSet<String>> = labels.zip(of_each).collect();
        assert!(tokens.keys().eq(LABELS), "{listed}");
        tokens
    }
}

/// Which file stands at a path: another one after every replacement.
type FileMark = (u64, i64, i64);

/// Sees whether anybody was wrong about a PIN since it began.
///
/// There are two witnesses. The flags of a token say that a PIN was wrong since it was right the last time: a right one
/// clears them. The simulator replaces the state file of a token before it answers to a wrong PIN, and again with
/// the next right one: as long as the file is the same, nobody was wrong, whoever was right meanwhile.
#[derive(Debug)]
pub struct PinWatch {
    outsider: Outsider,
    /// Empty on SoftHSM, which writes at every login.
    states: BTreeMap<PathBuf, FileMark>,
}

impl PinWatch {
    /// Begins to watch a deployment's tokens.
    ///
    /// # Panics
    /// When the tokens are not there.
    pub fn of(deployment: &Deployment) -> Self {
        match deployment.options().module {
            Module::Sim => Self::of_simulator(&deployment.state("tokens")),
            Module::SoftHsm => Self { outsider: Outsider::of(deployment), states: BTreeMap::new() },
        }
    }

    /// Begins to watch a folder with the simulator's tokens.
    ///
    /// # Panics
    /// When the tokens are not there.
    pub fn of_simulator(tokens: &Path) -> Self {
        let entries = fs::read_dir(tokens).expect("the folder of the tokens");
        let paths = entries.map(|entry| entry.expect("lists").path().join("state"));
        let states: BTreeMap<_, _> = paths.filter_map(|path| Some((path.clone(), mark(&path)?))).collect();
        assert_eq!(states.len(), LABELS.len(), "each token has a state file: {states:?}");
        Self { outsider: Outsider::of_simulator(tokens), states }
    }

    /// Everything that an attempt has left behind; nothing when there was none.
    ///
    /// # Panics
    /// When the tokens do not answer.
    pub fn traces(&self) -> Vec<String> {
        let flags = self.outsider.token_flags().into_iter().flat_map(|(label, flags)| {
            let tells =
                |flag: &String| ["count low", "final", "locked"].iter().any(|word| flag.contains(word));
            flags.into_iter().filter(tells).map(move |flag| format!("{label}: {flag}"))
        });
        let replaced = self.states.iter().filter(|(path, before)| mark(path) != Some(**before));
        let replaced = replaced.map(|(path, _)| format!("{}: replaced", path.display()));
        flags.chain(replaced).collect()
    }

    /// No attempt at any PIN was spent.
    ///
    /// # Panics
    /// When one was.
    #[track_caller]
    pub fn no_attempt_was_spent(&self) {
        let traces = self.traces();
        assert!(traces.is_empty(), "an attempt at a PIN was spent: {traces:?}");
    }
}

fn mark(path: &Path) -> Option<FileMark> {
    let metadata = fs::metadata(path).ok()?;
    // A number may be given to a later file again; the time at which a file was put in its place is not.
    Some((metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))
}
