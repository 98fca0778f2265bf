//! What answers tell of rates: `RateLimit-Policy` and `RateLimit`, as draft-ietf-httpapi-ratelimit-headers-10
//! has them.

use std::rc::Rc;
use std::time::Duration;

use tieline_base::Rate;

use super::gcra::Left;

/// A rate, as answers tell of it.
#[derive(Debug)]
pub(super) struct Policy {
    name: Box<str>,
    /// Its item of `RateLimit-Policy`.
    item: Box<str>,
}

/// What is told of several rates.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    policies: String,
    left: String,
}

impl Policy {
    /// A policy of this name, which is of visible ASCII. The quota is what may come in a window, or at once
    /// if that is more.
    pub(super) fn new(name: &str, rate: Rate, burst: u32) -> Self {
        let quota = rate.events.max(burst);
        let item = format!("\"{name}\";q={quota};w={}", rate.per.as_secs().max(1));
        Self { name: name.into(), item: item.into() }
    }
}

impl Quotas {
    /// Adds one. What is left is told with the seconds until all of it is there again, rounded up.
    pub(super) fn add(&mut self, policy: &Policy, left: Left) {
        for text in [&mut self.policies, &mut self.left] {
            if !text.is_empty() {
                text.push_str(", ");
            }
        }
        self.policies.push_str(&policy.item);
        let seconds = Duration::from_nanos(left.full_in_ns).as_millis().div_ceil(1_000);
        self.left.push_str(&format!("\"{}\";r={};t={seconds}", policy.name, left.events));
    }

    /// The fields, as whole lines; none if nothing was added.
    pub(super) fn lines(&self) -> Option<Rc<[u8]>> {
        let Self { policies, left } = self;
        let lines = || format!("RateLimit-Policy: {policies}\r\nRateLimit: {left}\r\n");
        (!left.is_empty()).then(|| lines().into_bytes().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_lists_of_quoted_names() {
        let minute = Rate { events: 100, per: Duration::from_secs(60) };
        let second = Rate { events: 5, per: Duration::from_secs(1) };
        let mut quotas = Quotas::default();
        assert_eq!(quotas.lines(), None);
        quotas.add(&Policy::new("ip", minute, 20), Left { events: 19, full_in_ns: 600_000_000 });
        quotas.add(&Policy::new("route-2", second, 8), Left { events: 0, full_in_ns: 2_000_000_000 });
        let lines = String::from_utf8(quotas.lines().unwrap().to_vec()).unwrap();
        let policies = "RateLimit-Policy: \"ip\";q=100;w=60, \"route-2\";q=8;w=1\r\n";
        let left = "RateLimit: \"ip\";r=19;t=1, \"route-2\";r=0;t=2\r\n";
        assert_eq!(lines, [policies, left].concat());
    }
}
