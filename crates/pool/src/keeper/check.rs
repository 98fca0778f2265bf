//! One endpoint's active checks.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tieline_transport::{DialOptions, Io, is_exhaustion};
use tieline_wire::greeting::{Conversation, Probe, Step};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use crate::endpoint::Endpoint;
use crate::lease::dial_any;
use crate::settings::{HealthSettings, Secured};
use crate::state::EndpointId;
use crate::upstream::Upstream;

/// The first check comes within this, at random, so that those of many endpoints do not come as one.
const FIRST_WITHIN: Duration = Duration::from_secs(1);

/// Checks `endpoint` for ever.
pub(super) async fn check(upstream: Arc<Upstream>, endpoint: EndpointId, settings: Arc<HealthSettings>) {
    let Some(endpoint) = upstream.endpoints().into_iter().find(|other| other.id == endpoint) else { return };
    sleep(FIRST_WITHIN.min(settings.every).mul_f64(fastrand::f64())).await;
    loop {
        let late = |_| Some(Err(format!("no answer to the check within {:?}", settings.timeout)));
        let tls = upstream.roster().settings.tls.clone();
        let conversed = timeout(settings.timeout, converse(&endpoint, &settings.probe, &tls)).await;
        if let Some(result) = conversed.unwrap_or_else(late) {
            upstream.checked(&endpoint, result, &settings);
        }
        sleep(settings.every.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
    }
}

/// Connects and talks until there is a verdict; a bad one says why. `None` when this machine lacks
/// descriptors or ports: that tells nothing about the endpoint.
async fn converse(endpoint: &Endpoint, probe: &Probe, tls: &Option<Secured>) -> Option<Result<(), String>> {
    let mut io = match dial_any(endpoint, endpoint.addresses(), tls, &DialOptions::default()).await {
        Ok(io) => io,
        Err(error) if is_exhaustion(&error) => return None,
        Err(error) => return Some(Err(error.to_string())),
    };
    let Some(mut conversation) = probe.start() else { return Some(Ok(())) };
    let talked = talk(&mut io, &mut conversation).await;
    Some(talked.unwrap_or_else(|error| Err(error.to_string())))
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
