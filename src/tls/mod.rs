//! Connections, in the clear or through TLS: what is above need not know which.
//!
//! A [`Stream`] is what requests and sockets are read from and written to. [`Tls`] is the public
//! listener's certificate and key, read anew when the files change; [`connect`] reaches another
//! node, whose certificate is known by its fingerprint: nodes trust each other through the store,
//! not through names.

mod verifier;

pub use verifier::nameless_client;

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// How long a handshake may take. Of connections there are so many at most; of signatures, which cost
/// a millisecond or so with RSA, no more at once than threads, since one is made in one go.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The first byte of a handshake (RFC 8446 5.1).
const HANDSHAKE_RECORD: u8 = 22;
/// What is spoken above TLS (RFC 7301).
const PROTOCOL: &[u8] = b"http/1.1";
/// What somebody is told who speaks HTTP without TLS.
const SPEAK_TLS: &str = r#"{"type":"about:blank","title":"Bad Request","status":400,"detail":"this port takes TLS: use https:// or wss://"}"#;

/// SHA-256 of a certificate in DER.
pub type Fingerprint = [u8; 32];

/// A connection.
pub enum Stream {
    /// In the clear.
    Plain(TcpStream),
    /// Encrypted; boxed, since it is large and not the rule.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Why a certificate is not to be had.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file that can't be read.
    #[error("{}: {error}", .path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why not.
        error: String,
    },
    /// Both are readable, and do not go together.
    #[error("{} and {}: {error}", .certificate.display(), .key.display())]
    Unusable {
        /// The file with the certificates.
        certificate: PathBuf,
        /// The file with the key.
        key: PathBuf,
        /// Why not.
        error: rustls::Error,
    },
}

/// Where a certificate and its key are: PEM, the server's own certificate first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and those that lead to a root.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// What takes TLS connections.
pub struct Tls {
    files: TlsFiles,
    current: RwLock<Loaded>,
}

struct Loaded {
    acceptor: TlsAcceptor,
    fingerprint: Fingerprint,
    /// Of the files as they were read.
    digest: [u8; 32],
}

impl Tls {
    /// With what is in the files now.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let current = RwLock::new(Loaded::read(&files)?);
        Ok(Self { files, current })
    }

    /// Reads the files again and tells whether they had changed; connections that are open stay as
    /// they are. After an error all is as before.
    pub fn reload(&self) -> Result<bool, TlsError> {
        if contents(&self.files)?.digest() == self.read(|current| current.digest) {
            return Ok(false);
        }
        let loaded = Loaded::read(&self.files)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(true)
    }

    /// What other nodes know this one by.
    pub fn fingerprint(&self) -> Fingerprint {
        self.read(|current| current.fingerprint)
    }

    /// Shakes hands, within a bound of time.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<Stream> {
        let acceptor = self.read(|current| current.acceptor.clone());
        let handshake = async {
            let mut first = [0];
            if stream.peek(&mut first).await? == 1 && first[0] != HANDSHAKE_RECORD {
                return refuse(stream).await;
            }
            Ok(Stream::Tls(Box::new(acceptor.accept(stream).await?.into())))
        };
        timeout(HANDSHAKE_TIMEOUT, handshake).await?
    }

    fn read<T>(&self, what: impl FnOnce(&Loaded) -> T) -> T {
        what(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Both files' bytes.
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Contents {
    fn digest(&self) -> [u8; 32] {
        let lengths = (self.certificate.len() as u64).to_be_bytes();
        Sha256::new()
            .chain_update(lengths)
            .chain_update(&self.certificate)
            .chain_update(&self.key)
            .finalize()
            .into()
    }
}

fn contents(files: &TlsFiles) -> Result<Contents, TlsError> {
    let read = |path: &Path| std::fs::read(path).map_err(|error| unreadable(path, &error));
    Ok(Contents { certificate: read(&files.certificate)?, key: read(&files.key)? })
}

impl Loaded {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let contents = contents(files)?;
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(&contents.certificate)
                .collect::<Result<_, _>>()
                .map_err(|error| unreadable(&files.certificate, &error))?;
        let Some(own) = chain.first() else {
            return Err(unreadable(&files.certificate, &"it holds no certificate in PEM"));
        };
        let fingerprint = fingerprint(own);
        let key = PrivateKeyDer::from_pem_slice(&contents.key)
            .map_err(|error| unreadable(&files.key, &error))?;
        let unusable = |error| TlsError::Unusable {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            error,
        };
        let config = server(chain, key).map_err(unusable)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Self { acceptor, fingerprint, digest: contents.digest() })
    }
}

fn unreadable(path: &Path, error: &dyn std::fmt::Display) -> TlsError {
    TlsError::File { path: path.to_owned(), error: error.to_string() }
}

/// Tells a client in the clear what it should have done.
async fn refuse(mut stream: TcpStream) -> io::Result<Stream> {
    let head = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\
        content-type: application/problem+json\r\ncontent-length: ";
    let answer = format!("{head}{}\r\n\r\n{SPEAK_TLS}", SPEAK_TLS.len());
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    Err(io::Error::new(io::ErrorKind::InvalidData, "it does not speak TLS"))
}

/// Connects to the node that has the certificate with this fingerprint.
pub async fn connect(stream: TcpStream, expected: Fingerprint) -> io::Result<Stream> {
    let name = ServerName::IpAddress(stream.peer_addr()?.ip().into());
    let mut config = nameless_client(Some(expected))?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    Ok(Stream::Tls(Box::new(stream.into())))
}

fn fingerprint(certificate: &CertificateDer<'_>) -> Fingerprint {
    Sha256::digest(certificate).into()
}

/// TLS 1.2 and 1.3; who comes back is spared a signature.
fn server(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.ticketer = ring::Ticketer::new()?;
    Ok(config)
}

impl Stream {
    /// The connection below.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
