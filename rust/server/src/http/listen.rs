//! Connections: accepted within limits, served, and ended in an orderly way.

use std::io::Write;
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::metrics::gauge::Gauge;
use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, timeout_at};

use crate::api::service::Service;
use crate::config::Config;
use crate::http::reserve::{self, Place, Reserve};
use crate::http::socket::Socket;
use crate::http::write_timeout::{Patience, WriteTimeout};

/// Connections that the system keeps while they wait to be accepted.
const BACKLOG: u32 = 4096;

/// Longest head of a request, and most headers in it.
const HEAD_BYTES: usize = 32 << 10;
const HEADERS: usize = 64;

/// Bytes of answers that the system keeps for a client that has not read them yet.
const SEND_BYTES: u32 = 128 << 10;

/// Bytes of an answer that a client has to read in a second: less than the slowest links carry.
const SLOWEST: f64 = 1024.0;

/// How long a connection in the reserve may take for its request, and pause in reading the answer.
const HASTE: Duration = Duration::from_secs(2);

/// How long open connections may go on sending requests once nobody new is let in. Each answer says
/// that the connection closes.
const GRACE: Duration = Duration::from_secs(1);

/// Open files that are not connections of clients: the artifact, the log, what the process is for.
const OTHER_FILES: usize = 64;

/// Pause after the system had no room for one more connection.
const PAUSE: Duration = Duration::from_millis(20);

/// What a connection beyond the limit is told.
const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
    content-length: 140\r\nretry-after: 1\r\nconnection: close\r\n\r\n\
    {\"error\":{\"message\":\"too many connections are open; expected a later try\",\
    \"type\":\"server_error\",\"code\":\"too_many_connections\",\"param\":null}}";

/// Opens the port.
pub fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // A port that was just given up can be taken again.
    socket.set_reuseaddr(true)?;
    // Connections that are accepted have it from here.
    socket.set_send_buffer_size(SEND_BYTES)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until the service is stopped, and while load balancers take notice; then answers those that
/// are connected already, for a while. `listening` says whether the port is still open.
pub async fn serve(
    listener: TcpListener,
    service: Arc<Service>,
    config: &Config,
    mut stop: watch::Receiver<bool>,
    listening: &AtomicBool,
) {
    let drain = Duration::from_secs_f64(config.drain_seconds);
    let stopped = async {
        // An error means that nobody is left who could stop it.
        let _ = stop.wait_for(|stop| *stop).await;
        tracing::info!("stopping");
        tokio::time::sleep(drain).await;
    };
    tokio::pin!(stopped);
    let hall = Hall::new(Arc::clone(&service), config);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stopped => break,
        };
        match accepted {
            Ok((stream, _)) => hall.welcome(stream),
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    // Clients that have connected are let in: as far as they can see, they have been already.
    if let Ok(listener) = listener.into_std() {
        for _ in 0..BACKLOG {
            let Ok((stream, _)) = listener.accept() else {
                break;
            };
            let stream = stream.set_nonblocking(true).map(|()| stream);
            if let Ok(stream) = stream.and_then(TcpStream::from_std) {
                hall.welcome(stream);
            }
        }
        listening.store(false, Ordering::Relaxed);
    }
    let wait = Duration::from_secs_f64(config.shutdown_seconds);
    if !hall.close(wait).await {
        tracing::warn!("requests were still under way when the time to stop was up");
    }
}

/// What all connections share.
struct Hall {
    service: Arc<Service>,
    http: http1::Builder,
    patience: Patience,
    /// For those in the reserve.
    hasty: http1::Builder,
    room: Arc<Semaphore>,
    reserve: Reserve,
    closing: watch::Sender<bool>,
    /// Each connection holds one of the first, so that the second ends when all have.
    present: mpsc::Sender<()>,
    all_gone: mpsc::Receiver<()>,
}

impl Hall {
    fn new(service: Arc<Service>, config: &Config) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(Duration::from_secs_f64(config.header_seconds))
            .max_buf_size(HEAD_BYTES)
            .max_headers(HEADERS)
            // A client that has said all it has to say may wait for the answer.
            .half_close(true);
        let mut hasty = http.clone();
        hasty.header_read_timeout(HASTE.min(Duration::from_secs_f64(config.header_seconds)));
        let (present, all_gone) = mpsc::channel(1);
        Self {
            service,
            http,
            patience: Patience {
                pause: Duration::from_secs_f64(config.write_seconds),
                pace: SLOWEST,
            },
            hasty,
            room: Arc::new(Semaphore::new(most_connections(config))),
            reserve: Reserve::default(),
            closing: watch::Sender::new(false),
            present,
            all_gone,
        }
    }

    /// Serves a connection, within the limit or from the reserve, or turns it away.
    fn welcome(&self, stream: TcpStream) {
        // Answers are written whole: waiting for more to send would only delay them.
        let _ = stream.set_nodelay(true);
        if let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() {
            self.serve(stream, permit);
        } else if let Some(place) = self.reserve.enter() {
            self.serve_from_reserve(stream, place);
        } else {
            self.service.metrics.refused_connections.inc();
            // The client may be gone already.
            let _ = turn_away(stream);
        }
    }

    fn serve(&self, stream: TcpStream, permit: OwnedSemaphorePermit) {
        let service = Arc::clone(&self.service);
        let answer = service_fn(move |request| Arc::clone(&service).handle(request, false));
        let stream = TokioIo::new(WriteTimeout::new(Socket::new(stream), self.patience));
        let mut connection = self.http.serve_connection(stream, answer);
        let mut closing = self.closing.subscribe();
        let open = Open::new(self);
        tokio::spawn(async move {
            let _open = (open, permit);
            let ended = tokio::select! {
                biased;
                ended = &mut connection => Some(ended),
                _ = closing.wait_for(|closing| *closing) => None,
            };
            let ended = if let Some(ended) = ended {
                ended
            } else {
                // At once where no request is under way or begun.
                Pin::new(&mut connection).graceful_shutdown();
                connection.await
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }

    fn serve_from_reserve(&self, stream: TcpStream, place: Place) {
        let service = Arc::clone(&self.service);
        let guest = Arc::clone(&place.guest);
        let answer = service_fn(move |request| {
            guest.heard();
            Arc::clone(&service).handle(request, true)
        });
        let patience = Patience {
            pause: self.patience.pause.min(HASTE),
            ..self.patience
        };
        let stream = TokioIo::new(WriteTimeout::new(Socket::new(stream), patience));
        let mut connection = self.hasty.serve_connection(stream, answer);
        let refused = self.service.metrics.refused_connections.clone();
        let open = Open::new(self);
        tokio::spawn(async move {
            let _open = open;
            let _ = tokio::select! {
                ended = &mut connection => ended,
                () = place.guest.leave() => Ok(()),
            };
            if !place.guest.was_heard() {
                refused.inc();
                let stream = connection.into_parts().io.into_inner().into_inner();
                let _ = turn_away(stream.into_inner());
            }
        });
    }

    /// Ends all connections: those that rest get a moment to send what they were about to, requests
    /// under way get all the time. Whether that was enough.
    async fn close(mut self, wait: Duration) -> bool {
        drop(self.present);
        let now = Instant::now();
        if timeout_at(now + wait.min(GRACE), self.all_gone.recv())
            .await
            .is_ok()
        {
            return true;
        }
        self.closing.send_replace(true);
        timeout_at(now + wait, self.all_gone.recv()).await.is_ok()
    }
}

/// Connections that the process has files for, besides the reserve: else there would be none left to
/// accept one with, however urgent.
fn most_connections(config: &Config) -> usize {
    let files = getrlimit(Resource::Nofile).current;
    let files = files.map_or(usize::MAX, |files| files as usize);
    let most = files.saturating_sub(reserve::PLACES + OTHER_FILES).max(1);
    if most < config.max_connections {
        tracing::warn!(
            most,
            "max_connections: the process may not open as many files"
        );
    }
    most.min(config.max_connections)
}

/// Tells a client to come back later, unless its socket would not take that at once.
fn turn_away(stream: TcpStream) -> std::io::Result<()> {
    let mut stream = stream.into_std()?;
    stream.write_all(BUSY.as_bytes())?;
    stream.shutdown(Shutdown::Write)
}

/// A connection that counts as open.
struct Open {
    connections: Gauge<i64, AtomicI64>,
    _present: mpsc::Sender<()>,
}

impl Open {
    fn new(hall: &Hall) -> Self {
        let connections = hall.service.metrics.connections.clone();
        connections.inc();
        Self {
            connections,
            _present: hall.present.clone(),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connections.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::BUSY;

    #[test]
    fn the_ready_made_answer_is_whole() {
        let (head, body) = BUSY.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())));
        let parsed: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(parsed["error"]["code"], "too_many_connections");
    }
}
