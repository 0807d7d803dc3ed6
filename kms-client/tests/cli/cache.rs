//! The cache of data keys against a service: what it saves, and what it must never do.

use crate::support::service::{Service, refusal};
use kms_client::{
    CacheLimits, CachingClient, Client, EncryptionContext, EnvelopeError, KeyRef, Profile, Reason, context,
};
use kms_core::suite::Suite;
use std::future::Future;
use std::io::Cursor;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tonic::Code;

struct Setup {
    folder: TempDir,
    service: Service,
}

fn setup() -> Setup {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let service = Service::start(folder.path(), Suite::Intl);
    Setup { folder, service }
}

impl Setup {
    fn cached<T, F: Future<Output = T>>(
        &self,
        limits: CacheLimits,
        work: impl FnOnce(CachingClient) -> F,
    ) -> T {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let profile = Profile::load(&self.folder.path().join("profile.toml")).expect("the profile loads");
            let client = Client::builder(&profile).deadline(Duration::from_secs(30)).connect().await;
            work(CachingClient::new(client.expect("connects"), limits)).await
        })
    }

    fn count(&self, call: &str) -> usize {
        self.service.script().calls.iter().filter(|one| **one == call).count()
    }

    fn generated(&self) -> usize {
        self.count("generate_data_key")
    }
}

fn payroll() -> KeyRef {
    KeyRef::parse("payroll").expect("a valid name")
}

fn hr() -> EncryptionContext {
    context([("department", "hr")]).expect("a valid context")
}

/// The encrypted data key that stands in a message of this context.
fn data_key_of(message: &[u8]) -> &[u8] {
    let context_len = hr().to_canonical().len();
    let len = usize::from(u16::from_be_bytes([message[32 + context_len], message[33 + context_len]]));
    &message[34 + context_len..34 + context_len + len]
}

#[test]
fn many_messages_cost_one_call_each_way_and_come_back() {
    let setup = setup();
    setup.cached(CacheLimits::default(), async |cache| {
        let mut messages = Vec::new();
        for number in 0..50_u8 {
            messages.push(cache.encrypt(&payroll(), &[number; 100], &hr()).await.expect("encrypts"));
        }
        for (number, message) in (0..50_u8).zip(&messages) {
            let opened = cache.decrypt(message, &hr(), Some(&payroll())).await.expect("decrypts");
            assert_eq!(opened.expose(), [number; 100]);
        }
        let counts = cache.counts();
        assert_eq!((counts.entry_count, counts.hit_count, counts.miss_count), (2, 98, 2));
    });
    assert_eq!(setup.service.script().calls, ["generate_data_key", "decrypt_data_key"]);
}

/// The mistake that nothing else can mend: one nonce twice under one key.
#[test]
fn equal_messages_under_one_data_key_are_encrypted_differently() {
    let setup = setup();
    setup.cached(CacheLimits::default(), async |cache| {
        let mut salts = std::collections::HashSet::new();
        let mut bodies = std::collections::HashSet::new();
        for _ in 0..200 {
            let message = cache.encrypt(&payroll(), b"the same text", &hr()).await.expect("encrypts");
            assert!(salts.insert(message[14..30].to_vec()), "a salt came twice");
            assert!(bodies.insert(message[message.len() - 29..].to_vec()), "a ciphertext came twice");
        }
    });
    assert_eq!(setup.generated(), 1);
}

#[test]
fn a_hundred_callers_that_miss_at_once_make_one_call() {
    let setup = setup();
    setup.cached(CacheLimits::default(), async |cache| {
        let mut tasks = JoinSet::new();
        for _ in 0..100 {
            let cache = cache.clone();
            tasks.spawn(async move { cache.encrypt(&payroll(), b"x", &hr()).await.expect("encrypts") });
        }
        let messages = tasks.join_all().await;
        assert_eq!(messages.len(), 100);
        cache.clear();
        let mut tasks = JoinSet::new();
        for message in messages {
            let cache = cache.clone();
            tasks.spawn(async move { cache.decrypt(&message, &hr(), None).await.expect("decrypts") });
        }
        assert_eq!(tasks.join_all().await.len(), 100);
    });
    assert_eq!((setup.generated(), setup.count("decrypt_data_key")), (1, 1));
}

#[test]
fn no_data_key_encrypts_more_messages_than_it_may_however_many_ask_at_once() {
    let setup = setup();
    let limits = CacheLimits { use_count_max: 7, ..CacheLimits::default() };
    let messages = setup.cached(limits, async |cache| {
        let mut tasks = JoinSet::new();
        for _ in 0..100 {
            let cache = cache.clone();
            tasks.spawn(async move { cache.encrypt(&payroll(), b"x", &hr()).await.expect("encrypts") });
        }
        tasks.join_all().await
    });
    let mut uses = std::collections::HashMap::new();
    messages.iter().for_each(|message| *uses.entry(data_key_of(message)).or_insert(0) += 1);
    assert!(uses.values().all(|count| *count <= 7), "{:?}", uses.values());
    assert_eq!(uses.len(), setup.generated());
    assert_eq!(uses.len(), 100_usize.div_ceil(7), "and none is wasted");
}

#[test]
fn no_data_key_encrypts_more_bytes_than_it_may() {
    let setup = setup();
    let limits = CacheLimits { byte_count_max: 1000, ..CacheLimits::default() };
    setup.cached(limits, async |cache| {
        for (len, generated) in [(600, 1), (400, 1), (1, 2), (1000, 3), (1001, 4), (0, 4), (1, 5)] {
            cache.encrypt(&payroll(), &vec![0; len], &hr()).await.expect("encrypts");
            assert_eq!(setup.generated(), generated, "{len} bytes");
        }
    });
}

#[test]
fn a_data_key_is_used_until_its_age_and_then_wiped_though_nobody_calls() {
    let setup = setup();
    let limits = CacheLimits { age_max: Duration::from_millis(600), ..CacheLimits::default() };
    setup.cached(limits, async |cache| {
        let message = cache.encrypt(&payroll(), b"x", &hr()).await.expect("encrypts");
        cache.decrypt(&message, &hr(), None).await.expect("decrypts");
        cache.encrypt(&payroll(), b"y", &hr()).await.expect("encrypts");
        assert_eq!((setup.generated(), cache.counts().entry_count), (1, 2));
        let begin = Instant::now();
        while cache.counts().entry_count > 0 {
            assert!(begin.elapsed() < Duration::from_secs(10), "nobody removes old data keys");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // From then on what the service says about the key counts: that is when a suspension is noticed.
        let suspended = || refusal(Code::FailedPrecondition, Reason::KeyStateForbids, "it is SUSPENDED");
        setup.service.refuse([suspended(), suspended()]);
        let error = cache.encrypt(&payroll(), b"z", &hr()).await.expect_err("it is suspended");
        assert_eq!(error.reason(), Some(Reason::KeyStateForbids));
        let error = cache.decrypt(&message, &hr(), None).await.expect_err("it is suspended");
        assert_eq!(error.reason(), Some(Reason::KeyStateForbids));
        // A refusal is not kept, and the next data key lives as long as the first.
        cache.encrypt(&payroll(), b"z", &hr()).await.expect("it is active again");
        assert_eq!((setup.generated(), cache.counts().entry_count), (3, 1));
    });
}

#[test]
fn the_context_and_the_words_for_the_key_are_part_of_the_place() {
    let setup = setup();
    setup.cached(CacheLimits::default(), async |cache| {
        let other = context([("department", "it")]).expect("a valid context");
        let versioned = KeyRef::parse("payroll@1").expect("a valid reference");
        for (key, context, generated) in
            [(payroll(), hr(), 1), (payroll(), other.clone(), 2), (versioned, hr(), 3), (payroll(), hr(), 3)]
        {
            cache.encrypt(&key, b"x", &context).await.expect("encrypts");
            assert_eq!(setup.generated(), generated);
        }
        let message = cache.encrypt(&payroll(), b"x", &hr()).await.expect("encrypts");
        cache.decrypt(&message, &hr(), None).await.expect("decrypts");
        let error = cache.decrypt(&message, &other, None).await.expect_err("another context");
        assert!(matches!(&error, EnvelopeError::ContextDiffers { found } if *found == hr()), "{error:?}");
        assert_eq!(error.reason(), Some(Reason::CiphertextInvalid));
        // The data key is there, but the service has not said that it is one of that key.
        let salaries = KeyRef::parse("salaries").expect("a valid name");
        let error = cache.decrypt(&message, &hr(), Some(&salaries)).await.expect_err("another key");
        assert_eq!(error.reason(), Some(Reason::KeyMismatch));
    });
}

#[test]
fn the_data_key_that_was_not_used_for_longest_makes_room() {
    let setup = setup();
    let limits = CacheLimits { entry_count_max: 2, ..CacheLimits::default() };
    setup.cached(limits, async |cache| {
        for (name, generated) in [("a", 1), ("b", 2), ("a", 2), ("c", 3), ("a", 3), ("b", 4)] {
            let context = context([("table", name)]).expect("a valid context");
            cache.encrypt(&payroll(), b"x", &context).await.expect("encrypts");
            assert_eq!((setup.generated(), cache.counts().entry_count <= 2), (generated, true), "{name}");
        }
    });
}

#[test]
fn a_limit_of_nothing_keeps_nothing() {
    let zero = CacheLimits::default();
    for limits in [
        CacheLimits { age_max: Duration::ZERO, ..zero },
        CacheLimits { entry_count_max: 0, ..zero },
        CacheLimits { use_count_max: 0, ..zero },
        CacheLimits { use_count_max: 1, ..zero },
        CacheLimits { byte_count_max: 0, ..zero },
    ] {
        let setup = setup();
        setup.cached(limits, async |cache| {
            for _ in 0..3 {
                cache.encrypt(&payroll(), b"x", &hr()).await.expect("encrypts");
            }
            assert_eq!((setup.generated(), cache.counts().entry_count), (3, 0), "{limits:?}");
        });
    }
}

#[test]
fn a_failure_is_shared_by_those_who_waited_and_not_kept() {
    let setup = setup();
    setup.service.refuse([refusal(Code::NotFound, Reason::KeyNotFound, "no such key")]);
    // Otherwise the answer may be there before the others ask.
    setup.service.script().delay = Duration::from_millis(200);
    setup.cached(CacheLimits::default(), async |cache| {
        let (key, context) = (payroll(), hr());
        let ask = || cache.encrypt(&key, b"x", &context);
        let (one, two, three) = tokio::join!(ask(), ask(), ask());
        for result in [one, two, three] {
            let error = result.expect_err("the key does not exist");
            assert_eq!(
                (error.reason(), error.to_string().as_str()),
                (Some(Reason::KeyNotFound), "no such key")
            );
        }
        assert_eq!(setup.generated(), 1, "nobody asked the same again");
        ask().await.expect("the next one asks anew");
        assert_eq!(setup.generated(), 2);
    });
}

#[test]
fn when_the_caller_that_fetches_goes_away_another_goes_on() {
    let setup = setup();
    setup.service.script().hangs = true;
    setup.cached(CacheLimits::default(), async |cache| {
        let spawn = || {
            let cache = cache.clone();
            tokio::spawn(async move { cache.encrypt(&payroll(), b"x", &hr()).await })
        };
        let first = spawn();
        while setup.generated() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let second = spawn();
        tokio::time::sleep(Duration::from_millis(50)).await;
        setup.service.script().hangs = false;
        first.abort();
        second.await.expect("no panic").expect("it asks itself");
        assert_eq!(setup.generated(), 2);
    });
}

#[test]
fn every_changed_byte_of_a_message_is_refused_with_the_data_key_at_hand() {
    let setup = setup();
    setup.cached(CacheLimits::default(), async |cache| {
        let message = cache.encrypt(&payroll(), b"attack at dawn", &hr()).await.expect("encrypts");
        cache.decrypt(&message, &hr(), None).await.expect("decrypts");
        for position in 0..message.len() {
            let mut changed = message.clone();
            changed[position] ^= 1;
            let error = cache.decrypt(&changed, &hr(), None).await.expect_err("it was changed");
            assert_eq!(error.reason(), Some(Reason::CiphertextInvalid), "byte {position}: {error:?}");
            let cut = cache.decrypt(&message[..position], &hr(), None).await.expect_err("it was cut");
            assert_eq!(cut.reason(), Some(Reason::CiphertextInvalid), "{position} bytes");
        }
    });
}

#[test]
fn streams_share_the_data_keys_when_their_length_is_known() {
    let setup = setup();
    setup.cached(CacheLimits::default(), async |cache| {
        let plaintext: Vec<u8> = (0..200_000_u32).map(|number| number as u8).collect();
        let (key, context) = (payroll(), hr());
        let seal =
            |len| cache.encrypt_stream(&key, &context, len, Cursor::new(plaintext.clone()), Vec::new());
        let first = seal(Some(200_000)).await.expect("encrypts");
        let second = seal(Some(200_000)).await.expect("encrypts");
        assert_eq!((setup.generated(), data_key_of(&first) == data_key_of(&second)), (1, true));
        let unknown = seal(None).await.expect("encrypts");
        assert_eq!(setup.generated(), 2, "a stream of unknown length has its own");
        for message in [first, second, unknown] {
            let opened = cache.decrypt_stream(&hr(), None, Cursor::new(message), Vec::new()).await;
            assert!(opened.expect("decrypts") == plaintext);
        }
        assert_eq!(setup.count("decrypt_data_key"), 2);
        let error = seal(Some(199_999)).await.expect_err("it has one byte more");
        assert!(matches!(error, EnvelopeError::LongerThanAnnounced { len: 199_999 }), "{error:?}");
    });
}

#[test]
fn a_file_is_complete_or_not_there_and_kms_reads_it() {
    let setup = setup();
    let path = |name: &str| setup.folder.path().join(name);
    std::fs::write(path("plain"), vec![7; 150_000]).expect("writes");
    setup.cached(CacheLimits::default(), async |cache| {
        cache.encrypt_file(&payroll(), &hr(), &path("plain"), &path("sealed")).await.expect("encrypts");
        cache.decrypt_file(&hr(), None, &path("sealed"), &path("back")).await.expect("decrypts");
        let mut damaged = std::fs::read(path("sealed")).expect("reads");
        *damaged.last_mut().expect("it is not empty") ^= 1;
        std::fs::write(path("damaged"), damaged).expect("writes");
        let before = std::fs::read_dir(setup.folder.path()).expect("lists").count();
        let error =
            cache.decrypt_file(&hr(), None, &path("damaged"), &path("none")).await.expect_err("damaged");
        assert_eq!(error.reason(), Some(Reason::CiphertextInvalid));
        assert_eq!(std::fs::read_dir(setup.folder.path()).expect("lists").count(), before);
    });
    assert_eq!(std::fs::read(path("back")).expect("reads"), vec![7; 150_000]);
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(path("back")).expect("a file"));
    assert_eq!(mode & 0o777, 0o600);
    let mut kms = std::process::Command::new(env!("CARGO_BIN_EXE_kms"));
    kms.args(["--profile", "profile.toml", "decrypt", "--context", "department=hr", "sealed", "by-kms"]);
    assert!(kms.current_dir(setup.folder.path()).output().expect("the command starts").status.success());
    assert_eq!(std::fs::read(path("by-kms")).expect("reads"), vec![7; 150_000]);
}

#[test]
fn debug_of_the_cache_shows_limits_and_counts_and_no_byte_of_a_key() {
    let setup = setup();
    setup.cached(CacheLimits::default(), async |cache| {
        let message = cache.encrypt(&payroll(), b"attack at dawn", &hr()).await.expect("encrypts");
        let opened = cache.decrypt(&message, &hr(), None).await.expect("decrypts");
        assert_eq!(format!("{opened:?}"), "Secret(14 bytes)");
        assert_eq!(
            format!("{cache:?}"),
            "CachingClient { limits: CacheLimits { age_max: 300s, use_count_max: 10000, byte_count_max: 1073741824, \
             entry_count_max: 1000 }, counts: CacheCounts { entry_count: 2, hit_count: 0, miss_count: 2 }, .. }"
        );
        // What the entries are made of.
        let data_key = cache.client().generate_data_key(&payroll(), None, &hr()).await.expect("a data key");
        let (shown, bytes) = (format!("{data_key:?}"), data_key.plaintext.expose().to_vec());
        assert!(shown.contains("plaintext: Secret(32 bytes)"), "{shown}");
        let four = bytes[..4].iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
        assert!(!shown.contains(&four), "{shown}");
    });
}
