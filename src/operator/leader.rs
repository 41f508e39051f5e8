//! One replica works, the others stand by: a Lease that the leader renews.
//!
//! Whether a lease has run out is judged by one's own clock alone: it counts from when its last
//! change was seen, so that clocks that differ do no harm.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::time::{Instant, sleep, timeout};

use super::desired::MANAGER;
use super::keys::jitter;

/// How long a lease holds that is not renewed.
const DURATION: Duration = Duration::from_secs(15);
/// How often it is renewed.
const RENEW_INTERVAL: Duration = Duration::from_secs(3);
/// How long the leader goes on without having renewed it: less than others wait.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How often others look.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// How long the API server may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// Who wants to lead, and where that is written down.
pub struct Candidate {
    api: Api<Lease>,
    identity: String,
}

impl Candidate {
    /// In this namespace under this name, which no other process has.
    pub fn new(client: kube::Client, namespace: &str, identity: String) -> Self {
        Self { api: Api::namespaced(client, namespace), identity }
    }

    /// Waits until this process leads. `answered` is told when the API server has answered.
    pub async fn lead(&self, answered: impl Fn()) {
        let mut seen: Option<(Option<String>, Instant)> = None;
        loop {
            match self.request(self.api.get_opt(MANAGER)).await {
                Ok(lease) => {
                    answered();
                    let version =
                        lease.as_ref().and_then(|lease| lease.metadata.resource_version.clone());
                    if seen.as_ref().is_none_or(|(known, _)| *known != version) {
                        seen = Some((version, Instant::now()));
                    }
                    let since = seen.as_ref().map_or(Duration::ZERO, |(_, at)| at.elapsed());
                    if is_free(lease.as_ref(), &self.identity, since) && self.take(lease).await {
                        return;
                    }
                }
                Err(error) => tracing::warn!(%error, "the lease can't be read"),
            }
            sleep(RETRY_INTERVAL.mul_f64(0.75 + jitter() / 2.0)).await;
        }
    }

    /// Renews the lease until it is lost.
    pub async fn keep(&self) {
        let mut renewed = Instant::now();
        while renewed.elapsed() < RENEW_DEADLINE {
            sleep(RENEW_INTERVAL).await;
            let before = Instant::now();
            match self.request(self.api.get_opt(MANAGER)).await {
                Ok(lease) if holder(lease.as_ref()) == Some(&self.identity) => {
                    if self.take(lease).await {
                        renewed = before;
                    }
                }
                Ok(_) => {
                    tracing::error!("another replica leads");
                    return;
                }
                Err(error) => tracing::warn!(%error, "the lease can't be read"),
            }
        }
        tracing::error!("the lease could not be renewed");
    }

    /// Lets another lead at once.
    pub async fn release(&self) {
        let Ok(Some(mut lease)) = self.request(self.api.get_opt(MANAGER)).await else { return };
        if holder(Some(&lease)) != Some(&self.identity) {
            return;
        }
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
        }
        // An error: it runs out by itself.
        let _ = self.request(self.api.replace(MANAGER, &PostParams::default(), &lease)).await;
    }

    /// Writes oneself into the lease that was read; whether nobody else was quicker.
    async fn take(&self, lease: Option<Lease>) -> bool {
        let now = MicroTime(Timestamp::now());
        let parameters = PostParams { field_manager: Some(MANAGER.into()), ..Default::default() };
        let mine = holder(lease.as_ref()) == Some(&self.identity);
        let before = lease.as_ref().and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let transitions = before.lease_transitions.unwrap_or(0) + i32::from(!mine);
        let spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if mine { before.acquire_time } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        };
        let written = if let Some(lease) = lease {
            let lease = Lease { spec: Some(spec), ..lease };
            self.request(self.api.replace(MANAGER, &parameters, &lease)).await
        } else {
            let metadata = ObjectMeta { name: Some(MANAGER.into()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(spec) };
            self.request(self.api.create(&parameters, &lease)).await
        };
        if let Err(error) = &written {
            tracing::warn!(error, "the lease can't be written");
        }
        written.is_ok()
    }

    async fn request<T>(
        &self,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, String> {
        let answer = timeout(REQUEST_TIMEOUT, request).await;
        answer.map_err(|_| "no answer in time".to_owned())?.map_err(|error| error.to_string())
    }
}

fn holder(lease: Option<&Lease>) -> Option<&String> {
    lease?.spec.as_ref()?.holder_identity.as_ref()
}

/// Whether the lease can be taken: nobody's, one's own, or not renewed for longer than it holds.
fn is_free(lease: Option<&Lease>, identity: &str, unchanged_for: Duration) -> bool {
    let Some(holder) = holder(lease) else { return true };
    let seconds = lease.and_then(|lease| lease.spec.as_ref()?.lease_duration_seconds);
    let holds = seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
    holder.is_empty() || holder == identity || unchanged_for > holds.unwrap_or(DURATION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_free_when_it_is_nobodys_or_was_not_renewed() {
        let lease = |holder: &str| Lease {
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.into()),
                lease_duration_seconds: Some(15),
                ..LeaseSpec::default()
            }),
            ..Lease::default()
        };
        let seconds = Duration::from_secs;
        assert!(is_free(None, "me", seconds(0)));
        assert!(is_free(Some(&lease("")), "me", seconds(0)));
        assert!(is_free(Some(&lease("me")), "me", seconds(0)));
        assert!(!is_free(Some(&lease("you")), "me", seconds(15)));
        assert!(is_free(Some(&lease("you")), "me", seconds(16)));
    }
}
