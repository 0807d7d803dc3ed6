//! The use cases, one file per group. Here core, HSM and store meet, and nowhere else.

mod aliases;
mod asymmetric;
mod attributes;
pub mod audit;
pub mod ceremonies;
mod checkpoints;
mod counts;
mod crypto;
mod csr;
mod data_key_pairs;
mod data_keys;
mod destruction;
mod error;
mod imports;
mod keys;
mod life;
mod mac;
mod open;
mod raw;
mod recipient;
mod reencrypt;
mod seal;
mod sign;
mod strangers;
mod usage;

pub use aliases::AliasPage;
pub use attributes::UpdateKey;
pub use counts::is_rotation_advised;
pub use crypto::{DataKey, Decrypted, Encrypted, OpenRequest, PlainDataKey};
pub use csr::{CertificateSigningRequest, SigningRequest};
pub use data_key_pairs::DataKeyPair;
pub use data_keys::{CreateDataKey, DataKeyEntry, DataKeyPage, GivenDataKey};
pub use destruction::{UsageReport, VersionUse, WINDOW_DAYS_MAX, WINDOW_DAYS_MIN};
pub use error::ServiceError;
pub use imports::{ImportKey, VALID_SECONDS_MAX};
pub use keys::{CreateKey, KeyFilter, KeyPage};
pub use mac::GeneratedMac;
pub use open::{KeyEntry, Open, object_kind};
pub use raw::{RawDecryptRequest, RawEncrypted};
pub use recipient::Delivery;
pub use reencrypt::{ReEncryptRequest, ReEncrypted};
pub use seal::{SealCause, UnsealError};
pub use sign::{SignRequest, Signed};
pub use usage::spec_names;

use crate::config::Config;
use crate::random::{now, system_rng};
use crate::store::{Committer, Database, Entry, HeadSigner};
use crate::telemetry::Metrics;
use arc_swap::ArcSwapOption;
use kms_core::asymmetric::PrivateKey;
use kms_core::audit::{Outcome, Record};
use kms_core::bundle::Bundle;
use kms_core::id::{NodeName, Principal};
use kms_core::policy::{Action, Decision, decide};
use kms_core::reason::Reason;
use kms_core::suite::Digest32;
use kms_hsm::HsmModule;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Most characters of a refusal's sentence in its record.
const MESSAGE_CHARS_MAX: usize = 300;

/// Who calls, and how long the answer is wanted.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Listed in the bundle.
    pub principal: Principal,
    /// In every log line and record of the call.
    pub request_id: String,
    /// When the caller stops waiting.
    pub deadline: Instant,
}

/// One server node: sealed when it starts.
#[derive(Debug)]
pub struct Node {
    /// The deployment.
    pub bundle: Bundle,
    /// The bundle's fingerprint.
    pub fingerprint: Digest32,
    /// This node's name.
    pub name: NodeName,
    /// Signs offers and batch heads.
    node_key: Arc<PrivateKey>,
    /// Everything that is stored.
    pub database: Database,
    committer: Committer,
    module: HsmModule,
    /// How this node was configured.
    pub config: Config,
    /// What is measured.
    pub metrics: Arc<Metrics>,
    open: ArcSwapOption<Open>,
    sealed_because: Mutex<String>,
    /// One seal or unseal at a time. Holds whether the process is ending: then nothing is unsealed any more.
    turn: tokio::sync::Mutex<bool>,
    ceremonies: ceremonies::Ceremonies,
    strangers: strangers::Strangers,
}

/// What a node is made of.
#[derive(Debug)]
pub struct NodeParts {
    /// The verified bundle.
    pub bundle: Bundle,
    /// The signed bundle's bytes, for the ceremony worker.
    pub signed_bundle: Vec<u8>,
    /// Its fingerprint.
    pub fingerprint: Digest32,
    /// The node's name in the bundle.
    pub name: NodeName,
    /// The node's key.
    pub node_key: PrivateKey,
    /// The open database.
    pub database: Database,
    /// The loaded PKCS#11 module.
    pub module: HsmModule,
    /// The configuration.
    pub config: Config,
}

impl Node {
    /// A sealed node with a running committer.
    pub fn start(parts: NodeParts) -> Arc<Self> {
        let NodeParts { bundle, signed_bundle, fingerprint, name, node_key, database, module, config } =
            parts;
        let node_key = Arc::new(node_key);
        let metrics = Arc::new(Metrics::new());
        let signer = HeadSigner { cluster_id: bundle.cluster_id, node: name.clone(), key: node_key.clone() };
        let (committer, running) =
            Committer::start(database.clone(), signer, now, system_rng(), metrics.clone());
        tokio::spawn(async move {
            // Without its committer a node refuses every call and looks alive. It ends instead, and whoever
            // watches the process starts it again, sealed.
            if running.await.is_err_and(|ended| ended.is_panic()) {
                tracing::error!("the committer panicked; this process ends");
                std::process::exit(1);
            }
        });
        Arc::new(Self {
            ceremonies: ceremonies::Ceremonies::new(signed_bundle),
            bundle,
            fingerprint,
            name,
            node_key,
            database,
            committer,
            module,
            config,
            metrics,
            open: ArcSwapOption::empty(),
            sealed_because: Mutex::new("the service has just started".into()),
            turn: tokio::sync::Mutex::new(false),
            strangers: strangers::Strangers::default(),
        })
    }

    /// The unsealed state, while there is one.
    pub fn opened(&self) -> Option<Arc<Open>> {
        self.open.load_full()
    }

    /// Name of the vendor profile that is in use.
    pub fn profile_name(&self) -> &str {
        self.module.profile().name()
    }

    /// Why the node is sealed.
    pub fn sealed_because(&self) -> String {
        self.sealed_because.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The file to which every checkpoint is appended.
    pub fn second_place(&self) -> PathBuf {
        self.config.second_place()
    }

    /// Follows the size of the log.
    pub fn log_size(&self) -> tokio::sync::watch::Receiver<u64> {
        self.committer.size()
    }

    fn record(&self, event: &str, outcome: Outcome, caller: &Caller) -> Record {
        Record::new(event, outcome, &caller.principal.to_uri(), &self.name, &caller.request_id)
    }

    fn own_record(&self, event: &str, outcome: Outcome) -> Record {
        Record::new(event, outcome, "node", &self.name, "")
    }

    fn sealed_error(&self) -> ServiceError {
        let present = self.ceremonies.present_count();
        let needed = self.bundle.threshold().needed();
        let because = self.sealed_because();
        ServiceError::new(
            Reason::Sealed,
            format!("sealed: {present} of {needed} custodians present; sealed because {because}"),
        )
        .retry_after(Duration::from_secs(5))
    }

    /// Runs one call: authority first, then the work; whatever is refused is recorded.
    ///
    /// Every call of a listed principal comes through here, so nothing is decided or recorded twice.
    ///
    /// # Errors
    /// `NOT_PERMITTED`, or those of the work.
    pub async fn perform<T>(
        &self,
        caller: &Caller,
        action: Action,
        work: impl Future<Output = Result<T, ServiceError>>,
    ) -> Result<T, ServiceError> {
        let result = match decide(&caller.principal, action) {
            Decision::Allow => work.await,
            Decision::Deny => {
                let (role, event) = (caller.principal.role.name(), action.event());
                let message = format!("role {role} may not do {event}");
                Err(ServiceError::new(Reason::NotPermitted, message))
            }
        };
        match result {
            Err(error) if error.reason != Reason::LogUnavailable => {
                Err(self.refuse(caller, action, error).await)
            }
            other => other,
        }
    }

    /// The unsealed state, or the refusal that says what is missing.
    ///
    /// # Errors
    /// `SEALED`.
    pub fn require_open(&self) -> Result<Arc<Open>, ServiceError> {
        self.opened().ok_or_else(|| self.sealed_error())
    }

    /// Records a refusal and gives it back. When even that cannot be recorded, says so instead.
    async fn refuse(&self, caller: &Caller, action: Action, error: ServiceError) -> ServiceError {
        let mut record = self.record(action.event(), Outcome::Refused(error.reason), caller);
        if let Some(field) = error.field {
            record = record.detail("field", field);
        }
        // What the caller is told names what was asked for; it never holds a secret.
        record = record.detail("message", error.message.chars().take(MESSAGE_CHARS_MAX).collect::<String>());
        match self.committer.commit(Entry::record(record)).await {
            Ok(_) => error,
            Err(unavailable) => unavailable.into(),
        }
    }
}

/// Runs blocking work (the PKCS#11 library) off the async threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        // The work itself panicked, or the runtime is going down: either way this call must not go on.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
