//! What one tenant leaves behind must not be found by the next one on the same server.

use tieline_testkit::pg::frontend;

use crate::differential::{Difference, assert_only, shown, tidy_up};
use crate::house::Server;
use crate::proxied::{Mode, Tenancy, before_as};
use crate::script::{Manner, Script, Step};

fn probes() -> Vec<Script> {
    let mut probes = Script::read(include_str!("scripts/leaks.txt"));
    let wanted = std::env::var("TIELINE_SCRIPTS").unwrap_or_default();
    probes.retain(|probe| probe.name.contains(&wanted));
    for probe in &mut probes {
        probe.users = &[('a', "ana"), ('b', "bob")];
    }
    probes
}

/// The part of client `b` alone, as if nobody had been there before.
fn undisturbed(probe: &Script) -> Script {
    let mut alone = probe.clone();
    alone.steps.retain(|(client, step)| *client == 'b' && !matches!(step, Step::Cancel { .. }));
    alone
}

/// The probe as it is where only who leaves gives its server back: `a` does, before `b` begins. `None` where
/// it goes on beside `b`.
fn one_after_the_other(probe: &Script) -> Option<Script> {
    let mut probe = probe.clone();
    let begins = probe.steps.iter().position(|(client, _)| *client == 'b')?;
    if probe.steps[begins..].iter().any(|(client, _)| *client != 'b') {
        return None;
    }
    let leaves = [Step::Reset, Step::ReadToEnd];
    if !probe.steps.iter().any(|(client, step)| *client == 'a' && leaves.contains(step)) {
        let leave = [('a', Step::Send(frontend::terminate())), ('a', Step::ReadToEnd)];
        probe.steps.splice(begins..begins, leave);
    }
    Some(probe)
}

/// The probe where every statement is a transaction: `b` must not begin one of several.
fn of_single_statements(probe: &Script) -> Option<Script> {
    let begins = |sent: &[u8]| sent.windows(5).any(|word| word == b"begin");
    let several =
        |(client, step): &(char, Step)| *client == 'b' && matches!(step, Step::Send(sent) if begins(sent));
    (!probe.steps.iter().any(several)).then(|| probe.clone())
}

/// Both tenants are the same user on the one server there is.
fn leaks(mode: Mode) -> Vec<Difference> {
    let server = Server::start();
    let (_tieline, address) = before_as(&server, mode, 1, Tenancy::Shared);
    let mut leaks = Vec::new();
    let fitting = |probe: Script| match mode {
        Mode::Transaction => Some(probe),
        Mode::Session => one_after_the_other(&probe),
        Mode::Statement => of_single_statements(&probe),
    };
    let probes: Vec<Script> = probes().into_iter().filter_map(fitting).collect();
    assert!(probes.len() >= 40 || std::env::var("TIELINE_SCRIPTS").is_ok(), "{}", probes.len());
    for probe in probes {
        let mut clean = undisturbed(&probe).play(server.address(), &server, Manner::Whole);
        tidy_up(&server);
        let mut through = probe.play(address, &server, Manner::Whole);
        tidy_up(&server);
        clean.retain(|client, _| *client == 'b');
        through.retain(|client, _| *client == 'b');
        if clean != through {
            leaks.push(Difference { name: probe.name, shown: shown(&clean, &through) });
        }
    }
    leaks
}

#[test]
fn nothing_of_a_tenant_is_left_in_transaction_mode() {
    assert_only(&[], &leaks(Mode::Transaction));
}

#[test]
fn nothing_of_a_tenant_is_left_in_session_mode() {
    assert_only(&[], &leaks(Mode::Session));
}

#[test]
fn nothing_of_a_tenant_is_left_in_statement_mode() {
    assert_only(&[], &leaks(Mode::Statement));
}
