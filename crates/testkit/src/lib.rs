//! Real servers and the real binary for tests; not shipped.
