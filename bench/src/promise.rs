//! What every scenario has, whatever its suite.

use crate::arguments::Options;
use crate::table::Table;

/// Something that is promised, and how it is measured.
pub(crate) trait Promise {
    fn name(&self) -> &'static str;

    fn promise(&self) -> &'static str;

    /// Measures it. Scenarios about Tieline alone are empty when it is not among the products.
    fn run(&self, options: &Options) -> anyhow::Result<Vec<Table>>;
}
