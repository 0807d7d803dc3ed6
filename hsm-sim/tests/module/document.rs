//! `docs/hsm-sim.md` lists exactly the mechanisms that the module has, under every personality.
#![expect(unsafe_code, reason = "the safe wrapper hides vendors' mechanisms")]

use std::collections::BTreeMap;
use std::ptr::null_mut;

use cryptoki_sys as ck;

use crate::harness::init_token;
use crate::raw::{call, functions};
use crate::vendors::under;

const DOCUMENT: &str = include_str!("../../../docs/hsm-sim.md");

/// The rows of the table whose header begins with these cells.
fn rows(header: &[&str]) -> Vec<Vec<&'static str>> {
    let cells = |line: &'static str| -> Vec<&'static str> {
        line.trim_matches('|').split('|').map(str::trim).collect()
    };
    let mut lines = DOCUMENT.lines().skip_while(|line| !cells(line).starts_with(header));
    lines.next().expect("the table is in the document");
    lines.skip(1).take_while(|line| line.starts_with('|')).map(cells).collect()
}

fn number(cell: &str) -> Option<u64> {
    u64::from_str_radix(cell.strip_prefix("0x")?, 16).ok()
}

/// Numbers and uses, as the document has them for a personality.
fn documented(personality: &str) -> BTreeMap<u64, String> {
    let of_standard = rows(&["name", "number", "what", "does"]).into_iter().map(|row| (row[1], row[3]));
    let of_vendors = rows(&["what", "does", "sansec"]);
    let column = ["sansec", "luna", "tass", "ep11"].iter().position(|name| *name == personality);
    let column = 2 + column.expect("a column of the table");
    let of_vendor =
        of_vendors.into_iter().filter(|row| !row[0].starts_with("key type")).map(|row| (row[column], row[1]));
    let mut documented = BTreeMap::new();
    for (cell, uses) in of_standard.chain(of_vendor) {
        let Some(number) = number(cell) else {
            assert_eq!(cell, "-");
            continue;
        };
        assert!(documented.insert(number, uses.to_owned()).is_none(), "{cell} is there twice");
    }
    documented
}

fn uses(flags: ck::CK_FLAGS) -> String {
    let is_signing = flags & ck::CKF_SIGN != 0;
    [
        (ck::CKF_GENERATE, "generate"),
        (ck::CKF_GENERATE_KEY_PAIR, "generate a pair"),
        (ck::CKF_ENCRYPT, "encrypt"),
        (ck::CKF_WRAP, "wrap"),
        (ck::CKF_DIGEST, "digest"),
        (ck::CKF_SIGN, "sign"),
        (if is_signing { 0 } else { ck::CKF_VERIFY }, "verify"),
        (ck::CKF_DERIVE, "derive"),
    ]
    .iter()
    .filter(|(flag, _)| flags & flag != 0)
    .map(|(_, name)| *name)
    .collect::<Vec<_>>()
    .join(", ")
}

fn of_module() -> BTreeMap<u64, String> {
    let slot = init_token("mechanism list").id();
    let mut codes = [0; 200];
    let mut count = 200;
    assert_eq!(call!(C_GetMechanismList(slot, codes.as_mut_ptr(), &raw mut count)), ck::CKR_OK);
    let mut needed = 0;
    assert_eq!(call!(C_GetMechanismList(slot, null_mut(), &raw mut needed)), ck::CKR_OK);
    assert_eq!(needed, count);
    codes[..count as usize]
        .iter()
        .map(|code| {
            let mut info = ck::CK_MECHANISM_INFO::default();
            assert_eq!(call!(C_GetMechanismInfo(slot, *code, &raw mut info)), ck::CKR_OK);
            assert_eq!(info.flags & ck::CKF_HW, 0, "a simulation must not claim to be hardware");
            (*code, uses(info.flags))
        })
        .collect()
}

#[test]
fn the_document_lists_the_mechanisms_of_sansec() {
    assert_eq!(of_module(), documented("sansec"));
}

#[test]
fn the_document_lists_the_mechanisms_of_luna() {
    under("luna", "document::the_document_lists_the_mechanisms_of_luna", None, || {
        assert_eq!(of_module(), documented("luna"));
    });
}

#[test]
fn the_document_lists_the_mechanisms_of_tass() {
    under("tass", "document::the_document_lists_the_mechanisms_of_tass", None, || {
        assert_eq!(of_module(), documented("tass"));
    });
}

#[test]
fn the_document_lists_the_mechanisms_of_ep11() {
    under("ep11", "document::the_document_lists_the_mechanisms_of_ep11", None, || {
        assert_eq!(of_module(), documented("ep11"));
    });
}
