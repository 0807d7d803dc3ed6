//! `kms reencrypt`.

use crate::args::ReencryptArguments;
use crate::data_key::read_ciphertext;
use crate::output::Failure;
use crate::pending::{Existing, PendingFile, Readers};
use crate::{Session, context, expected_key, key_reference, named_key};
use kms_client::ReEncrypt;
use kms_core::reason::Reason;
use serde_json::json;
use std::io::{self, Write};
use std::path::Path;

const NEXT: &str = "kms reencrypt --help";
/// How files of `kms encrypt` begin (docs/formats/file.md).
const FILE_MAGIC: &[u8] = b"KMSFILE";

pub async fn run(session: &Session, arguments: ReencryptArguments) -> Result<(), Failure> {
    let new_key = arguments.key.as_deref().map(key_reference).transpose()?;
    let expected = expected_key(arguments.expected_key.as_deref())?;
    let old_context = context(arguments.pairs)?;
    let new_context = match (arguments.new_pairs, arguments.without_new_context) {
        (pairs, false) if pairs.is_empty() => old_context.clone(),
        (pairs, _) => context(pairs)?,
    };
    let ciphertext = read_ciphertext(&arguments.source, NEXT)?;
    if ciphertext.starts_with(FILE_MAGIC) {
        let message = "the input is a file of `kms encrypt`, every chunk of which depends on its encrypted data key: \
                       decrypt it and encrypt it again";
        return Err(Failure::with_reason(Reason::CiphertextInvalid, message, "kms decrypt --help"));
    }
    let is_standard = arguments.destination == Path::new("-");
    let file = match is_standard {
        true => None,
        false => Some(PendingFile::create(&arguments.destination, Readers::Umask, Existing::Replaced)?),
    };
    let client = session.connect().await?;
    let request = ReEncrypt {
        ciphertext: &ciphertext,
        context: &old_context,
        expected_key: expected.as_ref(),
        new_key: new_key.as_ref(),
        new_context: &new_context,
    };
    let made = client.reencrypt(&request).await.map_err(|error| {
        // Of the two keys, the one that the refusal is about.
        let named = match (error.field(), &arguments.key) {
            (Some("new_key"), Some(key)) => key.clone(),
            _ => named_key(&ciphertext),
        };
        Failure::from(error).about_key(&named)
    })?;
    let bytes = &made.ciphertext.bytes;
    let Some((pending, file)) = file else {
        let written = io::stdout().lock().write_all(bytes).and_then(|()| io::stdout().lock().flush());
        return written.map_err(|error| Failure::new(format!("the output cannot be written: {error}"), NEXT));
    };
    pending.write(file, bytes)?;
    let (key_id, version) = (made.ciphertext.key_id.to_string(), made.ciphertext.key_version);
    let (old_key_id, old_version) = (made.old_key_id.to_string(), made.old_key_version);
    session.output.show(
        || {
            format!(
                "encrypted again with key {key_id}, version {version}; it was under key {old_key_id}, version {old_version}\n"
            )
        },
        || {
            json!({
                "key_id": key_id,
                "key_version": version.number(),
                "old_key_id": old_key_id,
                "old_key_version": old_version.number(),
            })
        },
    )
}
