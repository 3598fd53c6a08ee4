//! Which build of the filter Envoy runs: the Wasm module, which any Envoy that is new enough takes, or the dynamic module, which is made
//! for one version of Envoy and one architecture.

use super::{Failure, envoy::Module, state::State};
use crate::core::config::FilterHost;

/// The Wasm module, carried inside the command.
static WASM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tollgate.wasm"));
/// The dynamic module of this architecture, carried inside the command.
static NATIVE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/libtollgate.so"));

/// The version of Envoy whose ABI the dynamic module is made for.
pub const NATIVE_ENVOY: (u32, u32) = (1, 40);

/// What is said at the start when the dynamic module runs: the version is compared before.
pub const NATIVE_LINE: &str =
    "filter: a dynamic module of Envoy 1.40 (asked for; this Envoy is of that version)";

/// Whether this build of the command carries a filter at all.
pub fn is_built() -> Result<(), Failure> {
    if WASM.is_empty() {
        return Err(Failure::configuration(
            "this build of the command carries no filter module: build it with `make build`",
        ));
    }
    Ok(())
}

/// The build that an Envoy of this version runs, and one line that says why when it is not the one that was asked for.
pub fn choose(asked: Option<FilterHost>, envoy: (u32, u32)) -> (FilterHost, Option<String>) {
    if asked != Some(FilterHost::Native) {
        return (FilterHost::Wasm, None);
    }
    match unfit(NATIVE, envoy) {
        None => (FilterHost::Native, None),
        Some(why) => {
            (FilterHost::Wasm, Some(format!("the filter runs as Wasm, not as a dynamic module: {why}")))
        }
    }
}

/// Why a dynamic module cannot be run by an Envoy of this version.
fn unfit(module: &[u8], version: (u32, u32)) -> Option<String> {
    let (major, minor) = NATIVE_ENVOY;
    match version {
        _ if module.is_empty() => Some(
            "this build of the command carries none for this machine; build it with `make build`".to_owned(),
        ),
        NATIVE_ENVOY => None,
        (is_major, is_minor) => {
            Some(format!("it is made for Envoy {major}.{minor}, and this is Envoy {is_major}.{is_minor}"))
        }
    }
}

/// Puts the module of a host where Envoy finds it.
pub fn install(host: FilterHost, state: &State) -> Result<Module, Failure> {
    match host {
        FilterHost::Wasm => Ok(Module::Wasm(state.write_module(WASM)?.display().to_string())),
        FilterHost::Native => state.write_native_module(NATIVE).map(Module::Native),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_module_is_for_one_version_of_envoy() {
        assert_eq!(unfit(b"module", (1, 40)), None);
        for (version, expected) in [
            ((1, 41), "it is made for Envoy 1.40, and this is Envoy 1.41"),
            ((1, 39), "it is made for Envoy 1.40, and this is Envoy 1.39"),
        ] {
            assert_eq!(unfit(b"module", version).as_deref(), Some(expected));
        }
        assert!(unfit(b"", (1, 40)).unwrap().contains("carries none for this machine"));
    }

    #[test]
    fn wasm_is_run_unless_the_other_is_asked_for() {
        let newer = (1, 41);
        for asked in [None, Some(FilterHost::Wasm)] {
            assert_eq!(choose(asked, newer), (FilterHost::Wasm, None));
        }
        let (host, why) = choose(Some(FilterHost::Native), newer);
        assert_eq!(host, FilterHost::Wasm);
        assert!(why.unwrap().starts_with("the filter runs as Wasm, not as a dynamic module: "));
    }
}
