//! `longtake checkpoint`: which checkpoints a run has, whether they are whole, and how to have fewer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use indicatif::HumanBytes;
use longtake_shared::checkpoint::{
    CheckpointError, CheckpointStore, Committed, Damage, Examiner, Manifest, Retention,
};
use longtake_shared::hint::{ExitCode, Failure};
use longtake_shared::protocol::SavedStage;
use longtake_shared::units::counted;
use serde::Serialize;
use serde_json::json;

use super::Session;
use super::run_folder::RunFolder;
use super::runtime::wait_for;
use crate::cli::{CheckpointArgs, CheckpointCommand, PruneArgs, RunArgs};
use crate::server::address::{AddressError, FolderLock};
use crate::terminal::phrases::shell;

pub(super) fn run(args: &CheckpointArgs, session: &Session) -> Result<ExitCode, Failure> {
    match &args.command {
        CheckpointCommand::List(args) => list(args, session),
        CheckpointCommand::Verify(args) => verify(args, session),
        CheckpointCommand::Prune(args) => prune(args, session),
    }
}

/// One checkpoint as it is shown.
#[derive(Debug, Serialize)]
struct Row {
    object: String,
    stage: SavedStage,
    step: u64,
    incarnation: u64,
    generation: u64,
    sequence: u64,
    parts: usize,
    bytes: u64,
    /// Bytes that no older checkpoint of the list has.
    new_bytes: u64,
    best: bool,
    average_map: Option<f64>,
    whole: bool,
}

fn list(args: &RunArgs, session: &Session) -> Result<ExitCode, Failure> {
    let (_, store) = open(args)?;
    let found = wait_for(async {
        let mut found = Vec::new();
        for committed in store.list().await? {
            // What the run has swept since is not shown.
            let Some(manifest) = store.listed_manifest(&committed).await? else { continue };
            found.push((committed, manifest.ok()));
        }
        Ok::<_, CheckpointError>(found)
    })??;
    let rows = rows(&found);
    let lines: Vec<String> = rows.iter().map(line).collect();
    let text = if rows.is_empty() { "no checkpoints".to_owned() } else { lines.join("\n") };
    session.console.result(&text, &rows)?;
    Ok(ExitCode::Done)
}

/// Oldest first; the best is the last one that was the best when it was saved.
fn rows(found: &[(Committed, Option<Manifest>)]) -> Vec<Row> {
    let best = found.iter().rfind(|(committed, _)| committed.best).map(|(committed, _)| committed.sequence);
    let mut known = BTreeMap::new();
    let row = |(committed, manifest): &(Committed, Option<Manifest>)| {
        let parts = manifest.as_ref().map(Manifest::parts).unwrap_or_default();
        let fresh = parts.iter().filter(|part| known.insert(part.hash, part.bytes).is_none());
        Row {
            object: committed.manifest.object.clone(),
            stage: manifest.as_ref().map_or(SavedStage::Train, |manifest| manifest.stage),
            step: committed.step.0,
            incarnation: committed.incarnation.0,
            generation: committed.generation.0,
            sequence: committed.sequence.0,
            new_bytes: fresh.map(|part| part.bytes).sum(),
            parts: parts.len(),
            bytes: parts.iter().map(|part| part.bytes).sum(),
            best: Some(committed.sequence) == best,
            average_map: manifest.as_ref().and_then(|manifest| manifest.best).map(|best| best.average_map),
            whole: manifest.is_some(),
        }
    };
    found.iter().map(row).collect()
}

fn line(row: &Row) -> String {
    let state = match (row.whole, row.best, row.average_map) {
        (false, ..) => "  damaged manifest".to_owned(),
        (true, true, Some(map)) => format!("  best: {:.1} % mAP", 100.0 * map),
        (true, true, None) => "  best".to_owned(),
        (true, false, _) => String::new(),
    };
    format!(
        "{:<24} {}  {} ({} of it new)  generation {}{state}",
        row.object.trim_start_matches("checkpoints/").trim_end_matches("/manifest.json"),
        counted(row.parts, "part"),
        HumanBytes(row.bytes),
        HumanBytes(row.new_bytes),
        row.generation,
    )
}

fn verify(args: &RunArgs, session: &Session) -> Result<ExitCode, Failure> {
    let (_, store) = open(args)?;
    let bar = session.console.bar("verifying");
    let looked = wait_for(look(&store, || bar.inc(1)));
    bar.finish_and_clear();
    let Looked { whole, bytes, damage } = looked??;
    if !damage.is_empty() {
        let named: Vec<String> = damage.iter().map(ToString::to_string).collect();
        let objects = if damage.len() == 1 { "object is" } else { "objects are" };
        let run = shell(&args.run);
        return Err(Failure::new(format!("{} {objects} damaged: {}", damage.len(), named.join("; "))).hint(
            format!("`longtake train --resume {run}` goes on from the newest whole checkpoint and moves damaged parts aside"),
        ));
    }
    let are = if whole == 1 { "is" } else { "are" };
    let text = format!("{} {are} whole ({})", counted(whole, "checkpoint"), HumanBytes(bytes));
    session.console.result(&text, &json!({ "whole": whole, "bytes": bytes }))?;
    Ok(ExitCode::Done)
}

/// What a look at all checkpoints came to.
#[derive(Debug, Default)]
struct Looked {
    whole: usize,
    bytes: u64,
    damage: BTreeSet<Damage>,
}

/// Reads every byte; what the run sweeps meanwhile is no damage.
async fn look(store: &CheckpointStore, on_checkpoint: impl FnMut()) -> Result<Looked, CheckpointError> {
    store.read_marked(&this_process(), SystemTime::now, look_marked(store, on_checkpoint)).await
}

async fn look_marked(
    store: &CheckpointStore,
    mut on_checkpoint: impl FnMut(),
) -> Result<Looked, CheckpointError> {
    let mut examiner = Examiner::new(store.clone());
    let mut looked =
        Looked { damage: store.chain().await?.damage.into_iter().collect(), ..Looked::default() };
    let mut parts = BTreeMap::new();
    for committed in store.list().await? {
        if let Some(examined) = examiner.examine(&committed).await? {
            looked.whole += usize::from(examined.damage.is_empty());
            looked.damage.extend(examined.damage);
            parts.extend(
                examined.manifest.iter().flat_map(Manifest::parts).map(|part| (part.hash, part.bytes)),
            );
        }
        on_checkpoint();
    }
    // No sweep removes the newest one.
    let newest = store.chain().await?.checkpoints().next_back();
    if let Some(newest) = newest
        && let Err(CheckpointError::Damaged(damage)) = store.manifest(&newest.manifest).await
    {
        looked.damage.insert(damage);
    }
    looked.bytes = parts.values().sum();
    Ok(looked)
}

fn prune(args: &PruneArgs, session: &Session) -> Result<ExitCode, Failure> {
    let (folder, store) = open(&args.run)?;
    let keep = match args.keep {
        Some(keep) => keep,
        None => folder.stored_settings()?.config.checkpoint.keep,
    };
    // A coordinator that lives saves and sweeps itself.
    let _lock = FolderLock::take(&folder.0).map_err(|error| match error {
        AddressError::Taken { .. } => Failure::from(error).hint(format!(
            "a run that is running removes old checkpoints itself (`checkpoint.keep`); to prune it, stop it first: `longtake \
             stop {}`",
            shell(&folder.0)
        )),
        other => other.into(),
    })?;
    let swept = wait_for(async {
        // The fence stops a coordinator on another machine, should the folder's lock not have reached it.
        let incarnation = store.claim_incarnation(&format!("prune, {}", this_process())).await?;
        let mut appender = store.fence(incarnation).await?;
        appender.sweep(Retention { newest: keep }, &BTreeSet::new(), SystemTime::now()).await
    })??;
    let mut text = format!(
        "removed {}, {}, {}",
        counted(swept.manifests, "checkpoint"),
        counted(swept.parts, "part"),
        HumanBytes(swept.bytes)
    );
    if swept.spared_for_readers {
        text.push_str(
            "; their parts stay for now, since somebody reads checkpoints of the run: prune again later",
        );
    }
    let result = json!({
        "checkpoints": swept.manifests,
        "parts": swept.parts,
        "bytes": swept.bytes,
        "spared_for_readers": swept.spared_for_readers,
    });
    session.console.result(&text, &result)?;
    Ok(ExitCode::Done)
}

/// A name that no other process has, nor this one a second time.
pub(super) fn this_process() -> String {
    format!("process {} {}", std::process::id(), uuid::Uuid::new_v4())
}

fn open(args: &RunArgs) -> Result<(RunFolder, CheckpointStore), Failure> {
    let folder = RunFolder(args.run.clone());
    let config = folder.stored_settings()?.config;
    let absolute = std::path::absolute(&folder.0)
        .map_err(|error| Failure::new(format!("`{}` cannot be found: {error}", folder.0.display())))?;
    let store = CheckpointStore::of_run(&config, &absolute)?;
    Ok((folder, store))
}
