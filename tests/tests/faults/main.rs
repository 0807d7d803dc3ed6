//! Faults: power cuts at every step, tokens that go away, refused PINs, and places where a secret could stay.

mod account;
mod ceremony_crash;
mod crash;
mod destruction;
mod garbage;
mod imports;
mod interrupted;
mod known_secrets;
mod matrix;
mod memory;
mod metrics;
mod own_process;
mod refusals;
mod scan;
mod secrets;
mod token;
mod workload;
