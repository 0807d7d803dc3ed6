//! A record as one sentence for people.

use kms_core::audit::Record;
use kms_core::id::UnixMillis;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The time in RFC 3339, in UTC; with milliseconds unless they are zero.
pub fn rfc3339(time: UnixMillis) -> String {
    let seconds = i64::try_from(time.0 / 1000).ok();
    let text = seconds
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|time| time.format(&Rfc3339).ok());
    match (text, time.0 % 1000) {
        (Some(text), 0) => text,
        // The library would leave out zeros at the end, and lines of a list would have unequal lengths.
        (Some(text), millis) => format!("{}.{millis:03}Z", text.trim_end_matches('Z')),
        (None, _) => format!("{} ms after 1970", time.0),
    }
}

/// What was done, and what was asked for when it was not done.
fn phrases(event: &str) -> Option<(&'static str, &'static str)> {
    Some(match event {
        "system.status" => ("read the status", "read the status"),
        "system.seal" => ("sealed the service", "seal the service"),
        "service.unseal" => ("unsealed the service", "unseal the service"),
        "service.seal" => ("sealed the service", "seal the service"),
        "key.describe" => ("described key", "describe key"),
        "key.list" => ("listed the keys", "list the keys"),
        "key.create" => ("created key", "create key"),
        "import.begin" => ("asked for import parameters", "ask for import parameters"),
        "import.ready" => ("made the key pair of an import", "make the key pair of an import"),
        "import.end" => ("erased the key pair of an import", "erase the key pair of an import"),
        "key.import" => ("imported key", "import a key"),
        "key.complete" => ("completed the creation of key", "complete the creation of key"),
        "key.update" => ("changed what is said of key", "change what is said of key"),
        "alias.create" => ("gave another name to key", "give another name to a key"),
        "alias.retarget" => ("gave an alias to key", "give an alias to another key"),
        "alias.delete" => ("removed an alias of key", "remove an alias"),
        "alias.list" => ("listed the aliases", "list the aliases"),
        "key.activate" => ("activated key", "activate key"),
        "key.deactivate" => ("deactivated key", "deactivate key"),
        "key.archive" => ("archived key", "archive key"),
        "key.recover" => ("recovered from the archive key", "recover from the archive key"),
        "key.compromise" => ("marked as compromised key", "mark as compromised key"),
        "key.schedule_destruction" => ("scheduled the destruction of key", "schedule the destruction of key"),
        "key.cancel_destruction" => ("cancelled the destruction of key", "cancel the destruction of key"),
        "key.destroy" => ("began to destroy key", "begin to destroy key"),
        "key.erase" => ("erased the material of key", "erase the material of key"),
        "key.destruction" => {
            ("read the destruction certificates of key", "read the destruction certificates of key")
        }
        "key.usage_report" => ("read the usage of key", "read the usage of key"),
        "key.rotate" => ("rotated key", "rotate key"),
        "key.suspend" => ("suspended key", "suspend key"),
        "key.resume" => ("resumed key", "resume key"),
        "data_key.generate" => ("generated a data key under key", "generate a data key under key"),
        "data_key.decrypt" => ("decrypted a data key of key", "decrypt a data key of key"),
        "data_key.create" => {
            ("created a registered data key under key", "create a registered data key under key")
        }
        "data_key.get" => ("took a registered data key of key", "take a registered data key of key"),
        "data_key.describe" => ("described a registered data key", "describe a registered data key"),
        "data_key.list" => ("listed the registered data keys", "list the registered data keys"),
        "data_key.rotate" => {
            ("rotated a registered data key under key", "rotate a registered data key under key")
        }
        "data_key.disable" => ("disabled a registered data key", "disable a registered data key"),
        "data_key.enable" => ("enabled a registered data key", "enable a registered data key"),
        "data_key.destroy" => ("destroyed a registered data key", "destroy a registered data key"),
        "data_key_pair.generate" => {
            ("generated a data key pair under key", "generate a data key pair under key")
        }
        "data_key_pair.decrypt" => ("decrypted a data key pair of key", "decrypt a data key pair of key"),
        "data.encrypt" => ("encrypted data under key", "encrypt data under key"),
        "data.decrypt" => ("decrypted data of key", "decrypt data of key"),
        "data.reencrypt" => ("encrypted data again under key", "encrypt data again under key"),
        "crypto.batch" => ("made a batch of calls", "make a batch of calls"),
        "signature.sign" => ("signed with key", "sign with key"),
        "signature.request" => {
            ("signed a certificate request with key", "sign a certificate request with key")
        }
        "signature.verify" => ("verified a signature of key", "verify a signature of key"),
        "key.public" => ("took the public half of key", "take the public half of key"),
        "asymmetric.encrypt" => ("encrypted to key", "encrypt to key"),
        "asymmetric.decrypt" => ("decrypted with key", "decrypt with key"),
        "mac.generate" => ("made a MAC under key", "make a MAC under key"),
        "mac.verify" => ("verified a MAC under key", "verify a MAC under key"),
        "raw.encrypt" => ("encrypted raw data under key", "encrypt raw data under key"),
        "raw.decrypt" => ("decrypted raw data of key", "decrypt raw data of key"),
        "random.generate" => ("took random bytes", "take random bytes"),
        "audit.read" => ("read the audit log", "read the audit log"),
        "audit.checkpoint" => ("signed a checkpoint", "sign a checkpoint"),
        "auth.unknown-principal" => ("was let in", "be let in"),
        "ceremony.service-start" => ("held an unseal ceremony", "hold an unseal ceremony"),
        "ceremony.core-sign" => {
            ("signed with the core key in a ceremony", "sign with the core key in a ceremony")
        }
        "ceremony.join" => ("joined a ceremony", "join a ceremony"),
        _ => return None,
    })
}

/// One sentence: when, who, what, which key, where, and how it ended.
///
/// The text holds names and details as they are recorded; a terminal must not be given their control characters.
pub fn describe(time: UnixMillis, record: &Record) -> String {
    let is_done = record.outcome == "done";
    let what = match phrases(&record.event) {
        Some((done, _)) if is_done => done.to_owned(),
        Some((_, asked)) if record.outcome == "refused" => format!("asked to {asked}"),
        Some((_, asked)) => format!("tried to {asked}"),
        None => format!("did {}", record.event),
    };
    let what = match (key_phrase(record), what.strip_suffix(" key")) {
        (Some(key), Some(_)) => format!("{what} {key}"),
        (Some(key), None) => format!("{what} with key {key}"),
        // A refusal may come before anybody knows which key was meant.
        (None, Some(verb)) => match verb.strip_suffix(" under").or(verb.strip_suffix(" of")) {
            Some(verb) => verb.to_owned(),
            None => format!("{verb} a key"),
        },
        (None, None) => what,
    };
    let mut sentence = format!("{} {} {what}", rfc3339(time), record.actor);
    let details: Vec<String> = record
        .details
        .iter()
        .filter(|detail| !is_key_name(&detail.name))
        .map(|detail| format!("{}={}", detail.name, detail.value))
        .collect();
    if !details.is_empty() {
        sentence.push_str(&format!(" [{}]", details.join(", ")));
    }
    sentence.push_str(&format!(" on {}: {}", record.node, record.outcome));
    if let Some(reason) = &record.reason {
        sentence.push_str(&format!(", {reason}"));
    }
    sentence
}

fn is_key_name(detail: &str) -> bool {
    matches!(detail, "key" | "name" | "key_name")
}

/// `payroll (id, version 1)`, with the parts that the record has.
fn key_phrase(record: &Record) -> Option<String> {
    let name = record.details.iter().find(|detail| is_key_name(&detail.name)).map(|detail| &detail.value);
    let id = record.key_id.map(|id| id.to_string());
    let version = record.key_version.map(|version| format!("version {version}"));
    match (name, id) {
        (Some(name), id) => {
            let known: Vec<String> = id.into_iter().chain(version).collect();
            Some(if known.is_empty() { name.clone() } else { format!("{name} ({})", known.join(", ")) })
        }
        (None, Some(id)) => Some(version.map_or(id.clone(), |version| format!("{id} ({version})"))),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kms_core::audit::Outcome;
    use kms_core::id::{KeyId, KeyVersion, NodeName};
    use kms_core::reason::Reason;

    const TIME: UnixMillis = UnixMillis(1_795_399_200_000);
    const ADMIN: &str = "kms://default/administrator/admin";

    fn record(event: &str, outcome: Outcome) -> Record {
        let node = NodeName::parse("node-1").expect("a valid name");
        Record::new(event, outcome, ADMIN, &node, "r")
    }

    #[test]
    fn a_record_reads_as_one_sentence() {
        let created = record("key.create", Outcome::Done)
            .detail("name", "payroll")
            .detail("spec", "sm4")
            .key(KeyId([7; 16]), Some(KeyVersion::FIRST));
        assert_eq!(
            describe(TIME, &created),
            "2026-11-23T02:00:00Z kms://default/administrator/admin created key payroll \
             (07070707-0707-0707-0707-070707070707, version 1) [spec=sm4] on node-1: done"
        );
        let refused = record("key.create", Outcome::Refused(Reason::KeyExists)).detail("name", "payroll");
        assert_eq!(
            describe(TIME, &refused),
            "2026-11-23T02:00:00Z kms://default/administrator/admin asked to create key payroll \
             on node-1: refused, KEY_EXISTS"
        );
        let failed = record("data.encrypt", Outcome::Failed(Reason::HsmUnavailable))
            .key(KeyId([7; 16]), Some(KeyVersion::FIRST));
        assert_eq!(
            describe(TIME, &failed),
            "2026-11-23T02:00:00Z kms://default/administrator/admin tried to encrypt data under key \
             07070707-0707-0707-0707-070707070707 (version 1) on node-1: failed, HSM_UNAVAILABLE"
        );
    }

    #[test]
    fn a_refusal_before_the_key_was_known_names_none() {
        for (event, words) in [
            ("data_key.decrypt", "asked to decrypt a data key on node-1"),
            ("data.encrypt", "asked to encrypt data on node-1"),
            ("key.create", "asked to create a key on node-1"),
        ] {
            let sentence = describe(TIME, &record(event, Outcome::Refused(Reason::KeyNotFound)));
            assert!(sentence.contains(words), "{sentence}");
        }
    }

    #[test]
    fn an_event_of_a_later_version_is_still_named() {
        let unknown = record("key.teleport", Outcome::Done).key(KeyId([7; 16]), None);
        assert_eq!(
            describe(TIME, &unknown),
            "2026-11-23T02:00:00Z kms://default/administrator/admin did key.teleport with key \
             07070707-0707-0707-0707-070707070707 on node-1: done"
        );
    }

    #[test]
    fn every_action_has_its_own_words() {
        for action in kms_core::policy::Action::ALL {
            assert!(phrases(action.event()).is_some(), "{}", action.event());
        }
    }

    #[test]
    fn a_time_beyond_the_calendar_is_still_shown() {
        assert_eq!(rfc3339(UnixMillis(u64::MAX)), "18446744073709551615 ms after 1970");
        assert_eq!(rfc3339(UnixMillis(1_795_399_200_120)), "2026-11-23T02:00:00.120Z");
    }
}
