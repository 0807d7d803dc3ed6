//! The client profile: where a node is, and the certificates for speaking with it. The `kms` command uses
//! the same file.

use crate::files::{self, FileError};
use kms_core::secret::Secret;
use serde::Deserialize;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Longest profile, certificate or key file, in bytes.
const LEN_MAX: u64 = 1 << 20;

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// A file cannot be read.
    #[error("the profile cannot be used")]
    File(#[from] FileError),
    /// Not TOML, a field is missing, or one is not known.
    #[error("the profile {path} is refused: {}", .source.to_string().trim_end())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where and what.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// Everybody on the machine can read the private key.
    #[error(
        "{path} can be read or written by everybody; run chmod 600 on it, and have a new certificate made if others use this machine"
    )]
    KeyOpenToOthers {
        /// Which file.
        path: PathBuf,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileFile {
    endpoint: String,
    server_ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    #[serde(rename = "bundle")]
    _bundle: Option<PathBuf>,
    #[serde(rename = "server_name")]
    _server_name: Option<String>,
}

/// What a connection needs.
#[derive(Debug)]
pub struct ClientProfile {
    /// `https://host:port`.
    pub endpoint: String,
    /// PEM of the authority that signs the nodes' certificates.
    pub server_ca: Secret,
    /// PEM of the client's certificate.
    pub certificate: Secret,
    /// PEM of the client's private key.
    pub key: Secret,
}

impl ClientProfile {
    /// Reads a profile and the files that it names, relative to its folder.
    ///
    /// # Errors
    /// [`ProfileError`].
    pub fn read(path: &Path) -> Result<Self, ProfileError> {
        let text = files::read(path, LEN_MAX)?;
        let file: ProfileFile = toml::from_slice(text.expose())
            .map_err(|source| ProfileError::Syntax { path: path.to_owned(), source: Box::new(source) })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let key = folder.join(file.key);
        let metadata = fs::metadata(&key).map_err(|source| FileError::Read { path: key.clone(), source })?;
        if metadata.permissions().mode() & 0o007 != 0 {
            return Err(ProfileError::KeyOpenToOthers { path: key });
        }
        Ok(Self {
            endpoint: file.endpoint,
            server_ca: files::read(&folder.join(file.server_ca), LEN_MAX)?,
            certificate: files::read(&folder.join(file.certificate), LEN_MAX)?,
            key: files::read(&key, LEN_MAX)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(key_mode: u32, text: &str) -> Result<ClientProfile, ProfileError> {
        let folder = tempfile::tempdir().expect("a folder for the test");
        for name in ["ca.pem", "alice.pem", "alice.key"] {
            fs::write(folder.path().join(name), name).expect("writes");
        }
        let key = folder.path().join("alice.key");
        fs::set_permissions(&key, fs::Permissions::from_mode(key_mode)).expect("changes the mode");
        fs::write(folder.path().join("profile.toml"), text).expect("writes");
        ClientProfile::read(&folder.path().join("profile.toml"))
    }

    const TEXT: &str = "endpoint = \"https://localhost:1\"\nserver_ca = \"ca.pem\"\ncertificate = \"alice.pem\"\nkey = \"alice.key\"\n";

    #[test]
    fn a_key_that_everybody_can_read_is_refused() {
        for mode in [0o604, 0o602, 0o644] {
            assert!(matches!(profile(mode, TEXT), Err(ProfileError::KeyOpenToOthers { .. })), "{mode:o}");
        }
        assert_eq!(profile(0o600, TEXT).expect("reads").key.expose(), b"alice.key");
    }

    #[test]
    fn an_unknown_or_missing_field_is_named() {
        let unknown = profile(0o600, &format!("{TEXT}server_name = \"x\"\n")).expect_err("unknown field");
        assert!(unknown.to_string().contains("server_name"), "{unknown}");
        let missing = profile(0o600, &TEXT.replace("endpoint", "#")).expect_err("missing field");
        assert!(missing.to_string().contains("endpoint"), "{missing}");
    }
}
