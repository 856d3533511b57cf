//! Child processes that cannot outlive this one.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::http;
use crate::wait::wait_for;

/// How much of a log an error message shows, in bytes.
const LOG_TAIL: u64 = 3000;

/// A running program whose output goes to a file. It is killed on drop, and by the kernel when this process ends.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with standard output and error appended to `log`.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn spawn(name: &str, command: &Command, log: &Path) -> Result<Self> {
        let output = File::options().create(true).append(true).open(log)?;
        let mut bound = bound_to_us(command);
        bound.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = spawn_from_lasting_thread(bound).with_context(|| format!("start {name} ({command:?})"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
        })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines of its output.
    pub fn log_tail(&self) -> String {
        tail(&self.log).unwrap_or_else(|error| format!("(no log: {error})"))
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// An error with the end of the log when it has ended.
    ///
    /// # Errors
    /// See above.
    pub fn check_running(&mut self) -> Result<()> {
        match self.exited()? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}):\n{}", self.name, self.log_tail()),
        }
    }

    /// Waits until `http://<address><path>` answers 200; fails at once when the process ends before.
    ///
    /// # Errors
    /// When it ends, or time is up; with the end of its log.
    pub async fn wait_ready(&mut self, address: SocketAddr, path: &str, deadline: Duration) -> Result<()> {
        let name = self.name.clone();
        let ready = wait_for(&format!("{name} to be ready"), deadline, || {
            let ended = self.exited();
            async move {
                if ended?.is_some() {
                    return Ok(false);
                }
                match http::get(address, path).await? {
                    (200, _) => Ok(true),
                    (status, body) => bail!("{path} answers {status}: {}", body.trim()),
                }
            }
        })
        .await;
        self.check_running()?;
        match ready {
            Ok(_) => Ok(()),
            Err(error) => Err(error.context(format!("log of {name} ends:\n{}", self.log_tail()))),
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .context("no process id")?;
        kill_process(pid, signal).with_context(|| format!("signal {}", self.name))
    }

    /// Stops it in its tracks (SIGSTOP) until [`Process::resume`]: its connections stay open, nobody answers.
    ///
    /// # Errors
    /// When it has ended.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    /// When it has ended.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Kills it (SIGKILL), as a power cut would, and reaps it.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end (SIGTERM) and waits; kills it when `grace` is over.
    ///
    /// # Errors
    /// When it had to be killed.
    pub fn stop(&mut self, grace: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.exited()? {
            return Ok(status);
        }
        self.signal(Signal::TERM)?;
        let end = Instant::now() + grace;
        while Instant::now() < end {
            if let Some(status) = self.exited()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.kill();
        bail!(
            "{} did not end within {grace:?} of SIGTERM:\n{}",
            self.name,
            self.log_tail()
        )
    }

    /// Its resident memory in bytes.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .context("no VmRSS: it has ended")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The same command, started so that the kernel kills it when its parent ends.
///
/// `setpriv` (util-linux) makes the one prctl call that would otherwise need unsafe code, and then becomes the program.
fn bound_to_us(command: &Command) -> Command {
    let mut bound = Command::new("setpriv");
    bound
        .args(["--pdeathsig", "KILL", "--"])
        .arg(command.get_program())
        .args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => bound.env(key, value),
            None => bound.env_remove(key),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        bound.current_dir(directory);
    }
    bound
}

/// Spawns from one thread that lives as long as the process: the kernel's "parent" of a death signal is the thread
/// that forked, and a test's own thread ends before the servers that it shares with other tests.
fn spawn_from_lasting_thread(command: Command) -> Result<Child> {
    type Order = (Command, mpsc::Sender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in inbox {
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let (answer, result) = mpsc::channel();
    spawner.send((command, answer)).context("the spawning thread is gone")?;
    Ok(result.recv().context("the spawning thread is gone")??)
}

fn tail(path: &Path) -> Result<String> {
    let mut file = File::open(path)?;
    let start = file.metadata()?.len().saturating_sub(LOG_TAIL);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_process_outlives_the_thread_that_asked_for_it() {
        let scratch = Scratch::new("process").unwrap();
        let log = scratch.path().join("log");
        let started = std::thread::spawn(move || {
            let mut command = Command::new("sleep");
            command.arg("60");
            Process::spawn("sleep", &command, &log).unwrap()
        });
        let mut process = started.join().unwrap();
        assert!(process.exited().unwrap().is_none());
        assert!(process.stop(Duration::from_secs(5)).unwrap().code().is_none());
    }

    #[test]
    fn a_process_that_fails_shows_its_log() {
        let scratch = Scratch::new("process").unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo out of paper >&2; exit 3"]);
        let mut process = Process::spawn("printer", &command, &scratch.path().join("log")).unwrap();
        process.child.wait().unwrap();
        let text = process.check_running().unwrap_err().to_string();
        assert!(text.contains("printer") && text.contains("out of paper"), "{text}");
    }

    /// Not a test but the process that [`a_process_ends_with_the_one_that_started_it`] kills.
    #[test]
    #[ignore = "a helper of another test"]
    fn parent_to_be_killed() {
        let log = PathBuf::from(std::env::var_os("LOG_OF_CHILD").unwrap());
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$; exec sleep 60"]);
        let child = Process::spawn("sleep", &command, &log).unwrap();
        std::thread::sleep(Duration::from_mins(1));
        drop(child);
    }

    #[tokio::test]
    async fn a_process_ends_with_the_one_that_started_it() {
        let scratch = Scratch::new("process").unwrap();
        let log = scratch.path().join("child");
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "process::tests::parent_to_be_killed", "--ignored"])
            .env("LOG_OF_CHILD", &log);
        let mut parent = Process::spawn("parent", &command, &scratch.path().join("parent")).unwrap();
        let child = wait_for("the child's id", Duration::from_secs(10), || async {
            Ok(std::fs::read_to_string(&log)?.trim().parse::<u32>()?)
        });
        let child = PathBuf::from(format!("/proc/{}/exe", child.await.unwrap()));
        assert!(child.exists());
        parent.kill();
        let gone = wait_for("the child's end", Duration::from_secs(10), || async {
            anyhow::ensure!(!child.exists(), "it lives");
            Ok(())
        });
        gone.await.unwrap();
    }
}
