//! Streams through the client library: memory that does not grow with the length, and with `KMS_DEEP=1` 1 GiB
//! and its rate beside the bare cipher. One test, so that this process's peak of memory is that of the streams.

mod ends;
mod rate;

use ends::{Compared, Generated};
use kms_client::file::CHUNK_LEN;
use kms_client::{CacheLimits, CachingClient, Client, EnvelopeError, KeyRef, Profile, context};
use kms_core::suite::AeadAlgorithm;
use kms_tests::{Deployment, Options};

const MIB: u64 = 1 << 20;
/// Long enough that everything that is made once has been made.
const SHORT: u64 = 8 * MIB;
/// What [`SHORT`] is compared with.
const LONG: u64 = 64 * MIB;
/// And with `KMS_DEEP=1`.
const DEEP: u64 = 1024 * MIB;
/// The peak may differ by so many chunks: the allocator's pages and the threads' stacks are not exact.
const GROWTH_MAX_CHUNKS: u64 = 16;
/// No peak hides a stream that is held: what this process needs at all, in bytes.
const PEAK_MAX: u64 = 32 * MIB;

/// The most resident memory that this process ever had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux says how a process is");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the peak of memory");
    let kib = line.split_whitespace().next().expect("a number").parse::<u64>().expect("in KiB");
    kib * 1024
}

/// Encrypts `len` bytes into a pipe and decrypts what comes out of it, at the same time.
async fn there_and_back(cache: &CachingClient, key: &KeyRef, len: u64) {
    let (read, write) = std::io::pipe().expect("a pipe");
    let context = context([("stream", "1")]).expect("a context");
    // The writer's end is closed when all is encrypted: the end of a file is the end of its input.
    let encrypt = async {
        let written = cache.encrypt_stream(key, &context, Some(len), Generated::new(len), write).await?;
        drop(written);
        Ok::<(), EnvelopeError>(())
    };
    let decrypt = cache.decrypt_stream(&context, Some(key), read, Compared::new());
    let (decrypted, encrypted) = tokio::join!(decrypt, encrypt);
    let decrypted = decrypted.expect("decrypts to what was encrypted");
    encrypted.expect("encrypts");
    assert_eq!(decrypted.len(), len);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_needs_as_much_memory_however_long_it_is() {
    let is_deep = std::env::var_os("KMS_DEEP").is_some();
    let long = if is_deep { DEEP } else { LONG };
    let deployment = Deployment::start(Options::default());
    let profile = Profile::load(&deployment.profile("app")).expect("the profile loads");
    let client = Client::builder(&profile).connect().await.expect("connects");
    let cache = CachingClient::new(client, CacheLimits::default());
    let mut results = Vec::new();
    for algorithm in [AeadAlgorithm::Aes256Gcm, AeadAlgorithm::Sm4Gcm] {
        let name = algorithm.name();
        deployment.kms("admin", &["key", "create", name, "--spec", name]).done();
        let key = KeyRef::parse(name).expect("a name");
        there_and_back(&cache, &key, SHORT).await;
        let short_peak = peak();
        there_and_back(&cache, &key, long).await;
        let long_peak = peak();
        let growth = long_peak - short_peak;
        eprintln!("{name}: {short_peak} bytes at the peak of {SHORT}, {growth} more for {long}");
        assert!(
            growth <= GROWTH_MAX_CHUNKS * CHUNK_LEN as u64,
            "{name}: {long} bytes need {growth} bytes more than {SHORT} do"
        );
        assert!(long_peak <= PEAK_MAX, "{name}: {long_peak} bytes");
        results.push((algorithm, key, long_peak, growth));
    }
    // Afterwards, because what is decrypted here is held.
    for (algorithm, key, peak, growth) in results.into_iter().filter(|_| is_deep) {
        let rate = rate::measure(cache.client(), &key, algorithm, long).await;
        let result = serde_json::json!({
            "algorithm": algorithm.name(),
            "bytes": long,
            "peak_memory_bytes": peak,
            "peak_memory_growth_bytes": growth,
            "seal_of_bare_cipher": rate.seal,
            "open_of_bare_cipher": rate.open,
            "rounds": rate::ROUNDS,
        });
        println!("DEEP-RESULT {result}");
    }
}
