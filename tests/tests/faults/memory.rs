//! Looking for secrets in the memory of a process, as its machine's administrator could.

use crate::scan::{Hit, Scanner};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

/// How much is read at a time.
const PIECE_LEN: usize = 4 << 20;
/// How many bytes around a hit are described.
const AROUND_LEN: usize = 64;
/// What is stepped over when it cannot be read.
const PAGE_LEN: u64 = 4096;
/// Of this many bytes that were read, one may have been stepped over.
const READ_FOR_ONE_SKIPPED: u64 = 200;

/// One mapping of `/proc/PID/maps`.
struct Mapping {
    start: u64,
    end: u64,
    is_writable: bool,
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
/// When the memory cannot be read, or too much of it.
pub fn scan(process: u32, scanner: &Scanner) -> Vec<MemoryHit> {
    let path = format!("/proc/{process}/mem");
    let memory = File::open(&path).unwrap_or_else(|error| {
        panic!("{path} cannot be opened ({error}); this test reads the server's memory and must run as root")
    });
    let overlap = scanner.needle_len_max();
    let mut hits = Vec::new();
    let mut read_len: u64 = 0;
    let mut skipped = Vec::new();
    for mapping in readable(process) {
        let mut start = mapping.start;
        // The end of what was read just before `start`, so that a secret across the border is found.
        let mut piece: Vec<u8> = Vec::new();
        while start < mapping.end {
            let before = piece.len();
            let wanted = usize::try_from(mapping.end - start).map_or(PIECE_LEN, |left| left.min(PIECE_LEN));
            piece.resize(before + wanted, 0);
            let len = memory.read_at(&mut piece[before..], start).unwrap_or(0);
            if len == 0 {
                // A page that a driver or the kernel keeps for itself, or a mapping that has just gone.
                skipped.push(start);
                start += PAGE_LEN;
                piece.clear();
                continue;
            }
            piece.truncate(before + len);
            let piece_start = usize::try_from(start).expect("addresses fit") - before;
            for mut hit in scanner.find(&piece) {
                let around = around(&piece, hit.offset);
                hit.offset += piece_start;
                hits.push(MemoryHit { hit, mapping: mapping.line.clone(), around });
            }
            start += len as u64;
            read_len += len as u64;
            piece = piece.split_off(piece.len().saturating_sub(overlap));
        }
    }
    assert!(read_len > 1 << 20, "only {read_len} bytes of process {process} could be read");
    check_skipped(process, &memory, &skipped, read_len);
    hits
}

/// What was stepped over is nearly nothing of the memory that the process can write to, or is gone by now.
fn check_skipped(process: u32, memory: &File, skipped: &[u64], read_len: u64) {
    let still: Vec<Mapping> = readable(process).into_iter().filter(|mapping| mapping.is_writable).collect();
    let mapping_of = |page: u64| still.iter().find(|mapping| (mapping.start..mapping.end).contains(&page));
    // What can be read now is another mapping in the place of one that went.
    let is_unreadable = |page: &&u64| memory.read_at(&mut [0], **page).unwrap_or(0) == 0;
    let mappings: Vec<&str> = skipped
        .iter()
        .filter(is_unreadable)
        .filter_map(|page| mapping_of(*page).map(|mapping| mapping.line.as_str()))
        .collect();
    let skipped_len = mappings.len() as u64 * PAGE_LEN;
    assert!(
        skipped_len * READ_FOR_ONE_SKIPPED <= read_len,
        "{skipped_len} bytes of process {process} cannot be read, {read_len} can; the last is in {:?}",
        mappings.last()
    );
}

/// Readable mappings, without those of the kernel.
fn readable(process: u32) -> Vec<Mapping> {
    let path = format!("/proc/{process}/maps");
    let maps = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    maps.lines()
        .filter(|line| !line.contains("[vvar") && !line.ends_with("[vsyscall]"))
        .filter_map(|line| {
            let rights = line.split(' ').nth(1).expect("rights");
            if !rights.starts_with('r') {
                return None;
            }
            let (start, rest) = line.split_once('-').expect("a range");
            let end = rest.split(' ').next().expect("its end");
            let address = |text| u64::from_str_radix(text, 16).expect("an address");
            let is_writable = rights.contains('w');
            Some(Mapping { start: address(start), end: address(end), is_writable, line: line.to_owned() })
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
