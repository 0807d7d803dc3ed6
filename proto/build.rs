//! Compiles `kms/v1/*.proto` with `protox`, so that no protoc is needed.

use prost::Message;
use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

/// Messages that carry secrets: their `Debug` is written by hand in `src/lib.rs`.
const SECRET_MESSAGES: &[&str] = &[
    "kms.v1.GenerateDataKeyResponse",
    "kms.v1.DecryptDataKeyResponse",
    "kms.v1.GenerateDataKeyPairResponse",
    "kms.v1.DecryptDataKeyPairResponse",
    "kms.v1.GetDataKeyResponse",
    "kms.v1.EncryptRequest",
    "kms.v1.DecryptResponse",
    "kms.v1.AsymmetricEncryptRequest",
    "kms.v1.AsymmetricDecryptResponse",
    "kms.v1.GenerateMacRequest",
    "kms.v1.GenerateMacResponse",
    "kms.v1.VerifyMacRequest",
    "kms.v1.RawEncryptRequest",
    "kms.v1.RawDecryptResponse",
    "kms.v1.GenerateRandomResponse",
    "kms.v1.SignRequest",
    "kms.v1.VerifyRequest",
    "kms.v1.JoinRequest",
];

fn main() -> Result<(), Box<dyn Error>> {
    let files = ["keys", "crypto", "data_keys", "audit", "system", "ceremony"]
        .map(|name| format!("kms/v1/{name}.proto"));
    println!("cargo:rerun-if-changed=kms");
    let descriptors = protox::compile(&files, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("kms.v1.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().skip_debug(SECRET_MESSAGES).compile_fds(descriptors)?;
    Ok(())
}
