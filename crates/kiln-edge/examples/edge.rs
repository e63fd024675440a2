//! Runs an edge on its own: `edge STATE`. `kiln edge` does the same.

fn main() -> Result<(), kiln_edge::RunError> {
    let state_dir = std::env::args_os().nth(1).unwrap_or_else(|| "/var/lib/kiln".into()).into();
    kiln_edge::run(kiln_edge::EdgeConfig { state_dir })
}
