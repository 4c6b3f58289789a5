//! Published weights: files of the official Video Swin and of torchvision (`.pth`, `.safetensors`) become safetensors, safetensors become parameters.
//!
//! Both families are one architecture under two sets of names (spec 10, section 7). They also agree on normalisation:
//! the official weights take pixels of 0 to 255, torchvision's take 0 to 1 with mean and deviation divided by 255.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
};

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{Tensor, TensorData},
};
use longtake_shared::hint::{ExitCode, Hint};
use longtake_shared::stop::Stop;
use longtake_shared::units::counted;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use thiserror::Error;

use super::stored;
use crate::tensors::path::ModulePath;

/// How parameters of the backbone are called in a file of weights: below this.
const PREFIX: &str = "backbone.";

/// Whose file it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// SwinTransformer/Video-Swin-Transformer, and what is built on it, TALLFormer among them.
    VideoSwin,
    /// torchvision's `swin3d_t`, `swin3d_s` and `swin3d_b`.
    TorchVision,
}

impl Family {
    /// As reports and metadata call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::VideoSwin => "video-swin",
            Self::TorchVision => "torchvision",
        }
    }
}

/// One tensor of a file of weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Weight {
    /// Outermost axis first.
    pub shape: Vec<usize>,
    /// The last axis fastest.
    pub values: Vec<f32>,
}

/// What a file of another program holds, under Longtake's names.
#[derive(Debug, Clone)]
pub struct Imported {
    /// By name below the backbone, e.g. `layers.0.blocks.1.attn.qkv.weight`.
    pub tensors: BTreeMap<String, Weight>,
    /// Whose file it was.
    pub family: Family,
    /// Keys of the file that are no part of a backbone, such as its classifier.
    pub unused: Vec<String>,
}

/// Which weights of a file went into a backbone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LoadReport {
    /// Parameters that were loaded.
    pub used: Vec<String>,
    /// Parameters that the file lacks; they keep the values they had.
    pub missing: Vec<String>,
    /// Keys of the file that the backbone has no parameter for.
    pub unused: Vec<String>,
}

/// Why weights were not imported or loaded.
#[derive(Debug, Error)]
pub enum ImportError {
    /// The file is absent, or is no file of this kind.
    #[error("weights `{path}` cannot be read: {reason}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the reader said.
        reason: String,
    },
    /// Readable, but of another network.
    #[error("`{path}` holds no Video Swin weights: its first keys are {keys}")]
    NotSwin {
        /// Which file.
        path: PathBuf,
        /// A few keys.
        keys: String,
    },
    /// A tensor that is not of floating point numbers.
    #[error("`{key}` in `{path}` has the element type {dtype}, which is no float")]
    NotFloat {
        /// Which file.
        path: PathBuf,
        /// Which tensor.
        key: String,
        /// Its element type.
        dtype: String,
    },
    /// A signal has asked to stop.
    #[error("the weights were not written: a signal has asked to stop")]
    Stopped,
    /// The safetensors file could not be written.
    #[error("weights cannot be written to `{path}`: {reason}")]
    Unwritable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Parameters without a counterpart in the file.
    #[error("`{path}` lacks {} of the backbone, the first {first}", counted(*count, "weight"))]
    Missing {
        /// Which file.
        path: PathBuf,
        /// How many.
        count: usize,
        /// A few of them.
        first: String,
    },
    /// Parameters whose counterparts have other shapes.
    #[error("{count} weights in `{path}` have another shape than the backbone's, the first {first}")]
    Shape {
        /// Which file.
        path: PathBuf,
        /// How many.
        count: usize,
        /// A few of them, with both shapes.
        first: String,
    },
}

impl Hint for ImportError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Unreadable { .. } => {
                "check the path; a file that was downloaded in part has to be downloaded again".to_owned()
            }
            Self::NotSwin { .. } => {
                "take a checkpoint of the official Video Swin repository, of TALLFormer or of torchvision's \
                 `swin3d_*`"
                    .to_owned()
            }
            Self::NotFloat { .. } => "import the float checkpoint, not a quantised one".to_owned(),
            Self::Stopped => return None,
            Self::Unwritable { .. } => "check that the folder exists and has room".to_owned(),
            Self::Missing { .. } => {
                "set `model.backbone.variant` to what the file was trained as, or let the rest begin at random with \
                 `--set model.backbone.weights_may_lack=true`"
                    .to_owned()
            }
            Self::Shape { .. } => {
                "set `model.backbone.variant` (and `window_size`) to what the file was trained as".to_owned()
            }
        })
    }

    fn exit(&self) -> ExitCode {
        match self {
            Self::Stopped => ExitCode::Interrupted,
            Self::Unwritable { .. } => ExitCode::Failed,
            _ => ExitCode::NeverRestart,
        }
    }
}

/// Names up to three of a list.
fn first(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(3).map(|name| format!("`{name}`")).collect();
    shown.join(", ")
}

/// Reads a `.pth` or `.safetensors` file of either family.
pub fn read(path: &Path) -> Result<Imported, ImportError> {
    let unreadable = |reason: String| ImportError::Unreadable { path: path.to_owned(), reason };
    let all = stored::tensors(path).map_err(unreadable)?;
    let nested = all.keys().any(|key| key.starts_with("state_dict."));
    let stored: BTreeMap<&str, _> = all
        .iter()
        .filter_map(|(key, tensor)| {
            if nested {
                Some((key.strip_prefix("state_dict.")?, tensor))
            } else {
                Some((key.as_str(), tensor))
            }
        })
        .collect();
    let family = family_of(stored.keys().copied()).ok_or_else(|| {
        let keys: Vec<String> = stored.keys().map(|key| (*key).to_owned()).collect();
        ImportError::NotSwin { path: path.to_owned(), keys: first(&keys) }
    })?;
    let mut imported = Imported { tensors: BTreeMap::new(), family, unused: Vec::new() };
    for (key, tensor) in stored {
        let Some(name) = parameter_of(key, family) else {
            if !is_recomputed(key) {
                imported.unused.push(key.to_owned());
            }
            continue;
        };
        let values = (tensor.values)().map_err(unreadable)?.ok_or_else(|| ImportError::NotFloat {
            path: path.to_owned(),
            key: key.to_owned(),
            dtype: tensor.dtype.clone(),
        })?;
        imported.tensors.insert(name, Weight { shape: tensor.shape.clone(), values });
    }
    Ok(imported)
}

/// Without what wrappers put before it.
fn bare(key: &str) -> &str {
    let key = key.strip_prefix("module.").unwrap_or(key);
    key.strip_prefix(PREFIX).unwrap_or(key)
}

fn family_of<'a>(mut keys: impl Iterator<Item = &'a str> + Clone) -> Option<Family> {
    if keys.clone().any(|key| bare(key).starts_with("layers.0.blocks.0.attn.")) {
        Some(Family::VideoSwin)
    } else {
        keys.any(|key| bare(key).starts_with("features.0.0.attn.")).then_some(Family::TorchVision)
    }
}

/// Buffers that are computed, not loaded.
fn is_recomputed(key: &str) -> bool {
    key.ends_with("relative_position_index") || key.ends_with("dummy_tensor")
}

/// The backbone's parameter that a published key names (the key map of spec 10, section 7); nothing where it names none,
/// as the classifier's do.
pub fn parameter_of(key: &str, family: Family) -> Option<String> {
    let name = match family {
        Family::VideoSwin => bare(key).to_owned(),
        Family::TorchVision => from_torchvision(bare(key))?,
    };
    let is_ours = ["patch_embed.", "layers.", "norm."].iter().any(|part| name.starts_with(part));
    (is_ours && !is_recomputed(key)).then_some(name)
}

/// torchvision lists stages and mergings in one sequence, and numbers the MLP's layers.
fn from_torchvision(name: &str) -> Option<String> {
    let Some(rest) = name.strip_prefix("features.") else { return Some(name.to_owned()) };
    let (place, rest) = rest.split_once('.')?;
    let place: usize = place.parse().ok()?;
    let rest = rest.replace("mlp.0.", "mlp.fc1.").replace("mlp.3.", "mlp.fc2.");
    let part = if place.is_multiple_of(2) { "blocks" } else { "downsample" };
    Some(format!("layers.{}.{part}.{rest}", place / 2))
}

impl Imported {
    /// Writes the weights as safetensors with the keys of a Longtake checkpoint (`backbone.` and the parameter's name).
    /// The file appears whole or not at all.
    ///
    /// # Errors
    /// It cannot be written, or a request to stop has come.
    pub fn save(&self, path: &Path, stop: &Stop) -> Result<(), ImportError> {
        let unwritable = |reason: &dyn std::fmt::Display| ImportError::Unwritable {
            path: path.to_owned(),
            reason: reason.to_string(),
        };
        let views: Vec<(String, TensorView)> = self
            .tensors
            .iter()
            .map(|(name, weight)| {
                let bytes = bytemuck::cast_slice(&weight.values);
                let view =
                    TensorView::new(Dtype::F32, weight.shape.clone(), bytes).map_err(|e| unwritable(&e))?;
                Ok((format!("{PREFIX}{name}"), view))
            })
            .collect::<Result<_, ImportError>>()?;
        let metadata = HashMap::from([("imported_from".to_owned(), self.family.name().to_owned())]);
        let bytes = safetensors::serialize(views, Some(metadata)).map_err(|e| unwritable(&e))?;
        let mut partial = path.as_os_str().to_owned();
        partial.push(format!(".partial-{}", std::process::id()));
        let saved = fs::write(&partial, bytes).map_err(|e| unwritable(&e)).and_then(|()| {
            if stop.asked() {
                return Err(ImportError::Stopped);
            }
            fs::rename(&partial, path).map_err(|e| unwritable(&e))
        });
        if saved.is_err() {
            // The failure that led here is the one to report.
            drop(fs::remove_file(&partial));
        }
        saved
    }
}

/// Loads a safetensors file of weights into a backbone. Keys may stand below `backbone.` or not.
///
/// # Errors
/// Unless `allow_missing`, a parameter that the file lacks; in any case a weight of another shape, and a file that has none of the
/// parameters.
pub fn load_into<M: Module>(
    backbone: M,
    file: &Path,
    allow_missing: bool,
) -> Result<(M, LoadReport), ImportError> {
    let unreadable = |reason: &dyn std::fmt::Display| ImportError::Unreadable {
        path: file.to_owned(),
        reason: reason.to_string(),
    };
    let bytes = fs::read(file).map_err(|e| unreadable(&e))?;
    let stored = SafeTensors::deserialize(&bytes).map_err(|e| unreadable(&e))?;
    let mut loader = Loader {
        stored: &stored,
        path: ModulePath::default(),
        report: LoadReport::default(),
        shapes: Vec::new(),
    };
    let backbone = backbone.map(&mut loader);
    let Loader { mut report, shapes, .. } = loader;
    if !shapes.is_empty() {
        let (count, first) = (shapes.len(), first(&shapes));
        return Err(ImportError::Shape { path: file.to_owned(), count, first });
    }
    if !report.missing.is_empty() && (!allow_missing || report.used.is_empty()) {
        let (count, first) = (report.missing.len(), first(&report.missing));
        return Err(ImportError::Missing { path: file.to_owned(), count, first });
    }
    let used: BTreeSet<&str> = report.used.iter().map(String::as_str).collect();
    report.unused = stored
        .names()
        .into_iter()
        .filter(|key| !used.contains(key.strip_prefix(PREFIX).unwrap_or(key)))
        .map(str::to_owned)
        .collect();
    report.unused.sort();
    Ok((backbone, report))
}

/// Puts stored tensors where the module has parameters of their names.
struct Loader<'a> {
    stored: &'a SafeTensors<'a>,
    path: ModulePath,
    report: LoadReport,
    shapes: Vec<String>,
}

impl Loader<'_> {
    fn find(&self, name: &str) -> Option<TensorView<'_>> {
        self.stored.tensor(&format!("{PREFIX}{name}")).or_else(|_| self.stored.tensor(name)).ok()
    }
}

impl ModuleMapper for Loader<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.path.exit(container);
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.name();
        let shape = param.val().dims();
        let Some(view) = self.find(&name) else {
            self.report.missing.push(name);
            return param;
        };
        match stored::floats_of_safetensors(view.data(), view.dtype()) {
            Some(values) if view.shape() == shape => {
                self.report.used.push(name);
                param.map(|old| {
                    let new = Tensor::from_data(TensorData::new(values, shape), &old.device());
                    new.set_require_grad(old.is_require_grad())
                })
            }
            _ => {
                let found = format!("{name} {:?} {:?}, not F32 {shape:?}", view.dtype(), view.shape());
                self.shapes.push(found);
                param
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::{module::ModuleVisitor, tensor::Device};
    use longtake_shared::{
        config::{BackboneConfig, Variant},
        random::Key,
    };

    use super::*;
    use crate::model::backbone::swin::VideoSwin;
    use crate::model::layers::Init;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src/model/backbone/fixtures").join(name)
    }

    fn backbone(embed_dim: usize) -> VideoSwin {
        let config = BackboneConfig {
            variant: Variant::Custom,
            embed_dim,
            depths: vec![1, 1],
            num_heads: vec![1, 2],
            window_size: [2, 2, 2],
            ..BackboneConfig::default()
        };
        VideoSwin::new(&config, &Init::new(&Device::flex(), Key::root(1)))
    }

    #[derive(Default)]
    struct Collect {
        path: Vec<String>,
        found: BTreeMap<String, Weight>,
    }

    impl ModuleVisitor for Collect {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_owned());
        }

        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let tensor = param.val();
            let weight =
                Weight { shape: tensor.dims().to_vec(), values: tensor.into_data().try_to_vec().unwrap() };
            self.found.insert(self.path.join("."), weight);
        }
    }

    fn parameters(backbone: &VideoSwin) -> BTreeMap<String, Weight> {
        let mut collect = Collect::default();
        backbone.visit(&mut collect);
        collect.found
    }

    #[test]
    fn both_families_give_the_same_weights() {
        let official = read(&fixture("official.pth")).unwrap();
        let torchvision = read(&fixture("torchvision.pth")).unwrap();
        assert_eq!((official.family, torchvision.family), (Family::VideoSwin, Family::TorchVision));
        assert_eq!(official.tensors, torchvision.tensors);
        assert_eq!(official.unused, ["cls_head.fc_cls.bias", "cls_head.fc_cls.weight"]);
        assert_eq!(torchvision.unused, ["head.bias", "head.weight"]);
        assert!(!official.tensors.keys().any(|key| key.contains("relative_position_index")));
    }

    #[test]
    fn a_published_file_gives_the_same_weights_as_safetensors() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("weights.pth");
        for name in ["official.pth", "torchvision.pth"] {
            let all = stored::tensors(&fixture(name)).unwrap();
            let values: BTreeMap<&String, Vec<f32>> =
                all.iter().filter_map(|(key, tensor)| Some((key, (tensor.values)().unwrap()?))).collect();
            let views = values.iter().map(|(key, values)| {
                let bytes = bytemuck::cast_slice(values);
                (key.as_str(), TensorView::new(Dtype::F32, all[*key].shape.clone(), bytes).unwrap())
            });
            // The ending is another program's: only the content counts.
            fs::write(&file, safetensors::serialize(views, None).unwrap()).unwrap();
            let (published, copied) = (read(&fixture(name)).unwrap(), read(&file).unwrap());
            assert_eq!((copied.family, copied.tensors), (published.family, published.tensors), "{name}");
        }
        let imported = read(&fixture("official.pth")).unwrap();
        imported.save(&file, &Stop::default()).unwrap();
        assert_eq!(read(&file).unwrap().tensors, imported.tensors, "what was imported is imported again");
    }

    #[test]
    fn a_request_to_stop_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let stop = Stop::default();
        stop.ask();
        let imported = read(&fixture("official.pth")).unwrap();
        let error = imported.save(&folder.path().join("weights.safetensors"), &stop).unwrap_err();
        assert_eq!(error.exit(), ExitCode::Interrupted);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn imported_weights_are_what_the_backbone_then_holds() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("weights.safetensors");
        let imported = read(&fixture("official.pth")).unwrap();
        imported.save(&file, &Stop::default()).unwrap();
        let (loaded, report) = load_into(backbone(4), &file, false).unwrap();
        assert_eq!(parameters(&loaded), imported.tensors);
        assert_eq!(report.used.len(), imported.tensors.len());
        assert_eq!((report.missing, report.unused), (vec![], vec![]));
    }

    #[test]
    fn a_missing_weight_is_an_error_unless_it_is_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("weights.safetensors");
        let mut imported = read(&fixture("torchvision.pth")).unwrap();
        imported.tensors.remove("layers.0.blocks.0.attn.qkv.bias");
        imported.tensors.insert("norm.extra".into(), Weight { shape: vec![1], values: vec![0.5] });
        imported.save(&file, &Stop::default()).unwrap();
        let error = load_into(backbone(4), &file, false).unwrap_err();
        assert!(error.to_string().contains("`layers.0.blocks.0.attn.qkv.bias`"), "{error}");
        let fresh = parameters(&backbone(4));
        let (loaded, report) = load_into(backbone(4), &file, true).unwrap();
        let name = "layers.0.blocks.0.attn.qkv.bias";
        assert_eq!(parameters(&loaded)[name], fresh[name]);
        assert_eq!(
            (report.missing, report.unused),
            (vec![name.to_owned()], vec!["backbone.norm.extra".to_owned()])
        );
    }

    #[test]
    fn a_weight_of_another_shape_is_an_error_even_where_missing_ones_are_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("weights.safetensors");
        read(&fixture("official.pth")).unwrap().save(&file, &Stop::default()).unwrap();
        let error = load_into(backbone(8), &file, true).unwrap_err();
        assert!(matches!(error, ImportError::Shape { .. }), "{error}");
        assert!(error.to_string().contains("patch_embed.proj.weight"), "{error}");
        assert!(error.hint().unwrap().contains("model.backbone.variant"));
    }

    #[test]
    fn what_is_no_checkpoint_is_said_to_be_unreadable() {
        let error = read(&fixture("make_fixtures.py")).unwrap_err();
        assert!(matches!(error, ImportError::Unreadable { .. }), "{error}");
        let error = read(&fixture("absent.pth")).unwrap_err();
        assert!(error.to_string().contains("absent.pth"), "{error}");
    }
}
