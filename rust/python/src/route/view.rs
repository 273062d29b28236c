//! A snapshot at work: prompts in, and what is asked of them, without the GIL.

use std::cell::RefCell;
use std::sync::Arc;

use numpy::{
    Element, IntoPyArray, PyArray2, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArrayMethods,
};
use pyo3::prelude::*;
use uniroute_core::request::{Prompts, Request, estimate_tokens};
use uniroute_core::route::choose;
use uniroute_core::route::scratch::Scratch;
use uniroute_core::route::snapshot::{Row, Snapshot};
use uniroute_core::sys::threads::Run;
use uniroute_core::text::lexical::Status;
use uniroute_core::{Error, Result};

use crate::checks::arrays::array;
use crate::checks::texts::{Texts, status_name};
use crate::errors::{to_py, unroutable};
use crate::request::asked::Asked;
use crate::route::decision::{Decision, Grounds, Origin};
use crate::run::{detached, released};

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Prompts as one call got them: texts, or embeddings given or made by a foreign embedder.
pub enum Input<'py> {
    /// Texts for an embedder in Rust.
    Texts(Texts<'py>),
    /// float32[N, D].
    Embeddings(PyReadonlyArrayDyn<'py, f32>),
}

impl Input<'_> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Texts(texts) => texts.len(),
            Self::Embeddings(embeddings) => embeddings.shape()[0],
        }
    }

    /// The texts whose tokens are to be counted here: those that the core does not see.
    pub fn measured<'a, T>(&self, texts: Option<&'a T>) -> Option<&'a T> {
        texts.filter(|_| matches!(self, Self::Embeddings(_)))
    }
}

/// What one call routes by.
pub struct View {
    /// It does not change while the call goes on.
    pub snapshot: Arc<Snapshot>,
    /// Whether what is routed counts as the router's traffic.
    pub counted: bool,
}

impl View {
    /// What embeds texts: a `LexicalEmbedder`, or any object with `embed(texts)`.
    pub fn foreign(&self) -> Option<&Py<PyAny>> {
        self.snapshot.companion()?.downcast_ref()
    }

    /// The prompts of a call: exactly one of the two must be given. A foreign embedder is asked here.
    pub fn input<'py>(
        &self,
        py: Python<'py>,
        texts: Option<&Bound<'py, PyAny>>,
        embeddings: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Input<'py>> {
        let dim = self.snapshot.map().dim();
        let made;
        let embeddings = match (texts, embeddings) {
            (None, Some(embeddings)) => embeddings,
            (Some(texts), None) => {
                if self.snapshot.embedder().is_some() {
                    return Texts::collect(texts).map(Input::Texts);
                }
                let Some(embedder) = self.foreign() else {
                    let expected = "embeddings=: this router has no embedder";
                    return Err(to_py(
                        py,
                        &Error::invalid("texts", "texts were given", expected),
                    ));
                };
                made = embedder.bind(py).call_method1("embed", (texts,))?;
                &made
            }
            _ => {
                let problem = if texts.is_some() {
                    "both were given"
                } else {
                    "neither was given"
                };
                let error = Error::invalid("texts, embeddings", problem, "exactly one of them");
                return Err(to_py(py, &error));
            }
        };
        let embeddings = array::<f32>(embeddings, "embeddings", 2, &format!("[n, {dim}]"))?;
        if embeddings.shape()[1] != dim {
            let found = format!("shape {:?}", embeddings.shape());
            let error = Error::invalid("embeddings", found, format!("shape [n, {dim}]"));
            return Err(to_py(py, &error));
        }
        // What is no collection has no length to compare with.
        let wanted = texts.and_then(|texts| texts.len().ok());
        let found = embeddings.shape()[0];
        if let Some(wanted) = wanted.filter(|&wanted| wanted != found) {
            let problem = format!("gave {found} vectors");
            let expected = format!("one for each of {wanted} texts");
            return Err(to_py(py, &Error::invalid("embedder", problem, expected)));
        }
        Ok(Input::Embeddings(embeddings))
    }

    /// Runs `work` on the prompts of a call, without the GIL.
    pub fn with_prompts<T: Send>(
        &self,
        py: Python<'_>,
        input: &Input<'_>,
        work: impl FnOnce(&Snapshot, Prompts<'_>, &Run<'_>) -> Result<T> + Send,
    ) -> PyResult<T> {
        let rows;
        let prompts = match input {
            Input::Texts(texts) => {
                rows = texts.rows();
                Prompts::Texts(&rows)
            }
            Input::Embeddings(embeddings) => Prompts::Embeddings(embeddings.as_slice()?),
        };
        detached(py, |run| work(&self.snapshot, prompts, run))
    }

    /// What `fill` writes for the prompts of a call: `width` values each, row-major.
    pub fn matrix<'py, T: Element + Copy + Default>(
        &self,
        py: Python<'py>,
        input: &Input<'_>,
        width: usize,
        fill: impl FnOnce(&Snapshot, Prompts<'_>, &mut [T], &Run<'_>) -> Result<Vec<Row>> + Send,
    ) -> PyResult<Bound<'py, PyArray2<T>>> {
        let shape = [input.len(), width];
        let values = self.with_prompts(py, input, |snapshot, prompts, run| {
            let mut values = vec![T::default(); shape[0] * shape[1]];
            fill(snapshot, prompts, &mut values, run)?;
            Ok(values)
        })?;
        values.into_pyarray(py).reshape(shape)
    }

    /// Routes one prompt without the GIL, in this thread's scratch.
    pub fn decide(
        &self,
        py: Python<'_>,
        asked: Asked,
        text: Option<&str>,
        route: impl FnOnce(&Snapshot, &Request<'_>, &mut Scratch) -> Result<Row> + Send,
    ) -> PyResult<Decision> {
        let tokens = asked.tokens.or_else(|| text.map(estimate_tokens));
        let asked = Asked { tokens, ..asked };
        let snapshot = &self.snapshot;
        let request = Request {
            counted: self.counted,
            ..asked.request()
        };
        let (row, phi) = released(py, || {
            SCRATCH.with_borrow_mut(|scratch| {
                let row = route(snapshot, &request, scratch)?;
                if row.status == Status::Ok && row.choice.is_none() {
                    let (pool, blend) = (snapshot.pool(), snapshot.blend(scratch.phi()));
                    let costs = choose::costs(pool, blend, tokens)?;
                    return Err(asked.compiled(snapshot).nobody(pool, tokens, &costs));
                }
                let phi = snapshot
                    .map()
                    .single_nearest()
                    .is_none()
                    .then(|| scratch.phi().clone());
                Ok((row, phi))
            })
        })?;
        let Some(choice) = row.choice else {
            let name = status_name(row.status);
            let expected = "text that the embedder knows; `route_batch` gives each row its status";
            return Err(unroutable(
                py,
                &format!("text: {name}; expected {expected}"),
            ));
        };
        Ok(Decision {
            choice,
            coverage: row.coverage,
            cost_weight: asked.cost_weight,
            tokens,
            origin: Origin::Pool(Grounds {
                snapshot: Arc::clone(snapshot),
                phi,
                asked,
            }),
        })
    }
}
