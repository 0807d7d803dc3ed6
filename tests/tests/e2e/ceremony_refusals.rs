//! Custodians who are wrong, late, hostile or alone: the sender hears why, it is recorded, and nobody else is
//! harmed, and no attempt at a PIN is spent.
//!
//! Most tests let the core key sign a digest of their own, so that each has a ceremony of its own on one
//! shared node. What belongs to opening a node is one story on a sealed one.

use crate::other_deployment;
use kms_core::asymmetric::PrivateKey;
use kms_core::ceremony::{CeremonyKind, Contribution, Evidence, STATEMENT_DOMAIN, SignedOffer};
use kms_core::codec;
use kms_core::quorum::SecretShare;
use kms_core::secret::SecretBytes;
use kms_core::share::SharePair;
use kms_core::suite::Suite;
use kms_proto::v1::join_request::Message;
use kms_server::random::system_rng;
use kms_tests::custodian::{core_sign, opened, service_start};
use kms_tests::{
    Custodian, Deployment, JoinStream, LogEntry, Options, Outsider, PinWatch, Refused, Rpc, audit,
};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tonic::Code;

fn deployment() -> &'static Deployment {
    static SHARED: OnceLock<Deployment> = OnceLock::new();
    SHARED.get_or_init(|| Deployment::start(Options::default()))
}

/// A digest that no other test uses.
fn digest(of: &str) -> [u8; 32] {
    Suite::Intl.hash(&[of.as_bytes()]).0
}

async fn join(deployment: &Deployment, name: &str, digest: &[u8]) -> Result<JoinStream, Refused> {
    JoinStream::begin(&Rpc::connect(deployment, name).await, core_sign(name, digest)).await
}

async fn joined(name: &str, digest: &[u8]) -> JoinStream {
    join(deployment(), name, digest).await.expect("an offer")
}

/// Two honest custodians finish the ceremony, and the signature is right.
async fn two_honest_custodians_sign(deployment: &Deployment, names: [&str; 2], digest: &[u8; 32]) {
    let [first, second] = names.map(|name| Custodian::open(deployment, name));
    let mut first_stream = join(deployment, &first.name, digest).await.expect("an offer");
    first_stream.contribute(&first.answer(&first_stream.offer)).await;
    let mut second_stream = join(deployment, &second.name, digest).await.expect("an offer");
    second_stream.contribute(&second.answer(&second_stream.offer)).await;
    let result = first_stream.result().await.expect("the core key signs");
    assert_eq!(result, second_stream.result().await.expect("the core key signs"));
    let bundle = &first.bundle;
    let signature = result.signature.try_into().map(kms_core::asymmetric::Signature).expect("64 bytes");
    bundle
        .core_key
        .public_key
        .verify_digest(bundle.suite, &kms_core::suite::Digest32(*digest), &signature)
        .expect("the signature is by the core key");
}

/// The record of a refused contribution or join in the ceremony about a digest.
async fn refusals_of(deployment: &Deployment, custodian: &str, reason: &str) -> Vec<LogEntry> {
    let entries = audit::records_from(deployment, 0).await;
    let is_it = |entry: &LogEntry| {
        entry.record.event == "ceremony.join"
            && entry.is_refusal(reason)
            && entry.record.actor == format!("kms://default/custodian/{custodian}")
    };
    entries.into_iter().filter(is_it).collect()
}

#[track_caller]
fn is(refused: &Refused, reason: &str, code: Code) {
    assert_eq!((refused.reason.as_str(), refused.code), (reason, code), "{refused:?}");
    assert!(!refused.message.is_empty());
}

fn copy(share: &SecretShare) -> SecretShare {
    let value = SecretBytes::from_slice(share.value().expose()).expect("32 bytes");
    SecretShare::new(share.index(), value).expect("not zero")
}

#[tokio::test]
async fn one_custodian_is_never_two() {
    let digest = digest("one custodian is never two");
    let pins = PinWatch::of(deployment());
    let first = Custodian::open(deployment(), "custodian-1");
    let mut one = joined("custodian-1", &digest).await;
    one.contribute(&first.answer(&one.offer)).await;
    one.wait_for_present(1).await.expect("accepted");
    for _ in 0..3 {
        let again = joined("custodian-1", &digest).await;
        let contribution = first.answer(&again.offer);
        let refused = again.refusal_of(&contribution).await;
        is(&refused, "CUSTODIAN_PRESENT", Code::FailedPrecondition);
    }
    pins.no_attempt_was_spent();
    let second = Custodian::open(deployment(), "custodian-2");
    let other = joined("custodian-2", &digest).await;
    other.contribute(&second.answer(&other.offer)).await;
    let result = one.result().await.expect("two are a quorum");
    assert_eq!(result.present, ["custodian-1", "custodian-2"]);
    assert!(refusals_of(deployment(), "custodian-1", "CUSTODIAN_PRESENT").await.len() >= 3);
    audit::verify(deployment());
}

#[tokio::test]
async fn a_share_goes_when_its_custodian_goes() {
    let digest = digest("a share goes when its custodian goes");
    let pins = PinWatch::of(deployment());
    let mut third = joined("custodian-3", &digest).await;
    let first = Custodian::open(deployment(), "custodian-1");
    let one = joined("custodian-1", &digest).await;
    one.contribute(&first.answer(&one.offer)).await;
    third.wait_for_present(1).await.expect("one is present");
    drop(one);
    third.wait_for_present(0).await.expect("nobody is present");
    pins.no_attempt_was_spent();
    let second = Custodian::open(deployment(), "custodian-2");
    let mut two = joined("custodian-2", &digest).await;
    two.contribute(&second.answer(&two.offer)).await;
    assert_eq!(third.wait_for_present(1).await.expect("one is present"), ["custodian-2"]);
    let third_custodian = Custodian::open(deployment(), "custodian-3");
    third.contribute(&third_custodian.answer(&third.offer)).await;
    let result = two.result().await.expect("two are a quorum");
    assert_eq!(result.present, ["custodian-2", "custodian-3"]);
    pins.no_attempt_was_spent();
}

#[tokio::test]
async fn a_share_goes_when_its_custodian_declines_or_contradicts_themselves() {
    let digest = digest("a share goes when its custodian declines");
    let pins = PinWatch::of(deployment());
    let mut third = joined("custodian-3", &digest).await;
    let (first, second) =
        (Custodian::open(deployment(), "custodian-1"), Custodian::open(deployment(), "custodian-2"));
    for second_word in [Message::Decline("CEREMONY_FOREIGN".into()), Message::Contribution(vec![0; 100])] {
        let one = joined("custodian-1", &digest).await;
        one.contribute(&first.answer(&one.offer)).await;
        third.wait_for_present(1).await.expect("one is present");
        // The stream stays open all the while: what ends the presence is what was said.
        one.send(second_word).await;
        third.wait_for_present(0).await.expect("nobody is present");
        let two = joined("custodian-2", &digest).await;
        two.contribute(&second.answer(&two.offer)).await;
        assert_eq!(third.wait_for_present(1).await.expect("one is present"), ["custodian-2"]);
        drop(two);
        third.wait_for_present(0).await.expect("nobody is present");
        drop(one);
    }
    pins.no_attempt_was_spent();
    two_honest_custodians_sign(deployment(), ["custodian-1", "custodian-2"], &digest).await;
}

#[tokio::test]
async fn a_share_of_another_deployment_or_an_edited_one_is_refused_and_the_others_go_on() {
    let digest = digest("foreign and edited shares");
    let pins = PinWatch::of(deployment());
    let honest = Custodian::open(deployment(), "custodian-1");
    let mut one = joined("custodian-1", &digest).await;
    one.contribute(&honest.answer(&one.offer)).await;
    one.wait_for_present(1).await.expect("accepted");

    let wrong = Custodian::open(deployment(), "custodian-2");
    let foreign = Custodian::open(other_deployment(), "custodian-2").shares;
    let mut edited = SharePair { start: copy(&wrong.shares.start), core: copy(&wrong.shares.core) };
    let mut value = SecretBytes::<32>::from_slice(edited.core.value().expose()).expect("32 bytes");
    value.expose_mut()[31] ^= 1;
    edited.core = SecretShare::new(edited.core.index(), value).expect("not zero");
    for shares in [&foreign, &edited] {
        let stream = joined("custodian-2", &digest).await;
        let contribution = wrong.answer_with(&stream.offer, shares);
        let refused = stream.refusal_of(&contribution).await;
        is(&refused, "SHARE_INVALID", Code::InvalidArgument);
        assert!(refused.message.contains("custodian-2"), "{refused:?}");
    }
    pins.no_attempt_was_spent();
    let refusals = refusals_of(deployment(), "custodian-2", "SHARE_INVALID").await;
    assert_eq!(refusals.len(), 2);
    for entry in refusals {
        // The record proves who sent the wrong share, without the share.
        let evidence = entry.record.evidence.expect("the statement is kept");
        let evidence: Evidence = codec::open(&evidence).expect("evidence is canonical");
        let sign_key = wrong.identity.sign_key.public_key();
        let suite = wrong.bundle.suite;
        sign_key
            .verify(suite, STATEMENT_DOMAIN, &evidence.statement, &evidence.signature)
            .expect("the custodian signed it");
    }

    let two = joined("custodian-2", &digest).await;
    two.contribute(&wrong.answer(&two.offer)).await;
    assert_eq!(one.result().await.expect("two are a quorum").present, ["custodian-1", "custodian-2"]);
    audit::verify(deployment());
}

#[tokio::test]
async fn a_start_share_does_not_sign() {
    let digest = digest("a start share does not sign");
    let pins = PinWatch::of(deployment());
    let third = Custodian::open(deployment(), "custodian-3");
    let stream = joined("custodian-3", &digest).await;
    let key = opened(&stream.offer).one_time_key;
    let kind = CeremonyKind::ServiceStart;
    let (identity, shares) = (&third.identity, &third.shares);
    let contribution =
        Contribution::answer(&stream.offer, &key, &third.bundle, identity, shares, kind, &mut system_rng())
            .expect("the key is on the curve");
    is(&stream.refusal_of(&contribution).await, "SHARE_INVALID", Code::InvalidArgument);
    pins.no_attempt_was_spent();
    two_honest_custodians_sign(deployment(), ["custodian-1", "custodian-3"], &digest).await;
}

#[tokio::test]
async fn a_person_who_is_not_in_the_plan_is_refused() {
    let digest = digest("not in the plan");
    let pins = PinWatch::of(deployment());
    let rpc = Rpc::connect(deployment(), "custodian-3").await;
    for name in ["mallory", "custodian-1", "custodian-4"] {
        let refused = JoinStream::begin(&rpc, core_sign(name, &digest)).await.expect_err("refused");
        is(&refused, "CUSTODIAN_UNKNOWN", Code::PermissionDenied);
        let record = audit::record_of(deployment(), &refused.request_id).await;
        assert!(record.is_refusal("CUSTODIAN_UNKNOWN"), "{record:?}");
    }
    for (begin, field) in [
        (core_sign("Not A Name", &digest), "custodian"),
        (core_sign("custodian-3", &[1; 31]), "operation"),
        (core_sign("custodian-3", &[]), "operation"),
        (kms_proto::v1::JoinBegin { kind: 9, ..core_sign("custodian-3", &digest) }, "kind"),
        (kms_proto::v1::JoinBegin { operation: vec![0; 32], ..service_start("custodian-3") }, "operation"),
    ] {
        let refused = JoinStream::begin(&rpc, begin).await.expect_err("refused");
        assert_eq!((refused.reason.as_str(), refused.field.as_deref()), ("FIELD_INVALID", Some(field)));
        let record = audit::record_of(deployment(), &refused.request_id).await;
        assert!(record.is_refusal("FIELD_INVALID"), "{record:?}");
    }
    let refused = JoinStream::begin(&rpc, service_start("custodian-3")).await.expect_err("refused");
    is(&refused, "ALREADY_UNSEALED", Code::FailedPrecondition);
    pins.no_attempt_was_spent();
    audit::verify(deployment());
}

#[tokio::test]
async fn a_statement_by_another_key_is_refused_and_counts_against_nobody() {
    let digest = digest("a statement by another key");
    let pins = PinWatch::of(deployment());
    let honest = Custodian::open(deployment(), "custodian-2");
    let stranger = PrivateKey::generate(honest.bundle.suite, &mut system_rng());
    // More often than would lock a custodian: what anybody can send must lock nobody.
    for _ in 0..4 {
        let stream = joined("custodian-2", &digest).await;
        let mut contribution = honest.answer(&stream.offer);
        contribution.signature = stranger.sign(STATEMENT_DOMAIN, &contribution.statement, &mut system_rng());
        let refused = stream.refusal_of(&contribution).await;
        is(&refused, "SIGNATURE_INVALID", Code::PermissionDenied);
    }
    assert_eq!(refusals_of(deployment(), "custodian-2", "SIGNATURE_INVALID").await.len(), 4);
    pins.no_attempt_was_spent();
    two_honest_custodians_sign(deployment(), ["custodian-2", "custodian-3"], &digest).await;
    audit::verify(deployment());
}

#[tokio::test]
async fn an_answer_to_an_older_or_foreign_offer_is_refused() {
    let digest = digest("replays");
    let pins = PinWatch::of(deployment());
    let first = Custodian::open(deployment(), "custodian-1");
    let mut one = joined("custodian-1", &digest).await;
    let old: SignedOffer = one.offer.clone();
    let recorded = first.answer(&old);
    one.contribute(&recorded).await;
    one.wait_for_present(1).await.expect("accepted");
    drop(one);

    // The same bytes on a new stream, as somebody who recorded them would send them.
    let stream = joined("custodian-1", &digest).await;
    assert_ne!(opened(&stream.offer).nonce, opened(&old).nonce, "every offer is fresh");
    is(&stream.refusal_of(&recorded).await, "CEREMONY_FOREIGN", Code::InvalidArgument);
    // A fresh answer to an old offer, and one to another custodian's offer.
    let stream = joined("custodian-1", &digest).await;
    is(&stream.refusal_of(&first.answer(&old)).await, "CEREMONY_FOREIGN", Code::InvalidArgument);
    let others = joined("custodian-2", &digest).await;
    let stream = joined("custodian-1", &digest).await;
    let contribution = first.answer(&others.offer);
    is(&stream.refusal_of(&contribution).await, "CEREMONY_FOREIGN", Code::InvalidArgument);
    // An offer of the same node for another digest.
    let elsewhere = joined("custodian-1", &super::ceremony_refusals::digest("elsewhere")).await;
    let stream = joined("custodian-1", &digest).await;
    let contribution = first.answer(&elsewhere.offer);
    is(&stream.refusal_of(&contribution).await, "CEREMONY_FOREIGN", Code::InvalidArgument);
    // Bytes that are nothing at all.
    let mut stream = joined("custodian-1", &digest).await;
    stream.send(Message::Contribution(b"not a contribution".to_vec())).await;
    let refused = stream.result().await.expect_err("refused");
    is(&refused, "CEREMONY_FOREIGN", Code::InvalidArgument);

    assert!(refusals_of(deployment(), "custodian-1", "CEREMONY_FOREIGN").await.len() >= 5);
    pins.no_attempt_was_spent();
    two_honest_custodians_sign(deployment(), ["custodian-1", "custodian-2"], &digest).await;
    audit::verify(deployment());
}

/// The last one who goes ends a ceremony. Who comes in that moment is in the next one.
#[tokio::test]
async fn who_comes_while_a_ceremony_ends_begins_the_next_one() {
    let digest = digest("comings and goings");
    // On a connection that is there, so that the one comes right after the other.
    let rpc = Rpc::connect(deployment(), "custodian-3").await;
    for _ in 0..200 {
        let stream = JoinStream::begin(&rpc, core_sign("custodian-3", &digest)).await.expect("an offer");
        drop(stream);
    }
}

/// Opening takes its time. Who comes meanwhile is told how it ended, and waits in no other ceremony.
#[tokio::test]
async fn who_comes_while_the_node_opens_hears_that_it_is_open() {
    let deployment = Deployment::start(Options { sealed: true, ..Options::default() });
    let slow =
        "format = 1\n[[rule]]\nfunctions = [\"C_FindObjectsInit\"]\naction = \"delay\"\ndelay_us = 200000\n";
    std::fs::write(deployment.state("tokens/control.toml"), slow).expect("the fault is scripted");
    let third = Rpc::connect(&deployment, "custodian-3").await;
    let mut streams = Vec::new();
    for name in ["custodian-1", "custodian-2"] {
        let custodian = Custodian::open(&deployment, name);
        let rpc = Rpc::connect(&deployment, name).await;
        let stream = JoinStream::begin(&rpc, service_start(name)).await.expect("an offer");
        stream.contribute(&custodian.answer(&stream.offer)).await;
        streams.push(stream);
    }
    // The worker has the second share, or will have it at once.
    tokio::time::sleep(Duration::from_millis(400)).await;
    let begin = Instant::now();
    let refused = JoinStream::begin(&third, service_start("custodian-3")).await.expect_err("it opens");
    is(&refused, "ALREADY_UNSEALED", Code::FailedPrecondition);
    assert!(begin.elapsed() > Duration::from_millis(100), "it was opening when the third came");
    for mut stream in streams {
        stream.result().await.expect("the node is open");
    }
}

/// A caller who goes away while the worker starts has left the ceremony, which ends with them: a ninth would be refused
/// beside eight that live on.
#[tokio::test]
async fn who_goes_away_while_the_ceremony_starts_is_not_in_it() {
    let rpc = Rpc::connect(deployment(), "custodian-3").await;
    for number in 0..8 {
        let digest = digest(&format!("a hasty custodian {number}"));
        let joining = JoinStream::begin(&rpc, core_sign("custodian-3", &digest));
        let joined = tokio::time::timeout(Duration::from_millis(3), joining).await;
        assert!(joined.is_err(), "no worker starts that fast");
    }
    let last = digest("a custodian with patience");
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Err(refused) = JoinStream::begin(&rpc, core_sign("custodian-3", &last)).await {
        assert_eq!(refused.reason, "OVERLOADED", "{refused:?}");
        assert!(Instant::now() < deadline, "the ceremonies that were left go on: {refused:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_wrong_passphrase_is_a_sentence_and_nothing_is_sent() {
    let folder = deployment().folder();
    let pins = PinWatch::of(deployment());
    std::fs::write(folder.join("wrong"), "not the passphrase").expect("writes");
    std::fs::write(folder.join("signed.txt"), "to be signed").expect("writes");
    // Another custodian keeps the ceremony open, so that it can be recognised in the log.
    let witness = Custodian::open(deployment(), "custodian-2");
    let core_key = &witness.bundle.core_key.public_key;
    let digest = core_key.message_digest(witness.bundle.suite, b"to be signed").0;
    let mut waiting = joined("custodian-2", &digest).await;
    let ceremony: String =
        opened(&waiting.offer).ceremony_id.iter().map(|byte| format!("{byte:02x}")).collect();
    for option in ["--passphrase-file", "--share-passphrase-file"] {
        let command = ["core", "sign", "signed.txt", "--out", "wrong.sig", "--wait", "20"];
        let mut arguments = deployment().as_custodian(&command, "custodian-3");
        let place = arguments.iter().position(|argument| argument == option).expect("the option is there");
        arguments[place + 1] = "wrong".into();
        deployment().ceremony(&arguments).ended_with(1).says("nothing was sent").says("passphrase is wrong");
        assert!(!folder.join("wrong.sig").exists());
    }
    pins.no_attempt_was_spent();
    let entries = audit::records_from(deployment(), 0).await;
    let steps: Vec<_> = entries
        .iter()
        .filter(|entry| entry.detail("ceremony") == Some(&ceremony))
        .map(|entry| {
            (entry.detail("custodian").unwrap_or_default(), entry.detail("step").unwrap_or_default())
        })
        .collect();
    assert_eq!(steps, [("custodian-2", "join"), ("custodian-3", "join"), ("custodian-3", "join")]);
    // With the right passphrase the same ceremony goes on.
    let third = Custodian::open(deployment(), "custodian-3");
    waiting.contribute(&witness.answer(&waiting.offer)).await;
    let stream = joined("custodian-3", &digest).await;
    stream.contribute(&third.answer(&stream.offer)).await;
    waiting.result().await.expect("two are a quorum");
}

/// Opening a node, with every obstacle before it that a custodian can meet or make.
#[tokio::test]
async fn three_wrong_shares_lock_their_sender_and_the_honest_two_still_open_the_node() {
    let sealed = Deployment::start(Options { sealed: true, ..Options::default() });
    let pins = PinWatch::of(&sealed);
    let start = async |name: &str| JoinStream::start_service(&sealed, name).await;
    let hostile = Custodian::open(&sealed, "custodian-3");
    let foreign = Custodian::open(other_deployment(), "custodian-3").shares;
    let honest = Custodian::open(&sealed, "custodian-1");
    let mut one = start("custodian-1").await.expect("an offer");
    one.contribute(&honest.answer(&one.offer)).await;
    assert_eq!(one.wait_for_present(1).await.expect("accepted"), ["custodian-1"]);

    for _ in 0..3 {
        let stream = start("custodian-3").await.expect("not locked yet");
        let contribution = hostile.answer_with(&stream.offer, &foreign);
        is(&stream.refusal_of(&contribution).await, "SHARE_INVALID", Code::InvalidArgument);
    }
    let refused = start("custodian-3").await.expect_err("locked, also with the right share");
    is(&refused, "CUSTODIAN_LOCKED", Code::FailedPrecondition);
    assert!(refused.message.contains("30 more minutes"), "{refused:?}");
    sealed
        .ceremony(&sealed.as_custodian(&["unseal", "--wait", "3"], "custodian-3"))
        .ended_with(9)
        .says("CUSTODIAN_LOCKED");
    let status = sealed.kms("admin", &["--output", "json", "status"]).ended_with(2).stdout;
    assert!(status.contains(r#""present":["custodian-1"]"#), "{status}");
    pins.no_attempt_was_spent();

    let second = Custodian::open(&sealed, "custodian-2");
    let two = start("custodian-2").await.expect("nobody else is locked");
    two.contribute(&second.answer(&two.offer)).await;
    let result = one.result().await.expect("the honest two open the node");
    assert_eq!(result.present, ["custodian-1", "custodian-2"]);
    sealed.kms("admin", &["status", "--wait", "10"]).done();
    pins.no_attempt_was_spent();

    assert_eq!(refusals_of(&sealed, "custodian-3", "SHARE_INVALID").await.len(), 3);
    assert_eq!(refusals_of(&sealed, "custodian-3", "CUSTODIAN_LOCKED").await.len(), 2);
    audit::verify(&sealed);
}

/// What the other tests rely on: an attempt is seen at once, and also after a right PIN has cleared the flags.
#[tokio::test]
async fn an_attempt_at_a_pin_is_seen_also_when_the_right_one_came_after_it() {
    let deployment = Deployment::start(Options::default());
    let pins = PinWatch::of(&deployment);
    two_honest_custodians_sign(&deployment, ["custodian-1", "custodian-2"], &digest("before")).await;
    pins.no_attempt_was_spent();
    let wrong = ["--token-label", "kms-core", "--login", "--pin", "a wrong PIN", "--list-objects"];
    Outsider::of(&deployment).pkcs11_tool(&wrong).ended_with(1).says("CKR_PIN_INCORRECT");
    let traces = pins.traces();
    let is_replaced = |trace: &String| trace.ends_with("/state: replaced");
    assert_eq!(traces[0], "kms-core: user PIN count low");
    assert!(traces.len() == 2 && is_replaced(&traces[1]), "{traces:?}");

    two_honest_custodians_sign(&deployment, ["custodian-1", "custodian-2"], &digest("after")).await;
    let traces = pins.traces();
    assert!(traces.len() == 1 && is_replaced(&traces[0]), "the flag is cleared: {traces:?}");
}

/// A certificate of a custodian and no share at all are enough to join; they must not be enough to keep others out.
#[tokio::test]
async fn one_custodian_who_begins_many_ceremonies_does_not_keep_the_others_from_theirs() {
    let sealed = Deployment::start(Options { sealed: true, ..Options::default() });
    let mut held = Vec::new();
    let mut refused_count = 0;
    for number in 0..20 {
        let digest = digest(&format!("ceremony {number}"));
        match join(&sealed, "custodian-3", &digest).await {
            Ok(stream) => held.push(stream),
            Err(refused) => {
                is(&refused, "OVERLOADED", Code::ResourceExhausted);
                assert!(refused.message.contains("custodian-3 has begun 8 core signs"), "{refused:?}");
                refused_count += 1;
            }
        }
    }
    assert_eq!((held.len(), refused_count), (8, 12));
    sealed.unseal();
    two_honest_custodians_sign(&sealed, ["custodian-1", "custodian-2"], &digest("of the others")).await;

    // What has ended counts no more.
    drop(held.pop());
    let again = digest("after one has ended");
    loop {
        match join(&sealed, "custodian-3", &again).await {
            Ok(_) => break,
            Err(refused) => is(&refused, "OVERLOADED", Code::ResourceExhausted),
        }
    }
}
