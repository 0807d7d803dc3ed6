//! The ceremony worker, driven over its pipes as a server drives it.

use crate::scene::{CUSTODIANS, Scene};
use ceremonies::clock;
use ceremonies::participant::{Participant, Passphrases};
use ceremonies::random::os_rng;
use kms_core::asymmetric::{PublicKey, Signature};
use kms_core::bundle::Bundle;
use kms_core::ceremony::{CeremonyKind, Offer, Purpose, SignedOffer, service_start_digest};
use kms_core::codec::{self, VersionOne};
use kms_core::id::{CustodianName, UnixMillis};
use kms_core::passphrase::Passphrase;
use kms_core::reason::Reason;
use kms_core::secret::Secret;
use kms_core::suite::{Digest32, Suite};
use kms_core::worker::{FRAME_HEADER_LEN, FromWorker, ToWorker, body_len, to_frame};
use kms_hsm::{HsmModule, HsmPartition, Pin, ProfileChoice};
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use zeroize::Zeroizing;

const BOTH: [Suite; 2] = [Suite::Intl, Suite::Sm];
const CEREMONY: [u8; 16] = [0xce; 16];

struct Worker<'a> {
    scene: &'a Scene,
    bundle: Bundle,
    purpose: Purpose,
    operation: Digest32,
    child: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
    one_time_key: Option<PublicKey>,
}

impl<'a> Worker<'a> {
    fn spawn(scene: &'a Scene, kind: CeremonyKind, operation: Digest32) -> Self {
        let mut child = scene
            .command(env!("CARGO_BIN_EXE_kms-ceremony"))
            .arg("worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the worker starts");
        let input = child.stdin.take();
        let output = child.stdout.take().expect("standard output is a pipe");
        let bundle = scene.bundle().bundle;
        let purpose = Purpose { kind, operation: Some(operation) };
        Self { scene, bundle, purpose, operation, child, input, output, one_time_key: None }
    }

    /// A worker that is ready.
    fn ready(scene: &'a Scene, kind: CeremonyKind, operation: Digest32) -> Self {
        let mut worker = Self::spawn(scene, kind, operation);
        worker.send(&worker.start());
        match worker.receive() {
            FromWorker::Ready { one_time_key } => worker.one_time_key = Some(one_time_key),
            other => panic!("{other:?}"),
        }
        worker
    }

    fn start_of_node(scene: &'a Scene) -> Self {
        let operation = service_start_digest(&scene.bundle().bundle, &scene.node());
        Self::ready(scene, CeremonyKind::ServiceStart, operation)
    }

    fn start(&self) -> ToWorker {
        ToWorker::Start {
            bundle: codec::to_bytes(&self.scene.bundle().signed),
            kind: self.purpose.kind,
            ceremony_id: CEREMONY,
            operation: self.operation,
            module_path: self.scene.module.to_str().expect("text").to_owned(),
            profile: self.scene.profile.to_owned(),
        }
    }

    fn send(&mut self, message: &ToWorker) {
        let input = self.input.as_mut().expect("the pipe is open");
        input.write_all(to_frame(message).expose()).expect("the worker reads");
    }

    fn receive(&mut self) -> FromWorker {
        let mut header = [0; FRAME_HEADER_LEN];
        self.output.read_exact(&mut header).expect("the worker answers");
        let mut body = vec![0; body_len(header).expect("a frame")];
        self.output.read_exact(&mut body).expect("the whole frame");
        codec::open(&body).expect("a message")
    }

    /// Ends the worker's input and gives its exit code and what it still wrote.
    fn end(mut self) -> (i32, Vec<u8>, String) {
        self.input = None;
        let (mut rest, mut errors) = (Vec::new(), String::new());
        self.output.read_to_end(&mut rest).expect("reads");
        self.child.stderr.take().expect("a pipe").read_to_string(&mut errors).expect("text");
        let code = self.child.wait().expect("ends").code().expect("was not killed");
        (code, rest, errors)
    }

    fn offer(&self, custodian: &str) -> Vec<u8> {
        let offer = Offer {
            version: VersionOne,
            cluster_id: self.bundle.cluster_id,
            ceremony_id: CEREMONY,
            kind: self.purpose.kind,
            share_epoch: self.bundle.share_epoch,
            nonce: [7; 32],
            expires: UnixMillis(clock::now().0 + 60_000),
            one_time_key: self.one_time_key.expect("the worker is ready"),
            operation: self.operation,
            node: self.scene.node(),
            custodian: CustodianName::parse(custodian).expect("valid"),
        };
        codec::to_bytes(&SignedOffer::sign(&offer, &self.scene.node_key, &mut os_rng()))
    }

    fn contribute(&mut self, custodian: &str, stream: u64) -> FromWorker {
        let offer = self.offer(custodian);
        let contribution = self.answer(custodian, &offer);
        self.pass_on(stream, offer, contribution)
    }

    fn pass_on(&mut self, stream: u64, offer: Vec<u8>, contribution: Vec<u8>) -> FromWorker {
        self.send(&ToWorker::Contribute { stream, offer, contribution, now: clock::now() });
        self.receive()
    }

    fn answer(&self, custodian: &str, offer: &[u8]) -> Vec<u8> {
        participant(self.scene, custodian)
            .answer(offer, self.purpose, &passphrases(custodian), clock::now(), &mut os_rng())
            .expect("the offer is right")
    }
}

pub fn participant(scene: &Scene, name: &str) -> Participant {
    let identity = scene.path(&format!("enrolments/{name}.identity"));
    let share = scene.path(&format!("shares/{name}.share"));
    Participant::read(scene.bundle(), &identity, &share).expect("the files belong together")
}

pub fn passphrases(name: &str) -> Passphrases {
    let enter = |text: String| Passphrase::enter(Secret::new(text.into_bytes()));
    Passphrases {
        identity: enter(format!("the passphrase of {name}")),
        share: enter(format!("the other passphrase of {name}")),
    }
}

#[track_caller]
fn assert_present(answer: &FromWorker, names: &[&str]) {
    let FromWorker::Accepted { present, .. } = answer else { panic!("{answer:?}") };
    let found: Vec<&str> = present.iter().map(CustodianName::as_str).collect();
    assert_eq!(found, names);
}

#[test]
fn two_custodians_give_the_pin_that_opens_the_operations_partition() {
    for suite in BOTH {
        let scene = Scene::accepted(suite);
        let mut worker = Worker::start_of_node(&scene);
        assert_present(&worker.contribute("erin", 1), &["erin"]);
        assert_present(&worker.contribute("alice", 2), &["erin", "alice"]);
        let FromWorker::Opened { pin } = worker.receive() else { panic!("no PIN") };
        assert_logs_in(&scene, &pin);
        let (code, rest, errors) = worker.end();
        assert_eq!((code, rest.len(), errors.as_str()), (0, 0, ""));
    }
}

#[test]
fn one_custodian_alone_gives_nothing() {
    let scene = Scene::accepted(Suite::Sm);
    let mut worker = Worker::start_of_node(&scene);
    assert_present(&worker.contribute("alice", 1), &["alice"]);
    // The same person again, on another stream.
    let FromWorker::Refused { stream: 2, custodian, reason, counts_as_failure } =
        worker.contribute("alice", 2)
    else {
        panic!("not refused")
    };
    assert_eq!(custodian.expect("her signature is valid").as_str(), "alice");
    assert_eq!((reason, counts_as_failure), (Reason::CustodianPresent, false));
    let (code, rest, errors) = worker.end();
    assert_eq!((code, rest.len(), errors.as_str()), (0, 0, ""), "the worker goes without a word");
}

#[test]
fn a_custodian_who_left_does_not_count() {
    let scene = Scene::accepted(Suite::Sm);
    let mut worker = Worker::start_of_node(&scene);
    assert_present(&worker.contribute("alice", 1), &["alice"]);
    worker.send(&ToWorker::Withdraw { stream: 1 });
    assert_present(&worker.contribute("bob", 2), &["bob"]);
    assert_present(&worker.contribute("alice", 3), &["bob", "alice"]);
    assert!(matches!(worker.receive(), FromWorker::Opened { .. }));
    worker.end();
}

#[test]
fn a_wrong_share_is_refused_by_name_and_harms_nobody() {
    let scene = Scene::accepted(Suite::Intl);
    let mut worker = Worker::start_of_node(&scene);
    assert_present(&worker.contribute("alice", 1), &["alice"]);
    // Bob's signature over a share that is his core share: a start ceremony has no use for it.
    let offer = worker.offer("bob");
    let text = scene.read("enrolments/bob.identity");
    let identity: kms_core::share::IdentityFile = codec::open_armour(text.as_bytes()).expect("reads");
    let identity = identity.open(&passphrases("bob").identity).expect("opens");
    let text = scene.read("shares/bob.share");
    let stored: kms_core::share::StoredShare = codec::open_armour(text.as_bytes()).expect("reads");
    let shares = stored.open(&passphrases("bob").share, &identity.enrolment, &worker.bundle).expect("opens");
    let wrong = kms_core::ceremony::Contribution::answer(
        &codec::open(&offer).expect("reads"),
        &worker.one_time_key.expect("ready"),
        &worker.bundle,
        &identity,
        &shares,
        CeremonyKind::CoreSign,
        &mut os_rng(),
    )
    .expect("the key is on the curve");
    let FromWorker::Refused { stream: 2, custodian, reason, counts_as_failure } =
        worker.pass_on(2, offer, codec::to_bytes(&wrong))
    else {
        panic!("not refused")
    };
    assert_eq!(custodian.expect("his signature is valid").as_str(), "bob");
    assert_eq!((reason, counts_as_failure), (Reason::ShareInvalid, true));
    // Noise names nobody.
    let offer = worker.offer("bob");
    let noise = worker.pass_on(3, offer, vec![0xff; 50]);
    assert!(matches!(
        noise,
        FromWorker::Refused {
            custodian: None,
            reason: Reason::CeremonyForeign,
            counts_as_failure: false,
            ..
        }
    ));
    assert_present(&worker.contribute("bob", 4), &["alice", "bob"]);
    assert!(matches!(worker.receive(), FromWorker::Opened { .. }));
    worker.end();
}

#[test]
fn a_core_signature_verifies_with_openssl() {
    for suite in BOTH {
        let scene = Scene::accepted(suite);
        let key = scene.bundle().bundle.core_key.public_key;
        let content = b"a statement that the core key vouches for\n";
        scene.write("statement.txt", content);
        let digest = key.message_digest(suite, content);
        let mut worker = Worker::ready(&scene, CeremonyKind::CoreSign, digest);
        assert_present(&worker.contribute("bob", 1), &["bob"]);
        assert_present(&worker.contribute("erin", 2), &["bob", "erin"]);
        let FromWorker::Signed { signature } = worker.receive() else { panic!("not signed") };
        assert_eq!(worker.end().0, 0);
        scene.write("statement.sig", signature.to_der());
        scene.write("core.pem", scene.run("bundle export-core-key made/bundle.kms").succeeds().stdout);
        let arguments = match suite {
            Suite::Intl => "dgst -sha256 -verify core.pem -signature statement.sig statement.txt",
            Suite::Sm => {
                "pkeyutl -verify -pubin -inkey core.pem -rawin -digest sm3 \
                 -pkeyopt distid:1234567812345678 -sigfile statement.sig -in statement.txt"
            }
        };
        scene.run_tool("openssl", arguments).succeeds();
        scene.write("statement.txt", "another statement\n");
        assert_ne!(scene.run_tool("openssl", arguments).code, 0, "OpenSSL tells a wrong one");
    }
}

#[test]
fn a_core_token_that_is_gone_or_another_one_gets_no_pin() {
    let scene = Scene::accepted(Suite::Sm);
    std::fs::rename(scene.path("tokens"), scene.path("elsewhere")).expect("moves");
    std::fs::create_dir(scene.path("tokens")).expect("is gone");
    let attempt = |expected: &str| {
        let mut worker = Worker::ready(&scene, CeremonyKind::CoreSign, Digest32([1; 32]));
        assert_present(&worker.contribute("bob", 1), &["bob"]);
        assert_present(&worker.contribute("erin", 2), &["bob", "erin"]);
        let FromWorker::Failed { reason: Reason::CeremonyFailed, detail } = worker.receive() else {
            panic!("not failed")
        };
        assert!(detail.contains(expected), "{detail}");
        let (code, _, errors) = worker.end();
        assert_eq!(code, 9);
        assert!(errors.contains(&detail), "{errors}");
    };
    attempt("no token has the label \"core\"");
    // Other tokens with the same labels.
    scene.run("init --plan plan.toml --out second").succeeds();
    attempt("the token \"core\" has serial number");
}

#[test]
fn a_worker_that_is_asked_for_something_else_says_so_and_ends() {
    let scene = Scene::accepted(Suite::Sm);
    let failed = |worker: &mut Worker<'_>| match worker.receive() {
        FromWorker::Failed { reason, detail } => (reason, detail),
        other => panic!("{other:?}"),
    };
    let mut worker = Worker::spawn(&scene, CeremonyKind::ServiceStart, Digest32([3; 32]));
    worker.send(&worker.start());
    assert!(failed(&mut worker).1.contains("not the start of any node"));
    assert_eq!(worker.end().0, 9);

    let mut worker = Worker::spawn(&scene, CeremonyKind::CoreSign, Digest32([3; 32]));
    worker.send(&ToWorker::Withdraw { stream: 1 });
    assert_eq!(failed(&mut worker).0, Reason::Internal);
    assert_eq!(worker.end().0, 9);

    let mut worker = Worker::spawn(&scene, CeremonyKind::CoreSign, Digest32([3; 32]));
    let ToWorker::Start { bundle: mut edited, kind, ceremony_id, operation, module_path, profile } =
        worker.start()
    else {
        unreachable!()
    };
    *edited.last_mut().expect("not empty") ^= 1;
    worker.send(&ToWorker::Start { bundle: edited, kind, ceremony_id, operation, module_path, profile });
    assert!(failed(&mut worker).1.contains("the bundle is refused"));
    assert_eq!(worker.end().0, 9);

    let mut worker = Worker::spawn(&scene, CeremonyKind::CoreSign, Digest32([3; 32]));
    worker.input.as_mut().expect("open").write_all(b"GET / HTTP/1.1\r\n\r\n").expect("writes");
    assert!(failed(&mut worker).1.contains("bytes is announced"));
    assert_eq!(worker.end().0, 9);

    let worker = Worker::spawn(&scene, CeremonyKind::CoreSign, Digest32([3; 32]));
    let (code, rest, errors) = worker.end();
    assert_eq!((code, rest.len(), errors.as_str()), (0, 0, ""), "a server that goes at once");
}

#[test]
fn a_worker_leaves_no_core_file() {
    let scene = Scene::accepted(Suite::Sm);
    let worker = Worker::start_of_node(&scene);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", worker.child.id())).expect("reads");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("is listed");
    assert_eq!(core.split_whitespace().filter(|word| *word == "0").count(), 2, "{core}");
    worker.end();
}

#[test]
fn a_forged_offer_gets_no_share() {
    let scene = Scene::accepted(Suite::Intl);
    let worker = Worker::start_of_node(&scene);
    let mut offer: SignedOffer = codec::open(&worker.offer("alice")).expect("reads");
    offer.signature = Signature([1; 64]);
    let refused = participant(&scene, "alice").answer(
        &codec::to_bytes(&offer),
        worker.purpose,
        &passphrases("alice"),
        clock::now(),
        &mut os_rng(),
    );
    let error = refused.expect_err("nobody of the bundle signed it");
    assert_eq!(error.decline_reason(), Some(Reason::OfferForged));
    worker.end();
}

#[test]
fn files_of_two_custodians_do_not_go_together() {
    let scene = Scene::accepted(Suite::Sm);
    let read = |identity: &str, share: &str| {
        let identity = scene.path(&format!("enrolments/{identity}.identity"));
        Participant::read(scene.bundle(), &identity, &scene.path(&format!("shares/{share}.share")))
    };
    for name in CUSTODIANS {
        assert_eq!(read(name, name).expect("one person's").name().as_str(), name);
    }
    assert!(read("alice", "bob").is_err());
}

/// What the child process below is told about: label, serial number, module and profile, in one line.
const TOKEN: &str = "KMS_CEREMONY_TEST_TOKEN";

/// Logs in with the PIN, in a process of its own: a PKCS#11 library reads its environment once.
#[track_caller]
fn assert_logs_in(scene: &Scene, pin: &Secret) {
    let operations = scene.bundle().bundle.operations;
    let row_mac_key = scene.bundle().bundle.row_mac_key;
    let log_in = |pin: &[u8]| {
        let mut child = scene
            .command(std::env::current_exe().expect("the test knows where it is"))
            .args(["--exact", "worker::a_login_in_a_process_of_its_own", "--ignored", "--nocapture"])
            .env(
                TOKEN,
                format!(
                    "{}\n{}\n{}\n{}",
                    operations.label,
                    operations.serial,
                    scene.module.display(),
                    row_mac_key
                ),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the test starts itself");
        child.stdin.take().expect("a pipe").write_all(pin).expect("writes");
        let output = child.wait_with_output().expect("ends");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (is_open, text) = log_in(pin.expose());
    assert!(is_open && text.contains("1 passed"), "{text}");
    let mut wrong = pin.expose().to_vec();
    wrong.swap(0, 1);
    wrong.rotate_left(1);
    assert!(!log_in(&wrong).0, "the token tells a wrong PIN");
}

#[test]
#[ignore = "started by the other tests, with a PIN on standard input"]
fn a_login_in_a_process_of_its_own() {
    let token = std::env::var(TOKEN).expect("only other tests start this one");
    let parts: Vec<&str> = token.lines().collect();
    let [label, serial, module, row_mac_key] = parts.as_slice() else { panic!("four parts") };
    let mut pin = Zeroizing::new(String::new());
    std::io::stdin().read_to_string(&mut pin).expect("text");
    let module = HsmModule::open(module.as_ref(), ProfileChoice::Auto).expect("the library loads");
    let pin = Pin::entered(&pin).expect("a PIN");
    let partition = module.open_partition(label, serial, pin).expect("the PIN is right");
    let objects = partition.open_session().and_then(|mut session| session.objects()).expect("lists");
    assert!(objects.iter().any(|one| one.id.is_some_and(|id| id.to_string() == *row_mac_key)));
    partition.close();
}
