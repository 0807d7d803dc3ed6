//! How fast a stream is beside the cipher alone, on chunks of the same length, in the same run.

use crate::ends::Generated;
use aes_gcm::aead::{AeadInOut, KeyInit, Nonce, Tag};
use aes_gcm::aes::Aes256;
use aes_gcm::aes::cipher::consts::U12;
use aes_gcm::{AeadCore, AesGcm, Key};
use kms_client::file::{self, CHUNK_LEN, FileHeader};
use kms_client::{Client, KeyRef, context};
use kms_core::suite::AeadAlgorithm;
use rustix::time::{ClockId, clock_gettime};
use sm4::Sm4;
use std::hint::black_box;
use std::io;

/// Rounds, interleaved; the median of their ratios counts.
pub const ROUNDS: usize = 5;

/// Below this part of the cipher's rate something is wrong with the library, however busy the machine.
const RATE_MIN: f64 = 0.6;

/// Rates of the library as parts of the cipher's.
#[derive(Debug)]
pub struct Rate {
    pub seal: f64,
    pub open: f64,
}

/// Encrypts and decrypts `len` bytes in each round, with the library and with the cipher alone.
///
/// The encrypted bytes are held here for the decryption, in the memory that the library does not need.
pub async fn measure(client: &Client, key: &KeyRef, algorithm: AeadAlgorithm, len: u64) -> Rate {
    let bare = match algorithm {
        AeadAlgorithm::Aes256Gcm => bare::<AesGcm<Aes256, U12>>,
        AeadAlgorithm::Sm4Gcm => bare::<AesGcm<Sm4, U12>>,
        other => panic!("nothing is measured with {other:?}"),
    };
    let context = context([("stream", "1")]).expect("a context");
    let new_file = async || client.new_file(key, context.clone()).await.expect("a data key");
    let mut encrypted = Vec::new();
    new_file().await.seal(Generated::new(len), &mut encrypted).expect("encrypts");
    let mut chunks = encrypted.as_slice();
    let header = FileHeader::read(&mut chunks).expect("a header");
    let opened = client.open_file(&header, Some(key)).await.expect("the data key");
    let (mut seals, mut opens) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let new = new_file().await;
        let seal = seconds(|| {
            let sealed_len = new.seal(Generated::new(len), &mut io::sink()).expect("encrypts");
            assert_eq!(sealed_len, len);
        });
        let open = seconds(|| {
            let opened_len =
                file::open(&header, &opened.plaintext, chunks, &mut io::sink()).expect("decrypts");
            assert_eq!(opened_len, len);
        });
        let bare = bare(len, header.to_bytes().len());
        eprintln!("{algorithm:?}, round {round}: seal {seal:.3} s, open {open:.3} s, {bare:?}");
        seals.push(bare.seal / seal);
        opens.push(bare.open / open);
    }
    let rate = Rate { seal: median(seals), open: median(opens) };
    assert!(rate.seal >= RATE_MIN && rate.open >= RATE_MIN, "{algorithm:?}: {rate:?} of the bare cipher");
    rate
}

/// Seconds of the cipher alone.
#[derive(Debug)]
struct Bare {
    seal: f64,
    open: f64,
}

/// The same number of chunks, each in place, with additional data as long as a header.
fn bare<A: AeadInOut + AeadCore<NonceSize = U12> + KeyInit>(len: u64, header_len: usize) -> Bare {
    let cipher = A::new(&Key::<A>::default());
    let header = vec![7; header_len];
    let chunk_count = u32::try_from(len / CHUNK_LEN as u64).expect("few chunks");
    let mut chunk = vec![0x5a; CHUNK_LEN];
    let nonce = |number: u32| {
        let mut nonce = Nonce::<A>::default();
        nonce[7..11].copy_from_slice(&number.to_be_bytes());
        nonce
    };
    let seal = seconds(|| {
        for number in 0..chunk_count {
            let tag = cipher
                .encrypt_inout_detached(&nonce(number), &header, chunk.as_mut_slice().into())
                .expect("encrypts");
            black_box((&chunk, tag));
        }
    });
    // One chunk that opens, again and again: where the bytes come from is the library's matter.
    let tag: Tag<A> =
        cipher.encrypt_inout_detached(&nonce(0), &header, chunk.as_mut_slice().into()).expect("encrypts");
    let sealed = chunk.clone();
    let mut copying = 0.0;
    let open = seconds(|| {
        for _ in 0..chunk_count {
            copying += seconds(|| chunk.copy_from_slice(&sealed));
            cipher
                .decrypt_inout_detached(&nonce(0), &header, chunk.as_mut_slice().into(), &tag)
                .expect("decrypts");
            black_box(&chunk);
        }
    });
    Bare { seal, open: open - copying }
}

/// The processor's time of this thread that `work` takes: other programs of this machine do not count.
fn seconds(work: impl FnOnce()) -> f64 {
    let now = || {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
    };
    let start = now();
    work();
    now() - start
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
