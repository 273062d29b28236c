//! `Prompts`: embedded once, and taken wherever texts are.

use std::sync::Arc;

use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods};
use pyo3::prelude::*;
use uniroute_core::Error;
use uniroute_core::request::Embedded;
use uniroute_core::route::snapshot::Snapshot;
use uniroute_core::text::lexical::Status;

use crate::checks::arrays::array;
use crate::checks::texts::status_name;
use crate::errors::to_py;
use crate::request::asked::token_counts;
use crate::route::view::{Input, View};
use crate::run::detached;

/// Prompts that are embedded already: made by `Router.embed`, and taken wherever texts are, so that
/// nothing is embedded twice.
///
/// Immutable. `len(prompts)` is N; ``prompts[rows]`` with an index, a slice, or an array of int or
/// bool gives some of them. They belong to the embedder and the cluster map that made them: another
/// router with the same embedder places their vectors anew at each call, one with another embedder
/// refuses them.
///
/// Attributes
/// ----------
/// vectors : float32[N, D]
///     Zeros where the status is not "ok".
/// phi : float32[N, K]
///     How much each cluster counts; zeros where the status is not "ok".
/// tokens : float64[N]
///     Lengths as `Router.route` estimates them; NaN where there was no text.
/// coverage : float32[N]
///     Share of each text's feature weight that the embedder knows, 0 to 1; 1 for embeddings.
/// status : list of str
///     As `Decisions.status`: "ok", or why the prompt could not be embedded.
/// ok : bool[N]
/// keys : uint64[N] or None
///     By which prompts are known again; None where `Snapshot.embed` made them.
#[pyclass(frozen, module = "uniroute_fast")]
pub struct Prompts {
    inner: Arc<Embedded>,
    /// The embedder, where it is not one of ours.
    python_embedder: Option<Py<PyAny>>,
    keys: Option<Vec<u64>>,
}

/// The embedder of a view, where it is not one of ours.
fn python_embedder(view: &View) -> Option<&Py<PyAny>> {
    view.embedder()
        .filter(|_| view.snapshot.embedder().is_none())
}

impl Prompts {
    /// The prompts of a call, embedded by what it routes by.
    pub fn embed(
        py: Python<'_>,
        view: &View,
        texts: Option<&Bound<'_, PyAny>>,
        embeddings: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let mut keys = None;
        let input = view.input(py, texts, embeddings)?;
        let inner = if let Input::Embedded(inner) = input {
            let given = texts.and_then(|texts| texts.cast::<Self>().ok());
            keys = given.and_then(|given| given.get().keys.clone());
            inner
        } else {
            let tokens = token_counts(None, input.measured(texts))?;
            Arc::new(view.with_prompts(py, &input, |snapshot, prompts, run| {
                snapshot.embed_all(prompts, tokens, run)
            })?)
        };
        Ok(Self {
            inner,
            python_embedder: python_embedder(view).map(|embedder| embedder.clone_ref(py)),
            keys,
        })
    }

    /// The same as a view's snapshot has them: refused where its embedder is another one.
    pub fn under(&self, py: Python<'_>, view: &View) -> PyResult<Arc<Embedded>> {
        let snapshot: &Snapshot = &view.snapshot;
        let same_object = match (&self.python_embedder, python_embedder(view)) {
            (Some(own), Some(other)) => own.is(other),
            (own, other) => own.is_none() && other.is_none(),
        };
        detached(py, |run| {
            if !(same_object && snapshot.embeds_as(&self.inner)) {
                let expected = "those of this router, `router.embed(texts)`";
                return Err(Error::invalid("prompts", "of another embedder", expected));
            }
            if snapshot.places_as(&self.inner) {
                return Ok(Arc::clone(&self.inner));
            }
            snapshot.place_anew(&self.inner, run).map(Arc::new)
        })
    }
}

#[pymethods]
impl Prompts {
    fn __len__(&self) -> usize {
        self.inner.places().len()
    }

    fn __getitem__(&self, py: Python<'_>, index: &Bound<'_, PyAny>) -> PyResult<Self> {
        let numpy = PyModule::import(py, "numpy")?;
        let all = numpy.call_method1("arange", (self.__len__(),))?;
        let rows = numpy.call_method1("atleast_1d", (all.get_item(index)?,))?;
        let rows: Vec<usize> = rows.extract()?;
        Ok(Self {
            inner: Arc::new(self.inner.select(&rows)),
            python_embedder: self.python_embedder.as_ref().map(|one| one.clone_ref(py)),
            keys: (self.keys.as_ref()).map(|keys| rows.iter().map(|&row| keys[row]).collect()),
        })
    }

    /// The same prompts with keys, uint64[N], by which they are known again.
    fn with_keys(&self, py: Python<'_>, keys: &Bound<'_, PyAny>) -> PyResult<Self> {
        let keys = array::<u64>(keys, "keys", 1, "[n]")?.as_slice()?.to_vec();
        if keys.len() != self.__len__() {
            let problem = format!("{} of them for {} prompts", keys.len(), self.__len__());
            return Err(to_py(py, &Error::invalid("keys", problem, "one for each")));
        }
        Ok(Self {
            inner: Arc::clone(&self.inner),
            python_embedder: self.python_embedder.as_ref().map(|one| one.clone_ref(py)),
            keys: Some(keys),
        })
    }

    fn __repr__(&self) -> String {
        format!(
            "Prompts({} of {} dimensions)",
            self.__len__(),
            self.inner.dim()
        )
    }

    #[getter]
    fn vectors<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let shape = [self.__len__(), self.inner.dim()];
        PyArray1::from_slice(py, self.inner.vectors()).reshape(shape)
    }

    #[getter]
    fn phi<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let clusters = self.inner.clusters();
        let mut dense = vec![0.0; self.__len__() * clusters];
        for (place, row) in self.inner.places().iter().zip(dense.chunks_mut(clusters)) {
            place.phi.write(row);
        }
        dense.into_pyarray(py).reshape([self.__len__(), clusters])
    }

    #[getter]
    fn tokens<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f64>> {
        let places = self.inner.places().iter();
        let tokens = places.map(|place| place.tokens.map_or(f64::NAN, |tokens| tokens as f64));
        tokens.collect::<Vec<f64>>().into_pyarray(py)
    }

    #[getter]
    fn coverage<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f32>> {
        let places = self.inner.places().iter();
        let coverage: Vec<f32> = places.map(|place| place.coverage).collect();
        coverage.into_pyarray(py)
    }

    #[getter]
    fn status(&self) -> Vec<&'static str> {
        let places = self.inner.places().iter();
        places.map(|place| status_name(place.status)).collect()
    }

    #[getter]
    fn ok<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<bool>> {
        let places = self.inner.places().iter();
        let ok: Vec<bool> = places.map(|place| place.status == Status::Ok).collect();
        ok.into_pyarray(py)
    }

    #[getter]
    fn keys<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyArray1<u64>>> {
        self.keys
            .as_ref()
            .map(|keys| PyArray1::from_slice(py, keys))
    }
}

/// Adds this file's part to the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Prompts>()
}
