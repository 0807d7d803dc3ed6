//! `kms data-key-pair`.

use crate::args::{DataKeyPairCommand, PairOutputArguments, RecipientArguments};
use crate::data_key::{new_file, read_ciphertext};
use crate::output::{Failure, base64};
use crate::pending::{PendingFile, Readers};
use crate::{Session, context, expected_key, key_reference, named_key, recipient};
use kms_client::{DataKeyPair, PrivateKeyFor};
use pem_rfc7468::LineEnding;
use std::fs::File;
use zeroize::Zeroizing;

/// Where the parts of a pair go. All files are opened before the call: a pair that cannot be kept is not asked for.
struct Places {
    private: Option<(PendingFile, File)>,
    public: Option<(PendingFile, File)>,
    recipient: Option<(PendingFile, File)>,
}

impl Places {
    fn open(out: &PairOutputArguments, recipient: &RecipientArguments) -> Result<Self, Failure> {
        Ok(Self {
            private: new_file(out.out_private.as_deref(), Readers::Owner)?,
            public: new_file(out.out_public.as_deref(), Readers::Umask)?,
            recipient: new_file(recipient.out_recipient.as_deref(), Readers::Umask)?,
        })
    }

    /// Writes what has a file, and gives the rest to be printed.
    fn keep(self, pair: DataKeyPair) -> Result<Vec<(&'static str, Zeroizing<String>)>, Failure> {
        let public = pair.public_key.to_spki();
        let mut lines = vec![
            ("key_id", Zeroizing::new(pair.key_id.to_string())),
            ("key_version", Zeroizing::new(pair.key_version.to_string())),
            ("spec", Zeroizing::new(pair.public_key.algorithm().name().to_owned())),
        ];
        match self.public {
            Some((pending, file)) => pending.write(file, pem("PUBLIC KEY", &public)?.as_bytes())?,
            None => lines.push(("public_key", base64(&public))),
        }
        match (pair.private_key, self.private) {
            (Some(private), Some((pending, file))) => {
                pending.write(file, pem("PRIVATE KEY", private.expose())?.as_bytes())?;
            }
            (Some(private), None) => lines.push(("private_key", base64(private.expose()))),
            (None, _) => {}
        }
        let for_recipient = recipient::keep_or_show(pair.recipient_ciphertext, self.recipient)?;
        lines.extend(for_recipient.map(|bytes| ("recipient_ciphertext", base64(&bytes))));
        Ok(lines)
    }
}

fn pem(label: &'static str, der: &[u8]) -> Result<Zeroizing<String>, Failure> {
    pem_rfc7468::encode_string(label, LineEnding::LF, der).map(Zeroizing::new).map_err(|error| {
        Failure::new(format!("the key cannot be written: {error}"), "kms data-key-pair --help")
    })
}

pub async fn run(session: &Session, command: DataKeyPairCommand) -> Result<(), Failure> {
    match command {
        DataKeyPairCommand::Generate {
            key,
            spec,
            context: pairs,
            recipient: to,
            without_private_key,
            out,
            out_ciphertext,
        } => {
            let (reference, context) = (key_reference(&key)?, context(pairs.pairs)?);
            let named = recipient::read(&to, "kms data-key-pair generate --help")?;
            let places = Places::open(&out, &to)?;
            let ciphertext_file = new_file(out_ciphertext.as_deref(), Readers::Umask)?;
            let wanted = match &named {
                Some(recipient) => PrivateKeyFor::Recipient(recipient),
                None if without_private_key => PrivateKeyFor::Nobody,
                None => PrivateKeyFor::Caller,
            };
            let client = session.connect().await?;
            let made = client.generate_data_key_pair(&reference, spec, &context, wanted).await;
            let made = made.map_err(|error| Failure::from(error).about_key(&key))?;
            // What opens the private key again is kept before the key itself.
            let ciphertext = recipient::keep_or_show(Some(made.ciphertext), ciphertext_file)?;
            let mut lines = places.keep(made.pair)?;
            lines.extend(ciphertext.map(|ciphertext| ("ciphertext", base64(&ciphertext))));
            session.output.show_secret(&lines)
        }
        DataKeyPairCommand::Decrypt { input, context: pairs, expected_key: expected, recipient: to, out } => {
            let (context, expected) = (context(pairs.pairs)?, expected_key(expected.as_deref())?);
            let named = recipient::read(&to, "kms data-key-pair decrypt --help")?;
            let ciphertext = read_ciphertext(&input, "kms data-key-pair decrypt --help")?;
            let places = Places::open(&out, &to)?;
            let client = session.connect().await?;
            let opened = client
                .decrypt_data_key_pair(&ciphertext, &context, expected.as_ref(), named.as_ref())
                .await
                .map_err(|error| Failure::from(error).about_key(&named_key(&ciphertext)))?;
            session.output.show_secret(&places.keep(opened)?)
        }
    }
}
