//! The smallest protocol: bytes pass unread.
