//! The lexical embedder, and what fitting one needs.

use std::cell::RefCell;
use std::sync::Arc;

use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyType};
use uniroute_core::file::artifact::Artifact;
use uniroute_core::text::features;
use uniroute_core::text::fit::{FeatureCounter as CoreCounter, weighted_features};
use uniroute_core::text::lexical::{self as core, Embedded, Scratch};
use uniroute_core::{Error, Result};

use crate::checks::arrays::array;
use crate::checks::texts::{Texts, status_name};
use crate::errors::to_py;
use crate::run::{detached, released};

type Matrix<'py> = (
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray1<i32>>,
    Bound<'py, PyArray1<f32>>,
);
type Embeddings<'py> = (
    Bound<'py, PyArray2<f32>>,
    Bound<'py, PyArray1<f32>>,
    Bound<'py, PyArray1<u8>>,
);

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// See the Python class of the same name, which adds fitting.
#[pyclass(subclass, frozen, module = "uniroute_fast._native")]
pub struct LexicalEmbedder {
    /// The embedder itself, shared with the routers that use it.
    pub inner: Arc<core::LexicalEmbedder>,
}

#[pymethods]
impl LexicalEmbedder {
    #[new]
    fn new(embedder: &Bound<'_, Self>) -> Self {
        Self {
            inner: Arc::clone(&embedder.get().inner),
        }
    }

    /// Embeddings [N, dim], coverage [N], status [N].
    fn embed_with_status<'py>(&self, texts: &Bound<'py, PyAny>) -> PyResult<Embeddings<'py>> {
        let py = texts.py();
        let texts = Texts::collect(texts)?;
        let rows = texts.rows();
        let embedder = &*self.inner;
        let (vectors, embedded) = detached(py, |run| {
            let mut vectors = vec![0.0; rows.len() * embedder.dim()];
            let mut embedded = vec![Embedded::default(); rows.len()];
            if rows.len() <= core::TEXTS_PER_TASK {
                // One thread's work: its memory is kept from call to call.
                SCRATCH.with_borrow_mut(|scratch| {
                    let vectors = vectors.chunks_exact_mut(embedder.dim());
                    for ((row, vector), embedded) in rows.iter().zip(vectors).zip(&mut embedded) {
                        *embedded = embedder.embed_row(*row, vector, scratch);
                    }
                });
            } else {
                embedder.embed_batch(&rows, &mut vectors, &mut embedded, run)?;
            }
            Ok((vectors, embedded))
        })?;
        let coverage: Vec<f32> = embedded.iter().map(|e| e.coverage).collect();
        let status: Vec<u8> = embedded.iter().map(|e| e.status as u8).collect();
        Ok((
            vectors
                .into_pyarray(py)
                .reshape([rows.len(), self.inner.dim()])?,
            coverage.into_pyarray(py),
            status.into_pyarray(py),
        ))
    }

    fn embed<'py>(&self, texts: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        self.embed_with_status(texts).map(|(vectors, _, _)| vectors)
    }

    #[getter]
    fn dim(&self) -> usize {
        self.inner.dim()
    }

    #[getter]
    fn rows(&self) -> usize {
        self.inner.vocabulary().rows()
    }

    #[getter]
    fn n_features(&self) -> usize {
        self.inner.vocabulary().len()
    }

    #[getter]
    fn ngrams(&self) -> usize {
        self.inner.order()
    }

    /// JSON text.
    #[getter]
    fn info_json(&self) -> String {
        self.inner.info().to_string()
    }

    /// The same embedder with another info, JSON text.
    fn with_info_json<'py>(slf: &Bound<'py, Self>, info_json: &str) -> PyResult<Bound<'py, PyAny>> {
        let info = serde_json::from_str(info_json).map_err(|e| {
            let error = Error::invalid("info_json", e.to_string(), "JSON text");
            to_py(slf.py(), &error)
        })?;
        let inner = Arc::new(slf.get().inner.with_info(info));
        slf.get_type().call1((Self { inner },))
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let tensors = self
            .inner
            .tensors()
            .map(|(name, tensor)| (name.to_owned(), tensor));
        let artifact = Artifact {
            manifest: self.inner.params().to_string(),
            tensors: tensors.into_iter().collect(),
        };
        let bytes = released(py, || artifact.to_bytes())?;
        Ok(PyBytes::new(py, &bytes))
    }

    #[classmethod]
    fn from_bytes<'py>(cls: &Bound<'py, PyType>, data: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        let py = cls.py();
        let embedder = released(py, || {
            let Artifact { manifest, tensors } = Artifact::from_bytes(data)?.read()?;
            let params = serde_json::from_str(&manifest).unwrap_or_default();
            core::LexicalEmbedder::from_parts(&params, tensors)
        });
        let inner = Arc::new(embedder?);
        cls.call1((Self { inner },))
    }

    fn __reduce__<'py>(
        slf: &Bound<'py, Self>,
    ) -> PyResult<(Bound<'py, PyAny>, (Bound<'py, PyBytes>,))> {
        let rebuild = slf.get_type().getattr("from_bytes")?;
        Ok((rebuild, (slf.get().to_bytes(slf.py())?,)))
    }
}

/// Counts how many texts have each feature.
#[pyclass(module = "uniroute_fast._native")]
pub struct FeatureCounter(CoreCounter);

#[pymethods]
impl FeatureCounter {
    #[new]
    fn new(py: Python<'_>, ngrams: usize) -> PyResult<Self> {
        CoreCounter::new(ngrams)
            .map(Self)
            .map_err(|e| to_py(py, &e))
    }

    fn add(&mut self, texts: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = texts.py();
        let texts = Texts::collect(texts)?;
        let rows = texts.rows();
        let counter = &mut self.0;
        detached(py, |run| {
            for (i, text) in rows.iter().enumerate() {
                if i % 1024 == 0 && (run.interrupted)() {
                    return Err(Error::Interrupted);
                }
                if let Ok(text) = text {
                    counter.add(text);
                }
            }
            Ok(())
        })
    }

    #[getter]
    fn n_texts(&self) -> u64 {
        self.0.n_texts()
    }

    fn vocabulary(&self, py: Python<'_>, min_df: u32, rows: usize) -> PyResult<Vocabulary> {
        released(py, || self.0.vocabulary(min_df, rows)).map(|inner| Vocabulary {
            inner,
            order: self.0.order(),
        })
    }
}

/// Which features have a table row.
#[pyclass(frozen, module = "uniroute_fast._native")]
pub struct Vocabulary {
    inner: core::Vocabulary,
    order: usize,
}

#[pymethods]
impl Vocabulary {
    #[getter]
    fn rows(&self) -> usize {
        self.inner.rows()
    }

    #[getter]
    fn n_features(&self) -> usize {
        self.inner.len()
    }

    /// The inverse document frequency of each row, float32 [rows]; zero in free rows.
    #[getter]
    fn idf<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f32>> {
        let idf: Vec<f32> = self
            .inner
            .idf()
            .iter()
            .map(|&idf| f32::from(idf) / 16.0)
            .collect();
        idf.into_pyarray(py)
    }

    /// Starts, columns and weights of the texts' features; of those at `select` where given.
    #[pyo3(signature = (texts, select=None))]
    fn features<'py>(
        &self,
        texts: &Bound<'py, PyAny>,
        select: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Matrix<'py>> {
        let py = texts.py();
        let texts = Texts::collect(texts)?;
        let mut rows = texts.rows();
        if let Some(select) = select {
            let select = array::<i64>(select, "select", 1, "[n]")?;
            let pick = |&i: &i64| {
                let expected = format!("0 to {}", rows.len());
                let row = usize::try_from(i).ok().and_then(|i| rows.get(i)).copied();
                row.ok_or_else(|| Error::invalid("select", i.to_string(), expected))
            };
            let picked: Result<Vec<_>> = select.as_slice()?.iter().map(pick).collect();
            rows = picked.map_err(|e| to_py(py, &e))?;
        }
        let csr = detached(py, |run| {
            weighted_features(&rows, self.order, &self.inner, run)
        })?;
        Ok((
            csr.starts.into_pyarray(py),
            csr.columns.into_pyarray(py),
            csr.weights.into_pyarray(py),
        ))
    }

    /// The embedder with this table, float32 [rows, dim].
    fn embedder(&self, table: &Bound<'_, PyAny>, info_json: &str) -> PyResult<LexicalEmbedder> {
        let py = table.py();
        let table = array::<f32>(table, "table", 2, "[rows, dim]")?;
        let dim = table.shape()[1];
        let table = table.as_slice()?;
        let info = serde_json::from_str(info_json).unwrap_or_default();
        released(py, || {
            core::LexicalEmbedder::new(self.inner.clone(), self.order, table, dim, info)
        })
        .map(|embedder| LexicalEmbedder {
            inner: Arc::new(embedder),
        })
    }
}

/// The feature ids of one text, in the order of the text; repeats included.
#[pyfunction]
#[pyo3(signature = (text, ngrams=2))]
fn feature_ids<'py>(
    py: Python<'py>,
    text: &str,
    ngrams: usize,
) -> PyResult<Bound<'py, PyArray1<u32>>> {
    let ids = released(py, || {
        CoreCounter::new(ngrams)?;
        let mut ids = Vec::new();
        features::collect_ids(text, ngrams, &mut ids, &mut features::Buffers::default());
        Ok(ids)
    })?;
    Ok(ids.into_pyarray(py))
}

/// Adds this module's names to the extension module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<LexicalEmbedder>()?;
    m.add_class::<FeatureCounter>()?;
    m.add_class::<Vocabulary>()?;
    m.add("FEATURE_VERSION", features::VERSION)?;
    let statuses = core::Status::ALL.map(status_name);
    m.add("STATUS_NAMES", statuses.to_vec())?;
    m.add_function(wrap_pyfunction!(feature_ids, m)?)
}
