//! Users who are looked up in a database: `auth_user` and what belongs to it.

use std::time::Duration;

use tieline_base::Secret;

use super::globals::Globals;
use super::ini::{Setting, pairs};
use super::notes::Notes;
use super::secrets::Secrets;
use super::write::Upstream;

/// PgBouncer's own queries, of before 1.24 and since, which read what ours reads too.
const USUAL: [&str; 2] = [
    "SELECT usename, passwd FROM pg_shadow WHERE usename=$1",
    "SELECT rolname, CASE WHEN rolvaliduntil < now() THEN NULL ELSE rolpassword END FROM pg_authid \
     WHERE rolname=$1 AND rolcanlogin",
];

fn is_usual(query: &str) -> bool {
    USUAL.contains(&query)
}

/// Servers that look-ups may hold: users are asked for once, however many log in as them.
const SIZE: u32 = 2;

/// What says who is looked up, and where.
pub(super) struct Wanted {
    user: String,
    line: usize,
    query: Option<String>,
    /// The database of `[databases]` where that is.
    database: Option<String>,
}

/// Where the listener looks users up.
pub(super) struct Lookup {
    pub(super) upstream: String,
    pub(super) query: Option<String>,
}

/// What `settings` want to be looked up, in general or for a database; `None`: nothing.
pub(super) fn wanted(globals: &mut Globals, settings: &[Setting], notes: &mut Notes) -> Option<Wanted> {
    // Without a user, what else is said of it is told with the rest.
    let (user, line, own) = match globals.take("auth_user") {
        Some((user, line)) => (user, line, None),
        None => of_a_database(settings)?,
    };
    let database = globals.take("auth_dbname").map(|(name, _)| name);
    let query = globals.take("auth_query").map(|(query, line)| {
        if !is_usual(&query) {
            let what = "auth_query: it runs with search_path = pg_catalog; what lies elsewhere needs the \
                        name of its schema";
            notes.tell(line, what.into());
        }
        query
    });
    let query = own.as_ref().and_then(|own| own.query.clone()).or(query).filter(|query| !is_usual(query));
    Some(Wanted { user, line, query, database: own.and_then(|own| own.database).or(database) })
}

/// Tells of what lines of `[databases]` say of it, but for the one that counts.
pub(super) fn tell_others(settings: &[Setting], wanted: Option<&Wanted>, notes: &mut Notes) {
    for setting in settings.iter().filter(|setting| setting.section == "databases") {
        if wanted.is_some_and(|wanted| wanted.line == setting.line) {
            continue;
        }
        let pairs = pairs(&setting.value).unwrap_or_default();
        for (key, value) in pairs.iter().filter(|(key, _)| key.starts_with("auth_")) {
            let why = match wanted {
                Some(Wanted { user, .. }) => format!("users of all databases are looked up by \"{user}\""),
                None => "not carried over: nobody is looked up".into(),
            };
            notes.tell(setting.line, format!("{key}={value} of database \"{}\": {why}", setting.key));
        }
    }
}

/// What a line of `[databases]` says of it.
struct Own {
    query: Option<String>,
    database: Option<String>,
}

/// The first database that has an `auth_user` of its own.
fn of_a_database(settings: &[Setting]) -> Option<(String, usize, Option<Own>)> {
    settings.iter().filter(|setting| setting.section == "databases").find_map(|setting| {
        let pairs = pairs(&setting.value)?;
        let given = |key: &str| pairs.iter().rev().find(|(name, _)| name == key).map(|(_, it)| it.clone());
        let own = Own {
            query: given("auth_query"),
            database: given("auth_dbname").or_else(|| Some(setting.key.clone())),
        };
        Some((given("auth_user")?, setting.line, Some(own)))
    })
}

/// The look-up that does what is `wanted`, and the upstream that is made for it. The databases that clients
/// ask for lead to `upstreams`, in their order, each by its name there.
pub(super) fn lookup(
    wanted: Wanted,
    upstreams: &[(Option<String>, &Upstream)],
    secrets: &mut Secrets,
    notes: &mut Notes,
) -> Option<(Lookup, Upstream)> {
    let Wanted { user, line, query, database } = wanted;
    let named = |name: &str| upstreams.iter().find(|(database, _)| database.as_deref() == Some(name));
    let every = || upstreams.iter().find(|(database, _)| database.is_none());
    let chosen = match &database {
        Some(name) => named(name).or_else(every),
        None => upstreams.first(),
    };
    let Some((asked_for, server)) = chosen else {
        notes.tell(line, format!("auth_user = {user}: there is no database to look users up in"));
        return None;
    };
    let elsewhere = upstreams.iter().any(|(_, upstream)| upstream.endpoints != server.endpoints);
    let database = server.database.clone().or(database).or_else(|| asked_for.clone());
    let database = database.filter(|name| name != "*").unwrap_or_else(|| "postgres".into());
    if elsewhere {
        let what = format!(
            "auth_user = {user}: users of all databases are looked up in database \"{database}\" of {}",
            server.endpoints.join(", ")
        );
        notes.tell(line, what);
    }
    let password: Option<Secret> = secrets.password_of(&user);
    let known = password.is_some();
    let password_file = password.and_then(|password| secrets.keep(&user, password));
    if known && password_file.is_none() {
        let what = format!(
            "the password of \"{user}\" is left out; say --passwords FOLDER, or write it into a file that \
             `password_file` names"
        );
        notes.tell(line, what);
    }
    let free = |name: &String| upstreams.iter().all(|(_, upstream)| upstream.name != *name);
    let numbered = |at: usize| if at == 1 { "lookup".to_owned() } else { format!("lookup-{at}") };
    let name = (1..).map(numbered).find(free).unwrap_or_default();
    let upstream = Upstream {
        name: name.clone(),
        endpoints: server.endpoints.clone(),
        database: Some(database),
        user: Some(user),
        password_file,
        tls: server.tls.clone(),
        mode: "transaction".into(),
        size: SIZE,
        idle: server.idle,
        max_age: server.max_age,
        connect: server.connect,
        acquire: server.acquire.min(ACQUIRE),
        resets: false,
        notice: None,
        patience: Vec::new(),
    };
    Some((Lookup { upstream: name, query }, upstream))
}

/// Whoever logs in does not wait longer for it to be known who that is.
const ACQUIRE: Duration = Duration::from_secs(10);
