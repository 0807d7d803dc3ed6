//! The one way in which structures become bytes: deterministic CBOR (RFC 8949, section 4.2.1) with
//! integer keys, and PEM armour (RFC 7468) where people handle the file.
//!
//! [`open`] accepts exactly the bytes that [`to_bytes`] would have written, so there is one encoding of
//! every value and a signature over the bytes is a signature over the value.

use crate::asymmetric::{PublicKey, Signature};
use crate::attributes::{Description, Sensitivity, ShortText};
use crate::id::{
    ClusterName, CustodianName, HsmObjectId, KeyId, KeyName, KeyVersion, LabelName, NodeName, Principal,
    TenantName, UnixMillis,
};
use crate::suite::{AeadAlgorithm, Digest32, Suite};
use alloc::string::String;
use alloc::vec::Vec;
use minicbor::decode::Error as CborError;
use minicbor::encode::Write;
use minicbor::{Decode, Decoder, Encode, Encoder};
use pem_rfc7468::LineEnding;

/// Why bytes are not a value of the expected format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Not CBOR, truncated, or fields of other kinds or values.
    #[error("is damaged or not a {what}: {reason}")]
    Malformed {
        /// What was expected.
        what: &'static str,
        /// What the decoder found.
        reason: String,
    },
    /// Decodes, but is not the canonical encoding, or has bytes after the end.
    #[error("is not the canonical encoding of a {what}")]
    NotCanonical {
        /// What was expected.
        what: &'static str,
    },
    /// The text is not PEM with the expected label.
    #[error("is not a file that begins with -----BEGIN {label}-----")]
    Armour {
        /// The label that was expected.
        label: &'static str,
    },
}

/// A format that [`to_bytes`] writes and [`open`] reads.
pub trait Format: Encode<()> + for<'b> Decode<'b, ()> {
    /// What it is, for messages: "share", "bundle".
    const WHAT: &'static str;
}

/// A format that people handle as a file in PEM armour.
pub trait ArmouredFormat: Format {
    /// The PEM label.
    const LABEL: &'static str;
}

/// The canonical bytes of a value.
pub fn to_bytes<T: Format>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("writing to a Vec cannot fail and every value has an encoding")
}

/// Reads a value and insists on the canonical encoding.
///
/// # Errors
/// [`CodecError::Malformed`] and [`CodecError::NotCanonical`].
pub fn open<T: Format>(bytes: &[u8]) -> Result<T, CodecError> {
    let value: T = minicbor::decode(bytes)
        .map_err(|error| CodecError::Malformed { what: T::WHAT, reason: alloc::format!("{error}") })?;
    if to_bytes(&value) != bytes {
        return Err(CodecError::NotCanonical { what: T::WHAT });
    }
    Ok(value)
}

/// The value as a PEM text.
pub fn to_armour<T: ArmouredFormat>(value: &T) -> String {
    pem_rfc7468::encode_string(T::LABEL, LineEnding::LF, &to_bytes(value))
        .expect("labels are constants without forbidden characters")
}

/// Reads what [`to_armour`] wrote.
///
/// # Errors
/// [`CodecError`]: not armoured, another kind of file, or damaged.
pub fn open_armour<T: ArmouredFormat>(text: &[u8]) -> Result<T, CodecError> {
    let (label, bytes) = pem_rfc7468::decode_vec(text).map_err(|_| CodecError::Armour { label: T::LABEL })?;
    if label != T::LABEL {
        return Err(CodecError::Armour { label: T::LABEL });
    }
    open(&bytes)
}

/// The label of a PEM text, to tell what kind of file it is.
pub fn armour_label(text: &[u8]) -> Option<&str> {
    pem_rfc7468::decode_label(text).ok()
}

macro_rules! as_bytes {
    ($type:ty, $len:expr, $make:expr, $bytes:expr) => {
        impl<C> Encode<C> for $type {
            fn encode<W: Write>(
                &self,
                e: &mut Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                let bytes: fn(&$type) -> &[u8] = $bytes;
                e.bytes(bytes(self))?.ok()
            }
        }
        impl<'b, C> Decode<'b, C> for $type {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, CborError> {
                let bytes: [u8; $len] =
                    d.bytes()?.try_into().map_err(|_| CborError::message("wrong number of bytes"))?;
                let make: fn([u8; $len]) -> Option<$type> = $make;
                make(bytes).ok_or_else(|| CborError::message("not a valid value"))
            }
        }
    };
}

macro_rules! as_text {
    ($type:ty, $parse:expr, $text:expr) => {
        impl<C> Encode<C> for $type {
            fn encode<W: Write>(
                &self,
                e: &mut Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                let text: fn(&$type) -> String = $text;
                e.str(&text(self))?.ok()
            }
        }
        impl<'b, C> Decode<'b, C> for $type {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, CborError> {
                let parse: fn(&str) -> Option<$type> = $parse;
                parse(d.str()?).ok_or_else(|| CborError::message("not a valid name"))
            }
        }
    };
}

macro_rules! as_number {
    ($type:ty, $inner:ty, $make:expr, $number:expr) => {
        impl<C> Encode<C> for $type {
            fn encode<W: Write>(
                &self,
                e: &mut Encoder<W>,
                ctx: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                let number: fn(&$type) -> $inner = $number;
                number(self).encode(e, ctx)
            }
        }
        impl<'b, C> Decode<'b, C> for $type {
            fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, CborError> {
                let make: fn($inner) -> Option<$type> = $make;
                make(<$inner>::decode(d, ctx)?).ok_or_else(|| CborError::message("not a valid number"))
            }
        }
    };
}

as_bytes!(Digest32, 32, |bytes| Some(Digest32(bytes)), |value| &value.0);
as_bytes!(KeyId, 16, |bytes| Some(KeyId(bytes)), |value| &value.0);
as_bytes!(HsmObjectId, 16, |bytes| Some(HsmObjectId(bytes)), |value| &value.0);
as_bytes!(PublicKey, 65, |bytes| PublicKey::from_sec1(&bytes), |value| value.as_bytes());
as_bytes!(Signature, 64, |bytes| Some(Signature(bytes)), |value| &value.0);
as_text!(TenantName, |text| TenantName::parse(text).ok(), |value| value.as_str().into());
as_text!(KeyName, |text| KeyName::parse(text).ok(), |value| value.as_str().into());
as_text!(CustodianName, |text| CustodianName::parse(text).ok(), |value| value.as_str().into());
as_text!(NodeName, |text| NodeName::parse(text).ok(), |value| value.as_str().into());
as_text!(LabelName, |text| LabelName::parse(text).ok(), |value| value.as_str().into());
as_text!(ShortText, |text| ShortText::parse(text).ok(), |value| value.as_str().into());
as_text!(Description, |text| Description::parse(text).ok(), |value| value.as_str().into());
as_text!(ClusterName, |text| ClusterName::parse(text).ok(), |value| value.as_str().into());
as_text!(Principal, |text| Principal::parse(text).ok(), |value| value.to_uri());
as_text!(Suite, Suite::from_name, |value| value.name().into());
as_text!(AeadAlgorithm, AeadAlgorithm::from_name, |value| value.name().into());
as_number!(KeyVersion, u32, KeyVersion::new, |value| value.number());
as_number!(Sensitivity, u8, Sensitivity::new, |value| value.level());
as_number!(UnixMillis, u64, |number| Some(UnixMillis(number)), |value| value.0);

/// A format's version field: exactly 1, so that a later format is refused and not misread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VersionOne;

as_number!(VersionOne, u32, |number| (number == 1).then_some(VersionOne), |_| 1);

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Encode, Decode, Debug, PartialEq)]
    #[cbor(map)]
    struct Sample {
        #[n(0)]
        version: VersionOne,
        #[n(1)]
        number: u32,
    }
    impl Format for Sample {
        const WHAT: &'static str = "sample";
    }
    impl ArmouredFormat for Sample {
        const LABEL: &'static str = "KMS SAMPLE";
    }

    #[test]
    fn another_encoding_of_the_same_value_is_refused() {
        let bytes = to_bytes(&Sample { version: VersionOne, number: 5 });
        assert_eq!(bytes, [0xa2, 0x00, 0x01, 0x01, 0x05]);
        assert!(open::<Sample>(&bytes).is_ok());
        let not_canonical = Err(CodecError::NotCanonical { what: "sample" });
        assert_eq!(open::<Sample>(&[0xa2, 0x01, 0x05, 0x00, 0x01]), not_canonical, "keys out of order");
        assert_eq!(open::<Sample>(&[0xa2, 0x00, 0x01, 0x01, 0x18, 0x05]), not_canonical, "long number");
        assert_eq!(open::<Sample>(&[0xa2, 0x00, 0x01, 0x01, 0x05, 0x00]), not_canonical, "trailing byte");
        assert_eq!(open::<Sample>(&[0xa3, 0x00, 0x01, 0x01, 0x05, 0x02, 0x00]), not_canonical, "unknown key");
        assert!(open::<Sample>(&[0xa2, 0x00, 0x02, 0x01, 0x05]).is_err(), "a later version");
        assert!(open::<Sample>(&[0xa2, 0x00, 0x01]).is_err(), "truncated");
    }

    #[test]
    fn armour_of_another_kind_is_refused() {
        let text = to_armour(&Sample { version: VersionOne, number: 5 });
        assert!(open_armour::<Sample>(text.as_bytes()).is_ok());
        let other = text.replace("KMS SAMPLE", "KMS BUNDLE");
        assert_eq!(open_armour::<Sample>(other.as_bytes()), Err(CodecError::Armour { label: "KMS SAMPLE" }));
    }
}
