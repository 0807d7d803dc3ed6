//! Copies of a stopped deployment's state folder, for servers that are started by hand.

use kms_tests::deployment::free_port;
use kms_tests::{Deployment, Finished, Options, Started, binaries};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A state folder that a server left behind in good order.
pub fn original() -> &'static Deployment {
    static STOPPED: OnceLock<Deployment> = OnceLock::new();
    STOPPED.get_or_init(|| {
        let deployment = Deployment::start(Options::default());
        assert!(deployment.terminate().success());
        deployment
    })
}

/// A second one, with nothing in common.
pub fn foreign() -> &'static Deployment {
    static STOPPED: OnceLock<Deployment> = OnceLock::new();
    STOPPED.get_or_init(|| {
        let deployment = Deployment::start(Options::default());
        assert!(deployment.terminate().success());
        deployment
    })
}

pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a folder");
    for entry in fs::read_dir(from).expect("lists") {
        let from = entry.expect("lists").path();
        let to = to.join(from.file_name().expect("a name"));
        if from.is_dir() {
            copy_folder(&from, &to);
        } else {
            fs::copy(&from, &to).expect("copies");
        }
    }
}

/// A copy of the state folder that a test may spoil.
pub struct StateCopy {
    folder: TempDir,
    /// The tokens that the server is given.
    pub tokens: PathBuf,
}

/// Every file with its content: what "nothing created" is checked against.
type Listing = BTreeMap<PathBuf, Vec<u8>>;

fn list(folder: &Path, into: &mut Listing) {
    for entry in fs::read_dir(folder).expect("lists") {
        let path = entry.expect("lists").path();
        if path.is_dir() {
            into.insert(path.clone(), Vec::new());
            list(&path, into);
        } else {
            let content = fs::read(&path).expect("reads");
            into.insert(path, content);
        }
    }
}

impl StateCopy {
    pub fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        copy_folder(&original().state(""), &folder.path().join("state"));
        let tokens = folder.path().join("state/tokens");
        let copy = Self { folder, tokens };
        let (address, metrics) = (original().address(), original().metrics_address());
        copy.edit_config(&address, &Self::free_address());
        copy.edit_config(&metrics, &Self::free_address());
        copy
    }

    /// An address that nothing listens on.
    pub fn free_address() -> String {
        format!("127.0.0.1:{}", free_port())
    }

    /// A client profile of the original that speaks with another address.
    pub fn profile(&self, name: &str, address: &str) -> PathBuf {
        let text = fs::read_to_string(original().profile(name)).expect("reads");
        let path = self.folder.path().join(format!("{name}.toml"));
        fs::write(&path, text.replace(&original().address(), address)).expect("writes");
        path
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("state").join(name)
    }

    pub fn config(&self) -> PathBuf {
        self.path("kms.toml")
    }

    pub fn edit_config(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.config()).expect("reads");
        assert!(text.contains(from), "the configuration has no {from:?}:\n{text}");
        fs::write(self.config(), text.replace(from, to)).expect("writes");
    }

    pub fn address(&self) -> String {
        let text = fs::read_to_string(self.config()).expect("reads");
        let line = text.lines().find_map(|line| line.strip_prefix("administration = ")).expect("is there");
        line.trim_matches('"').to_owned()
    }

    fn listing(&self) -> Listing {
        let mut listing = Listing::new();
        list(self.folder.path(), &mut listing);
        listing
    }

    pub fn start(&self, command: &str) -> Started {
        let arguments: [OsString; 3] = [command.into(), "--config".into(), self.config().into()];
        let environment = [(hsm_sim::DIRECTORY_VARIABLE.into(), self.tokens.clone().into())];
        let program = binaries::program("kms-server");
        Started::with_environment(&program, &arguments, self.folder.path(), &environment)
    }

    /// Every command refuses with the sentence, and every file is as it was.
    #[track_caller]
    pub fn refuses(&self, commands: &[&str], hints: &[&str]) {
        let before = self.listing();
        for command in commands {
            let mut finished: Finished = self.start(command).finish().ended_with(1);
            for hint in hints {
                finished = finished.says(hint);
            }
            let is_a_sentence = finished.stderr.lines().any(|line| line.starts_with("error: "));
            assert!(is_a_sentence, "{}", finished.stderr);
            let after = self.listing();
            let changed: Vec<_> = after
                .iter()
                .filter(|(path, content)| before.get(*path) != Some(content))
                .map(|(path, _)| path)
                .chain(before.keys().filter(|path| !after.contains_key(*path)))
                .collect();
            assert!(changed.is_empty(), "{command} changed {changed:?}");
        }
    }
}

/// Waits until a started server listens.
pub fn wait_for(address: &str, server: &mut Started) {
    let end = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(address).is_err() {
        assert!(server.is_running() && Instant::now() < end, "the server does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
}
