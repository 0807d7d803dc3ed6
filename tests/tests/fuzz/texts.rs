//! Names, requests for certificates, and profiles: whatever people write.

use crate::made::Made;
use crate::target::Target;
use ceremonies::plan::Plan;
use kms_core::attributes::{Description, ShortText};
use kms_core::codec;
use kms_core::csr::{CertificateRequest, NameKind, RequestedNames};
use kms_core::id::{
    ClusterName, CustodianName, KeyId, KeyName, KeyRef, LabelName, NodeName, Principal, PrincipalName,
    TenantName,
};
use kms_core::pair::{PairAlgorithm, PairPublicKey, SignatureAlgorithm};
use kms_core::reshare::{PinStep, Progress, Standing};
use kms_core::suite::{Digest32, Suite};
use kms_hsm::Profile;
use std::fmt::Display;

/// The bundle to which the reshare of the examples leads.
const NEXT: Digest32 = Digest32([7; 32]);
const UUID: &str = "0190a2b4-7c5d-7e6f-8a9b-0c1d2e3f4a5b";

/// A text that is written back as `write` says.
fn text<T: 'static, E: Display + 'static>(
    name: &str,
    examples: &[&str],
    parse: fn(&str) -> Result<T, E>,
    check: fn(&str, &T),
) -> Target {
    let examples = examples.iter().map(|text| text.as_bytes().to_vec()).collect();
    Target::new(name, examples, move |bytes| {
        let Ok(text) = str::from_utf8(bytes) else { return false };
        match parse(text) {
            Ok(value) => {
                check(text, &value);
                true
            }
            Err(error) => {
                let _ = error.to_string();
                false
            }
        }
    })
}

macro_rules! name {
    ($type:ty, $($example:expr),+) => {
        text(stringify!($type), &[$($example),+], <$type>::parse, |text, value| assert_eq!(value.as_str(), text))
    };
}

pub fn targets() -> Vec<Target> {
    let mut targets = vec![
        text(
            "progress of a reshare",
            &[&(Progress::first_line(&NEXT)
                + "began operations-so\ndone operations-so\nin-doubt\nbegan core-so\nrefused core-so\n")],
            |text| Progress::parse(text, &NEXT),
            |text, progress| {
                // What was done is written down as done.
                for step in PinStep::ALL {
                    let is_done = progress.standing(step) == Standing::Done;
                    assert!(!is_done || text.contains(&Progress::line(step, Standing::Done)));
                }
            },
        ),
        name!(TenantName, "default", "a"),
        name!(KeyName, "payroll", "db.backup_2026-11"),
        name!(CustodianName, "custodian-1"),
        name!(NodeName, "node-1"),
        name!(ClusterName, "test"),
        name!(LabelName, "team"),
        name!(PrincipalName, "app"),
        name!(ShortText, "工资 team", ""),
        name!(Description, "what it is for"),
        text("KeyId", &[UUID], KeyId::parse, |text, id| {
            assert_eq!(id.to_string(), text.to_ascii_lowercase());
        }),
        text("KeyRef", &["payroll", "payroll@7", UUID], KeyRef::parse, |text, key| {
            // The hexadecimal digits of an id may be capital.
            assert_eq!(key.to_string().to_ascii_lowercase(), text.to_ascii_lowercase());
            assert_eq!(KeyRef::parse(&key.to_string()).as_ref(), Ok(key));
        }),
        text("Principal", &["kms://default/operator/app"], Principal::parse, |text, principal| {
            assert_eq!(principal.to_uri(), text);
        }),
        text(
            "Digest32",
            &["00112233445566778899AABBccddeeff00112233445566778899aabbccddeeff"],
            |text| Digest32::from_hex(text).ok_or("none"),
            |text, digest| assert_eq!(digest.to_hex(), text.to_ascii_lowercase()),
        ),
    ];
    targets.push(certificate_requests());
    targets.push(profiles());
    targets.push(plans());
    targets
}

/// The subject in the first line; then kinds and names.
fn certificate_requests() -> Target {
    let examples = [
        "CN=app.example,O=Example,C=CH\ndns app.example\nip 192.0.2.1\nip 2001:db8::1\nuri spiffe://example/app\nemail ops@example.org",
        "CN=密钥\\, 管理,OU=a+L=b",
        "\ndns *.example.org",
    ];
    let spki = include_bytes!("../../../kms-core/src/pair/vectors/ec-p256.spki.der");
    let key = PairPublicKey::from_spki(spki).expect("a public key");
    assert_eq!(key.algorithm(), PairAlgorithm::P256);
    Target::new("RequestedNames", examples.map(|text| text.as_bytes().to_vec()).into(), move |bytes| {
        let Ok(text) = str::from_utf8(bytes) else { return false };
        let mut lines = text.split('\n');
        let subject = lines.next().unwrap_or_default();
        let names: Vec<(NameKind, Vec<String>)> = lines
            .filter_map(|line| {
                let (kind, name) = line.split_once(' ')?;
                let kind = match kind {
                    "dns" => NameKind::Dns,
                    "ip" => NameKind::Ip,
                    "uri" => NameKind::Uri,
                    _ => NameKind::Email,
                };
                Some((kind, vec![name.to_owned()]))
            })
            .collect();
        let lists: Vec<(NameKind, &[String])> =
            names.iter().map(|(kind, list)| (*kind, list.as_slice())).collect();
        match RequestedNames::new(subject, &lists) {
            Ok(requested) => {
                let _ = requested.alternative();
                assert_eq!(RequestedNames::new(&requested.subject(), &lists).as_ref(), Ok(&requested));
                let request = CertificateRequest::new(&key, SignatureAlgorithm::EcdsaSha256, &requested)
                    .expect("the pair signs so");
                let to_be_signed = request.to_be_signed();
                let whole = request.signed(&[0x5a; 70]);
                assert!(whole.windows(to_be_signed.len()).any(|part| part == to_be_signed));
                true
            }
            Err(error) => {
                let _ = error.to_string();
                false
            }
        }
    })
}

fn profiles() -> Target {
    let examples: [&str; 4] = [
        include_str!("../../../kms-hsm/src/profiles/generic.toml"),
        include_str!("../../../kms-hsm/src/profiles/sansec.toml"),
        include_str!("../../../kms-hsm/src/profiles/luna.toml"),
        include_str!("../../../kms-hsm/src/profiles/hsm-sim.toml"),
    ];
    text("HSM profile", &examples, Profile::parse, |_, profile| {
        let _ = (profile.name(), profile.pin_rules().strength_bits());
    })
}

/// With the enrolments that the example names beside it.
fn plans() -> Target {
    let example = include_bytes!("../../../ceremonies/plans/example.toml").to_vec();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut made = Made::new(Suite::Intl);
    for (number, name) in ["alice", "bob", "erin"].into_iter().enumerate() {
        let text = codec::to_armour(&made.signed_enrolment(number));
        std::fs::write(folder.path().join(format!("{name}.enrolment")), text).expect("writes");
    }
    Target::new("plan of a ceremony", vec![example], move |bytes| {
        let path = folder.path().join("plan.toml");
        std::fs::write(&path, bytes).expect("writes");
        match Plan::read(&path) {
            Ok(plan) => {
                assert_eq!(plan.text, bytes);
                assert_eq!(usize::from(plan.threshold.total()), plan.custodians.len());
                assert!(plan.threshold.needed() >= 2 && plan.operations_label != plan.core_label);
                true
            }
            Err(error) => {
                let _ = error.to_string();
                false
            }
        }
    })
}
