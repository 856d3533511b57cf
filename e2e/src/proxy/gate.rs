//! The proxy's door: connections that a test can break or freeze.

use std::net::SocketAddr;
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Bytes under way in one direction of one connection.
const BUFFER: usize = 64 << 10;

/// How the line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// All goes through.
    Up,
    /// What is said arrives so much later, in either direction.
    Slow(Duration),
    /// Nothing moves.
    Hung,
    /// Connections break.
    Cut,
}

/// Accepts connections as the line allows.
pub(super) struct Gate {
    listener: TcpListener,
    line: watch::Receiver<Line>,
}

impl Gate {
    pub(super) fn new(listener: TcpListener, line: watch::Receiver<Line>) -> Self {
        Self { listener, line }
    }
}

impl Listener for Gate {
    type Io = DuplexStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (DuplexStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                // The port stays ours while the line is cut, or another test would get it.
                Ok(_) if *self.line.borrow() == Line::Cut => {}
                Ok((stream, peer)) => {
                    let (near, far) = duplex(BUFFER);
                    tokio::spawn(carry(stream, near, self.line.clone()));
                    return (far, peer);
                }
                // No file descriptor left, for example: that passes.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Carries a connection's bytes both ways until one side ends or the line is cut.
pub(super) async fn carry(outside: TcpStream, inside: impl AsyncRead + AsyncWrite, mut line: watch::Receiver<Line>) {
    let (from_client, to_client) = outside.into_split();
    let (from_server, to_server) = tokio::io::split(inside);
    tokio::select! {
        _ = copy(from_client, to_server, line.clone()) => {}
        _ = copy(from_server, to_client, line.clone()) => {}
        _ = line.wait_for(|line| *line == Line::Cut) => {}
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut line: watch::Receiver<Line>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut buffer).await?;
        let carries = line.wait_for(|line| matches!(line, Line::Up | Line::Slow(_))).await;
        // Without its sender the proxy is gone.
        let (1.., Ok(now)) = (read, carries.map(|line| *line)) else {
            return Ok(());
        };
        if let Line::Slow(by) = now {
            tokio::time::sleep(by).await;
        }
        to.write_all(&buffer[..read]).await?;
        to.flush().await?;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_carries_hangs_goes_on_and_breaks() {
        let line = watch::Sender::new(Line::Up);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut gate = Gate::new(listener, line.subscribe());
        let address = gate.local_addr().unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        let (mut server, _) = gate.accept().await;
        let mut byte = [0];
        client.write_all(b"a").await.unwrap();
        server.read_exact(&mut byte).await.unwrap();

        line.send_replace(Line::Hung);
        client.write_all(b"b").await.unwrap();
        let hung = tokio::time::timeout(Duration::from_millis(100), server.read_exact(&mut byte)).await;
        assert!(hung.is_err(), "nothing moves");
        line.send_replace(Line::Up);
        server.read_exact(&mut byte).await.unwrap();
        assert_eq!(byte, *b"b");

        line.send_replace(Line::Cut);
        assert!(matches!(client.read(&mut byte).await, Ok(0) | Err(_)));
        assert!(matches!(server.read(&mut byte).await, Ok(0) | Err(_)));
    }
}
