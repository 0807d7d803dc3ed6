//! A reshare of a deployment that is in use: a custodian who lost everything enrols again, and everybody has new shares.

use kms_core::bundle::SignedBundle;
use kms_core::codec;
use kms_tests::{Deployment, Module, Options, audit};
use std::fs;
use std::path::PathBuf;

const PEOPLE: [&str; 3] = ["custodian-1", "custodian-2", "custodian-3"];

fn new_identity(name: &str) -> String {
    // Custodian 3 has lost identity and share.
    match name {
        "custodian-3" => "again".to_owned(),
        _ => ".kms-dev/custodians".to_owned(),
    }
}

fn present(people: &[(&str, &[&str])]) -> String {
    let mut options = String::new();
    for (name, folders) in people {
        let identity = new_identity(name);
        options.push_str(&format!(
            " --identity {identity}/{name}.identity --passphrase-file .kms-dev/custodians/{name}.passphrase"
        ));
        for folder in *folders {
            options.push_str(&format!(
                " --share {folder}/{name}.share --share-passphrase-file .kms-dev/custodians/{name}.passphrase"
            ));
        }
    }
    options
}

fn reshare(options: Options) {
    const OLD: &str = ".kms-dev/custodians";
    const BUNDLE: &str = ".kms-dev/ceremony/bundle.kms";
    let deployment = Deployment::start(options);
    let folder = deployment.folder().to_owned();
    let path = |name: &str| folder.join(name);
    deployment
        .kms("admin", &["key", "create", "payroll", "--spec", "aes-256", "--protection", "wrapped"])
        .done();
    deployment
        .kms("admin", &["key", "create", "resident", "--spec", "aes-256", "--protection", "resident"])
        .done();
    fs::write(path("salaries.txt"), "who earns what").expect("writes");
    for key in ["payroll", "resident"] {
        deployment.kms("app", &["encrypt", "--key", key, "salaries.txt", &format!("{key}.kms")]).done();
    }
    let module = codec::open_armour::<SignedBundle>(&fs::read(deployment.bundle_file()).expect("reads"));
    let before = module.expect("a bundle").verify().expect("signed");
    assert!(deployment.terminate().success());

    let ceremony = |arguments: &str| {
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        deployment.offline_ceremony(&arguments)
    };
    let suite = before.suite.name();
    ceremony(&format!(
        "enroll --name custodian-3 --suite {suite} --out again --passphrase-file {OLD}/custodian-3.passphrase"
    ))
    .done();
    let library: toml::Table =
        toml::from_str(&fs::read_to_string(deployment.state("made.toml")).expect("reads")).expect("TOML");
    let mut plan = format!(
        "threshold = 2\nreason = \"custodian 3 has lost the share\"\n[module]\npath = {}\nprofile = \"auto\"\n",
        library["module"]
    );
    for name in PEOPLE {
        plan.push_str(&format!("[[custodian]]\nenrolment = \"{}/{name}.enrolment\"\n", new_identity(name)));
    }
    fs::write(path("reshare.toml"), plan).expect("writes");
    let common = format!("--plan reshare.toml --bundle {BUNDLE}");
    let two = present(&[("custodian-1", &[OLD]), ("custodian-2", &[OLD])]);
    ceremony(&format!("reshare prepare {common} --out next{two}")).done();
    let mut acknowledged = String::new();
    for name in PEOPLE {
        let identity = new_identity(name);
        ceremony(&format!(
            "share accept --delivery next/{name}.delivery --identity {identity}/{name}.identity \
             --bundle next/bundle.kms --out shares --passphrase-file {OLD}/{name}.passphrase \
             --share-passphrase-file {OLD}/{name}.passphrase"
        ))
        .done();
        acknowledged.push_str(&format!(" --acknowledgement shares/{name}.acknowledgement"));
    }
    // What is prepared changes nothing: the old shares start the service.
    deployment.start_again();
    deployment.kms("app", &["decrypt", "payroll.kms", "between.txt"]).done();
    assert!(deployment.terminate().success());

    let both =
        present(&[("custodian-1", &[OLD, "shares"]), ("custodian-2", &[OLD]), ("custodian-3", &["shares"])]);
    ceremony(&format!("reshare finish {common} --folder next{both}{acknowledged}")).done();

    let install = |from: PathBuf, to: PathBuf| {
        fs::rename(&to, to.with_extension("old")).expect("is there");
        fs::copy(from, to).expect("copies");
    };
    install(path("next/bundle.kms"), path(BUNDLE));
    for name in PEOPLE {
        install(path(&format!("shares/{name}.share")), path(&format!("{OLD}/{name}.share")));
    }
    install(path("again/custodian-3.identity"), path(&format!("{OLD}/custodian-3.identity")));
    deployment.start_again();
    for key in ["payroll", "resident"] {
        let back = format!("{key}.txt");
        deployment.kms("app", &["decrypt", &format!("{key}.kms"), &back]).done();
        assert_eq!(fs::read(path(&back)).expect("decrypted"), b"who earns what");
    }
    // Somebody "left" with the lost identity, so there is a second version of the master key, and it seals.
    let after = deployment.bundle();
    assert_eq!(after.master_keys.len(), 2);
    deployment
        .kms("admin", &["key", "create", "later", "--spec", "aes-256", "--protection", "wrapped"])
        .done();
    deployment.kms("admin", &["key", "rotate", "payroll"]).done();
    deployment.kms("app", &["encrypt", "--key", "later", "salaries.txt", "later.kms"]).done();

    deployment.kms("admin", &["seal"]).done();
    let mut old_share = deployment.as_custodian(&["unseal", "--wait", "5"], "custodian-1");
    let share = old_share.iter().position(|option| option == "--share").expect("is there") + 1;
    old_share[share] = path(&format!("{OLD}/custodian-1.old")).into();
    deployment.ceremony(&old_share).ended_with(1).says("another deployment or share epoch");
    deployment.unseal();
    deployment.kms("app", &["decrypt", "later.kms", "later.txt"]).done();
    audit::verify(&deployment);
    assert!(deployment.terminate().success());
}

#[test]
fn after_a_reshare_everything_decrypts_and_the_old_shares_open_nothing_on_the_simulator() {
    reshare(Options::default());
}

#[test]
fn after_a_reshare_everything_decrypts_and_the_old_shares_open_nothing_on_softhsm() {
    let suite = kms_core::suite::Suite::Intl;
    reshare(Options { module: Module::SoftHsm, suite, ..Options::default() });
}
