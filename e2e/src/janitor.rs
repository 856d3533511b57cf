//! What is cleared away even when this process is killed. Uses nothing of this crate, as the ledger's tests include it.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// A shell that waits for the end of a pipe that only this process holds, and then clears up: on drop, or once this process has ended,
/// however it ends. Whatever lives in a `static` is never dropped.
#[derive(Debug)]
pub struct Janitor {
    shell: Child,
}

impl Janitor {
    /// Clears up by this script, which finds its arguments in `$1` and so on.
    ///
    /// # Errors
    /// When there is no `sh`.
    pub fn start<A: AsRef<OsStr>>(script: &str, arguments: impl IntoIterator<Item = A>) -> io::Result<Self> {
        let shell = Command::new("sh")
            .args(["-c", &format!("cat; {script}"), "sh"])
            .args(arguments)
            // A Ctrl-C at the terminal must not reach it.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { shell })
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}
