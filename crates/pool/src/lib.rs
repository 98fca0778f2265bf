//! Leases: balancing, health, caps, retry budgets.
