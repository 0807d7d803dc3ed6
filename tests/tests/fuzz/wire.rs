//! Byte formats of our own: ciphertexts, wrapped keys, encrypted files, frames, leaves and exports of the log.

use crate::made::Made;
use crate::random::Random;
use crate::target::Target;
use kms_client::audit::{ExportReader, ExportWriter, Frame, verify_export};
use kms_client::context;
use kms_client::file::{FileHeader, open_bytes};
use kms_core::asymmetric::PrivateKey;
use kms_core::audit::open_leaves;
use kms_core::codec;
use kms_core::envelope::{self, Binding, Purpose, WrappedKey};
use kms_core::id::{KeyId, KeyVersion, TenantName};
use kms_core::raw::{IV_LEN, Padding, RawAlgorithm, RawInput, RawParts};
use kms_core::secret::Secret;
use kms_core::suite::{AeadAlgorithm, Suite};
use kms_core::worker::{self, FRAME_HEADER_LEN, ToWorker};

/// The hexadecimal lines of a document that begin so.
fn vectors(document: &str, start: &str) -> Vec<Vec<u8>> {
    let byte = |pair: &[u8]| {
        let pair = str::from_utf8(pair).expect("ASCII");
        u8::from_str_radix(pair, 16).expect("hexadecimal")
    };
    let lines = document.lines().filter(|line| line.starts_with(start));
    lines.map(|line| line.as_bytes().chunks(2).map(byte).collect()).collect()
}

pub fn targets() -> Vec<Target> {
    let mut targets =
        vec![ciphertexts(), wrapped_keys(), leaves(), exports(), frames(), file_headers(), files()];
    targets.extend(AeadAlgorithm::ALL.map(opened_ciphertexts));
    targets.extend(RawAlgorithm::ALL.map(raw_ciphertexts));
    targets.push(triple_des_keys());
    targets.extend(secrets_in_ciphertexts());
    targets.extend([Suite::Sm, Suite::Intl].map(sealed_to_a_key));
    targets
}

fn ciphertexts() -> Target {
    let examples = vectors(include_str!("../../../docs/formats/ciphertext.md"), "4b4d5343");
    Target::new("ciphertext", examples, |bytes| match envelope::open(bytes) {
        Ok(ciphertext) => {
            assert_eq!(envelope::join(&ciphertext.header, ciphertext.body), bytes);
            true
        }
        Err(_) => false,
    })
}

/// A ciphertext under a wrapped key opens only as it was made.
fn opened_ciphertexts(algorithm: AeadAlgorithm) -> Target {
    let name = format!("ciphertext opened, {}", algorithm.name());
    let mut random = Random::new(0, &name);
    let tenant = TenantName::parse("default").expect("a name");
    let context = context([("file", "payroll.csv")]).expect("a context");
    let material = vec![9; algorithm.key_len()];
    let example = |purpose, plaintext: &[u8], random: &mut Random| {
        let (key, binding) =
            ((KeyId([7; 16]), KeyVersion::FIRST), Binding { tenant: &tenant, context: &context });
        envelope::seal_wrapped(&material, purpose, algorithm, key, binding, plaintext, random)
    };
    let examples = vec![
        example(Purpose::Data, b"attack at dawn", &mut random),
        example(Purpose::DataKey, b"", &mut random),
    ];
    let originals = examples.clone();
    Target::new(name, examples, move |bytes| {
        let Ok(ciphertext) = envelope::open(bytes) else { return false };
        let binding = Binding { tenant: &tenant, context: &context };
        let is_open = envelope::open_wrapped(&material, &ciphertext, binding).is_ok();
        assert!(!is_open || originals.iter().any(|one| one == bytes), "a changed ciphertext opens");
        is_open
    })
}

/// A raw ciphertext, as initialization vector, tag and blocks in a row. With a tag it opens only as it was made. Without
/// one, what opens has padding, and is what the blocks hold without it.
fn raw_ciphertexts(algorithm: RawAlgorithm) -> Target {
    let key: Vec<u8> = (1..=algorithm.key_len() as u8).map(|byte| byte.wrapping_mul(37)).collect();
    let (iv_len, tag_len) = (algorithm.iv_len(), algorithm.tag_len());
    let examples: Vec<Vec<u8>> = match algorithm.encrypts() {
        true => [&b""[..], b"attack at dawn", &[7; 48]]
            .into_iter()
            .map(|plaintext| {
                let sealed = algorithm.seal(&key, &[9; IV_LEN], b"data", plaintext).expect("it encrypts");
                [&[9; IV_LEN][..], &sealed.tag, &sealed.ciphertext].concat()
            })
            .collect(),
        false => vec![TRIPLE_DES.to_vec()],
    };
    let originals = examples.clone();
    let open = move |bytes: &[u8], padding| {
        let (iv, rest) = bytes.split_at_checked(iv_len)?;
        let (tag, ciphertext) = rest.split_at_checked(tag_len)?;
        let associated_data = if algorithm.encrypts() { &b"data"[..] } else { b"" };
        let parts = RawParts { padding, iv, associated_data, ciphertext, tag };
        RawInput::new(algorithm, parts).ok()?.open(&key).ok()
    };
    Target::new(format!("raw ciphertext opened, {algorithm}"), examples, move |bytes| {
        let opened = open(bytes, Padding::Pkcs7);
        let whole = open(bytes, Padding::None);
        if algorithm.encrypts() {
            assert!(
                opened.is_none() || originals.iter().any(|one| one == bytes),
                "a changed ciphertext opens"
            );
            assert!(whole.is_none(), "the padding is that of the construction");
        } else if let Some(opened) = &opened {
            let whole = whole.expect("it opens without looking at the padding");
            let (text, fill) = whole.expose().split_at(opened.expose().len());
            assert!(text == opened.expose() && (1..=8).contains(&fill.len()));
            assert!(fill.iter().all(|byte| usize::from(*byte) == fill.len()));
        }
        opened.is_some()
    })
}

/// By OpenSSL: `attack at dawn` under the key that byte i is 37 times i + 1.
const TRIPLE_DES: [u8; 24] = [
    0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0xe2, 0xe9, 0x91, 0xff, 0xef, 0xc6, 0x98, 0xda, 0x0c,
    0xe0, 0x4d, 0xbc, 0x27, 0xd2, 0x31, 0x01,
];

/// Three keys of DES: what the parity bits are does not matter, and a part is not its neighbour's.
fn triple_des_keys() -> Target {
    let check = |key: &[u8]| key.len() == 24 && RawAlgorithm::TripleDes.check_key(key).is_ok();
    let example: Vec<u8> = (1..=24_u8).map(|byte| byte.wrapping_mul(37)).collect();
    let two_parts = [&example[..16], &example[..8]].concat();
    let single = [&example[..8], &example[..16]].concat();
    let other_parity = |key: &[u8]| key.iter().map(|byte| byte ^ 1).collect::<Vec<u8>>();
    Target::new("key of 3DES", vec![example, two_parts], move |key| {
        let is_taken = check(key);
        assert_eq!(check(&other_parity(key)), is_taken);
        if is_taken {
            let [first, second, third] = [0, 8, 16].map(|place| other_parity(&key[place..place + 8]));
            let is_same =
                |one: &[u8], other: &[u8]| one.iter().zip(other).all(|(one, other)| one ^ other < 2);
            assert!(!is_same(&first, &second) && !is_same(&second, &third));
        }
        is_taken
    })
    .near(vec![single])
}

fn wrapped_keys() -> Target {
    let examples = vectors(include_str!("../../../docs/formats/database.md"), "0100000003");
    Target::new("wrapped key", examples, |bytes| match WrappedKey::open(bytes) {
        Ok(wrapped) => {
            assert_eq!(wrapped.to_bytes(), bytes);
            true
        }
        Err(_) => false,
    })
}

/// What stands inside a ciphertext of a data key or a pair.
fn secrets_in_ciphertexts() -> [Target; 2] {
    let examples = AeadAlgorithm::ALL.map(|algorithm| {
        envelope::data_key_plaintext(algorithm, &vec![7; algorithm.key_len()]).expose().to_vec()
    });
    let data_key = Target::new("data key", examples.into(), |bytes| {
        let Ok((algorithm, key)) = envelope::open_data_key(&Secret::new(bytes.to_vec())) else {
            return false;
        };
        assert_eq!(envelope::data_key_plaintext(algorithm, key.expose()).expose(), bytes);
        true
    });
    let pkcs8 = include_bytes!("../../../kms-core/src/pair/vectors/sm2.pkcs8.der");
    let example =
        envelope::data_key_pair_plaintext(kms_core::pair::PairAlgorithm::Sm2, pkcs8).expose().to_vec();
    let pair = Target::new("private half of a pair", vec![example], |bytes| {
        let Ok((algorithm, key)) = envelope::open_data_key_pair(&Secret::new(bytes.to_vec())) else {
            return false;
        };
        assert_eq!(envelope::data_key_pair_plaintext(algorithm, key.expose()).expose(), bytes);
        true
    });
    [data_key, pair]
}

/// A share or a secret that is encrypted to a key. SM2 has a second form of nothing: what opens is what was sealed.
fn sealed_to_a_key(suite: Suite) -> Target {
    let name = format!("sealed to a key, {}", suite.name());
    let mut random = Random::new(0, &name);
    let key = PrivateKey::generate(suite, &mut random);
    let example = key.public_key().seal(suite, b"context", &[7; 32], &mut random).expect("seals");
    Target::new(name, vec![example], move |bytes| match key.open(b"context", bytes) {
        Ok(secret) => {
            assert_eq!(secret.expose(), [7; 32]);
            true
        }
        Err(_) => false,
    })
}

fn leaves() -> Target {
    let made = Made::new(Suite::Sm);
    let mut example = Vec::new();
    made.leaves().iter().for_each(|leaf| leaf.write(&mut example));
    Target::new("leaves of a segment", vec![example, Vec::new()], |bytes| match open_leaves(bytes) {
        Ok(leaves) => {
            let mut again = Vec::new();
            leaves.iter().for_each(|leaf| leaf.write(&mut again));
            assert_eq!(again, bytes);
            true
        }
        Err(_) => false,
    })
}

/// Taken: it verifies as a log. Its frames are read also when it does not.
fn exports() -> Target {
    let mut made = Made::new(Suite::Intl);
    let spool = tempfile::tempfile().expect("a temporary file");
    let mut writer = ExportWriter::new(Vec::new(), spool).expect("begins");
    writer.checkpoint(&codec::to_bytes(&made.signed_checkpoint())).expect("writes");
    writer.segment(&codec::to_bytes(&made.segment())).expect("writes");
    let example = writer.finish().expect("ends");
    let root = made.head().root;
    Target::new("export of the log", vec![example], move |bytes| {
        if let Ok(mut reader) = ExportReader::new(bytes) {
            let mut again = bytes[..8].to_vec();
            let mut add = |kind: u8, payload: &[u8]| {
                again.push(kind);
                again.extend((payload.len() as u32).to_be_bytes());
                again.extend(payload);
            };
            let end = loop {
                match reader.next_frame() {
                    Ok(Some(Frame::Segment(segment))) => add(1, &codec::to_bytes(&segment)),
                    Ok(Some(Frame::Checkpoint(checkpoint))) => add(2, &codec::to_bytes(&checkpoint)),
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error.to_string()),
                }
            };
            assert!(bytes.starts_with(&again) && (end.is_err() || again == bytes));
        }
        match verify_export(bytes, &made.bundle) {
            Ok(summary) => {
                let head = summary.verified.head;
                assert!(head.size == 0 || head.root == root, "another log verifies");
                true
            }
            Err(error) => {
                let _ = error.to_string();
                false
            }
        }
    })
}

/// A frame to a worker: its announced length is its length.
fn frames() -> Target {
    let example = worker::to_frame(&ToWorker::Withdraw { stream: 5 }).expose().to_vec();
    Target::new("frame to a worker", vec![example], |bytes| {
        let Some((header, body)) = bytes.split_first_chunk::<FRAME_HEADER_LEN>() else { return false };
        match worker::body_len(*header) {
            Ok(len) if len == body.len() => match codec::open::<ToWorker>(body) {
                Ok(message) => {
                    assert_eq!(worker::to_frame(&message).expose(), bytes);
                    true
                }
                Err(_) => false,
            },
            Ok(len) => {
                assert!((1..=worker::FRAME_LEN_MAX).contains(&len));
                false
            }
            Err(_) => false,
        }
    })
}

fn file_vectors() -> Vec<Vec<u8>> {
    vectors(include_str!("../../../docs/formats/file.md"), "4b4d5346")
}

/// Both formats; the context stands in the header and is read by its own parser.
fn file_headers() -> Target {
    Target::new("header of a file", file_vectors(), |bytes| {
        let mut rest = bytes;
        match FileHeader::read(&mut rest) {
            Ok(header) => {
                let header = header.to_bytes();
                assert_eq!([&header, rest].concat(), bytes);
                true
            }
            Err(error) => {
                let _ = error.to_string();
                false
            }
        }
    })
}

/// A file under the data key of the vectors opens only as it was made.
fn files() -> Target {
    let originals = file_vectors();
    Target::new("file", originals.clone(), move |bytes| {
        let mut rest = bytes;
        let Ok(header) = FileHeader::read(&mut rest) else { return false };
        let data_key = Secret::new((0..header.algorithm().key_len() as u8).collect());
        let is_open = open_bytes(&header, &data_key, rest).is_ok();
        assert!(!is_open || originals.iter().any(|one| one == bytes), "a changed file opens");
        is_open
    })
}
