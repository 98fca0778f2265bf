//! One endpoint's active checks.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tieline_transport::{Io, is_exhaustion};
use tieline_wire::greeting::{Conversation, Probe, Step};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use crate::endpoint::Endpoint;
use crate::leasing::dial_any;
use crate::settings::{HealthSettings, Settings};
use crate::state::EndpointId;
use crate::trunk::{self, Reached};
use crate::upstream::Upstream;

/// The first check comes within this, at random, so that those of many endpoints do not come as one.
const FIRST_WITHIN: Duration = Duration::from_secs(1);

/// Checks `endpoint` for ever.
pub(super) async fn check(upstream: Arc<Upstream>, endpoint: EndpointId, settings: Arc<HealthSettings>) {
    let Some(endpoint) = upstream.endpoints().into_iter().find(|other| other.id == endpoint) else { return };
    sleep(FIRST_WITHIN.min(settings.every).mul_f64(fastrand::f64())).await;
    loop {
        let late = |_| Some(Err(format!("no answer to the check within {:?}", settings.timeout)));
        let pool = upstream.roster().settings.clone();
        let conversed = timeout(settings.timeout, converse(&endpoint, &settings.probe, &pool)).await;
        if let Some(result) = conversed.unwrap_or_else(late) {
            upstream.checked(&endpoint, result, &settings);
        }
        sleep(settings.every.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
    }
}

/// Connects and talks until there is a verdict; a bad one says why. `None` when this machine lacks
/// descriptors or ports: that tells nothing about the endpoint.
async fn converse(endpoint: &Endpoint, probe: &Probe, settings: &Settings) -> Option<Result<(), String>> {
    match attempt(endpoint, probe, settings).await {
        Ok(verdict) => Some(verdict),
        Err(error) if is_exhaustion(&error) => None,
        Err(error) => Some(Err(error.to_string())),
    }
}

async fn attempt(endpoint: &Endpoint, probe: &Probe, settings: &Settings) -> io::Result<Result<(), String>> {
    let shared = settings.trunks.filter(|_| probe.is_exchange());
    let reached = match shared {
        Some(trunking) => trunk::reach(endpoint, settings, trunking, Arc::default()).await?,
        None => {
            let Settings { tls, dial, .. } = settings;
            Reached::Alone(dial_any(endpoint, endpoint.addresses(), tls, None, dial).await?.0)
        }
    };
    let Some(mut conversation) = probe.start() else { return Ok(Ok(())) };
    match reached {
        Reached::Alone(mut io) => talk(&mut io, &mut conversation).await,
        Reached::Trunk(trunk, driver) => {
            let mut io = trunk.open().ok_or(io::ErrorKind::ConnectionAborted)?;
            // The loser may be dropped: both end with the check.
            tokio::select! {
                talked = talk(&mut io, &mut conversation) => talked,
                () = driver => Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
    }
}

async fn talk(io: &mut Io, conversation: &mut Conversation) -> io::Result<Result<(), String>> {
    io.write_all(conversation.first()).await?;
    let mut bytes = [0; 1024];
    loop {
        let count = io.read(&mut bytes).await?;
        if count == 0 {
            return Ok(Err(conversation.on_close()));
        }
        match conversation.on_bytes(&bytes[..count]) {
            Step::NeedMore => {}
            Step::Send(answer) => io.write_all(&answer).await?,
            Step::Healthy => {
                // It is healthy even if it closed before it heard us take leave.
                let _ = io.write_all(conversation.farewell()).await;
                return Ok(Ok(()));
            }
            Step::Unhealthy(why) => return Ok(Err(why)),
        }
    }
}
