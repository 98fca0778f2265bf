//! Verbs that need no server: they read the config's description of itself.

use std::process::ExitCode;

use tieline_config::{Checked, Config};

use crate::apis::Apis;
use crate::args::ConfigArgs;
use crate::logging::{print, say};

/// `tieline check`: every problem at once.
pub(crate) fn check(args: &ConfigArgs) -> ExitCode {
    let file = args.config.display();
    let apis = |checked: &Checked| Apis::load(&checked.config.live, &Apis::default());
    match Config::load(&args.config) {
        Ok(checked) if let Err(lines) = apis(&checked) => {
            checked.warnings.iter().for_each(|warning| say(&warning.to_string()));
            lines.iter().for_each(|line| say(line));
            ExitCode::FAILURE
        }
        Ok(checked) => {
            checked.warnings.iter().for_each(|warning| say(&warning.to_string()));
            let live = &checked.config.live;
            let routes: usize = live.listeners.iter().map(|listener| listener.routes.len()).sum();
            let risks = match checked.warnings.len() {
                0 => String::new(),
                1 => "; 1 warning".into(),
                many => format!("; {many} warnings"),
            };
            let (listeners, upstreams) = (live.listeners.len(), live.upstreams.len());
            print(&format!(
                "{file}: good: {listeners} listeners, {routes} routes, {upstreams} upstreams{risks}\n"
            ));
            ExitCode::SUCCESS
        }
        Err(problems) => {
            problems.iter().for_each(|problem| say(&problem.to_string()));
            ExitCode::FAILURE
        }
    }
}

/// `tieline explain`: what a key means.
pub(crate) fn explain(key: Option<&str>) -> ExitCode {
    let Some(key) = key else {
        print(&tieline_config::reference());
        return ExitCode::SUCCESS;
    };
    match tieline_config::explain(key) {
        Ok(text) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Err(unknown) => {
            say(&format!("tieline: {unknown}"));
            ExitCode::FAILURE
        }
    }
}

/// `tieline schema`: for editors.
pub(crate) fn schema() -> ExitCode {
    print(&format!("{:#}\n", tieline_config::schema()));
    ExitCode::SUCCESS
}
