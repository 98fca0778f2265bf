//! Floor 3.
pub mod balance;
mod addresses;
mod ewma;
mod health;
mod outlier;
mod retry;
mod slow_start;
mod state;
