//! `--recipient`: whom a secret is encrypted to.

use crate::args::RecipientArguments;
use crate::mac;
use crate::output::Failure;
use crate::pending::PendingFile;
use kms_client::{PairPublicKey, Recipient, RecipientAlgorithm, RecipientError};
use std::fs::File;

/// Longest file with a public key, in bytes: of RSA with 4096 bits in PEM, and text around it.
const PUBLIC_KEY_LEN_MAX: usize = 16 * 1024;

/// The recipient, where one is named. What the service would refuse is found here.
pub fn read(arguments: &RecipientArguments, next: &str) -> Result<Option<Recipient>, Failure> {
    const PUBLIC_KEY: &str = "recipient.public_key";
    let Some(path) = &arguments.recipient else { return Ok(None) };
    let bytes = mac::read(PUBLIC_KEY, path, PUBLIC_KEY_LEN_MAX, next)?;
    let refused = |problem: String| Failure::field(PUBLIC_KEY, problem, next);
    let der = match pem_rfc7468::decode_vec(&bytes) {
        Ok(("PUBLIC KEY", der)) => der,
        Ok((label, _)) => {
            return Err(refused(format!("is a PEM block {label:?}; PUBLIC KEY is expected")));
        }
        Err(_) => bytes.to_vec(),
    };
    let key = PairPublicKey::from_spki(&der).map_err(|error| refused(format!("is {error}")))?;
    let pair = key.algorithm();
    let algorithm = arguments
        .recipient_algorithm
        .or_else(|| RecipientAlgorithm::of(pair))
        .ok_or_else(|| refused(format!("does not fit: {}", RecipientError::NoPair { pair })))?;
    Recipient::new(algorithm, key)
        .map(Some)
        .map_err(|error| Failure::field("recipient.algorithm", format!("does not fit: {error}"), next))
}

/// Writes what the recipient opens to its file, or hands it on to be printed.
pub fn keep_or_show(
    ciphertext: Option<Vec<u8>>,
    file: Option<(PendingFile, File)>,
) -> Result<Option<Vec<u8>>, Failure> {
    match (ciphertext, file) {
        (Some(ciphertext), Some((pending, file))) => {
            pending.write(file, &ciphertext)?;
            Ok(None)
        }
        (ciphertext, _) => Ok(ciphertext),
    }
}
