//! What the fuzzer passes by pointer. Every pointer is NULL or leads to memory that is ours and as long
//! as its length says: what no client can promise, the module cannot check either.

use std::ptr::null_mut;

use cryptoki_sys as ck;

use crate::input::Input;
use crate::parameter::Parameter;

const GUARD: u8 = 0xa5;
const GUARD_LEN: usize = 64;

/// Bytes for the module to read. NULL goes with any length.
pub struct Bytes {
    bytes: Vec<u8>,
    len: ck::CK_ULONG,
    is_null: bool,
}

impl Bytes {
    pub fn draw(input: &mut Input<'_>) -> Self {
        if input.rarely(12) {
            return Self { bytes: Vec::new(), len: input.number(), is_null: true };
        }
        Self::of(input.bytes())
    }

    pub fn of(bytes: Vec<u8>) -> Self {
        let len = bytes.len() as ck::CK_ULONG;
        Self { bytes, len, is_null: false }
    }

    pub fn pointer(&mut self) -> *mut u8 {
        if self.is_null { null_mut() } else { self.bytes.as_mut_ptr() }
    }

    pub fn len(&self) -> ck::CK_ULONG {
        self.len
    }
}

/// Room for the module to write into, with a guard behind it.
pub struct Room<T> {
    places: Vec<T>,
    count: ck::CK_ULONG,
    given: usize,
    is_null: bool,
    count_is_null: bool,
}

impl Room<u8> {
    pub fn draw(input: &mut Input<'_>) -> Self {
        const LENS: [usize; 12] = [0, 1, 15, 16, 31, 32, 63, 64, 65, 200, 700, 4096];
        Self::with_given(input, &LENS, GUARD)
    }
}

impl Room<ck::CK_ULONG> {
    pub fn draw(input: &mut Input<'_>) -> Self {
        Self::with_given(input, &[0, 1, 2, 5, 100], ck::CK_ULONG::MAX / 3)
    }
}

impl<T: Copy + PartialEq> Room<T> {
    fn with_given(input: &mut Input<'_>, lens: &[usize], guard: T) -> Self {
        let given = input.pick(lens);
        Self {
            places: vec![guard; given + GUARD_LEN],
            count: given as ck::CK_ULONG,
            given,
            is_null: input.rarely(6),
            count_is_null: input.rarely(24),
        }
    }

    pub fn pointer(&mut self) -> *mut T {
        if self.is_null { null_mut() } else { self.places.as_mut_ptr() }
    }

    pub fn count_pointer(&mut self) -> *mut ck::CK_ULONG {
        if self.count_is_null { null_mut() } else { &raw mut self.count }
    }

    /// For calls that take the room by value: none where there is none.
    pub fn count(&self) -> ck::CK_ULONG {
        self.given as ck::CK_ULONG
    }

    /// What was written, if the call succeeded. Fails if it wrote beyond the room.
    pub fn check(&self, answer: ck::CK_RV) -> &[T] {
        let (room, guard) = self.places.split_at(self.given);
        assert!(guard.windows(2).all(|pair| pair[0] == pair[1]), "written behind the room");
        if answer != ck::CKR_OK || self.is_null || self.count_is_null {
            return &[];
        }
        let count = usize::try_from(self.count).expect("a count");
        assert!(count <= self.given, "{count} written into {}", self.given);
        &room[..count]
    }
}

/// A mechanism with its parameter.
pub struct Mechanism {
    mechanism: ck::CK_MECHANISM,
    is_null: bool,
    _parameter: Parameter,
}

impl Mechanism {
    pub fn draw(input: &mut Input<'_>, known: &[ck::CK_MECHANISM_TYPE]) -> Self {
        let code = if input.rarely(10) { input.number() } else { input.pick(known) };
        Self::of(input, code)
    }

    pub fn of(input: &mut Input<'_>, code: ck::CK_MECHANISM_TYPE) -> Self {
        // What the parameter points to stays where it is when the parameter moves.
        let mut parameter = Parameter::draw(input, code);
        let mechanism = ck::CK_MECHANISM {
            mechanism: code,
            pParameter: parameter.pointer(),
            ulParameterLen: parameter.len(),
        };
        Self { mechanism, is_null: input.rarely(40), _parameter: parameter }
    }

    pub fn code(&self) -> ck::CK_MECHANISM_TYPE {
        self.mechanism.mechanism
    }

    pub fn pointer(&mut self) -> *mut ck::CK_MECHANISM {
        if self.is_null { null_mut() } else { &raw mut self.mechanism }
    }
}

/// A template, with its values.
pub struct Template {
    attributes: Vec<ck::CK_ATTRIBUTE>,
    values: Vec<Vec<u8>>,
    nothing_of: Option<ck::CK_ULONG>,
}

const FLAGS: [ck::CK_ATTRIBUTE_TYPE; 19] = [
    ck::CKA_TOKEN,
    ck::CKA_PRIVATE,
    ck::CKA_MODIFIABLE,
    ck::CKA_COPYABLE,
    ck::CKA_DESTROYABLE,
    ck::CKA_DERIVE,
    ck::CKA_LOCAL,
    ck::CKA_ENCRYPT,
    ck::CKA_DECRYPT,
    ck::CKA_SIGN,
    ck::CKA_VERIFY,
    ck::CKA_WRAP,
    ck::CKA_UNWRAP,
    ck::CKA_TRUSTED,
    ck::CKA_SENSITIVE,
    ck::CKA_EXTRACTABLE,
    ck::CKA_WRAP_WITH_TRUSTED,
    ck::CKA_ALWAYS_SENSITIVE,
    ck::CKA_ALWAYS_AUTHENTICATE,
];
const NUMBERS: [ck::CK_ATTRIBUTE_TYPE; 6] = [
    ck::CKA_CLASS,
    ck::CKA_KEY_TYPE,
    ck::CKA_VALUE_LEN,
    ck::CKA_KEY_GEN_MECHANISM,
    ck::CKA_CERTIFICATE_TYPE,
    ck::CKA_MODULUS_BITS,
];
// CKA_WRAP_TEMPLATE and its like are missing on purpose: their values are pointers.
const TEXTS: [ck::CK_ATTRIBUTE_TYPE; 9] = [
    ck::CKA_LABEL,
    ck::CKA_ID,
    ck::CKA_VALUE,
    ck::CKA_EC_PARAMS,
    ck::CKA_EC_POINT,
    ck::CKA_CHECK_VALUE,
    ck::CKA_START_DATE,
    ck::CKA_APPLICATION,
    ck::CKA_MODULUS,
];

impl Template {
    pub fn of(values: Vec<(ck::CK_ATTRIBUTE_TYPE, Vec<u8>)>) -> Self {
        let mut template = Self { attributes: Vec::new(), values: Vec::new(), nothing_of: None };
        values.into_iter().for_each(|(attribute, value)| template.push(attribute, value));
        template
    }

    pub fn draw(input: &mut Input<'_>) -> Self {
        let mut template = Self::of(Vec::new());
        template.disturb(input);
        if input.rarely(24) {
            template.nothing_of = Some(input.number());
        }
        template
    }

    /// Adds attributes that may be wrong in every way.
    pub fn disturb(&mut self, input: &mut Input<'_>) {
        for _ in 0..input.below(4) {
            let value = match input.below(8) {
                0 => input.bytes(),
                1..=4 => vec![input.pick(&[0, 1, 1, 2])],
                _ => input.number().to_ne_bytes().to_vec(),
            };
            let attribute = match (value.len(), input.rarely(12)) {
                (_, true) => input.number() & 0x3fff_ffff,
                (1, _) => input.pick(&FLAGS),
                (8, _) => input.pick(&NUMBERS),
                _ => input.pick(&TEXTS),
            };
            // Only a type whose value is no array of attributes, which would hold pointers.
            if attribute & ck::CKF_ARRAY_ATTRIBUTE == 0 {
                self.push(attribute, value);
            }
            if input.rarely(16)
                && let Some(last) = self.attributes.last_mut()
            {
                last.pValue = null_mut();
                last.ulValueLen = input.number();
            }
        }
    }

    fn push(&mut self, type_: ck::CK_ATTRIBUTE_TYPE, mut value: Vec<u8>) {
        let (place, len) = (value.as_mut_ptr().cast(), value.len() as ck::CK_ULONG);
        self.attributes.push(ck::CK_ATTRIBUTE { type_, pValue: place, ulValueLen: len });
        // The bytes stay where they are when the vector moves.
        self.values.push(value);
    }

    pub fn pointer(&mut self) -> *mut ck::CK_ATTRIBUTE {
        match self.nothing_of {
            Some(_) => null_mut(),
            None => self.attributes.as_mut_ptr(),
        }
    }

    pub fn count(&self) -> ck::CK_ULONG {
        self.nothing_of.unwrap_or(self.attributes.len() as ck::CK_ULONG)
    }
}
