//! The operator: its pure part against golden files, and the binary against a real API server.

mod deploy;
mod kubernetes;
mod pure;
mod rights;
mod rules;
mod scenarios;
mod thousand;
