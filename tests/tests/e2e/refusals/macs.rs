//! MACs and random bytes: what a key of another usage, state or version refuses, and what is never taken for a MAC.

use super::{Expected, admin, app, deployment};
use kms_proto::v1;
use kms_tests::audit;

const MACS: [(v1::KeySpec, usize); 4] = [
    (v1::KeySpec::HmacSha256, 32),
    (v1::KeySpec::HmacSha384, 48),
    (v1::KeySpec::HmacSha512, 64),
    (v1::KeySpec::HmacSm3, 32),
];
const PROTECTIONS: [v1::Protection; 2] = [v1::Protection::HsmResident, v1::Protection::HsmWrapped];

async fn make_key(name: &str, spec: v1::KeySpec, protection: v1::Protection) -> v1::Key {
    let request = v1::CreateKeyRequest {
        name: name.to_owned(),
        spec: spec.into(),
        protection: protection.into(),
        ..Default::default()
    };
    let key = admin().await.keys.create_key(request).await.expect("creates").into_inner();
    assert_eq!((key.spec(), key.protection()), (spec, protection));
    key
}

fn generate(key: &str, message: &[u8]) -> v1::GenerateMacRequest {
    v1::GenerateMacRequest { key: key.to_owned(), message: message.to_vec() }
}

fn verify(key: &str, message: &[u8], mac: &[u8]) -> v1::VerifyMacRequest {
    v1::VerifyMacRequest { key: key.to_owned(), message: message.to_vec(), mac: mac.to_vec() }
}

#[tokio::test]
async fn a_mac_of_another_message_key_or_version_and_a_changed_or_truncated_one_is_refused() {
    for ((spec, len), protection) in MACS.into_iter().flat_map(|mac| PROTECTIONS.map(|place| (mac, place))) {
        let name = &format!("mac-{}-{}", spec as i32, protection as i32);
        make_key(name, spec, protection).await;
        make_key(&format!("{name}-other"), spec, protection).await;
        let (mut rpc, mut expected) = (app().await, Expected::default());
        for message in [&b""[..], b"attack at dawn", &[7; 64 * 1024]] {
            let made = rpc.crypto.generate_mac(generate(name, message)).await.expect("makes").into_inner();
            assert_eq!((made.key_version, made.mac.len()), (1, len), "{name}");
            let again = rpc.crypto.generate_mac(generate(name, message)).await.expect("makes").into_inner();
            assert_eq!(made, again, "one message has one MAC");
            rpc.crypto.verify_mac(verify(name, message, &made.mac)).await.expect("verifies");
        }
        let made =
            rpc.crypto.generate_mac(generate(name, b"attack at dawn")).await.expect("makes").into_inner();
        let mac = made.mac;
        for bit in [0, 8 * len / 2, 8 * len - 1] {
            let mut changed = mac.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let answer = rpc.crypto.verify_mac(verify(name, b"attack at dawn", &changed)).await;
            expected.refusal(answer, "MAC_INVALID", None);
        }
        for message in [&b"attack at dusk"[..], b"attack at daw", b""] {
            let answer = rpc.crypto.verify_mac(verify(name, message, &mac)).await;
            expected.refusal(answer, "MAC_INVALID", None);
        }
        let answer = rpc.crypto.verify_mac(verify(&format!("{name}-other"), b"attack at dawn", &mac)).await;
        expected.refusal(answer, "MAC_INVALID", None);
        let longer = [&mac[..], &[0]].concat();
        for wrong in [&[][..], &mac[..1], &mac[..len / 2], &mac[..len - 1], &longer] {
            let answer = rpc.crypto.verify_mac(verify(name, b"attack at dawn", wrong)).await;
            expected.refusal(answer, "FIELD_INVALID", Some("mac"));
        }
        let rotate = v1::RotateKeyRequest { key: name.clone(), ..Default::default() };
        admin().await.keys.rotate_key(rotate).await.expect("rotates");
        let answer = rpc.crypto.verify_mac(verify(name, b"attack at dawn", &mac)).await;
        expected.refusal(answer, "MAC_INVALID", None);
        let old = format!("{name}@1");
        let verified = rpc.crypto.verify_mac(verify(&old, b"attack at dawn", &mac)).await.expect("verifies");
        assert_eq!(verified.into_inner(), v1::VerifyMacResponse { key_id: made.key_id, key_version: 1 });
        let answer = rpc.crypto.generate_mac(generate(&old, b"attack at dawn")).await;
        expected.refusal(answer, "KEY_STATE_FORBIDS", None);
        let new =
            rpc.crypto.generate_mac(generate(name, b"attack at dawn")).await.expect("makes").into_inner();
        assert!(new.key_version == 2 && new.mac != mac, "another version has another key");
        expected.are_all_recorded().await;
    }
}

#[tokio::test]
async fn a_message_of_more_than_64_kib_is_refused() {
    make_key("mac-sizes", v1::KeySpec::HmacSha256, v1::Protection::HsmWrapped).await;
    let (mut rpc, mut expected) = (app().await, Expected::default());
    let long = vec![7; 64 * 1024 + 1];
    let answer = rpc.crypto.generate_mac(generate("mac-sizes", &long)).await;
    expected.refusal(answer, "FIELD_INVALID", Some("message"));
    let answer = rpc.crypto.verify_mac(verify("mac-sizes", &long, &[0; 32])).await;
    expected.refusal(answer, "FIELD_INVALID", Some("message"));
    for (key, reason, field) in [
        ("mac-nobody-made-this", "KEY_NOT_FOUND", None),
        ("mac-sizes@7", "KEY_VERSION_NOT_FOUND", None),
        ("No Name", "FIELD_INVALID", Some("key")),
        ("", "FIELD_INVALID", Some("key")),
    ] {
        expected.refusal(rpc.crypto.generate_mac(generate(key, b"x")).await, reason, field);
        expected.refusal(rpc.crypto.verify_mac(verify(key, b"x", &[0; 32])).await, reason, field);
    }
    expected.are_all_recorded().await;
}

#[tokio::test]
async fn a_key_is_used_for_what_it_is_for_and_for_nothing_else() {
    for (place, protection) in [("resident", PROTECTIONS[0]), ("wrapped", PROTECTIONS[1])] {
        let (cipher, mac) = (format!("mac-usage-cipher-{place}"), format!("mac-usage-mac-{place}"));
        make_key(&cipher, v1::KeySpec::Aes128, protection).await;
        make_key(&mac, v1::KeySpec::HmacSm3, protection).await;
        let (mut rpc, mut expected) = (app().await, Expected::default());
        let encrypt = v1::EncryptRequest { key: mac.clone(), plaintext: vec![7], ..Default::default() };
        let answer = rpc.crypto.encrypt(encrypt).await;
        let message = answer.as_ref().expect_err("refused").message().to_owned();
        for part in [
            mac.as_str(),
            "hmac-sm3",
            "GENERATE_VERIFY_MAC",
            "GenerateMac",
            "aes-256, sm4, aes-128 or aes-192",
        ] {
            assert!(message.contains(part), "{message}");
        }
        expected.refusal(answer, "KEY_USAGE_FORBIDS", Some("key"));
        for data_key_spec in [v1::KeySpec::Unspecified, v1::KeySpec::Aes256] {
            let request = v1::GenerateDataKeyRequest {
                key: mac.clone(),
                data_key_spec: data_key_spec.into(),
                ..Default::default()
            };
            let answer = rpc.crypto.generate_data_key(request).await;
            expected.refusal(answer, "KEY_USAGE_FORBIDS", Some("key"));
        }
        let answer = rpc.crypto.generate_mac(generate(&cipher, b"x")).await;
        assert!(answer.as_ref().expect_err("refused").message().contains("hmac-sha-512 or hmac-sm3"));
        expected.refusal(answer, "KEY_USAGE_FORBIDS", Some("key"));
        // Its length, too, is that of no MAC of this key; what it is for comes first.
        let answer = rpc.crypto.verify_mac(verify(&cipher, b"x", &[0; 5])).await;
        expected.refusal(answer, "KEY_USAGE_FORBIDS", Some("key"));
        expected.are_all_recorded().await;
    }
}

#[tokio::test]
async fn a_deactivated_key_verifies_and_one_that_does_nothing_does_not_verify_either() {
    for (place, protection) in [("resident", PROTECTIONS[0]), ("wrapped", PROTECTIONS[1])] {
        let name = format!("mac-states-{place}");
        let key = || name.clone();
        make_key(&name, v1::KeySpec::HmacSha512, protection).await;
        let (mut rpc, mut admin, mut expected) = (app().await, admin().await, Expected::default());
        let mac = rpc.crypto.generate_mac(generate(&name, b"x")).await.expect("makes").into_inner().mac;

        admin.keys.suspend_key(v1::SuspendKeyRequest { key: key() }).await.expect("suspends");
        expected.refusal(rpc.crypto.generate_mac(generate(&name, b"x")).await, "KEY_STATE_FORBIDS", None);
        expected.refusal(rpc.crypto.verify_mac(verify(&name, b"x", &mac)).await, "KEY_STATE_FORBIDS", None);
        admin.keys.resume_key(v1::ResumeKeyRequest { key: key() }).await.expect("resumes");
        rpc.crypto.verify_mac(verify(&name, b"x", &mac)).await.expect("verifies");

        admin.keys.deactivate_key(v1::DeactivateKeyRequest { key: key() }).await.expect("deactivates");
        expected.refusal(rpc.crypto.generate_mac(generate(&name, b"x")).await, "KEY_STATE_FORBIDS", None);
        rpc.crypto.verify_mac(verify(&name, b"x", &mac)).await.expect("verifies what was made");

        admin.keys.archive_key(v1::ArchiveKeyRequest { key: key() }).await.expect("archives");
        expected.refusal(rpc.crypto.verify_mac(verify(&name, b"x", &mac)).await, "KEY_STATE_FORBIDS", None);
        admin.keys.compromise_key(v1::CompromiseKeyRequest { key: key() }).await.expect("marks");
        expected.refusal(rpc.crypto.verify_mac(verify(&name, b"x", &mac)).await, "KEY_STATE_FORBIDS", None);
        expected.are_all_recorded().await;
    }
}

#[tokio::test]
async fn random_bytes_are_1_to_1024_and_recorded_by_their_number_alone() {
    let (mut rpc, mut expected) = (app().await, Expected::default());
    for byte_count in [0, 1025, u32::MAX] {
        let answer = rpc.crypto.generate_random(v1::GenerateRandomRequest { byte_count }).await;
        expected.refusal(answer, "FIELD_INVALID", Some("byte_count"));
    }
    let mut seen: Vec<Vec<u8>> = Vec::new();
    for byte_count in [1024, 1024, 32, 32, 1] {
        let answer = rpc.crypto.generate_random(v1::GenerateRandomRequest { byte_count }).await;
        let random = answer.expect("random bytes").into_inner().random;
        assert_eq!(random.len(), byte_count as usize);
        assert!(byte_count == 1 || !seen.contains(&random), "never the same again");
        assert!(byte_count < 32 || random.iter().any(|byte| *byte != random[0]));
        seen.push(random);
    }
    expected.are_all_recorded().await;
    let entries = audit::records_from(deployment(), 0).await;
    let counts: Vec<_> = entries
        .iter()
        .filter(|entry| entry.record.event == "random.generate" && entry.record.outcome == "done")
        .map(|entry| (entry.record.details.len(), entry.detail("byte_count")))
        .collect();
    for byte_count in ["1024", "32", "1"] {
        assert!(counts.contains(&(1, Some(byte_count))), "{counts:?}");
    }
}
