//! `tieline demo`: what it says can be tried, and does what it says.
#![allow(clippy::unwrap_used, reason = "a helper of tests may fail as a test may")]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Command;

use tieline_testkit::{PATIENCE, Tieline, finish, program, wait_until};

/// What curl says when it is called as the demo shows, in the demo's folder.
fn curl(demo: &Tieline, arguments: &[&str]) -> String {
    let mut curl = Command::new(program("curl"));
    curl.args(["-sS", "--max-time", "30"]).args(arguments).current_dir(demo.directory());
    finish(&mut curl).expect("curl")
}

/// The lines of its introduction that call `tool`, without what is said of them.
fn shown(demo: &Tieline, tool: &str) -> Vec<Vec<String>> {
    let told = demo.log();
    let lines = told.lines().filter_map(|line| line.trim().strip_prefix(tool));
    let words = |line: &str| line.split("   ").next().unwrap().replace('\'', "");
    lines.map(|line| words(line).split_whitespace().map(str::to_owned).collect()).collect()
}

#[test]
fn every_curl_that_it_shows_does_what_it_says() {
    let demo = Tieline::demo(&["--quiet"]);
    assert!(wait_until(PATIENCE, || demo.log().contains("Ctrl-C drains.")));
    let shown = shown(&demo, "curl ");
    let run = |at: usize| curl(&demo, &shown[at].iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(shown.len(), 5, "{shown:?}");
    let hello = run(0);
    assert!(hello.starts_with("HTTP/1.1 200 OK") && hello.contains("was asked: GET /hello"), "{hello}");
    assert!(hello.contains("X-Forwarded-For: 127.0.0.1") && hello.contains("Via: 1.1 "), "{hello}");
    let secure = run(1);
    assert!(secure.starts_with("HTTP/2 200") && secure.contains("X-Forwarded-Proto: https"), "{secure}");
    // The chance that all of 80 go to one of the two is 3 in 10¹⁰.
    let news: Vec<String> = (0..80).map(|_| run(2)).collect();
    let tomorrow = news.iter().filter(|news| news.starts_with("news of tomorrow was asked")).count();
    assert!((1..80).contains(&tomorrow), "{tomorrow} of 80");
    let again = [&["-b", "jar", "-c", "jar"], &shown[2].iter().map(String::as_str).collect::<Vec<_>>()[..]];
    let first = curl(&demo, &again.concat());
    assert!((0..10).all(|_| curl(&demo, &again.concat()) == first), "a session stays where it was first");
    let refused = run(3);
    assert!(refused.starts_with("HTTP/1.1 422") && refused.contains("\"pointer\":\"/count\""), "{refused}");
    let two = |word: &String| word.replace("\"count\":0", "\"count\":2");
    let passed: Vec<String> = shown[3].iter().map(two).collect();
    let passed = curl(&demo, &passed.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(passed.contains("orders was asked: POST /orders") && passed.contains("\"count\":2"), "{passed}");
    // One more is let through every six seconds.
    let statuses: Vec<String> = (0..20).map(|_| run(4).lines().next().unwrap().to_owned()).collect();
    assert!(statuses[..3].iter().all(|status| status.contains(" 200 ")), "{statuses:?}");
    assert!(statuses.iter().any(|status| status.contains(" 429 ")), "{statuses:?}");
}

#[test]
fn its_echo_services_answer_and_its_operators_verbs_work() {
    let demo = Tieline::demo(&[]);
    let mut client = TcpStream::connect(demo.listener_address("echo")).unwrap();
    client.write_all(b"hello\n").unwrap();
    let mut line = String::new();
    BufReader::new(&client).read_line(&mut line).unwrap();
    assert_eq!(line, "hello\n");
    // Its own traffic: five who stay, beside this one.
    let stay = || demo.cli(["ls", "listener=echo"]).expect("ls").lines().count() > 6;
    assert!(wait_until(PATIENCE, stay));
    let come_and_go = || demo.cli(["ls", "--finished", "listener=web"]).stdout.lines().count() > 1;
    assert!(wait_until(PATIENCE, come_and_go));
    let kill = shown(&demo, "tieline kill ").remove(0).remove(0);
    assert!(kill.starts_with("endpoint=127.0.0.1:"), "{kill}");
    let killed = demo.cli(["kill", &kill]);
    assert!(killed.success() && killed.stdout.contains("killed"), "{killed:?}");
}

/// What a command says that stands in the introduction of `demo`, run as it is in the demo's folder.
fn run(demo: &Tieline, command: &str) -> String {
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).current_dir(demo.directory()).env("PGCONNECT_TIMEOUT", "30");
    finish(&mut shell).expect(command)
}

#[test]
fn its_database_is_a_real_one_that_many_share() {
    let demo = Tieline::demo(&[]);
    // It is ready before it has told all of it.
    assert!(wait_until(PATIENCE, || demo.log().contains("Ctrl-C drains.")), "{}", demo.log());
    let told = demo.log();
    let commands: Vec<&str> =
        told.lines().map(str::trim).filter(|line| line.starts_with("psql postgresql://")).collect();
    let [table, pools] = commands[..] else { panic!("{told}") };
    let table = run(&demo, table);
    assert!(table.contains("tea") && table.contains("milk") && table.contains("(3 rows)"), "{table}");
    // Twenty clients share four servers, and all of them get something done.
    let address = demo.listener_address("db");
    let orders =
        format!("psql -At postgresql://ana:demo@{address}/shop -c 'select count(*) > 40 from orders'");
    assert!(wait_until(PATIENCE, || run(&demo, &orders).trim() == "t"));
    // One that was closed and replaced is listed until its process has ended.
    let servers = "select count(*) between 1 and 4 from pg_stat_activity where usename = 'shop'";
    let servers = format!("psql -At postgresql://ana:demo@{address}/shop -c \"{servers}\"");
    assert!(wait_until(PATIENCE, || run(&demo, &servers).trim() == "t"));
    let shown = run(&demo, pools);
    assert!(
        shown.contains("cl_active") && shown.contains("shop") && shown.contains("transaction"),
        "{shown}"
    );
    let ls = || demo.cli(["ls", "listener=db"]).expect("ls");
    // The one or the other pauses for a second before it comes again.
    assert!(wait_until(PATIENCE, || ls().lines().count() > 20 && ls().contains("shop-db")), "{}", ls());
}

#[test]
fn its_database_goes_with_it() {
    let mut demo = Tieline::demo(&["--quiet"]);
    let config = std::fs::read_to_string(demo.directory().join("tieline-data/demo.toml")).unwrap();
    let socket = config.split("\"unix:").nth(1).and_then(|rest| rest.split('"').next()).unwrap().to_owned();
    let folder = std::path::Path::new(&socket).parent().unwrap();
    assert!(wait_until(PATIENCE, || folder.join(".s.PGSQL.5432").exists()));
    assert!(demo.stop().success());
    assert!(!folder.exists());
}

#[test]
fn its_far_site_dials_in_and_support_staff_reach_it() {
    let demo = Tieline::demo(&[]);
    assert!(wait_until(PATIENCE, || demo.log().contains("Ctrl-C drains.")), "{}", demo.log());
    let linked =
        || demo.cli(["agents"]).stdout.contains("plant-7") && demo.cli(["agents"]).stdout.contains("linked");
    assert!(wait_until(PATIENCE, linked), "{}", demo.log());
    let reading = || {
        let stream = TcpStream::connect(demo.listener_address("site")).unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).is_ok() && line.starts_with("plant-7: ")
    };
    assert!(wait_until(PATIENCE, reading));
    // As it is shown, with this binary; until the first reading.
    let told = demo.log();
    let line = |begins: &str| {
        let found = told.lines().map(str::trim).find(|line| line.starts_with(begins));
        found.unwrap_or_else(|| panic!("{told}")).split("   ").next().unwrap().to_owned()
    };
    let binary = Tieline::binary();
    let commands = format!(
        "tieline() {{ {} \"$@\"; }}\n{}\n{} | head -n 1",
        binary.display(),
        line("export TIELINE_TOKEN="),
        line("tieline connect")
    );
    assert!(run(&demo, &commands).starts_with("plant-7: "));
    // Whoever is cut off comes back.
    assert!(demo.cli(["kill", &shown(&demo, "tieline kill ")[1][0]]).success());
    assert!(wait_until(PATIENCE, reading));
}

#[test]
fn its_config_is_one_that_can_be_copied() {
    let demo = Tieline::demo(&["--quiet"]);
    let checked = demo.cli(["check", "-c", "tieline-data/demo.toml"]);
    assert!(checked.success(), "{checked:?}");
}
