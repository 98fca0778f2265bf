use std::task::{Context, Poll, Waker};

use tieline_base::{Clock, Priority, Reason};
use tieline_testkit::TcpServer;

use super::caps::pool;
use super::idle::park;
use super::*;
use crate::{InLine, Place, Reuse};

fn ask() -> Ask {
    Ask { reuse: Reuse::Any, ..Ask::default() }
}

fn line_up(upstream: &Arc<Upstream>, ask: &Ask) -> Place {
    match upstream.lease_or_line_up(&permit("db"), ask, Clock::now(), &mut |_| ()).unwrap() {
        InLine::Waits(place) => place,
        InLine::Lent(_) | InLine::Dials(_) | InLine::Nowhere => panic!("there is nothing but a line"),
    }
}

fn turn(place: &Place) -> Poll<Result<(), Reason>> {
    let mut cx = Context::from_waker(Waker::noop());
    place.poll(&mut cx).map_err(|fault| fault.reason)
}

fn one_place() -> (TcpServer, Arc<Upstream>) {
    let server = TcpServer::echo();
    let upstream = upstream(Settings { pool: pool(1, 2), ..settings(&[server.address()]) });
    (server, upstream)
}

#[tokio::test]
async fn whoever_stands_in_line_gets_what_rests_when_its_turn_comes() {
    let (_server, upstream) = one_place();
    let held = lease(&upstream).await.unwrap();
    let (first, second) = (line_up(&upstream, &ask()), line_up(&upstream, &ask()));
    assert_eq!((turn(&first), turn(&second)), (Poll::Pending, Poll::Pending));
    park(held);
    assert_eq!((turn(&first), turn(&second)), (Poll::Ready(Ok(())), Poll::Pending));
    let lease = upstream.take_granted(first, &ask(), Clock::now(), &mut |_| ());
    let lease = lease.unwrap_or_else(|_| panic!("one rests"));
    assert!(lease.is_reused());
    assert_eq!((upstream.status().in_flight, upstream.status().waiting), (1, 1));
    park(lease);
    drop(second);
    assert_eq!((upstream.status().in_flight, upstream.status().waiting), (0, 0));
    assert!(upstream.lease(&permit("db"), ask(), &mut |_| ()).await.unwrap().is_reused());
}

#[tokio::test]
async fn where_none_rests_its_place_is_its_own_while_it_dials() {
    let (_server, upstream) = one_place();
    let held = lease(&upstream).await.unwrap();
    let (place, next) = (line_up(&upstream, &ask()), line_up(&upstream, &ask()));
    drop(held);
    assert_eq!(turn(&place), Poll::Ready(Ok(())));
    let Err(granted) = upstream.take_granted(place, &ask(), Clock::now(), &mut |_| ()) else {
        panic!("it was closed")
    };
    assert_eq!(turn(&next), Poll::Pending);
    let lease = upstream.lease_granted(granted, &ask(), Clock::now()).run(&mut |_| ()).await.unwrap();
    assert!(!lease.is_reused());
    assert_eq!((upstream.status().in_flight, turn(&next)), (1, Poll::Pending));
    drop(lease);
    assert_eq!(turn(&next), Poll::Ready(Ok(())));
}

#[tokio::test]
async fn a_place_that_nobody_takes_goes_to_the_next_and_the_unimportant_lose_theirs() {
    let (_server, upstream) = one_place();
    let held = lease(&upstream).await.unwrap();
    let (gone, low) =
        (line_up(&upstream, &ask()), line_up(&upstream, &Ask { priority: Priority::Low, ..ask() }));
    let critical = line_up(&upstream, &Ask { priority: Priority::Critical, ..ask() });
    assert_eq!(turn(&low), Poll::Ready(Err(Reason::LimitShed)), "the line has room for two");
    drop((low, held));
    assert_eq!((turn(&critical), turn(&gone)), (Poll::Ready(Ok(())), Poll::Pending));
    drop(critical);
    assert_eq!(turn(&gone), Poll::Ready(Ok(())));
    drop(gone);
    assert_eq!((upstream.status().in_flight, upstream.status().waiting), (0, 0));
}

#[tokio::test]
async fn what_is_handed_to_somebody_who_went_rests_or_goes_to_the_next() {
    let (_server, upstream) = one_place();
    let held = lease(&upstream).await.unwrap();
    let (gone, next) = (line_up(&upstream, &ask()), line_up(&upstream, &ask()));
    park(held);
    let status = upstream.status();
    assert_eq!((status.in_flight, status.endpoints[0].idle), (1, 0), "it is in the hand of the first");
    drop(gone);
    assert_eq!((turn(&next), upstream.status().in_flight), (Poll::Ready(Ok(())), 1));
    drop(next);
    let status = upstream.status();
    assert_eq!((status.in_flight, status.waiting, status.endpoints[0].idle), (0, 0, 1));
    assert!(upstream.lease(&permit("db"), ask(), &mut |_| ()).await.unwrap().is_reused());
}

#[tokio::test]
async fn nothing_is_handed_to_whoever_wants_something_else() {
    for (wants, reused) in [
        (Ask { login: 7, ..ask() }, false),
        (Ask { reuse: Reuse::Never, ..ask() }, false),
        (Ask { wish: Some(3), ..ask() }, true),
    ] {
        let (_server, upstream) = one_place();
        let held = lease(&upstream).await.unwrap();
        let place = line_up(&upstream, &wants);
        park(held);
        assert_eq!((turn(&place), upstream.status().endpoints[0].idle), (Poll::Ready(Ok(())), 1));
        let lease = upstream.take_granted(place, &wants, Clock::now(), &mut |_| ());
        assert_eq!(lease.is_ok_and(|lease| lease.is_reused()), reused, "{wants:?}");
    }
}
