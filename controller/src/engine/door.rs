//! Where the controller connects at a broker.
//!
//! A broker has one door for devices and, where `claimsUrl` names it, another one for claims. The controller knocks at both. At
//! the claims' door client ids are free, so its own is one that nobody can guess: whoever could would end its connection.

use certwave_protocol::ids::Nonce;
use certwave_protocol::topic::{self, User};

use crate::registry::BrokerEntry;

/// The controller's MQTT user, and its client id where that has to be the same.
const USER: &str = "~controller";

/// Where to connect, and to whom to listen there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// Devices, and claims too where they have no door of their own.
    Devices,
    /// Claims alone.
    Claims,
}

impl Door {
    pub(super) fn of(entry: &BrokerEntry) -> impl Iterator<Item = Self> {
        std::iter::once(Self::Devices).chain(entry.claims.as_ref().map(|_| Self::Claims))
    }

    pub(super) fn address(self, entry: &BrokerEntry) -> (String, u16) {
        match (self, &entry.claims) {
            (Self::Claims, Some(address)) => address.clone(),
            _ => (entry.host.clone(), entry.port),
        }
    }

    pub(super) fn client_id(self) -> String {
        match self {
            Self::Devices => USER.to_owned(),
            Self::Claims => format!("{USER}.{}", Nonce(rand::random())),
        }
    }

    pub(super) fn filter(self, entry: &BrokerEntry) -> String {
        match self {
            Self::Devices => topic::up_filter(&entry.prefix),
            Self::Claims => topic::enrol_filter(&entry.prefix),
        }
    }

    /// Whether this is where such a message is answered. One broker may stand behind both doors and deliver a claim's at each.
    pub(super) fn answers(self, entry: &BrokerEntry, user: &User) -> bool {
        match (self, user) {
            (Self::Devices, User::Claim(_)) => entry.claims.is_none(),
            (Self::Devices, User::Device(_)) | (Self::Claims, User::Claim(_)) => true,
            (Self::Claims, User::Device(_)) => false,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use certwave_core::model::ObjectRef;
    use certwave_pki::{KeyAlgorithm, PrivateKey};
    use certwave_protocol::jws::SigningKey;
    use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

    use super::*;

    /// A broker where nobody listens.
    pub(in crate::engine) fn entry(claims: Option<(String, u16)>) -> BrokerEntry {
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let der = key.secret_pkcs8_der();
        BrokerEntry {
            id: "b".parse().unwrap(),
            object: ObjectRef {
                namespace: "n".to_owned(),
                name: "b".to_owned(),
            },
            host: "localhost".to_owned(),
            port: 1,
            claims,
            prefix: "certwave".to_owned(),
            anchors: Vec::new(),
            client_chain: Vec::new(),
            client_key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der.to_vec())),
            control_key: SigningKey::from_pkcs8(der).unwrap(),
            control_chain: Vec::new(),
            nodes: 1,
            door: crate::door::DoorSettings::None,
            version: String::new(),
        }
    }

    #[test]
    fn each_message_is_answered_at_one_door() {
        let device = User::Device("d-1".parse().unwrap());
        let claim = User::Claim("line-1".parse().unwrap());
        for entry in [entry(None), entry(Some(("claims".to_owned(), 2)))] {
            for user in [&device, &claim] {
                let doors = Door::of(&entry).filter(|door| door.answers(&entry, user));
                assert_eq!(doors.count(), 1, "{} {:?}", user.name(), entry.claims);
            }
        }
    }

    #[test]
    fn nobody_can_guess_the_controllers_client_id_at_the_claims_door() {
        assert_eq!(Door::Devices.client_id(), USER);
        assert_ne!(Door::Claims.client_id(), Door::Claims.client_id());
        assert!(Door::Claims.client_id().len() > USER.len() + 20);
    }
}
