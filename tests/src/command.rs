//! Running programs with a time limit, and what they said.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// How long one command of a tool may take.
pub const COMMAND_MAX: Duration = Duration::from_secs(120);

/// A program that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The command line, for messages.
    pub line: String,
    /// The exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    fn new(line: String, output: Output) -> Self {
        Self {
            line,
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Exit code 0, or a panic with everything that was said. Gives the standard output.
    #[track_caller]
    pub fn done(self) -> String {
        self.ended_with(0).stdout
    }

    /// The exit code, or a panic with everything that was said.
    #[track_caller]
    pub fn ended_with(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "{}\nended with {} instead of {code}\n--- stdout\n{}\n--- stderr\n{}",
            self.line, self.code, self.stdout, self.stderr
        );
        self
    }

    /// Standard error contains a text.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(
            self.stderr.contains(text),
            "{}\ndoes not say {text:?} but\n{}\n{}",
            self.line,
            self.stderr,
            self.stdout
        );
        self
    }

    /// Standard output as one JSON value.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        let stdout = self.done();
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {stdout}"))
    }
}

/// A program that runs. It is killed by its id when this is dropped.
#[derive(Debug)]
pub struct Started {
    line: String,
    id: u32,
    ended: Receiver<std::io::Result<Output>>,
    is_over: bool,
}

impl Started {
    /// Starts a program with nothing on its standard input.
    ///
    /// # Panics
    /// When it does not start.
    pub fn new<A: AsRef<OsStr>>(program: &Path, arguments: &[A], folder: &Path) -> Self {
        Self::with_environment(program, arguments, folder, &[])
    }

    /// Starts a program with more environment variables.
    ///
    /// # Panics
    /// When it does not start.
    pub fn with_environment<A: AsRef<OsStr>>(
        program: &Path,
        arguments: &[A],
        folder: &Path,
        environment: &[(OsString, OsString)],
    ) -> Self {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(folder)
            .env_remove("KMS_PROFILE")
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let line = format!("{command:?}");
        let child = command.spawn().unwrap_or_else(|error| panic!("{line} does not start: {error}"));
        let id = child.id();
        let (sender, ended) = channel();
        thread::spawn(move || sender.send(Child::wait_with_output(child)));
        Self { line, id, ended, is_over: false }
    }

    /// Waits until it ends.
    ///
    /// # Panics
    /// When it takes longer than [`COMMAND_MAX`].
    #[track_caller]
    pub fn finish(mut self) -> Finished {
        match self.ended.recv_timeout(COMMAND_MAX) {
            Ok(output) => {
                self.is_over = true;
                Finished::new(self.line.clone(), output.expect("the program's output can be read"))
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                panic!("{} did not end within {} s", self.line, COMMAND_MAX.as_secs())
            }
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        // What it said is of no interest to whoever asks this way.
        self.is_over |= self.ended.try_recv().is_ok();
        !self.is_over
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if self.is_running() {
            kill(self.id, rustix::process::Signal::KILL);
        }
    }
}

/// Sends a signal to one process that this test started.
pub fn kill(id: u32, signal: rustix::process::Signal) {
    let id = i32::try_from(id).ok().and_then(rustix::process::Pid::from_raw);
    // It may have ended by itself.
    let _ = rustix::process::kill_process(id.expect("a process id is a positive number"), signal);
}

/// Runs a program to its end.
///
/// # Panics
/// As [`Started::new`] and [`Started::finish`].
#[track_caller]
pub fn run<A: AsRef<OsStr>>(program: &Path, arguments: &[A], folder: &Path) -> Finished {
    Started::new(program, arguments, folder).finish()
}
