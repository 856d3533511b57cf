//! The broker's configuration for tests of the harness itself, which have no Broker object to generate it from.

use super::{Configuration, Files};

/// Two listeners with mutual TLS and the design's ACL below `prefix`.
pub fn configuration(prefix: &str, device_port: u16, claim_port: u16, files: &Files) -> Configuration {
    let tls = format!(
        "cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\nuse_identity_as_username true\n",
        files.ca.display(),
        files.certificate.display(),
        files.key.display(),
    );
    let config = format!(
        "per_listener_settings false\nallow_anonymous false\nacl_file {acl}\npersistence false\n\n\
         listener {device_port} 127.0.0.1\n{tls}use_username_as_clientid true\n\n\
         listener {claim_port} 127.0.0.1\n{tls}",
        acl = files.acl.display(),
    );
    let acl = format!(
        "user ~controller\ntopic read {prefix}/+/up/#\ntopic write {prefix}/+/down/#\n\n\
         pattern write {prefix}/%u/up/#\npattern read {prefix}/%u/down/#\n",
    );
    Configuration { config, acl }
}
