//! The steps of a transcript in Chinese. A transcript holds them in English, as `init` wrote them.

/// English with a hole for each value, and Chinese with the number of the value that belongs there.
const STEPS: [(&str, &str); 26] = [
    (
        "plan accepted: cluster {}, suite {}, {} of {} custodians",
        "计划已受理：部署 {0}，算法套件 {1}，{3} 名分管者中须有 {2} 名到场",
    ),
    ("custodian {} with sign key {}", "分管者 {0}，签名公钥 {1}"),
    ("two quorum secrets made and split", "已生成两个门限秘密并拆分"),
    ("operations token {} made, serial {}", "已建立业务令牌 {0}，序列号 {1}"),
    ("core token {} made, serial {}", "已建立核心令牌 {0}，序列号 {1}"),
    ("core key {} made: {}", "已生成核心密钥 {0}：公钥 {1}"),
    ("checkpoint key {} made: {}", "已生成检查点密钥 {0}：公钥 {1}"),
    ("row-MAC key {} made", "已生成数据行 MAC 密钥 {0}"),
    ("master key version 1 {} ({}) made", "已生成主密钥版本 1：{0}（{1}）"),
    ("bundle signed by the core key, fingerprint {}", "部署描述文件已由核心密钥签名，指纹 {0}"),
    (
        "self-check passed: a quorum's shares give both secrets, and its PIN opens keys that work",
        "自检通过：达到门限的分量可恢复两个秘密，由其导出的 PIN 可打开令牌，密钥可正常使用",
    ),
    ("shares encrypted to the custodians, secrets wiped", "各分量已加密给相应分管者，秘密已清除"),
    ("reshare of bundle {}, because: {}", "对部署描述文件 {0} 重新分割分量，事由：{1}"),
    ("reshare to bundle {}, because: {}", "重新分割分量，启用部署描述文件 {0}，事由：{1}"),
    ("present: {}", "到场人员：{0}"),
    ("{} leaves", "{0} 离任"),
    ("{} joins", "{0} 加入"),
    ("{} has acknowledged the new shares", "{0} 已签收新分量"),
    ("master key version {} {} ({}) made", "已生成主密钥版本 {0}：{1}（{2}）"),
    ("next bundle signed by the core key, fingerprint {}", "新的部署描述文件已由核心密钥签名，指纹 {0}"),
    (
        "new shares encrypted to the custodians, every secret wiped; no PIN was changed",
        "新分量已加密给相应分管者，全部秘密已清除；未更改任何 PIN",
    ),
    (
        "in doubt: an earlier progress file was lost, or a step was refused",
        "进度存疑：先前的进度文件已丢失，或某一步骤曾被令牌拒绝",
    ),
    ("{}: changed by an earlier run", "{0}：已在先前的运行中更改"),
    ("{}: PIN changed", "{0}：PIN 已更改"),
    (
        "the new start secret opens the operations partition, and its keys work",
        "新的启动秘密可打开业务分区，其中的密钥可正常使用",
    ),
    (
        "the new core secret opens the core partition; the old shares are dead",
        "新的核心秘密可打开核心分区；旧分量已失效",
    ),
];

/// The values in the holes, when `text` is of the form of `template`.
fn values<'a>(template: &str, text: &'a str) -> Option<Vec<&'a str>> {
    let mut parts = template.split("{}");
    let mut rest = text.strip_prefix(parts.next().expect("a split has a first part"))?;
    let mut values = Vec::new();
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        let (value, after) = match parts.peek() {
            Some(_) => rest.split_once(part)?,
            None => (rest.strip_suffix(part)?, ""),
        };
        values.push(value);
        rest = after;
    }
    rest.is_empty().then_some(values)
}

/// The step in Chinese; `None` for a step that this version does not know.
pub fn chinese(step: &str) -> Option<String> {
    STEPS.iter().find_map(|(english, chinese)| Some(filled(chinese, &values(english, step)?)))
}

/// The translation with its holes filled, in one pass: a value may have braces of its own.
fn filled(template: &str, values: &[&str]) -> String {
    let mut parts = template.split('{');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (number, rest) = part.split_once('}').unwrap_or(("", part));
        let value = number.parse().ok().and_then(|number: usize| values.get(number));
        text.push_str(value.copied().unwrap_or_default());
        text.push_str(rest);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_to_their_places() {
        assert_eq!(
            chinese("plan accepted: cluster test, suite sm, 2 of 3 custodians").as_deref(),
            Some("计划已受理：部署 test，算法套件 sm，3 名分管者中须有 2 名到场")
        );
        assert_eq!(chinese("row-MAC key 00ff made").as_deref(), Some("已生成数据行 MAC 密钥 00ff"));
        assert_eq!(
            chinese("operations token \"ops{1}\" made, serial 7").as_deref(),
            Some("已建立业务令牌 \"ops{1}\"，序列号 7")
        );
        for unknown in ["", "two quorum secrets made and split twice", "row-MAC key 00ff", "something else"] {
            assert_eq!(chinese(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn every_hole_is_filled() {
        for (english, translation) in STEPS {
            let holes = english.matches("{}").count();
            assert!((0..holes).all(|number| translation.contains(&format!("{{{number}}}"))), "{english}");
            assert_eq!(translation.matches('{').count(), holes, "{english}");
        }
    }
}
