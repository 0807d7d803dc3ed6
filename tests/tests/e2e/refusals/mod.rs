//! Every refusal that a caller can provoke on an unsealed service: the documented reason, code and field, and
//! a record of it in the log.

mod asymmetric;
mod attributes;
mod batches;
mod crypto;
mod data_key_pairs;
mod imports;
mod keys;
mod life;
mod macs;
mod raw;
mod recipients;
mod reencryption;
mod registered;
mod requests;
mod roles;
mod signatures;
mod specs;
mod tampering;

use kms_core::pair::PairAlgorithm;
use kms_core::reason::Reason;
use kms_proto::v1;
use kms_tests::rpc::refused;
use kms_tests::{Deployment, Options, Refused, Rpc, audit};
use std::sync::OnceLock;
use tonic::{Response, Status};

/// Every kind of key pair.
const PAIRS: [(v1::KeySpec, PairAlgorithm); 8] = [
    (v1::KeySpec::Rsa2048, PairAlgorithm::Rsa2048),
    (v1::KeySpec::Rsa3072, PairAlgorithm::Rsa3072),
    (v1::KeySpec::Rsa4096, PairAlgorithm::Rsa4096),
    (v1::KeySpec::EcP256, PairAlgorithm::P256),
    (v1::KeySpec::EcP384, PairAlgorithm::P384),
    (v1::KeySpec::EcP521, PairAlgorithm::P521),
    (v1::KeySpec::Ed25519, PairAlgorithm::Ed25519),
    (v1::KeySpec::Sm2, PairAlgorithm::Sm2),
];
const PROTECTIONS: [v1::Protection; 2] = [v1::Protection::HsmResident, v1::Protection::HsmWrapped];

/// One deployment for the whole module. Every test uses key names of its own.
fn deployment() -> &'static Deployment {
    static SHARED: OnceLock<Deployment> = OnceLock::new();
    SHARED.get_or_init(|| Deployment::start(Options::default()))
}

async fn admin() -> Rpc {
    Rpc::connect(deployment(), "admin").await
}

async fn app() -> Rpc {
    Rpc::connect(deployment(), "app").await
}

async fn make_key(name: &str, protection: v1::Protection) -> v1::Key {
    let request = v1::CreateKeyRequest {
        name: name.to_owned(),
        spec: v1::KeySpec::Sm4.into(),
        protection: protection.into(),
        ..Default::default()
    };
    admin().await.keys.create_key(request).await.expect("creates").into_inner()
}

fn pair(key: &str, value: &str) -> v1::ContextPair {
    v1::ContextPair { key: key.to_owned(), value: value.to_owned() }
}

/// Collects refusals and looks all their records up at once.
#[derive(Debug, Default)]
struct Expected(Vec<(Refused, &'static str)>);

impl Expected {
    /// The call was refused with this reason and field.
    #[track_caller]
    fn refusal<T>(&mut self, answer: Result<Response<T>, Status>, reason: &'static str, field: Option<&str>) {
        let refused = refused(answer);
        assert_eq!((refused.reason.as_str(), refused.field.as_deref()), (reason, field), "{refused:?}");
        let documented = Reason::from_name(reason).expect("a reason of docs/errors.md");
        assert_eq!(refused.code, kms_server::grpc::code(documented), "{refused:?}");
        assert!(!refused.message.is_empty() && !refused.request_id.is_empty(), "{refused:?}");
        self.0.push((refused, reason));
    }

    /// Each refusal is in the log under its request id, with its reason and field, and the log verifies.
    async fn are_all_recorded(self) {
        let entries = audit::records_from(deployment(), 0).await;
        for (refused, reason) in &self.0 {
            let of_request = |entry: &&kms_tests::LogEntry| entry.record.request_id == refused.request_id;
            let found: Vec<_> = entries.iter().filter(of_request).collect();
            let [entry] = found.as_slice() else {
                panic!("{} records of the refusal {refused:?}: {found:?}", found.len());
            };
            assert!(entry.is_refusal(reason), "{entry:?} is not the record of {refused:?}");
            assert_eq!(entry.detail("field"), refused.field.as_deref(), "{entry:?}");
        }
        audit::verify(deployment());
    }
}
