//! `longtake import`: published weights as Longtake's safetensors.

use longtake_shared::hint::{ExitCode, Failure};
use longtake_shared::role::ImportRequest;

use super::{Session, files};
use crate::cli::ImportArgs;

pub(super) fn run(args: &ImportArgs, session: &Session) -> Result<ExitCode, Failure> {
    let worker = session.worker("import")?;
    files::require(&args.weights, "the weights file")?;
    let output = args.out.clone().unwrap_or_else(|| args.weights.with_extension("safetensors"));
    if output == args.weights {
        return Err(Failure::new(format!("`{}` would be overwritten", output.display()))
            .hint("name another file as OUT"));
    }
    let report = (worker.import)(&ImportRequest { weights: args.weights.clone(), output })?;
    for name in &report.left_out {
        session.console.warn(&format!("`{name}` has no place in the model and is left out"));
    }
    let text = format!(
        "{}: {} tensors, {:.2} M parameters\nwrote {}",
        report.model,
        report.tensors,
        report.parameters as f64 / 1e6,
        report.output.display(),
    );
    session.console.result(&text, &report)?;
    Ok(ExitCode::Done)
}
