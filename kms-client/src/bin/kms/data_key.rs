//! `kms data-key`.

use crate::args::DataKeyCommand;
use crate::output::{Failure, Output, base64};
use crate::pending::{Existing, PendingFile, Readers};
use crate::{Session, context, expected_key, key_reference, named_key, recipient, registered};
use kms_core::id::{KeyId, KeyVersion};
use kms_core::secret::Secret;
use kms_core::suite::AeadAlgorithm;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use zeroize::Zeroizing;

/// Longest ciphertext of the service, in bytes (docs/formats/ciphertext.md).
const CIPHERTEXT_LEN_MAX: u64 = 65_645;

pub async fn run(session: &Session, command: DataKeyCommand) -> Result<(), Failure> {
    match command {
        DataKeyCommand::Generate {
            key,
            spec,
            context: pairs,
            recipient,
            without_plaintext,
            out_ciphertext,
            out_plaintext,
        } => {
            let (reference, context) = (key_reference(&key)?, context(pairs.pairs)?);
            let to = recipient::read(&recipient, "kms data-key generate --help")?;
            // All files are opened before the call: a key that cannot be kept is not asked for.
            let recipient_file = new_file(recipient.out_recipient.as_deref(), Readers::Umask)?;
            let ciphertext_file = new_file(out_ciphertext.as_deref(), Readers::Umask)?;
            let plaintext_file = new_file(out_plaintext.as_deref(), Readers::Owner)?;
            let client = session.connect().await?;
            let about_key = |error| Failure::from(error).about_key(&key);
            let (plaintext, for_recipient, wrapped) = if let Some(to) = &to {
                let made = client.generate_data_key_for(to, &reference, spec, &context).await;
                let made = made.map_err(about_key)?;
                (None, Some(made.recipient_ciphertext), made.wrapped)
            } else if without_plaintext {
                let made = client.generate_wrapped_data_key(&reference, spec, &context).await;
                (None, None, made.map_err(about_key)?)
            } else {
                let made = client.generate_data_key(&reference, spec, &context).await.map_err(about_key)?;
                (Some(made.plaintext), None, made.wrapped)
            };
            if let Some((pending, file)) = ciphertext_file {
                pending.write(file, &wrapped.ciphertext)?;
            }
            let shown = Shown {
                key_id: wrapped.key_id,
                key_version: wrapped.key_version,
                spec: wrapped.spec,
                plaintext: keep_or_show(plaintext, plaintext_file)?,
                ciphertext: out_ciphertext.is_none().then_some(wrapped.ciphertext),
                for_recipient: recipient::keep_or_show(for_recipient, recipient_file)?,
            };
            shown.print(session.output)
        }
        DataKeyCommand::Decrypt {
            input,
            context: pairs,
            expected_key: expected,
            recipient,
            out_plaintext,
        } => {
            let (context, expected) = (context(pairs.pairs)?, expected_key(expected.as_deref())?);
            let to = recipient::read(&recipient, "kms data-key decrypt --help")?;
            let ciphertext = read_ciphertext(&input, "kms data-key decrypt --help")?;
            let recipient_file = new_file(recipient.out_recipient.as_deref(), Readers::Umask)?;
            let plaintext_file = new_file(out_plaintext.as_deref(), Readers::Owner)?;
            let client = session.connect().await?;
            let about_key = |error| Failure::from(error).about_key(&named_key(&ciphertext));
            if let Some(to) = &to {
                let opened = client.decrypt_data_key_for(to, &ciphertext, &context, expected.as_ref()).await;
                let opened = opened.map_err(about_key)?;
                let shown = Shown {
                    key_id: opened.key_id,
                    key_version: opened.key_version,
                    spec: opened.spec,
                    plaintext: None,
                    ciphertext: None,
                    for_recipient: recipient::keep_or_show(
                        Some(opened.recipient_ciphertext),
                        recipient_file,
                    )?,
                };
                return shown.print(session.output);
            }
            let opened = client.decrypt_data_key(&ciphertext, &context, expected.as_ref()).await;
            let opened = opened.map_err(about_key)?;
            let shown = Shown {
                key_id: opened.key_id,
                key_version: opened.key_version,
                spec: opened.spec,
                plaintext: keep_or_show(Some(opened.plaintext), plaintext_file)?,
                ciphertext: None,
                for_recipient: None,
            };
            shown.print(session.output)
        }
        DataKeyCommand::Registered(command) => registered::run(session, command).await,
    }
}

pub fn new_file(path: Option<&Path>, readers: Readers) -> Result<Option<(PendingFile, File)>, Failure> {
    path.map(|path| PendingFile::create(path, readers, Existing::Kept)).transpose()
}

/// Writes the data key to its file, or hands it on to be printed.
pub fn keep_or_show(
    plaintext: Option<Secret>,
    file: Option<(PendingFile, File)>,
) -> Result<Option<Secret>, Failure> {
    match (plaintext, file) {
        (Some(plaintext), Some((pending, file))) => {
            pending.write(file, plaintext.expose())?;
            Ok(None)
        }
        (plaintext, _) => Ok(plaintext),
    }
}

/// All of a file, or as much of it that the service names a length that is too long.
pub fn read_ciphertext(path: &Path, next: &str) -> Result<Vec<u8>, Failure> {
    let unreadable =
        |error: io::Error| Failure::new(format!("{} cannot be read: {error}", path.display()), next);
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        io::stdin().lock().take(CIPHERTEXT_LEN_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    } else {
        let file = File::open(path).map_err(unreadable)?;
        file.take(CIPHERTEXT_LEN_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    }
    Ok(bytes)
}

struct Shown {
    key_id: KeyId,
    key_version: KeyVersion,
    spec: AeadAlgorithm,
    plaintext: Option<Secret>,
    ciphertext: Option<Vec<u8>>,
    for_recipient: Option<Vec<u8>>,
}

impl Shown {
    fn print(self, output: Output) -> Result<(), Failure> {
        let mut lines = vec![
            ("key_id", Zeroizing::new(self.key_id.to_string())),
            ("key_version", Zeroizing::new(self.key_version.to_string())),
            ("spec", Zeroizing::new(self.spec.name().to_owned())),
        ];
        lines.extend(self.plaintext.map(|plaintext| ("plaintext", base64(plaintext.expose()))));
        lines.extend(self.ciphertext.map(|ciphertext| ("ciphertext", base64(&ciphertext))));
        lines.extend(self.for_recipient.map(|bytes| ("recipient_ciphertext", base64(&bytes))));
        output.show_secret(&lines)
    }
}
