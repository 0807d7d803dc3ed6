//! Certificate signing requests of every kind of pair, resident and wrapped: OpenSSL verifies them and reads what was asked for.

use super::recipients::openssl;
use super::signatures::make_pair;
use super::{Expected, PAIRS, PROTECTIONS, admin, app, deployment, make_key};
use kms_core::pair::{PairAlgorithm, SignatureAlgorithm};
use kms_proto::v1;
use kms_tests::audit;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

fn asked(key: &str) -> v1::GetCertificateSigningRequestRequest {
    v1::GetCertificateSigningRequestRequest {
        key: key.to_owned(),
        subject: "CN=app\\, the first,O=薪资,C=CH".into(),
        dns_names: vec!["app.example".into(), "*.app.example".into()],
        ip_addresses: vec!["192.0.2.1".into(), "2001:db8::1".into()],
        uris: vec!["spiffe://example/app".into()],
        email_addresses: vec!["ops@example.org".into()],
        algorithm: 0,
    }
}

/// What OpenSSL says of a request that it verifies. The option counts for SM2 alone.
fn verified(folder: &Path, is_sm2: bool) -> String {
    let mut arguments = vec!["req", "-verify", "-inform", "DER", "-in", "request.der", "-noout", "-text"];
    arguments.extend(["-nameopt", "RFC2253,-esc_msb"]);
    if is_sm2 {
        arguments.extend(["-vfyopt", "distid:1234567812345678"]);
    }
    String::from_utf8(openssl(folder, &arguments)).expect("text")
}

#[tokio::test]
async fn openssl_verifies_every_request_and_reads_what_was_asked_for() {
    let folder = TempDir::new().expect("a folder");
    for ((spec, pair), protection) in
        PAIRS.into_iter().flat_map(|pair| PROTECTIONS.map(|place| (pair, place)))
    {
        let name = &format!("request-{pair}-{}", protection as i32);
        make_pair(name, spec, protection).await;
        let mut rpc = app().await;
        let public = rpc.crypto.get_public_key(v1::GetPublicKeyRequest { key: name.clone() }).await;
        let public = public.expect("a public key").into_inner();
        let algorithms: Vec<SignatureAlgorithm> = SignatureAlgorithm::of(pair).collect();
        for algorithm in [None].into_iter().chain(algorithms.iter().copied().map(Some)) {
            let number = algorithm.map_or(0, |algorithm| i32::from(algorithm.number()));
            let request = v1::GetCertificateSigningRequestRequest { algorithm: number, ..asked(name) };
            let answer = rpc.crypto.get_certificate_signing_request(request).await.expect("makes one");
            let id = answer.metadata().get("x-request-id").expect("an id").to_str().expect("text").to_owned();
            let made = answer.into_inner();
            let signed_with = algorithm.unwrap_or(algorithms[0]);
            assert_eq!(made.algorithm, i32::from(signed_with.number()), "{name}");
            assert_eq!((&made.key_id, made.key_version), (&public.key_id, 1));
            fs::write(folder.path().join("request.der"), &made.request).expect("written");
            let text = verified(folder.path(), pair == PairAlgorithm::Sm2);
            for part in [
                "Subject: CN=app\\, the first,O=薪资,C=CH",
                "DNS:app.example, DNS:*.app.example, IP Address:192.0.2.1, IP Address:2001:DB8:0:0:0:0:0:1, ",
                "URI:spiffe://example/app, email:ops@example.org",
            ] {
                assert!(text.contains(part), "{name}, {signed_with}: {part} is not in\n{text}");
            }
            let arguments = ["req", "-inform", "DER", "-in", "request.der", "-pubkey", "-noout"];
            fs::write(folder.path().join("public.pem"), openssl(folder.path(), &arguments)).expect("written");
            let arguments = ["pkey", "-pubin", "-in", "public.pem", "-outform", "DER"];
            assert_eq!(openssl(folder.path(), &arguments), public.public_key, "{name}");

            let entry = audit::record_of(deployment(), &id).await;
            assert_eq!(
                (entry.record.event.as_str(), entry.record.outcome.as_str()),
                ("signature.request", "done")
            );
            assert_eq!(entry.detail("subject"), Some("CN=app\\, the first,O=薪资,C=CH"));
            assert!(
                entry.detail("names").is_some_and(|names| names.starts_with("DNS:app.example, DNS:")),
                "{entry:?}"
            );
            let (shown, hash) = match pair {
                PairAlgorithm::Sm2 => ("sm3", "-sm3"),
                _ => ("sha-256", "-sha256"),
            };
            let digest = openssl(folder.path(), &["dgst", hash, "-r", "request.der"]);
            let digest = String::from_utf8(digest).expect("text");
            let digest = format!("{shown}:{}", digest.split_whitespace().next().expect("a digest"));
            assert_eq!(entry.detail("request_fingerprint"), Some(digest.as_str()));
        }
        // A changed request does not verify: what OpenSSL said before was said of the signature.
        let mut changed = fs::read(folder.path().join("request.der")).expect("it was written");
        let at = changed.windows(11).position(|window| window == b"app.example").expect("a name");
        changed[at] = b'x';
        fs::write(folder.path().join("changed.der"), changed).expect("written");
        let output = std::process::Command::new("openssl")
            .current_dir(folder.path())
            .args(["req", "-verify", "-inform", "DER", "-in", "changed.der", "-noout"])
            .args(["-vfyopt", "distid:1234567812345678"].into_iter().take(if pair == PairAlgorithm::Sm2 {
                2
            } else {
                0
            }))
            .output()
            .expect("openssl starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() || said.to_lowercase().contains("fail"), "{name}: {said}");
    }
}

#[tokio::test]
async fn names_and_algorithms_that_will_not_do_are_refused_by_their_field() {
    make_pair("request-bad", v1::KeySpec::EcP256, v1::Protection::HsmWrapped).await;
    make_key("request-not", v1::Protection::HsmWrapped).await;
    let (mut rpc, mut expected) = (app().await, Expected::default());
    type Asked = v1::GetCertificateSigningRequestRequest;
    let base = || Asked { subject: "CN=a".into(), key: "request-bad".into(), ..Default::default() };
    let many = |count: usize| (0..count).map(|number| format!("host-{number}")).collect::<Vec<_>>();
    let long = "a.".repeat(127);
    let at_limit = Asked { dns_names: many(99), ip_addresses: vec!["::1".into()], ..base() };
    rpc.crypto.get_certificate_signing_request(at_limit).await.expect("100 names are allowed");
    let no_subject = Asked { subject: String::new(), uris: vec!["urn:a".into()], ..base() };
    rpc.crypto.get_certificate_signing_request(no_subject).await.expect("a name is enough");
    for (request, field) in [
        (Asked { subject: String::new(), ..base() }, "subject"),
        (Asked { subject: "app.example".into(), ..base() }, "subject"),
        (Asked { subject: "CN=a;O=b".into(), ..base() }, "subject"),
        (Asked { subject: format!("CN={}", "a".repeat(1022)), ..base() }, "subject"),
        (Asked { dns_names: vec!["a b".into()], ..base() }, "dns_names"),
        (Asked { dns_names: vec![format!("{long}bb")], ..base() }, "dns_names"),
        (Asked { dns_names: many(101), ..base() }, "dns_names"),
        (Asked { ip_addresses: vec!["192.0.2.256".into()], ..base() }, "ip_addresses"),
        (Asked { dns_names: many(100), ip_addresses: vec!["::1".into()], ..base() }, "ip_addresses"),
        (Asked { uris: vec!["app".into()], ..base() }, "uris"),
        (Asked { uris: vec![format!("urn:{}", "a".repeat(250))], ..base() }, "uris"),
        (Asked { email_addresses: vec!["ops".into()], ..base() }, "email_addresses"),
        (Asked { algorithm: 99, ..base() }, "algorithm"),
        (Asked { algorithm: v1::SignatureAlgorithm::Sm2Sm3.into(), ..base() }, "algorithm"),
        (Asked { key: "No Name".into(), ..base() }, "key"),
    ] {
        let answer = rpc.crypto.get_certificate_signing_request(request).await;
        expected.refusal(answer, "FIELD_INVALID", Some(field));
    }
    let ask = |key: &str| Asked { key: key.into(), ..base() };
    let answer = rpc.crypto.get_certificate_signing_request(ask("request-not")).await;
    expected.refusal(answer, "KEY_USAGE_FORBIDS", Some("key"));
    let answer = rpc.crypto.get_certificate_signing_request(ask("request-bad@2")).await;
    expected.refusal(answer, "KEY_VERSION_NOT_FOUND", None);
    // An administrator makes keys and does not sign with them.
    let mut admin = admin().await;
    let answer = admin.crypto.get_certificate_signing_request(base()).await;
    expected.refusal(answer, "NOT_PERMITTED", None);
    let rotate = v1::RotateKeyRequest { key: "request-bad".into(), ..Default::default() };
    admin.keys.rotate_key(rotate).await.expect("rotates");
    let answer = rpc.crypto.get_certificate_signing_request(ask("request-bad@1")).await;
    expected.refusal(answer, "KEY_STATE_FORBIDS", None);
    admin.keys.suspend_key(v1::SuspendKeyRequest { key: "request-bad".into() }).await.expect("suspends");
    expected.refusal(rpc.crypto.get_certificate_signing_request(base()).await, "KEY_STATE_FORBIDS", None);
    expected.are_all_recorded().await;
    let usage = v1::GetUsageReportRequest { key: "request-bad".into() };
    let usage = admin.keys.get_usage_report(usage).await.expect("a report").into_inner();
    assert_eq!(usage.versions.iter().map(|one| (one.version, one.signatures)).collect::<Vec<_>>(), [(1, 2)]);
}

/// The command of docs/cli.md.
#[tokio::test]
async fn a_request_comes_in_pem_for_an_authority() {
    make_pair("request-cli", v1::KeySpec::Sm2, v1::Protection::HsmWrapped).await;
    let folder = TempDir::new().expect("a folder");
    let out = folder.path().join("app.csr").display().to_string();
    let names = ["--subject", "CN=app.example", "--dns", "app.example", "--ip", "192.0.2.1"];
    let arguments = [&["key", "csr", "request-cli"][..], &names].concat();
    let pem = deployment().kms("app", &arguments).done();
    assert!(pem.starts_with("-----BEGIN CERTIFICATE REQUEST-----\n"), "{pem}");
    deployment().kms("app", &[&arguments[..], &["--out", &out]].concat()).done();
    let verify =
        ["req", "-verify", "-in", "app.csr", "-noout", "-subject", "-vfyopt", "distid:1234567812345678"];
    let said = String::from_utf8(openssl(folder.path(), &verify)).expect("text");
    assert!(said.contains("CN = app.example"), "{said}");
    deployment()
        .kms("app", &[&arguments[..], &["--out", &out]].concat())
        .ended_with(1)
        .says("exists already");
}
