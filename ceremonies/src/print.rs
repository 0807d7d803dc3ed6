//! A share file as one page for paper. The share on it is sealed under the passphrase, as it is in the file.

use crate::bundle_file::VerifiedBundle;
use crate::files::{self, FileError, Reserved};
use crate::html::{self, Language, escape};
use crate::inspect;
use kms_core::id::UnixMillis;
use kms_core::printed_share::{self, PrintedShareError};
use kms_core::share::{ShareError, StoredShare};
use kms_core::words;
use qrcode::render::svg;
use qrcode::{EcLevel, QrCode};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Why nothing was printed.
#[derive(Debug, thiserror::Error)]
pub enum PrintError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The output has another ending.
    #[error("--out {path}: a print is a page for a browser; write a name that ends in .html")]
    NotHtml {
        /// What was asked.
        path: PathBuf,
    },
    /// The bundle is of something else.
    #[error("the share does not belong to this bundle; nothing was printed")]
    Foreign(#[source] ShareError),
    /// The share has no form for paper.
    #[error("nothing was printed")]
    NotPrintable(#[from] PrintedShareError),
}

/// What to print, and how.
#[derive(Clone, Copy, Debug)]
pub struct Print<'a> {
    /// The share file.
    pub share: &'a Path,
    /// Gives the deployment's name, and is looked into for the custodian.
    pub bundle: Option<&'a VerifiedBundle>,
    /// The page.
    pub out: &'a Path,
    /// The language of what is written around the words.
    pub language: Language,
}

impl Print<'_> {
    /// Writes the page. Gives the share file's content, for its fingerprint.
    ///
    /// # Errors
    /// [`PrintError`]; then nothing was written.
    pub fn write(self, now: UnixMillis) -> Result<StoredShare, PrintError> {
        if self.out.extension().is_none_or(|extension| extension != "html") {
            return Err(PrintError::NotHtml { path: self.out.to_owned() });
        }
        let share: StoredShare = files::read_armour(self.share)?;
        if let Some(bundle) = self.bundle {
            share.label.find_in(&bundle.bundle).map_err(PrintError::Foreign)?;
        }
        let page = page(&share, self.bundle, self.language, now)?;
        Reserved::new(self.out.to_owned(), files::PRIVATE)?.write(page.as_bytes())?;
        Ok(share)
    }
}

const STYLE: &str = "\
.top { display: flex; gap: 5mm; }
.top > :first-child { flex: 1; }
.top td { overflow-wrap: anywhere; }
.qr svg { width: 60mm; height: 60mm; display: block; }
ol.words { margin: 1mm 0 0; padding: 0; list-style: none; counter-reset: line; \
font-family: 'DejaVu Sans Mono', Consolas, Menlo, monospace; font-size: 10.5pt; line-height: 1.4; }
ol.dense { line-height: 1.15; }
ol.words li { counter-increment: line; display: grid; grid-template-columns: 8mm repeat(8, 1fr); \
break-inside: avoid; border-bottom: 0.1mm solid #888; }
ol.words li::before { content: counter(line); font-weight: bold; }
ol.words li span:last-child { font-style: italic; }
.box { border: 0.5mm solid #000; padding: 1.5mm 2.5mm; margin: 2mm 0; }
.box p:last-child { margin: 0; }
";

fn qr_code(share: &StoredShare) -> Result<String, PrintError> {
    let text = printed_share::to_qr_text(share)?;
    // At most 419 letters of the alphabet that QR codes hold best: far from what a code can hold.
    let code = QrCode::with_error_correction_level(&text, EcLevel::M)
        .expect("a print has at most 12 + 2 * 203 letters");
    let image = code.render::<svg::Color<'_>>().module_dimensions(4, 4).build();
    // Inside a page there is no XML declaration.
    let start = image.find("<svg").expect("the image is SVG");
    Ok(image[start..].to_owned())
}

fn page(
    share: &StoredShare,
    bundle: Option<&VerifiedBundle>,
    language: Language,
    now: UnixMillis,
) -> Result<String, PrintError> {
    let lines = printed_share::to_lines(share)?;
    let (label, fingerprint) = (&share.label, share.fingerprint());
    let name = label.custodian.as_str();
    let title = match language {
        Language::English => format!("Key share of custodian {name}"),
        Language::Chinese => format!("密钥分管者 {name} 的密钥分量"),
    };
    let mut body = format!("<h1>{}</h1>\n<div class=\"top\">\n<div>\n<table>\n", escape(&title));
    let mut row = |name: &str, value: &str| {
        writeln!(body, "<tr><th>{}</th><td>{}</td></tr>", escape(name), escape(value))
            .expect("writing to a String cannot fail");
    };
    if let Some(bundle) = bundle {
        row(language.of("Deployment", "部署"), bundle.bundle.cluster_name.as_str());
    }
    row(language.of("Deployment id", "部署标识"), &base16ct::lower::encode_string(&label.cluster_id));
    row(language.of("Share epoch", "分量轮次"), &label.share_epoch.to_string());
    row(language.of("Custodian", "分管者"), name);
    row(language.of("Share index", "分量序号"), &label.share_index.to_string());
    row(language.of("Suite", "算法套件"), share.shares.suite.name());
    row(language.of("Sealed with", "密封方式"), &inspect::costs(&share.shares));
    row(language.of("Printed", "打印时间"), &html::time(now));
    row(language.of("Fingerprint", "指纹"), &words::spoken(&fingerprint));
    row("", &words::grouped(&fingerprint)[..19]);
    writeln!(body, "</table>\n</div>\n<div class=\"qr\">{}</div>\n</div>", qr_code(share)?)
        .expect("writing to a String cannot fail");
    body.push_str(&explanation(language, name));
    let heading = match language {
        Language::English => format!("The share in words: {} lines", lines.len()),
        Language::Chinese => format!("密钥分量单词：共 {} 行", lines.len()),
    };
    // With the longest names there are 22 lines, and it stays one page.
    let list = if lines.len() > 18 { "words dense" } else { "words" };
    writeln!(body, "<h2>{}</h2>\n<ol class=\"{list}\">", escape(&heading))
        .expect("writing to a String cannot fail");
    for line in &lines {
        let words: Vec<String> = line.iter().map(|word| format!("<span>{}</span>", word.text())).collect();
        writeln!(body, "<li>{}</li>", words.join(" ")).expect("writing to a String cannot fail");
    }
    body.push_str("</ol>\n");
    body.push_str(&restoring(language, name));
    Ok(html::page(language, &title, STYLE, &body))
}

fn explanation(language: Language, name: &str) -> String {
    let name = escape(name);
    match language {
        Language::English => format!(
            "<div class=\"box\"><p><b>This page alone opens nothing.</b> The share on it is sealed under the custodian's \
             passphrase, as it is in the file {name}.share. Keep the passphrase elsewhere: never write it on this \
             page, never in the same envelope, never in the same safe.</p>\n\
             <p>Keep this page in a sealed envelope in a safe. Do not photograph, copy or send it. To take part in a ceremony the \
             identity file ({name}.identity) and its passphrase are needed too: they are not on this page.</p>\n\
             <p>It opens with the passphrase of the day on which it was printed, also when that was changed later. \
             Destroy it then, and when the shares were made anew.</p></div>\n"
        ),
        Language::Chinese => format!(
            "<div class=\"box\"><p><b>仅凭本页无法打开任何东西。</b>本页上的密钥分量与文件 {name}.share 中的一样，\
             由分管者本人的口令加密保护。口令须另处保存：不得写在本页上，不得放入同一信封，不得存入同一保险柜。</p>\n\
             <p>请将本页装入密封信封存入保险柜。不得拍照、复印或发送。参加仪式还需要身份文件（{name}.identity）\
             及其口令，它们不在本页上。</p>\n\
             <p>本页只能用打印当日的口令打开，以后更改口令对本页无效。更改口令或重新生成分量之后，请销毁本页。</p></div>\n"
        ),
    }
}

fn restoring(language: Language, name: &str) -> String {
    let text = language.of(
        "<h2>To restore the share file</h2>\n\
         <p>On a computer without a network: <code>kms-ceremony share restore --out NAME.share --bundle bundle.kms</code>, and type the \
         lines. Each line is checked when it is typed: its last word (in italics) is a check over its number and its words. The \
         first four letters of a word are enough; capital letters and punctuation do not matter. Or scan the QR code into \
         a file and give it with <code>--qr-text FILE</code>. At the end compare the eight words of the fingerprint.</p>\n",
        "<h2>恢复密钥分量文件</h2>\n\
         <p>在不联网的计算机上运行 <code>kms-ceremony share restore --out NAME.share --bundle bundle.kms</code>，\
         然后逐行输入单词。每输入一行即检查一行：每行最后一个单词（斜体）是对行号和该行单词的校验。\
         每个单词输入前四个字母即可，大小写和标点不影响。也可以把二维码扫描到文件中，用 <code>--qr-text FILE</code> 给出。\
         最后请核对指纹的八个单词。单词一律为英文，请按原样输入。</p>\n",
    );
    text.replace("NAME.share", &format!("{}.share", escape(name)))
}

#[cfg(test)]
mod tests;
