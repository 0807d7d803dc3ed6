//! The contract of the HSM layer, on SoftHSM.

mod contract;

use contract::{Device, in_own_process};
use kms_core::mac::MacAlgorithm;
use kms_core::pair::{PairAlgorithm, PairUsage};
use kms_core::suite::{AeadAlgorithm, Suite};
use kms_hsm::ObjectKind;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

struct SoftHsm;

impl Device for SoftHsm {
    fn module_path(&self) -> PathBuf {
        let path = PathBuf::from("/usr/lib/softhsm/libsofthsm2.so");
        assert!(path.exists(), "SoftHSM is missing at {}; install it (Debian: softhsm2)", path.display());
        path
    }

    fn profile(&self) -> &'static str {
        "softhsm"
    }

    fn algorithms(&self) -> &'static [AeadAlgorithm] {
        &[AeadAlgorithm::Aes256Gcm, AeadAlgorithm::Aes128Gcm, AeadAlgorithm::Aes192Gcm]
    }

    fn macs(&self) -> &'static [MacAlgorithm] {
        &[MacAlgorithm::HmacSha256, MacAlgorithm::HmacSha384, MacAlgorithm::HmacSha512]
    }

    fn suites(&self) -> &'static [Suite] {
        &[Suite::Intl]
    }

    fn pairs(&self) -> Vec<ObjectKind> {
        // No SM2, and OAEP with SHA-1 alone.
        let offers = |kind: &ObjectKind| match kind {
            ObjectKind::KeyPair(algorithm, usage) => {
                *algorithm != PairAlgorithm::Sm2 && *usage == PairUsage::Sign
            }
            _ => false,
        };
        ObjectKind::pairs().filter(offers).collect()
    }

    fn locks_pins(&self) -> bool {
        // It only flags that there was a wrong one.
        false
    }

    fn environment(&self, directory: &Path) -> Vec<(&'static str, OsString)> {
        let configuration = directory.join("softhsm2.conf");
        let tokens = directory.join(contract::TOKENS);
        let text = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            tokens.display()
        );
        fs::write(&configuration, text).expect("the directory can be written");
        vec![("SOFTHSM2_CONF", configuration.into())]
    }
}

contract::cases!(SoftHsm);

#[test]
fn a_profile_with_another_hash_does_not_open() {
    in_own_process("a_profile_with_another_hash_does_not_open", &SoftHsm, |device| {
        // HMAC with SHA-1.
        contract::profiles::refuses_another_hash(device, "mac = \"0x00000251\"", "mac = \"0x00000221\"");
    });
}
