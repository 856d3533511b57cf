//! A revoked device that resumes an earlier TLS session.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use certwave_e2e::scratch::Scratch;
use certwave_e2e::tools;

use super::world::{Leaf, World};

const SOON: Duration = Duration::from_secs(10);
const CONNACK: [u8; 4] = [0x20, 2, 0, 0];

/// Connects with `openssl s_client` and says CONNECT; whether TLS resumed the session, and whether MQTT let it in.
fn connect(world: &World, scratch: &Scratch, leaf: &Leaf, version: &str, session: &Path) -> (bool, bool) {
    let at = |name: &str| scratch.path().join(name);
    let mut command = Command::new(tools::openssl().unwrap());
    command.args([
        "s_client",
        "-nocommands",
        version,
        "-connect",
        &world.broker.device_address().to_string(),
    ]);
    command
        .arg("-CAfile")
        .arg(at("ca"))
        .arg("-cert")
        .arg(at("crt"))
        .arg("-key")
        .arg(at("key"));
    if session.exists() {
        command.arg("-sess_in").arg(session);
    } else {
        command.arg("-sess_out").arg(session);
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut packet = vec![0x10, u8::try_from(12 + leaf.name.len()).unwrap()];
    packet.extend(b"\x00\x04MQTT\x04\x02\x00\x3c\x00");
    packet.push(u8::try_from(leaf.name.len()).unwrap());
    packet.extend(leaf.name.as_bytes());
    let mut stdin = child.stdin.take().unwrap();
    // One that was refused may be gone already.
    let _ = stdin.write_all(&packet).and_then(|()| stdin.flush());
    let mut stdout = child.stdout.take().unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = stdout.read(&mut buffer) {
            if send.send(buffer[..n].to_vec()).is_err() {
                return;
            }
        }
    });
    let (mut output, until) = (Vec::new(), Instant::now() + SOON);
    let has = |output: &[u8], what: &[u8]| output.windows(what.len()).any(|window| window == what);
    let ends = |output: &[u8]| has(output, &CONNACK) && session.exists();
    while !ends(&output) {
        match receive.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(more) => output.extend(more),
            Err(_) => break,
        }
    }
    drop(stdin);
    let _ = child.kill();
    child.wait().unwrap();
    reader.join().unwrap();
    (has(&output, b"Reused, TLS"), has(&output, &CONNACK))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_from_before_the_revocation_lets_nobody_in() {
    for version in ["-tls1_2", "-tls1_3"] {
        let mut world = World::new().await;
        let device = world.device("d");
        let scratch = Scratch::new("resume").unwrap();
        scratch.write("ca", &world.server_ca).unwrap();
        scratch.write("crt", &device.identity.certificate).unwrap();
        scratch.write("key", &device.identity.key).unwrap();
        let session = scratch.path().join("session");
        let first = connect(&world, &scratch, &device, version, &session);
        assert_eq!(first, (false, true), "{version}: the first connection");
        let again = connect(&world, &scratch, &device, version, &session);
        assert!(again.1, "{version}: a good device gets in again, {again:?}");
        eprintln!("{version}: Mosquitto resumes sessions: {}", again.0);
        let number = world.revoke([device.serial.clone()]);
        world.loaded(number).await;
        let after = connect(&world, &scratch, &device, version, &session);
        assert!(!after.1, "{version}: a revoked device got in by its session, {after:?}");
    }
}
