//! Requests to a backend that closes connections at rest, just when they are wanted again.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::fickle::Fickle;
use super::message::{content_length, head_length, status};
use crate::arguments::Options;
use crate::product::{Product, Proxy, Traffic};
use crate::table::{JUDGED, Table, Verdict};

const REQUESTS: usize = 200_000;
/// Requests at once, which leave as many connections to the backend at rest.
const WAVE: usize = 1_000;
/// No answer takes longer unless the proxy is stuck.
const STUCK: Duration = Duration::from_secs(20);

pub(crate) fn run(options: &Options) -> anyhow::Result<Vec<Table>> {
    let waves = options.amount(REQUESTS) / WAVE;
    let title = format!(
        "GET and POST while the backend closes connections after 1 s at rest ({} requests, {WAVE} at once)",
        waves * WAVE
    );
    let mut table = Table::new(title, &JUDGED);
    for product in options.products() {
        let fickle = Fickle::start()?;
        let proxy = Proxy::start(product, Traffic::Http, &[fickle.address()])?;
        let failures = send_waves(proxy.address(), waves)?;
        let failed: usize = failures.values().sum();
        let ours = product == Product::Tieline;
        let (bar, verdict) = if ours { ("0", Verdict::holds(failed == 0)) } else { ("", Verdict::None) };
        table.judge(&format!("{}: not 200", product.name()), in_words(failed, &failures), bar, verdict);
        let (closed, crossed) = fickle.closed();
        let what = format!("{}: closed at rest; a request had just arrived", product.name());
        table.judge(&what, format!("{closed}; {crossed}"), "", Verdict::None);
    }
    Ok(vec![table])
}

/// Sends `waves` of requests, with gaps between them; what went wrong, and how often.
fn send_waves(proxy: SocketAddr, waves: usize) -> io::Result<BTreeMap<String, usize>> {
    let (mut random, mut failures) = (Random(0x9E37_79B9_7F4A_7C15), BTreeMap::new());
    let mut clients: Vec<Option<TcpStream>> = (0..WAVE).map(|_| None).collect();
    for _ in 0..waves {
        for client in &mut clients {
            if client.is_none() {
                let connection = TcpStream::connect(proxy)?;
                connection.set_read_timeout(Some(STUCK))?;
                *client = Some(connection);
            }
        }
        std::thread::sleep(gap(&mut random));
        let sent: Vec<io::Result<()>> =
            clients.iter_mut().flatten().map(|client| client.write_all(request(&mut random))).collect();
        for (client, sent) in clients.iter_mut().zip(sent) {
            let Some(connection) = client.as_mut() else { continue };
            let said = sent.and_then(|()| answer(connection)).unwrap_or_else(|error| error.to_string());
            if said != "200" {
                *failures.entry(said).or_default() += 1;
                *client = None;
            }
        }
    }
    Ok(failures)
}

/// The status of the answer, read whole.
fn answer(connection: &mut TcpStream) -> io::Result<String> {
    let (mut bytes, mut place) = (Vec::new(), [0; 4096]);
    loop {
        let length = connection.read(&mut place)?;
        if length == 0 {
            return Err(io::Error::other("closed without an answer"));
        }
        bytes.extend_from_slice(&place[..length]);
        let Some(head) = head_length(&bytes) else { continue };
        let body = content_length(&bytes[..head]).unwrap_or(0);
        if bytes.len() >= head + body {
            return Ok(status(&bytes).map_or("no status".to_owned(), |status| status.to_string()));
        }
    }
}

fn request(random: &mut Random) -> &'static [u8] {
    if random.below(2) == 0 {
        b"GET / HTTP/1.1\r\nHost: bench.test\r\n\r\n"
    } else {
        b"POST / HTTP/1.1\r\nHost: bench.test\r\nContent-Length: 8\r\n\r\n12345678"
    }
}

/// Mostly about as long as the backend lets a connection rest; at times shorter or longer. What a connection
/// has rested is some 40 ms more: the wave itself takes that long.
fn gap(random: &mut Random) -> Duration {
    Duration::from_millis(match random.below(10) {
        0 | 1 => random.below(900),
        2 => 1_050 + random.below(200),
        _ => 930 + random.below(90),
    })
}

fn in_words(failed: usize, failures: &BTreeMap<String, usize>) -> String {
    let words: Vec<String> = failures.iter().map(|(what, count)| format!("{what}: {count}")).collect();
    if words.is_empty() { failed.to_string() } else { format!("{failed} ({})", words.join(", ")) }
}

/// xorshift64: the same gaps in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[cfg(test)]
mod tests {
    use super::{Random, gap, send_waves};
    use crate::http::fickle::Fickle;

    #[test]
    fn most_gaps_are_about_a_second() {
        let mut random = Random(1);
        let gaps: Vec<u128> = (0..1_000).map(|_| gap(&mut random).as_millis()).collect();
        let near = gaps.iter().filter(|gap| (930..1_020).contains(*gap)).count();
        assert!((600..800).contains(&near), "{near} of 1,000");
    }

    #[test]
    fn without_a_proxy_the_closes_are_seen_and_counted() {
        let fickle = Fickle::start().unwrap();
        let failures = send_waves(fickle.address(), 3).unwrap();
        let failed: usize = failures.values().sum();
        assert!(failed > 0 && failed < 3_000, "{failures:?}");
    }
}
