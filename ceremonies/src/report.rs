//! A verified transcript as a document that people sign by hand and file: Markdown or HTML.

use crate::bundle_file::VerifiedBundle;
use crate::html::{self, Language, escape};
use crate::step_text;
use kms_core::asymmetric::PublicKey;
use kms_core::codec::VersionOne;
use kms_core::id::UnixMillis;
use kms_core::share::Enrolment;
use kms_core::suite::Digest32;
use kms_core::transcript::{CheckedConsent, Transcript};
use kms_core::words;
use std::path::Path;

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportFormat {
    /// CommonMark with tables.
    Markdown,
    /// One page without anything from elsewhere.
    Html,
}

impl ReportFormat {
    /// By the ending of the name: `.md` or `.html`.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "md" => Some(Self::Markdown),
            "html" => Some(Self::Html),
            _ => None,
        }
    }
}

/// Whether the steps of a transcript name a bundle: a report with another one would show people who were not there.
pub fn names_bundle(transcript: &Transcript, fingerprint: &Digest32) -> bool {
    let fingerprint = fingerprint.to_hex();
    transcript.steps.iter().any(|step| step.what.contains(&fingerprint))
}

/// What was verified, and when. The transcript names the bundle ([`names_bundle`]).
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// The bundle whose core key signed the transcript.
    pub bundle: &'a VerifiedBundle,
    /// The transcript: its signature and chain were checked.
    pub transcript: &'a Transcript,
    /// What people agreed to, as far as this bundle's keys can tell.
    pub consents: &'a [CheckedConsent],
    /// Whether the plan file was there and is the one that was carried out.
    pub is_plan_checked: bool,
    /// When that was.
    pub verified: UnixMillis,
    /// The language of the document.
    pub language: Language,
}

/// A part of the document, before it is Markdown or HTML. All texts are plain.
enum Block {
    Heading(&'static str),
    Text(&'static str),
    /// Without a heading the first cell of each row names the second.
    Table {
        heading: Vec<&'static str>,
        rows: Vec<Vec<String>>,
    },
}

fn hex(key: &PublicKey) -> String {
    base16ct::lower::encode_string(key.as_bytes())
}

impl Report<'_> {
    /// The whole document.
    pub fn to_text(&self, format: ReportFormat) -> String {
        let title = match self.language {
            Language::English => format!("Protocol of the {} ceremony", self.transcript.kind),
            Language::Chinese => match self.transcript.kind.as_str() {
                "init" => "初始化仪式记录".to_owned(),
                "reshare-prepare" => "分量重新分割仪式记录（准备）".to_owned(),
                "reshare-finish" => "分量重新分割仪式记录（完成）".to_owned(),
                other => format!("{other} 仪式记录"),
            },
        };
        let blocks = self.blocks();
        match format {
            ReportFormat::Markdown => markdown(&title, &blocks),
            ReportFormat::Html => html(self.language, &title, &blocks),
        }
    }

    fn blocks(&self) -> Vec<Block> {
        let of = |english, chinese| self.language.of(english, chinese);
        vec![
            Block::Heading(of("What it is about", "基本信息")),
            self.subject(),
            Block::Heading(of("Custodians", "分管者")),
            self.custodians(),
            Block::Heading(of("Steps", "步骤")),
            Block::Text(of(
                "Times are those of the HSM host's clock, in UTC.",
                "时间取自 HSM 主机时钟，为协调世界时（UTC）。步骤的签名原文为英文，中文由本工具翻译；如有出入，以签名原文为准。",
            )),
            self.steps(),
            Block::Heading(of("Consents", "同意记录")),
            self.consents(),
            Block::Heading(of("What was verified", "验证结果")),
            self.verification(),
            Block::Text(of(
                "A bundle vouches for itself only. That it is the right one, people see by its fingerprint: it must be the one that was \
                 written down at the ceremony.",
                "部署描述文件只能证明自身未被改动。它是否为正确的那一份，须由人核对指纹：应与仪式现场记录的指纹一致。",
            )),
            Block::Heading(of("Signatures by hand", "签字")),
            self.signatures(),
        ]
    }

    fn subject(&self) -> Block {
        let of = |english: &'static str, chinese| self.language.of(english, chinese).to_owned();
        let bundle = &self.bundle.bundle;
        let mut rows = Vec::new();
        let mut row = |name: String, value: String| rows.push(vec![name, value]);
        row(of("Deployment", "部署"), bundle.cluster_name.to_string());
        row(of("Deployment id", "部署标识"), base16ct::lower::encode_string(&bundle.cluster_id));
        row(of("Kind of ceremony", "仪式类型"), self.transcript.kind.clone());
        row(of("Suite", "算法套件"), self.transcript.suite.name().to_owned());
        row(of("Share epoch", "分量轮次"), bundle.share_epoch.to_string());
        let (needed, total) = (bundle.threshold_needed, bundle.custodians.len());
        row(
            of("Threshold", "门限"),
            match self.language {
                Language::English => format!("{needed} of {total}"),
                Language::Chinese => format!("{total} 人中 {needed} 人"),
            },
        );
        for (name, token) in [
            (of("Operations token", "业务令牌"), &bundle.operations),
            (of("Core token", "核心令牌"), &bundle.core),
        ] {
            row(name, format!("{} ({})", token.label, token.serial));
        }
        let (plan, fingerprint) = (self.transcript.plan, self.bundle.fingerprint);
        row(of("Plan digest", "计划摘要"), words::grouped(&plan));
        row(of("in words", "对应单词"), words::spoken_of_plan(&plan));
        row(of("Bundle fingerprint", "部署描述文件指纹"), words::grouped(&fingerprint));
        row(of("in words", "对应单词"), words::spoken(&fingerprint));
        Block::Table { heading: Vec::new(), rows }
    }

    fn custodians(&self) -> Block {
        let of = |english, chinese| self.language.of(english, chinese);
        let bundle = &self.bundle.bundle;
        let rows = bundle.custodians.iter().map(|one| {
            let enrolment = Enrolment {
                version: VersionOne,
                suite: bundle.suite,
                name: one.name.clone(),
                sign_key: one.sign_key,
                seal_key: one.seal_key,
            };
            vec![one.share_index.to_string(), one.name.to_string(), words::spoken(&enrolment.digest())]
        });
        let heading = vec![
            of("Share", "分量序号"),
            of("Name", "姓名标识"),
            of("Enrolment in words", "登记文件摘要单词"),
        ];
        Block::Table { heading, rows: rows.collect() }
    }

    fn steps(&self) -> Block {
        let of = |english, chinese| self.language.of(english, chinese);
        let rows = self.transcript.steps.iter().enumerate().map(|(position, step)| {
            let text = match self.language {
                Language::English => step.what.clone(),
                Language::Chinese => {
                    step_text::chinese(&step.what).unwrap_or_else(|| format!("{}（原文）", step.what))
                }
            };
            vec![(position + 1).to_string(), html::time(step.time), text]
        });
        Block::Table {
            heading: vec!["", of("Time", "时间"), of("What was done", "内容")],
            rows: rows.collect(),
        }
    }

    fn consents(&self) -> Block {
        let of = |english: &'static str, chinese| self.language.of(english, chinese);
        if self.consents.is_empty() {
            return Block::Text(of(
                "Nobody was asked to sign: who was there signs below, by hand.",
                "本仪式未采集数字签名；到场人员在下方手写签字。",
            ));
        }
        let rows = self.consents.iter().map(|one| {
            let signature = match one.is_checked {
                true => of("right, by the custodian's key", "正确，由该分管者的密钥签署"),
                false => of("not checked: of another share epoch", "未核对：属于另一分量轮次"),
            };
            let consent = &one.consent;
            vec![
                consent.custodian.to_string(),
                consent.share_epoch.to_string(),
                html::time(consent.time),
                words::spoken_of_plan(&consent.operation),
                signature.to_owned(),
            ]
        });
        let heading = vec![
            of("Who", "身份"),
            of("Share epoch", "分量轮次"),
            of("Time", "时间"),
            of("Operation in words", "操作摘要单词"),
            of("Signature", "签名"),
        ];
        Block::Table { heading, rows: rows.collect() }
    }

    fn verification(&self) -> Block {
        let of = |english: &'static str, chinese| self.language.of(english, chinese).to_owned();
        let step_count = self.transcript.steps.len();
        let rows = [
            (
                of("Transcript's signature", "记录的签名"),
                of("right, by the core key below", "正确，由下列核心密钥签署"),
            ),
            (of("Core public key", "核心公钥"), hex(&self.bundle.bundle.core_key.public_key)),
            (
                of("Chain of steps", "步骤链"),
                match self.language {
                    Language::English => format!(
                        "complete: {step_count} steps, each bound to the one before, the first to the plan"
                    ),
                    Language::Chinese => {
                        format!("完整：共 {step_count} 步，每步与前一步绑定，首步与计划绑定")
                    }
                },
            ),
            (
                of("Bundle's signature", "部署描述文件的签名"),
                of("right, by the same core key", "正确，由同一核心密钥签署"),
            ),
            (of("The steps name this bundle", "步骤中记有本描述文件的指纹"), of("yes", "是")),
            (
                of("Plan file", "计划文件"),
                if self.is_plan_checked {
                    of("compared: it is the one that was carried out", "已核对：即所执行的计划")
                } else {
                    of("not compared", "未核对")
                },
            ),
            (of("Verified", "验证时间"), html::time(self.verified)),
            (of("With", "验证工具"), format!("kms-ceremony {}", env!("CARGO_PKG_VERSION"))),
        ];
        Block::Table { heading: Vec::new(), rows: rows.map(|(name, value)| vec![name, value]).to_vec() }
    }

    fn signatures(&self) -> Block {
        let of = |english, chinese| self.language.of(english, chinese);
        let custodian = of("custodian", "分管者");
        let people = self.bundle.bundle.custodians.iter().map(|one| format!("{custodian} {}", one.name));
        let others = [of("led by", "主持人"), of("witness", "见证人"), of("witness", "见证人")];
        let rows = people.chain(others.map(str::to_owned)).map(|who| vec![who, String::new(), String::new()]);
        let heading = vec![of("Who", "身份"), of("Signature", "签字"), of("Date", "日期")];
        Block::Table { heading, rows: rows.collect() }
    }
}

/// Plain text inside Markdown: every character that could mean something is escaped.
fn markdown_text(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' => escaped.push_str("&lt;"),
            '&' => escaped.push_str("&amp;"),
            letter if letter.is_control() => escaped.push(' '),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '!' | '~' | '>' => {
                escaped.push('\\');
                escaped.push(letter);
            }
            other => escaped.push(other),
        }
    }
    escaped
}

fn markdown(title: &str, blocks: &[Block]) -> String {
    let mut text = format!("# {}\n", markdown_text(title));
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    for block in blocks {
        match block {
            Block::Heading(heading) => text.push_str(&format!("\n## {}\n", markdown_text(heading))),
            Block::Text(paragraph) => text.push_str(&format!("\n{}\n", markdown_text(paragraph))),
            Block::Table { heading, rows } => {
                let columns = rows.first().map_or(heading.len(), Vec::len);
                let mut names: Vec<String> = heading.iter().map(|name| markdown_text(name)).collect();
                names.resize(columns, String::new());
                text.push('\n');
                text.push_str(&line(&names));
                text.push_str(&line(&vec!["---".to_owned(); columns]));
                for row in rows {
                    text.push_str(&line(&row.iter().map(|cell| markdown_text(cell)).collect::<Vec<_>>()));
                }
            }
        }
    }
    text
}

const STYLE: &str = "\
td { overflow-wrap: anywhere; }
table.list th, table.list td { border: 0.1mm solid #000; padding: 1mm 2mm; }
table.list th { font-weight: bold; }
table.list td:nth-child(2):not(:last-child) { white-space: nowrap; }
table.sign td { height: 11mm; width: 34%; }
";

fn html(language: Language, title: &str, blocks: &[Block]) -> String {
    let mut body = format!("<h1>{}</h1>\n", escape(title));
    for block in blocks {
        match block {
            Block::Heading(heading) => body.push_str(&format!("<h2>{}</h2>\n", escape(heading))),
            Block::Text(paragraph) => body.push_str(&format!("<p>{}</p>\n", escape(paragraph))),
            Block::Table { heading, rows } => {
                // A row whose cells are empty is one to write in.
                let is_form = rows.iter().all(|row| row.iter().skip(1).all(String::is_empty));
                body.push_str(match (heading.is_empty(), is_form) {
                    (true, _) => "<table>\n",
                    (false, false) => "<table class=\"list\">\n",
                    (false, true) => "<table class=\"list sign\">\n",
                });
                if !heading.is_empty() {
                    let names = heading.iter().map(|name| format!("<th>{}</th>", escape(name)));
                    body.push_str(&format!("<tr>{}</tr>\n", names.collect::<String>()));
                }
                for row in rows {
                    let cells =
                        row.iter().enumerate().map(|(column, cell)| match (heading.is_empty(), column) {
                            (true, 0) => format!("<th>{}</th>", escape(cell)),
                            _ => format!("<td>{}</td>", escape(cell)),
                        });
                    body.push_str(&format!("<tr>{}</tr>\n", cells.collect::<String>()));
                }
                body.push_str("</table>\n");
            }
        }
    }
    html::page(language, title, STYLE, &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_cell_becomes_markup() {
        let hostile = "<img src=x onerror=alert(1)> | [a](b) `c` *d* \n# e & \\";
        let table = Block::Table { heading: vec!["a"], rows: vec![vec![hostile.to_owned()]] };
        let page = html(Language::English, "<b>", &[table]);
        assert!(!page.contains("<img") && !page.contains("<b>") && page.contains("&lt;img src=x"));
        let table = Block::Table { heading: vec!["a"], rows: vec![vec![hostile.to_owned()]] };
        let text = markdown("#", &[table]);
        assert_eq!(text.lines().count(), 5, "a line break stays in its cell: {text}");
        assert_eq!(
            text.lines().last(),
            Some("| &lt;img src=x onerror=alert(1)\\> \\| \\[a\\](b) \\`c\\` \\*d\\*  \\# e &amp; \\\\ |")
        );
    }

    #[test]
    fn the_ending_says_the_format() {
        assert_eq!(ReportFormat::of(Path::new("a/b.md")), Some(ReportFormat::Markdown));
        assert_eq!(ReportFormat::of(Path::new("b.html")), Some(ReportFormat::Html));
        for other in ["b.pdf", "b", "md", "b.MD"] {
            assert_eq!(ReportFormat::of(Path::new(other)), None);
        }
    }
}
