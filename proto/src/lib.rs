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
        GenerateDataKeyPairResponse { key_id, key_version, pair_spec }
        DecryptDataKeyPairResponse { key_id, key_version, pair_spec }
        GetDataKeyResponse { data_key_id, name, version, data_key_spec }
        EncryptRequest { key }
        DecryptResponse { key_id, key_version }
        AsymmetricEncryptRequest { key }
        AsymmetricDecryptResponse { key_id, key_version }
        GenerateMacRequest { key }
        GenerateMacResponse { key_id, key_version }
        VerifyMacRequest { key }
        RawEncryptRequest { key }
        RawDecryptResponse { key_id, key_version }
        GenerateRandomResponse {}
        SignRequest { key, algorithm, is_digest }
        VerifyRequest { key, algorithm, is_digest }
        JoinRequest {}
    }
}

#[cfg(test)]
mod tests {
    use super::v1;
    use prost::Message;
    use std::collections::BTreeSet;

    #[test]
    fn debug_of_a_message_with_a_secret_does_not_show_it() {
        let response = v1::GenerateDataKeyResponse {
            key_id: "id".into(),
            key_version: 1,
            data_key_spec: 1,
            plaintext: vec![0xAB; 32],
            ciphertext: vec![],
            recipient_ciphertext: vec![],
        };
        let shown = format!("{response:?}");
        assert!(shown.contains("key_version: 1") && !shown.contains("171") && !shown.contains("plaintext"));
        let secret = || vec![0xAB; 32];
        for shown in [
            format!("{:?}", v1::AsymmetricEncryptRequest { key: "k".into(), plaintext: secret() }),
            format!("{:?}", v1::AsymmetricDecryptResponse { plaintext: secret(), ..Default::default() }),
            format!("{:?}", v1::GenerateMacRequest { key: "k".into(), message: secret() }),
            format!("{:?}", v1::GenerateMacResponse { mac: secret(), ..Default::default() }),
            format!("{:?}", v1::VerifyMacRequest { key: "k".into(), message: secret(), mac: secret() }),
            format!("{:?}", v1::GenerateDataKeyPairResponse { private_key: secret(), ..Default::default() }),
            format!("{:?}", v1::DecryptDataKeyPairResponse { private_key: secret(), ..Default::default() }),
            format!("{:?}", v1::GetDataKeyResponse { plaintext: secret(), ..Default::default() }),
            format!("{:?}", v1::RawEncryptRequest { plaintext: secret(), ..Default::default() }),
            format!("{:?}", v1::RawDecryptResponse { plaintext: secret(), ..Default::default() }),
            format!("{:?}", v1::GenerateRandomResponse { random: secret() }),
            format!("{:?}", v1::SignRequest { input: secret(), ..Default::default() }),
            format!("{:?}", v1::VerifyRequest { input: secret(), ..Default::default() }),
        ] {
            assert!(shown.ends_with(".. }") && !shown.contains("171"), "{shown}");
        }
        // Batches and streams show their items as these show themselves.
        let encrypt = v1::EncryptRequest { key: "k".into(), plaintext: secret(), context: vec![] };
        let item = v1::BatchItem { item: Some(v1::batch_item::Item::Encrypt(encrypt)) };
        let opened = v1::DecryptResponse { key_id: "k".into(), key_version: 1, plaintext: secret() };
        let result = v1::BatchResult { result: Some(v1::batch_result::Result::Decrypt(opened)) };
        for shown in [
            format!("{:?}", v1::BatchRequest { items: vec![item.clone()] }),
            format!("{:?}", v1::StreamItem { id: 1, item: Some(item) }),
            format!("{:?}", v1::BatchResponse { results: vec![result.clone()] }),
            format!("{:?}", v1::StreamResult { id: 1, result: Some(result) }),
        ] {
            assert!(shown.contains("\"k\"") && !shown.contains("171"), "{shown}");
        }
    }

    /// Every field, enum value and method, in order, as `proto/published.txt` lists them.
    fn interface() -> Vec<String> {
        let files =
            prost_types::FileDescriptorSet::decode(v1::FILE_DESCRIPTOR_SET).expect("our own descriptors");
        let mut lines = Vec::new();
        for file in files.file.iter().filter(|file| file.package() == "kms.v1") {
            for message in &file.message_type {
                assert!(message.nested_type.is_empty() && message.enum_type.is_empty(), "{}", message.name());
                for field in &message.field {
                    let (label, kind) = (field.label().as_str_name(), field.r#type().as_str_name());
                    let (label, kind) =
                        (label.trim_start_matches("LABEL_"), kind.trim_start_matches("TYPE_"));
                    let oneof = field.oneof_index.map(|_| " in a oneof").unwrap_or_default();
                    let (of, name, number) = (message.name(), field.name(), field.number());
                    let described = format!("{label} {kind} {}", field.type_name()).to_lowercase();
                    lines.push(format!("{of}.{name} = {number}: {}{oneof}", described.trim_end()));
                }
            }
            for choice in &file.enum_type {
                for value in &choice.value {
                    lines.push(format!("{}.{} = {}", choice.name(), value.name(), value.number()));
                }
            }
            for service in &file.service {
                for method in &service.method {
                    let stream = |is_stream| if is_stream { "stream " } else { "" };
                    let (takes, gives) = (method.input_type(), method.output_type());
                    let (of, name) = (service.name(), method.name());
                    let (up, down) = (stream(method.client_streaming()), stream(method.server_streaming()));
                    lines.push(format!("{of}.{name}({up}{takes}) gives {down}{gives}"));
                }
            }
        }
        lines.sort();
        lines
    }

    #[test]
    fn nothing_that_was_published_has_changed_and_what_is_new_is_listed() {
        let published: BTreeSet<&str> = include_str!("../published.txt").lines().collect();
        let interface = interface();
        let present: BTreeSet<&str> = interface.iter().map(String::as_str).collect();
        let gone: Vec<_> = published.difference(&present).collect();
        let new: Vec<_> = present.difference(&published).copied().collect();
        assert!(gone.is_empty(), "docs/proto.md forbids that these change or disappear: {gone:#?}");
        assert!(new.is_empty(), "add to proto/published.txt:\n{}", new.join("\n"));
    }

    #[test]
    fn every_enum_begins_with_unspecified_and_its_values_carry_its_name() {
        let files =
            prost_types::FileDescriptorSet::decode(v1::FILE_DESCRIPTOR_SET).expect("our own descriptors");
        for choice in
            files.file.iter().filter(|file| file.package() == "kms.v1").flat_map(|file| &file.enum_type)
        {
            let mut prefix = String::new();
            for letter in choice.name().chars() {
                if letter.is_uppercase() && !prefix.is_empty() {
                    prefix.push('_');
                }
                prefix.extend(letter.to_uppercase());
            }
            let names: Vec<&str> = choice.value.iter().map(|value| value.name()).collect();
            assert_eq!(names.first(), Some(&format!("{prefix}_UNSPECIFIED").as_str()));
            assert!(names.iter().all(|name| name.starts_with(&format!("{prefix}_"))), "{names:?}");
        }
    }
}
