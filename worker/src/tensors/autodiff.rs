//! Modules with a tape.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::Tensor;

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
