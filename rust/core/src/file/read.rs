//! From bytes to content: the header first, and the tensors once they are known to be as they must.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use safetensors::tensor::{Metadata, TensorInfo};
use serde::Deserialize;
use serde_json::Value;
use xxhash_rust::xxh3::Xxh3Default;

use crate::error::{Error, Result};
use crate::file::artifact::{Artifact, FORMAT, Header, KEY};
use crate::file::errors::{WHOLE, at, damaged, not_json, shown, unreadable};
use crate::file::limits::{
    MAX_HEADER, MOST_VALUES, check_length, check_room, check_tensors, check_values, no_room,
};
use crate::file::tensor::{Tensor, described};

impl Artifact {
    /// The content of a file's bytes, its header read.
    pub fn from_bytes(bytes: &[u8]) -> Result<Unread<Cursor<&[u8]>>> {
        Unread::new("artifact", Cursor::new(bytes), bytes.len() as u64)
    }

    /// The content of a file, its header read.
    pub fn load(path: &Path) -> Result<Unread<File>> {
        let shown = shown(path);
        let (file, length) = open(path).map_err(|error| at(&shown, error))?;
        Unread::new(&shown, file, length)
    }
}

/// A file whose header has been read and checked, and whose tensors have not been read.
#[derive(Debug)]
pub struct Unread<R> {
    name: String,
    source: R,
    /// Where the first tensor begins.
    first: u64,
    manifest: String,
    tensors: BTreeMap<String, TensorInfo>,
    checksum: String,
}

impl<R: Read + Seek> Unread<R> {
    /// Reads the header of a file of `length` bytes, called `name` in errors.
    fn new(name: &str, source: R, length: u64) -> Result<Self> {
        Self::with_header(name.to_owned(), source, length).map_err(|error| at(name, error))
    }

    fn with_header(name: String, mut source: R, length: u64) -> Result<Self> {
        let (first, content) = read_header(&mut source, length)?;
        let header = content
            .metadata()
            .as_ref()
            .and_then(|metadata| metadata.get(KEY))
            .ok_or_else(|| damaged("a safetensors file of another program", WHOLE))?;
        let header: Header<'_> = match serde_json::from_str(header) {
            Ok(header) => header,
            // In another format it may look otherwise.
            Err(e) => return Err(format_of(header).err().unwrap_or_else(|| not_json(&e))),
        };
        check_format(&header.format.into())?;
        let manifest = header.manifest.get().to_owned();
        check_values("its manifest", manifest.as_bytes(), MOST_VALUES)?;
        // In the order in which the checksum takes them.
        let tensors: BTreeMap<_, _> = (content.tensors().into_iter())
            .map(|(name, info)| (name, info.clone()))
            .collect();
        check_tensors(&tensors)?;
        Ok(Self {
            name,
            source,
            first,
            manifest,
            tensors,
            checksum: header.checksum,
        })
    }

    /// What errors call the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Everything that is not a tensor, as JSON text. Not yet checked against the checksum.
    pub fn manifest(&self) -> &str {
        &self.manifest
    }

    /// Dtype and shape of each tensor, by name.
    pub fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    /// Reads the tensors, and checks all against the checksum.
    pub fn read(mut self) -> Result<Artifact> {
        let tensors = self.read_tensors().map_err(|error| at(&self.name, error))?;
        Ok(Artifact {
            manifest: self.manifest,
            tensors,
        })
    }

    fn read_tensors(&mut self) -> Result<BTreeMap<String, Tensor>> {
        let ends = self.tensors.values().map(|info| info.data_offsets.1 as u64);
        check_room(self.first + ends.max().unwrap_or(0))?;
        let mut hash = Xxh3Default::new();
        hash.update(self.manifest.as_bytes());
        let mut tensors = BTreeMap::new();
        for (name, info) in &self.tensors {
            let start = self.first + info.data_offsets.0 as u64;
            self.source
                .seek(SeekFrom::Start(start))
                .map_err(unreadable)?;
            hash.update(described(name, info.dtype, &info.shape).as_bytes());
            let tensor = Tensor::read(info, &mut self.source, &mut hash)?;
            tensors.insert(name.clone(), tensor);
        }
        // A fuzzer does not find checksums.
        if self.checksum != format!("{:016x}", hash.digest()) && !cfg!(fuzzing) {
            return Err(damaged("its checksum does not fit its content", WHOLE));
        }
        Ok(tensors)
    }
}

/// Reads a safetensors header: where the first tensor begins, and what there is, which was checked to
/// lie side by side and fill the file.
fn read_header(file: &mut impl Read, length: u64) -> Result<(u64, Metadata)> {
    let cut = |why: &str| {
        damaged(
            format!("not a safetensors file, or cut short ({why})"),
            WHOLE,
        )
    };
    check_length(length)?;
    let mut size = [0; size_of::<u64>()];
    let before = size.len() as u64;
    file.read_exact(&mut size).map_err(unreadable)?;
    let size = u64::from_le_bytes(size);
    if size > length.saturating_sub(before) {
        return Err(cut("a header longer than the file"));
    }
    if size > MAX_HEADER {
        let problem = format!("a header of {size} bytes");
        return Err(damaged(problem, format!("at most {MAX_HEADER}")));
    }
    let mut header = Vec::new();
    header
        .try_reserve_exact(size as usize)
        .map_err(|_| no_room(size))?;
    file.take(size)
        .read_to_end(&mut header)
        .map_err(unreadable)?;
    check_values("its header", &header, MOST_VALUES)?;
    let content: Metadata = serde_json::from_slice(&header).map_err(|e| cut(&e.to_string()))?;
    let first = before + size;
    if (content.data_len() as u64).checked_add(first) != Some(length) {
        return Err(cut("another length than its tensors have"));
    }
    Ok((first, content))
}

/// Fails if a header that is not understood says another format.
fn format_of(header: &str) -> Result<()> {
    #[derive(Deserialize)]
    struct Format {
        #[serde(default)]
        format: Value,
    }
    let Format { format } = serde_json::from_str(header).map_err(|e| not_json(&e))?;
    check_format(&format)
}

/// Fails for another format than the one that is read.
fn check_format(format: &Value) -> Result<()> {
    if *format == FORMAT {
        return Ok(());
    }
    let expected = format!("format {FORMAT}, which this version reads and writes");
    Err(damaged(format!("its format is {format}"), expected))
}

/// Opens a regular file, and returns its length.
fn open(path: &Path) -> Result<(File, u64)> {
    let io = |source| Error::Io {
        path: String::new(),
        source,
    };
    // To open a device may do something.
    if let Ok(kind) = std::fs::metadata(path) {
        check_kind(&kind)?;
    }
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    {
        // A pipe that has taken the file's place since: opening it does not wait for a writer.
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(libc::O_NONBLOCK);
    }
    let file = options.open(path).map_err(io)?;
    let found = file.metadata().map_err(io)?;
    check_kind(&found)?;
    Ok((file, found.len()))
}

/// Fails for a pipe or a device, which could keep the reader for ever. A folder fails to be read.
fn check_kind(found: &std::fs::Metadata) -> Result<()> {
    if found.is_file() || found.is_dir() {
        return Ok(());
    }
    Err(damaged(
        "a pipe or device",
        "a file written by uniroute_fast",
    ))
}
