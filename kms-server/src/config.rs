//! The configuration file: parsed once, unknown keys refused, every complaint names its key.

use kms_core::id::{NameError, NodeName};
use kms_hsm::ProfileChoice;
use serde::Deserialize;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod specs;

pub use specs::{AllowedSpecs, LegacySpecs, SpecsError};

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("{what} {path} cannot be read")]
    Unreadable {
        /// Which file.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong kind.
    #[error("{path} is not a valid configuration: {message}")]
    Syntax {
        /// The configuration file.
        path: PathBuf,
        /// What the parser says.
        message: String,
    },
    /// A value that is not allowed.
    #[error("{key} {message}")]
    Value {
        /// The configuration key.
        key: &'static str,
        /// What is wrong and what is allowed.
        message: String,
    },
    /// A private key that others can read.
    #[error("{what} {path} can be read by others (mode {mode:03o}); run: chmod 600 {path}")]
    Exposed {
        /// Which file.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// Everything that a server needs to know before it starts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// This node's name in the bundle.
    pub node: String,
    /// Folder for what belongs to this node alone: its lock and the second place of checkpoints.
    pub state_dir: PathBuf,
    /// The bundle file.
    pub bundle: PathBuf,
    /// The node's private key (PEM, mode 600).
    pub node_key: PathBuf,
    /// Where to listen.
    pub listen: Listen,
    /// Certificates.
    pub tls: Tls,
    /// The database.
    pub database: DatabaseUrl,
    /// The HSM.
    pub hsm: Hsm,
    /// Ceremonies.
    pub ceremony: CeremonyWorker,
    /// Which keys are made.
    #[serde(default)]
    pub keys: Keys,
    /// Limits.
    #[serde(default)]
    pub limits: Limits,
    /// The log for operators.
    #[serde(default)]
    pub log: Log,
}

/// Addresses. Applications and administration may share one.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Crypto, DescribeKey, status.
    pub applications: SocketAddr,
    /// Keys, Audit, System, Ceremony.
    pub administration: SocketAddr,
    /// Prometheus metrics, mutual TLS as everywhere; absent: none.
    pub metrics: Option<SocketAddr>,
}

/// Certificates; all PEM.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The server's certificate chain.
    pub certificate: PathBuf,
    /// Its private key (mode 600).
    pub key: PathBuf,
    /// The authority of client certificates.
    pub client_ca: PathBuf,
}

/// The database.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseUrl {
    /// `sqlite:PATH` or `postgres://…`.
    pub url: String,
}

/// The HSM.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hsm {
    /// The PKCS#11 library.
    pub module: PathBuf,
    /// `auto`, the name of a built-in vendor profile, or the path of a profile's file.
    #[serde(default = "auto")]
    pub profile: String,
    /// Sessions that work at the same time.
    #[serde(default = "four")]
    pub workers: usize,
    /// How long the token may stay away before the node seals, in seconds.
    #[serde(default = "sixty")]
    pub grace_seconds: u64,
    /// A call that is inside the driver for longer than this, and past its deadline, counts as stuck, in seconds.
    #[serde(default = "ten")]
    pub hang_seconds: u64,
    /// How many workers may be stuck and still be replaced.
    #[serde(default = "four")]
    pub stuck_threads_max: usize,
    /// So many failures of the device in a row, and calls are refused until its self-test has passed.
    #[serde(default = "five")]
    pub breaker_failures: u32,
    /// How far apart the self-tests are at most, in seconds; the first ones come sooner.
    #[serde(default = "one_second")]
    pub breaker_probe_seconds: u64,
}

/// How the ceremony worker is started.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CeremonyWorker {
    /// Program and arguments, for example `["/usr/bin/kms-ceremony", "worker"]`.
    pub worker: Vec<String>,
    /// How long a ceremony collects, in seconds; at most 300.
    #[serde(default = "window")]
    pub window_seconds: u64,
}

/// Which keys are made.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// The specifications of new keys and data keys. Keys that are there already go on working.
    pub specs: AllowedSpecs,
    /// The legacy specifications whose keys are taken and used, to open old data. None by default.
    pub legacy: LegacySpecs,
    /// How long after an unseal this node begins to destroy what is due, in seconds: time to notice a wrong clock.
    pub destruction_delay_seconds: u32,
    /// How often one version of a resident key encrypts at most, 1 to 2^32 (NIST SP 800-38D, section 8.3).
    pub resident_encryptions_max: u64,
}

/// Most encryptions with random nonces under one key (NIST SP 800-38D, section 8.3).
const RESIDENT_ENCRYPTIONS_MAX: u64 = 1 << 32;

impl Default for Keys {
    fn default() -> Self {
        Self {
            specs: AllowedSpecs::default(),
            legacy: LegacySpecs::default(),
            destruction_delay_seconds: 3600,
            resident_encryptions_max: RESIDENT_ENCRYPTIONS_MAX,
        }
    }
}

impl Keys {
    /// How long after an unseal this node begins to destroy what is due.
    pub fn destruction_delay(&self) -> Duration {
        Duration::from_secs(self.destruction_delay_seconds.into())
    }
}

/// Limits.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Calls that run at the same time on one listener.
    pub calls: usize,
    /// Open connections on one listener.
    pub connections: usize,
    /// Longest message in bytes, both ways.
    pub message_bytes: usize,
    /// Longest time of one unary call, in seconds, when the caller sets no shorter one.
    pub call_seconds: u64,
    /// How long a shutdown waits for running calls, in seconds.
    pub drain_seconds: u64,
    /// How long nothing may come or be taken on a stream of items, in seconds.
    pub stream_idle_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            calls: 1024,
            connections: 1024,
            message_bytes: 256 * 1024,
            call_seconds: 10,
            drain_seconds: 10,
            stream_idle_seconds: 60,
        }
    }
}

/// The log for operators; the audit log is another thing.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `text` or `json`.
    pub format: LogFormat,
    /// A `tracing` filter, for example `info` or `info,kms_server=debug`.
    pub filter: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info".into() }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

fn auto() -> String {
    "auto".into()
}

fn four() -> usize {
    4
}

fn sixty() -> u64 {
    60
}

fn ten() -> u64 {
    10
}

fn five() -> u32 {
    5
}

fn one_second() -> u64 {
    1
}

fn window() -> u64 {
    kms_core::ceremony::WINDOW_SECONDS
}

/// Reads a file that only its owner may read.
///
/// # Errors
/// [`ConfigError::Unreadable`], [`ConfigError::Exposed`].
pub fn read_private(what: &'static str, path: &Path) -> Result<Vec<u8>, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { what, path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(unreadable)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(ConfigError::Exposed { what, path: path.to_owned(), mode });
    }
    fs::read(path).map_err(unreadable)
}

/// Reads a file that anybody may read.
///
/// # Errors
/// [`ConfigError::Unreadable`].
pub fn read_public(what: &'static str, path: &Path) -> Result<Vec<u8>, ConfigError> {
    fs::read(path).map_err(|source| ConfigError::Unreadable { what, path: path.to_owned(), source })
}

impl Config {
    /// Reads and checks a configuration file. Relative paths are relative to the file's folder.
    ///
    /// # Errors
    /// [`ConfigError`] names file and key.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            what: "the configuration",
            path: path.to_owned(),
            source,
        })?;
        let mut config: Self = toml::from_str(&text)
            .map_err(|error| ConfigError::Syntax { path: path.to_owned(), message: error.to_string() })?;
        let folder = path.parent().unwrap_or(Path::new("."));
        for relative in [
            &mut config.state_dir,
            &mut config.bundle,
            &mut config.node_key,
            &mut config.tls.certificate,
            &mut config.tls.key,
            &mut config.tls.client_ca,
            &mut config.hsm.module,
        ] {
            *relative = folder.join(&*relative);
        }
        if ProfileChoice::is_path(&config.hsm.profile) {
            config.hsm.profile = folder.join(&config.hsm.profile).display().to_string();
        }
        if let Some(file) = config.database.url.strip_prefix("sqlite:") {
            config.database.url = format!("sqlite:{}", folder.join(file).display());
        }
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let value = |key, message: String| Err(ConfigError::Value { key, message });
        if let Err(error) = self.node_name() {
            return value("node", error.to_string());
        }
        if self.ceremony.worker.is_empty() {
            return value("ceremony.worker", "must name the program that runs ceremonies".into());
        }
        let window = self.ceremony.window_seconds;
        if !(10..=kms_core::ceremony::WINDOW_SECONDS).contains(&window) {
            return value("ceremony.window_seconds", format!("is {window}; 10 to 300 are allowed"));
        }
        if self.hsm.workers == 0 || self.hsm.workers > 64 {
            return value("hsm.workers", format!("is {}; 1 to 64 are allowed", self.hsm.workers));
        }
        let hsm = &self.hsm;
        for (key, found, min, max) in [
            ("hsm.grace_seconds", hsm.grace_seconds, 1, 86_400),
            ("hsm.hang_seconds", hsm.hang_seconds, 1, 600),
            ("hsm.stuck_threads_max", hsm.stuck_threads_max as u64, 0, 64),
            ("hsm.breaker_failures", u64::from(hsm.breaker_failures), 1, 1000),
            ("hsm.breaker_probe_seconds", hsm.breaker_probe_seconds, 1, 3600),
        ] {
            if !(min..=max).contains(&found) {
                return value(key, format!("is {found}; {min} to {max} are allowed"));
            }
        }
        let limits = &self.limits;
        if limits.calls == 0 || limits.connections == 0 || limits.call_seconds == 0 {
            return value("limits", "must all be at least 1".into());
        }
        let encryptions = self.keys.resident_encryptions_max;
        if !(1..=RESIDENT_ENCRYPTIONS_MAX).contains(&encryptions) {
            let message = format!("is {encryptions}; 1 to {RESIDENT_ENCRYPTIONS_MAX} are allowed");
            return value("keys.resident_encryptions_max", message);
        }
        let idle = limits.stream_idle_seconds;
        if !(1..=3600).contains(&idle) {
            return value("limits.stream_idle_seconds", format!("is {idle}; 1 to 3600 are allowed"));
        }
        if !(128 * 1024..=4 * 1024 * 1024).contains(&limits.message_bytes) {
            let message = format!("is {}; 131072 to 4194304 are allowed", limits.message_bytes);
            return value("limits.message_bytes", message);
        }
        if !(self.database.url.starts_with("sqlite:") || self.database.url.starts_with("postgres")) {
            return value("database.url", "must begin with sqlite: or postgres://".into());
        }
        Ok(())
    }

    /// The node's name; checked when the configuration was loaded.
    ///
    /// # Errors
    /// [`NameError`] says which rule the text breaks.
    pub fn node_name(&self) -> Result<NodeName, NameError> {
        NodeName::parse(&self.node)
    }

    /// The file to which every checkpoint is appended.
    pub fn second_place(&self) -> PathBuf {
        self.state_dir.join("checkpoints.log")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kms_core::spec::KeySpec;

    const EXAMPLE: &str = include_str!("../../config.example.toml");

    fn load(text: &str) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("kms.toml");
        fs::write(&path, text).expect("writes");
        Config::load(&path)
    }

    #[test]
    fn the_example_is_a_valid_configuration() {
        load(EXAMPLE).expect("valid");
    }

    #[test]
    fn an_unknown_key_is_named() {
        let refused = load(&EXAMPLE.replace("[limits]", "[limits]\ncallz = 5")).expect_err("refused");
        assert!(refused.to_string().contains("callz"), "{refused}");
    }

    #[test]
    fn a_value_out_of_range_is_named_with_its_range() {
        for (from, to, expected) in [
            ("window_seconds = 300", "window_seconds = 301", "ceremony.window_seconds is 301; 10 to 300"),
            ("node = \"node-1\"", "node = \"\"", "node must not be empty"),
            ("url = \"sqlite:kms.db\"", "url = \"mysql:kms\"", "database.url must begin with sqlite:"),
            ("message_bytes = 262144", "message_bytes = 5", "limits.message_bytes is 5"),
            ("breaker_failures = 5", "breaker_failures = 0", "hsm.breaker_failures is 0; 1 to 1000"),
            (
                "stream_idle_seconds = 60",
                "stream_idle_seconds = 0",
                "limits.stream_idle_seconds is 0; 1 to 3600",
            ),
            ("hang_seconds = 10", "hang_seconds = 0", "hsm.hang_seconds is 0; 1 to 600"),
        ] {
            let refused = load(&EXAMPLE.replace(from, to)).expect_err("refused").to_string();
            assert!(refused.contains(expected), "{refused}");
        }
    }

    #[test]
    fn a_list_of_specifications_is_read_and_a_wrong_one_is_named_with_its_line() {
        let with = |list: &str| {
            load(&EXAMPLE.replace("# specs = [\"sm4\", \"hmac-sm3\"]", &format!("specs = {list}")))
        };
        assert_eq!(load(EXAMPLE).expect("valid").keys.specs, AllowedSpecs::default(), "all by default");
        let specs = with("[\"sm4\", \"hmac-sm3\"]").expect("valid").keys.specs;
        assert!(specs.contains(KeySpec::Sm4) && specs.contains(KeySpec::HmacSm3));
        assert!(!specs.contains(KeySpec::Aes256) && specs.iter().count() == 2);
        for (list, expected) in [
            ("[\"sm4\", \"des\"]", "\"des\" is no key specification; write some of aes-256, sm4,"),
            ("[\"sm4\", \"3des\"]", "\"3des\" is legacy and not for new keys; keys.legacy = [\"3des\"]"),
            ("[\"SM4\"]", "\"SM4\" is no key specification"),
            ("[\"sm4\", \"sm4\"]", "\"sm4\" is in the list twice"),
            ("[]", "the list is empty"),
            ("\"sm4\"", "invalid type"),
        ] {
            let refused = with(list).expect_err("refused").to_string();
            assert!(refused.contains(expected), "{refused}");
            let line =
                EXAMPLE.lines().position(|line| line.contains("specs = ")).expect("it is in the example") + 1;
            assert!(refused.contains(&format!("line {line}")) && refused.contains("specs = "), "{refused}");
        }
    }

    #[test]
    fn a_legacy_specification_is_off_unless_its_own_list_names_it() {
        let with = |list: &str| load(&EXAMPLE.replace("# legacy = [\"3des\"]", &format!("legacy = {list}")));
        let keys = load(EXAMPLE).expect("valid").keys;
        assert_eq!(keys.legacy, LegacySpecs::default(), "none by default");
        assert!(!keys.legacy.contains(KeySpec::TripleDes) && !keys.specs.contains(KeySpec::TripleDes));
        let keys = with("[\"3des\"]").expect("valid").keys;
        assert!(keys.legacy.contains(KeySpec::TripleDes) && !keys.specs.contains(KeySpec::TripleDes));
        assert!(with("[]").is_ok());
        for (list, expected) in [
            ("[\"sm4\"]", "\"sm4\" is no legacy specification; 3des is the only one"),
            ("[\"tdes\"]", "\"tdes\" is no legacy specification"),
            ("[\"3des\", \"3des\"]", "\"3des\" is in the list twice"),
            ("true", "invalid type"),
        ] {
            let refused = with(list).expect_err("refused").to_string();
            assert!(refused.contains(expected) && refused.contains("legacy = "), "{refused}");
        }
    }

    #[test]
    fn a_profile_is_a_name_or_a_path_beside_the_configuration() {
        let profile = |text: &str| {
            let written = format!("profile = \"{text}\"");
            load(&EXAMPLE.replace("profile = \"auto\"", &written)).expect("valid").hsm.profile
        };
        assert_eq!(profile("luna"), "luna");
        assert_eq!(profile("/etc/kms/card.toml"), "/etc/kms/card.toml");
        let relative = profile("card.toml");
        assert!(Path::new(&relative).is_absolute() && relative.ends_with("/card.toml"), "{relative}");
    }

    #[test]
    fn a_private_key_that_others_can_read_is_refused_with_the_command_that_helps() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("node.key");
        fs::write(&path, "x").expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("sets the mode");
        let refused = read_private("the node key", &path).expect_err("refused").to_string();
        assert!(refused.contains("chmod 600"), "{refused}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("sets the mode");
        assert!(read_private("the node key", &path).is_ok());
    }
}
