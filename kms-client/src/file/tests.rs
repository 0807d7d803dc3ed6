use super::*;
use crate::crypto::WrappedDataKey;
use aead_stream::StreamPrimitive;
use aes_gcm::aead::Payload;
use kms_core::suite::Suite;

const DOCUMENT: &str = include_str!("../../../docs/formats/file.md");

fn context(pairs: &[(&str, &str)]) -> EncryptionContext {
    let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    EncryptionContext::new(pairs).expect("a valid context")
}

fn header(algorithm: AeadAlgorithm) -> FileHeader {
    let context = context(&[("file", "payroll.csv")]);
    FileHeader::new(algorithm, [0x0a; SALT_LEN], context, b"wrapped".to_vec()).expect("a short wrapped key")
}

fn data_key(algorithm: AeadAlgorithm) -> Secret {
    Secret::new((0..algorithm.key_len() as u8).collect())
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|position| (position % 251) as u8).collect()
}

/// [`NewFile`] as the service's answer would make it, but with a salt that is not random.
fn new_file(header: FileHeader) -> NewFile {
    let algorithm = header.algorithm();
    let wrapped = WrappedDataKey {
        key_id: KeyId([7; 16]),
        key_version: KeyVersion::FIRST,
        spec: algorithm,
        ciphertext: b"wrapped".to_vec(),
    };
    let data_key = DataKey { plaintext: data_key(algorithm), wrapped };
    NewFile { header, data_key: Arc::new(data_key) }
}

fn sealed(algorithm: AeadAlgorithm, plaintext: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let len = new_file(header(algorithm)).seal(plaintext, &mut out).expect("seals");
    assert_eq!(len, plaintext.len() as u64);
    let bytes = new_file(header(algorithm)).seal_bytes(plaintext).expect("seals");
    assert!(bytes == out, "in memory and as a stream it is the same file");
    out
}

/// A file of format 1, which is written no more.
fn sealed_in_format_1(algorithm: AeadAlgorithm, plaintext: &[u8]) -> Vec<u8> {
    let header = FileHeader { start: Start::NoncePrefix([0x0a; 7]), ..header(algorithm) };
    let (mut out, key) = (header.to_bytes(), data_key(algorithm));
    let chunks = Chunks { key: key.expose(), nonce_prefix: &[0x0a; 7], header: &header.to_bytes() };
    let source = Slices::new(plaintext, CHUNK_LEN);
    match algorithm {
        AeadAlgorithm::Aes256Gcm => chunks.seal::<AesGcm<Aes256, U12>>(source, &mut out),
        AeadAlgorithm::Sm4Gcm => chunks.seal::<AesGcm<Sm4, U12>>(source, &mut out),
        AeadAlgorithm::Aes128Gcm => chunks.seal::<AesGcm<Aes128, U12>>(source, &mut out),
        AeadAlgorithm::Aes192Gcm => chunks.seal::<AesGcm<Aes192, U12>>(source, &mut out),
    }
    .expect("seals");
    out
}

fn opened(algorithm: AeadAlgorithm, mut file: &[u8]) -> Result<Vec<u8>, FileError> {
    let header = FileHeader::read(&mut file)?;
    let mut out = Vec::new();
    let result = open(&header, &data_key(algorithm), file, &mut out);
    let in_memory = open_bytes(&header, &data_key(algorithm), file);
    assert_eq!(result.is_ok(), in_memory.is_ok(), "in memory and as a stream it is the same refusal");
    assert_eq!(result?, out.len() as u64);
    assert!(in_memory?.expose() == out, "in memory and as a stream it is the same plaintext");
    Ok(out)
}

/// Bytes before the first chunk.
fn header_len() -> usize {
    header(AeadAlgorithm::Aes256Gcm).to_bytes().len() + COMMITMENT_LEN
}

/// Header, and the chunks one by one.
fn parts(file: &[u8]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let (header, chunks) = file.split_at(header_len());
    (header.to_vec(), chunks.chunks(CHUNK_LEN + TAG_LEN).map(<[u8]>::to_vec).collect())
}

fn is_damaged(result: Result<Vec<u8>, FileError>) -> bool {
    matches!(result, Err(FileError::Damaged))
}

/// Origin: docs/formats/file.md; made by a program that shares no code with this one. A failure means that
/// stored files no longer open.
#[test]
fn the_vectors_of_the_document_are_written_and_read() {
    let is_in_document = |text: &str| DOCUMENT.lines().any(|line| line == text);
    type Seal = fn(AeadAlgorithm, &[u8]) -> Vec<u8>;
    for (seal, long_len) in [(sealed as Seal, 196_767), (sealed_in_format_1, 196_726)] {
        for algorithm in AeadAlgorithm::ALL {
            for plaintext in [&b"attack at dawn"[..], b""] {
                let file = seal(algorithm, plaintext);
                assert!(is_in_document(&base16ct::lower::encode_string(&file)), "{algorithm:?}");
                assert_eq!(opened(algorithm, &file).expect("opens"), plaintext);
            }
            let plaintext = pattern(3 * CHUNK_LEN + 1);
            let long = seal(algorithm, &plaintext);
            assert_eq!(long.len(), long_len);
            assert!(is_in_document(&Suite::Intl.hash(&[&long]).to_hex()), "{algorithm:?}");
            assert!(opened(algorithm, &long).expect("opens") == plaintext);
        }
    }
}

#[test]
fn every_length_around_a_chunk_comes_back() {
    for algorithm in AeadAlgorithm::ALL {
        for len in
            [0, 1, CHUNK_LEN - 1, CHUNK_LEN, CHUNK_LEN + 1, 2 * CHUNK_LEN, 3 * CHUNK_LEN, 3 * CHUNK_LEN + 7]
        {
            let plaintext = pattern(len);
            let file = sealed(algorithm, &plaintext);
            let chunk_count = len.div_ceil(CHUNK_LEN).max(1);
            assert_eq!(file.len(), header_len() + len + chunk_count * TAG_LEN);
            assert!(opened(algorithm, &file).expect("opens") == plaintext, "{len} bytes");
        }
    }
}

/// Gives one byte, then an interruption, then one byte: the worst that a pipe can do.
struct Trickle<'a> {
    rest: &'a [u8],
    interrupt: bool,
}

impl Read for Trickle<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.interrupt = !self.interrupt;
        if self.interrupt {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let count = out.len().min(self.rest.len()).min(1);
        out[..count].copy_from_slice(&self.rest[..count]);
        self.rest = &self.rest[count..];
        Ok(count)
    }
}

#[test]
fn a_reader_that_gives_single_bytes_changes_nothing() {
    let plaintext = pattern(CHUNK_LEN + 1);
    let mut file = Vec::new();
    let input = Trickle { rest: &plaintext, interrupt: false };
    new_file(header(AeadAlgorithm::Aes256Gcm)).seal(input, &mut file).expect("seals");
    assert!(file == sealed(AeadAlgorithm::Aes256Gcm, &plaintext));
    let mut input = Trickle { rest: &file, interrupt: false };
    let read = FileHeader::read(&mut input).expect("a header");
    let mut out = Vec::new();
    open(&read, &data_key(AeadAlgorithm::Aes256Gcm), input, &mut out).expect("opens");
    assert!(out == plaintext);
}

#[test]
fn every_flipped_bit_of_a_small_file_is_found() {
    for algorithm in AeadAlgorithm::ALL {
        for file in [sealed(algorithm, b"attack at dawn"), sealed_in_format_1(algorithm, b"attack at dawn")] {
            for position in 0..file.len() {
                for bit in 0..8 {
                    let mut changed = file.clone();
                    changed[position] ^= 1 << bit;
                    assert!(opened(algorithm, &changed).is_err(), "bit {bit} of byte {position}");
                }
            }
        }
    }
}

#[test]
fn a_flipped_bit_in_any_chunk_of_a_long_file_is_found() {
    let file = sealed(AeadAlgorithm::Aes256Gcm, &pattern(2 * CHUNK_LEN + 5));
    for position in [header_len(), header_len() + CHUNK_LEN + TAG_LEN, file.len() - 1] {
        let mut changed = file.clone();
        changed[position] ^= 0x80;
        assert!(is_damaged(opened(AeadAlgorithm::Aes256Gcm, &changed)), "byte {position}");
    }
}

#[test]
fn every_truncation_is_found() {
    let file = sealed(AeadAlgorithm::Aes256Gcm, b"attack at dawn");
    for len in 0..file.len() {
        assert!(opened(AeadAlgorithm::Aes256Gcm, &file[..len]).is_err(), "{len} bytes");
    }
    let (header, chunks) = parts(&sealed(AeadAlgorithm::Aes256Gcm, &pattern(3 * CHUNK_LEN)));
    for chunk_count in 0..chunks.len() {
        let cut = [header.clone(), chunks[..chunk_count].concat()].concat();
        assert!(is_damaged(opened(AeadAlgorithm::Aes256Gcm, &cut)), "{chunk_count} whole chunks");
    }
}

#[test]
fn appended_bytes_are_found() {
    for len in [0, 5, CHUNK_LEN - 1, CHUNK_LEN, 2 * CHUNK_LEN] {
        let file = sealed(AeadAlgorithm::Sm4Gcm, &pattern(len));
        let last_chunk = parts(&file).1.pop().expect("a chunk");
        for tail in [vec![0], vec![0; TAG_LEN], last_chunk, vec![7; CHUNK_LEN + TAG_LEN]] {
            let extended = [file.clone(), tail].concat();
            assert!(is_damaged(opened(AeadAlgorithm::Sm4Gcm, &extended)), "{len} bytes");
        }
    }
}

#[test]
fn moved_repeated_and_removed_chunks_are_found() {
    let (header, chunks) = parts(&sealed(AeadAlgorithm::Aes256Gcm, &pattern(4 * CHUNK_LEN)));
    for order in [[1, 0, 2, 3], [0, 2, 1, 3], [0, 1, 3, 2], [0, 0, 2, 3], [0, 1, 1, 3]] {
        let moved = order.iter().fold(header.clone(), |file, at| [file, chunks[*at].clone()].concat());
        assert!(is_damaged(opened(AeadAlgorithm::Aes256Gcm, &moved)), "{order:?}");
    }
    for removed in 0..4 {
        let mut fewer = chunks.clone();
        fewer.remove(removed);
        assert!(
            is_damaged(opened(AeadAlgorithm::Aes256Gcm, &[header.clone(), fewer.concat()].concat())),
            "{removed}"
        );
    }
}

/// The worst case: the same data key and salt, which never happens, and still another header.
#[test]
fn a_chunk_of_another_file_is_found() {
    let algorithm = AeadAlgorithm::Aes256Gcm;
    let (header_bytes, mut chunks) = parts(&sealed(algorithm, &pattern(2 * CHUNK_LEN)));
    let other = FileHeader { context: context(&[("file", "bonuses.csv")]), ..header(algorithm) };
    let other_file = new_file(other).seal_bytes(&pattern(2 * CHUNK_LEN)).expect("seals");
    chunks[1] = parts(&other_file).1.remove(1);
    assert!(is_damaged(opened(algorithm, &[header_bytes, chunks.concat()].concat())));
}

/// A full chunk and then an empty last one would be a second way to write the same plaintext.
#[test]
fn an_empty_last_chunk_behind_a_full_one_is_refused() {
    let algorithm = AeadAlgorithm::Aes256Gcm;
    let header = header(algorithm);
    let bytes = header.to_bytes();
    let key = FileKey::derive(algorithm, &data_key(algorithm), &[0x0a; SALT_LEN], &bytes);
    let chunks = Chunks { key: key.key(), nonce_prefix: &key.nonce_prefix(), header: &bytes };
    let stream = chunks.stream::<AesGcm<Aes256, U12>>().expect("a key of that length");
    let mut encryptor = stream.encryptor();
    let full = pattern(CHUNK_LEN);
    let first = encryptor.encrypt_next(Payload { msg: &full, aad: &bytes }).expect("encrypts");
    let last = encryptor.encrypt_last(Payload { msg: b"", aad: &bytes }).expect("encrypts");
    let file = [bytes.clone(), key.commitment().to_vec(), first, last].concat();
    assert!(is_damaged(opened(algorithm, &file)));
}

#[test]
fn another_key_or_one_of_another_length_opens_nothing() {
    let file = sealed(AeadAlgorithm::Aes256Gcm, b"attack at dawn");
    let mut rest = file.as_slice();
    let read = FileHeader::read(&mut rest).expect("a header");
    let mut out = Vec::new();
    let wrong = Secret::new(vec![9; 32]);
    assert!(matches!(open(&read, &wrong, rest, &mut out), Err(FileError::Damaged)));
    assert!(out.is_empty(), "nothing is written before a chunk is verified");
    let short = Secret::new(vec![0; 16]);
    assert!(matches!(open(&read, &short, rest, &mut out), Err(FileError::KeyLength)));
}

#[test]
fn a_header_of_another_kind_format_or_chunk_length_is_refused() {
    let file = sealed(AeadAlgorithm::Aes256Gcm, b"x");
    let changed = |position: usize, value: u8| {
        let mut file = file.clone();
        file[position] = value;
        FileHeader::read(&mut file.as_slice()).map(|_| ())
    };
    assert!(matches!(changed(0, b'X'), Err(FileError::NotEncrypted)));
    assert!(matches!(changed(7, 3), Err(FileError::FormatUnknown { format: 3 })));
    assert!(matches!(changed(9, 5), Err(FileError::Damaged)), "unknown algorithm");
    assert!(matches!(changed(9, 16), Err(FileError::Damaged)), "a number of the registry that is no AEAD");
    assert!(matches!(changed(11, 2), Err(FileError::Damaged)), "other chunk length");
    assert!(matches!(FileHeader::read(&mut &b""[..]), Err(FileError::NotEncrypted)));
    let wrapped =
        |len| FileHeader::new(AeadAlgorithm::Sm4Gcm, [0; SALT_LEN], context(&[]), vec![0; len]).map(|_| ());
    assert!(matches!(wrapped(0), Err(FileError::WrappedKeyLength { len: 0 })));
    assert!(matches!(wrapped(4097), Err(FileError::WrappedKeyLength { len: 4097 })));
}

#[test]
fn a_context_that_is_not_canonical_is_refused() {
    for pairs in [&[][..], &[("a", "")], &[("a", "1"), ("b", "2")], &[("密", "钥")]] {
        let made = context(pairs);
        assert_eq!(parse_context(&made.to_canonical()), Some(made));
    }
    let wrong: [&[u8]; 7] = [
        b"",
        b"\0",
        b"\0\x01",
        b"\0\x02\0\x01b\0\x012\0\x01a\0\x011",
        b"\0\x02\0\x01a\0\x011\0\x01a\0\x011",
        b"\0\x01\0\x01a\0\x011more",
        b"\0\x01\0\x01\xff\0\x011",
    ];
    for bytes in wrong {
        assert_eq!(parse_context(bytes), None, "{bytes:?}");
    }
}

#[test]
fn the_largest_context_fits_into_a_header() {
    let pairs: Vec<(String, String)> =
        (0..16).map(|number| (format!("{number:02}"), "x".repeat(510))).collect();
    let context = EncryptionContext::new(pairs).expect("the most that is allowed");
    let made = FileHeader::new(AeadAlgorithm::Sm4Gcm, [1; SALT_LEN], context, vec![5; WRAPPED_KEY_LEN_MAX])
        .expect("fits");
    let bytes = made.to_bytes();
    assert_eq!(FileHeader::read(&mut bytes.as_slice()).expect("reads"), made);
}

struct Failing;

impl Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Other.into())
    }
}

impl Write for Failing {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn failures_to_read_and_to_write_are_told_apart() {
    let (header, key) = (header(AeadAlgorithm::Sm4Gcm), data_key(AeadAlgorithm::Sm4Gcm));
    let seal =
        |input: Box<dyn Read>, mut output: Box<dyn Write>| new_file(header.clone()).seal(input, &mut output);
    assert!(matches!(seal(Box::new(Failing), Box::new(io::sink())), Err(FileError::Read(_))));
    assert!(matches!(seal(Box::new(&b"x"[..]), Box::new(Failing)), Err(FileError::Write(_))));
    assert!(matches!(open(&header, &key, Failing, &mut Vec::new()), Err(FileError::Read(_))));
}

/// Under format 1 these two would be the same nonces under the same key.
#[test]
fn two_files_under_one_data_key_have_nothing_in_common_but_the_header() {
    let plaintext = pattern(1000);
    let data_key = new_file(header(AeadAlgorithm::Aes256Gcm)).data_key;
    let seal = || {
        let new =
            NewFile::new(Arc::clone(&data_key), context(&[("file", "payroll.csv")])).expect("random bytes");
        new.seal_bytes(&plaintext).expect("seals")
    };
    let (one, two) = (seal(), seal());
    assert_ne!(one[14..14 + SALT_LEN], two[14..14 + SALT_LEN], "each has its own salt");
    assert_eq!(one[30..header_len() - COMMITMENT_LEN], two[30..header_len() - COMMITMENT_LEN]);
    let equal = one[header_len() - COMMITMENT_LEN..].iter().zip(&two[header_len() - COMMITMENT_LEN..]);
    let equal = equal.filter(|(one, two)| one == two).count();
    assert!(equal < 30, "{equal} of about 1,050 bytes are equal; 4 are expected by chance");
    // The commitment and the chunks of one do not open behind the salt of the other.
    let mixed = [&two[..30], &one[30..]].concat();
    assert!(is_damaged(opened(AeadAlgorithm::Aes256Gcm, &mixed)));
    let mixed = [&two[..header_len()], &one[header_len()..]].concat();
    assert!(is_damaged(opened(AeadAlgorithm::Aes256Gcm, &mixed)));
}

/// GCM alone would open some ciphertexts under two keys.
#[test]
fn a_wrong_commitment_is_refused_though_every_chunk_would_open() {
    let mut file = sealed(AeadAlgorithm::Sm4Gcm, b"attack at dawn");
    file[header_len() - 1] ^= 1;
    assert!(is_damaged(opened(AeadAlgorithm::Sm4Gcm, &file)));
}

#[test]
fn nothing_of_a_new_file_is_shown_by_debug() {
    let shown = format!("{:?}", new_file(header(AeadAlgorithm::Aes256Gcm)));
    assert!(shown.contains("Secret(32 bytes)"), "{shown}");
    assert!(!shown.contains("0, 1, 2, 3, 4"), "{shown}");
}
