//! A disk that is full when a test wants it to be.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::tools;

/// A small disk, unmounted on drop.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// One of so many MiB on this directory, if this process may mount one.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn mount(on: &Path, mib: u32) -> Result<Option<Self>> {
        fs::create_dir_all(on)?;
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"])
            .arg(on);
        if let Err(error) = tools::output(&mut mount) {
            println!("skipped: a small disk needs the right to mount one (root): {error:#}");
            return Ok(None);
        }
        Ok(Some(Self(on.to_owned())))
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Leaves not a byte of space.
    ///
    /// # Errors
    /// When the file that takes the space up cannot be made.
    pub fn fill(&self) -> Result<()> {
        self.fill_but(0)
    }

    /// Leaves so many bytes of space.
    ///
    /// # Errors
    /// When the file that takes the space up cannot be made.
    pub fn fill_but(&self, left: u64) -> Result<()> {
        let mut file = File::create(self.filler())?;
        for size in [1 << 16, 1 << 10, 1] {
            let block = vec![0; size];
            while file.write_all(&block).is_ok() {}
        }
        let taken = file.metadata()?.len();
        Ok(file.set_len(taken.saturating_sub(left))?)
    }

    /// There is space again.
    ///
    /// # Errors
    /// When it was not full.
    pub fn free(&self) -> Result<()> {
        Ok(fs::remove_file(self.filler())?)
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = tools::output(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}
