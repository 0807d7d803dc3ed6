//! Registered data keys.

use super::{RecipientArguments, parse_data_key_algorithm};
use clap::Subcommand;
use kms_core::data_key::ROTATION_DAYS_MAX;
use kms_core::suite::AeadAlgorithm;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub enum RegisteredCommand {
    /// Make a data key that the service keeps under a name
    Create {
        /// 1 to 64 lower-case letters, digits, '.', '_', '-'; taken for good
        name: String,
        /// Name or id of the key that it is encrypted under
        #[arg(long, value_name = "KEY")]
        key: String,
        /// Algorithm of the data key; by default that of the key
        #[arg(long, value_parser = parse_data_key_algorithm, value_name = "SPEC")]
        spec: Option<AeadAlgorithm>,
        /// How old the current version becomes before the service makes the next one; 0 for any age
        #[arg(long, value_name = "DAYS", default_value_t = 0,
              value_parser = clap::value_parser!(u32).range(0..=i64::from(ROTATION_DAYS_MAX)))]
        rotation_period_days: u32,
        /// The same token with the same request gives the same data key for 24 hours
        #[arg(long, value_name = "TOKEN")]
        idempotency_token: Option<String>,
    },
    /// Take a data key that the service keeps
    Get {
        /// Name, with @VERSION for another than the current version
        name: String,
        #[command(flatten)]
        recipient: RecipientArguments,
        /// Write the data key to this new file, open to you alone, and do not print it
        #[arg(long, value_name = "FILE", conflicts_with = "recipient")]
        out_plaintext: Option<PathBuf>,
    },
    /// Show one with its versions
    Describe {
        /// Name
        name: String,
    },
    /// List them
    List,
    /// Make the next version; those before it stay
    Rotate {
        /// Name
        name: String,
        /// The same token with the same request rotates once within 24 hours
        #[arg(long, value_name = "TOKEN")]
        idempotency_token: Option<String>,
    },
    /// Have it given to nobody from now on
    Disable {
        /// Name, with @VERSION for that version alone
        name: String,
    },
    /// Have it given out again
    Enable {
        /// Name, with @VERSION for that version alone
        name: String,
    },
    /// Erase for good what has been disabled for 7 days
    Destroy {
        /// Name, with @VERSION for that version alone
        name: String,
    },
}
