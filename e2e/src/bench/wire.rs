//! HTTP as a load generator needs it: bytes that are written down beforehand, on connections that stay open.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Report, number};
use crate::process::Process;

/// `USER_HZ`, in which Linux counts CPU time for programs, whatever its own clock.
const TICKS_PER_SECOND: f64 = 100.0;
/// Half an answer that stays so is an answer that never comes.
const ANSWER: Duration = Duration::from_secs(20);

/// A POST, whole.
pub(super) fn post(path: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// A GET, whole.
pub(super) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

/// One connection.
pub(super) struct Line {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Line {
    /// Connects.
    pub(super) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(4096),
        })
    }

    /// Status and body.
    pub(super) async fn ask(&mut self, request: &[u8]) -> Result<(u16, &[u8])> {
        self.stream.write_all(request).await?;
        let answer = tokio::time::timeout(ANSWER, read(&mut self.stream, &mut self.buffer));
        let (status, body) = answer.await.context("no answer")??;
        Ok((status, &self.buffer[body..]))
    }
}

/// Reads an answer into the emptied buffer, and says its status and where its body begins.
async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<(u16, usize)> {
    buffer.clear();
    let mut whole = None;
    loop {
        let ended = stream.read_buf(buffer).await? == 0;
        if whole.is_none()
            && let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n")
        {
            let head = std::str::from_utf8(&buffer[..end])?;
            let status: u16 = head.get(9..12).context("no status")?.parse()?;
            let length = head
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .map(|(_, value)| value.trim().parse::<usize>())
                .transpose()?;
            whole = Some((status, end + 4, length));
        }
        match whole {
            Some((status, body, Some(length))) if buffer.len() >= body + length => return Ok((status, body)),
            Some((status, body, None)) if ended => return Ok((status, body)),
            _ => ensure!(!ended, "the connection ends in the middle of an answer"),
        }
    }
}

/// How a server is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// Connections; one request at a time on each.
    pub(super) connections: usize,
    /// A new connection for each request, for servers that close theirs.
    pub(super) anew: bool,
    /// For how long.
    pub(super) time: Duration,
}

/// What a server did under a [`Load`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    /// Answers per second.
    pub(super) per_second: f64,
    p50: Duration,
    pub(super) p99: Duration,
    /// The server's CPU time for each answer, microseconds.
    pub(super) cpu: f64,
}

impl Measured {
    /// Reports it below a name.
    pub(super) fn report(&self, name: &str, report: &mut Report) -> Result<()> {
        report.add(name, self.per_second, "1/s")?;
        report.add(format!("{name}.p50"), self.p50.as_secs_f64() * 1e6, "us")?;
        report.add(format!("{name}.p99"), self.p99.as_secs_f64() * 1e6, "us")?;
        report.add(format!("{name}.cpu"), self.cpu, "us")
    }
}

/// Asks a server the requests in turn, over and over, each connection from another place on. Every answer must be 200 and have at
/// least `least` bytes, so that a refusal does not count.
pub(super) async fn load(
    server: &Process,
    address: SocketAddr,
    requests: Arc<Vec<Vec<u8>>>,
    least: usize,
    load: Load,
) -> Result<Measured> {
    let (cpu, start) = (cpu_seconds(server.id())?, Instant::now());
    let ask = |place: usize| {
        let requests = Arc::clone(&requests);
        tokio::spawn(async move {
            let mut line = Line::open(address).await?;
            let mut times = Vec::new();
            let begin = place * requests.len() / load.connections;
            for request in requests.iter().cycle().skip(begin) {
                let asked = Instant::now();
                if asked >= start + load.time {
                    break;
                }
                if load.anew && !times.is_empty() {
                    line = Line::open(address).await?;
                }
                let (status, body) = line.ask(request).await?;
                ensure!(status == 200 && body.len() >= least, "{status}, {} bytes", body.len());
                times.push(asked.elapsed());
            }
            anyhow::Ok(times)
        })
    };
    let asking: Vec<_> = (0..load.connections).map(ask).collect();
    let mut times = Vec::new();
    for connection in asking {
        times.extend(connection.await??);
    }
    let took = start.elapsed().as_secs_f64();
    let cpu = cpu_seconds(server.id())? - cpu;
    ensure!(!times.is_empty(), "not one answer");
    let answers = number(times.len());
    Ok(Measured {
        per_second: answers / took,
        p50: quantile(&mut times, 50),
        p99: quantile(&mut times, 99),
        cpu: cpu * 1e6 / answers,
    })
}

/// A quantile in percent; zero of nothing.
pub(super) fn quantile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    let place = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times.get(place).copied().unwrap_or_default()
}

/// CPU time of a process so far, user and system (`proc_pid_stat(5)`, fields 14 and 15).
pub(super) fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is a name in parentheses, which may hold anything.
    let rest = stat.rsplit_once(") ").context("no end of the name")?.1;
    let ticks = |field: usize| -> Result<f64> {
        let text = rest.split(' ').nth(field - 3).context("too few fields")?;
        Ok(text.parse()?)
    };
    Ok((ticks(14)? + ticks(15)?) / TICKS_PER_SECOND)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_99th_percentile_of_a_hundred_is_the_worst() {
        let mut times: Vec<_> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(quantile(&mut times, 50), Duration::from_millis(51));
        assert_eq!(quantile(&mut times, 99), Duration::from_millis(100));
        assert_eq!(quantile(&mut [], 50), Duration::ZERO);
    }

    #[test]
    fn what_this_process_computes_is_counted() {
        let before = cpu_seconds(std::process::id()).unwrap();
        let end = Instant::now() + Duration::from_mins(1);
        while cpu_seconds(std::process::id()).unwrap() < before + 0.02 {
            assert!(Instant::now() < end);
        }
    }
}
