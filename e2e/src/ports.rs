//! Free loopback ports.

use std::collections::{BTreeSet, hash_map::RandomState};
use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};

/// How often a port is tried before the machine counts as having none left.
const TRIES: usize = 1000;

/// Linux's own setting.
const USUAL: (u16, u16) = (32_768, 60_999);

static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A TCP port of 127.0.0.1 that nobody listens on, and that this process has not been given before, so that tests in
/// parallel threads do not meet. The kernel gives it to no connection either: whoever is to listen on it may start later, and again.
///
/// # Errors
/// When there is no port left.
pub fn free() -> Result<u16> {
    let range = beside(ephemeral().unwrap_or(USUAL));
    for _ in 0..TRIES {
        // Drawn anew each time, so that two runs on one machine hardly meet.
        let drawn = RandomState::new().build_hasher().finish() % u64::from(range.end - range.start);
        let port = range.start + u16::try_from(drawn)?;
        let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
        if !given.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            given.insert(port);
            return Ok(port);
        }
    }
    bail!("no free loopback port in {range:?}")
}

/// The ports that the kernel does not give out by itself (ip(7), `ip_local_port_range`): one of those can become the near end of any
/// connection between the moment it is chosen here and the moment a server listens on it.
fn beside((first, last): (u16, u16)) -> Range<u16> {
    const LOWEST: u16 = 10_000;
    const ENOUGH: u16 = 4096;
    if first >= LOWEST + ENOUGH {
        LOWEST..first
    } else if last <= u16::MAX - ENOUGH {
        last + 1..u16::MAX
    } else {
        LOWEST..u16::MAX
    }
}

fn ephemeral() -> Option<(u16, u16)> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut numbers = text.split_whitespace().map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice_nor_one_that_somebody_listens_on() {
        let range = beside(ephemeral().unwrap_or(USUAL));
        let taken: Vec<TcpListener> = range
            .step_by(100)
            .filter_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok())
            .collect();
        let ports: BTreeSet<u16> = (0..1000).map(|_| free().unwrap()).collect();
        assert_eq!(ports.len(), 1000);
        assert!(
            taken
                .iter()
                .all(|listener| !ports.contains(&listener.local_addr().unwrap().port()))
        );
    }

    #[test]
    fn what_the_kernel_gives_to_connections_is_left_to_it() {
        assert_eq!(beside(USUAL), 10_000..32_768);
        assert_eq!(beside((10_240, 55_000)), 55_001..65_535);
        // Where it gives out nearly all there is nothing better.
        assert_eq!(beside((1024, 65_535)), 10_000..65_535);
    }
}
