//! Named tensors of a file: dtype, shape and bytes, and a digest of them.

use std::borrow::Cow;
use std::io::Read;
use std::sync::Arc;

use safetensors::tensor::{Dtype, TensorInfo};
use xxhash_rust::xxh3::Xxh3Default;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::error::Result;
use crate::file::errors::unreadable;
use crate::file::limits::no_room;

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
    pub(super) fn read(
        info: &TensorInfo,
        file: &mut impl Read,
        hash: &mut Xxh3Default,
    ) -> Result<Self> {
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

/// Reads `length` bytes as numbers: room for all is reserved first, and filled a piece at a time.
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
pub(super) fn described(name: &str, dtype: Dtype, shape: &[usize]) -> String {
    format!("{name:?}{dtype:?}{shape:?}")
}
