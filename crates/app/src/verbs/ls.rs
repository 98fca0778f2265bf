//! `tieline ls`.

use std::borrow::Cow;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use hyper::body::Bytes as Body;
use serde::Deserialize;
use serde_json::value::RawValue;
use tieline_base::Bytes;

use super::client::{Client, segment};
use super::orders::{filter, filter_of};
use super::target::Target;
use super::text::{Span, printable};

/// Which connections, and how to print them.
#[derive(Args, Debug)]
pub(crate) struct LsArgs {
    /// Conditions like `listener=web`, `age>1h` or a connection's id; all must hold
    #[arg(value_name = "FILTER", value_parser = filter)]
    filters: Vec<String>,
    /// Those that have ended and are remembered, the latest first
    #[arg(long)]
    finished: bool,
    /// At most so many
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
    /// Print a JSON array, a connection on each line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) target: Target,
}

/// As many as one answer may have without taking the server long.
const PAGE_ROWS: usize = 20_000;

/// A page whose rows nobody has looked at yet.
#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    connections: &'a RawValue,
    next: Option<String>,
    total: usize,
}

/// What the table shows of a row.
#[derive(Deserialize)]
struct Row<'a> {
    id: u64,
    /// The connection that it is a stream of.
    parent: Option<u64>,
    #[serde(borrow)]
    listener: Cow<'a, str>,
    #[serde(borrow)]
    client: Cow<'a, str>,
    #[serde(borrow)]
    identity: Option<Cow<'a, str>>,
    #[serde(borrow)]
    route: Option<Cow<'a, str>>,
    #[serde(borrow)]
    endpoint: Option<Cow<'a, str>>,
    #[serde(borrow)]
    carrier: Option<Cow<'a, str>>,
    #[serde(borrow)]
    stage: Cow<'a, str>,
    #[serde(borrow)]
    reason: Option<Cow<'a, str>>,
    age_seconds: f64,
    idle_seconds: f64,
    bytes_up: u64,
    bytes_down: u64,
}

/// Lists what matches.
///
/// # Errors
/// When a filter cannot be read, or the server does not answer.
pub(crate) async fn run(client: &Client, args: LsArgs) -> anyhow::Result<ExitCode> {
    let bodies = pages(client, &args).await?;
    let pages =
        bodies.iter().map(|body| serde_json::from_slice(body)).collect::<Result<Vec<Page<'_>>, _>>()?;
    let mut out = io::BufWriter::with_capacity(OUT_BYTES, io::stdout().lock());
    if args.json {
        print_json(&mut out, &pages)?;
    } else {
        let mut rows: Vec<Row<'_>> = Vec::new();
        for page in &pages {
            rows.extend(serde_json::from_str::<Vec<Row<'_>>>(page.connections.get())?);
        }
        print_table(&mut out, &rows)?;
        let total = pages.first().map_or(0, |page| page.total);
        if args.limit.is_some_and(|limit| limit < total) {
            writeln!(out, "{} of {total}", rows.len())?;
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

const OUT_BYTES: usize = 256 * 1_024;

async fn pages(client: &Client, args: &LsArgs) -> anyhow::Result<Vec<Body>> {
    let filter = segment(&filter_of(&args.filters));
    let (mut bodies, mut cursor) = (Vec::new(), None::<String>);
    let mut left = args.limit.unwrap_or(usize::MAX);
    while left > 0 {
        let rows = left.min(PAGE_ROWS);
        let mut path = format!("/api/v1/connections?limit={rows}&finished={}&filter={filter}", args.finished);
        if let Some(cursor) = &cursor {
            path += &format!("&cursor={}", segment(cursor));
        }
        let body = client.get(&path).await?;
        let page: Page<'_> = serde_json::from_slice(&body)?;
        cursor = page.next;
        bodies.push(body);
        // A page that is not the last one is full.
        left = if cursor.is_some() { left - rows } else { 0 };
    }
    Ok(bodies)
}

/// One array of all pages' rows, as the server wrote them.
fn print_json(out: &mut impl Write, pages: &[Page<'_>]) -> io::Result<()> {
    let rows = pages.iter().map(|page| page.connections.get().trim_matches(['[', ']', '\n', ' ']));
    write!(out, "[")?;
    for (place, rows) in rows.filter(|rows| !rows.is_empty()).enumerate() {
        write!(out, "{}{rows}", if place == 0 { "\n" } else { ",\n" })?;
    }
    writeln!(out, "\n]")
}

fn print_table(out: &mut impl Write, rows: &[Row<'_>]) -> io::Result<()> {
    let heads = ["ID", "LISTENER", "CLIENT", "ROUTE", "ENDPOINT", "STAGE"];
    let mut widths = heads.map(str::len);
    for row in rows {
        widths[0] = widths[0].max(digits(row.id) + row.parent.map_or(0, |parent| IN.len() + digits(parent)));
        for (width, cell) in widths[1..].iter_mut().zip(cells(row)) {
            *width = cell.chars().count().max(*width);
        }
    }
    let [id, listener, client, route, endpoint, stage] = widths;
    writeln!(
        out,
        "{:<id$}  {:<listener$}  {:<client$}  {:<route$}  {:<endpoint$}  {:<stage$}  \
         {:>6}  {:>6}  {:>9}  {:>9}",
        "ID", "LISTENER", "CLIENT", "ROUTE", "ENDPOINT", "STAGE", "AGE", "IDLE", "UP", "DOWN"
    )?;
    for row in rows {
        match row.parent {
            None => write!(out, "{:<id$}", row.id)?,
            Some(parent) => write!(out, "{:<id$}", format!("{}{IN}{parent}", row.id))?,
        }
        for (width, cell) in widths[1..].iter().zip(cells(row)) {
            write!(out, "  {cell:<width$}")?;
        }
        // Right-aligned by hand: a `Display` of many parts knows no width.
        Number::of(Span(row.age_seconds), 6).write(out)?;
        Number::of(Span(row.idle_seconds), 6).write(out)?;
        writeln!(out, "  {:>9}  {:>9}", Bytes(row.bytes_up), Bytes(row.bytes_down))?;
    }
    Ok(())
}

/// Stands between a stream's id and that of the connection that it is in.
const IN: &str = " in ";

fn digits(id: u64) -> usize {
    id.checked_ilog10().unwrap_or(0) as usize + 1
}

/// A row's words, in the order of their columns. Of one that has ended, why it did.
fn cells<'r>(row: &'r Row<'_>) -> [Cow<'r, str>; 5] {
    let or_dash = |word: &'r Option<Cow<'_, str>>| word.as_deref().map_or("-".into(), printable);
    let stage = row.reason.as_deref().unwrap_or(&row.stage);
    let endpoint = match &row.carrier {
        // A link leads to no endpoint.
        Some(carrier) if row.endpoint.is_none() => format!("over {}", printable(carrier)).into(),
        _ => or_dash(&row.endpoint),
    };
    let route = or_dash(&row.route);
    let client = match &row.identity {
        Some(identity) => format!("{} ({})", printable(&row.client), printable(identity)).into(),
        None => printable(&row.client),
    };
    [printable(&row.listener), client, route, endpoint, printable(stage)]
}

/// A short text in a column of its own width, aligned to the right.
struct Number {
    text: String,
    width: usize,
}

impl Number {
    fn of(value: impl std::fmt::Display, width: usize) -> Self {
        Self { text: value.to_string(), width }
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        write!(out, "  {:>width$}", self.text, width = self.width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{"connections":[
{"id":7,"listener":"web","client":"10.0.0.1:5000","route":"shop","endpoint":"10.0.0.9:80",
"stage":"relay","age_seconds":310.5,"idle_seconds":0.25,"bytes_up":2048,"bytes_down":17},
{"id":1234,"listener":"a\"\u001b","client":"unix","identity":"ana","route":null,"endpoint":null,
"stage":"release","age_seconds":0,"idle_seconds":0,"bytes_up":0,"bytes_down":0,"reason":"limit:per-ip"}
],"next":null,"total":2}"#;

    #[test]
    fn columns_stand_below_each_other() {
        let page: Page<'_> = serde_json::from_str(BODY).unwrap();
        let rows: Vec<Row<'_>> = serde_json::from_str(page.connections.get()).unwrap();
        let mut out = Vec::new();
        print_table(&mut out, &rows).unwrap();
        let expected = "\
ID    LISTENER  CLIENT         ROUTE  ENDPOINT     STAGE            AGE    IDLE         UP       DOWN
7     web       10.0.0.1:5000  shop   10.0.0.9:80  relay          5m10s    0.2s       2KiB        17B
1234  a\"\\u{1b}  unix (ana)     -      -            limit:per-ip    0.0s    0.0s         0B         0B
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn pages_are_one_array() {
        let page = |text| serde_json::from_str::<Page<'_>>(text).unwrap();
        let empty = r#"{"connections":[
],"next":null,"total":0}"#;
        for (pages, rows) in [(vec![page(empty)], 0), (vec![page(BODY), page(BODY)], 4), (vec![], 0)] {
            let mut out = Vec::new();
            print_json(&mut out, &pages).unwrap();
            assert_eq!(serde_json::from_slice::<Vec<serde_json::Value>>(&out).unwrap().len(), rows);
        }
    }
}
