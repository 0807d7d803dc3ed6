//! The loaded module, and a token that is the same before every input.
#![expect(unsafe_code, reason = "the fuzzer calls C functions")]

use std::fs;
use std::path::{Path, PathBuf};
use std::ptr::null_mut;

use cryptoki_sys as ck;

use crate::calls::{SLOT, SO_PIN, USER_PIN};
use crate::memory::Template;

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

    /// A module that has just been initialised, over one token with both PINs, an RSA pair and one on P-256.
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
        // SAFETY: as above.
        let answers = unsafe {
            [
                list.C_Logout.expect("listed")(session),
                list.C_Login.expect("listed")(session, ck::CKU_USER, user, user_len),
            ]
        };
        assert_eq!(answers, [ck::CKR_OK; 2]);
        let rsa =
            [ck::CKA_ENCRYPT, ck::CKA_VERIFY, ck::CKA_WRAP, ck::CKA_DECRYPT, ck::CKA_SIGN, ck::CKA_UNWRAP];
        let bits = 2048_u64.to_ne_bytes();
        self.make_pair(session, ck::CKM_RSA_PKCS_KEY_PAIR_GEN, (ck::CKA_MODULUS_BITS, &bits), &rsa);
        // 1.2.840.10045.3.1.7
        let p256 = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
        let curve = [ck::CKA_VERIFY, ck::CKA_DERIVE, ck::CKA_SIGN, ck::CKA_DERIVE];
        self.make_pair(session, ck::CKM_EC_KEY_PAIR_GEN, (ck::CKA_EC_PARAMS, &p256), &curve);
        fs::rename(self.token(), &self.kept).expect("kept");
    }
}

impl World {
    /// A pair on the token. The first half of the uses is that of the public key.
    fn make_pair(
        &self,
        session: ck::CK_SESSION_HANDLE,
        code: ck::CK_MECHANISM_TYPE,
        named: (ck::CK_ATTRIBUTE_TYPE, &[u8]),
        uses: &[ck::CK_ATTRIBUTE_TYPE],
    ) {
        let (of_public, of_private) = uses.split_at(uses.len() / 2);
        let template = |uses: &[ck::CK_ATTRIBUTE_TYPE]| {
            let flags = uses.iter().chain(&[ck::CKA_TOKEN]).map(|attribute| (*attribute, vec![ck::CK_TRUE]));
            flags.collect::<Vec<_>>()
        };
        let mut public = template(of_public);
        public.push((named.0, named.1.to_vec()));
        let (mut public, mut private) = (Template::of(public), Template::of(template(of_private)));
        let mut mechanism = ck::CK_MECHANISM { mechanism: code, pParameter: null_mut(), ulParameterLen: 0 };
        let (mut public_key, mut private_key) = (0, 0);
        // SAFETY: pointers to locals, each as long as the length beside it says.
        let answer = unsafe {
            self.functions.C_GenerateKeyPair.expect("listed")(
                session,
                &raw mut mechanism,
                public.pointer(),
                public.count(),
                private.pointer(),
                private.count(),
                &raw mut public_key,
                &raw mut private_key,
            )
        };
        assert_eq!(answer, ck::CKR_OK);
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
