//! What happens in a made-up video: which shape is where, when, and how it moves.

use std::f64::consts::TAU;
use std::ops::Range;

use longtake_shared::config::SynthConfig;
use longtake_shared::random::Key;
use longtake_shared::units::Seconds;
use rand::{Rng, RngExt as _};

/// The kinds of movement, each a class. They differ in how a shape moves, not in what it looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Movement {
    /// Upwards, entering again from below.
    Rise,
    /// Downwards, entering again from above.
    Fall,
    /// In circles, either way round.
    Orbit,
    /// Larger and smaller.
    Pulse,
    /// To and fro sideways.
    Sway,
    /// On and off.
    Blink,
}

impl Movement {
    /// In the order in which classes are added.
    pub(super) const ALL: [Self; 6] =
        [Self::Rise, Self::Fall, Self::Orbit, Self::Pulse, Self::Sway, Self::Blink];

    /// Name of the class.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Rise => "rise",
            Self::Fall => "fall",
            Self::Orbit => "orbit",
            Self::Pulse => "pulse",
            Self::Sway => "sway",
            Self::Blink => "blink",
        }
    }
}

/// What a shape looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outline {
    Disc,
    Square,
    Diamond,
    Ring,
}

impl Outline {
    const ALL: [Self; 4] = [Self::Disc, Self::Square, Self::Diamond, Self::Ring];
}

/// A shape's looks and resting place; lengths are parts of the picture's height, x = 0.5 is the middle of the picture.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) outline: Outline,
    /// Red, green, blue from 0 to 255.
    pub(super) colour: [f32; 3],
    radius: f64,
    x: f64,
    y: f64,
}

/// Where a shape is in one frame, and how much of it is seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pose {
    /// Parts of the width.
    pub(super) x: f64,
    /// Parts of the height.
    pub(super) y: f64,
    /// Part of the height.
    pub(super) radius: f64,
    /// 0 to 1.
    pub(super) opacity: f64,
}

/// A shape that performs one annotated action.
#[derive(Debug, Clone)]
pub(super) struct Action {
    pub(super) movement: Movement,
    pub(super) frames: Range<usize>,
    pub(super) shape: Shape,
    /// Heights a second, turns a second, or cycles a second.
    speed: f64,
    /// Part of the picture that the movement reaches to either side.
    reach: f64,
    /// Where in its cycle the movement starts, 0 to 1.
    phase: f64,
}

/// A shape that performs nothing: it stands, or drifts sideways too slowly for any class.
#[derive(Debug, Clone)]
pub(super) struct Bystander {
    pub(super) frames: Range<usize>,
    pub(super) shape: Shape,
    /// Widths a second.
    drift: f64,
}

/// One video.
#[derive(Debug, Clone)]
pub(super) struct Script {
    pub(super) frames: usize,
    pub(super) fps: f64,
    /// In order of time; no two overlap.
    pub(super) actions: Vec<Action>,
    pub(super) bystanders: Vec<Bystander>,
    /// Pixels a second that the background moves, in parts of the height: (x, y).
    pub(super) wind: (f64, f64),
    /// Of the background and the noise.
    pub(super) key: Key,
}

/// Length of an action and quiet before, between and after actions, in seconds.
const ACTION: Range<f64> = 2.0..6.0;
const QUIET: f64 = 1.0;
/// Actions of a video, if they fit.
const ACTIONS: std::ops::RangeInclusive<usize> = 2..=4;
/// Seconds that a shape takes to appear and to vanish.
const FADE: f64 = 0.2;

impl Script {
    /// The video of a number in a part of the data set; a function of the settings alone.
    pub(super) fn new(config: &SynthConfig, part: &str, number: usize) -> Self {
        let key = Key::root(config.seed).child(part, number as u64);
        let mut rng = key.child("script", 0).rng();
        let duration = rng.random_range(config.min_duration.0..=config.max_duration.0);
        let frames = super::frames(Seconds(duration), config.fps);
        let actions = place(&mut rng, frames as f64 / config.fps)
            .into_iter()
            .enumerate()
            .map(|(at, seconds)| {
                // The first action goes through the classes in turn, so that few videos hold all of them.
                let label =
                    if at == 0 { number % config.classes } else { rng.random_range(0..config.classes) };
                let start = (seconds.start * config.fps).round() as usize;
                let end = ((seconds.end * config.fps).round() as usize).clamp(start + 1, frames);
                Action::new(&mut rng, Movement::ALL[label], start..end)
            })
            .collect();
        let bystanders = bystanders(&mut rng, frames, config.fps);
        let wind = (rng.random_range(-0.04..0.04), rng.random_range(-0.02..0.02));
        Self { frames, fps: config.fps, actions, bystanders, wind, key }
    }

    /// The shapes of a frame, those in front last.
    pub(super) fn shapes(&self, frame: usize) -> impl Iterator<Item = (Shape, Pose)> {
        let fps = self.fps;
        let standing = self.bystanders.iter().filter(move |shape| shape.frames.contains(&frame));
        let moving = self.actions.iter().filter(move |action| action.frames.contains(&frame));
        standing
            .map(move |shape| (shape.shape, shape.pose(frame, fps)))
            .chain(moving.map(move |action| (action.shape, action.pose(frame, fps))))
    }
}

/// Where actions lie in a video of some seconds: as many as drawn, or as fit.
fn place(rng: &mut impl Rng, duration: f64) -> Vec<Range<f64>> {
    let mut lengths: Vec<f64> = (0..rng.random_range(ACTIONS)).map(|_| rng.random_range(ACTION)).collect();
    while lengths.len() > 1 && lengths.iter().sum::<f64>() + QUIET * (lengths.len() + 1) as f64 > duration {
        lengths.pop();
    }
    // A video too short for one action with quiet around it: most of it is action.
    let (quiet, longest) =
        if duration > ACTION.end + 2.0 * QUIET { (QUIET, f64::MAX) } else { (0.0, duration * 0.6) };
    for length in &mut lengths {
        *length = length.min(longest);
    }
    let free = duration - lengths.iter().sum::<f64>() - quiet * (lengths.len() + 1) as f64;
    let mut cuts: Vec<f64> = lengths.iter().map(|_| rng.random_range(0.0..=free.max(0.0))).collect();
    cuts.sort_by(f64::total_cmp);
    let mut before = 0.0;
    cuts.into_iter()
        .zip(lengths)
        .map(|(cut, length)| {
            let start = cut + before + quiet;
            before += length + quiet;
            start..start + length
        })
        .collect()
}

/// Shapes that stand around for a while, some four of them in half a minute.
fn bystanders(rng: &mut impl Rng, frames: usize, fps: f64) -> Vec<Bystander> {
    let count = (frames as f64 / fps / 8.0).ceil() as usize;
    (0..count)
        .map(|_| {
            let length = (rng.random_range(2.0..7.0) * fps) as usize;
            let start = rng.random_range(0..frames);
            let shape = Shape::new(rng, 0.15..0.85, 0.15..0.85);
            let drift = if rng.random_bool(0.5) { rng.random_range(-0.03..0.03) } else { 0.0 };
            Bystander { frames: start..(start + length.max(1)).min(frames), shape, drift }
        })
        .collect()
}

impl Shape {
    fn new(rng: &mut impl Rng, x: Range<f64>, y: Range<f64>) -> Self {
        let outline = Outline::ALL[rng.random_range(0..Outline::ALL.len())];
        let hue = rng.random_range(0.0..TAU);
        let colour = std::array::from_fn(|channel| {
            let wave = (hue + TAU * channel as f64 / 3.0).cos();
            (205.0 + 50.0 * wave) as f32
        });
        Self {
            outline,
            colour,
            radius: rng.random_range(0.10..0.16),
            x: rng.random_range(x),
            y: rng.random_range(y),
        }
    }
}

impl Action {
    fn new(rng: &mut impl Rng, movement: Movement, frames: Range<usize>) -> Self {
        // Places leave room for the movement; speeds differ by less than a factor of two, so that a class stays one class.
        let (x, y, speed, reach) = match movement {
            Movement::Rise | Movement::Fall => (0.15..0.85, 0.4..0.6, 0.55..0.9, 0.65..0.66),
            Movement::Orbit => (0.35..0.65, 0.42..0.58, 0.55..0.9, 0.22..0.3),
            Movement::Pulse => (0.2..0.8, 0.3..0.7, 0.8..1.3, 0.5..0.65),
            Movement::Sway => (0.4..0.6, 0.2..0.8, 0.55..0.9, 0.25..0.33),
            Movement::Blink => (0.15..0.85, 0.2..0.8, 1.2..2.0, 0.0..0.1),
        };
        let shape = Shape::new(rng, x, y);
        let way = if movement == Movement::Orbit && rng.random_bool(0.5) { -1.0 } else { 1.0 };
        Self {
            movement,
            frames,
            shape,
            speed: way * rng.random_range(speed),
            reach: rng.random_range(reach),
            phase: rng.random_range(0.0..1.0),
        }
    }

    fn pose(&self, frame: usize, fps: f64) -> Pose {
        let seconds = frame.saturating_sub(self.frames.start) as f64 / fps;
        let cycle = self.phase + self.speed * seconds;
        let Shape { x, y, radius, .. } = self.shape;
        let mut pose = Pose { x, y, radius, opacity: faded(&self.frames, frame, fps) };
        // From just outside one edge to just outside the other.
        let track = 1.0 + 2.0 * radius;
        let travelled = |heights: f64| (heights / track).rem_euclid(1.0) * track - radius;
        let (sine, cosine) = (TAU * cycle).sin_cos();
        match self.movement {
            Movement::Rise => pose.y = 1.0 - travelled(cycle),
            Movement::Fall => pose.y = travelled(cycle),
            Movement::Orbit => {
                pose.x += self.reach * cosine * 0.75;
                pose.y += self.reach * sine;
            }
            Movement::Pulse => pose.radius *= 1.0 + self.reach * sine,
            Movement::Sway => pose.x += self.reach * sine,
            Movement::Blink => pose.opacity *= if cycle.rem_euclid(1.0) < 0.5 { 1.0 } else { 0.0 },
        }
        pose
    }
}

impl Bystander {
    fn pose(&self, frame: usize, fps: f64) -> Pose {
        let Shape { x, y, radius, .. } = self.shape;
        let seconds = frame.saturating_sub(self.frames.start) as f64 / fps;
        Pose { x: x + self.drift * seconds, y, radius, opacity: faded(&self.frames, frame, fps) }
    }
}

/// 1 within a span, rising and falling at its ends.
fn faded(frames: &Range<usize>, frame: usize, fps: f64) -> f64 {
    let from_edge = (frame + 1 - frames.start).min(frames.end - frame);
    (from_edge as f64 / (FADE * fps).max(1.0)).min(1.0)
}
