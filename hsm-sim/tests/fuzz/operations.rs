//! Calls that encrypt, digest, sign, wrap and derive, and those that few modules have.
#![expect(unsafe_code, reason = "the fuzzer calls C functions")]

use std::ptr::null_mut;

use cryptoki_sys as ck;

use crate::calls::{Client, MECHANISM, call};
use crate::input::Input;
use crate::memory::{Bytes, Mechanism, Room, Template};

/// Mechanisms with every kind of parameter that there is.
pub const WITH_PARAMETER: [ck::CK_MECHANISM_TYPE; 11] = [
    ck::CKM_AES_GCM,
    ck::CKM_AES_CTR,
    ck::CKM_AES_CBC_PAD,
    ck::CKM_SHA256_HMAC_GENERAL,
    ck::CKM_RSA_PKCS_PSS,
    ck::CKM_SHA256_RSA_PKCS_PSS,
    ck::CKM_RSA_PKCS_OAEP,
    ck::CKM_ECDH1_DERIVE,
    ck::CKM_HKDF_DERIVE,
    SM4_GCM,
    SM4_CTR,
];
const SM4_GCM: ck::CK_MECHANISM_TYPE = 0x8000_010F;
const SM4_CTR: ck::CK_MECHANISM_TYPE = 0x8000_F101;

impl Client<'_> {
    fn keep(&mut self, room: &Room<u8>, answer: ck::CK_RV) {
        let bytes = room.check(answer);
        if !bytes.is_empty() {
            self.last_output = bytes.to_vec();
        }
    }

    /// Notes a mechanism whose parameter was taken.
    fn took(&mut self, mechanism: &Mechanism, answer: ck::CK_RV) {
        if answer == ck::CKR_OK {
            self.reached.insert((MECHANISM, mechanism.code()));
        }
    }

    /// A session object: a secret key that may be used for everything.
    fn secret_key(
        &mut self,
        session: ck::CK_SESSION_HANDLE,
        key_type: ck::CK_KEY_TYPE,
        len: usize,
    ) -> ck::CK_OBJECT_HANDLE {
        let uses =
            [ck::CKA_ENCRYPT, ck::CKA_DECRYPT, ck::CKA_WRAP, ck::CKA_SIGN, ck::CKA_VERIFY, ck::CKA_DERIVE];
        let mut template: Vec<_> = uses.into_iter().map(|attribute| (attribute, vec![1])).collect();
        template.push((ck::CKA_CLASS, ck::CKO_SECRET_KEY.to_ne_bytes().to_vec()));
        template.push((ck::CKA_KEY_TYPE, key_type.to_ne_bytes().to_vec()));
        template.push((ck::CKA_PRIVATE, vec![0]));
        template.push((ck::CKA_VALUE, vec![7; len]));
        let (mut template, mut key) = (Template::of(template), 0);
        call!(self.C_CreateObject(session, template.pointer(), template.count(), &raw mut key));
        key
    }

    /// A mechanism with a parameter, a key of the right kind, and nothing running that could be in the
    /// way: what happens depends on the parameter alone.
    pub fn begin_with_fitting_key(&mut self, input: &mut Input<'_>) {
        let session = self.session(input);
        let code = input.pick(&WITH_PARAMETER);
        let mut mechanism = Mechanism::of(input, code);
        let key = match code {
            ck::CKM_AES_GCM | ck::CKM_AES_CTR | ck::CKM_AES_CBC_PAD => {
                self.secret_key(session, ck::CKK_AES, 32)
            }
            SM4_GCM | SM4_CTR => self.secret_key(session, 0x8000_0106, 16),
            ck::CKM_SHA256_HMAC_GENERAL | ck::CKM_HKDF_DERIVE => {
                self.secret_key(session, ck::CKK_GENERIC_SECRET, 32)
            }
            _ if self.pairs.is_empty() => return,
            _ => input.pick(&self.pairs),
        };
        call!(self.C_SessionCancel(session, ck::CK_FLAGS::MAX));
        let is_first_half = input.rarely(2);
        let answer = match code {
            ck::CKM_ECDH1_DERIVE | ck::CKM_HKDF_DERIVE => {
                let (mut template, mut made) = (Self::secret_template(input), 0);
                let (first, count) = (template.pointer(), template.count());
                call!(self.C_DeriveKey(session, mechanism.pointer(), key, first, count, &raw mut made))
            }
            ck::CKM_SHA256_HMAC_GENERAL | ck::CKM_RSA_PKCS_PSS | ck::CKM_SHA256_RSA_PKCS_PSS => {
                if is_first_half {
                    call!(self.C_SignInit(session, mechanism.pointer(), key))
                } else {
                    call!(self.C_VerifyInit(session, mechanism.pointer(), key))
                }
            }
            _ if is_first_half => call!(self.C_EncryptInit(session, mechanism.pointer(), key)),
            _ => call!(self.C_DecryptInit(session, mechanism.pointer(), key)),
        };
        self.took(&mechanism, answer);
    }

    pub fn encrypt(&mut self, input: &mut Input<'_>) {
        let session = self.session(input);
        const CIPHERS: [ck::CK_MECHANISM_TYPE; 10] = [
            ck::CKM_AES_GCM,
            ck::CKM_AES_GCM,
            0x8000_010F,
            ck::CKM_AES_CTR,
            ck::CKM_AES_CBC_PAD,
            ck::CKM_RSA_PKCS,
            ck::CKM_RSA_PKCS_OAEP,
            ck::CKM_AES_KEY_WRAP,
            0x8000_8200,
            0x8000_F101,
        ];
        let mut mechanism = if input.rarely(4) {
            self.mechanism(input)
        } else {
            let code = input.pick(&CIPHERS);
            Mechanism::of(input, code)
        };
        let key = self.key(input, mechanism.code());
        let mut data = self.data(input);
        let mut room = Room::<u8>::draw(input);
        let (from, from_len) = (data.pointer(), data.len());
        let (to, to_len) = (room.pointer(), room.count_pointer());
        let answer = match input.below(12) {
            way @ 0..=5 => {
                let answer = match way {
                    0..=2 => call!(self.C_EncryptInit(session, mechanism.pointer(), key)),
                    _ => call!(self.C_DecryptInit(session, mechanism.pointer(), key)),
                };
                self.took(&mechanism, answer);
                return;
            }
            6 => call!(self.C_Encrypt(session, from, from_len, to, to_len)),
            7 => call!(self.C_Decrypt(session, from, from_len, to, to_len)),
            8 => call!(self.C_EncryptUpdate(session, from, from_len, to, to_len)),
            9 => call!(self.C_DecryptUpdate(session, from, from_len, to, to_len)),
            10 => call!(self.C_EncryptFinal(session, to, to_len)),
            _ => call!(self.C_DecryptFinal(session, to, to_len)),
        };
        self.keep(&room, answer);
    }

    /// What was encrypted comes back, in one piece or in parts, if the key can do both.
    pub fn encrypt_and_decrypt(&mut self, input: &mut Input<'_>) {
        let (session, key) = (self.session(input), self.object(input));
        let code = input.pick(&[ck::CKM_AES_GCM, 0x8000_010F]);
        let mut mechanism = Mechanism::of(input, code);
        let (mut data, mut sealed, mut opened) = (input.bytes(), vec![0; 700], vec![0; 700]);
        let (from, from_len) = (data.as_mut_ptr(), data.len() as ck::CK_ULONG);
        let (mut sealed_len, mut opened_len) = (700, 700);
        let (middle, to) = (sealed.as_mut_ptr(), opened.as_mut_ptr());
        // Only if none of them was running before, with another key or another IV.
        if call!(self.C_EncryptInit(session, mechanism.pointer(), key)) != ck::CKR_OK {
            return;
        }
        if call!(self.C_Encrypt(session, from, from_len, middle, &raw mut sealed_len)) != ck::CKR_OK {
            return;
        }
        if call!(self.C_DecryptInit(session, mechanism.pointer(), key)) != ck::CKR_OK {
            return;
        }
        let answer = if input.rarely(2) {
            call!(self.C_DecryptUpdate(session, middle, sealed_len, to, &raw mut opened_len));
            opened_len = 700;
            call!(self.C_DecryptFinal(session, to, &raw mut opened_len))
        } else {
            call!(self.C_Decrypt(session, middle, sealed_len, to, &raw mut opened_len))
        };
        let is_same = usize::try_from(opened_len).is_ok_and(|len| opened.get(..len) == Some(&data[..]));
        assert!(answer == ck::CKR_OK && is_same, "a message does not come back: {answer:#x}");
    }

    pub fn digest(&mut self, input: &mut Input<'_>) {
        let session = self.session(input);
        let mut mechanism = match input.below(3) {
            0 => self.mechanism(input),
            _ => Mechanism::of(input, ck::CKM_SHA256),
        };
        let mut data = self.data(input);
        let mut room = Room::<u8>::draw(input);
        let (from, from_len) = (data.pointer(), data.len());
        let (to, to_len) = (room.pointer(), room.count_pointer());
        let answer = match input.below(6) {
            0..=1 => call!(self.C_DigestInit(session, mechanism.pointer())),
            2 => call!(self.C_Digest(session, from, from_len, to, to_len)),
            3 => call!(self.C_DigestUpdate(session, from, from_len)),
            4 => call!(self.C_DigestFinal(session, to, to_len)),
            _ => {
                let key = self.object(input);
                call!(self.C_DigestKey(session, key))
            }
        };
        self.keep(&room, answer);
    }

    pub fn sign(&mut self, input: &mut Input<'_>) {
        let session = self.session(input);
        let signers = [
            ck::CKM_ECDSA,
            ck::CKM_ECDSA_SHA256,
            ck::CKM_SHA256_HMAC,
            ck::CKM_SHA256_HMAC_GENERAL,
            ck::CKM_RSA_PKCS,
            ck::CKM_RSA_PKCS_PSS,
            ck::CKM_SHA256_RSA_PKCS_PSS,
            0x8000_8100,
            0x8000_8104,
        ];
        let code = if input.rarely(4) { input.pick(&self.mechanisms) } else { input.pick(&signers) };
        let mut mechanism = Mechanism::of(input, code);
        let key = self.key(input, code);
        let mut data = Bytes::draw(input);
        let mut signature = self.data(input);
        let mut room = Room::<u8>::draw(input);
        let (from, from_len) = (data.pointer(), data.len());
        let (to, to_len) = (room.pointer(), room.count_pointer());
        let (signed, signed_len) = (signature.pointer(), signature.len());
        let answer = match input.below(12) {
            way @ 0..=5 => {
                let answer = match way {
                    0..=2 => call!(self.C_SignInit(session, mechanism.pointer(), key)),
                    _ => call!(self.C_VerifyInit(session, mechanism.pointer(), key)),
                };
                self.took(&mechanism, answer);
                return;
            }
            6 => call!(self.C_Sign(session, from, from_len, to, to_len)),
            7 => call!(self.C_Verify(session, from, from_len, signed, signed_len)),
            8 => call!(self.C_SignUpdate(session, from, from_len)),
            9 => call!(self.C_VerifyUpdate(session, from, from_len)),
            10 => call!(self.C_SignFinal(session, to, to_len)),
            _ => call!(self.C_VerifyFinal(session, signed, signed_len)),
        };
        self.keep(&room, answer);
    }

    /// A signature that is made and checked with the same mechanism, in the hope for the right keys.
    pub fn sign_and_verify(&mut self, input: &mut Input<'_>) {
        let (session, key, other) = (self.session(input), self.object(input), self.object(input));
        let code = input.pick(&[ck::CKM_ECDSA, ck::CKM_ECDSA_SHA256, ck::CKM_SHA256_HMAC, 0x8000_8100]);
        let mut mechanism = ck::CK_MECHANISM { mechanism: code, pParameter: null_mut(), ulParameterLen: 0 };
        let (mut data, mut signature) = (vec![input.byte(); 32], vec![0; 200]);
        let (from, from_len) = (data.as_mut_ptr(), data.len() as ck::CK_ULONG);
        let mut len = signature.len() as ck::CK_ULONG;
        let to = signature.as_mut_ptr();
        call!(self.C_SignInit(session, &raw mut mechanism, key));
        call!(self.C_VerifyInit(session, &raw mut mechanism, other));
        if call!(self.C_Sign(session, from, from_len, to, &raw mut len)) != ck::CKR_OK {
            return;
        }
        if input.rarely(2) {
            call!(self.C_VerifyUpdate(session, from, from_len));
            call!(self.C_VerifyFinal(session, to, len));
        } else {
            call!(self.C_Verify(session, from, from_len, to, len));
        }
    }

    pub fn wrap_and_derive(&mut self, input: &mut Input<'_>) {
        let (session, other) = (self.session(input), self.object(input));
        const WRAPPERS: [ck::CK_MECHANISM_TYPE; 8] = [
            ck::CKM_AES_KEY_WRAP,
            ck::CKM_AES_KEY_WRAP_PAD,
            ck::CKM_AES_GCM,
            ck::CKM_AES_CBC_PAD,
            ck::CKM_RSA_PKCS,
            ck::CKM_RSA_PKCS_OAEP,
            0x8000_010F,
            0x8000_8200,
        ];
        let way = input.below(4);
        let mut mechanism = match (way, input.rarely(6)) {
            (_, true) => self.mechanism(input),
            (0 | 1, _) => {
                let code = input.pick(&WRAPPERS);
                Mechanism::of(input, code)
            }
            _ => {
                let code = input.pick(&[ck::CKM_ECDH1_DERIVE, ck::CKM_HKDF_DERIVE]);
                Mechanism::of(input, code)
            }
        };
        let key = self.key(input, mechanism.code());
        let mut template = if input.rarely(4) { Template::draw(input) } else { Self::secret_template(input) };
        let mut room = Room::<u8>::draw(input);
        let mut wrapped =
            if input.rarely(4) { self.data(input) } else { Bytes::of(self.last_output.clone()) };
        let mut made = 0;
        let answer = match way {
            0 => {
                let (to, to_len) = (room.pointer(), room.count_pointer());
                let answer = call!(self.C_WrapKey(session, mechanism.pointer(), key, other, to, to_len));
                self.keep(&room, answer);
                self.took(&mechanism, answer);
                if self.last_output.is_empty() || answer != ck::CKR_OK || input.rarely(3) {
                    return;
                }
                // Back again, with the same key or with what may be its other half.
                let key = if input.rarely(2) { key } else { self.key(input, mechanism.code()) };
                let mut wrapped = Bytes::of(self.last_output.clone());
                call!(self.C_UnwrapKey(
                    session,
                    mechanism.pointer(),
                    key,
                    wrapped.pointer(),
                    wrapped.len(),
                    template.pointer(),
                    template.count(),
                    &raw mut made,
                ))
            }
            1 => call!(self.C_UnwrapKey(
                session,
                mechanism.pointer(),
                key,
                wrapped.pointer(),
                wrapped.len(),
                template.pointer(),
                template.count(),
                &raw mut made,
            )),
            _ => call!(self.C_DeriveKey(
                session,
                mechanism.pointer(),
                key,
                template.pointer(),
                template.count(),
                &raw mut made,
            )),
        };
        self.took(&mechanism, answer);
        if answer == ck::CKR_OK {
            self.objects.push(made);
        }
    }

    /// For a secret key that is unwrapped or derived.
    fn secret_template(input: &mut Input<'_>) -> Template {
        let key_type = input.pick(&[ck::CKK_GENERIC_SECRET, ck::CKK_AES, ck::CKK_DES3, ck::CKK_SHA256_HMAC]);
        let mut template = vec![
            (ck::CKA_CLASS, ck::CKO_SECRET_KEY.to_ne_bytes().to_vec()),
            (ck::CKA_KEY_TYPE, key_type.to_ne_bytes().to_vec()),
            (ck::CKA_EXTRACTABLE, vec![1]),
        ];
        if !input.rarely(3) {
            let len = input.pick(&[16_u64, 24, 32, 32, 48, 600]);
            template.push((ck::CKA_VALUE_LEN, len.to_ne_bytes().to_vec()));
        }
        let mut template = Template::of(template);
        if input.rarely(6) {
            template.disturb(input);
        }
        template
    }

    /// Functions that few modules have.
    pub fn rare(&mut self, input: &mut Input<'_>) {
        let (session, key) = (self.session(input), self.object(input));
        let mut mechanism = self.mechanism(input);
        let mut data = self.data(input);
        let mut room = Room::<u8>::draw(input);
        let (from, from_len) = (data.pointer(), data.len());
        let (to, to_len) = (room.pointer(), room.count_pointer());
        let answer = match input.below(20) {
            0 => call!(self.C_GetOperationState(session, to, to_len)),
            1 => call!(self.C_SetOperationState(session, from, from_len, key, key)),
            2 => call!(self.C_SignRecoverInit(session, mechanism.pointer(), key)),
            3 => call!(self.C_SignRecover(session, from, from_len, to, to_len)),
            4 => call!(self.C_VerifyRecoverInit(session, mechanism.pointer(), key)),
            5 => call!(self.C_VerifyRecover(session, from, from_len, to, to_len)),
            6 => call!(self.C_DigestEncryptUpdate(session, from, from_len, to, to_len)),
            7 => call!(self.C_DecryptDigestUpdate(session, from, from_len, to, to_len)),
            8 => call!(self.C_SignEncryptUpdate(session, from, from_len, to, to_len)),
            9 => call!(self.C_DecryptVerifyUpdate(session, from, from_len, to, to_len)),
            10 => call!(self.C_GetFunctionStatus(session)),
            11 => call!(self.C_CancelFunction(session)),
            // With the flag, because without it a module may wait for ever, and rightly so.
            12 => call!(self.C_WaitForSlotEvent(ck::CKF_DONT_BLOCK, null_mut(), null_mut())),
            13 => call!(self.C_MessageEncryptInit(session, mechanism.pointer(), key)),
            14 => call!(self.C_MessageDecryptFinal(session)),
            15 => call!(self.C_SignMessageBegin(session, null_mut(), 0)),
            _ => {
                let flags = input.number();
                call!(self.C_SessionCancel(session, flags))
            }
        };
        self.keep(&room, answer);
    }
}
