//! Connections: accepted within limits, served, and ended in an orderly way.

use std::io::Write;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use prometheus_client::metrics::gauge::Gauge;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::config::Config;
use crate::service::Service;
use crate::write_timeout::{Patience, WriteTimeout};

/// Connections that the system keeps while they wait to be accepted.
const BACKLOG: u32 = 4096;

/// Longest head of a request, and most headers in it.
const HEAD_BYTES: usize = 32 << 10;
const HEADERS: usize = 64;

/// Bytes of an answer that a client has to read in a second: less than the slowest links carry.
const SLOWEST: f64 = 1024.0;

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
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until told to stop, and while load balancers take notice; then lets requests under way
/// end, for a while.
pub async fn serve(
    listener: TcpListener,
    service: Arc<Service>,
    config: &Config,
    mut stop: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(config.max_connections));
    let graceful = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs_f64(config.header_seconds))
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS);
    let patience = Patience {
        pause: Duration::from_secs_f64(config.write_seconds),
        pace: SLOWEST,
    };
    let drain = Duration::from_secs_f64(config.drain_seconds);
    let told = async {
        // An error means that nobody is left to tell.
        let _ = stop.wait_for(|stop| *stop).await;
        service.stopping.store(true, Ordering::Relaxed);
        tokio::time::sleep(drain).await;
    };
    tokio::pin!(told);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut told => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            service.metrics.refused_connections.inc();
            // The client may be gone already.
            let _ = turn_away(stream);
            continue;
        };
        // Answers are written whole: waiting for more to send would only delay them.
        let _ = stream.set_nodelay(true);
        let own = Arc::clone(&service);
        let answer = service_fn(move |request| Arc::clone(&own).handle(request));
        let stream = TokioIo::new(WriteTimeout::new(stream, patience));
        let connection = graceful.watch(http.serve_connection(stream, answer));
        let open = Open::new(&service.metrics.connections, permit);
        tokio::spawn(async move {
            let _open = open;
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
    drop(listener);
    let wait = Duration::from_secs_f64(config.shutdown_seconds);
    if tokio::time::timeout(wait, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("requests were still under way when the time to stop was up");
    }
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
    _room: OwnedSemaphorePermit,
}

impl Open {
    fn new(connections: &Gauge<i64, AtomicI64>, room: OwnedSemaphorePermit) -> Self {
        connections.inc();
        Self {
            connections: connections.clone(),
            _room: room,
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
