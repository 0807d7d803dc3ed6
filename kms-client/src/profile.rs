//! The client profile: where the service is, and who the caller is.

use serde::Deserialize;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tonic::transport::Uri;
use zeroize::Zeroizing;

/// Longest profile, certificate or key file, in bytes.
const FILE_LEN_MAX: u64 = 1024 * 1024;
/// Most endpoints of one profile.
const ENDPOINT_COUNT_MAX: usize = 16;

/// A profile whose files have been read and looked at.
pub struct Profile {
    /// At least one.
    pub(crate) endpoints: Vec<String>,
    pub(crate) server_name: Option<String>,
    pub(crate) server_ca: Vec<u8>,
    pub(crate) certificate: Vec<u8>,
    pub(crate) key: Zeroizing<Vec<u8>>,
    bundle: Option<PathBuf>,
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Profile").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

/// Why a profile is refused. Every message names the file.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// A file that cannot be read.
    #[error("{what} {} cannot be read", path.display())]
    Unreadable {
        /// The profile or the field that names the file.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file beyond 1 MiB.
    #[error("{what} {} is longer than 1 MiB", path.display())]
    TooLong {
        /// The profile or the field that names the file.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// Not TOML, or a field that is missing, unknown or of another type.
    #[error("profile {}: {problem}", path.display())]
    Malformed {
        /// The profile.
        path: PathBuf,
        /// What and where.
        problem: String,
    },
    /// The endpoint is not an https address with a host and a port.
    #[error(
        "profile {}: endpoint {endpoint:?} is not of the form \"https://HOST:PORT\"; there is no unencrypted access",
        path.display()
    )]
    Endpoint {
        /// The profile.
        path: PathBuf,
        /// What stands there.
        endpoint: String,
    },
    /// Neither `endpoint` nor `endpoints`, both, or a list that is no list of different nodes.
    #[error("profile {}: {problem}", path.display())]
    Endpoints {
        /// The profile.
        path: PathBuf,
        /// What is wrong, and what to write instead.
        problem: String,
    },
    /// The endpoint that was chosen is none of the profile's.
    #[error("{endpoint:?} is none of the profile's endpoints: {}", known.join(", "))]
    EndpointUnknown {
        /// What was chosen.
        endpoint: String,
        /// What the profile names.
        known: Vec<String>,
    },
    /// Other users may read or change the private key.
    #[error(
        "key {} is open to other users (mode {mode:03o}); run: chmod 600 {}",
        path.display(),
        path.display()
    )]
    KeyExposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file that is not PEM, or PEM of something else.
    #[error("{what} {} holds no PEM block \"{label}\"", path.display())]
    NotPem {
        /// The field that names the file.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What was looked for.
        label: &'static str,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileFile {
    endpoint: Option<String>,
    endpoints: Option<Vec<String>>,
    server_ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    server_name: Option<String>,
    bundle: Option<PathBuf>,
}

impl Profile {
    /// Reads a profile and the files that it names; their paths are relative to the profile's folder.
    ///
    /// # Errors
    /// [`ProfileError`] says which file and what is wrong with it.
    pub fn load(path: &Path) -> Result<Self, ProfileError> {
        let text = read(path, "profile", false)?;
        let malformed = |problem: String| ProfileError::Malformed { path: path.to_owned(), problem };
        let text = std::str::from_utf8(&text).map_err(|_| malformed("it is not UTF-8 text".into()))?;
        let file: ProfileFile = toml::from_str(text).map_err(|error| malformed(describe(text, &error)))?;
        let endpoints = one_or_several(file.endpoint, file.endpoints)
            .map_err(|problem| ProfileError::Endpoints { path: path.to_owned(), problem })?;
        if let Some(endpoint) = endpoints.iter().find(|endpoint| !is_https_address(endpoint)) {
            return Err(ProfileError::Endpoint { path: path.to_owned(), endpoint: endpoint.clone() });
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let key_path = folder.join(&file.key);
        let key = read(&key_path, "key", true)?;
        require_pem(&key, &key_path, "key", "PRIVATE KEY-----")?;
        let server_ca = read_certificate(&folder.join(&file.server_ca), "server_ca")?;
        let certificate = read_certificate(&folder.join(&file.certificate), "certificate")?;
        Ok(Self {
            endpoints,
            server_name: file.server_name,
            server_ca,
            certificate,
            key,
            bundle: file.bundle.map(|bundle| folder.join(bundle)),
        })
    }

    /// The first node's address, `https://HOST:PORT`: the one with which a ceremony is held.
    pub fn endpoint(&self) -> &str {
        &self.endpoints[0]
    }

    /// The addresses of all nodes, in the order in which they are tried.
    pub fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// The profile with this one of its endpoints only: for calls that are about one node.
    ///
    /// # Errors
    /// [`ProfileError::EndpointUnknown`].
    pub fn at(mut self, endpoint: &str) -> Result<Self, ProfileError> {
        if !self.endpoints.iter().any(|known| known == endpoint) {
            let (endpoint, known) = (endpoint.to_owned(), self.endpoints);
            return Err(ProfileError::EndpointUnknown { endpoint, known });
        }
        self.endpoints = vec![endpoint.to_owned()];
        Ok(self)
    }

    /// The bundle that the profile names for verifying the audit log, where it names one.
    pub fn bundle(&self) -> Option<&Path> {
        self.bundle.as_deref()
    }
}

/// The line and the message, without the source excerpt that spans several lines.
fn describe(text: &str, error: &toml::de::Error) -> String {
    let line =
        error.span().map(|span| text.bytes().take(span.start).filter(|byte| *byte == b'\n').count() + 1);
    let message = error.message().trim().replace('\n', " ");
    line.map_or(message.clone(), |line| format!("line {line}: {message}"))
}

/// A profile names one node or several, in one of two ways.
fn one_or_several(one: Option<String>, several: Option<Vec<String>>) -> Result<Vec<String>, String> {
    let endpoints = match (one, several) {
        (Some(endpoint), None) => return Ok(vec![endpoint]),
        (None, Some(endpoints)) => endpoints,
        (Some(_), Some(_)) => {
            return Err("it has endpoint and endpoints; keep one of them".into());
        }
        (None, None) => {
            return Err("it names no service; add endpoint = \"https://HOST:PORT\", or endpoints = [..] \
                        for several nodes"
                .into());
        }
    };
    if endpoints.is_empty() || endpoints.len() > ENDPOINT_COUNT_MAX {
        return Err(format!(
            "endpoints has {} addresses; 1 to {ENDPOINT_COUNT_MAX} are allowed",
            endpoints.len()
        ));
    }
    let repeated =
        (1..endpoints.len()).find(|position| endpoints[..*position].contains(&endpoints[*position]));
    match repeated {
        Some(position) => Err(format!("endpoints has {:?} twice", endpoints[position])),
        None => Ok(endpoints),
    }
}

fn is_https_address(endpoint: &str) -> bool {
    endpoint.parse::<Uri>().is_ok_and(|uri| {
        let has_no_path = uri.path_and_query().is_none_or(|path| path.as_str() == "/");
        uri.scheme_str() == Some("https") && uri.host().is_some() && uri.port_u16().is_some() && has_no_path
    })
}

fn read(path: &Path, what: &'static str, is_secret: bool) -> Result<Zeroizing<Vec<u8>>, ProfileError> {
    let unreadable = |source| ProfileError::Unreadable { what, path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(unreadable(io::Error::from(io::ErrorKind::IsADirectory)));
    }
    if is_secret && metadata.mode() & 0o077 != 0 {
        return Err(ProfileError::KeyExposed { path: path.to_owned(), mode: metadata.mode() & 0o777 });
    }
    if metadata.len() > FILE_LEN_MAX {
        return Err(ProfileError::TooLong { what, path: path.to_owned() });
    }
    // Sized before reading, so that growth leaves no copy of a key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(metadata.len() as usize + 1));
    file.take(FILE_LEN_MAX).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

fn read_certificate(path: &Path, what: &'static str) -> Result<Vec<u8>, ProfileError> {
    let mut bytes = read(path, what, false)?;
    require_pem(&bytes, path, what, "-----BEGIN CERTIFICATE-----")?;
    Ok(std::mem::take(&mut *bytes))
}

/// The TLS library skips what it does not know and would then complain about something else.
fn require_pem(
    bytes: &[u8],
    path: &Path,
    what: &'static str,
    label: &'static str,
) -> Result<(), ProfileError> {
    if bytes.windows(label.len()).any(|window| window == label.as_bytes()) {
        return Ok(());
    }
    Err(ProfileError::NotPem { what, path: path.to_owned(), label: label.trim_matches('-') })
}
