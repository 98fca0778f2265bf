//! What the console says, as messages.

use tieline_wire::postgres::backend::{Notice, push_error, push_notice};
use tieline_wire::postgres::rows::{Field, RowWriter, push_row_description};

use super::columns::{Column, Kind};

/// A value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Cell {
    Null,
    Number(u64),
    Text(Box<str>),
}

impl Cell {
    pub(crate) fn text(text: impl Into<Box<str>>) -> Self {
        Cell::Text(text.into())
    }
}

/// A row, with a cell for each column.
pub(crate) type Row = Vec<Cell>;

/// Why a command was not done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Refused {
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) detail: Option<String>,
}

impl Refused {
    /// With the code that PgBouncer gives to all of its errors.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { code: "08P01", message: message.into(), detail: None }
    }

    pub(crate) fn push(&self, out: &mut Vec<u8>, is_fatal: bool) {
        let severity: &[u8] = if is_fatal { b"FATAL" } else { b"ERROR" };
        push_error(
            out,
            &Notice {
                severity: Some(severity),
                code: Some(self.code.as_bytes()),
                message: Some(self.message.as_bytes()),
                detail: self.detail.as_deref().map(str::as_bytes),
                hint: None,
            },
        );
    }
}

/// Appends a notice.
pub(crate) fn push_told(out: &mut Vec<u8>, message: &str, detail: Option<&str>) {
    push_notice(
        out,
        &Notice {
            severity: Some(b"NOTICE"),
            code: Some(b"00000"),
            message: Some(message.as_bytes()),
            detail: detail.map(str::as_bytes),
            hint: None,
        },
    );
}

/// In which form the values of a table are wanted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) enum Formats {
    /// All as text.
    #[default]
    Text,
    /// All in the binary form of their type.
    Binary,
    /// Each as it says.
    Each(Box<[bool]>),
}

impl Formats {
    fn is_binary(&self, at: usize) -> bool {
        match self {
            Formats::Text => false,
            Formats::Binary => true,
            Formats::Each(each) => each.get(at).copied().unwrap_or(false),
        }
    }
}

/// Appends RowDescription.
pub(crate) fn push_columns(out: &mut Vec<u8>, columns: &[Column], formats: &Formats) {
    let field = |(at, column): (usize, &Column)| {
        // Numbers and sizes of pg_type, which never change.
        let (oid, size) = match column.kind {
            Kind::Text => (25, -1),
            Kind::Int4 => (23, 4),
            Kind::Int8 => (20, 8),
            Kind::Numeric => (1_700, -1),
        };
        Field { name: column.name, oid, size, binary: formats.is_binary(at) }
    };
    push_row_description(out, columns.iter().enumerate().map(field));
}

/// Appends DataRow.
pub(crate) fn push_row(out: &mut Vec<u8>, columns: &[Column], row: &[Cell], formats: &Formats) {
    let mut writer = RowWriter::begin(out);
    for (at, (cell, column)) in row.iter().zip(columns).enumerate() {
        match cell {
            Cell::Null => writer.null(),
            Cell::Text(text) => writer.value(text.as_bytes()),
            Cell::Number(number) if formats.is_binary(at) => match column.kind {
                Kind::Int4 => writer.value(&i32::try_from(*number).unwrap_or(i32::MAX).to_be_bytes()),
                Kind::Int8 => writer.value(&i64::try_from(*number).unwrap_or(i64::MAX).to_be_bytes()),
                Kind::Numeric => writer.value(&numeric(*number)),
                Kind::Text => writer.value(number.to_string().as_bytes()),
            },
            Cell::Number(number) => {
                let most = if column.kind == Kind::Int4 { i32::MAX as u64 } else { u64::MAX };
                writer.value(number.min(&most).to_string().as_bytes());
            }
        }
    }
    writer.end();
}

/// The binary form of a numeric: how many digits of base 10,000 there are, what the first one weighs, the
/// sign, the scale, the digits.
fn numeric(number: u64) -> Vec<u8> {
    let (mut digits, mut rest) = (Vec::new(), number);
    while rest > 0 {
        digits.push((rest % 10_000) as u16);
        rest /= 10_000;
    }
    let weight = (digits.len() as u16).saturating_sub(1);
    // Zeros at the end are left out; the weight says where the digits begin.
    let zeros = digits.iter().take_while(|digit| **digit == 0).count();
    let digits: Vec<u16> = digits.into_iter().skip(zeros).rev().collect();
    let head = [digits.len() as u16, weight, 0, 0];
    head.into_iter().chain(digits).flat_map(u16::to_be_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_binary_form() {
        assert_eq!(numeric(0), [0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(numeric(7), [0, 1, 0, 0, 0, 0, 0, 0, 0, 7]);
        assert_eq!(numeric(10_000), [0, 1, 0, 1, 0, 0, 0, 0, 0, 1]);
        assert_eq!(numeric(20_003), [0, 2, 0, 1, 0, 0, 0, 0, 0, 2, 0, 3]);
    }
}
