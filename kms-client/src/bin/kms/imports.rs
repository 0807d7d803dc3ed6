//! `kms key import-parameters` and `kms key import`.

use crate::Session;
use crate::data_key::new_file;
use crate::mac::read;
use crate::output::{Failure, fields};
use crate::pending::Readers;
use kms_client::audit::rfc3339;
use kms_client::{CreateKey, IdempotencyToken, ImportKey, Key};
use kms_core::id::KeyId;
use kms_core::import::WRAPPED_MATERIAL_LEN_MAX;
use kms_core::spec::KeySpec;
use kms_core::suite::CheckValue;
use serde_json::json;
use std::path::Path;
use std::time::Duration;

const PARAMETERS: &str = "kms key import-parameters --help";
const IMPORT: &str = "kms key import --help";

pub async fn parameters(
    session: &Session,
    wrapping_key: Option<KeySpec>,
    valid_seconds: Option<u32>,
    out: &Path,
) -> Result<(), Failure> {
    let file = new_file(Some(out), Readers::Umask)?;
    let valid = valid_seconds.map(|seconds| Duration::from_secs(seconds.into()));
    let made = session.connect().await?.import_parameters(wrapping_key, valid).await?;
    let pem =
        pem_rfc7468::encode_string("PUBLIC KEY", pem_rfc7468::LineEnding::LF, &made.public_key.to_spki())
            .map_err(|error| {
                Failure::new(format!("the public key cannot be written: {error}"), PARAMETERS)
            })?;
    if let Some((pending, file)) = file {
        pending.write(file, pem.as_bytes())?;
    }
    let (import_id, expires) = (made.import_id.to_string(), rfc3339(made.expires));
    session.output.show(
        || {
            fields(&[
                ("import id", import_id.clone()),
                ("wrapping", made.wrapping.to_string()),
                ("expires", expires.clone()),
            ])
        },
        || json!({ "import_id": import_id, "wrapping": made.wrapping.name(), "expires": expires }),
    )
}

pub async fn import(
    session: &Session,
    create: CreateKey,
    token: &IdempotencyToken,
    (import_id, source, check_value): (&str, &Path, Option<&str>),
) -> Result<Key, Failure> {
    let import_id = KeyId::parse(import_id)
        .map_err(|_| Failure::field("import_id", "is not one of `kms key import-parameters`", IMPORT))?;
    let check_value = check_value.map(parse_check_value).transpose()?;
    let wrapped_material = read("wrapped_material", source, WRAPPED_MATERIAL_LEN_MAX, IMPORT)?.to_vec();
    let import = ImportKey { import_id, create, wrapped_material, check_value };
    Ok(session.connect().await?.import_key(&import, token).await?)
}

fn parse_check_value(text: &str) -> Result<CheckValue, Failure> {
    let digits = text.as_bytes();
    let byte = |place: usize| u8::from_str_radix(text.get(place..place + 2)?, 16).ok();
    match (digits.len(), digits.iter().all(u8::is_ascii_hexdigit)) {
        (6, true) => {
            let value = [byte(0), byte(2), byte(4)].map(Option::unwrap_or_default);
            Ok(CheckValue(value))
        }
        _ => Err(Failure::field("check_value", "must be 6 hexadecimal digits", IMPORT)),
    }
}
