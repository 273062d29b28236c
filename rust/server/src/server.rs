//! A running service.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use uniroute_core::route::router::Router;
use uniroute_core::{Error, Result};

use crate::api::service::Service;
use crate::backend::Backend;
use crate::config::Config;
use crate::http::listen;
use crate::log;
use crate::reload::{self, Watched};

/// A service that listens, on threads of its own, until it is stopped or dropped.
///
/// A process that is forked from this one has no such threads: there it counts as ended.
pub struct Server {
    running: Option<Running>,
    address: SocketAddr,
    listening: Arc<AtomicBool>,
    /// The process whose threads they are.
    process: u32,
}

struct Running {
    runtime: Runtime,
    service: Arc<Service>,
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
        let place = format!("{}:{}", config.host, config.port);
        let refused = |source| Error::Io {
            path: place.clone(),
            source,
        };
        let host = config.host.trim_matches(['[', ']']);
        let mut addresses = (host, config.port).to_socket_addrs().map_err(refused)?;
        let address = addresses.next().ok_or_else(|| {
            let expected = "an address of this machine";
            Error::invalid("host", format!("{host:?}"), expected)
        })?;
        let loopback = address.ip().to_canonical().is_loopback();
        let service = Arc::new(Service::new(router, backend, config, loopback)?);
        let runtime = Builder::new_multi_thread()
            .worker_threads(config.threads())
            .thread_name("uniroute-serve")
            .enable_all()
            .build()
            .map_err(refused)?;
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
        let listening = Arc::new(AtomicBool::new(true));
        let open = Arc::clone(&listening);
        let served = Arc::clone(&service);
        runtime.spawn(async move {
            listen::serve(listener, served, &config, stopping, &open).await;
            tracing::info!("stopped");
            end.send_replace(true);
        });
        tracing::info!(%address, "listening");
        let running = Running {
            runtime,
            service,
            stop,
            reload,
            ended,
        };
        Ok(Self {
            running: Some(running),
            address,
            listening,
            process: std::process::id(),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether its port is open. Waits for nothing, so that a process just forked may ask whether
    /// it has inherited the port.
    pub fn listening(&self) -> bool {
        self.listening.load(Ordering::Relaxed)
    }

    fn running(&self) -> Option<&Running> {
        let here = std::process::id() == self.process;
        self.running.as_ref().filter(|_| here)
    }

    /// Asks it to stop: no new connections, and an end once the requests under way are answered.
    pub fn stop(&self) {
        if let Some(running) = self.running() {
            // From here on every answer says so.
            running.service.stopping.store(true, Ordering::Relaxed);
            running.stop.send_replace(true);
        }
    }

    /// Asks it to load the artifact again. Asked many times before it has, it does so once.
    pub fn reload(&self) {
        if let Some(running) = self.running() {
            // Full means that it has been asked already.
            let _ = running.reload.try_send(());
        }
    }

    /// Waits for its end, for so long at most; whether it has ended.
    pub fn wait(&self, most: Duration) -> bool {
        let Some(running) = self.running() else {
            return true;
        };
        let mut ended = running.ended.clone();
        running.runtime.block_on(async {
            let end = ended.wait_for(|ended| *ended);
            tokio::time::timeout(most, end).await.is_ok()
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        let here = self.running().is_some();
        match self.running.take() {
            // Does not wait: whoever wants an orderly end stops it and waits first.
            Some(running) if here => running.runtime.shutdown_background(),
            // Threads that are not in this process may hold its locks for ever.
            running => std::mem::forget(running),
        }
    }
}
