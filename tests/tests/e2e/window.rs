//! A ceremony's window closes, whether or not anybody came.

use crate::state_copy::{StateCopy, original, wait_for};
use kms_tests::{PinWatch, Started};
use std::time::Instant;

fn as_custodian(copy: &StateCopy, command: &[&str], name: &str) -> Started {
    let mut arguments = original().as_custodian(command, name);
    let place = arguments.iter().position(|argument| argument == "--profile").expect("is there");
    arguments[place + 1] = copy.profile(name, &copy.address()).into();
    original().start_ceremony(&arguments)
}

#[test]
fn a_window_that_closes_ends_the_ceremony_and_the_next_one_starts_from_nothing() {
    let copy = StateCopy::new();
    copy.edit_config("[ceremony]", "[ceremony]\nwindow_seconds = 10");
    let pins = PinWatch::of_simulator(&copy.tokens);
    let mut server = copy.start("run");
    wait_for(&copy.address(), &mut server);
    let start = Instant::now();
    as_custodian(&copy, &["unseal"], "custodian-1")
        .finish()
        .ended_with(9)
        .says("the window closed with 1 of 2 custodians present (CEREMONY_EXPIRED)");
    let seconds = start.elapsed().as_secs();
    assert!((9..20).contains(&seconds), "the window of 10 s was {seconds} s long");
    // The first custodian's share went with the window: the second alone is one of two.
    as_custodian(&copy, &["unseal", "--wait", "3"], "custodian-2").finish().ended_with(9).says("1 of 2");
    pins.no_attempt_was_spent();
    let both = ["custodian-1", "custodian-3"].map(|name| as_custodian(&copy, &["unseal"], name));
    for finished in both.map(Started::finish) {
        finished.done();
    }
    pins.no_attempt_was_spent();
}
