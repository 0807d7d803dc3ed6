//! hsm-sim as a device under test, as the double of one vendor or another.

use crate::contract::{self, Device};
use kms_core::mac::MacAlgorithm;
use kms_core::pair::{PairAlgorithm, PairUsage};
use kms_core::suite::{AeadAlgorithm, Suite};
use kms_hsm::{ObjectKind, ProfileChoice};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// hsm-sim under a personality, and the profile for it.
pub struct HsmSim {
    pub personality: &'static str,
    pub profile: &'static str,
    pub algorithms: &'static [AeadAlgorithm],
}

impl Device for HsmSim {
    fn module_path(&self) -> PathBuf {
        let executable = std::env::current_exe().expect("the test knows where it is");
        let directory = executable.parent().expect("a file is in a directory");
        let candidates = [Some(directory), directory.parent()];
        let mut found = candidates.into_iter().flatten().map(|one| one.join(hsm_sim::module_file_name()));
        found
            .find(|path| path.exists())
            .unwrap_or_else(|| panic!("no hsm-sim library beside {}", executable.display()))
    }

    fn profile(&self) -> &'static str {
        self.profile
    }

    fn choice(&self) -> ProfileChoice {
        // Every personality says that it is hsm-sim, and is taken for the default one.
        match self.profile {
            "hsm-sim" => ProfileChoice::Auto,
            name => ProfileChoice::from_name(name).expect("a built-in profile"),
        }
    }

    fn suites(&self) -> &'static [Suite] {
        &[Suite::Intl, Suite::Sm]
    }

    fn algorithms(&self) -> &'static [AeadAlgorithm] {
        self.algorithms
    }

    fn macs(&self) -> &'static [MacAlgorithm] {
        match self.personality {
            "tass" => &[MacAlgorithm::HmacSha256, MacAlgorithm::HmacSha384, MacAlgorithm::HmacSha512],
            _ => &MacAlgorithm::ALL,
        }
    }

    fn pairs(&self) -> Vec<ObjectKind> {
        // Luna's numbers have no SM2 encryption.
        let lacks = ObjectKind::KeyPair(PairAlgorithm::Sm2, PairUsage::Decrypt);
        ObjectKind::pairs().filter(|kind| self.personality != "luna" || *kind != lacks).collect()
    }

    fn gcm_iv(&self) -> &'static str {
        match self.personality {
            "luna" => "appended",
            "tass" => "returned",
            _ => "caller",
        }
    }

    fn environment(&self, directory: &Path) -> Vec<(&'static str, OsString)> {
        vec![
            (hsm_sim::DIRECTORY_VARIABLE, directory.join(contract::TOKENS).into()),
            (hsm_sim::PERSONALITY_VARIABLE, self.personality.into()),
        ]
    }
}
