//! The file format: named tensors and a JSON manifest in one safetensors file.
//!
//! The safetensors header holds one metadata entry, `uniroute`, whose value is JSON:
//!
//! ```json
//! {"format": 1, "checksum": "<xxh3-64 of manifest and tensors, hex>", "manifest": {...}}
//! ```
//!
//! Nothing in a file is ever executed. A file is written beside its final place, synced and
//! renamed, so that a reader sees the old one or the new one, whole. On reading, the header, the
//! extent of every tensor, the format number and the checksum are verified before any value is
//! used; whoever takes a tensor states the dtype and shape it must have.

pub mod artifact;
pub(crate) mod errors;
pub mod limits;
pub mod persist;
pub mod read;
pub mod tensor;
mod write;
