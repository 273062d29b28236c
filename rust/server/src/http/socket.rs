//! A client's socket, which notices that the client is gone while nothing is read from it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A socket that fails once the client has reset the connection.
///
/// HTTP reads nothing while an answer is made, for the client may have closed its half and wait. So
/// the end of what it sends means nothing; a reset does, and ends the work for it.
pub struct Socket {
    stream: TcpStream,
    /// Whether anything was written since the last flush: then writing tells what became of it.
    wrote: bool,
}

impl Socket {
    /// A connection that was accepted.
    pub fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            wrote: false,
        }
    }

    /// The connection as it was.
    pub fn into_inner(self) -> TcpStream {
        self.stream
    }

    fn count(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.wrote = true;
        written
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, data);
        self.count(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, data);
        self.count(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// HTTP flushes whenever it looks at a connection, also where it waits for an answer.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::take(&mut self.wrote) {
            let mut byte = [0];
            // Wakes the task when something comes: data, which stay where they are, the end, a reset.
            if let Poll::Ready(Err(error)) =
                self.stream.poll_peek(context, &mut ReadBuf::new(&mut byte))
            {
                return Poll::Ready(Err(error));
            }
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    /// Both ends of a connection.
    async fn pair() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (theirs, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        (Socket::new(accepted.unwrap().0), theirs.unwrap())
    }

    /// Flushes again and again, as a connection that is looked at whenever it wakes.
    async fn fails(mut socket: Socket, within: Duration) -> bool {
        let watched =
            std::future::poll_fn(|context| match Pin::new(&mut socket).poll_flush(context) {
                Poll::Ready(Ok(())) => Poll::Pending,
                failed => failed,
            });
        tokio::time::timeout(within, watched).await.is_ok()
    }

    #[tokio::test]
    async fn a_reset_is_noticed_while_nothing_is_read() {
        let (ours, theirs) = pair().await;
        let watching = tokio::spawn(fails(ours, Duration::from_secs(10)));
        tokio::task::yield_now().await;
        theirs.set_zero_linger().unwrap();
        drop(theirs);
        assert!(watching.await.unwrap());
    }

    #[tokio::test]
    async fn a_half_that_is_closed_is_no_reset() {
        let (ours, mut theirs) = pair().await;
        theirs.write_all(b"more").await.unwrap();
        theirs.shutdown().await.unwrap();
        assert!(!fails(ours, Duration::from_millis(100)).await);
    }
}
