//! How often resident keys have encrypted. The HSM makes a random nonce for each encryption, and one AES or SM4 key under
//! GCM may see at most 2^32 of them (NIST SP 800-38D, section 8.3). Wrapped keys have a key for each message and no such limit.
//!
//! A node takes a number of encryptions for itself, in the log and in the database, before it does the first of them. What it
//! has taken and not done when it is sealed is lost: the count is never less than the truth.

use super::open::{DECISION_COUNT_MAX, Open, contention};
use super::{Node, ServiceError};
use crate::store::{Change, Commit, CountRow, Entry, KeyRow, Refusal};
use kms_core::audit::Outcome;
use kms_core::id::{KeyId, KeyVersion};
use kms_core::reason::Reason;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Most encryptions that a node takes for itself at a time.
const BLOCK_MAX: u64 = 1 << 16;
/// A block is this part of the limit, or one.
const BLOCKS: u64 = 1 << 16;

/// What this node has taken for itself and not used.
#[derive(Debug, Default)]
pub struct Counts(Mutex<HashMap<(KeyId, KeyVersion), Arc<Count>>>);

#[derive(Debug, Default)]
struct Count {
    left: AtomicU64,
    /// One taking at a time: the others wait and find what it took.
    taking: tokio::sync::Mutex<()>,
}

impl Counts {
    fn of(&self, place: (KeyId, KeyVersion)) -> Arc<Count> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(place).or_default().clone()
    }
}

impl Count {
    fn use_one(&self) -> bool {
        let one_less = |left: u64| left.checked_sub(1);
        self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less).is_ok()
    }
}

/// Whether somebody should rotate a key of which so many encryptions are taken: half of the limit.
pub fn is_rotation_advised(taken: u64, max: u64) -> bool {
    taken >= max.div_ceil(2)
}

/// What a node takes when so many are taken; `None` when nothing is left.
fn next_total(taken: u64, max: u64) -> Option<u64> {
    let block = (max / BLOCKS).clamp(1, BLOCK_MAX);
    (taken < max).then(|| max.min(taken.saturating_add(block)))
}

impl Node {
    /// Counts one encryption by a resident version, before it is done.
    ///
    /// # Errors
    /// `KEY_EXHAUSTED` when the limit is reached; the log cannot be written.
    pub(super) async fn count_encryption(
        &self,
        open: &Open,
        key: &KeyRow,
        version: KeyVersion,
    ) -> Result<(), ServiceError> {
        let count = open.counts.of((key.key_id, version));
        if count.use_one() {
            return Ok(());
        }
        let max = self.config.keys.resident_encryptions_max;
        let _turn = count.taking.lock().await;
        for _ in 0..DECISION_COUNT_MAX {
            if count.use_one() {
                return Ok(());
            }
            let counts = self.database.encryption_counts(&key.tenant, key.key_id, &open.row_mac).await?;
            let before = counts.get(&version).copied().unwrap_or_default();
            let name = &key.name;
            let taken = next_total(before, max).ok_or_else(|| {
                let message = format!(
                    "key {name}@{version} has encrypted as often as one key may ({max} times); rotate it"
                );
                ServiceError::new(Reason::KeyExhausted, message)
            })?;
            let mut record = self
                .own_record("key.encryptions", Outcome::Done)
                .key(key.key_id, Some(version))
                .detail("name", name.as_str())
                .detail("taken", taken.to_string());
            if is_rotation_advised(taken, max) {
                tracing::warn!(key = %key.key_id, %version, taken, max, "this key should be rotated soon");
                record = record.detail("advice", "rotate the key");
            }
            let row = CountRow { tenant: key.tenant.clone(), key_id: key.key_id, version, taken };
            let mac = open.row_mac.of_count(&row);
            let change = Change::Encryptions { before, row: Box::new((row, mac)) };
            let entry = Entry { change: Some(change), ..Entry::record(record) };
            match self.committer.commit(entry).await? {
                Commit::Done { .. } => drop(count.left.fetch_add(taken - before, Ordering::AcqRel)),
                // Another node was faster.
                Commit::Refused(Refusal::Conflict) => {}
                Commit::Stale(_) | Commit::Refused(_) => {
                    unreachable!("a count is refused for its number alone")
                }
            }
        }
        Err(contention())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_end_exactly_at_the_limit() {
        for max in [1, 2, 40, 65_536, 100_003, 1 << 20, 1 << 32] {
            let (mut taken, mut blocks) = (0, 0_u64);
            while let Some(next) = next_total(taken, max) {
                assert!(next > taken && next - taken <= BLOCK_MAX, "{max}: {taken} to {next}");
                (taken, blocks) = (next, blocks + 1);
            }
            assert_eq!(taken, max);
            assert!(blocks <= 2 * BLOCKS, "{max} in {blocks} blocks");
        }
        assert_eq!(next_total(u64::MAX, 1 << 32), None, "the limit was lowered");
    }

    #[test]
    fn what_is_left_is_used_once_each() {
        let count = Count::default();
        assert!(!count.use_one());
        count.left.store(2, Ordering::Release);
        assert_eq!([count.use_one(), count.use_one(), count.use_one()], [true, true, false]);
    }

    #[test]
    fn rotation_is_advised_from_half_of_the_limit_on() {
        assert!(!is_rotation_advised((1 << 31) - 1, 1 << 32) && is_rotation_advised(1 << 31, 1 << 32));
        assert!(!is_rotation_advised(0, 1) && is_rotation_advised(1, 1));
    }
}
