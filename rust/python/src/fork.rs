//! Nothing is half done when Python forks: see [`uniroute_core::sys::fork`].

use std::cell::RefCell;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use uniroute_core::sys::fork::Pause;

thread_local! {
    static PAUSE: RefCell<Option<Pause>> = const { RefCell::new(None) };
}

/// Waits for what must not be divided. Without the GIL, which whoever is at it may need later.
#[pyfunction]
fn before_fork(py: Python<'_>) {
    py.detach(|| PAUSE.with_borrow_mut(|pause| _ = pause.get_or_insert_with(Pause::begin)));
}

#[pyfunction]
fn after_fork() {
    PAUSE.take();
}

/// Has Python call these around every `os.fork`, where there is one.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = m.py();
    let os = py.import("os")?;
    if !os.hasattr("register_at_fork")? {
        return Ok(());
    }
    let hooks = PyDict::new(py);
    hooks.set_item("before", wrap_pyfunction!(before_fork, m)?)?;
    hooks.set_item("after_in_parent", wrap_pyfunction!(after_fork, m)?)?;
    hooks.set_item("after_in_child", wrap_pyfunction!(after_fork, m)?)?;
    os.call_method("register_at_fork", (), Some(&hooks))?;
    Ok(())
}
