//! The `tollgate` command. Everything it does is in `tollgate::control`.

fn main() {}
