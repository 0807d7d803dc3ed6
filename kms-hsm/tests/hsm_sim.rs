//! The contract of the HSM layer, on hsm-sim; and what only a double of hardware can be made to do.

mod contract;

use contract::{Device, Fixture, LABEL, USER_PIN, in_own_process, pin, raw, soon};
use kms_core::suite::Suite;
use kms_hsm::{ErrorClass, FailureReason, Health, HsmModule, ProfileChoice};
use std::path::{Path, PathBuf};
use std::process::Command;

struct HsmSim;

impl Device for HsmSim {
    fn module_path(&self) -> PathBuf {
        let executable = std::env::current_exe().expect("the test knows where it is");
        let directory = executable.parent().expect("a file is in a directory");
        let candidates = [Some(directory), directory.parent()];
        let found = candidates.into_iter().flatten().map(|one| one.join(hsm_sim::module_file_name()));
        let found: Vec<PathBuf> = found.filter(|path| path.exists()).collect();
        found
            .into_iter()
            .next()
            .unwrap_or_else(|| panic!("no hsm-sim library beside {}", executable.display()))
    }

    fn profile(&self) -> &'static str {
        "hsm-sim"
    }

    fn suites(&self) -> &'static [Suite] {
        &[Suite::Intl, Suite::Sm]
    }

    fn environment(&self, directory: &Path) -> (&'static str, PathBuf) {
        (hsm_sim::DIRECTORY_VARIABLE, directory.to_owned())
    }
}

contract::cases!(HsmSim);

/// Set for the process that changes the PIN.
const OTHER_PROCESS: &str = "KMS_HSM_CONTRACT_OTHER_PROCESS";
const NEW_PIN: &str = "operations-user-0002";

/// What a ceremony does to a service that is running. SoftHSM cannot show it: a process of its own that has
/// loaded a token goes on accepting the old PIN.
#[test]
fn a_pin_that_another_process_changed_is_tried_once_when_the_login_is_lost() {
    let name = "a_pin_that_another_process_changed_is_tried_once_when_the_login_is_lost";
    if std::env::var_os(OTHER_PROCESS).is_some() {
        let module = HsmModule::open(&HsmSim.module_path(), ProfileChoice::Auto).expect("the library loads");
        let token = module.find_token(LABEL).expect("the first process made the token");
        module.set_user_pin(&token, &pin(USER_PIN), &pin(NEW_PIN)).expect("the old PIN is right");
        return;
    }
    in_own_process(name, &HsmSim, |device| {
        let fixture = Fixture::new(device);
        let (pool, _) = fixture.pool();
        let status = || pool.call("status", soon(), |session| session.status());
        status().expect("the PIN is right");

        let executable = std::env::current_exe().expect("the test knows where it is");
        let other = Command::new(executable).args(["--exact", name]).env(OTHER_PROCESS, "1").output();
        assert!(other.expect("the process starts").status.success());
        // The login itself goes on: the token asks for a PIN only at the next one.
        status().expect("the login holds");
        assert_eq!(pool.health(), Health::Healthy);

        raw::session(&fixture).logout().expect("the process is logged in");
        assert_eq!(status().expect_err("the PIN is old").class(), ErrorClass::PinIncorrect);
        assert_eq!(pool.health(), Health::Failed { reason: FailureReason::PinIncorrect });
        let _ = pool.stop();
        fixture
            .module
            .open_partition(LABEL, &fixture.token.serial, pin(NEW_PIN))
            .expect("the new PIN is right");
    });
}
