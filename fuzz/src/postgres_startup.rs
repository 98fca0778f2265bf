//! First packets of clients of PostgreSQL.

use tieline_wire::Parsed;
use tieline_wire::postgres::frontend::push_startup;
use tieline_wire::postgres::startup::{
    First, NAME_MAX, Replication, STARTUP_MAX, Startup, is_reserved, parse,
};

use crate::prefixes::assert_final;

/// An answer is final; a packet stays within its limit; who logs in is who is named, whatever the settings
/// say; what is read survives being written.
pub fn postgres_startup(data: &[u8]) {
    // The answer is another type for each lifetime, so it is compared as text.
    assert_final(data, |bytes| match parse(bytes) {
        Ok(Parsed::Incomplete { at_most }) => Ok(Parsed::Incomplete { at_most }),
        Ok(Parsed::Done { value, consumed }) => Ok(Parsed::Done { value: format!("{value:?}"), consumed }),
        Err(error) => Err(error),
    });
    let Ok(Parsed::Done { value, consumed }) = parse(data) else { return };
    assert!(consumed <= STARTUP_MAX);
    if let First::Startup(startup) = value {
        is_sound(&startup);
        is_read_back(&startup);
    }
}

fn is_sound(startup: &Startup<'_>) {
    // A server as a whole is no database.
    assert_eq!(startup.database.is_empty(), startup.replication == Some(Replication::Physical));
    for name in [startup.user, startup.database] {
        assert!(name.len() <= NAME_MAX && std::str::from_utf8(name).is_ok(), "{name:?}");
    }
    assert!(!startup.user.is_empty());
    for setting in &startup.settings {
        assert!(!setting.name.contains(&0) && !setting.value.contains(&0), "{setting:?}");
        assert!(!setting.name.is_empty() && !is_reserved(&setting.name), "{setting:?}");
    }
    if let Some((version, _)) = startup.negotiation() {
        assert!(version <= startup.version, "no client is offered more than it asks for");
    }
}

fn is_read_back(startup: &Startup<'_>) {
    let mut written = Vec::new();
    let names = [(&b"user"[..], startup.user), (b"database", startup.database)];
    let replication = startup.replication.map(|it| (&b"replication"[..], it.parameter()));
    let settings = startup.settings.iter().map(|setting| (&*setting.name, &*setting.value));
    push_startup(&mut written, names.into_iter().chain(replication).chain(settings));
    // The commands of `options` take less room than the settings that they come to.
    if written.len() > STARTUP_MAX {
        return;
    }
    let Ok(Parsed::Done { value: First::Startup(again), .. }) = parse(&written) else {
        panic!("{startup:?} does not read back");
    };
    assert_eq!((again.user, again.database), (startup.user, startup.database));
    assert_eq!(again.replication, startup.replication);
    assert_eq!(again.settings, startup.settings);
}
