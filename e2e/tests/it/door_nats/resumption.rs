//! A revoked device that comes with the ticket of an earlier TLS session, OpenSSL being the client.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use certwave_e2e::scratch::Scratch;
use certwave_e2e::tools;
use certwave_pki::crl::Reason;

use super::world::{Device, World};

/// CONNECT of MQTT 3.1.1 with a clean session as `pump-17`, then DISCONNECT: the server ends the connection by itself.
const HELLO_AND_GOODBYE: &[u8] = b"\x10\x13\x00\x04MQTT\x04\x02\x00\x3c\x00\x07pump-17\xe0\x00";
/// CONNACK: accepted.
const WELCOME: &[u8] = &[0x20, 2, 0, 0];

struct Client<'a> {
    world: &'a World,
    scratch: Scratch,
}

impl Client<'_> {
    /// Whether the broker lets it in, and whether an earlier session was resumed.
    async fn connect(&self, device: &Device, version: &str, ticket: &[&str]) -> (bool, bool) {
        let file = |name: &str, text: &str| self.scratch.write(name, text).unwrap();
        let mut command = Command::new(tools::openssl().unwrap());
        command
            .args(["s_client", "-ign_eof", version, "-connect"])
            .arg(self.world.nats.mqtt_address().to_string())
            .arg("-CAfile")
            .arg(file("ca.crt", &self.world.server_ca))
            .arg("-cert")
            .arg(file("tls.crt", &device.identity.certificate))
            .arg("-key")
            .arg(file("tls.key", &device.identity.key))
            .args(ticket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let output = tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().unwrap();
            // A refusal may come before all is written.
            let _ = child.stdin.take().unwrap().write_all(HELLO_AND_GOODBYE);
            child.wait_with_output().unwrap()
        });
        let output = tokio::time::timeout(super::SOON, output).await.unwrap().unwrap();
        let seen = |bytes: &[u8]| output.stdout.windows(bytes.len()).any(|window| window == bytes);
        (seen(WELCOME), seen(b"Reused, "))
    }

    fn ticket(&self) -> &Path {
        self.scratch.path()
    }
}

#[tokio::test]
async fn a_revoked_device_that_resumes_an_earlier_tls_session_is_refused() {
    let world = World::start().await;
    let device = world.device("pump-17");
    let client = Client {
        world: &world,
        scratch: Scratch::new("resumption").unwrap(),
    };
    for version in ["-tls1_3", "-tls1_2"] {
        let ticket = client.ticket().join(version).to_str().unwrap().to_owned();
        assert_eq!(
            client.connect(&device, version, &["-sess_out", &ticket]).await,
            (true, false),
            "{version}"
        );
        // The ticket is good: without the revocation it is taken.
        assert_eq!(
            client.connect(&device, version, &["-sess_in", &ticket]).await,
            (true, true),
            "{version}"
        );
        world.responder.revoke(&device, Reason::KeyCompromise);
        let (welcome, _) = client.connect(&device, version, &["-sess_in", &ticket]).await;
        assert!(!welcome, "{version}: let in by the ticket of an earlier session");
        world.responder.release(&device);
        let (welcome, _) = client.connect(&device, version, &["-sess_in", &ticket]).await;
        assert!(welcome, "{version}");
    }
}
