//! Prints the OpenAPI document: `cargo run -q -p tieline-control --example openapi > docs/openapi.json`.

#[allow(clippy::print_stdout)] // that is what it is for
fn main() {
    print!("{}", tieline_control::openapi());
}
