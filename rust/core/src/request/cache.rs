//! Constraints that were compiled for a snapshot, kept for requests that ask the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;

use crate::pool::Pool;
use crate::request::constraints::{Compiled, Constraints};

/// How many constraints a snapshot keeps compiled, and bytes that these may take together.
const KEPT: usize = 64;
const MOST_BYTES: usize = 16 << 20;

/// The constraints compiled for one snapshot. Whoever looks one up never waits.
#[derive(Default)]
pub struct Cache {
    kept: ArcSwap<Vec<Arc<Compiled>>>,
    /// Bytes of all that are kept, and of those still in use that are not: they grow with use.
    bytes: Arc<AtomicUsize>,
}

impl Cache {
    /// `constraints` compiled for `pool`, which must be the one pool that this cache belongs to.
    pub fn get(&self, constraints: &Arc<Constraints>, pool: &Pool) -> Arc<Compiled> {
        let same = |c: &&Arc<Compiled>| c.is_of(constraints);
        if self.bytes.load(Ordering::Relaxed) > MOST_BYTES {
            self.trim();
        }
        if let Some(found) = self.kept.load().iter().find(same) {
            return Arc::clone(found);
        }
        let made = Arc::new(constraints.compile(pool, &self.bytes));
        self.kept.rcu(|kept| {
            // The newest first; the oldest is forgotten.
            let others = kept.iter().filter(|c| !same(c)).take(KEPT - 1);
            std::iter::once(&made)
                .chain(others)
                .cloned()
                .collect::<Vec<_>>()
        });
        made
    }

    /// Forgets the oldest, until those that are left take half of what they may.
    fn trim(&self) {
        self.kept.rcu(|kept| {
            let mut bytes = 0;
            let fits = |c: &&Arc<Compiled>| {
                bytes += c.bytes();
                bytes <= MOST_BYTES / 2
            };
            kept.iter().take_while(fits).cloned().collect::<Vec<_>>()
        });
    }
}
