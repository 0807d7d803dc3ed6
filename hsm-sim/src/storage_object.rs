//! Objects that are no keys and are only kept: data, and X.509 certificates, whose bytes nobody here looks
//! into.

use cryptoki_sys as ck;

use crate::attribute::{Origin, rule_of};
use crate::creation::{Creator, defaults};
use crate::key_kind::Family;
use crate::mechanism::cipher::Bytes;
use crate::object::{Object, ObjectClass, SecretValue, Template};
use crate::refusal::Refusal;

impl Creator {
    /// `C_CreateObject` for a class that is no key.
    pub fn storage_object(&self, class: ObjectClass, mut template: Template) -> Result<Object, Refusal> {
        for name in template.names() {
            let rule = rule_of(name)?;
            if !rule.applies_to(class, Family::Storage) {
                return Err(Refusal::TemplateInconsistent);
            }
            if rule.origin == Origin::Token {
                return Err(Refusal::AttributeReadOnly);
            }
        }
        let value = template.secrets.remove(&ck::CKA_VALUE);
        if class == ObjectClass::Certificate {
            match template.number(ck::CKA_CERTIFICATE_TYPE) {
                None => return Err(Refusal::TemplateIncomplete),
                Some(ck::CKC_X_509) => {}
                Some(_) => return Err(Refusal::AttributeValueInvalid),
            }
            if template.bytes(ck::CKA_SUBJECT).is_none() || value.is_none() {
                return Err(Refusal::TemplateIncomplete);
            }
        }
        let value = value.unwrap_or_else(|| SecretValue::new(Bytes::default()));
        let mut object = Object { class, attributes: template.attributes, value: Some(value) };
        for (attribute, default) in defaults(class, Family::Storage) {
            object.attributes.entry(attribute).or_insert(default);
        }
        if object.flag(ck::CKA_TRUSTED) && !self.is_security_officer {
            return Err(Refusal::AttributeReadOnly);
        }
        Ok(object)
    }
}
