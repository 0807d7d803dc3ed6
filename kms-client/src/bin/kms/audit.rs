//! `kms audit`.

use crate::Session;
use crate::args::{AuditCommand, OutputFormat};
use crate::output::{Failure, clean, fields, hex, table, write_out};
use crate::pending::{Existing, PendingFile, Readers};
use kms_client::audit::{
    ListedRecord, LogSummary, RecordQuery, ShownRecord, describe, rfc3339, verify_export,
};
use kms_client::load_bundle;
use kms_core::audit::Record;
use kms_core::bundle::Bundle;
use kms_core::id::UnixMillis;
use kms_core::suite::{Digest32, Suite};
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub async fn run(session: &Session, command: AuditCommand) -> Result<(), Failure> {
    match command {
        AuditCommand::List { key, actor, since, from, follow, count } => {
            let query = RecordQuery { key, actor, since, from_index: from, count_max: count, follow };
            list(session, query).await
        }
        AuditCommand::Show { index, bundle } => show(session, index, bundle).await,
        AuditCommand::Verify { bundle, export: Some(export) } => {
            let bundle = bundle.ok_or_else(no_bundle)?;
            verify_file(session, &export, &bundle)
        }
        AuditCommand::Verify { bundle, export: None } => verify_service(session, bundle).await,
        AuditCommand::Export { destination } => export(session, &destination).await,
    }
}

/// Records are printed as they come, so the same command can follow the log.
async fn list(session: &Session, query: RecordQuery) -> Result<(), Failure> {
    let client = session.connect().await?;
    let (mut left, follow) = (query.count_max, query.follow);
    let mut records = client.list_records(&query).await?;
    while left != Some(0) {
        let Some(listed) = records.next().await? else { break };
        match session.output.format {
            OutputFormat::Table => write_out(&format!("{:>8}  {}\n", listed.index, sentence(&listed)))?,
            OutputFormat::Json => {
                write_out(&format!("{}\n", record_value(listed.index, listed.time, &listed.record)))?;
            }
        }
        left = left.map(|left| left - 1);
    }
    if follow && left != Some(0) {
        return Err(Failure::new("the service ended the stream", "kms audit list --follow"));
    }
    Ok(())
}

fn sentence(listed: &ListedRecord) -> String {
    clean(&describe(listed.time, &listed.record))
}

fn record_value(index: u64, time: UnixMillis, record: &Record) -> Value {
    let details: Map<String, Value> =
        record.details.iter().map(|detail| (detail.name.clone(), detail.value.clone().into())).collect();
    json!({
        "index": index,
        "time": rfc3339(time),
        "event": record.event,
        "outcome": record.outcome,
        "reason": record.reason,
        "actor": record.actor,
        "node": record.node.as_str(),
        "request_id": record.request_id,
        "key_id": record.key_id.map(|id| id.to_string()),
        "key_version": record.key_version.map(|version| version.number()),
        "details": details,
        "evidence": record.evidence.as_deref().map(hex),
    })
}

async fn show(session: &Session, index: u64, bundle: Option<PathBuf>) -> Result<(), Failure> {
    let bundle_path = match bundle {
        Some(path) => Some(path),
        None => session.profile()?.bundle().map(Path::to_owned),
    };
    let bundle = bundle_path.as_deref().map(load_bundle).transpose()?;
    let client = session.connect().await?;
    let shown = client.show_record(index).await?;
    let suite = match &bundle {
        Some((bundle, _)) => {
            shown.check(bundle)?;
            bundle.suite
        }
        None => {
            let suite = client.status().await?.suite;
            shown.check_inclusion(suite)?;
            suite
        }
    };
    let signature = match &bundle {
        Some(_) => "verified with the bundle",
        None => "not verified; give --bundle FILE",
    };
    session
        .output
        .show(|| show_text(&shown, suite, signature), || show_value(&shown, suite, bundle.is_some()))
}

fn show_text(shown: &ShownRecord, suite: Suite, signature: &str) -> String {
    let mut rows = vec![("request id", shown.record.request_id.clone())];
    if let Some(evidence) = &shown.record.evidence {
        rows.push(("evidence", hex(evidence)));
    }
    rows.extend([
        ("raw bytes", hex(&shown.leaf_bytes)),
        (
            "inclusion",
            format!("proven in the log of {} records with root {}", shown.head.size, shown.head.root),
        ),
        ("leaf hash", shown.leaf_hash(suite).to_hex()),
    ]);
    // What somebody needs who wants to compute the root without this program.
    for (place, hash) in shown.path.iter().enumerate() {
        rows.push((if place == 0 { "path" } else { "" }, hash.to_hex()));
    }
    rows.extend([
        ("root", shown.head.root.to_hex()),
        ("tree size", shown.head.size.to_string()),
        ("head", format!("signed by {} at {}", shown.head.node, rfc3339(shown.head.time))),
        ("signature", signature.to_owned()),
    ]);
    format!("{}\n\n{}", clean(&describe(shown.leaf.time, &shown.record)), fields(&rows))
}

fn show_value(shown: &ShownRecord, suite: Suite, signature_verified: bool) -> Value {
    let mut value = record_value(shown.leaf.index, shown.leaf.time, &shown.record);
    let proof = json!({
        "sentence": describe(shown.leaf.time, &shown.record),
        "leaf": hex(&shown.leaf_bytes),
        "leaf_hash": shown.leaf_hash(suite).to_hex(),
        "inclusion_path": shown.path.iter().map(|hash| hash.to_hex()).collect::<Vec<_>>(),
        "tree_size": shown.head.size,
        "root": shown.head.root.to_hex(),
        "head_node": shown.head.node.as_str(),
        "head_time": rfc3339(shown.head.time),
        "inclusion_verified": true,
        "head_signature_verified": signature_verified,
    });
    if let (Value::Object(value), Value::Object(proof)) = (&mut value, proof) {
        value.extend(proof);
    }
    value
}

fn no_bundle() -> Failure {
    Failure::new(
        "no bundle is named: give --bundle FILE, or write bundle = \"FILE\" into the profile",
        "kms audit verify --bundle FILE",
    )
}

fn unusable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("{} cannot be used: {error}", path.display()), "kms audit export --help")
}

fn verify_file(session: &Session, export: &Path, bundle: &Path) -> Result<(), Failure> {
    let (bundle, fingerprint) = load_bundle(bundle)?;
    let file = File::open(export).map_err(|error| unusable(export, &error))?;
    verify(session, file, &bundle, fingerprint)
}

async fn verify_service(session: &Session, bundle: Option<PathBuf>) -> Result<(), Failure> {
    let path = match bundle {
        Some(path) => path,
        None => session.profile()?.bundle().map(Path::to_owned).ok_or_else(no_bundle)?,
    };
    let (bundle, fingerprint) = load_bundle(&path)?;
    let folder = std::env::temp_dir();
    let temporary = || tempfile::tempfile_in(&folder).map_err(|error| unusable(&folder, &error));
    let client = session.connect().await?;
    let written = client.export_log(BufWriter::new(temporary()?), temporary()?).await?;
    let mut file = written.into_inner().map_err(|error| unusable(&folder, error.error()))?;
    file.seek(SeekFrom::Start(0)).map_err(|error| unusable(&folder, &error))?;
    verify(session, file, &bundle, fingerprint)
}

fn verify(session: &Session, file: File, bundle: &Bundle, fingerprint: Digest32) -> Result<(), Failure> {
    let begin = Instant::now();
    let summary = verify_export(BufReader::new(file), bundle)?;
    let duration = begin.elapsed();
    session.output.show(
        || summary_text(&summary, fingerprint, duration),
        || summary_value(&summary, fingerprint, duration),
    )
}

fn summary_text(summary: &LogSummary, fingerprint: Digest32, duration: Duration) -> String {
    let size = summary.verified.head.size;
    let behind = size - summary.checkpoint_size.min(size);
    let mut text = fields(&[
        ("result", "every record, signature and checkpoint is right".to_owned()),
        ("records", size.to_string()),
        ("root", summary.verified.head.root.to_hex()),
        ("last record", rfc3339(summary.verified.last_time)),
        (
            "checkpoints",
            format!("{}; {behind} records since the last rest on node signatures", summary.checkpoint_count),
        ),
        ("bundle", format!("{fingerprint}; compare it with the custodians'")),
        ("took", format!("{:.1} s", duration.as_secs_f64())),
    ]);
    let rows: Vec<Vec<String>> = summary
        .events
        .iter()
        .map(|(event, count)| {
            vec![event.clone(), count.done.to_string(), count.refused.to_string(), count.failed.to_string()]
        })
        .collect();
    text.push('\n');
    text.push_str(&table(&["EVENT", "DONE", "REFUSED", "FAILED"], &rows));
    text
}

fn summary_value(summary: &LogSummary, fingerprint: Digest32, duration: Duration) -> Value {
    let events: Map<String, Value> = summary
        .events
        .iter()
        .map(|(event, count)| {
            (event.clone(), json!({ "done": count.done, "refused": count.refused, "failed": count.failed }))
        })
        .collect();
    json!({
        "size": summary.verified.head.size,
        "root": summary.verified.head.root.to_hex(),
        "last_time": rfc3339(summary.verified.last_time),
        "checkpoint_count": summary.checkpoint_count,
        "checkpoint_size": summary.checkpoint_size,
        "bundle_fingerprint": fingerprint.to_hex(),
        "duration_ms": duration.as_millis() as u64,
        "events": events,
    })
}

async fn export(session: &Session, output: &Path) -> Result<(), Failure> {
    let (pending, file) = PendingFile::create(output, Readers::Umask, Existing::Replaced)?;
    let folder = output.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let spool = tempfile::tempfile_in(folder).map_err(|error| unusable(folder, &error))?;
    let client = session.connect().await?;
    let written = client.export_log(BufWriter::new(file), spool).await?;
    let file = written.into_inner().map_err(|error| unusable(output, error.error()))?;
    let len = file.metadata().map_err(|error| unusable(output, &error))?.len();
    pending.finish(file)?;
    session.output.show(
        || format!("exported {len} bytes to {}\n", clean(&output.display().to_string())),
        || json!({ "bytes": len }),
    )
}
