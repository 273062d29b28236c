//! The file format: named tensors and a JSON manifest in one safetensors file.
//!
//! The safetensors header holds one metadata entry, `uniroute`, whose value is JSON:
//!
//! ```json
//! {"format": 5, "checksum": "<xxh3-64 of manifest and tensors, hex>", "manifest": {...}}
//! ```
//!
//! Nothing in a file is ever executed. A file is written beside its final place, synced and
//! renamed, so that a reader sees the old one or the new one, whole. On reading, the header, the
//! extent of every tensor, the format number and the checksum are verified before any value is
//! used; whoever takes a tensor states the dtype and shape it must have.
//!
//! # What a file may make its reader hold
//!
//! A file need not be as large on disk as it says: one with holes reads as zeros. So nothing is
//! reserved because a header asks for it. A file is read in two steps. [`Artifact::load`] reads the
//! header alone, at most [`MAX_HEADER`] bytes with at most [`MOST_VALUES`] values; the length of the
//! file must be that of its tensors, and within [`most_bytes`]. Whoever knows the format then looks
//! at the dtypes and shapes ([`Unread::tensors`]) before [`Unread::read`] reserves anything. No rule
//! on shapes can bound a file whose sizes agree with each other, and how much of it lies on disk is
//! reported differently by every file system: that is what [`most_bytes`] is for. Room is reserved for one
//! tensor at a time, and what cannot be had is an error. As Linux promises more memory than there is,
//! a larger file also asks once for all of what its reading may take: no system promises more in one
//! piece than it has in all, unless it was set up to.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use safetensors::tensor::{Dtype, Metadata, TensorInfo, TensorView};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use xxhash_rust::xxh3::Xxh3Default;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::error::{Error, Result, legible, printable};

/// Format that this version writes, and the newest that it reads.
pub const FORMAT: u64 = 5;

/// The one key of the safetensors metadata: with a single key the bytes of a file depend on its
/// content alone.
const KEY: &str = "uniroute";

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

/// From so many bytes on a file asks for the memory of its reading at once, before it is read.
const LARGE: u64 = 1 << 24;

/// What reading takes at its peak, in bytes for each of the file: the tensors, those taken out of
/// them, what is made of these, and copies that the caller takes.
const COPIES: u64 = 4;

/// A tensor: dtype, shape and little-endian bytes, row-major.
#[derive(Clone, Debug)]
pub struct Tensor {
    dtype: Dtype,
    shape: Vec<usize>,
    values: Values,
}

/// What a tensor holds.
#[derive(Clone, Debug)]
enum Values {
    /// Little-endian bytes.
    Bytes(Arc<Vec<u8>>),
    /// Numbers, where they are little-endian: what reads them need not copy them.
    Floats(Arc<Vec<f32>>),
}

impl PartialEq for Tensor {
    fn eq(&self, other: &Self) -> bool {
        (self.dtype, &self.shape, self.bytes()) == (other.dtype, &other.shape, other.bytes())
    }
}

/// A type that tensors can hold.
pub trait Element: Copy + FromBytes + Immutable {
    /// Its safetensors dtype.
    const DTYPE: Dtype;
    /// Appends the little-endian bytes.
    fn write(self, bytes: &mut Vec<u8>);
    /// From little-endian bytes; those left over at the end are passed over.
    fn read_all(bytes: &[u8]) -> Vec<Self>;
}

macro_rules! elements {
    ($($type:ty => $dtype:ident),*) => {$(
        impl Element for $type {
            const DTYPE: Dtype = Dtype::$dtype;
            fn write(self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_le_bytes());
            }
            fn read_all(bytes: &[u8]) -> Vec<Self> {
                let (values, _) = bytes.as_chunks();
                values.iter().map(|&bytes| Self::from_le_bytes(bytes)).collect()
            }
        }
    )*};
}
elements!(f32 => F32, f64 => F64, i8 => I8, u8 => U8, u16 => U16, i32 => I32, u32 => U32, i64 => I64);

/// Whether tensors of this dtype can be taken.
pub fn is_element(dtype: Dtype) -> bool {
    use Dtype::{F32, F64, I8, I32, I64, U8, U16, U32};
    matches!(dtype, F32 | F64 | I8 | U8 | U16 | I32 | U32 | I64)
}

impl Tensor {
    /// A tensor of these values.
    ///
    /// # Panics
    /// If `shape` does not multiply to the number of values: a bug in the caller.
    pub fn new<T: Element>(shape: &[usize], values: impl IntoIterator<Item = T>) -> Self {
        let mut bytes = Vec::with_capacity(shape.iter().product::<usize>() * size_of::<T>());
        values.into_iter().for_each(|value| value.write(&mut bytes));
        assert_eq!(
            bytes.len(),
            shape.iter().product::<usize>() * size_of::<T>(),
            "shape"
        );
        Self {
            dtype: T::DTYPE,
            shape: shape.to_vec(),
            values: Values::Bytes(Arc::new(bytes)),
        }
    }

    /// Reads the values of a tensor, a piece at a time, and adds each to the checksum while it is in
    /// cache.
    fn read(info: &TensorInfo, file: &mut impl Read, hash: &mut Xxh3Default) -> Result<Self> {
        let length = info.data_offsets.1 - info.data_offsets.0;
        let values = if info.dtype == Dtype::F32 && cfg!(target_endian = "little") {
            Values::Floats(Arc::new(read_values(length, file, hash)?))
        } else {
            Values::Bytes(Arc::new(read_values(length, file, hash)?))
        };
        Ok(Self {
            dtype: info.dtype,
            shape: info.shape.clone(),
            values,
        })
    }

    /// Dtype of the values.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Extent along each dimension.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The values as little-endian bytes.
    pub fn bytes(&self) -> &[u8] {
        match &self.values {
            Values::Bytes(bytes) => bytes,
            Values::Floats(values) => values.as_bytes(),
        }
    }

    /// The values where they lie, copied only where bytes are in another order or out of line; `None`
    /// if they are of another type.
    pub fn view<T: Element>(&self) -> Option<Cow<'_, [T]>> {
        if cfg!(target_endian = "little")
            && self.dtype == T::DTYPE
            && let Ok(values) = <[T]>::ref_from_bytes(self.bytes())
        {
            return Some(Cow::Borrowed(values));
        }
        self.values().map(Cow::Owned)
    }

    /// The values, copied only where they are not held as such; `None` if they are of another type.
    pub fn into_values(self) -> Option<Arc<Vec<f32>>> {
        match self.values {
            Values::Floats(values) => Some(values),
            Values::Bytes(_) => self.values().map(Arc::new),
        }
    }

    /// The values, or `None` if they are of another type.
    pub fn values<T: Element>(&self) -> Option<Vec<T>> {
        (self.dtype == T::DTYPE).then(|| T::read_all(self.bytes()))
    }
}

/// Reads so many bytes as numbers: room for all is reserved first, and filled a piece at a time.
fn read_values<T: Default + Clone + FromBytes + IntoBytes>(
    length: usize,
    file: &mut impl Read,
    hash: &mut Xxh3Default,
) -> Result<Vec<T>> {
    const PIECE: usize = 1 << 18;
    let count = length / size_of::<T>();
    let mut values: Vec<T> = Vec::new();
    values
        .try_reserve_exact(count)
        .map_err(|_| no_room(length as u64))?;
    while values.len() < count {
        let read = values.len();
        values.resize(count.min(read + PIECE / size_of::<T>()), T::default());
        let piece = values[read..].as_mut_bytes();
        file.read_exact(piece).map_err(unreadable)?;
        hash.update(piece);
    }
    Ok(values)
}

/// The content of a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Artifact {
    /// Everything that is not a tensor, as JSON text.
    pub manifest: String,
    /// Tensors by name.
    pub tensors: BTreeMap<String, Tensor>,
}

/// What the safetensors metadata hold under [`KEY`].
#[derive(Serialize, Deserialize)]
struct Header<'a> {
    checksum: String,
    format: u64,
    /// Kept as text: the checksum is that of its bytes, and it is parsed once, by whoever knows it.
    #[serde(borrow)]
    manifest: &'a RawValue,
}

const WHOLE: &str = "a whole file written by uniroute_fast";

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
fn check_length(length: u64) -> Result<()> {
    let most = most_bytes()?;
    if length <= most {
        return Ok(());
    }
    let expected = format!("at most {most}; {BYTES_VARIABLE} sets another limit");
    Err(damaged(format!("{length} bytes"), expected))
}

/// Fails for a file that there is no memory for.
fn check_room(length: u64) -> Result<()> {
    let needed = length.saturating_mul(COPIES);
    if length < LARGE || is_there_room(needed) {
        return Ok(());
    }
    Err(no_room(needed))
}

/// Whether the system would hand out so many bytes now.
fn is_there_room(bytes: u64) -> bool {
    let mut room: Vec<u8> = Vec::new();
    let given = usize::try_from(bytes).is_ok_and(|bytes| room.try_reserve_exact(bytes).is_ok());
    // Room that is looked at is reserved indeed: a compiler may leave out any other.
    std::hint::black_box(&mut room);
    given
}

fn no_room(bytes: u64) -> Error {
    let problem = format!("reading it takes {bytes} bytes of memory, more than the system has");
    damaged(problem, "a file that fits into memory")
}

/// Fails for more tensors than a file can have, or more dimensions than a tensor.
fn check_tensors(tensors: &BTreeMap<String, TensorInfo>) -> Result<()> {
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

/// Fails if JSON has more than so many values: before it is parsed, which takes many times its length.
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

/// Fails if a header says a format that this version does not read.
fn check_format(header: &str) -> Result<()> {
    #[derive(Deserialize)]
    struct Format {
        #[serde(default)]
        format: Value,
    }
    let Format { format } = serde_json::from_str(header).map_err(|e| not_json(&e))?;
    if format.as_u64().is_some_and(|f| (1..=FORMAT).contains(&f)) {
        return Ok(());
    }
    Err(unknown_format(&format))
}

fn unknown_format(format: &Value) -> Error {
    let expected = format!("format 1 to {FORMAT}; a newer uniroute_fast may read it");
    damaged(format!("its format is {format}"), expected)
}

/// An error of reading, which [`at`] makes that of a path.
fn unreadable(source: io::Error) -> Error {
    if source.kind() == io::ErrorKind::UnexpectedEof {
        return damaged("not a safetensors file, or cut short", WHOLE);
    }
    Error::Io {
        path: String::new(),
        source,
    }
}

fn not_json(error: &serde_json::Error) -> Error {
    damaged(format!("its manifest is not JSON ({error})"), WHOLE)
}

impl Artifact {
    /// Takes out a tensor that must be there, with this type and number of dimensions.
    pub fn take<T: Element, const N: usize>(&mut self, name: &str) -> Result<([usize; N], Vec<T>)> {
        let (shape, tensor) = self.take_tensor::<T, N>(name)?;
        Ok((shape, tensor.values().unwrap_or_default()))
    }

    /// As [`Self::take`], the values left where they lie.
    pub fn take_tensor<T: Element, const N: usize>(
        &mut self,
        name: &str,
    ) -> Result<([usize; N], Tensor)> {
        let expected = || format!("a {:?} tensor of {N} dimensions", T::DTYPE);
        let tensor = self
            .tensors
            .remove(name)
            .ok_or_else(|| damaged(format!("tensor {name:?} is missing"), expected()))?;
        match tensor.shape.as_slice().try_into() {
            Ok(shape) if tensor.dtype == T::DTYPE => Ok((shape, tensor)),
            _ => {
                let found = format!("tensor {name:?} is {:?} {:?}", tensor.dtype, tensor.shape);
                Err(damaged(found, expected()))
            }
        }
    }

    /// The bytes of a file. What could not be read again is refused.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let views: Vec<_> = self
            .tensors
            .iter()
            .map(|(name, t)| Ok((name, TensorView::new(t.dtype, t.shape.clone(), t.bytes())?)))
            .collect::<Result<_, safetensors::SafeTensorError>>()
            .map_err(|e| damaged(e.to_string(), "tensors whose shape fits their bytes"))?;
        let header = Header {
            checksum: self.checksum(),
            format: FORMAT,
            manifest: serde_json::from_str(&self.manifest).map_err(|e| not_json(&e))?,
        };
        let header = serde_json::to_string(&header).map_err(|e| not_json(&e))?;
        let metadata = HashMap::from([(KEY.to_owned(), header)]);
        let bytes = safetensors::serialize(views, Some(metadata))
            .map_err(|e| damaged(e.to_string(), "content that fits a safetensors file"))?;
        Self::from_bytes(&bytes)?;
        Ok(bytes)
    }

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

    /// Writes a file: beside `path` first, synced, then renamed over it.
    pub fn save(&self, path: &Path) -> Result<()> {
        let bytes = self.to_bytes().map_err(|error| at(&shown(path), error))?;
        write_atomically(path, &bytes).map_err(|source| Error::Io {
            path: shown(path),
            source,
        })
    }

    fn checksum(&self) -> String {
        digest(&self.manifest, &self.tensors)
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
    /// Reads the header of a file of so many bytes, called `name` in errors.
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
            // Of a newer format it may not be understood.
            Err(e) => return Err(check_format(header).err().unwrap_or_else(|| not_json(&e))),
        };
        if !(1..=FORMAT).contains(&header.format) {
            return Err(unknown_format(&header.format.into()));
        }
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

/// Opens a regular file, and tells its length.
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

/// A path as errors show it.
fn shown(path: &Path) -> String {
    printable(&path.display().to_string()).into_owned()
}

/// xxh3-64 of a text and named tensors, as 16 hexadecimal digits.
pub fn digest<'a>(
    text: &str,
    tensors: impl IntoIterator<Item = (&'a String, &'a Tensor)>,
) -> String {
    let mut hash = Xxh3Default::new();
    hash.update(text.as_bytes());
    for (name, tensor) in tensors {
        hash.update(described(name, tensor.dtype, &tensor.shape).as_bytes());
        hash.update(tensor.bytes());
    }
    format!("{:016x}", hash.digest())
}

/// What the digest takes of a tensor beside its values.
fn described(name: &str, dtype: Dtype, shape: &[usize]) -> String {
    format!("{name:?}{dtype:?}{shape:?}")
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

/// Writes beside the file, then renames over it. A link stays one: the file behind it is replaced;
/// and a file keeps its permissions.
fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let behind = path.canonicalize();
    let path = behind.as_deref().unwrap_or(path);
    let before = path.metadata().ok();
    if before.as_ref().is_some_and(|before| !before.is_file()) {
        let problem = "is there and no regular file";
        return Err(std::io::Error::new(
            std::io::ErrorKind::InvalidInput,
            problem,
        ));
    }
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        // What a plain `open` would ask for; the umask applies.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.prefix(".uniroute-").tempfile_in(folder)?;
    if let Some(before) = before {
        file.as_file().set_permissions(before.permissions())?;
    }
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    // The rename itself reaches the disk with its folder.
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Artifact {
        let mut tensors = BTreeMap::new();
        tensors.insert(
            "a".to_owned(),
            Tensor::new(&[2, 2], [1.0f32, -0.0, f32::MIN, 3.5]),
        );
        tensors.insert("b".to_owned(), Tensor::new(&[3], [1i8, -2, 3]));
        tensors.insert("empty".to_owned(), Tensor::new::<f64>(&[0, 4], []));
        Artifact {
            manifest: r#"{"n":3,"names":["x","é"]}"#.to_owned(),
            tensors,
        }
    }

    fn read(bytes: &[u8]) -> Result<Artifact> {
        Artifact::from_bytes(bytes)?.read()
    }

    #[test]
    fn what_is_saved_is_loaded_and_the_bytes_depend_on_content_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pool.uniroute");
        sample().save(&path).unwrap();
        assert_eq!(Artifact::load(&path).unwrap().read().unwrap(), sample());
        assert_eq!(std::fs::read(&path).unwrap(), sample().to_bytes().unwrap());
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            1,
            "no file left beside it"
        );
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_refused() {
        let bytes = sample().to_bytes().unwrap();
        for end in 0..bytes.len() {
            assert!(read(&bytes[..end]).is_err(), "cut at {end}");
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                // A flip that leaves the content as it was (a space of padding) may pass.
                if let Ok(artifact) = read(&bytes) {
                    assert_eq!(artifact, sample(), "bit {bit} of byte {at}");
                }
            }
        }
    }

    #[test]
    fn a_file_of_a_newer_format_or_another_program_says_so() {
        let views: [(&str, TensorView<'_>); 0] = [];
        let foreign = safetensors::serialize(views, None).unwrap();
        let message = Artifact::from_bytes(&foreign).unwrap_err().to_string();
        assert!(message.contains("another program"), "{message}");
        let views: [(&str, TensorView<'_>); 0] = [];
        let newer = HashMap::from([(KEY.to_owned(), r#"{"format": 99}"#.to_owned())]);
        let newer = safetensors::serialize(views, Some(newer)).unwrap();
        let message = Artifact::from_bytes(&newer).unwrap_err().to_string();
        assert!(message.contains("format is 99"), "{message}");
    }

    #[test]
    fn a_tensor_of_another_type_or_shape_is_refused() {
        assert!(sample().take::<f32, 2>("a").is_ok());
        for error in [
            sample().take::<f64, 2>("a").unwrap_err(),
            sample().take::<f32, 1>("a").unwrap_err(),
            sample().take::<f32, 1>("missing").unwrap_err(),
        ] {
            assert!(matches!(error, Error::Artifact { .. }));
        }
    }

    #[test]
    fn a_file_cut_short_after_its_header_was_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pool.uniroute");
        sample().save(&path).unwrap();
        let unread = Artifact::load(&path).unwrap();
        let length = std::fs::metadata(&path).unwrap().len();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(length - 1).unwrap();
        let message = unread.read().unwrap_err().to_string();
        assert!(message.contains("cut short"), "{message}");
    }

    #[test]
    fn json_of_too_many_values_is_refused_before_it_is_parsed() {
        for (json, values) in [
            ("[]", 2),
            (r#"[1, "a,[{\",", 3]"#, 4),
            (r#"{"a": {"b": []}}"#, 4),
        ] {
            assert!(
                check_values("it", json.as_bytes(), values).is_ok(),
                "{json}"
            );
            let refused = check_values("it", json.as_bytes(), values - 1);
            assert!(
                refused.unwrap_err().to_string().contains("values"),
                "{json}"
            );
        }
        let many = format!("[{}0]", "0,".repeat(MOST_VALUES));
        let size = (many.len() as u64).to_le_bytes();
        let file = [&size[..], many.as_bytes()].concat();
        let message = read(&file).unwrap_err().to_string();
        assert!(
            message.contains("its header holds 4194306 values"),
            "{message}"
        );
    }

    #[test]
    fn errors_show_the_beginning_of_what_a_file_holds() {
        let message = damaged("é".repeat(1_000_000), "x").to_string();
        assert!(message.len() < 700 && message.contains("é [1999640 bytes left out] é"));
        let path = Path::new("/nonexistent/\u{1b}[2J");
        let message = Artifact::load(path).unwrap_err().to_string();
        assert!(
            message.starts_with("/nonexistent/\\u{1b}[2J: "),
            "{message}"
        );
    }

    #[test]
    fn a_folder_that_does_not_exist_is_an_io_error_naming_the_path() {
        let error = sample()
            .save(Path::new("/nonexistent/pool.uniroute"))
            .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("/nonexistent/pool.uniroute: ")
        );
    }
}
