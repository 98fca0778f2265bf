//! Why connections end: one closed vocabulary for the log, the metrics, the API and every screen.

use std::fmt;
use std::str::FromStr;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $word:literal,)+) => {
        /// Why a connection ended. The word is the same wherever it is shown.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Reason {
            /// Every reason; a reason's place in it is its code.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)+];

            /// The word for it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Reason::$variant => $word,)+
                }
            }
        }
    };
}

// A macro so that a reason's name, word and meaning stand on adjacent lines and cannot part.
reasons! {
    /// The client closed first, in order.
    ClientClosed = "client-closed",
    /// The upstream closed first, in order.
    UpstreamClosed = "upstream-closed",
    /// The exchange was answered whole. Connections that carry many exchanges have other reasons.
    Answered = "answered",
    /// The client's side broke: a reset, or a vanished host.
    ClientReset = "client-reset",
    /// The upstream's side broke: a reset, or a vanished host.
    UpstreamReset = "upstream-reset",
    /// No byte moved either way for `timeouts.idle`.
    Idle = "idle",
    /// It lived for `timeouts.max_age`.
    MaxAge = "max-age",
    /// Its route's schedule closed, and the grace ran out.
    Schedule = "schedule",
    /// The approval that it was opened by has had its time.
    ApprovalEnded = "approval-ended",
    /// An operator ended it.
    Killed = "killed",
    /// A change of config or of policy no longer allows it: at once where policy says no or an approval is
    /// taken back, after its route's grace where its listener or route is gone or leads elsewhere.
    Revoked = "revoked",
    /// It was asked to leave (a drain, a stop, an endpoint that is gone), and its time ran out.
    Drained = "drained",
    /// The link of an agent that it carried goes on over another connection, or began anew.
    Moved = "moved",
    /// `limits.connections` of its listener was reached.
    LimitConnections = "limit:connections",
    /// `limits.per_ip` of its listener was reached for its address.
    LimitPerIp = "limit:per-ip",
    /// So many clients of PostgreSQL as its user may have were connected already: `limits.per_user` of its
    /// listener, or `connections` of the user.
    LimitPerUser = "limit:per-user",
    /// So many clients of PostgreSQL as its database may have were connected already: `limits.per_database`
    /// of its listener, or `connections` of the route.
    LimitPerDatabase = "limit:per-database",
    /// `limits.accept_rate` of its listener was exceeded.
    LimitAcceptRate = "limit:accept-rate",
    /// Its upstream's `pool.queue` was full.
    LimitQueue = "limit:queue",
    /// More was asked of its upstream than it can do, and others were more important.
    LimitShed = "limit:shed",
    /// The body of a request was larger than `limits.body`.
    LimitBody = "limit:body",
    /// Requests of its route, or of its kind, came faster than a `rate` allows.
    LimitRate = "limit:rate",
    /// As many requests as `concurrent` of its route allows were under way.
    LimitConcurrent = "limit:concurrent",
    /// More clients were logging in at its listener than may at once.
    LimitLogins = "limit:logins",
    /// More was said in the channels that it listens to than it read.
    LimitUnread = "limit:unread",
    /// The PROXY header or the first bytes did not come within `timeouts.handshake`.
    TimeoutHandshake = "timeout:handshake",
    /// No place at the upstream became free within `timeouts.acquire`.
    TimeoutAcquire = "timeout:acquire",
    /// No endpoint answered within `timeouts.connect`.
    TimeoutConnect = "timeout:connect",
    /// The head of a request did not come whole within `timeouts.request_head`.
    TimeoutRequestHead = "timeout:request-head",
    /// No byte of a request's body came for `timeouts.body_gap`.
    TimeoutBodyGap = "timeout:body-gap",
    /// A request's body came, or what there was of its answer was taken, more slowly than
    /// `timeouts.min_rate`.
    TimeoutMinRate = "timeout:min-rate",
    /// The upstream did not begin its answer within `timeouts.first_byte` of having the whole request.
    TimeoutFirstByte = "timeout:first-byte",
    /// The upstream sent no byte of a begun answer or took none of a request, or the client took none of an
    /// answer, for `timeouts.gap`.
    TimeoutGap = "timeout:gap",
    /// A query of PostgreSQL took longer than `timeouts.query`, and could not be cancelled.
    TimeoutQuery = "timeout:query",
    /// A transaction of PostgreSQL lasted longer than `timeouts.transaction`.
    TimeoutTransaction = "timeout:transaction",
    /// The client was silent in the middle of a transaction for `timeouts.idle_in_transaction`.
    TimeoutIdleInTransaction = "timeout:idle-in-transaction",
    /// The client was silent while it kept its server beyond its transactions, for `timeouts.pinned`.
    TimeoutPinned = "timeout:pinned",
    /// No byte moved either way through an upgraded connection for `timeouts.tunnel_idle`.
    TimeoutTunnelIdle = "timeout:tunnel-idle",
    /// No route matches it.
    RefusedNoRoute = "refused:no-route",
    /// Policy does not allow it.
    RefusedPolicy = "refused:policy",
    /// Somebody had to agree, and said no, or nothing for `approval.wait` of its route.
    RefusedApproval = "refused:approval",
    /// Its route's schedule is closed.
    RefusedSchedule = "refused:schedule",
    /// Its source may not speak the PROXY protocol, which the listener requires.
    RefusedUntrusted = "refused:untrusted",
    /// It proved not who it is: no certificate where one is required, or one that is not believed.
    RefusedCertificate = "refused:certificate",
    /// The link that it wanted to go on with is not known here, or was not proved to be its own.
    RefusedLink = "refused:link",
    /// Its password is wrong, or nobody of its name may log in.
    RefusedLogin = "refused:login",
    /// It speaks without TLS, which its listener requires.
    RefusedPlain = "refused:plain",
    /// It asks another server than the one that TLS was agreed for.
    RefusedMisdirected = "refused:misdirected",
    /// It does not keep to its route's `api`.
    RefusedApi = "refused:api",
    /// It has passed this server before.
    RefusedLoop = "refused:loop",
    /// The listener or the server is draining.
    RefusedDraining = "refused:draining",
    /// Too much of what was asked of its upstream failed of late: the breakers of all endpoints are open.
    RefusedBreaker = "refused:breaker",
    /// The bytes break the protocol.
    ProtocolError = "protocol-error",
    /// What the upstream answered breaks the protocol.
    UpstreamProtocolError = "upstream-protocol-error",
    /// Every endpoint tried refused or was unreachable.
    Unreachable = "unreachable",
    /// This machine lacks something: descriptors, memory, ports.
    Exhausted = "exhausted",
    /// A defect of ours; the server's log says more.
    Internal = "internal",
}

impl Reason {
    /// The reason that `code` stands for.
    pub fn from_code(code: u8) -> Option<Reason> {
        Reason::ALL.get(usize::from(code)).copied()
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word outside the vocabulary.
#[derive(Debug, thiserror::Error)]
#[error("\"{0}\" is no reason")]
pub struct UnknownReason(String);

impl FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(text: &str) -> Result<Self, UnknownReason> {
        let known = Reason::ALL.iter().copied().find(|reason| reason.as_str() == text);
        known.ok_or_else(|| UnknownReason(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::Reason;

    #[test]
    fn every_reason_survives_its_code_and_its_word() {
        for (code, &reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(Reason::from_code(code as u8), Some(reason));
            assert_eq!(reason as usize, code);
            assert_eq!(reason.as_str().parse::<Reason>().unwrap(), reason);
        }
    }
}
