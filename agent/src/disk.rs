//! Small files that are replaced as a whole, on a real disk or in memory, with a switch that cuts the power.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use zeroize::Zeroizing;

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody on the device (0644).
    Public,
    /// The agent alone (0600).
    Secret,
}

/// A directory of small files.
pub trait Disk: Send {
    /// The file's content; `None` when there is no such file.
    fn read(&self, name: &str) -> io::Result<Option<Zeroizing<Vec<u8>>>>;
    /// Replaces the file: after a power cut it has either its old content or the new, and once this returns the new.
    fn replace(&mut self, name: &str, content: &[u8], access: Access) -> io::Result<()>;
}

/// Cuts the power after a number of instructions. Clones share the count. Tests and the simulator only; a device's
/// fuse never blows.
#[derive(Debug, Clone)]
pub struct Fuse(Arc<AtomicI64>);

impl Default for Fuse {
    fn default() -> Self {
        Self::never()
    }
}

impl Fuse {
    /// A fuse that never blows.
    pub fn never() -> Self {
        Self(Arc::new(AtomicI64::new(i64::MAX)))
    }

    /// A fuse that lets `instructions` pass and no more.
    pub fn after(instructions: u32) -> Self {
        Self(Arc::new(AtomicI64::new(i64::from(instructions))))
    }

    /// Arms a fuse that is in use.
    pub fn arm(&self, instructions: u32) {
        self.0.store(i64::from(instructions), Ordering::Relaxed);
    }

    /// Puts in a new fuse that never blows.
    pub fn mend(&self) {
        self.0.store(i64::MAX, Ordering::Relaxed);
    }

    /// Whether the power is off.
    pub fn is_blown(&self) -> bool {
        self.0.load(Ordering::Relaxed) <= 0
    }

    /// One instruction.
    pub fn burn(&self) -> io::Result<()> {
        if self.0.load(Ordering::Relaxed) == i64::MAX {
            return Ok(());
        }
        if self.0.fetch_sub(1, Ordering::Relaxed) <= 0 {
            self.0.store(0, Ordering::Relaxed);
            return Err(io::Error::other("the power is off"));
        }
        Ok(())
    }
}

/// A directory on a real disk.
#[derive(Debug)]
pub struct FileDisk {
    dir: PathBuf,
    fuse: Fuse,
}

impl FileDisk {
    /// Opens `dir`, which is made (0700) where it is missing.
    pub fn open(dir: &Path) -> io::Result<Self> {
        Self::with_fuse(dir, Fuse::never())
    }

    /// Opens `dir` to look at it; makes nothing.
    pub fn look(dir: &Path) -> io::Result<Self> {
        fs::read_dir(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            fuse: Fuse::never(),
        })
    }

    /// As [`FileDisk::open`], with a fuse between any two instructions.
    pub fn with_fuse(dir: &Path, fuse: Fuse) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            fuse,
        })
    }
}

impl Disk for FileDisk {
    fn read(&self, name: &str) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        match fs::read(self.dir.join(name)) {
            Ok(content) => Ok(Some(Zeroizing::new(content))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn replace(&mut self, name: &str, content: &[u8], access: Access) -> io::Result<()> {
        let temporary = self.dir.join(format!(".{name}.new"));
        let mode = match access {
            Access::Public => 0o644,
            Access::Secret => 0o600,
        };
        self.fuse.burn()?;
        // A left-over of an earlier cut may have another mode.
        match fs::remove_file(&temporary) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)?;
        self.fuse.burn()?;
        file.write_all(content)?;
        self.fuse.burn()?;
        file.sync_all()?;
        self.fuse.burn()?;
        fs::rename(&temporary, self.dir.join(name))?;
        self.fuse.burn()?;
        File::open(&self.dir)?.sync_all()
    }
}

/// A disk in memory that forgets what was not synced when the power goes.
#[derive(Debug, Default)]
pub struct MemoryDisk {
    files: BTreeMap<String, Zeroizing<Vec<u8>>>,
    fuse: Fuse,
    /// Whether a rename that was not synced survives a cut. Real ones do either.
    lucky: bool,
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new(fuse: Fuse, lucky: bool) -> Self {
        Self {
            files: BTreeMap::new(),
            fuse,
            lucky,
        }
    }
}

impl Disk for MemoryDisk {
    fn read(&self, name: &str) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        Ok(self.files.get(name).cloned())
    }

    fn replace(&mut self, name: &str, content: &[u8], _: Access) -> io::Result<()> {
        // Open, write, sync: a cut here leaves the old content, as the temporary file is nobody's.
        for _ in 0..3 {
            self.fuse.burn()?;
        }
        self.fuse.burn()?;
        let synced = self.fuse.burn();
        if synced.is_ok() || self.lucky {
            self.files.insert(name.to_owned(), Zeroizing::new(content.to_vec()));
        }
        synced
    }
}
