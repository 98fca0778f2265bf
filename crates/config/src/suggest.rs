//! "Did you mean": the known name nearest to a mistyped one.

/// `did you mean "shop"?`, if one of `known` is near enough to `written` to have been meant.
pub(crate) fn did_you_mean<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(written, known).map(|name| format!("did you mean \"{name}\"?"))
}

/// What follows a message to give its hint, if it has one.
pub(crate) fn tail(hint: &Option<String>) -> String {
    hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default()
}

/// The longest name worth comparing: the distance costs the product of both lengths.
const COMPARED_MAX: usize = 64;

/// The shortest name worth offering: two letters are near to everything.
const OFFERED_MIN: usize = 3;

/// The one of `known` nearest to `written`, at most a third of its letters away, and more alike than not.
pub(crate) fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if written.len() > COMPARED_MAX {
        return None;
    }
    let written = written.to_lowercase();
    let allowed = (written.chars().count() / 3).max(1);
    known
        .into_iter()
        .filter(|name| {
            name.len().abs_diff(written.len()) <= allowed
                && (OFFERED_MIN..=COMPARED_MAX).contains(&name.len())
        })
        .map(|name| (strsim::osa_distance(&written, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= allowed && *distance * 2 <= name.chars().count())
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant_and_nothing_else() {
        assert_eq!(nearest("shopp", ["shop", "orders"]), Some("shop"));
        assert_eq!(nearest("idel", ["idle", "max_age"]), Some("idle"));
        assert_eq!(nearest("TCP", ["tcp", "udp"]), Some("tcp"));
        assert_eq!(nearest("postgres", ["shop", "orders"]), None);
        assert_eq!(nearest("of", ["off", "syslog"]), Some("off"));
        assert_eq!(nearest("v3", ["v1", "v2"]), None);
        assert_eq!(nearest(&"x".repeat(65), [&*"x".repeat(65)]), None);
    }
}
