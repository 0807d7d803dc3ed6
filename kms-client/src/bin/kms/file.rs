//! `kms encrypt` and `kms decrypt`.

use crate::args::{DecryptArguments, EncryptArguments};
use crate::output::Failure;
use crate::pending::{Existing, PendingFile, Readers};
use crate::{Session, context, expected_key, key_reference, named_key};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use kms_client::file::{self, FileError, FileHeader};
use kms_core::context::EncryptionContext;
use kms_core::id::{KeyId, KeyVersion};
use kms_core::reason::Reason;
use kms_core::suite::AeadAlgorithm;
use serde_json::json;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;
use tokio::signal::unix::{SignalKind, signal};

/// Input from which on a progress bar is shown, in bytes.
const PROGRESS_LEN_MIN: u64 = 16 * 1024 * 1024;
/// Exit code of an interrupted command, as shells have it.
const EXIT_INTERRUPTED: u8 = 130;

struct Input {
    reader: Box<dyn Read + Send>,
    /// Unknown for a pipe.
    len: Option<u64>,
}

impl Input {
    fn open(path: &Path) -> Result<Self, Failure> {
        if path == Path::new("-") {
            return Ok(Self { reader: Box::new(io::stdin()), len: None });
        }
        let unreadable = |error: io::Error| {
            Failure::new(format!("{} cannot be read: {error}", path.display()), "kms encrypt --help")
        };
        let file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if metadata.is_dir() {
            return Err(unreadable(io::Error::from(io::ErrorKind::IsADirectory)));
        }
        let len = metadata.is_file().then_some(metadata.len());
        Ok(Self { reader: Box::new(file), len })
    }

    fn with_progress(self) -> Box<dyn Read + Send> {
        let Some(len) = self.len.filter(|len| *len > PROGRESS_LEN_MIN && io::stderr().is_terminal()) else {
            return self.reader;
        };
        let style =
            ProgressStyle::with_template("{bytes} of {total_bytes} {wide_bar} {binary_bytes_per_sec} {eta}")
                .expect("the template is a constant with known fields");
        Box::new(ProgressBar::new(len).with_style(style).wrap_read(self.reader))
    }
}

enum Destination {
    Standard,
    File(PendingFile, File),
}

impl Destination {
    fn open(path: &Path, readers: Readers) -> Result<Self, Failure> {
        if path == Path::new("-") {
            return Ok(Destination::Standard);
        }
        let (pending, file) = PendingFile::create(path, readers, Existing::Replaced)?;
        Ok(Destination::File(pending, file))
    }

    fn is_standard(&self) -> bool {
        matches!(self, Destination::Standard)
    }

    /// Runs the work on a thread of its own and keeps the result only when it succeeds.
    ///
    /// A signal removes the unfinished file: it may hold plaintext.
    async fn run(
        self,
        work: impl FnOnce(&mut dyn Write) -> Result<u64, FileError> + Send + 'static,
    ) -> Result<u64, Failure> {
        let signals = |kind| {
            signal(kind)
                .map_err(|error| Failure::new(format!("signals cannot be caught: {error}"), "kms help"))
        };
        let mut interrupt = signals(SignalKind::interrupt())?;
        let mut terminate = signals(SignalKind::terminate())?;
        let mut hang_up = signals(SignalKind::hangup())?;
        let (pending, file) = match self {
            Destination::Standard => (None, None),
            Destination::File(pending, file) => (Some(pending), Some(file)),
        };
        let task = tokio::task::spawn_blocking(move || match file {
            None => work(&mut io::stdout().lock()).map(|len| (len, None)),
            Some(mut file) => work(&mut file).map(|len| (len, Some(file))),
        });
        let done = tokio::select! {
            done = task => done,
            _ = interrupt.recv() => interrupted(pending),
            _ = terminate.recv() => interrupted(pending),
            _ = hang_up.recv() => interrupted(pending),
        };
        let (len, file) =
            done.map_err(|error| Failure::new(format!("the work stopped: {error}"), "kms help"))??;
        if let (Some(pending), Some(file)) = (pending, file) {
            pending.finish(file)?;
        }
        Ok(len)
    }
}

/// The thread at work may be blocked in a read, so the process ends here and now.
fn interrupted(pending: Option<PendingFile>) -> ! {
    drop(pending);
    std::process::exit(i32::from(EXIT_INTERRUPTED))
}

pub async fn encrypt(session: &Session, arguments: EncryptArguments) -> Result<(), Failure> {
    let (reference, context) = (key_reference(&arguments.key)?, context(arguments.context.pairs)?);
    let input = Input::open(&arguments.source)?;
    let destination = Destination::open(&arguments.destination, Readers::Umask)?;
    let is_standard = destination.is_standard();
    let client = session.connect().await?;
    let new = client
        .new_file(&reference, context)
        .await
        .map_err(|error| Failure::from(error).about_key(&arguments.key))?;
    let report =
        Report { key_id: new.key_id(), key_version: new.key_version(), algorithm: new.header().algorithm() };
    let len = destination.run(move |mut output| new.seal(input.with_progress(), &mut output)).await?;
    report.print(session, "encrypted", len, is_standard)
}

pub async fn decrypt(session: &Session, arguments: DecryptArguments) -> Result<(), Failure> {
    let expected = expected_key(arguments.expected_key.as_deref())?;
    let given = context(arguments.context.pairs)?;
    let mut input = Input::open(&arguments.source)?;
    let header = FileHeader::read(&mut input.reader)?;
    if !given.is_empty() && given != *header.context() {
        let message =
            format!("the file was encrypted with another context: {}", describe_context(header.context()));
        return Err(Failure::with_reason(Reason::CiphertextInvalid, message, "kms decrypt --help"));
    }
    let destination = Destination::open(&arguments.destination, Readers::Owner)?;
    let is_standard = destination.is_standard();
    let client = session.connect().await?;
    let opened = client
        .open_file(&header, expected.as_ref())
        .await
        .map_err(|error| Failure::from(error).about_key(&named_key(header.wrapped_data_key())))?;
    let report =
        Report { key_id: opened.key_id, key_version: opened.key_version, algorithm: header.algorithm() };
    let len = destination
        .run(move |mut output| file::open(&header, &opened.plaintext, input.with_progress(), &mut output))
        .await?;
    report.print(session, "decrypted", len, is_standard)
}

fn describe_context(context: &EncryptionContext) -> String {
    if context.is_empty() {
        return "an empty one".into();
    }
    let pairs: Vec<String> = context.pairs().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(", ")
}

struct Report {
    key_id: KeyId,
    key_version: KeyVersion,
    algorithm: AeadAlgorithm,
}

impl Report {
    /// Nothing is printed when the data itself goes to the standard output.
    fn print(&self, session: &Session, what: &str, len: u64, is_standard: bool) -> Result<(), Failure> {
        if is_standard {
            return Ok(());
        }
        let text = || {
            let Report { key_id, key_version, algorithm } = self;
            format!(
                "{what} {} ({}) with key {key_id}, version {key_version}\n",
                HumanBytes(len),
                algorithm.name()
            )
        };
        session.output.show(text, || {
            json!({
                "key_id": self.key_id.to_string(),
                "key_version": self.key_version.number(),
                "spec": self.algorithm.name(),
                "plaintext_bytes": len,
            })
        })
    }
}
