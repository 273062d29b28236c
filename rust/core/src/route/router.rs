//! The snapshot that is current, while the pool changes.
//!
//! A [`Router`] holds one immutable [`Snapshot`] behind an atomic pointer. Whoever routes takes the
//! snapshot that is current and never waits; whoever changes the pool builds the next snapshot
//! from it, one writer at a time, and publishes it whole.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::drift::Baseline;
use crate::error::Result;
use crate::pool::Pool;
use crate::pool::changes::{Action, Change, Log};
use crate::route::snapshot::Snapshot;
use crate::sys::fork;

/// Text in, model out, while the pool changes.
pub struct Router {
    current: ArcSwap<Snapshot>,
    /// What has happened; whoever holds the lock is the one writer.
    log: Mutex<Log>,
}

impl Router {
    /// A router that starts from this snapshot.
    pub fn new(snapshot: Snapshot) -> Self {
        Self {
            current: ArcSwap::from_pointee(snapshot.counting_anew()),
            log: Mutex::default(),
        }
    }

    /// The snapshot that is current. Never blocks.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Publishes a snapshot whose pool is made from the current one's; on an error nothing changes.
    /// Writers take turns; readers go on with the snapshot they have. The log notes `action` on
    /// `models`. Returns what was published.
    pub fn change(
        &self,
        action: Action,
        models: &[&str],
        change: impl FnOnce(&Pool) -> Result<Pool>,
    ) -> Result<Arc<Snapshot>> {
        self.publish(action, models, |now| Ok(now.with_pool(change(now.pool())?)))
    }

    /// Publishes another snapshot in place of the current one, as the next version of this router.
    pub fn replace(&self, snapshot: &Snapshot) -> Result<()> {
        let names: Vec<&str> = snapshot.pool.names().iter().collect();
        let next = |now: &Snapshot| {
            Ok(Snapshot {
                version: now.version + 1,
                ..snapshot.clone().counting_anew()
            })
        };
        self.publish(Action::Replace, &names, next).map(drop)
    }

    /// Compares prompts to come with another baseline, in windows of so many; or with none. No
    /// decision changes, so it is no new version.
    pub fn set_baseline(&self, baseline: Option<Baseline>, window: u64) -> Result<()> {
        fork::whole(|| {
            let _writing = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            let next = self.snapshot().with_baseline(baseline, window)?;
            self.current.store(Arc::new(next));
            Ok(())
        })
    }

    /// The latest changes, oldest first: those that made versions above `version`.
    pub fn changes(&self, version: u64) -> Vec<Change> {
        fork::whole(|| {
            let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            log.since(version)
        })
    }

    fn publish(
        &self,
        action: Action,
        models: &[&str],
        next: impl FnOnce(&Snapshot) -> Result<Snapshot>,
    ) -> Result<Arc<Snapshot>> {
        fork::whole(|| {
            // A log poisoned by a panic is whole: entries are pushed at once.
            let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            let now = self.current.load_full();
            let next = Arc::new(next(&now)?);
            log.note(next.version, action, models);
            self.current.store(Arc::clone(&next));
            Ok(next)
        })
    }
}
