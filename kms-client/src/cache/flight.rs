//! One part of the cache: the entries, and the calls that are under way for new ones.

use super::store::{Bounds, Store};
use crate::error::ClientError;
use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::OnceCell;
use tokio::time::Instant;

type Flight<V> = OnceCell<Result<Arc<V>, Arc<ClientError>>>;

struct State<K, V> {
    store: Store<K, V>,
    /// Calls that somebody waits for; they live as long as somebody does.
    flights: HashMap<K, Weak<Flight<V>>>,
    /// Counts how often everything was forgotten: what was fetched before that is not kept.
    cleared_count: u64,
    hit_count: u64,
    miss_count: u64,
}

/// Entries that are fetched once however many ask for them at the same time.
pub(super) struct Part<K, V> {
    state: Mutex<State<K, V>>,
}

impl<K: Eq + Hash + Clone, V> Part<K, V> {
    pub fn new(bounds: Bounds) -> Self {
        let state = State {
            store: Store::new(bounds),
            flights: HashMap::new(),
            cleared_count: 0,
            hit_count: 0,
            miss_count: 0,
        };
        Self { state: Mutex::new(state) }
    }

    /// The state is whole after every step, so a panic elsewhere leaves nothing half done in it.
    fn lock(&self) -> MutexGuard<'_, State<K, V>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value for one use of `byte_count` bytes, from the store or from `fetch`.
    ///
    /// Of many that ask at once one fetches, and the others take its entry. When the entry does not last for all
    /// of them, one of the rest fetches the next. When fetching fails, all who waited for it get that failure:
    /// a service in trouble is not asked by each of them in turn. When the one that fetches is cancelled,
    /// another goes on.
    pub async fn get<F>(
        &self,
        key: K,
        byte_count: u64,
        fetch: impl Fn() -> F,
    ) -> Result<Arc<V>, Arc<ClientError>>
    where
        F: Future<Output = Result<V, ClientError>>,
    {
        loop {
            let (flight, cleared_count) = {
                let mut state = self.lock();
                if let Some(value) = state.store.take(&key, byte_count, Instant::now()) {
                    state.hit_count += 1;
                    return Ok(value);
                }
                (state.join(&key), state.cleared_count)
            };
            let mut has_fetched = false;
            let result = flight
                .get_or_init(|| async {
                    has_fetched = true;
                    // The age counts from before the call: what the service decided, it decided later.
                    let made = Instant::now();
                    let value = Arc::new(fetch().await.map_err(Arc::new)?);
                    let mut state = self.lock();
                    state.miss_count += 1;
                    if state.cleared_count == cleared_count {
                        state.store.insert(key.clone(), Arc::clone(&value), byte_count, made);
                    }
                    Ok(value)
                })
                .await
                .clone();
            self.lock().leave(&key, &flight);
            match result {
                Ok(value) if has_fetched => return Ok(value),
                // Its use is not counted yet: it is taken from the store, with the others.
                Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub fn sweep(&self, now: Instant) -> Option<Instant> {
        self.lock().store.sweep(now)
    }

    pub fn clear(&self) {
        let mut state = self.lock();
        state.store.clear();
        state.flights.clear();
        state.cleared_count += 1;
    }

    /// Entries, hits and misses.
    pub fn counts(&self) -> (usize, u64, u64) {
        let state = self.lock();
        (state.store.len(), state.hit_count, state.miss_count)
    }
}

impl<K: Eq + Hash + Clone, V> State<K, V> {
    fn join(&mut self, key: &K) -> Arc<Flight<V>> {
        if let Some(flight) = self.flights.get(key).and_then(Weak::upgrade) {
            return flight;
        }
        // Those whose callers were all cancelled.
        self.flights.retain(|_, flight| flight.strong_count() > 0);
        let flight = Arc::new(OnceCell::new());
        self.flights.insert(key.clone(), Arc::downgrade(&flight));
        flight
    }

    fn leave(&mut self, key: &K, flight: &Arc<Flight<V>>) {
        if self.flights.get(key).is_some_and(|known| known.as_ptr() == Arc::as_ptr(flight)) {
            self.flights.remove(key);
        }
    }
}
