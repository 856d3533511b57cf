//! A line between two programs, whatever they speak, that a test can slow down, freeze and break.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::gate::{Line, carry};
use crate::lasting;

/// A line on loopback; it breaks when it is dropped.
pub struct Wire {
    address: SocketAddr,
    line: watch::Sender<Line>,
    serving: AbortHandle,
}

impl Wire {
    /// A line to whoever listens there.
    ///
    /// # Errors
    /// When there is no port for it.
    pub fn to(far: SocketAddr) -> Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let (address, line) = (listener.local_addr()?, watch::Sender::new(Line::Up));
        let serving = lasting::runtime().spawn(serve(listener, far, line.subscribe()));
        Ok(Self {
            address,
            line,
            serving: serving.abort_handle(),
        })
    }

    /// Where it begins.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on all that is said arrives so much later, in either direction.
    pub fn slow(&self, by: Duration) {
        self.line.send_replace(Line::Slow(by));
    }

    /// It breaks: all connections, and each new one, until [`Wire::mend`].
    pub fn cut(&self) {
        self.line.send_replace(Line::Cut);
    }

    /// Nothing that is said arrives any more; connections stay open, and new ones are taken, until [`Wire::mend`].
    pub fn hang(&self) {
        self.line.send_replace(Line::Hung);
    }

    /// It is as it was, and as fast.
    pub fn mend(&self) {
        self.line.send_replace(Line::Up);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.line.send_replace(Line::Cut);
        self.serving.abort();
    }
}

async fn serve(listener: std::net::TcpListener, far: SocketAddr, line: watch::Receiver<Line>) -> Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (near, _) = listener.accept().await?;
        let line = line.clone();
        tokio::spawn(async move {
            let far = TcpStream::connect(far).await?;
            far.set_nodelay(true)?;
            near.set_nodelay(true)?;
            carry(near, far, line).await;
            anyhow::Ok(())
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Instant;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_line_that_was_cut_breaks_what_comes_until_it_is_mended() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let wire = Wire::to(listener.local_addr().unwrap()).unwrap();
        let mut first = TcpStream::connect(wire.address()).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        wire.cut();
        let mut byte = [0];
        assert!(matches!(first.read(&mut byte).await, Ok(0) | Err(_)));
        assert!(matches!(far.read(&mut byte).await, Ok(0) | Err(_)));
        let mut second = TcpStream::connect(wire.address()).await.unwrap();
        assert!(matches!(second.read(&mut byte).await, Ok(0) | Err(_)));
        wire.mend();
        let mut third = TcpStream::connect(wire.address()).await.unwrap();
        third.write_all(b"a").await.unwrap();
        // Of the second connection only the end is left.
        while !matches!(listener.accept().await.unwrap().0.read(&mut byte).await, Ok(1)) {}
        assert_eq!(byte, *b"a");
    }

    #[tokio::test]
    async fn what_is_said_arrives_late_and_whole() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let wire = Wire::to(listener.local_addr().unwrap()).unwrap();
        let mut near = TcpStream::connect(wire.address()).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        let mut word = [0; 4];
        let by = Duration::from_millis(60);
        for (slow, least) in [(false, Duration::ZERO), (true, 2 * by), (false, Duration::ZERO)] {
            if slow {
                wire.slow(by);
            } else {
                wire.mend();
            }
            let begun = Instant::now();
            near.write_all(b"ping").await.unwrap();
            far.read_exact(&mut word).await.unwrap();
            far.write_all(b"pong").await.unwrap();
            near.read_exact(&mut word).await.unwrap();
            assert_eq!(word, *b"pong");
            assert!(begun.elapsed() >= least, "{:?}", begun.elapsed());
        }
    }
}
