//! Sequences of calls made out of bytes: `fuzz_calls`.
#![expect(unsafe_code, reason = "the fuzzer calls C functions")]

use std::collections::BTreeSet;
use std::ptr::null_mut;

use cryptoki_sys as ck;

use crate::input::Input;
use crate::memory::{Bytes, Mechanism, Room, Template};

pub const SO_PIN: &[u8] = b"security officer's pin";
pub const USER_PIN: &[u8] = b"user's pin";
/// The slot of the token that is there at the beginning.
pub const SLOT: ck::CK_SLOT_ID = 1;

const CALLS_MAX: usize = 400;

/// In the place of a function, beside the number of a mechanism that took its parameter.
pub const MECHANISM: &str = "mechanism";

/// Which function gave which answer.
pub type Reached = BTreeSet<(&'static str, ck::CK_RV)>;

pub struct Client<'a> {
    pub functions: &'a ck::CK_FUNCTION_LIST_3_0,
    pub mechanisms: Vec<ck::CK_MECHANISM_TYPE>,
    pub sessions: Vec<ck::CK_SESSION_HANDLE>,
    pub objects: Vec<ck::CK_OBJECT_HANDLE>,
    /// Among them those that were on the token before: an RSA pair and one on P-256.
    pub pairs: Vec<ck::CK_OBJECT_HANDLE>,
    /// The last bytes that came out, which may go in again: ciphertexts, signatures.
    pub last_output: Vec<u8>,
    pub reached: Reached,
}

/// Calls one function of the list and notes its answer.
macro_rules! call {
    ($client:ident.$function:ident($($argument:expr),* $(,)?)) => {{
        let function = $client.functions.$function.expect("every function is in the list");
        // SAFETY: every pointer is NULL, or leads to memory that outlives the call and is as long as
        // the length beside it says; see `memory`.
        let answer = unsafe { function($($argument),*) };
        $client.note(stringify!($function), answer)
    }};
}

pub(crate) use call;

/// Makes calls as the bytes say, on a module that is initialised and a token in [`SLOT`]. Panics when
/// an answer breaks a promise; whatever else is wrong ends the process.
pub fn fuzz_calls(functions: &ck::CK_FUNCTION_LIST_3_0, data: &[u8]) -> Reached {
    let mut input = Input(data);
    let mut client = Client {
        functions,
        mechanisms: vec![0],
        sessions: Vec::new(),
        objects: Vec::new(),
        pairs: Vec::new(),
        last_output: Vec::new(),
        reached: Reached::new(),
    };
    client.learn_mechanisms();
    if !input.rarely(3) {
        client.meet_everything(&mut input);
    }
    for _ in 0..CALLS_MAX {
        if input.is_empty() {
            break;
        }
        client.step(&mut input);
    }
    client.reached
}

impl Client<'_> {
    pub fn note(&mut self, function: &'static str, answer: ck::CK_RV) -> ck::CK_RV {
        // The first is also the answer to a panic; the others say that a healthy store is broken.
        let is_broken = matches!(
            answer,
            ck::CKR_GENERAL_ERROR | ck::CKR_DEVICE_ERROR | ck::CKR_DEVICE_MEMORY | ck::CKR_HOST_MEMORY
        );
        assert!(!is_broken, "{function} answers {answer:#x}");
        self.reached.insert((function, answer));
        answer
    }

    fn learn_mechanisms(&mut self) {
        let mut codes = [0; 200];
        let mut count = codes.len() as ck::CK_ULONG;
        if call!(self.C_GetMechanismList(SLOT, codes.as_mut_ptr(), &raw mut count)) == ck::CKR_OK {
            self.mechanisms = codes[..usize::try_from(count).expect("a count")].to_vec();
        }
    }

    pub fn session(&self, input: &mut Input<'_>) -> ck::CK_SESSION_HANDLE {
        match (self.sessions.is_empty(), input.rarely(24)) {
            (false, false) => input.pick(&self.sessions),
            _ => input.number(),
        }
    }

    pub fn object(&self, input: &mut Input<'_>) -> ck::CK_OBJECT_HANDLE {
        match (self.objects.is_empty(), input.rarely(24)) {
            (false, false) => input.pick(&self.objects),
            _ => input.number(),
        }
    }

    /// A key that the mechanism might work with.
    pub fn key(&self, input: &mut Input<'_>, code: ck::CK_MECHANISM_TYPE) -> ck::CK_OBJECT_HANDLE {
        let is_of_pair =
            code < ck::CKM_DES3_KEY_GEN || (ck::CKM_ECDSA..=ck::CKM_ECDH1_DERIVE).contains(&code);
        if is_of_pair && !self.pairs.is_empty() && !input.rarely(8) {
            input.pick(&self.pairs)
        } else {
            self.object(input)
        }
    }

    fn slot(input: &mut Input<'_>) -> ck::CK_SLOT_ID {
        if input.rarely(8) { input.number() } else { SLOT }
    }

    pub fn mechanism(&self, input: &mut Input<'_>) -> Mechanism {
        Mechanism::draw(input, &self.mechanisms)
    }

    pub fn data(&self, input: &mut Input<'_>) -> Bytes {
        if input.rarely(3) { Bytes::of(self.last_output.clone()) } else { Bytes::draw(input) }
    }

    fn pin(input: &mut Input<'_>) -> Bytes {
        match input.below(16) {
            0 => Bytes::draw(input),
            1..=5 => Bytes::of(SO_PIN.to_vec()),
            _ => Bytes::of(USER_PIN.to_vec()),
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(24) {
            0..=1 => self.open(input),
            2 => self.log_in(input),
            3 => self.general(input),
            4 => self.token(input),
            5..=8 => self.make_key(input),
            9..=10 => self.object_calls(input),
            11 => self.search(input),
            12 => self.meet_everything(input),
            13 => self.begin_with_fitting_key(input),
            14 => self.encrypt(input),
            15 => self.encrypt_and_decrypt(input),
            16..=17 => self.digest(input),
            18 => self.sign_and_verify(input),
            19 => self.sign(input),
            20 => self.begin_with_fitting_key(input),
            21 => self.wrap_and_derive(input),
            22 => self.rare(input),
            _ => self.close(input),
        }
    }

    fn open(&mut self, input: &mut Input<'_>) {
        let flags = match input.below(8) {
            0 => ck::CKF_SERIAL_SESSION,
            1 => input.number(),
            _ => ck::CKF_SERIAL_SESSION | ck::CKF_RW_SESSION,
        };
        let mut session = 0;
        let place = if input.rarely(24) { null_mut() } else { &raw mut session };
        let slot = Self::slot(input);
        if call!(self.C_OpenSession(slot, flags, null_mut(), None, place)) == ck::CKR_OK {
            self.sessions.push(session);
        }
    }

    fn log_in(&mut self, input: &mut Input<'_>) {
        let session = self.session(input);
        let (user, mut pin) = match input.below(8) {
            0 => (ck::CKU_SO, Bytes::of(SO_PIN.to_vec())),
            1 => (input.number(), Self::pin(input)),
            _ => (ck::CKU_USER, Bytes::of(USER_PIN.to_vec())),
        };
        match input.below(6) {
            0 => call!(self.C_Logout(session)),
            1 => {
                let mut name = Bytes::draw(input);
                let (name, name_len) = (name.pointer(), name.len());
                call!(self.C_LoginUser(session, user, pin.pointer(), pin.len(), name, name_len))
            }
            _ => call!(self.C_Login(session, user, pin.pointer(), pin.len())),
        };
    }

    fn general(&mut self, input: &mut Input<'_>) {
        let slot = Self::slot(input);
        let is_null = input.rarely(6);
        match input.below(8) {
            0 => {
                let mut info = ck::CK_INFO::default();
                call!(self.C_GetInfo(if is_null { null_mut() } else { &raw mut info }));
            }
            1 => {
                let mut info = ck::CK_SLOT_INFO::default();
                call!(self.C_GetSlotInfo(slot, if is_null { null_mut() } else { &raw mut info }));
            }
            2 => {
                let mut info = ck::CK_TOKEN_INFO::default();
                call!(self.C_GetTokenInfo(slot, if is_null { null_mut() } else { &raw mut info }));
            }
            3 => {
                let mut info = ck::CK_MECHANISM_INFO::default();
                let code = input.pick(&self.mechanisms);
                let place = if is_null { null_mut() } else { &raw mut info };
                call!(self.C_GetMechanismInfo(slot, code, place));
            }
            4 => {
                let mut room = Room::<ck::CK_ULONG>::draw(input);
                let answer = call!(self.C_GetSlotList(input.byte(), room.pointer(), room.count_pointer()));
                room.check(answer);
            }
            5 => {
                let mut room = Room::<ck::CK_ULONG>::draw(input);
                let answer = call!(self.C_GetMechanismList(slot, room.pointer(), room.count_pointer()));
                room.check(answer);
            }
            6 => {
                let session = self.session(input);
                let mut info = ck::CK_SESSION_INFO::default();
                call!(self.C_GetSessionInfo(session, if is_null { null_mut() } else { &raw mut info }));
            }
            _ => {
                let session = self.session(input);
                let mut room = Room::<u8>::draw(input);
                let answer = call!(self.C_GenerateRandom(session, room.pointer(), room.count()));
                room.check(answer);
                let huge = input.number();
                call!(self.C_GenerateRandom(session, null_mut(), huge));
                let mut seed = Bytes::draw(input);
                call!(self.C_SeedRandom(session, seed.pointer(), seed.len()));
            }
        }
    }

    fn token(&mut self, input: &mut Input<'_>) {
        let session = self.session(input);
        match input.below(4) {
            0 => {
                let mut pin = Self::pin(input);
                call!(self.C_InitPIN(session, pin.pointer(), pin.len()));
            }
            1 => {
                let (mut old, mut new) = (Self::pin(input), Self::pin(input));
                call!(self.C_SetPIN(session, old.pointer(), old.len(), new.pointer(), new.len()));
            }
            2 => {
                let slot = Self::slot(input);
                let mut pin = if input.rarely(3) { Self::pin(input) } else { Bytes::of(SO_PIN.to_vec()) };
                let mut label = [b' '; 32];
                let label = if input.rarely(8) { null_mut() } else { label.as_mut_ptr() };
                call!(self.C_InitToken(slot, pin.pointer(), pin.len(), label));
            }
            _ if input.rarely(4) => {
                call!(self.C_Finalize(null_mut()));
                let session = self.session(input);
                call!(self.C_Logout(session));
                call!(self.C_Initialize(null_mut()));
            }
            _ => {
                call!(self.C_Initialize(null_mut()));
            }
        }
    }

    fn flag(on: bool) -> Vec<u8> {
        vec![u8::from(on)]
    }

    /// A key that comes about, unless the bytes add something.
    fn make_key(&mut self, input: &mut Input<'_>) {
        let session = self.session(input);
        let uses = [
            ck::CKA_ENCRYPT,
            ck::CKA_DECRYPT,
            ck::CKA_WRAP,
            ck::CKA_UNWRAP,
            ck::CKA_SIGN,
            ck::CKA_VERIFY,
            ck::CKA_DERIVE,
        ];
        let mut secret: Vec<_> = uses.into_iter().map(|attribute| (attribute, Self::flag(true))).collect();
        for attribute in [ck::CKA_TOKEN, ck::CKA_PRIVATE, ck::CKA_SENSITIVE, ck::CKA_EXTRACTABLE] {
            secret.push((attribute, Self::flag(input.rarely(2))));
        }
        let disturbed = input.rarely(3);
        let mut created = 0;
        let place = if input.rarely(32) { null_mut() } else { &raw mut created };
        let answer = match input.below(4) {
            0 => {
                let len = input.pick(&[16_u64, 24, 32, 32]);
                secret.push((ck::CKA_CLASS, ck::CKO_SECRET_KEY.to_ne_bytes().to_vec()));
                let key_type = input.pick(&[ck::CKK_AES, ck::CKK_GENERIC_SECRET, 0x8000_0106]);
                secret.push((ck::CKA_KEY_TYPE, key_type.to_ne_bytes().to_vec()));
                secret.push((ck::CKA_VALUE, vec![input.byte(); len as usize]));
                let mut template = Template::of(secret);
                if disturbed {
                    template.disturb(input);
                }
                call!(self.C_CreateObject(session, template.pointer(), template.count(), place))
            }
            1 => {
                let code = input.pick(&[ck::CKM_EC_KEY_PAIR_GEN, 0x8000_8001]);
                let mut mechanism = Mechanism::of(input, code);
                let p256 = vec![0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07];
                let mut public = vec![(ck::CKA_VERIFY, Self::flag(true))];
                if code == ck::CKM_EC_KEY_PAIR_GEN {
                    public.push((ck::CKA_EC_PARAMS, p256));
                }
                let private =
                    vec![(ck::CKA_SIGN, Self::flag(true)), (ck::CKA_TOKEN, Self::flag(input.rarely(2)))];
                let (mut public, mut private) = (Template::of(public), Template::of(private));
                if disturbed {
                    public.disturb(input);
                    private.disturb(input);
                }
                let mut private_key = 0;
                let answer = call!(self.C_GenerateKeyPair(
                    session,
                    mechanism.pointer(),
                    public.pointer(),
                    public.count(),
                    private.pointer(),
                    private.count(),
                    place,
                    &raw mut private_key,
                ));
                if answer == ck::CKR_OK {
                    self.objects.push(private_key);
                }
                answer
            }
            _ => {
                let generators = [ck::CKM_AES_KEY_GEN, ck::CKM_GENERIC_SECRET_KEY_GEN, 0x8000_0107];
                let code =
                    if input.rarely(8) { input.pick(&self.mechanisms) } else { input.pick(&generators) };
                let mut mechanism = Mechanism::of(input, code);
                secret.push((ck::CKA_VALUE_LEN, input.pick(&[16_u64, 32]).to_ne_bytes().to_vec()));
                let mut template = Template::of(secret);
                if disturbed {
                    template.disturb(input);
                }
                call!(self.C_GenerateKey(
                    session,
                    mechanism.pointer(),
                    template.pointer(),
                    template.count(),
                    place
                ))
            }
        };
        if answer == ck::CKR_OK {
            self.objects.push(created);
        }
    }

    fn object_calls(&mut self, input: &mut Input<'_>) {
        let (session, object) = (self.session(input), self.object(input));
        let mut template = Template::draw(input);
        match input.below(8) {
            0 => {
                let mut copy = 0;
                let (first, count) = (template.pointer(), template.count());
                if call!(self.C_CopyObject(session, object, first, count, &raw mut copy)) == ck::CKR_OK {
                    self.objects.push(copy);
                }
            }
            1 => {
                call!(self.C_SetAttributeValue(session, object, template.pointer(), template.count()));
            }
            2 => {
                call!(self.C_DestroyObject(session, object));
            }
            3 => {
                let mut size = 0;
                call!(self.C_GetObjectSize(session, object, &raw mut size));
            }
            _ => self.read_attributes(input, session, object),
        }
    }

    fn read_attributes(
        &mut self,
        input: &mut Input<'_>,
        session: ck::CK_SESSION_HANDLE,
        object: ck::CK_OBJECT_HANDLE,
    ) {
        const ASKED: [ck::CK_ATTRIBUTE_TYPE; 10] = [
            ck::CKA_CLASS,
            ck::CKA_VALUE,
            ck::CKA_LABEL,
            ck::CKA_ID,
            ck::CKA_EC_POINT,
            ck::CKA_EC_PARAMS,
            ck::CKA_SENSITIVE,
            ck::CKA_VALUE_LEN,
            ck::CKA_CHECK_VALUE,
            ck::CKA_MODULUS,
        ];
        let mut rooms: Vec<_> = (0..input.below(5)).map(|_| Room::<u8>::draw(input)).collect();
        let mut asked: Vec<_> = rooms
            .iter_mut()
            .map(|room| ck::CK_ATTRIBUTE {
                type_: if input.rarely(12) { input.number() & 0x3fff_ffff } else { input.pick(&ASKED) },
                pValue: room.pointer().cast(),
                ulValueLen: room.count(),
            })
            .collect();
        let count = asked.len() as ck::CK_ULONG;
        let answer = call!(self.C_GetAttributeValue(session, object, asked.as_mut_ptr(), count));
        for (room, attribute) in rooms.iter().zip(&asked) {
            room.check(ck::CKR_ARGUMENTS_BAD);
            let is_told = attribute.ulValueLen != ck::CK_UNAVAILABLE_INFORMATION;
            assert!(answer != ck::CKR_OK || is_told, "an attribute without an answer");
        }
        let none = input.number();
        call!(self.C_GetAttributeValue(session, object, null_mut(), none));
    }

    fn search(&mut self, input: &mut Input<'_>) {
        let session = self.session(input);
        match input.below(4) {
            0 => {
                let mut template = Template::draw(input);
                call!(self.C_FindObjectsInit(session, template.pointer(), template.count()));
            }
            1 => {
                call!(self.C_FindObjectsInit(session, null_mut(), 0));
            }
            2 => {
                let mut room = Room::<ck::CK_ULONG>::draw(input);
                let (first, count_max) = (room.pointer(), room.count());
                let answer = call!(self.C_FindObjects(session, first, count_max, room.count_pointer()));
                self.objects.extend_from_slice(room.check(answer));
            }
            _ => {
                call!(self.C_FindObjectsFinal(session));
            }
        }
    }

    /// Logs in, and learns of everything that is on the token: among it keys that take too long to make.
    fn meet_everything(&mut self, input: &mut Input<'_>) {
        let (mut session, mut found, mut count) = (0, [0; 100], 0);
        let flags = ck::CKF_SERIAL_SESSION | ck::CKF_RW_SESSION;
        if call!(self.C_OpenSession(SLOT, flags, null_mut(), None, &raw mut session)) != ck::CKR_OK {
            return;
        }
        self.sessions.push(session);
        if !input.rarely(8) {
            let mut pin = Bytes::of(USER_PIN.to_vec());
            call!(self.C_Login(session, ck::CKU_USER, pin.pointer(), pin.len()));
        }
        call!(self.C_FindObjectsInit(session, null_mut(), 0));
        let room = found.len() as ck::CK_ULONG;
        if call!(self.C_FindObjects(session, found.as_mut_ptr(), room, &raw mut count)) == ck::CKR_OK {
            let found = &found[..usize::try_from(count).expect("a count")];
            self.objects.extend_from_slice(found);
            if self.pairs.is_empty() {
                self.pairs = found.to_vec();
            }
        }
        call!(self.C_FindObjectsFinal(session));
    }

    fn close(&mut self, input: &mut Input<'_>) {
        if input.rarely(8) {
            let slot = Self::slot(input);
            call!(self.C_CloseAllSessions(slot));
        } else if input.rarely(3) {
            let session = self.session(input);
            call!(self.C_CloseSession(session));
        }
    }
}
