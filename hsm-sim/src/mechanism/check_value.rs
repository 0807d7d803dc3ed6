//! `CKA_CHECK_VALUE`: three bytes by which two people can see that they hold the same key.

use aes::cipher::{Block, BlockCipherEncrypt, BlockSizeUser, KeyInit};
use aes::{Aes128, Aes192, Aes256};
use sm4::Sm4;

use crate::object::KeyKind;

/// The first three bytes of a block of zeros under the key. Only block cipher keys have one here:
/// the standard wants SHA-1 for generic secrets, which is not worth having for this.
pub fn check_value(kind: KeyKind, key: &[u8]) -> Option<Vec<u8>> {
    match (kind, key.len()) {
        (KeyKind::Aes, 16) => encrypt_zeros::<Aes128>(key),
        (KeyKind::Aes, 24) => encrypt_zeros::<Aes192>(key),
        (KeyKind::Aes, 32) => encrypt_zeros::<Aes256>(key),
        (KeyKind::Sm4, 16) => encrypt_zeros::<Sm4>(key),
        _ => None,
    }
}

fn encrypt_zeros<C: KeyInit + BlockCipherEncrypt + BlockSizeUser>(key: &[u8]) -> Option<Vec<u8>> {
    let mut block = Block::<C>::default();
    C::new_from_slice(key).ok()?.encrypt_block(&mut block);
    Some(block[..3].to_vec())
}
