//! The command line.

mod pairs;
mod raw;
mod registered;

pub use pairs::{CsrArguments, DataKeyPairCommand, PairOutputArguments, RecipientArguments};
pub use raw::{AssociatedDataArguments, RawDecryptArguments, RawEncryptArguments};
pub use registered::RegisteredCommand;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use kms_core::id::UnixMillis;
use kms_core::key::KeyState;
use kms_core::pair::SignatureAlgorithm;
use kms_core::spec::{KeySpec, KeyUsage, Protection};
use kms_core::suite::AeadAlgorithm;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Uses and administers keys of the key management service.
#[derive(Debug, Parser)]
#[command(name = "kms", version, propagate_version = true, arg_required_else_help = true)]
pub struct Arguments {
    /// Profile with the service's address and the caller's certificate
    #[arg(long, global = true, env = "KMS_PROFILE", value_name = "FILE")]
    pub profile: Option<PathBuf>,
    /// Use only this one of the profile's endpoints
    #[arg(long, global = true, value_name = "URL")]
    pub endpoint: Option<String>,
    /// Form of the output
    #[arg(long, global = true, value_enum, default_value_t = OutputFormat::Table)]
    pub output: OutputFormat,
    /// Time for one call with all its tries
    #[arg(
        long,
        global = true,
        value_name = "SECONDS",
        default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..=3600)
    )]
    pub timeout: u64,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people
    Table,
    /// For programs (docs/cli.md)
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show whether the node is sealed, who is present, and the state of the audit log
    Status {
        /// Wait until the node is unsealed, also while nothing listens
        #[arg(long, value_name = "SECONDS")]
        wait: Option<u64>,
    },
    /// Show who the service thinks you are and what you may do
    Whoami,
    /// Create and administer keys
    #[command(subcommand)]
    Key(KeyCommand),
    /// Give keys other names
    #[command(subcommand)]
    Alias(AliasCommand),
    /// Make and decrypt data keys, and those that the service keeps under a name
    #[command(subcommand)]
    DataKey(DataKeyCommand),
    /// Make and decrypt key pairs for use elsewhere
    #[command(subcommand)]
    DataKeyPair(DataKeyPairCommand),
    /// Encrypt a file of any size under a data key of its own
    Encrypt(EncryptArguments),
    /// Decrypt a file that `kms encrypt` made
    Decrypt(DecryptArguments),
    /// Encrypt a few bytes to a key pair, and decrypt them
    #[command(subcommand)]
    Asymmetric(AsymmetricCommand),
    /// Encrypt a ciphertext of the service again, under another key, version or context
    Reencrypt(ReencryptArguments),
    /// Make and verify MACs of small files
    #[command(subcommand)]
    Mac(MacCommand),
    /// Encrypt a small file for another system, without a header of the service
    RawEncrypt(RawEncryptArguments),
    /// Decrypt what `kms raw-encrypt` made, or another system under the same key
    RawDecrypt(RawDecryptArguments),
    /// Sign a file of up to 64 KiB, or a digest, with a key pair
    Sign(SignArguments),
    /// Verify a signature; only exit code 0 says that it is right
    Verify(VerifyArguments),
    /// Take random bytes of the HSM
    Random(RandomArguments),
    /// Read, export and verify the audit log
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Close the HSM partition and wipe every key from the node's memory
    Seal,
    /// Print a completion script for a shell
    Completions {
        /// The shell
        #[arg(value_parser = clap::value_parser!(Shell))]
        shell: Shell,
    },
    /// Print the manual page, or write one page for each command
    Man {
        /// Write kms.1, kms-key.1, .. into this folder
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

/// What a key shall be.
#[derive(Debug, Args)]
pub struct CreateArguments {
    /// 1 to 64 lower-case letters, digits, '.', '_', '-'
    pub name: String,
    /// Algorithm
    #[arg(long, value_parser = parse_spec, value_name = "SPEC")]
    pub spec: KeySpec,
    /// Where the material is; by default resident where the token can
    #[arg(long, value_parser = parse_protection, value_name = "resident|wrapped")]
    pub protection: Option<Protection>,
    /// Not to be used before this time, or for so long from now
    #[arg(long, value_name = "RFC3339|DURATION", value_parser = parse_until)]
    pub activates: Option<UnixMillis>,
    /// Decrypts only from this time on, or after so long from now
    #[arg(long, value_name = "RFC3339|DURATION", value_parser = parse_until)]
    pub expires: Option<UnixMillis>,
    /// What it is for; by default the first usage of its specification
    #[arg(long, value_parser = parse_usage, value_name = "USAGE")]
    pub usage: Option<KeyUsage>,
    #[command(flatten)]
    pub attributes: AttributeArguments,
    /// Do not destroy it until the protection is ended
    #[arg(long)]
    pub protect: bool,
    /// Makes the command safe to repeat for 24 hours
    #[arg(long, value_name = "TOKEN")]
    pub idempotency_token: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key
    Create(CreateArguments),
    /// Get a public key to which a key from elsewhere is wrapped, for one import
    ImportParameters {
        /// What it is: rsa-3072, rsa-4096 or sm2; by default the one of the suite
        #[arg(long, value_parser = parse_spec, value_name = "SPEC")]
        wrapping_key: Option<KeySpec>,
        /// How long it can be used, up to a day
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
        valid_seconds: Option<u32>,
        /// Write the public key, in PEM, into this new file
        #[arg(long, value_name = "FILE")]
        out_public_key: PathBuf,
    },
    /// Make a key of material that was wrapped to an import's public key
    Import {
        #[command(flatten)]
        create: CreateArguments,
        /// From `kms key import-parameters`
        #[arg(long, value_name = "ID")]
        import_id: String,
        /// The wrapped material
        #[arg(long = "in", value_name = "FILE")]
        source: PathBuf,
        /// Refuse a key of a cipher with another check value: 6 hexadecimal digits
        #[arg(long, value_name = "HEX")]
        check_value: Option<String>,
    },
    /// List keys
    List {
        /// Only keys with this label; repeat for more
        #[arg(long = "label", value_name = "NAME=VALUE", value_parser = parse_pair)]
        labels: Vec<(String, String)>,
        /// Only keys in this state, like ACTIVE
        #[arg(long, value_parser = parse_state, value_name = "STATE")]
        state: Option<KeyState>,
    },
    /// Show a key and its versions
    Show {
        /// Name, alias or id
        key: String,
    },
    /// Change what is said of a key; what is not named stays
    Update {
        /// Name or id
        key: String,
        #[command(flatten)]
        attributes: AttributeArguments,
        /// Remove this label; repeat for more
        #[arg(long = "remove-label", value_name = "NAME")]
        remove_labels: Vec<String>,
        /// Do not destroy it until the protection is ended
        #[arg(long, conflicts_with = "unprotect")]
        protect: bool,
        /// End the protection
        #[arg(long)]
        unprotect: bool,
        /// Refuse when the key has another revision
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        expected_revision: Option<u64>,
    },
    /// Make a new version; the one before decrypts only
    Rotate {
        /// Name or id
        key: String,
        /// Makes the command safe to repeat for 24 hours
        #[arg(long, value_name = "TOKEN")]
        idempotency_token: Option<String>,
    },
    /// Make a pre-active key active now
    Activate(KeyArgument),
    /// Stop every use of a key at once
    Suspend(KeyArgument),
    /// End a suspension
    Resume(KeyArgument),
    /// End encryption for good; what was encrypted still decrypts
    Deactivate(KeyArgument),
    /// Put a deactivated key away: it does nothing until it is recovered
    Archive(KeyArgument),
    /// Make an archived key decrypt again
    Recover(KeyArgument),
    /// Mark a key whose material somebody else may know: it does nothing from then on, for good
    Compromise(KeyArgument),
    /// Show how often, when and by whom each version was used
    Usage {
        /// Name or id
        key: String,
    },
    /// Stop every use of a key at once, and destroy it when a window is over
    ScheduleDestruction {
        /// Name or id, for one version with @VERSION
        key: String,
        /// How long it can be cancelled, 7 to 30
        #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(7..=30))]
        window_days: u32,
    },
    /// Keep a key after all; it is suspended then if it was active
    CancelDestruction(KeyArgument),
    /// Print the public half of a key pair in PEM
    PublicKey {
        /// Name or id, with @VERSION for another than the current version
        key: String,
    },
    /// Print a certificate signing request of a key pair in PEM
    Csr(CsrArguments),
    /// Print the signed certificates of what was destroyed of a key
    Certificates {
        /// Name or id
        key: String,
    },
    /// Verify a destruction certificate and show what it says; needs no server
    VerifyCertificate {
        /// The certificate; - for the standard input
        file: PathBuf,
        /// Bundle of the deployment
        #[arg(long, value_name = "FILE")]
        bundle: PathBuf,
    },
}

/// What is said of a key.
#[derive(Debug, Args)]
pub struct AttributeArguments {
    /// Who answers for it
    #[arg(long, value_name = "TEXT")]
    pub owner: Option<String>,
    /// What it is for, in words
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// Of the data under it: 1, the most sensitive, to 3. It only becomes stricter
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u8).range(1..=3))]
    pub sensitivity: Option<u8>,
    /// A label to find it by; repeat for more
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = parse_pair)]
    pub labels: Vec<(String, String)>,
    /// Not to be destroyed before this time, or for so long from now. It only moves to a later time
    #[arg(long, value_name = "RFC3339|DURATION", value_parser = parse_until)]
    pub retain_until: Option<UnixMillis>,
}

#[derive(Debug, Subcommand)]
pub enum AliasCommand {
    /// Give a key another name
    Create {
        /// The name; no key and no alias has it
        alias: String,
        /// The key's name or id
        key: String,
        /// Makes the command safe to repeat for 24 hours
        #[arg(long, value_name = "TOKEN")]
        idempotency_token: Option<String>,
    },
    /// Give an alias to another key, at once for every caller
    Retarget {
        /// The alias
        alias: String,
        /// The other key's name or id
        key: String,
        /// Refuse when the alias names another key than this one now
        #[arg(long, value_name = "KEY")]
        expected_key: Option<String>,
    },
    /// Remove an alias; the key stays
    Delete {
        /// The alias
        alias: String,
    },
    /// List all aliases
    List,
}

#[derive(Debug, Args)]
pub struct KeyArgument {
    /// Name or id; for one version with @VERSION where that is possible
    pub key: String,
}

#[derive(Debug, Subcommand)]
pub enum DataKeyCommand {
    /// Make a data key
    Generate {
        /// Name or id, with @VERSION for another than the current version
        #[arg(long, value_name = "KEY")]
        key: String,
        /// Algorithm of the data key; by default that of the key
        #[arg(long, value_parser = parse_data_key_algorithm, value_name = "SPEC")]
        spec: Option<AeadAlgorithm>,
        #[command(flatten)]
        context: ContextArguments,
        #[command(flatten)]
        recipient: RecipientArguments,
        /// Only the encrypted data key
        #[arg(long, conflicts_with_all = ["out_plaintext", "recipient"])]
        without_plaintext: bool,
        /// Write the encrypted data key to this new file
        #[arg(long, value_name = "FILE")]
        out_ciphertext: Option<PathBuf>,
        /// Write the data key to this new file, open to you alone, and do not print it
        #[arg(long, value_name = "FILE", conflicts_with = "recipient")]
        out_plaintext: Option<PathBuf>,
    },
    /// Decrypt a data key
    Decrypt {
        /// File with the encrypted data key; - for the standard input
        #[arg(long = "in", value_name = "FILE")]
        input: PathBuf,
        #[command(flatten)]
        context: ContextArguments,
        /// Refuse when another key had encrypted it
        #[arg(long, value_name = "KEY")]
        expected_key: Option<String>,
        #[command(flatten)]
        recipient: RecipientArguments,
        /// Write the data key to this new file, open to you alone, and do not print it
        #[arg(long, value_name = "FILE", conflicts_with = "recipient")]
        out_plaintext: Option<PathBuf>,
    },
    #[command(flatten)]
    Registered(RegisteredCommand),
}

#[derive(Debug, Subcommand)]
pub enum AsymmetricCommand {
    /// Encrypt a small file to the public half of a key pair
    Encrypt {
        /// Name or id, with @VERSION for another than the current version
        #[arg(long, value_name = "KEY")]
        key: String,
        /// File to read; - for the standard input
        #[arg(value_name = "IN")]
        source: PathBuf,
        /// Write the ciphertext to this new file and do not print it
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Decrypt what was encrypted to the public half of a key pair
    Decrypt {
        /// Name or id, with @VERSION for another than the current version
        #[arg(long, value_name = "KEY")]
        key: String,
        /// File with the ciphertext; - for the standard input
        #[arg(value_name = "IN")]
        source: PathBuf,
        /// Write the plaintext to this new file, open to you alone, and do not print it
        #[arg(long, value_name = "FILE")]
        out_plaintext: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub enum MacCommand {
    /// Make the MAC of a file of up to 64 KiB
    Generate {
        /// Name or id, with @VERSION for another than the current version
        #[arg(long, value_name = "KEY")]
        key: String,
        /// File to read; - for the standard input
        #[arg(value_name = "IN")]
        source: PathBuf,
        /// Write the MAC to this new file, open to you alone, and do not print it
        #[arg(long, value_name = "FILE")]
        out_mac: Option<PathBuf>,
    },
    /// Compare a MAC with that of a file; only exit code 0 says that it is the right one
    Verify {
        /// Name or id, with @VERSION for another than the current version
        #[arg(long, value_name = "KEY")]
        key: String,
        /// File to read; - for the standard input
        #[arg(value_name = "IN")]
        source: PathBuf,
        /// The MAC as it was printed
        #[arg(long, value_name = "BASE64", required_unless_present = "mac_file")]
        mac: Option<String>,
        /// File with the bytes of the MAC
        #[arg(long, value_name = "FILE", conflicts_with = "mac")]
        mac_file: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub struct SigningArguments {
    /// Name or id, with @VERSION for another than the current version
    #[arg(long, value_name = "KEY")]
    pub key: String,
    /// File to read; - for the standard input
    #[arg(value_name = "IN")]
    pub source: PathBuf,
    /// The file holds the digest of what is signed
    #[arg(long)]
    pub digest: bool,
    /// How; by default the one way of the pair, or rsa-pss-sha-256
    #[arg(long, value_name = "ALGORITHM", value_parser = parse_signature_algorithm)]
    pub algorithm: Option<SignatureAlgorithm>,
    /// The signer's ID of SM2; by default 1234567812345678
    #[arg(long, value_name = "ID")]
    pub user_id: Option<String>,
}

#[derive(Debug, Args)]
pub struct SignArguments {
    #[command(flatten)]
    pub signing: SigningArguments,
    /// Write the signature to this new file and do not print it
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct VerifyArguments {
    #[command(flatten)]
    pub signing: SigningArguments,
    /// The signature as it was printed
    #[arg(long, value_name = "BASE64", required_unless_present = "signature_file")]
    pub signature: Option<String>,
    /// File with the bytes of the signature
    #[arg(long, value_name = "FILE", conflicts_with = "signature")]
    pub signature_file: Option<PathBuf>,
}

fn parse_signature_algorithm(text: &str) -> Result<SignatureAlgorithm, String> {
    SignatureAlgorithm::from_name(text).ok_or_else(|| {
        let names: Vec<&str> = SignatureAlgorithm::ALL.into_iter().map(SignatureAlgorithm::name).collect();
        format!("is none of: {}", names.join(", "))
    })
}

#[derive(Debug, Args)]
pub struct RandomArguments {
    /// How many, 1 to 1024
    #[arg(long = "bytes", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub byte_count: u32,
    /// Write them to this new file, open to you alone, and do not print them
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ContextArguments {
    /// A pair of the encryption context; repeat for more
    #[arg(long = "context", value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub pairs: Vec<(String, String)>,
}

#[derive(Debug, Args)]
pub struct EncryptArguments {
    /// Name or id, with @VERSION for another than the current version
    #[arg(long, value_name = "KEY")]
    pub key: String,
    #[command(flatten)]
    pub context: ContextArguments,
    /// File to read; - for the standard input
    #[arg(value_name = "IN")]
    pub source: PathBuf,
    /// File to write; - for the standard output
    #[arg(value_name = "OUT")]
    pub destination: PathBuf,
}

#[derive(Debug, Args)]
pub struct DecryptArguments {
    #[command(flatten)]
    pub context: ContextArguments,
    /// Refuse when another key had encrypted it
    #[arg(long, value_name = "KEY")]
    pub expected_key: Option<String>,
    /// File to read; - for the standard input
    #[arg(value_name = "IN")]
    pub source: PathBuf,
    /// File to write; - for the standard output, which must be discarded when the command fails
    #[arg(value_name = "OUT")]
    pub destination: PathBuf,
}

#[derive(Debug, Args)]
pub struct ReencryptArguments {
    /// The new key: name or id, with @VERSION for another than the current version; by default the ciphertext's own key
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// A pair of the context that the ciphertext was made with; repeat for more
    #[arg(long = "context", value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub pairs: Vec<(String, String)>,
    /// A pair of the new context; repeat for more. By default the context stays
    #[arg(long = "new-context", value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub new_pairs: Vec<(String, String)>,
    /// The new ciphertext has no context
    #[arg(long, conflicts_with = "new_pairs")]
    pub without_new_context: bool,
    /// Refuse when another key had encrypted it
    #[arg(long, value_name = "KEY")]
    pub expected_key: Option<String>,
    /// Encrypted data key, or other ciphertext of the service; - for the standard input
    #[arg(value_name = "IN")]
    pub source: PathBuf,
    /// File to write; - for the standard output
    #[arg(value_name = "OUT")]
    pub destination: PathBuf,
}

#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// List records, oldest first
    List {
        /// Only records about this key (name or id)
        #[arg(long)]
        key: Option<String>,
        /// Only records of this actor (URI)
        #[arg(long, value_name = "URI")]
        actor: Option<String>,
        /// Only records from this time on, or not older than this (30s, 15m, 2h, 7d)
        #[arg(long, value_name = "RFC3339|DURATION", value_parser = parse_since)]
        since: Option<UnixMillis>,
        /// First index to look at
        #[arg(long, value_name = "INDEX", default_value_t = 0)]
        from: u64,
        /// Go on with new records as they come
        #[arg(long)]
        follow: bool,
        /// At most this many
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
        count: Option<u32>,
    },
    /// Show one record with its raw bytes and check that it is in the log
    Show {
        /// The record's index
        index: u64,
        /// Check the signature of the log's head with this bundle
        #[arg(long, value_name = "FILE")]
        bundle: Option<PathBuf>,
    },
    /// Verify the whole log, of the service or of an export file
    Verify {
        /// Bundle of the deployment; by default the profile's
        #[arg(long, value_name = "FILE")]
        bundle: Option<PathBuf>,
        /// Verify this export file; needs no service
        #[arg(long, value_name = "FILE", requires = "bundle")]
        export: Option<PathBuf>,
    },
    /// Write the whole log to an export file
    Export {
        /// File to write
        #[arg(value_name = "OUT")]
        destination: PathBuf,
    },
}

fn parse_spec(text: &str) -> Result<KeySpec, String> {
    KeySpec::from_name(text)
        .ok_or_else(|| format!("is none of: {}", KeySpec::ALL.map(KeySpec::name).join(", ")))
}

fn parse_usage(text: &str) -> Result<KeyUsage, String> {
    KeyUsage::from_name(text)
        .ok_or_else(|| format!("is none of: {}", KeyUsage::ALL.map(KeyUsage::name).join(", ")))
}

fn parse_state(text: &str) -> Result<KeyState, String> {
    KeyState::from_name(text)
        .ok_or_else(|| format!("is none of: {}", KeyState::ALL.map(KeyState::name).join(", ")))
}

fn parse_data_key_algorithm(text: &str) -> Result<AeadAlgorithm, String> {
    AeadAlgorithm::from_name(text)
        .ok_or_else(|| format!("is none of: {}", AeadAlgorithm::ALL.map(AeadAlgorithm::name).join(", ")))
}

fn parse_protection(text: &str) -> Result<Protection, String> {
    Protection::from_name(text).ok_or_else(|| "is none of: resident, wrapped".into())
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        None => Err("has no '='; a pair is KEY=VALUE".into()),
        Some(("", _)) => Err("has nothing before '='; a pair is KEY=VALUE".into()),
        Some((key, value)) => Ok((key.into(), value.into())),
    }
}

fn parse_since(text: &str) -> Result<UnixMillis, String> {
    parse_moment(text, |duration| SystemTime::now().checked_sub(duration))
}

fn parse_until(text: &str) -> Result<UnixMillis, String> {
    parse_moment(text, |duration| SystemTime::now().checked_add(duration))
}

/// A time as it stands, or what `at` makes of a duration.
fn parse_moment(text: &str, at: impl Fn(Duration) -> Option<SystemTime>) -> Result<UnixMillis, String> {
    const FORM: &str = "is neither a time like 2026-11-23T02:00:00Z nor a duration like 30s, 15m, 2h or 7d";
    let out_of_reach = || "is before 1970 or too far away".to_owned();
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        let millis = time.unix_timestamp_nanos() / 1_000_000;
        return u64::try_from(millis).map(UnixMillis).map_err(|_| out_of_reach());
    }
    let unit_at = text.len().checked_sub(1).filter(|at| text.is_char_boundary(*at)).ok_or(FORM)?;
    let (count, unit) = text.split_at(unit_at);
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(FORM.into()),
    };
    let count: u64 = count.parse().map_err(|_| FORM)?;
    let seconds = count.checked_mul(seconds).ok_or(FORM)?;
    let moment = at(Duration::from_secs(seconds))
        .and_then(|moment| moment.duration_since(UNIX_EPOCH).ok())
        .ok_or_else(out_of_reach)?;
    Ok(UnixMillis(moment.as_millis() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_has_no_contradictions() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_pair_without_key_or_sign_is_refused() {
        assert!(parse_pair("a").is_err());
        assert!(parse_pair("=b").is_err());
        assert_eq!(parse_pair("a="), Ok(("a".into(), String::new())));
        assert_eq!(parse_pair("a=b=c"), Ok(("a".into(), "b=c".into())));
    }

    #[test]
    fn a_moment_is_a_time_or_a_duration_before_now() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let ago = |duration| now.checked_sub(duration);
        assert_eq!(parse_moment("1970-01-01T00:00:01.5Z", ago), Ok(UnixMillis(1500)));
        assert_eq!(parse_moment("1970-01-01T01:00:00+01:00", ago), Ok(UnixMillis(0)));
        assert_eq!(parse_moment("30s", ago), Ok(UnixMillis(999_970_000)));
        assert_eq!(parse_moment("15m", ago), Ok(UnixMillis(999_100_000)));
        assert_eq!(parse_moment("2h", ago), Ok(UnixMillis(992_800_000)));
        assert_eq!(parse_moment("1d", ago), Ok(UnixMillis(913_600_000)));
        for wrong in ["", "s", "5", "5y", "-5m", "5é", "yesterday", "20d", "18446744073709551615d"] {
            assert!(parse_moment(wrong, ago).is_err(), "{wrong:?}");
        }
    }
}
