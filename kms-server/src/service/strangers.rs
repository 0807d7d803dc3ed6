//! Certificates of the right authority whose principal the bundle does not list: recorded, but counted
//! per minute, so that nobody fills the disk by calling.

use super::Node;
use crate::random::now;
use crate::store::Entry;
use kms_core::audit::{Outcome, Record};
use kms_core::reason::Reason;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Most distinct strangers that are counted apart in one minute.
const STRANGER_COUNT_MAX: usize = 256;

/// Calls by strangers in this minute.
#[derive(Debug, Default)]
pub struct Strangers(Mutex<BTreeMap<String, u64>>);

impl Node {
    /// A stranger called. The minute's summary will say so.
    pub fn note_stranger(&self, name: &str) {
        let mut counts = self.strangers.0.lock().unwrap_or_else(PoisonError::into_inner);
        let shown: String = name.chars().take(200).collect();
        let key = match counts.len() < STRANGER_COUNT_MAX || counts.contains_key(&shown) {
            true => shown,
            false => "others".into(),
        };
        *counts.entry(key).or_default() += 1;
    }

    /// Writes the summary of strangers, if there were any.
    pub async fn record_strangers(&self) {
        let counts = std::mem::take(&mut *self.strangers.0.lock().unwrap_or_else(PoisonError::into_inner));
        for (name, count) in counts {
            let outcome = Outcome::Refused(Reason::PrincipalUnknown);
            let record = Record::new("auth.unknown-principal", outcome, &name, &self.name, "")
                .detail("calls", count.to_string())
                .detail("until", now().0.to_string());
            if let Err(error) = self.committer.commit(Entry::record(record)).await {
                tracing::error!(%error, count, "calls by unknown principals could not be recorded");
            }
        }
    }

    /// Writes the summary every minute.
    pub async fn watch_strangers(self: Arc<Self>) {
        loop {
            tokio::time::sleep(Duration::from_secs(60)).await;
            self.record_strangers().await;
        }
    }
}
