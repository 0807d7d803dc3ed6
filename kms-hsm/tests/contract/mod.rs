//! What every device must do, whoever makes it. Each case runs in a process and a token directory of its
//! own: a PKCS#11 library reads its environment once, and a login belongs to the whole process.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

pub mod imports;
pub mod keys;
pub mod logins;
pub mod officers;
pub mod pairs;
pub mod pools;
pub mod profiles;
pub mod raw;
pub mod tokens;

use kms_core::id::HsmObjectId;
use kms_core::mac::MacAlgorithm;
use kms_core::suite::{AeadAlgorithm, Suite};
use kms_hsm::{
    ErrorClass, HsmModule, HsmPartition, HsmSession, ObjectKind, Observer, Pin, Pkcs11Partition, Pool,
    PoolOptions, ProfileChoice, TokenDescription,
};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// A module under test.
pub trait Device {
    fn module_path(&self) -> PathBuf;
    /// The built-in profile that must be found for it.
    fn profile(&self) -> &'static str;
    /// How that profile is chosen.
    fn choice(&self) -> ProfileChoice {
        ProfileChoice::Auto
    }
    /// The suites whose signatures it has.
    fn suites(&self) -> &'static [Suite];
    /// The keys with which it makes MACs.
    fn macs(&self) -> &'static [MacAlgorithm];
    /// The keys with which it seals.
    fn algorithms(&self) -> &'static [AeadAlgorithm];
    /// The key pairs of applications that it keeps.
    fn pairs(&self) -> Vec<ObjectKind>;
    /// Who makes the nonces of AES-GCM, as its profile says it.
    fn gcm_iv(&self) -> &'static str {
        "caller"
    }
    /// Whether wrong PINs lock the token in the end.
    fn locks_pins(&self) -> bool {
        true
    }
    /// Makes the folder `tokens` in `directory` the place for tokens, and gives the variables that say so.
    fn environment(&self, directory: &Path) -> Vec<(&'static str, OsString)>;
}

pub const LABEL: &str = "operations";
pub const SO_PIN: &str = "security-officer-0001";
pub const USER_PIN: &str = "operations-user-0001";

/// Set in the process that runs one case.
const CHILD: &str = "KMS_HSM_CONTRACT_CHILD";

/// Names the directory of the case.
const DIRECTORY: &str = "KMS_HSM_CONTRACT_DIRECTORY";
/// The folder of the tokens in it.
pub const TOKENS: &str = "tokens";

/// The tokens of this case on disk.
pub fn tokens_folder() -> PathBuf {
    PathBuf::from(std::env::var_os(DIRECTORY).unwrap()).join(TOKENS)
}

/// Runs `case` in a process of its own, with tokens of its own.
pub fn in_own_process(name: &str, device: &dyn Device, case: impl FnOnce(&dyn Device)) {
    if std::env::var_os(CHILD).is_some() {
        return case(device);
    }
    let module = device.module_path();
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join(TOKENS)).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads", "1"])
        .env(CHILD, "1")
        .envs(device.environment(directory.path()))
        .env(DIRECTORY, directory.path())
        .output()
        .unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "on {}: {text}", module.display());
    assert!(text.contains("1 passed"), "the case did not run: {text}");
}

/// Names what a process of the same case has to do, in a process that the case has started.
const ROLE: &str = "KMS_HSM_CONTRACT_ROLE";

/// What this process has to do; `None` in the one that runs the case.
pub fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// Runs the same case in another process with the same tokens, for one role. The process must end well.
pub fn in_another_process(role: &str) {
    let name = std::env::args().skip_while(|argument| argument != "--exact").nth(1).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture", "--test-threads", "1"])
        .env(ROLE, role)
        .output()
        .unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{role}: {text}");
}

/// One test for each case, on one device.
macro_rules! cases {
    ($device:expr) => {
        contract::cases!($device;
            tokens: a_label_that_is_taken_is_refused_and_its_token_left_alone,
            tokens: a_label_that_no_token_can_have_is_refused,
            tokens: a_token_that_is_not_there_is_named_with_those_that_are,
            tokens: the_profile_is_found_by_what_the_library_says,
            tokens: a_token_with_another_serial_number_gets_no_pin,
            tokens: a_pin_of_a_length_that_the_token_does_not_take_is_not_sent,
            tokens: a_token_is_open_once_per_process,
            tokens: a_wrong_so_pin_is_refused_and_changes_nothing,
            tokens: pins_are_changed_by_their_owner_and_the_old_ones_are_dead,
            tokens: a_derived_pin_opens_the_token_that_it_was_derived_for,
            logins: a_wrong_pin_is_refused,
            logins: a_login_that_is_not_ours_does_not_let_a_wrong_pin_in,
            logins: objects_are_found_again_after_the_login_was_lost,
            logins: sessions_that_the_token_closed_are_replaced,
            logins: an_object_is_made_after_the_login_was_lost,
            logins: a_lost_login_is_never_taken_for_an_empty_token,
            logins: while_a_token_is_away_no_key_is_reported_missing,
            logins: a_token_that_stays_away_is_given_up_after_the_grace,
            logins: handles_from_before_a_login_are_never_used_again,
            logins: a_pool_survives_the_loss_of_every_session_again_and_again,
            logins: a_pin_that_was_changed_is_tried_once_and_the_pool_gives_up,
            logins: a_refused_pin_is_not_sent_again_by_any_session,
            logins: a_pin_that_another_process_has_locked_ends_the_service_at_the_next_login,
            logins: without_a_pin_a_lost_login_stays_lost,
            logins: closing_logs_out_and_the_partition_opens_nothing_more,
            keys: what_was_sealed_opens,
            keys: anything_else_is_an_invalid_ciphertext_and_the_pool_stays_healthy,
            keys: lengths_that_no_sealed_value_has_are_refused_without_the_hsm,
            keys: inputs_that_are_too_long_are_refused_without_the_hsm,
            keys: a_signature_verifies_outside_the_hsm,
            keys: a_mac_depends_on_key_and_message_and_on_nothing_else,
            keys: an_id_is_never_used_twice,
            keys: a_destroyed_object_is_gone_with_both_halves,
            keys: destroying_one_object_leaves_the_others,
            keys: an_object_of_another_kind_is_not_found,
            keys: what_the_token_cannot_do_is_said_without_an_effect,
            keys: attributes_keep_every_key_inside,
            keys: a_key_with_weaker_attributes_is_not_confirmed,
            keys: two_objects_with_one_id_are_ambiguous,
            keys: objects_of_others_are_listed,
            keys: random_bytes_differ,
            pairs: a_pair_signs_in_every_way_that_fits_it,
            pairs: what_was_encrypted_to_a_pair_decrypts,
            pairs: no_forged_ciphertext_of_a_pair_makes_the_device_look_broken,
            pairs: what_cannot_be_a_ciphertext_of_a_pair_costs_no_hsm_call,
            pairs: a_pair_does_what_it_is_for_and_nothing_else,
            pairs: a_pairs_attributes_keep_its_private_half_inside,
            pairs: a_pair_with_weaker_attributes_is_not_confirmed,
            pairs: a_public_half_that_is_anothers_is_noticed,
            pairs: what_pairs_the_token_has_is_said_without_a_login,
            pairs: a_destroyed_pair_is_gone_with_both_halves,
            pairs: the_self_test_of_pairs_is_quick,
            pairs: a_profile_with_another_padding_does_not_open,
            pairs: a_profile_with_another_pss_does_not_open,
            imports: a_key_from_outside_does_in_the_token_what_it_does_outside,
            imports: what_is_no_key_of_its_kind_leaves_nothing_in_the_token,
            pools: many_threads_share_a_pool,
            pools: many_threads_make_and_find_objects_at_the_same_time,
            pools: stopping_finishes_waiting_jobs_logs_out_and_a_new_pool_opens,
            pools: random_bytes_come_from_the_stock_without_an_hsm_call,
            pools: a_pool_that_is_dropped_logs_out,
            pools: ten_thousand_forged_ciphertexts_open_no_circuit,
            profiles: the_self_test_passes_and_leaves_nothing_behind,
            profiles: a_profile_with_another_mac_does_not_open_and_names_the_mechanism,
            profiles: a_profile_with_another_form_of_signatures_does_not_open,
            profiles: a_profile_that_is_wrong_about_the_maker_of_nonces_does_not_open,
            profiles: a_profile_with_another_generator_does_not_open,
            profiles: what_a_token_offers_is_asked_without_a_login,
            profiles: a_mechanism_that_the_token_lacks_is_said_to_be_missing,
            profiles: a_profile_from_a_file_opens_the_token,
            profiles: the_generic_profile_opens_a_module_that_keeps_to_the_standard,
            officers: the_security_officer_does_not_get_in_beside_open_sessions,
            officers: a_login_of_the_security_officer_does_not_keep_the_user_out,
            officers: a_trusted_wrapping_key_can_neither_be_changed_nor_copied_by_the_user,
            officers: a_pin_that_another_process_changed_binds_the_next_process,
        );
    };
    ($device:expr; $($module:ident: $name:ident,)*) => {
        $(
            #[test]
            fn $name() {
                contract::in_own_process(stringify!($name), &$device, contract::$module::$name);
            }
        )*
    };
}
pub(crate) use cases;

/// A device with one initialised token.
pub struct Fixture {
    pub path: PathBuf,
    pub module: HsmModule,
    pub token: TokenDescription,
    pub suites: &'static [Suite],
    pub macs: &'static [MacAlgorithm],
    pub algorithms: &'static [AeadAlgorithm],
}

impl Fixture {
    pub fn new(device: &dyn Device) -> Self {
        Self::with_profile(device, device.choice())
    }

    pub fn with_profile(device: &dyn Device, profile: ProfileChoice) -> Self {
        let path = device.module_path();
        let module = HsmModule::open(&path, profile).unwrap();
        let token = module.initialise_token(LABEL, &pin(SO_PIN)).unwrap();
        module.initialise_user_pin(&token, &pin(SO_PIN), &pin(USER_PIN)).unwrap();
        let (suites, macs, algorithms) = (device.suites(), device.macs(), device.algorithms());
        Self { path, module, token, suites, macs, algorithms }
    }

    pub fn open(&self) -> Pkcs11Partition {
        self.module.open_partition(LABEL, &self.token.serial, pin(USER_PIN)).unwrap()
    }

    pub fn session(&self) -> (Pkcs11Partition, Box<dyn HsmSession>) {
        let partition = self.open();
        let session = partition.open_session().unwrap();
        (partition, session)
    }

    pub fn pool(&self) -> (Pool, Arc<Recorder>) {
        self.pool_of(2)
    }

    pub fn pool_of(&self, workers: usize) -> (Pool, Arc<Recorder>) {
        let recorder = Arc::new(Recorder::default());
        let options = PoolOptions {
            workers,
            observer: recorder.clone(),
            // Long, so that what a case sees comes from the case.
            heartbeat: Duration::from_secs(600),
            relogin_grace: Duration::from_secs(600),
            ..PoolOptions::default()
        };
        (Pool::start(Arc::new(self.open()), options).unwrap(), recorder)
    }

    pub fn kinds(&self) -> Vec<ObjectKind> {
        let mut kinds: Vec<ObjectKind> =
            self.algorithms.iter().copied().map(ObjectKind::SealingKey).collect();
        kinds.extend(self.suites.iter().copied().map(ObjectKind::SigningKey));
        kinds.extend(self.macs.iter().copied().map(ObjectKind::MacKey));
        kinds
    }
}

pub fn pin(text: &str) -> Pin {
    Pin::entered(&Zeroizing::new(text.to_owned())).unwrap()
}

/// A different id at each call.
pub fn new_id() -> HsmObjectId {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    HsmObjectId([NEXT.fetch_add(1, Ordering::Relaxed); 16])
}

pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// Keeps what it was told.
#[derive(Default)]
pub struct Recorder {
    begun: Mutex<Vec<&'static str>>,
    outcomes: Mutex<Vec<(&'static str, Result<(), ErrorClass>)>>,
}

impl Recorder {
    /// How many operations of this name reached the HSM.
    pub fn count(&self, operation: &str) -> usize {
        self.begun.lock().unwrap().iter().filter(|one| **one == operation).count()
    }

    pub fn has_outcome(&self, class: ErrorClass) -> bool {
        self.outcomes.lock().unwrap().iter().any(|(_, outcome)| *outcome == Err(class))
    }
}

impl Observer for Recorder {
    fn before(&self, operation: &'static str) {
        self.begun.lock().unwrap().push(operation);
    }

    fn after(&self, operation: &'static str, outcome: &Result<(), ErrorClass>, _elapsed: Duration) {
        self.outcomes.lock().unwrap().push((operation, *outcome));
    }
}

/// Waits until something that another thread does has happened.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = soon();
    while !is_so() {
        assert!(Instant::now() < end, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}
