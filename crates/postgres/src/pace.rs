//! What a client does with a server, counted on the way: a few additions for each answer, and no look at a
//! clock. Times are to the kernel's tick.

use tieline_base::Moment;
use tieline_wire::postgres::backend::Status;
use tieline_wire::postgres::frontend::kind;

use crate::census::Count;
use crate::server::Server;
use crate::talk::Talk;

/// What was done since it was counted last.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// When what the server does now was asked; the beginning of time if it does nothing.
    asked: Moment,
    /// When its transaction began; the same.
    begun: Moment,
    readies: u32,
    transactions: u32,
    pub(crate) client_parses: u32,
    pub(crate) server_parses: u32,
    pub(crate) binds: u32,
}

const NEVER: Moment = Moment(0);

impl Pace {
    /// A message of `kind` passed as it was.
    pub(crate) fn passed(&mut self, message: u8) {
        match message {
            kind::PARSE => {
                self.client_parses += 1;
                self.server_parses += 1;
            }
            kind::BIND => self.binds += 1,
            _ => {}
        }
    }

    /// The server is ready, in this state.
    pub(crate) fn ready(&mut self, status: Status) {
        self.readies += 1;
        self.transactions += u32::from(status == Status::Idle);
    }
}

impl Talk {
    /// `server` is lent to the client, which wanted it since `began`, and that is counted. False: its pool is
    /// halted, and the server has to go back.
    pub(crate) fn is_lent(&self, server: &Server, began: Moment, now: Moment) -> bool {
        let (record, pool) = (self.connection.record(), &self.way.pool);
        server.row.is_lent(record.id().0, pool, now);
        // Behind the line above: who halts it looks at what is lent behind that.
        if pool.is_paused() {
            return false;
        }
        self.row.holds(server.row.id, now);
        let waited = now.0.saturating_sub(began.0);
        pool.count(record.worker(), Count::Assigned, 1);
        pool.count(record.worker(), Count::Waited, waited);
        true
    }

    /// Something of the client's was passed on.
    pub(crate) fn asked(&mut self) {
        let Some(link) = &mut self.link else { return };
        if link.pace.asked == NEVER && !link.server.outstanding.is_empty() {
            let now = self.connection.record().moved_at();
            link.pace.asked = now;
            if link.pace.begun == NEVER {
                link.pace.begun = now;
            }
        }
    }

    /// Something of the server's was passed on: counts what was done with it.
    pub(crate) fn answered(&mut self) {
        let Some(link) = &mut self.link else { return };
        if link.pace.readies == 0 {
            return;
        }
        let pace = std::mem::take(&mut link.pace);
        let (record, pool) = (self.connection.record(), &self.way.pool);
        let (worker, now) = (record.worker(), record.moved_at());
        let since = |then: Moment| if then == NEVER { 0 } else { now.0.saturating_sub(then.0) };
        pool.count(worker, Count::Queries, pace.readies.into());
        pool.count(worker, Count::InQueries, since(pace.asked));
        if pace.transactions > 0 {
            pool.count(worker, Count::Transactions, pace.transactions.into());
            pool.count(worker, Count::InTransactions, since(pace.begun));
        } else {
            link.pace.begun = pace.begun;
        }
        if !link.server.outstanding.is_empty() {
            link.pace.asked = now;
            if link.pace.begun == NEVER {
                link.pace.begun = now;
            }
        }
        if pace.client_parses + pace.server_parses + pace.binds > 0 {
            pool.count(worker, Count::ClientParses, pace.client_parses.into());
            pool.count(worker, Count::ServerParses, pace.server_parses.into());
            pool.count(worker, Count::Binds, pace.binds.into());
        }
    }
}
