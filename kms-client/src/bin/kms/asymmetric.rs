//! `kms asymmetric`.

use crate::args::AsymmetricCommand;
use crate::data_key::new_file;
use crate::mac::read;
use crate::output::{Failure, base64};
use crate::pending::Readers;
use crate::{Session, key_reference};
use zeroize::Zeroizing;

/// Longest plaintext of any pair, in bytes: of SM2.
const PLAINTEXT_LEN_MAX: usize = 1024;
/// Longest ciphertext that is read, in bytes: SM2's of the longest plaintext has some 110 more.
const CIPHERTEXT_LEN_MAX: usize = 2048;
const ENCRYPT: &str = "kms asymmetric encrypt --help";
const DECRYPT: &str = "kms asymmetric decrypt --help";

pub async fn run(session: &Session, command: AsymmetricCommand) -> Result<(), Failure> {
    match command {
        AsymmetricCommand::Encrypt { key, source, out } => {
            let reference = key_reference(&key)?;
            let plaintext = read("plaintext", &source, PLAINTEXT_LEN_MAX, ENCRYPT)?;
            let file = new_file(out.as_deref(), Readers::Umask)?;
            let made = session.connect().await?.asymmetric_encrypt(&reference, &plaintext).await;
            let made = made.map_err(|error| Failure::from(error).about_key(&key))?;
            let mut lines = vec![
                ("key_id", Zeroizing::new(made.key_id.to_string())),
                ("key_version", Zeroizing::new(made.key_version.to_string())),
            ];
            match file {
                Some((pending, file)) => pending.write(file, &made.bytes)?,
                None => lines.push(("ciphertext", base64(&made.bytes))),
            }
            session.output.show_secret(&lines)
        }
        AsymmetricCommand::Decrypt { key, source, out_plaintext } => {
            let reference = key_reference(&key)?;
            let ciphertext = read("ciphertext", &source, CIPHERTEXT_LEN_MAX, DECRYPT)?;
            // Opened before the call, as data keys' files are.
            let file = new_file(out_plaintext.as_deref(), Readers::Owner)?;
            let opened = session.connect().await?.asymmetric_decrypt(&reference, &ciphertext).await;
            let opened = opened.map_err(|error| Failure::from(error).about_key(&key))?;
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
    }
}
