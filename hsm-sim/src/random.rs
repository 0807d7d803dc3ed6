//! Randomness of the token: the operating system's generator.

use crate::refusal::Refusal;

/// Fills `bytes` with randomness, or says that there is none.
pub fn fill(bytes: &mut [u8]) -> Result<(), Refusal> {
    getrandom::fill(bytes).map_err(|_| Refusal::RandomNoRng)
}

/// `N` random bytes, for salts, nonces and names. Not for keys: the array is not wiped.
pub fn bytes<const N: usize>() -> Result<[u8; N], Refusal> {
    let mut bytes = [0; N];
    fill(&mut bytes)?;
    Ok(bytes)
}
