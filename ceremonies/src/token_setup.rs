//! Making one partition of a deployment: a token with derived PINs, and keys in it.

use crate::init::StepError;
use crate::pin::{self, FIRST_EPOCH, PinError, PinOf};
use kms_core::asymmetric::PublicKey;
use kms_core::asymmetric::Signature;
use kms_core::bundle::{Bundle, HsmSigningKey, MasterKey, Partition};
use kms_core::id::HsmObjectId;
use kms_core::secret::SecretBytes;
use kms_core::suite::Suite;
use kms_hsm::{
    ConfirmedObject, HsmError, HsmModule, HsmPartition, HsmSession, ModuleError, ObjectKind, Pin, PinPurpose,
    Pkcs11Partition,
};
use rand_core::CryptoRng;
use std::fmt;

/// What a run has made in the HSM so far, for the person who has to clean up.
#[derive(Debug, Default)]
pub struct Inventory(Vec<(String, String)>);

impl Inventory {
    /// Sets what is true of `what` from here on.
    fn note(&mut self, what: String, state: String) {
        self.0.retain(|(noted, _)| *noted != what);
        self.0.push((what, state));
    }

    /// Everything that was made, by name; `None` when that is nothing.
    pub(crate) fn names(&self) -> Option<String> {
        let names: Vec<String> = self.0.iter().map(|(what, state)| format!("{what} ({state})")).collect();
        (!names.is_empty()).then(|| names.join("; "))
    }
}

impl fmt::Display for Inventory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("Nothing was made in the HSM.");
        }
        f.write_str("In the HSM there is now: ")?;
        for (position, (what, state)) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { "; " };
            write!(f, "{separator}{what} ({state})")?;
        }
        f.write_str(". None of it can be used: remove it with the module's own tools, or run again with other labels.")
    }
}

/// The secrets of one partition's two PINs.
pub(crate) struct PinSecrets<'a> {
    pub(crate) so: (PinPurpose, &'a SecretBytes<32>),
    pub(crate) user: (PinPurpose, &'a SecretBytes<32>),
}

/// Makes the token and sets both PINs.
pub(crate) fn make_token(
    module: &HsmModule,
    suite: Suite,
    label: &str,
    secrets: &PinSecrets<'_>,
    exists: &mut Inventory,
    rng: &mut impl CryptoRng,
) -> Result<Partition, StepError> {
    // The PIN is bound to the serial number, which the token has only once it is initialised. So it begins
    // with a random SO PIN that nobody ever sees.
    let nobody = SecretBytes::random(rng);
    let rules = module.profile().pin_rules();
    let temporary = PinOf { suite, purpose: secrets.so.0, serial: label, epoch: 0 };
    let temporary = pin::derive(temporary, &nobody, rules)?;
    let what = format!("token {label:?}");
    let token = module.initialise_token(label, &temporary).inspect_err(|error| {
        // The other errors come before the token is touched.
        if matches!(error, ModuleError::Hsm(_)) {
            exists.note(what.clone(), "perhaps, without keys".to_owned());
        }
    })?;
    let serial = token.serial.clone();
    exists.note(what, format!("serial {serial}, PINs lost with this run"));
    let partition = Partition { label: label.to_owned(), serial, pin_epoch: FIRST_EPOCH };
    let so = derived(module, suite, &partition, secrets.so)?;
    module.set_so_pin(&token, &temporary, &so)?;
    let user = derived(module, suite, &partition, secrets.user)?;
    module.initialise_user_pin(&token, &so, &user)?;
    Ok(partition)
}

/// A PIN of a partition, in the epoch that it says.
pub(crate) fn derived(
    module: &HsmModule,
    suite: Suite,
    partition: &Partition,
    (purpose, secret): (PinPurpose, &SecretBytes<32>),
) -> Result<Pin, PinError> {
    let of = PinOf { suite, purpose, serial: &partition.serial, epoch: partition.pin_epoch };
    pin::derive(of, secret, module.profile().pin_rules())
}

/// A partition that is open, with the one session that the ceremony uses.
pub(crate) struct OpenPartition {
    partition: Pkcs11Partition,
    session: Box<dyn HsmSession>,
}

impl OpenPartition {
    /// Logs in with the user PIN that `secret` gives.
    pub(crate) fn open(
        module: &HsmModule,
        suite: Suite,
        partition: &Partition,
        purpose: PinPurpose,
        secret: &SecretBytes<32>,
    ) -> Result<Self, StepError> {
        let pin = derived(module, suite, partition, (purpose, secret))?;
        let partition = module.open_partition(&partition.label, &partition.serial, pin)?;
        let session = partition.open_session()?;
        Ok(Self { partition, session })
    }

    pub(crate) fn session(&mut self) -> &mut dyn HsmSession {
        &mut *self.session
    }

    /// Refuses before anything is made where the token lacks a mechanism.
    pub(crate) fn require(&self, kinds: &[ObjectKind]) -> Result<(), StepError> {
        match kinds.iter().find(|kind| !self.partition.can(**kind)) {
            None => Ok(()),
            Some(kind) => Err(StepError::Lacks { label: self.partition.label().to_owned(), kind: *kind }),
        }
    }

    pub(crate) fn create(
        &mut self,
        kind: ObjectKind,
        label: &str,
        exists: &mut Inventory,
        rng: &mut impl CryptoRng,
    ) -> Result<ConfirmedObject, StepError> {
        let mut id = [0; 16];
        rng.fill_bytes(&mut id);
        let id = HsmObjectId(id);
        let what = format!("{label} {id}");
        let place = format!("in token {:?}", self.partition.label());
        match self.session.create(id, kind, label) {
            Ok(made) => {
                exists.note(what, place);
                Ok(made)
            }
            // The answer may be lost and the key there all the same.
            Err(error) => {
                exists.note(what, format!("perhaps, {place}"));
                Err(error.into())
            }
        }
    }

    pub(crate) fn create_signing_key(
        &mut self,
        suite: Suite,
        label: &str,
        exists: &mut Inventory,
        rng: &mut impl CryptoRng,
    ) -> Result<HsmSigningKey, StepError> {
        let made = self.create(ObjectKind::SigningKey(suite), label, exists, rng)?;
        let public_key = made
            .public_key
            .and_then(|bytes| PublicKey::from_sec1(&bytes))
            .ok_or(StepError::NoPublicKey { id: made.id })?;
        Ok(HsmSigningKey { object: made.id, public_key })
    }

    /// A signature made inside the HSM, checked before it is used.
    pub(crate) fn sign(
        &mut self,
        suite: Suite,
        key: &HsmSigningKey,
        domain: &'static str,
        message: &[u8],
    ) -> Result<Signature, StepError> {
        let digest = key.public_key.domain_digest(suite, domain, message);
        let signature = Signature(self.session.sign(key.object, suite, &digest.0)?);
        key.public_key.verify_digest(suite, &digest, &signature)?;
        Ok(signature)
    }

    /// Does once what an unseal relies on: while somebody is there who can begin again.
    pub(crate) fn check_operations(
        &mut self,
        bundle: &Bundle,
        rng: &mut impl CryptoRng,
    ) -> Result<(), StepError> {
        let suite = bundle.suite;
        self.check_sealing(bundle.current_master_key(), rng)?;
        let session = self.session();
        let mac = session.mac(bundle.row_mac_key, suite.mac(), b"self-check")?;
        let again = session.mac(bundle.row_mac_key, suite.mac(), b"self-check")?;
        if !mac.is_equal(again.expose()) || mac.expose().iter().all(|byte| *byte == 0) {
            return Err(StepError::SelfCheck { what: "the row-MAC key does not give one value twice" });
        }
        let sample = SecretBytes::<32>::random(rng);
        self.sign(suite, &bundle.checkpoint_key, "kms/v1/self-check", sample.expose())?;
        Ok(())
    }

    /// That a master key opens what it seals, and nothing else.
    pub(crate) fn check_sealing(
        &mut self,
        key: &MasterKey,
        rng: &mut impl CryptoRng,
    ) -> Result<(), StepError> {
        let sample = SecretBytes::<32>::random(rng);
        let session = self.session();
        let sealed = session.seal(key.object, key.algorithm, b"self-check", sample.expose())?;
        let opened = session.open(key.object, key.algorithm, b"self-check", &sealed)?;
        if !sample.is_equal(opened.expose()) {
            return Err(StepError::SelfCheck { what: "the master key does not open what it sealed" });
        }
        if !matches!(
            session.open(key.object, key.algorithm, b"another", &sealed),
            Err(HsmError::CiphertextInvalid)
        ) {
            return Err(StepError::SelfCheck { what: "the master key opens with other associated data" });
        }
        Ok(())
    }

    /// Logs out; another login may follow.
    pub(crate) fn close(self) {
        drop(self.session);
        self.partition.close();
    }
}
