//! `kms key usage`, `kms key certificates` and `kms key verify-certificate`.

use crate::output::{EXIT_INTEGRITY, Failure, fields, hex, table};
use crate::{Session, key_reference};
use kms_client::audit::rfc3339;
use kms_client::{KeyDestruction, load_bundle};
use kms_core::codec;
use kms_core::destruction::{DestroyedVersion, DestructionCertificate, DestructionMethod, SignedDestruction};
use kms_core::key::KeyState;
use serde_json::{Value, json};
use std::fs;
use std::io::{self, Read};
use std::path::Path;

/// Longest certificate that is read, in bytes.
const CERTIFICATE_LEN_MAX: u64 = 16 << 20;
const VERIFY: &str = "kms key verify-certificate FILE --bundle FILE";

/// When, and on whose request.
pub fn sentence(state: KeyState, destruction: &KeyDestruction) -> String {
    let verb = match state {
        KeyState::DestroyPending => "can be cancelled until",
        KeyState::Destroying => "began",
        _ => "done",
    };
    let (time, asked) = (rfc3339(destruction.time), rfc3339(destruction.asked));
    format!("{verb} {time}; asked for {asked} by {}", destruction.asked_by)
}

pub fn value(destruction: &KeyDestruction) -> Value {
    json!({
        "state_before": destruction.state_before.name(),
        "time": rfc3339(destruction.time),
        "asked": rfc3339(destruction.asked),
        "asked_by": destruction.asked_by,
    })
}

pub async fn usage(session: &Session, key: &str) -> Result<(), Failure> {
    let reference = key_reference(key)?;
    let used = session.connect().await?.usage_report(&reference).await;
    let versions = used.map_err(|error| Failure::from(error).about_key(key))?;
    let text = || {
        if versions.is_empty() {
            return "no version of this key was ever used\n".to_owned();
        }
        let rows: Vec<Vec<String>> = versions
            .iter()
            .map(|used| {
                vec![
                    used.number.to_string(),
                    used.data_keys.to_string(),
                    used.registered_data_keys.to_string(),
                    used.encryptions.to_string(),
                    used.decryptions.to_string(),
                    used.macs.to_string(),
                    used.mac_verifications.to_string(),
                    used.signatures.to_string(),
                    used.signature_verifications.to_string(),
                    rfc3339(used.last_used),
                    used.last_used_by.clone(),
                ]
            })
            .collect();
        table(
            &[
                "VERSION",
                "DATA KEYS",
                "REGISTERED",
                "ENCRYPTIONS",
                "DECRYPTIONS",
                "MACS",
                "VERIFIED",
                "SIGNATURES",
                "VERIFIED",
                "LAST USED",
                "BY",
            ],
            &rows,
        )
    };
    let value = || {
        let versions: Vec<Value> = versions
            .iter()
            .map(|used| {
                json!({
                    "version": used.number.number(),
                    "data_keys": used.data_keys,
                    "registered_data_keys": used.registered_data_keys,
                    "encryptions": used.encryptions,
                    "decryptions": used.decryptions,
                    "macs": used.macs,
                    "mac_verifications": used.mac_verifications,
                    "signatures": used.signatures,
                    "signature_verifications": used.signature_verifications,
                    "last_used": rfc3339(used.last_used),
                    "last_used_by": used.last_used_by,
                })
            })
            .collect();
        json!({ "versions": versions })
    };
    session.output.show(text, value)
}

pub async fn certificates(session: &Session, key: &str) -> Result<(), Failure> {
    let reference = key_reference(key)?;
    let found = session.connect().await?.destruction_certificates(&reference).await;
    let found = found.map_err(|error| Failure::from(error).about_key(key))?;
    let armoured: Vec<String> = found.iter().map(codec::to_armour).collect();
    session.output.show(|| armoured.concat(), || json!({ "certificates": armoured }))
}

pub fn verify(session: &Session, file: &Path, bundle: &Path) -> Result<(), Failure> {
    let (bundle, _) = load_bundle(bundle)?;
    let unreadable =
        |error: io::Error| Failure::new(format!("{} cannot be read: {error}", file.display()), VERIFY);
    let mut text = Vec::new();
    match file.to_str() {
        Some("-") => io::stdin().take(CERTIFICATE_LEN_MAX).read_to_end(&mut text),
        _ => fs::File::open(file).and_then(|file| file.take(CERTIFICATE_LEN_MAX).read_to_end(&mut text)),
    }
    .map_err(unreadable)?;
    let refused = |error: &dyn std::fmt::Display| {
        Failure::new(format!("{} {error}", file.display()), VERIFY).exit(EXIT_INTEGRITY)
    };
    let mut certificates = Vec::new();
    for block in blocks(&text) {
        let signed: SignedDestruction = codec::open_armour(block).map_err(|error| refused(&error))?;
        certificates
            .push(signed.verify(&bundle).map_err(|error| refused(&format!("is not genuine: {error}")))?);
    }
    session.output.show(
        || certificates.iter().map(certificate_text).collect::<Vec<_>>().join("\n"),
        || json!({ "certificates": certificates.iter().map(certificate_value).collect::<Vec<_>>() }),
    )
}

/// The PEM blocks of a text, as `kms key certificates` prints them one after the other. At least one, which need not be one.
fn blocks(text: &[u8]) -> Vec<&[u8]> {
    const BEGIN: &[u8] = b"-----BEGIN ";
    let starts = text.windows(BEGIN.len()).enumerate().filter(|(_, window)| *window == BEGIN);
    let mut starts: Vec<usize> = starts.map(|(position, _)| position).skip(1).collect();
    starts.insert(0, 0);
    starts.push(text.len());
    starts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect()
}

fn method(version: &DestroyedVersion) -> String {
    match &version.method {
        DestructionMethod::HsmObject { object, was_there } => format!(
            "object {} {}; copies: what the HSM's vendor or a ceremony has backed up",
            hex(&object.0),
            if *was_there { "destroyed in the HSM" } else { "found to be gone from the HSM" }
        ),
        DestructionMethod::SealedMaterial { master_version } => format!(
            "sealed material removed from the database; copies: backups of the database, while master key version \
             {master_version} exists"
        ),
    }
}

fn certificate_text(certificate: &DestructionCertificate) -> String {
    let what = if certificate.is_whole_key { "the whole key" } else { "single versions" };
    let mut text = fields(&[
        ("signature", "genuine".into()),
        ("tenant", certificate.tenant.to_string()),
        ("key", format!("{} ({})", certificate.name, certificate.key_id)),
        ("spec", format!("{}, {}", certificate.spec, certificate.protection)),
        ("created", rfc3339(certificate.created)),
        ("destroyed", format!("{what}, {}", rfc3339(certificate.destroyed))),
        ("asked for", format!("{} by {}", rfc3339(certificate.scheduled), certificate.scheduled_by.to_uri())),
        ("done by", format!("{} on node {}", certificate.tool, certificate.node)),
    ]);
    let rows: Vec<Vec<String>> = certificate
        .versions
        .iter()
        .map(|version| {
            vec![
                version.number.to_string(),
                version.state.clone(),
                version.state_before.clone(),
                version.check_value.as_deref().map(hex).unwrap_or_default(),
                method(version),
            ]
        })
        .collect();
    text.push('\n');
    text.push_str(&table(&["VERSION", "STATE", "BEFORE", "CHECK", "METHOD"], &rows));
    text
}

fn certificate_value(certificate: &DestructionCertificate) -> Value {
    let versions: Vec<Value> = certificate
        .versions
        .iter()
        .map(|version| {
            json!({
                "version": version.number.number(),
                "created": rfc3339(version.created),
                "state_before": version.state_before,
                "state": version.state,
                "check_value": version.check_value.as_deref().map(hex),
                "method": method(version),
            })
        })
        .collect();
    json!({
        "tenant": certificate.tenant.as_str(),
        "key_id": certificate.key_id.to_string(),
        "name": certificate.name.as_str(),
        "spec": certificate.spec,
        "protection": certificate.protection,
        "created": rfc3339(certificate.created),
        "whole_key": certificate.is_whole_key,
        "asked": rfc3339(certificate.scheduled),
        "asked_by": certificate.scheduled_by.to_uri(),
        "destroyed": rfc3339(certificate.destroyed),
        "node": certificate.node.as_str(),
        "tool": certificate.tool,
        "versions": versions,
    })
}
