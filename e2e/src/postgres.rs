//! A `PostgreSQL` server of the distribution's package, in a directory of its own. The ledger's own tests use this file as well,
//! so it needs nothing but `std`, `anyhow`, `tempfile` and the janitor.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use super::janitor::Janitor;

/// How long it may take to start; it may have a crash to recover from.
const PATIENCE: Duration = Duration::from_mins(1);

/// A server that listens on loopback and on a Unix socket in its directory; it trusts whoever comes. It is killed on drop, and
/// by the kernel when this process ends; its directory goes with it.
#[derive(Debug)]
pub struct Postgres {
    dir: TempDir,
    port: u16,
    settings: Vec<String>,
    child: Option<Child>,
    databases: AtomicU32,
    /// Removes the directory.
    _janitor: Janitor,
}

impl Postgres {
    /// Makes a cluster and starts its server; `settings` are further ones (`name=value`).
    ///
    /// # Errors
    /// When the package `postgresql` is not installed, or the server does not start.
    pub fn start(port: u16, settings: &[&str]) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("certwave-postgres-").tempdir()?;
        if let Some((user, group)) = unprivileged()? {
            chown(dir.path(), Some(user), Some(group))?;
        }
        let mut server = Self {
            // The server may take a moment longer than this process.
            _janitor: Janitor::start(
                r#"for _ in 1 2 3 4 5 6 7 8 9; do rm -rf -- "$1" && exit; sleep 1; done"#,
                [dir.path()],
            )
            .context("run sh")?,
            dir,
            port,
            settings: settings.iter().map(|&s| s.to_owned()).collect(),
            child: None,
            databases: AtomicU32::new(0),
        };
        let made = server
            .command("initdb")?
            .args([
                "--auth=trust",
                "--username=certwave",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
                "-D",
            ])
            .arg(server.data())
            .output()
            .context("run initdb")?;
        ensure!(
            made.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        server.resume()?;
        Ok(server)
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A program of the package, as a user that it runs as.
    fn command(&self, program: &str) -> Result<Command> {
        let mut command = Command::new(program_path(program)?);
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        if let Some((user, group)) = unprivileged()? {
            command.uid(user).gid(group);
        }
        Ok(command)
    }

    /// Starts the server again after [`kill`](Self::kill), and waits until it answers.
    ///
    /// # Errors
    /// When it does not.
    pub fn resume(&mut self) -> Result<()> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))?;
        // setpriv makes the call that ends the server with this process, after it has become the other user.
        let mut command = Command::new("setpriv");
        if let Some((user, group)) = unprivileged()? {
            command.args([
                format!("--reuid={user}"),
                format!("--regid={group}"),
                "--clear-groups".to_owned(),
            ]);
        }
        command
            .args(["--pdeathsig", "QUIT", "--"])
            .arg(program_path("postgres")?)
            .arg("-D")
            .arg(self.data())
            .args(["-c", "listen_addresses=127.0.0.1", "-c", &format!("port={}", self.port)])
            .args(["-c", &format!("unix_socket_directories={}", self.dir.path().display())])
            .args(["-c", "max_connections=400", "-c", "shared_buffers=128MB"])
            .args(self.settings.iter().flat_map(|s| ["-c", s]))
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.child = Some(spawn_from_lasting_thread(command)?);
        let end = Instant::now() + PATIENCE;
        while let Err(error) = self.sql("postgres", "SELECT 1") {
            if Instant::now() > end
                || self
                    .child
                    .as_mut()
                    .is_none_or(|c| c.try_wait().is_ok_and(|s| s.is_some()))
            {
                let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
                bail!("the server does not start: {error}\n{log}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Kills the server and all its processes at once (SIGKILL), as a power cut would.
    ///
    /// # Errors
    /// When its processes cannot be found.
    pub fn kill(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        let parent = child.id();
        child.kill()?;
        child.wait()?;
        // Its processes end by themselves when they find it gone; until then they hold its memory.
        let end = Instant::now() + PATIENCE;
        while children(&self.data(), parent)? > 0 {
            ensure!(Instant::now() < end, "processes of the server are still there");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Gives the server, which must not run, a certificate and its key (PEM files): it speaks TLS then where it is asked to.
    ///
    /// # Errors
    /// When they cannot be copied.
    pub fn use_tls(&mut self, certificate: &Path, key: &Path) -> Result<()> {
        for (from, to) in [(certificate, "server.crt"), (key, "server.key")] {
            let to = self.data().join(to);
            std::fs::copy(from, &to)?;
            std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o600))?;
            if let Some((user, group)) = unprivileged()? {
                chown(&to, Some(user), Some(group))?;
            }
        }
        self.settings.push("ssl=on".to_owned());
        Ok(())
    }

    /// Makes a database and answers its URL, by the Unix socket.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn database(&self) -> Result<String> {
        let name = format!("ledger{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.create_database(&name)?;
        Ok(self.url(&name))
    }

    /// Makes a database of this name.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn create_database(&self, name: &str) -> Result<()> {
        self.sql("postgres", &format!("CREATE DATABASE {name}"))?;
        Ok(())
    }

    /// Has whoever comes by loopback say this password (SCRAM, RFC 7677), in which nothing must need quoting in SQL.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn require_password(&self, password: &str) -> Result<()> {
        self.sql("postgres", &format!("ALTER ROLE certwave PASSWORD '{password}'"))?;
        let rules = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
        std::fs::write(self.data().join("pg_hba.conf"), rules)?;
        self.sql("postgres", "SELECT pg_reload_conf()")?;
        Ok(())
    }

    /// The URL of a database, by the Unix socket.
    pub fn url(&self, database: &str) -> String {
        let socket = self.dir.path().display().to_string().replace('/', "%2F");
        format!(
            "postgresql:///{database}?host={socket}&port={}&user=certwave",
            self.port
        )
    }

    /// The URL of a database, by loopback, without TLS.
    pub fn tcp_url(&self, database: &str) -> String {
        format!(
            "postgresql://certwave@127.0.0.1:{}/{database}?sslmode=disable",
            self.port
        )
    }

    /// Its port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A client program of the package (`pg_dump`, `psql`), which finds the server by the URL of a database.
    ///
    /// # Errors
    /// When the package `postgresql` is not installed.
    pub fn client(&self, program: &str) -> Result<Command> {
        let mut command = Command::new(program_path(program)?);
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        Ok(command)
    }

    /// Runs SQL with `psql` in a database and answers what it prints, without headers.
    ///
    /// # Errors
    /// When it fails.
    pub fn sql(&self, database: &str, sql: &str) -> Result<String> {
        let out = Command::new(program_path("psql")?)
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h"])
            .arg(self.dir.path())
            .args([
                "-p",
                &self.port.to_string(),
                "-U",
                "certwave",
                "-d",
                database,
                "-c",
                sql,
            ])
            .stdin(Stdio::null())
            .output()
            .context("run psql")?;
        ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr).trim());
        Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// How many processes there are whose parent was the server, or that have a file of its cluster open as their directory.
fn children(data: &Path, parent: u32) -> Result<usize> {
    let mut found = 0;
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        let ours = std::fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd == data);
        let dead = std::fs::read_to_string(path.join("stat")).is_ok_and(|s| s.contains(") Z "));
        found += usize::from(ours && !dead && path.file_name().is_some_and(|n| n != parent.to_string().as_str()));
    }
    Ok(found)
}

/// Who runs the server where we are root, which it refuses to run as: the package's user, by number.
fn unprivileged() -> Result<Option<(u32, u32)>> {
    if std::fs::metadata("/proc/self")?.uid() != 0 {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd")?;
    let of = |name: &str| {
        let line = users.lines().find(|l| l.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    let user = of("postgres").or_else(|| of("nobody"));
    Ok(Some(user.context(
        "root may not run PostgreSQL, and there is no user `postgres`",
    )?))
}

/// Whether the server is there.
pub fn is_installed() -> bool {
    program_path("postgres").is_ok() && program_path("psql").is_ok()
}

/// Where a program of the package is: on the path, or where Debian keeps the newest version.
fn program_path(name: &str) -> Result<PathBuf> {
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let mut debian: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .collect();
    debian.sort_by_key(|path| {
        path.components()
            .filter_map(|c| c.as_os_str().to_str()?.parse::<u32>().ok())
            .max()
    });
    debian
        .into_iter()
        .rev()
        .chain(std::env::split_paths(&on_path))
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .with_context(|| format!("{name} is not installed (Debian package `postgresql`)"))
}

/// The kernel's "parent" of a death signal is the thread that forked, and a test's own thread ends before the server.
fn spawn_from_lasting_thread(mut command: Command) -> Result<Child> {
    let (answer, result) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = answer.send(command.spawn());
        loop {
            std::thread::park();
        }
    });
    Ok(result.recv().context("the spawning thread is gone")??)
}
