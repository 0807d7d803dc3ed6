//! Shares on paper: what people type, and what scanners give.

use crate::target::Target;
use kms_core::codec::VersionOne;
use kms_core::id::CustodianName;
use kms_core::passphrase::PassphraseBox;
use kms_core::printed_share::{self, PrintedShareError, TypedShare};
use kms_core::share::{ShareLabel, StoredShare};
use kms_core::suite::Suite;

fn share(suite: Suite, name: &str) -> StoredShare {
    let custodian = CustodianName::parse(name).expect("valid");
    StoredShare {
        version: VersionOne,
        label: ShareLabel { cluster_id: [0xc1; 16], share_epoch: 2, custodian, share_index: 3 },
        shares: PassphraseBox {
            version: VersionOne,
            suite,
            memory_kib: 65_536,
            pass_count: 3,
            salt: (0..16).collect(),
            nonce: (16..28).collect(),
            ciphertext: (100..180).collect(),
        },
    }
}

fn words(share: &StoredShare) -> String {
    let lines = printed_share::to_lines(share).expect("has the sizes of a share");
    lines.iter().map(|line| format!("{}\n", printed_share::line_text(line))).collect()
}

/// What was taken is written and read back as the same share.
fn is_taken(result: Result<StoredShare, PrintedShareError>) -> bool {
    match result {
        Ok(share) => {
            assert_eq!(printed_share::open_words(&words(&share)), Ok(share.clone()));
            let qr = printed_share::to_qr_text(&share).expect("has the sizes of a share");
            assert_eq!(printed_share::open_qr_text(&qr), Ok(share));
            true
        }
        Err(error) => {
            let _ = error.to_string();
            false
        }
    }
}

pub fn targets() -> Vec<Target> {
    let shares = [share(Suite::Sm, "alice"), share(Suite::Intl, "custodian-of-the-northern-office")];
    let compact = |share| printed_share::to_compact(share).expect("has the sizes of a share");
    let numbered = |share| -> String {
        words(share).lines().enumerate().map(|(at, line)| format!("{}. {line}\n", at + 1)).collect()
    };
    let texts: Vec<Vec<u8>> =
        shares.iter().flat_map(|share| [words(share), numbered(share)]).map(String::into_bytes).collect();
    let qr_texts = shares.iter().map(|share| printed_share::to_qr_text(share).expect("prints").into_bytes());
    vec![
        Target::new("compact share", shares.iter().map(compact).collect(), |bytes| {
            let Some(share) = printed_share::open_compact(bytes) else { return false };
            assert_eq!(printed_share::to_compact(&share).as_deref(), Ok(bytes));
            is_taken(Ok(share))
        }),
        Target::new("share in words", texts.clone(), |bytes| {
            str::from_utf8(bytes).is_ok_and(|text| is_taken(printed_share::open_words(text)))
        }),
        Target::new("share in words, line by line", texts, |bytes| {
            let Ok(text) = str::from_utf8(bytes) else { return false };
            let mut typed = TypedShare::default();
            for line in text.lines() {
                if typed.next_line().is_some() {
                    // A line that is refused is asked for again: the next one is looked at in its place.
                    let _ = typed.add(line).map_err(|error| error.to_string());
                }
            }
            is_taken(typed.finish())
        }),
        Target::new("share in a QR code", qr_texts.collect(), |bytes| {
            str::from_utf8(bytes).is_ok_and(|text| is_taken(printed_share::open_qr_text(text)))
        }),
    ]
}
