//! Outsiders' programs on a fresh token: what they find wrong with the module is wrong with it.
//!
//! A program that is not there is a failure, not a reason to skip; `scripts/test` installs them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const SO_PIN: &str = "12345678";
const USER_PIN: &str = "123456";
const LABEL: &str = "tools";

/// A program and the Debian package that it comes in.
#[derive(Debug, Clone, Copy)]
struct Tool {
    program: &'static str,
    package: &'static str,
}

const PKCS11_TOOL: Tool = Tool { program: "pkcs11-tool", package: "opensc" };
const P11TOOL: Tool = Tool { program: "p11tool", package: "gnutls-bin" };

/// A directory with one token in it, and what a program said about it.
struct Token(tempfile::TempDir);

/// The shared object lies in the directory of this test binary, or one above.
fn module_path() -> PathBuf {
    let executable = std::env::current_exe().expect("the system knows this executable");
    executable
        .ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join(hsm_sim::module_file_name()))
        .find(|path| path.exists())
        .expect("cargo builds the shared object together with its tests")
}

/// Everything that the program wrote; fails if the program did.
fn run(tool: Tool, tokens: &Path, arguments: &[&str]) -> String {
    let Tool { program, package } = tool;
    let output = Command::new(program).args(arguments).env(hsm_sim::DIRECTORY_VARIABLE, tokens).output();
    let Ok(Output { status, stdout, stderr }) = output else {
        panic!("{program} is not installed: it is in the package {package}")
    };
    let said = format!("{}\n{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{program} {arguments:?} ends with {status}:\n{said}");
    said
}

impl Token {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let token = Self(directory);
        token.pkcs11_tool(&["--init-token", "--slot-index", "0", "--label", LABEL, "--so-pin", SO_PIN]);
        let as_so = ["--token-label", LABEL, "--login", "--login-type", "so", "--so-pin", SO_PIN];
        token.pkcs11_tool(&[&as_so[..], &["--init-pin", "--pin", USER_PIN]].concat());
        token
    }

    fn pkcs11_tool(&self, arguments: &[&str]) -> String {
        let module = module_path();
        let module = ["--module", module.to_str().expect("a plain path")];
        run(PKCS11_TOOL, self.0.path(), &[&module[..], arguments].concat())
    }

    fn as_user(&self, arguments: &[&str]) -> String {
        let login = ["--token-label", LABEL, "--login", "--pin", USER_PIN];
        self.pkcs11_tool(&[&login[..], arguments].concat())
    }

    /// One key of each kind that `pkcs11-tool --test` does something with.
    fn with_keys() -> Self {
        let token = Self::new();
        for (key_type, id) in [("rsa:2048", "01"), ("EC:prime256v1", "02")] {
            let uses = ["--usage-sign", "--usage-decrypt", "--usage-wrap", "--usage-derive"];
            let uses = if id == "01" { &uses[..3] } else { &uses[..1] };
            let generate = ["--keypairgen", "--key-type", key_type, "--id", id, "--label", key_type];
            token.as_user(&[&generate[..], uses].concat());
        }
        token.as_user(&[
            "--keygen",
            "--key-type",
            "AES:32",
            "--id",
            "03",
            "--label",
            "aes",
            "--private",
            "--sensitive",
            "--usage-decrypt",
        ]);
        token
    }
}

fn require(said: &str, wanted: &str) {
    assert!(said.contains(wanted), "no line says {wanted:?}:\n{said}");
}

#[test]
fn the_test_of_pkcs11_tool_finds_no_error_on_an_empty_token() {
    require(&Token::new().as_user(&["--test"]), "No errors");
}

#[test]
fn the_test_of_pkcs11_tool_finds_no_error_with_keys() {
    let token = Token::with_keys();
    require(&token.as_user(&["--test"]), "No errors");
    // No mechanism of this module claims to be hardware; without this the signatures are left out.
    let said = token.as_user(&["--test", "--allow-sw"]);
    require(&said, "No errors");
    for tested in [
        "Signatures (currently only for RSA)",
        "    RSA-PKCS: OK",
        "    SHA256-RSA-PKCS: OK",
        "    RSA-PKCS-OAEP:",
    ] {
        require(&said, tested);
    }
}

#[test]
fn the_curve_test_of_pkcs11_tool_finds_no_error() {
    let token = Token::new();
    let key = ["--key-type", "EC:prime256v1", "--id", "04", "--label", "curve"];
    token.as_user(&[&["--session-rw", "--test-ec"][..], &key].concat());
}

#[test]
fn the_thread_test_of_pkcs11_tool_finds_no_error() {
    let token = Token::with_keys();
    // Two letters each: initialise with or without locking, ask for information, for the slots, and
    // for the token in the first slot. Beside the threads the tool makes its other tests; without
    // those it sleeps for half a minute before it looks at its threads again.
    std::thread::scope(|scope| {
        for (script, threads) in [("ILGISLT0", 1), ("ILGISLT0", 2), ("ILGISLT0", 8), ("INGISLT0", 4)] {
            let token = &token;
            scope.spawn(move || {
                let options: Vec<_> = (0..threads).flat_map(|_| ["--test-threads", script]).collect();
                let with = [&["--use-locking", "--test", "--allow-sw"], &options[..]].concat();
                let said = token.as_user(&with);
                require(&said, "test_threads all threads have ended with CKR_OK");
                require(&said, "No errors");
            });
        }
    });
}

#[test]
fn p11tool_lists_the_mechanisms() {
    let token = Token::new();
    let module = module_path();
    let module = module.to_str().expect("a plain path");
    let url = format!("pkcs11:token={LABEL}");
    let said = run(P11TOOL, token.0.path(), &["--provider", module, "--list-mechanisms", &url]);
    for line in [
        "[0x1087] CKM_AES_GCM keysize range (16, 32) encrypt decrypt wrap unwrap",
        "[0x0001] CKM_RSA_PKCS keysize range (2048, 4096) encrypt decrypt sign verify wrap unwrap",
        "[0x80008100] UNKNOWN keysize range (256, 256) sign verify",
    ] {
        require(&said, line);
    }
}
