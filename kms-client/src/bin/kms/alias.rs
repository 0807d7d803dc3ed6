//! `kms alias`.

use crate::args::AliasCommand;
use crate::key::token;
use crate::output::{Failure, fields, table};
use crate::{Session, key_reference};
use kms_client::audit::rfc3339;
use kms_client::{Alias, KeyName, KeyRef};
use serde_json::{Value, json};

pub async fn run(session: &Session, command: AliasCommand) -> Result<(), Failure> {
    match command {
        AliasCommand::Create { alias, key, idempotency_token } => {
            let (name, reference) = (alias_name(&alias)?, key_reference(&key)?);
            let token = token(idempotency_token)?;
            let made = session.connect().await?.create_alias(&name, &reference, &token).await;
            show(session, &made.map_err(|error| Failure::from(error).about_key(&key))?)
        }
        AliasCommand::Retarget { alias, key, expected_key } => {
            let (name, reference) = (alias_name(&alias)?, key_reference(&key)?);
            let expected = expected_key.as_deref().map(KeyRef::parse).transpose();
            let expected =
                expected.map_err(|error| Failure::field("expected_key", error, "kms alias list"))?;
            let moved = session.connect().await?.retarget_alias(&name, &reference, expected.as_ref()).await;
            show(session, &moved.map_err(|error| Failure::from(error).about_key(&key))?)
        }
        AliasCommand::Delete { alias } => {
            let name = alias_name(&alias)?;
            session.connect().await?.delete_alias(&name).await?;
            session.output.show(|| fields(&[("deleted", alias.clone())]), || json!({ "deleted": alias }))
        }
        AliasCommand::List => list(session).await,
    }
}

fn alias_name(text: &str) -> Result<KeyName, Failure> {
    KeyName::parse(text).map_err(|error| Failure::field("alias", error, "kms alias --help"))
}

async fn list(session: &Session) -> Result<(), Failure> {
    let aliases = session.connect().await?.list_aliases().await?;
    let text = || {
        let row = |alias: &Alias| vec![alias.name.to_string(), alias.key.to_string(), rfc3339(alias.changed)];
        table(&["ALIAS", "KEY ID", "SINCE"], &aliases.iter().map(row).collect::<Vec<_>>())
    };
    session.output.show(text, || json!({ "aliases": aliases.iter().map(value).collect::<Vec<_>>() }))
}

fn show(session: &Session, alias: &Alias) -> Result<(), Failure> {
    let text = || {
        fields(&[
            ("alias", alias.name.to_string()),
            ("key id", alias.key.to_string()),
            ("since", rfc3339(alias.changed)),
        ])
    };
    session.output.show(text, || value(alias))
}

fn value(alias: &Alias) -> Value {
    json!({
        "alias": alias.name.as_str(),
        "key_id": alias.key.to_string(),
        "since": rfc3339(alias.changed),
    })
}
