//! What stands between routes and their upstreams, compiled from the config.

use std::sync::Arc;

use tieline_config as config;
use tieline_http as http;
use tieline_openapi::Part;
use tieline_registry::Registry;

use crate::apis::Apis;

/// What outlives a config.
pub(crate) struct Guards {
    registry: Arc<Registry>,
    apis: Apis,
}

impl Guards {
    pub(crate) fn new(registry: &Arc<Registry>) -> Self {
        Self { registry: registry.clone(), apis: Apis::default() }
    }

    /// The documents that `live` names, for [`Guards::keep_to`].
    ///
    /// # Errors
    /// Everything that is wrong with them; nothing has changed then.
    pub(crate) fn load(&self, live: &config::Live) -> Result<Apis, Vec<String>> {
        Apis::load(live, &self.apis)
    }

    /// Uses these documents from now on; whether one of them says something new.
    pub(crate) fn keep_to(&mut self, apis: Apis) -> bool {
        let differs = apis.differs(&self.apis);
        self.apis = apis;
        differs
    }

    /// What the requests of a route must keep to.
    pub(crate) fn interface(
        &self,
        listener: &config::Listener,
        route: &config::Route,
    ) -> Option<http::Interface> {
        let written = route.api.as_ref()?;
        let mode = match written.mode {
            config::ApiMode::Enforce => http::Mode::Enforce,
            config::ApiMode::Report => http::Mode::Report,
        };
        let counts = Part::ALL.map(|part| {
            let labels = [
                ("listener", listener.name.as_str()),
                ("route", &route.name),
                ("kind", part.as_str()),
                ("mode", written.mode.as_str()),
            ];
            self.registry.tally("tieline_api_violations", VIOLATIONS, &labels)
        });
        Some(http::Interface { api: self.apis.of(written)?, mode, counts })
    }
}

const VIOLATIONS: &str = "Requests that did not keep to their route's interface, by the part that was wrong";
