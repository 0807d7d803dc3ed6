//! AES-GCM encryptions per second through PKCS#11: how many times as many hsm-sim makes as another module.
//!
//! ```text
//! cargo run --release -p hsm-sim --example gcm_rate -- MODULE.so
//! ```
//! The other module must find its tokens as it usually does, with a slot to initialise last. The modules take turns, and
//! the median of the rounds counts, so that both meet the same machine.

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

const PERIOD: Duration = Duration::from_secs(1);
const ROUND_COUNT: usize = 5;
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
    let other = std::env::args().nth(1).expect("usage: gcm_rate MODULE.so");
    let devices = [Device::open(&own.display().to_string()), Device::open(&other)];
    // hsm-sim reads the file of a key that was made a moment ago again and again: it could still change
    // unnoticed. That is not what is measured here.
    thread::sleep(2 * PERIOD);
    let of_other = |thread_count| {
        let [own, other] = medians(&devices, thread_count);
        println!("{thread_count} threads: {own:>9.0} per second, the other module {other:>9.0}");
        [own, other]
    };
    let rates = [1, 2, 4].map(|thread_count| (thread_count, of_other(thread_count)));
    let [own_alone, other_alone] = rates[0].1;
    for (thread_count, [own, other]) in rates {
        println!(
            "DEEP-RESULT {{\"measured\": \"AES-GCM of {MESSAGE_LEN} bytes through PKCS#11\", \"threads\": {thread_count}, \
             \"hsm_sim_of_other_module\": {:.2}, \"hsm_sim_of_one_thread\": {:.2}, \"other_of_one_thread\": {:.2}}}",
            own / other,
            own / own_alone,
            other / other_alone,
        );
    }
}

/// A module with a key in a fresh token.
struct Device {
    module: Pkcs11,
    slot: Slot,
    key: ObjectHandle,
}

#[expect(unsafe_code, reason = "the module takes its directory from the environment")]
fn set_directory(directory: &std::path::Path) {
    // SAFETY: no other thread has been started yet.
    unsafe { std::env::set_var(hsm_sim::DIRECTORY_VARIABLE, directory) };
}

impl Device {
    fn open(path: &str) -> Self {
        let module = Pkcs11::new(path).expect("the module loads");
        module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).expect("it initialises");
        let slot = *module.get_all_slots().expect("slots").last().expect("a slot");
        let pin = AuthPin::new("benchmark".into());
        module.init_token(slot, &pin, "benchmark").expect("a token");
        // Some modules move a token to another slot when it is initialised.
        let slots = module.get_all_slots().expect("slots");
        let has_label =
            |slot: &Slot| module.get_token_info(*slot).is_ok_and(|info| info.label() == "benchmark");
        let slot = slots.into_iter().find(has_label).expect("the new token");
        let session = module.open_rw_session(slot).expect("a session");
        session.login(UserType::So, Some(&pin)).expect("the officer");
        session.init_pin(&pin).expect("a PIN");
        session.logout().expect("logout");
        session.login(UserType::User, Some(&pin)).expect("the user");
        let template = [Attribute::Token(true), Attribute::ValueLen(32.into()), Attribute::Encrypt(true)];
        let key = session.generate_key(&Mechanism::AesKeyGen, &template).expect("a key");
        // Dropped, the session would end the login.
        std::mem::forget(session);
        Self { module, slot, key }
    }

    fn rate(&self, thread_count: u8) -> f64 {
        let stop = AtomicBool::new(false);
        let start = Instant::now();
        let count: u64 = thread::scope(|scope| {
            let work = || encrypt_until(&self.module, self.slot, self.key, &stop);
            let threads: Vec<_> = (0..thread_count).map(|_| scope.spawn(work)).collect();
            thread::sleep(PERIOD);
            stop.store(true, Ordering::Relaxed);
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        count as f64 / start.elapsed().as_secs_f64()
    }
}

/// The median rate of each device over some rounds in which they take turns.
fn medians(devices: &[Device; 2], thread_count: u8) -> [f64; 2] {
    let rounds: Vec<[f64; 2]> =
        (0..ROUND_COUNT).map(|_| [devices[0].rate(thread_count), devices[1].rate(thread_count)]).collect();
    [0, 1].map(|device| {
        let mut rates: Vec<f64> = rounds.iter().map(|round| round[device]).collect();
        rates.sort_by(f64::total_cmp);
        rates[ROUND_COUNT / 2]
    })
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
