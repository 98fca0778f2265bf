use super::*;
use proptest::prelude::*;

fn candidate(name: usize) -> Candidate {
    Candidate {
        key: stable_key(&format!("10.0.0.{name}:80")),
        weight: 1.0,
        in_flight: 0,
        latency: None,
        pass: 0,
        tier: 0,
        standing: Standing::Healthy,
        room: true,
        tried: false,
    }
}

fn candidates(count: usize) -> Vec<Candidate> {
    (0..count).map(candidate).collect()
}

/// Picks again and again, as an upstream would: the chosen one's turn is used up.
struct Picker {
    balance: Balance,
    random: fastrand::Rng,
    clock: u64,
    scratch: Vec<usize>,
}

impl Picker {
    fn new(balance: Balance) -> Self {
        Self { balance, random: fastrand::Rng::with_seed(7), clock: 0, scratch: Vec::new() }
    }

    fn pick(&mut self, candidates: &mut [Candidate], hash: u64) -> usize {
        let turn = Turn { random: self.random.u64(..), hash, wish: None, clock: self.clock };
        let choice = pick(self.balance, Percent(50), candidates, turn, &mut self.scratch).unwrap();
        let chosen = &mut candidates[choice.index];
        let due = chosen.pass.max(self.clock);
        chosen.pass = due + stride(chosen.weight);
        self.clock = due;
        choice.index
    }

    fn counts(&mut self, candidates: &mut [Candidate], picks: usize) -> Vec<usize> {
        let mut counts = vec![0; candidates.len()];
        for _ in 0..picks {
            let hash = self.random.u64(..);
            counts[self.pick(candidates, hash)] += 1;
        }
        counts
    }
}

fn once(candidates: &[Candidate]) -> Result<Choice, NoChoice> {
    let turn = Turn { random: 0, hash: 0, wish: None, clock: 0 };
    pick(Balance::RoundRobin, Percent(50), candidates, turn, &mut Vec::new())
}

#[test]
fn random_and_hash_follow_the_weights() {
    for balance in [Balance::Random, Balance::Hash] {
        let mut candidates = candidates(4);
        for (candidate, weight) in candidates.iter_mut().zip([1.0, 2.0, 3.0, 4.0]) {
            candidate.weight = weight;
        }
        let counts = Picker::new(balance).counts(&mut candidates, 100_000);
        for (count, share) in counts.iter().zip([0.1, 0.2, 0.3, 0.4]) {
            let got = *count as f64 / 100_000.0;
            assert!((got - share).abs() < 0.01, "{balance}: {counts:?}");
        }
    }
}

#[test]
fn least_requests_fills_endpoints_by_their_weights() {
    for balance in [Balance::LeastRequests, Balance::PeakEwma] {
        let mut candidates = candidates(3);
        candidates[2].weight = 2.0;
        let mut picker = Picker::new(balance);
        for _ in 0..4_000 {
            let index = picker.pick(&mut candidates, 0);
            candidates[index].in_flight += 1; // long-lived: none comes back
        }
        let held: Vec<f64> = candidates.iter().map(|c| f64::from(c.in_flight) / c.weight).collect();
        assert!(held.iter().all(|held| (held - 1_000.0).abs() < 20.0), "{balance}: {held:?}");
    }
}

#[test]
fn equal_weights_take_strict_turns() {
    let mut candidates = candidates(3);
    let mut picker = Picker::new(Balance::RoundRobin);
    let order: Vec<_> = (0..7).map(|_| picker.pick(&mut candidates, 0)).collect();
    assert_eq!(order, [0, 1, 2, 0, 1, 2, 0]);
}

#[test]
fn an_endpoint_that_was_away_does_not_catch_up() {
    let mut candidates = candidates(2);
    let mut picker = Picker::new(Balance::RoundRobin);
    candidates[1].standing = Standing::Unhealthy;
    picker.counts(&mut candidates, 1_000);
    candidates[1].standing = Standing::Healthy;
    let counts = picker.counts(&mut candidates, 10);
    assert!(counts[1].abs_diff(5) <= 1, "{counts:?}");
}

#[test]
fn one_slow_endpoint_of_ten_gets_little() {
    let mut candidates = candidates(10);
    for candidate in &mut candidates {
        candidate.latency = Some(Duration::from_millis(1));
    }
    candidates[3].latency = Some(Duration::from_millis(10));
    let counts = Picker::new(Balance::PeakEwma).counts(&mut candidates, 10_000);
    assert_eq!(counts[3], 0, "each of the others is better when both are drawn");
    // Under load it is used once the others carry ten times as much.
    for candidate in &mut candidates {
        candidate.in_flight = 20;
    }
    candidates[3].in_flight = 0;
    assert!(Picker::new(Balance::PeakEwma).counts(&mut candidates, 10_000)[3] > 0);
}

#[test]
fn a_new_endpoint_gets_its_share_and_is_not_stormed() {
    let mut candidates = candidates(10);
    for candidate in &mut candidates[1..] {
        candidate.latency = Some(Duration::from_millis(5));
        candidate.in_flight = 3;
    }
    let mut picker = Picker::new(Balance::PeakEwma);
    let mut most = 0;
    for _ in 0..1_000 {
        let index = picker.pick(&mut candidates, 0);
        candidates[index].in_flight += 1;
        let others = candidates[1..].iter().map(|c| c.in_flight).max().unwrap();
        most = most.max(candidates[0].in_flight.saturating_sub(others));
    }
    assert!(candidates[0].in_flight > 90, "its share is about a hundred: {}", candidates[0].in_flight);
    assert!(most <= 1, "it carries {most} more than the fullest of the others");
}

#[test]
fn an_endpoint_that_leaves_moves_only_its_own_keys() {
    let mut all = candidates(10);
    let mut fewer: Vec<_> = all.iter().copied().filter(|c| c.key != candidate(4).key).collect();
    let mut picker = Picker::new(Balance::Hash);
    for hash in 0..10_000 {
        let (before, after) = (picker.pick(&mut all, hash), picker.pick(&mut fewer, hash));
        let (before, after) = (all[before].key, fewer[after].key);
        assert!(before == after || before == candidate(4).key, "key {hash} moved without need");
    }
}

#[test]
fn a_popular_key_spills_over_at_the_bound() {
    let mut candidates = candidates(4);
    let mut picker = Picker::new(Balance::Hash);
    for _ in 0..400 {
        let index = picker.pick(&mut candidates, 42);
        candidates[index].in_flight += 1;
        let total: u32 = candidates.iter().map(|c| c.in_flight).sum();
        let bound = (1.25 * f64::from(total) / 4.0).ceil().max(8.0);
        let most = candidates.iter().map(|c| c.in_flight).max().unwrap();
        assert!(f64::from(most) <= bound, "{most} of {total}");
    }
}

#[test]
fn the_table_of_tiers() {
    use Standing::{Draining as D, Ejected as E, Healthy as H, Unhealthy as U};
    type Tiers<'a> = &'a [(u8, Standing)];
    let table: &[(Tiers<'_>, Option<(u8, bool)>)] = &[
        (&[], None),
        (&[(0, D), (1, D)], None),
        (&[(0, H), (1, H)], Some((0, false))),
        (&[(0, U), (1, H)], Some((1, false))),
        (&[(0, H), (0, U), (1, H)], Some((0, false))), // 50 % is enough
        (&[(0, H), (0, U), (0, E), (1, H)], Some((1, false))),
        (&[(0, H), (0, U), (0, E)], Some((0, true))), // panic: better all than one for all
        (&[(0, H), (0, D), (0, D)], Some((0, false))), // drained ones do not count
        (&[(0, D), (1, U)], Some((1, true))),         // panic never uses a drained one
        (&[(3, U), (1, E), (2, U)], Some((1, true))),
    ];
    for (endpoints, expected) in table {
        let of = |(name, (tier, standing)): (usize, &(u8, Standing))| Candidate {
            tier: *tier,
            standing: *standing,
            ..candidate(name)
        };
        let candidates: Vec<_> = endpoints.iter().enumerate().map(of).collect();
        let selected = select(&candidates, Percent(50)).map(|s| (s.tier, s.panic));
        assert_eq!(selected, *expected, "{endpoints:?}");
    }
}

#[test]
fn what_was_tried_is_taken_last() {
    let mut candidates = candidates(2);
    candidates[0].tried = true;
    assert_eq!(once(&candidates).unwrap().index, 1);
    candidates[1].tier = 1;
    assert_eq!(once(&candidates).unwrap().index, 1, "a later tier's untried one comes before a tried one");
    candidates[1].tried = true;
    assert_eq!(once(&candidates).unwrap().index, 0, "all tried: again from the first tier");
}

#[test]
fn a_full_tier_is_waited_for_not_passed_over() {
    let mut candidates = candidates(2);
    candidates[0].room = false;
    candidates[1].tier = 1;
    assert_eq!(once(&candidates), Err(NoChoice::Full));
    assert_eq!(once(&[]), Err(NoChoice::Empty));
}

#[test]
fn a_wish_is_granted_by_who_is_up_or_drained_and_has_room() {
    let mut candidates = candidates(3);
    let key = candidates[2].key;
    let wish = |candidates: &[Candidate]| {
        let turn = Turn { random: 0, hash: 0, wish: Some(key), clock: 0 };
        pick(Balance::RoundRobin, Percent(50), candidates, turn, &mut Vec::new())
            .map(|choice| (choice.index, choice.why.by_wish()))
    };
    (candidates[2].tier, candidates[2].in_flight) = (1, 1_000);
    assert_eq!(wish(&candidates), Ok((2, true)), "though another tier is in use, and others carry less");
    let unfit: [fn(&mut Candidate); 5] = [
        |c| c.standing = Standing::Unhealthy,
        |c| c.standing = Standing::Ejected,
        |c| c.room = false,
        |c| c.tried = true,
        |c| c.key ^= 1,
    ];
    for spoil in unfit {
        let mut changed = candidates.clone();
        spoil(&mut changed[2]);
        assert!(matches!(wish(&changed), Ok((0 | 1, false))));
    }
    candidates.iter_mut().for_each(|candidate| candidate.standing = Standing::Draining);
    assert_eq!(wish(&candidates), Ok((2, true)), "a drained endpoint keeps its own");
    assert_eq!(once(&candidates), Err(NoChoice::Empty), "and gets no new ones");
}

#[test]
fn why_says_it_in_one_line() {
    let mut candidates = candidates(4);
    for candidate in &mut candidates {
        candidate.tier = 1;
        candidate.in_flight = 3;
        candidate.latency = Some(Duration::from_micros(1_200));
    }
    candidates[3].standing = Standing::Ejected;
    let turn = Turn { random: 0, hash: 0, wish: None, clock: 0 };
    let why = |balance, candidates: &[Candidate]| {
        pick(balance, Percent(50), candidates, turn, &mut Vec::new()).unwrap().why.to_string()
    };
    assert_eq!(
        why(Balance::PeakEwma, &candidates),
        "lowest of two by peak-ewma: 3 in flight x 1.2ms; tier 1; 3 of 4 available"
    );
    for candidate in &mut candidates[1..] {
        candidate.standing = Standing::Unhealthy;
    }
    assert_eq!(
        why(Balance::RoundRobin, &candidates),
        "next in turn by round-robin; tier 1; 1 of 4 available, too few, so health is disregarded"
    );
}

fn any_candidate() -> impl Strategy<Value = Candidate> {
    let standing = prop_oneof![
        4 => Just(Standing::Healthy), 1 => Just(Standing::Unhealthy),
        1 => Just(Standing::Ejected), 1 => Just(Standing::Draining),
    ];
    let numbers = (any::<u64>(), 1u32..1_000, 0u32..10_000, prop::option::of(1u64..10_000_000));
    (numbers, 0u8..3, standing, any::<bool>(), any::<bool>(), 0u64..1 << 40).prop_map(
        |((key, weight, in_flight, micros), tier, standing, room, tried, pass)| Candidate {
            key,
            weight: f64::from(weight) / 10.0,
            in_flight,
            latency: micros.map(Duration::from_micros),
            pass,
            tier,
            standing,
            room,
            tried,
        },
    )
}

fn any_balance() -> impl Strategy<Value = Balance> {
    prop::sample::select(Balance::ALL.as_slice())
}

proptest! {
    /// Whatever the method: the chosen one has room, is in the selected tier, is never drained, and is
    /// untried if any other would do; none is chosen only if the selected have no room.
    #[test]
    fn the_choice_is_always_allowed(
        candidates in prop::collection::vec(any_candidate(), 0..12),
        balance in any_balance(),
        panic in 0u8..=100,
        (random, hash, clock) in any::<(u64, u64, u32)>(),
    ) {
        let turn = Turn { random, hash, wish: None, clock: u64::from(clock) };
        let selection = select(&candidates, Percent(panic));
        let usable = |c: &Candidate| selection.is_some_and(|s| s.admits(c)) && c.room;
        match pick(balance, Percent(panic), &candidates, turn, &mut Vec::new()) {
            Ok(choice) => {
                let chosen = &candidates[choice.index];
                prop_assert!(usable(chosen) && chosen.standing != Standing::Draining);
                prop_assert!(!chosen.tried || candidates.iter().all(|c| c.tried || !usable(c)));
            }
            Err(NoChoice::Full) => prop_assert!(selection.is_some() && !candidates.iter().any(usable)),
            Err(NoChoice::Empty) => {
                prop_assert!(candidates.iter().all(|c| c.standing == Standing::Draining));
            }
        }
    }

    /// At any time no two endpoints are further apart than one turn of the lighter.
    #[test]
    fn turns_are_shared_by_weight(weights in prop::collection::vec(1u32..20, 2..8), picks in 1usize..500) {
        let mut candidates = candidates(weights.len());
        for (candidate, weight) in candidates.iter_mut().zip(&weights) {
            candidate.weight = f64::from(*weight);
        }
        let counts = Picker::new(Balance::RoundRobin).counts(&mut candidates, picks);
        let served: Vec<f64> = counts.iter().zip(&weights).map(|(c, w)| *c as f64 / f64::from(*w)).collect();
        let lightest = f64::from(*weights.iter().min().unwrap());
        let most = served.iter().copied().fold(0.0, f64::max);
        let least = served.iter().copied().fold(f64::MAX, f64::min);
        prop_assert!(most - least <= 1.0 / lightest + 1e-6, "{:?} of {:?}", counts, weights);
    }
}
