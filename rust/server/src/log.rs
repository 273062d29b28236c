//! Structured logs: one JSON object a line, on standard error.

use std::sync::{Mutex, PoisonError};

use tracing_subscriber::filter::LevelFilter;
use uniroute_core::{Error, Result};

/// Starts logging at a level. The first service of a process decides for all.
pub fn start(level: &str) -> Result<()> {
    let level: LevelFilter = level.parse().map_err(|_| {
        let expected = "off, error, warn, info or debug";
        Error::invalid("log", format!("{level:?}"), expected)
    })?;
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .finish();
    // Fails where there is one already, which is then kept.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}

/// Warnings of one kind that are written in a second at most.
const MOST: u32 = 10;

/// Keeps a flood of warnings out of the log.
#[derive(Default)]
pub struct Throttle(Mutex<Second>);

#[derive(Default)]
struct Second {
    began: u64,
    written: u32,
    held_back: u64,
}

impl Throttle {
    /// Whether one more may be written, so many seconds after the beginning; with how many were not
    /// since the last one.
    pub fn pass(&self, now: f64) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.began != now as u64 {
            (state.began, state.written) = (now as u64, 0);
        }
        if state.written == MOST {
            state.held_back += 1;
            return None;
        }
        state.written += 1;
        Some(std::mem::take(&mut state.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_short_and_counted() {
        let throttle = Throttle::default();
        let passed = |now: f64, times: usize| -> Vec<u64> {
            (0..times).filter_map(|_| throttle.pass(now)).collect()
        };
        assert_eq!(passed(0.2, 1000), vec![0; MOST as usize]);
        assert_eq!(passed(1.0, 2), [1000 - u64::from(MOST), 0]);
        assert_eq!(passed(5.0, 1), [0]);
    }
}
