//! What a server of PostgreSQL owes, and to whom.

/// Whatever a client asks, wherever it fails, whatever is copied and however late the answers come: each
/// finds what asked for it, and in the end nothing is owed.
pub fn postgres_answers(data: &[u8]) {
    tieline_postgres::fuzzing::answers(data);
}
