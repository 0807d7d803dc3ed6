//! How objects come into the token: made there, or from material that somebody brings.

use crate::attributes::{mac_key, naming, sealing_key, signing_private_key, signing_public_key};
use crate::encoding::plain;
use crate::error::HsmError;
use crate::live::{CallError, Effect, Live, unsupported};
use crate::pair::profile::PairTable;
use crate::partition::Partition;
use crate::{ConfirmedObject, ObjectKind, pair, sealing};
use cryptoki::object::{Attribute, AttributeType, ObjectHandle};
use kms_core::id::HsmObjectId;
use kms_core::pair::{PrivateParts, check_private_key};
use kms_core::secret::Secret;
use kms_core::suite::aead_open;
use zeroize::Zeroize;

/// Where the secret of an object comes from.
#[derive(Clone, Copy)]
pub(crate) enum Origin<'a> {
    /// The token makes it.
    Token,
    /// A secret key as it is, or the PKCS#8 of a private key.
    Outside(&'a [u8]),
}

/// What an imported key is tried with.
const TRIAL: &[u8] = b"kms/v1/import: trial";

const OTHER_KEY: HsmError = HsmError::UnexpectedAnswer { what: "another key than was given to it" };

/// An object's template with a secret in it, which is wiped when it goes.
struct Template(Vec<Attribute>);

impl Drop for Template {
    fn drop(&mut self) {
        for attribute in &mut self.0 {
            match attribute {
                Attribute::Value(bytes)
                | Attribute::PrivateExponent(bytes)
                | Attribute::Prime1(bytes)
                | Attribute::Prime2(bytes)
                | Attribute::Exponent1(bytes)
                | Attribute::Exponent2(bytes)
                | Attribute::Coefficient(bytes) => bytes.zeroize(),
                _ => {}
            }
        }
    }
}

/// Makes an object that does not exist yet, and confirms it. Whoever calls has the turn at objects.
pub(crate) fn make(
    live: &mut Live,
    partition: &Partition,
    effect: &mut Effect,
    (id, kind, label): (HsmObjectId, ObjectKind, &str),
    origin: Origin<'_>,
) -> Result<ConfirmedObject, CallError> {
    if !live.find(partition, id, None)?.is_empty() {
        return Err(HsmError::AlreadyExists { id }.into());
    }
    *effect = Effect::Possible;
    let made = match origin {
        Origin::Token => generate(live, partition, (id, kind, label))?,
        Origin::Outside(material) => take(live, partition, (id, kind, label), material)?,
    };
    let confirmed = live.confirm(partition, id, kind).and_then(|confirmed| {
        if let Origin::Outside(material) = origin {
            try_imported(live, partition, effect, (kind, &made), &confirmed, material)?;
        }
        Ok(confirmed)
    });
    let is_in_the_way = match (&confirmed, origin) {
        // A key that could get out must not stay.
        (Err(CallError::Ours(HsmError::AttributeNotKept { .. })), _) => {
            partition.known().forget(id);
            true
        }
        // Nor a pair whose halves do not belong together, or a key that is not the one that was brought.
        (Err(CallError::Ours(HsmError::UnexpectedAnswer { .. })), _)
            if matches!((kind, origin), (ObjectKind::KeyPair(..), _) | (_, Origin::Outside(_))) =>
        {
            partition.known().forget(id);
            true
        }
        // Another process made one under this id since we looked, and may be using it already.
        (Err(CallError::Ours(HsmError::Ambiguous { .. })), _) => true,
        _ => false,
    };
    if is_in_the_way {
        // Ours, made a moment ago and never used.
        for handle in made {
            live.session.get().destroy_object(handle)?;
        }
    }
    match confirmed {
        Err(CallError::Ours(HsmError::Ambiguous { .. })) => Err(HsmError::AlreadyExists { id }.into()),
        confirmed => confirmed,
    }
}

fn generate(
    live: &Live,
    partition: &Partition,
    (id, kind, label): (HsmObjectId, ObjectKind, &str),
) -> Result<Vec<ObjectHandle>, CallError> {
    let profile = partition.module().profile();
    let session = live.session.get();
    Ok(match kind {
        ObjectKind::SealingKey(algorithm) => {
            let table = profile.sealing(algorithm).ok_or_else(|| unsupported(kind))?;
            let mut template = sealing_key(profile, algorithm, table);
            template.extend(naming(id, label));
            vec![session.generate_key(&plain(table.generate), &template)?]
        }
        ObjectKind::MacKey(algorithm) => {
            let table = profile.mac(algorithm).ok_or_else(|| unsupported(kind))?;
            let mut template = mac_key(profile, algorithm, table);
            template.extend(naming(id, label));
            vec![session.generate_key(&plain(table.generate), &template)?]
        }
        ObjectKind::KeyPair(algorithm, usage) => {
            let table = profile.pair(algorithm, usage).ok_or_else(|| unsupported(kind))?;
            let (mut public, mut private) =
                (pair::public_key(usage, table), pair::private_key(profile, usage, table));
            public.extend(pair::size(algorithm).into_iter().chain(naming(id, label)));
            private.extend(naming(id, label));
            let (public, private) = session.generate_key_pair(&plain(table.generate), &public, &private)?;
            vec![private, public]
        }
        ObjectKind::SigningKey(suite) => {
            let table = profile.signing(suite).ok_or_else(|| unsupported(kind))?;
            let (mut public, mut private) = (signing_public_key(table), signing_private_key(profile, table));
            public.extend(naming(id, label));
            private.extend(naming(id, label));
            let (public, private) = session.generate_key_pair(&plain(table.generate), &public, &private)?;
            vec![private, public]
        }
    })
}

fn take(
    live: &Live,
    partition: &Partition,
    (id, kind, label): (HsmObjectId, ObjectKind, &str),
    material: &[u8],
) -> Result<Vec<ObjectHandle>, CallError> {
    let profile = partition.module().profile();
    let secret_key = |mut template: Vec<Attribute>| {
        // The value says it; standing beside it, it is refused.
        template.retain(|attribute| attribute.attribute_type() != AttributeType::ValueLen);
        template.extend(naming(id, label));
        template.push(Attribute::Value(material.to_vec()));
        let template = Template(template);
        live.session.get().create_object(&template.0)
    };
    match kind {
        ObjectKind::SealingKey(algorithm) => {
            let table = profile.sealing(algorithm).ok_or_else(|| unsupported(kind))?;
            Ok(vec![secret_key(sealing_key(profile, algorithm, table))?])
        }
        ObjectKind::MacKey(algorithm) => {
            let table = profile.mac(algorithm).ok_or_else(|| unsupported(kind))?;
            Ok(vec![secret_key(mac_key(profile, algorithm, table))?])
        }
        ObjectKind::KeyPair(algorithm, usage) => {
            let table = profile.pair(algorithm, usage).ok_or_else(|| unsupported(kind))?;
            let key = check_private_key(algorithm, material).map_err(|_| OTHER_KEY)?;
            let mut private = Template(pair::private_key(profile, usage, table));
            private.0.extend(naming(id, label));
            private.0.extend(private_values(table, material)?);
            let mut public = pair::public_key(usage, table);
            public.extend(naming(id, label));
            public.extend(pair::public_values(&key));
            let session = live.session.get();
            let private = session.create_object(&private.0)?;
            match session.create_object(&public) {
                Ok(public) => Ok(vec![private, public]),
                Err(error) => {
                    // Half a pair is none, and would be in the way of the next try.
                    session.destroy_object(private)?;
                    Err(error.into())
                }
            }
        }
        // Keys of the deployment itself are never brought.
        ObjectKind::SigningKey(_) => Err(unsupported(kind).into()),
    }
}

fn private_values(table: &PairTable, pkcs8: &[u8]) -> Result<Vec<Attribute>, CallError> {
    Ok(match PrivateParts::of(pkcs8).map_err(|_| OTHER_KEY)? {
        PrivateParts::Scalar(scalar) => {
            let mut values = vec![Attribute::Value(scalar.to_vec())];
            values.extend(table.curve.clone().map(Attribute::EcParams));
            values
        }
        PrivateParts::Rsa { modulus, exponent, private_exponent, primes, exponents, coefficient } => vec![
            Attribute::Modulus(modulus.to_vec()),
            Attribute::PublicExponent(exponent.to_vec()),
            Attribute::PrivateExponent(private_exponent.to_vec()),
            Attribute::Prime1(primes[0].to_vec()),
            Attribute::Prime2(primes[1].to_vec()),
            Attribute::Exponent1(exponents[0].to_vec()),
            Attribute::Exponent2(exponents[1].to_vec()),
            Attribute::Coefficient(coefficient.to_vec()),
        ],
    })
}

/// That the token holds the key that was brought. A pair was tried with its public half; what is left is whether that is the
/// right one. A secret key does in the token what it does here.
fn try_imported(
    live: &mut Live,
    partition: &Partition,
    effect: &mut Effect,
    (kind, made): (ObjectKind, &[ObjectHandle]),
    confirmed: &ConfirmedObject,
    material: &[u8],
) -> Result<(), CallError> {
    let profile = partition.module().profile();
    let Some(handle) = made.first().copied() else { return Err(OTHER_KEY.into()) };
    let is_right = match kind {
        ObjectKind::SealingKey(algorithm) => {
            let table = profile.sealing(algorithm).ok_or_else(|| unsupported(kind))?;
            let sealed = sealing::encrypt(live, profile, table, handle, (TRIAL, TRIAL), effect)?;
            let opened = aead_open(algorithm, material, sealed.nonce(), TRIAL, sealed.ciphertext_and_tag());
            opened.is_ok_and(|opened| opened.expose() == TRIAL)
        }
        ObjectKind::MacKey(algorithm) => {
            let table = profile.mac(algorithm).ok_or_else(|| unsupported(kind))?;
            let mac = Secret::new(live.session.get().sign(&plain(table.mac), handle, TRIAL)?);
            algorithm.mac(material, TRIAL).is_equal(mac.expose())
        }
        ObjectKind::KeyPair(algorithm, _) => {
            let expected = check_private_key(algorithm, material).map_err(|_| OTHER_KEY)?;
            confirmed.pair_public_key.as_ref() == Some(&expected)
        }
        ObjectKind::SigningKey(_) => false,
    };
    if is_right { Ok(()) } else { Err(OTHER_KEY.into()) }
}
