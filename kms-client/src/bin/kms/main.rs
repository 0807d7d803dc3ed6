//! `kms`: uses and administers keys from the command line (docs/cli.md).

mod alias;
mod args;
mod asymmetric;
mod audit;
mod csr;
mod data_key;
mod data_key_pair;
mod destruction;
mod file;
mod imports;
mod key;
mod mac;
mod manual;
mod output;
mod pending;
mod raw;
mod recipient;
mod reencrypt;
mod registered;
mod sign;
mod status;

use args::{Arguments, Command};
use clap::Parser;
use kms_client::{Client, Profile};
use kms_core::context::EncryptionContext;
use kms_core::id::KeyRef;
use output::{EXIT_USAGE, Failure, Output};
use std::alloc::System;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use zeroizing_alloc::ZeroAlloc;

/// Wipes all memory that is given back: the transport's buffers see data keys and know nothing of secrets.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

/// What every command needs to reach the service.
struct Session {
    profile: Option<PathBuf>,
    endpoint: Option<String>,
    deadline: Duration,
    output: Output,
}

impl Session {
    fn profile(&self) -> Result<Profile, Failure> {
        let Some(path) = &self.profile else {
            let mut failure = Failure::new(
                "no profile is named: give --profile FILE, or set KMS_PROFILE to the path of the file",
                "kms --profile FILE status",
            );
            failure.exit = EXIT_USAGE;
            return Err(failure);
        };
        let profile = Profile::load(path)?;
        match &self.endpoint {
            Some(endpoint) => Ok(profile.at(endpoint)?),
            None => Ok(profile),
        }
    }

    async fn connect(&self) -> Result<Client, Failure> {
        Ok(Client::builder(&self.profile()?).deadline(self.deadline).connect().await?)
    }
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // clap's own code for a wrong command line is 2, which here says that the service is sealed.
            let code = if error.use_stderr() { EXIT_USAGE } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let session = Session {
        profile: arguments.profile,
        endpoint: arguments.endpoint,
        deadline: Duration::from_secs(arguments.timeout),
        output: Output { format: arguments.output },
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            Failure::new(format!("the program cannot start: {error}"), "kms --version")
                .print(arguments.output);
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(&session, arguments.command)) {
        Ok(code) => code,
        Err(failure) => {
            if failure.exit != output::EXIT_READER_GONE {
                failure.print(arguments.output);
            }
            ExitCode::from(failure.exit)
        }
    }
}

async fn run(session: &Session, command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Status { wait } => return status::status(session, wait.map(Duration::from_secs)).await,
        Command::Whoami => status::whoami(session).await?,
        Command::Seal => status::seal(session).await?,
        Command::Key(command) => key::run(session, command).await?,
        Command::Alias(command) => alias::run(session, command).await?,
        Command::DataKey(command) => data_key::run(session, command).await?,
        Command::DataKeyPair(command) => data_key_pair::run(session, command).await?,
        Command::Encrypt(arguments) => file::encrypt(session, arguments).await?,
        Command::Decrypt(arguments) => file::decrypt(session, arguments).await?,
        Command::Asymmetric(command) => asymmetric::run(session, command).await?,
        Command::Reencrypt(arguments) => reencrypt::run(session, arguments).await?,
        Command::Mac(command) => mac::run(session, command).await?,
        Command::RawEncrypt(arguments) => raw::encrypt(session, arguments).await?,
        Command::RawDecrypt(arguments) => raw::decrypt(session, arguments).await?,
        Command::Sign(arguments) => sign::sign(session, arguments).await?,
        Command::Verify(arguments) => sign::verify(session, arguments).await?,
        Command::Random(arguments) => mac::random(session, arguments).await?,
        Command::Audit(command) => audit::run(session, command).await?,
        Command::Completions { shell } => manual::completions(shell)?,
        Command::Man { out } => manual::pages(out.as_deref())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn key_reference(text: &str) -> Result<KeyRef, Failure> {
    KeyRef::parse(text).map_err(|error| Failure::field("key", error, "kms key list"))
}

fn expected_key(text: Option<&str>) -> Result<Option<KeyRef>, Failure> {
    text.map(KeyRef::parse).transpose().map_err(|error| Failure::field("expected_key", error, "kms key list"))
}

fn context(pairs: Vec<(String, String)>) -> Result<EncryptionContext, Failure> {
    EncryptionContext::new(pairs).map_err(|error| Failure::field("context", error, "kms encrypt --help"))
}

/// The id of the key that a ciphertext of the service names, for the next command after a refusal.
fn named_key(ciphertext: &[u8]) -> String {
    match kms_core::envelope::open(ciphertext) {
        Ok(ciphertext) => ciphertext.header.key_id.to_string(),
        Err(_) => "KEY".to_owned(),
    }
}
