//! Values that cannot be right.

use std::process::Command;

use certwave_e2e::chart::{directory, template};
use certwave_e2e::tools;

/// What Helm says to these `--set` arguments.
fn refusal(set: &str) -> String {
    let mut helm = template().unwrap();
    helm.args(["--set", set]);
    refused(&mut helm)
}

fn refused(helm: &mut Command) -> String {
    match tools::output(helm) {
        Ok(_) => panic!("{helm:?} is taken"),
        // Before it stands what was run.
        Err(error) => format!("{error:#}")
            .split_once("Error: ")
            .map(|(_, said)| said.to_owned())
            .unwrap_or_default(),
    }
}

#[test]
fn a_wrong_value_is_refused_with_its_name() {
    for (set, named) in [
        ("replica=2", "replica"),
        ("replicas=two", "replicas"),
        ("replicas=-1", "replicas"),
        ("fullnameOverride=2nd", "fullnameOverride"),
        ("fullnameOverride=cert.wave", "fullnameOverride"),
        ("nameOverride=Certwave", "nameOverride"),
        ("image.repository=https://registry.example/certwave", "repository"),
        ("image.repository=registry.example/certwave:dev", "repository"),
        ("image.tag=v1:dev", "tag"),
        ("image.pullpolicy=Always", "pullpolicy"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("image.digest=latest", "digest"),
        ("ledger.type=mysql", "type"),
        ("ledger.sqlite.size=ten", "size"),
        ("ledger.postgres.url=db.example/certwave", "url"),
        ("publicationBaseURL=pki.example.com", "publicationBaseURL"),
        ("publicationBaseURL=http://pki.example.com/", "publicationBaseURL"),
        ("ocsp.validitySeconds=10", "validitySeconds"),
        ("resources.limits.memory=much", "memory"),
        ("resources.requests.cpu=-1", "cpu"),
        ("resources.limits.cpus=1", "cpus"),
        ("podLabels.team=P K I", "team"),
        ("spreadOver={zone/}", "spreadOver"),
        ("spreadOver={zone,zone}", "spreadOver"),
        ("ingress.host=http://pki.example.com", "host"),
        ("ingress.host=pki.example.com:8080", "host"),
        ("ingress.host=192.0.2.1", "host"),
        ("watchNamespace=Meters", "watchNamespace"),
        ("service.port=0", "port"),
        ("podDisruptionBudget.maxUnavailable=0", "maxUnavailable"),
        ("metrics.serviceMonitor.interval=often", "interval"),
        ("mosquitto.node=Node_1", "node"),
        ("log.format=xml", "format"),
    ] {
        let said = refusal(set);
        assert!(said.contains("schema") && said.contains(named), "{set}: {said}");
    }
}

#[test]
fn values_that_do_not_fit_together_are_refused_with_what_to_do() {
    for (set, advice) in [
        ("replicas=2", "set replicas to 1, or ledger.type to postgres"),
        (
            "ledger.type=postgres",
            "set ledger.postgres.url, or ledger.postgres.urlSecret.name",
        ),
        ("ledger.postgres.urlSecret.name=db", "set ledger.type to postgres"),
        (
            "ledger.type=postgres,ledger.postgres.url=postgres://c:secret@db/c",
            "put it into a Secret",
        ),
        (
            "ledger.type=postgres,ledger.postgres.url=postgres://c@db/c,ledger.postgres.urlSecret.name=db",
            "not both",
        ),
        ("responder.enabled=true", "set ledger.type to postgres"),
        (
            "responder.enabled=true,ledger.type=postgres,ledger.postgres.urlSecret.name=db",
            "responder.authorities",
        ),
        (
            "metrics.serviceMonitor.enabled=true,metrics.podMonitor.enabled=true",
            "choose one",
        ),
        ("ingress.enabled=true", "set ingress.host"),
        ("mosquitto.enabled=true", "set publicationBaseURL or mosquitto.baseURL"),
    ] {
        let said = refusal(set);
        assert!(said.contains(advice), "{set}: {said}");
        assert!(!said.contains("secret@"), "a password is repeated: {said}");
    }
}

#[test]
fn a_release_whose_services_could_have_no_name_is_refused() {
    for name in ["2nd", "north.meters"] {
        let mut helm = Command::new(tools::helm().unwrap());
        let said = refused(helm.args(["template", name]).arg(directory()));
        assert!(said.contains("set fullnameOverride"), "{name}: {said}");
    }
}
