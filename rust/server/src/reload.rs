//! The artifact: loaded again when it changes, or when the operator says so.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};

use crate::service::Service;

/// What tells one state of a file from another.
#[derive(Clone, Copy, PartialEq)]
struct Stamp {
    modified: Option<SystemTime>,
    inode: u64,
    length: u64,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            modified: metadata.modified().ok(),
            inode: metadata.ino(),
            length: metadata.len(),
        })
    }
}

/// The artifact as it was before it was loaded, so that no change after that is missed.
pub struct Watched {
    path: PathBuf,
    stamp: Option<Stamp>,
}

impl Watched {
    /// The artifact as it is now.
    pub fn new(path: PathBuf) -> Self {
        let stamp = Stamp::of(&path);
        Self { path, stamp }
    }

    /// Whether it has changed since it was asked last. One that is gone has not: it may be about to
    /// come back.
    fn changed(&mut self) -> bool {
        let now = Stamp::of(&self.path);
        let changed = now.is_some() && now != self.stamp;
        if changed {
            self.stamp = now;
        }
        changed
    }
}

/// Reloads on demand, and when the watched file changes, until told to stop.
pub async fn keep_up(
    service: Arc<Service>,
    watched: Option<Watched>,
    every: Duration,
    mut asked: mpsc::Receiver<()>,
    mut stop: watch::Receiver<bool>,
) {
    let (mut watched, every) = match watched {
        Some(watched) if !every.is_zero() => (Some(watched), every),
        // Looks at nothing, now and then.
        _ => (None, Duration::from_secs(3600)),
    };
    loop {
        let demanded = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            demanded = asked.recv() => match demanded {
                Some(()) => true,
                None => return,
            },
            () = tokio::time::sleep(every) => false,
        };
        let own = Arc::clone(&service);
        // Reading a file waits for the disk.
        let worked = tokio::task::spawn_blocking(move || {
            let changed = watched.as_mut().is_some_and(Watched::changed);
            if changed || demanded {
                reload(&own);
            }
            watched
        });
        let Ok(back) = worked.await else {
            tracing::error!("reloading failed for good; the artifact is no longer watched");
            return;
        };
        watched = back;
    }
}

/// Reloads once. What cannot be loaded leaves everything as it was.
fn reload(service: &Service) {
    match service.backend.reload() {
        Ok(()) => {
            service.metrics.reloaded("ok");
            let version = service.router.snapshot().version();
            tracing::info!(version, "artifact reloaded");
        }
        Err(refusal) => {
            service.metrics.reloaded("failed");
            tracing::error!(error = refusal.message, "artifact not reloaded");
        }
    }
}
