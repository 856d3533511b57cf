//! What people write: URLs, faults, configurations.

use std::time::Duration;

use certwave_agent::config::{AgentConfig, ConfigError};
use certwave_agent::mqtt::Address;
use certwave_agent::simulate::fault::{BadFault, Fault, FaultArg, assign};
use certwave_protocol::ids::DeviceId;

#[test]
fn a_broker_url_gives_host_and_port_or_an_error_that_shows_a_good_one() {
    let read = |url: &str| url.parse::<Address>().map(|a| (a.host, a.port));
    assert_eq!(read("mqtts://broker.example"), Ok(("broker.example".to_owned(), 8883)));
    assert_eq!(read("mqtts://10.0.0.1:18883/"), Ok(("10.0.0.1".to_owned(), 18883)));
    assert_eq!(read("mqtts://[::1]:8884"), Ok(("::1".to_owned(), 8884)));
    for wrong in [
        "mqtt://plain",
        "broker:8883",
        "mqtts://",
        "mqtts://h:port",
        "mqtts://u@h",
        "mqtts://[::1",
    ] {
        let error = read(wrong).unwrap_err().to_string();
        assert!(error.contains("mqtts://broker.example:8883"), "{error}");
    }
}

#[test]
fn faults_go_to_the_devices_that_are_named_and_counts_to_those_left() {
    let ids: Vec<DeviceId> = (1..=5).map(|n| format!("sim-{n}").parse().unwrap()).collect();
    let args: Vec<FaultArg> = ["reject=#2", "power-cut:7=sim-1,sim-3", "slow:2m=*", "clock:-20y=#1"]
        .iter()
        .map(|a| a.parse().unwrap())
        .collect();
    let all = assign(&args, &ids);
    let slow = Fault::Slow(Duration::from_mins(2));
    let of = |n: usize| all[&ids[n - 1]].clone();
    assert_eq!(of(1), [Fault::PowerCut(7), slow.clone()]);
    assert_eq!(of(2), [slow.clone(), Fault::Reject]);
    assert_eq!(of(3), [Fault::PowerCut(7), slow.clone()]);
    assert_eq!(of(4), [slow.clone(), Fault::Reject]);
    assert_eq!(of(5), [slow, Fault::Clock(-20 * 365 * 86_400)]);
    assert_eq!(
        "sleepy=#1".parse::<FaultArg>(),
        Err(BadFault::Kind("sleepy".to_owned()))
    );
    assert!(matches!(
        "power-cut=#1".parse::<FaultArg>(),
        Err(BadFault::Param("power-cut", _))
    ));
    assert!(matches!(
        "vanish=*".parse::<FaultArg>(),
        Err(BadFault::Param("vanish", _))
    ));
    assert_eq!("reject=no wildcards/#".parse::<FaultArg>(), Err(BadFault::Selector));
    assert_eq!("reject".parse::<FaultArg>(), Err(BadFault::Form));
}

#[test]
fn a_configuration_that_is_wrong_says_where() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("agent.toml");
    let read = |text: &str| {
        std::fs::write(&file, text).unwrap();
        AgentConfig::load(&file)
    };
    let of = |text: &str| read(text).unwrap_err().to_string();
    assert!(of("device_id = \"~controller\"").contains("deviceId must match"));
    assert!(of("device_id = \"m\"\nstatedir = \"x\"").contains("statedir"));
    assert!(of("device_id = \"m\"\nkey_algorithms = [\"ROT-13\"]").contains("ECDSA-P256"));
    let config = read("device_id = \"m\"\n[broker]\nid = \"b1\"\nurl = \"http://x\"").unwrap();
    assert!(matches!(config.setup(), Err(ConfigError::Url(_))));
    let config = read("device_id = \"m\"\n[broker]\nid = \"b1\"\nurl = \"mqtts://x\"").unwrap();
    assert!(matches!(config.setup(), Err(ConfigError::Missing("trust"))));
    let config = read("device_id = \"m\"\nclaim = \"/nowhere/claim.json\"").unwrap();
    assert!(matches!(config.setup(), Err(ConfigError::Claim { .. })));
}
