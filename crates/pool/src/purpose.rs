//! What leases are for, where not every endpoint will do for all of them.

/// What a lease is for. The numbers mean something to protocols alone: an endpoint says for which of them it
/// is fit ([`Endpoint::is_fit_for`](crate::Endpoint::is_fit_for)), and a lease gets one that is fit for its.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Purpose(u8);

/// For which purposes an endpoint is fit, as a set.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fit(u8);

impl Purpose {
    /// How many there are.
    pub const COUNT: usize = 4;

    /// That of every lease of whom nothing else is said.
    pub const USUAL: Purpose = Purpose(0);

    /// Number `number`, of which the two lowest bits count.
    pub const fn new(number: u8) -> Self {
        Purpose(number & (Self::COUNT as u8 - 1))
    }

    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT as u8).map(Purpose)
    }

    pub(crate) fn number(self) -> usize {
        usize::from(self.0)
    }
}

impl Fit {
    /// For none.
    pub const NONE: Fit = Fit(0);
    /// For all.
    pub const ALL: Fit = Fit((1 << Purpose::COUNT) - 1);

    /// For these.
    pub fn of(purposes: impl IntoIterator<Item = Purpose>) -> Self {
        Fit(purposes.into_iter().fold(0, |bits, purpose| bits | 1 << purpose.0))
    }

    /// Whether `purpose` is among them.
    pub const fn has(self, purpose: Purpose) -> bool {
        self.0 & 1 << purpose.0 != 0
    }

    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    pub(crate) const fn from_bits(bits: u8) -> Self {
        Fit(bits)
    }
}
