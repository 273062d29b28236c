//! `uniroute_fast._native`: parses arguments, releases the GIL, delegates to `uniroute-core`,
//! converts errors. No logic of its own.

// Docstrings are for Python, whose markup is not Markdown; PyO3 hands arguments over by value.
#![allow(
    clippy::doc_link_with_quotes,
    clippy::doc_markdown,
    clippy::needless_pass_by_value
)]

mod checks;
mod clusters;
mod costs;
mod drift;
mod embedding;
mod errors;
mod evaluate;
mod file;
mod fork;
mod pool;
mod request;
mod route;
mod run;
#[cfg(all(unix, feature = "serve"))]
mod serve;

use pyo3::prelude::*;

#[pymodule(gil_used = false)]
fn _native(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    m.add_function(wrap_pyfunction!(errors::legible, m)?)?;
    clusters::centroids::register(m)?;
    clusters::cluster_map::register(m)?;
    costs::pacer::register(m)?;
    costs::tokens::register(m)?;
    embedding::chat::register(m)?;
    pool::changes::register(m)?;
    request::constraints::register(m)?;
    request::prompts::register(m)?;
    route::decision::register(m)?;
    drift::register(m)?;
    evaluate::register(m)?;
    fork::register(m)?;
    embedding::lexical::register(m)?;
    m.add_class::<route::packed::PyPackedPool>()?;
    #[cfg(all(unix, feature = "serve"))]
    m.add_class::<serve::Server>()?;
    file::loaded::register(m)?;
    pool::model_info::register(m)?;
    route::routing::register(m)?;
    route::router::register(m)
}
