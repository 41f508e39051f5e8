//! Batches of changes on their way to the store, one after the other, the next ones sent before the
//! first is answered: they are encoded and travel while the store commits.
//!
//! A server gets them by a connection of the log's own, on which statements are run in the order in
//! which they were sent, each in its own transaction. A batch that moves ratings takes several
//! statements, so nothing is sent behind it until it is answered. A file takes one batch at a time.

use std::collections::VecDeque;
use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use deadpool_postgres::ClientWrapper;
use tokio::time::timeout_at;

use super::{Appended, MatchChange, Store, StoreError, counted};

/// Batches under way at most; what comes meanwhile gathers for the next one.
pub(super) const BATCHES_MAX: u32 = 3;

/// What became of a batch; see [`Store::append`].
type Answer = Pin<Box<dyn Future<Output = Result<Appended, StoreError>> + Send>>;

/// See the module.
pub struct Pipeline {
    store: Arc<Store>,
    connection: Option<Arc<ClientWrapper>>,
    /// And when each was asked for.
    answers: VecDeque<(Instant, Answer)>,
    /// Whether the last of them moves ratings.
    rates: bool,
    /// Until when the oldest of them is to be there.
    deadline: Option<tokio::time::Instant>,
}

impl Pipeline {
    /// An empty one; it connects when something is sent.
    pub fn new(store: Arc<Store>) -> Self {
        Self { store, connection: None, answers: VecDeque::new(), rates: false, deadline: None }
    }

    /// Whether one more batch may be sent.
    pub fn has_room(&self) -> bool {
        let max = match &*self.store {
            Store::Postgres(postgres) if !self.rates => postgres.batches_max(),
            _ => 1,
        };
        self.answers.len() < max as usize
    }

    /// Sends a batch behind those that are under way.
    pub async fn send(&mut self, changes: Arc<Vec<MatchChange>>) {
        let began = Instant::now();
        self.rates = changes.iter().any(|change| change.rated);
        let mut answer = self.begin(changes).await.unwrap_or_else(|e| Box::pin(ready(Err(e))));
        // A future does nothing before it is polled: this one is to be sent before the next.
        if let Poll::Ready(now) = answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            answer = Box::pin(ready(now));
        }
        self.answers.push_back((began, answer));
    }

    async fn begin(&mut self, changes: Arc<Vec<MatchChange>>) -> Result<Answer, StoreError> {
        let store = Arc::clone(&self.store);
        let Store::Postgres(postgres) = &*self.store else {
            return Ok(Box::pin(async move { store.append(changes).await }));
        };
        let connection = match &self.connection {
            Some(connection) if !connection.is_closed() || !self.answers.is_empty() => connection,
            _ => self.connection.insert(Arc::new(postgres.connect_log().await?)),
        };
        let connection = Arc::clone(connection);
        Ok(Box::pin(async move {
            let Store::Postgres(postgres) = &*store else { return store.append(changes).await };
            postgres.append_by(&connection, &changes).await
        }))
    }

    /// The answer to the oldest batch that is under way; there must be one. After an error nothing
    /// is under way any more, and the batches behind may have been judged by a state that lacks
    /// this one: all of them are to be written again, in order. Can be given up and asked again.
    pub async fn answer(&mut self) -> Result<Appended, StoreError> {
        let Some((began, oldest)) = self.answers.front_mut() else {
            return std::future::pending().await;
        };
        let answer = match &*self.store {
            Store::Sqlite(_) => oldest.await,
            Store::Postgres(postgres) => {
                let limit = postgres.answer_timeout();
                let now = tokio::time::Instant::now;
                let deadline = *self.deadline.get_or_insert_with(|| now() + limit);
                let late = |_| Err(StoreError::Unavailable("it does not answer".into()));
                counted(*began, timeout_at(deadline, oldest).await.unwrap_or_else(late))
            }
        };
        self.deadline = None;
        self.answers.pop_front();
        if answer.is_err() {
            self.answers.clear();
            self.connection = None;
        }
        answer
    }
}
