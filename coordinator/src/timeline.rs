//! Detections and ground truth of videos as a picture: one time axis a video, one row a class. Data in, SVG out.

mod axis;
mod canvas;
mod lanes;

use longtake_shared::units::Seconds;

use axis::Axis;
use canvas::{Canvas, Paint, Text};
use lanes::{Placed, place};

/// What a picture shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// The heading.
    pub title: String,
    /// Detections below this score are left out.
    pub threshold: f64,
    /// The videos, from top to bottom.
    pub panels: Vec<Panel>,
}

/// One video of a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// The video's name.
    pub video: String,
    /// Its length.
    pub duration: Seconds,
    /// What happens in it, where that is known.
    pub truth: Option<Vec<Segment>>,
    /// What was found in it.
    pub detections: Vec<Detection>,
}

/// Something that happens from one time to another.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// Name of the class.
    pub label: String,
    /// Where it starts.
    pub start: Seconds,
    /// Where it ends.
    pub end: Seconds,
}

/// A segment that a detector is more or less sure of.
#[derive(Debug, Clone, PartialEq)]
pub struct Detection {
    /// What and where.
    pub segment: Segment,
    /// How sure, from 0 to 1.
    pub score: f64,
}

const WIDTH: f64 = 1120.0;
const MARGIN: f64 = 32.0;
const HEADER: f64 = 92.0;
const PANEL_HEADING: f64 = 34.0;
const PANEL_GAP: f64 = 26.0;
const AXIS_HEIGHT: f64 = 30.0;
const ROW_PADDING: f64 = 9.0;
const TRUTH_HEIGHT: f64 = 9.0;
const TRUTH_GAP: f64 = 5.0;
/// Height of a row's detections, the best ones in the first lane; what overlaps more than this many is left out.
const LANE_HEIGHTS: [f64; 3] = [18.0, 8.0, 8.0];
const LANE_GAP: f64 = 3.0;
const LETTER: f64 = 7.4;
const LABEL_LETTERS_MAX: usize = 26;

const INK: &str = "#1f2933";
const MUTED: &str = "#647182";
const FAINT: &str = "#e4e8ed";
const BAND: &str = "#f7f9fb";
const TRUTH: &str = "#46525f";
/// The palette of Okabe and Ito, made to be told apart by colour-blind readers, without its black and yellow.
const PALETTE: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
/// The first colours of the palette are dark enough for white text.
const DARK_COLOURS: usize = 3;

/// Draws the picture.
pub fn draw(picture: &Picture) -> String {
    let classes = classes(picture);
    let letters = classes.iter().map(|class| shorten(class).chars().count()).max().unwrap_or(0);
    let left = MARGIN + 16.0 + LETTER * letters as f64;
    let panels: Vec<Rows> = picture.panels.iter().map(|panel| Rows::of(panel, picture.threshold)).collect();
    let height = HEADER + panels.iter().map(|rows| rows.height() + PANEL_GAP).sum::<f64>() + 6.0;

    let mut canvas = Canvas::new(WIDTH, height, &picture.title);
    header(&mut canvas, picture);
    let mut top = HEADER;
    for (panel, rows) in picture.panels.iter().zip(&panels) {
        let axis = Axis::new(panel.duration, left, WIDTH - MARGIN);
        draw_panel(&mut canvas, &PanelPlace { panel, rows, axis, top, classes: &classes });
        top += rows.height() + PANEL_GAP;
    }
    canvas.finish()
}

/// One panel and where it goes.
struct PanelPlace<'a> {
    panel: &'a Panel,
    rows: &'a Rows,
    axis: Axis,
    top: f64,
    classes: &'a [String],
}

/// A panel's rows with the detections that are shown.
struct Rows {
    threshold: f64,
    rows: Vec<Row>,
    shown: usize,
    /// At or above the threshold, but hidden behind better ones.
    hidden: usize,
    best: Option<f64>,
}

/// What a class did in one video.
struct Row {
    label: String,
    truth: Vec<Segment>,
    detections: Vec<Placed>,
}

impl Rows {
    fn of(panel: &Panel, threshold: f64) -> Self {
        let truth = panel.truth.as_deref().unwrap_or_default();
        let above: Vec<&Detection> =
            panel.detections.iter().filter(|found| found.score >= threshold).collect();
        let mut starts: Vec<(f64, &str)> = Vec::new();
        for segment in truth.iter().chain(above.iter().map(|found| &found.segment)) {
            match starts.iter_mut().find(|(_, label)| *label == segment.label) {
                Some((start, _)) => *start = start.min(segment.start.0),
                None => starts.push((segment.start.0, &segment.label)),
            }
        }
        starts.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(b.1)));
        let rows: Vec<Row> = starts
            .iter()
            .map(|(_, label)| Row {
                label: (*label).to_owned(),
                truth: truth.iter().filter(|segment| segment.label == *label).cloned().collect(),
                detections: place(
                    above.iter().filter(|found| found.segment.label == *label).copied(),
                    LANE_HEIGHTS.len(),
                ),
            })
            .collect();
        let shown = rows.iter().map(|row| row.detections.len()).sum();
        let best = panel.detections.iter().map(|found| found.score).max_by(f64::total_cmp);
        Self { threshold, rows, shown, hidden: above.len() - shown, best }
    }

    fn height(&self) -> f64 {
        let rows: f64 = self.rows.iter().map(Row::height).sum();
        PANEL_HEADING + rows.max(LANE_HEIGHTS[0] + 2.0 * ROW_PADDING) + AXIS_HEIGHT
    }

    /// What the heading says behind the video's name.
    fn summary(&self, panel: &Panel) -> String {
        let mut parts = vec![axis::length(panel.duration)];
        if let Some(truth) = &panel.truth {
            parts.push(counted(truth.len(), "action"));
        }
        match (self.shown, self.best) {
            (0, Some(best)) => {
                parts.push(format!("no detection reaches {:.2}, the best has {best:.2}", self.threshold));
            }
            (0, None) => parts.push("no detections".to_owned()),
            (shown, _) => parts.push(counted(shown, "detection")),
        }
        if self.hidden > 0 {
            parts.push(format!("{} more behind better ones", self.hidden));
        }
        parts.join("  ·  ")
    }
}

impl Row {
    fn lanes(&self) -> usize {
        self.detections.iter().map(|placed| placed.lane + 1).max().unwrap_or(1)
    }

    /// Where a lane begins, below the row's top.
    fn lane_top(lane: usize) -> f64 {
        let above: f64 = LANE_HEIGHTS[..lane].iter().map(|height| height + LANE_GAP).sum();
        ROW_PADDING + TRUTH_HEIGHT + TRUTH_GAP + above
    }

    fn height(&self) -> f64 {
        let last = self.lanes() - 1;
        Self::lane_top(last) + LANE_HEIGHTS[last] + ROW_PADDING
    }
}

/// All classes of the picture in the order of their names, so that a class has one colour in every panel.
fn classes(picture: &Picture) -> Vec<String> {
    let mut classes: Vec<String> = picture
        .panels
        .iter()
        .flat_map(|panel| {
            let truth = panel.truth.iter().flatten();
            let found = panel.detections.iter().filter(|found| found.score >= picture.threshold);
            truth.chain(found.map(|found| &found.segment)).map(|segment| segment.label.clone())
        })
        .collect();
    classes.sort();
    classes.dedup();
    classes
}

fn header(canvas: &mut Canvas, picture: &Picture) {
    canvas.text(MARGIN, 44.0, &Text::new(&picture.title, 21.0, INK).bold());
    let counted_videos = counted(picture.panels.len(), "video");
    canvas.text(MARGIN, 68.0, &Text::new(&counted_videos, 13.0, MUTED));
    legend(canvas, picture.threshold, picture.panels.iter().any(|panel| panel.truth.is_some()));
}

/// What the bars mean, at the upper right.
fn legend(canvas: &mut Canvas, threshold: f64, truth: bool) {
    let right = WIDTH - MARGIN;
    let base = 44.0;
    let steps = 5;
    let swatch = 20.0;
    let scale = f64::from(steps) * swatch;
    canvas.text(right, base, &Text::new("1.00", 12.0, MUTED).right());
    let mut x = right - 34.0 - scale;
    for step in 0..steps {
        let score = threshold + (1.0 - threshold) * (f64::from(step) + 0.5) / f64::from(steps);
        let paint = Paint { fill: PALETTE[0], opacity: opacity(score, threshold), radius: 0.0 };
        canvas.rect([x, base - 11.0, swatch, 13.0], paint, "");
        x += swatch;
    }
    let start = right - 34.0 - scale - 8.0;
    let smallest = format!("detected, score {threshold:.2}");
    canvas.text(start, base, &Text::new(&smallest, 12.0, MUTED).right());
    if truth {
        let x = start - 6.6 * smallest.len() as f64 - 60.0;
        canvas.rect([x, base - 8.5, 40.0, TRUTH_HEIGHT], Paint::solid(TRUTH), "");
        canvas.text(x - 8.0, base, &Text::new("annotated", 12.0, MUTED).right());
    }
}

fn draw_panel(canvas: &mut Canvas, place: &PanelPlace<'_>) {
    let PanelPlace { panel, rows, axis, top, classes } = place;
    canvas.text(MARGIN, top + 18.0, &Text::new(&panel.video, 14.0, INK).bold());
    canvas.text(WIDTH - MARGIN, top + 18.0, &Text::new(&rows.summary(panel), 12.0, MUTED).right());

    let first = top + PANEL_HEADING;
    let bottom = top + rows.height() - AXIS_HEIGHT;
    let mut row_tops = Vec::with_capacity(rows.rows.len());
    let mut row_top = first;
    for (index, row) in rows.rows.iter().enumerate() {
        row_tops.push(row_top);
        if index % 2 == 0 {
            let paint = Paint { fill: BAND, opacity: 1.0, radius: 4.0 };
            canvas.rect([MARGIN - 8.0, row_top, WIDTH - 2.0 * MARGIN + 16.0, row.height()], paint, "");
        }
        row_top += row.height();
    }
    for tick in axis.ticks() {
        canvas.line([axis.x(tick), first, axis.x(tick), bottom], FAINT, None);
        canvas.text(axis.x(tick), bottom + 18.0, &Text::new(&axis.label(tick), 11.5, MUTED).centred());
    }
    canvas.line([axis.left, bottom, axis.right, bottom], MUTED, None);
    for (row, row_top) in rows.rows.iter().zip(row_tops) {
        let colour = classes.iter().position(|class| *class == row.label).unwrap_or(0) % PALETTE.len();
        draw_row(canvas, row, (axis, rows.threshold), row_top, PALETTE[colour]);
    }
}

fn draw_row(canvas: &mut Canvas, row: &Row, (axis, threshold): (&Axis, f64), top: f64, colour: &'static str) {
    let name_base = top + Row::lane_top(0) + 13.0;
    canvas.text(axis.left - 14.0, name_base, &Text::new(&shorten(&row.label), 13.0, INK).right());
    let truth_top = top + ROW_PADDING;
    for segment in &row.truth {
        let [start, end] = axis.span(segment);
        // The edges reach down to the detections, so that early and late can be seen.
        for x in [start, end] {
            canvas.line([x, truth_top + TRUTH_HEIGHT, x, top + row.height() - 4.0], TRUTH, Some("2 3"));
        }
        canvas.rect([start, truth_top, end - start, TRUTH_HEIGHT], Paint::solid(TRUTH), &told(segment));
    }
    for placed in &row.detections {
        let [start, end] = axis.span(&placed.detection.segment);
        let lane_top = top + Row::lane_top(placed.lane);
        let score = placed.detection.score;
        let paint = Paint { fill: colour, opacity: opacity(score, threshold), radius: 2.5 };
        let told = format!("{}, score {score:.2}", told(&placed.detection.segment));
        canvas.rect([start, lane_top, end - start, LANE_HEIGHTS[placed.lane]], paint, &told);
        if placed.lane == 0 && end - start >= 32.0 {
            let dark = PALETTE[..DARK_COLOURS].contains(&colour) && paint.opacity > 0.7;
            let ink = if dark { "#ffffff" } else { INK };
            let text = format!("{score:.2}");
            canvas.text(f64::midpoint(start, end), lane_top + 13.2, &Text::new(&text, 11.5, ink).centred());
        }
    }
}

/// Sure is opaque; what is just above the threshold can still be seen.
fn opacity(score: f64, threshold: f64) -> f64 {
    let above = (score - threshold) / (1.0 - threshold).max(1e-6);
    0.25 + 0.75 * above.clamp(0.0, 1.0)
}

/// A segment in words, shown where the pointer rests.
fn told(segment: &Segment) -> String {
    format!("{} from {:.1} s to {:.1} s", segment.label, segment.start.0, segment.end.0)
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn shorten(label: &str) -> String {
    if label.chars().count() <= LABEL_LETTERS_MAX {
        return label.to_owned();
    }
    label.chars().take(LABEL_LETTERS_MAX - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests;
