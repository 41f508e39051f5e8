//! The operator: its pure part against golden files, and the binary against a real API server.

mod deploy;
mod errors;
mod kubernetes;
mod proxy;
mod pure;
mod rights;
mod rules;
mod scenarios;
mod thousand;
