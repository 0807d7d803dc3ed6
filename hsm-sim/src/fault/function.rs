//! The functions of the standard by name, as a control file names them.

macro_rules! functions {
    ($($name:ident)*) => {
        /// A function that goes through the gate.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[expect(non_camel_case_types, clippy::enum_variant_names, reason = "the names of the standard")]
        pub enum Function { $($name),* }

        impl Function {
            const ALL: &[Self] = &[$(Self::$name),*];

            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),* }
            }
        }
    };
}

functions! {
    C_Initialize C_Finalize C_GetInfo
    C_GetSlotList C_GetSlotInfo C_GetTokenInfo C_GetMechanismList C_GetMechanismInfo
    C_InitToken C_InitPIN C_SetPIN
    C_OpenSession C_CloseSession C_CloseAllSessions C_GetSessionInfo
    C_GetOperationState C_SetOperationState C_Login C_Logout
    C_CreateObject C_CopyObject C_DestroyObject C_GetObjectSize C_GetAttributeValue C_SetAttributeValue
    C_FindObjectsInit C_FindObjects C_FindObjectsFinal
    C_EncryptInit C_Encrypt C_EncryptUpdate C_EncryptFinal
    C_DecryptInit C_Decrypt C_DecryptUpdate C_DecryptFinal
    C_DigestInit C_Digest C_DigestUpdate C_DigestKey C_DigestFinal
    C_SignInit C_Sign C_SignUpdate C_SignFinal C_SignRecoverInit C_SignRecover
    C_VerifyInit C_Verify C_VerifyUpdate C_VerifyFinal C_VerifyRecoverInit C_VerifyRecover
    C_DigestEncryptUpdate C_DecryptDigestUpdate C_SignEncryptUpdate C_DecryptVerifyUpdate
    C_GenerateKey C_GenerateKeyPair C_WrapKey C_UnwrapKey C_DeriveKey
    C_SeedRandom C_GenerateRandom
    C_GetFunctionStatus C_CancelFunction C_WaitForSlotEvent
    C_LoginUser C_SessionCancel
    C_MessageEncryptInit C_EncryptMessage C_EncryptMessageBegin C_EncryptMessageNext C_MessageEncryptFinal
    C_MessageDecryptInit C_DecryptMessage C_DecryptMessageBegin C_DecryptMessageNext C_MessageDecryptFinal
    C_MessageSignInit C_SignMessage C_SignMessageBegin C_SignMessageNext C_MessageSignFinal
    C_MessageVerifyInit C_VerifyMessage C_VerifyMessageBegin C_VerifyMessageNext C_MessageVerifyFinal
}

impl Function {
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|function| function.name() == name)
    }

    /// Whether there is an output of bytes that can be corrupted.
    pub fn gives_bytes(self) -> bool {
        matches!(
            self,
            Self::C_Encrypt
                | Self::C_EncryptUpdate
                | Self::C_EncryptFinal
                | Self::C_Decrypt
                | Self::C_DecryptUpdate
                | Self::C_DecryptFinal
                | Self::C_Digest
                | Self::C_DigestFinal
                | Self::C_Sign
                | Self::C_SignFinal
                | Self::C_WrapKey
                | Self::C_GenerateRandom
        )
    }
}

/// Functions that a rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FunctionSet(u128);

impl FunctionSet {
    pub const NONE: Self = Self(0);
    pub const EVERY: Self = Self(u128::MAX);

    // There are fewer functions than bits, which the compiler checks here.
    const _FITS: () = assert!(Function::ALL.len() <= 128);

    #[must_use]
    pub fn with(self, function: Function) -> Self {
        Self(self.0 | (1 << function as u32))
    }

    pub fn contains(self, function: Function) -> bool {
        self.0 & (1 << function as u32) != 0
    }
}
