use super::stream::Results;
use super::{Gate, convert, csr, items, recipient};
use crate::service::{
    Caller, Node, OpenRequest, RawDecryptRequest, ReEncryptRequest, ServiceError, SignRequest,
};
use kms_core::pair::{SignatureAlgorithm, Sm2UserId};
use kms_core::policy::Action;
use kms_core::secret::Secret;
use kms_core::spec::KeyUsage;
use kms_proto::v1::{self, crypto_server::Crypto};
use std::sync::Arc;
use tonic::{Request, Response, Status, Streaming};

/// The bytes of a secret that leaves. The buffer is wiped by the allocator when it is freed.
pub(super) fn expose(secret: Secret) -> Vec<u8> {
    secret.expose().to_vec()
}

#[tonic::async_trait]
impl Crypto for Gate {
    type StreamStream = Results;

    async fn generate_data_key(
        &self,
        request: Request<v1::GenerateDataKeyRequest>,
    ) -> Result<Response<v1::GenerateDataKeyResponse>, Status> {
        self.call("Crypto.GenerateDataKey", Action::GenerateDataKey, request, generate_data_key).await
    }

    async fn decrypt_data_key(
        &self,
        request: Request<v1::DecryptDataKeyRequest>,
    ) -> Result<Response<v1::DecryptDataKeyResponse>, Status> {
        self.call("Crypto.DecryptDataKey", Action::DecryptDataKey, request, decrypt_data_key).await
    }

    async fn generate_data_key_pair(
        &self,
        request: Request<v1::GenerateDataKeyPairRequest>,
    ) -> Result<Response<v1::GenerateDataKeyPairResponse>, Status> {
        self.call(
            "Crypto.GenerateDataKeyPair",
            Action::GenerateDataKeyPair,
            request,
            |node, caller, message| async move {
                let key = convert::key_ref("key", &message.key)?;
                let algorithm = convert::pair_algorithm(message.pair_spec)?;
                let context = convert::context(message.context)?;
                let delivery = recipient::delivery(message.without_plaintext, message.recipient)?;
                let (pair, encrypted) =
                    node.generate_data_key_pair(&caller, &key, algorithm, &context, &delivery).await?;
                Ok(v1::GenerateDataKeyPairResponse {
                    key_id: encrypted.key_id.to_string(),
                    key_version: convert::proto_version(encrypted.version),
                    pair_spec: convert::proto_spec(pair.algorithm.into()),
                    public_key: pair.public_key.to_spki(),
                    private_key: pair.private_key.map(expose).unwrap_or_default(),
                    ciphertext: encrypted.ciphertext,
                    recipient_ciphertext: pair.recipient_ciphertext.unwrap_or_default(),
                })
            },
        )
        .await
    }

    async fn decrypt_data_key_pair(
        &self,
        request: Request<v1::DecryptDataKeyPairRequest>,
    ) -> Result<Response<v1::DecryptDataKeyPairResponse>, Status> {
        self.call(
            "Crypto.DecryptDataKeyPair",
            Action::DecryptDataKeyPair,
            request,
            |node, caller, message| async move {
                let request = OpenRequest {
                    ciphertext: message.ciphertext,
                    context: convert::context(message.context)?,
                    expected_key: convert::optional_key_ref("expected_key", &message.expected_key)?,
                };
                let delivery = recipient::delivery(false, message.recipient)?;
                let (pair, key_id, version) =
                    node.decrypt_data_key_pair(&caller, &request, &delivery).await?;
                Ok(v1::DecryptDataKeyPairResponse {
                    key_id: key_id.to_string(),
                    key_version: convert::proto_version(version),
                    pair_spec: convert::proto_spec(pair.algorithm.into()),
                    public_key: pair.public_key.to_spki(),
                    private_key: pair.private_key.map(expose).unwrap_or_default(),
                    recipient_ciphertext: pair.recipient_ciphertext.unwrap_or_default(),
                })
            },
        )
        .await
    }

    async fn encrypt(
        &self,
        request: Request<v1::EncryptRequest>,
    ) -> Result<Response<v1::EncryptResponse>, Status> {
        self.call("Crypto.Encrypt", Action::Encrypt, request, encrypt).await
    }

    async fn decrypt(
        &self,
        request: Request<v1::DecryptRequest>,
    ) -> Result<Response<v1::DecryptResponse>, Status> {
        self.call("Crypto.Decrypt", Action::Decrypt, request, decrypt).await
    }

    async fn re_encrypt(
        &self,
        request: Request<v1::ReEncryptRequest>,
    ) -> Result<Response<v1::ReEncryptResponse>, Status> {
        self.call("Crypto.ReEncrypt", Action::ReEncrypt, request, re_encrypt).await
    }

    async fn generate_mac(
        &self,
        request: Request<v1::GenerateMacRequest>,
    ) -> Result<Response<v1::GenerateMacResponse>, Status> {
        self.call("Crypto.GenerateMac", Action::GenerateMac, request, generate_mac).await
    }

    async fn verify_mac(
        &self,
        request: Request<v1::VerifyMacRequest>,
    ) -> Result<Response<v1::VerifyMacResponse>, Status> {
        self.call("Crypto.VerifyMac", Action::VerifyMac, request, verify_mac).await
    }

    async fn raw_encrypt(
        &self,
        request: Request<v1::RawEncryptRequest>,
    ) -> Result<Response<v1::RawEncryptResponse>, Status> {
        self.call("Crypto.RawEncrypt", Action::RawEncrypt, request, raw_encrypt).await
    }

    async fn raw_decrypt(
        &self,
        request: Request<v1::RawDecryptRequest>,
    ) -> Result<Response<v1::RawDecryptResponse>, Status> {
        self.call("Crypto.RawDecrypt", Action::RawDecrypt, request, raw_decrypt).await
    }

    async fn generate_random(
        &self,
        request: Request<v1::GenerateRandomRequest>,
    ) -> Result<Response<v1::GenerateRandomResponse>, Status> {
        self.call("Crypto.GenerateRandom", Action::GenerateRandom, request, generate_random).await
    }

    async fn sign(&self, request: Request<v1::SignRequest>) -> Result<Response<v1::SignResponse>, Status> {
        self.call("Crypto.Sign", Action::Sign, request, sign).await
    }

    async fn verify(
        &self,
        request: Request<v1::VerifyRequest>,
    ) -> Result<Response<v1::VerifyResponse>, Status> {
        self.call("Crypto.Verify", Action::Verify, request, verify).await
    }

    async fn get_certificate_signing_request(
        &self,
        request: Request<v1::GetCertificateSigningRequestRequest>,
    ) -> Result<Response<v1::GetCertificateSigningRequestResponse>, Status> {
        self.call(
            "Crypto.GetCertificateSigningRequest",
            Action::RequestCertificate,
            request,
            |node, caller, message| async move {
                let made = node.certificate_signing_request(&caller, &csr::asked(&message)?).await?;
                Ok(v1::GetCertificateSigningRequestResponse {
                    key_id: made.key_id.to_string(),
                    key_version: convert::proto_version(made.version),
                    algorithm: convert::proto_signature_algorithm(made.algorithm),
                    request: made.der,
                })
            },
        )
        .await
    }

    async fn get_public_key(
        &self,
        request: Request<v1::GetPublicKeyRequest>,
    ) -> Result<Response<v1::GetPublicKeyResponse>, Status> {
        self.call("Crypto.GetPublicKey", Action::GetPublicKey, request, get_public_key).await
    }

    async fn asymmetric_encrypt(
        &self,
        request: Request<v1::AsymmetricEncryptRequest>,
    ) -> Result<Response<v1::AsymmetricEncryptResponse>, Status> {
        self.call("Crypto.AsymmetricEncrypt", Action::AsymmetricEncrypt, request, asymmetric_encrypt).await
    }

    async fn asymmetric_decrypt(
        &self,
        request: Request<v1::AsymmetricDecryptRequest>,
    ) -> Result<Response<v1::AsymmetricDecryptResponse>, Status> {
        self.call("Crypto.AsymmetricDecrypt", Action::AsymmetricDecrypt, request, asymmetric_decrypt).await
    }

    async fn batch(&self, request: Request<v1::BatchRequest>) -> Result<Response<v1::BatchResponse>, Status> {
        let gate = self.clone();
        self.call("Crypto.Batch", Action::Batch, request, |node, caller, message| async move {
            let items = items::parse(message)?;
            // A node that is sealed refuses the whole, so that the caller asks another one. Each item looks again.
            node.require_open()?;
            Ok(v1::BatchResponse { results: gate.run_batch(&caller, items).await })
        })
        .await
    }

    async fn stream(&self, request: Request<Streaming<v1::StreamItem>>) -> Result<Response<Results>, Status> {
        self.open_stream(request).await
    }
}

// The calls, whether they come alone or as items of a batch or a stream.

pub(super) async fn generate_data_key(
    node: Arc<Node>,
    caller: Caller,
    message: v1::GenerateDataKeyRequest,
) -> Result<v1::GenerateDataKeyResponse, ServiceError> {
    let key = convert::key_ref("key", &message.key)?;
    let spec = convert::data_key_algorithm(message.data_key_spec)?;
    let context = convert::context(message.context)?;
    let delivery = recipient::delivery(message.without_plaintext, message.recipient)?;
    let made = node.generate_data_key(&caller, &key, spec, &context, &delivery).await?;
    Ok(v1::GenerateDataKeyResponse {
        key_id: made.encrypted.key_id.to_string(),
        key_version: convert::proto_version(made.encrypted.version),
        data_key_spec: convert::proto_spec(made.data_key.algorithm.into()),
        plaintext: made.data_key.plaintext.map(expose).unwrap_or_default(),
        ciphertext: made.encrypted.ciphertext,
        recipient_ciphertext: made.data_key.recipient_ciphertext.unwrap_or_default(),
    })
}

pub(super) async fn decrypt_data_key(
    node: Arc<Node>,
    caller: Caller,
    message: v1::DecryptDataKeyRequest,
) -> Result<v1::DecryptDataKeyResponse, ServiceError> {
    let request = OpenRequest {
        ciphertext: message.ciphertext,
        context: convert::context(message.context)?,
        expected_key: convert::optional_key_ref("expected_key", &message.expected_key)?,
    };
    let delivery = recipient::delivery(false, message.recipient)?;
    let (data_key, key_id, version) = node.decrypt_data_key(&caller, &request, &delivery).await?;
    Ok(v1::DecryptDataKeyResponse {
        key_id: key_id.to_string(),
        key_version: convert::proto_version(version),
        data_key_spec: convert::proto_spec(data_key.algorithm.into()),
        plaintext: data_key.plaintext.map(expose).unwrap_or_default(),
        recipient_ciphertext: data_key.recipient_ciphertext.unwrap_or_default(),
    })
}

pub(super) async fn encrypt(
    node: Arc<Node>,
    caller: Caller,
    message: v1::EncryptRequest,
) -> Result<v1::EncryptResponse, ServiceError> {
    let plaintext = Secret::new(message.plaintext);
    let key = convert::key_ref("key", &message.key)?;
    let context = convert::context(message.context)?;
    let encrypted = node.encrypt(&caller, &key, &context, &plaintext).await?;
    Ok(v1::EncryptResponse {
        key_id: encrypted.key_id.to_string(),
        key_version: convert::proto_version(encrypted.version),
        ciphertext: encrypted.ciphertext,
    })
}

pub(super) async fn decrypt(
    node: Arc<Node>,
    caller: Caller,
    message: v1::DecryptRequest,
) -> Result<v1::DecryptResponse, ServiceError> {
    let request = OpenRequest {
        ciphertext: message.ciphertext,
        context: convert::context(message.context)?,
        expected_key: convert::optional_key_ref("expected_key", &message.expected_key)?,
    };
    let decrypted = node.decrypt(&caller, &request).await?;
    Ok(v1::DecryptResponse {
        key_id: decrypted.key_id.to_string(),
        key_version: convert::proto_version(decrypted.version),
        plaintext: expose(decrypted.plaintext),
    })
}

pub(super) async fn asymmetric_encrypt(
    node: Arc<Node>,
    caller: Caller,
    message: v1::AsymmetricEncryptRequest,
) -> Result<v1::AsymmetricEncryptResponse, ServiceError> {
    let plaintext = Secret::new(message.plaintext);
    let key = convert::key_ref("key", &message.key)?;
    let encrypted = node.asymmetric_encrypt(&caller, &key, &plaintext).await?;
    Ok(v1::AsymmetricEncryptResponse {
        key_id: encrypted.key_id.to_string(),
        key_version: convert::proto_version(encrypted.version),
        ciphertext: encrypted.ciphertext,
    })
}

pub(super) async fn asymmetric_decrypt(
    node: Arc<Node>,
    caller: Caller,
    message: v1::AsymmetricDecryptRequest,
) -> Result<v1::AsymmetricDecryptResponse, ServiceError> {
    let key = convert::key_ref("key", &message.key)?;
    let decrypted = node.asymmetric_decrypt(&caller, &key, &message.ciphertext).await?;
    Ok(v1::AsymmetricDecryptResponse {
        key_id: decrypted.key_id.to_string(),
        key_version: convert::proto_version(decrypted.version),
        plaintext: expose(decrypted.plaintext),
    })
}

pub(super) async fn re_encrypt(
    node: Arc<Node>,
    caller: Caller,
    message: v1::ReEncryptRequest,
) -> Result<v1::ReEncryptResponse, ServiceError> {
    let old = OpenRequest {
        ciphertext: message.ciphertext,
        context: convert::context(message.context)?,
        expected_key: convert::optional_key_ref("expected_key", &message.expected_key)?,
    };
    let new_key = convert::optional_key_ref("new_key", &message.new_key)?;
    let new_context = convert::context_field("new_context", message.new_context)?;
    let made = node.re_encrypt(&caller, &ReEncryptRequest { old, new_key, new_context }).await?;
    Ok(v1::ReEncryptResponse {
        key_id: made.encrypted.key_id.to_string(),
        key_version: convert::proto_version(made.encrypted.version),
        ciphertext: made.encrypted.ciphertext,
        old_key_id: made.from.0.to_string(),
        old_key_version: convert::proto_version(made.from.1),
    })
}

pub(super) async fn generate_mac(
    node: Arc<Node>,
    caller: Caller,
    message: v1::GenerateMacRequest,
) -> Result<v1::GenerateMacResponse, ServiceError> {
    let text = Secret::new(message.message);
    let key = convert::key_ref("key", &message.key)?;
    let made = node.generate_mac(&caller, &key, &text).await?;
    Ok(v1::GenerateMacResponse {
        key_id: made.key_id.to_string(),
        key_version: convert::proto_version(made.version),
        mac: expose(made.mac),
    })
}

pub(super) async fn verify_mac(
    node: Arc<Node>,
    caller: Caller,
    message: v1::VerifyMacRequest,
) -> Result<v1::VerifyMacResponse, ServiceError> {
    let (text, mac) = (Secret::new(message.message), Secret::new(message.mac));
    let key = convert::key_ref("key", &message.key)?;
    let (key_id, version) = node.verify_mac(&caller, &key, &text, mac.expose()).await?;
    Ok(v1::VerifyMacResponse { key_id: key_id.to_string(), key_version: convert::proto_version(version) })
}

async fn raw_encrypt(
    node: Arc<Node>,
    caller: Caller,
    message: v1::RawEncryptRequest,
) -> Result<v1::RawEncryptResponse, ServiceError> {
    let plaintext = Secret::new(message.plaintext);
    let key = convert::key_ref("key", &message.key)?;
    let made = node.raw_encrypt(&caller, &key, &plaintext, &message.additional_authenticated_data).await?;
    Ok(v1::RawEncryptResponse {
        key_id: made.key_id.to_string(),
        key_version: convert::proto_version(made.version),
        ciphertext: made.sealed.ciphertext,
        initialization_vector: made.iv.to_vec(),
        tag: made.sealed.tag,
    })
}

async fn raw_decrypt(
    node: Arc<Node>,
    caller: Caller,
    message: v1::RawDecryptRequest,
) -> Result<v1::RawDecryptResponse, ServiceError> {
    let request = RawDecryptRequest {
        key: convert::key_ref("key", &message.key)?,
        padding: convert::padding(message.padding)?,
        iv: message.initialization_vector,
        associated_data: message.additional_authenticated_data,
        ciphertext: message.ciphertext,
        tag: message.tag,
    };
    let decrypted = node.raw_decrypt(&caller, &request).await?;
    Ok(v1::RawDecryptResponse {
        key_id: decrypted.key_id.to_string(),
        key_version: convert::proto_version(decrypted.version),
        plaintext: expose(decrypted.plaintext),
    })
}

async fn generate_random(
    node: Arc<Node>,
    caller: Caller,
    message: v1::GenerateRandomRequest,
) -> Result<v1::GenerateRandomResponse, ServiceError> {
    let random = node.generate_random(&caller, message.byte_count).await?;
    Ok(v1::GenerateRandomResponse { random: expose(random) })
}

pub(super) async fn sign(
    node: Arc<Node>,
    caller: Caller,
    message: v1::SignRequest,
) -> Result<v1::SignResponse, ServiceError> {
    let input = (Secret::new(message.input), message.is_digest);
    let request = sign_request(&message.key, message.algorithm, input, &message.user_id)?;
    let signed = node.sign(&caller, &request).await?;
    Ok(v1::SignResponse {
        key_id: signed.key_id.to_string(),
        key_version: convert::proto_version(signed.version),
        algorithm: convert::proto_signature_algorithm(signed.algorithm),
        signature: signed.signature,
    })
}

pub(super) async fn verify(
    node: Arc<Node>,
    caller: Caller,
    message: v1::VerifyRequest,
) -> Result<v1::VerifyResponse, ServiceError> {
    let input = (Secret::new(message.input), message.is_digest);
    let request = sign_request(&message.key, message.algorithm, input, &message.user_id)?;
    let (key_id, version, algorithm) = node.verify(&caller, &request, &message.signature).await?;
    Ok(v1::VerifyResponse {
        key_id: key_id.to_string(),
        key_version: convert::proto_version(version),
        algorithm: convert::proto_signature_algorithm(algorithm),
    })
}

async fn get_public_key(
    node: Arc<Node>,
    caller: Caller,
    message: v1::GetPublicKeyRequest,
) -> Result<v1::GetPublicKeyResponse, ServiceError> {
    let key = convert::key_ref("key", &message.key)?;
    let (version, public_key, entry) = node.public_key(&caller, &key).await?;
    let (row, pair) = (&entry.row, public_key.algorithm());
    let signs = row.usage == KeyUsage::SignVerify;
    let algorithms = SignatureAlgorithm::of(pair).filter(|_| signs);
    Ok(v1::GetPublicKeyResponse {
        key_id: row.key_id.to_string(),
        key_version: convert::proto_version(version),
        spec: convert::proto_spec(row.spec),
        public_key: public_key.to_spki(),
        algorithms: algorithms.map(convert::proto_signature_algorithm).collect(),
        usage: convert::proto_key_usage(row.usage),
    })
}

/// What `Sign` and `Verify` ask alike; the input is a message or, when so marked, a digest.
fn sign_request(
    key: &str,
    algorithm: i32,
    (input, is_digest): (Secret, bool),
    user_id: &[u8],
) -> Result<SignRequest, ServiceError> {
    let user_id = match user_id {
        [] => Sm2UserId::default(),
        bytes => Sm2UserId::new(bytes).map_err(|error| ServiceError::field("user_id", error))?,
    };
    Ok(SignRequest {
        key: convert::key_ref("key", key)?,
        algorithm: convert::signature_algorithm(algorithm)?,
        input,
        is_digest,
        user_id,
    })
}
