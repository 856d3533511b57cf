//! Claims of a `Fleet`.

use certwave_crds::{ClaimState, ClaimStatus, Fleet};
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
