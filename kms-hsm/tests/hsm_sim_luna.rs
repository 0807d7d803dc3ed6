//! The contract of the HSM layer, on hsm-sim as the double of another vendor: other numbers, DER signatures, and a token
//! that makes the nonces itself.

mod contract;
mod sim;

use kms_core::key::KeySpec;
use sim::HsmSim;

const DEVICE: HsmSim = HsmSim { personality: "luna", profile: "hsm-sim-luna", specs: &[KeySpec::Aes256] };

contract::cases!(DEVICE);
