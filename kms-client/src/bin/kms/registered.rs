//! `kms data-key` for data keys that the service keeps.

use crate::args::RegisteredCommand;
use crate::data_key::{keep_or_show as keep_or_show_secret, new_file};
use crate::key::token;
use crate::output::{Failure, base64, fields, table};
use crate::pending::Readers;
use crate::{Session, key_reference, recipient};
use kms_client::audit::rfc3339;
use kms_client::{
    Client, ClientError, CreateDataKey, KeyName, KeyRef, Reason, RegisteredDataKey, RegisteredVersion,
};
use kms_core::data_key::RotationPeriod;
use kms_core::id::{KeySelector, KeyVersion};
use serde_json::{Value, json};
use zeroize::Zeroizing;

pub async fn run(session: &Session, command: RegisteredCommand) -> Result<(), Failure> {
    match command {
        RegisteredCommand::Create { name, key, spec, rotation_period_days, idempotency_token } => {
            let create = CreateDataKey {
                name: whole(&name)?,
                key: key_reference(&key)?,
                spec,
                rotation_period: RotationPeriod::from_days(rotation_period_days).unwrap_or_default(),
            };
            let token = token(idempotency_token)?;
            let made = session.connect().await?.create_data_key(&create, &token).await;
            let refused = |error: ClientError| {
                let failure = Failure::from(error).about_key(&key);
                match failure.reason {
                    Some(Reason::KeyExists) => Failure { next: "kms data-key list".to_owned(), ..failure },
                    _ => failure,
                }
            };
            show(session, &made.map_err(refused)?)
        }
        RegisteredCommand::Get { name, recipient: to, out_plaintext } => {
            let (name, version) = reference(&name)?;
            let named = recipient::read(&to, "kms data-key get --help")?;
            // All files are opened before the call: a key that cannot be kept is not asked for.
            let recipient_file = new_file(to.out_recipient.as_deref(), Readers::Umask)?;
            let plaintext_file = new_file(out_plaintext.as_deref(), Readers::Owner)?;
            let client = session.connect().await?;
            let (given, plaintext, sealed) = match &named {
                None => {
                    let given = client.registered_data_key(&name, version).await;
                    let (given, plaintext) = given.map_err(|error| about(error, &name))?;
                    (given, Some(plaintext), None)
                }
                Some(to) => {
                    let given = client.registered_data_key_for(to, &name, version).await;
                    let (given, sealed) = given.map_err(|error| about(error, &name))?;
                    (given, None, Some(sealed))
                }
            };
            let mut lines = vec![
                ("data_key_id", Zeroizing::new(given.id.to_string())),
                ("name", Zeroizing::new(name.to_string())),
                ("version", Zeroizing::new(given.version.to_string())),
                ("spec", Zeroizing::new(given.spec.name().to_owned())),
                ("created", Zeroizing::new(rfc3339(given.created))),
            ];
            let plaintext = keep_or_show_secret(plaintext, plaintext_file)?;
            lines.extend(plaintext.map(|plaintext| ("plaintext", base64(plaintext.expose()))));
            let sealed = recipient::keep_or_show(sealed, recipient_file)?;
            lines.extend(sealed.map(|sealed| ("recipient_ciphertext", base64(&sealed))));
            session.output.show_secret(&lines)
        }
        RegisteredCommand::Describe { name } => {
            let name = whole(&name)?;
            let found = session.connect().await?.describe_data_key(&name).await;
            show(session, &found.map_err(|error| about(error, &name))?)
        }
        RegisteredCommand::List => list(session).await,
        RegisteredCommand::Rotate { name, idempotency_token } => {
            let (name, token) = (whole(&name)?, token(idempotency_token)?);
            let rotated = session.connect().await?.rotate_data_key(&name, &token).await;
            show(session, &rotated.map_err(|error| about(error, &name))?)
        }
        RegisteredCommand::Disable { name } => {
            change(session, &name, async |client, name, version| client.disable_data_key(name, version).await)
                .await
        }
        RegisteredCommand::Enable { name } => {
            change(session, &name, async |client, name, version| client.enable_data_key(name, version).await)
                .await
        }
        RegisteredCommand::Destroy { name } => {
            change(session, &name, async |client, name, version| {
                client.danger_destroy_data_key(name, version).await
            })
            .await
        }
    }
}

async fn change(
    session: &Session,
    text: &str,
    run: impl AsyncFnOnce(&Client, &KeyName, Option<KeyVersion>) -> Result<RegisteredDataKey, ClientError>,
) -> Result<(), Failure> {
    let (name, version) = reference(text)?;
    let client = session.connect().await?;
    show(session, &run(&client, &name, version).await.map_err(|error| about(error, &name))?)
}

/// A name, perhaps with `@VERSION`. Data keys are not asked for by their ids.
fn reference(text: &str) -> Result<(KeyName, Option<KeyVersion>), Failure> {
    let refused = |problem: String| Failure::field("name", problem, "kms data-key list");
    let reference = KeyRef::parse(text).map_err(|error| refused(error.to_string()))?;
    match reference.key {
        KeySelector::Name(name) => Ok((name, reference.version)),
        KeySelector::Id(_) => Err(refused("must be the data key's name, not its id".to_owned())),
    }
}

fn whole(text: &str) -> Result<KeyName, Failure> {
    match reference(text)? {
        (name, None) => Ok(name),
        (_, Some(_)) => {
            Err(Failure::field("name", "is of a whole data key, without @VERSION", "kms data-key --help"))
        }
    }
}

/// The next command after a refusal names the data key.
fn about(error: ClientError, name: &KeyName) -> Failure {
    let mut failure = Failure::from(error);
    failure.next = failure.next.replace("NAME", name.as_str());
    failure
}

async fn list(session: &Session) -> Result<(), Failure> {
    let data_keys = session.connect().await?.list_data_keys().await?;
    let text = || {
        let row = |one: &RegisteredDataKey| {
            vec![
                one.name.to_string(),
                one.spec.name().to_owned(),
                one.state.name().to_owned(),
                one.current_version.to_string(),
                period(one),
                one.key_id.to_string(),
            ]
        };
        let rows: Vec<_> = data_keys.iter().map(row).collect();
        table(&["NAME", "SPEC", "STATE", "VERSION", "ROTATION", "KEY ID"], &rows)
    };
    session.output.show(text, || json!({ "data_keys": data_keys.iter().map(value).collect::<Vec<_>>() }))
}

fn period(data_key: &RegisteredDataKey) -> String {
    match data_key.rotation_period.days() {
        0 => "never by itself".to_owned(),
        days => format!("after {days} days"),
    }
}

fn show(session: &Session, data_key: &RegisteredDataKey) -> Result<(), Failure> {
    let text = || {
        let mut text = fields(&[
            ("name", data_key.name.to_string()),
            ("data key id", data_key.id.to_string()),
            ("spec", data_key.spec.name().to_owned()),
            ("key id", data_key.key_id.to_string()),
            ("state", format!("{} since {}", data_key.state, rfc3339(data_key.state_since))),
            ("current version", data_key.current_version.to_string()),
            ("rotation", period(data_key)),
            ("created", format!("{} by {}", rfc3339(data_key.created), data_key.creator)),
        ]);
        let row = |version: &RegisteredVersion| {
            vec![
                version.number.to_string(),
                version.state.name().to_owned(),
                rfc3339(version.state_since),
                rfc3339(version.created),
                version.key_version.to_string(),
            ]
        };
        text.push('\n');
        let rows: Vec<_> = data_key.versions.iter().map(row).collect();
        text.push_str(&table(&["VERSION", "STATE", "SINCE", "CREATED", "KEY VERSION"], &rows));
        text
    };
    session.output.show(text, || value(data_key))
}

fn value(data_key: &RegisteredDataKey) -> Value {
    let version = |version: &RegisteredVersion| {
        json!({
            "version": version.number.number(),
            "state": version.state.name(),
            "state_since": rfc3339(version.state_since),
            "created": rfc3339(version.created),
            "key_id": version.key_id.to_string(),
            "key_version": version.key_version.number(),
        })
    };
    json!({
        "data_key_id": data_key.id.to_string(),
        "name": data_key.name.as_str(),
        "spec": data_key.spec.name(),
        "key_id": data_key.key_id.to_string(),
        "state": data_key.state.name(),
        "state_since": rfc3339(data_key.state_since),
        "rotation_period_days": data_key.rotation_period.days(),
        "current_version": data_key.current_version.number(),
        "versions": data_key.versions.iter().map(version).collect::<Vec<_>>(),
        "created": rfc3339(data_key.created),
        "creator": data_key.creator,
        "revision": data_key.revision,
    })
}
