//! `uniroute_fast._native`: parses arguments, releases the GIL, delegates to `uniroute-core`,
//! converts errors. No logic of its own.

// Docstrings are for Python, whose markup is not Markdown; PyO3 hands arguments over by value.
#![allow(
    clippy::doc_link_with_quotes,
    clippy::doc_markdown,
    clippy::needless_pass_by_value
)]

mod arguments;
mod arrays;
mod asked;
mod centroids;
mod changes;
mod constraints;
mod decision;
mod drift;
mod errors;
mod evaluate;
mod fork;
mod heads;
mod lexical;
mod loaded;
mod model_info;
mod pool;
mod router;
mod routing;
mod run;
mod serve;
mod tensors;
mod text;
mod view;

use pyo3::prelude::*;

#[pymodule(gil_used = false)]
fn _native(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    centroids::register(m)?;
    changes::register(m)?;
    constraints::register(m)?;
    decision::register(m)?;
    drift::register(m)?;
    evaluate::register(m)?;
    fork::register(m)?;
    lexical::register(m)?;
    m.add_class::<pool::PyPackedPool>()?;
    m.add_class::<serve::Server>()?;
    loaded::register(m)?;
    model_info::register(m)?;
    routing::register(m)?;
    router::register(m)
}
