//! Work on several cores: scoped threads that live for one call.
//!
//! No pool is kept between calls, so there is nothing that a forked child would miss and nothing to
//! join at exit; a fork never finds a thread half started, see [`fork`]. Starting a thread costs some tens of microseconds; callers therefore give each
//! one at least a fraction of a millisecond of work and keep small batches on their own thread.
//! All calls of a process share one budget of helpers, so concurrent batches do not oversubscribe
//! the machine.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::sys::fork;

/// How often the calling thread asks whether it has been interrupted.
const INTERRUPT_EVERY: Duration = Duration::from_millis(20);

/// Zero means "not set": the environment variable or the number of cores decides.
static NUM_THREADS: AtomicUsize = AtomicUsize::new(0);

/// Helpers running now: the process id in the high half (a forked child starts from none), the
/// count in the low half.
static HELPERS: AtomicU64 = AtomicU64::new(0);

/// Sets how many threads one call may use, the calling one included.
pub fn set_num_threads(n: usize) -> Result<()> {
    if n == 0 || n > 4096 {
        return Err(Error::invalid("n", format!("{n} threads"), "1 to 4096"));
    }
    NUM_THREADS.store(n, Ordering::Relaxed);
    Ok(())
}

/// How many threads one call may use: the value set, else `UNIROUTE_NUM_THREADS`, else the cores
/// this process may run on.
pub fn num_threads() -> usize {
    let set = NUM_THREADS.load(Ordering::Relaxed);
    if set > 0 {
        return set;
    }
    let n = std::env::var("UNIROUTE_NUM_THREADS")
        .ok()
        .and_then(|v| v.trim().parse().ok())
        .filter(|n| (1..=4096).contains(n))
        .or_else(|| std::thread::available_parallelism().ok().map(usize::from))
        .unwrap_or(1);
    NUM_THREADS.store(n, Ordering::Relaxed);
    n
}

/// How one call is to run: on how many threads, and how it learns that it should stop.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// Threads to use at most, the calling one included.
    pub threads: usize,
    /// Asked from the calling thread every few milliseconds; `true` ends the call with
    /// [`Error::Interrupted`].
    pub interrupted: &'a dyn Fn() -> bool,
}

impl Default for Run<'_> {
    fn default() -> Self {
        Self {
            threads: num_threads(),
            interrupted: &|| false,
        }
    }
}

impl Run<'_> {
    /// Runs `work` once on every task, in any order, on up to `self.threads` threads, each with a
    /// state of its own made by `init`. Stops at the first error.
    ///
    /// Tasks should each take some 0.1 ms or more: they are handed out one at a time under a lock.
    pub fn for_each<T: Send, S>(
        &self,
        tasks: impl ExactSizeIterator<Item = T> + Send,
        init: impl Fn() -> S + Sync,
        work: impl Fn(&mut S, T) -> Result<()> + Sync,
    ) -> Result<()> {
        let helpers = Helpers::reserve(
            self.threads.min(tasks.len()).saturating_sub(1),
            self.threads,
        );
        let queue = Mutex::new(tasks);
        let failed = AtomicBool::new(false);
        let drain = |check: &dyn Fn() -> Result<()>| -> Result<()> {
            let mut state = init();
            while !failed.load(Ordering::Relaxed) {
                // A poisoned lock means that another thread panicked; the scope reports that.
                let Ok(Some(task)) = queue.lock().map(|mut q| q.next()) else {
                    break;
                };
                let done = check().and_then(|()| work(&mut state, task));
                if done.is_err() {
                    failed.store(true, Ordering::Relaxed);
                    return done;
                }
            }
            Ok(())
        };
        let last_check = std::cell::Cell::new(Instant::now());
        let interrupt_check = || {
            if last_check.get().elapsed() < INTERRUPT_EVERY {
                return Ok(());
            }
            last_check.set(Instant::now());
            if (self.interrupted)() {
                return Err(Error::Interrupted);
            }
            Ok(())
        };
        if helpers.0 == 0 {
            return drain(&interrupt_check);
        }
        std::thread::scope(|scope| {
            let handles: Vec<_> = (0..helpers.0)
                .map_while(|_| {
                    let helper = std::thread::Builder::new().name("uniroute".into());
                    // Out of threads: go on with those there are.
                    fork::whole(|| helper.spawn_scoped(scope, || drain(&|| Ok(())))).ok()
                })
                .collect();
            let own = drain(&interrupt_check);
            let mut outcome = own;
            for handle in handles {
                match handle.join() {
                    Ok(result) => outcome = outcome.and(result),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            outcome
        })
    }
}

/// A share of the process's helper budget, given back on drop.
struct Helpers(usize);

impl Helpers {
    /// Takes up to `wanted` helpers from a budget of `threads - 1` for the whole process.
    fn reserve(wanted: usize, threads: usize) -> Self {
        if wanted == 0 {
            return Self(0);
        }
        let pid = u64::from(std::process::id()) << 32;
        let mut granted = 0;
        let _ = HELPERS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
            let busy = if now & !0xffff_ffff == pid {
                now & 0xffff_ffff
            } else {
                0
            };
            granted = wanted.min((threads - 1).saturating_sub(busy as usize));
            Some(pid | (busy + granted as u64))
        });
        Self(granted)
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        if self.0 > 0 {
            HELPERS.fetch_sub(self.0 as u64, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        let mut out = vec![0u32; 1000];
        let run = Run {
            threads: 4,
            interrupted: &|| false,
        };
        run.for_each(
            out.chunks_mut(7).enumerate(),
            || (),
            |(), (i, chunk)| {
                chunk.fill(1 + i as u32);
                Ok(())
            },
        )
        .unwrap();
        assert!(
            out.iter()
                .enumerate()
                .all(|(j, &v)| v == 1 + (j / 7) as u32)
        );
    }

    #[test]
    fn the_first_error_ends_the_call() {
        let run = Run {
            threads: 3,
            interrupted: &|| false,
        };
        let result = run.for_each(
            0..100,
            || (),
            |(), i| {
                if i == 5 {
                    Err(Error::EmptyPool)
                } else {
                    Ok(())
                }
            },
        );
        assert!(matches!(result, Err(Error::EmptyPool)));
    }

    #[test]
    fn an_interrupt_ends_the_call() {
        let run = Run {
            threads: 2,
            interrupted: &|| true,
        };
        let result = run.for_each(
            0..1000,
            || (),
            |(), _| {
                std::thread::sleep(Duration::from_millis(1));
                Ok(())
            },
        );
        assert!(matches!(result, Err(Error::Interrupted)));
    }

    #[test]
    fn zero_threads_are_refused() {
        assert!(set_num_threads(0).is_err());
    }
}
