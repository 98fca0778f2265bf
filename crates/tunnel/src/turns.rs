//! Whether two processes take turns at one agent's link: each ends the other's, for ever, and one of them has
//! a copy of the key.

use std::collections::VecDeque;
use std::time::Duration;

use tieline_base::Moment;

/// The processes that have linked up as one agent.
#[derive(Default, Debug)]
pub(crate) struct Turns {
    /// The newest last, each once.
    boots: VecDeque<[u8; 16]>,
    /// When one came that another had followed before.
    returns: VecDeque<Moment>,
    alarmed: Option<Moment>,
}

/// So many processes are remembered.
const BOOTS_MAX: usize = 8;

/// So many returns ...
const RETURNS_MAX: usize = 3;

/// ... within so long are no accident: a process that was replaced has ended, and never comes again.
const WITHIN: Duration = Duration::from_secs(300);

/// For so long it is told.
const TOLD: Duration = Duration::from_secs(3600);

impl Turns {
    /// The process `boot` links up. Whether that is the return too many; told once in a while.
    pub(crate) fn hello(&mut self, boot: [u8; 16], now: Moment) -> bool {
        if self.boots.back() == Some(&boot) {
            return false;
        }
        let known = self.boots.iter().position(|known| *known == boot);
        if let Some(at) = known {
            self.boots.remove(at);
            self.returns.push_back(now);
        }
        self.boots.push_back(boot);
        if self.boots.len() > BOOTS_MAX {
            self.boots.pop_front();
        }
        while self.returns.front().is_some_and(|at| now.since(*at) > WITHIN) {
            self.returns.pop_front();
        }
        let too_many = self.returns.len() >= RETURNS_MAX;
        if too_many {
            self.returns.clear();
            self.alarmed = Some(now);
        }
        too_many
    }

    /// Whether it was told in the last hour.
    pub(crate) fn alarmed(&self, now: Moment) -> bool {
        self.alarmed.is_some_and(|at| now.since(at) <= TOLD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment(0).after(Duration::from_secs(seconds))
    }

    fn alarms(hellos: &[(u8, u64)]) -> usize {
        let mut turns = Turns::default();
        hellos.iter().filter(|(boot, second)| turns.hello([*boot; 16], at(*second))).count()
    }

    #[test]
    fn two_that_take_turns_are_noticed() {
        assert_eq!(alarms(&[(1, 0), (2, 1), (1, 2), (2, 3), (1, 4)]), 1);
        let mut turns = Turns::default();
        for (second, boot) in [1, 2, 1, 2, 1].into_iter().enumerate() {
            turns.hello([boot; 16], at(second as u64));
        }
        assert!(turns.alarmed(at(60)) && !turns.alarmed(at(3700)));
    }

    #[test]
    fn one_that_is_restarted_or_links_up_anew_is_not() {
        let restarts: Vec<(u8, u64)> = (0..100).map(|at| (at, u64::from(at))).collect();
        assert_eq!(alarms(&restarts), 0);
        let links: Vec<(u8, u64)> = (0..100).map(|at| (1, at)).collect();
        assert_eq!(alarms(&links), 0);
        // A hand-over from one machine to another, and back, is none of it.
        assert_eq!(alarms(&[(1, 0), (2, 10), (1, 20)]), 0);
    }

    #[test]
    fn turns_that_are_far_apart_are_not() {
        let slow: Vec<(u8, u64)> = (0..50).map(|turn| ((turn % 2) as u8, turn * 200)).collect();
        assert_eq!(alarms(&slow), 0);
    }
}
