//! TLS to the database, by rustls.

use std::io;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::url::{PostgresUrl, Trust};
use crate::tls::nameless_client;

/// What connects to the server that `url` names, as far as it is to be trusted.
pub(super) fn connector(url: &PostgresUrl) -> io::Result<MakeRustlsConnect> {
    let config = match url.trust {
        Trust::Verified => ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots(url)?)
            .with_no_client_auth(),
        // As libpq's `sslmode=require`.
        Trust::Anybody => nameless_client(None)?,
    };
    Ok(MakeRustlsConnect::new(config))
}

fn roots(url: &PostgresUrl) -> io::Result<RootCertStore> {
    let Some(path) = &url.root_certificates else {
        return Ok(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() });
    };
    let failed = |error: &dyn std::fmt::Display| {
        io::Error::other(format!("root certificates in {}: {error}", path.display()))
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| failed(&error))? {
        let certificate = certificate.map_err(|error| failed(&error))?;
        roots.add(certificate).map_err(|error| failed(&error))?;
    }
    if roots.is_empty() { Err(failed(&"there are none")) } else { Ok(roots) }
}
