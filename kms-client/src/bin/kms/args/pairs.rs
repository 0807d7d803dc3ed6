//! Recipients, data key pairs and certificate signing requests.

use super::{ContextArguments, parse_signature_algorithm};
use clap::{Args, Subcommand};
use kms_core::pair::{PairAlgorithm, SignatureAlgorithm};
use kms_core::recipient::RecipientAlgorithm;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub enum DataKeyPairCommand {
    /// Make a pair; its private key is encrypted under a key
    Generate {
        /// Name or id, with @VERSION for another than the current version
        #[arg(long, value_name = "KEY")]
        key: String,
        /// What kind of pair
        #[arg(long, value_parser = parse_pair_algorithm, value_name = "SPEC")]
        spec: PairAlgorithm,
        #[command(flatten)]
        context: ContextArguments,
        #[command(flatten)]
        recipient: RecipientArguments,
        /// The private key only encrypted
        #[arg(long, conflicts_with_all = ["out_private", "recipient"])]
        without_private_key: bool,
        #[command(flatten)]
        out: PairOutputArguments,
        /// Write the encrypted private key to this new file
        #[arg(long, value_name = "FILE")]
        out_ciphertext: Option<PathBuf>,
    },
    /// Decrypt the private key of a pair
    Decrypt {
        /// File with the encrypted private key; - for the standard input
        #[arg(long = "in", value_name = "FILE")]
        input: PathBuf,
        #[command(flatten)]
        context: ContextArguments,
        /// Refuse when another key had encrypted it
        #[arg(long, value_name = "KEY")]
        expected_key: Option<String>,
        #[command(flatten)]
        recipient: RecipientArguments,
        #[command(flatten)]
        out: PairOutputArguments,
    },
}

#[derive(Debug, Args)]
pub struct PairOutputArguments {
    /// Write the private key in PEM to this new file, open to you alone, and do not print it
    #[arg(long, value_name = "FILE", conflicts_with = "recipient")]
    pub out_private: Option<PathBuf>,
    /// Write the public key in PEM to this new file and do not print it
    #[arg(long, value_name = "FILE")]
    pub out_public: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct CsrArguments {
    /// Name or id, with @VERSION for another than the current version
    pub key: String,
    /// What the certificate is for, like CN=app.example,O=Example (RFC 4514)
    #[arg(long, value_name = "NAME")]
    pub subject: Option<String>,
    /// A host name; repeat for more, as with the other names
    #[arg(long, value_name = "HOST")]
    pub dns: Vec<String>,
    /// An IPv4 or IPv6 address
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Vec<String>,
    /// An absolute URI
    #[arg(long, value_name = "URI")]
    pub uri: Vec<String>,
    /// A mailbox
    #[arg(long, value_name = "MAILBOX")]
    pub email: Vec<String>,
    /// How; by default the one way of the pair, or rsa-pss-sha-256
    #[arg(long, value_name = "ALGORITHM", value_parser = parse_signature_algorithm)]
    pub algorithm: Option<SignatureAlgorithm>,
    /// Write the request to this new file and do not print it
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

fn parse_pair_algorithm(text: &str) -> Result<PairAlgorithm, String> {
    PairAlgorithm::from_name(text)
        .ok_or_else(|| format!("is none of: {}", PairAlgorithm::ALL.map(PairAlgorithm::name).join(", ")))
}

#[derive(Debug, Args)]
pub struct RecipientArguments {
    /// Public key (PEM or DER) to which the secret is encrypted; it is not shown in the clear then
    #[arg(long, value_name = "FILE")]
    pub recipient: Option<PathBuf>,
    /// How; by default the one way that fits the key
    #[arg(long, value_name = "ALGORITHM", value_parser = parse_recipient_algorithm, requires = "recipient")]
    pub recipient_algorithm: Option<RecipientAlgorithm>,
    /// Write what the recipient opens to this new file and do not print it
    #[arg(long, value_name = "FILE", requires = "recipient")]
    pub out_recipient: Option<PathBuf>,
}

fn parse_recipient_algorithm(text: &str) -> Result<RecipientAlgorithm, String> {
    RecipientAlgorithm::from_name(text).ok_or_else(|| {
        format!("is none of: {}", RecipientAlgorithm::ALL.map(RecipientAlgorithm::name).join(", "))
    })
}
