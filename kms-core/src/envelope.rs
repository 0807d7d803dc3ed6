//! Ciphertexts: the header, what is bound to them, and the per-message subkeys (docs/formats/ciphertext.md).

use crate::context::EncryptionContext;
use crate::id::{KeyId, KeyVersion, TenantName};
use crate::pair::PairAlgorithm;
use crate::secret::{Secret, SecretBytes};
use crate::spec::KeySpec;
use crate::suite::{AeadAlgorithm, NONCE_LEN, TAG_LEN, aead_open, aead_seal};
use alloc::vec::Vec;
use rand_core::CryptoRng;
use subtle::ConstantTimeEq;

/// The first bytes of every ciphertext.
pub const MAGIC: [u8; 4] = *b"KMSC";
/// The only format so far.
pub const FORMAT: u8 = 1;
/// Length of the salt of a message under a wrapped key, in bytes.
pub const SALT_LEN: usize = 16;
/// Length of the key commitment in a message under a wrapped key, in bytes.
pub const COMMITMENT_LEN: usize = 32;
/// Longest plaintext of `Encrypt`, in bytes.
pub const PLAINTEXT_LEN_MAX: usize = 64 * 1024;
/// Longest ciphertext that the service accepts, in bytes.
pub const CIPHERTEXT_LEN_MAX: usize = FIXED_LEN + SALT_LEN + COMMITMENT_LEN + PLAINTEXT_LEN_MAX + TAG_LEN;

const FIXED_LEN: usize = 4 + 1 + 1 + 2 + 16 + 4 + 1;

/// What a ciphertext is for. A ciphertext of one purpose does not open as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The caller's data (`Encrypt`).
    Data,
    /// A data key (`GenerateDataKey`).
    DataKey,
    /// The private half of a key pair (`GenerateDataKeyPair`).
    DataKeyPair,
    /// A data key that the service keeps (docs/data-keys.md). No caller's ciphertext has this purpose.
    RegisteredDataKey,
}

impl Purpose {
    pub(crate) const fn number(self) -> u8 {
        match self {
            Purpose::Data => 1,
            Purpose::DataKey => 2,
            Purpose::DataKeyPair => 3,
            Purpose::RegisteredDataKey => 4,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        [Purpose::Data, Purpose::DataKey, Purpose::DataKeyPair, Purpose::RegisteredDataKey]
            .into_iter()
            .find(|purpose| purpose.number() == number)
    }
}

/// The random value in a header; its length says how the body was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// 16 bytes: a wrapped key; the body's key is derived with this salt.
    Salt([u8; SALT_LEN]),
    /// 12 bytes: a resident key; the HSM ran the AEAD with this nonce.
    Nonce([u8; NONCE_LEN]),
}

impl Freshness {
    fn bytes(&self) -> &[u8] {
        match self {
            Freshness::Salt(salt) => salt,
            Freshness::Nonce(nonce) => nonce,
        }
    }
}

/// Everything in front of the body. All of it is authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the ciphertext is for.
    pub purpose: Purpose,
    /// What the key runs.
    pub algorithm: AeadAlgorithm,
    /// The key.
    pub key_id: KeyId,
    /// The key's version.
    pub version: KeyVersion,
    /// Salt or nonce.
    pub freshness: Freshness,
}

/// A ciphertext does not open. One reason for every cause, so that nothing is learned from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ciphertext is damaged, incomplete, or was made with another key, purpose or context")]
pub struct CiphertextInvalid;

impl Header {
    /// The header's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = self.fixed_bytes();
        out.extend_from_slice(self.freshness.bytes());
        out
    }

    /// The header without salt or nonce.
    fn fixed_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FIXED_LEN + SALT_LEN);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[FORMAT, self.purpose.number()]);
        out.extend_from_slice(&self.algorithm.number().to_be_bytes());
        out.extend_from_slice(&self.key_id.0);
        out.extend_from_slice(&self.version.number().to_be_bytes());
        out.push(self.freshness.bytes().len() as u8);
        out
    }

    /// What the AEAD authenticates beside the body: header, tenant and context.
    ///
    /// A nonce is left out: the HSM may make it while it encrypts, and the AEAD authenticates it anyway.
    pub fn associated_data(&self, tenant: &TenantName, context: &EncryptionContext) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(b"kms/v1/ciphertext\0");
        out.extend_from_slice(&match self.freshness {
            Freshness::Salt(_) => self.to_bytes(),
            Freshness::Nonce(_) => self.fixed_bytes(),
        });
        out.extend_from_slice(&(tenant.as_str().len() as u16).to_be_bytes());
        out.extend_from_slice(tenant.as_str().as_bytes());
        out.extend_from_slice(&context.to_canonical());
        out
    }
}

/// A ciphertext taken apart, before anything is known about whether it opens.
#[derive(Debug, PartialEq, Eq)]
pub struct Ciphertext<'a> {
    /// The header.
    pub header: Header,
    /// Key commitment (wrapped keys only), encrypted bytes and tag.
    pub body: &'a [u8],
}

/// Takes a ciphertext apart.
///
/// # Errors
/// [`CiphertextInvalid`] for every input that no version of this service can have made.
pub fn open(bytes: &[u8]) -> Result<Ciphertext<'_>, CiphertextInvalid> {
    let (fixed, rest) = bytes.split_at_checked(FIXED_LEN).ok_or(CiphertextInvalid)?;
    if fixed[..4] != MAGIC || fixed[4] != FORMAT {
        return Err(CiphertextInvalid);
    }
    let purpose = Purpose::from_number(fixed[5]).ok_or(CiphertextInvalid)?;
    let number = u16::from_be_bytes([fixed[6], fixed[7]]);
    let algorithm = AeadAlgorithm::from_number(number).ok_or(CiphertextInvalid)?;
    let key_id = KeyId(fixed[8..24].try_into().map_err(|_| CiphertextInvalid)?);
    let version = u32::from_be_bytes(fixed[24..28].try_into().map_err(|_| CiphertextInvalid)?);
    let version = KeyVersion::new(version).ok_or(CiphertextInvalid)?;
    let (freshness, body) = rest.split_at_checked(usize::from(fixed[28])).ok_or(CiphertextInvalid)?;
    let (freshness, body_len_min) = match freshness.len() {
        SALT_LEN => {
            (Freshness::Salt(freshness.try_into().map_err(|_| CiphertextInvalid)?), COMMITMENT_LEN + TAG_LEN)
        }
        NONCE_LEN => (Freshness::Nonce(freshness.try_into().map_err(|_| CiphertextInvalid)?), TAG_LEN),
        _ => return Err(CiphertextInvalid),
    };
    if body.len() < body_len_min || bytes.len() > CIPHERTEXT_LEN_MAX {
        return Err(CiphertextInvalid);
    }
    Ok(Ciphertext { header: Header { purpose, algorithm, key_id, version, freshness }, body })
}

/// Header and body in one.
pub fn join(header: &Header, body: &[u8]) -> Vec<u8> {
    let mut out = header.to_bytes();
    out.extend_from_slice(body);
    out
}

/// What one message under a wrapped key is encrypted with.
struct Subkey {
    // AEAD key (up to 32 bytes), commitment (32), nonce (12), in one box so that all of it is wiped.
    material: SecretBytes<{ 32 + COMMITMENT_LEN + NONCE_LEN }>,
    key_len: usize,
}

impl Subkey {
    /// HKDF(key version, salt, header). The hash is SM3 for SM4 keys and SHA-256 for AES keys.
    fn derive(key_material: &[u8], salt: &[u8; SALT_LEN], header: &Header) -> Self {
        let suite = header.algorithm.suite();
        let mut material = SecretBytes::zeroed();
        suite.hkdf(key_material, salt, &[b"kms/v1/subkey\0", &header.to_bytes()], material.expose_mut());
        Self { material, key_len: header.algorithm.key_len() }
    }

    fn key(&self) -> &[u8] {
        &self.material.expose()[..self.key_len]
    }

    fn commitment(&self) -> &[u8] {
        &self.material.expose()[32..32 + COMMITMENT_LEN]
    }

    fn nonce(&self) -> [u8; NONCE_LEN] {
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&self.material.expose()[32 + COMMITMENT_LEN..]);
        nonce
    }
}

/// Whose message it is and what it is bound to.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    /// The tenant whose key it is.
    pub tenant: &'a TenantName,
    /// The caller's context.
    pub context: &'a EncryptionContext,
}

/// Encrypts one message under a wrapped key's material and returns the whole ciphertext.
///
/// Every message has its own key, so random nonces set no limit to the number of messages.
pub fn seal_wrapped(
    key_material: &[u8],
    purpose: Purpose,
    algorithm: AeadAlgorithm,
    key: (KeyId, KeyVersion),
    binding: Binding<'_>,
    plaintext: &[u8],
    rng: &mut impl CryptoRng,
) -> Vec<u8> {
    let mut salt = [0; SALT_LEN];
    rng.fill_bytes(&mut salt);
    let header =
        Header { purpose, algorithm, key_id: key.0, version: key.1, freshness: Freshness::Salt(salt) };
    let subkey = Subkey::derive(key_material, &salt, &header);
    let aad = header.associated_data(binding.tenant, binding.context);
    let sealed = aead_seal(algorithm, subkey.key(), &subkey.nonce(), &aad, plaintext)
        .expect("the subkey has the length of its algorithm and messages are far below the mode's limit");
    let mut out = header.to_bytes();
    out.reserve_exact(COMMITMENT_LEN + sealed.len());
    out.extend_from_slice(subkey.commitment());
    out.extend_from_slice(&sealed);
    out
}

/// Opens what [`seal_wrapped`] made.
///
/// # Errors
/// [`CiphertextInvalid`], the same for every cause.
pub fn open_wrapped(
    key_material: &[u8],
    ciphertext: &Ciphertext<'_>,
    binding: Binding<'_>,
) -> Result<Secret, CiphertextInvalid> {
    let Freshness::Salt(salt) = ciphertext.header.freshness else {
        return Err(CiphertextInvalid);
    };
    let subkey = Subkey::derive(key_material, &salt, &ciphertext.header);
    let (commitment, sealed) = ciphertext.body.split_at_checked(COMMITMENT_LEN).ok_or(CiphertextInvalid)?;
    if !bool::from(commitment.ct_eq(subkey.commitment())) {
        return Err(CiphertextInvalid);
    }
    let aad = ciphertext.header.associated_data(binding.tenant, binding.context);
    aead_open(ciphertext.header.algorithm, subkey.key(), &subkey.nonce(), &aad, sealed)
        .map_err(|_| CiphertextInvalid)
}

/// A data key as it stands inside a `DataKey` ciphertext: algorithm number, then the key.
pub fn data_key_plaintext(algorithm: AeadAlgorithm, key: &[u8]) -> Secret {
    let mut out = Vec::with_capacity(2 + key.len());
    out.extend_from_slice(&algorithm.number().to_be_bytes());
    out.extend_from_slice(key);
    Secret::new(out)
}

/// Reads what [`data_key_plaintext`] made.
///
/// # Errors
/// [`CiphertextInvalid`] when length and algorithm disagree.
pub fn open_data_key(plaintext: &Secret) -> Result<(AeadAlgorithm, Secret), CiphertextInvalid> {
    let (number, key) = plaintext.expose().split_at_checked(2).ok_or(CiphertextInvalid)?;
    let algorithm =
        AeadAlgorithm::from_number(u16::from_be_bytes([number[0], number[1]])).ok_or(CiphertextInvalid)?;
    if key.len() != algorithm.key_len() {
        return Err(CiphertextInvalid);
    }
    Ok((algorithm, Secret::new(key.to_vec())))
}

/// The private half of a pair as it stands inside a `DataKeyPair` ciphertext: number of the pair, then PKCS#8.
pub fn data_key_pair_plaintext(algorithm: PairAlgorithm, pkcs8: &[u8]) -> Secret {
    let mut out = Vec::with_capacity(2 + pkcs8.len());
    out.extend_from_slice(&algorithm.number().to_be_bytes());
    out.extend_from_slice(pkcs8);
    Secret::new(out)
}

/// Reads what [`data_key_pair_plaintext`] made. Whether the key is one of that kind is not looked at.
///
/// # Errors
/// [`CiphertextInvalid`] when there is no such kind of pair.
pub fn open_data_key_pair(plaintext: &Secret) -> Result<(PairAlgorithm, Secret), CiphertextInvalid> {
    let (number, pkcs8) = plaintext.expose().split_at_checked(2).ok_or(CiphertextInvalid)?;
    let algorithm =
        PairAlgorithm::from_number(u16::from_be_bytes([number[0], number[1]])).ok_or(CiphertextInvalid)?;
    Ok((algorithm, Secret::new(pkcs8.to_vec())))
}

/// What the seal of a wrapped key in the database is bound to, so that it opens in no other row, version
/// or tenant and under no other master key.
pub fn wrapped_key_associated_data(
    tenant: &TenantName,
    key: (KeyId, KeyVersion),
    spec: KeySpec,
    master_version: KeyVersion,
) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(b"kms/v1/wrapped-key\0");
    out.extend_from_slice(&(tenant.as_str().len() as u16).to_be_bytes());
    out.extend_from_slice(tenant.as_str().as_bytes());
    out.extend_from_slice(&key.0.0);
    out.extend_from_slice(&key.1.number().to_be_bytes());
    out.extend_from_slice(&spec.number().to_be_bytes());
    out.extend_from_slice(&master_version.number().to_be_bytes());
    out
}

/// A key version's material, sealed by a master key: what a database row holds (docs/formats/database.md).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedKey {
    /// The master key's version.
    pub master_version: KeyVersion,
    /// The nonce of the seal.
    pub nonce: [u8; NONCE_LEN],
    /// Encrypted material and tag.
    pub ciphertext_and_tag: Vec<u8>,
}

impl WrappedKey {
    /// Format 1: `u8 1 || u32 master version || nonce (12) || ciphertext || tag`.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(17 + self.ciphertext_and_tag.len());
        out.push(1);
        out.extend_from_slice(&self.master_version.number().to_be_bytes());
        out.extend_from_slice(&self.nonce);
        out.extend_from_slice(&self.ciphertext_and_tag);
        out
    }

    /// Reads what [`WrappedKey::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`CiphertextInvalid`] for anything else.
    pub fn open(bytes: &[u8]) -> Result<Self, CiphertextInvalid> {
        let (fixed, sealed) = bytes.split_at_checked(17).ok_or(CiphertextInvalid)?;
        if fixed[0] != 1 || sealed.len() < TAG_LEN {
            return Err(CiphertextInvalid);
        }
        let version = u32::from_be_bytes([fixed[1], fixed[2], fixed[3], fixed[4]]);
        Ok(Self {
            master_version: KeyVersion::new(version).ok_or(CiphertextInvalid)?,
            nonce: fixed[5..].try_into().map_err(|_| CiphertextInvalid)?,
            ciphertext_and_tag: sealed.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quorum::testing::TestRng;
    use alloc::string::ToString;

    fn tenant(name: &str) -> TenantName {
        TenantName::parse(name).expect("valid")
    }

    fn context(value: &str) -> EncryptionContext {
        EncryptionContext::new([("file".to_string(), value.to_string())]).expect("valid")
    }

    const KEY: (KeyId, KeyVersion) = (KeyId([7; 16]), KeyVersion::FIRST);

    #[test]
    fn no_changed_byte_context_or_tenant_opens() {
        for algorithm in AeadAlgorithm::ALL {
            let material = alloc::vec![9; algorithm.key_len()];
            let (tenant_a, context_a) = (tenant("a"), context("x"));
            let binding = Binding { tenant: &tenant_a, context: &context_a };
            let bytes = seal_wrapped(
                &material,
                Purpose::Data,
                algorithm,
                KEY,
                binding,
                b"hello",
                &mut TestRng::new(1),
            );
            let opens = |bytes: &[u8], binding| -> bool {
                open(bytes).and_then(|parsed| open_wrapped(&material, &parsed, binding)).is_ok()
            };
            assert!(opens(&bytes, binding));
            for bit in 0..bytes.len() * 8 {
                let mut changed = bytes.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                assert!(!opens(&changed, binding), "bit {bit}");
            }
            for len in 0..bytes.len() {
                assert!(!opens(&bytes[..len], binding), "first {len} bytes");
            }
            let mut longer = bytes.clone();
            longer.push(0);
            assert!(!opens(&longer, binding));
            let (tenant_b, context_b) = (tenant("b"), context("y"));
            assert!(!opens(&bytes, Binding { tenant: &tenant_b, context: &context_a }));
            assert!(!opens(&bytes, Binding { tenant: &tenant_a, context: &context_b }));
        }
    }

    #[test]
    fn a_wrapped_key_is_read_back_and_a_later_format_is_refused() {
        let wrapped = WrappedKey {
            master_version: KeyVersion::FIRST,
            nonce: [5; NONCE_LEN],
            ciphertext_and_tag: alloc::vec![6; 48],
        };
        let mut bytes = wrapped.to_bytes();
        assert_eq!(WrappedKey::open(&bytes).as_ref(), Ok(&wrapped));
        assert!(WrappedKey::open(&bytes[..32]).is_err());
        bytes[0] = 2;
        assert!(WrappedKey::open(&bytes).is_err());
    }

    #[test]
    fn a_data_key_of_the_wrong_length_is_refused() {
        assert!(open_data_key(&data_key_plaintext(AeadAlgorithm::Sm4Gcm, &[1; 16])).is_ok());
        assert!(open_data_key(&data_key_plaintext(AeadAlgorithm::Sm4Gcm, &[1; 32])).is_err());
        assert!(open_data_key(&Secret::new(alloc::vec![0])).is_err());
    }

    /// Golden bytes, self-made, in docs/formats/ciphertext.md. A failure means that stored ciphertexts no
    /// longer open.
    #[test]
    fn the_documented_ciphertexts_open() {
        let document = include_str!("../../docs/formats/ciphertext.md");
        for (algorithm, seed) in AeadAlgorithm::ALL.into_iter().zip(41..) {
            let material: Vec<u8> = (0..algorithm.key_len() as u8).collect();
            let (tenant, context) = (tenant("default"), context("payroll.csv"));
            let binding = Binding { tenant: &tenant, context: &context };
            let bytes = seal_wrapped(
                &material,
                Purpose::Data,
                algorithm,
                KEY,
                binding,
                b"attack at dawn",
                &mut TestRng::new(seed),
            );
            let golden = base16ct::lower::encode_string(&bytes);
            assert!(document.contains(&golden), "docs/formats/ciphertext.md must hold {golden}");
        }
    }

    /// Bytes that were computed without this crate, in docs/formats/ciphertext.md. A failure means that stored private keys no
    /// longer open.
    #[test]
    fn the_documented_data_key_pair_opens() {
        let document = include_str!("../../docs/formats/ciphertext.md");
        let is_of_pair = |line: &&str| line.starts_with("4b4d53430103");
        let line = document.lines().find(is_of_pair).expect("a ciphertext of purpose 3");
        let bytes = base16ct::lower::decode_vec(line).expect("hexadecimal");
        let ciphertext = open(&bytes).expect("its own form");
        assert_eq!(ciphertext.header.purpose, Purpose::DataKeyPair);
        let material: Vec<u8> = (0..32).collect();
        let (tenant, context) = (tenant("default"), context("payroll.csv"));
        let binding = Binding { tenant: &tenant, context: &context };
        let plaintext = open_wrapped(&material, &ciphertext, binding).expect("opens");
        let (algorithm, pkcs8) = open_data_key_pair(&plaintext).expect("a pair");
        assert_eq!(algorithm, PairAlgorithm::Ed25519);
        assert!(crate::pair::check_private_key(algorithm, pkcs8.expose()).is_ok());
        assert_eq!(data_key_pair_plaintext(algorithm, pkcs8.expose()).expose(), plaintext.expose());
        for no_pair in [&[0][..], &[0, 1, 7], &[0, 35, 7]] {
            assert!(open_data_key_pair(&Secret::new(no_pair.to_vec())).is_err(), "{no_pair:?}");
        }
    }

    /// What an HSM makes of a plaintext: the first bytes of the hash are sealed behind it.
    fn sealed_by_hsm(
        algorithm: AeadAlgorithm,
        key: &[u8],
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        plaintext: &[u8],
    ) -> Vec<u8> {
        let check = &algorithm.suite().hash(&[plaintext]).0[..8];
        aead_seal(algorithm, key, nonce, aad, &[plaintext, check].concat()).expect("the key's length fits")
    }

    /// Bytes that were computed without this crate, in docs/formats/ciphertext.md. A failure means that stored
    /// ciphertexts no longer open.
    #[test]
    fn the_documented_ciphertexts_under_resident_keys_are_ours() {
        let document = include_str!("../../docs/formats/ciphertext.md");
        for algorithm in AeadAlgorithm::ALL {
            let key: Vec<u8> = (0..algorithm.key_len() as u8).collect();
            let nonce = [0x0b; NONCE_LEN];
            let freshness = Freshness::Nonce(nonce);
            let header =
                Header { purpose: Purpose::Data, algorithm, key_id: KEY.0, version: KEY.1, freshness };
            let aad = header.associated_data(&tenant("default"), &context("payroll.csv"));
            let bytes = join(&header, &sealed_by_hsm(algorithm, &key, &nonce, &aad, b"attack at dawn"));
            let golden = base16ct::lower::encode_string(&bytes);
            assert!(document.contains(&golden), "docs/formats/ciphertext.md must hold {golden}");
            assert_eq!(open(&bytes).expect("it is read back").header, header);
        }
    }

    /// Bytes that were computed without this crate, in docs/formats/database.md. A failure means that stored keys
    /// no longer open.
    #[test]
    fn the_documented_wrapped_keys_are_ours() {
        let document = include_str!("../../docs/formats/database.md");
        let version = |number| KeyVersion::new(number).expect("from 1");
        let kinds = AeadAlgorithm::ALL.into_iter().map(|algorithm| (KeySpec::from(algorithm), algorithm));
        let macs =
            [(KeySpec::HmacSha512, AeadAlgorithm::Aes256Gcm), (KeySpec::HmacSm3, AeadAlgorithm::Sm4Gcm)];
        for (spec, algorithm) in kinds.chain(macs) {
            let material: Vec<u8> = (0..spec.key_len().expect("symmetric") as u8).collect();
            let master: Vec<u8> = (0x80..0x80 + algorithm.key_len() as u8).collect();
            let (nonce, master_version) = ([0x0c; NONCE_LEN], version(3));
            let key = (KEY.0, version(2));
            let aad = wrapped_key_associated_data(&tenant("default"), key, spec, master_version);
            let ciphertext_and_tag = sealed_by_hsm(algorithm, &master, &nonce, &aad, &material);
            let wrapped = WrappedKey { master_version, nonce, ciphertext_and_tag };
            let golden = base16ct::lower::encode_string(&wrapped.to_bytes());
            assert!(document.contains(&golden), "docs/formats/database.md must hold {golden}");
            assert_eq!(WrappedKey::open(&wrapped.to_bytes()), Ok(wrapped));
        }
    }
}
