//! What people say about keys, and the other names that they give them.

use crate::connect::{Client, Repeat};
use crate::convert;
use crate::error::ClientError;
use crate::keys::{IdempotencyToken, Key};
use kms_core::attributes::{AttributeChanges, Description, KeyAttributes, Sensitivity, ShortText};
use kms_core::codec::VersionOne;
use kms_core::id::{KeyId, KeyName, KeyRef, LabelName, UnixMillis};
use kms_proto::v1;

/// Most aliases that one page of a list asks for.
const PAGE_SIZE: u32 = 200;

/// Another name of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    /// Unique among the keys and aliases of the tenant.
    pub name: KeyName,
    /// The key that it names.
    pub key: KeyId,
    /// Since when.
    pub changed: UnixMillis,
}

pub(crate) fn label((name, value): (&LabelName, &ShortText)) -> v1::Label {
    v1::Label { name: name.to_string(), value: value.as_str().to_owned() }
}

pub(crate) fn to_proto(attributes: &KeyAttributes) -> v1::KeyAttributes {
    v1::KeyAttributes {
        owner: attributes.owner.as_str().to_owned(),
        description: attributes.description.as_str().to_owned(),
        sensitivity: attributes.sensitivity.level().into(),
        labels: attributes.labels.iter().map(label).collect(),
        retain_until: attributes.retain_until.map(convert::time_to_proto),
        deletion_protection: attributes.is_protected,
    }
}

pub(crate) fn from_proto(found: v1::KeyAttributes) -> Result<KeyAttributes, ClientError> {
    let malformed = |what: &str| ClientError::malformed(format!("a key has {what} of an unknown form"));
    let level = u8::try_from(found.sensitivity).ok().and_then(Sensitivity::new);
    let mut attributes = KeyAttributes {
        version: VersionOne,
        sensitivity: level.ok_or_else(|| malformed("a sensitivity"))?,
        owner: ShortText::parse(&found.owner).map_err(|_| malformed("an owner"))?,
        description: Description::parse(&found.description).map_err(|_| malformed("a description"))?,
        retain_until: convert::optional_time(found.retain_until, "a key's retention")?,
        is_protected: found.deletion_protection,
        ..KeyAttributes::default()
    };
    for v1::Label { name, value } in found.labels {
        let name = LabelName::parse(&name).map_err(|_| malformed("a label"))?;
        let value = ShortText::parse(&value).map_err(|_| malformed("a label"))?;
        attributes.labels.insert(name, value);
    }
    Ok(attributes)
}

fn alias(found: v1::Alias) -> Result<Alias, ClientError> {
    Ok(Alias {
        name: convert::key_name(&found.alias)?,
        key: convert::key_id(&found.key_id)?,
        changed: convert::time(found.changed, "an alias")?,
    })
}

impl Client {
    /// Changes what is said of a key; what `changes` does not name stays. With `expected_revision` only while nobody has
    /// changed the key since. Not repeated by itself: it carries no token.
    ///
    /// # Errors
    /// `KEY_NOT_FOUND`, `REVISION_MISMATCH`, `KEY_STATE_FORBIDS`, `FIELD_INVALID`: nothing changes, a sensitivity would be relaxed, a
    /// retention shortened.
    pub async fn update_key(
        &self,
        key: &KeyRef,
        changes: &AttributeChanges,
        expected_revision: Option<u64>,
    ) -> Result<Key, ClientError> {
        let set = changes.labels.iter().filter_map(|(name, value)| Some(label((name, value.as_ref()?))));
        let removed = changes.labels.iter().filter(|(_, value)| value.is_none());
        let request = v1::UpdateKeyRequest {
            key: key.to_string(),
            expected_revision: expected_revision.unwrap_or_default(),
            owner: changes.owner.as_ref().map(|owner| owner.as_str().to_owned()),
            description: changes.description.as_ref().map(|words| words.as_str().to_owned()),
            sensitivity: changes.sensitivity.map(|level| level.level().into()),
            retain_until: changes.retain_until.map(convert::time_to_proto),
            deletion_protection: changes.is_protected,
            set_labels: set.collect(),
            remove_labels: removed.map(|(name, _)| name.to_string()).collect(),
        };
        self.call(Repeat::Never, &request, |mut stubs, request| async move {
            stubs.keys.update_key(request).await
        })
        .await?
        .try_into()
    }

    /// Gives a key another name, which everything that uses keys takes. Repeated by itself: the token makes it happen once.
    ///
    /// # Errors
    /// `KEY_EXISTS`: a key or an alias has the name. `KEY_NOT_FOUND`, `KEY_STATE_FORBIDS`, `IDEMPOTENCY_CONFLICT`.
    pub async fn create_alias(
        &self,
        name: &KeyName,
        key: &KeyRef,
        token: &IdempotencyToken,
    ) -> Result<Alias, ClientError> {
        let request = v1::CreateAliasRequest {
            alias: name.to_string(),
            key: key.to_string(),
            idempotency_token: token.as_str().to_owned(),
        };
        let made = self.call(Repeat::Safe, &request, |mut stubs, request| async move {
            stubs.keys.create_alias(request).await
        });
        alias(made.await?)
    }

    /// Gives an alias to another key, at once for every caller; with `expected` only while it names that one. Repeated by
    /// itself: twice is the same as once.
    ///
    /// # Errors
    /// `ALIAS_NOT_FOUND`, `KEY_NOT_FOUND`, `KEY_STATE_FORBIDS`, `KEY_USAGE_FORBIDS`: the keys are for different things. `KEY_MISMATCH`:
    /// it names another key than `expected`.
    pub async fn retarget_alias(
        &self,
        name: &KeyName,
        key: &KeyRef,
        expected: Option<&KeyRef>,
    ) -> Result<Alias, ClientError> {
        let request = v1::RetargetAliasRequest {
            alias: name.to_string(),
            key: key.to_string(),
            expected_key: expected.map(ToString::to_string).unwrap_or_default(),
        };
        let repeat = if expected.is_none() { Repeat::Safe } else { Repeat::Never };
        let moved = self.call(repeat, &request, |mut stubs, request| async move {
            stubs.keys.retarget_alias(request).await
        });
        alias(moved.await?)
    }

    /// Removes an alias; the key stays. Not repeated by itself: it carries no token.
    ///
    /// # Errors
    /// `ALIAS_NOT_FOUND`.
    pub async fn delete_alias(&self, name: &KeyName) -> Result<(), ClientError> {
        let request = v1::DeleteAliasRequest { alias: name.to_string() };
        let deleted = self.call(Repeat::Never, &request, |mut stubs, request| async move {
            stubs.keys.delete_alias(request).await
        });
        deleted.await.map(drop)
    }

    /// Lists the tenant's aliases in order of their names, page by page.
    ///
    /// # Errors
    /// `NOT_PERMITTED`.
    pub async fn list_aliases(&self) -> Result<Vec<Alias>, ClientError> {
        let mut aliases = Vec::new();
        let mut page_token = String::new();
        loop {
            let request =
                v1::ListAliasesRequest { page_size: PAGE_SIZE, page_token: std::mem::take(&mut page_token) };
            let page = self
                .call(Repeat::Safe, &request, |mut stubs, request| async move {
                    stubs.keys.list_aliases(request).await
                })
                .await?;
            for found in page.aliases {
                aliases.push(alias(found)?);
            }
            if page.next_page_token.is_empty() {
                return Ok(aliases);
            }
            if page.next_page_token == request.page_token {
                return Err(ClientError::malformed("the list of aliases does not end"));
            }
            page_token = page.next_page_token;
        }
    }
}
