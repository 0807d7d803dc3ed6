//! The end of key material: erasing it, the certificate, and what to know before asking for it.

use super::audit::corrupt;
use super::keys::{Changed, Draft, transition};
use super::open::{KeyEntry, Open};
use super::reencrypt::decrypted_by;
use super::{Caller, Node, ServiceError};
use crate::random::now;
use crate::store::{DestructionRequest, Entry, KeyRow, Material, VersionRow};
use kms_core::audit::{Outcome, Record, open_leaves};
use kms_core::codec::{self, VersionOne};
use kms_core::destruction::{
    DESTRUCTION_DOMAIN, DestroyedVersion, DestructionCertificate, DestructionMethod, SignedDestruction,
};
use kms_core::envelope::WrappedKey;
use kms_core::id::{HsmObjectId, KeySelector, KeyVersion, UnixMillis};
use kms_core::key::{Destruction, KeyCommand, KeyState, Standing};
use kms_core::policy::Action;
use kms_core::reason::Reason;
use kms_hsm::HsmError;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Shortest window between the request and the destruction, in days.
pub const WINDOW_DAYS_MIN: u32 = 7;
/// Longest window, in days.
pub const WINDOW_DAYS_MAX: u32 = 30;
/// How long the HSM may take for one object.
const ERASE_DEADLINE: Duration = Duration::from_secs(10);
/// Segments that one read of the log fetches.
const SEGMENTS_PER_READ: u32 = 16;
/// The program that the certificates name.
const TOOL: &str = concat!("kms-server ", env!("CARGO_PKG_VERSION"));

/// How one version was used, as far as the log goes back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionUse {
    /// Data keys and data key pairs that were made under it. The service keeps the registered ones: each may still be needed.
    pub data_keys: u64,
    /// How often something was encrypted.
    pub encryptions: u64,
    /// How often something was decrypted, data keys and data key pairs among it.
    pub decryptions: u64,
    /// How often a MAC was made.
    pub macs: u64,
    /// How often a MAC was verified.
    pub mac_verifications: u64,
    /// How often it signed, certificate signing requests among it.
    pub signatures: u64,
    /// How often a signature of it was verified here.
    pub signature_verifications: u64,
    /// Versions of registered data keys that are stored under it.
    pub registered_data_keys: u64,
    /// When it was last used, and by whom.
    pub last: Option<(UnixMillis, String)>,
}

/// How a key was used.
#[derive(Debug)]
pub struct UsageReport {
    /// The key.
    pub key: std::sync::Arc<KeyEntry>,
    /// By version; those that were never used are absent.
    pub versions: BTreeMap<KeyVersion, VersionUse>,
}

/// The standing of a version that is destroyed with its key, or by itself.
fn erased(standing: Standing, is_key_compromised: bool, time: UnixMillis) -> Result<Standing, ServiceError> {
    let mut standing = standing;
    let mut commands = vec![KeyCommand::ScheduleDestruction(time), KeyCommand::Destroy];
    if standing.destruction.is_some() {
        commands.remove(0);
    }
    if standing.state == KeyState::Destroying {
        commands.clear();
    }
    commands.push(KeyCommand::Finish(time));
    for command in commands {
        standing = standing.apply(command).map_err(transition)?;
    }
    if is_key_compromised && standing.state == KeyState::Destroyed {
        standing = standing.apply(KeyCommand::Compromise).map_err(transition)?;
    }
    Ok(standing)
}

impl Node {
    /// Erases the material of a key or of versions whose destruction has begun, and commits its end. Does nothing for
    /// any other key. It may have been begun before, by any node: what is gone already counts as erased.
    ///
    /// # Errors
    /// Those of the HSM and the commit; nothing is said to be destroyed then, and the next try goes on.
    pub(super) async fn erase(&self, open: &Open, entry: &KeyEntry) -> Result<(), ServiceError> {
        let row = &entry.row;
        let is_whole_key = row.standing.state == KeyState::Destroying;
        let doomed = entry.versions.iter().filter(|version| match version.standing.state {
            state if is_whole_key => !state.is_destroyed(),
            state => state == KeyState::Destroying,
        });
        // Single versions one by one: each may have been asked for by somebody else.
        let doomed: Vec<&VersionRow> = doomed.take(if is_whole_key { usize::MAX } else { 1 }).collect();
        if doomed.is_empty() && !is_whole_key {
            return Ok(());
        }
        let mut found = Vec::with_capacity(doomed.len());
        for version in &doomed {
            if self.opened().is_none() {
                // Sealing waits for this. The next unseal goes on.
                return Ok(());
            }
            found.push(match version.material {
                Material::Resident(object) | Material::Staged { object, .. } => {
                    erase_object(open, object).await?
                }
                Material::Wrapped(_) | Material::Erased => false,
            });
        }
        let time = now();
        let compromised =
            |standing: &Standing| standing.destruction.is_some_and(|one| one.before == KeyState::Compromised);
        let is_key_compromised = row.standing.state == KeyState::Compromised || compromised(&row.standing);
        let request = match is_whole_key {
            true => row.destruction_request.clone(),
            false => doomed.first().and_then(|version| version.destruction_request.clone()),
        };
        let request = request.ok_or_else(|| {
            ServiceError::new(Reason::Internal, "a key is being destroyed, and nobody is known to have asked")
        })?;
        let mut key = row.clone();
        if is_whole_key {
            key.standing = key.standing.apply(KeyCommand::Finish(time)).map_err(transition)?;
        }
        let mut versions = Vec::with_capacity(doomed.len());
        let mut destroyed = Vec::with_capacity(doomed.len());
        for (version, was_there) in doomed.iter().zip(found) {
            let standing = erased(version.standing, is_key_compromised, time)?;
            destroyed.push(destroyed_version(version, &standing, was_there)?);
            versions.push(VersionRow {
                standing,
                material: Material::Erased,
                destruction_request: version.destruction_request.clone().or_else(|| Some(request.clone())),
                ..(*version).clone()
            });
        }
        let certificate = self.certificate(row, is_whole_key, &request, time, destroyed);
        let signed = codec::to_bytes(&self.sign_certificate(open, certificate).await?);
        let only_version = match doomed.as_slice() {
            [version] if !is_whole_key => Some(version.version),
            _ => None,
        };
        let mut record: Record = self
            .own_record("key.erase", Outcome::Done)
            .key(row.key_id, only_version)
            .detail("name", row.name.as_str())
            .detail("asked-by", request.by.to_uri())
            .detail("versions", numbers(&versions));
        record.evidence = Some(signed.clone());
        let gone: Vec<_> = versions.iter().map(|version| (row.key_id, version.version)).collect();
        let draft = Draft::of(key, versions).with_certificate(time, signed);
        if let Changed::Done = self.commit_key(open, record, draft, None).await? {
            open.forget_destroyed(&gone);
        }
        // Otherwise something about the key has changed meanwhile; the next round looks again.
        Ok(())
    }

    fn certificate(
        &self,
        key: &KeyRow,
        is_whole_key: bool,
        request: &DestructionRequest,
        destroyed: UnixMillis,
        versions: Vec<DestroyedVersion>,
    ) -> DestructionCertificate {
        DestructionCertificate {
            version: VersionOne,
            cluster_id: self.bundle.cluster_id,
            tenant: key.tenant.clone(),
            key_id: key.key_id,
            name: key.name.clone(),
            spec: key.spec.name().into(),
            protection: key.protection.name().into(),
            created: key.created,
            is_whole_key,
            scheduled_by: request.by.clone(),
            scheduled: request.time,
            destroyed,
            node: self.name.clone(),
            tool: TOOL.into(),
            versions,
        }
    }

    async fn sign_certificate(
        &self,
        open: &Open,
        certificate: DestructionCertificate,
    ) -> Result<SignedDestruction, ServiceError> {
        let body = codec::to_bytes(&certificate);
        let signature = self.sign_with_checkpoint_key(open, DESTRUCTION_DOMAIN, &body).await?;
        let signed = SignedDestruction { version: VersionOne, body, signature };
        match signed.verify(&self.bundle) {
            Ok(_) => Ok(signed),
            Err(error) => Err(ServiceError::new(
                Reason::HsmUnavailable,
                format!("the HSM made a signature that does not verify: {error}"),
            )),
        }
    }

    /// A page of the signed certificates of a key's destructions, oldest first, after a time; with each its time.
    ///
    /// # Errors
    /// [`ServiceError`] with the documented reason; [`Node::perform`] records it.
    pub async fn destruction_certificates(
        &self,
        caller: &Caller,
        selector: &KeySelector,
        after: UnixMillis,
        count_max: u32,
    ) -> Result<Vec<(UnixMillis, Vec<u8>)>, ServiceError> {
        let open = self.require_open()?;
        let tenant = &caller.principal.tenant;
        let certificates = |entry: &KeyEntry| {
            let is_destroyed = |standing: &Standing| standing.state.is_destroyed();
            if entry.versions.iter().any(|version| is_destroyed(&version.standing)) {
                return Ok(entry.row.key_id);
            }
            let state = entry.row.standing_at(now()).state;
            let message = format!("key {} is {state}; nothing of it is destroyed", entry.row.name);
            Err(ServiceError::new(Reason::KeyStateForbids, message))
        };
        let (_, key_id) = open.judge(&self.database, tenant, selector, certificates).await?;
        let found = self.database.destructions(tenant, key_id, after, count_max).await?;
        let record = self
            .record(Action::ReadDestruction.event(), Outcome::Done, caller)
            .key(key_id, None)
            .detail("count", found.len().to_string());
        self.committer.commit(Entry::record(record)).await?;
        Ok(found)
    }

    /// How a key was used. Reads the whole log: cheap for thousands of records, not for millions.
    ///
    /// # Errors
    /// [`ServiceError`] with the documented reason; [`Node::perform`] records it.
    pub async fn usage_report(
        &self,
        caller: &Caller,
        selector: &KeySelector,
    ) -> Result<UsageReport, ServiceError> {
        let open = self.require_open()?;
        let key = open.find(&self.database, &caller.principal.tenant, selector).await?.key;
        // The unsealed state is not held while the log is read.
        drop(open);
        let key_id = key.row.key_id;
        let record = self
            .record(Action::ReadUsage.event(), Outcome::Done, caller)
            .key(key_id, None)
            .detail("name", key.row.name.as_str());
        self.committer.commit(Entry::record(record)).await?;
        let mut versions: BTreeMap<KeyVersion, VersionUse> = BTreeMap::new();
        // As a record's key, and as a detail of a re-encryption's.
        let key_text = key_id.to_string();
        let mut next = 0;
        loop {
            let segments = self.database.segments_from(next, SEGMENTS_PER_READ).await?;
            if segments.is_empty() {
                break;
            }
            if Instant::now() >= caller.deadline {
                let message = "the log could not be read to its end in the time of a call (limits.call_seconds of the configuration)";
                return Err(ServiceError::new(Reason::DeadlineExceeded, message));
            }
            for stored in segments {
                next = stored.first_index + stored.count;
                // Most records are about other keys: these need not be taken apart.
                for leaf in open_leaves(&stored.segment.leaves).map_err(|_| corrupt())? {
                    if !contains(&leaf.body, &key_id.0) && !contains(&leaf.body, key_text.as_bytes()) {
                        continue;
                    }
                    let record: Record = codec::open(&leaf.body).map_err(|_| corrupt())?;
                    if record.outcome != "done" {
                        continue;
                    }
                    if let (Some(version), true) = (record.key_version, record.key_id == Some(key_id)) {
                        count(versions.entry(version).or_default(), &record, leaf.time);
                    }
                    if let Some((_, version)) = decrypted_by(&record).filter(|(from, _)| *from == key_id) {
                        let usage = versions.entry(version).or_default();
                        usage.decryptions += 1;
                        usage.last = Some((leaf.time, record.actor.clone()));
                    }
                }
            }
        }
        versions.retain(|_, usage| usage.last.is_some());
        for (version, count) in self.database.data_keys_under(&key.row.tenant, key_id).await? {
            // What is stored was recorded when it was made.
            if let Some(usage) = versions.get_mut(&version) {
                usage.registered_data_keys = count;
            }
        }
        Ok(UsageReport { key, versions })
    }
}

fn count(usage: &mut VersionUse, record: &Record, time: UnixMillis) {
    let Some(action) = Action::ALL.into_iter().find(|action| action.event() == record.event) else { return };
    let counter = match action {
        Action::GenerateDataKey
        | Action::GenerateDataKeyPair
        | Action::CreateDataKey
        | Action::RotateDataKey => &mut usage.data_keys,
        Action::Encrypt | Action::AsymmetricEncrypt | Action::ReEncrypt | Action::RawEncrypt => {
            &mut usage.encryptions
        }
        Action::Decrypt
        | Action::RawDecrypt
        | Action::DecryptDataKey
        | Action::DecryptDataKeyPair
        | Action::GetDataKey
        | Action::AsymmetricDecrypt => &mut usage.decryptions,
        Action::GenerateMac => &mut usage.macs,
        Action::VerifyMac => &mut usage.mac_verifications,
        Action::Sign | Action::RequestCertificate => &mut usage.signatures,
        Action::Verify => &mut usage.signature_verifications,
        _ => return,
    };
    *counter += 1;
    usage.last = Some((time, record.actor.clone()));
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// Destroys an object and makes sure that the token knows it no more. Says whether it was there.
pub(super) async fn erase_object(open: &Open, object: HsmObjectId) -> Result<bool, ServiceError> {
    let deadline = Instant::now() + ERASE_DEADLINE;
    let was_there = match open.hsm("destroy", deadline, move |session| session.destroy(object)).await {
        Ok(()) => true,
        // An earlier try was interrupted after this step.
        Err(HsmError::NotFound { .. }) => false,
        Err(error) => return Err(error.into()),
    };
    match open.hsm("exists", deadline, move |session| session.exists(object)).await? {
        false => Ok(was_there),
        true => {
            let message = "the HSM says that it destroyed an object, and still has it";
            Err(ServiceError::new(Reason::HsmUnavailable, message))
        }
    }
}

fn destroyed_version(
    version: &VersionRow,
    standing: &Standing,
    was_there: bool,
) -> Result<DestroyedVersion, ServiceError> {
    let damaged = || ServiceError::new(Reason::Internal, "a version without material is being destroyed");
    let method = match &version.material {
        Material::Resident(object) | Material::Staged { object, .. } => {
            DestructionMethod::HsmObject { object: *object, was_there }
        }
        Material::Wrapped(wrapped) => DestructionMethod::SealedMaterial {
            master_version: WrappedKey::open(wrapped).map_err(|_| damaged())?.master_version,
        },
        Material::Erased => return Err(damaged()),
    };
    let Destruction { before, .. } = standing.destruction.ok_or_else(damaged)?;
    Ok(DestroyedVersion {
        number: version.version,
        created: version.created,
        state_before: before.name().into(),
        state: standing.state.name().into(),
        method,
        check_value: version.check_value.map(|value| value.0.to_vec()),
    })
}

fn numbers(versions: &[VersionRow]) -> String {
    versions.iter().map(|version| version.version.to_string()).collect::<Vec<_>>().join(" ")
}
