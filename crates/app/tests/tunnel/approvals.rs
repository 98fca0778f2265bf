//! Services that somebody else has to agree to before they are opened.

use std::io::Read;
use std::process::Stdio;

use serde_json::{Value, json};
use tieline_testkit::{PATIENCE, TcpServer, finish, http_over_tcp, wait_for, wait_until};

use crate::people::{Connect, Desk};
use crate::site::offer;
use crate::support::{assert_echoes, await_finished, await_live, connect, story};

/// The route to `plant-7`, with `terms` of approvals and other keys.
fn route(terms: &str) -> String {
    format!(
        "[[listener.gate.route]]\nname = \"support\"\nservice = \"plant-7/*\"\n\
         allow = {{ identity = [\"group:support\"] }}\n{terms}\n[group.support]\n[group.leads]\n"
    )
}

const APPROVAL: &str = "approval = { by = [\"lead\", \"group:leads\"], for = \"2h\" }";

fn desk(terms: &str, echo: &TcpServer) -> Desk {
    Desk::with(&route(terms), &offer(echo.address()))
}

/// The requests that stand, as `tieline approvals` lists them.
fn requests(desk: &Desk) -> Vec<Value> {
    let listed = desk.server.cli(["approvals", "--json"]).expect("approvals");
    serde_json::from_str(&listed).unwrap()
}

/// The id of the one request that waits.
#[track_caller]
fn waiting(desk: &Desk) -> String {
    let one = || {
        let waiting = requests(desk).into_iter().filter(|one| one["state"] == "waiting");
        let [one] = waiting.collect::<Vec<_>>().try_into().ok()?;
        let one: Value = one;
        Some(one["id"].as_str().unwrap().to_owned())
    };
    wait_for(PATIENCE, one).unwrap_or_else(|| panic!("{:#?}", requests(desk)))
}

/// What the admin API answers over the network to whoever has `token`.
fn ask_as(desk: &Desk, token: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let log = desk.server.log();
    let address = log.split("admin API http://").nth(1).unwrap().split_whitespace().next().unwrap();
    let field = format!("Authorization: Bearer {token}");
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = http_over_tcp(address.parse().unwrap(), method, path, &[&field], body.as_bytes()).unwrap();
    (answer.status, serde_json::from_slice(&answer.body).unwrap())
}

#[test]
fn who_has_to_ask_waits_until_an_operator_agrees() {
    let echo = TcpServer::echo();
    let desk = desk(APPROVAL, &echo);
    let mut ana = desk.connect(&desk.ana(), &["plant-7/service", "--why", "a valve is stuck"]);
    let asked = ana.hears("waiting for approval: request ");
    assert!(asked.ends_with(" by ana for plant-7/service (ask one of: lead, group:leads)"), "{asked}");
    let id = waiting(&desk);
    assert!(asked.contains(&id), "{id}: {asked}");
    let request = requests(&desk).remove(0);
    assert_eq!((&request["why"], &request["person"]), (&"a valve is stuck".into(), &"ana".into()));
    assert_eq!(echo.accepted(), 0);
    // The question goes on waiting when the link goes on over another connection.
    let carriers = desk.people.accepted();
    desk.people.cut();
    assert!(wait_until(PATIENCE, || desk.people.accepted() > carriers));
    let printed = desk.server.cli(["approvals"]).expect("approvals");
    assert!(printed.contains("a valve is stuck") && printed.contains("waiting"), "{printed}");
    let approved = desk.server.cli(["approve", &id, "--for", "30m", "--note", "go ahead"]).expect("approve");
    assert!(approved.contains(&format!("approved request {id} by ana for plant-7/service")), "{approved}");
    ana.hears("approved: plant-7/service is open");
    ana.assert_echoes();
    // It holds for whatever else she opens there, and for nobody else.
    let mut again = desk.connect(&desk.ana(), &["plant-7/service"]);
    again.assert_echoes();
    let bob = desk.connect(&desk.token(&["bob", "--groups", "support"]), &["plant-7/service"]);
    bob.hears("waiting for approval");
    let rows = await_live(&desk.server, "identity=ana stage=relay parent>0", 2);
    let uid = rustix::process::geteuid().as_raw();
    let approved = format!("request {id} was approved by operator uid {uid}: go ahead");
    for row in &rows {
        assert!(story(&desk.server, row).contains(&approved), "{}", story(&desk.server, row));
    }
    let waited = format!("waits for approval: request {id} by ana for plant-7/service");
    assert!(rows.iter().any(|row| story(&desk.server, row).contains(&waited)));
    for words in ["an approval is asked for", "was approved by operator uid", ", for 1800s"] {
        assert!(desk.server.log().contains(words), "{words}: {}", desk.server.log());
    }
}

#[test]
fn who_is_denied_is_told_by_whom_and_why() {
    let echo = TcpServer::echo();
    let desk = desk(APPROVAL, &echo);
    let mut ana = desk.connect(&desk.ana(), &["plant-7/service"]);
    ana.hears("waiting for approval");
    let id = waiting(&desk);
    desk.server.cli(["deny", &id, "--note", "not on a Friday"]).expect("deny");
    let told = ana.hears("was denied by operator");
    assert!(told.contains("not on a Friday"), "{told}");
    assert_eq!((ana.code(), echo.accepted()), (3, 0));
    await_finished(&desk.server, "identity=ana parent>0 reason=refused:approval", 1);
    let late = desk.server.cli(["approve", &id]);
    assert!(!late.success() && late.stderr.contains("it is denied"), "{}", late.stderr);
    assert_eq!(requests(&desk), Vec::<Value>::new());
    let all = desk.server.cli(["approvals", "--all"]).expect("approvals");
    assert!(all.contains("denied") && all.contains("not on a Friday"), "{all}");
    // She may ask again, and that is another request.
    let again = desk.connect(&desk.ana(), &["plant-7/service"]);
    again.hears("waiting for approval");
    assert_ne!(waiting(&desk), id);
}

#[test]
fn nobody_answers_and_the_request_comes_to_its_end() {
    let echo = TcpServer::echo();
    let desk = desk("approval = { wait = \"3s\" }", &echo);
    let mut ana = desk.connect(&desk.ana(), &["plant-7/service"]);
    ana.hears("(ask an operator)");
    ana.hears("nobody answered request");
    assert_eq!(ana.code(), 3);
    await_finished(&desk.server, "identity=ana parent>0 reason=refused:approval", 1);
    assert!(wait_until(PATIENCE, || desk.server.log().contains("nobody answered request")));
}

#[test]
fn an_approval_that_is_taken_back_ends_what_lives_by_it_and_nothing_else() {
    let echo = TcpServer::echo();
    let desk = desk(APPROVAL, &echo);
    let [mut ana, mut bob] = ["ana", "bob"].map(|name| {
        let one = desk.connect(&desk.token(&[name, "--groups", "support"]), &["plant-7/service"]);
        one.hears("waiting for approval");
        let id = waiting(&desk);
        desk.server.cli(["approve", &id]).expect("approve");
        one.hears("approved");
        (one, id)
    });
    ana.0.assert_echoes();
    bob.0.assert_echoes();
    let denied = desk.server.cli(["deny", &ana.1, "--note", "enough"]).expect("deny");
    assert!(denied.contains("revoked request") && denied.contains("ends now"), "{denied}");
    assert_eq!(ana.0.code(), 3);
    let past = await_finished(&desk.server, "identity=ana parent>0 reason=revoked", 1).remove(0);
    assert!(story(&desk.server, &past).contains("was taken back by operator"), "{past:#?}");
    bob.0.assert_echoes();
    assert!(wait_until(PATIENCE, || echo.open() == 1));
    let again = desk.connect(&desk.ana(), &["plant-7/service"]);
    again.hears("waiting for approval");
}

#[test]
fn when_its_time_is_over_streams_end_and_the_next_one_asks_again() {
    let echo = TcpServer::echo();
    let desk = desk("approval = { for = \"6s\" }", &echo);
    let token = desk.ana();
    let kept = desk.connect(&token, &["plant-7/service", "--listen", "127.0.0.1:0"]);
    let at = kept.address();
    let mut one = connect(at);
    kept.hears("waiting for approval");
    let longer = desk.server.cli(["approve", &waiting(&desk), "--for", "7s"]);
    assert!(!longer.success() && longer.stderr.contains("6 s at the most"), "{}", longer.stderr);
    desk.server.cli(["approve", &waiting(&desk)]).expect("approve");
    assert_echoes(&mut one);
    assert!(one.read(&mut [0]).is_err(), "a cut is no end");
    kept.hears("its time was over");
    await_finished(&desk.server, "identity=ana parent>0 reason=approval-ended", 1);
    // As long as she is away it goes on as well: what comes back finds nothing.
    let mut other = connect(at);
    kept.hears("waiting for approval");
    desk.server.cli(["approve", &waiting(&desk)]).expect("approve");
    assert_echoes(&mut other);
    let process = rustix::process::Pid::from_child(&kept.process);
    rustix::process::kill_process(process, rustix::process::Signal::STOP).unwrap();
    desk.people.cut();
    await_finished(&desk.server, "identity=ana parent>0 reason=approval-ended", 2);
    rustix::process::kill_process(process, rustix::process::Signal::CONT).unwrap();
    assert!(other.read(&mut [0]).is_err(), "a cut is no end");
    let _third = connect(at);
    kept.hears("waiting for approval");
}

#[test]
fn a_person_answers_what_he_may_and_never_himself() {
    let echo = TcpServer::echo();
    let desk = desk(APPROVAL, &echo);
    let token = |name: &str, groups: &str| desk.token(&[name, "--groups", groups]);
    let (lead, bob) = (token("lead", "support"), token("bob", "support"));
    let other = token("carl", "leads");
    let mut asking = desk.connect(&lead, &["plant-7/service"]);
    asking.hears("waiting for approval");
    let id = waiting(&desk);
    let path = format!("/api/v1/approvals/{id}/approve");
    let nothing = json!({});
    assert_eq!(ask_as(&desk, &bob, "POST", &path, &nothing).0, 404);
    assert_eq!(ask_as(&desk, &bob, "GET", "/api/v1/approvals", &Value::Null), (200, json!([])));
    let (status, own) = ask_as(&desk, &lead, "POST", &path, &nothing);
    assert_eq!(status, 403, "{own}");
    assert_eq!(ask_as(&desk, "tlu1_nonsense", "POST", &path, &nothing).0, 401);
    // Nor is he an operator for all that.
    assert_eq!(ask_as(&desk, &other, "GET", "/api/v1/connections", &Value::Null).0, 401);
    let (status, approved) = ask_as(&desk, &other, "POST", &path, &json!({"note": "go ahead"}));
    assert_eq!((status, &approved["answered_by"]), (200, &"carl".into()), "{approved}");
    asking.assert_echoes();
    assert_eq!(ask_as(&desk, &other, "POST", &path, &nothing).0, 409);
    desk.server.cli(["token", "revoke", "carl"]).expect("revoke");
    let deny = format!("/api/v1/approvals/{id}/deny");
    assert_eq!(ask_as(&desk, &other, "POST", &deny, &nothing).0, 401);
    asking.assert_echoes();
}

#[test]
fn requests_outlive_a_reload_and_approvals_obey_it() {
    let echo = TcpServer::echo();
    let desk = desk(APPROVAL, &echo);
    let gate = "[listener.gate]\nbind = \"127.0.0.1:0\"\nprotocol = \"tunnel\"\n\
                timeouts = { drain = \"1s\" }\n\
                [upstream.service]\nendpoints = [\"agent:plant-7/service\"]\n";
    let obey = |terms: &str| desk.server.reload(&format!("{gate}{}", route(terms)));
    let mut ana = desk.connect(&desk.ana(), &["plant-7/service"]);
    ana.hears("waiting for approval");
    let id = waiting(&desk);
    obey("approval = { by = [\"carl\"], for = \"1h\" }");
    let asks = || requests(&desk)[0]["ask"] == "carl";
    assert!(wait_until(PATIENCE, asks), "{:#?}", requests(&desk));
    assert_eq!(waiting(&desk), id);
    desk.server.cli(["approve", &id]).expect("approve");
    ana.assert_echoes();
    obey("approval = { by = [\"carl\"], for = \"30m\" }");
    ana.assert_echoes();
    // Nobody has to agree, and then somebody has to: what was opened meanwhile was opened without.
    let bob = desk.token(&["bob", "--groups", "support"]);
    let mut waits = desk.connect(&bob, &["plant-7/service"]);
    waits.hears("waiting for approval");
    obey("");
    waits.assert_echoes();
    ana.assert_echoes();
    obey(APPROVAL);
    assert_eq!(waits.code(), 3);
    ana.assert_echoes();
    await_finished(&desk.server, "identity=bob parent>0 reason=revoked", 1);
}

#[test]
fn there_is_an_end_of_requests() {
    let echo = TcpServer::echo();
    let desk = desk(APPROVAL, &echo);
    let token = desk.ana();
    let asking: Vec<Connect> = (0..8)
        .map(|number| {
            let one = desk.connect(&token, &[&format!("plant-7/service-{number}")]);
            one.hears("waiting for approval");
            one
        })
        .collect();
    // The same again is the same request.
    let joined = desk.connect(&token, &["plant-7/service-0"]);
    joined.hears("waiting for approval");
    assert_eq!(requests(&desk).len(), 8);
    let refused = finish(desk.command(&token, &["plant-7/service-8"]).stdin(Stdio::null()));
    assert!(refused.code == Some(3) && refused.stderr.contains("8 requests of yours"), "{}", refused.stderr);
    drop(asking);
}

#[test]
fn a_stream_ends_when_it_was_silent_or_open_for_too_long() {
    let echo = TcpServer::echo();
    let desk = desk("timeouts = { idle = \"3s\", max_age = \"1h\" }", &echo);
    let mut silent = desk.connect(&desk.ana(), &["plant-7/service"]);
    silent.assert_echoes();
    assert_eq!(silent.code(), 6);
    await_finished(&desk.server, "identity=ana parent>0 reason=idle", 1);
    let desk = self::desk("timeouts = { max_age = \"5s\" }", &echo);
    let mut busy = desk.connect(&desk.ana(), &["plant-7/service"]);
    busy.assert_echoes();
    assert_eq!(busy.code(), 6);
    await_finished(&desk.server, "identity=ana parent>0 reason=max-age", 1);
}
