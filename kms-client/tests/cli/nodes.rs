//! Several nodes: who is asked, who is asked next, and what is never asked twice.

use crate::support::service::{KEY_ID, Service, refusal};
use kms_client::audit::RecordQuery;
use kms_client::{Client, ClientError, Profile};
use kms_core::id::KeyRef;
use kms_core::reason::Reason;
use kms_core::suite::Suite;
use std::future::Future;
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tonic::{Code, Status};

/// Two nodes of one deployment, and a profile that names addresses as a test wants them.
struct Pair {
    folder: TempDir,
    one: Service,
    two: Service,
}

fn pair() -> Pair {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let one = Service::start(folder.path(), Suite::Intl);
    let two = one.another();
    Pair { folder, one, two }
}

fn address(service: &Service) -> String {
    format!("https://{}", service.address)
}

/// An address where nothing listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    format!("https://{}", listener.local_addr().expect("an address"))
}

impl Pair {
    fn profile(&self, endpoints: &[String]) -> Profile {
        let text = std::fs::read_to_string(self.folder.path().join("profile.toml")).expect("reads");
        let others = text.lines().filter(|line| !line.starts_with("endpoint")).collect::<Vec<_>>().join("\n");
        let path = self.folder.path().join("several.toml");
        std::fs::write(&path, format!("endpoints = {endpoints:?}\n{others}\n")).expect("writes");
        Profile::load(&path).expect("the profile loads")
    }

    fn both(&self) -> Profile {
        self.profile(&[address(&self.one), address(&self.two)])
    }

    fn kms(&self, arguments: &[&str]) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kms"));
        command.args(arguments).current_dir(self.folder.path()).env("KMS_PROFILE", "several.toml");
        let output = command.output().expect("the command starts");
        let err = String::from_utf8(output.stderr).expect("UTF-8");
        (output.status.code().expect("an exit code"), err)
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().expect("a runtime").block_on(work)
}

async fn connect(profile: &Profile) -> Client {
    Client::builder(profile).connect().await.expect("connects")
}

fn calls(service: &Service) -> Vec<&'static str> {
    service.script().calls.clone()
}

fn payroll() -> KeyRef {
    KeyRef::parse("payroll").expect("a valid name")
}

fn sealed() -> Status {
    refusal(Code::Unavailable, Reason::Sealed, "sealed: 1 of 2 present")
}

fn busy() -> Status {
    refusal(Code::ResourceExhausted, Reason::Overloaded, "too many calls")
}

#[test]
fn a_dead_node_costs_one_refused_connection_and_the_next_calls_do_not_ask_it() {
    let pair = pair();
    let profile = pair.profile(&[nobody(), address(&pair.two)]);
    let begin = Instant::now();
    block_on(async {
        let client = connect(&profile).await;
        for _ in 0..3 {
            assert_eq!(
                client.describe_key(&payroll()).await.expect("the second serves").id.to_string(),
                KEY_ID
            );
        }
        // A change goes there as well: nothing was sent anywhere else.
        client.suspend_key(&payroll()).await.expect("the second serves");
    });
    assert!(begin.elapsed() < Duration::from_secs(3), "no waiting: {:?}", begin.elapsed());
    assert_eq!(calls(&pair.two), ["describe_key", "describe_key", "describe_key", "suspend_key"]);
}

#[test]
fn a_node_that_dies_while_it_works_is_replaced_for_a_safe_call() {
    let Pair { folder, one, two } = pair();
    let pair = Pair { folder, two: two.another(), one: two };
    let profile = pair.profile(&[address(&one), address(&pair.two)]);
    block_on(async {
        let client = connect(&profile).await;
        client.describe_key(&payroll()).await.expect("the first serves");
        one.script().hangs = true;
        let hanging = tokio::spawn({
            let client = client.clone();
            async move { client.describe_key(&payroll()).await }
        });
        while one.script().calls.len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::task::spawn_blocking(move || drop(one)).await.expect("the node ends");
        hanging.await.expect("no panic").expect("the second serves");
        client.describe_key(&payroll()).await.expect("the second serves");
        // The first is gone for good: a change finds no connection there and goes on too.
        client.suspend_key(&payroll()).await.expect("the second serves");
    });
    assert_eq!(calls(&pair.two), ["describe_key", "describe_key", "suspend_key"]);
}

#[test]
fn a_change_that_a_dying_node_may_have_made_is_not_sent_to_another() {
    let Pair { folder, one, two } = pair();
    let pair = Pair { folder, two: two.another(), one: two };
    let profile = pair.profile(&[address(&one), address(&pair.two)]);
    let (error, next) = block_on(async {
        let client = connect(&profile).await;
        one.script().hangs = true;
        let hanging = tokio::spawn({
            let client = client.clone();
            async move { client.suspend_key(&payroll()).await }
        });
        while one.script().calls.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::task::spawn_blocking(move || drop(one)).await.expect("the node ends");
        let error = hanging.await.expect("no panic").expect_err("whether it was done is not known");
        (error, client.describe_key(&payroll()).await)
    });
    assert!(matches!(error, ClientError::ConnectionBroke { .. }), "{error:?}");
    next.expect("the next call goes to the second");
    assert_eq!(calls(&pair.two), ["describe_key"], "the change is not there");
}

#[test]
fn a_change_that_a_busy_node_refused_is_not_sent_to_another() {
    let pair = pair();
    pair.one.refuse([busy()]);
    let error = block_on(async { connect(&pair.both()).await.suspend_key(&payroll()).await });
    assert_eq!(error.expect_err("refused").reason(), Some(Reason::Overloaded));
    assert_eq!((calls(&pair.one), calls(&pair.two)), (vec!["suspend_key"], vec![]));
}

#[test]
fn a_sealed_node_is_passed_over_by_every_call_since_it_has_done_nothing() {
    let pair = pair();
    pair.one.refuse([sealed(), sealed()]);
    block_on(async {
        let client = connect(&pair.both()).await;
        client.describe_key(&payroll()).await.expect("the second serves");
        client.suspend_key(&payroll()).await.expect("the second serves");
    });
    assert_eq!(calls(&pair.one), ["describe_key"], "the one that worked is asked first");
    assert_eq!(calls(&pair.two), ["describe_key", "suspend_key"]);
    block_on(async { connect(&pair.both()).await.suspend_key(&payroll()).await.expect("the second serves") });
    assert_eq!(calls(&pair.one), ["describe_key", "suspend_key"]);
    assert_eq!(calls(&pair.two).len(), 3);
}

#[test]
fn busy_nodes_are_all_asked_before_anybody_is_asked_again() {
    let pair = pair();
    pair.one.refuse([busy(), busy()]);
    pair.two.refuse([busy()]);
    let begin = Instant::now();
    block_on(async { connect(&pair.both()).await.describe_key(&payroll()).await })
        .expect("the fourth try succeeds");
    assert!(begin.elapsed() >= Duration::from_millis(50), "there was one wait");
    assert_eq!((calls(&pair.one).len(), calls(&pair.two).len()), (2, 2));
}

#[test]
fn a_silent_node_leaves_the_others_their_share_of_the_time() {
    let pair = pair();
    pair.one.script().hangs = true;
    let begin = Instant::now();
    block_on(async {
        let client =
            Client::builder(&pair.both()).deadline(Duration::from_secs(2)).connect().await.expect("connects");
        client.describe_key(&payroll()).await.expect("the second serves");
        client.describe_key(&payroll()).await.expect("the second serves at once");
    });
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    assert_eq!((calls(&pair.one).len(), calls(&pair.two).len()), (1, 2));
}

#[test]
fn what_one_node_says_about_the_request_no_other_is_asked() {
    let pair = pair();
    pair.one.refuse([refusal(Code::NotFound, Reason::KeyNotFound, "no such key")]);
    let error = block_on(async { connect(&pair.both()).await.describe_key(&payroll()).await });
    let error = error.expect_err("refused");
    assert!(matches!(error, ClientError::Refused { reason: Reason::KeyNotFound, .. }), "{error:?}");
    assert_eq!(calls(&pair.two), Vec::<&str>::new());
}

#[test]
fn when_no_node_serves_each_is_named_with_its_reason() {
    let pair = pair();
    pair.one.refuse([sealed()]);
    let dead = nobody();
    let profile = pair.profile(&[address(&pair.one), dead.clone()]);
    let error = block_on(async {
        let client = Client::builder(&profile).try_count_max(1).connect().await.expect("connects");
        client.describe_key(&payroll()).await.expect_err("one is sealed, one is dead")
    });
    let expected = format!(
        "no node could serve the call: {}: sealed: 1 of 2 present; {dead} cannot be reached: Connection refused",
        address(&pair.one)
    );
    assert!(error.to_string().starts_with(&expected), "{error}");
    assert_eq!(error.reason(), Some(Reason::Sealed));
    // The command line ends with the code of the reason, and with 1 when nobody was there.
    pair.one.refuse([sealed(), sealed(), sealed()]);
    let (code, err) = pair.kms(&["key", "show", "payroll"]);
    assert_eq!((code, err.contains("\nreason: SEALED\nnext: kms status\n")), (2, true), "{err}");
    let (a, b) = (nobody(), nobody());
    pair.profile(&[a.clone(), b.clone()]);
    let (code, err) = pair.kms(&["key", "show", "payroll"]);
    assert_eq!(code, 1);
    for address in [a, b] {
        assert!(err.contains(&format!("{address} cannot be reached: Connection refused")), "{err}");
    }
    assert!(err.ends_with("next: kms status --wait 60\n"), "{err}");
}

#[test]
fn a_follower_goes_on_at_another_node_behind_the_last_record() {
    let pair = pair();
    pair.one.script().breaks_records_after = Some(3);
    let query = RecordQuery { follow: true, ..RecordQuery::default() };
    let indexes = block_on(async {
        let mut records = connect(&pair.both()).await.list_records(&query).await.expect("the stream opens");
        let mut indexes = Vec::new();
        while let Some(record) = records.next().await.expect("another node goes on") {
            indexes.push(record.index);
        }
        indexes
    });
    assert_eq!(indexes, (0..9).collect::<Vec<u64>>());
    assert_eq!((&pair.one.script().record_starts, &pair.two.script().record_starts), (&vec![0], &vec![3]));
    // Without a record between two breaks it ends.
    pair.one.script().breaks_records_after = Some(0);
    pair.two.script().breaks_records_after = Some(0);
    let error = block_on(async {
        let mut records = connect(&pair.both()).await.list_records(&query).await.expect("the stream opens");
        records.next().await.expect_err("it never goes on")
    });
    assert!(matches!(error, ClientError::Foreign { code: Code::Unavailable, .. }), "{error:?}");
}

#[test]
fn a_listing_that_breaks_is_an_error_and_is_not_put_together_from_two_nodes() {
    let pair = pair();
    pair.one.script().breaks_records_after = Some(3);
    let error = block_on(async {
        let mut records = connect(&pair.both())
            .await
            .list_records(&RecordQuery::default())
            .await
            .expect("the stream opens");
        for _ in 0..3 {
            records.next().await.expect("a record");
        }
        records.next().await.expect_err("the stream broke")
    });
    assert!(matches!(error, ClientError::Foreign { .. }), "{error:?}");
}

#[test]
fn sealing_is_about_one_node_which_must_be_chosen() {
    let pair = pair();
    let profile = pair.both();
    let (code, err) = pair.kms(&["seal"]);
    assert_eq!(code, 64);
    let expected =
        format!("choose one of: {}, {}\nnext: kms --endpoint URL\n", address(&pair.one), address(&pair.two));
    assert!(err.ends_with(&expected), "{err}");
    assert_eq!((calls(&pair.one).len(), calls(&pair.two).len()), (0, 0));
    assert_eq!(pair.kms(&["seal", "--endpoint", &address(&pair.two)]).0, 0);
    assert_eq!((calls(&pair.one).len(), calls(&pair.two)), (0, vec!["seal"]));
    let (code, err) = pair.kms(&["seal", "--endpoint", "https://c:1"]);
    assert_eq!(code, 64);
    assert!(
        err.starts_with("error: \"https://c:1\" is none of the profile's endpoints: https://127.0.0.1:"),
        "{err}"
    );
    assert!(profile.at("https://c:1").is_err());
}
