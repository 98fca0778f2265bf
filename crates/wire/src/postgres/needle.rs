//! A first look at SQL: whether a text that seems to read or write rows has anything in it that could be
//! more.

/// How many places are looked at together: what the smallest vectors of today's processors hold.
const TOGETHER: usize = 16;

/// Those, and what a needle at the last of them may reach.
type Window = [u8; TOGETHER + 3];

/// Whether `bytes` have the beginning of a word that matters (`advisory`, `temp`, `set_config`, `setseed`,
/// `pg_settings`, `lastval`, `currval`, `backup`, `dblink`, `replication_slot`, `replication_origin`), the
/// end of a statement, or a name that is spelled with escapes.
pub(super) fn has_needle(bytes: &[u8]) -> bool {
    let found =
        |window: &Window| may_have_rare(window) && may_have_needle(window) && window_has_needle(window);
    let mut rest = bytes;
    while let Some(window) = rest.first_chunk() {
        if found(window) {
            return true;
        }
        rest = &rest[TOGETHER..];
    }
    // What is left may reach beyond the places of one window; blanks behind the end are no part of anything.
    let mut last = [b' '; 2 * TOGETHER + 3];
    last[..rest.len()].copy_from_slice(rest);
    let mut windows = &last[..rest.len().next_multiple_of(TOGETHER) + 3];
    while let Some(window) = windows.first_chunk() {
        if found(window) {
            return true;
        }
        windows = &windows[TOGETHER..];
    }
    false
}

fn window_has_needle(window: &Window) -> bool {
    (0..TOGETHER).any(|at| {
        let [a, b, c, d] = [0, 1, 2, 3].map(|behind| window[at + behind] | 0x20);
        // In lower case an underline is 0x7f.
        let set = [a, b, c] == *b"set" && matches!(d, 0x7f | b's' | b't');
        set || matches!(&[a, b, c, d], b"temp" | b"dvis" | b"stva" | b"rrva" | b"ckup" | b"dbli")
            || matches!(&[a, b, c, d], b"n\x7fsl" | b"n\x7for")
            || [a, b] == *b"&\""
            || a == b';'
    })
}

/// A first look, at what is rare and what every needle has: an end, an escape, a `v`, an `et` or `em`, a
/// `ku`, a `db`, an `n_`. Written without branches and the same for all places, so that the compiler makes a
/// few steps of it for all of them at once.
#[inline]
fn may_have_rare(window: &Window) -> bool {
    let mut found = 0;
    for at in 0..TOGETHER {
        let [a, b, c] = [window[at] | 0x20, window[at + 1] | 0x20, window[at + 2] | 0x20];
        let is = |byte: u8, wanted: u8| u8::from(byte == wanted);
        found |= is(a, b';') | is(a, b'&') | is(b, b'v') | is(c, b'v');
        found |= is(b, b'e') & (is(c, b't') | is(c, b'm'));
        found |= is(b, b'k') & is(c, b'u') | is(a, b'd') & is(b, b'b') | is(a, b'n') & is(b, 0x7f);
    }
    found != 0
}

/// A second look, for the few that are left: false only where there is no needle. Written the same way.
#[inline]
fn may_have_needle(window: &Window) -> bool {
    let mut found = 0;
    for at in 0..TOGETHER {
        let [a, b, c] = [window[at] | 0x20, window[at + 1] | 0x20, window[at + 2] | 0x20];
        let is = |byte: u8, wanted: u8| u8::from(byte == wanted);
        let (set, temp) = (is(a, b's') & is(c, b't'), is(a, b't') & is(c, b'm'));
        let advisory = is(a, b'd') & is(b, b'v') & is(c, b'i');
        let (last, current) = (is(a, b's') & is(b, b't'), is(a, b'r') & is(b, b'r'));
        let escaped = is(a, b'&') & is(b, b'"');
        found |= (set | temp) & is(b, b'e') | advisory | (last | current) & is(c, b'v') | escaped;
        let (backup, link) =
            (is(a, b'c') & is(b, b'k') & is(c, b'u'), is(a, b'd') & is(b, b'b') & is(c, b'l'));
        let of_replication = is(a, b'n') & is(b, 0x7f) & (is(c, b's') | is(c, b'o'));
        found |= is(a, b';') | backup | link | of_replication;
    }
    found != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_stands_at_the_very_end_is_seen() {
        for blanks in 0..3 * TOGETHER {
            for needle in [";", "&\"", "sets", "temp", "ckup", "DBLI", "N_SL", "n_or"] {
                assert!(
                    has_needle(format!("{}{needle}", "x".repeat(blanks)).as_bytes()),
                    "{needle} at {blanks}"
                );
            }
        }
    }

    proptest! {
        /// The look at many places at once misses nothing that the look at each would see.
        #[test]
        fn the_quick_look_misses_nothing(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "set", "SET_", "tem", "temp", "TEMP", "ad", "vis", "lastv", "al", "curr", "&", "\"", ";",
                    "back", "up", "DBL", "link", "n", "_", "slot", "or",
                    " ", "s", "e", "t", "é", "_", "abcdefg",
                ]),
                0..12,
            ),
        ) {
            let text = parts.concat();
            let blank = [text.as_bytes(), &[b' '; 2 * TOGETHER]].concat();
            let mut windows = blank.windows(TOGETHER + 3).filter_map(|window| window.first_chunk());
            let each = windows.any(window_has_needle);
            prop_assert_eq!(has_needle(text.as_bytes()), each, "{}", text);
        }
    }
}
