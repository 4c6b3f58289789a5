//! Parameters and buffers of a module by name: the published `state_dict` keys.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;

use super::path::ModulePath;
use super::{NamedTensor, TensorData, host};

/// The field of [`crate::model::detector::Detector`] that the published models do not have.
const OWN_LEVEL: &str = "detection.";

/// The published name of a parameter at a path of our modules.
fn published(path: &ModulePath) -> String {
    let path = path.name();
    path.strip_prefix(OWN_LEVEL).map(str::to_owned).unwrap_or(path)
}

/// Every parameter and buffer of a module as f32, in declaration order.
pub fn named_tensors<M: Module>(module: &M) -> Vec<NamedTensor> {
    struct Visitor {
        path: ModulePath,
        tensors: Vec<NamedTensor>,
    }
    impl ModuleVisitor for Visitor {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }
        fn exit_module(&mut self, _name: &str, container: &str) {
            self.path.exit(container);
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let tensor = param.val();
            let shape = tensor.dims().to_vec();
            self.tensors.push(NamedTensor::f32(published(&self.path), shape, host(tensor)));
        }
    }
    let mut visitor = Visitor { path: ModulePath::default(), tensors: Vec::new() };
    module.visit(&mut visitor);
    visitor.tensors
}

/// What became of the tensors that a module was given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Names that the module has and the tensors had.
    pub used: Vec<String>,
    /// Names that the module has and the tensors lacked, or had in another shape or type (then with both).
    pub missing: Vec<String>,
    /// Names that the tensors had and the module lacks.
    pub unused: Vec<String>,
}

/// A module whose parameters and buffers have the values of the f32 tensors of the same name. Others stay as they are.
pub fn load_named<M: Module>(module: M, tensors: &[NamedTensor]) -> (M, Loaded) {
    struct Mapper<'a> {
        path: ModulePath,
        tensors: BTreeMap<&'a str, &'a NamedTensor>,
        loaded: Loaded,
    }
    impl ModuleMapper for Mapper<'_> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }
        fn exit_module(&mut self, _name: &str, container: &str) {
            self.path.exit(container);
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let name = published(&self.path);
            let shape = param.val().dims();
            match self.tensors.remove(name.as_str()) {
                Some(NamedTensor { shape: found, data: TensorData::F32(values), .. }) if *found == shape => {
                    self.loaded.used.push(name);
                    let data = burn::tensor::TensorData::new(values.clone(), shape);
                    param.map(|old| Tensor::from_data(data, &old.device()))
                }
                Some(tensor) => {
                    let (found, dtype) = (&tensor.shape, tensor.data.dtype());
                    let lack =
                        format!("{name} ({dtype:?} {found:?} in the file, F32 {shape:?} in the model)");
                    self.loaded.missing.push(lack);
                    param
                }
                None => {
                    self.loaded.missing.push(name);
                    param
                }
            }
        }
    }
    let tensors = tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    let mut mapper = Mapper { path: ModulePath::default(), tensors, loaded: Loaded::default() };
    let module = module.map(&mut mapper);
    mapper.loaded.unused = mapper.tensors.into_keys().map(str::to_owned).collect();
    (module, mapper.loaded)
}
