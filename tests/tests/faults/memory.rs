//! Looking for secrets in the memory of a process, as its machine's administrator could.

use crate::scan::{Hit, Scanner};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

/// How much is read at a time.
const PIECE_LEN: usize = 4 << 20;
/// How many bytes around a hit are described.
const AROUND_LEN: usize = 64;

/// One mapping of `/proc/PID/maps`.
struct Mapping {
    start: u64,
    end: u64,
    line: String,
}

/// A secret in memory.
#[derive(Debug)]
pub struct MemoryHit {
    /// Which secret, and its address as offset.
    pub hit: Hit,
    /// The mapping's line.
    pub mapping: String,
    /// The bytes around it: `.` for zero, a letter for itself, `?` for any other.
    pub around: String,
}

/// Everything that a scanner finds in the readable memory of a process.
///
/// # Panics
/// When the memory cannot be read.
pub fn scan(process: u32, scanner: &Scanner) -> Vec<MemoryHit> {
    let path = format!("/proc/{process}/mem");
    let memory = File::open(&path).unwrap_or_else(|error| {
        panic!("{path} cannot be opened ({error}); this test reads the server's memory and must run as root")
    });
    let overlap = scanner.needle_len_max();
    let mut hits = Vec::new();
    let mut read_len = 0;
    for mapping in readable(process) {
        let mut start = mapping.start;
        while start < mapping.end {
            let len = usize::try_from(mapping.end - start).map_or(PIECE_LEN, |left| left.min(PIECE_LEN));
            let mut piece = vec![0; len];
            // A page that a driver or the kernel keeps for itself, and a mapping that has just gone.
            let Ok(len) = memory.read_at(&mut piece, start) else { break };
            piece.truncate(len);
            read_len += len;
            for mut hit in scanner.find(&piece) {
                let around = around(&piece, hit.offset);
                hit.offset += usize::try_from(start).expect("addresses fit");
                hits.push(MemoryHit { hit, mapping: mapping.line.clone(), around });
            }
            if len <= overlap || start + len as u64 >= mapping.end {
                break;
            }
            start += (len - overlap) as u64;
        }
    }
    assert!(read_len > 1 << 20, "only {read_len} bytes of process {process} could be read");
    hits
}

/// Readable mappings, without those of the kernel.
fn readable(process: u32) -> Vec<Mapping> {
    let path = format!("/proc/{process}/maps");
    let maps = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    maps.lines()
        .filter(|line| line.split(' ').nth(1).is_some_and(|rights| rights.starts_with('r')))
        .filter(|line| !line.ends_with("[vvar]") && !line.ends_with("[vsyscall]"))
        .map(|line| {
            let (start, rest) = line.split_once('-').expect("a range");
            let end = rest.split(' ').next().expect("its end");
            let address = |text| u64::from_str_radix(text, 16).expect("an address");
            Mapping { start: address(start), end: address(end), line: line.to_owned() }
        })
        .collect()
}

fn around(piece: &[u8], offset: usize) -> String {
    let start = offset.saturating_sub(AROUND_LEN);
    let end = (offset + 2 * AROUND_LEN).min(piece.len());
    piece[start..end]
        .iter()
        .map(|byte| match byte {
            0 => '.',
            byte if byte.is_ascii_graphic() || *byte == b' ' => char::from(*byte),
            _ => '?',
        })
        .collect()
}
