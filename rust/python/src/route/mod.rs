//! Decisions.

pub(crate) mod decision;
pub(crate) mod packed;
pub(crate) mod router;
pub(crate) mod routing;
pub(crate) mod view;
