//! Pages for paper: one file, nothing from elsewhere, black on white.

use kms_core::id::UnixMillis;

/// The language of a page for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    /// English.
    #[default]
    English,
    /// Simplified Chinese.
    Chinese,
}

impl Language {
    /// Reads `en` or `zh`.
    ///
    /// # Errors
    /// What to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "en" => Ok(Self::English),
            "zh" => Ok(Self::Chinese),
            _ => Err("write en or zh".to_owned()),
        }
    }

    /// The tag of RFC 5646.
    pub const fn tag(self) -> &'static str {
        match self {
            Language::English => "en",
            Language::Chinese => "zh-CN",
        }
    }

    /// One of two texts.
    pub const fn of(self, english: &'static str, chinese: &'static str) -> &'static str {
        match self {
            Language::English => english,
            Language::Chinese => chinese,
        }
    }
}

/// Text for HTML, in content and in quoted attributes.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// A time for people, with its zone.
pub fn time(at: UnixMillis) -> String {
    crate::clock::to_text(at).replace('T', " ").replace('Z', " UTC")
}

const STYLE: &str = "\
@page { size: A4; margin: 9mm 14mm; }
* { box-sizing: border-box; }
body { font: 10pt/1.35 'Noto Sans', 'Noto Sans CJK SC', 'Microsoft YaHei', 'PingFang SC', Arial, sans-serif; \
color: #000; background: #fff; max-width: 182mm; margin: 0 auto; }
h1 { font-size: 15pt; margin: 0 0 2mm; }
h2 { font-size: 11pt; margin: 3mm 0 1mm; border-bottom: 0.3mm solid #000; break-after: avoid; }
p { margin: 0 0 1.5mm; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 0.4mm 2mm 0.4mm 0; font-weight: normal; }
tr { break-inside: avoid; }
th { white-space: nowrap; }
code, .mono { font-family: 'DejaVu Sans Mono', Consolas, Menlo, monospace; font-size: 9pt; overflow-wrap: anywhere; }
";

/// A whole page. `title` is text; `style` and `body` are CSS and HTML.
pub fn page(language: Language, title: &str, style: &str, body: &str) -> String {
    // The policy makes "nothing from elsewhere" a rule for the browser.
    format!(
        "<!DOCTYPE html>\n<html lang=\"{}\">\n<head>\n<meta charset=\"utf-8\">\n<meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'\">\n<title>{}</title>\n<style>\n{STYLE}{style}</style>\n\
         </head>\n<body>\n{body}</body>\n</html>\n",
        language.tag(),
        escape(title),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_becomes_html() {
        assert_eq!(escape("a<b>&\"'c 中"), "a&lt;b&gt;&amp;&quot;&#39;c 中");
        let page = page(Language::Chinese, "<script>", "", "");
        assert!(page.contains("<title>&lt;script&gt;</title>") && page.contains("lang=\"zh-CN\""));
    }

    #[test]
    fn a_time_says_its_zone() {
        assert_eq!(time(UnixMillis(1_700_000_000_000)), "2023-11-14 22:13:20 UTC");
    }
}
