//! What a file may make its reader hold.
//!
//! A file need not be as large on disk as it says: one with holes reads as zeros. So nothing is
//! reserved because a header asks for it. A file is read in two steps. [`Artifact::load`](super::artifact::Artifact::load) reads the
//! header alone, at most [`MAX_HEADER`] bytes with at most [`MOST_VALUES`] values; the length of the
//! file must be that of its tensors, and within [`most_bytes`]. Whoever knows the format then looks
//! at the dtypes and shapes ([`Unread::tensors`](super::read::Unread::tensors)) before [`Unread::read`](super::read::Unread::read) reserves anything. No rule
//! on shapes can bound a file whose sizes agree with each other, and how much of it lies on disk is
//! reported differently by every file system: that is what [`most_bytes`] is for. Room is reserved for one
//! tensor at a time, and what cannot be had is an error. As Linux promises more memory than there is,
//! a larger file also asks once for all of what its reading may take: no system promises more in one
//! piece than it has in all, unless it was set up to.

use std::collections::BTreeMap;

use safetensors::tensor::TensorInfo;

use crate::error::{Error, Result};
use crate::file::errors::damaged;

/// Bytes that a header has at most: room for the names, prices and tags of some 250,000 models.
pub const MAX_HEADER: u64 = 1 << 26;

/// Values that the JSON of a manifest has at most. One takes up to some 100 bytes once it is read.
pub const MOST_VALUES: usize = 1 << 22;

/// Tensors that a file has at most.
pub const MOST_TENSORS: usize = 4096;

/// Dimensions that a tensor has at most.
const MOST_DIMENSIONS: usize = 8;

/// Bytes that a file has at most, unless [`BYTES_VARIABLE`] says otherwise.
pub const MOST_BYTES: u64 = 1 << 31;

/// The environment variable that sets the bytes of the largest file.
pub const BYTES_VARIABLE: &str = "UNIROUTE_MAX_FILE_BYTES";

/// A file of at least this many bytes asks for the memory of its reading at once, before it is read.
const LARGE: u64 = 1 << 24;

/// What reading takes at its peak, in bytes for each of the file: the tensors, those taken out of
/// them, what is made of these, and copies that the caller takes.
const COPIES: u64 = 4;

/// Bytes that a file has at most: [`MOST_BYTES`], or what [`BYTES_VARIABLE`] says.
pub fn most_bytes() -> Result<u64> {
    let Some(set) = std::env::var_os(BYTES_VARIABLE) else {
        return Ok(MOST_BYTES);
    };
    let most = set.to_str().and_then(|set| set.parse().ok());
    most.ok_or_else(|| {
        Error::invalid(
            BYTES_VARIABLE,
            set.display().to_string(),
            "a number of bytes",
        )
    })
}

/// Fails for a file that is too large.
pub(super) fn check_length(length: u64) -> Result<()> {
    let most = most_bytes()?;
    if length <= most {
        return Ok(());
    }
    let expected = format!("at most {most}; {BYTES_VARIABLE} sets another limit");
    Err(damaged(format!("{length} bytes"), expected))
}

/// Fails for a file that there is no memory for.
pub(super) fn check_room(length: u64) -> Result<()> {
    let needed = length.saturating_mul(COPIES);
    if length < LARGE || is_there_room(needed) {
        return Ok(());
    }
    Err(no_room(needed))
}

/// Whether the system would hand out this many bytes now.
fn is_there_room(bytes: u64) -> bool {
    let mut room: Vec<u8> = Vec::new();
    let given = usize::try_from(bytes).is_ok_and(|bytes| room.try_reserve_exact(bytes).is_ok());
    // Room that is looked at is reserved indeed: a compiler may leave out any other.
    std::hint::black_box(&mut room);
    given
}

pub(super) fn no_room(bytes: u64) -> Error {
    let problem = format!("reading it takes {bytes} bytes of memory, more than the system has");
    damaged(problem, "a file that fits into memory")
}

/// Fails for more tensors than a file can have, or more dimensions than a tensor.
pub(super) fn check_tensors(tensors: &BTreeMap<String, TensorInfo>) -> Result<()> {
    if tensors.len() > MOST_TENSORS {
        let problem = format!("{} tensors", tensors.len());
        return Err(damaged(problem, format!("at most {MOST_TENSORS}")));
    }
    let deep = (tensors.iter()).find(|(_, info)| info.shape.len() > MOST_DIMENSIONS);
    let Some((name, info)) = deep else {
        return Ok(());
    };
    let problem = format!("tensor {name:?} of {} dimensions", info.shape.len());
    Err(damaged(problem, format!("at most {MOST_DIMENSIONS}")))
}

/// Fails if JSON has more than `most` values: before it is parsed, which takes many times its length.
pub(crate) fn check_values(what: &str, json: &[u8], most: usize) -> Result<()> {
    // Each has a byte of its own.
    if json.len() <= most {
        return Ok(());
    }
    let (mut values, mut quoted, mut escaped) = (1, false, false);
    for &byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' | b'[' | b'{' if !quoted => values += 1,
            _ => {}
        }
    }
    if values <= most {
        return Ok(());
    }
    let problem = format!("{what} holds {values} values");
    Err(damaged(problem, format!("at most {most}")))
}
