//! Exit codes that no reason gives; the others are the last column of docs/errors.md.

/// Anything that has no reason of its own: a wrong file, a wrong passphrase, no connection.
pub const OTHER: u8 = 1;
/// The custodian waited as long as asked and no quorum came.
pub const NO_QUORUM: u8 = 9;
