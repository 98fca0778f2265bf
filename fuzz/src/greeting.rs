//! What servers answer health probes with.

use tieline_wire::greeting::{Probe, Step};

/// The first byte chooses the probe, the second how the answer is cut, the rest is the answer. The verdict
/// does not depend on the cut, and no server can write a control character into our log or our request.
pub fn greeting(data: &[u8]) {
    let Some((&[choice, cut], reply)) = data.split_first_chunk() else { return };
    let probe = match choice % 5 {
        0 => Probe::Postgres,
        1 => Probe::MySql,
        2 => Probe::Redis,
        3 => Probe::Http { path: "/healthz".into(), host: "localhost".into() },
        _ => return request_is_sound(&String::from_utf8_lossy(reply)),
    };
    let whole = verdict(&probe, reply, reply.len());
    let pieces = verdict(&probe, reply, usize::from(cut));
    assert_eq!(whole, pieces, "{probe:?} cut by {cut}");
}

/// `None` while undecided.
fn verdict(probe: &Probe, reply: &[u8], cut: usize) -> Option<bool> {
    let mut conversation = probe.start()?;
    for piece in reply.chunks(cut.max(1)) {
        match conversation.on_bytes(piece) {
            Step::NeedMore => {}
            Step::Send(bytes) => assert!(bytes.len() <= 64 * 1024, "an answer of {} bytes", bytes.len()),
            Step::Healthy => return Some(true),
            Step::Unhealthy(why) => {
                assert!(!why.contains(char::is_control) && why.len() < 1000, "{why:?}");
                return Some(false);
            }
        }
    }
    None
}

/// Whatever the config says, the request is one head of five fields' lines and nothing behind it.
fn request_is_sound(text: &str) {
    let (path, host) = text.split_at(text.floor_char_boundary(text.len() / 2));
    let probe = Probe::Http { path: path.into(), host: host.into() };
    let first = probe.start().map(|conversation| conversation.first().to_vec()).unwrap_or_default();
    let first = String::from_utf8(first).expect("the request is ASCII");
    assert!(first.is_ascii() && first.ends_with("\r\n\r\n"), "{first:?}");
    assert_eq!(first.matches(['\r', '\n']).count(), 2 * 6, "{first:?}");
    assert_eq!(first.lines().next().map(|line| line.split(' ').count()), Some(3), "{first:?}");
}
