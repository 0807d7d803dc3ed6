//! Watching HSM operations: for metrics, for the pool's health, and for tests that stop at one of them.

use crate::{
    ConfirmedObject, ErrorClass, HsmError, HsmSession, ListedObject, ObjectKind, Sealed, TokenStatus,
};
use kms_core::id::HsmObjectId;
use kms_core::mac::MacAlgorithm;
use kms_core::pair::{EncryptionAlgorithm, PairPublicKey, ToSign};
use kms_core::secret::Secret;
use kms_core::suite::{AeadAlgorithm, Suite};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A failed decryption may be its ciphertext's fault, whatever the device answered.
pub(crate) const DECRYPT_WITH: &str = "decrypt_with";

/// Told about every operation that reaches the HSM. Called on the thread that runs it, so it must be quick.
///
/// An operation here is one of [`HsmSession`]; inside, it may be several calls of the driver.
pub trait Observer: Send + Sync {
    /// The HSM is about to be asked.
    fn before(&self, _operation: &'static str) {}

    /// It has answered, or will not.
    fn after(&self, _operation: &'static str, _outcome: &Result<(), ErrorClass>, _elapsed: Duration) {}

    /// How many jobs now wait in the pool's queue.
    fn queue_len(&self, _len: usize) {}

    /// How many of the pool's threads are now inside a driver call that does not come back.
    fn stuck_threads(&self, _count: usize) {}

    /// The circuit breaker has opened or closed.
    fn breaker(&self, _is_open: bool) {}
}

/// Watches nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoObserver;

impl Observer for NoObserver {}

/// A session whose operations are watched.
pub struct Observed {
    session: Box<dyn HsmSession>,
    observer: Arc<dyn Observer>,
}

impl Observed {
    /// Watches `session`.
    pub fn new(session: Box<dyn HsmSession>, observer: Arc<dyn Observer>) -> Self {
        Self { session, observer }
    }

    fn watch<T>(
        &mut self,
        operation: &'static str,
        run: impl FnOnce(&mut dyn HsmSession) -> Result<T, HsmError>,
    ) -> Result<T, HsmError> {
        let start = Instant::now();
        self.observer.before(operation);
        let result = run(self.session.as_mut());
        let outcome = result.as_ref().map(|_| ()).map_err(HsmError::class);
        self.observer.after(operation, &outcome, start.elapsed());
        result
    }
}

impl std::fmt::Debug for Observed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Observed")
    }
}

impl HsmSession for Observed {
    fn random(&mut self, out: &mut [u8]) -> Result<(), HsmError> {
        self.watch("random", |session| session.random(out))
    }

    fn seal(
        &mut self,
        key: HsmObjectId,
        algorithm: AeadAlgorithm,
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<Sealed, HsmError> {
        crate::check_len("the plaintext", plaintext.len(), crate::INPUT_LEN_MAX)?;
        crate::check_len("the associated data", aad.len(), crate::AAD_LEN_MAX)?;
        self.watch("seal", |session| session.seal(key, algorithm, aad, plaintext))
    }

    fn open(
        &mut self,
        key: HsmObjectId,
        algorithm: AeadAlgorithm,
        aad: &[u8],
        sealed: &Sealed,
    ) -> Result<Secret, HsmError> {
        crate::check_len("the associated data", aad.len(), crate::AAD_LEN_MAX)?;
        self.watch("open", |session| session.open(key, algorithm, aad, sealed))
    }

    fn create(
        &mut self,
        id: HsmObjectId,
        kind: ObjectKind,
        label: &str,
    ) -> Result<ConfirmedObject, HsmError> {
        self.watch("create", |session| session.create(id, kind, label))
    }

    fn import(
        &mut self,
        id: HsmObjectId,
        kind: ObjectKind,
        label: &str,
        material: &[u8],
    ) -> Result<ConfirmedObject, HsmError> {
        self.watch("import", |session| session.import(id, kind, label, material))
    }

    fn confirm(&mut self, id: HsmObjectId, kind: ObjectKind) -> Result<ConfirmedObject, HsmError> {
        self.watch("confirm", |session| session.confirm(id, kind))
    }

    fn exists(&mut self, id: HsmObjectId) -> Result<bool, HsmError> {
        self.watch("exists", |session| session.exists(id))
    }

    fn destroy(&mut self, id: HsmObjectId) -> Result<(), HsmError> {
        self.watch("destroy", |session| session.destroy(id))
    }

    fn sign(&mut self, key: HsmObjectId, suite: Suite, digest: &[u8; 32]) -> Result<[u8; 64], HsmError> {
        self.watch("sign", |session| session.sign(key, suite, digest))
    }

    fn sign_with(
        &mut self,
        key: HsmObjectId,
        public_key: &PairPublicKey,
        input: &ToSign,
    ) -> Result<Vec<u8>, HsmError> {
        crate::check_len("the message", input.as_bytes().len(), crate::INPUT_LEN_MAX)?;
        self.watch("sign_with", |session| session.sign_with(key, public_key, input))
    }

    fn decrypt_with(
        &mut self,
        key: HsmObjectId,
        public_key: &PairPublicKey,
        algorithm: EncryptionAlgorithm,
        ciphertext: &[u8],
    ) -> Result<Secret, HsmError> {
        algorithm.check_ciphertext(public_key, ciphertext).map_err(|_| HsmError::CiphertextInvalid)?;
        self.watch(DECRYPT_WITH, |session| session.decrypt_with(key, public_key, algorithm, ciphertext))
    }

    fn mac(&mut self, key: HsmObjectId, algorithm: MacAlgorithm, data: &[u8]) -> Result<Secret, HsmError> {
        crate::check_len("the message", data.len(), crate::INPUT_LEN_MAX)?;
        self.watch("mac", |session| session.mac(key, algorithm, data))
    }

    fn status(&mut self) -> Result<TokenStatus, HsmError> {
        self.watch("status", |session| session.status())
    }

    fn self_test(&mut self) -> Result<(), HsmError> {
        self.watch("self_test", |session| session.self_test())
    }

    fn objects(&mut self) -> Result<Vec<ListedObject>, HsmError> {
        self.watch("objects", |session| session.objects())
    }
}
