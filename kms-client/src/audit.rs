//! The audit log: reading, describing, exporting and verifying it (docs/formats/audit.md).

mod describe;
mod export;
mod proof;

pub use describe::{describe, rfc3339};
pub use export::{EventCount, ExportError, ExportReader, ExportWriter, Frame, LogSummary, verify_export};
pub use proof::{ProofFault, ShownRecord};

use crate::connect::{Client, Repeat};
use crate::convert;
use crate::error::ClientError;
use kms_core::audit::Record;
use kms_core::codec;
use kms_core::id::UnixMillis;
use kms_proto::v1;
use std::io::{self, Write};
use tonic::Streaming;

/// Which records to read.
#[derive(Clone, Debug, Default)]
pub struct RecordQuery {
    /// Only records about this key (name or id).
    pub key: Option<String>,
    /// Only records of this actor (URI).
    pub actor: Option<String>,
    /// Only records from this time on.
    pub since: Option<UnixMillis>,
    /// First index to look at.
    pub from_index: u64,
    /// At most this many; `None` leaves it to the service (1,000).
    pub count_max: Option<u32>,
    /// Wait for new records when the last one was read.
    pub follow: bool,
}

/// A record with its place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedRecord {
    /// Position in the log, from 0.
    pub index: u64,
    /// When it was committed.
    pub time: UnixMillis,
    /// Canonical bytes.
    pub body: Vec<u8>,
    /// What the bytes say.
    pub record: Record,
}

/// Records as the service sends them.
#[derive(Debug)]
pub struct Records {
    client: Client,
    stream: Streaming<v1::AuditRecord>,
    /// Which node sends it.
    node: usize,
    /// What is still to come.
    query: RecordQuery,
    /// Streams that broke since the last record.
    break_count: u32,
}

impl Records {
    /// The next record; `None` at the end. With `follow`, waits for it without a limit, and goes on behind the
    /// last record at another node, or on a new connection, when the stream breaks.
    ///
    /// # Errors
    /// A broken stream that no node resumes within the deadline, or bytes that are not a record.
    pub async fn next(&mut self) -> Result<Option<ListedRecord>, ClientError> {
        let message = loop {
            let received = match self.query.follow {
                true => self.stream.message().await.map_err(|status| self.client.error(self.node, status)),
                false => self.client.step(self.node, self.stream.message()).await,
            };
            match received {
                Ok(message) => break message,
                Err(error) if self.query.follow && self.break_count < self.client.try_count_max() => {
                    if !self.client.may_resume(self.node, &error) {
                        return Err(error);
                    }
                    self.break_count += 1;
                    if self.query.count_max == Some(0) {
                        return Ok(None);
                    }
                    (self.stream, self.node) = self.client.record_stream(&self.query).await?;
                }
                Err(error) => return Err(error),
            }
        };
        let Some(message) = message else { return Ok(None) };
        self.break_count = 0;
        self.query.from_index = message.index + 1;
        self.query.count_max = self.query.count_max.map(|count| count.saturating_sub(1));
        let record = codec::open(&message.body)
            .map_err(|error| ClientError::malformed(format!("record {} {error}", message.index)))?;
        let time = convert::time(message.time, "a record")?;
        Ok(Some(ListedRecord { index: message.index, time, body: message.body, record }))
    }
}

/// Why an export stopped.
#[derive(Debug, thiserror::Error)]
pub enum ExportStopped {
    /// The service refused or the stream broke.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The file could not be written.
    #[error("the export cannot be written")]
    Write(#[from] io::Error),
}

impl Client {
    /// Reads records, oldest first.
    ///
    /// # Errors
    /// `NOT_PERMITTED`, `FIELD_INVALID`.
    pub async fn list_records(&self, query: &RecordQuery) -> Result<Records, ClientError> {
        let (stream, node) = self.record_stream(query).await?;
        Ok(Records { client: self.clone(), stream, node, query: query.clone(), break_count: 0 })
    }

    async fn record_stream(
        &self,
        query: &RecordQuery,
    ) -> Result<(Streaming<v1::AuditRecord>, usize), ClientError> {
        let request = v1::ListRecordsRequest {
            key: query.key.clone().unwrap_or_default(),
            actor: query.actor.clone().unwrap_or_default(),
            since: query.since.map(convert::time_to_proto),
            from_index: query.from_index,
            count_max: query.count_max.unwrap_or_default(),
            follow: query.follow,
        };
        self.call_any(Repeat::Stream, &request, |mut stubs, request| async move {
            stubs.audit.list_records(request).await
        })
        .await
    }

    /// One record with the proof that it is in the log. Check it with [`ShownRecord::check`].
    ///
    /// # Errors
    /// `RECORD_NOT_FOUND`, `NOT_PERMITTED`.
    pub async fn show_record(&self, index: u64) -> Result<ShownRecord, ClientError> {
        let answer = self
            .call(Repeat::Safe, &v1::ShowRecordRequest { index }, |mut stubs, request| async move {
                stubs.audit.show_record(request).await
            })
            .await?;
        ShownRecord::from_answer(index, answer)
    }

    /// Writes the whole log as an export file. It comes from one node from beginning to end. `spool` holds the segments until all checkpoints are written.
    ///
    /// # Errors
    /// [`ExportStopped`]; what was written is then no export.
    pub async fn export_log<W: Write>(&self, output: W, spool: std::fs::File) -> Result<W, ExportStopped> {
        let (mut stream, node) = self
            .call_any(Repeat::Stream, &v1::ExportRequest {}, |mut stubs, request| async move {
                stubs.audit.export(request).await
            })
            .await?;
        let mut writer = ExportWriter::new(output, spool)?;
        while let Some(message) = self.step(node, stream.message()).await? {
            match message.frame {
                Some(v1::export_frame::Frame::Segment(segment)) => writer.segment(&segment)?,
                Some(v1::export_frame::Frame::Checkpoint(checkpoint)) => writer.checkpoint(&checkpoint)?,
                None => return Err(ClientError::malformed("a frame of the export is empty").into()),
            }
        }
        Ok(writer.finish()?)
    }
}
