//! One plain HTTP GET on loopback: enough for health checks and metrics.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The status code and body that `address` answers to `GET path`, within 5 s.
///
/// # Errors
/// When nobody answers, or not in HTTP.
pub async fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    tokio::time::timeout(Duration::from_secs(5), exchange(address, path))
        .await
        .with_context(|| format!("http://{address}{path} does not answer"))?
        .with_context(|| format!("GET http://{address}{path}"))
}

async fn exchange(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    // HTTP/1.0: the body ends with the connection and is never chunked.
    stream
        .write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())
        .await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("no end of headers")?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .context("no status code")?;
    Ok((status, body.to_owned()))
}

/// The sum over all label sets of the sample `name` in a Prometheus text exposition; label sets that do not contain
/// every string in `with` are left out. `None` when there is no such sample.
pub fn sample(exposition: &str, name: &str, with: &[&str]) -> Option<f64> {
    let mut sum = None;
    for line in exposition.lines() {
        let Some(rest) = line.strip_prefix(name) else { continue };
        if !rest.starts_with(['{', ' ']) {
            continue;
        }
        let Some((labels, value)) = rest.rsplit_once(' ') else {
            continue;
        };
        if let (true, Ok(value)) = (with.iter().all(|label| labels.contains(label)), value.parse::<f64>()) {
            sum = Some(sum.unwrap_or(0.0) + value);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_summed_over_the_label_sets_asked_for() {
        let text =
            "# TYPE a counter\na{verb=\"GET\"} 1\na{verb=\"PATCH\"} 2\na{verb=\"PATCH\",code=\"409\"} 4\nab 8\nc 1.5\n";
        assert_eq!(sample(text, "a", &[]), Some(7.0));
        assert_eq!(sample(text, "a", &["verb=\"PATCH\""]), Some(6.0));
        assert_eq!(sample(text, "c", &[]), Some(1.5));
        assert_eq!(sample(text, "d", &[]), None);
    }
}
