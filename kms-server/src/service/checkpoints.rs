//! Checkpoints: the HSM signs the log's tree, off the commit path, and a second place keeps the signature.

use super::open::Open;
use super::{Node, ServiceError, blocking};
use crate::random::now;
use crate::store::{Change, Commit, Entry, StoredCheckpoint};
use kms_core::asymmetric::Signature;
use kms_core::audit::{CHECKPOINT_DOMAIN, Checkpoint, Outcome, SignedCheckpoint};
use kms_core::codec::{self, VersionOne};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Most records between two checkpoints.
const RECORDS_MAX: u64 = 1_000;
/// Longest time between two checkpoints while records arrive.
const INTERVAL: Duration = Duration::from_secs(60);
/// How often the two limits are looked at.
const ROUND: Duration = Duration::from_millis(500);
/// How long the HSM may take for a signature.
const SIGN_DEADLINE: Duration = Duration::from_secs(10);

impl Node {
    /// Makes checkpoints until the node is sealed.
    pub(super) async fn make_checkpoints(self: Arc<Self>, open: Weak<Open>) {
        let size = self.log_size();
        let mut last_size = match self.database.last_checkpoint().await {
            Ok(Some(signed)) => signed.verify(&self.bundle).map_or(0, |checkpoint| checkpoint.size),
            _ => 0,
        };
        let mut last_time: Option<Instant> = None;
        loop {
            let Some(opened) = open.upgrade() else { return };
            let known = *size.borrow();
            // The checkpoint's own record must not be the reason for the next one.
            let fresh = known.saturating_sub(last_size + 1);
            let is_due = fresh >= RECORDS_MAX
                || (fresh > 0 && last_time.is_none_or(|time| time.elapsed() >= INTERVAL));
            if is_due {
                match self.make_checkpoint(&opened).await {
                    Ok(size) => {
                        last_size = size;
                        last_time = Some(Instant::now());
                        self.metrics.checkpoint_size.set(i64::try_from(size).unwrap_or(i64::MAX));
                    }
                    Err(error) => tracing::error!(%error, "no checkpoint could be made; trying again"),
                }
                if let Err(error) = self.database.checkpoint_wal().await {
                    tracing::warn!(error = %crate::chain(&error), "the write-ahead log could not be moved");
                }
            }
            self.metrics.log_size.set(i64::try_from(known).unwrap_or(i64::MAX));
            drop(opened);
            tokio::time::sleep(ROUND).await;
        }
    }

    /// Signs with the one key of the HSM that the running service can sign with. Check the signature before it is used.
    pub(super) async fn sign_with_checkpoint_key(
        &self,
        open: &Open,
        domain: &'static str,
        body: &[u8],
    ) -> Result<Signature, ServiceError> {
        let key = &self.bundle.checkpoint_key;
        let (suite, object) = (self.bundle.suite, key.object);
        let digest = key.public_key.domain_digest(suite, domain, body);
        let deadline = Instant::now() + SIGN_DEADLINE;
        let signed = open.hsm("sign", deadline, move |session| session.sign(object, suite, &digest.0)).await;
        Ok(Signature(signed?))
    }

    /// Signs the log as it is and keeps the signature in the database and in the second place.
    async fn make_checkpoint(&self, open: &Open) -> Result<u64, ServiceError> {
        let head = self.database.head().await?;
        let size = head.frontier.size();
        let time = now();
        let body = codec::to_bytes(&Checkpoint {
            version: VersionOne,
            cluster_id: self.bundle.cluster_id,
            log_epoch: head.log_epoch,
            size,
            root: head.frontier.root(),
            time,
        });
        let signature = self.sign_with_checkpoint_key(open, CHECKPOINT_DOMAIN, &body).await?;
        let signed = SignedCheckpoint { version: VersionOne, body, signature };
        if signed.verify(&self.bundle).is_err() {
            let message = "the HSM made a checkpoint signature that does not verify";
            return Err(ServiceError::new(kms_core::reason::Reason::HsmUnavailable, message));
        }
        let record = self.own_record("audit.checkpoint", Outcome::Done).detail("size", size.to_string());
        let stored = StoredCheckpoint { time, signed: signed.clone(), frontier: head.frontier };
        let entry = Entry {
            record,
            change: Some(Change::Checkpoint(Box::new(stored))),
            decided_under: None,
            idempotency: None,
        };
        if let Commit::Refused(_) = self.committer.commit(entry).await? {
            // Another node has signed the log at this size, and has written it to its own second place.
            return Ok(size);
        }
        // Database first: a checkpoint in the second place that the database does not know means a rollback.
        let path = self.second_place();
        if let Err(error) = blocking(move || append(path, &signed)).await {
            tracing::error!(%error, "the second place cannot be written");
        }
        Ok(size)
    }
}

fn append(path: PathBuf, signed: &SignedCheckpoint) -> std::io::Result<()> {
    let mut line: String = codec::to_bytes(signed).iter().map(|byte| format!("{byte:02x}")).collect();
    line.push('\n');
    let mut file = std::fs::OpenOptions::new().read(true).append(true).create(true).open(path)?;
    if !ends_with_line(&mut file)? {
        // What a power cut left of a line stays where it is, as a line of its own that nobody reads.
        line.insert(0, '\n');
    }
    file.write_all(line.as_bytes())?;
    file.sync_data()
}

/// Whether a file is empty or its last line is whole.
fn ends_with_line(file: &mut File) -> std::io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(true);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}
