//! Items of a `Batch` or a `Stream`: each is a call of its own in everything but its message.

use super::{Gate, crypto, overloaded, status};
use crate::service::{Caller, Node, ServiceError};
use kms_core::policy::Action;
use kms_proto::v1::{self, batch_item::Item, batch_result};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Most items of one batch.
pub const ITEMS_MAX: usize = 100;
/// How much longer than its request the answer to a batch may be, in bytes: an item's answer repeats what it was asked
/// about, and adds at most a key id, a signature or a refusal. A batch that was accepted is never too long to answer.
pub const ANSWERS_GROWTH_MAX: usize = ITEMS_MAX * 2048;
/// Most bytes of a refusal's sentence in a result. It names what was asked for, so it can be long.
const MESSAGE_LEN_MAX: usize = 1024;
/// What a batch keeps of its time for its answer: its items' results would otherwise be ready when nobody waits any more.
const ANSWER_TIME_MAX: Duration = Duration::from_millis(200);

/// The items of a batch.
///
/// # Errors
/// `FIELD_INVALID` when there are none, or too many.
pub fn parse(request: v1::BatchRequest) -> Result<Vec<v1::BatchItem>, ServiceError> {
    match request.items.len() {
        1..=ITEMS_MAX => Ok(request.items),
        len => Err(ServiceError::field("items", format!("has {len} items; 1 to {ITEMS_MAX} are allowed"))),
    }
}

/// The caller of one item: the same principal, an id and a deadline of the item's own. Items count from 1.
pub fn caller_of_item(caller: &Caller, number: u64, deadline: Instant) -> Caller {
    Caller {
        principal: caller.principal.clone(),
        request_id: format!("{}/{number}", caller.request_id),
        deadline,
    }
}

impl Gate {
    /// Does all items at the same time and gives their results in their order.
    pub(super) async fn run_batch(self, caller: &Caller, items: Vec<v1::BatchItem>) -> Vec<v1::BatchResult> {
        let left = caller.deadline.saturating_duration_since(Instant::now());
        let deadline = caller.deadline - (left / 10).min(ANSWER_TIME_MAX);
        let mut results: Vec<v1::BatchResult> = Vec::new();
        results.resize_with(items.len(), v1::BatchResult::default);
        let mut running = JoinSet::new();
        for (place, item) in items.into_iter().enumerate() {
            let (gate, caller) = (self.clone(), caller_of_item(caller, place as u64 + 1, deadline));
            running.spawn(async move { (place, gate.run_item(caller, item).await) });
        }
        while let Some(ended) = running.join_next().await {
            // What an item does runs in a task of its own, whose panic is a refusal like any other.
            let (place, result) = ended.expect("an item's result is only waited for");
            results[place] = result;
        }
        results
    }

    /// Does one item, as soon as the listener has a place for it.
    pub(super) async fn run_item(&self, caller: Caller, item: v1::BatchItem) -> v1::BatchResult {
        use batch_result::Result as Done;
        macro_rules! run {
            ($method:literal, $action:ident, $work:ident, $done:ident, $message:expr) => {{
                let call = ($method, Action::$action);
                self.run_as_call(call, caller, crypto::$work, $message, Done::$done).await
            }};
        }
        match item.item {
            Some(Item::GenerateDataKey(message)) => {
                run!("Crypto.GenerateDataKey", GenerateDataKey, generate_data_key, GenerateDataKey, message)
            }
            Some(Item::DecryptDataKey(message)) => {
                run!("Crypto.DecryptDataKey", DecryptDataKey, decrypt_data_key, DecryptDataKey, message)
            }
            Some(Item::Encrypt(message)) => run!("Crypto.Encrypt", Encrypt, encrypt, Encrypt, message),
            Some(Item::Decrypt(message)) => run!("Crypto.Decrypt", Decrypt, decrypt, Decrypt, message),
            Some(Item::ReEncrypt(message)) => {
                run!("Crypto.ReEncrypt", ReEncrypt, re_encrypt, ReEncrypt, message)
            }
            Some(Item::GenerateMac(message)) => {
                run!("Crypto.GenerateMac", GenerateMac, generate_mac, GenerateMac, message)
            }
            Some(Item::VerifyMac(message)) => {
                run!("Crypto.VerifyMac", VerifyMac, verify_mac, VerifyMac, message)
            }
            Some(Item::Sign(message)) => run!("Crypto.Sign", Sign, sign, Sign, message),
            Some(Item::AsymmetricEncrypt(message)) => run!(
                "Crypto.AsymmetricEncrypt",
                AsymmetricEncrypt,
                asymmetric_encrypt,
                AsymmetricEncrypt,
                message
            ),
            Some(Item::AsymmetricDecrypt(message)) => run!(
                "Crypto.AsymmetricDecrypt",
                AsymmetricDecrypt,
                asymmetric_decrypt,
                AsymmetricDecrypt,
                message
            ),
            Some(Item::Verify(message)) => run!("Crypto.Verify", Verify, verify, Verify, message),
            None => {
                let message = "must be one of the calls that a batch can hold";
                let refused = move |_, _, ()| async move { Err(ServiceError::field("item", message)) };
                let never = |never: Infallible| match never {};
                self.run_as_call(("Crypto.Batch", Action::Batch), caller, refused, (), never).await
            }
        }
    }

    async fn run_as_call<M, T, R>(
        &self,
        call: (&'static str, Action),
        caller: Caller,
        work: impl FnOnce(Arc<Node>, Caller, M) -> R,
        message: M,
        done: impl FnOnce(T) -> batch_result::Result,
    ) -> v1::BatchResult
    where
        T: Send + 'static,
        R: Future<Output = Result<T, ServiceError>> + Send + 'static,
    {
        let (start, request_id) = (Instant::now(), caller.request_id.clone());
        let deadline = tokio::time::Instant::from_std(caller.deadline);
        let result = match tokio::time::timeout_at(deadline, self.items.clone().acquire_owned()).await {
            Ok(Ok(place)) => {
                let work = work(self.node.clone(), caller.clone(), message);
                self.perform(call, caller, place, work).await
            }
            // Nothing was begun.
            Ok(Err(_)) | Err(_) => Err(overloaded()),
        };
        self.count(call.0, start, &result, &request_id);
        let result = match result {
            Ok(message) => done(message),
            Err(error) => batch_result::Result::Error(refusal(&error, request_id)),
        };
        v1::BatchResult { result: Some(result) }
    }
}

/// An item's refusal, with what the status of its own call would carry.
fn refusal(error: &ServiceError, request_id: String) -> v1::BatchError {
    let end = error.message.floor_char_boundary(MESSAGE_LEN_MAX);
    v1::BatchError {
        code: status::code(error.reason).into(),
        reason: error.reason.name().into(),
        message: error.message[..end].into(),
        field: error.field.unwrap_or_default().into(),
        retry_delay: error.retry_after.and_then(|after| after.try_into().ok()),
        request_id,
    }
}
