//! A connection beside the pool, for what must never wait behind requests: the lease is renewed on
//! it, and notices come by it.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio_postgres::{AsyncMessage, Client, Config, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::notices::{CHANNEL, Notices};
use super::{Param, in_time};
use crate::store::StoreError;

/// What it is called in `pg_stat_activity`.
const APPLICATION_NAME: &str = "gameserver lease";

/// The connection, made when it is first needed and again whenever it has failed.
pub(super) struct Dedicated {
    config: Box<Config>,
    tls: MakeRustlsConnect,
    /// Not through a pooler, where others would get the notices.
    listens: bool,
    /// Who waits for what comes.
    pub(super) notices: Arc<Notices>,
    client: Mutex<Option<Client>>,
}

impl Dedicated {
    pub(super) fn new(mut config: Config, tls: MakeRustlsConnect, listens: bool) -> Self {
        config.application_name(APPLICATION_NAME);
        let config = Box::new(config);
        Self { config, tls, listens, notices: Arc::default(), client: Mutex::default() }
    }

    /// Runs one statement, with all that is needed for it, `within` so long.
    pub(super) async fn query(
        &self,
        sql: &str,
        params: &[Param<'_>],
        within: Duration,
    ) -> Result<Vec<Row>, StoreError> {
        let answer = async {
            let mut place = self.client.lock().await;
            // Away from its place meanwhile: one whose answer did not come, or was an error, is closed.
            let client = match place.take().filter(|client| !client.is_closed()) {
                Some(client) => client,
                None => self.connect().await?,
            };
            let rows = client.query_typed(sql, params).await?;
            *place = Some(client);
            Ok(rows)
        };
        in_time(within, answer).await?
    }

    async fn connect(&self) -> Result<Client, StoreError> {
        let (client, mut connection) = self.config.connect(self.tls.clone()).await?;
        let notices = Arc::clone(&self.notices);
        // Ends with the connection, which ends with the client.
        tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notification(sent) = message
                    && let Ok(notice) = sent.payload().parse()
                {
                    notices.tell(&notice);
                }
            }
        });
        if self.listens {
            client.batch_execute(&format!("LISTEN {CHANNEL}")).await?;
            self.notices.tell_all();
        }
        Ok(client)
    }
}
