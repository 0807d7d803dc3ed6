//! What the end-to-end tests share: a real deployment from the real binaries, the command line tools, raw
//! gRPC clients, and custodians who can also misbehave.
//!
//! Nothing here is skipped when something is missing: the panic says how to get it.

pub mod audit;
pub mod binaries;
pub mod certificates;
pub mod command;
pub mod custodian;
pub mod deployment;
pub mod pins;
pub mod rpc;

pub use audit::LogEntry;
pub use command::{Finished, Started};
pub use custodian::{Custodian, JoinStream};
pub use deployment::{Deployment, Module, Options};
pub use pins::{Outsider, PinWatch};
pub use rpc::{Refused, Rpc};
