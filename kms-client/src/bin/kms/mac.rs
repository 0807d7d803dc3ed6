//! `kms mac` and `kms random`.

use crate::args::{MacCommand, RandomArguments};
use crate::data_key::new_file;
use crate::output::{Failure, base64, from_base64};
use crate::pending::Readers;
use crate::{Session, key_reference};
use kms_core::mac::MESSAGE_LEN_MAX;
use serde_json::json;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use zeroize::Zeroizing;

/// Longest MAC that there is, in bytes.
const MAC_LEN_MAX: usize = 64;
const NEXT: &str = "kms mac --help";

pub async fn run(session: &Session, command: MacCommand) -> Result<(), Failure> {
    match command {
        MacCommand::Generate { key, source, out_mac } => {
            let reference = key_reference(&key)?;
            let message = read("message", &source, MESSAGE_LEN_MAX, NEXT)?;
            // Opened before the call, as data keys' files are.
            let file = new_file(out_mac.as_deref(), Readers::Owner)?;
            let client = session.connect().await?;
            let made = client
                .generate_mac(&reference, &message)
                .await
                .map_err(|error| Failure::from(error).about_key(&key))?;
            let mut lines = vec![
                ("key_id", Zeroizing::new(made.key_id.to_string())),
                ("key_version", Zeroizing::new(made.key_version.to_string())),
            ];
            match file {
                Some((pending, file)) => pending.write(file, made.bytes.expose())?,
                None => lines.push(("mac", base64(made.bytes.expose()))),
            }
            session.output.show_secret(&lines)
        }
        MacCommand::Verify { key, source, mac, mac_file } => {
            let reference = key_reference(&key)?;
            let mac = match (mac, mac_file) {
                (Some(text), _) => from_base64(&text)
                    .ok_or_else(|| Failure::field("mac", "is not base64", "kms mac verify --help"))?,
                (None, Some(path)) => read("mac", &path, MAC_LEN_MAX, NEXT)?,
                (None, None) => unreachable!("the command line asks for one of the two"),
            };
            let message = read("message", &source, MESSAGE_LEN_MAX, NEXT)?;
            let client = session.connect().await?;
            let verified = client
                .verify_mac(&reference, &message, &mac)
                .await
                .map_err(|error| Failure::from(error).about_key(&key))?;
            let (key_id, version) = (verified.key_id.to_string(), verified.key_version);
            session.output.show(
                || format!("the MAC is right: made with key {key_id}, version {version}\n"),
                || json!({ "key_id": key_id, "key_version": version.number() }),
            )
        }
    }
}

pub async fn random(session: &Session, arguments: RandomArguments) -> Result<(), Failure> {
    let file = new_file(arguments.out.as_deref(), Readers::Owner)?;
    let random = session.connect().await?.generate_random(arguments.byte_count).await?;
    let mut lines = vec![("bytes", Zeroizing::new(arguments.byte_count.to_string()))];
    match file {
        Some((pending, file)) => pending.write(file, random.expose())?,
        None => lines.push(("random", base64(random.expose()))),
    }
    session.output.show_secret(&lines)
}

/// All of a file, or as much of it that the refusal of the service names a length that is too long.
pub fn read(what: &str, path: &Path, len_max: usize, next: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let unreadable =
        |error: io::Error| Failure::new(format!("{} cannot be read: {error}", path.display()), next);
    let mut bytes = Zeroizing::new(Vec::with_capacity(len_max + 1));
    let limit = len_max as u64 + 1;
    if path == Path::new("-") {
        io::stdin().lock().take(limit).read_to_end(&mut bytes).map_err(unreadable)?;
    } else {
        File::open(path).map_err(unreadable)?.take(limit).read_to_end(&mut bytes).map_err(unreadable)?;
    }
    if bytes.len() > len_max {
        return Err(Failure::field(what, format!("is longer than {len_max} bytes"), next));
    }
    Ok(bytes)
}
