//! What a fork must not find half done.
//!
//! A forked child has its parent's memory and one of its threads. Whatever another thread was in the
//! middle of stays so for ever: a lock that it held, a value that it was about to finish and that
//! others wait for. Even starting a thread is such a moment. The C library then empties the
//! thread-local storage of a stack that it uses again, and glibc (2.36 at least) takes no lock while
//! it does: a child forked meanwhile frees the same memory once more when it uses that stack, and
//! dies of a "double free".
//!
//! So each such step runs in [`whole`], and who forks first takes a [`Pause`], as the Python
//! extension does around every `os.fork`.

use std::cell::Cell;
use std::sync::{OnceLock, PoisonError, RwLock, RwLockWriteGuard};

/// Held for reading while a step is under way, for writing while the process forks.
static FORKING: RwLock<()> = RwLock::new(());

thread_local! {
    /// Whether this thread holds [`FORKING`], in either way.
    static HOLDS: Cell<bool> = const { Cell::new(false) };
}

/// Says that this thread holds [`FORKING`], until dropped: even by a panic.
struct Holds;

impl Holds {
    fn new() -> Self {
        HOLDS.set(true);
        Self
    }
}

impl Drop for Holds {
    fn drop(&mut self) {
        HOLDS.set(false);
    }
}

/// Runs a step that no fork may divide; in a step already, as part of that one.
///
/// The step must not wait for whoever may be forking.
pub(crate) fn whole<T>(step: impl FnOnce() -> T) -> T {
    if HOLDS.get() {
        return step();
    }
    let _no_fork = FORKING.read().unwrap_or_else(PoisonError::into_inner);
    let _holds = Holds::new();
    step()
}

/// The value of `cell`, which a fork finds made or not begun.
pub(crate) fn once<T>(cell: &OnceLock<T>, make: impl FnOnce() -> T) -> &T {
    match cell.get() {
        Some(value) => value,
        None => whole(|| cell.get_or_init(make)),
    }
}

/// While it lives no step is under way, and whoever begins one waits: the time to fork.
///
/// Dropped by the thread that took it, in the parent and in the child.
#[must_use]
pub struct Pause {
    _holds: Holds,
    _no_step: RwLockWriteGuard<'static, ()>,
}

impl Pause {
    /// Waits for the steps under way, which take microseconds, or milliseconds where a large pool
    /// changes.
    pub fn begin() -> Self {
        Self {
            _no_step: FORKING.write().unwrap_or_else(PoisonError::into_inner),
            _holds: Holds::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    #[test]
    fn steps_wait_for_a_pause_and_a_pause_for_steps() {
        let (begun, is_begun) = channel();
        let (may_end, end) = channel::<()>();
        let cell = &OnceLock::new();
        std::thread::scope(|scope| {
            let step = scope.spawn(move || {
                *once(cell, || {
                    begun.send(()).unwrap();
                    end.recv().unwrap();
                    // A step within a step is no other one, and so never waits for itself.
                    whole(|| 7)
                })
            });
            is_begun.recv().unwrap();
            let (paused, is_paused) = channel();
            let pause = scope.spawn(move || {
                let pause = Pause::begin();
                paused.send(()).unwrap();
                std::thread::sleep(Duration::from_millis(20));
                drop(pause);
            });
            let early = is_paused.recv_timeout(Duration::from_millis(20));
            assert!(early.is_err(), "paused in the middle of a step");
            may_end.send(()).unwrap();
            is_paused.recv().unwrap();
            assert_eq!(cell.get(), Some(&7));
            whole(|| assert!(FORKING.try_write().is_err()));
            assert_eq!(step.join().unwrap(), 7);
            pause.join().unwrap();
        });
    }
}
