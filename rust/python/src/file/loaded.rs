//! What artifact files hold beside the router: JSON and tensors of Python's own.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use uniroute_core::Error;
use uniroute_core::file::artifact::Artifact;
use uniroute_core::file::persist::{self, Extra};
use uniroute_core::route::snapshot::Snapshot;

use crate::clusters::cluster_map::PyClusterMap;
use crate::embedding::lexical::LexicalEmbedder;
use crate::errors::to_py;
use crate::file::tensors::{from_tensors, to_tensors};
use crate::run::detached;

/// What Python has written into an artifact beside the router.
pub fn extra(py: Python<'_>, json: &str, tensors: &Bound<'_, PyDict>) -> PyResult<Extra> {
    let json = serde_json::from_str(json).map_err(|e| {
        to_py(
            py,
            &Error::invalid("json", e.to_string(), "a JSON document"),
        )
    })?;
    Ok(Extra {
        json,
        tensors: to_tensors(tensors)?,
    })
}

/// What a file held, before it becomes a router.
#[pyclass(frozen, module = "uniroute_fast._native")]
pub struct Loaded {
    pub(crate) snapshot: Snapshot,
    extra: Extra,
}

#[pymethods]
impl Loaded {
    /// Reads an artifact file.
    #[staticmethod]
    fn read(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let (snapshot, extra) = detached(py, |_| {
            Artifact::load(&path).and_then(persist::from_artifact)
        })?;
        Ok(Self { snapshot, extra })
    }

    /// Takes an artifact from its bytes.
    #[staticmethod]
    fn from_bytes(py: Python<'_>, bytes: &[u8]) -> PyResult<Self> {
        let (snapshot, extra) = detached(py, |_| {
            Artifact::from_bytes(bytes).and_then(persist::from_artifact)
        })?;
        Ok(Self { snapshot, extra })
    }

    /// The embedder in the file, or None.
    #[getter]
    fn embedder(&self) -> Option<LexicalEmbedder> {
        self.snapshot.embedder().map(|e| LexicalEmbedder {
            inner: Arc::clone(e),
        })
    }

    /// The cluster map in the file.
    #[getter]
    fn cluster_map(&self) -> PyClusterMap {
        PyClusterMap(Arc::clone(self.snapshot.map()))
    }

    /// The JSON that was written with it.
    #[getter]
    fn json(&self) -> String {
        self.extra.json.to_string()
    }

    /// The tensors that were written with it.
    #[getter]
    fn tensors<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        from_tensors(py, &self.extra.tensors)
    }
}

/// Adds this file's part to the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Loaded>()
}
