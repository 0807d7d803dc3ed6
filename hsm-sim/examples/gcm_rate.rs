//! AES-GCM encryptions per second through PKCS#11, for hsm-sim and any other modules that are named.
//!
//! ```text
//! cargo run --release -p hsm-sim --example gcm_rate -- [MODULE.so]...
//! ```
//! A module that is named must find its tokens as it usually does, with a slot to initialise first.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::object::{Attribute, ObjectHandle};
use cryptoki::session::UserType;
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;

const PERIOD: Duration = Duration::from_secs(2);
const MESSAGE_LEN: usize = 64;

fn main() {
    let directory = tempfile::tempdir().expect("a directory");
    let executable = std::env::current_exe().expect("the system knows this executable");
    let own = executable
        .ancestors()
        .skip(1)
        .take(3)
        .map(|directory| directory.join(hsm_sim::module_file_name()))
        .find(|path| path.exists())
        .expect("cargo builds the module beside its examples");
    set_directory(directory.path());
    measure(&own.display().to_string());
    std::env::args().skip(1).for_each(|module| measure(&module));
}

#[expect(unsafe_code, reason = "the module takes its directory from the environment")]
fn set_directory(directory: &std::path::Path) {
    // SAFETY: no other thread has been started yet.
    unsafe { std::env::set_var(hsm_sim::DIRECTORY_VARIABLE, directory) };
}

fn measure(path: &str) {
    let module = Pkcs11::new(path).expect("the module loads");
    module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).expect("it initialises");
    let slot = *module.get_all_slots().expect("slots").last().expect("a slot");
    let pin = AuthPin::new("benchmark".into());
    module.init_token(slot, &pin, "benchmark").expect("a token");
    // Some modules move a token to another slot when it is initialised.
    let slots = module.get_all_slots().expect("slots");
    let has_label = |slot: &Slot| module.get_token_info(*slot).is_ok_and(|info| info.label() == "benchmark");
    let slot = slots.into_iter().find(has_label).expect("the new token");
    let session = module.open_rw_session(slot).expect("a session");
    session.login(UserType::So, Some(&pin)).expect("the officer");
    session.init_pin(&pin).expect("a PIN");
    session.logout().expect("logout");
    session.login(UserType::User, Some(&pin)).expect("the user");
    let template = [Attribute::Token(true), Attribute::ValueLen(32.into()), Attribute::Encrypt(true)];
    let key = session.generate_key(&Mechanism::AesKeyGen, &template).expect("a key");
    // hsm-sim reads the file of a key that was made a moment ago again and again: it could still change
    // unnoticed. That is not what is measured here.
    thread::sleep(PERIOD);
    println!("{path}");
    for thread_count in [1, 2, 4] {
        println!("  {thread_count} threads: {:>9.0} per second", rate(&module, slot, key, thread_count));
    }
}

fn rate(module: &Pkcs11, slot: Slot, key: ObjectHandle, thread_count: u8) -> f64 {
    let stop = AtomicBool::new(false);
    let start = Instant::now();
    let count: u64 = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..thread_count).map(|_| scope.spawn(|| encrypt_until(module, slot, key, &stop))).collect();
        thread::sleep(PERIOD);
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    });
    count as f64 / start.elapsed().as_secs_f64()
}

fn encrypt_until(module: &Pkcs11, slot: Slot, key: ObjectHandle, stop: &AtomicBool) -> u64 {
    let session = module.open_ro_session(slot).expect("a session");
    let message = [7; MESSAGE_LEN];
    let mut count = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let mut iv = [0; 12];
        iv[..8].copy_from_slice(&count.to_be_bytes());
        let gcm = Mechanism::AesGcm(GcmParams::new(&mut iv, b"", 128.into()).expect("parameters"));
        session.encrypt(&gcm, key, &message).expect("encrypted");
        count += 1;
    }
    count
}
