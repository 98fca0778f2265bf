use std::num::NonZeroU32;
use std::pin::pin;

use tieline_base::Reason;
use tieline_testkit::TcpServer;

use super::*;
use crate::{Fit, LeaseError, PoolSettings, Purpose, Said};

const WRITES: Purpose = Purpose::new(1);
const READS: Purpose = Purpose::new(2);

async fn lease_for(upstream: &Arc<Upstream>, purpose: Purpose) -> Result<Lease, Fault> {
    upstream.lease(&permit("db"), Ask { purpose, ..Ask::default() }, &mut |_| ()).await
}

#[tokio::test]
async fn a_lease_leads_to_an_endpoint_that_is_fit_for_it() {
    let (one, two) = (TcpServer::echo(), TcpServer::echo());
    let upstream = upstream(settings(&[one.address(), two.address()]));
    let ends = upstream.endpoints();
    upstream.set_fit(&ends[0], Fit::of([WRITES]));
    upstream.set_fit(&ends[1], Fit::of([READS]));
    for _ in 0..8 {
        assert_eq!(peer_of(lease_for(&upstream, WRITES).await.unwrap()), one.address());
        assert_eq!(peer_of(lease_for(&upstream, READS).await.unwrap()), two.address());
    }
    let fault = lease(&upstream).await.unwrap_err();
    assert_eq!(fault.reason, Reason::Unreachable);
    assert!(fault.source.unwrap().downcast::<LeaseError>().is_ok_and(|it| it.to_string().contains("db")));
    ends[0].say(Said { role: Some("primary"), lag: None });
    assert_eq!(upstream.status().endpoints[0].said.role, Some("primary"));
}

#[tokio::test]
async fn who_waits_for_one_role_goes_where_the_role_goes() {
    let (one, two) = (TcpServer::echo(), TcpServer::echo());
    let pool = PoolSettings { size: NonZeroU32::new(9), ..PoolSettings::default() };
    let mut both = settings(&[one.address(), two.address()]);
    both.endpoints.iter_mut().for_each(|endpoint| endpoint.cap = NonZeroU32::new(1));
    let upstream = upstream(Settings { pool, ..both });
    let ends = upstream.endpoints();
    upstream.set_fit(&ends[0], Fit::of([WRITES]));
    upstream.set_fit(&ends[1], Fit::of([READS]));
    let first = lease_for(&upstream, WRITES).await.unwrap();
    let mut second = pin!(lease_for(&upstream, WRITES));
    assert!(has_to_wait(&mut second).await);
    upstream.set_fit(&ends[1], Fit::of([WRITES]));
    let second = second.await.unwrap();
    assert_eq!((peer_of(first), peer_of(second)), (one.address(), two.address()));
}
