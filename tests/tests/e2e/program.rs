//! The README's program against a real deployment.

use kms_tests::command::Started;
use kms_tests::{Deployment, Options, audit, binaries};

#[test]
fn the_program_of_the_readme_encrypts_and_decrypts_with_one_data_key() {
    let program = binaries::folder().join("examples/cached");
    let how = "cargo build --release -p kms-client --examples";
    assert!(program.is_file(), "{} is not built; run: {how}", program.display());
    let deployment = Deployment::start(Options::default());
    deployment.kms("admin", &["key", "create", "payroll", "--spec", "sm4"]).done();
    let environment = [("KMS_PROFILE".into(), deployment.state("profiles").join("app.toml").into())];
    let said = Started::with_environment::<&str>(&program, &[], deployment.folder(), &environment);
    assert_eq!(said.finish().done(), "CacheCounts { entry_count: 2, hit_count: 2, miss_count: 2 }\n");
    let summary = audit::verify(&deployment);
    for event in ["data_key.generate", "data_key.decrypt"] {
        assert_eq!(summary["events"][event]["done"], 1, "two rows cost one call each way: {summary}");
    }
}
