//! `longtake import`: published weights as Longtake's safetensors.

use longtake_shared::hint::{ExitCode, Failure};
use longtake_shared::role::ImportRequest;
use longtake_shared::units::counted;

use super::{Session, files, interruption};
use crate::cli::ImportArgs;

pub(super) fn run(args: &ImportArgs, session: &Session) -> Result<ExitCode, Failure> {
    let worker = session.worker("import")?;
    files::require(&args.weights, "the weights file")?;
    let output = args.out.clone().unwrap_or_else(|| args.weights.with_extension("safetensors"));
    if output == args.weights || files::same(&output, &args.weights) {
        return Err(Failure::new(format!("`{}` would be overwritten", output.display()))
            .hint("name another file as OUT")
            .never_restart());
    }
    let interruption = interruption::in_order()?;
    let tried = files::writable(&output)?;
    let request = ImportRequest { weights: args.weights.clone(), output };
    let report = (worker.import)(&request, &interruption.stop);
    drop(tried);
    let report = report?;
    for name in &report.left_out {
        session.console.warn(&format!("`{name}` has no place in the model and is left out"));
    }
    let text = format!(
        "{}: {}, {:.2} M parameters\nwrote {}",
        report.model,
        counted(report.tensors, "tensor"),
        report.parameters as f64 / 1e6,
        report.output.display(),
    );
    session.console.result(&text, &report)?;
    Ok(ExitCode::Done)
}
