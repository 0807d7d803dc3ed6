//! What the library writes to `tracing`: enough to find a slow node, and never a secret.

use crate::support::service::{Service, refusal};
use kms_client::{CacheLimits, CachingClient, Client, KeyRef, Profile, Reason, context};
use kms_core::suite::Suite;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use tonic::Code;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Memory {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Memory {
    type Writer = Memory;

    fn make_writer(&self) -> Memory {
        self.clone()
    }
}

/// Everything that this process traces, of the transport too.
fn traced(work: impl AsyncFnOnce()) -> String {
    let memory = Memory::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_span_events(FmtSpan::CLOSE)
        .with_ansi(false)
        .with_writer(memory.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(work());
    memory.text()
}

#[test]
fn a_call_is_a_span_with_its_name_node_tries_and_outcome() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let service = Service::start(folder.path(), Suite::Intl);
    service.refuse([refusal(Code::ResourceExhausted, Reason::Overloaded, "too many calls")]);
    let text = traced(async || {
        let profile = Profile::load(&folder.path().join("profile.toml")).expect("the profile loads");
        let client = Client::builder(&profile).connect().await.expect("connects");
        let key = KeyRef::parse("payroll").expect("a valid name");
        client.describe_key(&key).await.expect("the second try succeeds");
        service.refuse([refusal(Code::NotFound, Reason::KeyNotFound, "no such key")]);
        client.describe_key(&key).await.expect_err("it is refused");
    });
    let endpoint = format!("endpoint=\"https://{}\"", service.address);
    let closed = |outcome: &str, try_count: u32| {
        text.lines().any(|line| {
            let parts = [
                "call=\"DescribeKey\"",
                &format!("try_count={try_count}"),
                &format!("outcome=\"{outcome}\""),
            ];
            line.contains("close") && parts.iter().all(|part| line.contains(part))
        })
    };
    assert!(closed("done", 2) && closed("KEY_NOT_FOUND", 1), "{text}");
    assert!(text.contains(&endpoint) && text.contains("try failed"), "{text}");
}

#[test]
fn nothing_that_is_traced_holds_a_data_key_or_plaintext() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let _service = Service::start(folder.path(), Suite::Intl);
    let plaintext = b"attack at dawn";
    let mut secrets = vec![plaintext.to_vec()];
    let text = traced(async || {
        let profile = Profile::load(&folder.path().join("profile.toml")).expect("the profile loads");
        let client = Client::builder(&profile).connect().await.expect("connects");
        let (key, context) =
            (KeyRef::parse("payroll").expect("a name"), context([("a", "1")]).expect("pairs"));
        let data_key = client.generate_data_key(&key, None, &context).await.expect("a data key");
        secrets.push(data_key.plaintext.expose().to_vec());
        let cache = CachingClient::new(client.clone(), CacheLimits::default());
        let encrypted = cache.encrypt(&key, plaintext, &context).await.expect("encrypts");
        cache.decrypt(&encrypted, &context, None).await.expect("decrypts");
        let sealed = client.encrypt(&key, plaintext, &context).await.expect("encrypts");
        client.decrypt(&sealed.bytes, &context, None).await.expect("decrypts");
        tracing::info!(?cache, ?data_key, "what an application may do");
    });
    assert!(text.contains("call=\"GenerateDataKey\"") && text.contains("a new data key"), "{text}");
    let lower = text.to_lowercase();
    for secret in &secrets {
        // Six bytes, as hexadecimal, as a list of numbers, and as text.
        let part = &secret[..6];
        let hex: String = part.iter().map(|byte| format!("{byte:02x}")).collect();
        let list = part.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
        assert!(!lower.contains(&hex) && !lower.contains(&list), "a secret is in the trace");
        assert!(!text.contains(String::from_utf8_lossy(part).as_ref()), "a secret is in the trace");
    }
}
