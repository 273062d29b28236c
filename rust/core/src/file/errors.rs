//! Errors of files: what is wrong with one, and which one it is.

use std::io;
use std::path::Path;

use crate::error::{Error, legible, printable};

/// What a damaged file is not.
pub const WHOLE: &str = "a whole file written by uniroute_fast";

/// An error of reading, which [`at`] makes that of a path.
pub fn unreadable(source: io::Error) -> Error {
    if source.kind() == io::ErrorKind::UnexpectedEof {
        return damaged("not a safetensors file, or cut short", WHOLE);
    }
    Error::Io {
        path: String::new(),
        source,
    }
}

/// The error of a manifest that is no JSON.
pub fn not_json(error: &serde_json::Error) -> Error {
    damaged(format!("its manifest is not JSON ({error})"), WHOLE)
}

/// A path as errors show it.
pub fn shown(path: &Path) -> String {
    printable(&path.display().to_string()).into_owned()
}

/// An [`Error::Artifact`] whose path is filled in by [`at`].
pub fn damaged(problem: impl Into<String>, expected: impl Into<String>) -> Error {
    Error::Artifact {
        path: "artifact".into(),
        problem: brief(&problem.into()),
        expected: brief(&expected.into()),
    }
}

/// A text that may repeat what a file holds, as errors show it.
fn brief(text: &str) -> String {
    legible(text, 400).into_owned()
}

/// The same error, naming the file in which it was found.
pub fn at(file: &str, error: Error) -> Error {
    match error {
        Error::Artifact {
            problem, expected, ..
        } => Error::Artifact {
            path: file.into(),
            problem,
            expected,
        },
        Error::Io { source, .. } => Error::Io {
            path: file.into(),
            source,
        },
        // A value that a constructor refuses came out of the file.
        Error::InvalidArgument {
            argument,
            problem,
            expected,
        } => Error::Artifact {
            path: file.into(),
            problem: brief(&format!("{argument}: {problem}")),
            expected: brief(&expected),
        },
        Error::DuplicateModel {
            argument,
            name,
            problem,
        } => Error::Artifact {
            path: file.into(),
            problem: brief(&format!("{argument}: model {name:?} {problem}")),
            expected: "distinct names".into(),
        },
        other => other,
    }
}
