//! The one error type of the crate.

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
    /// The caller asked a running call to stop (Ctrl-C).
    #[error("interrupted")]
    Interrupted,
}

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

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
