//! Making one partition of a deployment: a token with derived PINs, and keys in it.

use crate::init::StepError;
use crate::pin::{self, FIRST_EPOCH, PinOf};
use kms_core::asymmetric::PublicKey;
use kms_core::bundle::{HsmSigningKey, Partition};
use kms_core::id::HsmObjectId;
use kms_core::secret::SecretBytes;
use kms_core::suite::Suite;
use kms_hsm::{
    ConfirmedObject, HsmModule, HsmPartition, HsmSession, ModuleError, ObjectKind, Pin, PinPurpose,
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
    let so = derived(module, suite, &serial, secrets.so)?;
    module.set_so_pin(&token, &temporary, &so)?;
    let user = derived(module, suite, &serial, secrets.user)?;
    module.initialise_user_pin(&token, &so, &user)?;
    Ok(Partition { label: label.to_owned(), serial, pin_epoch: FIRST_EPOCH })
}

fn derived(
    module: &HsmModule,
    suite: Suite,
    serial: &str,
    (purpose, secret): (PinPurpose, &SecretBytes<32>),
) -> Result<Pin, StepError> {
    let of = PinOf { suite, purpose, serial, epoch: FIRST_EPOCH };
    Ok(pin::derive(of, secret, module.profile().pin_rules())?)
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
        let pin = derived(module, suite, &partition.serial, (purpose, secret))?;
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

    /// Logs out; another login may follow.
    pub(crate) fn close(self) {
        drop(self.session);
        self.partition.close();
    }
}
