//! A snapshot at work: prompts in, and what is asked of them, without the GIL.

use std::cell::RefCell;
use std::sync::Arc;

use numpy::{
    Element, IntoPyArray, PyArray2, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArrayMethods,
};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};
use uniroute_core::request::{Embedded, Prompt, Prompts, Request, Text, tokens_of};
use uniroute_core::route::choose;
use uniroute_core::route::scratch::Scratch;
use uniroute_core::route::snapshot::{Row, Snapshot};
use uniroute_core::sys::threads::Run;
use uniroute_core::text::lexical::Status;
use uniroute_core::{Error, Result};

use crate::checks::arrays::array;
use crate::checks::texts::{self, Texts, status_name};
use crate::errors::{to_py, unroutable, wrong_type};
use crate::request::asked::Asked;
use crate::request::prompts as request;
use crate::route::decision::{Decision, Grounds, Origin};
use crate::run::{detached, released};

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// One prompt as a call got it: a text for an embedder in Rust, or an embedding given or made by an
/// embedder in Python, with its text if there is one.
pub enum One<'a, 'py> {
    /// The text.
    Text(Text<'a>),
    /// float32[1, D].
    Embedding(PyReadonlyArrayDyn<'py, f32>, Option<Text<'a>>),
    /// Embedded before.
    Embedded(Arc<Embedded>),
}

/// Prompts as one call got them: texts, or embeddings given or made by an embedder in Python.
pub enum Input<'py> {
    /// Texts for an embedder in Rust.
    Texts(Texts<'py>),
    /// float32[N, D].
    Embeddings(PyReadonlyArrayDyn<'py, f32>),
    /// Embedded before.
    Embedded(Arc<Embedded>),
}

impl Input<'_> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Texts(texts) => texts.len(),
            Self::Embeddings(embeddings) => embeddings.shape()[0],
            Self::Embedded(prompts) => prompts.places().len(),
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
    pub fn embedder(&self) -> Option<&Py<PyAny>> {
        self.snapshot.companion()?.downcast_ref()
    }

    /// The prompts of a call: exactly one of the two must be given. An embedder in Python is asked
    /// here.
    pub fn input<'py>(
        &self,
        py: Python<'py>,
        texts: Option<&Bound<'py, PyAny>>,
        embeddings: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Input<'py>> {
        if let (Some(texts), None) = (texts, embeddings)
            && let Ok(prompts) = texts.cast::<request::Prompts>()
        {
            return prompts.get().under(py, self).map(Input::Embedded);
        }
        match (texts, embeddings, self.snapshot.embedder()) {
            (Some(texts), None, Some(_)) => Texts::collect(texts).map(Input::Texts),
            _ => (self.embeddings(py, texts, embeddings)).map(Input::Embeddings),
        }
    }

    /// The one prompt of a call, as [`Self::input`] takes many. An embedding may come as [dim] or as
    /// [1, dim].
    pub fn one<'a, 'py>(
        &self,
        py: Python<'py>,
        text: Option<&'a Bound<'py, PyAny>>,
        embeddings: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<One<'a, 'py>> {
        if let (Some(text), None) = (text, embeddings)
            && !text.is_instance_of::<PyString>()
            && let Ok(prompts) = text.cast::<request::Prompts>()
        {
            return prompts.get().under(py, self).map(One::Embedded);
        }
        let text = text.map(|text| {
            text.cast::<PyString>().map_err(|_| {
                let found = text.get_type().name().map(|name| format!("a {name}"));
                let expected = "a str, or Prompts of one; `route_batch` takes many";
                found.map_or_else(|e| e, |found| wrong_type(py, "text", &found, expected))
            })
        });
        let text = text.transpose()?;
        if let (Some(text), None, Some(_)) = (text, embeddings, self.snapshot.embedder()) {
            return Ok(One::Text(texts::row(text)));
        }
        let list = text.map(|text| PyList::new(py, [text])).transpose()?;
        let rows = embeddings.map(|one| {
            let numpy = PyModule::import(py, "numpy")?;
            numpy.call_method1("atleast_2d", (one,)).map_err(|e| {
                let problem = format!("not an array ({e})");
                wrong_type(py, "embeddings", &problem, "a float32 array of shape [dim]")
            })
        });
        let list = list.as_ref().map(Bound::as_any);
        let embedding = self.embeddings(py, list, rows.transpose()?.as_ref())?;
        Ok(One::Embedding(embedding, text.map(texts::row)))
    }

    /// Embeddings as they were given, or of texts by an embedder in Python: exactly one of the two.
    fn embeddings<'py>(
        &self,
        py: Python<'py>,
        texts: Option<&Bound<'py, PyAny>>,
        embeddings: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<PyReadonlyArrayDyn<'py, f32>> {
        let dim = self.snapshot.map().dim();
        let made;
        let embeddings = match (texts, embeddings) {
            (None, Some(embeddings)) => embeddings,
            (Some(texts), None) => {
                let Some(embedder) = self.embedder() else {
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
        Ok(embeddings)
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
            Input::Embedded(prompts) => Prompts::Embedded(prompts),
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
    pub(crate) fn decide(
        &self,
        py: Python<'_>,
        asked: Asked,
        one: &One<'_, '_>,
    ) -> PyResult<Decision> {
        let (prompt, tokens) = match one {
            One::Text(text) => (Prompt::Text(*text), tokens_of(Some(*text))),
            One::Embedding(embedding, text) => {
                (Prompt::Embedding(embedding.as_slice()?), tokens_of(*text))
            }
            One::Embedded(prompt) => {
                let prompt = Prompt::Embedded(prompt);
                (prompt, prompt.tokens())
            }
        };
        let tokens = asked.tokens.or(tokens);
        let asked = Asked { tokens, ..asked };
        let snapshot = &self.snapshot;
        let request = Request {
            counted: self.counted,
            ..asked.request()
        };
        let (row, phi) = released(py, || {
            SCRATCH.with_borrow_mut(|scratch| {
                let row = snapshot.route(prompt, &request, scratch)?;
                if row.status == Status::Ok && row.choice.is_none() {
                    let (pool, blend) = (snapshot.pool(), snapshot.blend(scratch.phi()));
                    return Err(choose::nobody(pool, blend, &request));
                }
                let several = snapshot.map().single_nearest().is_none();
                Ok((row, several.then(|| scratch.phi().clone())))
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
                pool: Arc::clone(snapshot.pool()),
                map: Arc::clone(snapshot.map()),
                version: snapshot.version(),
                phi,
                asked,
            }),
        })
    }
}
