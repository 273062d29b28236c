//! From content to a file, whole or not at all.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use safetensors::tensor::TensorView;

use crate::error::{Error, Result};
use crate::file::artifact::{Artifact, FORMAT, Header, KEY};
use crate::file::errors::{at, damaged, not_json, shown};
use crate::file::tensor::digest;

impl Artifact {
    /// The bytes of a file. What could not be read again is refused.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let views: Vec<_> = self
            .tensors
            .iter()
            .map(|(name, t)| {
                Ok((
                    name,
                    TensorView::new(t.dtype(), t.shape().to_vec(), t.bytes())?,
                ))
            })
            .collect::<Result<_, safetensors::SafeTensorError>>()
            .map_err(|e| damaged(e.to_string(), "tensors whose shape fits their bytes"))?;
        let header = Header {
            checksum: digest(&self.manifest, &self.tensors),
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

    /// Writes a file: beside `path` first, synced, then renamed over it.
    pub fn save(&self, path: &Path) -> Result<()> {
        let bytes = self.to_bytes().map_err(|error| at(&shown(path), error))?;
        write_atomically(path, &bytes).map_err(|source| Error::Io {
            path: shown(path),
            source,
        })
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
