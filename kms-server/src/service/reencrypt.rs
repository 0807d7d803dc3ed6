//! Encrypting again, under another key, version or context, what the service has encrypted. The plaintext stays here.

use super::crypto::parse;
use super::open::{DECISION_COUNT_MAX, contention};
use super::{Caller, Encrypted, Node, OpenRequest, ServiceError};
use kms_core::audit::{Outcome, Record};
use kms_core::context::EncryptionContext;
use kms_core::envelope::Purpose;
use kms_core::id::{KeyId, KeyRef, KeySelector, KeyVersion};
use kms_core::policy::Action;
use kms_core::reason::Reason;

/// The detail of a record that names the key and version which decrypted.
const FROM: &str = "from";

/// What is to be encrypted again.
#[derive(Debug)]
pub struct ReEncryptRequest {
    /// What there is, and how it was made. Of either purpose, which it keeps.
    pub old: OpenRequest,
    /// `None`: the key of the old ciphertext at its current version.
    pub new_key: Option<KeyRef>,
    /// The context of the new ciphertext.
    pub new_context: EncryptionContext,
}

/// What `ReEncrypt` gives.
#[derive(Debug)]
pub struct ReEncrypted {
    /// The key and version that decrypted.
    pub from: (KeyId, KeyVersion),
    /// The new ciphertext.
    pub encrypted: Encrypted,
}

impl Node {
    /// Decrypts and encrypts again, in one use of two keys with one record: durable before the new ciphertext leaves.
    ///
    /// # Errors
    /// [`ServiceError`] with the documented reason; [`Node::perform`] records it.
    pub async fn re_encrypt(
        &self,
        caller: &Caller,
        request: &ReEncryptRequest,
    ) -> Result<ReEncrypted, ServiceError> {
        let open = self.require_open()?;
        let ciphertext = parse(&request.old.ciphertext)?;
        let (header, context) = (ciphertext.header, &request.old.context);
        let from = (header.key_id, header.version);
        let new_key =
            request.new_key.clone().unwrap_or(KeyRef { key: KeySelector::Id(header.key_id), version: None });
        for _ in 0..DECISION_COUNT_MAX {
            // Both keys are judged before either is used: what can be refused costs no HSM call.
            let old = self.key_to_open(&open, caller, &request.old, &header).await?;
            let (new, number) = self.key_to_encrypt(&open, caller, &new_key).await.map_err(about_new_key)?;
            let plaintext = self.open_under(&open, caller, &old, &ciphertext, context).await?;
            let sealing = (header.purpose, &request.new_context);
            let sealed = self.seal_under(&open, caller, (&new, number), sealing, &plaintext).await?;
            let record: Record = self
                .record(Action::ReEncrypt.event(), Outcome::Done, caller)
                .key(new.key.row.key_id, Some(number))
                .detail(FROM, format!("{}@{}", from.0, from.1))
                .detail("purpose", purpose_name(header.purpose));
            // The catalogue may have changed between the two judgements: the older one is then not the current one.
            let revision = old.revision.min(new.revision);
            if self.commit_decided(&open, record, revision).await? {
                let key_id = new.key.row.key_id;
                return Ok(ReEncrypted {
                    from,
                    encrypted: Encrypted { key_id, version: number, ciphertext: sealed },
                });
            }
        }
        Err(contention())
    }
}

/// Which of the two keys a refusal is about.
fn about_new_key(error: ServiceError) -> ServiceError {
    let names_key = matches!(
        error.reason,
        Reason::KeyNotFound | Reason::KeyVersionNotFound | Reason::KeyStateForbids | Reason::KeyUsageForbids
    );
    ServiceError { field: if names_key { Some("new_key") } else { error.field }, ..error }
}

const fn purpose_name(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Data => "data",
        Purpose::DataKey => "data key",
        Purpose::DataKeyPair => "data key pair",
        Purpose::RegisteredDataKey => "registered data key",
    }
}

/// The key and version that decrypted, of the record of a re-encryption; `None` for any other record.
pub(super) fn decrypted_by(record: &Record) -> Option<(KeyId, KeyVersion)> {
    if record.event != Action::ReEncrypt.event() {
        return None;
    }
    let detail = record.details.iter().find(|detail| detail.name == FROM)?;
    let from = KeyRef::parse(&detail.value).ok()?;
    match from.key {
        KeySelector::Id(key_id) => Some((key_id, from.version?)),
        KeySelector::Name(_) => None,
    }
}
