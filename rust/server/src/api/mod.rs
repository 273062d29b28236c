//! What each address answers.

pub(crate) mod admin;
pub(crate) mod chat;
pub(crate) mod described;
pub(crate) mod explain;
pub(crate) mod models;
pub(crate) mod observe;
pub(crate) mod openapi;
pub(crate) mod question;
pub(crate) mod route;
pub(crate) mod service;
