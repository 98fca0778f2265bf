//! Ending connections by a filter.

use std::time::Duration;

use anyhow::ensure;
use tieline_base::Clock;

use super::managed::{self, Site};
use crate::arguments::Options;
use crate::backend::Echo;
use crate::crowd::Crowd;
use crate::table::{JUDGED, Table, Verdict};

const DOOMED: usize = 5_000;
const OTHERS: usize = 1_000;
const BAR: Duration = Duration::from_secs(1);

pub(crate) fn run(arguments: &Options) -> anyhow::Result<Vec<Table>> {
    let echo = Echo::start(2)?;
    let sites = [Site::new("doomed", &echo.addresses()[..1]), Site::new("other", &echo.addresses()[1..])];
    let tieline = managed::start(&sites)?;
    let mut doomed = Crowd::gather(sites[0].bind, arguments.amount(DOOMED))?;
    let mut others = Crowd::gather(sites[1].bind, arguments.amount(OTHERS))?;
    let metrics = tieline.metrics();

    let begin = Clock::now();
    let said = tieline.cli(["kill", "listener=doomed"]);
    let reported = Clock::now().since(begin);
    ensure!(said.success(), "tieline kill: {}", said.stderr);
    doomed.wait_all_ended(BAR * 10);
    let ended = Clock::now().since(begin);

    let title = format!(
        "tieline kill listener=doomed, {} of {} connections",
        doomed.size(),
        doomed.size() + others.size()
    );
    let mut table = Table::new(title, &JUDGED);
    table.judge(
        "reported",
        format!("{:.2} s", reported.as_secs_f64()),
        "< 1 s",
        Verdict::holds(reported < BAR),
    );
    let all = doomed.ended() == doomed.size();
    let figure = format!("{} in {:.2} s", doomed.ended(), ended.as_secs_f64());
    table.judge("ended, as the clients see it", figure, "all, < 1 s", Verdict::holds(all && ended < BAR));
    let reasons = managed::reasons_since(&metrics, &tieline.metrics());
    let one_reason = reasons == [("killed".to_owned(), doomed.size() as u64)];
    table.judge("their reason", managed::in_words(&reasons), "killed", Verdict::holds(one_reason));
    let (gone, wrong) = (others.ended(), others.wrong_echoes(0, 1));
    let untouched = Verdict::holds(gone == 0 && wrong == 0);
    table.judge("the others: ended, wrong echoes", format!("{gone}, {wrong}"), "0, 0", untouched);
    Ok(vec![table])
}
