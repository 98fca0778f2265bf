//! Admin API, metrics, access log, history.
