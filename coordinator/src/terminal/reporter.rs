//! Shows a run as it goes on: bars on a terminal, plain lines elsewhere, metrics.jsonl beside both.

use std::collections::BTreeMap;
use std::io::Write;

use indicatif::{ProgressBar, ProgressStyle};
use longtake_shared::units::Seconds;

use super::metrics_file::MetricsFile;
use super::phrases;
use super::rate::Rate;
use crate::updates::{Progress, RunUpdate, Stage};

/// Where a run is shown.
pub enum View {
    /// One bar for the stage that is running, lines above it.
    Bars(ProgressBar),
    /// A line now and then.
    Lines(Box<dyn Write + Send>),
}

impl View {
    /// Bars where they can be drawn, lines on standard error elsewhere.
    pub fn of_process(live: bool) -> Self {
        if live { Self::Bars(ProgressBar::hidden()) } else { Self::Lines(Box::new(std::io::stderr())) }
    }

    fn line(&mut self, text: &str) {
        match self {
            Self::Bars(bar) if bar.is_finished() || bar.is_hidden() => {
                // Nobody is left to tell that standard error is closed.
                drop(writeln!(std::io::stderr(), "{text}"));
            }
            Self::Bars(bar) => bar.println(text),
            Self::Lines(sink) => drop(writeln!(sink, "{text}")),
        }
    }
}

/// Takes every [`RunUpdate`] of a run in order.
pub struct Reporter {
    view: View,
    metrics: Option<MetricsFile>,
    epochs: Option<u64>,
    rates: BTreeMap<Stage, Rate>,
    last_line: Option<Seconds>,
    last_report: Option<serde_json::Value>,
    saved: bool,
}

impl Reporter {
    /// `epochs` is what the run will train, where that is known.
    pub fn new(view: View, metrics: Option<MetricsFile>, epochs: Option<u64>) -> Self {
        Self {
            view,
            metrics,
            epochs,
            rates: BTreeMap::new(),
            last_line: None,
            last_report: None,
            saved: false,
        }
    }

    /// Shows and writes down one update.
    pub fn show(&mut self, update: &RunUpdate) {
        self.write_down(update);
        match update {
            RunUpdate::Stage { stage, total, done } => self.begin(*stage, *total, *done),
            RunUpdate::Validated { report, .. } => self.last_report = Some(report.clone()),
            RunUpdate::Saved { .. } => self.saved = true,
            RunUpdate::Finished { .. } => self.end_bar(),
            _ => {}
        }
        if let RunUpdate::Progress(progress) = update {
            self.progress(progress);
        } else if let Some(text) = phrases::event(update) {
            self.view.line(&text);
        }
    }

    /// Takes the bar away; gives the report of the last validation, and whether a checkpoint was saved.
    pub fn close(self) -> (Option<serde_json::Value>, bool) {
        self.end_bar();
        (self.last_report, self.saved)
    }

    fn write_down(&mut self, update: &RunUpdate) {
        let Some(metrics) = &mut self.metrics else { return };
        if let Err(error) = metrics.append(update) {
            let path = metrics.path().display().to_string();
            self.metrics = None;
            self.view.line(&format!("warning: `{path}` cannot be written any more: {error}"));
        }
    }

    fn begin(&mut self, stage: Stage, total: u64, done: u64) {
        self.rates.entry(stage).or_default().pause();
        self.last_line = None;
        self.end_bar();
        if let View::Bars(bar) = &mut self.view {
            let style = ProgressStyle::with_template("{prefix:>9} {bar:24.cyan/dim} {wide_msg}");
            *bar = ProgressBar::new(total.max(1)).with_prefix(stage.name()).with_position(done);
            if let Ok(style) = style {
                bar.set_style(style.progress_chars("━╸─"));
            }
        }
    }

    fn progress(&mut self, progress: &Progress) {
        let rate = self.rates.entry(progress.stage).or_default();
        rate.observe(progress.done, progress.elapsed);
        let text = phrases::progress(progress, rate, self.epochs);
        match &mut self.view {
            View::Bars(bar) => {
                bar.set_position(progress.done);
                bar.set_message(text);
            }
            View::Lines(_) => {
                let last_unit = progress.done >= progress.total;
                if last_unit || phrases::line_is_due(progress.elapsed, self.last_line) {
                    self.last_line = Some(progress.elapsed);
                    self.view.line(&format!("{:>9}  {text}", progress.stage.name()));
                }
            }
        }
    }

    fn end_bar(&self) {
        if let View::Bars(bar) = &self.view {
            bar.finish_and_clear();
        }
    }
}
