//! The `tollgate` command. Everything it does is in `tollgate::control`.

use std::process::ExitCode;

fn main() -> ExitCode {
    tollgate::control::main()
}
