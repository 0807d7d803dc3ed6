//! A folder with a token directory of its own, custodians, and the commands that they run.

use ceremonies::bundle_file::VerifiedBundle;
use ceremonies::random::os_rng;
use kms_core::asymmetric::PrivateKey;
use kms_core::id::NodeName;
use kms_core::suite::Suite;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

pub const CUSTODIANS: [&str; 3] = ["alice", "bob", "erin"];
pub const NODE: &str = "node-1";

pub struct Scene {
    folder: TempDir,
    pub suite: Suite,
    pub module: PathBuf,
    pub profile: &'static str,
    pub variable: (&'static str, PathBuf),
    pub node_key: PrivateKey,
}

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn of(output: Output) -> Self {
        Self {
            code: output.status.code().expect("the command was not killed"),
            stdout: String::from_utf8(output.stdout).expect("text"),
            stderr: String::from_utf8(output.stderr).expect("text"),
        }
    }

    #[track_caller]
    pub fn succeeds(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    #[track_caller]
    pub fn code_is(self, code: i32) {
        assert_eq!(self.code, code, "{self:?}");
    }

    /// The command refuses with exit code 1 and says each of `words`.
    #[track_caller]
    pub fn refuses(self, words: &[&str]) -> Self {
        assert_eq!(self.code, 1, "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in {self:?}");
        }
        self
    }
}

fn softhsm() -> PathBuf {
    let path = PathBuf::from("/usr/lib/softhsm/libsofthsm2.so");
    assert!(path.exists(), "SoftHSM is missing at {}; install it (Debian: softhsm2)", path.display());
    path
}

fn hsm_sim() -> PathBuf {
    let executable = std::env::current_exe().expect("the test knows where it is");
    executable
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(hsm_sim::module_file_name()))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("no hsm-sim library beside {}", executable.display()))
}

impl Scene {
    /// Suite intl on SoftHSM, suite sm on hsm-sim.
    pub fn new(suite: Suite) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let tokens = folder.path().join("tokens");
        fs::create_dir(&tokens).expect("the folder is new");
        let (module, profile, variable) = match suite {
            Suite::Intl => {
                let configuration = folder.path().join("softhsm2.conf");
                let text = format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display());
                fs::write(&configuration, text).expect("writes");
                (softhsm(), "softhsm", ("SOFTHSM2_CONF", configuration))
            }
            Suite::Sm => (hsm_sim(), "hsm-sim", (hsm_sim::DIRECTORY_VARIABLE, tokens)),
        };
        let node_key = PrivateKey::generate(suite, &mut os_rng());
        Self { folder, suite, module, profile, variable, node_key }
    }

    /// The same tokens and files in a folder of their own.
    pub fn copy(&self) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let status = Command::new("cp").arg("-a").arg(self.path(".")).arg(folder.path()).status();
        assert!(status.expect("cp starts").success());
        let moved =
            |path: &Path| folder.path().join(path.strip_prefix(self.folder.path()).expect("is inside"));
        let variable = (self.variable.0, moved(&self.variable.1));
        if self.suite == Suite::Intl {
            let text = format!(
                "directories.tokendir = {}\nlog.level = ERROR\n",
                folder.path().join("tokens").display()
            );
            fs::write(&variable.1, text).expect("writes");
        }
        let node_key = PrivateKey::generate(self.suite, &mut os_rng());
        let (module, profile, suite) = (self.module.clone(), self.profile, self.suite);
        Self { folder, suite, module, profile, variable, node_key }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).expect("writes");
        path
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("reads")
    }

    /// Any program in the scene's folder, with its tokens and without a terminal.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).env(self.variable.0, &self.variable.1).stdin(Stdio::null());
        command
    }

    /// `kms-ceremony` with arguments that are separated by blanks.
    pub fn run(&self, arguments: &str) -> Ran {
        let output = self
            .command(env!("CARGO_BIN_EXE_kms-ceremony"))
            .args(arguments.split_whitespace())
            .output()
            .expect("kms-ceremony starts");
        Ran::of(output)
    }

    pub fn run_tool(&self, program: &str, arguments: &str) -> Ran {
        let output = self.command(program).args(arguments.split_whitespace()).output();
        Ran::of(output.unwrap_or_else(|error| panic!("{program} is needed for this test: {error}")))
    }

    pub fn enroll(&self, name: &str) {
        self.enroll_for(name, self.suite, "enrolments");
    }

    pub fn enroll_for(&self, name: &str, suite: Suite, folder: &str) {
        self.write(&format!("{name}.passphrase"), format!("the passphrase of {name}\n"));
        let suite = suite.name();
        self.run(&format!(
            "enroll --name {name} --suite {suite} --out {folder} --passphrase-file {name}.passphrase"
        ))
        .succeeds();
    }

    /// A plan that is right.
    pub fn plan(&self) -> String {
        let mut key = String::new();
        for byte in self.node_key.public_key().as_bytes() {
            key.push_str(&format!("{byte:02x}"));
        }
        let mut plan = format!(
            r#"cluster = "test"
suite = "{}"
threshold = 2
principals = ["kms://default/operator/app", "kms://default/custodian/alice"]

[module]
path = "{}"
profile = "{}"

[operations]
label = "ops"

[core]
label = "core"

[[node]]
name = "{NODE}"
public_key = "{key}"
"#,
            self.suite.name(),
            self.module.display(),
            self.profile,
        );
        for name in CUSTODIANS {
            plan.push_str(&format!("\n[[custodian]]\nenrolment = \"enrolments/{name}.enrolment\"\n"));
        }
        plan
    }

    /// Everybody enrols, and the init ceremony runs.
    pub fn initialised(suite: Suite) -> Self {
        let scene = Self::new(suite);
        CUSTODIANS.into_iter().for_each(|name| scene.enroll(name));
        scene.write("plan.toml", scene.plan());
        scene.run("init --plan plan.toml --out made").succeeds();
        scene
    }

    /// [`Scene::initialised`], and everybody has accepted.
    pub fn accepted(suite: Suite) -> Self {
        let scene = Self::initialised(suite);
        for name in CUSTODIANS {
            scene.accept(name).succeeds();
        }
        scene
    }

    pub fn accept(&self, name: &str) -> Ran {
        self.write(&format!("{name}.share-passphrase"), format!("the other passphrase of {name}"));
        self.run(&format!(
            "share accept --delivery made/{name}.delivery --identity enrolments/{name}.identity \
             --bundle made/bundle.kms --out shares --passphrase-file {name}.passphrase \
             --share-passphrase-file {name}.share-passphrase"
        ))
    }

    pub fn bundle(&self) -> VerifiedBundle {
        VerifiedBundle::read(&self.path("made/bundle.kms")).expect("init made a valid bundle")
    }

    pub fn node(&self) -> NodeName {
        NodeName::parse(NODE).expect("valid")
    }
}

/// Names of the files in a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("can be listed").file_name().into_string().expect("text"))
        .collect();
    names.sort();
    names
}
