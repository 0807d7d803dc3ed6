//! Certificate signing requests (PKCS#10, RFC 2986) of key pairs: what goes into one, and its bytes.
//!
//! The encoding is that of `x509-cert`. What is asked for is checked more strictly than a certificate authority must:
//! a request that is signed here has only names that mean one thing.

use crate::pair::{PairPublicKey, SignatureAlgorithm};
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;
use core::str::FromStr;
use der::asn1::{
    Any, BitString, Ia5String, Ia5StringRef, ObjectIdentifier, PrintableStringRef, SetOfVec, Utf8StringRef,
};
use der::{Decode, Encode, Sequence, Tag, Tagged};
use spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::ext::ToExtension;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::{Name, RelativeDistinguishedName};
use x509_cert::request::{CertReq, CertReqInfo, ExtensionReq, Version};

/// Most alternative names of a request, of all kinds together.
pub const NAME_COUNT_MAX: usize = 100;
/// Longest alternative name, in characters: that of a DNS name.
pub const NAME_LEN_MAX: usize = 253;
/// Longest subject, in bytes.
pub const SUBJECT_LEN_MAX: usize = 1024;

const COUNTRY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.6");

/// The kinds of alternative names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameKind {
    /// A host name, or one with `*` as its first label.
    Dns,
    /// An IPv4 or IPv6 address.
    Ip,
    /// An absolute URI.
    Uri,
    /// A mailbox.
    Email,
}

/// Why a request is not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Neither a subject nor another name.
    #[error("is empty, and there is no other name: a certificate needs one")]
    NoName,
    /// The subject is too long.
    #[error("has {len} bytes; at most {SUBJECT_LEN_MAX} are allowed")]
    SubjectLen {
        /// Its length in bytes.
        len: usize,
    },
    /// The subject is not what it should be.
    #[error("{problem}; it is written as RFC 4514 says, like CN=app.example,O=Example,C=CH")]
    Subject {
        /// What is wrong.
        problem: &'static str,
    },
    /// More names than are allowed.
    #[error("holds the name number {}; at most {NAME_COUNT_MAX} names of all kinds together are allowed", NAME_COUNT_MAX + 1)]
    TooManyNames {
        /// Of which kind the first is that is too much.
        kind: NameKind,
    },
    /// One of the names.
    #[error("number {position} {problem}")]
    Name {
        /// Its kind.
        kind: NameKind,
        /// Its place among those of its kind, from 1.
        position: usize,
        /// What is wrong.
        problem: String,
    },
}

/// A pair of this algorithm does not sign so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pair of {pair} does not sign with {algorithm}")]
pub struct OtherPair {
    /// What the pair is.
    pub pair: crate::pair::PairAlgorithm,
    /// What was asked.
    pub algorithm: SignatureAlgorithm,
}

/// The names of a certificate, each of its form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedNames {
    subject: Name,
    alternative: Vec<GeneralName>,
    texts: Vec<String>,
}

impl RequestedNames {
    /// Takes a subject as RFC 4514 writes it, which may be empty, and other names by their kinds.
    ///
    /// # Errors
    /// [`RequestError`] says which will not do and why.
    pub fn new(subject: &str, names: &[(NameKind, &[String])]) -> Result<Self, RequestError> {
        let subject = parse_subject(subject)?;
        let (mut alternative, mut texts) = (Vec::new(), Vec::new());
        for (kind, list) in names {
            for (index, text) in list.iter().enumerate() {
                if alternative.len() == NAME_COUNT_MAX {
                    return Err(RequestError::TooManyNames { kind: *kind });
                }
                let (name, label) = parse_name(*kind, text).map_err(|problem| RequestError::Name {
                    kind: *kind,
                    position: index + 1,
                    problem,
                })?;
                alternative.push(name);
                texts.push(format!("{label}:{text}"));
            }
        }
        if subject.as_ref().is_empty() && alternative.is_empty() {
            return Err(RequestError::NoName);
        }
        Ok(Self { subject, alternative, texts })
    }

    /// The subject as RFC 4514 writes it.
    pub fn subject(&self) -> String {
        self.subject.to_string()
    }

    /// The other names as OpenSSL shows them: `DNS:app.example, IP:192.0.2.1`.
    pub fn alternative(&self) -> String {
        self.texts.join(", ")
    }
}

/// How many RDNs and how many attributes a text has: counted by its separators that are not escaped. `None` for characters that
/// RFC 4514 wants escaped, and for an escape of nothing.
///
/// The library does not look for these: it would take `O=a;CN=b` for one value.
fn count_attributes(text: &str) -> Option<(usize, usize)> {
    let (mut rdn_count, mut attribute_count, mut is_escaped) = (1, 1, false);
    for character in text.chars() {
        match character {
            character if character.is_control() => return None,
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            ',' => (rdn_count, attribute_count) = (rdn_count + 1, attribute_count + 1),
            '+' => attribute_count += 1,
            '"' | ';' | '<' | '>' => return None,
            _ => {}
        }
    }
    (!is_escaped).then_some((rdn_count, attribute_count))
}

fn parse_subject(text: &str) -> Result<Name, RequestError> {
    let refused = |problem| RequestError::Subject { problem };
    if text.is_empty() {
        return Ok(Name::default());
    }
    if text.len() > SUBJECT_LEN_MAX {
        return Err(RequestError::SubjectLen { len: text.len() });
    }
    let counts = count_attributes(text)
        .ok_or_else(|| refused("has a character that must be escaped with a backslash"))?;
    let name = Name::from_str(text).map_err(|_| refused("is no distinguished name"))?;
    let rdns = name.as_ref();
    if (rdns.len(), rdns.iter().map(|rdn| rdn.iter().count()).sum::<usize>()) != counts {
        return Err(refused("has a separator that is escaped in an ambiguous way"));
    }
    let repeats = |rdn: &RelativeDistinguishedName| {
        let mut types: Vec<_> = rdn.iter().map(|attribute| attribute.oid).collect();
        types.sort();
        types.windows(2).any(|pair| pair[0] == pair[1])
    };
    if rdns.iter().any(repeats) {
        return Err(refused("has an attribute twice in one place"));
    }
    for attribute in rdns.iter().flat_map(|rdn| rdn.iter()) {
        check_attribute(attribute).map_err(refused)?;
    }
    Ok(name)
}

fn check_attribute(attribute: &AttributeTypeAndValue) -> Result<(), &'static str> {
    const NO_STRING: &str = "has a value that is no text of its attribute's kind";
    let value = &attribute.value;
    let text = match value.tag() {
        Tag::Utf8String => value.decode_as::<Utf8StringRef<'_>>().map(|text| text.as_str().to_owned()),
        Tag::PrintableString => {
            value.decode_as::<PrintableStringRef<'_>>().map(|text| text.as_str().to_owned())
        }
        Tag::Ia5String => value.decode_as::<Ia5StringRef<'_>>().map(|text| text.as_str().to_owned()),
        _ => return Err(NO_STRING),
    };
    let text = text.map_err(|_| NO_STRING)?;
    if text.is_empty() || text.trim() != text || text.chars().any(char::is_control) {
        return Err("has a value that is empty, begins or ends with a space, or has a control character");
    }
    if attribute.oid == COUNTRY && !(text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_uppercase())) {
        return Err("has a country that is not two capital letters");
    }
    Ok(())
}

/// The name, and what stands in front of it when it is shown.
fn parse_name(kind: NameKind, text: &str) -> Result<(GeneralName, &'static str), String> {
    let len = text.chars().count();
    if len > NAME_LEN_MAX {
        return Err(format!("has {len} characters; at most {NAME_LEN_MAX} are allowed"));
    }
    let ascii = || Ia5String::new(text).map_err(|_| format!("({text:?}) is not ASCII"));
    let form = |expected: &str| format!("({text:?}) is not {expected}");
    match kind {
        NameKind::Ip => {
            let address = IpAddr::from_str(text).map_err(|_| form("an IPv4 or IPv6 address"))?;
            Ok((address.into(), "IP"))
        }
        NameKind::Dns if is_host(text.strip_prefix("*.").unwrap_or(text)) => {
            Ok((GeneralName::DnsName(ascii()?), "DNS"))
        }
        NameKind::Dns => {
            Err(form("a DNS name: labels of letters, digits and hyphens; others are written as xn--"))
        }
        NameKind::Uri if is_uri(text) => Ok((GeneralName::UniformResourceIdentifier(ascii()?), "URI")),
        NameKind::Uri => Err(form("an absolute URI, like spiffe://example/app")),
        NameKind::Email if is_mailbox(text) => Ok((GeneralName::Rfc822Name(ascii()?), "email")),
        NameKind::Email => Err(form("a mailbox, like ops@example.org")),
    }
}

fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // An IPv4 address has the form of a name, and verifiers do not compare it as one.
    text.split('.').all(is_label) && IpAddr::from_str(text).is_err()
}

fn is_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let is_scheme_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    scheme.bytes().next().is_some_and(|first| first.is_ascii_alphabetic())
        && scheme.bytes().all(is_scheme_byte)
        && !rest.is_empty()
        && rest.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte))
}

fn is_mailbox(text: &str) -> bool {
    let Some((local, host)) = text.rsplit_once('@') else { return false };
    (1..=64).contains(&local.len())
        && local.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"(),:;<>@[\\]".contains(&byte))
        && is_host(host)
}

/// A request that is not signed yet.
#[derive(Clone, Debug)]
pub struct CertificateRequest {
    info: CertReqInfo,
    algorithm: AlgorithmIdentifierOwned,
}

const FITS: &str = "names and keys of checked length have a DER form";

impl CertificateRequest {
    /// A request for a certificate of this key with these names.
    ///
    /// # Errors
    /// [`OtherPair`] when the pair does not sign so.
    pub fn new(
        key: &PairPublicKey,
        algorithm: SignatureAlgorithm,
        names: &RequestedNames,
    ) -> Result<Self, OtherPair> {
        if !algorithm.fits(key.algorithm()) {
            return Err(OtherPair { pair: key.algorithm(), algorithm });
        }
        let mut attributes = SetOfVec::new();
        if !names.alternative.is_empty() {
            let extension = SubjectAltName(names.alternative.clone());
            let extension = (&extension).to_extension(&names.subject, &[]).expect(FITS);
            let request = ExtensionReq([extension].to_vec()).try_into().expect(FITS);
            attributes.insert(request).expect(FITS);
        }
        let info = CertReqInfo {
            version: Version::V1,
            subject: names.subject.clone(),
            public_key: SubjectPublicKeyInfoOwned::from_der(&key.to_spki()).expect(FITS),
            attributes,
        };
        Ok(Self { info, algorithm: identifier(algorithm) })
    }

    /// The message that is signed: the `CertificationRequestInfo`.
    pub fn to_be_signed(&self) -> Vec<u8> {
        self.info.to_der().expect(FITS)
    }

    /// The whole `CertificationRequest` in DER. The signature is in the form of docs/formats/pairs.md, which is that of X.509.
    pub fn signed(self, signature: &[u8]) -> Vec<u8> {
        let Self { info, algorithm } = self;
        let signature = BitString::from_bytes(signature).expect(FITS);
        CertReq { info, algorithm, signature }.to_der().expect(FITS)
    }
}

/// RFC 4055, section 3.1.
#[derive(Sequence)]
struct PssParameters {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    hash: AlgorithmIdentifierOwned,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT")]
    mask: AlgorithmIdentifierOwned,
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT")]
    salt_len: u8,
}

/// What X.509 calls a signature algorithm (RFC 5758, RFC 4055, RFC 8410, GM/T 0006).
fn identifier(algorithm: SignatureAlgorithm) -> AlgorithmIdentifierOwned {
    const SHA_256: &str = "2.16.840.1.101.3.4.2.1";
    const SHA_384: &str = "2.16.840.1.101.3.4.2.2";
    const SHA_512: &str = "2.16.840.1.101.3.4.2.3";
    let named = |oid: &str, parameters| AlgorithmIdentifierOwned {
        oid: ObjectIdentifier::new(oid).expect("an object identifier"),
        parameters,
    };
    let pss = |hash, salt_len| {
        let hash = named(hash, Some(Any::null()));
        let mask = named("1.2.840.113549.1.1.8", Some(Any::encode_from(&hash).expect(FITS)));
        let parameters = PssParameters { hash, mask, salt_len };
        named("1.2.840.113549.1.1.10", Some(Any::encode_from(&parameters).expect(FITS)))
    };
    match algorithm {
        SignatureAlgorithm::Sm2Sm3 => named("1.2.156.10197.1.501", None),
        SignatureAlgorithm::EcdsaSha256 => named("1.2.840.10045.4.3.2", None),
        SignatureAlgorithm::EcdsaSha384 => named("1.2.840.10045.4.3.3", None),
        SignatureAlgorithm::EcdsaSha512 => named("1.2.840.10045.4.3.4", None),
        SignatureAlgorithm::RsaPssSha256 => pss(SHA_256, 32),
        SignatureAlgorithm::RsaPssSha384 => pss(SHA_384, 48),
        SignatureAlgorithm::RsaPssSha512 => pss(SHA_512, 64),
        SignatureAlgorithm::RsaPkcs1Sha256 => named("1.2.840.113549.1.1.11", Some(Any::null())),
        SignatureAlgorithm::RsaPkcs1Sha384 => named("1.2.840.113549.1.1.12", Some(Any::null())),
        SignatureAlgorithm::RsaPkcs1Sha512 => named("1.2.840.113549.1.1.13", Some(Any::null())),
        SignatureAlgorithm::Ed25519 => named("1.3.101.112", None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn subject(text: &str) -> Result<String, RequestError> {
        let lists: [(NameKind, &[String]); 0] = [];
        RequestedNames::new(text, &lists).map(|names| names.subject())
    }

    fn name(kind: NameKind, text: &str) -> Result<RequestedNames, RequestError> {
        RequestedNames::new("", &[(kind, &[text.to_owned()])])
    }

    #[test]
    fn a_subject_that_could_mean_two_things_is_refused() {
        for wrong in [
            "app.example",
            "CN",
            "=app",
            "CN=",
            "CN=app,",
            ",CN=app",
            "CN=app,,O=x",
            "CN=app, O=x",
            "CN= app",
            "CN=app ",
            "CN=app;O=x",
            "CN=a<b",
            "CN=\"a\"",
            "CN=a\\",
            "CN=a\\\\\\,O=b",
            "CN=a\u{7}",
            "CN=a\\07",
            "CN=a\\ff",
            "CN=a\\zz",
            "C=Switzerland",
            "C=ch",
            "C=US/ST=California",
            "CN=#0500",
            "CN=#040161",
            "nobody-knows-this=x",
            "CN=a+CN=a",
            "/CN=app",
            "DC=exämple",
        ] {
            let refused = subject(wrong);
            assert!(matches!(refused, Err(RequestError::Subject { .. })), "{wrong:?}: {refused:?}");
        }
        let long = format!("CN={}", "a".repeat(SUBJECT_LEN_MAX - 2));
        assert_eq!(subject(&long), Err(RequestError::SubjectLen { len: SUBJECT_LEN_MAX + 1 }));
        assert_eq!(subject(""), Err(RequestError::NoName));
    }

    #[test]
    fn a_subject_is_shown_as_it_was_written() {
        for right in [
            "CN=app.example,O=Example,C=CH",
            "CN=app\\, the second,OU=a+UID=b",
            "CN=薪资,O=Exämple \\\"quoted\\\"",
            "CN=\\#1,STREET=a/b",
            &format!("CN={}", "a".repeat(SUBJECT_LEN_MAX - 3)),
        ] {
            assert_eq!(subject(right).as_deref(), Ok(right));
        }
    }

    #[test]
    fn names_that_are_not_of_their_kind_are_refused_by_place() {
        let label = "a".repeat(63);
        let longest = [label.as_str(), &label, &label, &"b".repeat(61)].join(".");
        assert_eq!(longest.len(), NAME_LEN_MAX);
        for (kind, right) in [
            (NameKind::Dns, "app.example"),
            (NameKind::Dns, "*.app.example"),
            (NameKind::Dns, "localhost"),
            (NameKind::Dns, "xn--exmple-cua.org"),
            (NameKind::Dns, &longest),
            (NameKind::Ip, "192.0.2.1"),
            (NameKind::Ip, "2001:db8::1"),
            (NameKind::Uri, "spiffe://example/app"),
            (NameKind::Uri, "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6"),
            (NameKind::Email, "ops+kms@example.org"),
        ] {
            assert!(name(kind, right).is_ok(), "{right}");
        }
        for (kind, wrong) in [
            (NameKind::Dns, ""),
            (NameKind::Dns, "."),
            (NameKind::Dns, "app.example."),
            (NameKind::Dns, "-app.example"),
            (NameKind::Dns, "app-.example"),
            (NameKind::Dns, "app..example"),
            (NameKind::Dns, "app_1.example"),
            (NameKind::Dns, "a.*.example"),
            (NameKind::Dns, "*"),
            (NameKind::Dns, "*."),
            (NameKind::Dns, "app example"),
            (NameKind::Dns, "exämple.org"),
            (NameKind::Dns, "192.0.2.1"),
            (NameKind::Dns, "app.example\0.evil.example"),
            (NameKind::Dns, &format!("{label}a.example")),
            (NameKind::Dns, &format!("{longest}b")),
            (NameKind::Ip, "192.0.2"),
            (NameKind::Ip, "192.0.2.1/24"),
            (NameKind::Ip, "fe80::1%eth0"),
            (NameKind::Ip, "[::1]"),
            (NameKind::Uri, "app.example"),
            (NameKind::Uri, "//app.example"),
            (NameKind::Uri, "1a:b"),
            (NameKind::Uri, "https:"),
            (NameKind::Uri, "https://a b"),
            (NameKind::Uri, "https://exämple"),
            (NameKind::Email, "ops"),
            (NameKind::Email, "@example.org"),
            (NameKind::Email, "ops@"),
            (NameKind::Email, "a@b@example.org"),
            (NameKind::Email, "o ps@example.org"),
            (NameKind::Email, &format!("{label}ab@example.org")),
        ] {
            let refused = name(kind, wrong);
            let is_expected = matches!(
                &refused,
                Err(RequestError::Name { kind: found, position: 1, .. }) if *found == kind
            );
            assert!(is_expected, "{wrong:?}: {refused:?}");
        }
        let two = RequestedNames::new("", &[(NameKind::Dns, &["a".to_owned(), "b c".to_owned()])]);
        assert!(matches!(two, Err(RequestError::Name { position: 2, .. })), "{two:?}");
    }

    #[test]
    fn a_hundred_names_are_taken_and_one_more_is_refused_where_it_stands() {
        let many = |count| (0..count).map(|number| format!("host-{number}")).collect::<Vec<_>>();
        let (dns, ip) = (many(99), vec!["::1".to_owned()]);
        let lists: [(NameKind, &[String]); 2] = [(NameKind::Dns, &dns), (NameKind::Ip, &ip)];
        let names = RequestedNames::new("", &lists).expect("100 names");
        assert!(names.alternative().starts_with("DNS:host-0, ") && names.alternative().ends_with("IP:::1"));
        let dns = many(100);
        let lists: [(NameKind, &[String]); 2] = [(NameKind::Dns, &dns), (NameKind::Ip, &ip)];
        let refused = RequestedNames::new("CN=a", &lists);
        assert_eq!(refused, Err(RequestError::TooManyNames { kind: NameKind::Ip }));
    }

    #[test]
    fn a_request_holds_what_was_asked_and_the_algorithm_of_the_key() {
        let mut modulus = vec![0xff; 256];
        modulus[255] = 1;
        let key = PairPublicKey::from_rsa(&modulus, &[1, 0, 1]).expect("a key");
        let names = name(NameKind::Dns, "app.example").expect("a name");
        let other = CertificateRequest::new(&key, SignatureAlgorithm::Ed25519, &names);
        assert_eq!(
            other.err(),
            Some(OtherPair { pair: key.algorithm(), algorithm: SignatureAlgorithm::Ed25519 })
        );
        for algorithm in SignatureAlgorithm::of(key.algorithm()) {
            let request = CertificateRequest::new(&key, algorithm, &names).expect("it fits");
            let (signed, der) = (request.to_be_signed(), request.signed(&[7; 256]));
            let read = CertReq::from_der(&der).expect("PKCS#10");
            assert_eq!(read.info.to_der().expect("DER"), signed);
            assert_eq!(read.signature.as_bytes(), Some(&[7; 256][..]));
            assert_eq!(read.info.public_key.to_der().expect("DER"), key.to_spki());
            assert_eq!(read.algorithm, identifier(algorithm));
        }
    }
}
