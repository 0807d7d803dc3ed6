//! Deriving keys: HKDF (RFC 5869), and the KDF of ANSI X9.63 that follows an ECDH agreement.

use hkdf::Hkdf;
use zeroize::Zeroizing;

use crate::mechanism::Hash;
use crate::mechanism::cipher::Bytes;
use crate::mechanism::digest::{Digester, with_hash};
use crate::refusal::Refusal;

/// RFC 5869 expands to no more than this many hashes; X9.63 is given the same limit.
const HASHES_MAX: usize = 255;

/// The extract step: a pseudorandom key as long as the hash.
pub fn hkdf_extract(hash: Hash, salt: Option<&[u8]>, base: &[u8]) -> Bytes {
    with_hash!(hash, D => Zeroizing::new(Hkdf::<D>::extract(salt, base).0.to_vec()))
}

/// The expand step.
pub fn hkdf_expand(hash: Hash, pseudorandom_key: &[u8], info: &[u8], len: usize) -> Result<Bytes, Refusal> {
    let mut derived = Zeroizing::new(vec![0; len]);
    with_hash!(hash, D => {
        let hkdf = Hkdf::<D>::from_prk(pseudorandom_key).map_err(|_| Refusal::KeySizeRange)?;
        hkdf.expand(info, &mut derived).map_err(|_| Refusal::KeySizeRange)?;
    });
    Ok(derived)
}

/// Hashes of the agreed value, a counter from 1 on, and the shared data, one after the other.
pub fn x963(hash: Hash, agreed: &[u8], shared_data: &[u8], len: usize) -> Result<Bytes, Refusal> {
    if len > HASHES_MAX * hash.len() {
        return Err(Refusal::KeySizeRange);
    }
    let mut derived = Zeroizing::new(Vec::with_capacity(len + hash.len()));
    for counter in 1_u32.. {
        if derived.len() >= len {
            break;
        }
        let mut digester = Digester::new(hash);
        digester.update(agreed);
        digester.update(&counter.to_be_bytes());
        digester.update(shared_data);
        derived.extend_from_slice(&Zeroizing::new(digester.finish()));
    }
    derived.truncate(len);
    Ok(derived)
}
