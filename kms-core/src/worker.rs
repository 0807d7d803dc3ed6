//! Frames between a server and its ceremony worker (docs/formats/worker.md).
//!
//! Both sides build from these types, so that the server never links the code that combines shares and
//! the worker never links the server.

use crate::asymmetric::{PublicKey, Signature};
use crate::ceremony::CeremonyKind;
use crate::codec::Format;
use crate::id::{CustodianName, UnixMillis};
use crate::reason::Reason;
use crate::secret::Secret;
use crate::suite::Digest32;
use alloc::string::String;
use alloc::vec::Vec;
use minicbor::{Decode, Encode};

/// Longest body of a frame, in bytes. A bundle of 16 custodians and many nodes is far shorter.
pub const FRAME_LEN_MAX: usize = 1 << 20;
/// Length of the header in front of every body, in bytes.
pub const FRAME_HEADER_LEN: usize = 4;

/// What a server tells its worker.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
#[cbor(map)]
pub enum ToWorker {
    /// Always first, and once.
    #[n(1)]
    Start {
        /// Canonical bytes of the signed bundle.
        #[cbor(n(0), with = "minicbor::bytes")]
        bundle: Vec<u8>,
        /// What the ceremony does.
        #[n(1)]
        kind: CeremonyKind,
        /// This ceremony.
        #[cbor(n(2), with = "minicbor::bytes")]
        ceremony_id: [u8; 16],
        /// The operation's digest, as the offers name it.
        #[n(3)]
        operation: Digest32,
        /// Path of the PKCS#11 library.
        #[n(4)]
        module_path: String,
        /// Name of the vendor profile, or `auto`.
        #[n(5)]
        profile: String,
    },
    /// A custodian's answer, and the offer that it answers.
    #[n(2)]
    Contribute {
        /// The stream on which it came.
        #[n(0)]
        stream: u64,
        /// Canonical bytes of the signed offer that was made on this stream.
        #[cbor(n(1), with = "minicbor::bytes")]
        offer: Vec<u8>,
        /// Canonical bytes of the contribution.
        #[cbor(n(2), with = "minicbor::bytes")]
        contribution: Vec<u8>,
        /// When it came.
        #[n(3)]
        now: UnixMillis,
    },
    /// A stream closed: its share must go.
    #[n(3)]
    Withdraw {
        /// Which stream.
        #[n(0)]
        stream: u64,
    },
}

impl Format for ToWorker {
    const WHAT: &'static str = "message to a ceremony worker";
}

/// What a worker tells its server.
#[derive(Encode, Decode, Debug)]
#[cbor(map)]
pub enum FromWorker {
    /// The worker is ready to collect.
    #[n(1)]
    Ready {
        /// Shares are encrypted to this key.
        #[n(0)]
        one_time_key: PublicKey,
    },
    /// A contribution counts. When `present` reaches the threshold the operation runs.
    #[n(2)]
    Accepted {
        /// The stream on which it came.
        #[n(0)]
        stream: u64,
        /// Whose it is.
        #[n(1)]
        custodian: CustodianName,
        /// Everybody who is present, in the order in which they came.
        #[n(2)]
        present: Vec<CustodianName>,
    },
    /// A contribution does not count; nothing else changed.
    #[n(3)]
    Refused {
        /// The stream on which it came.
        #[n(0)]
        stream: u64,
        /// Who sent it, where a valid signature says so.
        #[n(1)]
        custodian: Option<CustodianName>,
        /// Why.
        #[cbor(n(2), with = "reason_name")]
        reason: Reason,
        /// Whether it counts towards that custodian's lock.
        #[n(3)]
        counts_as_failure: bool,
    },
    /// Service start: the PIN of the operations partition. The last frame.
    #[n(4)]
    Opened {
        /// The PIN's characters.
        #[cbor(n(0), with = "secret_bytes")]
        pin: Secret,
    },
    /// Core sign: the signature, checked with the core key. The last frame.
    #[n(5)]
    Signed {
        /// Over the ceremony's operation digest.
        #[n(0)]
        signature: Signature,
    },
    /// The ceremony is over without a result. The last frame.
    #[n(6)]
    Failed {
        /// The stable reason.
        #[cbor(n(0), with = "reason_name")]
        reason: Reason,
        /// A sentence for the server's log. Never holds a secret.
        #[n(1)]
        detail: String,
    },
}

impl Format for FromWorker {
    const WHAT: &'static str = "message from a ceremony worker";
}

/// A frame's header names a body that no message has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {len} bytes is announced; 1 to 1048576 are allowed")]
pub struct FrameLenError {
    /// The length in the header.
    pub len: usize,
}

/// Header and body of one message, wiped after use because a body may hold a PIN.
pub fn to_frame<T: Format>(message: &T) -> Secret {
    // The only message with a secret is shorter than this, so the buffer does not grow under it and
    // leaves no copy behind.
    let mut frame = Vec::with_capacity(4096);
    frame.extend_from_slice(&[0; FRAME_HEADER_LEN]);
    minicbor::encode(message, &mut frame)
        .expect("writing to a Vec cannot fail and every message has an encoding");
    let len = u32::try_from(frame.len() - FRAME_HEADER_LEN).expect("messages are far shorter than 4 GiB");
    frame[..FRAME_HEADER_LEN].copy_from_slice(&len.to_be_bytes());
    Secret::new(frame)
}

/// Length of the body behind a header. The body itself is read with [`crate::codec::open`].
///
/// # Errors
/// [`FrameLenError`] when it is empty or longer than [`FRAME_LEN_MAX`]: the peer speaks something else.
pub fn body_len(header: [u8; FRAME_HEADER_LEN]) -> Result<usize, FrameLenError> {
    let len = u32::from_be_bytes(header) as usize;
    if (1..=FRAME_LEN_MAX).contains(&len) { Ok(len) } else { Err(FrameLenError { len }) }
}

mod secret_bytes {
    use crate::secret::Secret;
    use minicbor::decode::Error as DecodeError;
    use minicbor::encode::{Error as EncodeError, Write};
    use minicbor::{Decoder, Encoder};

    pub fn encode<C, W: Write>(
        value: &Secret,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        e.bytes(value.expose())?.ok()
    }

    pub fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Secret, DecodeError> {
        Ok(Secret::new(d.bytes()?.to_vec()))
    }
}

mod reason_name {
    use crate::reason::Reason;
    use minicbor::decode::Error as DecodeError;
    use minicbor::encode::{Error as EncodeError, Write};
    use minicbor::{Decoder, Encoder};

    pub fn encode<C, W: Write>(
        value: &Reason,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        e.str(value.name())?.ok()
    }

    pub fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Reason, DecodeError> {
        Reason::from_name(d.str()?).ok_or_else(|| DecodeError::message("not a reason"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;
    use alloc::format;

    fn body(frame: &Secret) -> &[u8] {
        let (header, body) = frame.expose().split_at(FRAME_HEADER_LEN);
        assert_eq!(body_len(header.try_into().expect("4 bytes")), Ok(body.len()));
        body
    }

    #[test]
    fn an_empty_and_an_endless_frame_are_refused() {
        assert_eq!(body_len([0; 4]), Err(FrameLenError { len: 0 }));
        assert_eq!(body_len([0xff; 4]), Err(FrameLenError { len: 0xffff_ffff }));
        assert_eq!(body_len([0, 0x10, 0, 0]), Ok(FRAME_LEN_MAX));
    }

    #[test]
    fn debug_of_the_message_with_the_pin_does_not_show_it() {
        let opened = FromWorker::Opened { pin: Secret::new(b"7777777".to_vec()) };
        let shown = format!("{opened:?}");
        assert!(!shown.contains("777") && !shown.contains("55, 55"), "{shown}");
    }

    #[test]
    fn every_message_comes_back_as_it_was_sent() {
        let custodian = CustodianName::parse("alice").expect("valid");
        let sent = [
            FromWorker::Ready { one_time_key: PublicKey::from_sec1(&[4; 65]).expect("starts with 04") },
            FromWorker::Accepted { stream: 1, custodian: custodian.clone(), present: [custodian].into() },
            FromWorker::Refused {
                stream: u64::MAX,
                custodian: None,
                reason: Reason::ShareInvalid,
                counts_as_failure: true,
            },
            FromWorker::Opened { pin: Secret::new(b"pin".to_vec()) },
            FromWorker::Signed { signature: Signature([7; 64]) },
            FromWorker::Failed { reason: Reason::CeremonyFailed, detail: "why".into() },
        ];
        for message in sent {
            let frame = to_frame(&message);
            let received: FromWorker = codec::open(body(&frame)).expect("opens");
            assert_eq!(to_frame(&received).expose(), frame.expose(), "{message:?}");
        }
        let start = ToWorker::Start {
            bundle: [1, 2, 3].into(),
            kind: CeremonyKind::CoreSign,
            ceremony_id: [9; 16],
            operation: Digest32([8; 32]),
            module_path: "/m.so".into(),
            profile: "auto".into(),
        };
        assert_eq!(codec::open(body(&to_frame(&start))), Ok(start));
    }

    /// Self-made. If this fails, a server and a worker of two releases no longer understand each other.
    #[test]
    fn the_bytes_of_a_frame_are_the_documented_ones() {
        let frame = to_frame(&ToWorker::Withdraw { stream: 5 });
        assert_eq!(frame.expose(), [0, 0, 0, 5, 0x82, 0x03, 0xa1, 0x00, 0x05]);
        let frame = to_frame(&FromWorker::Opened { pin: Secret::new(b"ab".to_vec()) });
        assert_eq!(frame.expose(), [0, 0, 0, 7, 0x82, 0x04, 0xa1, 0x00, 0x42, b'a', b'b']);
    }
}
