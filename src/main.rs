//! The `rnet` program. See `cli`.

fn main() -> std::process::ExitCode {
    rnet::cli::main()
}
