//! Accepts connections and serves HTTP/1.1 on them, until a drain.
//!
//! hyper forgets a connection once it is upgraded; whoever takes it over holds on to its
//! [`Connection`], which counts it and keeps the drain waiting.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::platform;
use crate::telemetry::figures::{CONNECTIONS, CONNECTIONS_ACCEPTED};
use crate::telemetry::metrics::Held;
use crate::tls::{Stream, Tls};

/// A request as it arrives.
pub type Request = hyper::Request<Incoming>;
/// An answer; all of them are in memory.
pub type Response = hyper::Response<Full<Bytes>>;

/// The head of a request, in bytes, all in all; a longer one is answered 431.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Lines of a request's head.
const HEADERS_MAX: usize = 64;
/// The pause after a connection could not be accepted: descriptors are short, most of the time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. Dropped if the client goes away meanwhile.
    fn handle(
        self: Arc<Self>,
        request: Request,
        connection: Arc<Connection>,
    ) -> impl Future<Output = Response> + Send;
}

/// An open connection, for as long as somebody holds it.
pub struct Connection {
    /// Who is at the other end.
    pub peer: SocketAddr,
    _place: OwnedSemaphorePermit,
    _counted: Held,
    _open: mpsc::Sender<()>,
}

/// The bounds of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open connections; more wait in the operating system's queue.
    pub connections_max: usize,
    /// How long the head of a request may take, and how long a connection may rest before it.
    pub head_timeout: Duration,
}

/// Serves a listener until [`Listening::drain`].
pub struct Listening {
    limits: Limits,
    places: Arc<Semaphore>,
    draining: watch::Sender<bool>,
    /// Comes to an end when the last connection is gone.
    closed: mpsc::Receiver<()>,
}

impl Listening {
    /// Starts to accept, through `tls` if there is one.
    pub fn start(
        listener: TcpListener,
        tls: Option<Arc<Tls>>,
        limits: Limits,
        handler: Arc<impl Handler>,
    ) -> Self {
        let places = Arc::new(Semaphore::new(limits.connections_max));
        let (draining, drain) = watch::channel(false);
        let (open, closed) = mpsc::channel(1);
        let accepting = Accepting { tls, places: Arc::clone(&places), limits, handler, open };
        tokio::spawn(accepting.run(listener, drain));
        Self { limits, places, draining, closed }
    }

    /// Connections that are open now, upgraded ones included.
    pub fn connections(&self) -> usize {
        self.limits.connections_max - self.places.available_permits()
    }

    /// Accepts no more, lets requests that are under way be answered, and waits until the last
    /// connection is gone.
    pub async fn drain(&mut self) {
        self.draining.send_replace(true);
        while self.closed.recv().await.is_some() {}
    }
}

/// What is needed for each connection.
struct Accepting<H> {
    tls: Option<Arc<Tls>>,
    places: Arc<Semaphore>,
    limits: Limits,
    handler: Arc<H>,
    open: mpsc::Sender<()>,
}

impl<H: Handler> Accepting<H> {
    async fn run(self, listener: TcpListener, mut drain: watch::Receiver<bool>) {
        let next = async || {
            let place = Arc::clone(&self.places).acquire_owned().await;
            (place, listener.accept().await)
        };
        loop {
            let (place, accepted) = tokio::select! {
                next = next() => next,
                () = begun(&mut drain) => return,
            };
            match (place, accepted) {
                (Ok(place), Ok((stream, peer))) => {
                    CONNECTIONS_ACCEPTED.increment();
                    let connection = Arc::new(Connection {
                        peer,
                        _place: place,
                        _counted: CONNECTIONS.hold(),
                        _open: self.open.clone(),
                    });
                    self.take(stream, connection, drain.clone());
                }
                (_, Err(error)) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                (Err(_), _) => return,
            }
        }
    }

    fn take(
        &self,
        stream: TcpStream,
        connection: Arc<Connection>,
        mut drain: watch::Receiver<bool>,
    ) {
        // Without it small messages wait for each other; nothing else is lost.
        let _ = platform::tune_accepted(&stream);
        let (handler, limits) = (Arc::clone(&self.handler), self.limits);
        let Some(tls) = self.tls.clone() else {
            tokio::spawn(serve(Stream::Plain(stream), connection, limits, handler, drain));
            return;
        };
        tokio::spawn(async move {
            let accepted = tokio::select! {
                accepted = tls.accept(stream) => accepted,
                () = begun(&mut drain) => return,
            };
            match accepted {
                Ok(stream) => serve(stream, connection, limits, handler, drain).await,
                Err(error) => tracing::debug!(%error, peer = %connection.peer, "no handshake"),
            }
        });
    }
}

async fn serve(
    stream: Stream,
    connection: Arc<Connection>,
    limits: Limits,
    handler: Arc<impl Handler>,
    mut drain: watch::Receiver<bool>,
) {
    let service = service_fn(move |request| {
        let answer = Arc::clone(&handler).handle(request, Arc::clone(&connection));
        async { Ok::<_, std::convert::Infallible>(answer.await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut serving = std::pin::pin!(serving);
    // An error is the client's: it went away, or does not speak HTTP.
    let result = tokio::select! {
        result = serving.as_mut() => result,
        () = begun(&mut drain) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Waits for a drain to begin.
pub(super) async fn begun(drain: &mut watch::Receiver<bool>) {
    // An error: the listener is gone, and so is this.
    let _ = drain.wait_for(|draining| *draining).await;
}
