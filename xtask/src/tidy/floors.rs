//! A crate may depend only on lower floors, never on its own.

use serde_json::Value;

use crate::metadata::{list, text};
use crate::problem::Problem;

/// The floor of every package that ships (docs/tour.md draws them).
const FLOORS: [(&str, u8); 17] = [
    ("tieline-base", 0),
    ("tieline-config", 1),
    ("tieline-openapi", 1),
    ("tieline-policy", 1),
    ("tieline-registry", 1),
    ("tieline-wire", 1),
    ("tieline-transport", 2),
    ("tieline-pool", 3),
    ("tieline-conn", 4),
    ("tieline-http", 5),
    ("tieline-mysql", 5),
    ("tieline-postgres", 5),
    ("tieline-relay", 5),
    ("tieline-tunnel", 5),
    ("tieline-wireguard", 5),
    ("tieline-control", 6),
    ("tieline", 7),
];

/// What ships with nobody may use anything, and nothing that ships may use it outside its tests.
const UNSHIPPED: [&str; 4] = ["tieline-bench", "tieline-fuzz", "tieline-testkit", "xtask"];

/// Floors below this one are pure: neither a runtime nor sockets.
const FIRST_WITH_IO: u8 = 2;
const RUNTIMES: [&str; 4] = ["tokio", "hyper", "axum", "socket2"];

pub(super) fn check(metadata: &Value) -> Vec<Problem> {
    list(metadata, "packages").flat_map(check_package).collect()
}

fn check_package(package: &Value) -> Vec<Problem> {
    let name = text(package, "name");
    let manifest = format!("package {name}");
    if UNSHIPPED.contains(&name) {
        return Vec::new();
    }
    let Some(own) = floor(name) else {
        return vec![Problem::of(&manifest, "has no floor; give it one in xtask/src/tidy/floors.rs")];
    };
    let wrong = list(package, "dependencies").filter_map(|dependency| wrong_arrow(own, dependency));
    wrong.map(|message| Problem::of(&manifest, message)).collect()
}

/// What is wrong with one dependency of a package on floor `own`.
fn wrong_arrow(own: u8, dependency: &Value) -> Option<String> {
    let name = text(dependency, "name");
    let for_tests = text(dependency, "kind") == "dev";
    if UNSHIPPED.contains(&name) {
        let allowed = for_tests && name == "tieline-testkit";
        return (!allowed).then(|| format!("uses {name}, which does not ship"));
    }
    if own < FIRST_WITH_IO && RUNTIMES.contains(&name) && !for_tests {
        return Some(format!("is on floor {own}, which is pure, and uses {name}"));
    }
    let theirs = floor(name)?;
    (theirs >= own).then(|| format!("is on floor {own} and uses {name} on floor {theirs}; arrows point down"))
}

fn floor(package: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == package).map(|(_, floor)| *floor)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn arrows_point_down() {
        let uses = |package: &str, dependency: &str, kind: Option<&str>| {
            let dependency = json!({ "name": dependency, "kind": kind });
            super::check(&json!({ "packages": [{ "name": package, "dependencies": [dependency] }] })).len()
        };
        assert_eq!(uses("tieline-conn", "tieline-pool", None), 0);
        assert_eq!(uses("tieline-pool", "tieline-conn", None), 1);
        assert_eq!(uses("tieline-wire", "tieline-config", None), 1);
        assert_eq!(uses("tieline-wire", "tieline-config", Some("build")), 1);
        assert_eq!(uses("tieline-relay", "tieline-http", Some("dev")), 1);
        assert_eq!(uses("tieline-wire", "tieline-testkit", Some("dev")), 0);
        assert_eq!(uses("tieline-wire", "tieline-testkit", None), 1);
        assert_eq!(uses("tieline-wire", "tokio", None), 1);
        assert_eq!(uses("tieline-wire", "socket2", Some("dev")), 0);
        assert_eq!(uses("tieline-transport", "tokio", None), 0);
        assert_eq!(uses("tieline-new", "serde", None), 1);
        assert_eq!(uses("xtask", "tieline-config", None), 0);
    }
}
