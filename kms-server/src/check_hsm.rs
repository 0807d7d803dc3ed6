//! `kms-server check-hsm`: what the configured HSM can do, before anybody relies on it.
//!
//! It needs no PIN and makes no login: what the library and the token say to everybody is enough. Whether they say
//! the truth is found by the self-test when the token is opened.

use crate::config::Config;
use crate::run::{StartError, load_bundle};
use crate::service::object_kind;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use kms_core::bundle::{Bundle, Partition};
use kms_core::spec::KeySpec;
use kms_core::suite::{AeadAlgorithm, Suite};
use kms_hsm::{
    HsmModule, MechanismRole, ModuleError, NeededMechanism, ObjectKind, Presence, Profile, ProfileChoice,
    SoPin, TokenDescription,
};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt::Write;

/// Everything that was found. Fields are added, never renamed.
#[derive(Debug, Serialize)]
pub struct Report {
    library: Library,
    profile: ProfileReport,
    /// The deployment's suite; absent before the init ceremony.
    suite: Option<&'static str>,
    tokens: Vec<TokenReport>,
    mechanisms: Vec<MechanismReport>,
    key_specs: Vec<KeySpecReport>,
    /// What works less well than it could, in sentences.
    reduced: Vec<String>,
    /// Why the HSM cannot serve, in sentences; empty when it can.
    faults: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Library {
    path: String,
    manufacturer: String,
    description: String,
    version: String,
    standard: String,
}

#[derive(Debug, Serialize)]
struct ProfileReport {
    name: String,
    evidence: &'static str,
    so_pin: &'static str,
    trusted_wrapping: bool,
    pin_length: usize,
    pin_strength_bits: u32,
}

#[derive(Debug, Serialize)]
struct TokenReport {
    /// `operations` or `core`; absent for a token that no bundle names.
    role: Option<&'static str>,
    label: String,
    serial: String,
    state: String,
    pin_length_min: Option<usize>,
    pin_length_max: Option<usize>,
}

#[derive(Debug, Serialize)]
struct MechanismReport {
    needed_for: String,
    role: &'static str,
    code: String,
    name: Option<String>,
    presence: String,
}

#[derive(Debug, Serialize)]
struct KeySpecReport {
    spec: &'static str,
    usage: &'static str,
    /// `resident` or `wrapped`: what `kms key create` makes when nothing else is asked.
    protection: &'static str,
    why: String,
}

/// Asks the configured HSM. The bundle is used when it is there; before the init ceremony it is not.
///
/// # Errors
/// [`StartError`] when the library does not load, the profile does not fit, or a bundle is there and refused.
/// What the HSM lacks is no error: it is in the report.
pub fn check(config: &Config) -> Result<Report, StartError> {
    let bundle = match config.bundle.try_exists() {
        Ok(false) => None,
        _ => Some(load_bundle(&config.bundle)?.bundle),
    };
    let module = HsmModule::open(&config.hsm.module, ProfileChoice::from_name(&config.hsm.profile)?)?;
    let profile = module.profile();
    let library = module.library()?;
    let mut report = Report {
        library: Library {
            path: config.hsm.module.display().to_string(),
            manufacturer: library.manufacturer,
            description: library.description,
            version: library.version,
            standard: library.standard,
        },
        profile: ProfileReport {
            name: profile.name().to_owned(),
            evidence: profile.evidence().sentence(),
            so_pin: match profile.so_pin() {
                SoPin::Derived => "derived",
                SoPin::External => "external",
            },
            trusted_wrapping: profile.trusted_wrapping(),
            pin_length: profile.pin_rules().length(),
            pin_strength_bits: profile.pin_rules().strength_bits(),
        },
        suite: bundle.as_ref().map(|bundle| bundle.suite.name()),
        tokens: Vec::new(),
        mechanisms: Vec::new(),
        key_specs: Vec::new(),
        reduced: Vec::new(),
        faults: Vec::new(),
    };
    let tokens = match &bundle {
        Some(bundle) => report.bundled_tokens(&module, bundle),
        None => report.all_tokens(&module)?,
    };
    report.reduce(profile);
    for token in &tokens {
        report.check_pin_length(profile, token);
    }
    // The first is the one that keys would be made in: the operations partition, or whatever there is.
    if let Some(token) = tokens.first() {
        let survey = module.survey(token);
        report.mechanisms = survey.iter().map(mechanism_report).collect();
        report.judge(&survey, bundle.as_ref());
    }
    Ok(report)
}

impl Report {
    /// Why the HSM cannot serve; empty when it can.
    pub fn faults(&self) -> &[String] {
        &self.faults
    }

    /// As one line of JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("text, numbers and lists always become JSON")
    }

    fn bundled_tokens(&mut self, module: &HsmModule, bundle: &Bundle) -> Vec<TokenDescription> {
        let mut found = Vec::new();
        for (role, partition) in [("operations", &bundle.operations), ("core", &bundle.core)] {
            match module.find_token_with_serial(&partition.label, &partition.serial) {
                Ok(token) => {
                    self.tokens.push(token_report(Some(role), &token));
                    if token.is_user_pin_locked {
                        self.faults
                            .push(format!("the user PIN of the {role} token is locked after wrong ones"));
                    }
                    found.push(token);
                }
                Err(error) => self.missing_token(role, partition, &error),
            }
        }
        found
    }

    fn missing_token(&mut self, role: &'static str, partition: &Partition, error: &ModuleError) {
        let sentence = crate::chain(error);
        if role == "core" {
            // It may sit on another module, and is needed in ceremonies only.
            self.reduced.push(format!("the core token is not on this module: {sentence}"));
        } else {
            self.faults.push(format!("the operations token is not there: {sentence}"));
        }
        self.tokens.push(TokenReport {
            role: Some(role),
            label: partition.label.clone(),
            serial: partition.serial.clone(),
            state: "not found".into(),
            pin_length_min: None,
            pin_length_max: None,
        });
    }

    fn all_tokens(&mut self, module: &HsmModule) -> Result<Vec<TokenDescription>, ModuleError> {
        let tokens = module.tokens()?;
        self.tokens = tokens.iter().map(|token| token_report(None, token)).collect();
        if tokens.is_empty() {
            self.faults.push("no slot holds a token".into());
        }
        Ok(tokens)
    }

    fn reduce(&mut self, profile: &Profile) {
        let name = profile.name();
        if profile.evidence() == kms_hsm::Evidence::Documents {
            self.reduced.push(format!("profile {name} is {}", profile.evidence().sentence()));
        }
        if !profile.trusted_wrapping() {
            let sentence = "no trusted wrapping: resident keys can never leave and are lost with the device";
            self.reduced.push(sentence.into());
        }
        if profile.so_pin() == SoPin::External {
            self.reduced
                .push("the SO PIN is the vendor's: `kms-ceremony init` cannot use this profile yet".into());
        }
        let bits = profile.pin_rules().strength_bits();
        if bits < 256 {
            self.reduced.push(format!("a PIN carries {bits} of the secret's 256 bits"));
        }
    }

    fn check_pin_length(&mut self, profile: &Profile, token: &TokenDescription) {
        let length = profile.pin_rules().length();
        let (min, max) = (token.pin_len_min, token.pin_len_max);
        if !(min..=max).contains(&length) {
            self.faults.push(format!(
                "token {:?} takes PINs of {min} to {max} characters; profile {} makes {length}",
                token.label,
                profile.name()
            ));
        }
    }

    fn judge(&mut self, survey: &[NeededMechanism], bundle: Option<&Bundle>) {
        let lack = |kind| lack(survey, kind);
        let kinds = |spec: KeySpec| spec.usages().iter().map(move |usage| (spec, *usage));
        for (spec, usage) in KeySpec::ALL.into_iter().flat_map(kinds) {
            let lacking = match object_kind(spec, usage) {
                Some(kind) => lack(kind),
                None if spec.is_legacy() => Some("legacy: brought alone, where keys.legacy allows it".into()),
                None => Some("such a key is two keys in one".into()),
            };
            let (protection, why) = match lacking {
                None => ("resident", "the token has every mechanism".to_owned()),
                Some(lack) => ("wrapped", lack),
            };
            self.key_specs.push(KeySpecReport { spec: spec.name(), usage: usage.name(), protection, why });
        }
        let missing = |suite: Suite, algorithms: &BTreeSet<&'static str>| {
            let masters = algorithms.iter().filter_map(|name| AeadAlgorithm::from_name(name));
            let masters = masters.map(|algorithm| ("a master key", ObjectKind::SealingKey(algorithm)));
            let own = [
                ("the core and checkpoint keys", ObjectKind::SigningKey(suite)),
                ("the row-MAC key", ObjectKind::MacKey(suite.mac())),
            ];
            let all = masters.chain(own);
            all.filter_map(|(what, kind)| lack(kind).map(|lack| format!("{what}: {lack}")))
                .collect::<Vec<_>>()
        };
        if let Some(bundle) = bundle {
            let algorithms = bundle.master_keys.iter().map(|master| master.algorithm.name()).collect();
            self.faults.extend(missing(bundle.suite, &algorithms));
            return;
        }
        let lacking = [Suite::Sm, Suite::Intl]
            .map(|suite| (suite, missing(suite, &BTreeSet::from([suite.aead().name()]))));
        let is_any_whole = lacking.iter().any(|(_, missing)| missing.is_empty());
        for (suite, missing) in lacking.into_iter().filter(|(_, missing)| !missing.is_empty()) {
            let sentence = format!("suite {} cannot be used here ({})", suite.name(), missing.join("; "));
            if is_any_whole { self.reduced.push(sentence) } else { self.faults.push(sentence) }
        }
    }
}

/// Why keys of a kind cannot be in the token; `None` when they can.
fn lack(survey: &[NeededMechanism], kind: ObjectKind) -> Option<String> {
    let mut needed = survey.iter().filter(|one| one.kind == kind).peekable();
    if needed.peek().is_none() {
        return Some("the profile has no mechanism for it".into());
    }
    let absent = needed.find(|one| !matches!(one.presence, Presence::Present | Presence::Doubtful))?;
    Some(format!("the token does not have {}", mechanism_name(absent)))
}

fn mechanism_name(mechanism: &NeededMechanism) -> String {
    let code = format!("{:#010x}", mechanism.code);
    mechanism.name.as_ref().map_or(code.clone(), |name| format!("{name} ({code})"))
}

fn mechanism_report(mechanism: &NeededMechanism) -> MechanismReport {
    let needed_for = match mechanism.kind {
        ObjectKind::SealingKey(algorithm) => algorithm.name().to_owned(),
        ObjectKind::SigningKey(suite) => format!("signing {}", suite.name()),
        ObjectKind::MacKey(algorithm) => algorithm.name().to_owned(),
        ObjectKind::KeyPair(algorithm, usage) => format!("pair {algorithm} {usage}"),
    };
    MechanismReport {
        needed_for,
        role: match mechanism.role {
            MechanismRole::Make => "make",
            MechanismRole::Use => "use",
        },
        code: format!("{:#010x}", mechanism.code),
        name: mechanism.name.clone(),
        presence: match &mechanism.presence {
            Presence::Present => "present".into(),
            Presence::Doubtful => "present, but not said to do this".into(),
            Presence::Missing => "missing".into(),
            Presence::Unknown(answer) => format!("unknown: {answer}"),
        },
    }
}

fn token_report(role: Option<&'static str>, token: &TokenDescription) -> TokenReport {
    let state = match token {
        TokenDescription { is_initialised: false, .. } => "not initialised",
        TokenDescription { is_user_pin_locked: true, .. } => "user PIN locked",
        TokenDescription { is_so_pin_locked: true, .. } => "SO PIN locked",
        TokenDescription { is_user_pin_set: false, .. } => "no user PIN yet",
        _ => "ready",
    };
    TokenReport {
        role,
        label: token.label.clone(),
        serial: token.serial.clone(),
        state: state.into(),
        pin_length_min: Some(token.pin_len_min),
        pin_length_max: Some(token.pin_len_max),
    }
}

/// As tables for people.
impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (library, profile) = (&self.library, &self.profile);
        writeln!(f, "library  {}", library.path)?;
        let Library { manufacturer, description, version, standard, .. } = library;
        writeln!(f, "         {manufacturer}, {description} {version}, PKCS#11 {standard}")?;
        writeln!(f, "profile  {} ({})", profile.name, profile.evidence)?;
        writeln!(f, "suite    {}\n", self.suite.unwrap_or("none yet: there is no bundle"))?;
        f.write_str(&table(
            &["TOKEN", "LABEL", "SERIAL", "STATE", "PIN"],
            self.tokens.iter().map(|token| {
                let range = token.pin_length_min.zip(token.pin_length_max);
                let range = range.map_or(String::new(), |(min, max)| format!("{min} to {max} characters"));
                let role = token.role.unwrap_or("-").to_owned();
                [role, clean(&token.label), clean(&token.serial), token.state.clone(), range].to_vec()
            }),
        ))?;
        f.write_char('\n')?;
        f.write_str(&table(
            &["NEEDED FOR", "TO", "MECHANISM", "NAME", "TOKEN"],
            self.mechanisms.iter().map(|one| {
                let name = one.name.clone().unwrap_or_else(|| "vendor's".into());
                [one.needed_for.clone(), one.role.into(), one.code.clone(), name, one.presence.clone()]
                    .to_vec()
            }),
        ))?;
        f.write_char('\n')?;
        f.write_str(&table(
            &["KEYS", "WILL BE", "BECAUSE"],
            self.key_specs
                .iter()
                .map(|one| [one.spec.into(), one.protection.into(), one.why.clone()].to_vec()),
        ))?;
        for (heading, sentences) in [("reduced", &self.reduced), ("unusable", &self.faults)] {
            if !sentences.is_empty() {
                writeln!(f, "\n{heading}:")?;
            }
            for sentence in sentences {
                writeln!(f, "- {}", clean(sentence))?;
            }
        }
        Ok(())
    }
}

/// Text of a device on a terminal: what is not printable is replaced.
fn clean(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '?' } else { character }).collect()
}

fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(header.iter().copied());
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for row in rows {
        table.add_row(row);
    }
    table.lines().fold(String::new(), |text, line| text + line.trim_end() + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mechanism(kind: ObjectKind, role: MechanismRole, presence: Presence) -> NeededMechanism {
        NeededMechanism { kind, role, code: 0x1087, name: Some("CKM_AES_GCM".into()), presence }
    }

    #[test]
    fn a_kind_is_in_the_token_when_it_has_both_mechanisms_and_the_reason_names_what_lacks() {
        let kind = ObjectKind::SealingKey(AeadAlgorithm::Aes256Gcm);
        let with = |make, using| {
            let needed =
                [mechanism(kind, MechanismRole::Make, make), mechanism(kind, MechanismRole::Use, using)];
            lack(&needed, kind)
        };
        assert_eq!(with(Presence::Present, Presence::Present), None);
        assert_eq!(with(Presence::Present, Presence::Doubtful), None);
        let reason = "the token does not have CKM_AES_GCM (0x00001087)";
        assert_eq!(with(Presence::Present, Presence::Missing).as_deref(), Some(reason));
        assert_eq!(with(Presence::Missing, Presence::Present).as_deref(), Some(reason));
        assert_eq!(lack(&[], kind).as_deref(), Some("the profile has no mechanism for it"));
    }
}
