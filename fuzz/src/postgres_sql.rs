//! What SQL may leave behind in its session.

use tieline_wire::postgres::sql::{Scan, Suspicion, suspect};

/// How the text was cut changes nothing; the first look clears nothing that a whole look would suspect; what
/// stands in a quote or a comment leaves nothing behind.
pub fn postgres_sql(data: &[u8]) {
    let whole = scanned([data]);
    for cut in [1, data.len() / 3, data.len() / 2] {
        let (one, other) = data.split_at(cut.min(data.len()));
        assert_eq!(scanned([one, other]), whole);
    }
    assert_eq!(scanned(data.chunks(1)), whole);
    // Where a whole look suspects all there is, it is not sure, or has seen EXECUTE, which is part of nothing
    // that the first look clears.
    let unsure = if has_all(whole) { Suspicion::ALL | Suspicion::UNSEEN } else { Suspicion::NONE };
    let missed = whole.without(unsure).without(suspect(data));
    assert!(missed.is_none(), "{missed:?} was missed");
    is_nothing_in(data, b"$fuzz$", b"$fuzz$", |data| !contains(data, b"$fuzz$") && !data.ends_with(b"$fuzz"));
    is_nothing_in(data, b"'", b"'", |data| !data.contains(&b'\'') && !data.contains(&b'\\'));
    is_nothing_in(data, b"/*", b"*/", |data| !data.contains(&b'/') && !data.contains(&b'*'));
    is_nothing_in(data, b"--", b"\n", |data| !data.contains(&b'\n') && !data.contains(&b'\r'));
}

fn scanned<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> Suspicion {
    let mut scan = Scan::default();
    pieces.into_iter().for_each(|piece| scan.feed(piece));
    scan.finish()
}

fn has_all(found: Suspicion) -> bool {
    Suspicion::ALL.without(found).is_none()
}

fn contains(data: &[u8], part: &[u8]) -> bool {
    data.windows(part.len()).any(|window| window == part)
}

/// What is `fit` to stand between `begin` and `end` is no more than that there.
fn is_nothing_in(data: &[u8], begin: &[u8], end: &[u8], fit: impl Fn(&[u8]) -> bool) {
    if fit(data) {
        let text = [b"select 1 as it, ", begin, data, end, b" + 1"].concat();
        assert_eq!(scanned([&text[..]]), Suspicion::NONE, "{:?}", String::from_utf8_lossy(&text));
    }
}
