//! Which parameter lies where in the flat vectors: the same on every rank, since it follows a module's fields.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor};

use super::flat::Flat;
use crate::tensors::path::ModulePath;

/// How a parameter is updated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamGroup {
    /// Not at all: neither a gradient nor weight decay moves it.
    Frozen,
    /// With the backbone's learning rate (`optim.backbone_multiplier`).
    Backbone,
    /// With the learning rate itself.
    Other,
}

impl ParamGroup {
    /// The groups that train, in the order of their flat vectors.
    pub const TRAINED: [Self; 2] = [Self::Backbone, Self::Other];
}

/// One tensor of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamEntry {
    /// Dotted field names, such as `backbone.patch_embed.proj.weight`.
    pub path: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// How it is updated.
    pub group: ParamGroup,
    /// Where it begins in its group's flat vector; 0 where it is frozen.
    pub offset: usize,
}

impl ParamEntry {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it holds no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Parameters that are to be frozen, and that the module does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the model has no parameter below `{prefix}`, so the parameters there cannot be frozen")]
pub struct UnknownPrefix {
    /// What their paths begin with.
    pub prefix: String,
}

/// Where each parameter of a module lies.
///
/// Running statistics of BatchNorm (`running_mean`, `running_var`) count as frozen: they are not learned.
/// A layout fits the module it was built from and its later states; with another module its methods panic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlatLayout {
    entries: Vec<ParamEntry>,
    lengths: [usize; 2],
}

impl FlatLayout {
    /// The layout of a module. Parameters whose path begins with one of `frozen` never move; whatever lies below `backbone.`
    /// forms a group of its own.
    ///
    /// # Errors
    /// A prefix in `frozen` that no parameter has.
    pub fn new<M: Module>(module: &M, frozen: &[String]) -> Result<Self, UnknownPrefix> {
        let (path, entries) = (ModulePath::default(), Vec::new());
        let mut visitor = Describe { path, entries, lengths: [0; 2], frozen };
        module.visit(&mut visitor);
        let Describe { entries, lengths, .. } = visitor;
        let unmatched = |prefix: &&String| !entries.iter().any(|entry| entry.path.starts_with(*prefix));
        match frozen.iter().find(unmatched) {
            Some(prefix) => Err(UnknownPrefix { prefix: prefix.clone() }),
            None => Ok(Self { entries, lengths }),
        }
    }

    /// Every floating-point tensor of the module, frozen ones included, in the order of its fields.
    pub fn entries(&self) -> &[ParamEntry] {
        &self.entries
    }

    /// The entries that train, in the order of the flat vectors.
    pub fn trained(&self) -> impl Iterator<Item = &ParamEntry> {
        ParamGroup::TRAINED
            .into_iter()
            .flat_map(|group| self.entries.iter().filter(move |entry| entry.group == group))
    }

    /// Values of a group.
    pub fn group_len(&self, group: ParamGroup) -> usize {
        slot(group).map_or(0, |slot| self.lengths[slot])
    }

    /// Values that train.
    pub fn len(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// Whether nothing trains.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The module with gradients required of what trains and of nothing else.
    #[must_use]
    pub fn require_gradients<M: Module>(&self, module: M) -> M {
        module.map(&mut RequireGradients { entries: self.entries.iter() })
    }

    /// The values of what trains, without a tape.
    pub fn gather_params<M: Module>(&self, module: &M) -> Flat {
        let mut visitor = GatherParams { gather: Gather::new(self) };
        module.visit(&mut visitor);
        visitor.gather.finish()
    }

    /// Moves the gradients of what trains out of `gradients`; a parameter without one has zeros.
    pub fn gather_gradients<M: Module>(&self, module: &M, gradients: &mut Gradients) -> Flat {
        let mut visitor = GatherGradients { gather: Gather::new(self), gradients };
        module.visit(&mut visitor);
        visitor.gather.finish()
    }

    /// The module with these values. Parameter ids, required gradients and whether there is a tape stay as they are.
    #[must_use]
    pub fn scatter_params<M: Module>(&self, module: M, params: &Flat) -> M {
        module.map(&mut Scatter { entries: self.entries.iter(), params })
    }
}

/// The position of a group's flat vector; nothing for frozen parameters.
pub(super) fn slot(group: ParamGroup) -> Option<usize> {
    ParamGroup::TRAINED.iter().position(|trained| *trained == group)
}

struct Describe<'a> {
    path: ModulePath,
    entries: Vec<ParamEntry>,
    lengths: [usize; 2],
    frozen: &'a [String],
}

impl ModuleVisitor for Describe<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.path.exit(container);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.name();
        let is_frozen = self.frozen.iter().any(|prefix| path.starts_with(prefix.as_str()));
        let group = if matches!(self.path.last(), "running_mean" | "running_var") || is_frozen {
            ParamGroup::Frozen
        } else if path.starts_with("backbone.") {
            ParamGroup::Backbone
        } else {
            ParamGroup::Other
        };
        let shape = param.lazy_shape().to_vec();
        let length = shape.iter().product::<usize>();
        let offset = slot(group).map_or(0, |slot| {
            self.lengths[slot] += length;
            self.lengths[slot] - length
        });
        self.entries.push(ParamEntry { path, shape, group, offset });
    }
}

type Entries<'a> = std::slice::Iter<'a, ParamEntry>;

fn next_entry<'a, const D: usize>(entries: &mut Entries<'a>, param: &Param<Tensor<D>>) -> &'a ParamEntry {
    let entry = entries.next().expect("a layout is used with the module it was built from");
    assert_eq!(entry.shape, param.lazy_shape().to_vec(), "the layout's shape of `{}`", entry.path);
    entry
}

/// What both kinds of gathering share: one list of 1-D tensors a group.
struct Gather<'a> {
    layout: &'a FlatLayout,
    entries: Entries<'a>,
    parts: [Vec<Tensor<1>>; 2],
}

impl<'a> Gather<'a> {
    fn new(layout: &'a FlatLayout) -> Self {
        Self { layout, entries: layout.entries.iter(), parts: [Vec::new(), Vec::new()] }
    }

    fn visit<const D: usize>(
        &mut self,
        param: &Param<Tensor<D>>,
        value: impl FnOnce(Tensor<D>) -> Tensor<D>,
    ) {
        let entry = next_entry(&mut self.entries, param);
        if let Some(slot) = slot(entry.group) {
            self.parts[slot].push(value(param.val()).reshape([entry.len()]));
        }
    }

    fn finish(self) -> Flat {
        let groups = ParamGroup::TRAINED
            .into_iter()
            .zip(self.parts)
            .filter(|(_, parts)| !parts.is_empty())
            .map(|(group, parts)| (group, Tensor::cat(parts, 0)))
            .collect();
        Flat::new(groups, self.layout.lengths)
    }
}

struct GatherParams<'a> {
    gather: Gather<'a>,
}

impl ModuleVisitor for GatherParams<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.gather.visit(param, Tensor::inner);
    }
}

struct GatherGradients<'a> {
    gather: Gather<'a>,
    gradients: &'a mut Gradients,
}

impl ModuleVisitor for GatherGradients<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Self { gather, gradients } = self;
        gather.visit(param, |value| {
            value.grad_remove(gradients).unwrap_or_else(|| {
                let device: Device = value.device().inner();
                Tensor::zeros(value.shape(), &device)
            })
        });
    }
}

struct RequireGradients<'a> {
    entries: Entries<'a>,
}

impl ModuleMapper for RequireGradients<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let entry = next_entry(&mut self.entries, &param);
        param.set_require_grad(entry.group != ParamGroup::Frozen)
    }
}

struct Scatter<'a> {
    entries: Entries<'a>,
    params: &'a Flat,
}

impl ModuleMapper for Scatter<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let entry = next_entry(&mut self.entries, &param);
        let Some(flat) = self.params.group(entry.group) else { return param };
        param.map(|old| {
            let value = flat.clone().narrow(0, entry.offset, entry.len()).reshape(old.shape());
            if old.is_autodiff() { value.autodiff().set_require_grad(old.is_require_grad()) } else { value }
        })
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;
    use longtake_shared::random::Key;

    use super::*;
    use crate::model::layers::{Init, LayerNorm, Linear};

    #[derive(Module, Debug)]
    struct Backbone {
        embed: Linear,
        norm: LayerNorm,
    }

    #[derive(Module, Debug)]
    struct Normal {
        weight: Param<Tensor<1>>,
        running_mean: Param<Tensor<1>>,
    }

    #[derive(Module, Debug)]
    struct Model {
        head: Vec<Linear>,
        norm: Normal,
        backbone: Backbone,
    }

    fn model(device: &Device) -> Model {
        let init = Init::new(device, Key::root(3));
        Model {
            head: (0..2).map(|index| Linear::torch(&init.item("head", index), 2, 3)).collect(),
            norm: Normal {
                weight: Param::from_data([2.0, 3.0], device),
                running_mean: Param::from_data([0.5, 0.25], device).set_require_grad(false),
            },
            backbone: Backbone {
                embed: Linear::torch(&init.field("embed"), 4, 2),
                norm: LayerNorm::new(&init.field("norm"), 2),
            },
        }
    }

    fn frozen() -> [String; 1] {
        ["backbone.embed.".to_owned()]
    }

    #[test]
    fn paths_groups_and_offsets_follow_the_fields() {
        let layout = FlatLayout::new(&model(&Device::flex()), &frozen()).unwrap();
        let seen: Vec<(&str, ParamGroup, usize)> =
            layout.entries().iter().map(|entry| (entry.path.as_str(), entry.group, entry.offset)).collect();
        assert_eq!(
            seen,
            [
                ("head.0.weight", ParamGroup::Other, 0),
                ("head.0.bias", ParamGroup::Other, 6),
                ("head.1.weight", ParamGroup::Other, 9),
                ("head.1.bias", ParamGroup::Other, 15),
                ("norm.weight", ParamGroup::Other, 18),
                ("norm.running_mean", ParamGroup::Frozen, 0),
                ("backbone.embed.weight", ParamGroup::Frozen, 0),
                ("backbone.embed.bias", ParamGroup::Frozen, 0),
                ("backbone.norm.weight", ParamGroup::Backbone, 0),
                ("backbone.norm.bias", ParamGroup::Backbone, 2),
            ]
        );
        assert_eq!((layout.len(), layout.group_len(ParamGroup::Backbone)), (24, 4));
        assert_eq!(layout.trained().next().map(|entry| entry.path.as_str()), Some("backbone.norm.weight"));
    }

    #[test]
    fn a_frozen_prefix_that_no_parameter_has_is_an_error() {
        let error = FlatLayout::new(&model(&Device::flex()), &["backbone.layers.".to_owned()]).unwrap_err();
        assert_eq!(error, UnknownPrefix { prefix: "backbone.layers.".to_owned() });
    }

    #[test]
    fn scattering_keeps_ids_tapes_and_what_is_frozen() {
        let device = Device::flex().autodiff();
        let model = model(&device);
        let layout = FlatLayout::new(&model, &frozen()).unwrap();
        let model = layout.require_gradients(model);
        let values: Vec<f32> = (0..24).map(|value| value as f32).collect();
        let params = Flat::from_host(&layout, &values, &device).unwrap();
        let before = model.clone();
        let after = layout.scatter_params(model, &params);

        assert_eq!(layout.gather_params(&after).to_host().unwrap(), values);
        assert_eq!(after.head[1].weight.id, before.head[1].weight.id);
        assert!(after.head[1].weight.val().is_require_grad());
        assert!(!after.backbone.embed.weight.val().is_require_grad());
        assert!(!after.norm.running_mean.val().is_require_grad());
        assert_eq!(after.backbone.embed.weight.to_data(), before.backbone.embed.weight.to_data());
        assert_eq!(after.norm.running_mean.to_data(), TensorData::from([0.5f32, 0.25]));
        assert_eq!(after.backbone.norm.bias.to_data(), TensorData::from([2.0f32, 3.0]));
    }

    #[test]
    fn gradients_come_in_the_same_order_and_absent_ones_are_zeros() {
        let device = Device::flex().autodiff();
        let model = model(&device);
        let layout = FlatLayout::new(&model, &frozen()).unwrap();
        let model = layout.require_gradients(model);
        let loss = (model.norm.weight.val() * 2.0 + model.backbone.norm.bias.val() * 3.0).sum();
        let mut gradients = loss.backward();
        let flat = layout.gather_gradients(&model, &mut gradients);
        let mut expected = vec![0.0; 24];
        expected[2..4].fill(3.0);
        expected[22..24].fill(2.0);
        assert_eq!(flat.to_host().unwrap(), expected);
        assert!(!flat.group(ParamGroup::Other).unwrap().is_autodiff());
    }
}
