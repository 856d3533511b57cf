//! How to reach the database.

use std::path::{Path, PathBuf};
use std::time::Duration;

use postgres::config::{Host, SslMode, TargetSessionAttrs};
use postgres::{Client, Config, NoTls};

use super::tls::Tls;
use crate::{LedgerError, Result};

/// What each connection is told: an acknowledged commit is on disk, whatever the server's default; nothing waits for ever; and
/// a replica that stands still in a transaction does not keep the others from writing.
const SETTINGS: &str = "SELECT set_config('synchronous_commit', 'on', false)
        WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write');
    SET statement_timeout = '30s'; SET lock_timeout = '10s'; SET idle_in_transaction_session_timeout = '15s';
    SET client_min_messages = warning";

/// How to open a [`PostgresLedger`](super::PostgresLedger). Its `Debug` does not tell the password.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    config: Config,
    tls: Option<Tls>,
}

impl PostgresOptions {
    /// From a URL (`postgres://user@host:5432/database?sslmode=verify-full`), the password where the URL has none, and a PEM
    /// file with the certificates of the CAs that may vouch for the server (else the system's).
    ///
    /// `sslmode` is `verify-full` (the default, but for Unix sockets) or `disable`; what does not check who the server is would
    /// only look like protection. A connection is made to a server that can write, unless `target_session_attrs` says otherwise.
    /// Fails with `Invalid`, without telling the URL, which may hold a password.
    pub fn new(url: &str, password: Option<&str>, ca: Option<&Path>) -> Result<Self> {
        let (url, mode) = without_sslmode(url);
        let mut config: Config = url
            .parse()
            .map_err(|error| LedgerError::Invalid(format!("the URL of the database: {error}")))?;
        let remote = config.get_hosts().iter().any(|host| matches!(host, Host::Tcp(_)));
        let tls = match mode.as_deref() {
            None => remote,
            Some("verify-full") => true,
            Some("disable") => false,
            Some(other) => {
                return Err(LedgerError::Invalid(format!(
                    "sslmode {other} is not supported: say verify-full, or disable where the network is trusted"
                )));
            }
        };
        config.ssl_mode(if tls { SslMode::Require } else { SslMode::Disable });
        if let (None, Some(password)) = (config.get_password(), password) {
            config.password(password);
        }
        if config.get_application_name().is_none() {
            config.application_name("certwave");
        }
        if !url.contains("target_session_attrs=") {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(Duration::from_secs(5));
        }
        // A server that is gone without a word is noticed within this.
        config.keepalives_idle(Duration::from_secs(10));
        config.tcp_user_timeout(Duration::from_secs(15));
        Ok(Self {
            config,
            tls: tls.then(|| Tls::new(ca.map(PathBuf::from).as_deref())).transpose()?,
        })
    }

    /// Connects.
    pub(super) fn connect(&self) -> Result<Client> {
        let mut client = match &self.tls {
            Some(tls) => self.config.connect(tls.clone())?,
            None => self.config.connect(NoTls)?,
        };
        client.batch_execute(SETTINGS)?;
        Ok(client)
    }
}

/// The URL without its `sslmode`, of which the client knows other values than libpq.
fn without_sslmode(url: &str) -> (String, Option<String>) {
    let Some((base, query)) = url.split_once('?') else {
        return (url.to_owned(), None);
    };
    let mut mode = None;
    let rest: Vec<_> = query
        .split('&')
        .filter(|pair| match pair.strip_prefix("sslmode=") {
            Some(value) => {
                mode = Some(value.to_owned());
                false
            }
            None => true,
        })
        .collect();
    let url = if rest.is_empty() {
        base.to_owned()
    } else {
        format!("{base}?{}", rest.join("&"))
    };
    (url, mode)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_verified_unless_a_person_says_otherwise_or_the_socket_is_local() {
        let tls = |url: &str| PostgresOptions::new(url, None, None).map(|o| o.tls.is_some());
        assert_eq!(tls("postgres://a@db/l"), Ok(true));
        assert_eq!(
            tls("postgresql://a@db/l?sslmode=verify-full&connect_timeout=3"),
            Ok(true)
        );
        assert_eq!(tls("postgres://a@db/l?sslmode=disable"), Ok(false));
        assert_eq!(tls("postgres:///l?host=/run/postgresql&user=a"), Ok(false));
        for weak in ["require", "prefer", "allow", "verify-ca"] {
            let refused = tls(&format!("postgres://a@db/l?sslmode={weak}")).unwrap_err();
            assert!(refused.to_string().contains("verify-full"), "{refused}");
        }
    }

    #[test]
    fn a_password_is_shown_neither_by_errors_nor_by_debug() {
        let options = PostgresOptions::new("postgres://a@db/l", Some("hush"), None).unwrap();
        assert_eq!(options.config.get_password(), Some(b"hush".as_slice()));
        assert!(!format!("{options:?}").contains("hush"));
        let options = PostgresOptions::new("postgres://a:own@db/l", Some("hush"), None).unwrap();
        assert_eq!(options.config.get_password(), Some(b"own".as_slice()));
        let refused = PostgresOptions::new("postgres://a:hush@db:x/l", None, None).unwrap_err();
        assert!(!format!("{refused} {refused:?}").contains("hush"));
    }
}
