//! Administrators and applications at work, until they are told to stop or the server is gone.

use crate::account::{Account, Kept, KnownKey, Unanswered};
use kms_proto::v1;
use kms_tests::{Deployment, Module, Refused, Rpc};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tonic::{Response, Status};

/// How many work at the same time.
pub const ACTOR_COUNT: u32 = 3;

/// How long one call is tried again while the service says that it is busy.
const BUSY_MAX: Duration = Duration::from_secs(60);

/// The context of every encryption.
pub fn context() -> Vec<v1::ContextPair> {
    vec![v1::ContextPair { key: "purpose".into(), value: "crash".into() }]
}

/// The server is gone, and the answer with it.
struct Gone;

/// Sends a request until it is answered. Others change keys at the same time and the machine may be slow, so
/// some refusals say to try again: changes carry a token, so that they happen once. Any other refusal is a fault.
async fn answered<T, F>(mut send: impl FnMut() -> F) -> Result<Response<T>, Gone>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    let end = Instant::now() + BUSY_MAX;
    loop {
        let status = match send().await {
            Ok(answer) => return Ok(answer),
            Err(status) => status,
        };
        let refused = Refused::from(status);
        match refused.reason.as_str() {
            "" => return Err(Gone),
            "CONTENTION" | "OVERLOADED" | "DEADLINE_EXCEEDED" if Instant::now() < end => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            reason => panic!("the workload was refused: {reason}: {}", refused.message),
        }
    }
}

/// One pass of every actor, or as many as fit into `time_max`.
///
/// Gives what was acknowledged; the actors end early when the server is gone.
pub async fn run(deployment: &Arc<Deployment>, time_max: Option<Duration>) -> Account {
    let mut actors = tokio::task::JoinSet::new();
    let end = time_max.map(|time| Instant::now() + time);
    for _ in 0..ACTOR_COUNT {
        let deployment = deployment.clone();
        actors.spawn(async move {
            let mut account = Account::default();
            let (Some(admin), Some(app)) =
                (connect(&deployment, "admin").await, connect(&deployment, "app").await)
            else {
                return account;
            };
            let mut actor = Actor { admin, app, module: deployment.options().module, account: &mut account };
            while actor.pass().await.is_ok() && end.is_some_and(|end| Instant::now() < end) {}
            account
        });
    }
    let mut all = Account::default();
    while let Some(ended) = actors.join_next().await {
        match ended {
            Ok(account) => all.merge(account),
            Err(error) => panic!("{error}; the server said\n{}", deployment.log()),
        }
    }
    all
}

async fn connect(deployment: &Deployment, principal: &str) -> Option<Rpc> {
    use kms_tests::rpc::ClientCertificate;
    Rpc::connect_with(deployment, &ClientCertificate::of(deployment, principal)).await.ok()
}

struct Actor<'a> {
    admin: Rpc,
    app: Rpc,
    module: Module,
    account: &'a mut Account,
}

impl Actor<'_> {
    /// A resident and a wrapped key: made, used, rotated, used again.
    async fn pass(&mut self) -> Result<(), Gone> {
        let resident_spec = match self.module {
            Module::Sim => v1::KeySpec::Sm4,
            Module::SoftHsm => v1::KeySpec::Aes256,
        };
        let kinds =
            [(v1::Protection::HsmResident, resident_spec), (v1::Protection::HsmWrapped, v1::KeySpec::Sm4)];
        for (protection, spec) in kinds {
            let name = self.create(protection, spec).await?;
            self.use_key(&name).await?;
            self.rotate(&name).await?;
            self.use_key(&name).await?;
            // What the version before made still opens.
            let kept = self.account.kept.first().cloned().expect("the key was used");
            self.open(&kept).await?;
        }
        Ok(())
    }

    async fn create(&mut self, protection: v1::Protection, spec: v1::KeySpec) -> Result<String, Gone> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("key-{number}");
        let request = v1::CreateKeyRequest {
            name: name.clone(),
            spec: spec.into(),
            protection: protection.into(),
            idempotency_token: format!("create {number}"),
            ..Default::default()
        };
        let keys = self.admin.keys.clone();
        let create = || {
            let (mut keys, request) = (keys.clone(), request.clone());
            async move { keys.create_key(request).await }
        };
        let Ok(answer) = answered(create).await else {
            self.account.unanswered.push(Unanswered::Create(request));
            return Err(Gone);
        };
        let key = self.account.acknowledged(answer);
        self.account.keys.insert(name.clone(), KnownKey { id: key.key_id, version: 1 });
        Ok(name)
    }

    async fn rotate(&mut self, name: &str) -> Result<(), Gone> {
        let version = self.account.keys[name].version;
        let request =
            v1::RotateKeyRequest { key: name.to_owned(), idempotency_token: format!("rotate {name}") };
        let keys = self.admin.keys.clone();
        let rotate = || {
            let (mut keys, request) = (keys.clone(), request.clone());
            async move { keys.rotate_key(request).await }
        };
        let Ok(answer) = answered(rotate).await else {
            self.account.unanswered.push(Unanswered::Rotate(request, version));
            return Err(Gone);
        };
        let key = self.account.acknowledged(answer);
        assert_eq!(key.current_version, version + 1);
        self.account.keys.get_mut(name).expect("only known keys are rotated").version = version + 1;
        Ok(())
    }

    async fn use_key(&mut self, name: &str) -> Result<(), Gone> {
        let crypto = self.app.crypto.clone();
        let generate = || {
            let mut crypto = crypto.clone();
            let (key, context) = (name.to_owned(), context());
            let request =
                v1::GenerateDataKeyRequest { key, context, ..v1::GenerateDataKeyRequest::default() };
            async move { crypto.generate_data_key(request).await }
        };
        let made = answered(generate).await?;
        let made = self.account.acknowledged(made);
        self.keep(Kept { is_data_key: true, ciphertext: made.ciphertext, plaintext: made.plaintext }).await?;

        let plaintext = format!("a sentence for {name}").into_bytes();
        let encrypt = || {
            let mut crypto = crypto.clone();
            let (key, plaintext) = (name.to_owned(), plaintext.clone());
            let request = v1::EncryptRequest { key, plaintext, context: context() };
            async move { crypto.encrypt(request).await }
        };
        let made = answered(encrypt).await?;
        let made = self.account.acknowledged(made);
        self.keep(Kept { is_data_key: false, ciphertext: made.ciphertext, plaintext }).await
    }

    /// Remembers a ciphertext and opens it.
    async fn keep(&mut self, kept: Kept) -> Result<(), Gone> {
        self.account.kept.push(kept.clone());
        self.open(&kept).await
    }

    async fn open(&mut self, kept: &Kept) -> Result<(), Gone> {
        let (plaintext, request_id) = open(&self.app, kept).await?;
        self.account.requests.push(request_id);
        assert!(plaintext == kept.plaintext, "a ciphertext opens to its plaintext");
        Ok(())
    }
}

/// The id under which an answered call is in the log.
pub fn request_id<T>(answer: &Response<T>) -> String {
    let id = answer.metadata().get("x-request-id").expect("an answer has a request id");
    id.to_str().expect("a request id is text").to_owned()
}

/// Opens a ciphertext, and gives the plaintext and the request id.
async fn open(app: &Rpc, kept: &Kept) -> Result<(Vec<u8>, String), Gone> {
    let expected_key = String::new;
    if kept.is_data_key {
        let opened = answered(|| {
            let (mut crypto, ciphertext) = (app.crypto.clone(), kept.ciphertext.clone());
            let request = v1::DecryptDataKeyRequest {
                ciphertext,
                context: context(),
                expected_key: expected_key(),
                recipient: None,
            };
            async move { crypto.decrypt_data_key(request).await }
        })
        .await?;
        let request_id = request_id(&opened);
        Ok((opened.into_inner().plaintext, request_id))
    } else {
        let opened = answered(|| {
            let (mut crypto, ciphertext) = (app.crypto.clone(), kept.ciphertext.clone());
            let request = v1::DecryptRequest { ciphertext, context: context(), expected_key: expected_key() };
            async move { crypto.decrypt(request).await }
        })
        .await?;
        let request_id = request_id(&opened);
        Ok((opened.into_inner().plaintext, request_id))
    }
}

/// Opens a ciphertext on a server that is there.
pub async fn opened(app: &Rpc, kept: &Kept) -> Vec<u8> {
    open(app, kept).await.unwrap_or_else(|Gone| panic!("the server is gone")).0
}
