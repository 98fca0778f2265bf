//! Sans-I/O codecs: bytes to meaning and back, without sockets or clocks.
