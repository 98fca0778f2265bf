//! Which agents are there, looked at whenever one may have come or gone.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tieline_transport::FarSites;
use tokio::time::sleep;

use crate::upstream::Upstream;

/// When many agents come at once, so long passes between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Watches for ever.
pub(super) async fn watch(upstream: Arc<Upstream>) {
    let Some(FarSites(sites)) = upstream.roster().settings.dial.far.clone() else { return pending().await };
    let mut changes = sites.changes();
    loop {
        changes.mark_unchanged();
        upstream.look_far();
        sleep(PAUSE).await;
        if changes.changed().await.is_err() {
            return pending().await;
        }
    }
}
