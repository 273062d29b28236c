//! The one error type of the crate.

use std::borrow::Cow;
use std::fmt::Write;

use crate::pool::checks::is_unprintable;

/// What went wrong, in terms of the caller's arguments.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument has a value that cannot be used.
    #[error("{argument}: {problem}; expected {expected}")]
    InvalidArgument {
        /// Name of the argument as the caller wrote it.
        argument: &'static str,
        /// What was found.
        problem: String,
        /// What would have been accepted.
        expected: String,
    },
    /// A model name that the pool does not hold.
    #[error("{argument}: no model named {name:?} in the pool; expected one of `router.models`")]
    UnknownModel {
        /// Name of the argument as the caller wrote it.
        argument: &'static str,
        /// The name that was looked up.
        name: String,
    },
    /// A model name that the pool already holds, or that appears twice in one call.
    #[error("{argument}: model {name:?} {problem}; expected names that are new and distinct")]
    DuplicateModel {
        /// Name of the argument as the caller wrote it.
        argument: &'static str,
        /// The repeated name.
        name: String,
        /// Where the other one is.
        problem: &'static str,
    },
    /// Routing was asked of a pool without models.
    #[error("the pool is empty: no model to route to; add one with `add_model` first")]
    EmptyPool,
    /// No model may answer: all are excluded by constraints, or disabled.
    #[error(
        "constraints: none of the {models} models may answer (stopped by: {stopped}); expected at \
         least one that meets them all, or a `fallback`"
    )]
    NoCandidate {
        /// How many models there are.
        models: usize,
        /// How many each rule stops.
        stopped: String,
    },
    /// A file that is not an artifact of this program, or a damaged one.
    #[error("{path}: {problem}; expected {expected}")]
    Artifact {
        /// The file.
        path: String,
        /// What was found in it.
        problem: String,
        /// What would have been accepted.
        expected: String,
    },
    /// The operating system refused a read or a write.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// `UNIROUTE_ISA` names an instruction set that is unknown or that this CPU lacks.
    #[error("UNIROUTE_ISA: {problem}; expected one of {available}, or unset")]
    UnsupportedIsa {
        /// What was asked for, and why it cannot be had.
        problem: String,
        /// The instruction sets that this CPU offers.
        available: String,
    },
    /// A bug of this program: a step that panicked. Nothing was changed by it.
    #[error("internal: {problem}; expected no such failure: please report it as a bug")]
    Internal {
        /// What the panic said.
        problem: String,
    },
    /// The caller asked a running call to stop (Ctrl-C).
    #[error("interrupted")]
    Interrupted,
}

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A message that can be shown wherever messages are: characters that a terminal would obey or not
/// show are escaped, line breaks and tabs apart, and of one that is longer than `most` bytes the middle is left
/// out, which it says.
pub fn legible(message: &str, most: usize) -> Cow<'_, str> {
    let short = shortened(message, most);
    match escaped(&short, |c| !matches!(c, '\n' | '\t') && is_unprintable(c)) {
        Cow::Borrowed(_) => short,
        // Escapes are longer than what they stand for.
        Cow::Owned(text) => Cow::Owned(shortened(&text, most).into_owned()),
    }
}

/// A text that is part of a line, such as the name of a file: what cannot be printed is escaped.
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, is_unprintable)
}

fn escaped(text: &str, hidden: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&hidden) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 64);
    for c in text.chars() {
        if hidden(c) {
            escaped.extend(c.escape_unicode());
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

fn shortened(message: &str, most: usize) -> Cow<'_, str> {
    /// More than the note in the middle takes.
    const NOTE: usize = 40;
    if message.len() <= most {
        return Cow::Borrowed(message);
    }
    let room = most.saturating_sub(NOTE);
    let boundary = |at: &usize| message.is_char_boundary(*at);
    let end = (0..=room / 2).rev().find(boundary).unwrap_or(0);
    let start = message.len() - room / 2;
    let start = (start..=message.len()).find(boundary).unwrap_or(start);
    let mut text = message[..end].to_owned();
    // Writing to a string cannot fail.
    let _ = write!(text, " [{} bytes left out] ", start - end);
    text.push_str(&message[start..]);
    Cow::Owned(text)
}

impl Error {
    /// An [`Error::InvalidArgument`]: which argument, what was wrong with it, what was expected.
    pub fn invalid(
        argument: &'static str,
        problem: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self::InvalidArgument {
            argument,
            problem: problem.into(),
            expected: expected.into(),
        }
    }

    /// The same about another argument, whose values were checked as if they were this one's.
    #[must_use]
    pub fn about(mut self, name: &'static str) -> Self {
        if let Self::InvalidArgument { argument, .. } = &mut self {
            *argument = name;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_short_and_can_be_printed() {
        assert!(matches!(
            legible("as it is:\n\t é", 100),
            Cow::Borrowed("as it is:\n\t é")
        ));
        assert_eq!(legible("a\u{1b}[2Jb\u{202e}", 100), "a\\u{1b}[2Jb\\u{202e}");
        for c in ['x', 'é', '\u{1b}', '€'] {
            let long: String = std::iter::repeat_n(c, 1_000_000).collect();
            let shown = legible(&long, 1000);
            assert!((900..=1000).contains(&shown.len()), "{}", shown.len());
            assert!(shown.contains("bytes left out"));
        }
    }
}
