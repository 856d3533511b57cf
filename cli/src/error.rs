//! Why a command did not do what it was asked for, and by which exit code scripts know.

use std::path::{Path, PathBuf};

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was asked for is not possible as things are; nothing was changed, unless the message says so.
    #[error("{0}")]
    Refused(String),
    /// The command line contradicts itself.
    #[error("{0}")]
    Usage(String),
    /// There is no such object, or its kind is not installed.
    #[error("{0}")]
    NotFound(String),
    /// The API server does not let this user do it.
    #[error("{0}")]
    Forbidden(String),
    /// The API server, or the controller, cannot be reached.
    #[error("{0}")]
    Unreachable(String),
    /// A person said no, or could not be asked.
    #[error("{0}")]
    Declined(String),
    /// The command did its work, and what it found is not well. It has been said already.
    #[error("{0}")]
    Found(String),
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The API server answered something else than was asked for.
    #[error("the Kubernetes API: {0}")]
    Api(String),
}

impl Error {
    /// The exit code: 1 refused or failed, 2 usage, 3 not found, 4 forbidden, 5 unreachable, 6 declined, 7 something is not well.
    pub const fn code(&self) -> u8 {
        match self {
            Self::Refused(_) | Self::Api(_) | Self::File { .. } => 1,
            Self::Usage(_) => 2,
            Self::NotFound(_) => 3,
            Self::Forbidden(_) => 4,
            Self::Unreachable(_) => 5,
            Self::Declined(_) => 6,
            Self::Found(_) => 7,
        }
    }

    /// Says it on standard error.
    pub fn tell(&self) {
        match self {
            Self::Found(words) if words.is_empty() => {}
            _ => eprintln!("error: {self}"),
        }
    }

    /// For `map_err` on what was done to `path`.
    pub fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => answered(status.code, &status.message),
            kube::Error::Auth(error) => Self::Forbidden(format!("the kubeconfig gives no usable credential: {error}")),
            kube::Error::HyperError(error) => unreachable(&error),
            kube::Error::Service(error) => unreachable(error.as_ref()),
            other => Self::Api(whole(&other)),
        }
    }
}

/// What the API server refused, by its status.
fn answered(code: u16, message: &str) -> Error {
    match code {
        401 => Error::Forbidden(format!(
            "the API server does not know you ({message}); is your credential over? Try `kubectl auth whoami`"
        )),
        403 => Error::Forbidden(message.to_owned()),
        404 if message.contains("page not found") || message.contains("requested resource") => Error::NotFound(
            "the API server does not know Certwave's kinds: the CRDs are not installed, or this is another cluster; \
             `kubectl certwave doctor` says more"
                .to_owned(),
        ),
        404 => Error::NotFound(message.to_owned()),
        429 | 503 | 504 => Error::Unreachable(format!("the API server is not well: {message}")),
        _ => Error::Refused(message.to_owned()),
    }
}

fn unreachable(error: &(dyn std::error::Error + 'static)) -> Error {
    Error::Unreachable(format!("the API server cannot be reached: {}", whole(error)))
}

/// An error with its causes, each once.
fn whole(error: &(dyn std::error::Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        cause = error.source();
    }
    words
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_kind_that_is_not_installed_is_told_from_an_object_that_is_not_there() {
        let missing = answered(404, "404 page not found");
        assert!(missing.to_string().contains("CRDs"), "{missing}");
        let other = answered(404, "rotations.certwave.dev \"x\" not found");
        assert_eq!(other.to_string(), "rotations.certwave.dev \"x\" not found");
        assert_eq!((missing.code(), other.code()), (3, 3));
    }

    #[test]
    fn who_may_not_is_told_by_a_code_of_its_own() {
        assert_eq!(answered(403, "no").code(), 4);
        assert_eq!(answered(401, "no").code(), 4);
        assert_eq!(answered(422, "no").code(), 1);
        assert_eq!(answered(503, "no").code(), 5);
    }
}
