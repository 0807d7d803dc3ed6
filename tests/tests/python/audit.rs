//! `tests/python/verify_audit.py`, which was written from docs/formats alone, agrees with what the service
//! exports and finds what was done to an export.

use kms_core::audit::{BatchHead, Segment};
use kms_core::codec;
use kms_core::suite::Suite;
use kms_tests::command::{Finished, run};
use kms_tests::{Deployment, Options};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const SEGMENT: u8 = 1;
const CHECKPOINT: u8 = 2;

/// A deployment's exported log, taken apart.
struct Export {
    deployment: Deployment,
    folder: TempDir,
    frames: Vec<(u8, Vec<u8>)>,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python/verify_audit.py")
}

impl Export {
    /// Some keys, a rotation, a data key and a refusal.
    fn of_a_busy_day(suite: Suite) -> Self {
        let deployment = Deployment::start(Options { suite, ..Options::default() });
        let spec = if suite == Suite::Sm { "sm4" } else { "aes-256" };
        for name in ["payroll", "invoices", "archive"] {
            deployment.kms("admin", &["key", "create", name, "--spec", spec]).done();
        }
        deployment.kms("admin", &["key", "rotate", "payroll"]).done();
        assert_ne!(deployment.kms("app", &["key", "create", "forbidden", "--spec", spec]).code, 0);
        wait_for_a_checkpoint(&deployment);
        let folder = TempDir::new().expect("a temporary folder can be made");
        let path = folder.path().join("export.bin");
        deployment.kms("auditor", &["audit", "export", path.to_str().expect("plain")]).done();
        let frames = frames_of(&std::fs::read(path).expect("it was just written"));
        assert!(frames.iter().any(|(kind, _)| *kind == CHECKPOINT), "it was there");
        Self { deployment, folder, frames }
    }

    /// Runs the script over frames that may have been tampered with.
    fn verify(&self, frames: &[(u8, Vec<u8>)]) -> Finished {
        self.verify_bytes(&bytes_of(frames), &self.deployment.bundle_file())
    }

    fn verify_bytes(&self, export: &[u8], bundle: &Path) -> Finished {
        let path = self.folder.path().join("tampered.bin");
        std::fs::write(&path, export).expect("the folder is there");
        let script = script();
        let arguments = [Path::new("-B"), &script, &path, bundle];
        run(Path::new("python3"), &arguments, self.folder.path())
    }

    /// The fault that the script finds in changed frames.
    #[track_caller]
    fn fault(&self, change: impl FnOnce(&mut Vec<(u8, Vec<u8>)>)) -> String {
        let mut frames = self.frames.clone();
        change(&mut frames);
        fault_of(self.verify(&frames))
    }

    /// The position of the n-th segment among the frames, and the index of its first record.
    fn segment(&self, number: usize) -> (usize, u64) {
        let mut segments = self.frames.iter().enumerate().filter(|(_, (kind, _))| *kind == SEGMENT);
        let (position, (_, payload)) = segments.nth(number).expect("there are enough");
        (position, head_of(payload).first_index)
    }
}

/// The first one is made within a second of the unseal.
fn wait_for_a_checkpoint(deployment: &Deployment) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let status = deployment.kms("auditor", &["--output", "json", "status"]).json();
        if status["checkpoint_size"].as_u64().is_some_and(|size| size > 0) {
            return;
        }
        assert!(Instant::now() < deadline, "no checkpoint was made: {status}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn head_of(segment: &[u8]) -> BatchHead {
    let segment: Segment = codec::open(segment).expect("a segment");
    codec::open(&segment.head).expect("a head")
}

fn frames_of(export: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut rest = export.strip_prefix(b"KMSAUDIT").expect("the magic");
    let mut frames = Vec::new();
    while let Some((header, behind)) = rest.split_at_checked(5) {
        let len = u32::from_be_bytes(header[1..].try_into().expect("four bytes")) as usize;
        let (payload, behind) = behind.split_at(len);
        frames.push((header[0], payload.to_vec()));
        rest = behind;
    }
    frames
}

fn bytes_of(frames: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = b"KMSAUDIT".to_vec();
    for (kind, payload) in frames {
        bytes.push(*kind);
        bytes.extend((payload.len() as u32).to_be_bytes());
        bytes.extend(payload);
    }
    bytes
}

/// The one line of a refusal; anything on standard error would be a fault of the script itself.
#[track_caller]
fn fault_of(finished: Finished) -> String {
    let finished = finished.ended_with(1);
    assert_eq!(finished.stderr, "");
    assert_eq!(finished.stdout.lines().count(), 1, "{}", finished.stdout);
    finished.stdout.trim_end().to_owned()
}

fn agrees_and_finds_every_change(suite: Suite) {
    let export = Export::of_a_busy_day(suite);

    let line = export.verify(&export.frames).done();
    // The service's own verifier, over the same file.
    let (path, bundle) = (export.folder.path().join("export.bin"), export.deployment.bundle_file());
    let (path, bundle) = (path.to_str().expect("plain"), bundle.to_str().expect("plain"));
    let arguments = ["--output", "json", "audit", "verify", "--export", path, "--bundle", bundle];
    let ours = export.deployment.kms("auditor", &arguments);
    let ours = ours.json();
    let text = |field: &str| ours[field].as_str().map_or_else(|| ours[field].to_string(), str::to_owned);
    let (size, root, checkpoint_count) = (text("size"), text("root"), text("checkpoint_count"));
    assert_eq!(line, format!("ok {size} records, root {root}, {checkpoint_count} checkpoints\n"));

    what_is_missing_or_moved_is_named(&export);
    what_was_changed_is_named(&export);
    no_flipped_bit_is_overlooked(&export);
}

fn what_is_missing_or_moved_is_named(export: &Export) {
    let (position, first) = export.segment(3);
    let (_, next) = export.segment(4);
    let fault = export.fault(|frames| drop(frames.remove(position)));
    assert_eq!(
        fault,
        format!("record {first}: missing or out of place: the next batch begins with record {next}")
    );
    let fault = export.fault(|frames| frames.swap(position, position + 1));
    assert_eq!(
        fault,
        format!("record {first}: missing or out of place: the next batch begins with record {next}")
    );

    let (second_position, second) = export.segment(1);
    let fault = export.fault(|frames| frames.truncate(second_position));
    assert!(fault.starts_with(&format!("record {second}: missing: a checkpoint was made of ")), "{fault}");

    let whole = bytes_of(&export.frames);
    let cut = &whole[..whole.len() - 1];
    let fault = fault_of(export.verify_bytes(cut, &export.deployment.bundle_file()));
    assert!(fault.ends_with("export: ends inside a frame"), "{fault}");
    let fault = fault_of(export.verify_bytes(b"KMSAUDI", &export.deployment.bundle_file()));
    assert_eq!(fault, "record 0: export: does not begin with KMSAUDIT");

    let fault = export.fault(|frames| {
        let checkpoint = frames.remove(0);
        frames.push(checkpoint);
    });
    assert!(fault.ends_with("a checkpoint stands after a segment"), "{fault}");
}

fn what_was_changed_is_named(export: &Export) {
    let (position, first) = export.segment(2);
    let segment: Segment = codec::open(&export.frames[position].1).expect("a segment");
    let with = |change: &dyn Fn(&mut Segment)| {
        let mut changed = segment.clone();
        change(&mut changed);
        export.fault(|frames| frames[position].1 = codec::to_bytes(&changed))
    };
    // The last byte of a record is within its details: text that is as canonical as before.
    let last_byte = segment.leaves.len() - 1;
    let fault = with(&|changed| changed.leaves[last_byte] ^= 1);
    assert!(fault.starts_with(&format!("record {first}: changed, or one up to ")), "{fault}");
    let fault = with(&|changed| changed.leaves[7] ^= 1);
    assert_eq!(fault, format!("record {first}: its place holds record {}", first ^ 1));
    let fault = with(&|changed| changed.leaves[8..16].fill(0));
    assert_eq!(fault, format!("record {first}: its time is before the last one"));
    let fault = with(&|changed| changed.signature.0[5] ^= 1);
    assert!(fault.starts_with(&format!("record {first}: the signature of the batch")), "{fault}");
    let node = "node-1";
    let fault = with(&|changed| {
        let at = changed.head.windows(node.len()).position(|window| window == node.as_bytes());
        changed.head[at.expect("the head names the node") + node.len() - 1] = b'2';
    });
    assert_eq!(fault, format!("record {first}: the batch head names the unknown node 'node-2'"));

    let fault = export.fault(|frames| *frames[0].1.last_mut().expect("not empty") ^= 1);
    assert!(fault.contains("its signature is not by the checkpoint key"), "{fault}");
}

fn no_flipped_bit_is_overlooked(export: &Export) {
    const TRIES: usize = 40;
    let whole = bytes_of(&export.frames);
    // Spread over the whole file; the keys and signatures are new in every run, and so are the places.
    for at in (0..TRIES).map(|number| number * whole.len() / TRIES) {
        let mut changed = whole.clone();
        changed[at] ^= 1 << (at % 8);
        fault_of(export.verify_bytes(&changed, &export.deployment.bundle_file()));
    }
}

#[test]
fn the_independent_verifier_agrees_on_the_sm_suite_and_finds_every_change() {
    agrees_and_finds_every_change(Suite::Sm);
}

#[test]
fn the_independent_verifier_agrees_on_the_international_suite_and_finds_every_change() {
    agrees_and_finds_every_change(Suite::Intl);
}

#[test]
fn the_independent_verifier_needs_the_right_and_untouched_bundle() {
    let export = Export::of_a_busy_day(Suite::Sm);
    let other = Deployment::start(Options::default());
    let whole = bytes_of(&export.frames);
    let fault = fault_of(export.verify_bytes(&whole, &other.bundle_file()));
    assert!(fault.starts_with("record 0: checkpoint 0 ") && fault.ends_with("another cluster's"), "{fault}");

    let text = std::fs::read_to_string(export.deployment.bundle_file()).expect("it is there");
    let changed_bundle = export.folder.path().join("changed.kms");
    let middle = text.len() / 2;
    let other_letter = if text.as_bytes()[middle] == b'A' { "B" } else { "A" };
    let changed = format!("{}{other_letter}{}", &text[..middle], &text[middle + 1..]);
    std::fs::write(&changed_bundle, changed).expect("the folder is there");
    let fault = fault_of(export.verify_bytes(&whole, &changed_bundle));
    assert!(fault.starts_with("bundle"), "{fault}");
}

/// GB/T 32905 A.1 and A.2, GB/T 32918.5 (signature with the default user ID), and the P-256 generator's
/// order: the script's own arithmetic, whatever Python's OpenSSL has.
#[test]
fn the_independent_verifier_reproduces_the_standards_vectors() {
    let program = r#"
import verify_audit as v
assert v.sm3_plain(b"abc").hex() == "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"
assert v.sm3_plain(b"abcd" * 16).hex() == "debe9ff92275b8a138604889c18e5a4d6fdb70e5387e5765293dcba39c0c5732"
for length in range(130):
    assert v.sm3(b"x" * length) == v.sm3_plain(b"x" * length)
key = bytes.fromhex("0409f9df311e5421a150dd7d161e4bc5c672179fad1833fc076bb08ff356f35020"
                    "ccea490ce26775a52dc6ea718cc1aa600aed05fbf35e084a6632f6072da9ad13")
e = 0xf0b43e94ba45accaace692ed534382eb17e6ab5a19ce7b31f4486fdfc0d28640
r = 0xf5a03b0648d2c4630eeac513e1bb81a15944da3827d5b74143ac7eaceee720b3
s = 0xb1b6aa29df212fd8763182bc0d421ca1bb9038fd1f7f42d4840b69c485bbc1aa
p, b, n, gx, gy = v.SM2
x = v.combined_x(s, (r + s) % n, v.point(key, p, b), v.SM2)
assert (e + x) % n == r
for curve in (v.P256, v.SM2):
    p, b, n, gx, gy = curve
    assert v.combined_x(n - 1, 1, (gx, gy), curve) is None
    assert v.combined_x(n - 2, 1, (gx, gy), curve) == gx
"#;
    let folder = script().parent().expect("it is in a folder").to_owned();
    run(Path::new("python3"), &["-B", "-c", program], &folder).done();
}
