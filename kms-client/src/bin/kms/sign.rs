//! `kms sign`, `kms verify` and `kms key public-key`.

use crate::args::{SignArguments, SigningArguments, VerifyArguments};
use crate::data_key::new_file;
use crate::mac::read;
use crate::output::{Failure, base64, from_base64};
use crate::pending::Readers;
use crate::{Session, key_reference};
use kms_client::{SignOptions, SignatureAlgorithm, SignedInput};
use kms_core::mac::MESSAGE_LEN_MAX;
use serde_json::json;
use zeroize::Zeroizing;

/// Longest signature that is read, in bytes: of RSA with 4096 bits.
const SIGNATURE_LEN_MAX: usize = 512;
const SIGN: &str = "kms sign --help";
const VERIFY: &str = "kms verify --help";

/// The options and the bytes of a call.
fn options(arguments: &SigningArguments, next: &str) -> Result<(SignOptions, Zeroizing<Vec<u8>>), Failure> {
    let user_id = arguments.user_id.as_ref().map(|text| text.as_bytes().to_vec());
    if user_id.as_ref().is_some_and(Vec::is_empty) {
        return Err(Failure::field("user_id", "must not be empty", next));
    }
    let input = read("input", &arguments.source, MESSAGE_LEN_MAX, next)?;
    Ok((SignOptions { algorithm: arguments.algorithm, user_id }, input))
}

fn signed<'a>(arguments: &SigningArguments, input: &'a [u8]) -> SignedInput<'a> {
    if arguments.digest { SignedInput::Digest(input) } else { SignedInput::Message(input) }
}

pub async fn sign(session: &Session, arguments: SignArguments) -> Result<(), Failure> {
    let SignArguments { signing, out } = arguments;
    let reference = key_reference(&signing.key)?;
    let (options, input) = options(&signing, SIGN)?;
    let file = new_file(out.as_deref(), Readers::Umask)?;
    let client = session.connect().await?;
    let made = client
        .sign(&reference, signed(&signing, &input), &options)
        .await
        .map_err(|error| Failure::from(error).about_key(&signing.key))?;
    let mut lines = vec![
        ("key_id", Zeroizing::new(made.key_id.to_string())),
        ("key_version", Zeroizing::new(made.key_version.to_string())),
        ("algorithm", Zeroizing::new(made.algorithm.to_string())),
    ];
    match file {
        Some((pending, file)) => pending.write(file, &made.bytes)?,
        None => lines.push(("signature", base64(&made.bytes))),
    }
    session.output.show_secret(&lines)
}

pub async fn verify(session: &Session, arguments: VerifyArguments) -> Result<(), Failure> {
    let VerifyArguments { signing, signature, signature_file } = arguments;
    let reference = key_reference(&signing.key)?;
    let signature = match (signature, signature_file) {
        (Some(text), _) => {
            from_base64(&text).ok_or_else(|| Failure::field("signature", "is not base64", VERIFY))?
        }
        (None, Some(path)) => read("signature", &path, SIGNATURE_LEN_MAX, VERIFY)?,
        (None, None) => unreachable!("the command line asks for one of the two"),
    };
    let (options, input) = options(&signing, VERIFY)?;
    let client = session.connect().await?;
    let verified = client
        .verify(&reference, signed(&signing, &input), &options, &signature)
        .await
        .map_err(|error| Failure::from(error).about_key(&signing.key))?;
    let (key_id, version, algorithm) =
        (verified.key_id.to_string(), verified.key_version, verified.algorithm);
    session.output.show(
        || format!("the signature is right: made with key {key_id}, version {version}, {algorithm}\n"),
        || json!({ "key_id": key_id, "key_version": version.number(), "algorithm": algorithm.name() }),
    )
}

pub async fn public_key(session: &Session, key: &str) -> Result<(), Failure> {
    let reference = key_reference(key)?;
    let found = session.connect().await?.public_key(&reference).await;
    let found = found.map_err(|error| Failure::from(error).about_key(key))?;
    let pem =
        pem_rfc7468::encode_string("PUBLIC KEY", pem_rfc7468::LineEnding::LF, &found.public_key.to_spki())
            .map_err(|error| {
                Failure::new(format!("the public key cannot be written: {error}"), "kms key show KEY")
            })?;
    let algorithms: Vec<&str> =
        SignatureAlgorithm::of(found.public_key.algorithm()).map(SignatureAlgorithm::name).collect();
    session.output.show(
        || pem.clone(),
        || {
            json!({
                "key_id": found.key_id.to_string(),
                "key_version": found.key_version.number(),
                "spec": found.spec.name(),
                "algorithms": algorithms,
                "public_key": pem,
            })
        },
    )
}
