//! `Constraints`: what a request asks of the model that answers it.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};
use uniroute_core::request::constraints::{self as core, Terms};

use crate::checks::scalars::{boolean, count, number, string, strings, wrong};
use crate::run::released;

/// What a request asks of the model that answers it.
///
/// Immutable and made to be shared: compiled to bit masks the first time that a snapshot meets it,
/// then a decision costs a look at the winner, and a scan of the models where that one is excluded.
/// Equal constraints share what was compiled, so one may also make them anew for each request.
///
/// Parameters
/// ----------
/// allow : sequence of str, optional
///     Names or globs (``*``, ``?``, ``[ab]``, ``{a,b}``; ``*`` also matches ``/``); a model must
///     match one. Default: all.
/// deny : sequence of str
///     Names or globs; a model must match none.
/// require_tags : sequence of str or of sequences of str
///     Tags or globs over tags. A model must have each; of a group, such as
///     ``("region:eu", "region:uk")``, one.
/// forbid_tags : sequence of str
///     Tags or globs; a model must have none.
/// max_cost : float, optional
///     Highest cost, in the unit of costs.
/// max_latency : float, optional
///     Highest latency, in seconds. A model of unknown latency is excluded.
/// fit_context : bool
///     Whether prompt and answer must fit the context. A model of unknown context length is
///     excluded.
/// answer_tokens : int
///     Tokens to keep free for the answer, with `fit_context`.
///
/// Raises
/// ------
/// InvalidArgumentError, ArgumentTypeError
///     An empty pattern, a glob that cannot be parsed, has more than 256 bytes or opens more than 16
///     braces, more than 64 groups of required tags, a cap that is negative or NaN.
///
/// Notes
/// -----
/// Names and tags that no model has are no error: models come and go. Compiling takes
/// O(models x globs).
///
/// Examples
/// --------
/// >>> import uniroute_fast as uf
/// >>> uf.Constraints(deny=["*-preview"], require_tags=["tools", ("region:eu", "region:uk")])
/// Constraints(deny=['*-preview'], require_tags=[['tools'], ['region:eu', 'region:uk']])
#[pyclass(frozen, eq, hash, from_py_object, module = "uniroute_fast")]
#[derive(Clone)]
pub struct Constraints {
    pub inner: Arc<core::Constraints>,
}

impl PartialEq for Constraints {
    fn eq(&self, other: &Self) -> bool {
        self.inner.terms() == other.inner.terms()
    }
}

impl std::hash::Hash for Constraints {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.inner.digest().hash(state);
    }
}

/// Groups of strings: each item a string, or a sequence of them.
fn groups(argument: &'static str, object: &Bound<'_, PyAny>) -> PyResult<Vec<Vec<String>>> {
    if object.is_instance_of::<PyString>() || object.try_iter().is_err() {
        // Refused there.
        return strings(argument, object).map(|_| Vec::new());
    }
    let group = |item: PyResult<Bound<'_, PyAny>>| {
        let item = item?;
        if item.is_instance_of::<PyString>() {
            return Ok(vec![string(argument, &item, "a tag")?]);
        }
        strings(argument, &item)
    };
    object.try_iter()?.map(group).collect()
}

#[pymethods]
impl Constraints {
    #[new]
    #[pyo3(signature = (
        *, allow=None, deny=None, require_tags=None, forbid_tags=None, max_cost=None,
        max_latency=None, fit_context=None, answer_tokens=None
    ))]
    #[pyo3(
        text_signature = "(*, allow=None, deny=None, require_tags=None, forbid_tags=None, max_cost=None, max_latency=None, fit_context=False, answer_tokens=0)"
    )]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        allow: Option<&Bound<'_, PyAny>>,
        deny: Option<&Bound<'_, PyAny>>,
        require_tags: Option<&Bound<'_, PyAny>>,
        forbid_tags: Option<&Bound<'_, PyAny>>,
        max_cost: Option<&Bound<'_, PyAny>>,
        max_latency: Option<&Bound<'_, PyAny>>,
        fit_context: Option<&Bound<'_, PyAny>>,
        answer_tokens: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let listed = |argument, object: Option<&Bound<'_, PyAny>>| {
            object.map_or_else(|| Ok(Vec::new()), |object| strings(argument, object))
        };
        let cap = |argument, object: Option<&Bound<'_, PyAny>>| {
            let checked = |object| {
                let expected = "a number, 0 or more, or None";
                number(object).ok_or_else(|| wrong(object, argument, expected))
            };
            object.map(checked).transpose()
        };
        let terms = Terms {
            allow: allow.map(|object| strings("allow", object)).transpose()?,
            deny: listed("deny", deny)?,
            require_tags: require_tags
                .map_or_else(|| Ok(Vec::new()), |object| groups("require_tags", object))?,
            forbid_tags: listed("forbid_tags", forbid_tags)?,
            max_cost: cap("max_cost", max_cost)?,
            max_latency: cap("max_latency", max_latency)?,
            fit_context: fit_context.map_or(Ok(false), |object| boolean("fit_context", object))?,
            answer_tokens: answer_tokens.map_or(Ok(0), |object| count("answer_tokens", object))?,
        };
        let inner = released(py, || core::Constraints::new(terms))?;
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// What meets both: deny lists, tags and the strictest caps of the two together.
    ///
    /// Raises
    /// ------
    /// InvalidArgumentError
    ///     Both list what is allowed: narrow one of them with `deny`.
    fn __and__(&self, py: Python<'_>, other: &Self) -> PyResult<Self> {
        let both = released(py, || self.inner.and(&other.inner))?;
        Ok(Self {
            inner: Arc::new(both),
        })
    }

    /// The arguments that make an equal one, those left at their defaults left out.
    #[pyo3(name = "_arguments")]
    fn arguments<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let terms = self.inner.terms();
        let arguments = PyDict::new(py);
        let put = |name: &str, values: &[String]| match values {
            [] => Ok(()),
            values => arguments.set_item(name, values),
        };
        put("deny", &terms.deny)?;
        put("forbid_tags", &terms.forbid_tags)?;
        if let Some(allow) = &terms.allow {
            arguments.set_item("allow", allow)?;
        }
        if !terms.require_tags.is_empty() {
            arguments.set_item("require_tags", &terms.require_tags)?;
        }
        for (name, cap) in [
            ("max_cost", terms.max_cost),
            ("max_latency", terms.max_latency),
        ] {
            if let Some(cap) = cap {
                arguments.set_item(name, cap)?;
            }
        }
        if terms.fit_context {
            arguments.set_item("fit_context", true)?;
        }
        if terms.answer_tokens > 0 {
            arguments.set_item("answer_tokens", terms.answer_tokens)?;
        }
        Ok(arguments)
    }

    fn __getnewargs_ex__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
        Ok((PyTuple::empty(py), self.arguments(py)?))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let mut parts = Vec::new();
        for (name, value) in self.arguments(py)?.iter() {
            parts.push(format!("{name}={}", value.repr()?));
        }
        Ok(format!("Constraints({})", parts.join(", ")))
    }
}

/// Adds this file's part to the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Constraints>()
}
