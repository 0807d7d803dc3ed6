//! The encryption context: pairs that the caller must give again, byte for byte, to decrypt.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

/// Most pairs in one context.
pub const PAIR_COUNT_MAX: usize = 16;
/// Most bytes in all keys and values together.
pub const CONTEXT_LEN_MAX: usize = 8 * 1024;

/// Checked pairs, in the order of the keys' bytes. Not secret: it is in the audit log as a digest only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncryptionContext(BTreeMap<String, String>);

/// Why pairs are not an encryption context.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    /// More than [`PAIR_COUNT_MAX`] pairs.
    #[error("has {count} pairs; at most 16 are allowed")]
    TooManyPairs {
        /// Pairs given.
        count: usize,
    },
    /// More than [`CONTEXT_LEN_MAX`] bytes.
    #[error("has {len} bytes; at most 8192 are allowed")]
    TooLong {
        /// Bytes given, in all keys and values.
        len: usize,
    },
    /// A pair without a key.
    #[error("has a pair with an empty key")]
    EmptyKey,
    /// The same key twice.
    #[error("has the key {key:?} twice")]
    Repeated {
        /// The key.
        key: String,
    },
}

impl EncryptionContext {
    /// Checks the pairs; their order does not matter.
    ///
    /// # Errors
    /// [`ContextError`] says which rule is broken.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, ContextError> {
        let mut map = BTreeMap::new();
        let mut len = 0;
        for (count, (key, value)) in pairs.into_iter().enumerate() {
            if count >= PAIR_COUNT_MAX {
                return Err(ContextError::TooManyPairs { count: count + 1 });
            }
            len += key.len() + value.len();
            if len > CONTEXT_LEN_MAX {
                return Err(ContextError::TooLong { len });
            }
            if key.is_empty() {
                return Err(ContextError::EmptyKey);
            }
            if map.insert(key.clone(), value).is_some() {
                return Err(ContextError::Repeated { key });
            }
        }
        Ok(Self(map))
    }

    /// The canonical bytes (docs/formats/ciphertext.md): count, then each key and value with its length.
    pub fn to_canonical(&self) -> Vec<u8> {
        fn push(out: &mut Vec<u8>, text: &str) {
            out.extend_from_slice(&(text.len() as u16).to_be_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        let mut out = Vec::new();
        out.extend_from_slice(&(self.0.len() as u16).to_be_bytes());
        for (key, value) in &self.0 {
            push(&mut out, key);
            push(&mut out, value);
        }
        out
    }

    /// The pairs in the order of the keys' bytes.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn context(pairs: &[(&str, &str)]) -> Result<EncryptionContext, ContextError> {
        EncryptionContext::new(pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())))
    }

    #[test]
    fn limits_are_refused_by_name() {
        assert_eq!(context(&[("", "x")]), Err(ContextError::EmptyKey));
        assert_eq!(context(&[("a", "x"), ("a", "y")]), Err(ContextError::Repeated { key: "a".into() }));
        let long = "x".repeat(CONTEXT_LEN_MAX);
        assert_eq!(context(&[("a", &long)]), Err(ContextError::TooLong { len: CONTEXT_LEN_MAX + 1 }));
        let many: Vec<(String, String)> = (0..17).map(|n| (n.to_string(), String::new())).collect();
        assert_eq!(EncryptionContext::new(many), Err(ContextError::TooManyPairs { count: 17 }));
    }

    #[test]
    fn canonical_bytes_do_not_depend_on_order_and_cannot_be_confused() {
        let one = context(&[("b", "2"), ("a", "1")]).expect("valid");
        let two = context(&[("a", "1"), ("b", "2")]).expect("valid");
        assert_eq!(one.to_canonical(), two.to_canonical());
        assert_eq!(one.to_canonical(), b"\0\x02\0\x01a\0\x011\0\x01b\0\x012");
        let joined = context(&[("a", "1b")]).expect("valid");
        let split = context(&[("a1", "b")]).expect("valid");
        assert_ne!(joined.to_canonical(), split.to_canonical());
    }
}
