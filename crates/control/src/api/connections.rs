//! The live table, page by page, and orders to its rows.

use std::cmp::Reverse;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::header;
use axum::response::IntoResponse;
use tieline_base::{Clock, ConnectionId, Moment};
use tieline_policy::AdminPermit;
use tieline_registry::{Record, Registry, Row, Story};

use super::problem::Problem;
use super::question::{Body, Order, PageQuestion};
use crate::acts::Acted;
use crate::plane::Plane;

/// `GET /api/v1/connections`
pub(super) async fn list(
    permit: AdminPermit,
    State(plane): State<Plane>,
    RawQuery(query): RawQuery,
) -> Result<impl IntoResponse, Problem> {
    let question = PageQuestion::read(query.as_deref().unwrap_or_default())?;
    let page = Page::of(plane.server(&permit).registry(), &question)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], page.write().await))
}

/// `GET /api/v1/connections/{id}`
pub(super) async fn show(
    permit: AdminPermit,
    State(plane): State<Plane>,
    Path(id): Path<String>,
) -> Result<Json<Story>, Problem> {
    let unknown = || {
        let detail = "lives or is remembered; finished connections are kept for `server.history`";
        Problem::not_found(format!("no connection \"{id}\" {detail}"))
    };
    let id: ConnectionId = id.parse().map_err(|_| unknown())?;
    let registry = plane.server(&permit).registry();
    let record = registry.find(id).ok_or_else(unknown)?;
    Ok(Json(Story::of(&record, registry, Clock::now())))
}

/// `POST /api/v1/connections/kill`
pub(super) async fn kill(
    permit: AdminPermit,
    State(plane): State<Plane>,
    Body(order): Body<Order>,
) -> Result<Json<Acted>, Problem> {
    let (filter, words) = order.read()?;
    Ok(Json(plane.kill(&permit, &filter, &words).await))
}

/// `POST /api/v1/connections/drain`
pub(super) async fn drain(
    permit: AdminPermit,
    State(plane): State<Plane>,
    Body(order): Body<Order>,
) -> Result<Json<Acted>, Problem> {
    let (filter, words) = order.read()?;
    Ok(Json(plane.drain(&permit, &filter, &words)))
}

/// A page of rows: the living in the order of their ids, the finished from the latest on. Who pages on with
/// the cursor sees each row that was there all the time exactly once, whatever comes and goes meanwhile.
pub(super) struct Page {
    rows: Vec<Arc<Record>>,
    next: Option<String>,
    total: usize,
    now: Moment,
}

impl Page {
    pub(super) fn of(registry: &Registry, question: &PageQuestion) -> Result<Page, Problem> {
        let now = Clock::now();
        let mut rows = if question.finished {
            let mut rows = registry.history(&question.filter);
            rows.sort_unstable_by_key(|record| Reverse(place(record)));
            rows
        } else {
            registry.live(&question.filter)
        };
        let total = rows.len();
        if let Some(cursor) = &question.cursor {
            let wrong = || Problem::bad_request("cursor: take it from \"next\" of the page before, as it is");
            let passed = passed(cursor, question.finished).ok_or_else(wrong)?;
            let skipped = rows.partition_point(|record| match passed {
                Passed::Living(id) => record.id() <= id,
                Passed::Finished(last) => place(record) >= last,
            });
            rows.drain(..skipped);
        }
        let next = (rows.len() > question.limit).then(|| {
            rows.truncate(question.limit);
            rows.last().map(|last| cursor(last, question.finished)).unwrap_or_default()
        });
        Ok(Page { rows, next, total, now })
    }

    /// The page as JSON, a row on each line. Gives way to other requests now and then: a large page takes a
    /// tenth of a second, and nobody else shall wait for it.
    async fn write(self) -> Bytes {
        let mut body = Vec::with_capacity(ROW_BYTES * self.rows.len() + 128);
        body.extend_from_slice(b"{\"connections\":[");
        for (index, record) in self.rows.iter().enumerate() {
            body.extend_from_slice(if index == 0 { b"\n" } else { b",\n" });
            // Writing into memory does not fail, and every field of a row has a JSON form.
            let _ = serde_json::to_writer(&mut body, &Row::of(record, self.now));
            if index % ROWS_AT_ONCE == ROWS_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
        }
        let next = self.next.map_or("null".into(), |next| format!("\"{next}\""));
        body.extend_from_slice(format!("\n],\"next\":{next},\"total\":{}}}\n", self.total).as_bytes());
        body.into()
    }
}

/// What a row usually takes.
const ROW_BYTES: usize = 448;

const ROWS_AT_ONCE: usize = 512;

/// What was seen last.
#[derive(Clone, Copy)]
enum Passed {
    Living(ConnectionId),
    Finished((Moment, ConnectionId)),
}

/// Where a finished row stands in the history.
fn place(record: &Arc<Record>) -> (Moment, ConnectionId) {
    (record.ended().map(|ended| ended.at).unwrap_or_default(), record.id())
}

fn cursor(last: &Arc<Record>, finished: bool) -> String {
    if finished { format!("{}.{}", place(last).0.0, last.id()) } else { last.id().to_string() }
}

fn passed(cursor: &str, finished: bool) -> Option<Passed> {
    if !finished {
        return cursor.parse().ok().map(Passed::Living);
    }
    let (at, id) = cursor.split_once('.')?;
    Some(Passed::Finished((Moment(at.parse().ok()?), id.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};
    use tieline_base::Reason;
    use tieline_registry::Filter;

    /// Pages through everything, with `between` after each page; how often each row was seen.
    fn paged(
        registry: &Registry,
        limit: usize,
        finished: bool,
        mut between: impl FnMut(),
    ) -> BTreeMap<u64, usize> {
        let mut question = PageQuestion { filter: Filter::default(), limit, cursor: None, finished };
        let mut seen = BTreeMap::new();
        loop {
            let page = Page::of(registry, &question).unwrap();
            assert!(page.rows.len() <= limit);
            page.rows.iter().for_each(|record| *seen.entry(record.id().0).or_default() += 1);
            if page.next.is_none() {
                return seen;
            }
            question.cursor = page.next;
            between();
        }
    }

    proptest! {
        #[test]
        fn who_stays_is_listed_exactly_once_while_others_come_and_go(
            count in 0usize..60,
            limit in 1usize..12,
            steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..40),
        ) {
            let registry = testing::registry();
            let mut live: Vec<_> = (0..count).map(|_| testing::row(&registry, "web", "10.0.0.1:1")).collect();
            let mut stayed: BTreeSet<u64> = live.iter().map(|record| record.id().0).collect();
            let mut steps = steps.into_iter();
            let seen = paged(&registry, limit, false, || match steps.next() {
                Some((true, _)) => live.push(testing::row(&registry, "web", "10.0.0.1:1")),
                Some((false, which)) if !live.is_empty() => {
                    let gone = live.swap_remove(which.index(live.len()));
                    stayed.remove(&gone.id().0);
                    registry.leave(&gone, Reason::Idle, None, ());
                }
                _ => {}
            });
            prop_assert!(seen.values().all(|times| *times == 1));
            prop_assert!(stayed.iter().all(|id| seen.contains_key(id)));
        }

        #[test]
        fn the_finished_are_listed_exactly_once_while_more_of_them_come(
            count in 0usize..60,
            limit in 1usize..12,
        ) {
            let registry = testing::registry();
            let end = || {
                let record = testing::row(&registry, "web", "10.0.0.1:1");
                registry.leave(&record, Reason::Idle, None, ());
                record.id().0
            };
            let ended: BTreeSet<u64> = (0..count).map(|_| end()).collect();
            let seen = paged(&registry, limit, true, || _ = end());
            prop_assert_eq!(seen.keys().copied().collect::<BTreeSet<_>>(), ended);
            prop_assert!(seen.values().all(|times| *times == 1));
        }
    }

    #[tokio::test]
    async fn a_page_is_json_with_a_row_on_each_line() {
        let registry = testing::registry();
        let rows: Vec<_> = (0..1_500).map(|_| testing::row(&registry, "web", "10.0.0.1:1")).collect();
        let question =
            PageQuestion { filter: Filter::default(), limit: 1_200, cursor: None, finished: false };
        let body = Page::of(&registry, &question).unwrap().write().await;
        let page: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(page["connections"].as_array().unwrap().len(), 1_200);
        assert_eq!(page["connections"][7]["id"], rows[7].id().0);
        assert_eq!((&page["total"], &page["next"]), (&1_500.into(), &rows[1_199].id().to_string().into()));
        assert_eq!(body.iter().filter(|byte| **byte == b'\n').count(), 1_202);
    }
}
