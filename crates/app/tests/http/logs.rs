//! What of a listener goes to the access log.

use serde_json::Value;
use tieline_testkit::{PATIENCE, wait_for};

use crate::origin::Origin;
use crate::site::{HTTP, Site, request};
use crate::support::OneRoute;

/// The line about the connection, after `requests` on it to a listener that says `listener` of its log.
fn lines_after(requests: usize, listener: &str, expected: usize) -> Vec<Value> {
    let origin = Origin::saying("ok");
    let config = OneRoute { listener, ..HTTP };
    let mut site = Site::start(&config.to(&[origin.address()]));
    let mut client = site.connect();
    for _ in 0..requests {
        assert_eq!(client.ask(&request("/", &[])).text(), "ok");
    }
    drop(client);
    let lines = wait_for(PATIENCE, || Some(site.log_lines()).filter(|lines| lines.len() == expected));
    assert!(lines.is_some(), "{:#?}", site.log_lines());
    // What was to come has come by the time that it has stopped.
    site.tieline.stop();
    site.log_lines()
}

#[test]
fn a_listener_logs_its_exchanges_or_its_connections_or_nothing() {
    let each = lines_after(3, "", 3);
    assert!(
        each.iter().all(|line| line["status"] == 200 && line["bytes_down"].as_u64() > Some(2)),
        "{each:#?}"
    );
    let whole = lines_after(3, "access_log = \"connections\"", 1);
    let [line] = &whole[..] else { panic!("{whole:#?}") };
    assert_eq!(line["reason"], "client-closed");
    assert!(line["bytes_down"].as_u64() > each[0]["bytes_down"].as_u64(), "{whole:#?}");
    assert_eq!(lines_after(3, "access_log = \"off\"", 0), Vec::<Value>::new());
}
