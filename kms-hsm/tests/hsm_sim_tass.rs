//! The contract of the HSM layer, on hsm-sim as the double of a third vendor: a token that writes its own nonce over the
//! caller's, and has SM2 without HMAC-SM3.

mod contract;
mod sim;

use contract::in_own_process;
use kms_core::suite::AeadAlgorithm;
use sim::HsmSim;

const DEVICE: HsmSim = HsmSim {
    personality: "tass",
    profile: "hsm-sim-tass",
    algorithms: &[AeadAlgorithm::Aes256Gcm, AeadAlgorithm::Aes128Gcm, AeadAlgorithm::Aes192Gcm],
};

contract::cases!(DEVICE);

#[test]
fn a_profile_with_another_hash_does_not_open() {
    in_own_process("a_profile_with_another_hash_does_not_open", &DEVICE, |device| {
        // HMAC with SHA-1.
        contract::profiles::refuses_another_hash(device, "mac = \"0x00000251\"", "mac = \"0x00000221\"");
    });
}
