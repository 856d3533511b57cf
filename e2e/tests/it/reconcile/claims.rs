//! Claims of a `Fleet`.

use std::path::Path;
use std::process::Command;

use certwave_crds::{ClaimState, ClaimStatus, Fleet};
use certwave_e2e::scratch::Scratch;
use certwave_e2e::{programs, tools};
use certwave_pki::{KeyAlgorithm, PrivateKey, create_leaf_csr, csr_to_pem, parse_certificate_info_pem};
use serde_json::{Value, json};

use super::{Place, fleet_spec};

fn claim(name: &str, csr: &str) -> Value {
    json!({"name": name, "quota": 3, "notAfter": "2099-01-01T00:00:00Z", "csr": csr})
}

fn request(name: &str) -> String {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    csr_to_pem(&create_leaf_csr(&key, name).unwrap())
}

async fn shown(place: &Place, claims: Value, name: &str, state: ClaimState) -> ClaimStatus {
    let mut spec = fleet_spec();
    spec["enrolment"] = json!({"claims": claims});
    place.apply::<Fleet>("pumps", spec).await;
    let mut found = None;
    super::until(&format!("claim {name} {state:?}"), async || {
        let status = place.api::<Fleet>().get("pumps").await?.status.unwrap_or_default();
        found = status
            .claims
            .into_iter()
            .find(|claim| claim.name == name && claim.state == state);
        Ok(found.is_some())
    })
    .await;
    found.unwrap()
}

#[tokio::test]
async fn a_claim_gets_one_certificate_which_suspending_does_not_take_away() {
    let place = Place::new("claims").await;
    place.foundation().await;
    let name = format!("{}-line", &place.namespace[place.namespace.len() - 5..]);
    let mut declared = claim(&name, &request("anything"));
    let active = shown(&place, json!([declared]), &name, ClaimState::Active).await;
    let info = parse_certificate_info_pem(active.certificate.as_ref().unwrap()).unwrap();
    assert_eq!(
        info.common_name,
        Some(format!("~claim.{name}")),
        "the name comes from us, not from the request"
    );

    declared["suspended"] = json!(true);
    let suspended = shown(&place, json!([declared]), &name, ClaimState::Suspended).await;
    assert_eq!(suspended.certificate, active.certificate);
    let (broker, claim) = (place.namespace.parse().unwrap(), name.parse().unwrap());
    let known = place
        .world
        .running
        .ledger
        .claim(&broker, &claim)
        .await
        .unwrap()
        .unwrap();
    assert!(known.record.suspended);

    declared["suspended"] = json!(false);
    let resumed = shown(&place, json!([declared]), &name, ClaimState::Active).await;
    assert_eq!(resumed.certificate, active.certificate);

    // Taken out of the Fleet, it enrols nobody any more.
    place.apply::<Fleet>("pumps", fleet_spec()).await;
    super::until("the claim's end", async || {
        Ok(place
            .world
            .running
            .ledger
            .claim(&broker, &claim)
            .await?
            .is_some_and(|known| known.record.suspended))
    })
    .await;
}

#[tokio::test]
async fn a_request_that_is_garbage_or_has_a_used_key_is_rejected() {
    let place = Place::new("claims").await;
    place.foundation().await;
    let suffix = &place.namespace[place.namespace.len() - 5..];
    let garbage = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n";
    let (bad, first, second) = (format!("{suffix}-a"), format!("{suffix}-b"), format!("{suffix}-c"));
    let rejected = shown(&place, json!([claim(&bad, garbage)]), &bad, ClaimState::Rejected).await;
    assert!(rejected.message.unwrap().contains("csr"));

    let csr = request("x");
    shown(&place, json!([claim(&first, &csr)]), &first, ClaimState::Active).await;
    let both = json!([claim(&first, &csr), claim(&second, &csr)]);
    let rejected = shown(&place, both, &second, ClaimState::Rejected).await;
    assert!(rejected.message.unwrap().contains("key"));
}

/// `certwave claim create`, as a person runs it; answers what it wrote, or why not.
async fn create(place: &Place, name: &str, out: &Path) -> anyhow::Result<String> {
    let mut command = Command::new(programs::certwave()?);
    command.args(["claim", "create", name, "--fleet", "pumps", "--quota", "2"]);
    command.args(["--valid-for", "1h", "--namespace", &place.namespace]);
    command.arg("--kubeconfig").arg(place.world.api.kubeconfig());
    command.arg("--out").arg(out);
    tokio::task::spawn_blocking(move || tools::output(&mut command)).await?
}

async fn fleet(place: &Place) -> Fleet {
    place.api::<Fleet>().get("pumps").await.unwrap()
}

#[tokio::test]
async fn a_claim_whose_bundle_cannot_be_written_changes_nothing() {
    let place = Place::new("claims").await;
    place.foundation().await;
    let scratch = Scratch::new("bundles").unwrap();
    let taken = scratch.write("taken.json", "mine").unwrap();
    let before = fleet(&place).await;
    for out in [taken.clone(), scratch.path().join("missing/bundle.json")] {
        assert!(create(&place, "never", &out).await.is_err(), "{}", out.display());
    }
    let after = fleet(&place).await;
    assert_eq!(after.metadata.generation, before.metadata.generation);
    assert_eq!(std::fs::read_to_string(taken).unwrap(), "mine");
}

#[tokio::test]
async fn claims_made_at_the_same_time_are_all_there() {
    let place = Place::new("claims").await;
    place.foundation().await;
    let scratch = Scratch::new("bundles").unwrap();
    let suffix = &place.namespace[place.namespace.len() - 5..];
    let names: Vec<String> = (0..4).map(|number| format!("{suffix}-m{number}")).collect();
    let made = names.iter().map(|name| {
        let (place, out) = (&place, scratch.path().join(name));
        async move {
            create(place, name, &out).await.unwrap();
            serde_json::from_slice::<Value>(&std::fs::read(out).unwrap()).unwrap()
        }
    });
    for (bundle, name) in futures::future::join_all(made).await.iter().zip(&names) {
        assert_eq!(bundle["claim"], json!(name));
        let info = parse_certificate_info_pem(bundle["certificate"].as_str().unwrap()).unwrap();
        assert_eq!(info.common_name, Some(format!("~claim.{name}")));
    }
    let changed = fleet(&place).await;
    let mut there: Vec<_> = changed
        .spec
        .enrolment
        .claims
        .into_iter()
        .map(|claim| claim.name)
        .collect();
    there.sort();
    assert_eq!(there, names);
    let managers = changed.metadata.managed_fields.unwrap_or_default();
    let own: Vec<_> = managers
        .iter()
        .filter(|entry| entry.manager.as_deref() == Some("certwave-claim"))
        .collect();
    let fields = serde_json::to_value(&own).unwrap().to_string();
    assert!(fields.contains("f:claims"), "{fields}");
    assert!(
        !fields.contains("f:issuerRef"),
        "it writes nothing but claims: {fields}"
    );

    // A name is taken once, and what was there stays.
    let again = scratch.path().join("again");
    let refused = create(&place, &names[0], &again).await.unwrap_err();
    assert!(refused.to_string().contains("already"), "{refused}");
    assert!(!again.exists());
}
