//! What the spec says and no suite for plugins can ask, with the reason.

/// A statement of the checklist without a question.
#[derive(Debug, Clone, Copy)]
pub struct Untestable {
    /// Its id in the checklist.
    pub id: &'static str,
    /// What it says.
    pub statement: &'static str,
    /// Why nobody can ask.
    pub why: &'static str,
}

const fn untestable(id: &'static str, statement: &'static str, why: &'static str) -> Untestable {
    Untestable { id, statement, why }
}

const RUNTIME: &str = "it is a duty of runtimes; the suite, which plays the runtime, does so";

/// All of them.
pub const UNTESTABLE: &[Untestable] = &[
    untestable(
        "ADD-10",
        "Be prepared to skip the own default route if another network has set one.",
        "what is right depends on the operator's config, and no result says what was skipped",
    ),
    untestable(
        "CHK-6",
        "Allow a reasonable convergence delay.",
        "how long is reasonable is not said; that CHECK succeeds right after ADD is asked by CHK-1a",
    ),
    untestable("DEL-7", "DEL runs in reverse order and halts at the first error.", RUNTIME),
    untestable(
        "GC-2",
        "A plugin may assume that the stale namespace is gone.",
        "it is a permission; every question about GC removes the namespace first",
    ),
    untestable("GC-6", "The runtime excludes ADD and DEL while GC runs.", RUNTIME),
    untestable("GC-9", "libcni sends DEL for stale cached attachments before GC.", RUNTIME),
    untestable("CFG-1", "Network names are unique on a host.", "it is a duty of operators"),
    untestable(
        "CFG-2",
        "`type` has no path separators.",
        "runtimes look plugins up; for ipam.type it is asked by IPAM-7d",
    ),
    untestable("CFG-3", "loadOnlyInlinedPlugins needs plugins.", RUNTIME),
    untestable("CFG-4", "Reserved keys are not used in static config.", "it is a duty of operators"),
    untestable("RT-1", "A new namespace comes before any plugin.", RUNTIME),
    untestable("RT-2", "No parallel operations on the same container.", RUNTIME),
    untestable("RT-3", "GC excludes ADD and DEL.", RUNTIME),
    untestable("RT-4", "Every ADD is followed by a DEL.", RUNTIME),
    untestable("RT-5", "The config does not change between ADD and DEL.", RUNTIME),
    untestable("RT-6", "name and cniVersion are injected into each plugin's config.", RUNTIME),
    untestable("RT-7", "prevResult is the previous plugin's, and the final one for CHECK and DEL.", RUNTIME),
    untestable("RT-8", "DEL runs in reverse order.", RUNTIME),
    untestable("RT-9", "ADD, DEL and CHECK stop at the first error, GC goes on.", RUNTIME),
    untestable("RT-10", "The final result of ADD is kept.", RUNTIME),
    untestable("RT-11", "The highest version that all support is chosen.", RUNTIME),
    untestable("RT-12", "runtimeConfig has what is declared and provided.", RUNTIME),
    untestable("RT-13", "Plugins run in the host's namespace.", RUNTIME),
    untestable("RT-14", "No CHECK if disableCheck is set, before ADD or after DEL.", RUNTIME),
    untestable("RT-15", "No GC if disableGC is set.", RUNTIME),
];
