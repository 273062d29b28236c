//! Structured logs: one JSON object a line, on standard error.

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
