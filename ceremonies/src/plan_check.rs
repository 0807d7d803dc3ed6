//! A plan in words, for the people who review it. No HSM is asked.

use crate::plan::Plan;
use kms_core::suite::{Digest32, Suite};
use kms_core::words;
use kms_hsm::{Evidence, ProfileChoice, SoPin};
use std::fmt::Write;

/// What the transcript of the ceremony will name.
pub fn digest(plan: &Plan) -> Digest32 {
    plan.suite.hash(&[&plan.text])
}

fn ciphers(suite: Suite) -> &'static str {
    match suite {
        Suite::Sm => "SM2, SM3, SM4",
        Suite::Intl => "ECDSA P-256, SHA-256, AES-256",
    }
}

/// What the plan will do.
pub fn text(plan: &Plan) -> String {
    let (needed, total) = (plan.threshold.needed(), plan.threshold.total());
    let mut text = String::new();
    let mut say = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    say(
        "This plan is complete: every field is read, every enrolment is signed by its own key. No HSM was asked.",
    );
    say("");
    say(&format!(
        "It makes the deployment {} with suite {} ({}).",
        plan.cluster,
        plan.suite.name(),
        ciphers(plan.suite)
    ));
    say(&format!("Of {total} custodians, {needed} must act together to open it:"));
    for (position, one) in plan.custodians.iter().enumerate() {
        say(&format!("  share {}  {}  enrolment {}", position + 1, one.name, words::spoken(&one.digest())));
    }
    say(
        "Each custodian compares the words of the enrolment with `kms-ceremony share inspect NAME.enrolment`.",
    );
    let profile = match &plan.module.profile {
        ProfileChoice::Auto => "the profile for what the library says about itself".to_owned(),
        ProfileChoice::Given(profile) => format!("profile {}", profile.name()),
    };
    say(&format!(
        "In the HSM behind {} ({profile}) it makes two tokens, which must not be there yet:",
        plan.module.path.display()
    ));
    say(&format!(
        "  {:?}  master key version 1 ({}), checkpoint key, row-MAC key",
        plan.operations_label,
        plan.master_key.name()
    ));
    say(&format!("  {:?}  the core private key", plan.core_label));
    say("Server nodes that may open it:");
    for node in &plan.nodes {
        say(&format!("  {}  (key {:?})", node.name, node.key));
    }
    say("Who may call it:");
    for principal in &plan.principals {
        say(&format!("  {}", principal.to_uri()));
    }
    if plan.principals.is_empty() {
        say("  nobody");
    }
    let warnings = warnings(plan);
    if !warnings.is_empty() {
        say("");
        for warning in &warnings {
            say(&format!("warning: {warning}"));
        }
    }
    let digest = digest(plan);
    write!(
        text,
        "\nplan digest, for comparing aloud with everybody who has this plan:\n  in words   {}\n  in full    {}\n",
        words::spoken_of_plan(&digest),
        words::grouped(&digest)
    )
    .expect("writing to a String cannot fail");
    text
}

/// What is allowed and yet may not be meant.
fn warnings(plan: &Plan) -> Vec<String> {
    let (needed, total) = (plan.threshold.needed(), plan.threshold.total());
    let mut warnings = Vec::new();
    if total < 3 {
        warnings.push(format!(
            "there are only {total} custodians; with fewer than 3, one who is away or loses a share stops everything"
        ));
    }
    if needed == total {
        warnings.push(format!(
            "all {total} custodians are needed; one lost share or forgotten passphrase loses everything"
        ));
    }
    if plan.principals.is_empty() {
        warnings.push("principals is empty; nobody will be able to call the service".to_owned());
    }
    match &plan.module.profile {
        ProfileChoice::Auto => warnings.push(
            "module.profile is \"auto\"; name the profile, so that everybody reviews which device it is for"
                .to_owned(),
        ),
        ProfileChoice::Given(profile) => {
            if profile.name() == "softhsm" || profile.name().starts_with("hsm-sim") {
                warnings.push(format!(
                    "profile {} is software, not an HSM: its keys are in files. For tests only",
                    profile.name()
                ));
            }
            if profile.evidence() == Evidence::Documents {
                warnings.push(format!(
                    "profile {} is {}; run kms-server check-hsm first",
                    profile.name(),
                    Evidence::Documents.sentence()
                ));
            }
            if profile.so_pin() == SoPin::External {
                warnings.push(format!(
                    "the SO PIN of modules with profile {} is the vendor's own; this version's init refuses it",
                    profile.name()
                ));
            }
        }
    }
    if !plan.module.path.is_absolute() {
        warnings.push(
            "module.path is not absolute; which library it is depends on the folder of the ceremony"
                .to_owned(),
        );
    } else if !plan.module.path.exists() {
        warnings.push(format!(
            "{} is not on this computer; right if this is not the HSM host",
            plan.module.path.display()
        ));
    }
    warnings
}
