//! How the HSM misbehaves, and since when.

use kms_tests::Deployment;
use std::fs;

/// A fault, as the control file of hsm-sim scripts it (docs/formats/hsm-sim-control.md).
pub struct Fault {
    /// What happens, in the table.
    pub name: &'static str,
    control: &'static str,
}

/// Calls that do not come back.
pub const HANG: &str = "calls hang";

/// What the server survives.
pub const FAULTS: [Fault; 13] = [
    Fault {
        name: "20 ms latency",
        control: "[[rule]]\nfunctions = [\"*\"]\naction = \"delay\"\ndelay_us = 20000\n",
    },
    Fault {
        name: "exponential latency, mean 10 ms",
        control: "[[rule]]\nfunctions = [\"*\"]\naction = \"delay\"\nmean_us = 10000\nmax_us = 500000\n",
    },
    Fault {
        name: "1 % device errors",
        control: "[[rule]]\nfunctions = [\"*\"]\nprobability = 0.01\naction = \"fail\"\nerror = \"CKR_DEVICE_ERROR\"\n",
    },
    Fault {
        name: "every call fails",
        control: "[[rule]]\nfunctions = [\"*\"]\naction = \"fail\"\nerror = \"CKR_GENERAL_ERROR\"\n",
    },
    Fault {
        name: "sessions lost every 50 calls",
        control: "[[rule]]\nfunctions = [\"*\"]\nevery = 50\naction = \"lose_sessions\"\n",
    },
    Fault {
        name: "login lost every 50 calls",
        control: "[[rule]]\nfunctions = [\"*\"]\nevery = 50\naction = \"lose_login\"\n",
    },
    Fault { name: "token pulled", control: "PULLED" },
    Fault {
        name: HANG,
        control: "[[rule]]\nfunctions = [\"C_Encrypt\", \"C_Decrypt\", \"C_Sign\", \"C_GenerateKey\", \"C_Login\"]\naction = \"hang\"\n",
    },
    Fault {
        name: "the answer is lost after the work",
        control: "[[rule]]\nfunctions = [\"*\"]\nprobability = 0.05\nmoment = \"after\"\naction = \"fail\"\nerror = \"CKR_DEVICE_ERROR\"\n",
    },
    Fault { name: "no more sessions", control: "NO_SESSIONS" },
    Fault {
        name: "every 20th call fails",
        control: "[[rule]]\nfunctions = [\"*\"]\nevery = 20\naction = \"fail\"\nerror = \"CKR_FUNCTION_FAILED\"\n",
    },
    // The login that is there goes on: nobody may try the PIN to find out.
    Fault { name: "PIN locked", control: "PIN_LOCKED" },
    Fault {
        name: "one bit of an answer is wrong",
        control: "[[rule]]\nfunctions = [\"C_Encrypt\", \"C_Decrypt\", \"C_Sign\", \"C_GenerateRandom\"]\n\
                  probability = 0.3\naction = \"corrupt\"\n",
    },
];

/// The last fault of the list, which no process survives.
pub const CRASH: Fault = Fault {
    name: "the HSM's library crashes",
    control: "[[rule]]\nfunctions = [\"C_Encrypt\"]\ncalls = [20]\naction = \"crash\"\n",
};

fn slots(deployment: &Deployment) -> Vec<u64> {
    let names = fs::read_dir(deployment.state("tokens")).expect("the tokens' folder");
    let names = names.map(|entry| entry.expect("lists").file_name().to_string_lossy().into_owned());
    names.filter_map(|name| name.rsplit('-').next()?.parse().ok()).collect()
}

/// Puts a control file in place, whole.
pub fn begin(deployment: &Deployment, fault: &Fault) {
    let of_tokens = |state: &str| {
        let tokens = slots(deployment).into_iter().map(|slot| format!("[[token]]\nslot = {slot}\n{state}\n"));
        tokens.collect::<String>()
    };
    let rules = match fault.control {
        "PULLED" => of_tokens("present = false"),
        "PIN_LOCKED" => of_tokens("user_pin_locked = true"),
        // The sessions that are there are lost too, or nobody would need a new one.
        "NO_SESSIONS" => format!(
            "{}[[rule]]\nfunctions = [\"*\"]\nevery = 50\naction = \"lose_sessions\"\n",
            of_tokens("session_count_max = 0")
        ),
        rules => rules.to_owned(),
    };
    let draft = deployment.state("control.draft");
    fs::write(&draft, format!("format = 1\nseed = 7\n{rules}")).expect("the control file is written");
    fs::rename(&draft, deployment.state("tokens/control.toml")).expect("it is put in place");
}

/// The device is well again.
pub fn end(deployment: &Deployment) {
    fs::remove_file(deployment.state("tokens/control.toml")).expect("the control file was there");
}

/// How many checkpoints the second place holds.
pub fn checkpoint_count(deployment: &Deployment) -> usize {
    fs::read_to_string(deployment.state("node/checkpoints.log")).map_or(0, |text| text.lines().count())
}
