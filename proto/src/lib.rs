//! The `kms.v1` gRPC interface: generated messages, clients and servers.

/// Package `kms.v1`.
#[expect(missing_debug_implementations, clippy::doc_markdown, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("kms.v1");

    /// The compiled descriptors, for gRPC reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kms.v1.bin"));

    macro_rules! redacted_debug {
        ($($message:ident { $($shown:ident),* })*) => {
            $(impl std::fmt::Debug for $message {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.debug_struct(stringify!($message))
                        $(.field(stringify!($shown), &self.$shown))*
                        .finish_non_exhaustive()
                }
            })*
        };
    }

    redacted_debug! {
        GenerateDataKeyResponse { key_id, key_version, data_key_spec }
        DecryptDataKeyResponse { key_id, key_version, data_key_spec }
        EncryptRequest { key }
        DecryptResponse { key_id, key_version }
        JoinRequest {}
    }
}

#[cfg(test)]
mod tests {
    use super::v1;

    #[test]
    fn debug_of_a_message_with_a_secret_does_not_show_it() {
        let response = v1::GenerateDataKeyResponse {
            key_id: "id".into(),
            key_version: 1,
            data_key_spec: 1,
            plaintext: vec![0xAB; 32],
            ciphertext: vec![],
        };
        let shown = format!("{response:?}");
        assert!(shown.contains("key_version: 1") && !shown.contains("171") && !shown.contains("plaintext"));
    }
}
