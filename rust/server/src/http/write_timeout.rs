//! A connection whose client has to read: one that takes nothing for too long, or too little all the
//! while, is dropped.

use std::future::Future;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// What a client has to put up with.
#[derive(Clone, Copy)]
pub struct Patience {
    /// Longest pause.
    pub pause: Duration,
    /// Bytes a second that an answer must be read at, its pauses up to `pause` together aside.
    pub pace: f64,
}

/// A stream that fails once writing an answer has waited for too long.
pub struct WriteTimeout<S> {
    stream: S,
    patience: Patience,
    /// When the write under way fails. Made by the first one that has to wait: most never do.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Since when the write under way has been waiting.
    since: Option<Instant>,
    /// How long the writes before it waited, and what they wrote, since the last flush.
    waited: Duration,
    written: usize,
}

impl<S> WriteTimeout<S> {
    /// A stream to a client.
    pub fn new(stream: S, patience: Patience) -> Self {
        Self {
            stream,
            patience,
            deadline: None,
            since: None,
            waited: Duration::ZERO,
            written: 0,
        }
    }

    /// The stream as it was.
    pub fn into_inner(self) -> S {
        self.stream
    }

    /// What came of trying to write: as it is, or that time is up.
    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        tried: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if tried.is_ready() {
            if let Some(since) = self.since.take() {
                self.waited += since.elapsed();
            }
            return tried;
        }
        let Patience { pause, pace } = self.patience;
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        let allowed = pause + Duration::from_secs_f64(self.written as f64 / pace);
        let end = since + pause.min(allowed.saturating_sub(self.waited));
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
        if deadline.deadline() != end {
            deadline.as_mut().reset(end);
        }
        ready!(deadline.as_mut().poll(context));
        let message = "the client does not read its answer, or too slowly";
        Poll::Ready(Err(io::Error::new(ErrorKind::TimedOut, message)))
    }

    /// The same, of a write.
    fn count(
        &mut self,
        context: &mut Context<'_>,
        tried: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = tried {
            self.written += bytes;
        }
        self.watch(context, tried)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteTimeout<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteTimeout<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let tried = Pin::new(&mut self.stream).poll_write(context, data);
        self.count(context, tried)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let tried = Pin::new(&mut self.stream).poll_write_vectored(context, data);
        self.count(context, tried)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        let flushed = self.watch(context, flushed);
        if flushed.is_ready() {
            // An answer ends here, or a part of one that goes on as it comes.
            (self.waited, self.written) = (Duration::ZERO, 0);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watch(context, shut)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const PATIENCE: Patience = Patience {
        pause: Duration::from_millis(80),
        pace: 1000.0,
    };

    #[tokio::test]
    async fn a_write_that_nobody_reads_fails() {
        let (ours, _theirs) = tokio::io::duplex(16);
        let mut ours = WriteTimeout::new(ours, PATIENCE);
        ours.write_all(&[0; 16]).await.unwrap();
        let error = ours.write_all(&[0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_gets_everything() {
        let (ours, mut theirs) = tokio::io::duplex(16);
        let mut ours = WriteTimeout::new(ours, PATIENCE);
        let writing = tokio::spawn(async move { ours.write_all(&[7; 160]).await });
        let mut found = [0; 160];
        // Longer than one write may wait, all together; 160 bytes may take 160 ms more.
        for part in found.chunks_mut(16) {
            tokio::time::sleep(PATIENCE.pause / 4).await;
            theirs.read_exact(part).await.unwrap();
        }
        writing.await.unwrap().unwrap();
        assert_eq!(found, [7; 160]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_trickles_is_dropped() {
        let (ours, mut theirs) = tokio::io::duplex(16);
        let mut ours = WriteTimeout::new(ours, PATIENCE);
        let writing = tokio::spawn(async move { ours.write_all(&[7; 160]).await });
        // Never a pause that is too long, but a byte in 20 ms where 1 ms is allowed for it.
        while theirs.read_u8().await.is_ok() {
            tokio::time::sleep(PATIENCE.pause / 4).await;
        }
        let error = writing.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn each_answer_has_its_own_time() {
        let (ours, mut theirs) = tokio::io::duplex(16);
        let mut ours = WriteTimeout::new(ours, PATIENCE);
        let writing = tokio::spawn(async move {
            for _ in 0..20 {
                ours.write_all(&[7; 17]).await?;
                ours.flush().await?;
            }
            io::Result::Ok(())
        });
        for _ in 0..20 {
            tokio::time::sleep(PATIENCE.pause / 2).await;
            theirs.read_exact(&mut [0; 17]).await.unwrap();
        }
        writing.await.unwrap().unwrap();
    }
}
