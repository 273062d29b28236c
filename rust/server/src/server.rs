//! A running service.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use uniroute_core::router::Router;
use uniroute_core::{Error, Result};

use crate::backend::Backend;
use crate::config::Config;
use crate::listen;
use crate::log;
use crate::reload::{self, Watched};
use crate::service::Service;

/// A service that listens, on threads of its own, until it is stopped or dropped.
pub struct Server {
    runtime: Option<Runtime>,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    reload: mpsc::Sender<()>,
    ended: watch::Receiver<bool>,
}

impl Server {
    /// Opens the port and begins to answer. `artifact` is the file that `router` came from: changes
    /// to it are noticed, and handed to `backend` to be loaded.
    pub fn start(
        router: Arc<Router>,
        backend: Arc<dyn Backend>,
        config: &Config,
        artifact: Option<PathBuf>,
    ) -> Result<Self> {
        log::start(&config.log)?;
        let service = Arc::new(Service::new(router, backend, config)?);
        let place = format!("{}:{}", config.host, config.port);
        let refused = |source| Error::Io {
            path: place.clone(),
            source,
        };
        let runtime = Builder::new_multi_thread()
            .worker_threads(config.threads())
            .thread_name("uniroute-serve")
            .enable_all()
            .build()
            .map_err(refused)?;
        let host = config.host.trim_matches(['[', ']']);
        let mut addresses = (host, config.port).to_socket_addrs().map_err(refused)?;
        let address = addresses.next().ok_or_else(|| {
            let expected = "an address of this machine";
            Error::invalid("host", format!("{host:?}"), expected)
        })?;
        let listener = runtime.block_on(async { listen::bind(address) });
        let listener = listener.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;

        let (stop, stopping) = watch::channel(false);
        let (reload, asked) = mpsc::channel(1);
        let (end, ended) = watch::channel(false);
        let every = Duration::from_secs_f64(config.watch_seconds);
        let watched = artifact.map(Watched::new);
        let keeping = reload::keep_up(
            Arc::clone(&service),
            watched,
            every,
            asked,
            stopping.clone(),
        );
        runtime.spawn(keeping);
        let config = config.clone();
        runtime.spawn(async move {
            listen::serve(listener, service, &config, stopping).await;
            end.send_replace(true);
        });
        tracing::info!(%address, "listening");
        Ok(Self {
            runtime: Some(runtime),
            address,
            stop,
            reload,
            ended,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks it to stop: no new connections, and an end once the requests under way are answered.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Asks it to load the artifact again. Asked many times before it has, it does so once.
    pub fn reload(&self) {
        // Full means that it has been asked already.
        let _ = self.reload.try_send(());
    }

    /// Waits for its end, for so long at most; whether it has ended.
    pub fn wait(&self, most: Duration) -> bool {
        let Some(runtime) = &self.runtime else {
            return true;
        };
        let mut ended = self.ended.clone();
        runtime.block_on(async {
            let end = ended.wait_for(|ended| *ended);
            tokio::time::timeout(most, end).await.is_ok()
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        if let Some(runtime) = self.runtime.take() {
            // Does not wait: whoever wants an orderly end stops it and waits first.
            runtime.shutdown_background();
        }
    }
}
