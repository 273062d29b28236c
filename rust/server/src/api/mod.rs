//! What each address answers.

pub(crate) mod chat;
pub(crate) mod explain;
pub(crate) mod models;
pub(crate) mod observe;
pub(crate) mod question;
pub(crate) mod route;
pub(crate) mod service;
