//! The secrets of a deployment, computed by the test itself from the custodians' files.

use crate::scan::{KnownSecret, files_in};
use kms_core::bundle::Bundle;
use kms_core::codec;
use kms_core::envelope::{WrappedKey, wrapped_key_associated_data};
use kms_core::id::{KeyId, KeyVersion, TenantName};
use kms_core::node_key::NodeKeyFile;
use kms_core::quorum::{SecretKind, combine};
use kms_core::secret::SecretBytes;
use kms_core::spec::KeySpec;
use kms_hsm::{HsmModule, HsmPartition, Pin, PinPurpose, Profile, ProfileChoice, Sealed};
use kms_tests::{Custodian, Deployment, Module, binaries};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Row};
use std::fs;

/// The custodians that `dev` makes.
pub const CUSTODIANS: [&str; 3] = ["custodian-1", "custodian-2", "custodian-3"];

/// Everything that follows from the shares, opened with their passphrases.
pub struct QuorumSecrets {
    bundle: Bundle,
    module: Module,
    custodians: Vec<Custodian>,
    start: SecretBytes<32>,
    core: SecretBytes<32>,
}

impl QuorumSecrets {
    /// Opens the share files of a deployment and combines them.
    pub fn of(deployment: &Deployment) -> Self {
        let bundle = deployment.bundle();
        let custodians: Vec<Custodian> =
            CUSTODIANS.iter().map(|name| Custodian::open(deployment, name)).collect();
        let combined = |kind| {
            let shares: Vec<_> = custodians[1..].iter().map(|one| one.shares.share(kind)).collect();
            let (threshold, set) = (bundle.threshold(), bundle.share_set());
            combine(&shares, threshold, &set, kind, bundle.commitment(kind)).expect("two shares combine")
        };
        let (start, core) = (combined(SecretKind::Start), combined(SecretKind::Core));
        Self { module: deployment.options().module, bundle, custodians, start, core }
    }

    /// One of the derived PINs.
    pub fn pin(&self, purpose: PinPurpose) -> Pin {
        let (secret, partition) = match purpose {
            PinPurpose::OperationsUser => (&self.start, &self.bundle.operations),
            PinPurpose::OperationsSo => (&self.core, &self.bundle.operations),
            PinPurpose::CoreUser | PinPurpose::CoreSo => (&self.core, &self.bundle.core),
        };
        let profile = match self.module {
            Module::Sim => "hsm-sim",
            Module::SoftHsm => "softhsm",
        };
        let profile = Profile::by_name(profile).expect("a built-in profile");
        let (suite, epoch) = (self.bundle.suite, partition.pin_epoch);
        Pin::derive(suite, secret, purpose, &partition.serial, epoch, profile.pin_rules()).expect("a PIN")
    }

    /// Shares, quorum secrets and PINs.
    pub fn all(&self) -> Vec<KnownSecret> {
        let mut all = vec![
            KnownSecret::new("the start secret", *self.start.expose()),
            KnownSecret::new("the core secret", *self.core.expose()),
        ];
        for custodian in &self.custodians {
            for kind in [SecretKind::Start, SecretKind::Core] {
                let name = format!("the {} share of {}", kind.name(), custodian.name);
                all.push(KnownSecret::new(name, *custodian.shares.share(kind).value().expose()));
            }
        }
        for (name, purpose) in [
            ("the PIN of the operations user", PinPurpose::OperationsUser),
            ("the PIN of the operations SO", PinPurpose::OperationsSo),
            ("the PIN of the core user", PinPurpose::CoreUser),
            ("the PIN of the core SO", PinPurpose::CoreSo),
        ] {
            all.push(KnownSecret::new(name, self.pin(purpose).expose()));
        }
        all
    }

    /// The private keys of the custodians.
    pub fn identity_keys(&self) -> Vec<KnownSecret> {
        let keys = self.custodians.iter().flat_map(|one| {
            [("signing", &one.identity.sign_key), ("sealing", &one.identity.seal_key)].map(|(use_of, key)| {
                KnownSecret::new(format!("the {use_of} key of {}", one.name), *key.scalar().expose())
            })
        });
        keys.collect()
    }

    /// The material of every wrapped key, opened in SoftHSM as the server does it, and the key of the rows' MACs.
    /// Only in a process that uses the deployment's tokens.
    pub async fn in_the_hsm(&self, deployment: &Deployment) -> Vec<KnownSecret> {
        let module = HsmModule::open(binaries::softhsm(), ProfileChoice::Auto).expect("SoftHSM loads");
        let operations = &self.bundle.operations;
        let partition = module
            .open_partition(&operations.label, &operations.serial, self.pin(PinPurpose::OperationsUser))
            .expect("the derived PIN opens the operations partition");
        let mut session = partition.open_session().expect("a session");
        let context = [b"kms/v1/row-mac\0".as_slice(), &self.bundle.cluster_id].concat();
        let row_mac = session.mac(self.bundle.row_mac_key, self.bundle.suite.mac(), &context).expect("a MAC");
        let mut all = vec![KnownSecret::new("the key of the rows' MACs", row_mac.expose())];
        for row in wrapped_rows(deployment).await {
            let wrapped = WrappedKey::open(&row.wrapped).expect("a wrapped key");
            let master = self.bundle.master_key(wrapped.master_version).expect("its master key");
            let aad =
                wrapped_key_associated_data(&row.tenant, (row.key_id, row.version), row.spec, master.version);
            let sealed = Sealed::parse(&wrapped.nonce, wrapped.ciphertext_and_tag).expect("sealed bytes");
            let material = session.open(master.object, master.algorithm, &aad, &sealed).expect("it opens");
            let name = format!("the material of {}@{}", row.key_id, row.version);
            all.push(KnownSecret::new(name, material.expose()));
        }
        drop(session);
        partition.close();
        all
    }
}

/// What the custodians type.
pub fn passphrases(deployment: &Deployment) -> Vec<KnownSecret> {
    let read = |name: &&str| {
        let text = fs::read(deployment.custodian_file(name, "passphrase")).expect("a passphrase");
        KnownSecret::new(format!("the passphrase of {name}"), text)
    };
    CUSTODIANS.iter().map(read).collect()
}

/// The node's private key.
pub fn node_key(deployment: &Deployment) -> KnownSecret {
    let text = fs::read(deployment.state("node/node.key")).expect("the node key");
    let file: NodeKeyFile = codec::open_armour(&text).expect("a node key");
    let key = file.key().expect("a scalar of its curve");
    KnownSecret::new("the node's private key", *key.scalar().expose())
}

/// The private keys of the certificates that `dev` makes: the server's, the clients' and the authority's.
pub fn tls_keys(deployment: &Deployment) -> Vec<KnownSecret> {
    let mut keys = Vec::new();
    for path in files_in(&deployment.state("certificates")) {
        if path.extension().is_none_or(|extension| extension != "key") {
            continue;
        }
        let name = path.file_stem().expect("a key has a name").to_string_lossy();
        let pem = fs::read(&path).expect("a private key");
        let key = PrivateKeyDer::from_pem_slice(&pem).expect("a private key is PEM");
        keys.push(KnownSecret::new(format!("the TLS key of {name}"), scalar(key.secret_der())));
    }
    // The authority, the server, and the principals that are no custodians.
    assert_eq!(keys.len(), CUSTODIANS.len() + 5, "every certificate has a key");
    keys
}

/// The scalar in a private key of P-256 (RFC 5915: version 1, then 32 bytes).
fn scalar(der: &[u8]) -> Vec<u8> {
    const BEFORE: [u8; 5] = [0x02, 0x01, 0x01, 0x04, 0x20];
    let start = der.windows(BEFORE.len()).position(|bytes| bytes == BEFORE).expect("a key of P-256");
    der[start + BEFORE.len()..][..32].to_vec()
}

struct WrappedRow {
    tenant: TenantName,
    key_id: KeyId,
    version: KeyVersion,
    spec: KeySpec,
    wrapped: Vec<u8>,
}

async fn wrapped_rows(deployment: &Deployment) -> Vec<WrappedRow> {
    let database = SqliteConnectOptions::new().filename(deployment.state("kms.db")).read_only(true);
    let mut database = database.connect().await.expect("the database can be read");
    let sql = "SELECT v.tenant, v.key_id, v.version, k.spec, v.wrapped FROM key_versions v \
               JOIN keys k ON k.tenant = v.tenant AND k.key_id = v.key_id WHERE v.wrapped IS NOT NULL";
    let rows = sqlx::query(sql).fetch_all(&mut database).await.expect("rows");
    database.close().await.expect("the database is closed");
    rows.iter()
        .map(|row| WrappedRow {
            tenant: TenantName::parse(row.get(0)).expect("a tenant"),
            key_id: KeyId(row.get::<Vec<u8>, _>(1).try_into().expect("16 bytes")),
            version: KeyVersion::new(u32::try_from(row.get::<i64, _>(2)).expect("small")).expect("from 1"),
            spec: KeySpec::from_name(row.get(3)).expect("a specification"),
            wrapped: row.get(4),
        })
        .collect()
}
