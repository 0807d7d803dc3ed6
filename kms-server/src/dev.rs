//! `kms-server dev`: a complete deployment in one folder, for development only.
//!
//! Everything is the real thing: the init ceremony, custodians with passphrases, a worker process, mutual
//! TLS. Only the people are missing, so their passphrases lie beside their shares.

use crate::config::Config;
use crate::run;
use anyhow::{Context, bail};
use clap::Args;
use kms_core::id::Principal;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long the first unseal may take.
const UNSEAL_MAX: Duration = Duration::from_secs(60);
const CUSTODIANS: [&str; 3] = ["custodian-1", "custodian-2", "custodian-3"];

/// Arguments of `kms-server dev`.
#[derive(Debug, Args)]
pub struct DevArguments {
    /// Folder for everything that is made
    #[arg(long, default_value = ".kms-dev")]
    state: PathBuf,
    /// Address for all gRPC services
    #[arg(long, default_value = "127.0.0.1:7443")]
    listen: SocketAddr,
    /// A PKCS#11 library; the project's own simulator by default
    #[arg(long)]
    module: Option<PathBuf>,
    /// sm or intl; by default sm on the simulator and intl on other modules
    #[arg(long)]
    suite: Option<String>,
    /// Do not unseal: wait for two custodians
    #[arg(long)]
    seal: bool,
}

/// What a state folder was made with; it is continued with the same.
#[derive(Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Made {
    module: PathBuf,
    suite: String,
}

/// Where things are in the state folder.
struct Layout {
    state: PathBuf,
}

impl Layout {
    fn path(&self, name: &str) -> PathBuf {
        self.state.join(name)
    }

    fn custodian(&self, name: &str, kind: &str) -> PathBuf {
        self.state.join("custodians").join(format!("{name}.{kind}"))
    }

    fn certificate(&self, name: &str, kind: &str) -> PathBuf {
        self.state.join("certificates").join(format!("{name}.{kind}"))
    }
}

/// Runs the development deployment until it is told to end.
///
/// # Errors
/// A sentence for the developer.
pub fn run<S, F>(
    arguments: &DevArguments,
    runtime: tokio::runtime::Runtime,
    shutdown_signal: S,
) -> anyhow::Result<()>
where
    S: FnOnce() -> anyhow::Result<F>,
    F: Future<Output = ()>,
{
    crate::random::move_clock_ahead();
    let state = std::path::absolute(&arguments.state)?;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&state)
        .with_context(|| format!("{} cannot be created", state.display()))?;
    let layout = Layout { state };
    let made = wanted(arguments, &layout)?;
    let environment = token_environment(&layout, &made)?;
    if std::env::var_os(environment.0).as_deref() != Some(environment.1.as_os_str()) {
        // The PKCS#11 library reads its variable in this process. A variable cannot be set safely once
        // threads run, so the process starts itself again with it.
        let failed = Command::new(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .env(environment.0, &environment.1)
            .exec();
        return Err(failed).context("kms-server cannot start itself again");
    }
    if !layout.path("made.toml").exists() {
        make(&layout, &made, arguments.listen).context("the development deployment could not be made")?;
    }
    write_config(&layout, &made, arguments.listen)?;
    let mut config = Config::load(&layout.path("kms.toml"))?;
    // Nobody waits an hour in development.
    config.keys.destruction_delay_seconds = 0;
    config.log.filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".into());
    crate::telemetry::start_log(&config.log)?;
    runtime.block_on(async {
        let shutdown = shutdown_signal()?;
        let (listening, is_listening) = tokio::sync::oneshot::channel();
        let served = run::serve(
            config,
            |node| {
                let _ = listening.send(node.clone());
            },
            shutdown,
        );
        let greeting = async {
            if let Ok(node) = is_listening.await {
                let greeted = greet(&layout, &made, arguments, &node).await;
                if let Err(error) = greeted {
                    eprintln!("error: {error:#}");
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            served = served => served.map_err(anyhow::Error::from),
            () = greeting => Ok(()),
        }
    })
}

/// The `kms-ceremony` command inside this program, so that `dev` needs no second one.
pub fn ceremony(arguments: Vec<std::ffi::OsString>) -> std::process::ExitCode {
    ceremonies::cli::main_from(std::iter::once("kms-ceremony".into()).chain(arguments))
}

fn wanted(arguments: &DevArguments, layout: &Layout) -> anyhow::Result<Made> {
    let marker = layout.path("made.toml");
    let default_module = || -> anyhow::Result<PathBuf> {
        match &arguments.module {
            Some(module) => fs::canonicalize(module)
                .with_context(|| format!("--module {} cannot be found", module.display())),
            None => simulator(),
        }
    };
    if marker.exists() {
        let made: Made = toml::from_str(&fs::read_to_string(&marker)?)?;
        let is_other_module = arguments.module.is_some() && default_module()? != made.module;
        let is_other_suite = arguments.suite.as_ref().is_some_and(|suite| *suite != made.suite);
        if is_other_module || is_other_suite {
            bail!(
                "{} was made with --module {} --suite {}; leave them out or choose another --state",
                layout.state.display(),
                made.module.display(),
                made.suite
            );
        }
        return Ok(made);
    }
    if fs::read_dir(&layout.state)?.next().is_some() {
        bail!(
            "{} is not empty and holds no finished development deployment; remove it or choose another --state",
            layout.state.display()
        );
    }
    let suite = match (&arguments.suite, &arguments.module) {
        (Some(suite), _) if suite == "sm" || suite == "intl" => suite.clone(),
        (Some(suite), _) => bail!("--suite is {suite}; sm or intl are allowed"),
        (None, None) => "sm".into(),
        (None, Some(_)) => "intl".into(),
    };
    Ok(Made { module: default_module()?, suite })
}

/// The simulator that was built together with this program.
fn simulator() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let folder = program.parent().context("this program is in no folder")?;
    let name = hsm_sim::module_file_name();
    [folder.join("deps").join(name), folder.join(name)]
        .into_iter()
        .find(|path| path.exists())
        .with_context(|| format!("{name} is not beside {}; build with cargo", program.display()))
}

/// Gives the token store of this state folder to the PKCS#11 library.
fn token_environment(layout: &Layout, made: &Made) -> anyhow::Result<(&'static str, PathBuf)> {
    let file = made.module.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if file == hsm_sim::module_file_name() {
        return Ok((hsm_sim::DIRECTORY_VARIABLE, layout.path("tokens")));
    }
    if !file.contains("softhsm") {
        bail!("dev knows the simulator and SoftHSM; {file} is another module: use kms-server run");
    }
    Ok(("SOFTHSM2_CONF", layout.path("softhsm2.conf")))
}

fn private_file(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("{} cannot be created", path.display()))?;
    file.write_all(content)?;
    Ok(file.sync_all()?)
}

fn principals() -> Vec<(&'static str, String)> {
    let mut all = vec![
        ("admin", "kms://default/administrator/admin".to_owned()),
        ("app", "kms://default/operator/app".to_owned()),
        ("auditor", "kms://default/auditor/auditor".to_owned()),
    ];
    all.extend(CUSTODIANS.map(|name| (name, format!("kms://default/custodian/{name}"))));
    all
}

/// Makes everything, in the order in which people would.
fn make(layout: &Layout, made: &Made, listen: SocketAddr) -> anyhow::Result<()> {
    eprintln!("making a development deployment in {} ...", layout.state.display());
    for folder in ["tokens", "certificates", "custodians", "ceremony", "node"] {
        fs::create_dir(layout.path(folder))?;
    }
    let tokens = layout.path("tokens");
    let conf = format!(
        "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
        tokens.display()
    );
    private_file(&layout.path("softhsm2.conf"), conf.as_bytes())?;
    make_certificates(layout, listen)?;

    let program = std::env::current_exe()?;
    let run = |arguments: &[&std::ffi::OsStr]| -> anyhow::Result<String> {
        let output = Command::new(&program).args(arguments).stdin(Stdio::null()).output()?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let node_key = layout.path("node/node.key");
    let public_key = run(&[
        "node-key".as_ref(),
        "--suite".as_ref(),
        made.suite.as_ref(),
        "--out".as_ref(),
        node_key.as_ref(),
    ])?;

    let custodians = layout.path("custodians");
    for name in CUSTODIANS {
        let passphrase = kms_core::suite::Suite::Intl
            .hash(&[&crate::random::random_id(), &crate::random::random_id()])
            .to_hex();
        private_file(&layout.custodian(name, "passphrase"), passphrase.as_bytes())?;
        run(&[
            "ceremony".as_ref(),
            "enroll".as_ref(),
            "--name".as_ref(),
            name.as_ref(),
            "--suite".as_ref(),
            made.suite.as_ref(),
            "--out".as_ref(),
            custodians.as_ref(),
            "--passphrase-file".as_ref(),
            layout.custodian(name, "passphrase").as_ref(),
        ])?;
    }
    private_file(&layout.path("ceremony/plan.toml"), plan(layout, made, &public_key).as_bytes())?;
    let (plan, out) = (layout.path("ceremony/plan.toml"), layout.path("ceremony"));
    run(&[
        "ceremony".as_ref(),
        "init".as_ref(),
        "--plan".as_ref(),
        plan.as_ref(),
        "--out".as_ref(),
        out.as_ref(),
    ])?;
    let bundle = layout.path("ceremony/bundle.kms");
    for name in CUSTODIANS {
        run(&[
            "ceremony".as_ref(),
            "share".as_ref(),
            "accept".as_ref(),
            "--delivery".as_ref(),
            layout.path(&format!("ceremony/{name}.delivery")).as_ref(),
            "--identity".as_ref(),
            layout.custodian(name, "identity").as_ref(),
            "--bundle".as_ref(),
            bundle.as_ref(),
            "--out".as_ref(),
            custodians.as_ref(),
            "--passphrase-file".as_ref(),
            layout.custodian(name, "passphrase").as_ref(),
            "--share-passphrase-file".as_ref(),
            layout.custodian(name, "passphrase").as_ref(),
        ])?;
    }
    write_config(layout, made, listen)?;
    let config = layout.path("kms.toml");
    run(&["init".as_ref(), "--config".as_ref(), config.as_ref()])?;
    // The marker comes last: without it the folder is not a deployment.
    private_file(&layout.path("made.toml"), toml::to_string(made)?.as_bytes())
}

fn plan(layout: &Layout, made: &Made, node_public_key: &str) -> String {
    let mut principals: Vec<String> = principals().into_iter().map(|(_, uri)| format!("{uri:?}")).collect();
    principals.sort();
    let custodians: String = CUSTODIANS
        .map(|name| format!("[[custodian]]\nenrolment = {:?}\n\n", layout.custodian(name, "enrolment")))
        .concat();
    format!(
        "# The plan of the development deployment.\n\
         cluster = \"dev\"\nsuite = {:?}\nthreshold = 2\nprincipals = [{}]\n\n\
         [module]\npath = {:?}\nprofile = \"auto\"\n\n\
         [operations]\nlabel = \"kms-operations\"\n\n[core]\nlabel = \"kms-core\"\n\n\
         {custodians}[[node]]\nname = \"node-1\"\npublic_key = {node_public_key:?}\n",
        made.suite,
        principals.join(", "),
        made.module,
    )
}

fn write_config(layout: &Layout, made: &Made, listen: SocketAddr) -> anyhow::Result<()> {
    let program = std::env::current_exe()?;
    let text = format!(
        "# Written by `kms-server dev` at every start.\n\
         node = \"node-1\"\nstate_dir = \"node\"\nbundle = \"ceremony/bundle.kms\"\nnode_key = \"node/node.key\"\n\n\
         [listen]\napplications = \"{listen}\"\nadministration = \"{listen}\"\nmetrics = \"{metrics}\"\n\n\
         [tls]\ncertificate = \"certificates/server.pem\"\nkey = \"certificates/server.key\"\n\
         client_ca = \"certificates/ca.pem\"\n\n\
         [database]\nurl = \"sqlite:kms.db\"\n\n\
         [hsm]\nmodule = {module:?}\nprofile = \"auto\"\n\n\
         [ceremony]\nworker = [{program:?}, \"ceremony\", \"worker\"]\n",
        metrics = SocketAddr::new(listen.ip(), if listen.port() == 0 { 0 } else { listen.port() + 1 }),
        module = made.module,
    );
    fs::write(layout.path("kms.toml"), text)?;
    Ok(())
}

fn make_certificates(layout: &Layout, listen: SocketAddr) -> anyhow::Result<()> {
    let named = |name: &str| {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.not_before = rcgen::date_time_ymd(2026, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2046, 1, 1);
        parameters
    };
    let mut authority = named("kms development authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    private_file(&layout.certificate("ca", "pem"), authority.pem().as_bytes())?;
    private_file(&layout.certificate("ca", "key"), authority.key().serialize_pem().as_bytes())?;

    let issue = |name: &str, parameters: CertificateParams| -> anyhow::Result<()> {
        let key = KeyPair::generate()?;
        let certificate = parameters.signed_by(&key, &authority)?;
        private_file(&layout.certificate(name, "pem"), certificate.pem().as_bytes())?;
        private_file(&layout.certificate(name, "key"), key.serialize_pem().as_bytes())
    };
    let mut server = named("kms development server");
    server.subject_alt_names = vec![
        SanType::DnsName(Ia5String::try_from("localhost")?),
        SanType::IpAddress(listen.ip()),
        SanType::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()),
    ];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    issue("server", server)?;
    for (name, uri) in principals() {
        Principal::parse(&uri)?;
        let mut client = named(name);
        client.subject_alt_names = vec![SanType::URI(Ia5String::try_from(uri)?)];
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        issue(name, client)?;
    }
    Ok(())
}

/// Called once the addresses are bound: profiles, the first unseal, and what to try next.
async fn greet(
    layout: &Layout,
    made: &Made,
    arguments: &DevArguments,
    node: &crate::service::Node,
) -> anyhow::Result<()> {
    let profiles = layout.path("profiles");
    fs::create_dir_all(&profiles)?;
    for (name, _) in principals() {
        let text = format!(
            "endpoint = \"https://{}\"\nserver_ca = {:?}\ncertificate = {:?}\nkey = {:?}\nbundle = {:?}\n",
            arguments.listen,
            layout.certificate("ca", "pem"),
            layout.certificate(name, "pem"),
            layout.certificate(name, "key"),
            layout.path("ceremony/bundle.kms"),
        );
        // Written beside and renamed, so that whoever waits for the file finds all of it.
        let beside = profiles.join(format!(".{name}.toml"));
        fs::write(&beside, text)?;
        fs::rename(&beside, profiles.join(format!("{name}.toml")))?;
    }
    if !arguments.seal {
        unseal(layout, node).await?;
    }
    let shown = arguments.state.display();
    let state = if arguments.seal { "SEALED: two custodians must open it" } else { "ready" };
    println!();
    println!("================ FOR DEVELOPMENT ONLY: every secret lies in {shown} ================");
    println!("kms-server dev is {state}");
    println!("  address  https://{}", arguments.listen);
    println!("  suite    {}", made.suite);
    println!("  module   {}", made.module.display());
    println!();
    println!("try next, in another terminal:");
    if arguments.seal {
        for name in &CUSTODIANS[..2] {
            println!("  target/release/kms-ceremony unseal --profile {shown}/profiles/{name}.toml \\");
            println!(
                "    --share {shown}/custodians/{name}.share --identity {shown}/custodians/{name}.identity \\"
            );
            println!("    --bundle {shown}/ceremony/bundle.kms \\");
            println!("    --passphrase-file {shown}/custodians/{name}.passphrase \\");
            println!("    --share-passphrase-file {shown}/custodians/{name}.passphrase");
        }
    } else {
        println!("  cargo build --release --bin kms --bin kms-ceremony");
        println!("  target/release/kms --profile {shown}/profiles/admin.toml key create payroll --spec sm4");
        println!(
            "  target/release/kms --profile {shown}/profiles/app.toml encrypt --key payroll README.md README.kms"
        );
        println!("  target/release/kms --profile {shown}/profiles/auditor.toml audit verify");
    }
    println!("Ctrl-C ends it; started again it continues.");
    std::io::stdout().flush()?;
    Ok(())
}

/// Two of the three custodians open the service, each with the real tool in a process of its own.
async fn unseal(layout: &Layout, node: &crate::service::Node) -> anyhow::Result<()> {
    let program = std::env::current_exe()?;
    let mut tools = Vec::new();
    for name in &CUSTODIANS[..2] {
        let tool = tokio::process::Command::new(&program)
            .args(["ceremony", "unseal", "--profile"])
            .arg(layout.path(&format!("profiles/{name}.toml")))
            .arg("--share")
            .arg(layout.custodian(name, "share"))
            .arg("--identity")
            .arg(layout.custodian(name, "identity"))
            .arg("--bundle")
            .arg(layout.path("ceremony/bundle.kms"))
            .arg("--passphrase-file")
            .arg(layout.custodian(name, "passphrase"))
            .arg("--share-passphrase-file")
            .arg(layout.custodian(name, "passphrase"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        tools.push(tool);
    }
    let start = Instant::now();
    let mut said = String::new();
    for tool in tools {
        let left = UNSEAL_MAX.saturating_sub(start.elapsed());
        let output = tokio::time::timeout(left, tool.wait_with_output())
            .await
            .context("the custodians did not open the service in time")??;
        if !output.status.success() {
            said.push_str(&String::from_utf8_lossy(&output.stderr));
        }
    }
    if node.opened().is_none() {
        bail!("the service stays sealed, because {}\n{}", node.sealed_because(), said.trim());
    }
    Ok(())
}
