//! An error in every position of an extended batch: rules 27 to 29.

use tieline_testkit::pg::frontend;

use crate::script::{Script, Step};

/// A batch with each of its messages in turn replaced by each kind of error, alone and in a transaction.
pub(crate) fn scripts() -> Vec<Script> {
    let mut scripts = Vec::new();
    for within in [false, true] {
        for at in 0..batch().len() {
            for (kind, wrong) in wrongs() {
                let place = if within { " of a transaction's batch" } else { " of a batch" };
                let name = format!("{kind} in position {at}{place}");
                scripts.push(script(name, within, at, &wrong));
            }
        }
    }
    scripts
}

fn script(name: String, within: bool, at: usize, wrong: &[u8]) -> Script {
    let mut messages = batch();
    messages[at] = wrong.to_vec();
    let mut script = Script { name, steps: Vec::new(), users: &[] };
    let mut play = |bytes: Vec<u8>, answers: &[u8]| {
        script.steps.push(('a', Step::Send(bytes)));
        script.steps.push(('a', Step::Read(answers.to_vec())));
    };
    if within {
        play(frontend::query("begin"), b"Z");
    }
    // What stands behind must be answered as if nothing had been: one reply too few, and it is not.
    play([messages.concat(), frontend::sync(), frontend::sync()].concat(), b"ZZ");
    play([batch().concat(), frontend::sync()].concat(), b"Z");
    if within {
        play(frontend::query("rollback"), b"Z");
    }
    play(frontend::query("select count(*) from dest"), b"Z");
    script
}

fn batch() -> Vec<Vec<u8>> {
    vec![
        frontend::parse("one", "select n, t from numbers where n = $1", &[23]),
        frontend::bind("portal", "one", &[Some("7")], 0),
        frontend::describe(b'P', "portal"),
        frontend::execute("portal", 0),
        frontend::close(b'P', "portal"),
        frontend::close(b'S', "one"),
        frontend::parse("", "insert into dest values (1, 'x')", &[]),
        frontend::bind("", "", &[], 0),
        frontend::execute("", 0),
    ]
}

fn wrongs() -> [(&'static str, Vec<u8>); 6] {
    [
        ("a wrong Parse", frontend::parse("", "selec", &[])),
        ("a wrong Bind", frontend::bind("", "nowhere", &[], 0)),
        ("a wrong Describe", frontend::describe(b'S', "nowhere")),
        ("a wrong Execute", frontend::execute("nowhere", 0)),
        ("a malformed Close", frontend::close(b'X', "one")),
        ("a malformed Bind", frontend::message(b'B', b"\0")),
    ]
}
