//! The `options` of a startup packet: the command line of a server, of which settings are of interest.

/// A setting, and its value; neither need be UTF-8.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setting {
    /// Its name, as the client writes it.
    pub name: Box<[u8]>,
    /// Its value.
    pub value: Box<[u8]>,
}

/// Reads `-c name=value`, `-cname=value`, `--name=value`, and the flags that stand for settings of a session
/// (`-d`, `-e`, `-f`, `-O`, `-S`, `-s`, `-t`).
///
/// # Errors
/// The argument that is none of these, for people: flags of a server's process that no session has.
pub fn parse(text: &[u8]) -> Result<Vec<Setting>, String> {
    let mut words = words(text).into_iter();
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        let read = match &*word {
            [b'-', b'-', assigned @ ..] => setting(assigned).map(|setting| settings.push(setting)),
            [b'-', flags @ ..] if !flags.is_empty() => read_flags(flags, &mut words, &mut settings),
            _ => None,
        };
        read.ok_or_else(|| told(&word))?;
    }
    Ok(settings)
}

/// Reads what stands behind a hyphen as `getopt` does: flags, the last of which may have a value, there or in
/// the next word. `None`: one of them is none of a session.
fn read_flags(
    mut flags: &[u8],
    words: &mut impl Iterator<Item = Vec<u8>>,
    settings: &mut Vec<Setting>,
) -> Option<()> {
    let plain = |name: &[u8], value: &[u8]| Setting { name: name.into(), value: value.into() };
    while let Some((flag, behind)) = flags.split_first() {
        match flag {
            b'e' => settings.push(plain(b"datestyle", b"euro")),
            b's' => settings.push(plain(b"log_statement_stats", b"true")),
            b'O' => settings.push(plain(b"allow_system_table_mods", b"true")),
            b'c' | b'd' | b'f' | b'S' | b't' => {
                let value = if behind.is_empty() { words.next()? } else { behind.to_vec() };
                match flag {
                    b'c' => settings.push(setting(&value)?),
                    b'd' => debugs(&value, settings)?,
                    b'S' => settings.push(plain(b"work_mem", &value)),
                    b'f' => settings.push(plain(does_without(&value)?, b"false")),
                    _ => settings.push(plain(tells_of(&value)?, b"true")),
                }
                return Some(());
            }
            _ => return None,
        }
        flags = behind;
    }
    Some(())
}

/// PostgreSQL's `set_debug_options`: how much is said of what is done.
fn debugs(value: &[u8], settings: &mut Vec<Setting>) -> Option<()> {
    let level: u8 = std::str::from_utf8(value).ok()?.parse().ok()?;
    let least = if level == 0 { b"notice".to_vec() } else { format!("debug{level}").into_bytes() };
    let mut push = |name: &[u8], value: &[u8]| {
        settings.push(Setting { name: name.into(), value: value.into() });
    };
    push(b"log_min_messages", &least);
    let more: [(u8, &[u8], &[u8]); 4] = [
        (2, b"log_statement", b"all"),
        (3, b"debug_print_parse", b"true"),
        (4, b"debug_print_plan", b"true"),
        (5, b"debug_print_rewritten", b"true"),
    ];
    more.iter().filter(|(from, ..)| level >= *from).for_each(|(_, name, value)| push(name, value));
    Some(())
}

/// PostgreSQL's `set_plan_disabling_options`.
fn does_without(kind: &[u8]) -> Option<&'static [u8]> {
    Some(match kind {
        b"s" => b"enable_seqscan",
        b"i" => b"enable_indexscan",
        b"o" => b"enable_indexonlyscan",
        b"b" => b"enable_bitmapscan",
        b"t" => b"enable_tidscan",
        b"n" => b"enable_nestloop",
        b"m" => b"enable_mergejoin",
        b"h" => b"enable_hashjoin",
        _ => return None,
    })
}

/// PostgreSQL's `get_stats_option_name`.
fn tells_of(what: &[u8]) -> Option<&'static [u8]> {
    Some(match what {
        [b'p', b'a', ..] => b"log_parser_stats",
        [b'p', b'l', ..] => b"log_planner_stats",
        [b'e', ..] => b"log_executor_stats",
        _ => return None,
    })
}

fn setting(assigned: &[u8]) -> Option<Setting> {
    let equals = assigned.iter().position(|byte| *byte == b'=').filter(|at| *at > 0)?;
    // On a command line a hyphen is an underscore.
    let name = assigned[..equals].iter().map(|byte| if *byte == b'-' { b'_' } else { *byte }).collect();
    Some(Setting { name, value: assigned[equals + 1..].into() })
}

fn told(word: &[u8]) -> String {
    String::from_utf8_lossy(word).chars().filter(|c| !c.is_control()).take(64).collect()
}

/// The words of a text, as `pg_split_opts` has it: divided by white space, any character behind a backslash
/// taken as it is.
fn words(text: &[u8]) -> Vec<Vec<u8>> {
    let mut words: Vec<Vec<u8>> = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' | b'\x0b' | b'\x0c' => words.extend(word.take()),
            // A backslash at the very end stands for nothing.
            b'\\' => word.get_or_insert_default().extend(bytes.next()),
            byte => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::{Setting, parse};
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Vec<(String, String)>, String> {
        let text_of = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let pair = |setting: &Setting| (text_of(&setting.name), text_of(&setting.value));
        parse(text.as_bytes()).map(|settings| settings.iter().map(pair).collect())
    }

    #[test]
    fn settings_are_read_in_every_form() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let all = "-c geqo=off --statement-timeout=5min  -cwork_mem=1MB";
        let expected = [pair("geqo", "off"), pair("statement_timeout", "5min"), pair("work_mem", "1MB")];
        assert_eq!(read(all).unwrap(), expected);
        let escaped = r#"-c search_path=\"a\\b\",\ public -c x=\="#;
        assert_eq!(read(escaped).unwrap(), [pair("search_path", "\"a\\b\", public"), pair("x", "=")]);
        assert_eq!(read("-c x=").unwrap(), [pair("x", "")]);
        assert_eq!(read(" \t").unwrap(), []);
        assert_eq!(read("\\").unwrap_err(), "", "an empty word is no setting");
    }

    #[test]
    fn flags_that_stand_for_settings_are_those() {
        for (text, expected) in [
            ("-fs", "enable_seqscan=false"),
            ("-f m -eS 64", "enable_mergejoin=false datestyle=euro work_mem=64"),
            ("-S64kB", "work_mem=64kB"),
            ("-d 0", "log_min_messages=notice"),
            ("-d3", "log_min_messages=debug3 log_statement=all debug_print_parse=true"),
            ("-tpl -s -O", "log_planner_stats=true log_statement_stats=true allow_system_table_mods=true"),
        ] {
            let read = read(text).unwrap();
            let all: Vec<_> = read.iter().map(|(name, value)| format!("{name}={value}")).collect();
            assert_eq!(all.join(" "), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_setting_is_told() {
        for (text, word) in [
            ("-B 10", "-B"),
            ("-c", "-c"),
            ("-c geqo", "-c"),
            ("x=1", "x=1"),
            ("--=1", "--=1"),
            ("-", "-"),
            ("-fx", "-fx"),
            ("-eB9", "-eB9"),
            ("-t x", "-t"),
        ] {
            assert_eq!(read(text).unwrap_err(), word, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_escaped_is_read_as_it_was(name in "[a-z_]{1,8}", value in "[ -~]{0,20}") {
            let escaped: String = value.chars().flat_map(|c| ['\\', c]).collect();
            prop_assert_eq!(read(&format!("-c {name}={escaped}")).unwrap(), [(name, value)]);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse(&bytes);
        }
    }
}
