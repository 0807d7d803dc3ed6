//! The loaded module, and a token that is the same before every input.
#![expect(unsafe_code, reason = "the fuzzer calls C functions")]

use std::fs;
use std::path::{Path, PathBuf};
use std::ptr::null_mut;

use cryptoki_sys as ck;

use crate::calls::{SLOT, SO_PIN, USER_PIN};

pub struct World {
    functions: ck::CK_FUNCTION_LIST_3_0,
    directory: PathBuf,
    /// Where the token is kept as it was made.
    kept: PathBuf,
}

impl World {
    /// In the directory that the environment names.
    pub fn new(functions: ck::CK_FUNCTION_LIST_3_0) -> Self {
        let directory = std::env::var_os(hsm_sim::DIRECTORY_VARIABLE).expect("whoever starts us has made it");
        let directory = PathBuf::from(directory);
        let kept = directory.join("kept");
        let world = Self { functions, directory, kept };
        world.make_token();
        world
    }

    pub fn functions(&self) -> &ck::CK_FUNCTION_LIST_3_0 {
        &self.functions
    }

    /// A module that has just been initialised, over one token with both PINs and no objects.
    pub fn restore(&self) {
        // SAFETY: NULL is what the standard demands.
        unsafe { self.functions.C_Finalize.expect("listed")(null_mut()) };
        for entry in fs::read_dir(&self.directory).expect("listed") {
            let path = entry.expect("listed").path();
            let is_token = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("slot-"));
            if is_token {
                fs::remove_dir_all(path).expect("removed");
            }
        }
        copy(&self.kept, &self.token());
        self.initialize();
    }

    fn initialize(&self) {
        // SAFETY: NULL asks for the defaults.
        assert_eq!(unsafe { self.functions.C_Initialize.expect("listed")(null_mut()) }, ck::CKR_OK);
    }

    fn token(&self) -> PathBuf {
        self.directory.join(format!("slot-{SLOT}"))
    }

    fn make_token(&self) {
        self.initialize();
        let (mut so_pin, mut user_pin) = (SO_PIN.to_vec(), USER_PIN.to_vec());
        let (so, so_len) = (so_pin.as_mut_ptr(), so_pin.len() as ck::CK_ULONG);
        let (user, user_len) = (user_pin.as_mut_ptr(), user_pin.len() as ck::CK_ULONG);
        let (mut label, mut session) = ([b' '; 32], 0);
        let list = &self.functions;
        let flags = ck::CKF_SERIAL_SESSION | ck::CKF_RW_SESSION;
        // SAFETY: pointers to locals, each as long as the length beside it says.
        let answers = unsafe {
            [
                list.C_InitToken.expect("listed")(SLOT, so, so_len, label.as_mut_ptr()),
                list.C_OpenSession.expect("listed")(SLOT, flags, null_mut(), None, &raw mut session),
                list.C_Login.expect("listed")(session, ck::CKU_SO, so, so_len),
                list.C_InitPIN.expect("listed")(session, user, user_len),
            ]
        };
        assert_eq!(answers, [ck::CKR_OK; 4]);
        fs::rename(self.token(), &self.kept).expect("kept");
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("created");
    for entry in fs::read_dir(from).expect("listed") {
        let entry = entry.expect("listed");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}
