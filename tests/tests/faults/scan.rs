//! Looking for secrets in bytes, in every form in which they usually get out.

use std::fs;
use std::path::{Path, PathBuf};

/// Shorter needles would be found by chance.
const NEEDLE_LEN_MIN: usize = 8;

/// A secret and what it is called in messages. Never printed itself.
pub struct KnownSecret {
    /// What it is.
    pub name: String,
    /// The secret.
    pub bytes: Vec<u8>,
}

impl KnownSecret {
    /// Names a secret.
    pub fn new(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), bytes: bytes.into() }
    }
}

/// One form of one secret.
struct Needle {
    name: String,
    form: &'static str,
    bytes: Vec<u8>,
}

/// A place where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// Which secret.
    pub name: String,
    /// In which form.
    pub form: &'static str,
    /// Where it begins.
    pub offset: usize,
}

/// Finds any of many needles in one pass.
pub struct Scanner {
    needles: Vec<Needle>,
    /// Needles by their first two bytes.
    by_start: Vec<Vec<usize>>,
}

impl Scanner {
    /// Looks for every form that bytes have in files and logs: as they are, hexadecimal, base64, the lists of
    /// numbers that `{:?}` and `{:x?}` print, and the escapes of byte strings.
    pub fn of_all_forms(secrets: &[KnownSecret]) -> Self {
        let forms = secrets.iter().flat_map(|secret| {
            let needle = |form, bytes| Needle { name: secret.name.clone(), form, bytes };
            let bytes = &secret.bytes;
            let mut forms = vec![
                needle("raw bytes", bytes.clone()),
                needle("lower-case hexadecimal", hexadecimal(bytes).into_bytes()),
                needle("upper-case hexadecimal", hexadecimal(bytes).to_uppercase().into_bytes()),
                needle("a byte string", bytes.escape_ascii().to_string().into_bytes()),
                needle("a byte string of Bytes", escaped_as_bytes_do(bytes)),
            ];
            for separator in [", ", ","] {
                let mut list = |form, number: fn(&u8) -> String| {
                    let numbers: Vec<String> = bytes.iter().map(number).collect();
                    forms.push(needle(form, numbers.join(separator).into_bytes()));
                };
                list("a list of numbers", u8::to_string);
                list("a list of hexadecimal numbers", |byte| format!("{byte:x}"));
                list("a list of hexadecimal numbers", |byte| format!("{byte:X}"));
                list("a list of hexadecimal numbers", |byte| format!("{byte:02x}"));
                list("a list of hexadecimal numbers", |byte| format!("{byte:02X}"));
                list("a list of hexadecimal numbers", |byte| format!("{byte:#x}"));
                list("a list of hexadecimal numbers", |byte| format!("{byte:#04x}"));
            }
            let pairs: [fn(&u8) -> String; 2] = [|byte| format!("{byte:02x}"), |byte| format!("{byte:02X}")];
            for number in pairs {
                let numbers: Vec<String> = bytes.iter().map(number).collect();
                forms.push(needle("hexadecimal with colons", numbers.join(":").into_bytes()));
            }
            for before in 0..3 {
                forms.push(needle("base64", base64_inside(bytes, before, b"+/")));
                forms.push(needle("base64 for URLs", base64_inside(bytes, before, b"-_")));
            }
            forms
        });
        Self::new(forms.collect())
    }

    /// Looks for the bytes alone: what is in memory was not written for people.
    pub fn of_bytes(secrets: &[KnownSecret]) -> Self {
        let needles = secrets.iter().map(|secret| Needle {
            name: secret.name.clone(),
            form: "raw bytes",
            bytes: secret.bytes.clone(),
        });
        Self::new(needles.collect())
    }

    fn new(needles: Vec<Needle>) -> Self {
        let mut by_start = vec![Vec::new(); 1 << 16];
        for (place, needle) in needles.iter().enumerate() {
            let len = needle.bytes.len();
            assert!(len >= NEEDLE_LEN_MIN, "{} as {} has {len} bytes only", needle.name, needle.form);
            by_start[usize::from(u16::from_be_bytes([needle.bytes[0], needle.bytes[1]]))].push(place);
        }
        Self { needles, by_start }
    }

    /// The longest needle.
    pub fn needle_len_max(&self) -> usize {
        self.needles.iter().map(|needle| needle.bytes.len()).max().unwrap_or_default()
    }

    /// Every hit in some bytes.
    pub fn find(&self, bytes: &[u8]) -> Vec<Hit> {
        let mut hits = Vec::new();
        for (offset, start) in bytes.windows(2).enumerate() {
            for place in &self.by_start[usize::from(u16::from_be_bytes([start[0], start[1]]))] {
                let needle = &self.needles[*place];
                if bytes[offset..].starts_with(&needle.bytes) {
                    hits.push(Hit { name: needle.name.clone(), form: needle.form, offset });
                }
            }
        }
        hits
    }

    /// Every hit in a file, also across line breaks.
    pub fn find_in_file(&self, path: &Path) -> Vec<Hit> {
        let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut hits = self.find(&bytes);
        let joined: Vec<u8> = bytes.into_iter().filter(|byte| !byte.is_ascii_whitespace()).collect();
        for hit in self.find(&joined) {
            let is_known = hits.iter().any(|other| (&other.name, other.form) == (&hit.name, hit.form));
            if !is_known {
                hits.push(hit);
            }
        }
        hits
    }
}

/// Every file in a folder and the folders in it.
pub fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let entry = entry.expect("an entry");
        match entry.file_type().expect("its type") {
            kind if kind.is_dir() => files.extend(files_in(&entry.path())),
            kind if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    files
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What `{:?}` of the crate `bytes` prints between its quotes. Unlike the standard library it writes zero short
/// and leaves the single quote alone.
fn escaped_as_bytes_do(bytes: &[u8]) -> Vec<u8> {
    let escape = |byte: &u8| match byte {
        0 => b"\\0".to_vec(),
        b'\'' => vec![b'\''],
        other => std::ascii::escape_default(*other).collect(),
    };
    bytes.iter().flat_map(escape).collect()
}

/// The base64 digits that depend on `bytes` alone when `before` other bytes stand in front of them.
fn base64_inside(bytes: &[u8], before: usize, last_two: &[u8; 2]) -> Vec<u8> {
    let digits: Vec<u8> =
        (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').chain(last_two.iter().copied()).collect();
    let bit = |place: usize| bytes[place / 8] >> (7 - place % 8) & 1;
    let (first, end) = (8 * before, 8 * (before + bytes.len()));
    (first.div_ceil(6)..end / 6)
        .map(|digit| (0..6).fold(0, |value, place| value << 1 | bit(6 * digit + place - first)))
        .map(|value| digits[usize::from(value)])
        .collect()
}

#[test]
fn the_scanner_finds_every_form_of_a_secret_and_nothing_else() {
    let secret = [0x00, 0x10, 0x83, 0x10, 0x51, 0x87, 0x20, 0x92, 0x8b, 0xfb, 0xff, 0xfe];
    let scanner = Scanner::of_all_forms(&[KnownSecret::new("planted", secret)]);
    let planted: [(&[u8], &str); 16] = [
        (&secret, "raw bytes"),
        (b"x00108310518720928bfbfffe", "lower-case hexadecimal"),
        (b"00108310518720928BFBFFFE;", "upper-case hexadecimal"),
        (b"[1, 0, 16, 131, 16, 81, 135, 32, 146, 139, 251, 255, 254]", "a list of numbers"),
        (b"[0,16,131,16,81,135,32,146,139,251,255,254]", "a list of numbers"),
        // Made with coreutils' base64, with no, one and two bytes in front.
        (b"ABCDEFGHIJKL+//+", "base64"),
        (b"eAAQgxBRhyCSi/v//g==", "base64"),
        (b"eHgAEIMQUYcgkov7//4=", "base64"),
        (b"ABCDEFGHIJKL-__-", "base64 for URLs"),
        (br#"b"\x00\x10\x83\x10Q\x87 \x92\x8b\xfb\xff\xfe""#, "a byte string"),
        (br#"b"\0\x10\x83\x10Q\x87 \x92\x8b\xfb\xff\xfe""#, "a byte string of Bytes"),
        (b"[0, 10, 83, 10, 51, 87, 20, 92, 8b, fb, ff, fe]", "a list of hexadecimal numbers"),
        (b"[00, 10, 83, 10, 51, 87, 20, 92, 8B, FB, FF, FE]", "a list of hexadecimal numbers"),
        (b"0x0,0x10,0x83,0x10,0x51,0x87,0x20,0x92,0x8b,0xfb,0xff,0xfe", "a list of hexadecimal numbers"),
        (
            b"[0x00, 0x10, 0x83, 0x10, 0x51, 0x87, 0x20, 0x92, 0x8b, 0xfb, 0xff, 0xfe]",
            "a list of hexadecimal numbers",
        ),
        (b"00:10:83:10:51:87:20:92:8b:fb:ff:fe", "hexadecimal with colons"),
    ];
    for (bytes, form) in planted {
        let hits = scanner.find(bytes);
        assert!(hits.iter().any(|hit| hit.form == form), "{form} is found in {bytes:?}, not {hits:?}");
    }
    assert_eq!(scanner.find(b"001083105187209 28bfbfffe and ABCDEFGHIJKM"), []);
}
