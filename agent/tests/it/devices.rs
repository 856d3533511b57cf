//! Simulated devices, which are the same code as real ones, against a real broker.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use certwave_agent::simulate::watch::Seen;
use certwave_agent::simulate::{SimulateArgs, Simulator};
use certwave_protocol::code::Code;
use certwave_protocol::ids::DeviceId;
use certwave_protocol::message::{Progress, Step};
use clap::Parser;
use rcgen::ExtendedKeyUsagePurpose;

use crate::broker::{Broker, Ca};
use crate::controller;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: SimulateArgs,
}

fn bundle(ca: &Ca, broker: &Broker) -> PathBuf {
    let claim = ca.leaf("~claim.line-1", ExtendedKeyUsagePurpose::ClientAuth);
    let json = serde_json::json!({
        "version": 1, "brokerId": "b1", "url": format!("mqtts://localhost:{}", broker.device_port),
        "claimsUrl": format!("mqtts://localhost:{}", broker.claim_port), "topicPrefix": "certwave", "claim": "line-1",
        "certificate": claim.pem, "privateKey": claim.key.serialize_pem(), "trustAnchors": ca.pem,
    });
    let file = broker.dir.path().join("claim.json");
    std::fs::write(&file, json.to_string()).unwrap();
    file
}

async fn until(simulator: &Simulator, what: &str, seconds: u64, done: impl Fn(&[(DeviceId, Seen)]) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        let devices = simulator.report().devices();
        if done(&devices) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "not in time: {what}\n{}\n{devices:#?}",
            simulator.report().line(Duration::ZERO)
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn progress(seen: &Seen) -> Option<Progress> {
    seen.job.as_ref().map(|j| j.progress)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_enrol_and_rotate_and_those_with_faults_keep_a_credential_that_works() {
    let ca = Arc::new(Ca::new("root"));
    let Some(broker) = Broker::start(&ca) else {
        eprintln!("skipped: there is no mosquitto on this machine; apt-get install mosquitto");
        return;
    };
    let claim = bundle(&ca, &broker);
    let (known, controller) = controller::start(&ca, &broker, 4);
    let cli = Cli::parse_from([
        "simulate",
        "--count=12",
        "--claim",
        claim.to_str().unwrap(),
        "--backoff-max=1",
        "--fault=fail-test=sim-0001",
        "--fault=reject=sim-0002",
        "--fault=never-answer=sim-0003",
        "--fault=power-cut:9=sim-0004",
        "--fault=duplicate=sim-0005",
        "--fault=clock:-20y=sim-0006",
        "--fault=clock:30y=sim-0007",
        "--fault=offline=sim-0008",
        "--fault=power-cut:31=sim-0009",
        "--fault=fail-test:unreachable=#1",
    ]);
    let simulator = Simulator::start(&cli.args).unwrap();
    until(&simulator, "all enrolled", 40, |all| {
        all.iter().all(|(_, s)| s.active.is_some())
    })
    .await;
    until(&simulator, "nine rotated, two rolled back", 60, |all| {
        let count = |p| all.iter().filter(|(_, s)| progress(s) == Some(p)).count();
        // What the devices have done the controller hears a moment later.
        let heard = |id: &str, step| {
            let known = known.lock().unwrap();
            let device = known.get(&id.parse::<DeviceId>().unwrap());
            device.is_some_and(|d| d.statuses.last().is_some_and(|s| s.step == step))
        };
        heard("sim-0001", Step::RolledBack)
            && heard("sim-0002", Step::Rejected)
            && heard("sim-0005", Step::Committed)
            && all.iter().map(|(_, s)| s.rotations).sum::<u32>() >= 7
            && count(Progress::RolledBack) == 2
    })
    .await;
    for (id, seen) in simulator.report().devices() {
        let offline = id.as_str() == "sim-0008";
        assert_eq!(seen.connected, !offline, "{id}: {seen:?}");
        let rotations = u32::from(!["sim-0001", "sim-0002", "sim-0003", "sim-0008", "sim-0010"].contains(&id.as_str()));
        assert_eq!(seen.rotations, rotations, "{id}: {seen:?}");
    }
    {
        let known = known.lock().unwrap();
        let last = |id: &str| {
            known[&id.parse::<DeviceId>().unwrap()]
                .statuses
                .last()
                .cloned()
                .unwrap()
        };
        let back = last("sim-0001");
        assert_eq!((back.step, back.code), (Step::RolledBack, Some(Code::TestFailed)));
        assert_eq!(back.alert.as_deref(), Some("bad_certificate"));
        assert_eq!(
            (last("sim-0002").step, last("sim-0002").code),
            (Step::Rejected, Some(Code::Refused))
        );
        assert_eq!(last("sim-0005").step, Step::Committed);
        assert!(known[&"sim-0005".parse::<DeviceId>().unwrap()].hellos >= 2);
    }
    simulator.stop().await;
    controller.abort();
}

/// An agent as a process, killed when it is dropped.
struct Agent(std::process::Child);

impl Agent {
    fn run(config: &std::path::Path) -> Self {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_certwave-agent"));
        command.arg("run").arg("--config").arg(config);
        Self(command.stderr(std::process::Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ask(config: &std::path::Path, command: &str) -> (bool, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_certwave-agent"))
        .args([command, "--json", "--config"])
        .arg(config)
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_enrols_rotates_and_tells_the_technician() {
    let ca = Arc::new(Ca::new("root"));
    let Some(broker) = Broker::start(&ca) else { return };
    let claim = bundle(&ca, &broker);
    let (_known, controller) = controller::start(&ca, &broker, 10);
    let dir = tempfile::tempdir().unwrap();
    let (config, state) = (dir.path().join("agent.toml"), dir.path().join("state"));
    let toml = format!("device_id = \"meter-1\"\nclaim = {claim:?}\nstate_dir = {state:?}\n");
    std::fs::write(&config, toml).unwrap();
    assert!(!ask(&config, "doctor").0, "a device that never ran is not healthy");

    let mut agent = Agent::run(&config);
    let deadline = Instant::now() + Duration::from_secs(40);
    loop {
        let (_, json) = ask(&config, "status");
        let status: serde_json::Value = serde_json::from_str(&json).unwrap_or_default();
        if status["active"] == "B" && status["job"]["progress"] == "committed" && status["live"]["connected"] == true {
            assert_eq!(status["slots"].as_array().unwrap().len(), 2, "{json}");
            break;
        }
        assert!(Instant::now() < deadline, "{json}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (healthy, found) = ask(&config, "doctor");
    assert!(healthy, "{found}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&state.join("slot-a.key").metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    // Journal lost, for whatever reason: the credentials are found again.
    agent.0.kill().unwrap();
    agent.0.wait().unwrap();
    std::fs::write(state.join("journal.json"), b"{\"version\":1,").unwrap();
    let _agent = Agent::run(&config);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !ask(&config, "doctor").0 {
        assert!(Instant::now() < deadline, "{}", ask(&config, "doctor").1);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    controller.abort();
}
