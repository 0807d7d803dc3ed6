//! A PostgreSQL server of the tests' own: its own data, on a Unix socket only, stopped by its process id.

use rustix::process::{Pid, Signal, kill_process};
use sqlx::{AssertSqlSafe, Connection, Executor};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A running server. Dropping it stops it and removes its data.
pub struct Server {
    directory: TempDir,
    child: Mutex<Option<Child>>,
    database_count: AtomicU32,
}

/// The user that runs the server. It refuses to run as root, as which the tests often run.
struct User {
    uid: u32,
    gid: u32,
}

fn user() -> Option<User> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let ask = |flag| {
        let output = Command::new("id").args([flag, "postgres"]).output().expect("`id` runs");
        let number = String::from_utf8_lossy(&output.stdout).trim().parse();
        number.expect("PostgreSQL runs as user postgres: install Debian's package postgresql")
    };
    Some(User { uid: ask("-u"), gid: ask("-g") })
}

fn binary(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = versions.map(|version| version.path().join("bin").join(name)).collect();
    found.retain(|path| path.exists());
    found.sort();
    found.pop().expect("these tests need PostgreSQL: install Debian's package postgresql")
}

impl Server {
    /// One server for all tests that run at the same time.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Self::start(&[]));
            *shared = Arc::downgrade(&server);
            server
        })
    }

    /// A server with these settings (`name=value`).
    pub fn start(settings: &[&str]) -> Self {
        let directory = TempDir::new().expect("a temporary folder can be made");
        if let Some(user) = user() {
            chown(directory.path(), Some(user.uid), Some(user.gid)).expect("root gives the folder away");
        }
        let server = Self { directory, child: Mutex::new(None), database_count: AtomicU32::new(0) };
        let initdb = server
            .command("initdb")
            .args(["-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"])
            // An order of words, in which punctuation counts last: the store must not depend on it.
            .args(["--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en"])
            .output()
            .expect("initdb runs");
        assert!(initdb.status.success(), "initdb: {}", String::from_utf8_lossy(&initdb.stderr));
        server.start_again(settings);
        server
    }

    /// Starts the stopped server on the same data.
    pub fn start_again(&self, settings: &[&str]) {
        let mut command = self.command("postgres");
        command.args(["-D", "data", "-c", "listen_addresses="]).arg("-k").arg(self.directory.path());
        settings.iter().for_each(|setting| {
            command.args(["-c", setting]);
        });
        let child = command.spawn().expect("postgres starts");
        *self.child() = Some(child);
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self
            .command("pg_isready")
            .arg("-q")
            .arg("-h")
            .arg(self.directory.path())
            .status()
            .is_ok_and(|status| status.success())
        {
            assert!(Instant::now() < deadline, "PostgreSQL does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends the server as a crash would: open transactions are lost, committed ones must not be.
    pub fn stop(&self) {
        if let Some(mut child) = self.child().take() {
            let id = Pid::from_child(&child);
            // PostgreSQL's immediate shutdown: it ends its own children and writes nothing more.
            let _ = kill_process(id, Signal::QUIT);
            let _ = child.wait();
        }
    }

    /// A new empty database's URL.
    pub async fn new_database(&self) -> String {
        let name = format!("kms_{}", self.database_count.fetch_add(1, Ordering::Relaxed));
        self.execute(format!("CREATE DATABASE {name}")).await;
        self.url(&name)
    }

    /// The URL of a database, there or not.
    pub fn url(&self, name: &str) -> String {
        url(name, self.directory.path())
    }

    /// The socket's path.
    pub fn socket(&self) -> PathBuf {
        socket(self.directory.path())
    }

    /// Runs a statement in the server's own database.
    pub async fn execute(&self, sql: String) {
        sqlx::any::install_default_drivers();
        let mut connection =
            sqlx::AnyConnection::connect(&self.url("postgres")).await.expect("the server answers");
        connection.execute(AssertSqlSafe(sql)).await.expect("the statement is right");
        connection.close().await.expect("closes");
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(binary(name));
        command.current_dir(self.directory.path()).env_clear().stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        if let Some(user) = user() {
            command.uid(user.uid).gid(user.gid);
        }
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The URL of a database behind the socket in a folder.
pub fn url(name: &str, folder: &Path) -> String {
    format!("postgres://postgres@localhost/{name}?host={}", folder.display())
}

/// The name that every client expects of the socket.
pub fn socket(folder: &Path) -> PathBuf {
    folder.join(".s.PGSQL.5432")
}
