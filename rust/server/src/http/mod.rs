//! Connections and requests, within limits.

pub(crate) mod host;
pub(crate) mod listen;
pub(crate) mod lists;
pub(crate) mod read;
pub(crate) mod refusal;
pub(crate) mod reserve;
pub(crate) mod socket;
pub(crate) mod write_timeout;
