//! The plan of an init ceremony: one reviewed file. Everything about it is checked before any HSM is asked.

use crate::files::{self, FileError};
use kms_core::asymmetric::PublicKey;
use kms_core::bundle::Node;
use kms_core::id::{ClusterName, CustodianName, NameError, NodeName, Principal};
use kms_core::quorum::{Threshold, ThresholdError};
use kms_core::share::{Enrolment, ShareError, SignedEnrolment};
use kms_core::suite::{AeadAlgorithm, Suite};
use kms_hsm::{ModuleError, ProfileChoice};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

/// Longest plan file, in bytes.
pub const PLAN_LEN_MAX: u64 = 1 << 20;
/// Length of `CK_TOKEN_INFO.label`, in bytes.
const LABEL_LEN_MAX: usize = 32;

/// Why a plan is refused. Always names the field.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The plan itself cannot be read.
    #[error("the plan cannot be used")]
    File(#[from] FileError),
    /// Not TOML, a field is missing, or one is not known.
    #[error("the plan {path} is refused: {}", .source.to_string().trim_end())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where and what.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A field breaks a rule.
    #[error("plan field {field}: {problem}")]
    Field {
        /// As it is written in the file; entries of lists count from 1.
        field: String,
        /// Which rule.
        problem: FieldProblem,
    },
}

/// What is wrong with one field.
#[derive(Debug, thiserror::Error)]
pub enum FieldProblem {
    /// Not a name.
    #[error("{0}")]
    Name(#[from] NameError),
    /// Too few or too many custodians.
    #[error("{0}")]
    Threshold(#[from] ThresholdError),
    /// Not a suite.
    #[error("{text:?} is not a suite; write sm or intl")]
    Suite {
        /// What it says.
        text: String,
    },
    /// Not a kind of master key.
    #[error("{text:?} is not a kind of key; write aes-256 or sm4")]
    MasterKey {
        /// What it says.
        text: String,
    },
    /// Not a profile.
    #[error("{}", crate::error_chain::sentence(.0))]
    Profile(#[source] ModuleError),
    /// Not a label.
    #[error("{text:?} is no token label: write 1 to 32 bytes without blanks at the ends")]
    Label {
        /// What it says.
        text: String,
    },
    /// Both partitions have one label.
    #[error("is the same as operations.label; the two partitions are two tokens")]
    SameLabel,
    /// The enrolment cannot be read.
    #[error("{}", crate::error_chain::sentence(.0))]
    File(#[from] FileError),
    /// The enrolment's signature is wrong.
    #[error("{0}; ask the custodian to enrol again")]
    Enrolment(#[from] ShareError),
    /// The enrolment is of the other suite.
    #[error("custodian {name} is enrolled for suite {found}, the plan says {expected}; enrol with --suite {expected}", found = .found.name(), expected = .expected.name())]
    OtherSuite {
        /// The custodian.
        name: String,
        /// The enrolment's suite.
        found: Suite,
        /// The plan's.
        expected: Suite,
    },
    /// Not a public key of the suite.
    #[error("is not a public key on the curve of suite {}: write 130 hexadecimal digits that start with 04", .suite.name())]
    PublicKey {
        /// The plan's suite.
        suite: Suite,
    },
    /// Said twice.
    #[error("has the same {what} as {other}; everybody and everything stands in a plan once")]
    Repeated {
        /// Name, key or URI.
        what: &'static str,
        /// The field of the first one.
        other: String,
    },
    /// A list without entries.
    #[error("at least one is needed")]
    Missing,
    /// Not a reason.
    #[error("is no reason: write 1 to 200 bytes on one line, without characters that are not shown")]
    Reason,
    /// Somebody who leaves would still be let in.
    #[error("custodian {name} leaves and stands in principals still; leave {name} out")]
    Leaves {
        /// The custodian.
        name: CustodianName,
    },
    /// Nobody could authenticate as this custodian.
    #[error(
        "custodian {name} cannot call: list principals in the plan, with kms://TENANT/custodian/{name} among them"
    )]
    NoPrincipal {
        /// The custodian.
        name: CustodianName,
    },
}

/// A plan in which everything fits together.
#[derive(Debug)]
pub struct Plan {
    /// The deployment's name.
    pub cluster: ClusterName,
    /// Its suite.
    pub suite: Suite,
    /// How many custodians must act, of how many.
    pub threshold: Threshold,
    /// What the master key is.
    pub master_key: AeadAlgorithm,
    /// The PKCS#11 library that holds both partitions.
    pub module: ModulePlan,
    /// Label of the token for master keys.
    pub operations_label: String,
    /// Label of the token for the core private key.
    pub core_label: String,
    /// The custodians, in the order of their shares.
    pub custodians: Vec<Enrolment>,
    /// The server nodes.
    pub nodes: Vec<Node>,
    /// Who may call.
    pub principals: Vec<Principal>,
    /// The file as it was read, for the transcript.
    pub text: Vec<u8>,
}

/// Which PKCS#11 library, and how to speak with it.
#[derive(Clone, Debug)]
pub struct ModulePlan {
    /// Path of the library.
    pub path: PathBuf,
    /// Its vendor profile.
    pub profile: ProfileChoice,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanFile {
    cluster: String,
    suite: String,
    threshold: u8,
    master_key: Option<String>,
    module: ModuleTable,
    operations: PartitionTable,
    core: PartitionTable,
    #[serde(default)]
    custodian: Vec<CustodianTable>,
    #[serde(default)]
    node: Vec<NodeTable>,
    #[serde(default)]
    principals: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModuleTable {
    path: PathBuf,
    profile: String,
}

impl ModuleTable {
    pub(crate) fn check(self) -> Result<ModulePlan, PlanError> {
        let profile = ProfileChoice::from_name(&self.profile)
            .map_err(FieldProblem::Profile)
            .map_err(at("module.profile"))?;
        Ok(ModulePlan { profile, path: self.path })
    }
}

/// A table of its own, so that a partition can later name a module of its own.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PartitionTable {
    label: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CustodianTable {
    enrolment: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeTable {
    name: String,
    public_key: String,
}

pub(crate) fn at<P: Into<FieldProblem>>(field: impl Into<String>) -> impl FnOnce(P) -> PlanError {
    let field = field.into();
    move |problem| PlanError::Field { field, problem: problem.into() }
}

/// A plan file as it is, and what it says.
pub(crate) fn read_file<T: DeserializeOwned>(path: &Path) -> Result<(Vec<u8>, T), PlanError> {
    let text = files::read(path, PLAN_LEN_MAX)?.expose().to_vec();
    let file = toml::from_slice(&text)
        .map_err(|source| PlanError::Syntax { path: path.to_owned(), source: Box::new(source) })?;
    Ok((text, file))
}

impl Plan {
    /// Reads a plan and the enrolments that it names, relative to its folder.
    ///
    /// # Errors
    /// [`PlanError`] names the first field that is wrong.
    pub fn read(path: &Path) -> Result<Self, PlanError> {
        let (text, file): (_, PlanFile) = read_file(path)?;
        let suite = Suite::from_name(&file.suite)
            .ok_or(FieldProblem::Suite { text: file.suite })
            .map_err(at("suite"))?;
        let total = u8::try_from(file.custodian.len()).unwrap_or(u8::MAX);
        let folder = path.parent().unwrap_or(Path::new(""));
        Ok(Self {
            cluster: ClusterName::parse(&file.cluster).map_err(at("cluster"))?,
            suite,
            threshold: Threshold::new(file.threshold, total).map_err(at("threshold"))?,
            master_key: master_key(suite, file.master_key)?,
            module: file.module.check()?,
            operations_label: label("operations.label", &file.operations.label)?,
            core_label: core_label(&file.core.label, &file.operations.label)?,
            custodians: custodians(suite, folder, &file.custodian)?,
            nodes: nodes(suite, &file.node)?,
            principals: principals(&file.principals)?,
            text,
        })
    }
}

fn master_key(suite: Suite, text: Option<String>) -> Result<AeadAlgorithm, PlanError> {
    let Some(text) = text else {
        return Ok(match suite {
            Suite::Sm => AeadAlgorithm::Sm4Gcm,
            Suite::Intl => AeadAlgorithm::Aes256Gcm,
        });
    };
    // Shorter keys are for named keys: a master key protects every other.
    [AeadAlgorithm::Aes256Gcm, AeadAlgorithm::Sm4Gcm]
        .into_iter()
        .find(|algorithm| algorithm.name() == text)
        .ok_or(FieldProblem::MasterKey { text })
        .map_err(at("master_key"))
}

fn label(field: &str, text: &str) -> Result<String, PlanError> {
    let is_label = (1..=LABEL_LEN_MAX).contains(&text.len())
        && text.trim() == text
        && !text.chars().any(char::is_control);
    if !is_label {
        return Err(at(field)(FieldProblem::Label { text: text.to_owned() }));
    }
    Ok(text.to_owned())
}

fn core_label(text: &str, operations: &str) -> Result<String, PlanError> {
    let core = label("core.label", text)?;
    if core == operations {
        return Err(at("core.label")(FieldProblem::SameLabel));
    }
    Ok(core)
}

/// Reads and checks the enrolments of a plan in this folder.
pub(crate) fn custodians(
    suite: Suite,
    folder: &Path,
    tables: &[CustodianTable],
) -> Result<Vec<Enrolment>, PlanError> {
    let mut custodians: Vec<Enrolment> = Vec::new();
    for (position, table) in tables.iter().enumerate() {
        let field = || format!("custodian[{}].enrolment", position + 1);
        let signed: SignedEnrolment =
            files::read_armour(&folder.join(&table.enrolment)).map_err(at(field()))?;
        let enrolment = signed.verify().map_err(at(field()))?;
        if enrolment.suite != suite {
            let name = enrolment.name.to_string();
            let problem = FieldProblem::OtherSuite { name, found: enrolment.suite, expected: suite };
            return Err(at(field())(problem));
        }
        let keys = [enrolment.sign_key, enrolment.seal_key];
        if !keys.iter().all(|key| key.is_on_curve(suite)) {
            return Err(at(field())(FieldProblem::PublicKey { suite }));
        }
        for (earlier, one) in custodians.iter().enumerate() {
            // One person with two shares would be a quorum alone.
            let what = match () {
                () if one.name == enrolment.name => "name",
                () if keys.contains(&one.sign_key) || keys.contains(&one.seal_key) => "key",
                () => continue,
            };
            let other = format!("custodian[{}].enrolment", earlier + 1);
            return Err(at(field())(FieldProblem::Repeated { what, other }));
        }
        custodians.push(enrolment);
    }
    Ok(custodians)
}

fn nodes(suite: Suite, tables: &[NodeTable]) -> Result<Vec<Node>, PlanError> {
    if tables.is_empty() {
        return Err(at("node")(FieldProblem::Missing));
    }
    let mut nodes: Vec<Node> = Vec::new();
    for (position, table) in tables.iter().enumerate() {
        let field = |name| format!("node[{}].{name}", position + 1);
        let name = NodeName::parse(&table.name).map_err(at(field("name")))?;
        let key = base16ct::mixed::decode_vec(table.public_key.as_bytes())
            .ok()
            .and_then(|bytes| PublicKey::from_sec1(&bytes))
            .filter(|key| key.is_on_curve(suite))
            .ok_or(FieldProblem::PublicKey { suite })
            .map_err(at(field("public_key")))?;
        for (earlier, one) in nodes.iter().enumerate() {
            let (what, which) = match () {
                () if one.name == name => ("name", "name"),
                () if one.key == key => ("key", "public_key"),
                () => continue,
            };
            let other = format!("node[{}].{which}", earlier + 1);
            return Err(at(field(which))(FieldProblem::Repeated { what, other }));
        }
        nodes.push(Node { name, key });
    }
    Ok(nodes)
}

/// Reads and checks the principals of a plan.
pub(crate) fn principals(texts: &[String]) -> Result<Vec<Principal>, PlanError> {
    let mut principals: Vec<Principal> = Vec::new();
    for (position, text) in texts.iter().enumerate() {
        let field = || format!("principals[{}]", position + 1);
        let principal = Principal::parse(text).map_err(at(field()))?;
        if let Some(earlier) = principals.iter().position(|one| *one == principal) {
            let other = format!("principals[{}]", earlier + 1);
            return Err(at(field())(FieldProblem::Repeated { what: "URI", other }));
        }
        principals.push(principal);
    }
    Ok(principals)
}
