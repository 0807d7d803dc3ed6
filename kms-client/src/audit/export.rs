//! Export files: writing, reading and verifying them, in memory that does not grow with the log.

use kms_core::audit::{AuditFault, Record, Segment, SignedCheckpoint, Verified, Verifier};
use kms_core::bundle::Bundle;
use kms_core::codec::{self, CodecError};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};

const MAGIC: &[u8; 8] = b"KMSAUDIT";
const SEGMENT: u8 = 1;
const CHECKPOINT: u8 = 2;
/// Longest frame, in bytes; a segment has about 1 MiB.
const FRAME_LEN_MAX: u32 = 16 * 1024 * 1024;

/// Writes an export file: checkpoints as they come, segments by way of a spool file.
#[derive(Debug)]
pub struct ExportWriter<W> {
    output: W,
    spool: BufWriter<File>,
}

impl<W: Write> ExportWriter<W> {
    /// Begins a file. `spool` is an empty file, open for reading and writing.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn new(mut output: W, spool: File) -> io::Result<Self> {
        output.write_all(MAGIC)?;
        Ok(Self { output, spool: BufWriter::new(spool) })
    }

    /// Adds a signed checkpoint.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn checkpoint(&mut self, bytes: &[u8]) -> io::Result<()> {
        write_frame(&mut self.output, CHECKPOINT, bytes)
    }

    /// Adds the next segment.
    ///
    /// # Errors
    /// The spool file cannot be written.
    pub fn segment(&mut self, bytes: &[u8]) -> io::Result<()> {
        write_frame(&mut self.spool, SEGMENT, bytes)
    }

    /// Puts the segments behind the checkpoints.
    ///
    /// # Errors
    /// The output cannot be written or the spool file not be read.
    pub fn finish(mut self) -> io::Result<W> {
        let mut spool = self.spool.into_inner().map_err(io::IntoInnerError::into_error)?;
        spool.seek(SeekFrom::Start(0))?;
        io::copy(&mut spool, &mut self.output)?;
        self.output.flush()?;
        Ok(self.output)
    }
}

fn write_frame(output: &mut impl Write, kind: u8, payload: &[u8]) -> io::Result<()> {
    let len = u32::try_from(payload.len()).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    output.write_all(&[kind])?;
    output.write_all(&len.to_be_bytes())?;
    output.write_all(payload)
}

/// Why an export file is refused.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// It does not begin as an export does.
    #[error("the file is not an export of an audit log")]
    NotAnExport,
    /// It ends inside a frame.
    #[error("the export ends in the middle of a frame: the file is incomplete")]
    Incomplete,
    /// A frame that is no segment and no checkpoint, or a checkpoint behind a segment.
    #[error("the export has a frame that is not allowed at its place")]
    FrameMisplaced,
    /// A frame beyond 16 MiB.
    #[error("the export has a frame of {len} bytes; at most 16777216 are allowed")]
    FrameTooLong {
        /// The length that stands there.
        len: u32,
    },
    /// A frame that is not of its format.
    #[error("the export {0}")]
    Codec(#[from] CodecError),
    /// The log itself is wrong.
    #[error(transparent)]
    Fault(#[from] AuditFault),
    /// The file cannot be read.
    #[error("the export cannot be read")]
    Read(#[from] io::Error),
}

/// One frame of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// One committed batch.
    Segment(Segment),
    /// A checkpoint with its signature.
    Checkpoint(SignedCheckpoint),
}

/// Reads an export file frame by frame.
#[derive(Debug)]
pub struct ExportReader<R> {
    input: R,
    segments_began: bool,
}

impl<R: Read> ExportReader<R> {
    /// Checks the magic.
    ///
    /// # Errors
    /// [`ExportError::NotAnExport`], [`ExportError::Read`].
    pub fn new(mut input: R) -> Result<Self, ExportError> {
        let mut magic = [0; 8];
        match input.read_exact(&mut magic) {
            Ok(()) if magic == *MAGIC => Ok(Self { input, segments_began: false }),
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error.into()),
            _ => Err(ExportError::NotAnExport),
        }
    }

    /// The next frame; `None` at the end.
    ///
    /// # Errors
    /// [`ExportError`].
    pub fn next_frame(&mut self) -> Result<Option<Frame>, ExportError> {
        let mut kind = [0];
        loop {
            match self.input.read(&mut kind) {
                Ok(0) => return Ok(None),
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut len = [0; 4];
        self.fill(&mut len)?;
        let len = u32::from_be_bytes(len);
        if len > FRAME_LEN_MAX {
            return Err(ExportError::FrameTooLong { len });
        }
        let mut payload = vec![0; len as usize];
        self.fill(&mut payload)?;
        match kind[0] {
            SEGMENT => {
                self.segments_began = true;
                Ok(Some(Frame::Segment(codec::open(&payload)?)))
            }
            CHECKPOINT if !self.segments_began => Ok(Some(Frame::Checkpoint(codec::open(&payload)?))),
            _ => Err(ExportError::FrameMisplaced),
        }
    }

    fn fill(&mut self, out: &mut [u8]) -> Result<(), ExportError> {
        self.input.read_exact(out).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ExportError::Incomplete,
            _ => ExportError::Read(error),
        })
    }
}

/// How often an event stands in a log, by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventCount {
    /// It was done.
    pub done: u64,
    /// It was refused.
    pub refused: u64,
    /// It was begun and failed.
    pub failed: u64,
}

/// What a verified log holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSummary {
    /// Size, root and time of the last record.
    pub verified: Verified,
    /// Checkpoints that the log agrees with.
    pub checkpoint_count: u64,
    /// Size that the last checkpoint names; records behind it rest on the node's signature alone.
    pub checkpoint_size: u64,
    /// Events by name.
    pub events: BTreeMap<String, EventCount>,
}

/// Verifies a whole log with nothing but the bundle's public keys.
///
/// # Errors
/// [`ExportError::Fault`] names the first bad record; the others say that the file is no complete export.
pub fn verify_export(input: impl Read, bundle: &Bundle) -> Result<LogSummary, ExportError> {
    let mut reader = ExportReader::new(input)?;
    let mut checkpoints = Vec::new();
    let first_segment = loop {
        match reader.next_frame()? {
            Some(Frame::Checkpoint(checkpoint)) => checkpoints.push(checkpoint),
            Some(Frame::Segment(segment)) => break Some(segment),
            None => break None,
        }
    };
    let checkpoint_count = checkpoints.len() as u64;
    let mut checkpoint_size = 0;
    for checkpoint in &checkpoints {
        let checkpoint: kms_core::audit::Checkpoint = codec::open(&checkpoint.body)?;
        checkpoint_size = checkpoint_size.max(checkpoint.size);
    }
    let mut verifier = Verifier::new(bundle, &checkpoints)?;
    drop(checkpoints);
    let mut events: BTreeMap<String, EventCount> = BTreeMap::new();
    let mut next = first_segment;
    while let Some(segment) = next {
        for leaf in verifier.accept(&segment)? {
            let record: Record = codec::open(&leaf.body)?;
            let count = events.entry(record.event).or_default();
            match record.outcome.as_str() {
                "done" => count.done += 1,
                "refused" => count.refused += 1,
                _ => count.failed += 1,
            }
        }
        next = match reader.next_frame()? {
            Some(Frame::Segment(segment)) => Some(segment),
            Some(Frame::Checkpoint(_)) => return Err(ExportError::FrameMisplaced),
            None => None,
        };
    }
    Ok(LogSummary { verified: verifier.finish()?, checkpoint_count, checkpoint_size, events })
}
