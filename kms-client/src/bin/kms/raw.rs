//! `kms raw-encrypt` and `kms raw-decrypt`.

use crate::args::{AssociatedDataArguments, RawDecryptArguments, RawEncryptArguments};
use crate::data_key::new_file;
use crate::mac::read;
use crate::output::{Failure, base64, from_base64};
use crate::pending::Readers;
use crate::{Session, key_reference};
use kms_client::RawDecrypt;
use kms_core::raw::{ASSOCIATED_DATA_LEN_MAX, CIPHERTEXT_LEN_MAX, PLAINTEXT_LEN_MAX};
use kms_core::reason::Reason;
use std::path::Path;
use zeroize::Zeroizing;

const ENCRYPT: &str = "kms raw-encrypt --help";
const DECRYPT: &str = "kms raw-decrypt --help";
/// Longest initialization vector and longest tag that there are, in bytes.
const SMALL_LEN_MAX: usize = 32;

pub async fn encrypt(session: &Session, arguments: RawEncryptArguments) -> Result<(), Failure> {
    let RawEncryptArguments { key, associated_data, source, out } = arguments;
    let reference = key_reference(&key)?;
    let associated_data = authenticated(associated_data, ENCRYPT)?;
    let plaintext = read("plaintext", &source, PLAINTEXT_LEN_MAX, ENCRYPT)?;
    // Opened before the call: what cannot be kept is not asked for.
    let file = new_file(out.as_deref(), Readers::Umask)?;
    let made = session.connect().await?.raw_encrypt(&reference, &plaintext, &associated_data).await;
    let made = made.map_err(|error| Failure::from(error).about_key(&key))?;
    let mut lines = vec![
        ("key_id", Zeroizing::new(made.key_id.to_string())),
        ("key_version", Zeroizing::new(made.key_version.to_string())),
        ("iv", base64(&made.initialization_vector)),
        ("tag", base64(&made.tag)),
    ];
    match file {
        Some((pending, file)) => pending.write(file, &made.ciphertext)?,
        None => lines.push(("ciphertext", base64(&made.ciphertext))),
    }
    session.output.show_secret(&lines)
}

pub async fn decrypt(session: &Session, arguments: RawDecryptArguments) -> Result<(), Failure> {
    let RawDecryptArguments {
        key,
        iv,
        iv_file,
        tag,
        tag_file,
        associated_data,
        padding,
        source,
        out_plaintext,
    } = arguments;
    let reference = key_reference(&key)?;
    let iv = small("initialization_vector", iv, iv_file.as_deref())?;
    let tag = small("tag", tag, tag_file.as_deref())?;
    let associated_data = authenticated(associated_data, DECRYPT)?;
    let ciphertext = read("ciphertext", &source, CIPHERTEXT_LEN_MAX, DECRYPT)?;
    let file = new_file(out_plaintext.as_deref(), Readers::Owner)?;
    let asked = RawDecrypt {
        ciphertext: &ciphertext,
        initialization_vector: &iv,
        tag: &tag,
        additional_authenticated_data: &associated_data,
        padding: padding.into(),
    };
    let opened = session.connect().await?.raw_decrypt(&reference, &asked).await;
    let opened = opened.map_err(|error| not_opened(Failure::from(error).about_key(&key)))?;
    let mut lines = vec![
        ("key_id", Zeroizing::new(opened.key_id.to_string())),
        ("key_version", Zeroizing::new(opened.key_version.to_string())),
    ];
    match file {
        Some((pending, file)) => pending.write(file, opened.bytes.expose())?,
        None => lines.push(("plaintext", base64(opened.bytes.expose()))),
    }
    session.output.show_secret(&lines)
}

/// A refusal whose next step, elsewhere, is about ciphertexts of the service and about new keys.
fn not_opened(mut failure: Failure) -> Failure {
    if matches!(failure.reason, Some(Reason::CiphertextInvalid | Reason::SpecNotAllowed)) {
        failure.next = DECRYPT.into();
    }
    failure
}

fn authenticated(given: AssociatedDataArguments, next: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    match (given.aad, given.aad_file) {
        (_, Some(path)) => read("additional_authenticated_data", &path, ASSOCIATED_DATA_LEN_MAX, next),
        (text, None) => Ok(Zeroizing::new(text.unwrap_or_default().into_bytes())),
    }
}

/// A few bytes in base64 or from a file; none when neither is given.
fn small(field: &str, text: Option<String>, path: Option<&Path>) -> Result<Zeroizing<Vec<u8>>, Failure> {
    match (text, path) {
        (Some(text), _) => from_base64(&text).ok_or_else(|| Failure::field(field, "is not base64", DECRYPT)),
        (None, Some(path)) => read(field, path, SMALL_LEN_MAX, DECRYPT),
        (None, None) => Ok(Zeroizing::default()),
    }
}
