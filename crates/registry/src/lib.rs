//! The one live table: every connection a row, from before its first byte to its end.
