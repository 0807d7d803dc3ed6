//! How objects are born: from known values, by generation, from other keys, or as a copy.

use cryptoki_sys as ck;
use zeroize::Zeroizing;

use crate::attribute::{self, AttributeValue, Origin, ValueKind};
use crate::key_kind::{Curve, Family, KeyKind, SECRET_LEN_MAX};
use crate::mechanism::check_value::check_value;
use crate::mechanism::cipher::Bytes;
use crate::mechanism::parameter::WantedKey;
use crate::mechanism::rsa_key::{self, PublicHalf, RsaKey};
use crate::mechanism::{Mechanism, ec, ed25519, sm2};
use crate::object::{Object, ObjectClass, SecretValue, Template};
use crate::personality::Personality;
use crate::private_key;
use crate::random;
use crate::refusal::Refusal;

/// Who makes the object, and under which vendor's numbers.
#[derive(Debug, Clone, Copy)]
pub struct Creator {
    pub personality: &'static Personality,
    pub is_security_officer: bool,
}

/// What a key was before it had an object of its own.
#[derive(Debug, Clone, Copy)]
enum Birth {
    FromValues,
    Generated(ck::CK_MECHANISM_TYPE),
    Unwrapped,
    /// With the history of the key that it was derived from.
    Derived {
        always_sensitive: bool,
        never_extractable: bool,
    },
}

impl Creator {
    /// `C_CreateObject`.
    pub fn create(&self, mut template: Template) -> Result<Object, Refusal> {
        if let Some(class) = class_of(&template)?.filter(|class| !class.is_key()) {
            return self.storage_object(class, template);
        }
        let (class, kind) = self.class_and_kind(&template)?;
        match (class, kind.family()) {
            (ObjectClass::SecretKey, Family::Secret) => {
                let value = template.secrets.remove(&ck::CKA_VALUE).ok_or(Refusal::TemplateIncomplete)?;
                self.secret_key(kind, value, template, Birth::FromValues)
            }
            (ObjectClass::PublicKey, Family::Curve) => self.public_curve_key(kind, template),
            (ObjectClass::PublicKey, Family::Rsa) => self.public_rsa_key(template),
            (ObjectClass::PrivateKey, Family::Curve) => {
                let value = template.secrets.remove(&ck::CKA_VALUE).ok_or(Refusal::TemplateIncomplete)?;
                if !template.attributes.contains_key(&ck::CKA_EC_PARAMS) {
                    return Err(Refusal::TemplateIncomplete);
                }
                self.private_curve_key(kind, value.bytes(), template, Birth::FromValues)
            }
            (ObjectClass::PrivateKey, Family::Rsa) => self.private_rsa_key_from_values(template),
            _ => Err(Refusal::TemplateInconsistent),
        }
    }

    /// `C_GenerateKey`. `code` is the number that the mechanism was called by.
    pub fn generate_secret_key(
        &self,
        mechanism: Mechanism,
        code: ck::CK_MECHANISM_TYPE,
        template: Template,
    ) -> Result<Object, Refusal> {
        let Mechanism::GenerateKey(kind) = mechanism else { return Err(Refusal::MechanismInvalid) };
        let len = wanted_len(&template)?.or(kind.only_secret_len()).ok_or(Refusal::TemplateIncomplete)?;
        if !kind.accepts_secret_len(len) {
            return Err(Refusal::AttributeValueInvalid);
        }
        let mut bytes = Zeroizing::new(vec![0; len]);
        random::fill(&mut bytes)?;
        if kind == KeyKind::Des3 {
            set_odd_parity(&mut bytes);
        }
        self.secret_key(kind, SecretValue::new(bytes), template, Birth::Generated(code))
    }

    /// `C_GenerateKeyPair`: the public key, then the private key.
    pub fn generate_key_pair(
        &self,
        mechanism: Mechanism,
        code: ck::CK_MECHANISM_TYPE,
        public: Template,
        private: Template,
    ) -> Result<(Object, Object), Refusal> {
        let Mechanism::GenerateKeyPair(kind) = mechanism else { return Err(Refusal::MechanismInvalid) };
        let birth = Birth::Generated(code);
        if kind == KeyKind::Rsa {
            return self.generate_rsa_pair(birth, public, private);
        }
        // The number of some mechanisms already names the curve.
        let named = public.bytes(ck::CKA_EC_PARAMS).or(kind.only_parameters());
        let parameters = named.ok_or(Refusal::TemplateIncomplete)?.to_vec();
        if !kind.accepts_parameters(&parameters) {
            return Err(Refusal::CurveNotSupported);
        }
        let mut public = self.object(ObjectClass::PublicKey, kind, public, birth)?;
        let mut private = self.object(ObjectClass::PrivateKey, kind, private, birth)?;
        for half in [&mut public, &mut private] {
            set_expected(half, ck::CKA_EC_PARAMS, &parameters)?;
        }
        let pair = match kind {
            KeyKind::Ec => ec::generate(Curve::from_parameters(&parameters)?)?,
            KeyKind::Edwards => ed25519::generate()?,
            KeyKind::Sm2 => sm2::generate()?,
            _ => return Err(Refusal::MechanismInvalid),
        };
        public.attributes.insert(ck::CKA_EC_POINT, AttributeValue::Bytes(ec::wrap_point(&pair.point)?));
        private.value = Some(SecretValue::new(pair.scalar));
        private.require_consistent()?;
        Ok((public, private))
    }

    fn generate_rsa_pair(
        &self,
        birth: Birth,
        public: Template,
        private: Template,
    ) -> Result<(Object, Object), Refusal> {
        let bits = public.number(ck::CKA_MODULUS_BITS).ok_or(Refusal::TemplateIncomplete)?;
        let mut public = self.object(ObjectClass::PublicKey, KeyKind::Rsa, public, birth)?;
        let mut private = self.object(ObjectClass::PrivateKey, KeyKind::Rsa, private, birth)?;
        for half in [&mut public, &mut private] {
            let wanted = half.bytes(ck::CKA_PUBLIC_EXPONENT);
            if wanted.is_some_and(|wanted| PublicHalf::new(&[], wanted).exponent != rsa_key::PUBLIC_EXPONENT)
            {
                return Err(Refusal::AttributeValueInvalid);
            }
        }
        let key = rsa_key::generate(bits)?;
        set_rsa_public_half(&mut public, &key.public);
        set_rsa_public_half(&mut private, &key.public);
        private.value = Some(SecretValue::new(key.private));
        private.require_consistent()?;
        Ok((public, private))
    }

    /// `C_UnwrapKey`, after the wrapping was taken off. Unlike others, such a key is extractable
    /// unless the template says no: the standard has it so.
    pub fn unwrapped(&self, template: Template, plaintext: Bytes) -> Result<Object, Refusal> {
        let (class, kind) = self.class_and_kind(&template)?;
        let mut template = template;
        template.attributes.entry(ck::CKA_EXTRACTABLE).or_insert(AttributeValue::Flag(true));
        match (class, kind.family()) {
            (ObjectClass::SecretKey, Family::Secret) => {
                if !kind.accepts_secret_len(plaintext.len()) {
                    return Err(Refusal::WrappedKeyLenRange);
                }
                self.secret_key(kind, SecretValue::new(plaintext), template, Birth::Unwrapped)
            }
            (ObjectClass::PrivateKey, Family::Curve | Family::Rsa) => {
                let key = private_key::from_pkcs8(&plaintext)?;
                if key.kind != kind {
                    return Err(Refusal::WrappedKeyInvalid);
                }
                if kind == KeyKind::Rsa {
                    let key =
                        rsa_key::from_private_der(&key.value).map_err(|_| Refusal::WrappedKeyInvalid)?;
                    return self.private_rsa_key(key, template, Birth::Unwrapped);
                }
                let parameters = key.parameters.unwrap_or_default();
                let given = AttributeValue::Bytes(parameters);
                match template.attributes.insert(ck::CKA_EC_PARAMS, given.clone()) {
                    Some(wanted) if wanted != given => Err(Refusal::TemplateInconsistent),
                    _ => self.private_curve_key(kind, &key.value, template, Birth::Unwrapped),
                }
            }
            _ => Err(Refusal::TemplateInconsistent),
        }
    }

    /// What kind of secret key a derivation is to make. `natural_len` is how much there is of it.
    pub fn wanted_key(&self, template: &Template, natural_len: Option<usize>) -> Result<WantedKey, Refusal> {
        if template.number(ck::CKA_CLASS).is_some_and(|class| class != ck::CKO_SECRET_KEY) {
            return Err(Refusal::TemplateInconsistent);
        }
        let kind = match template.number(ck::CKA_KEY_TYPE) {
            Some(key_type) => self.personality.key_kind(key_type).ok_or(Refusal::AttributeValueInvalid)?,
            None => KeyKind::GenericSecret,
        };
        let len = wanted_len(template)?.or(kind.only_secret_len()).or(natural_len);
        let len = len.ok_or(Refusal::TemplateIncomplete)?;
        if len > SECRET_LEN_MAX || !kind.accepts_secret_len(len) {
            return Err(Refusal::KeySizeRange);
        }
        Ok(WantedKey { kind, len })
    }

    /// `C_DeriveKey`: a key made of another one has a history only if that one had it.
    pub fn derived(
        &self,
        kind: KeyKind,
        mut value: Bytes,
        template: Template,
        base: &Object,
    ) -> Result<Object, Refusal> {
        if kind == KeyKind::Des3 {
            set_odd_parity(&mut value);
        }
        let birth = Birth::Derived {
            always_sensitive: base.flag(ck::CKA_ALWAYS_SENSITIVE),
            never_extractable: base.flag(ck::CKA_NEVER_EXTRACTABLE),
        };
        self.secret_key(kind, SecretValue::new(value), template, birth)
    }

    /// `C_CopyObject`. The copy may be a session object of a token object or the reverse, and may be
    /// more protected than the original, never less.
    pub fn copy(&self, original: &Object, mut template: Template) -> Result<Object, Refusal> {
        if !original.flag(ck::CKA_COPYABLE) {
            return Err(Refusal::ActionProhibited);
        }
        let place = template.attributes.remove(&ck::CKA_TOKEN);
        let mut tightened = Vec::new();
        for (attribute, protects) in
            [(ck::CKA_PRIVATE, true), (ck::CKA_MODIFIABLE, false), (ck::CKA_DESTROYABLE, false)]
        {
            if let Some(value) = template.attributes.remove(&attribute) {
                let is_unchanged = original.attributes.get(&attribute) == Some(&value);
                if !is_unchanged && value != AttributeValue::Flag(protects) {
                    return Err(Refusal::TemplateInconsistent);
                }
                tightened.push((attribute, value));
            }
        }
        let mut copy = original.changed(template, self.is_security_officer)?;
        copy.attributes.extend(tightened);
        copy.attributes.extend(place.map(|value| (ck::CKA_TOKEN, value)));
        copy.require_consistent()?;
        Ok(copy)
    }

    fn class_and_kind(&self, template: &Template) -> Result<(ObjectClass, KeyKind), Refusal> {
        let class = class_of(template)?.ok_or(Refusal::TemplateIncomplete)?;
        let key_type = template.number(ck::CKA_KEY_TYPE).ok_or(Refusal::TemplateIncomplete)?;
        let kind = self.personality.key_kind(key_type).ok_or(Refusal::AttributeValueInvalid)?;
        Ok((class, kind))
    }

    fn secret_key(
        &self,
        kind: KeyKind,
        value: SecretValue,
        template: Template,
        birth: Birth,
    ) -> Result<Object, Refusal> {
        let len = value.bytes().len();
        if !kind.accepts_secret_len(len) || wanted_len(&template)?.is_some_and(|wanted| wanted != len) {
            return Err(Refusal::AttributeValueInvalid);
        }
        if kind == KeyKind::Des3 && !has_odd_parity(value.bytes()) {
            return Err(Refusal::AttributeValueInvalid);
        }
        let mut object = self.object(ObjectClass::SecretKey, kind, template, birth)?;
        object.attributes.insert(ck::CKA_VALUE_LEN, AttributeValue::Number(len as u64));
        if let Some(check) = check_value(kind, value.bytes()) {
            match object.bytes(ck::CKA_CHECK_VALUE) {
                // An empty one says that the key shall have none.
                Some([]) => {}
                Some(expected) if expected != check => return Err(Refusal::AttributeValueInvalid),
                _ => {
                    object.attributes.insert(ck::CKA_CHECK_VALUE, AttributeValue::Bytes(check));
                }
            }
        }
        object.value = Some(value);
        object.require_consistent()?;
        Ok(object)
    }

    fn public_curve_key(&self, kind: KeyKind, template: Template) -> Result<Object, Refusal> {
        let parameters = template.bytes(ck::CKA_EC_PARAMS).ok_or(Refusal::TemplateIncomplete)?;
        if !kind.accepts_parameters(parameters) {
            return Err(Refusal::CurveNotSupported);
        }
        let object = self.object(ObjectClass::PublicKey, kind, template, Birth::FromValues)?;
        let point = object.bytes(ck::CKA_EC_POINT).ok_or(Refusal::TemplateIncomplete)?;
        let point = ec::unwrap_point(point)?;
        match kind {
            KeyKind::Ec => ec::require_point(crate::mechanism::signature::curve(&object)?, point)?,
            KeyKind::Edwards => ed25519::verifying_key(point).map(|_| ())?,
            KeyKind::Sm2 => sm2::require_point(point)?,
            _ => return Err(Refusal::TemplateInconsistent),
        }
        Ok(object)
    }

    /// The template names the curve.
    fn private_curve_key(
        &self,
        kind: KeyKind,
        scalar: &[u8],
        template: Template,
        birth: Birth,
    ) -> Result<Object, Refusal> {
        let parameters = template.bytes(ck::CKA_EC_PARAMS).ok_or(Refusal::TemplateIncomplete)?;
        if !kind.accepts_parameters(parameters) {
            return Err(Refusal::CurveNotSupported);
        }
        let value = match kind {
            KeyKind::Ec => {
                let curve = Curve::from_parameters(parameters)?;
                let scalar = ec::scalar_of_len(scalar, curve.field_len())?;
                ec::require_scalar(curve, &scalar)?;
                scalar
            }
            KeyKind::Sm2 => {
                let scalar = ec::scalar_of_len(scalar, sm2::SCALAR_LEN)?;
                sm2::require_scalar(&scalar)?;
                scalar
            }
            KeyKind::Edwards => {
                ed25519::signing_key(scalar)?;
                Zeroizing::new(scalar.to_vec())
            }
            _ => return Err(Refusal::TemplateInconsistent),
        };
        let mut object = self.object(ObjectClass::PrivateKey, kind, template, birth)?;
        object.value = Some(SecretValue::new(value));
        object.require_consistent()?;
        Ok(object)
    }

    fn public_rsa_key(&self, template: Template) -> Result<Object, Refusal> {
        let mut object = self.object(ObjectClass::PublicKey, KeyKind::Rsa, template, Birth::FromValues)?;
        let public = object.rsa_public_half().map_err(|_| Refusal::TemplateIncomplete)?;
        public.require_usable()?;
        set_rsa_public_half(&mut object, &public);
        Ok(object)
    }

    fn private_rsa_key_from_values(&self, mut template: Template) -> Result<Object, Refusal> {
        let modulus = template.bytes(ck::CKA_MODULUS).ok_or(Refusal::TemplateIncomplete)?;
        let exponent = template.bytes(ck::CKA_PUBLIC_EXPONENT).ok_or(Refusal::TemplateIncomplete)?;
        let public = PublicHalf::new(modulus, exponent);
        let secrets = std::mem::take(&mut template.secrets);
        if secrets.contains_key(&ck::CKA_VALUE) {
            return Err(Refusal::TemplateInconsistent);
        }
        let key = rsa_key::import(&public, |attribute| secrets.get(&attribute).map(SecretValue::bytes))?;
        self.private_rsa_key(key, template, Birth::FromValues)
    }

    fn private_rsa_key(&self, key: RsaKey, template: Template, birth: Birth) -> Result<Object, Refusal> {
        let mut object = self.object(ObjectClass::PrivateKey, KeyKind::Rsa, template, birth)?;
        set_rsa_public_half(&mut object, &key.public);
        object.value = Some(SecretValue::new(key.private));
        object.require_consistent()?;
        Ok(object)
    }

    /// An object with everything but its key: the template checked against the table, defaults
    /// filled in, and the attributes that tell its history.
    fn object(
        &self,
        class: ObjectClass,
        kind: KeyKind,
        template: Template,
        birth: Birth,
    ) -> Result<Object, Refusal> {
        for name in template.names() {
            let rule = attribute::rule_of(name)?;
            if !rule.applies_to(class, kind.family()) {
                return Err(Refusal::TemplateInconsistent);
            }
            match (rule.origin, birth) {
                (Origin::Token, _) => return Err(Refusal::AttributeReadOnly),
                (Origin::CreatorIfGenerated, Birth::FromValues) => return Err(Refusal::TemplateInconsistent),
                (Origin::CreatorUnlessGenerated, Birth::FromValues) => {}
                (Origin::CreatorUnlessGenerated, _) => return Err(Refusal::TemplateInconsistent),
                (Origin::Creator | Origin::CreatorIfGenerated, _) => {}
            }
        }

        let key_type = self.personality.key_type(kind).ok_or(Refusal::GeneralError)?;
        let mut object = Object { class, attributes: template.attributes, value: None };
        for (attribute, expected) in [(ck::CKA_CLASS, class.code()), (ck::CKA_KEY_TYPE, key_type)] {
            match object.attributes.insert(attribute, AttributeValue::Number(expected)) {
                Some(AttributeValue::Number(given)) if given != expected => {
                    return Err(Refusal::TemplateInconsistent);
                }
                _ => {}
            }
        }
        for (attribute, default) in defaults(class, kind.family()) {
            object.attributes.entry(attribute).or_insert(default);
        }
        if object.flag(ck::CKA_TRUSTED) && !self.is_security_officer {
            return Err(Refusal::AttributeReadOnly);
        }
        // A PIN before each single use is not simulated, so no key may be made that relies on it.
        if object.flag(ck::CKA_ALWAYS_AUTHENTICATE) {
            return Err(Refusal::AttributeValueInvalid);
        }
        let allowed = object.bytes(ck::CKA_ALLOWED_MECHANISMS).unwrap_or_default();
        if !allowed.len().is_multiple_of(size_of::<ck::CK_MECHANISM_TYPE>()) {
            return Err(Refusal::AttributeValueInvalid);
        }
        let history = history(&object, birth);
        object.attributes.extend(history);
        Ok(object)
    }
}

/// The attributes that tell where a key comes from, and whether it was ever less protected than now.
fn history(object: &Object, birth: Birth) -> Vec<(ck::CK_ATTRIBUTE_TYPE, AttributeValue)> {
    let (is_local, mechanism) = match birth {
        Birth::Generated(mechanism) => (true, mechanism),
        Birth::FromValues | Birth::Unwrapped | Birth::Derived { .. } => {
            (false, ck::CK_UNAVAILABLE_INFORMATION)
        }
    };
    let (was_sensitive, was_unextractable) = match birth {
        Birth::Generated(_) => (true, true),
        Birth::Derived { always_sensitive, never_extractable } => (always_sensitive, never_extractable),
        Birth::FromValues | Birth::Unwrapped => (false, false),
    };
    let mut history = vec![
        (ck::CKA_LOCAL, AttributeValue::Flag(is_local)),
        (ck::CKA_KEY_GEN_MECHANISM, AttributeValue::Number(mechanism)),
    ];
    if object.class != ObjectClass::PublicKey {
        let always_sensitive = was_sensitive && object.flag(ck::CKA_SENSITIVE);
        let never_extractable = was_unextractable && !object.flag(ck::CKA_EXTRACTABLE);
        history.push((ck::CKA_ALWAYS_SENSITIVE, AttributeValue::Flag(always_sensitive)));
        history.push((ck::CKA_NEVER_EXTRACTABLE, AttributeValue::Flag(never_extractable)));
    }
    history
}

fn class_of(template: &Template) -> Result<Option<ObjectClass>, Refusal> {
    let code = template.number(ck::CKA_CLASS);
    code.map(|code| ObjectClass::from_code(code).ok_or(Refusal::AttributeValueInvalid)).transpose()
}

/// What an attribute is when the template does not say. The standard leaves most of this to the
/// token; here nothing may be used for anything unless the template asks for it.
pub fn defaults(
    class: ObjectClass,
    family: Family,
) -> impl Iterator<Item = (ck::CK_ATTRIBUTE_TYPE, AttributeValue)> {
    attribute::rules_of(class, family).filter(|rule| rule.origin == Origin::Creator).filter_map(move |rule| {
        let value = match (rule.attribute, rule.kind) {
            (ck::CKA_MODIFIABLE | ck::CKA_COPYABLE | ck::CKA_DESTROYABLE, _) => AttributeValue::Flag(true),
            (ck::CKA_PRIVATE, _) => {
                AttributeValue::Flag(matches!(class, ObjectClass::PrivateKey | ObjectClass::SecretKey))
            }
            (ck::CKA_SENSITIVE, _) => AttributeValue::Flag(class == ObjectClass::PrivateKey),
            (_, ValueKind::Flag) => AttributeValue::Flag(false),
            (ck::CKA_CERTIFICATE_CATEGORY, _) => {
                AttributeValue::Number(ck::CK_CERTIFICATE_CATEGORY_UNSPECIFIED)
            }
            (
                ck::CKA_LABEL
                | ck::CKA_ID
                | ck::CKA_SUBJECT
                | ck::CKA_START_DATE
                | ck::CKA_END_DATE
                | ck::CKA_APPLICATION
                | ck::CKA_OBJECT_ID
                | ck::CKA_ISSUER
                | ck::CKA_PUBLIC_KEY_INFO
                | ck::CKA_SERIAL_NUMBER,
                ValueKind::Bytes,
            ) => AttributeValue::Bytes(Vec::new()),
            _ => return None,
        };
        Some((rule.attribute, value))
    })
}

fn wanted_len(template: &Template) -> Result<Option<usize>, Refusal> {
    let len = template.number(ck::CKA_VALUE_LEN).map(usize::try_from);
    len.transpose().map_err(|_| Refusal::AttributeValueInvalid)
}

/// Gives the key the parameters of its curve, and refuses a template that wanted another curve.
fn set_expected(
    object: &mut Object,
    attribute: ck::CK_ATTRIBUTE_TYPE,
    expected: &[u8],
) -> Result<(), Refusal> {
    match object.attributes.insert(attribute, AttributeValue::Bytes(expected.to_vec())) {
        Some(AttributeValue::Bytes(given)) if given != expected => Err(Refusal::CurveNotSupported),
        _ => Ok(()),
    }
}

fn set_rsa_public_half(object: &mut Object, public: &PublicHalf) {
    object.attributes.insert(ck::CKA_MODULUS, AttributeValue::Bytes(public.modulus.clone()));
    object.attributes.insert(ck::CKA_PUBLIC_EXPONENT, AttributeValue::Bytes(public.exponent.clone()));
    if object.class == ObjectClass::PublicKey {
        object.attributes.insert(ck::CKA_MODULUS_BITS, AttributeValue::Number(public.bits()));
    }
}

/// Each byte of a DES key has its last bit set so that the number of ones is odd.
fn set_odd_parity(key: &mut [u8]) {
    for byte in key {
        *byte ^= u8::from(byte.count_ones().is_multiple_of(2));
    }
}

fn has_odd_parity(key: &[u8]) -> bool {
    key.iter().all(|byte| !byte.count_ones().is_multiple_of(2))
}
