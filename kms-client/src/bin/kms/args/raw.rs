//! `kms raw-encrypt` and `kms raw-decrypt`.

use clap::{Args, ValueEnum};
use kms_core::raw::Padding;
use std::path::PathBuf;

/// What is authenticated with a raw ciphertext.
#[derive(Debug, Args)]
pub struct AssociatedDataArguments {
    /// Additional authenticated data, as text
    #[arg(long, value_name = "TEXT")]
    pub aad: Option<String>,
    /// File with the additional authenticated data
    #[arg(long, value_name = "FILE", conflicts_with = "aad")]
    pub aad_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct RawEncryptArguments {
    /// Name or id, with @VERSION for another than the current version
    #[arg(long, value_name = "KEY")]
    pub key: String,
    #[command(flatten)]
    pub associated_data: AssociatedDataArguments,
    /// File to read; - for the standard input
    #[arg(value_name = "IN")]
    pub source: PathBuf,
    /// Write the ciphertext to this new file and do not print it
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct RawDecryptArguments {
    /// Name or id, with @VERSION for another than the current version
    #[arg(long, value_name = "KEY")]
    pub key: String,
    /// The initialization vector as it was printed
    #[arg(long, value_name = "BASE64", required_unless_present = "iv_file")]
    pub iv: Option<String>,
    /// File with the bytes of the initialization vector
    #[arg(long, value_name = "FILE", conflicts_with = "iv")]
    pub iv_file: Option<PathBuf>,
    /// The tag as it was printed; 3DES has none
    #[arg(long, value_name = "BASE64")]
    pub tag: Option<String>,
    /// File with the bytes of the tag
    #[arg(long, value_name = "FILE", conflicts_with = "tag")]
    pub tag_file: Option<PathBuf>,
    #[command(flatten)]
    pub associated_data: AssociatedDataArguments,
    /// How the plaintext was filled up; none is for 3DES alone
    #[arg(long, value_enum, default_value_t = PaddingArgument::Pkcs7, value_name = "PADDING")]
    pub padding: PaddingArgument,
    /// File with the ciphertext; - for the standard input
    #[arg(value_name = "IN")]
    pub source: PathBuf,
    /// Write the plaintext to this new file, open to you alone, and do not print it
    #[arg(long, value_name = "FILE")]
    pub out_plaintext: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PaddingArgument {
    /// As PKCS#7 has it
    Pkcs7,
    /// Not at all, or in a way of your own
    None,
}

impl From<PaddingArgument> for Padding {
    fn from(padding: PaddingArgument) -> Self {
        match padding {
            PaddingArgument::Pkcs7 => Padding::Pkcs7,
            PaddingArgument::None => Padding::None,
        }
    }
}
