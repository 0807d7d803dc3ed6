//! The contract of the HSM layer, on hsm-sim as the double of another vendor: other numbers, DER signatures, and a token
//! that makes the nonces itself.

mod contract;
mod sim;

use contract::in_own_process;
use kms_core::suite::AeadAlgorithm;
use sim::HsmSim;

const DEVICE: HsmSim = HsmSim {
    personality: "luna",
    profile: "hsm-sim-luna",
    algorithms: &[AeadAlgorithm::Aes256Gcm, AeadAlgorithm::Aes128Gcm, AeadAlgorithm::Aes192Gcm],
};

contract::cases!(DEVICE);

#[test]
fn a_profile_with_another_hash_does_not_open() {
    in_own_process("a_profile_with_another_hash_does_not_open", &DEVICE, |device| {
        contract::profiles::refuses_another_hash(device, "mac = \"0x80000b02\"", "mac = \"0x00000251\"");
    });
}
