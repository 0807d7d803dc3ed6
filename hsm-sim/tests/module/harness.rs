//! The loaded module, and tokens to test with.

use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::mechanism::vendor_defined::VendorDefinedMechanism;
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;

pub const SO_PIN: &str = "security officer's pin";
pub const USER_PIN: &str = "user's pin";

pub const SM2_KEY_PAIR_GEN: u64 = 0x8000_8001;
pub const SM2_SIGN_WITH_SM3: u64 = 0x8000_8100;
pub const SM2_SIGN_PREHASHED: u64 = 0x8000_8104;
pub const SM3: u64 = 0x8000_9001;
pub const SM3_HMAC: u64 = 0x8000_9002;
pub const SM4_KEY_GEN: u64 = 0x8000_0107;
pub const SM4_GCM: u64 = 0x8000_010F;
pub const SM4_KEY_TYPE: u64 = 0x8000_0106;

/// Set in a child process to the directory of its parent.
pub const TOKENS: &str = hsm_sim::DIRECTORY_VARIABLE;

/// The shared object lies in the directory of this test binary, or one above.
pub fn module_path() -> PathBuf {
    let executable = std::env::current_exe().expect("the system knows this executable");
    executable
        .ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join(hsm_sim::module_file_name()))
        .find(|path| path.exists())
        .expect("cargo builds the shared object together with its tests")
}

/// The module, initialised over a directory of its own. In a child process it is the parent's.
pub fn module() -> &'static Pkcs11 {
    static MODULE: OnceLock<Pkcs11> = OnceLock::new();
    MODULE.get_or_init(|| {
        if std::env::var_os(TOKENS).is_none() {
            set_token_directory();
        }
        let module = Pkcs11::new(module_path()).expect("the module loads");
        module
            .initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
            .expect("the module initialises");
        module
    })
}

#[expect(unsafe_code, reason = "the module takes its directory from the environment")]
fn set_token_directory() {
    // Under `target`, because nothing runs at the end of a test binary that could remove it.
    let directory = tempfile::Builder::new()
        .prefix("hsm-sim-")
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .expect("a directory");
    // SAFETY: this runs once, before the module is loaded; everything else in this process that reads
    // the environment does so through std, which has a lock for it.
    unsafe { std::env::set_var(TOKENS, directory.keep()) };
}

pub fn token_directory() -> PathBuf {
    module();
    PathBuf::from(std::env::var_os(TOKENS).expect("set when the module was loaded"))
}

pub fn pin(text: &str) -> AuthPin {
    AuthPin::new(text.into())
}

/// Initialises the fresh slot. One at a time: two threads would be offered the same slot.
pub fn init_token(label: &str) -> Slot {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let slot = *module().get_all_slots().expect("slots").last().expect("the fresh slot");
    module().init_token(slot, &pin(SO_PIN), label).expect("the fresh slot is initialised");
    slot
}

pub fn set_user_pin(slot: Slot, user_pin: &str) {
    let session = module().open_rw_session(slot).expect("a session");
    session.login(UserType::So, Some(&pin(SO_PIN))).expect("the security officer logs in");
    session.init_pin(&pin(user_pin)).expect("the user gets a PIN");
}

/// A token with both PINs.
pub fn token(label: &str) -> Slot {
    let slot = init_token(label);
    set_user_pin(slot, USER_PIN);
    slot
}

/// A session on a new token, with the user logged in.
pub fn user_session(label: &str) -> Session {
    log_in(token(label))
}

pub fn log_in(slot: Slot) -> Session {
    let session = module().open_rw_session(slot).expect("a session");
    session.login(UserType::User, Some(&pin(USER_PIN))).expect("the user logs in");
    session
}

pub fn directory_of(slot: Slot) -> PathBuf {
    token_directory().join(format!("slot-{}", slot.id()))
}

/// The return code of a refusal.
pub fn refusal<T>(result: Result<T, Error>) -> RvError {
    match result {
        Err(Error::Pkcs11(code, _)) => code,
        Err(other) => panic!("not a refusal by the module: {other}"),
        Ok(_) => panic!("this was not refused"),
    }
}

pub fn vendor(code: u64) -> Mechanism<'static> {
    Mechanism::VendorDefined(VendorDefinedMechanism::new::<()>(vendor_type(code), None))
}

pub fn vendor_type(code: u64) -> MechanismType {
    MechanismType::new_vendor_defined(code).expect("a vendor's number")
}

pub fn vendor_key(code: u64) -> KeyType {
    KeyType::new_vendor_defined(code).expect("a vendor's number")
}

/// Runs `work` with AES-GCM under this IV and this associated data.
pub fn with_aes_gcm<T>(mut iv: [u8; 12], aad: &[u8], work: impl FnOnce(&Mechanism) -> T) -> T {
    let parameters = GcmParams::new(&mut iv, aad, 128.into()).expect("parameters");
    work(&Mechanism::AesGcm(parameters))
}

/// The attributes that every secret and private key of the key management service has.
pub fn protected() -> Vec<Attribute> {
    vec![
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(true),
        Attribute::WrapWithTrusted(true),
        Attribute::Modifiable(false),
        Attribute::Copyable(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
    ]
}

/// An AES-256 key on the token, with the attributes of a master key.
pub fn master_key(session: &Session, id: &[u8]) -> ObjectHandle {
    let mut template = protected();
    template.extend([
        Attribute::ValueLen(32.into()),
        Attribute::Id(id.to_vec()),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
        Attribute::Wrap(false),
    ]);
    session.generate_key(&Mechanism::AesKeyGen, &template).expect("a master key")
}

/// A secret key that is known in advance, as a session object.
pub fn known_key(session: &Session, key_type: KeyType, value: &[u8], uses: &[Attribute]) -> ObjectHandle {
    let mut template = vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(key_type),
        Attribute::Value(value.to_vec()),
    ];
    template.extend_from_slice(uses);
    session.create_object(&template).expect("a key from a known value")
}

pub fn hex(text: &str) -> Vec<u8> {
    base16ct::lower::decode_vec(text).expect("lower-case hexadecimal")
}
