//! The road: one connection from accept to release.
