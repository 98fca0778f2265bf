//! What operators order.

use std::time::Duration;

use tieline_base::{Clock, Reason};
use tieline_policy::AdminPermit;
use tieline_registry::Verdict;
use tokio::time::sleep;

use super::Console;
use super::answer::Refused;
use super::command::Command;
use super::show::listeners;
use crate::census::{self, ClientRow, HaltError, ServerRow};
use crate::server::Server;

/// How often it is looked whether something that is waited for has come.
const LOOKED_EVERY: Duration = Duration::from_millis(5);

/// Does what is ordered. Dropped while it waits, it takes back what it has halted.
///
/// # Errors
/// It cannot be done; nothing has changed then.
pub(super) async fn perform(order: &Command, console: &Console, permit: AdminPermit) -> Result<(), Refused> {
    match order {
        Command::Pause(database) => {
            not_the_console(order, database.as_deref())?;
            let is_new = census::halt(|halted| halted.pause(database.as_deref()))?;
            let undo = is_new.then(|| Undo(database.as_deref()));
            let servers = Servers::of(database.as_deref());
            servers.close(console);
            while servers.any() {
                sleep(LOOKED_EVERY).await;
                servers.close(console);
            }
            std::mem::forget(undo);
        }
        Command::Resume(database) => match census::halt(|halted| halted.resume(database.as_deref())) {
            Err(HaltError::NotPaused(name)) if !is_known(console, &name)? => {
                return Err(Refused::new(format!("no such database: {name}")));
            }
            resumed => resumed?,
        },
        Command::Kill(database) => {
            not_the_console(order, database.as_deref())?;
            census::halt(|halted| match halted.pause(database.as_deref()) {
                // One that is paused may be killed too.
                Err(HaltError::Already) | Ok(_) => Ok(()),
                Err(error) => Err(error),
            })?;
            let servers = Servers::of(database.as_deref());
            let all = |row: &ClientRow| database.as_deref().is_none_or(|name| *row.database == *name);
            let own = |row: &ClientRow| super::is_console(&row.database);
            census::clients().iter().filter(|row| all(row) && !own(row)).for_each(|row| kill(row));
            servers.close(console);
        }
        Command::KillClient(id) => {
            let row = census::clients().into_iter().find(|row| row.id() == *id);
            kill(&*row.ok_or_else(|| Refused::new(format!("client {id} not found")))?);
        }
        Command::Reconnect(database) => Servers::of(database.as_deref()).close(console),
        Command::WaitClose(database) => {
            let servers = Servers::of(database.as_deref());
            while servers.rows().iter().any(|row| row.is_doomed()) {
                // One that was on its way to its rest when it was doomed rests.
                close_doomed(console);
                sleep(LOOKED_EVERY).await;
            }
        }
        Command::Disable(database) => {
            not_the_console(order, Some(database))?;
            return disable(database, true);
        }
        Command::Enable(database) => return disable(database, false),
        Command::Reload => {
            let reloaded = console.house.reload(permit).await;
            return reloaded.map_err(|lines| Refused {
                code: "F0000",
                message: format!("the config stays as it is: {}", lines.first().map_or("", |line| line)),
                detail: (lines.len() > 1).then(|| lines.join("\n")),
            });
        }
        Command::Nothing | Command::Show(_) | Command::Help | Command::SetIgnored => {}
    }
    Ok(())
}

/// Who halts the console could not resume anything.
fn not_the_console(order: &Command, database: Option<&str>) -> Result<(), Refused> {
    match database.filter(|name| super::is_console(name)) {
        Some(name) => {
            let what = order.tag().to_ascii_lowercase();
            Err(Refused::new(format!("cannot {what} admin db: {name}")))
        }
        None => Ok(()),
    }
}

/// Whether a route names the database, or anybody has asked for it.
fn is_known(console: &Console, name: &str) -> Result<bool, Refused> {
    let is_asked_for = || census::pools().iter().any(|pool| *pool.database == *name);
    let mut listeners = listeners(console)?.into_values();
    let is_named = listeners.any(|postgres| postgres.site.databases().any(|database| database == name));
    Ok(super::is_console(name) || is_named || is_asked_for())
}

fn disable(database: &str, disabled: bool) -> Result<(), Refused> {
    census::halt(|halted| {
        halted.disable(database, disabled);
        Ok(())
    })?;
    Ok(())
}

fn kill(row: &ClientRow) {
    row.record.note("killed at the console");
    row.record.end(Verdict { at: Clock::now(), reason: Reason::Killed });
}

/// A halt that nobody waited for in the end.
struct Undo<'d>(Option<&'d str>);

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        // It may have been resumed meanwhile.
        let _ = census::halt(|halted| halted.resume(self.0));
    }
}

/// The servers of a database, as clients call it, or all.
struct Servers {
    /// The ids of its pools; `None`: all.
    pools: Option<Vec<u32>>,
}

impl Servers {
    fn of(database: Option<&str>) -> Self {
        let ids = |name: &str| {
            let pools = census::pools().into_iter().filter(|pool| *pool.database == *name);
            pools.map(|pool| pool.id).collect()
        };
        Self { pools: database.map(ids) }
    }

    fn has(&self, row: &ServerRow) -> bool {
        self.pools.as_ref().is_none_or(|pools| pools.contains(&row.pool()))
    }

    fn rows(&self) -> Vec<std::sync::Arc<ServerRow>> {
        census::servers().into_iter().filter(|row| self.has(row)).collect()
    }

    fn any(&self) -> bool {
        census::servers().iter().any(|row| self.has(row))
    }

    /// Closes those at rest, and has the others closed when they come back.
    fn close(&self, console: &Console) {
        for row in self.rows() {
            row.doom();
        }
        close_doomed(console);
    }
}

/// Closes those at rest that are to be closed.
fn close_doomed(console: &Console) {
    let Some(server) = console.house.server() else { return };
    for upstream in server.snapshot().upstreams.values() {
        upstream.close_rested(|kept| {
            let kept: &dyn std::any::Any = kept;
            kept.downcast_ref::<Server>().is_some_and(|server| server.row.is_doomed())
        });
    }
}

impl From<HaltError> for Refused {
    fn from(error: HaltError) -> Self {
        Refused::new(error.to_string())
    }
}
