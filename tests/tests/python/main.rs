//! Programs in another language, written from docs/formats and proto/ alone: they agree with what the service does.

mod audit;
mod client;
