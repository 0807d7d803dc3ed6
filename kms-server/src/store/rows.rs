//! Rows as the database holds them, with the MAC that makes a changed row useless.

use kms_core::attributes::KeyAttributes;
use kms_core::codec;
use kms_core::id::{HsmObjectId, KeyId, KeyName, KeyVersion, Principal, TenantName, UnixMillis};
use kms_core::key::{Cryptoperiod, Standing};
use kms_core::pair::PairPublicKey;
use kms_core::spec::{KeyOrigin, KeySpec, KeyUsage, Protection};
use kms_core::suite::{CheckValue, Digest32, Suite};
use kms_hsm::LockedBytes;
use subtle::ConstantTimeEq;

/// One key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// The tenant that owns it.
    pub tenant: TenantName,
    /// Its identity.
    pub key_id: KeyId,
    /// Its name, unique in the tenant.
    pub name: KeyName,
    /// Its algorithm.
    pub spec: KeySpec,
    /// What it is for: one of those of its specification.
    pub usage: KeyUsage,
    /// Where its material is.
    pub protection: Protection,
    /// The standing that was last written. [`KeyRow::standing_at`] is the one that counts, and gates all versions.
    pub standing: Standing,
    /// Who asked for its destruction; present exactly when the standing has one.
    pub destruction_request: Option<DestructionRequest>,
    /// When it may be used.
    pub period: Cryptoperiod,
    /// The version that encrypts.
    pub current_version: KeyVersion,
    /// Who created it.
    pub creator: Principal,
    /// When.
    pub created: UnixMillis,
    /// What people say of it.
    pub attributes: KeyAttributes,
    /// Grows by one with every change of the row.
    pub revision: u64,
}

impl KeyRow {
    /// The key's standing at a time: the one that was written, and what the dates have made of it.
    pub fn standing_at(&self, time: UnixMillis) -> Standing {
        self.period.standing_at(self.standing, time)
    }
}

/// Who asked for a destruction, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestructionRequest {
    /// Who.
    pub by: Principal,
    /// When.
    pub time: UnixMillis,
}

/// Another name of a key, which can be given to another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AliasRow {
    /// The tenant that owns it.
    pub tenant: TenantName,
    /// No key and no other alias of the tenant has it.
    pub name: KeyName,
    /// The key that it names now.
    pub key_id: KeyId,
    /// Since when.
    pub changed: UnixMillis,
}

/// How often a resident version may have encrypted: what nodes have taken for themselves, whether they used it or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountRow {
    /// The tenant that owns it.
    pub tenant: TenantName,
    /// The key.
    pub key_id: KeyId,
    /// The version.
    pub version: KeyVersion,
    /// Encryptions that are taken.
    pub taken: u64,
}

/// Where the material of one version is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Material {
    /// An object in the HSM.
    Resident(HsmObjectId),
    /// Sealed by a master key (docs/formats/database.md).
    Wrapped(Vec<u8>),
    /// Brought by somebody and on its way into the HSM: sealed until the object exists.
    Staged {
        /// The object that it becomes.
        object: HsmObjectId,
        /// As [`Material::Wrapped`].
        wrapped: Vec<u8>,
    },
    /// It was destroyed.
    Erased,
}

/// One version of a key. Several rows for a key, never one blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionRow {
    /// The tenant that owns it.
    pub tenant: TenantName,
    /// The key.
    pub key_id: KeyId,
    /// The version.
    pub version: KeyVersion,
    /// Who made its material.
    pub origin: KeyOrigin,
    /// Its own standing, as it was last written.
    pub standing: Standing,
    /// Who asked for its destruction; present exactly when the standing has one.
    pub destruction_request: Option<DestructionRequest>,
    /// When it was made.
    pub created: UnixMillis,
    /// Its material.
    pub material: Material,
    /// The first bytes of a zero block encrypted under it, where they are known.
    pub check_value: Option<CheckValue>,
    /// The public half of a key pair, from when it is known. It outlives the private half.
    pub public_key: Option<PairPublicKey>,
}

impl VersionRow {
    /// The version's standing at a time.
    pub fn standing_at(&self, time: UnixMillis) -> Standing {
        Cryptoperiod::default().standing_at(self.standing, time)
    }
}

/// A one-time key pair to which somebody wraps key material.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportRow {
    /// The tenant that owns it.
    pub tenant: TenantName,
    /// Its identity, of the same kind as a key's.
    pub import_id: KeyId,
    /// What the pair is made of.
    pub spec: KeySpec,
    /// Its private half.
    pub material: Material,
    /// Its public half; absent until the object in the HSM is made.
    pub public_key: Option<PairPublicKey>,
    /// Who asked for it.
    pub creator: Principal,
    /// When.
    pub created: UnixMillis,
    /// Until when it can be used; 0 once it was.
    pub expires: UnixMillis,
}

/// A row's MAC is not the one of its contents.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the database row of key {key_id} was changed by somebody else: its MAC is wrong")]
pub struct RowMacError {
    /// The key.
    pub key_id: KeyId,
}

/// The key that authenticates rows; derived by the HSM at unseal and kept in locked memory.
#[derive(Debug)]
pub struct RowMac {
    suite: Suite,
    key: LockedBytes,
}

/// Fields in bytes: each with its length, so that no two rows or requests have the same bytes.
pub(super) fn canonical(fields: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for field in fields {
        out.extend_from_slice(&(field.len() as u32).to_be_bytes());
        out.extend_from_slice(field);
    }
    out
}

/// What an idempotency token stands for: the digest of what its request asks for.
pub fn request_digest(suite: Suite, asked: &[&[u8]]) -> Digest32 {
    suite.hash(&[&canonical(asked)])
}

fn date(date: Option<UnixMillis>) -> Vec<u8> {
    date.map(|time| time.0.to_be_bytes().to_vec()).unwrap_or_default()
}

/// State, state before, end of the window or time of the destruction, when it was asked for and by whom.
fn standing_fields(standing: &Standing, request: Option<&DestructionRequest>) -> [Vec<u8>; 5] {
    let destruction = standing.destruction;
    [
        standing.state.name().into(),
        destruction.map(|one| one.before.name().into()).unwrap_or_default(),
        date(destruction.map(|one| one.time)),
        date(request.map(|one| one.time)),
        request.map(|one| one.by.to_uri().into()).unwrap_or_default(),
    ]
}

/// What kind of material it is, and the bytes that say where or what it is.
fn material_fields(material: &Material) -> (&'static [u8], Vec<u8>) {
    match material {
        Material::Resident(object) => (b"resident", object.0.to_vec()),
        Material::Wrapped(wrapped) => (b"wrapped", wrapped.clone()),
        Material::Staged { object, wrapped } => (b"staged", [&object.0, wrapped.as_slice()].concat()),
        Material::Erased => (b"erased", Vec::new()),
    }
}

fn key_row(row: &KeyRow) -> Vec<u8> {
    let [state, before, destroys, asked, by] =
        standing_fields(&row.standing, row.destruction_request.as_ref());
    canonical(&[
        b"kms/v1/row/key",
        row.tenant.as_str().as_bytes(),
        &row.key_id.0,
        row.name.as_str().as_bytes(),
        row.spec.name().as_bytes(),
        row.usage.name().as_bytes(),
        row.protection.name().as_bytes(),
        &state,
        &before,
        &destroys,
        &asked,
        &by,
        &row.current_version.number().to_be_bytes(),
        row.creator.to_uri().as_bytes(),
        &row.created.0.to_be_bytes(),
        &date(row.period.activates),
        &date(row.period.expires),
        &codec::to_bytes(&row.attributes),
        &row.revision.to_be_bytes(),
    ])
}

impl RowMac {
    /// What the HSM's row-MAC key is asked to authenticate: its answer is the derived key.
    pub fn derivation_input(cluster_id: &[u8; 16]) -> Vec<u8> {
        [b"kms/v1/row-mac\0".as_slice(), cluster_id].concat()
    }

    /// Takes the derived key.
    pub fn new(suite: Suite, key: LockedBytes) -> Self {
        Self { suite, key }
    }

    /// MAC of a key row.
    pub fn of_key(&self, row: &KeyRow) -> Digest32 {
        self.mac(&key_row(row))
    }

    /// MAC of a version row.
    pub fn of_version(&self, row: &VersionRow) -> Digest32 {
        let (kind, material) = material_fields(&row.material);
        let [state, before, destroys, asked, by] =
            standing_fields(&row.standing, row.destruction_request.as_ref());
        self.mac(&canonical(&[
            b"kms/v1/row/version",
            row.tenant.as_str().as_bytes(),
            &row.key_id.0,
            &row.version.number().to_be_bytes(),
            row.origin.name().as_bytes(),
            &state,
            &before,
            &destroys,
            &asked,
            &by,
            &row.created.0.to_be_bytes(),
            kind,
            &material,
            row.check_value.as_ref().map_or(&[], |value| &value.0),
            &row.public_key.as_ref().map(PairPublicKey::to_spki).unwrap_or_default(),
        ]))
    }

    /// MAC of an alias row.
    pub fn of_alias(&self, row: &AliasRow) -> Digest32 {
        self.mac(&canonical(&[
            b"kms/v1/row/alias",
            row.tenant.as_str().as_bytes(),
            row.name.as_str().as_bytes(),
            &row.key_id.0,
            &row.changed.0.to_be_bytes(),
        ]))
    }

    /// MAC of an import row.
    pub fn of_import(&self, row: &ImportRow) -> Digest32 {
        let (kind, material) = material_fields(&row.material);
        self.mac(&canonical(&[
            b"kms/v1/row/import",
            row.tenant.as_str().as_bytes(),
            &row.import_id.0,
            row.spec.name().as_bytes(),
            kind,
            &material,
            &row.public_key.as_ref().map(PairPublicKey::to_spki).unwrap_or_default(),
            row.creator.to_uri().as_bytes(),
            &row.created.0.to_be_bytes(),
            &row.expires.0.to_be_bytes(),
        ]))
    }

    /// MAC of a count row.
    pub fn of_count(&self, row: &CountRow) -> Digest32 {
        self.mac(&canonical(&[
            b"kms/v1/row/encryptions",
            row.tenant.as_str().as_bytes(),
            &row.key_id.0,
            &row.version.number().to_be_bytes(),
            &row.taken.to_be_bytes(),
        ]))
    }

    pub(super) fn mac(&self, bytes: &[u8]) -> Digest32 {
        self.suite.hmac(self.key.expose(), &[bytes])
    }

    /// Compares a stored MAC with the one that the row must have.
    ///
    /// # Errors
    /// [`RowMacError`] names the key.
    pub fn check(&self, key_id: KeyId, expected: &Digest32, stored: &[u8]) -> Result<(), RowMacError> {
        if bool::from(expected.0.ct_eq(stored)) { Ok(()) } else { Err(RowMacError { key_id }) }
    }
}

/// Values that were computed without this crate, in docs/formats/database.md. A failure means that stored rows are
/// refused, or that a repeated request is taken for another one.
#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use kms_core::attributes::ShortText;
    use kms_core::key::{Destruction, KeyState};
    use kms_core::suite::DIGEST_LEN;

    const DOCUMENT: &str = include_str!("../../../docs/formats/database.md");
    const KEY_ID: KeyId = KeyId([7; 16]);
    /// RFC 8032, section 7.1, test 1.
    const ED25519_PUBLIC_KEY: [u8; 32] = [
        0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a, 0x0e,
        0xe1, 0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a,
    ];
    const CREATED: UnixMillis = UnixMillis(1_795_399_200_000);

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn default_tenant() -> TenantName {
        TenantName::parse("default").expect("valid")
    }

    /// A row of a table of the document has these values of both suites.
    #[track_caller]
    pub(in crate::store) fn is_documented(what: &str, of: impl Fn(Suite) -> Digest32) {
        let row = format!("| {what} | `{}` | `{}` |", of(Suite::Intl), of(Suite::Sm));
        assert!(DOCUMENT.contains(&row), "docs/formats/database.md must hold {row}");
    }

    fn derived_key(suite: Suite) -> Digest32 {
        let of_the_hsm: Vec<u8> = (0x40..0x60).collect();
        suite.hmac(&of_the_hsm, &[&RowMac::derivation_input(&[0x0e; 16])])
    }

    pub(in crate::store) fn row_mac(suite: Suite) -> RowMac {
        let mut key = LockedBytes::zeroed(DIGEST_LEN);
        key.expose_mut().copy_from_slice(&derived_key(suite).0);
        RowMac::new(suite, key)
    }

    /// The documented wrapped key of a suite's cipher.
    fn wrapped(suite: Suite) -> Vec<u8> {
        let section = DOCUMENT.split("**Wrapped keys**").nth(1).expect("the document has a section for them");
        let both: Vec<&str> = section.lines().filter(|line| line.starts_with("0100000003")).collect();
        let [aes, sm4, ..] = both[..] else { panic!("the document has two wrapped keys") };
        let text = if suite == Suite::Intl { aes } else { sm4 };
        let byte = |place| u8::from_str_radix(&text[place..place + 2], 16).expect("hexadecimal");
        (0..text.len()).step_by(2).map(byte).collect()
    }

    #[test]
    fn the_documented_row_macs_are_ours() {
        let version = KeyVersion::new(2).expect("from 1");
        let time = UnixMillis(1_797_991_200_000);
        let destruction = Some(Destruction { before: KeyState::Active, time });
        let pending = Standing { state: KeyState::DestroyPending, destruction };
        let creator = Principal::parse("kms://default/administrator/admin").expect("valid");
        let request = Some(DestructionRequest { by: creator.clone(), time: CREATED });
        let key = KeyRow {
            tenant: default_tenant(),
            key_id: KEY_ID,
            name: KeyName::parse("payroll").expect("valid"),
            spec: KeySpec::Sm4,
            usage: KeyUsage::EncryptDecrypt,
            protection: Protection::HsmResident,
            standing: pending,
            destruction_request: request.clone(),
            current_version: version,
            creator,
            created: CREATED,
            period: Cryptoperiod { activates: None, expires: Some(UnixMillis(1_803_175_200_000)) },
            attributes: KeyAttributes {
                owner: ShortText::parse("payments").expect("valid"),
                retain_until: Some(CREATED),
                ..KeyAttributes::default()
            },
            revision: 5,
        };
        let public_key = PairPublicKey::from_ed25519(&ED25519_PUBLIC_KEY).expect("on its curve");
        let of_material = |material| VersionRow {
            tenant: default_tenant(),
            key_id: KEY_ID,
            version,
            origin: KeyOrigin::Generated,
            standing: KeyState::Active.into(),
            destruction_request: None,
            created: CREATED,
            material,
            check_value: Some(CheckValue([0xc1, 0xc2, 0xc3])),
            public_key: Some(public_key.clone()),
        };
        let input = hex(&key_row(&key));
        assert!(DOCUMENT.contains(&input), "docs/formats/database.md must hold {input}");
        is_documented("derived key", derived_key);
        is_documented("key", |suite| row_mac(suite).of_key(&key));
        let alias = AliasRow {
            tenant: default_tenant(),
            name: KeyName::parse("wages").expect("valid"),
            key_id: KEY_ID,
            changed: CREATED,
        };
        is_documented("alias", |suite| row_mac(suite).of_alias(&alias));
        let count = CountRow { tenant: default_tenant(), key_id: KEY_ID, version, taken: 1 << 16 };
        is_documented("encryptions", |suite| row_mac(suite).of_count(&count));
        let resident = of_material(Material::Resident(HsmObjectId([9; 16])));
        is_documented("version, resident", |suite| row_mac(suite).of_version(&resident));
        let erased = VersionRow {
            standing: Standing { state: KeyState::Destroyed, destruction },
            destruction_request: request,
            ..of_material(Material::Erased)
        };
        is_documented("version, destroyed", |suite| row_mac(suite).of_version(&erased));
        is_documented("version, staged", |suite| {
            let material = Material::Staged { object: HsmObjectId([9; 16]), wrapped: wrapped(suite) };
            let creating = KeyState::Creating.into();
            let staged =
                VersionRow { standing: creating, origin: KeyOrigin::Imported, ..of_material(material) };
            row_mac(suite).of_version(&staged)
        });
        let import = ImportRow {
            tenant: default_tenant(),
            import_id: KEY_ID,
            spec: KeySpec::Sm2,
            material: Material::Resident(HsmObjectId([9; 16])),
            public_key: None,
            creator: Principal::parse("kms://default/administrator/admin").expect("valid"),
            created: CREATED,
            expires: time,
        };
        is_documented("import", |suite| row_mac(suite).of_import(&import));
        is_documented("version, wrapped", |suite| {
            row_mac(suite).of_version(&of_material(Material::Wrapped(wrapped(suite))))
        });
    }

    #[test]
    fn the_documented_request_digests_are_ours() {
        for (what, asked) in [
            ("create `payroll`, `sm4`", vec!["payroll", "sm4", "default", "none", "none", "default"]),
            (
                "create `payroll`, `sm4`, `resident`, expires",
                vec!["payroll", "sm4", "resident", "none", "1803175200000", "ENCRYPT_DECRYPT"],
            ),
        ] {
            let attributes = codec::to_bytes(&KeyAttributes::default());
            let mut asked: Vec<&[u8]> = asked.into_iter().map(str::as_bytes).collect();
            asked.push(&attributes);
            is_documented(what, |suite| request_digest(suite, &asked));
        }
        is_documented("rotate the key", |suite| request_digest(suite, &[KEY_ID.to_string().as_bytes()]));
    }
}
