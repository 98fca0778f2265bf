//! A server without a wait: one rests at this worker that the client can use as it is. By far the most
//! transactions begin so; what takes its time is in `aside.rs`.

use std::any::Any;
use std::sync::Arc;

use tieline_base::{Moment, Stage};
use tieline_pool::{Ask, InLine, Lease, Making, Reuse};
use tieline_wire::postgres::backend::push_parameter;

use crate::held::Held;
use crate::in_line::Waited;
use crate::link::Link;
use crate::server::Server;
use crate::settings::Reported;
use crate::talk::{Talk, Way};

/// What a client got without a wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Got {
    /// A server.
    Server,
    /// A place in line for one.
    Place,
    /// Neither.
    Nothing,
}

impl Talk {
    /// Gets the client a server if none has to be waited for, nor made ready, and else a place in line for
    /// one if that is all that is missing.
    pub(crate) fn link_at_once(&mut self) -> Got {
        let Way { generation, pool, login, .. } = &self.way;
        if *generation != self.connection.generation() || pool.is_paused() || login.denials.are_any() {
            return Got::Nothing;
        }
        let began = self.now();
        let route = &self.way.target.route;
        // What is refused is refused again, and told, where there is time.
        let decided = self.connection.decide(Some(route), self.connection.record().client(), began);
        let Ok(permit) = decided else { return Got::Nothing };
        let ask = self.ask();
        let target = &self.way.target;
        if target.cluster.is_some() || target.reads.is_some() {
            // Where servers differ, what is waited for may change: that takes more than a place in line.
            let lease = self.connection.acquire_at_once(route, &permit, &ask, began);
            let got = lease.is_some_and(|lease| self.takes(lease, &ask, began));
            return if got { Got::Server } else { Got::Nothing };
        }
        match self.connection.acquire_or_line_up(route, &permit, &ask, began) {
            InLine::Lent(lease) => {
                if self.takes(lease, &ask, began) {
                    Got::Server
                } else {
                    Got::Nothing
                }
            }
            InLine::Waits(place) => {
                self.line_up(place, ask, began);
                Got::Place
            }
            InLine::Dials(granted) => {
                self.waited = Some(Box::new(Waited { began, told: false, granted }));
                Got::Nothing
            }
            InLine::Nowhere => Got::Nothing,
        }
    }

    /// The client holds the server of `lease`, which it has asked for by `ask` and waited for since `began`.
    /// False: something has to be waited for first.
    pub(crate) fn takes(&mut self, lease: Lease, ask: &Ask, began: Moment) -> bool {
        let acquired = lease.connected_at();
        let (io, loan, mut making) = lease.into_parts();
        let Some(Ok(server)) = server_of(&mut making) else { return false };
        let dressed = self.ears.is_none() && server.is_dressed(&self.settings);
        if !self.still_needs(ask.purpose) || !self.is_lent(&server, began, acquired) {
            server.rest(io, loan, making, acquired);
            return false;
        }
        let link = Link::new(io, server, (loan, making), began, acquired);
        if !dressed {
            self.undressed = Some(Box::new(link));
            return false;
        }
        self.keep(link);
        self.holds();
        true
    }

    /// What the pool is asked for.
    pub(crate) fn ask(&self) -> Ask {
        let client = self.connection.record().client();
        let route = &self.way.target.route;
        Ask {
            hash: self.connection.hash(&route.hash_by, client),
            reuse: Reuse::Any,
            login: self.way.login.id,
            priority: route.priority,
            share: self.who.share,
            user: Ask::user_of(client),
            purpose: self.purpose(),
            ..Ask::default()
        }
    }

    /// The client holds the server of `link`, which has the settings that it wants.
    pub(crate) fn hold(&mut self, link: Link) {
        self.keep(link);
        self.holds();
    }

    /// It does so from here on.
    fn holds(&mut self) {
        let Some(link) = &mut self.link else { return };
        link.server.renew();
        tell(&mut self.view, &link.server.reported, &mut self.down.held);
        let (record, acquired) = (self.connection.record(), link.began.after(link.acquired_after));
        record.enter(Stage::Relay, acquired);
        record.touch(acquired);
        if self.reads.is_some() {
            self.begin_reading();
        }
        self.down.armed = false;
        self.wait_for_what();
    }
}

/// Tells a client what is `reported` of its settings, as far as that is news to its `view`.
#[inline]
pub(crate) fn tell(view: &mut Arc<Reported>, reported: &Arc<Reported>, out: &mut Held) {
    if !Arc::ptr_eq(view, reported) {
        if view.iter().next().is_none() {
            // Who logs in is told all of it at the end.
            return;
        }
        let is_news = |(name, it): &(&[u8], &[u8])| view.get(name) != Some(*it);
        for (name, value) in reported.iter().filter(is_news) {
            push_parameter(out.bytes(), name, value);
        }
        *view = reported.clone();
    }
}

/// What is known of a connection that others have used; `None` if it is new.
///
/// # Errors
/// What is known is of another protocol.
pub(crate) fn server_of(making: &mut Making) -> Option<Result<Box<Server>, Box<dyn Any>>> {
    let kept: Box<dyn Any> = making.take_kept()?;
    Some(kept.downcast::<Server>())
}
