//! Answers with rows, for those who give them themselves.

use super::backend::kind;
use super::frame::{push, push_text};

/// A column, as RowDescription tells of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its type, by its number in `pg_type`.
    pub oid: u32,
    /// How many bytes a value has; -1: that differs.
    pub size: i16,
    /// Whether values come in their binary form.
    pub binary: bool,
}

/// Appends RowDescription.
pub fn push_row_description<'a>(out: &mut Vec<u8>, fields: impl ExactSizeIterator<Item = Field<'a>>) {
    push(out, kind::ROW_DESCRIPTION, |out| {
        out.extend_from_slice(&count(fields.len()));
        for field in fields {
            push_text(out, field.name.as_bytes());
            // Of no table.
            out.extend_from_slice(&[0; 6]);
            out.extend_from_slice(&field.oid.to_be_bytes());
            out.extend_from_slice(&field.size.to_be_bytes());
            out.extend_from_slice(&(-1i32).to_be_bytes());
            out.extend_from_slice(&u16::from(field.binary).to_be_bytes());
        }
    });
}

/// Appends ParameterDescription of a statement without parameters.
pub fn push_no_parameters(out: &mut Vec<u8>) {
    push(out, kind::PARAMETER_DESCRIPTION, |out| out.extend_from_slice(&[0; 2]));
}

fn count(count: usize) -> [u8; 2] {
    u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes()
}

/// A DataRow that is being appended, value by value.
#[derive(Debug)]
pub struct RowWriter<'o> {
    out: &'o mut Vec<u8>,
    at: usize,
    values: usize,
}

impl<'o> RowWriter<'o> {
    /// Begins one.
    pub fn begin(out: &'o mut Vec<u8>) -> Self {
        let at = out.len();
        out.extend_from_slice(&[kind::DATA_ROW, 0, 0, 0, 0, 0, 0]);
        Self { out, at, values: 0 }
    }

    /// Appends NULL.
    pub fn null(&mut self) {
        self.values += 1;
        self.out.extend_from_slice(&(-1i32).to_be_bytes());
    }

    /// Appends a value.
    pub fn value(&mut self, value: &[u8]) {
        self.values += 1;
        self.out.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
        self.out.extend_from_slice(value);
    }

    /// Ends it.
    pub fn end(self) {
        let length = u32::try_from(self.out.len() - self.at - 1).unwrap_or(u32::MAX);
        self.out[self.at + 1..self.at + 5].copy_from_slice(&length.to_be_bytes());
        self.out[self.at + 5..self.at + 7].copy_from_slice(&count(self.values));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_count_their_values_and_their_bytes() {
        let mut out = vec![9];
        let mut row = RowWriter::begin(&mut out);
        row.value(b"ab");
        row.null();
        row.end();
        assert_eq!(out, b"\x09D\0\0\0\x10\0\x02\0\0\0\x02ab\xff\xff\xff\xff");
    }

    #[test]
    fn columns_have_names_and_types() {
        let mut out = Vec::new();
        push_row_description(&mut out, [Field { name: "n", oid: 23, size: 4, binary: true }].into_iter());
        let rest = [0, 0, 0, 0, 0, 0, 0, 0, 0, 23, 0, 4, 255, 255, 255, 255, 0, 1];
        assert_eq!(out, [&b"T\0\0\0\x1a\0\x01n\0"[..], &rest].concat());
    }
}
