//! `kms key`.

use crate::args::{KeyArgument, KeyCommand};
use crate::output::{Failure, fields, hex, table};
use crate::{Session, csr, destruction, key_reference, sign};
use kms_client::audit::rfc3339;
use kms_client::{ClientError, CreateKey, IdempotencyToken, Key};
use kms_core::id::KeyName;
use kms_core::key::Cryptoperiod;
use serde_json::{Value, json};

pub async fn run(session: &Session, command: KeyCommand) -> Result<(), Failure> {
    match command {
        KeyCommand::Create { name, spec, protection, activates, expires, idempotency_token } => {
            let name = KeyName::parse(&name)
                .map_err(|error| Failure::field("name", error, "kms key create --help"))?;
            let token = token(idempotency_token)?;
            let period = Cryptoperiod { activates, expires };
            let create = CreateKey { name, spec, protection, period };
            show(session, session.connect().await?.create_key(&create, &token).await?)
        }
        KeyCommand::List => list(session).await,
        KeyCommand::Show { key } => {
            let reference = key_reference(&key)?;
            let described = session.connect().await?.describe_key(&reference).await;
            show(session, described.map_err(|error| Failure::from(error).about_key(&key))?)
        }
        KeyCommand::Rotate { key, idempotency_token } => {
            let (reference, token) = (key_reference(&key)?, token(idempotency_token)?);
            let rotated = session.connect().await?.rotate_key(&reference, &token).await;
            show(session, rotated.map_err(|error| Failure::from(error).about_key(&key))?)
        }
        KeyCommand::Activate(KeyArgument { key }) => {
            let reference = key_reference(&key)?;
            changed(session, &key, session.connect().await?.activate_key(&reference).await)
        }
        KeyCommand::Suspend(KeyArgument { key }) => {
            let reference = key_reference(&key)?;
            changed(session, &key, session.connect().await?.suspend_key(&reference).await)
        }
        KeyCommand::Resume(KeyArgument { key }) => {
            let reference = key_reference(&key)?;
            changed(session, &key, session.connect().await?.resume_key(&reference).await)
        }
        KeyCommand::Deactivate(KeyArgument { key }) => {
            let reference = key_reference(&key)?;
            changed(session, &key, session.connect().await?.deactivate_key(&reference).await)
        }
        KeyCommand::Archive(KeyArgument { key }) => {
            let reference = key_reference(&key)?;
            changed(session, &key, session.connect().await?.archive_key(&reference).await)
        }
        KeyCommand::Recover(KeyArgument { key }) => {
            let reference = key_reference(&key)?;
            changed(session, &key, session.connect().await?.recover_key(&reference).await)
        }
        KeyCommand::Compromise(KeyArgument { key }) => {
            let reference = key_reference(&key)?;
            changed(session, &key, session.connect().await?.compromise_key(&reference).await)
        }
        KeyCommand::ScheduleDestruction { key, window_days } => {
            let reference = key_reference(&key)?;
            let client = session.connect().await?;
            changed(session, &key, client.schedule_destruction(&reference, window_days).await)
        }
        KeyCommand::CancelDestruction(KeyArgument { key }) => {
            let reference = key_reference(&key)?;
            changed(session, &key, session.connect().await?.cancel_destruction(&reference).await)
        }
        KeyCommand::PublicKey { key } => sign::public_key(session, &key).await,
        KeyCommand::Csr(arguments) => csr::run(session, arguments).await,
        KeyCommand::Usage { key } => destruction::usage(session, &key).await,
        KeyCommand::Certificates { key } => destruction::certificates(session, &key).await,
        KeyCommand::VerifyCertificate { file, bundle } => destruction::verify(session, &file, &bundle),
    }
}

fn changed(session: &Session, key: &str, changed: Result<Key, ClientError>) -> Result<(), Failure> {
    show(session, changed.map_err(|error| Failure::from(error).about_key(key))?)
}

fn token(given: Option<String>) -> Result<IdempotencyToken, Failure> {
    let Some(text) = given else { return Ok(IdempotencyToken::generate()) };
    IdempotencyToken::new(&text).ok_or_else(|| {
        Failure::field("idempotency_token", "must have 1 to 64 bytes", "kms key create --help")
    })
}

async fn list(session: &Session) -> Result<(), Failure> {
    let keys = session.connect().await?.list_keys().await?;
    let text = || {
        let rows: Vec<Vec<String>> = keys
            .iter()
            .map(|key| {
                vec![
                    key.name.to_string(),
                    key.state.name().into(),
                    key.spec.name().into(),
                    key.protection.name().into(),
                    key.current_version.to_string(),
                    rfc3339(key.created),
                    key.id.to_string(),
                ]
            })
            .collect();
        table(&["NAME", "STATE", "SPEC", "PROTECTION", "VERSION", "CREATED", "ID"], &rows)
    };
    session.output.show(text, || json!({ "keys": keys.iter().map(value).collect::<Vec<_>>() }))
}

fn show(session: &Session, key: Key) -> Result<(), Failure> {
    let text = || {
        let mut text = fields(&[
            ("name", key.name.to_string()),
            ("id", key.id.to_string()),
            ("state", key.state.name().into()),
            ("spec", key.spec.name().into()),
            ("protection", format!("{}: {}", key.protection.name(), key.protection_note)),
            ("current version", key.current_version.to_string()),
            ("activates", key.period.activates.map_or("at once".into(), rfc3339)),
            ("expires", key.period.expires.map_or("never".into(), rfc3339)),
            ("created", format!("{} by {}", rfc3339(key.created), key.creator)),
            ("revision", key.revision.to_string()),
        ]);
        if let Some(destruction) = &key.destruction {
            text.push_str(&fields(&[("destruction", destruction::sentence(key.state, destruction))]));
        }
        if !key.versions.is_empty() {
            let rows: Vec<Vec<String>> = key
                .versions
                .iter()
                .map(|one| {
                    let destruction = one.destruction.as_ref();
                    vec![
                        one.number.to_string(),
                        one.state.name().into(),
                        rfc3339(one.created),
                        hex(&one.check_value),
                        destruction.map(|found| destruction::sentence(one.state, found)).unwrap_or_default(),
                    ]
                })
                .collect();
            text.push('\n');
            text.push_str(&table(&["VERSION", "STATE", "CREATED", "CHECK", "DESTRUCTION"], &rows));
        }
        text
    };
    session.output.show(text, || value(&key))
}

fn value(key: &Key) -> Value {
    let versions: Vec<Value> = key
        .versions
        .iter()
        .map(|version| {
            json!({
                "version": version.number.number(),
                "state": version.state.name(),
                "created": rfc3339(version.created),
                "check_value": hex(&version.check_value),
                "destruction": version.destruction.as_ref().map(destruction::value),
            })
        })
        .collect();
    json!({
        "key_id": key.id.to_string(),
        "name": key.name.as_str(),
        "spec": key.spec.name(),
        "protection": key.protection.name(),
        "protection_note": key.protection_note,
        "state": key.state.name(),
        "current_version": key.current_version.number(),
        "versions": versions,
        "activates": key.period.activates.map(rfc3339),
        "expires": key.period.expires.map(rfc3339),
        "created": rfc3339(key.created),
        "creator": key.creator,
        "revision": key.revision,
        "destruction": key.destruction.as_ref().map(destruction::value),
    })
}
