//! The `kms-server` command.

use anyhow::Context;
use clap::{Parser, Subcommand};
use kms_core::asymmetric::PrivateKey;
use kms_core::codec;
use kms_core::node_key::NodeKeyFile;
use kms_core::suite::Suite;
use kms_server::config::Config;
use kms_server::random::system_rng;
use kms_server::{check_hsm, run, telemetry};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::ExitCode;

/// Freed memory is wiped, so that plaintexts do not stay in buffers of the libraries.
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<std::alloc::System> =
    zeroizing_alloc::ZeroAlloc(std::alloc::System);

/// Key management server in front of a PKCS#11 HSM.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make this node's private key and print the public key for the plan of the init ceremony
    NodeKey {
        /// sm or intl
        #[arg(long)]
        suite: String,
        /// The file to create
        #[arg(long)]
        out: PathBuf,
    },
    /// Create the database of a deployment; whatever exists already is left as it is
    Init {
        /// The configuration
        #[arg(long)]
        config: PathBuf,
        /// The bundle of the init ceremony; the configured one by default
        #[arg(long)]
        bundle: Option<PathBuf>,
    },
    /// Run the server; it starts sealed and creates nothing
    Run {
        /// The configuration
        #[arg(long)]
        config: PathBuf,
    },
    /// Check the configuration and every file that it names, without HSM, database or ports
    CheckConfig {
        /// The configuration
        #[arg(long)]
        config: PathBuf,
    },
    /// Show what the configured HSM can do, without a PIN: tokens, mechanisms, which keys will be resident
    CheckHsm {
        /// The configuration
        #[arg(long)]
        config: PathBuf,
        /// How to print
        #[arg(long, value_enum, default_value = "table")]
        output: OutputFormat,
    },
    /// A complete deployment in one folder, for development only
    #[cfg(feature = "dev")]
    Dev(kms_server::dev::DevArguments),
    /// The kms-ceremony command, for `dev`
    #[cfg(feature = "dev")]
    #[command(hide = true)]
    Ceremony {
        /// Arguments of kms-ceremony
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
    /// Names of the steps at which KMS_CRASH_AT can stop a test build
    #[cfg(feature = "dev")]
    #[command(hide = true)]
    CrashSteps,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum OutputFormat {
    Table,
    Json,
}

fn main() -> ExitCode {
    // No core dumps and no ptrace by other users of the same account: both would show keys.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let arguments = Arguments::parse();
    #[cfg(feature = "dev")]
    if let Command::Ceremony { arguments } = arguments.command {
        return kms_server::dev::ceremony(arguments);
    }
    match execute(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// How long a process that ends waits for threads inside the HSM's driver.
const DRIVER_WAIT: std::time::Duration = std::time::Duration::from_secs(5);

fn execute(command: Command) -> anyhow::Result<()> {
    match command {
        Command::NodeKey { suite, out } => node_key(&suite, &out),
        Command::Init { config, bundle } => {
            let config = Config::load(&config)?;
            let bundle = bundle.unwrap_or_else(|| config.bundle.clone());
            let loaded = runtime()?.block_on(run::init(&config, &bundle))?;
            println!("created the database of {}", loaded.bundle.cluster_name);
            println!("bundle {}", loaded.signed.fingerprint(loaded.bundle.suite));
            println!("next: kms-server run --config FILE");
            Ok(())
        }
        Command::Run { config } => {
            let config = Config::load(&config)?;
            telemetry::start_log(&config.log).context("log.filter is not valid")?;
            let runtime = runtime()?;
            let ended = runtime.block_on(async {
                let shutdown = shutdown_signal()?;
                run::serve(config, |_| {}, shutdown).await.map_err(anyhow::Error::from)
            });
            // A call that hangs in the HSM's driver must not keep the process.
            runtime.shutdown_timeout(DRIVER_WAIT);
            ended
        }
        Command::CheckConfig { config } => {
            let config = Config::load(&config)?;
            let loaded = run::check(&config)?;
            println!("the configuration is valid");
            println!("bundle {}", loaded.signed.fingerprint(loaded.bundle.suite));
            Ok(())
        }
        Command::CheckHsm { config, output } => {
            let report = check_hsm::check(&Config::load(&config)?)?;
            match output {
                OutputFormat::Table => print!("{report}"),
                OutputFormat::Json => println!("{}", report.to_json()),
            }
            let faults = report.faults().join("; ");
            anyhow::ensure!(faults.is_empty(), "the HSM cannot be used: {faults}");
            Ok(())
        }
        #[cfg(feature = "dev")]
        Command::Dev(arguments) => kms_server::dev::run(&arguments, runtime()?, shutdown_signal),
        #[cfg(feature = "dev")]
        Command::Ceremony { .. } => unreachable!("handled before the runtime starts"),
        #[cfg(feature = "dev")]
        Command::CrashSteps => {
            kms_server::crash::step_names().iter().for_each(|name| println!("{name}"));
            Ok(())
        }
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no threads can be started")
}

/// Completes on SIGTERM or Ctrl-C.
fn shutdown_signal() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be handled")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be handled")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

fn node_key(suite: &str, out: &PathBuf) -> anyhow::Result<()> {
    let suite = Suite::from_name(suite).context("--suite must be sm or intl")?;
    let key = PrivateKey::generate(suite, &mut system_rng());
    let text = zeroize::Zeroizing::new(codec::to_armour(&NodeKeyFile::of(&key)));
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(out)
        .with_context(|| format!("{} cannot be created", out.display()))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    let public: String = key.public_key().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    println!("{public}");
    Ok(())
}
