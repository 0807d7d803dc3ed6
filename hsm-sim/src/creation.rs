//! How objects are born: from known values, by generation, or as a copy.

use cryptoki_sys as ck;
use zeroize::Zeroizing;

use crate::attribute::{self, AttributeValue, Origin, ValueKind};
use crate::mechanism::check_value::check_value;
use crate::mechanism::{Mechanism, ec, sm2};
use crate::object::{KeyKind, Object, ObjectClass, SecretValue, Template};
use crate::personality::Personality;
use crate::random;
use crate::refusal::Refusal;

/// Who makes the object, and under which vendor's numbers.
#[derive(Debug, Clone, Copy)]
pub struct Creator {
    pub personality: &'static Personality,
    pub is_security_officer: bool,
}

#[derive(Debug, Clone, Copy)]
enum Birth {
    FromValues,
    Generated(ck::CK_MECHANISM_TYPE),
}

impl Creator {
    /// `C_CreateObject`: a secret key or a public curve key. Private keys are not imported in the
    /// clear: no ceremony of ours needs it, and many devices refuse it.
    pub fn create(&self, mut template: Template) -> Result<Object, Refusal> {
        let class = template.number(ck::CKA_CLASS).ok_or(Refusal::TemplateIncomplete)?;
        let class = ObjectClass::from_code(class).ok_or(Refusal::AttributeValueInvalid)?;
        let key_type = template.number(ck::CKA_KEY_TYPE).ok_or(Refusal::TemplateIncomplete)?;
        let kind = self.personality.key_kind(key_type).ok_or(Refusal::AttributeValueInvalid)?;
        let value = template.value.take();
        match (class, kind.curve_parameters()) {
            (ObjectClass::SecretKey, None) => {
                let value = value.ok_or(Refusal::TemplateIncomplete)?;
                self.secret_key(kind, value, template, Birth::FromValues)
            }
            (ObjectClass::PublicKey, Some(parameters)) => {
                if value.is_some() {
                    return Err(Refusal::TemplateInconsistent);
                }
                if !template.attributes.contains_key(&ck::CKA_EC_PARAMS) {
                    return Err(Refusal::TemplateIncomplete);
                }
                let mut object = self.object(class, kind, template, Birth::FromValues)?;
                require_curve(&mut object, parameters)?;
                let point = object.bytes(ck::CKA_EC_POINT).ok_or(Refusal::TemplateIncomplete)?;
                self.require_point_on_curve(kind, ec::unwrap_point(point)?)?;
                Ok(object)
            }
            (ObjectClass::PrivateKey, _) => Err(Refusal::AttributeValueInvalid),
            _ => Err(Refusal::TemplateInconsistent),
        }
    }

    /// `C_GenerateKey`.
    pub fn generate_secret_key(&self, mechanism: Mechanism, template: Template) -> Result<Object, Refusal> {
        let kind = mechanism.generated_secret_key().ok_or(Refusal::MechanismInvalid)?;
        if template.value.is_some() {
            return Err(Refusal::TemplateInconsistent);
        }
        let len = match (template.number(ck::CKA_VALUE_LEN), kind) {
            (Some(len), _) => usize::try_from(len).map_err(|_| Refusal::AttributeValueInvalid)?,
            // SM4 has one key length, so the template need not say it.
            (None, KeyKind::Sm4) => 16,
            (None, _) => return Err(Refusal::TemplateIncomplete),
        };
        if !kind.accepts_secret_len(len) {
            return Err(Refusal::AttributeValueInvalid);
        }
        let mut bytes = Zeroizing::new(vec![0; len]);
        random::fill(&mut bytes)?;
        let birth = self.generated_by(mechanism)?;
        self.secret_key(kind, SecretValue::new(bytes), template, birth)
    }

    /// `C_GenerateKeyPair`: the public key, then the private key.
    pub fn generate_key_pair(
        &self,
        mechanism: Mechanism,
        public: Template,
        private: Template,
    ) -> Result<(Object, Object), Refusal> {
        let kind = mechanism.generated_key_pair().ok_or(Refusal::MechanismInvalid)?;
        let parameters = kind.curve_parameters().ok_or(Refusal::MechanismInvalid)?;
        let birth = self.generated_by(mechanism)?;
        if private.value.is_some() || public.value.is_some() {
            return Err(Refusal::TemplateInconsistent);
        }
        // The number of the SM2 mechanism already names the curve; that of the standard does not.
        if kind == KeyKind::P256 && !public.attributes.contains_key(&ck::CKA_EC_PARAMS) {
            return Err(Refusal::TemplateIncomplete);
        }
        let mut public = self.object(ObjectClass::PublicKey, kind, public, birth)?;
        let mut private = self.object(ObjectClass::PrivateKey, kind, private, birth)?;
        require_curve(&mut public, parameters)?;
        require_curve(&mut private, parameters)?;

        let pair = match kind {
            KeyKind::P256 => ec::generate()?,
            KeyKind::Sm2 => sm2::generate()?,
            KeyKind::Aes | KeyKind::Sm4 | KeyKind::GenericSecret => return Err(Refusal::MechanismInvalid),
        };
        public.attributes.insert(ck::CKA_EC_POINT, AttributeValue::Bytes(ec::wrap_point(&pair.point)?));
        private.value = Some(SecretValue::new(pair.scalar));
        private.require_consistent()?;
        Ok((public, private))
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

    fn secret_key(
        &self,
        kind: KeyKind,
        value: SecretValue,
        template: Template,
        birth: Birth,
    ) -> Result<Object, Refusal> {
        let len = value.bytes().len();
        if !kind.accepts_secret_len(len) {
            return Err(Refusal::AttributeValueInvalid);
        }
        let mut object = self.object(ObjectClass::SecretKey, kind, template, birth)?;
        object.attributes.insert(ck::CKA_VALUE_LEN, AttributeValue::Number(len as u64));
        if let Some(check) = check_value(kind, value.bytes()) {
            object.attributes.insert(ck::CKA_CHECK_VALUE, AttributeValue::Bytes(check));
        }
        object.value = Some(value);
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
            if !rule.classes.contains(&class) {
                return Err(Refusal::TemplateInconsistent);
            }
            match (rule.origin, birth) {
                (Origin::Token, _) => return Err(Refusal::AttributeReadOnly),
                (Origin::CreatorUnlessGenerated, Birth::Generated(_))
                | (Origin::CreatorIfGenerated, Birth::FromValues) => {
                    return Err(Refusal::TemplateInconsistent);
                }
                (Origin::Creator | Origin::CreatorUnlessGenerated | Origin::CreatorIfGenerated, _) => {}
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
        for (attribute, default) in defaults(class) {
            object.attributes.entry(attribute).or_insert(default);
        }
        if object.flag(ck::CKA_TRUSTED) && !self.is_security_officer {
            return Err(Refusal::AttributeReadOnly);
        }
        // A PIN before each single use is not simulated, so no key may be made that relies on it.
        if object.flag(ck::CKA_ALWAYS_AUTHENTICATE) {
            return Err(Refusal::AttributeValueInvalid);
        }

        let (is_local, mechanism) = match birth {
            Birth::Generated(mechanism) => (true, mechanism),
            Birth::FromValues => (false, ck::CK_UNAVAILABLE_INFORMATION),
        };
        let mut history = vec![
            (ck::CKA_LOCAL, AttributeValue::Flag(is_local)),
            (ck::CKA_KEY_GEN_MECHANISM, AttributeValue::Number(mechanism)),
        ];
        if class != ObjectClass::PublicKey {
            let always_sensitive = is_local && object.flag(ck::CKA_SENSITIVE);
            let never_extractable = is_local && !object.flag(ck::CKA_EXTRACTABLE);
            history.push((ck::CKA_ALWAYS_SENSITIVE, AttributeValue::Flag(always_sensitive)));
            history.push((ck::CKA_NEVER_EXTRACTABLE, AttributeValue::Flag(never_extractable)));
        }
        object.attributes.extend(history);
        Ok(object)
    }

    fn generated_by(&self, mechanism: Mechanism) -> Result<Birth, Refusal> {
        let code = self.personality.mechanism_code(mechanism).ok_or(Refusal::MechanismInvalid)?;
        Ok(Birth::Generated(code))
    }

    fn require_point_on_curve(&self, kind: KeyKind, point: &[u8]) -> Result<(), Refusal> {
        match kind {
            KeyKind::P256 => ec::verifying_key(point).map(|_| ()),
            KeyKind::Sm2 => sm2::verifying_key(point, self.personality.sm2_user_id).map(|_| ()),
            KeyKind::Aes | KeyKind::Sm4 | KeyKind::GenericSecret => Err(Refusal::TemplateInconsistent),
        }
    }
}

/// What an attribute is when the template does not say. The standard leaves most of this to the
/// token; here nothing may be used for anything unless the template asks for it.
fn defaults(class: ObjectClass) -> impl Iterator<Item = (ck::CK_ATTRIBUTE_TYPE, AttributeValue)> {
    attribute::rules_of(class).filter(|rule| rule.origin == Origin::Creator).filter_map(move |rule| {
        let value = match (rule.attribute, rule.kind) {
            (ck::CKA_MODIFIABLE | ck::CKA_COPYABLE | ck::CKA_DESTROYABLE, _) => AttributeValue::Flag(true),
            (ck::CKA_PRIVATE, _) => AttributeValue::Flag(class != ObjectClass::PublicKey),
            (ck::CKA_SENSITIVE, _) => AttributeValue::Flag(class == ObjectClass::PrivateKey),
            (_, ValueKind::Flag) => AttributeValue::Flag(false),
            (ck::CKA_LABEL | ck::CKA_ID, _) => AttributeValue::Bytes(Vec::new()),
            _ => return None,
        };
        Some((rule.attribute, value))
    })
}

/// Gives the key the parameters of its curve, and refuses a template that wanted another curve.
fn require_curve(object: &mut Object, parameters: &[u8]) -> Result<(), Refusal> {
    match object.attributes.insert(ck::CKA_EC_PARAMS, AttributeValue::Bytes(parameters.to_vec())) {
        Some(AttributeValue::Bytes(given)) if given != parameters => Err(Refusal::CurveNotSupported),
        _ => Ok(()),
    }
}
