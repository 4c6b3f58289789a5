//! Modules with a tape, without one, and as named tensors. A parameter's name is its path: the published `state_dict` key.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};

/// One parameter or buffer on the host.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    /// Its path in the module.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values, row-major.
    pub values: Vec<f32>,
}

/// The field of [`crate::model::detector::Detector`] that the published models do not have.
const OWN_LEVEL: &str = "detection.";

/// The published name of a parameter at a path of our modules.
fn published(path: &[String]) -> String {
    let path = path.join(".");
    path.strip_prefix(OWN_LEVEL).map(str::to_owned).unwrap_or(path)
}

/// A copy of a module that records a tape. No parameter requires a gradient yet.
pub fn with_tape<M: Module>(module: &M) -> M {
    struct Mapper;
    impl ModuleMapper for Mapper {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.set_require_grad(false).map(Tensor::autodiff)
        }
    }
    module.clone().map(&mut Mapper)
}

/// Every parameter and buffer of a module, in declaration order.
pub fn named_tensors<M: Module>(module: &M) -> Vec<NamedTensor> {
    struct Visitor {
        path: Vec<String>,
        tensors: Vec<NamedTensor>,
    }
    impl ModuleVisitor for Visitor {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let tensor = param.val();
            self.tensors.push(NamedTensor {
                name: published(&self.path),
                shape: tensor.dims().to_vec(),
                values: host(tensor),
            });
        }
    }
    let mut visitor = Visitor { path: Vec::new(), tensors: Vec::new() };
    module.visit(&mut visitor);
    visitor.tensors
}

/// What became of the tensors that a module was given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Names that the module has and the tensors had.
    pub used: Vec<String>,
    /// Names that the module has and the tensors lacked, or had in another shape (then with both shapes).
    pub missing: Vec<String>,
    /// Names that the tensors had and the module lacks.
    pub unused: Vec<String>,
}

/// A module whose parameters and buffers have the values of the tensors of the same name. Others stay as they are.
pub fn load_named<M: Module>(module: M, tensors: &[NamedTensor]) -> (M, Loaded) {
    struct Mapper<'a> {
        path: Vec<String>,
        tensors: BTreeMap<&'a str, &'a NamedTensor>,
        loaded: Loaded,
    }
    impl ModuleMapper for Mapper<'_> {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let name = published(&self.path);
            let shape = param.val().dims();
            match self.tensors.remove(name.as_str()) {
                Some(tensor) if tensor.shape == shape => {
                    self.loaded.used.push(name);
                    let data = TensorData::new(tensor.values.clone(), shape);
                    param.map(|old| Tensor::from_data(data, &old.device()))
                }
                Some(tensor) => {
                    self.loaded
                        .missing
                        .push(format!("{name} ({:?} in the file, {shape:?} in the model)", tensor.shape));
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
    let mut mapper = Mapper { path: Vec::new(), tensors, loaded: Loaded::default() };
    let module = module.map(&mut mapper);
    mapper.loaded.unused = mapper.tensors.into_keys().map(str::to_owned).collect();
    (module, mapper.loaded)
}

/// A tensor's values on the host, row-major.
pub fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec::<f32>().expect("every float tensor of a model is f32")
}
