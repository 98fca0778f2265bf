//! The config file and its types: text → what is written → what is obeyed.
//!
//! Owns the file: which keys there are ([`FILE`]), what they mean, and whether a file holds together. Refuses
//! to know what obeying it takes: sockets, pools, threads. It opens one file, looks whether those that it
//! names are there, and asks nothing of the network or the clock.
//!
//! Start with [`Config::parse`] and the descriptions in `keys/`. A file goes through three forms: `node` (as
//! written, with places), `fields` (each value read as its description says, defaults filled in) and
//! [`Config`] (names tied to what they name, nonsense refused). Each form tells of all its problems and goes
//! on with what is right.

mod access;
mod action;
mod agent;
mod api;
mod bandwidth;
mod bind;
mod check;
mod config;
mod dues;
mod endpoint_url;
mod explain;
mod far;
mod fields;
mod files;
mod group;
mod hash_by;
mod host;
mod http_match;
mod key;
mod keys;
mod listener;
mod node;
mod path_pattern;
mod place;
mod postgres;
mod problem;
mod protocol;
mod rate;
mod reference;
mod rewrite;
mod route;
mod schedule;
mod schema;
mod server;
mod session;
mod sni;
mod suggest;
mod support;
mod target;
mod tls;
mod upstream;
mod user;
mod value;
mod words;

pub use access::{Access, Allow, Who};
pub use action::{Action, Redirect, Respond, Share};
pub use agent::{Agent, Offer, Proxy, Service};
pub use api::Api;
pub use bandwidth::Bandwidth;
pub use bind::{BindAddress, BindError};
pub use config::{Checked, Config, FILE_BYTES_MAX, Live, restart_needed};
pub use dues::Due;
pub use explain::{UnknownKey, explain};
pub use far::{FarMatch, FarMatchError};
pub use group::Group;
pub use hash_by::{HashBy, HashByError};
pub use host::{HostError, HostPattern};
pub use http_match::{Condition, Expected, HttpMatch};
pub use key::{Absent, Block, DURATION_MAX, Key, Kind, Later, Needs, Of};
pub use keys::FILE;
pub use listener::{Bind, Limits, Listener, Timeouts, Trusted};
pub use path_pattern::{PathError, PathPattern, Segment};
pub use place::Place;
pub use postgres::{AuthQuery, Console, Count, Logins, Patience, PostgresServers, Replicas};
pub use problem::{Problem, Severity};
pub use protocol::{Protocol, SERVED};
pub use rate::{RateLimit, RatePer, RatePerError};
pub use reference::reference;
pub use rewrite::{Edits, PathPart, PathRewrite, Rewrite};
pub use route::Route;
pub use schedule::{Schedule, ScheduleError};
pub use schema::schema;
pub use server::{AccessLog, Boot, Dns, Server, Workers};
pub use session::{Mirror, Session};
pub use sni::{Sni, SniError};
pub use support::{Approval, FarTimeouts};
pub use target::{Part, Target, TargetError};
pub use tls::{Certificate, ClientCertificates, ListenerTls, TlsIdentity, UpstreamTls};
pub use upstream::{Balance, Breaker, Endpoint, Health, HealthCheck, Hedge, Outlier, Pool, Retry, Upstream};
pub use user::{Password, User};
pub use value::is_name;
pub use words::{
    ApiMode, Auth, BandwidthPer, Carrier, Fallback, HttpVersion, LogFormat, LogLevel, Logged, PoolMode,
    PoolReset, ProxyProtocolOut, ReplicaReads, RetryOn, Role, RouteRole, Tell, Verify, Word,
};
