//! The plan of a reshare (docs/reshare.md).

use crate::bundle_file::VerifiedBundle;
use crate::plan::{self, CustodianTable, FieldProblem, ModulePlan, ModuleTable, PlanError, at};
use kms_core::id::{CustodianName, Principal, Role};
use kms_core::quorum::Threshold;
use kms_core::reshare::{Change, remaining_principals, reshare_digest};
use kms_core::share::Enrolment;
use kms_core::suite::Digest32;
use kms_core::words;
use serde::Deserialize;
use std::fmt::Write;
use std::path::Path;

/// Longest reason, in bytes.
const REASON_LEN_MAX: usize = 200;

/// A plan in which everything fits together, and to the bundle.
#[derive(Debug)]
pub struct ResharePlan {
    /// How many custodians must act afterwards, of how many.
    pub threshold: Threshold,
    /// Why, for the transcript.
    pub reason: String,
    /// The PKCS#11 library that holds both partitions.
    pub module: ModulePlan,
    /// The custodians afterwards, in the order of their shares.
    pub custodians: Vec<Enrolment>,
    /// Who may call afterwards.
    pub principals: Vec<Principal>,
    /// Who leaves and who joins.
    pub change: Change,
    /// What custodians compare and sign.
    pub digest: Digest32,
    /// The file as it was read, for the transcript.
    pub text: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanFile {
    threshold: u8,
    reason: String,
    principals: Option<Vec<String>>,
    module: ModuleTable,
    #[serde(default)]
    custodian: Vec<CustodianTable>,
}

/// Control characters, and marks that turn the direction of what follows: what people read must be what is signed.
fn is_not_shown(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

impl ResharePlan {
    /// Reads a plan and the enrolments that it names, relative to its folder, for the deployment of a bundle.
    ///
    /// # Errors
    /// [`PlanError`] names the first field that is wrong.
    pub fn read(path: &Path, before: &VerifiedBundle) -> Result<Self, PlanError> {
        let (text, file): (_, PlanFile) = plan::read_file(path)?;
        let bundle = &before.bundle;
        let total = u8::try_from(file.custodian.len()).unwrap_or(u8::MAX);
        let threshold = Threshold::new(file.threshold, total).map_err(at("threshold"))?;
        let is_reason = (1..=REASON_LEN_MAX).contains(&file.reason.len())
            && !file.reason.trim().is_empty()
            && !file.reason.chars().any(is_not_shown);
        if !is_reason {
            return Err(at("reason")(FieldProblem::Reason));
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let custodians = plan::custodians(bundle.suite, folder, &file.custodian)?;
        let principals = match &file.principals {
            Some(texts) => plan::principals(texts)?,
            None => remaining_principals(bundle, &custodians),
        };
        let may_call = |one: &Enrolment| {
            let is_theirs =
                |who: &Principal| who.role == Role::Custodian && who.name.as_str() == one.name.as_str();
            principals.iter().any(is_theirs)
        };
        if let Some(one) = custodians.iter().find(|one| !may_call(one)) {
            return Err(at("principals")(FieldProblem::NoPrincipal { name: one.name.clone() }));
        }
        let is_gone = |name: &&CustodianName| {
            let is_theirs =
                |who: &Principal| who.role == Role::Custodian && who.name.as_str() == name.as_str();
            !custodians.iter().any(|one| one.name == **name) && principals.iter().any(is_theirs)
        };
        if let Some(name) = bundle.custodians.iter().map(|one| &one.name).find(is_gone) {
            return Err(at("principals")(FieldProblem::Leaves { name: name.clone() }));
        }
        let digest = reshare_digest(bundle, &before.fingerprint, &text, &custodians);
        let change = Change::between(bundle, &custodians);
        Ok(Self {
            threshold,
            reason: file.reason,
            module: file.module.check()?,
            custodians,
            principals,
            change,
            digest,
            text,
        })
    }

    /// What it does, in words, one line each.
    pub fn summary(&self, before: &VerifiedBundle) -> String {
        let bundle = &before.bundle;
        let mut text = String::new();
        let mut line = |name: &str, value: &dyn std::fmt::Display| {
            writeln!(text, "{name:<16} {value}").expect("writing to a String cannot fail");
        };
        let names = |names: &[CustodianName]| match names {
            [] => "nobody".to_owned(),
            some => some.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        };
        line("reshare of", &format_args!("{} (bundle {})", bundle.cluster_name, before.fingerprint));
        line("reason", &self.reason);
        line("share epoch", &format_args!("{} becomes {}", bundle.share_epoch, bundle.share_epoch + 1));
        let (old, new) = (bundle.threshold(), self.threshold);
        line(
            "threshold",
            &format_args!("{} of {} becomes {} of {}", old.needed(), old.total(), new.needed(), new.total()),
        );
        for one in &self.custodians {
            line("custodian", &format_args!("{}, enrolment {}", one.name, words::spoken(&one.digest())));
        }
        line("leaving", &names(&self.change.leaving));
        line("joining", &names(&self.change.joining));
        if !self.change.leaving.is_empty() {
            let next = bundle.current_master_key().version.next();
            let next = next.map_or("none left".to_owned(), |version| version.to_string());
            line("master key", &format_args!("a new version, {next}: somebody leaves"));
        }
        let gone = bundle.principals.iter().filter(|one| !self.principals.contains(one));
        let come = self.principals.iter().filter(|one| !bundle.principals.contains(one));
        gone.for_each(|one| line("may not call", one));
        come.for_each(|one| line("may call", one));
        if self.threshold.total() < 3 {
            line("warning", &"with two custodians a lost share is a lost service; have at least three");
        }
        line("operation", &words::grouped(&self.digest));
        line("in words", &words::spoken_of_plan(&self.digest));
        text
    }
}
