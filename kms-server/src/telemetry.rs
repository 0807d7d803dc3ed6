//! What operators see: log lines and Prometheus metrics. Nothing secret reaches either.

use crate::config::{Log, LogFormat};
use crate::crash;
use crate::store::BatchMeter;
use kms_hsm::{ErrorClass, Observer};
use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};
use std::time::Duration;
use tracing_subscriber::EnvFilter;

/// Starts logging to stderr. Called once.
///
/// # Errors
/// What the filter's parser says.
pub fn start_log(log: &Log) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = EnvFilter::try_new(&log.filter)?;
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(is_terminal).with_writer(std::io::stderr);
    // A second start (tests) keeps the first subscriber.
    let _ = match log.format {
        LogFormat::Text => subscriber.with_target(false).try_init(),
        LogFormat::Json => subscriber.json().try_init(),
    };
    Ok(())
}

/// Every metric of a node.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    hsm_operations: IntCounterVec,
    hsm_seconds: HistogramVec,
    hsm_queue: IntGauge,
    hsm_stuck_threads: IntGauge,
    hsm_circuit_open: IntGauge,
    unsealed: IntGauge,
    batches: IntCounterVec,
    batch_entries: Histogram,
    batch_seconds: Histogram,
    /// Size of the audit log as this node knows it.
    pub log_size: IntGauge,
    /// Records behind the last checkpoint.
    pub checkpoint_size: IntGauge,
}

const SECONDS: &[f64] =
    &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics at zero.
    pub fn new() -> Self {
        const VALID: &str = "metric names are constants, valid and distinct";
        let registry = Registry::new();
        macro_rules! register {
            ($metric:expr) => {{
                let metric = $metric.expect(VALID);
                registry.register(Box::new(metric.clone())).expect(VALID);
                metric
            }};
        }
        let counter = |name, help, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let histogram = |name, help, labels: &[&str]| {
            HistogramVec::new(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()), labels)
        };
        let build = Opts::new("kms_build_info", "Always 1; the labels tell the build.")
            .const_label("version", env!("CARGO_PKG_VERSION"));
        register!(Gauge::with_opts(build)).set(1.0);
        let entry_buckets = vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];
        Self {
            requests: register!(counter(
                "kms_requests_total",
                "Calls by method and outcome (done or a reason).",
                &["method", "outcome"]
            )),
            request_seconds: register!(histogram("kms_request_seconds", "Duration of calls.", &["method"])),
            hsm_operations: register!(counter(
                "kms_hsm_operations_total",
                "HSM operations by outcome.",
                &["operation", "outcome"]
            )),
            hsm_seconds: register!(histogram(
                "kms_hsm_seconds",
                "Duration of HSM operations.",
                &["operation"]
            )),
            hsm_queue: register!(IntGauge::new("kms_hsm_queue", "Jobs that wait for the HSM.")),
            hsm_stuck_threads: register!(IntGauge::new(
                "kms_hsm_stuck_threads",
                "Threads inside a call of the HSM's driver that does not come back."
            )),
            hsm_circuit_open: register!(IntGauge::new(
                "kms_hsm_circuit_open",
                "1 while the HSM is not used because it failed again and again."
            )),
            unsealed: register!(IntGauge::new("kms_unsealed", "1 when the node is unsealed.")),
            batches: register!(counter("kms_audit_batches_total", "Committed batches.", &["outcome"])),
            batch_entries: register!(Histogram::with_opts(
                HistogramOpts::new("kms_audit_batch_entries", "Records in one batch.").buckets(entry_buckets)
            )),
            batch_seconds: register!(Histogram::with_opts(
                HistogramOpts::new("kms_audit_batch_seconds", "Duration of one batch's commit.")
                    .buckets(SECONDS.to_vec())
            )),
            log_size: register!(IntGauge::new("kms_audit_log_size", "Records in the audit log.")),
            checkpoint_size: register!(IntGauge::new(
                "kms_audit_checkpoint_size",
                "Records that the last checkpoint covers."
            )),
            registry,
        }
    }

    /// A call has ended.
    pub fn request(&self, method: &str, outcome: &str, elapsed: Duration) {
        self.requests.with_label_values(&[method, outcome]).inc();
        self.request_seconds.with_label_values(&[method]).observe(elapsed.as_secs_f64());
    }

    /// The node was sealed or unsealed.
    pub fn set_unsealed(&self, is_unsealed: bool) {
        self.unsealed.set(i64::from(is_unsealed));
    }

    /// The text that Prometheus reads.
    pub fn to_text(&self) -> Vec<u8> {
        let mut out = Vec::new();
        // Writing to a Vec fails only for metrics that are not consistent, which these are.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut out);
        out
    }
}

impl BatchMeter for Metrics {
    fn batch(&self, entries: usize, elapsed: Duration, is_committed: bool) {
        self.batches.with_label_values(&[if is_committed { "done" } else { "failed" }]).inc();
        self.batch_entries.observe(entries as f64);
        self.batch_seconds.observe(elapsed.as_secs_f64());
    }
}

/// Passes HSM operations on to the metrics, and stops at them in crash tests.
#[derive(Debug)]
pub struct HsmMeter(pub std::sync::Arc<Metrics>);

impl Observer for HsmMeter {
    fn before(&self, operation: &'static str) {
        crash::at_hsm("before", operation);
    }

    fn after(&self, operation: &'static str, outcome: &Result<(), ErrorClass>, elapsed: Duration) {
        crash::at_hsm("after", operation);
        let text = match outcome {
            Ok(()) => "done".to_owned(),
            Err(class) => format!("{class:?}"),
        };
        self.0.hsm_operations.with_label_values(&[operation, &text]).inc();
        self.0.hsm_seconds.with_label_values(&[operation]).observe(elapsed.as_secs_f64());
    }

    fn queue_len(&self, len: usize) {
        self.0.hsm_queue.set(i64::try_from(len).unwrap_or(i64::MAX));
    }

    fn stuck_threads(&self, count: usize) {
        self.0.hsm_stuck_threads.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    fn breaker(&self, is_open: bool) {
        self.0.hsm_circuit_open.set(i64::from(is_open));
    }
}
