//! `CKA_CHECK_VALUE`: three bytes by which two people can see that they hold the same key.

use aes::cipher::{Block, BlockCipherEncrypt, BlockSizeUser, KeyInit};
use sha1::{Digest, Sha1};

use crate::key_kind::KeyKind;
use crate::mechanism::BlockCipher;
use crate::mechanism::cipher::with_block_cipher;
use crate::refusal::Refusal;

const CHECK_VALUE_LEN: usize = 3;

/// The first three bytes of a block of zeros under the key; of the SHA-1 of a generic secret.
pub fn check_value(kind: KeyKind, key: &[u8]) -> Option<Vec<u8>> {
    match kind {
        KeyKind::Aes => of_cipher(BlockCipher::Aes, key).ok(),
        KeyKind::Des3 => of_cipher(BlockCipher::Des3, key).ok(),
        KeyKind::Sm4 => of_cipher(BlockCipher::Sm4, key).ok(),
        KeyKind::GenericSecret | KeyKind::Hmac(_) => Some(Sha1::digest(key)[..CHECK_VALUE_LEN].to_vec()),
        KeyKind::Ec | KeyKind::Edwards | KeyKind::Sm2 | KeyKind::Rsa => None,
    }
}

fn of_cipher(cipher: BlockCipher, key: &[u8]) -> Result<Vec<u8>, Refusal> {
    with_block_cipher!(cipher, key, Cipher => encrypt_zeros::<Cipher>(key))
}

fn encrypt_zeros<C: KeyInit + BlockCipherEncrypt + BlockSizeUser>(key: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut block = Block::<C>::default();
    C::new_from_slice(key).map_err(|_| Refusal::KeySizeRange)?.encrypt_block(&mut block);
    Ok(block[..CHECK_VALUE_LEN].to_vec())
}
