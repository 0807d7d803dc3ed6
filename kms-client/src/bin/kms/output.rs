//! What the commands print, and how they fail.

use crate::args::OutputFormat;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use kms_client::audit::{ExportError, ExportStopped, ProofFault};
use kms_client::file::FileError;
use kms_client::{BundleFileError, ClientError, ProfileError};
use kms_core::reason::Reason;
use serde_json::{Value, json};
use std::error::Error;
use std::io::{self, Write};
use zeroize::Zeroizing;

/// Exit code of a sealed service.
pub const EXIT_SEALED: u8 = 2;
/// Exit code of bytes that are damaged, forged or not the expected ones.
pub const EXIT_INTEGRITY: u8 = 4;
/// Exit code of a command line that is not understood.
pub const EXIT_USAGE: u8 = 64;

/// Why a command ended without doing its work, as it is printed.
#[derive(Debug)]
pub struct Failure {
    pub message: String,
    pub field: Option<String>,
    pub reason: Option<Reason>,
    pub next: String,
    pub exit: u8,
}

impl Failure {
    pub fn new(message: impl Into<String>, next: impl Into<String>) -> Self {
        Self { message: message.into(), field: None, reason: None, next: next.into(), exit: 1 }
    }

    pub fn with_reason(reason: Reason, message: impl Into<String>, next: impl Into<String>) -> Self {
        Self { reason: Some(reason), exit: reason.exit_code(), ..Self::new(message, next) }
    }

    /// A value of the command line that the service would refuse; found without asking it.
    pub fn field(field: &str, problem: impl std::fmt::Display, next: impl Into<String>) -> Self {
        let mut failure = Self::with_reason(Reason::FieldInvalid, format!("{field} {problem}"), next);
        failure.field = Some(field.to_owned());
        failure
    }

    /// Names the key that the user named in the next command.
    pub fn about_key(mut self, key: &str) -> Self {
        self.next = self.next.replace("KEY", key);
        self
    }

    pub fn exit(mut self, exit: u8) -> Self {
        self.exit = exit;
        self
    }

    /// Prints to the standard error.
    pub fn print(&self, format: OutputFormat) {
        let text = match format {
            OutputFormat::Table => {
                let mut text = format!("error: {}\n", clean(&self.message));
                if let Some(field) = &self.field {
                    text.push_str(&format!("field: {}\n", clean(field)));
                }
                if let Some(reason) = self.reason {
                    text.push_str(&format!("reason: {}\n", reason.name()));
                }
                text.push_str(&format!("next: {}\n", clean(&self.next)));
                text
            }
            OutputFormat::Json => {
                let value = json!({
                    "error": self.message,
                    "field": self.field,
                    "reason": self.reason.map(Reason::name),
                    "next": self.next,
                    "exit_code": self.exit,
                });
                format!("{value}\n")
            }
        };
        // With a closed standard error there is nobody left to tell.
        let _ = io::stderr().write_all(text.as_bytes());
    }
}

/// The error with its causes, once each.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let (message, next) = match &error {
            // Their sentences name the innermost cause already.
            ClientError::Unreachable { .. }
            | ClientError::ConnectionBroke { .. }
            | ClientError::NoNodeServed { .. } => (error.to_string(), error.next_step()),
            _ => (chain(&error), error.next_step()),
        };
        let mut failure = match error.reason() {
            Some(reason) => Failure::with_reason(reason, message, next),
            None => Failure::new(message, next),
        };
        failure.field = error.field().map(str::to_owned);
        match error {
            ClientError::DeadlinePassed { .. } => failure.exit(Reason::DeadlineExceeded.exit_code()),
            ClientError::NodeAmbiguous { .. } => failure.exit(EXIT_USAGE),
            _ => failure,
        }
    }
}

impl From<ProfileError> for Failure {
    fn from(error: ProfileError) -> Self {
        let failure = Failure::new(chain(&error), "kms --profile FILE status");
        match error {
            ProfileError::EndpointUnknown { .. } => failure.exit(EXIT_USAGE),
            _ => failure,
        }
    }
}

impl From<BundleFileError> for Failure {
    fn from(error: BundleFileError) -> Self {
        let failure = Failure::new(chain(&error), "kms audit verify --bundle FILE");
        match error {
            BundleFileError::Unreadable { .. } => failure,
            BundleFileError::Refused { .. } => failure.exit(EXIT_INTEGRITY),
        }
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Read(_) | FileError::Write(_) => Failure::new(chain(&error), "kms decrypt --help"),
            FileError::TooLong => {
                Failure::with_reason(Reason::FieldInvalid, error.to_string(), "kms encrypt --help")
            }
            _ => Failure::with_reason(Reason::CiphertextInvalid, chain(&error), "kms decrypt --help"),
        }
    }
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        let failure = Failure::new(chain(&error), "kms audit export OUT");
        match error {
            ExportError::Read(_) => failure,
            _ => failure.exit(EXIT_INTEGRITY),
        }
    }
}

impl From<ExportStopped> for Failure {
    fn from(error: ExportStopped) -> Self {
        match error {
            ExportStopped::Client(error) => error.into(),
            ExportStopped::Write(_) => Failure::new(chain(&error), "kms audit export --help"),
        }
    }
}

impl From<ProofFault> for Failure {
    fn from(fault: ProofFault) -> Self {
        Failure::new(fault.to_string(), "kms audit verify --bundle FILE").exit(EXIT_INTEGRITY)
    }
}

/// Text for a terminal: what others wrote may hold no control characters there.
pub fn clean(text: &str) -> String {
    text.chars()
        .flat_map(|character| match character.is_control() {
            true => character.escape_default().collect::<Vec<_>>(),
            false => vec![character],
        })
        .collect()
}

/// Base64 of bytes that may be secret, in constant time. The armour's own encoder does it: without its
/// first and last line, a PEM block is the base64 text.
pub fn base64(bytes: &[u8]) -> Zeroizing<String> {
    let armour = pem_rfc7468::encode_string("BYTES", pem_rfc7468::LineEnding::LF, bytes)
        .expect("the label is valid and memory suffices for a data key");
    let armour = Zeroizing::new(armour);
    let mut text = Zeroizing::new(String::with_capacity(armour.len()));
    armour.lines().filter(|line| !line.starts_with("-----")).for_each(|line| text.push_str(line));
    text
}

/// Reads what [`base64`] gives, in constant time; `None` for anything else.
pub fn from_base64(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut armour = Zeroizing::new(String::with_capacity(text.len() + text.len() / 64 + 64));
    armour.push_str("-----BEGIN BYTES-----\n");
    for (position, character) in text.chars().enumerate() {
        if position > 0 && position % 64 == 0 {
            armour.push('\n');
        }
        // A line end would be taken for the armour's own.
        armour.push(if character.is_whitespace() { '?' } else { character });
    }
    armour.push_str("\n-----END BYTES-----\n");
    pem_rfc7468::decode_vec(armour.as_bytes()).ok().map(|(_, bytes)| Zeroizing::new(bytes))
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(bytes)
}

/// Two columns: names and values.
pub fn fields(rows: &[(&str, String)]) -> String {
    let mut table = plain_table(2);
    for (name, value) in rows {
        table.add_row([*name, &clean(value)]);
    }
    finish(table)
}

/// A table with a header.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = plain_table(header.len());
    table.set_header(header.iter().copied());
    for row in rows {
        table.add_row(row.iter().map(|cell| clean(cell)));
    }
    finish(table)
}

fn plain_table(column_count: usize) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(vec![""; column_count]);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

fn finish(table: Table) -> String {
    let mut text = String::new();
    for line in table.lines().map(|line| line.trim_end().to_owned()).filter(|line| !line.is_empty()) {
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// The standard output of a command.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    pub format: OutputFormat,
}

impl Output {
    /// Prints the text for people or the value for programs.
    /// Prints names and values, of which some are secret. The lines are put together by hand so that a secret goes
    /// through one buffer, which is wiped. Every value is a number, base64, or a name without characters that JSON escapes.
    pub fn show_secret(self, lines: &[(&str, Zeroizing<String>)]) -> Result<(), Failure> {
        let len: usize = lines.iter().map(|(name, value)| name.len() + value.len() + 16).sum();
        let mut text = Zeroizing::new(String::with_capacity(len + 16));
        match self.format {
            OutputFormat::Table => {
                for (name, value) in lines {
                    text.push_str(&format!("{:<12} ", name.replace('_', " ")));
                    text.push_str(value);
                    text.push('\n');
                }
            }
            OutputFormat::Json => {
                text.push('{');
                for (position, (name, value)) in lines.iter().enumerate() {
                    let quote = if matches!(*name, "key_version" | "bytes") { "" } else { "\"" };
                    let comma = if position == 0 { "" } else { "," };
                    for part in [comma, "\"", name, "\":", quote, value, quote] {
                        text.push_str(part);
                    }
                }
                text.push_str("}\n");
            }
        }
        write_out(&text)
    }

    pub fn show(self, text: impl FnOnce() -> String, value: impl FnOnce() -> Value) -> Result<(), Failure> {
        match self.format {
            OutputFormat::Table => write_out(&text()),
            OutputFormat::Json => write_out(&format!("{}\n", value())),
        }
    }
}

/// Writes to the standard output. A reader that has gone away (`| head`) is no failure of the command.
pub fn write_out(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            Err(Failure::new("", "").exit(EXIT_READER_GONE))
        }
        Err(error) => Err(Failure::new(format!("the output cannot be written: {error}"), "kms help")),
        Ok(()) => Ok(()),
    }
}

/// Marks that the reader of the output has gone away: the command ends quietly and well.
pub const EXIT_READER_GONE: u8 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_one_line_whatever_the_length() {
        assert_eq!(*base64(b"any carnal pleas"), "YW55IGNhcm5hbCBwbGVhcw==");
        assert_eq!(*base64(b""), "");
        let long = base64(&[0xff; 100]);
        assert_eq!((long.len(), long.contains('\n')), (136, false));
        for len in 1..200 {
            let bytes = vec![len as u8; len];
            assert_eq!(from_base64(&base64(&bytes)).as_deref(), Some(&bytes), "{len} bytes");
        }
        for wrong in ["YW55IGN", "YW55 IGN", "YW55\nIGNh", "YW55IGNh\n", "=", "-----", "YW5ü"] {
            assert_eq!(from_base64(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_control_character_of_somebody_else_does_not_reach_the_terminal() {
        assert_eq!(clean("a\u{1b}[2Jb\n密"), "a\\u{1b}[2Jb\\n密");
    }

    #[test]
    fn tables_have_aligned_columns_and_no_trailing_blanks() {
        let shown = table(
            &["NAME", "SPEC"],
            &[vec!["payroll".into(), "sm4".into()], vec!["a".into(), "aes-256".into()]],
        );
        assert_eq!(shown, "NAME     SPEC\npayroll  sm4\na        aes-256\n");
        assert_eq!(fields(&[("name", "x".into()), ("revision", "1".into())]), "name      x\nrevision  1\n");
    }
}
