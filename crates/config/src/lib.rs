//! The config file and its types: parse, check, explain, schema.
