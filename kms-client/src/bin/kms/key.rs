//! `kms key`.

use crate::args::{AttributeArguments, CreateArguments, KeyArgument, KeyCommand};
use crate::output::{Failure, fields, hex, table};
use crate::{Session, csr, destruction, imports, key_reference, sign};
use kms_client::audit::rfc3339;
use kms_client::{
    AttributeChanges, ClientError, CreateKey, Description, IdempotencyToken, Key, KeyAttributes, KeyFilter,
    KeyName, LabelName, Sensitivity, ShortText, Version,
};
use kms_core::key::Cryptoperiod;
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub async fn run(session: &Session, command: KeyCommand) -> Result<(), Failure> {
    match command {
        KeyCommand::Create(arguments) => {
            let (create, token) = new_key(arguments)?;
            show(session, session.connect().await?.create_key(&create, &token).await?)
        }
        KeyCommand::ImportParameters { wrapping_key, valid_seconds, out_public_key } => {
            imports::parameters(session, wrapping_key, valid_seconds, &out_public_key).await
        }
        KeyCommand::Import { create, import_id, source, check_value } => {
            let (create, token) = new_key(create)?;
            let given = (import_id.as_str(), source.as_path(), check_value.as_deref());
            show(session, imports::import(session, create, &token, given).await?)
        }
        KeyCommand::List { labels, state } => {
            let filter = KeyFilter { labels: parse_labels(labels)?, state };
            list(session, &filter).await
        }
        KeyCommand::Update { key, attributes, remove_labels, protect, unprotect, expected_revision } => {
            let reference = key_reference(&key)?;
            let is_protected = (protect || unprotect).then_some(protect);
            let changes = AttributeChanges { is_protected, ..changes(attributes, remove_labels)? };
            let client = session.connect().await?;
            changed(session, &key, client.update_key(&reference, &changes, expected_revision).await)
        }
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

fn new_key(arguments: CreateArguments) -> Result<(CreateKey, IdempotencyToken), Failure> {
    let CreateArguments {
        name,
        spec,
        protection,
        activates,
        expires,
        usage,
        attributes,
        protect,
        idempotency_token,
    } = arguments;
    let name =
        KeyName::parse(&name).map_err(|error| Failure::field("name", error, "kms key create --help"))?;
    let token = token(idempotency_token)?;
    let period = Cryptoperiod { activates, expires };
    let AttributeChanges { sensitivity, owner, description, labels, retain_until, .. } =
        changes(attributes, vec![])?;
    let attributes = KeyAttributes {
        sensitivity: sensitivity.unwrap_or(Sensitivity::HIGHEST),
        owner: owner.unwrap_or_default(),
        description: description.unwrap_or_default(),
        labels: labels.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
        retain_until,
        is_protected: protect,
        ..KeyAttributes::default()
    };
    Ok((CreateKey { name, spec, protection, usage, period, attributes }, token))
}

fn changed(session: &Session, key: &str, changed: Result<Key, ClientError>) -> Result<(), Failure> {
    show(session, changed.map_err(|error| Failure::from(error).about_key(key))?)
}

pub fn token(given: Option<String>) -> Result<IdempotencyToken, Failure> {
    let Some(text) = given else { return Ok(IdempotencyToken::generate()) };
    IdempotencyToken::new(&text).ok_or_else(|| {
        Failure::field("idempotency_token", "must have 1 to 64 bytes", "kms key create --help")
    })
}

fn label_name(name: &str) -> Result<LabelName, Failure> {
    LabelName::parse(name).map_err(|error| {
        Failure::field("label", format!("{name:?}: its name {error}"), "kms key update --help")
    })
}

fn parse_labels(labels: Vec<(String, String)>) -> Result<BTreeMap<LabelName, ShortText>, Failure> {
    let mut parsed = BTreeMap::new();
    for (name, value) in labels {
        let value = ShortText::parse(&value)
            .map_err(|error| Failure::field("label", format!("{name} {error}"), "kms key update --help"))?;
        if parsed.insert(label_name(&name)?, value).is_some() {
            return Err(Failure::field("label", format!("{name} is named twice"), "kms key update --help"));
        }
    }
    Ok(parsed)
}

/// What the command line says of a key.
fn changes(given: AttributeArguments, removed: Vec<String>) -> Result<AttributeChanges, Failure> {
    let refused = |field: &'static str| move |error| Failure::field(field, error, "kms key update --help");
    let labels = parse_labels(given.labels)?;
    let mut labels: BTreeMap<_, _> = labels.into_iter().map(|(name, value)| (name, Some(value))).collect();
    for name in removed {
        if labels.insert(label_name(&name)?, None).is_some() {
            let problem = format!("{name} is named twice");
            return Err(Failure::field("remove_label", problem, "kms key update --help"));
        }
    }
    Ok(AttributeChanges {
        sensitivity: given.sensitivity.and_then(Sensitivity::new),
        owner: given.owner.as_deref().map(ShortText::parse).transpose().map_err(refused("owner"))?,
        description: given
            .description
            .as_deref()
            .map(Description::parse)
            .transpose()
            .map_err(refused("description"))?,
        labels,
        retain_until: given.retain_until,
        is_protected: None,
    })
}

async fn list(session: &Session, filter: &KeyFilter) -> Result<(), Failure> {
    let keys = session.connect().await?.list_keys(filter).await?;
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
        let attributes = &key.attributes;
        let labels = attributes.labels.iter().map(|(name, value)| format!("{name}={}", value.as_str()));
        let aliases = key.aliases.iter().map(ToString::to_string);
        let protected = if attributes.is_protected { "from destruction" } else { "" };
        let destruction = key.destruction.as_ref();
        let mut rows = vec![
            ("name", key.name.to_string()),
            ("aliases", aliases.collect::<Vec<_>>().join(", ")),
            ("id", key.id.to_string()),
            ("state", key.state.name().into()),
            ("spec", key.spec.name().into()),
            ("usage", key.usage.name().into()),
            ("protection", format!("{}: {}", key.protection.name(), key.protection_note)),
            ("current version", key.current_version.to_string()),
            ("activates", key.period.activates.map_or("at once".into(), rfc3339)),
            ("expires", key.period.expires.map_or("never".into(), rfc3339)),
            ("created", format!("{} by {}", rfc3339(key.created), key.creator)),
            ("revision", key.revision.to_string()),
            ("owner", attributes.owner.as_str().into()),
            ("description", attributes.description.as_str().into()),
            ("sensitivity", attributes.sensitivity.level().to_string()),
            ("labels", labels.collect::<Vec<_>>().join(", ")),
            ("retain until", attributes.retain_until.map(rfc3339).unwrap_or_default()),
            ("protected", protected.into()),
            ("destruction", destruction.map(|one| destruction::sentence(key.state, one)).unwrap_or_default()),
        ];
        rows.retain(|(_, value)| !value.is_empty());
        let mut text = fields(&rows);
        if !key.versions.is_empty() {
            let rows: Vec<Vec<String>> = key
                .versions
                .iter()
                .map(|one| {
                    let destruction = one.destruction.as_ref();
                    vec![
                        one.number.to_string(),
                        one.origin.name().into(),
                        one.state.name().into(),
                        rfc3339(one.created),
                        hex(&one.check_value),
                        encryptions(one),
                        destruction.map(|found| destruction::sentence(one.state, found)).unwrap_or_default(),
                    ]
                })
                .collect();
            text.push('\n');
            text.push_str(&table(
                &["VERSION", "ORIGIN", "STATE", "CREATED", "CHECK", "ENCRYPTIONS", "DESTRUCTION"],
                &rows,
            ));
        }
        text
    };
    session.output.show(text, || value(&key))
}

/// How often a resident version may have encrypted.
fn encryptions(version: &Version) -> String {
    let advice = if version.is_rotation_advised { ": rotate the key" } else { "" };
    match version.encryptions_taken {
        0 => String::new(),
        taken => format!("up to {taken}{advice}"),
    }
}

fn value(key: &Key) -> Value {
    let versions: Vec<Value> = key
        .versions
        .iter()
        .map(|version| {
            json!({
                "version": version.number.number(),
                "origin": version.origin.name(),
                "state": version.state.name(),
                "created": rfc3339(version.created),
                "check_value": hex(&version.check_value),
                "encryptions_taken": version.encryptions_taken,
                "is_rotation_advised": version.is_rotation_advised,
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
        "usage": key.usage.name(),
        "owner": key.attributes.owner.as_str(),
        "description": key.attributes.description.as_str(),
        "sensitivity": key.attributes.sensitivity.level(),
        "labels": key
            .attributes
            .labels
            .iter()
            .map(|(name, value)| (name.to_string(), value.as_str().into()))
            .collect::<serde_json::Map<String, Value>>(),
        "retain_until": key.attributes.retain_until.map(rfc3339),
        "deletion_protection": key.attributes.is_protected,
        "aliases": key.aliases.iter().map(KeyName::as_str).collect::<Vec<_>>(),
    })
}
