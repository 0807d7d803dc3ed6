//! Wrapped key pairs in software: what they refuse, published answers, and OpenSSL as a second opinion.

mod openssl;
mod published;
mod software;

use kms_core::pair::{
    PairAlgorithm, PairPublicKey, PairUsage, SignatureAlgorithm, SignedInput, Sm2UserId, ToSign,
};
use kms_server::pairs::PrivatePair;
use kms_server::random::system_rng;

fn generate(algorithm: PairAlgorithm, usage: PairUsage) -> PrivatePair {
    PrivatePair::generate(algorithm, usage, &mut system_rng()).expect("a pair")
}

fn to_sign(algorithm: SignatureAlgorithm, key: &PairPublicKey, message: &[u8]) -> ToSign {
    let input = SignedInput::Message(message);
    ToSign::new(algorithm, key, &Sm2UserId::default(), input).expect("the algorithm fits the key")
}

/// Signs, and gives the form of the API.
fn sign(pair: &PrivatePair, algorithm: SignatureAlgorithm, message: &[u8]) -> Vec<u8> {
    let key = pair.public_key();
    let raw = pair.sign(&to_sign(algorithm, key, message), &mut system_rng()).expect("a signature");
    algorithm.signature_to_api(key.algorithm(), &raw).expect("a raw signature")
}

/// Whether a signature in the form of the API verifies.
fn verifies(key: &PairPublicKey, algorithm: SignatureAlgorithm, message: &[u8], signature: &[u8]) -> bool {
    algorithm.signature_from_api(key.algorithm(), signature).is_ok_and(|raw| {
        kms_server::pairs::verify_signature(key, &to_sign(algorithm, key, message), &raw).is_ok()
    })
}
