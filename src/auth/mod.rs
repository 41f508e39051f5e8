//! Who somebody is: pure cryptography, without I/O and without a clock (time is an argument).
//!
//! - [`passwords`]: from a password to what is stored of it, and back to yes or no
//! - [`keys`]: the keys that sign access tokens and those that verify them
//! - [`tokens`]: access tokens, issued, verified, remembered and revoked
//! - `nodes`: what nodes tell each other of whom they pass on
//! - [`secrets`]: random tokens that are stored as digests: refresh tokens, socket tickets
//!
//! Accounts and sessions themselves are the matter of `users`.

pub mod keys;
mod nodes;
pub mod passwords;
pub mod secrets;
mod seen;
pub mod tokens;

pub use keys::{KeyError, SigningKeys};
pub use nodes::NodeTokens;
pub use secrets::Secret;
pub use tokens::{Claims, TokenError, Tokens};
