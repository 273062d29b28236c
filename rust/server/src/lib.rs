//! The decision service: text in, model out, over HTTP.
//!
//! A request is read within limits (`http`), understood (`api::question`), told what its policy adds
//! (`policy`) and decided (`api::route`) on the thread that read it, over the snapshot that is
//! current. Beside that: the pool's models (`api::models`), chats (`api::chat`) passed on to
//! upstreams (`upstream`), metrics, a page for people, a description made from the types of bodies
//! and answers (`api::openapi`), and an artifact that is loaded again when it changes (`reload`).
//! The binary `uniroute-server` is the service without Python.
//!
//! ```no_run
//! # fn main() -> uniroute_core::Result<()> {
//! use std::sync::Arc;
//! use uniroute_core::{file::artifact::Artifact, file::persist, route::router::Router};
//! use uniroute_server::{Config, FileBackend, Server};
//!
//! let path = std::path::PathBuf::from("pool.uniroute");
//! let (snapshot, _) = Artifact::load(&path).and_then(persist::from_artifact)?;
//! let router = Arc::new(Router::new(snapshot));
//! let backend = FileBackend { router: Arc::clone(&router), path: Some(path.clone()) };
//! let config = Config::read(None, "{}")?;
//! let mut server = Server::start(router, Arc::new(backend), &config, Some(path))?;
//! println!("http://{}", server.address());
//! while !server.wait(std::time::Duration::from_secs(60)) {}
//! # Ok(())
//! # }
//! ```

mod api;
mod backend;
mod config;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod http;
mod log;
mod metrics;
mod policy;
mod reload;
mod server;
mod upstream;

pub use api::observe::{Observed, Prompts};
pub use backend::{Backend, Change, FileBackend, Newcomer, Outcomes};
pub use config::Config;
pub use http::refusal::Refusal;
pub use hyper::StatusCode;
pub use server::Server;
