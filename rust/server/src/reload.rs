//! The artifact: loaded again when it changes, or when the operator says so.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, watch};

use crate::api::service::Service;

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

/// Longest pause between two tries to load a file that has not changed.
const LONGEST: Duration = Duration::from_secs(60);

/// The artifact as it was before it was loaded, so that no change after that is missed.
pub struct Watched {
    path: PathBuf,
    /// As it was when it was loaded last, or when that was tried.
    stamp: Option<Stamp>,
    failed: Option<Failed>,
}

/// A load that failed: what keeps a file from being read may pass without a change to it.
struct Failed {
    again: Instant,
    pause: Duration,
}

impl Watched {
    /// The artifact as it is now, which is loaded.
    pub fn new(path: PathBuf) -> Self {
        let stamp = Stamp::of(&path);
        Self {
            path,
            stamp,
            failed: None,
        }
    }

    /// Whether to load it: it has changed since that was tried last, or failed a while ago. One that
    /// is gone has not changed: it may be about to come back.
    fn due(&mut self, demanded: bool, now: Instant) -> bool {
        let stamp = Stamp::of(&self.path);
        let changed = stamp.is_some() && stamp != self.stamp;
        if changed {
            self.stamp = stamp;
            self.failed = None;
        }
        let again = self
            .failed
            .as_ref()
            .is_some_and(|failed| failed.again <= now);
        changed || demanded || again
    }

    /// Notes what became of loading it; after each failure the pause is doubled.
    fn tried(&mut self, loaded: bool, every: Duration, now: Instant) {
        let before = self.failed.take();
        if !loaded {
            let pause = before.map_or(every, |failed| failed.pause * 2).min(LONGEST);
            let again = now + pause;
            self.failed = Some(Failed { again, pause });
        }
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
    let mut said = String::new();
    loop {
        let demanded = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            demanded = asked.recv() => match demanded {
                Some(()) => true,
                None => return,
            },
            () = tokio::time::sleep(every) => false,
        };
        if demanded {
            // Who asked for it wants to know what failed.
            said.clear();
        }
        let own = Arc::clone(&service);
        // Reading a file waits for the disk.
        let worked = tokio::task::spawn_blocking(move || {
            let due = match &mut watched {
                Some(watched) => watched.due(demanded, Instant::now()),
                None => demanded,
            };
            if due {
                let loaded = reload(&own, &mut said);
                if let Some(watched) = &mut watched {
                    watched.tried(loaded, every, Instant::now());
                }
            }
            (watched, said)
        });
        let Ok(back) = worked.await else {
            tracing::error!("reloading failed for good; the artifact is no longer watched");
            return;
        };
        (watched, said) = back;
    }
}

/// Reloads once; whether that worked. What cannot be loaded leaves everything as it was. `said` is
/// what the log says already of the failure before, and need not say again.
fn reload(service: &Service, said: &mut String) -> bool {
    match service.backend.reload() {
        Ok(()) => {
            service.metrics.reloaded("ok");
            let version = service.router.snapshot().version();
            tracing::info!(version, "artifact reloaded");
            said.clear();
            true
        }
        Err(refusal) => {
            service.metrics.reloaded("failed");
            if *said != refusal.message {
                tracing::error!(error = refusal.message, "artifact not reloaded");
                *said = refusal.message;
            }
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(1);

    #[test]
    fn what_failed_is_tried_again_after_longer_and_longer() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut watched = Watched::new(file.path().into());
        let mut now = Instant::now();
        assert!(!watched.due(false, now));
        assert!(watched.due(true, now));
        watched.tried(false, EVERY, now);
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            let pause = Duration::from_secs(pause);
            assert!(!watched.due(false, now + pause / 2));
            now += pause;
            assert!(watched.due(false, now));
            watched.tried(false, EVERY, now);
        }
        // A change is tried at once, and the pauses begin anew.
        std::fs::write(file.path(), "changed").unwrap();
        assert!(watched.due(false, now));
        watched.tried(false, EVERY, now);
        assert!(watched.due(false, now + EVERY));
        watched.tried(true, EVERY, now);
        assert!(!watched.due(false, now + 2 * LONGEST));
    }

    #[test]
    fn a_file_that_is_gone_has_not_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pool");
        let mut watched = Watched::new(path.clone());
        let now = Instant::now();
        assert!(!watched.due(false, now));
        std::fs::write(&path, "here").unwrap();
        assert!(watched.due(false, now));
        watched.tried(true, EVERY, now);
        std::fs::remove_file(&path).unwrap();
        assert!(!watched.due(false, now));
    }
}
