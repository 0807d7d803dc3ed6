//! Entries with an age, a number of uses and a place in the order of use. No clock and no network of its own.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What one entry may be used for, and how many there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub age_max: Duration,
    pub use_count_max: u64,
    pub byte_count_max: u64,
    pub entry_count_max: usize,
}

struct Entry<V> {
    value: Arc<V>,
    made: Instant,
    use_count: u64,
    byte_count: u64,
    /// When it was used last, in steps of the store.
    used_last: u64,
}

/// A bounded map. What leaves it is dropped as soon as nobody works with it any more.
pub(super) struct Store<K, V> {
    bounds: Bounds,
    entries: HashMap<K, Entry<V>>,
    step: u64,
}

impl<K: Eq + Hash + Clone, V> Store<K, V> {
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, entries: HashMap::new(), step: 0 }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The value for one more use of `byte_count` bytes, which is counted. An entry that is too old, or that
    /// this use would take beyond a bound, is removed.
    pub fn take(&mut self, key: &K, byte_count: u64, now: Instant) -> Option<Arc<V>> {
        let bounds = self.bounds;
        let entry = self.entries.get_mut(key)?;
        let byte_count = entry.byte_count.checked_add(byte_count);
        let is_young = now.saturating_duration_since(entry.made) < bounds.age_max;
        match byte_count.filter(|count| *count <= bounds.byte_count_max) {
            Some(byte_count) if is_young && entry.use_count < bounds.use_count_max => {
                self.step += 1;
                (entry.use_count, entry.byte_count) = (entry.use_count + 1, byte_count);
                entry.used_last = self.step;
                Some(Arc::clone(&entry.value))
            }
            _ => {
                self.entries.remove(key);
                None
            }
        }
    }

    /// Adds a value that has had its first use, of `byte_count` bytes, and removes the one that was not used
    /// for longest when there are too many.
    pub fn insert(&mut self, key: K, value: Arc<V>, byte_count: u64, made: Instant) {
        self.step += 1;
        let entry = Entry { value, made, use_count: 1, byte_count, used_last: self.step };
        self.entries.insert(key, entry);
        while self.entries.len() > self.bounds.entry_count_max {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used_last);
            let Some(key) = oldest.map(|(key, _)| key.clone()) else { return };
            self.entries.remove(&key);
        }
    }

    /// Removes what is too old, and says when the next entry will be.
    pub fn sweep(&mut self, now: Instant) -> Option<Instant> {
        let age_max = self.bounds.age_max;
        self.entries.retain(|_, entry| now.saturating_duration_since(entry.made) < age_max);
        self.entries.values().map(|entry| entry.made + age_max).min()
    }

    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        age_max: Duration::from_secs(10),
        use_count_max: 3,
        byte_count_max: 100,
        entry_count_max: 2,
    };

    fn with(bounds: Bounds, byte_count: u64) -> (Store<&'static str, u8>, Instant) {
        let (mut store, now) = (Store::new(bounds), Instant::now());
        store.insert("a", Arc::new(1), byte_count, now);
        (store, now)
    }

    #[test]
    fn an_entry_is_given_out_as_often_as_it_may_be_used_and_not_once_more() {
        let (mut store, now) = with(BOUNDS, 0);
        assert!(store.take(&"a", 0, now).is_some() && store.take(&"a", 0, now).is_some());
        assert!(store.take(&"a", 0, now).is_none(), "the insertion was the first use");
        assert_eq!(store.len(), 0);
    }

    #[test]
    fn bytes_are_counted_and_a_use_that_would_go_beyond_is_refused() {
        let (mut store, now) = with(BOUNDS, 60);
        assert!(store.take(&"a", 40, now).is_some(), "exactly the bound");
        assert!(store.take(&"a", 1, now).is_none());
        let (mut store, now) = with(BOUNDS, 60);
        assert!(store.take(&"a", 41, now).is_none());
        let (mut store, now) = with(Bounds { byte_count_max: u64::MAX, ..BOUNDS }, u64::MAX);
        assert!(store.take(&"a", 1, now).is_none(), "no wrapping round");
    }

    #[test]
    fn an_entry_that_has_reached_its_age_is_gone() {
        let (mut store, now) = with(BOUNDS, 0);
        assert!(store.take(&"a", 0, now + Duration::from_millis(9_999)).is_some());
        assert!(store.take(&"a", 0, now + Duration::from_secs(10)).is_none());
        assert_eq!(store.len(), 0);
    }

    #[test]
    fn a_sweep_removes_what_is_too_old_and_tells_the_next_time() {
        let (mut store, now) = with(BOUNDS, 0);
        store.insert("b", Arc::new(2), 0, now + Duration::from_secs(4));
        assert_eq!(store.sweep(now + Duration::from_secs(10)), Some(now + Duration::from_secs(14)));
        assert_eq!(store.len(), 1);
        assert_eq!(store.sweep(now + Duration::from_secs(14)), None);
        assert_eq!(store.len(), 0);
    }

    #[test]
    fn the_entry_that_was_not_used_for_longest_makes_room() {
        let (mut store, now) = with(BOUNDS, 0);
        store.insert("b", Arc::new(2), 0, now);
        assert!(store.take(&"a", 0, now).is_some());
        store.insert("c", Arc::new(3), 0, now);
        assert_eq!(store.len(), 2);
        assert!(store.take(&"b", 0, now).is_none(), "it was used before a was");
        assert!(store.take(&"a", 0, now).is_some() && store.take(&"c", 0, now).is_some());
    }

    #[test]
    fn what_leaves_the_store_is_dropped() {
        let (mut store, now) = with(BOUNDS, 0);
        let value = store.take(&"a", 0, now).expect("it is there");
        assert_eq!(Arc::strong_count(&value), 2);
        store.clear();
        assert_eq!((Arc::strong_count(&value), store.len()), (1, 0));
    }
}
