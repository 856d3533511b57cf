//! Where a bundle is written: a place that is taken before there is anything to write.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::command::CommandError;

/// A file that is there and empty until the bundle is in it; it goes again if that never comes.
#[derive(Debug)]
pub(super) enum Output {
    /// The standard output.
    Standard,
    /// A file of our own.
    File(Reserved),
}

#[derive(Debug)]
pub(super) struct Reserved {
    path: PathBuf,
    file: File,
    written: bool,
}

impl Output {
    /// Makes the file (mode 0600), never over another one; `-` is the standard output.
    pub(super) fn reserve(path: &Path) -> Result<Self, CommandError> {
        if path == Path::new("-") {
            return Ok(Self::Standard);
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let file = options.open(path).map_err(CommandError::file(path))?;
        Ok(Self::File(Reserved {
            path: path.to_owned(),
            file,
            written: false,
        }))
    }

    /// Writes the bundle, to the disk.
    pub(super) fn write(self, text: &str) -> Result<(), CommandError> {
        match self {
            Self::Standard => {
                println!("{text}");
                Ok(())
            }
            Self::File(mut reserved) => {
                let file = &mut reserved.file;
                let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
                written.map_err(CommandError::file(&reserved.path))?;
                reserved.written = true;
                Ok(())
            }
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if !self.written {
            // Whoever tries again must not be told that it exists.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn place(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("certwave-{}-{name}", uuid::Uuid::new_v4()))
    }

    #[test]
    fn a_bundle_is_for_its_owner_alone_and_never_written_over() {
        let path = place("bundle");
        Output::reserve(&path).unwrap().write("secret").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "secret");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Output::reserve(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "secret");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_place_that_is_not_used_is_given_back() {
        let path = place("given-back");
        drop(Output::reserve(&path).unwrap());
        assert!(!path.exists());
        assert!(Output::reserve(&place("missing").join("bundle")).is_err());
    }
}
