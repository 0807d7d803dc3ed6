//! A test in a process of its own: SoftHSM finds its tokens through an environment variable, which cannot be
//! changed safely once threads run.

use kms_tests::Deployment;
use std::path::PathBuf;
use std::process::Command;

/// Set in the process that runs one test; names SoftHSM's configuration.
const CONFIGURATION: &str = "SOFTHSM2_CONF";
/// Set in that process too.
const CHILD: &str = "KMS_FAULTS_CHILD";

/// Runs `body` in a process of its own. `test` is the test's full name.
pub fn run(test: &str, body: impl FnOnce()) {
    if std::env::var_os(CHILD).is_some() {
        return body();
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = Command::new(std::env::current_exe().expect("the running test is a program"))
        .args(["--exact", test, "--nocapture", "--test-threads", "1"])
        .env(CHILD, "1")
        .env(CONFIGURATION, folder.path().join("softhsm2.conf"))
        .output()
        .expect("the test starts again");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (said(&output.stdout), said(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    assert!(stdout.contains("1 passed"), "the test did not run: {stdout}");
    eprint!("{stderr}");
}

/// Lets this process use the tokens of a deployment, from the first use of SoftHSM on.
pub fn use_tokens_of(deployment: &Deployment) {
    let path = PathBuf::from(std::env::var_os(CONFIGURATION).expect("this is the test's own process"));
    let configuration = std::fs::read(deployment.state("softhsm2.conf")).expect("SoftHSM's configuration");
    std::fs::write(path, configuration).expect("SoftHSM's configuration is written");
}
