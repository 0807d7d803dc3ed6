//! Ceremonies from end to end, with the real `kms-ceremony` on SoftHSM (suite intl) and hsm-sim (suite sm).

mod custodian_files;
mod init;
#[cfg(feature = "online")]
mod online;
mod papers;
mod passphrases;
mod plans;
mod reports;
mod reshare;
mod scene;
mod worker;
