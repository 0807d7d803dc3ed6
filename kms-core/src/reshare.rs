//! Reshare: what custodians agree to, the bundle that comes next, and how far the change of the PINs is
//! (docs/reshare.md).

use crate::bundle::{Bundle, Custodian, MasterKey};
use crate::codec;
use crate::id::{CustodianName, Principal, Role};
use crate::quorum::{SecretShare, ShareSet};
use crate::share::Enrolment;
use crate::suite::Digest32;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

/// The digest that stands for a reshare: what custodians compare and sign.
pub fn reshare_digest(
    bundle: &Bundle,
    fingerprint: &Digest32,
    plan: &[u8],
    enrolments: &[Enrolment],
) -> Digest32 {
    let suite = bundle.suite;
    let mut parts: Vec<[u8; 32]> = Vec::from([fingerprint.0, suite.hash(&[plan]).0]);
    parts.extend(enrolments.iter().map(|one| suite.hash(&[&codec::to_bytes(one)]).0));
    let mut input: Vec<&[u8]> = Vec::from([&b"kms/v1/reshare\0"[..]]);
    input.extend(parts.iter().map(|part| &part[..]));
    suite.hash(&input)
}

/// A change of one PIN. The order is the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PinStep {
    /// SO PIN of the operations partition.
    OperationsSo,
    /// SO PIN of the core partition.
    CoreSo,
    /// User PIN of the core partition, set by its SO.
    CoreUser,
    /// User PIN of the operations partition, set by its SO. From here on the new shares start the service.
    OperationsUser,
}

impl PinStep {
    /// Every step, in the order in which they are done.
    pub const ALL: [PinStep; 4] =
        [PinStep::OperationsSo, PinStep::CoreSo, PinStep::CoreUser, PinStep::OperationsUser];

    /// The name in the progress file and in transcripts.
    pub const fn name(self) -> &'static str {
        match self {
            PinStep::OperationsSo => "operations-so",
            PinStep::CoreSo => "core-so",
            PinStep::CoreUser => "core-user",
            PinStep::OperationsUser => "operations-user",
        }
    }

    /// Whether it takes the old secret: the SO changes their own PIN.
    pub const fn needs_old_secret(self) -> bool {
        matches!(self, PinStep::OperationsSo | PinStep::CoreSo)
    }
}

/// How far one step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Never begun: the token has the old PIN.
    Untouched,
    /// Begun, and nobody knows whether the token did it.
    InDoubt,
    /// The token refused every PIN that it could have. People find out why before anything more is tried.
    Refused,
    /// Done: the token has the new PIN.
    Done,
}

/// Why a progress file is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProgressError {
    /// Of another reshare.
    #[error("is of another reshare: it names bundle {found}")]
    OtherReshare {
        /// What its first line names.
        found: String,
    },
    /// A line that cannot follow.
    #[error("line {number} does not follow from the lines before")]
    Line {
        /// From 1.
        number: usize,
    },
}

/// The line that says that nothing is known but what is done: an earlier progress file was lost.
const IN_DOUBT: &str = "in-doubt";

/// How far a reshare is. Lines are only ever added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    standings: [Standing; PinStep::ALL.len()],
    is_doubted: bool,
}

impl Progress {
    /// Nothing was begun.
    pub const fn untouched() -> Self {
        Self { standings: [Standing::Untouched; PinStep::ALL.len()], is_doubted: false }
    }

    /// Whatever is not done may have been begun: an earlier progress file was lost, or people have found out why a step was
    /// refused.
    pub fn doubt(&mut self) {
        self.is_doubted = true;
        for standing in self.standings.iter_mut().filter(|standing| **standing != Standing::Done) {
            *standing = Standing::InDoubt;
        }
    }

    /// The line to write, durable, with [`Progress::doubt`].
    pub fn doubted() -> String {
        [IN_DOUBT, "\n"].concat()
    }

    /// Reads a progress file of the reshare that leads to the bundle with this fingerprint. A last line without its end was
    /// never durable and counts for nothing.
    ///
    /// # Errors
    /// [`ProgressError`].
    pub fn parse(text: &str, next: &Digest32) -> Result<Self, ProgressError> {
        let mut progress = Self::untouched();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for (position, line) in whole.split('\n').enumerate().filter(|_| !whole.is_empty()) {
            let number = position + 1;
            if number == 1 {
                let found = line.strip_prefix("reshare ").ok_or(ProgressError::Line { number })?;
                if found != next.to_hex() {
                    return Err(ProgressError::OtherReshare { found: found.chars().take(64).collect() });
                }
                continue;
            }
            if line == IN_DOUBT {
                progress.doubt();
                continue;
            }
            let (word, name) = line.split_once(' ').ok_or(ProgressError::Line { number })?;
            let step = PinStep::ALL.into_iter().find(|step| step.name() == name);
            let step = step.ok_or(ProgressError::Line { number })?;
            // What a later run does again is begun again.
            let may_follow = match word {
                "began" => progress.standing(step) != Standing::Refused && progress.next() == Some(step),
                "done" | "refused" => {
                    progress.standing(step) == Standing::InDoubt && progress.next() == Some(step)
                }
                _ => false,
            };
            if !may_follow {
                return Err(ProgressError::Line { number });
            }
            let standing = match word {
                "began" => Standing::InDoubt,
                "refused" => Standing::Refused,
                _ => Standing::Done,
            };
            progress.set(step, standing);
        }
        Ok(progress)
    }

    /// The first line of a progress file.
    pub fn first_line(next: &Digest32) -> String {
        let mut line = String::from("reshare ");
        let _ = writeln!(line, "{}", next.to_hex());
        line
    }

    /// The line to write, durable, before a step ([`Standing::InDoubt`]) and after it.
    pub fn line(step: PinStep, standing: Standing) -> String {
        let word = match standing {
            Standing::Untouched | Standing::InDoubt => "began ",
            Standing::Refused => "refused ",
            Standing::Done => "done ",
        };
        [word, step.name(), "\n"].concat()
    }

    /// How far one step is.
    pub fn standing(&self, step: PinStep) -> Standing {
        self.standings[step as usize]
    }

    /// Changes what is known of a step.
    pub fn set(&mut self, step: PinStep, standing: Standing) {
        self.standings[step as usize] = standing;
    }

    /// The first step that is not done.
    pub fn next(&self) -> Option<PinStep> {
        PinStep::ALL.into_iter().find(|step| self.standing(*step) != Standing::Done)
    }

    /// Whether a step that takes the old secret is left. In doubt it may be done already, and the new secret is tried first.
    pub fn needs_old_secret(&self) -> bool {
        !self.is_doubted && self.next().is_some_and(PinStep::needs_old_secret)
    }

    /// Whether any PIN may be a new one already.
    pub fn has_begun(&self) -> bool {
        self.standings.iter().any(|standing| *standing != Standing::Untouched)
    }
}

/// Who holds shares after a reshare, who leaves, and who may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Custodians of the bundle who are not in the new set, or with other keys.
    pub leaving: Vec<CustodianName>,
    /// Custodians of the new set who are not in the bundle, or with other keys.
    pub joining: Vec<CustodianName>,
}

impl Change {
    /// Compares a bundle with the enrolments of the new set.
    pub fn between(bundle: &Bundle, next: &[Enrolment]) -> Self {
        let is_same = |one: &Custodian, other: &Enrolment| {
            one.name == other.name && one.sign_key == other.sign_key && one.seal_key == other.seal_key
        };
        let leaves = |one: &&Custodian| !next.iter().any(|other| is_same(one, other));
        let joins = |other: &&Enrolment| !bundle.custodians.iter().any(|one| is_same(one, other));
        Self {
            leaving: bundle.custodians.iter().filter(leaves).map(|one| one.name.clone()).collect(),
            joining: next.iter().filter(joins).map(|other| other.name.clone()).collect(),
        }
    }
}

/// The principals after a reshare, where the plan does not list them: those of the bundle, but for custodians who are
/// in the new set no more.
pub fn remaining_principals(bundle: &Bundle, next: &[Enrolment]) -> Vec<Principal> {
    let stays = |one: &&Principal| {
        one.role != Role::Custodian || next.iter().any(|other| other.name.as_str() == one.name.as_str())
    };
    bundle.principals.iter().filter(stays).cloned().collect()
}

/// What a reshare puts into the next bundle.
#[derive(Debug)]
pub struct NextSet<'a> {
    /// Custodians needed.
    pub threshold_needed: u8,
    /// In the order of their shares.
    pub enrolments: &'a [Enrolment],
    /// Shares of the new start secret, in the same order, and its commitment.
    pub start: (&'a [SecretShare], Digest32),
    /// Shares of the new core secret, in the same order, and its commitment.
    pub core: (&'a [SecretShare], Digest32),
    /// Who may call.
    pub principals: Vec<Principal>,
    /// A new version of the master key, if one was made.
    pub master_key: Option<MasterKey>,
}

/// The share set after a bundle's.
pub fn next_share_set(bundle: &Bundle) -> ShareSet {
    ShareSet { share_epoch: bundle.share_epoch + 1, ..bundle.share_set() }
}

/// The bundle after a reshare.
pub fn next_bundle(bundle: &Bundle, fingerprint: Digest32, next: NextSet<'_>) -> Bundle {
    let set = next_share_set(bundle);
    let mut made = bundle.clone();
    made.share_epoch = set.share_epoch;
    made.threshold_needed = next.threshold_needed;
    made.custodians = Custodian::of_set(&set, next.enrolments, next.start.0, next.core.0);
    made.start_commitment = next.start.1;
    made.core_commitment = next.core.1;
    made.operations.pin_epoch += 1;
    made.core.pin_epoch += 1;
    made.master_keys.extend(next.master_key);
    made.principals = next.principals;
    made.previous = Some(fingerprint);
    made
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::testing::test_bundle;
    use crate::quorum::testing::TestRng;
    use crate::quorum::{SecretKind, Threshold, combine, split};
    use crate::secret::SecretBytes;
    use crate::share::Identity;
    use crate::suite::Suite;
    use alloc::format;

    const NEXT: Digest32 = Digest32([7; 32]);

    /// Every run that is stopped after any line, and its last line half written, is a state that it was in.
    #[test]
    fn every_cut_of_a_progress_file_is_a_state_that_it_was_in() {
        let mut text = Progress::first_line(&NEXT);
        let mut states = Vec::from([(text.len(), Progress::untouched())]);
        for step in PinStep::ALL {
            for (line, standing) in
                [Standing::InDoubt, Standing::Done].map(|standing| (Progress::line(step, standing), standing))
            {
                text.push_str(&line);
                let mut state = states.last().expect("there is one").1.clone();
                state.set(step, standing);
                states.push((text.len(), state));
            }
        }
        for cut in 0..=text.len() {
            let expected = states.iter().rev().find(|(len, _)| *len <= cut);
            let expected = expected.map_or(Progress::untouched(), |(_, state)| state.clone());
            assert_eq!(Progress::parse(&text[..cut], &NEXT), Ok(expected), "{cut}");
        }
        let last = states.last().expect("there is one").1.clone();
        assert_eq!((last.next(), last.needs_old_secret()), (None, false));
    }

    /// A run that is stopped and begun again writes its steps again; a step that was done is never begun again, and none is
    /// left out.
    #[test]
    fn lines_follow_from_each_other_or_are_refused() {
        let first = Progress::first_line(&NEXT);
        let parse = |lines: &str| Progress::parse(&format!("{first}{lines}"), &NEXT);
        let again = parse("began operations-so\nbegan operations-so\ndone operations-so\nbegan core-so\n");
        let again = again.expect("a run that was stopped twice");
        assert_eq!(again.standing(PinStep::OperationsSo), Standing::Done);
        assert_eq!(
            (again.next(), again.standing(PinStep::CoreSo)),
            (Some(PinStep::CoreSo), Standing::InDoubt)
        );
        assert!(again.needs_old_secret() && again.has_begun());
        // What is in doubt stays so until it is done; what was refused is not tried again before people say so.
        let doubted = parse("began operations-so\ndone operations-so\nin-doubt\nbegan core-so\nin-doubt\n");
        let doubted = doubted.expect("a file that was lost, and its successor");
        assert_eq!(doubted.standing(PinStep::OperationsSo), Standing::Done);
        assert_eq!(doubted.standing(PinStep::OperationsUser), Standing::InDoubt);
        assert!(!doubted.needs_old_secret());
        let refused = parse("began operations-so\nrefused operations-so\n").expect("a refused PIN");
        assert_eq!(refused.standing(PinStep::OperationsSo), Standing::Refused);
        let after = parse("began operations-so\nrefused operations-so\nin-doubt\nbegan operations-so\n");
        assert_eq!(after.expect("people said so").standing(PinStep::OperationsSo), Standing::InDoubt);
        for (lines, number) in [
            ("began operations-so\nrefused operations-so\nbegan operations-so\n", 4),
            ("refused operations-so\n", 2),
            ("done operations-so\n", 2),
            ("began core-so\n", 2),
            ("began operations-so\ndone core-so\n", 3),
            ("began operations-so\ndone operations-so\nbegan operations-so\n", 4),
            ("began operations-so\ndone operations-so\ndone operations-so\n", 4),
            ("began  operations-so\n", 2),
            ("finished\n", 2),
            ("\n", 2),
        ] {
            assert_eq!(parse(lines), Err(ProgressError::Line { number }), "{lines:?}");
        }
        assert_eq!(Progress::parse("began operations-so\n", &NEXT), Err(ProgressError::Line { number: 1 }));
        let foreign = Progress::parse(&first, &Digest32([8; 32]));
        assert_eq!(foreign, Err(ProgressError::OtherReshare { found: NEXT.to_hex() }));
    }

    #[test]
    fn the_next_bundle_takes_the_new_shares_and_no_old_one() {
        for suite in [Suite::Sm, Suite::Intl] {
            let made = test_bundle(suite);
            let mut rng = TestRng::new(90);
            let identities: Vec<Identity> = ["custodian-1", "carol", "dave"]
                .into_iter()
                .map(|name| Identity::generate(suite, CustodianName::parse(name).expect("valid"), &mut rng))
                .collect();
            let enrolments: Vec<Enrolment> = identities.iter().map(|one| one.enrolment.clone()).collect();
            let change = Change::between(&made.bundle, &enrolments);
            // The same name with another key is somebody who leaves and somebody who joins.
            assert_eq!((change.leaving.len(), change.joining.len()), (3, 3));
            let (set, threshold) = (next_share_set(&made.bundle), Threshold::new(2, 3).expect("valid"));
            let (start, core) = (SecretBytes::random(&mut rng), SecretBytes::random(&mut rng));
            let (starts, cores) = (split(&start, threshold, &mut rng), split(&core, threshold, &mut rng));
            let next = NextSet {
                threshold_needed: 2,
                enrolments: &enrolments,
                start: (&starts, set.secret_commitment(SecretKind::Start, &start)),
                core: (&cores, set.secret_commitment(SecretKind::Core, &core)),
                principals: remaining_principals(&made.bundle, &enrolments),
                master_key: None,
            };
            let fingerprint = made.signed.fingerprint(suite);
            let next = next_bundle(&made.bundle, fingerprint, next);
            assert_eq!((next.share_epoch, next.operations.pin_epoch, next.core.pin_epoch), (2, 2, 2));
            assert_eq!((next.previous, &next.master_keys), (Some(fingerprint), &made.bundle.master_keys));
            assert_eq!(crate::bundle::testing::sign(&next, &made.core_key).verify(), Ok(next.clone()));
            let quorum = [&starts[0], &starts[2]];
            let combined =
                combine(&quorum, threshold, &set, SecretKind::Start, next.commitment(SecretKind::Start));
            assert!(combined.is_ok());
            let old = [&made.custodians[0].start, &made.custodians[1].start];
            assert!(
                combine(&old, threshold, &set, SecretKind::Start, next.commitment(SecretKind::Start))
                    .is_err()
            );
        }
    }

    #[test]
    fn the_digest_names_the_bundle_the_plan_and_every_enrolment() {
        let made = test_bundle(Suite::Sm);
        let mut rng = TestRng::new(91);
        let mut enrolment = |name| {
            Identity::generate(Suite::Sm, CustodianName::parse(name).expect("valid"), &mut rng).enrolment
        };
        let both = [enrolment("carol"), enrolment("dave")];
        let digest =
            |fingerprint, plan: &[u8], of: &[Enrolment]| reshare_digest(&made.bundle, &fingerprint, plan, of);
        let digests = [
            digest(NEXT, b"plan", &both),
            digest(Digest32([8; 32]), b"plan", &both),
            digest(NEXT, b"plan ", &both),
            digest(NEXT, b"plan", &both[..1]),
            digest(NEXT, b"plan", &[both[1].clone(), both[0].clone()]),
        ];
        for (position, one) in digests.iter().enumerate() {
            assert!(!digests[..position].contains(one), "{position}");
        }
    }
}
